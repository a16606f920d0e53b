//! [`Principal`]: who calls, proven.

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::config::{AssuranceLevel, OrganisationForm};
use crate::tenancy::{DeviceId, OrganisationId, Role, Scopes, UserId};

/// A verified caller. Only this stage makes one.
#[derive(Debug)]
pub struct Principal(Identity);

#[derive(Debug)]
pub enum Identity {
    /// A person, by an access token.
    User(User),
    Device(Device),
    Service(Service),
}

/// A person, and what the token says.
#[derive(Debug)]
pub struct User {
    id: UserId,
    session: Option<Box<str>>,
    token_id: Option<Box<str>>,
    issued_at: Option<i64>,
    email: Option<Box<str>>,
    assurance: AssuranceLevel,
    claimed: Claimed,
}

/// What a token says of organisations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    pub organisations: ClaimedOrganisations,
    /// The one that is meant when none is named.
    pub default: Option<OrganisationId>,
    /// What the user is in them.
    pub role: ClaimedRole,
}

/// What the organisation claim of a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimedOrganisations {
    /// These, without repetition, in the token's order.
    Listed(Vec<OrganisationId>),
    Missing,
    /// The claim is there and cannot be read.
    Unreadable(String),
}

/// What the role claim of a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimedRole {
    Unasked,
    /// The claim is not there, or no text.
    Missing,
    Named(Role),
}

#[derive(Debug)]
pub struct Device {
    id: DeviceId,
    organisation: OrganisationId,
    name: String,
    scopes: Scopes,
}

/// A program of the operator's, which reaches every organisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    AdminKey,
    /// By the project's `service_role` key.
    ServiceRole,
    /// By the secret of the database's webhooks, which is good for telling of changes only.
    Webhook,
}

impl Principal {
    pub(super) fn user(user: User) -> Self {
        Self(Identity::User(user))
    }

    pub(super) fn device(device: Device) -> Self {
        Self(Identity::Device(device))
    }

    pub(super) fn service(service: Service) -> Self {
        Self(Identity::Service(service))
    }

    pub fn identity(&self) -> &Identity {
        &self.0
    }

