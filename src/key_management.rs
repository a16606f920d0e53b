//! Device key management: to create, list and revoke keys. Both `/admin` and the command line do it
//! through this module. Whether the caller may is decided before, by a grant or by access to the
//! database itself.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::authn::NewKey;
use crate::clock::{parse_rfc3339, rfc3339};
use crate::store::{
    DeviceKeysWanted, KeyHash, ListedDeviceKey, MOST_KEYS, NewDeviceKey, Store, StoreError,
};
use crate::tenancy::{DeviceId, OrganisationId, Scope, Scopes};

/// What a new key is to be.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceKeyRequest {
    /// A name for the device, of 1 to 200 characters.
    pub name: String,
    /// One or more of `metrics:write`, `metrics:read`, `rules:read`, `alerts:read`; `metrics:write` if
    /// omitted.
    #[serde(default)]
    pub scopes: Option<Vec<String>>,
    /// When it expires (RFC 3339); never if omitted.
    #[serde(default)]
    pub expires_at: Option<String>,
    /// The same in seconds from now.
    #[serde(default)]
    pub expires_in_seconds: Option<u32>,
    /// For how long the key is still accepted after it expired; a week if omitted.
    #[serde(default)]
    pub grace_seconds: Option<u32>,
}

/// Who creates a key.
pub struct Creator {
    /// The name that is stored with the key.
    pub name: String,
    /// The creator's own scopes in the organisation: a key gets no others.
    pub scopes: Scopes,
    /// Whether the creator's own membership proves that the organisation exists, even if our table
    /// does not have it.
    pub proves_organisation: bool,
}

/// A device key as its administrators see it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DeviceKeyView {
    /// The device's identifier.
    pub id: Uuid,
    /// The device's name.
    pub name: String,
    /// The key's first characters.
    pub key_hint: String,
    /// Some of `metrics:write`, `metrics:read`, `rules:read`, `alerts:read`.
    #[schema(value_type = Vec<String>)]
    pub scopes: Vec<&'static str>,
    /// Whether the key is accepted.
    pub state: KeyState,
    /// When it expires (RFC 3339); never if null.
    pub expires_at: Option<String>,
    /// For how long it is accepted after that.
    pub grace_seconds: i32,
    /// When it was revoked (RFC 3339).
    pub revoked_at: Option<String>,
    /// When it was last used (RFC 3339), to within a minute or so.
    pub last_used_at: Option<String>,
    /// When it was created (RFC 3339).
    pub created_at: Option<String>,
    pub created_by: String,
}

/// Whether a device key is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// Accepted.
    Active,
    /// Expired, and accepted until its grace period is over.
    InGrace,
    /// Refused: it expired.
    Expired,
    /// Refused: it was revoked.
    Revoked,
}

/// Why a key was not created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// The request asks for a key that cannot be; with what would be right.
    Request(String),
    /// The key would have these scopes, which its creator lacks.
    ScopesBeyondCreator(Scopes),
    /// The operating system gave no random bytes.
    NoRandomness,
    /// The database did not store it.
    Store(StoreError),
}

const LONGEST_NAME: usize = 200;
const LONGEST_LIFE: Duration = Duration::days(36_525);

/// Creates a key and stores its hash. The key itself is nowhere but in the answer.
pub async fn create(
    store: &Store,
    organisation: &OrganisationId,
    request: &DeviceKeyRequest,
    creator: Creator,
    now: OffsetDateTime,
) -> Result<(NewKey, DeviceKeyView), KeyError> {
    let key = NewKey::generate().map_err(|_| KeyError::NoRandomness)?;
    let of_key = (key.hash(), key.hint());
    let view = register(store, organisation, request, creator, of_key, now).await?;
    Ok((key, view))
}

/// Stores the hash of a key, or of what names the device in its certificate.
pub async fn register(
    store: &Store,
    organisation: &OrganisationId,
    request: &DeviceKeyRequest,
    creator: Creator,
    (hash, hint): (KeyHash, String),
    now: OffsetDateTime,
) -> Result<DeviceKeyView, KeyError> {
    let scopes = read_scopes(request.scopes.as_deref())?;
    let beyond = scopes.without(creator.scopes);
    if !beyond.is_empty() {
        return Err(KeyError::ScopesBeyondCreator(beyond));
    }
    let new = NewDeviceKey {
        organisation: organisation.clone(),
        name: read_name(&request.name)?,
        hash,
        hint,
        scopes,
        expires_at: read_expiry(request, now)?,
        grace_seconds: request.grace_seconds.map(|grace| i32::try_from(grace).unwrap_or(i32::MAX)),
        created_by: creator.name,
        organisation_is_known: creator.proves_organisation,
    };
    let listed = store.create_device_key(new).await?;
    Ok(DeviceKeyView::of(&listed, now))
}

