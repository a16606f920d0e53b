//! `[auth]`

use std::time::Duration;

use url::Url;

use super::reader::{Raw, Section};
use super::shared_secrets::{self, MIN_SECRET_BYTES};
use super::shown::Shown;
use super::values::{GIB, MIB, Secret, duration, list, size, switch, text, url};

#[derive(Clone, Debug)]
pub struct AuthConfig {
    pub tokens: TokenPolicy,
    /// Where the public keys are published; `None` if only HS256 is used.
    pub key_set: Option<KeySetConfig>,
    /// The legacy shared secrets, any of which verifies HS256: several during a rotation, none to
    /// reject HS256.
    pub hs256_secrets: Vec<Secret>,
    /// Memory for verified tokens.
    pub token_cache_bytes: u64,
    /// Keys of services, any of which is accepted: several during a rotation.
    pub admin_keys: Vec<Secret>,
    /// Whether a token's session must still exist.
    pub check_sessions: bool,
    /// How a user must have signed in to administer an organisation.
    pub admin_required_aal: AssuranceLevel,
}

/// What the claims of a user's token must contain.
#[derive(Clone, Debug)]
pub struct TokenPolicy {
    /// `iss`, compared exactly.
    pub issuer: String,
    /// A value that `aud` must be or contain.
    pub audience: String,
    /// The values of `role` that a user's token may have.
    pub user_roles: Vec<String>,
    /// The claim that names the organisation: looked up as one name first, then as a dotted path.
    pub organisation_claim: String,
    pub organisation_form: OrganisationForm,
    /// The claim that names the organisation of a request without a selector.
    pub default_organisation_claim: Option<String>,
    /// The claim that names the user's role in the token's organisations.
    pub role_claim: Option<String>,
    /// Whether the project's `service_role` key is accepted, as a service.
    pub service_role: ServiceRole,
    /// Allowed difference between the issuer's clock and ours.
    pub leeway: Duration,
    /// Whether anonymous users (`is_anonymous`) are accepted.
    pub allow_anonymous: bool,
    /// Which OAuth clients (`client_id`) may act for a user.
    pub oauth_clients: OauthClients,
    /// How a user must have signed in.
    pub required_aal: AssuranceLevel,
}

/// The form in which the organisation claim names organisations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrganisationForm {
    /// A text, or a list of texts.
    Texts,
    /// The keys of an object, whatever their values; a key with the value `false` or `null` does
    /// not count.
    Keys,
    /// One field of each object in a list.
    Objects {
        /// The field that holds the identifier.
        field: String,
    },
}

/// Which OAuth clients may act for a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OauthClients {
    /// Any client that the issuer has registered, written `["*"]`.
    Any,
    /// Only these; none by default.
    Listed(Vec<String>),
}

impl OauthClients {
    pub fn allow(&self, client: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(listed) => listed.iter().any(|one| one == client),
        }
    }
}

/// How surely it is known that a user is who they say: the authenticator assurance level of Supabase Auth
/// (the claim `aal`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AssuranceLevel {
    /// By one factor, such as a password.
    Aal1,
    /// By a second one, too.
    Aal2,
}

impl AssuranceLevel {
    /// What the claim says.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aal1 => "aal1",
            Self::Aal2 => "aal2",
        }
    }
}

/// Whether the project's `service_role` key is accepted, as a service with access to everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceRole {
    /// It is accepted, and must be protected like a root password.
    Allowed,
    /// It is rejected like the `anon` key.
    Refused,
}

impl Shown for OrganisationForm {
    fn shown(&self) -> String {
        match self {
            Self::Texts => "texts".to_owned(),
            Self::Keys => "keys".to_owned(),
            Self::Objects { field } => format!("objects, field {field}"),
        }
    }
}

impl Shown for OauthClients {
    fn shown(&self) -> String {
        match self {
            Self::Any => "*".to_owned(),
            Self::Listed(clients) => clients.shown(),
        }
    }
}

impl Shown for ServiceRole {
    fn shown(&self) -> String {
        (*self == Self::Allowed).shown()
    }
}

impl Shown for AssuranceLevel {
    fn shown(&self) -> String {
        self.name().to_owned()
    }
}