    /// What kind of caller this is, for logs and answers.
    pub fn kind(&self) -> &'static str {
        match &self.0 {
            Identity::User(_) => "user",
            Identity::Device(_) => "device",
            Identity::Service(_) => "service",
        }
    }

    /// The caller's identifier; a service has only its name.
    pub fn id(&self) -> PrincipalId {
        match &self.0 {
            Identity::User(user) => PrincipalId::Uuid(user.id.0),
            Identity::Device(device) => PrincipalId::Uuid(device.id.0),
            Identity::Service(service) => PrincipalId::Name(service.name()),
        }
    }

    /// Bytes that a principal takes, for the cache that keeps it.
    pub(super) fn weight(&self) -> usize {
        let Identity::User(user) = &self.0 else { return size_of::<Self>() };
        let listed = match &user.claimed.organisations {
            ClaimedOrganisations::Listed(all) => {
                all.iter().map(|id| size_of::<OrganisationId>() + id.as_str().len()).sum()
            }
            ClaimedOrganisations::Missing => 0,
            ClaimedOrganisations::Unreadable(text) => text.len(),
        };
        let texts = [&user.session, &user.token_id, &user.email];
        let texts: usize = texts.into_iter().flatten().map(|text| text.len()).sum();
        size_of::<Self>() + listed + texts
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PrincipalId {
    Uuid(Uuid),
    Name(&'static str),
}

impl std::fmt::Display for PrincipalId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uuid(id) => id.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl User {
    pub(super) fn new(
        id: UserId,
        session: Option<&str>,
        token_id: Option<&str>,
        issued_at: Option<i64>,
        email: Option<&str>,
        claimed: Claimed,
    ) -> Self {
        Self {
            id,
            session: session.map(Into::into),
            token_id: token_id.map(Into::into),
            issued_at,
            email: email.filter(|email| is_email(email)).map(Into::into),
            assurance: AssuranceLevel::Aal1,
            claimed,
        }
    }

    /// The same, signed in like this.
    pub(super) fn at_level(mut self, assurance: AssuranceLevel) -> Self {
        self.assurance = assurance;
        self
    }

    pub fn id(&self) -> UserId {
        self.id
    }

    /// The sign-in that the token stems from (`session_id`).
    pub fn session_id(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// The token's own identifier (`jti`), which Supabase gives none unless a hook adds it.
    pub(super) fn token_id(&self) -> Option<&str> {
        self.token_id.as_deref()
    }

    /// When the token was issued (`iat`), in seconds since the epoch.
    pub(super) fn issued_at(&self) -> Option<i64> {
        self.issued_at
    }

    /// Whether they have shown a second factor (`aal`).
    pub fn assurance_level(&self) -> AssuranceLevel {
        self.assurance
    }

    /// The e-mail address in the token, for display only: no decision depends on it.
    pub fn email(&self) -> Option<&str> {
        self.email.as_deref()
    }

    /// What the token says of organisations.
    pub fn claimed(&self) -> &Claimed {
        &self.claimed
    }
}

/// Whether a text is an e-mail address that is safe to display, of at most 254 bytes (RFC 5321,
/// 4.5.3.1.3). In tokens of users without one, Supabase's claim is empty.
fn is_email(text: &str) -> bool {
    let is_shown = |c: char| c.is_ascii_graphic() || c.is_alphanumeric();
    text.contains('@') && text.len() <= 254 && text.chars().all(is_shown)
}

impl Device {
    pub(super) fn new(
        id: DeviceId,
        organisation: OrganisationId,
        name: String,
        scopes: Scopes,
    ) -> Self {
        Self { id, organisation, name, scopes }
    }

    pub fn id(&self) -> DeviceId {
        self.id
    }

    pub fn organisation(&self) -> &OrganisationId {
        &self.organisation
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn scopes(&self) -> Scopes {
        self.scopes
    }
}

impl Service {
    /// The name in logs and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::AdminKey => "admin_key",
            Self::ServiceRole => "service_role",
            Self::Webhook => "webhook",
        }
    }
}

/// What a token says of organisations, by the names of the claims.
pub(super) fn claimed(
    claims: &Map<String, Value>,
    organisations: &str,
    form: &OrganisationForm,
    default: Option<&str>,
    role: Option<&str>,
) -> Claimed {
    let default = default.and_then(|path| find(claims, path)).and_then(Value::as_str);
    Claimed {
        organisations: claimed_organisations(claims, organisations, form),
        // One that cannot be read is none; it is never more than a convenience.
        default: default.and_then(|name| OrganisationId::parse(name).ok()),
        role: match role {
            None => ClaimedRole::Unasked,
            Some(path) => find(claims, path)
                .and_then(Value::as_str)
                .map_or(ClaimedRole::Missing, |name| ClaimedRole::Named(Role::new(name))),
        },
    }
}

/// Reads the organisation claim in the form that is configured.
fn claimed_organisations(
    claims: &Map<String, Value>,
    path: &str,
    form: &OrganisationForm,
) -> ClaimedOrganisations {
    let claim = match find(claims, path) {
        None | Some(Value::Null) => return ClaimedOrganisations::Missing,
        Some(claim) => claim,
    };
    let Some(names) = named(claim, form) else {
        return ClaimedOrganisations::Unreadable(other_form(claim, path, form));
    };
    let mut organisations = Vec::with_capacity(names.len());
    for name in names {
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

/// The names that a claim holds; none if it has another form.
fn named<'a>(claim: &'a Value, form: &OrganisationForm) -> Option<Vec<&'a str>> {
    match (form, claim) {
        (OrganisationForm::Texts, Value::String(one)) => Some(vec![one]),
        (OrganisationForm::Texts, Value::Array(many)) => many.iter().map(Value::as_str).collect(),
        (OrganisationForm::Keys, Value::Object(entries)) => {
            let is_named = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
            let named = entries.iter().filter(|(_, value)| is_named(value));
            Some(named.map(|(name, _)| name.as_str()).collect())
        }
        (OrganisationForm::Objects { field }, Value::Array(many)) => {
            // An index into anything but an object gives nothing.
            many.iter().map(|one| one.get(field.as_str())?.as_str()).collect()
        }
        _ => None,
    }
}

/// What is wrong with a claim of another form than the configured one, and which setting reads it.
fn other_form(claim: &Value, path: &str, form: &OrganisationForm) -> String {
    let wanted = match form {
        OrganisationForm::Texts => "a text or a list of texts".to_owned(),
        OrganisationForm::Keys => "an object whose keys are organisations".to_owned(),
        OrganisationForm::Objects { field } => {
            format!("a list of objects, each with a text {field:?}")
        }
    };
    let is_objects = |many: &[Value]| !many.is_empty() && many.iter().all(Value::is_object);
    let is_texts = |many: &[Value]| many.iter().all(Value::is_string);
    let way_out = match (claim, form) {
        (Value::Array(many), OrganisationForm::Objects { .. }) if is_objects(many) => {
            "; see auth.organisation_claim_field"
        }
        (Value::Array(many), _) if is_objects(many) => {
            "; auth.organisation_claim_form = \"objects\" reads a list of objects"
        }
        (Value::Object(_), _) => "; auth.organisation_claim_form = \"keys\" reads an object's keys",
        (Value::Array(many), _) if is_texts(many) => {
            "; auth.organisation_claim_form = \"texts\" reads a list of texts"
        }
        (Value::String(_), _) => "; auth.organisation_claim_form = \"texts\" reads a text",
        _ => "",
    };
    format!("{path} must be {wanted}{way_out}")
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

/// Principals for the tests of other stages, which cannot make any.
#[cfg(test)]
pub(crate) mod samples {
    use super::*;

    pub(crate) const SESSION: &str = "5e551011-0000-4000-8000-000000000001";
    pub(crate) const TOKEN_ID: &str = "token-1";
    pub(crate) const ISSUED_AT: i64 = 1_700_000_000;
    pub(crate) const EMAIL: &str = "alice@example.com";

    pub(crate) fn ids(names: &[&str]) -> Vec<OrganisationId> {
        names.iter().map(|name| OrganisationId::parse(name).unwrap()).collect()
    }

    pub(crate) fn user() -> User {
        user_of(ClaimedOrganisations::Missing)
    }

    pub(crate) fn user_of(organisations: ClaimedOrganisations) -> User {
        let claimed = Claimed { organisations, default: None, role: ClaimedRole::Unasked };
        let id = UserId(Uuid::from_u128(7));
        User::new(id, Some(SESSION), Some(TOKEN_ID), Some(ISSUED_AT), Some(EMAIL), claimed)
    }

    pub(crate) fn with_default(mut user: User, name: &str) -> User {
        user.claimed.default = Some(OrganisationId::parse(name).unwrap());
        user
    }

    pub(crate) fn with_role(mut user: User, name: &str) -> User {
        user.claimed.role = ClaimedRole::Named(Role::new(name));
        user
    }

    pub(crate) fn with_second_factor(user: User) -> User {
        user.at_level(AssuranceLevel::Aal2)
    }

    pub(crate) fn device(organisation: &str, scopes: Scopes) -> Device {
        let organisation = OrganisationId::parse(organisation).unwrap();
        Device::new(DeviceId(Uuid::from_u128(8)), organisation, "hub".to_owned(), scopes)
    }

    pub(crate) fn principal(identity: Identity) -> std::sync::Arc<Principal> {
        std::sync::Arc::new(Principal(identity))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(claims: Value, path: &str) -> ClaimedOrganisations {
        let Value::Object(claims) = claims else { panic!("not an object") };
        claimed_organisations(&claims, path, &OrganisationForm::Texts)
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

    #[test]
    fn only_what_can_be_shown_as_an_address_is_one() {
        let long = format!("{}@example.com", "a".repeat(250));
        for (text, shown) in [
            ("alice@example.com", true),
            ("zoë@exämple.com", true),
            ("", false),
            ("+15551234567", false),
            ("alice @example.com", false),
            ("alice@example.com\n", false),
            ("\u{202E}moc.elpmaxe@ecila", false),
            (&long, false),
        ] {
            let (id, claimed) = (samples::user().id, samples::user().claimed);
            let user = User::new(id, None, None, None, Some(text), claimed);
            assert_eq!(user.email().is_some(), shown, "{text:?}");
        }
    }

    // user_metadata is written by the user.
    #[test]
    fn user_metadata_is_never_consulted() {
        let claims = json!({"user_metadata": {"org_id": "a"}});
        assert_eq!(read(claims, "app_metadata.org_id"), ClaimedOrganisations::Missing);
    }
}
