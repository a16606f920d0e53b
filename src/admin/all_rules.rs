//! `/admin/rules…`: the alert rules of all organisations, for the operator.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;
use uuid::Uuid;

use super::rule_views::{
    DiffView, GuardView, SyncProgress, SyncView, diff_view, guard_view, outcome_or_empty,
    progress_view, sync_view,
};
use super::rules::{confirm_and_sync, is_dry_run, request_and_wait};
use super::{Admin, AdminError, Answer, recorded_name};
use crate::authz::OperatorGrant;
use crate::clock::rfc3339;
use crate::route::{AdminEndpoint, OperatorEndpoint};
use crate::rules::{Reconciler, SyncOutcome};
use crate::store::{NewSyncRequest, SyncRow};

/// The state of all organisations' rules.
#[derive(Serialize, ToSchema)]
pub(super) struct Status {
    leader: LeaderView,
    /// Rules that Mimir has and has not been seen to evaluate, of all organisations.
    stored: usize,
    /// Rules that Mimir has and evaluates.
    live: usize,
    /// Rules that Mimir has and does not evaluate, or without success.
    failing: usize,
    /// Enabled rules that Mimir does not have.
    not_live: usize,
    /// When the last full resync ended (RFC 3339).
    full_resync_at: Option<String>,
    /// Its outcome; empty before the first one.
    #[serde(serialize_with = "outcome_or_empty")]
    #[schema(value_type = SyncOutcome)]
    full_resync: Option<SyncOutcome>,
    /// A deletion in many organisations that waits for a confirmation.
    guard: Option<GuardView>,
    /// Organisations that ever had rules in Mimir; those with a problem first.
    organisations: Vec<OrganisationView>,
    /// Whether these are all.
    complete: bool,
}

/// The copy that writes.
#[derive(Serialize, ToSchema)]
pub(super) struct LeaderView {
    /// Its name; the last one's if there is none now.
    holder: String,
    /// Whether it leads now.
    is_leading: bool,
    since: Option<String>,
}

/// One organisation.
#[derive(Serialize, ToSchema)]
pub(super) struct OrganisationView {
    organisation: String,
    tenant: String,
    /// For how long its rules have been out of sync, in seconds; 0 if they are in sync.
    lag_seconds: u64,
    /// When they were last in sync (RFC 3339).
    last_success: Option<String>,
    #[serde(flatten)]
    sync: SyncView,
}

/// What a sync of everything would change.
#[derive(Serialize, ToSchema)]
pub(super) struct AllDiffs {
    /// Organisations that were compared.
    compared: usize,
    /// Those that would change, or have rules that cannot go live.
    organisations: Vec<DiffView>,
    /// Those that could not be compared, and why.
    problems: Vec<ProblemView>,
    /// Whether all were compared in time, and all differences have room here.
    complete: bool,
}

/// An organisation that could not be compared.
#[derive(Serialize, ToSchema)]
pub(super) struct ProblemView {
    organisation: String,
    problem: String,
}

/// What a sync of everything answers, or its dry run.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, clippy::large_enum_variant, reason = "describes what is answered")]
pub(super) enum AllSyncAnswer {
    Progress(SyncProgress),
    DryRun(AllDiffs),
}

/// Where the progress of a sync is shown.
const SYNC_PROGRESS: &str = AdminEndpoint::Operator(OperatorEndpoint::SyncAllProgress).path();
/// The status lists this many organisations at most.
const MOST_LISTED: usize = 1000;
/// How long a dry run of everything may take.
const LONGEST_PREVIEW: Duration = Duration::from_secs(60);
/// The size of an answer, about.
const MOST_BYTES: usize = 8 << 20;

