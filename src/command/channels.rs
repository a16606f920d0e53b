//! `channels diff | sync | test | confirm`
//!
//! Exit codes, for pipelines, as of `rules`: 0 success; 1 channels that cannot go live, differences, a
//! write that is held, or a test that failed; 64 a fault in the configuration or the organisation, or a
//! database that refuses; 69 the database or Mimir gave no answer, or it is not known what became of a test.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::comparison::Comparison;
use super::rules::sync::{BY, lead_meanwhile};
use super::rules::{no_such, organisation, reconciler, usage_error};
use super::{EXIT_UNAVAILABLE, Outcome, Said, database_failed, on_a_runtime, unavailable};
use crate::channels::{ChannelError, ChannelReconciler, ChannelSync, Reaches, TestReport};
use crate::clock::Clock;
use crate::config::RulesCommandConfig;
use crate::election::LeaderTask;
use crate::labels::{NotificationState, TestOutcome};
use crate::rules::{Reconciler, Triggers};
use crate::store::{NotificationConfirmed, NotificationStatusRow, NotificationSyncRow, StoreError};
use crate::telemetry::ChannelMetrics;
use crate::tenancy::OrganisationId;

/// Compare, sync and test notification channels.
#[derive(Subcommand)]
pub enum ChannelsCommand {
    /// Show what a sync would change in Mimir, without secrets.
    Diff(Of),
    /// Sync channels and routes to Mimir now.
    Sync(Of),
    /// Send a test to a channel, and say what became of it.
    Test(Test),
    /// Confirm a write that is held, and wait until it is done.
    Confirm(Confirm),
}

/// Whose channels.
#[derive(Args)]
pub struct Of {
    /// Only this organisation; all by default.
    #[arg(long, value_name = "ID")]
    organisation: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Send a test to a channel, and say what became of it.
#[derive(Args)]
pub struct Test {
    /// The channel's ID.
    channel: Uuid,
    /// The channel's organisation.
    #[arg(long, value_name = "ID")]
    organisation: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Confirm a write that is held, and wait until it is done.
#[derive(Args)]
pub struct Confirm {
    /// Its ID, as `channels diff` shows it.
    id: String,
    /// The organisation.
    #[arg(long, value_name = "ID")]
    organisation: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// How long a sync may make no progress.
const TIMEOUT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// Runs one of the commands.
pub fn channels(config: &RulesCommandConfig, command: ChannelsCommand) -> Outcome {
    let done = on_a_runtime(async {
        let parts = Parts::new(config)?;
        match command {
            ChannelsCommand::Diff(of) => diff(&parts, of).await,
            ChannelsCommand::Sync(of) => sync(&parts, of).await,
            ChannelsCommand::Test(args) => test(&parts, args).await,
            ChannelsCommand::Confirm(args) => confirm(&parts, args).await,
        }
    })?;
    // An error is a fault in the arguments or the configuration, such as a database that refuses the login. 1 says
    // something of the channels.
    Ok(done.unwrap_or_else(usage_error))
}

struct Parts {
    rules: Arc<Reconciler>,
    channels: Arc<ChannelReconciler>,
}

impl Parts {
    fn new(config: &RulesCommandConfig) -> Result<Self, String> {
        if !config.channels.enabled {
            return Err("channels.enabled is false: this installation syncs no channels".to_owned());
        }
        let rules = reconciler(config)?;
        let template = config.tenancy.template.clone();
        let store = rules.store().clone();
        let channels = ChannelReconciler::new(store, &config.channels, &config.rules, template)?;
        Ok(Self { rules, channels: Arc::new(channels) })
    }

