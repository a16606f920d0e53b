//! [`Principal`]: who calls, proven.

use serde_json::{Map, Value};

use crate::tenancy::{OrganisationId, UserId};

/// Somebody whose credential has been verified. Only this stage makes one.
#[derive(Debug)]
pub struct Principal {
    user: UserId,
    session: Option<String>,
    organisations: ClaimedOrganisations,
}

/// What the organisation claim of a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimedOrganisations {
    /// These, without repetition, in the token's order.
    Listed(Vec<OrganisationId>),
    /// The claim is not there.
    Missing,
    /// The claim is there and cannot be read.
    Unreadable(String),
}

impl Principal {
    pub(super) fn user(
        user: UserId,
        session: Option<String>,
        organisations: ClaimedOrganisations,
    ) -> Self {
        Self { user, session, organisations }
    }

    /// The user.
    pub fn user_id(&self) -> UserId {
        self.user
    }

    /// The sign-in that the token stems from (`session_id`).
    pub fn session_id(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// The organisations that the token names.
    pub fn organisations(&self) -> &ClaimedOrganisations {
        &self.organisations
    }

    /// Bytes that a principal takes, for the cache that keeps it.
    pub(super) fn weight(&self) -> usize {
        let listed = match &self.organisations {
            ClaimedOrganisations::Listed(all) => {
                all.iter().map(|id| size_of::<OrganisationId>() + id.as_str().len()).sum()
            }
            ClaimedOrganisations::Missing => 0,
            ClaimedOrganisations::Unreadable(text) => text.len(),
        };
        size_of::<Self>() + listed + self.session.as_ref().map_or(0, String::len)
    }
}

/// Reads the organisation claim: a string, or an array of strings.
pub(super) fn claimed_organisations(
    claims: &Map<String, Value>,
    path: &str,
) -> ClaimedOrganisations {
    let names: Vec<&Value> = match find(claims, path) {
        None | Some(Value::Null) => return ClaimedOrganisations::Missing,
        Some(Value::Array(names)) => names.iter().collect(),
        Some(name) => vec![name],
    };
    let mut organisations = Vec::with_capacity(names.len());
    for name in names {
        let Some(name) = name.as_str() else {
            let problem = format!("{path} must be a text or a list of texts");
            return ClaimedOrganisations::Unreadable(problem);
        };
        match OrganisationId::parse(name) {
            Ok(id) if organisations.contains(&id) => {}
            Ok(id) => organisations.push(id),
            Err(error) => return ClaimedOrganisations::Unreadable(format!("{path}: {error}")),
        }
    }
    if organisations.is_empty() {
        return ClaimedOrganisations::Missing;
    }
    ClaimedOrganisations::Listed(organisations)
}

/// Looks a claim up by its whole name first (`https://example.com/org` is one), then by its dots.
fn find<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let mut parts = path.split('.');
    let first = claims.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.get(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(claims: Value, path: &str) -> ClaimedOrganisations {
        let Value::Object(claims) = claims else { panic!("not an object") };
        claimed_organisations(&claims, path)
    }

    fn listed(names: &[&str]) -> ClaimedOrganisations {
        let ids = names.iter().map(|name| OrganisationId::parse(name).unwrap());
        ClaimedOrganisations::Listed(ids.collect())
    }

    #[test]
    fn a_claim_is_a_text_or_a_list() {
        let path = "app_metadata.org_id";
        assert_eq!(read(json!({"app_metadata": {"org_id": "a"}}), path), listed(&["a"]));
        assert_eq!(
            read(json!({"app_metadata": {"org_id": ["b", "a", "b"]}}), path),
            listed(&["b", "a"])
        );
        assert_eq!(read(json!({"https://x.y/org": "a"}), "https://x.y/org"), listed(&["a"]));
    }

    #[test]
    fn nothing_is_missing_and_nonsense_is_unreadable() {
        let path = "app_metadata.org_id";
        for claims in [
            json!({}),
            json!({"app_metadata": null}),
            json!({"app_metadata": {"org_id": null}}),
            json!({"app_metadata": {"org_id": []}}),
        ] {
            assert_eq!(read(claims, path), ClaimedOrganisations::Missing);
        }
        for id in [
            json!(7),
            json!({"a": 1}),
            json!(["a", 7]),
            json!(""),
            json!("a|b"),
            json!(["a", "b c"]),
        ] {
            let read = read(json!({"app_metadata": {"org_id": id}}), path);
            assert!(matches!(read, ClaimedOrganisations::Unreadable(_)), "{id}");
        }
    }

    // user_metadata is written by the user.
    #[test]
    fn user_metadata_is_never_consulted() {
        let claims = json!({"user_metadata": {"org_id": "a"}});
        assert_eq!(read(claims, "app_metadata.org_id"), ClaimedOrganisations::Missing);
    }
}
