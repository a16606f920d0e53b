//! `/admin/organisations/{organisation}/device-keys`

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use bytes::Bytes;
use http::{StatusCode, Uri};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::wire::{Answer, DeviceKeyList, DeviceKeyView, listed_key, read_body, read_time};
use super::{AdminContext, AdminError};
use crate::authn::{Identity, NewKey};
use crate::authz::AdminGrant;
use crate::config::MembershipPolicy;
use crate::store::{ListedDeviceKey, MOST_KEYS, NewDeviceKey, Store};
use crate::tenancy::{DeviceId, OrganisationId, Scope, Scopes};

/// What an administrator says of a new key.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyRequest {
    /// What the owner calls the device.
    pub name: String,
    /// What it may do; pushing telemetry if nothing is said.
    #[serde(default)]
    pub scopes: Option<Vec<String>>,
    /// When it expires (RFC 3339); never if nothing is said.
    #[serde(default)]
    pub expires_at: Option<String>,
    /// Or in how many seconds.
    #[serde(default)]
    pub expires_in_seconds: Option<u32>,
    /// How long it works on after that; a week if nothing is said.
    #[serde(default)]
    pub grace_seconds: Option<u32>,
}

const LONGEST_NAME: usize = 200;
const LONGEST_LIFE: time::Duration = time::Duration::days(36_525);

/// Makes a key. It is shown in this answer only.
#[utoipa::path(post, path = crate::route::admin::DEVICE_KEYS, tag = "device keys",
    params(("organisation" = String, Path)), request_body = KeyRequest,
    responses((status = 201, body = DeviceKeyView)))]
pub(super) async fn create(
    State(parts): State<Arc<AdminContext>>,
    Extension(grant): Extension<AdminGrant>,
    body: Bytes,
) -> Result<Answer, AdminError> {
    let request: KeyRequest = read_body(&body)?;
    let organisation = organisation(&grant)?;
    let now = now(&parts);
    let by = format!("{} {}", grant.principal().kind(), grant.principal().id());
    // Where our own tables say who is in which organisation they also know the organisation.
    let is_elsewhere = parts.authorizer.config().membership == MembershipPolicy::Claims
        || parts.store()?.reads_memberships_elsewhere();
    let is_user = matches!(grant.principal().identity(), Identity::User(_));
    let knows_organisation = is_user && is_elsewhere;
    let maker = Maker { name: by, scopes: grant.scopes(), knows_organisation };
    let (key, listed) = create_key(parts.store()?, organisation, &request, maker, now).await?;
    let mut value = listed_key(&listed, now);
    value["organisation"] = json!(organisation.as_str());
    value["key"] = json!(key.expose());
    value["note"] = json!("the key is shown this once only; only its hash is kept");
    Ok(Answer::ok(value).about(listed.id).with_status(StatusCode::CREATED))
}

/// Who makes a key.
pub struct Maker {
    /// The name that is kept with it.
    pub name: String,
    /// What the maker may do there: a key does no more.
    pub scopes: Scopes,
    /// Whether it is certain by the maker's own membership that the organisation exists, even if our
    /// table does not know it.
    pub knows_organisation: bool,
}

/// Makes a key and writes its hash.
pub async fn create_key(
    store: &Store,
    organisation: &OrganisationId,
    request: &KeyRequest,
    maker: Maker,
    now: OffsetDateTime,
) -> Result<(NewKey, ListedDeviceKey), AdminError> {
    let scopes = read_scopes(request.scopes.as_deref())?;
    let beyond = scopes.without(maker.scopes);
    if !beyond.is_empty() {
        return Err(AdminError::Beyond(beyond));
    }
    let key = NewKey::generate().map_err(|_| AdminError::Broken)?;
    let new = NewDeviceKey {
        organisation: organisation.clone(),
        name: read_name(&request.name)?,
        hash: key.hash(),
        hint: key.hint(),
        scopes,
        expires_at: read_expiry(request, now)?,
        grace_seconds: request.grace_seconds.map(|grace| i32::try_from(grace).unwrap_or(i32::MAX)),
        created_by: maker.name,
        organisation_is_known: maker.knows_organisation,
    };
    Ok((key, store.create_device_key(new).await?))
}

fn read_name(name: &str) -> Result<String, AdminError> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control)
    {
        let problem =
            format!("name must have 1 to {LONGEST_NAME} characters, none of them a control");
        return Err(AdminError::Request(problem));
    }
    Ok(name.to_owned())
}

fn read_scopes(names: Option<&[String]>) -> Result<Scopes, AdminError> {
    let Some(names) = names else { return Ok([Scope::MetricsWrite].into_iter().collect()) };
    let allowed: Vec<&str> = Scope::DATA.iter().map(|scope| scope.name()).collect();
    let scopes = Scopes::parse(names.iter().map(String::as_str)).ok();
    // A device administers nothing.
    let scopes = scopes.filter(|scopes| !scopes.is_empty() && !scopes.contains(Scope::Admin));
    scopes.ok_or_else(|| {
        AdminError::Request(format!("scopes must be one or more of {}", allowed.join(", ")))
    })
}