    /// The organisation that is named, if it exists, or all with channels.
    async fn organisations(
        &self,
        named: Option<&str>,
    ) -> Result<BTreeSet<OrganisationId>, Result<Said, String>> {
        let failed = |error: StoreError| database_failed(&error);
        let store = self.channels.store();
        let Some(one) = organisation(named).map_err(Err)? else {
            let all = store.notification_organisations().await.map_err(failed)?;
            return Ok(all.into_iter().collect());
        };
        if !store.existing_organisations(vec![one.clone()]).await.map_err(failed)?.contains(&one) {
            return Err(Err(no_such(&one)));
        }
        Ok(BTreeSet::from([one]))
    }
}

async fn diff(parts: &Parts, of: Of) -> Outcome {
    let organisations = match parts.organisations(of.organisation.as_deref()).await {
        Ok(organisations) => organisations,
        Err(failed) => return failed,
    };
    let mut comparison = Comparison::of(organisations.len(), of.json);
    for organisation in organisations {
        let preview = match parts.channels.preview(&organisation).await {
            Ok(preview) => preview,
            // It is gone since it was listed, or keeps its document for the grace period.
            Err(ChannelError::Missing(_)) => continue,
            // It can have no channels in Mimir.
            Err(error @ ChannelError::Tenant(_)) => {
                comparison.note(&organisation, error);
                continue;
            }
            Err(ChannelError::Store(error)) => {
                return comparison.database_failed(&organisation, &error);
            }
            Err(error) => match comparison.unanswered(&organisation, error) {
                Ok(()) => continue,
                Err(said) => return Ok(said),
            },
        };
        comparison.answered(preview.is_in_sync);
        if preview.is_in_sync {
            continue;
        }
        let held = preview.guard.as_ref();
        let fields = json!({ "diff": preview.diff, "foreign": preview.is_foreign });
        comparison.begin(&organisation, &preview.tenant, held, "channels confirm", fields);
        if preview.is_foreign {
            comparison
                .add("# Mimir's document is not ours and not shown; all of it would be replaced\n");
        }
        comparison.add(&preview.diff);
    }
    Ok(comparison.finish(""))
}

async fn sync(parts: &Parts, of: Of) -> Outcome {
    match parts.organisations(of.organisation.as_deref()).await {
        Ok(organisations) => synced(parts, organisations, of.json).await,
        Err(failed) => failed,
    }
}

/// Requests the syncs as an administrator does, and waits for their end. If no copy of the proxy leads,
/// this process leads in the meantime.
async fn synced(parts: &Parts, organisations: BTreeSet<OrganisationId>, as_json: bool) -> Outcome {
    let mut requested = BTreeMap::new();
    for organisation in &organisations {
        let by = BY.to_owned();
        match parts.channels.store().request_notification_sync(organisation.clone(), by).await {
            Ok(request) => requested.insert(organisation.clone(), request),
            Err(error) => return database_failed(&error),
        };
    }
    let triggers: Arc<Triggers> = Arc::default();
    let task: Arc<dyn LeaderTask> = Arc::new(ChannelSync {
        reconciler: Arc::clone(&parts.channels),
        triggers: Arc::clone(&triggers),
        reaches: Arc::new(Reaches::new(triggers)),
        clock: Clock::system(),
        metrics: Arc::new(ChannelMetrics::unrecorded()),
    });
    let answered = lead_meanwhile(&parts.rules, vec![task], await_answers(parts, requested)).await;
    match answered {
        Ok(true) => match read_ends(parts, &organisations).await {
            Ok((syncs, statuses)) => Ok(said(&syncs, &statuses, as_json)),
            Err(error) => database_failed(&error),
        },
        Ok(false) => {
            Ok(unavailable("the sync makes no progress: another copy leads and does not do it"))
        }
        Err(error) => database_failed(&error),
    }
}

/// Waits until every request is answered; returns whether they are.
async fn await_answers(
    parts: &Parts,
    mut waiting: BTreeMap<OrganisationId, String>,
) -> Result<bool, StoreError> {
    let store = parts.channels.store();
    let mut since = Instant::now();
    while let Some((organisation, request)) = waiting.first_key_value() {
        let answered =
            store.is_notification_sync_answered(organisation.clone(), request.clone()).await?;
        if answered {
            waiting.pop_first();
            since = Instant::now();
        } else if since.elapsed() > TIMEOUT {
            return Ok(false);
        } else {
            sleep(POLL).await;
        }
    }
    Ok(true)
}

type Ends = (Vec<NotificationSyncRow>, Vec<NotificationStatusRow>);

async fn read_ends(
    parts: &Parts,
    organisations: &BTreeSet<OrganisationId>,
) -> Result<Ends, StoreError> {
    let store = parts.channels.store();
    let mut syncs = store.notification_syncs().await?;
    syncs.retain(|sync| organisations.contains(&sync.organisation));
    let names = organisations.iter().cloned().collect();
    Ok((syncs, store.notification_statuses_of(names).await?))
}

fn said(syncs: &[NotificationSyncRow], statuses: &[NotificationStatusRow], as_json: bool) -> Said {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut is_good = true;
    for status in statuses {
        *counts.entry((status.kind.name(), status.state.name())).or_default() += 1;
        is_good &= matches!(status.state, NotificationState::Live | NotificationState::Disabled);
    }
    let failed = syncs.iter().filter(|sync| !sync.problem.is_empty()).count();
    let held: Vec<&NotificationSyncRow> =
        syncs.iter().filter(|sync| sync.guard.is_some()).collect();
    is_good &= failed == 0 && held.is_empty();
    let exit_code = u8::from(!is_good);
    let notes = held.iter().filter_map(|sync| {
        let guard = sync.guard.as_ref()?;
        let (id, reason, organisation) = (&guard.id, &guard.reason, &sync.organisation);
        Some(format!("{reason}; channels confirm {id} --organisation {organisation}"))
    });
    let problems = syncs.iter().filter(|sync| !sync.problem.is_empty());
    let problems = problems.map(|sync| format!("{}: {}", sync.organisation, sync.problem));
    let notes: Vec<String> = notes.chain(problems).collect();
    let note = (!notes.is_empty()).then(|| notes.join("\n"));
    if as_json {
        let of = |kind: &str| -> BTreeMap<&str, usize> {
            let of_kind = counts.iter().filter(|((of, _), _)| *of == kind);
            of_kind.map(|((_, state), count)| (*state, *count)).collect()
        };
        let organisations: Vec<Value> = syncs
            .iter()
            .map(|sync| {
                json!({
                    "organisation": sync.organisation.as_str(), "state": sync.state,
                    "problem": sync.problem,
                    "guard": sync.guard.as_ref().map(|held| json!({ "id": held.id, "reason": held.reason })),
                })
            })
            .collect();
        let answer = json!({
            "organisations": organisations, "channels": of("channel"), "routes": of("route"),
        });
        return Said { answer: answer.to_string(), note, exit_code };
    }
    let mut answer = format!("{} organisations: {failed} failed, {} held", syncs.len(), held.len());
    for kind in ["channel", "route"] {
        let of_kind = counts.iter().filter(|((of, _), _)| *of == kind);
        let of_kind: Vec<String> =
            of_kind.map(|((_, state), count)| format!("{count} {state}")).collect();
        if !of_kind.is_empty() {
            let _ = write!(answer, "\n{kind}s: {}", of_kind.join(", "));
        }
    }
    Said { answer, note, exit_code }
}

async fn test(parts: &Parts, args: Test) -> Outcome {
    let Test { channel, organisation: name, json } = args;
    let Some(organisation) = organisation(Some(&name))? else { return Err(name) };
    let report = parts.channels.send_test(&organisation, channel, &Clock::system()).await;
    match report {
        Ok(report) => Ok(said_of_test(&report, json)),
        Err(ChannelError::Missing("organisation")) => Err(no_such(&organisation)),
        Err(error @ (ChannelError::Missing(_) | ChannelError::Tenant(_))) => Err(error.to_string()),
        Err(ChannelError::Store(error)) => database_failed(&error),
        Err(error) => Ok(unavailable(error)),
    }
}

fn said_of_test(report: &TestReport, as_json: bool) -> Said {
    let exit_code = match report.outcome {
        TestOutcome::Delivered => 0,
        TestOutcome::Failed | TestOutcome::NotLive => 1,
        TestOutcome::NotLoaded | TestOutcome::Unknown => EXIT_UNAVAILABLE,
    };
    let answer = if as_json {
        serde_json::to_string(report).unwrap_or_default()
    } else {
        format!("{}: {}", report.outcome.name(), report.reason)
    };
    Said { answer, note: None, exit_code }
}

async fn confirm(parts: &Parts, args: Confirm) -> Outcome {
    let Confirm { id, organisation: name, json } = args;
    // It need not exist: what is held may be the deletion of what a deleted organisation has.
    let Some(organisation) = organisation(Some(&name))? else { return Err(name) };
    let store = parts.channels.store();
    match store.confirm_notification_guard(organisation.clone(), id.clone(), BY.to_owned()).await {
        Ok(NotificationConfirmed::Noted) => {
            synced(parts, BTreeSet::from([organisation]), json).await
        }
        Ok(NotificationConfirmed::Nothing) => match parts.organisations(Some(&name)).await {
            Err(failed) => failed,
            Ok(_) => Err(format!(
                "nothing is held for organisation {organisation}; one that only channels diff has \
                 shown is recorded by the next channels sync"
            )),
        },
        Ok(NotificationConfirmed::Other(held)) => {
            let note = format!(
                "{id} is not held; what is held now is {}: {}; channels confirm {} --organisation \
                 {organisation}",
                held.id, held.reason, held.id
            );
            Ok(Said { answer: String::new(), note: Some(note), exit_code: 1 })
        }
        Err(error) => database_failed(&error),
    }
}
