//! `/admin/organisations/{organisation}/device-keys`

use http::Uri;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::body::read_body;
use super::organisations::must_exist;
use super::paging::{MOST, Paging};
use super::{Admin, AdminError, Answer, recorded_name};
use crate::authn::Identity;
use crate::authz::OrganisationGrant;
use crate::config::MembershipPolicy;
use crate::key_management::{self, Creator, DeviceKeyRequest, DeviceKeyView};
use crate::store::DeviceKeysWanted;
use crate::tenancy::DeviceId;

/// A page of an organisation's device keys, the newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct DeviceKeyList {
    device_keys: Vec<DeviceKeyView>,
    /// Whether no others follow.
    complete: bool,
    /// What `after` is to be for the next page; null on the last one.
    next: Option<Uuid>,
}

/// The length of a page that is not said. Most organisations have fewer keys, and most clients send no `limit`.
pub(super) const PAGE: usize = MOST;

/// A device key that was just created.
#[derive(Serialize, ToSchema)]
pub(super) struct CreatedDeviceKey<'a> {
    #[serde(flatten)]
    device_key: DeviceKeyView,
    organisation: &'a str,
    /// The key itself. It is shown in this answer only.
    key: &'a str,
    note: &'a str,
}

pub(super) async fn create(
    admin: &Admin,
    grant: &OrganisationGrant,
    body: &[u8],
) -> Result<Answer, AdminError> {
    let request: DeviceKeyRequest = read_body(body)?;
    let (store, now) = (admin.store_for(grant)?, admin.now());
    // Where our own tables hold the memberships, they hold the organisations, too.
    let is_elsewhere = admin.authorizer.membership_policy() == MembershipPolicy::Claims
        || store.reads_memberships_elsewhere();
    let is_user = matches!(grant.principal().identity(), Identity::User(_));
    let creator = Creator {
        name: recorded_name(grant.principal()),
        scopes: grant.scopes(),
        proves_organisation: is_user && is_elsewhere,
    };
    let organisation = grant.organisation();
    let (key, device_key) =
        key_management::create(store, organisation, &request, creator, now).await?;
    let id = device_key.id;
    let created = CreatedDeviceKey {
        device_key,
        organisation: organisation.as_str(),
        key: key.expose(),
        note: "the key is shown this once only; only its hash is stored",
    };
    Ok(Answer::of(&created).created().about(id))
}

pub(super) async fn list(
    admin: &Admin,
    grant: &OrganisationGrant,
    uri: &Uri,
) -> Result<Answer, AdminError> {
    let Paging { limit, after, filter, .. } =
        Paging::read_or(PAGE, uri, &["limit", "after", "filter"])?;
    let wrong = |problem: &str| AdminError::Request(format!("after must be {problem}"));
    let after = match after.as_str() {
        "" => None,
        after => Some(DeviceId(
            Uuid::try_parse(after).map_err(|_| wrong("a device key's identifier, a UUID"))?,
        )),
    };
    let (store, organisation, now) = (admin.store_for(grant)?, grant.organisation(), admin.now());
    let wanted = DeviceKeysWanted { filter, after, limit };
    let (device_keys, complete) = key_management::page(store, organisation, wanted, now).await?;
    if device_keys.is_empty() {
        must_exist(store, organisation).await?;
        // After a key that is not there, none follows: that would look like the end.
        if let Some(last) = after
            && key_management::find(store, organisation, last, now).await?.is_none()
        {
            return Err(wrong("a device key of this organisation"));
        }
    }
    let next = device_keys.last().map(|key| key.id).filter(|_| !complete);
    Ok(Answer::of(&DeviceKeyList { device_keys, complete, next }))
}

pub(super) async fn show(
    admin: &Admin,
    grant: &OrganisationGrant,
    id: Uuid,
) -> Result<Answer, AdminError> {
    let organisation = grant.organisation();
    let key =
        key_management::find(admin.store_for(grant)?, organisation, DeviceId(id), admin.now())
            .await?;
    Ok(Answer::of(&key.ok_or(AdminError::Missing("device key"))?).about(id))
}

pub(super) async fn revoke(
    admin: &Admin,
    grant: &OrganisationGrant,
    id: Uuid,
) -> Result<Answer, AdminError> {
    let organisation = grant.organisation();
    let key =
        key_management::revoke(admin.store()?, organisation, DeviceId(id), admin.now()).await?;
    Ok(Answer::of(&key.ok_or(AdminError::Missing("device key"))?).about(id))
}
