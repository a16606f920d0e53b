//! `rules sync`

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{Of, Outcome, Said, engine, no_such, organisation, unavailable};
use crate::config::RulesCommandConfig;
use crate::rules::{Engine, Hints, lead_forever};
use crate::store::{NewSyncRequest, StoreError, SyncRequest};
use crate::tenancy::OrganisationId;

/// Who asks.
pub(super) const BY: &str = "command line";
/// How long nobody may take it up.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);

/// Asks for a sync as an administrator does, and follows it to its end. If no copy of the proxy leads,
/// this process does meanwhile.
pub(super) async fn sync(config: &RulesCommandConfig, of: Of) -> Outcome {
    let engine = engine(config)?;
    let organisation = organisation(of.organisation.as_deref())?;
    if let Some(one) = &organisation {
        match engine.store().alert_rules_of(vec![one.clone()]).await {
            Ok(snapshot) if snapshot.existing.contains(one) => {}
            Ok(_) => return Err(no_such(one)),
            Err(error) => return Ok(unavailable(error)),
        }
    }
    Ok(sync_now(&engine, organisation, of.json).await)
}

/// Asks for a sync, follows it, and says what came of it.
async fn sync_now(
    engine: &Arc<Engine>,
    organisation: Option<OrganisationId>,
    as_json: bool,
) -> Said {
    sync_finished(engine, organisation)
        .await
        .map_or_else(|failed| failed, |done| said(&done, as_json))
}

/// Asks for a sync and follows it to its end.
pub(super) async fn sync_finished(
    engine: &Arc<Engine>,
    organisation: Option<OrganisationId>,
) -> Result<SyncRequest, Said> {
    let requested_by = BY.to_owned();
    let request = NewSyncRequest { organisation, requested_by };
    let id = match engine.store().request_sync(request).await {
        Ok(id) => id,
        Err(error) => return Err(unavailable(error)),
    };
    let cancelled = CancellationToken::new();
    let leading = tokio::spawn(lead_forever(
        Arc::clone(engine),
        Arc::new(Hints::default()),
        format!("rules sync (process {})", std::process::id()),
        cancelled.clone(),
    ));
    let finished = follow(engine, id).await;
    cancelled.cancel();
    let _ = leading.await;
    match finished {
        Ok(Some(request)) => Ok(request),
        Ok(None) => Err(unavailable("no process took it up: another one leads and does not go on")),
        Err(error) => Err(unavailable(error)),
    }
}

async fn follow(engine: &Engine, id: uuid::Uuid) -> Result<Option<SyncRequest>, StoreError> {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} organisations, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut waiting_since = Instant::now();
    let mut before = (0, 0);
    loop {
        let Some(request) = engine.store().sync_request(id).await? else { return Ok(None) };
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
        if waiting_since.elapsed() > PATIENCE {
            bar.finish_and_clear();
            return Ok(None);
        }
        sleep(LOOK).await;
    }
}

pub(super) fn said(request: &SyncRequest, as_json: bool) -> Said {
    let outcome: Value = serde_json::from_str(&request.outcome).unwrap_or_default();
    let count = |label: &str| outcome["outcomes"][label].as_u64().unwrap_or(0);
    let problem = outcome["problem"].as_str();
    let guard = &outcome["guard"];
    let guard = guard["reason"].as_str().map(|reason| {
        let id = guard["id"].as_str().unwrap_or_default();
        format!("{reason}; rules guard confirm {id}")
    });
    let refused = ["invalid", "over_limit", "error", "pending"]
        .map(|state| outcome["rules"][state].as_u64().unwrap_or(0));
    let is_good = problem.is_none()
        && guard.is_none()
        && count("failed") == 0
        && count("held") == 0
        && refused.iter().all(|count| *count == 0);
    let exit_code = u8::from(!is_good);
    if as_json {
        return Said { answer: outcome.to_string(), note: None, exit_code };
    }
    let mut answer = format!(
        "{} organisations: {} changed, {} unchanged, {} failed, {} held",
        request.done,
        count("applied"),
        count("unchanged"),
        count("failed"),
        count("held"),
    );
    if let Some(rules) = outcome["rules"].as_object() {
        let states = rules.iter().filter(|(_, count)| count.as_u64() > Some(0));
        let states: Vec<String> = states.map(|(state, count)| format!("{count} {state}")).collect();
        let _ = write!(answer, "\nrules: {}", states.join(", "));
    }
    let note = guard.or(problem.map(ToOwned::to_owned));
    Said { answer, note, exit_code }
}