/// The keys of an organisation, the newest first, and whether these are all.
pub async fn list(
    store: &Store,
    organisation: &OrganisationId,
    now: OffsetDateTime,
) -> Result<(Vec<DeviceKeyView>, bool), StoreError> {
    let all = DeviceKeysWanted { filter: String::new(), after: None, limit: MOST_KEYS };
    page(store, organisation, all, now).await
}

/// A page of them, and whether it is the last one.
pub async fn page(
    store: &Store,
    organisation: &OrganisationId,
    wanted: DeviceKeysWanted,
    now: OffsetDateTime,
) -> Result<(Vec<DeviceKeyView>, bool), StoreError> {
    let limit = wanted.limit;
    // One more, to know whether there is a next page.
    let wanted = DeviceKeysWanted { limit: limit + 1, ..wanted };
    let mut keys = store.list_device_keys(organisation, wanted).await?;
    let is_last = keys.len() <= limit;
    keys.truncate(limit);
    Ok((keys.iter().map(|key| DeviceKeyView::of(key, now)).collect(), is_last))
}

/// One key of an organisation, if the organisation has it.
pub async fn find(
    store: &Store,
    organisation: &OrganisationId,
    id: DeviceId,
    now: OffsetDateTime,
) -> Result<Option<DeviceKeyView>, StoreError> {
    let key = store.find_device_key(organisation, id).await?;
    Ok(key.map(|key| DeviceKeyView::of(&key, now)))
}

/// Revokes a key of an organisation, if the organisation has it.
pub async fn revoke(
    store: &Store,
    organisation: &OrganisationId,
    id: DeviceId,
    now: OffsetDateTime,
) -> Result<Option<DeviceKeyView>, StoreError> {
    let key = store.revoke_device_key(organisation, id).await?;
    Ok(key.map(|key| DeviceKeyView::of(&key, now)))
}

/// Names stand in lists of administrators, and in their terminals: a control character could move
/// the cursor there, and a bidirectional override show a name that is not the stored one
/// (CVE-2021-42574).
fn read_name(name: &str) -> Result<String, KeyError> {
    let name = name.trim();
    let is_long = name.chars().count() > LONGEST_NAME;
    if name.is_empty() || is_long || name.chars().any(is_invisible_command) {
        return Err(KeyError::Request(format!(
            "name must have 1 to {LONGEST_NAME} characters, without control characters and \
             bidirectional overrides"
        )));
    }
    Ok(name.to_owned())
}