/// Where the issuer publishes its keys, and how long they are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySetConfig {
    pub url: Url,
    /// How often the set is fetched, and so how long a removed key may still work.
    pub refresh_interval: Duration,
    /// How long the set is trusted while it cannot be fetched.
    pub max_age: Duration,
    /// The shortest time between two fetches that unknown key IDs trigger.
    pub cool_down: Duration,
    /// The timeout of one fetch.
    pub fetch_timeout: Duration,
}

pub(super) fn read(section: &mut Section<'_>, has_database: bool) -> AuthConfig {
    let second = Duration::from_secs(1);
    let minute = 60 * second;
    let issuer = section.require(
        "issuer",
        "the issuer of the tokens, such as \"https://<ref>.supabase.co/auth/v1\"",
        issuer_text,
    );
    if let Some(unusual) = issuer.as_deref().and_then(unusual_issuer) {
        section.warn("issuer", unusual);
    }
    let hs256_secrets = read_hs256_secrets(section);
    let has_secret = !hs256_secrets.is_empty() || section.is_faulty("hs256_secret");
    let check_sessions = section.get("check_sessions", false, switch);
    if check_sessions && !has_database {
        section.fault("check_sessions", "needs database.url, where auth.sessions is".to_owned());
    }
    AuthConfig {
        admin_keys: read_admin_keys(section),
        check_sessions,
        admin_required_aal: section.get(
            "admin_required_aal",
            AssuranceLevel::Aal1,
            assurance_level,
        ),
        key_set: read_key_set(section, issuer.as_deref(), has_secret),
        hs256_secrets,
        tokens: TokenPolicy {
            issuer: issuer.unwrap_or_default(),
            audience: section.get("audience", "authenticated".to_owned(), non_empty),
            organisation_claim: section.get(
                "organisation_claim",
                "app_metadata.org_id".to_owned(),
                organisation_claim,
            ),
            organisation_form: read_organisation_form(section),
            user_roles: section.get("user_roles", vec!["authenticated".to_owned()], user_roles),
            default_organisation_claim: section.get(
                "default_organisation_claim",
                None,
                optional_claim,
            ),
            role_claim: section.get("role_claim", None, optional_claim),
            service_role: section.get("allow_service_role", ServiceRole::Refused, |raw| {
                Ok(if switch(raw)? { ServiceRole::Allowed } else { ServiceRole::Refused })
            }),
            leeway: section
                .get("leeway", 30 * second, |raw| duration(raw, Duration::ZERO, 2 * minute)),
            allow_anonymous: section.get("allow_anonymous", false, switch),
            oauth_clients: section.get("oauth_clients", OauthClients::Listed(Vec::new()), |raw| {
                let clients = list(raw)?;
                Ok(if clients == ["*"] { OauthClients::Any } else { OauthClients::Listed(clients) })
            }),
            required_aal: section.get("required_aal", AssuranceLevel::Aal1, assurance_level),
        },
        token_cache_bytes: section
            .get("token_cache_bytes", 64 * MIB, |raw| size(raw, MIB, 64 * GIB)),
    }
}

/// The end of every issuer of Supabase Auth.
const ISSUER_PATH: &str = "/auth/v1";

/// An issuer is compared with `iss` character by character: a slightly different one rejects every
/// token.
fn issuer_text(raw: Raw) -> Result<String, String> {
    let issuer = text(raw)?;
    let address = url(Raw::Text(issuer.clone()), "https://<ref>.supabase.co/auth/v1")?;
    let host = address.host_str().unwrap_or_default();
    let is_supabases = [".supabase.co", ".supabase.in", ".supabase.red"]
        .iter()
        .any(|domain| host.ends_with(domain));
    let path = address.path();
    let right = |path: &str| format!("{}{path}", address.origin().ascii_serialization());
    if path.ends_with("/auth/v1/") {
        let right = issuer.trim_end_matches('/');
        return Err(format!("ends in a slash, and tokens say it without: \"{right}\""));
    }
    if is_supabases && path != ISSUER_PATH {
        return Err(format!("must be \"{}\", as tokens say it", right(ISSUER_PATH)));
    }
    if is_supabases && address.scheme() != "https" {
        return Err("must begin with https://, as tokens say it".to_owned());
    }
    if path != "/" && issuer != right(path)
        || path == "/" && issuer.trim_end_matches('/') != right("")
    {
        return Err(format!(
            "must be written as tokens say it, in lower case and without the scheme's own port: \
             \"{}\"",
            right(path)
        ));
    }
    Ok(issuer)
}

