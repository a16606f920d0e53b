//! The answers of `/admin` about notification channels. None of them has a place for a secret.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::channels::{ChannelPreview, States};
use crate::clock::rfc3339;
use crate::store::{
    ChannelRow, NotificationKind, NotificationState, NotificationStatusRow, NotificationSyncRow,
    RouteRow,
};
use crate::tenancy::OrganisationId;

/// An organisation's channels and routes.
#[derive(Serialize, ToSchema)]
pub(super) struct ChannelList {
    pub(super) organisation: String,
    /// Its tenant in Mimir.
    pub(super) tenant: Option<String>,
    /// One for each row of `notification_channel`, oldest first.
    pub(super) channels: Vec<ChannelView>,
    /// One for each row of `notification_route`, in the order in which they are tried.
    pub(super) routes: Vec<RouteView>,
    /// How their sync stands.
    pub(super) sync: ChannelSyncView,
}

/// A channel, and what has become of it. Neither its settings nor its secrets.
#[derive(Serialize, ToSchema)]
pub(super) struct ChannelView {
    pub(super) id: Uuid,
    pub(super) name: Option<String>,
    pub(super) kind: Option<String>,
    /// `pending`, `live`, `invalid`, `over_limit`, `disabled` or `error`.
    pub(super) state: String,
    /// Why it is not live, in words for its author.
    pub(super) reason: String,
    /// When it was last written to Mimir (RFC 3339), if it is live.
    pub(super) synced_at: Option<String>,
}

/// A route, and what has become of it.
#[derive(Serialize, ToSchema)]
pub(super) struct RouteView {
    pub(super) id: Uuid,
    /// The channel that it leads to.
    pub(super) channel: Option<String>,
    pub(super) position: Option<String>,
    /// `pending`, `live`, `invalid`, `over_limit`, `disabled` or `error`.
    pub(super) state: String,
    /// Why it is not live, in words for its author.
    pub(super) reason: String,
    /// When it was last written to Mimir (RFC 3339), if it is live.
    pub(super) synced_at: Option<String>,
}

/// How the sync of an organisation's channels stands.
#[derive(Serialize, ToSchema)]
pub(super) struct ChannelSyncView {
    /// `live`: Mimir has the document. `none`: there is none and none is needed. `foreign`: there is one
    /// that the proxy did not write, and there are no channels. `held`: a confirmation is awaited. `error`.
    /// `pending`: not looked at yet.
    pub(super) state: String,
    /// What is wrong; empty if nothing is, and for those who are not the operator.
    pub(super) problem: String,
    pub(super) problem_since: Option<String>,
    /// What waits for a confirmation.
    pub(super) guard: Option<ChannelGuardView>,
    /// The last write to Mimir (RFC 3339).
    pub(super) synced_at: Option<String>,
    /// Since when the organisation is gone, if it is.
    pub(super) absent_since: Option<String>,
}

/// A write that waits for a confirmation.
#[derive(Serialize, ToSchema)]
pub(super) struct ChannelGuardView {
    /// What is to be sent to confirm it.
    pub(super) id: String,
    /// What would be deleted or replaced.
    pub(super) reason: String,
    pub(super) since: Option<String>,
}

/// What a sync of an organisation's channels came to so far.
#[derive(Serialize, ToSchema)]
pub(super) struct ChannelSyncAnswer {
    /// `done`, or `waiting` if no leader has answered yet.
    pub(super) state: String,
    pub(super) sync: ChannelSyncView,
    /// How many channels are in each state.
    pub(super) channels: BTreeMap<String, usize>,
    /// How many routes are in each state.
    pub(super) routes: BTreeMap<String, usize>,
}

/// What a sync would change.
#[derive(Serialize, ToSchema)]
pub(super) struct ChannelDiffView {
    pub(super) organisation: String,
    pub(super) tenant: String,
    /// Whether there is nothing to do.
    pub(super) in_sync: bool,
    /// A unified diff of the document. Secrets are masked on both sides.
    pub(super) diff: String,
    /// Whether Mimir has a document that the proxy did not write. It is not shown.
    pub(super) foreign: bool,
    /// What would be held back.
    pub(super) guard: Option<ChannelGuardView>,
    /// Channels and routes that cannot go live.
    pub(super) not_live: Vec<NotLiveChannelView>,
}

