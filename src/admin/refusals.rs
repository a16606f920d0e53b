//! The most recent refusals of this copy.

use std::collections::BTreeMap;

use http::Uri;
use serde::Serialize;
use strum::VariantArray as _;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::{Admin, AdminError, Answer};
use crate::authz::OperatorGrant;
use crate::clock::rfc3339;
use crate::reason::Reason;
use crate::refusals::{Filter, Refusal};
use crate::tenancy::OrganisationId;

/// The most recent requests of this copy that were not served, the newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct RefusalList {
    refusals: Vec<RefusalView>,
    /// How many there were of each reason since this copy started.
    counts: BTreeMap<&'static str, u64>,
    /// How many of them are not kept any more.
    overwritten: u64,
}

/// A request that was not served.
#[derive(Serialize, ToSchema)]
struct RefusalView {
    /// When it ended (RFC 3339).
    at: String,
    request_id: String,
    /// 0 if the client went away first.
    status: u16,
    reason: &'static str,
    /// `none` where no route was found.
    surface: &'static str,
    /// The organisation that was granted, several with `|` between them, or that of the path.
    organisation: Option<String>,
    /// What `X-Scope-OrgID` named and was not granted.
    asked: Option<String>,
    method: String,
    /// The path, without the query string.
    path: String,
    /// The client's address.
    client: String,
    /// `user`, `device` or `service`, if the caller is known.
    kind: Option<&'static str>,
    /// The identifier of the caller, if it is known.
    principal: Option<String>,
    /// What the log says beyond the reason.
    detail: Option<String>,
}

const DEFAULT_LIMIT: usize = 100;
pub(super) const MOST: usize = 1000;

pub(super) fn list(parts: &Admin, _: &OperatorGrant, uri: &Uri) -> Result<Answer, AdminError> {
    let (limit, filter) = read(uri.query().unwrap_or_default())?;
    let refusals = parts.refusals.newest(limit, &filter).into_iter().map(RefusalView::from);
    let counts = parts.refusals.counts().map(|(reason, count)| (reason.name(), count));
    Ok(Answer::of(&RefusalList {
        refusals: refusals.collect(),
        counts: counts.collect(),
        overwritten: parts.refusals.overwritten(),
    }))
}

/// Reads the parameters. An unknown one is a mistake: a filter that does not filter misleads.
fn read(query: &str) -> Result<(usize, Filter), AdminError> {
    let (mut limit, mut filter) = (DEFAULT_LIMIT, Filter::default());
    let mut seen = Vec::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if seen.contains(&name) {
            return Err(AdminError::Request(format!("{name} is there twice")));
        }
        seen.push(name.clone());
        match &*name {
            "limit" => {
                let number = value.parse().ok().filter(|number| (1..=MOST).contains(number));
                let wanted = || format!("limit must be a whole number from 1 to {MOST}");
                limit = number.ok_or_else(|| AdminError::Request(wanted()))?;
            }
            "reason" => {
                let reason = Reason::VARIANTS.iter().find(|reason| reason.name() == value);
                let unknown = || "there is no such reason; docs/reference/reasons.md has all";
                let reason = reason.ok_or_else(|| AdminError::Request(unknown().to_owned()))?;
                filter.reason = Some(*reason);
            }
            "organisation" => {
                let organisation = OrganisationId::parse(&value);
                let invalid = || "organisation is no identifier of an organisation".to_owned();
                organisation.map_err(|_| AdminError::Request(invalid()))?;
                filter.organisation = Some(value.into_owned());
            }
            _ => {
                let known = "there are limit, reason and organisation".to_owned();
                return Err(AdminError::Request(known));
            }
        }
    }
    Ok((limit, filter))
}

/// RFC 3339 with three places, as in the log.
fn milliseconds(at: OffsetDateTime) -> String {
    let whole = rfc3339(at.replace_nanosecond(0).unwrap_or(at));
    format!("{}.{:03}Z", whole.trim_end_matches('Z'), at.millisecond())
}

impl From<Refusal> for RefusalView {
    fn from(refusal: Refusal) -> Self {
        let (kind, principal) = refusal.principal.unzip();
        Self {
            at: milliseconds(refusal.at),
            request_id: refusal.request_id,
            status: refusal.status,
            reason: refusal.reason.name(),
            surface: refusal.surface.unwrap_or("none"),
            organisation: refusal.organisation,
            asked: refusal.asked,
            method: refusal.method,
            path: refusal.path,
            client: refusal.client.to_string(),
            kind,
            principal,
            detail: refusal.detail,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_log() {
        let at = OffsetDateTime::from_unix_timestamp_nanos(1_700_000_000_042_900_000).unwrap();
        assert_eq!(milliseconds(at), "2023-11-14T22:13:20.042Z");
    }

    #[test]
    fn parameters_are_read_or_refused() {
        let (limit, filter) = read("limit=5&reason=not_a_member&organisation=org-a").unwrap();
        assert_eq!((limit, filter.reason), (5, Some(Reason::NotAMember)));
        assert_eq!(filter.organisation.as_deref(), Some("org-a"));
        assert_eq!(read("").unwrap().0, DEFAULT_LIMIT);
        for wrong in
            ["limit=0", "limit=1001", "limit=x", "reason=nonsense", "organisation=a%20b", "x=1"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