/// Why an issuer is not one of Supabase Auth's, although it looks like one.
fn unusual_issuer(issuer: &str) -> Option<String> {
    let why = if issuer.ends_with('/') {
        "ends in a slash"
    } else if !issuer.ends_with(ISSUER_PATH) {
        "does not end in /auth/v1"
    } else {
        return None;
    };
    Some(format!(
        "{why}, unlike Supabase Auth's; it must be exactly what tokens have as iss, which \
         explain-token shows"
    ))
}

/// One secret, or several during a rotation.
fn read_hs256_secrets(section: &mut Section<'_>) -> Vec<Secret> {
    let secrets = section.secrets("hs256_secret", shared_secrets::read, shared_secrets::of_text);
    if let Some(short) =
        secrets.iter().find(|one| !one.is_empty() && one.expose().len() < MIN_SECRET_BYTES)
    {
        let problem = format!(
            "has {} bytes and must have at least {MIN_SECRET_BYTES} (RFC 7518)",
            short.expose().len()
        );
        section.fault("hs256_secret", problem);
    }
    if secrets.iter().any(is_beside_a_secret) {
        let problem = format!(
            "has white space beside {MIN_SECRET_BYTES} or more characters without any; write several \
             secrets as a list, [\"NEW\", \"OLD\"], each of at least {MIN_SECRET_BYTES} bytes"
        );
        section.fault("hs256_secret", problem);
    }
    let may_be_several = |secret: &Secret| {
        std::str::from_utf8(secret.expose()).is_ok_and(shared_secrets::may_be_several)
    };
    if secrets.len() == 1 && secrets.iter().any(may_be_several) {
        let problem = "has a comma and is taken as one secret; write several as a list, [\"NEW\", \
                       \"OLD\"]";
        section.warn("hs256_secret", problem.to_owned());
    }
    secrets.into_iter().filter(|one| !one.is_empty()).collect()
}

/// Whether a text has the length of a secret, with something beside it.
fn is_beside_a_secret(secret: &Secret) -> bool {
    let parts: Vec<usize> = secret
        .expose()
        .split(u8::is_ascii_whitespace)
        .map(<[u8]>::len)
        .filter(|length| *length > 0)
        .collect();
    let long = parts.iter().filter(|length| **length >= MIN_SECRET_BYTES).count();
    long > 0 && long < parts.len()
}

/// The roles of a project's API keys, and those of Postgres: no user has them.
const NEVER_USERS: [&str; 5] =
    ["anon", "service_role", "supabase_admin", "supabase_auth_admin", "postgres"];

fn user_roles(raw: Raw) -> Result<Vec<String>, String> {
    let roles = list(raw)?;
    if roles.is_empty() || roles.iter().any(|role| role.trim().is_empty()) {
        return Err("must name at least one role, such as [\"authenticated\"]".to_owned());
    }
    match roles.iter().find(|role| NEVER_USERS.contains(&role.as_str())) {
        Some(key) => Err(format!(
            "must not hold {key:?}: that is a project's API key or the database's own role, not a \
             person's (see auth.allow_service_role)"
        )),
        None => Ok(roles),
    }
}

fn assurance_level(raw: Raw) -> Result<AssuranceLevel, String> {
    match text(raw)?.as_str() {
        "aal1" => Ok(AssuranceLevel::Aal1),
        "aal2" => Ok(AssuranceLevel::Aal2),
        _ => Err(
            "must be \"aal1\" (however users have signed in) or \"aal2\" (with a second factor)"
                .to_owned(),
        ),
    }
}

fn read_organisation_form(section: &mut Section<'_>) -> OrganisationForm {
    let field = section.get("organisation_claim_field", "id".to_owned(), non_empty);
    section.get("organisation_claim_form", OrganisationForm::Texts, |raw| {
        match text(raw)?.as_str() {
            "texts" => Ok(OrganisationForm::Texts),
            "keys" => Ok(OrganisationForm::Keys),
            "objects" => Ok(OrganisationForm::Objects { field }),
            _ => Err(
                "must be \"texts\" (a text or a list of texts), \"keys\" (an object's keys) or \
                      \"objects\" (a list of objects, each with auth.organisation_claim_field)"
                    .to_owned(),
            ),
        }
    })
}