/// A channel or route that cannot go live, and why.
#[derive(Serialize, ToSchema)]
pub(super) struct NotLiveChannelView {
    /// `channel` or `route`.
    pub(super) what: String,
    pub(super) id: Uuid,
    pub(super) state: String,
    pub(super) reason: String,
}

/// The channels of all organisations.
#[derive(Serialize, ToSchema)]
pub(super) struct AllChannels {
    /// Organisations that ever had channels in Mimir; those with a problem first.
    pub(super) organisations: Vec<OrganisationChannels>,
    /// Whether these are all.
    pub(super) complete: bool,
}

/// One organisation.
#[derive(Serialize, ToSchema)]
pub(super) struct OrganisationChannels {
    pub(super) organisation: String,
    pub(super) tenant: String,
    #[serde(flatten)]
    pub(super) sync: ChannelSyncView,
}

pub(super) fn sync_view(sync: Option<&NotificationSyncRow>) -> ChannelSyncView {
    let Some(sync) = sync else {
        return ChannelSyncView {
            state: "none".to_owned(),
            problem: String::new(),
            problem_since: None,
            guard: None,
            synced_at: None,
            absent_since: None,
        };
    };
    ChannelSyncView {
        state: if sync.state.is_empty() { "pending".to_owned() } else { sync.state.clone() },
        problem: sync.problem.clone(),
        problem_since: sync.problem_since.map(rfc3339),
        guard: sync.guard.as_ref().map(|held| ChannelGuardView {
            id: held.id.clone(),
            reason: held.reason.clone(),
            since: sync.guard_since.map(rfc3339),
        }),
        synced_at: sync.synced_at.map(rfc3339),
        absent_since: sync.absent_since.map(rfc3339),
    }
}

/// Members are not told about the inside of the system.
pub(super) fn for_members(view: ChannelSyncView) -> ChannelSyncView {
    ChannelSyncView { problem: String::new(), ..view }
}

/// The status of a row: its state, its reason, and since when.
type Status<'a> = Option<&'a NotificationStatusRow>;

fn state(status: Status) -> String {
    status.map_or("pending", |status| status.state.name()).to_owned()
}

fn reason(status: Status) -> String {
    status.map_or_else(String::new, |status| status.reason.clone())
}

fn synced_at(status: Status) -> Option<String> {
    status.and_then(|status| status.synced_at).map(rfc3339)
}

pub(super) fn channel_view(row: &ChannelRow, status: Status) -> ChannelView {
    ChannelView {
        id: row.id,
        name: row.name.clone(),
        kind: row.kind.clone(),
        state: state(status),
        reason: reason(status),
        synced_at: synced_at(status),
    }
}

pub(super) fn route_view(row: &RouteRow, status: Status) -> RouteView {
    RouteView {
        id: row.id,
        channel: row.channel.clone(),
        position: row.position.clone(),
        state: state(status),
        reason: reason(status),
        synced_at: synced_at(status),
    }
}

/// How many are in each state.
pub(super) fn counts(
    statuses: &[NotificationStatusRow],
    kind: NotificationKind,
) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for status in statuses.iter().filter(|status| status.kind == kind) {
        *counts.entry(status.state.name().to_owned()).or_default() += 1;
    }
    counts
}

pub(super) fn diff_view(organisation: &OrganisationId, preview: ChannelPreview) -> ChannelDiffView {
    let not_live = |what: &'static str, states: &States| {
        let is_wrong = |state: NotificationState| {
            !matches!(state, NotificationState::Live | NotificationState::Disabled)
        };
        let wrong = states.iter().filter(|(_, (state, _))| is_wrong(*state));
        let view = wrong.map(|(id, (state, reason))| NotLiveChannelView {
            what: what.to_owned(),
            id: *id,
            state: state.name().to_owned(),
            reason: reason.clone(),
        });
        view.collect::<Vec<_>>()
    };
    let mut all = not_live("channel", &preview.channels);
    all.extend(not_live("route", &preview.routes));
    ChannelDiffView {
        organisation: organisation.to_string(),
        tenant: preview.tenant.as_str().to_owned(),
        in_sync: preview.is_in_sync,
        diff: preview.diff,
        foreign: preview.is_foreign,
        guard: preview.guard.map(|held| ChannelGuardView {
            id: held.id,
            reason: held.reason,
            since: None,
        }),
        not_live: all,
    }
}