pub(crate) fn is_invisible_command(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

fn read_scopes(names: Option<&[String]>) -> Result<Scopes, KeyError> {
    let Some(names) = names else { return Ok([Scope::MetricsWrite].into_iter().collect()) };
    let scopes = Scopes::parse(names.iter().map(String::as_str)).ok();
    let allowed: Scopes = Scope::DEVICE.into_iter().collect();
    let scopes = scopes.filter(|scopes| !scopes.is_empty() && scopes.without(allowed).is_empty());
    scopes.ok_or_else(|| {
        let allowed: Vec<&str> = allowed.names().collect();
        KeyError::Request(format!("scopes must be one or more of {}", allowed.join(", ")))
    })
}

fn read_expiry(
    request: &DeviceKeyRequest,
    now: OffsetDateTime,
) -> Result<Option<OffsetDateTime>, KeyError> {
    let problem = |text: &str| Err(KeyError::Request(text.to_owned()));
    let end = match (&request.expires_at, request.expires_in_seconds) {
        (None, None) => return Ok(None),
        (Some(text), None) => match parse_rfc3339(text) {
            Some(end) => end,
            None => return problem("expires_at must be a time such as 2026-12-31T23:59:59Z"),
        },
        (None, Some(seconds)) => now + Duration::seconds(seconds.into()),
        (Some(_), Some(_)) => {
            return problem("expires_at and expires_in_seconds exclude each other; send one");
        }
    };
    if end <= now {
        return problem("expires_at must be in the future");
    }
    if end > now + LONGEST_LIFE {
        return problem("expires_at must be within a hundred years; omit it for a key without end");
    }
    Ok(Some(end))
}

impl DeviceKeyView {
    fn of(key: &ListedDeviceKey, now: OffsetDateTime) -> Self {
        Self {
            id: key.id.0,
            name: key.name.clone(),
            key_hint: key.hint.clone(),
            scopes: key.scopes.names().collect(),
            state: KeyState::of(key, now),
            expires_at: key.expires_at.map(rfc3339),
            grace_seconds: key.grace_seconds,
            revoked_at: key.revoked_at.map(rfc3339),
            last_used_at: key.last_used_at.map(rfc3339),
            created_at: key.created_at.map(rfc3339),
            created_by: key.created_by.clone(),
        }
    }
}

impl KeyState {
    fn of(key: &ListedDeviceKey, now: OffsetDateTime) -> Self {
        let grace = Duration::seconds(key.grace_seconds.into());
        match (key.revoked_at, key.expires_at) {
            (Some(_), _) => Self::Revoked,
            (None, Some(end)) if end.checked_add(grace).is_some_and(|end| end <= now) => {
                Self::Expired
            }
            (None, Some(end)) if end <= now => Self::InGrace,
            (None, _) => Self::Active,
        }
    }

    /// The name in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::InGrace => "in_grace",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

impl From<StoreError> for KeyError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(problem) => f.write_str(problem),
            Self::ScopesBeyondCreator(scopes) => {
                let names: Vec<_> = scopes.names().collect();
                write!(f, "a key cannot have scopes that its creator lacks: {}", names.join(", "))
            }
            Self::NoRandomness => f.write_str("the operating system gave no random bytes"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_key_writes_by_default_and_never_administers_or_silences() {
        let scopes = |names: &[&str]| {
            read_scopes(Some(&names.iter().map(ToString::to_string).collect::<Vec<_>>()))
        };
        let default = read_scopes(None).unwrap();
        assert_eq!(default.names().collect::<Vec<_>>(), ["metrics:write"]);
        assert!(scopes(&["metrics:read", "rules:read", "alerts:read"]).is_ok());
        let wrong =
            [&["admin"][..], &["metrics:write", "admin"], &["alerts:write"], &["everything"], &[]];
        for wrong in wrong {
            assert!(matches!(scopes(wrong), Err(KeyError::Request(_))), "{wrong:?}");
        }
    }

    #[test]
    fn a_key_expires_in_the_future_or_never() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let expiry = |at: Option<&str>, expires_in_seconds| {
            let expires_at = at.map(str::to_owned);
            let request =
                DeviceKeyRequest { expires_at, expires_in_seconds, ..DeviceKeyRequest::default() };
            read_expiry(&request, now)
        };
        assert_eq!(expiry(None, None), Ok(None));
        assert_eq!(expiry(None, Some(60)), Ok(Some(now + Duration::seconds(60))));
        assert!(expiry(Some("2099-01-01T00:00:00Z"), None).unwrap().is_some());
        for wrong in [
            (Some("2001-01-01T00:00:00Z"), None),
            (Some("9999-12-31T23:59:59Z"), None),
            (Some("tomorrow"), None),
            (Some("2099-01-01T00:00:00Z"), Some(1)),
            (None, Some(0)),
        ] {
            assert!(expiry(wrong.0, wrong.1).is_err(), "{wrong:?}");
        }
    }

    // CVE-2021-42574: U+202A to U+202E and U+2066 to U+2069 change the order in which a terminal or a
    // browser shows what follows.
    #[test]
    fn a_name_is_shown_as_it_is_stored() {
        for good in ["hub 17", " hub ", "Küche", "מטבח", "hub\u{200f}", "👩‍🔧"] {
            assert!(read_name(good).is_ok(), "{good:?}");
        }
        for c in ('\u{202A}'..='\u{202E}').chain('\u{2066}'..='\u{2069}') {
            assert!(read_name(&format!("hub {c}71")).is_err(), "{c:?}");
        }
        for bad in ["", "  ", "a\nb", "a\u{1b}[2J", "a\u{7f}", "a\u{85}b"] {
            assert!(read_name(bad).is_err(), "{bad:?}");
        }
        assert!(read_name(&"ü".repeat(200)).is_ok());
        assert!(read_name(&"ü".repeat(201)).is_err());
    }

    #[test]
    fn the_state_of_a_key_follows_its_times() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let key = |expires_in: Option<i64>, is_revoked: bool| {
            let key = ListedDeviceKey {
                id: DeviceId(Uuid::nil()),
                name: String::new(),
                hint: String::new(),
                scopes: Scopes::default(),
                expires_at: expires_in.map(|seconds| now + Duration::seconds(seconds)),
                grace_seconds: 60,
                revoked_at: is_revoked.then_some(now),
                last_used_at: None,
                created_at: None,
                created_by: String::new(),
            };
            KeyState::of(&key, now)
        };
        assert_eq!(key(None, false), KeyState::Active);
        assert_eq!(key(Some(1), false), KeyState::Active);
        assert_eq!(key(Some(0), false), KeyState::InGrace);
        assert_eq!(key(Some(-59), false), KeyState::InGrace);
        assert_eq!(key(Some(-60), false), KeyState::Expired);
        assert_eq!(key(Some(-60), true), KeyState::Revoked);
        for state in [KeyState::Active, KeyState::InGrace, KeyState::Expired, KeyState::Revoked] {
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
        }
    }
}
