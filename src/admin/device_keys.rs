//! `/admin/organisations/{organisation}/device-keys`

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::body::read_body;
use super::organisations::must_exist;
use super::{Admin, AdminError, Answer, recorded_name};
use crate::authn::Identity;
use crate::authz::OrganisationGrant;
use crate::config::MembershipPolicy;
use crate::key_management::{self, Creator, DeviceKeyRequest, DeviceKeyView};
use crate::tenancy::DeviceId;

/// The device keys of an organisation.
#[derive(Serialize, ToSchema)]
pub(super) struct DeviceKeyList {
    device_keys: Vec<DeviceKeyView>,
    /// Whether these are all.
    complete: bool,
}

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
    let (store, now) = (admin.store()?, admin.now());
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

pub(super) async fn list(admin: &Admin, grant: &OrganisationGrant) -> Result<Answer, AdminError> {
    let (device_keys, complete) =
        key_management::list(admin.store()?, grant.organisation(), admin.now()).await?;
    if device_keys.is_empty() {
        must_exist(admin, grant.organisation()).await?;
    }
    Ok(Answer::of(&DeviceKeyList { device_keys, complete }))
}

pub(super) async fn show(
    admin: &Admin,
    grant: &OrganisationGrant,
    id: Uuid,
) -> Result<Answer, AdminError> {
    let organisation = grant.organisation();
    let key = key_management::find(admin.store()?, organisation, DeviceId(id), admin.now()).await?;
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