fn read_expiry(
    request: &KeyRequest,
    now: OffsetDateTime,
) -> Result<Option<OffsetDateTime>, AdminError> {
    let end = match (&request.expires_at, request.expires_in_seconds) {
        (None, None) => return Ok(None),
        (Some(text), None) => read_time("expires_at", text)?,
        (None, Some(seconds)) => now + time::Duration::seconds(seconds.into()),
        (Some(_), Some(_)) => {
            let problem = "send either expires_at or expires_in_seconds";
            return Err(AdminError::Request(problem.to_owned()));
        }
    };
    if end <= now {
        return Err(AdminError::Request("the key would have expired already".to_owned()));
    }
    if end > now + LONGEST_LIFE {
        let problem = "expires_at is more than a hundred years away; leave it out for never";
        return Err(AdminError::Request(problem.to_owned()));
    }
    Ok(Some(end))
}

/// The keys of the organisation's devices.
#[utoipa::path(get, path = crate::route::admin::DEVICE_KEYS, tag = "device keys",
    params(("organisation" = String, Path)),
    responses((status = 200, body = DeviceKeyList)))]
pub(super) async fn list(
    State(parts): State<Arc<AdminContext>>,
    Extension(grant): Extension<AdminGrant>,
) -> Result<Answer, AdminError> {
    let keys = parts.store()?.list_device_keys(organisation(&grant)?).await?;
    let now = now(&parts);
    let keys: Vec<Value> = keys.iter().map(|key| listed_key(key, now)).collect();
    let is_all = keys.len() < MOST_KEYS;
    Ok(Answer::ok(json!({ "device_keys": keys, "complete": is_all })))
}

/// One key.
#[utoipa::path(get, path = crate::route::admin::DEVICE_KEY, tag = "device keys",
    params(("organisation" = String, Path), ("id" = uuid::Uuid, Path)),
    responses((status = 200, body = DeviceKeyView)))]
pub(super) async fn show(
    State(parts): State<Arc<AdminContext>>,
    Extension(grant): Extension<AdminGrant>,
    uri: Uri,
) -> Result<Answer, AdminError> {
    let id = device_id(&grant, &uri)?;
    let key = parts.store()?.find_device_key(organisation(&grant)?, id).await?;
    let key = key.ok_or(AdminError::Missing("device key"))?;
    Ok(Answer::ok(listed_key(&key, now(&parts))).about(id))
}

/// Revokes a key; within a second nobody can use it.
#[utoipa::path(delete, path = crate::route::admin::DEVICE_KEY, tag = "device keys",
    params(("organisation" = String, Path), ("id" = uuid::Uuid, Path)),
    responses((status = 200, body = DeviceKeyView)))]
pub(super) async fn revoke(
    State(parts): State<Arc<AdminContext>>,
    Extension(grant): Extension<AdminGrant>,
    uri: Uri,
) -> Result<Answer, AdminError> {
    let id = device_id(&grant, &uri)?;
    let key = parts.store()?.revoke_device_key(organisation(&grant)?, id).await?;
    let key = key.ok_or(AdminError::Missing("device key"))?;
    Ok(Answer::ok(listed_key(&key, now(&parts))).about(id))
}

fn organisation(grant: &AdminGrant) -> Result<&OrganisationId, AdminError> {
    grant.organisation().ok_or(AdminError::Broken)
}

fn device_id(grant: &AdminGrant, uri: &Uri) -> Result<DeviceId, AdminError> {
    grant.route().id_in(uri.path()).map(DeviceId).ok_or(AdminError::Missing("device key"))
}

fn now(parts: &AdminContext) -> OffsetDateTime {
    parts.clock.utc()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_key_writes_by_default_and_never_administers() {
        let scopes = |names: &[&str]| {
            read_scopes(Some(&names.iter().map(ToString::to_string).collect::<Vec<_>>()))
        };
        let written = read_scopes(None).unwrap();
        assert_eq!(written.names().collect::<Vec<_>>(), ["metrics:write"]);
        assert!(scopes(&["metrics:read", "rules:read"]).is_ok());
        for wrong in [&["admin"][..], &["metrics:write", "admin"], &["everything"], &[]] {
            assert!(matches!(scopes(wrong), Err(AdminError::Request(_))), "{wrong:?}");
        }
    }

    #[test]
    fn a_key_expires_in_the_future_or_never() {
        let now = OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000);
        let expiry = |at: Option<&str>, seconds| {
            let expires_at = at.map(str::to_owned);
            read_expiry(
                &KeyRequest { expires_at, expires_in_seconds: seconds, ..KeyRequest::default() },
                now,
            )
        };
        assert_eq!(expiry(None, None), Ok(None));
        assert_eq!(expiry(None, Some(60)), Ok(Some(now + time::Duration::seconds(60))));
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
}
