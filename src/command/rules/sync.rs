//! `rules sync`

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{Of, Outcome, Said, database_failed, no_such, organisation, reconciler, unavailable};
use crate::clock::Clock;
use crate::config::RulesCommandConfig;
use crate::election::LeaderTask;
use crate::labels::RuleState;
use crate::rules::{OutcomeKind, Reconciler, RuleSync, SyncOutcome, Triggers};
use crate::store::{NewSyncRequest, StoreError, SyncRequest};
use crate::telemetry::RuleMetrics;
use crate::tenancy::OrganisationId;

/// Who requests the sync.
pub(in crate::command) const BY: &str = "command line";
/// How long a sync may make no progress.
const TIMEOUT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// Requests a sync as an administrator does, and follows it. If no copy of the proxy leads, this process
/// leads in the meantime.
pub(super) async fn sync(config: &RulesCommandConfig, of: Of) -> Outcome {
    let reconciler = reconciler(config)?;
    let organisation = organisation(of.organisation.as_deref())?;
    if let Some(one) = &organisation {
        match reconciler.store().alert_rules_of(vec![one.clone()]).await {
            Ok(snapshot) if snapshot.existing.contains(one) => {}
            Ok(_) => return Err(no_such(one)),
            Err(error) => return database_failed(&error),
        }
    }
    match sync_finished(&reconciler, organisation).await {
        Ok(done) => Ok(said(&done, of.json)),
        Err(failed) => failed,
    }
}

/// Requests a sync and follows it to its end.
pub(super) async fn sync_finished(
    reconciler: &Arc<Reconciler>,
    organisation: Option<OrganisationId>,
) -> Result<SyncRequest, Outcome> {
    let requested_by = BY.to_owned();
    let request = NewSyncRequest { organisation, requested_by };
    let failed = |error: StoreError| database_failed(&error);
    let id = reconciler.store().request_sync(request).await.map_err(failed)?;
    let done = lead_meanwhile(reconciler, Vec::new(), follow(reconciler, id)).await;
    done.map_err(failed)?.ok_or_else(|| {
        Ok(unavailable("the sync makes no progress: another copy leads and does not do it"))
    })
}

/// Does some work, and leads meanwhile if no copy of the proxy does.
pub(in crate::command) async fn lead_meanwhile<T>(
    reconciler: &Arc<Reconciler>,
    beside: Vec<Arc<dyn LeaderTask>>,
    work: impl Future<Output = T>,
) -> T {
    let cancelled = CancellationToken::new();
    let sync = RuleSync {
        reconciler: Arc::clone(reconciler),
        triggers: Arc::new(Triggers::default()),
        clock: Clock::system(),
        metrics: Arc::new(RuleMetrics::unrecorded()),
        holder: format!("command line (process {})", std::process::id()),
        reach: None,
        beside,
    };
    let leading = tokio::spawn(sync.run(cancelled.clone()));
    let done = work.await;
    cancelled.cancel();
    let _ = leading.await;
    done
}

async fn follow(
    reconciler: &Reconciler,
    id: uuid::Uuid,
) -> Result<Option<SyncRequest>, StoreError> {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} organisations, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut waiting_since = Instant::now();
    let mut before = (0, 0);
    loop {
        let Some(request) = reconciler.store().sync_request(id).await? else { return Ok(None) };
        let now = (request.done, request.total);
        if now != before {
            (before, waiting_since) = (now, Instant::now());
            bar.set_length(request.total as u64);
            bar.set_position(request.done as u64);
        }
        if request.finished_at.is_some() {
            bar.finish_and_clear();
            return Ok(Some(request));
        }
        if waiting_since.elapsed() > TIMEOUT {
            bar.finish_and_clear();
            return Ok(None);
        }
        sleep(POLL).await;
    }
}

pub(super) fn said(request: &SyncRequest, as_json: bool) -> Said {
    let outcome = SyncOutcome::from_json(&request.outcome).unwrap_or_default();
    let guard = outcome
        .guard
        .as_ref()
        .map(|held| format!("{}; rules guard confirm {}", held.reason, held.id));
    let not_live = [
        RuleState::Failing,
        RuleState::Invalid,
        RuleState::OverLimit,
        RuleState::Error,
        RuleState::Pending,
    ];
    let is_good = outcome.problem.is_none()
        && guard.is_none()
        && outcome.count(OutcomeKind::Failed) == 0
        && outcome.count(OutcomeKind::Held) == 0
        && not_live.iter().all(|state| outcome.rules_in(*state) == 0);
    let exit_code = u8::from(!is_good);
    if as_json {
        let answer = serde_json::to_string(&outcome).unwrap_or_default();
        return Said { answer, note: None, exit_code };
    }
    let mut answer = format!(
        "{} organisations: {} changed, {} unchanged, {} failed, {} held",
        request.done,
        outcome.count(OutcomeKind::Applied),
        outcome.count(OutcomeKind::Unchanged),
        outcome.count(OutcomeKind::Failed),
        outcome.count(OutcomeKind::Held),
    );
    if let Some(rules) = &outcome.rules {
        let states = rules.iter().filter(|(_, count)| **count > 0);
        let states: Vec<String> =
            states.map(|(state, count)| format!("{count} {}", state.name())).collect();
        let _ = write!(answer, "\nrules: {}", states.join(", "));
    }
    let note = guard.or(outcome.problem);
    Said { answer, note, exit_code }
}