pub(super) async fn status(parts: &Admin, _: &OperatorGrant) -> Result<Answer, AdminError> {
    let engine = parts.rules()?;
    let store = engine.store();
    let leader = store.rule_leader().await?;
    let is_leading = store.is_led().await?;
    let mut syncs = store.rule_syncs().await?;
    let now = parts.now();
    let sum = |of: fn(&SyncRow) -> usize| syncs.iter().map(of).sum();
    let (stored, live, failing, not_live) = (
        sum(|sync| sync.stored),
        sum(|sync| sync.live),
        sum(|sync| sync.failing),
        sum(|sync| sync.not_in_mimir),
    );
    // Organisations with a problem come first, so that the limit does not cut them off.
    syncs.sort_by_key(|sync| {
        let is_wrong = !sync.problem.is_empty() || sync.guard.is_some();
        (!is_wrong, sync.organisation.clone())
    });
    let is_all = syncs.len() <= MOST_LISTED;
    let organisations = syncs.iter().take(MOST_LISTED).map(|sync| {
        let wrong_since = match (sync.problem_since, sync.guard_since) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let lag = wrong_since.map_or(0, |since| (now - since).whole_seconds().max(0));
        let last_success = match wrong_since {
            Some(_) => sync.synced_at,
            None => leader.resynced_at.max(sync.synced_at),
        };
        OrganisationView {
            organisation: sync.organisation.to_string(),
            tenant: sync.tenant.clone(),
            lag_seconds: u64::try_from(lag).unwrap_or(0),
            last_success: last_success.map(rfc3339),
            sync: sync_view(Some(sync)),
        }
    });
    let status = Status {
        leader: LeaderView {
            holder: leader.holder.clone(),
            is_leading,
            since: leader.since.map(rfc3339),
        },
        stored,
        live,
        failing,
        not_live,
        full_resync_at: leader.resynced_at.map(rfc3339),
        full_resync: SyncOutcome::from_json(&leader.resync),
        guard: leader
            .guard
            .as_ref()
            .map(|guard| guard_view(&guard.id, &guard.reason, leader.guard_since.map(rfc3339))),
        organisations: organisations.collect(),
        complete: is_all,
    };
    Ok(Answer::of(&status))
}

pub(super) async fn sync(
    parts: &Admin,
    grant: &OperatorGrant,
    uri: &Uri,
) -> Result<Answer, AdminError> {
    if is_dry_run(uri)? {
        let all = parts
            .admin_executor()?
            .run(async move |engine: Arc<Reconciler>| preview_all(engine).await);
        return Ok(Answer::of(&all.await??));
    }
    let engine = parts.rules()?;
    let request =
        NewSyncRequest { organisation: None, requested_by: recorded_name(grant.principal()) };
    request_and_wait(engine, request, SYNC_PROGRESS).await
}

async fn preview_all(engine: Arc<Reconciler>) -> Result<AllDiffs, AdminError> {
    let mut organisations: Vec<_> = engine.store().organisations().await?.into_iter().collect();
    organisations.sort();
    let mut all =
        AllDiffs { compared: 0, organisations: Vec::new(), problems: Vec::new(), complete: false };
    let deadline = Instant::now() + LONGEST_PREVIEW;
    let mut bytes = 0;
    for organisation in organisations {
        if Instant::now() >= deadline || bytes >= MOST_BYTES {
            return Ok(all);
        }
        all.compared += 1;
        match engine.preview(&organisation).await {
            Ok(preview) => {
                let view = diff_view(&organisation, &preview);
                if !view.is_nothing() {
                    bytes += view.bytes();
                    all.organisations.push(view);
                }
            }
            Err(error) => all.problems.push(ProblemView {
                organisation: organisation.to_string(),
                problem: error.to_string(),
            }),
        }
    }
    all.complete = true;
    Ok(all)
}

pub(super) async fn progress(
    parts: &Admin,
    _: &OperatorGrant,
    id: Uuid,
) -> Result<Answer, AdminError> {
    let missing = || AdminError::Missing("sync");
    let request = parts.rules()?.store().sync_request(id).await?.ok_or_else(missing)?;
    Ok(Answer::of(&progress_view(&request, SYNC_PROGRESS)).about(id))
}

pub(super) async fn confirm(
    parts: &Admin,
    grant: &OperatorGrant,
    body: &[u8],
) -> Result<Answer, AdminError> {
    let request =
        NewSyncRequest { organisation: None, requested_by: recorded_name(grant.principal()) };
    let poll = SYNC_PROGRESS;
    confirm_and_sync(parts.rules()?, body, request, poll).await
}
