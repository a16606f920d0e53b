//! `/admin/organisations/{organisation}/channels…`: one organisation's notification channels and routes
//! with their statuses, what a sync would change, the sync itself, and a test of a channel. And the
//! operator's look at all of them.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::body::read_body;
use super::channel_views::{
    AllChannels, ChannelList, ChannelSyncAnswer, OrganisationChannels, channel_view, counts,
    diff_view, for_members, route_view, sync_view,
};
use super::rules::Confirmation;
use super::{Admin, AdminError, Answer, recorded_name};
use crate::authz::{OperatorGrant, OrganisationGrant};
use crate::channels::ChannelError;
use crate::store::{NotificationConfirmed, NotificationKind, Store};
use crate::tenancy::OrganisationId;

/// The status lists this many organisations at most.
const MOST_LISTED: usize = 1000;
/// The length of a hold's identifier.
const GUARD_DIGITS: usize = 16;
/// How long a request waits for its sync before it is answered that the sync is still running.
const SYNC_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_millis(250);

pub(super) async fn list(parts: &Admin, grant: &OrganisationGrant) -> Result<Answer, AdminError> {
    let organisation = grant.organisation();
    let store = parts.channels()?.store();
    let asked = vec![organisation.clone()];
    let mut snapshot = store.notification_channels_of(asked.clone()).await?;
    if !snapshot.existing.contains(organisation) {
        return Err(AdminError::Missing("organisation"));
    }
    let mut rows = snapshot.rows.remove(organisation).unwrap_or_default();
    let statuses = store.notification_statuses_of(asked).await?;
    let statuses: HashMap<_, _> =
        statuses.iter().map(|status| ((status.kind, status.id), status)).collect();
    let sync = store.notification_sync_of(organisation.clone()).await?;
    rows.channels.sort_by_key(|row| (row.created_at_micros, row.id));
    rows.routes.sort_by_key(|row| {
        let position: i64 =
            row.position.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default();
        (position, row.created_at_micros, row.id)
    });
    let of = |kind, id| statuses.get(&(kind, id)).copied();
    let list = ChannelList {
        organisation: organisation.to_string(),
        tenant: parts.authorizer.tenant_name(organisation),
        channels: rows
            .channels
            .iter()
            .map(|row| channel_view(row, of(NotificationKind::Channel, row.id)))
            .collect(),
        routes: rows
            .routes
            .iter()
            .map(|row| route_view(row, of(NotificationKind::Route, row.id)))
            .collect(),
        sync: for_members(sync_view(sync.as_ref())),
    };
    Ok(Answer::of(&list))
}

pub(super) async fn diff(parts: &Admin, grant: &OrganisationGrant) -> Result<Answer, AdminError> {
    let organisation = grant.organisation();
    let preview = parts.channels()?.preview(organisation.clone()).await??;
    Ok(Answer::of(&diff_view(organisation, preview)))
}

pub(super) async fn sync(parts: &Admin, grant: &OrganisationGrant) -> Result<Answer, AdminError> {
    let store = parts.channels()?.store();
    let organisation = grant.organisation();
    // The sync of a mistyped organisation would seem to succeed.
    if !store.existing_organisations(vec![organisation.clone()]).await?.contains(organisation) {
        return Err(AdminError::Missing("organisation"));
    }
    request_and_wait(store, organisation, recorded_name(grant.principal())).await
}

async fn request_and_wait(
    store: &Store,
    organisation: &OrganisationId,
    by: String,
) -> Result<Answer, AdminError> {
    let request = store.request_notification_sync(organisation.clone(), by).await?;
    let deadline = Instant::now() + SYNC_TIMEOUT;
    let mut pause = FIRST_PAUSE;
    let is_done = loop {
        if store.is_notification_sync_answered(organisation.clone(), request.clone()).await? {
            break true;
        }
        if Instant::now() >= deadline {
            break false;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    };
    let sync = store.notification_sync_of(organisation.clone()).await?;
    let statuses = store.notification_statuses_of(vec![organisation.clone()]).await?;
    let state = if is_done { "done" } else { "waiting" };
    let answer = Answer::of(&ChannelSyncAnswer {
        state: state.to_owned(),
        sync: for_members(sync_view(sync.as_ref())),
        channels: counts(&statuses, NotificationKind::Channel),
        routes: counts(&statuses, NotificationKind::Route),
    });
    Ok(if is_done { answer } else { answer.accepted() })
}

pub(super) async fn test(
    parts: &Admin,
    grant: &OrganisationGrant,
    channel: Uuid,
) -> Result<Answer, AdminError> {
    let (organisation, clock) = (grant.organisation().clone(), parts.clock.clone());
    let report = parts.channels()?.send_test(organisation, channel, clock).await??;
    Ok(Answer::of(&report).about(format!("channel {channel}")))
}

pub(super) async fn confirm(
    parts: &Admin,
    grant: &OrganisationGrant,
    body: &[u8],
) -> Result<Answer, AdminError> {
    let store = parts.channels()?.store();
    let organisation = grant.organisation();
    let Confirmation { guard } = read_body(body)?;
    if guard.len() != GUARD_DIGITS || !guard.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(AdminError::Missing("write on hold"));
    }
    let by = recorded_name(grant.principal());
    let confirmed =
        store.confirm_notification_guard(organisation.clone(), guard.clone(), by.clone());
    match confirmed.await? {
        NotificationConfirmed::Noted => {}
        NotificationConfirmed::Nothing => return Err(AdminError::Missing("write on hold")),
        NotificationConfirmed::Other(held) => {
            return Err(AdminError::Stale(format!(
                "{guard} is not held any more; what is held now is {}: {}",
                held.id, held.reason
            )));
        }
    }
    Ok(request_and_wait(store, organisation, by).await?.about(format!("guard {guard}")))
}

pub(super) async fn status(parts: &Admin, _: &OperatorGrant) -> Result<Answer, AdminError> {
    let store = parts.channels()?.store();
    let mut syncs = store.notification_syncs().await?;
    // Organisations with a problem come first, so that the limit does not cut them off.
    syncs.sort_by_key(|sync| {
        let is_wrong = !sync.problem.is_empty() || sync.guard.is_some();
        (!is_wrong, sync.organisation.clone())
    });
    let complete = syncs.len() <= MOST_LISTED;
    let organisations = syncs.iter().take(MOST_LISTED).map(|sync| OrganisationChannels {
        organisation: sync.organisation.to_string(),
        tenant: sync.tenant.clone(),
        sync: sync_view(Some(sync)),
    });
    Ok(Answer::of(&AllChannels { organisations: organisations.collect(), complete }))
}

impl From<ChannelError> for AdminError {
    fn from(error: ChannelError) -> Self {
        match error {
            ChannelError::Missing(what) => Self::Missing(what),
            ChannelError::Tenant(_) => Self::Internal,
            ChannelError::Store(error) => Self::Store(error),
            ChannelError::NoAlertmanager => Self::NoAlertmanager,
            ChannelError::Mimir(problem) => Self::Alertmanager(problem),
        }
    }
}