fn read_key_set(
    section: &mut Section<'_>,
    issuer: Option<&str>,
    has_secret: bool,
) -> Option<KeySetConfig> {
    let second = Duration::from_secs(1);
    let by_default = issuer.and_then(|issuer| {
        Url::parse(&format!("{}/.well-known/jwks.json", issuer.trim_end_matches('/'))).ok()
    });
    let url = section.get("jwks_url", by_default, |raw| match text(raw)? {
        none if none.is_empty() => Ok(None),
        some => url(Raw::Text(some), "https://<ref>.supabase.co/auth/v1/.well-known/jwks.json")
            .map(Some),
    });
    let allow_http = section.get("jwks_allow_http", false, switch);
    if let Some(url) =
        url.as_ref().filter(|url| url.scheme() == "http" && !allow_http && !is_loopback(url))
    {
        let problem = format!(
            "{url} is not encrypted: a machine in between could supply its own keys; use https, or \
             set auth.jwks_allow_http = true on a network that you trust"
        );
        section.fault("jwks_url", problem);
    }
    // All keys are parsed, with or without an address: a wrong value is always a fault.
    let (shortest, day) = (second / 10, 86_400 * second);
    // Supabase's edge caches the set for 10 minutes, so fetching more often gains nothing.
    let refresh_interval = section
        .get("jwks_refresh_interval", 300 * second, |raw| duration(raw, shortest, 600 * second));
    let max_age = section.get("jwks_max_age", day, |raw| duration(raw, shortest, 30 * day));
    let cool_down =
        section.get("jwks_cool_down", 5 * second, |raw| duration(raw, shortest, 600 * second));
    let fetch_timeout =
        section.get("jwks_fetch_timeout", 5 * second, |raw| duration(raw, shortest, 60 * second));
    if max_age < refresh_interval {
        section.fault(
            "jwks_max_age",
            "must not be shorter than auth.jwks_refresh_interval".to_owned(),
        );
    }
    if url.is_none() && issuer.is_some() && !has_secret && !section.is_faulty("jwks_url") {
        section.fault(
            "jwks_url",
            "is empty and so is auth.hs256_secret: no token could ever be verified".to_owned(),
        );
    }
    url.map(|url| KeySetConfig { url, refresh_interval, max_age, cool_down, fetch_timeout })
}

fn non_empty(raw: Raw) -> Result<String, String> {
    text(raw).and_then(
        |text| {
            if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text) }
        },
    )
}

/// Keys are separated by white space, so that a new one can be added before the old one is removed.
fn read_admin_keys(section: &mut Section<'_>) -> Vec<Secret> {
    let all = section.secret("admin_key");
    let Ok(text) = std::str::from_utf8(all.expose()) else {
        section.fault("admin_key", "must be text".to_owned());
        return Vec::new();
    };
    let keys: Vec<&str> = text.split_whitespace().collect();
    let is_sendable = |key: &&str| {
        key.len() >= MIN_SECRET_BYTES
            && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b))
    };
    for (place, _) in keys.iter().enumerate().filter(|(_, key)| !is_sendable(key)) {
        let which = if keys.len() > 1 {
            format!("key {} of {} ", place + 1, keys.len())
        } else {
            String::new()
        };
        let problem = format!(
            "{which}must have at least {MIN_SECRET_BYTES} characters of 0-9 A-Z a-z - . _ ~ + / =, \
             such as from: openssl rand -hex 32"
        );
        section.fault("admin_key", problem);
    }
    keys.into_iter().map(Secret::new).collect()
}

fn optional_claim(raw: Raw) -> Result<Option<String>, String> {
    match text(raw)? {
        none if none.is_empty() => Ok(None),
        some => organisation_claim(Raw::Text(some)).map(Some),
    }
}

fn organisation_claim(raw: Raw) -> Result<String, String> {
    let path = non_empty(raw)?;
    if path == "user_metadata" || path.starts_with("user_metadata.") {
        return Err("users write user_metadata themselves and could name any organisation; use app_metadata or a claim that a hook adds".to_owned());
    }
    Ok(path)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}
