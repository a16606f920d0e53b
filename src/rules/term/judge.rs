//! Second phase of a full resync: decides whether pending deletions may proceed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::{Done, Instant, SURVEY_RETRY, Term, whole_ms};
use crate::rules::Engine;
use crate::rules::activation::{Mode, Watch};
use crate::rules::guard::Removal;
use crate::rules::lease::Lease;
use crate::rules::ledger::Progress;
use crate::rules::memory::Memory;
use crate::rules::overall::{Loss, Window, judge_all};
use crate::rules::survey::{Phase, Removing, Survey};
use crate::rules::tenants::Tenant;
use crate::rules::vanishing::Vanishing;
use crate::rules::writer::{WriteError, Writer};
use crate::store::{GuardHeld, GuardRow, RuleState, StoreError};
use crate::tenancy::OrganisationId;

impl Term {
    /// What may vanish of an organisation of which a change was heard.
    pub(super) fn mode_of_hints(&self, organisation: &OrganisationId) -> Mode {
        let small = self.window.small_left(self.live(), &self.engine.config.guard);
        Mode::Guarded(Watch { held: self.held_of(organisation), small })
    }

    /// While a deletion in many organisations waits: what of this one is part of it.
    fn held_of(&self, organisation: &OrganisationId) -> Option<Arc<HashSet<String>>> {
        let is_held = self.leader.guard.is_some();
        is_held.then(|| self.held.get(organisation).cloned().unwrap_or_default())
    }

    pub(super) fn live(&self) -> usize {
        self.totals[RuleState::Live as usize]
    }

    /// Notes which organisations are gone, and which have been for long enough.
    pub(super) fn find_absent(&mut self) {
        let now = self.now();
        let grace = self.engine.config.organisation_grace;
        let Some(survey) = &mut self.survey else { return };
        let gone = |(organisation, tenant): (&OrganisationId, &Tenant)| {
            let is_gone = !survey.organisations.contains(organisation) && !tenant.is_running();
            (is_gone && tenant.sync.is_some()).then(|| organisation.clone())
        };
        let gone: Vec<OrganisationId> = self.tenants.iter().filter_map(gone).collect();
        // That all are gone at once is no deletion but a database that is not the one it was.
        let is_all = survey.organisations.is_empty();
        for organisation in gone {
            let Some(sync) = &mut self.tenants.get(&organisation).sync else { continue };
            let is_news = sync.absent_since.is_none();
            let since = *sync.absent_since.get_or_insert(now);
            let live = sync.live;
            if is_news {
                tracing::info!(organisation.id = %organisation, "Organisation is gone; its rules are kept for a while");
                self.ledger.sync(sync.clone());
            }
            if since + grace > now {
                continue;
            }
            let explained = if is_all { 0 } else { live };
            let removal = Removal { observed: live, remaining: 0, explained, missing: 0 };
            let loss = Loss { removal, vanishing: Vanishing::everything() };
            survey.losses.insert(organisation.clone(), loss);
            survey.buried.push(organisation);
        }
    }

    /// Judges all tenants together, and begins with what may vanish.
    pub(super) fn judge_survey(
        &mut self,
        confirmed: Result<HashMap<OrganisationId, HashSet<String>>, StoreError>,
    ) {
        let now = self.now();
        let Some(survey) = &mut self.survey else { return };
        let confirmed = match confirmed {
            Ok(confirmed) => confirmed,
            Err(error) => {
                survey.problem = Some(error.to_string());
                return self.end_survey();
            }
        };
        let guard = &self.engine.config.guard;
        let judged = judge_all(&survey.losses, &confirmed, &self.window, &self.held, guard);
        // From now on it is counted again from the beginning.
        self.window = Window::default();
        if judged.held != self.leader.guard {
            if let Some(held) = &judged.held {
                tracing::warn!(
                    guard.id = held.id,
                    reason = held.reason,
                    "Deletion of alert rules held"
                );
                let row = |organisation: &OrganisationId| {
                    let loss = survey.losses.get(organisation);
                    GuardRow {
                        id: held.id.clone(),
                        organisation: organisation.clone(),
                        is_overall: true,
                        rules: loss.map(|loss| loss.vanishing.rules()).unwrap_or_default(),
                    }
                };
                self.ledger.guards(judged.keys.keys().map(row).collect());
            }
            let id = |guard: &Option<GuardHeld>| guard.as_ref().map(|held| held.id.clone());
            if id(&judged.held) != id(&self.leader.guard) {
                self.leader.guard_since = judged.held.as_ref().map(|_| now);
            }
            self.leader.guard = judged.held;
            // Whoever confirms it has to find it.
            self.ledger.leader(self.leader.clone());
        }
        self.held = judged.keys;
        let is_held = self.leader.guard.is_some();
        self.engine.metrics.overall_guard_held.set(f64::from(u8::from(is_held)));
        survey.phase = Phase::Removing;
        let buried = std::mem::take(&mut survey.buried);
        let buried = buried.into_iter().filter(|gone| !self.held.contains_key(gone));
        let mut removing: VecDeque<Removing> = buried.map(Removing::Bury).collect();
        let deferred = std::mem::take(&mut survey.deferred);
        for organisation in deferred {
            let held = self.held_of(&organisation);
            let mode = Mode::Guarded(Watch { held, small: None });
            removing.push_back(Removing::Look(organisation, mode));
        }
        if let Some(survey) = &mut self.survey {
            survey.removing.extend(removing);
        }
    }

    pub(super) fn start_burial(&mut self, organisation: OrganisationId) {
        // Whoever looks at it meanwhile has found it there again.
        let Some(begun) = self.tenants.begin(&organisation) else { return };
        let (engine, lease) = (Arc::clone(&self.engine), self.lease.clone());
        if let Some(survey) = &mut self.survey {
            survey.pending.insert(organisation.clone());
        }
        self.tasks.spawn(async move {
            let outcome = bury(&engine, &lease, &organisation).await;
            Done::Buried(organisation, begun.memory, outcome)
        });
    }

    /// The namespace of an organisation that is gone has been deleted, or not.
    pub(super) fn buried(
        &mut self,
        organisation: &OrganisationId,
        memory: Box<Memory>,
        outcome: Result<(), String>,
    ) {
        if let Some(survey) = &mut self.survey {
            survey.pending.remove(organisation);
        }
        let again = self.tenants.end(organisation, memory, std::time::Duration::ZERO);
        match outcome {
            Ok(()) => {
                tracing::info!(organisation.id = %organisation, "Rules of an organisation that is gone deleted");
                self.recount(organisation, [0; RuleState::ALL.len()]);
                self.ledger.forget(organisation.clone());
                self.tenants.forget(organisation);
                if again {
                    self.tenants.hear(organisation, Instant::now());
                }
            }
            Err(problem) => {
                tracing::warn!(organisation.id = %organisation, problem, "Rules of an organisation that is gone not deleted yet");
            }
        }
    }

    pub(super) fn end_survey(&mut self) {
        let Some(survey) = self.survey.take() else { return };
        self.count_troubles();
        let now = Instant::now();
        let took = survey.began.elapsed();
        let failed = survey.outcomes.get("failed").copied().unwrap_or(0);
        let outcome = summary(&survey, self.leader.guard.as_ref());
        self.next_survey = now + self.engine.config.reconcile_interval;
        if survey.problem.is_some() {
            self.engine.metrics.reconcile_failures.increment(1);
            self.next_survey = now + SURVEY_RETRY.min(self.engine.config.reconcile_interval);
        } else {
            self.leader.reconciled_at = Some(self.now());
            self.engine.metrics.reconciled_at.set(self.engine.clock.now().as_secs_f64());
            self.engine.metrics.reconcile_duration.record(took.as_secs_f64());
        }
        let store = self.engine.store.clone();
        self.tasks.spawn(async move { Done::Tidied(store.forget_old_rule_notes().await) });
        if self.survey_again.is_some() {
            self.next_survey = now + super::SURVEY_REST;
        }
        // Somebody may have asked of whom nobody told.
        self.read_requests();
        self.leader.reconcile = outcome.to_string();
        self.ledger.leader(self.leader.clone());
        for request in &survey.requests {
            let (done, total) = (survey.done, survey.total);
            let outcome = Some(outcome.to_string());
            self.ledger.progress(*request, Progress { done, total, outcome });
        }
        tracing::info!(
            organisations = survey.total,
            failed,
            problem = survey.problem.as_deref(),
            duration_ms = whole_ms(took),
            "Alert rules reconciled"
        );
    }
}

async fn bury(engine: &Engine, lease: &Lease, organisation: &OrganisationId) -> Result<(), String> {
    // What can have no tenant has nothing in Mimir.
    let Ok(tenant) = engine.tenant_of(organisation) else { return Ok(()) };
    // It may have come back since everything was read.
    let snapshot = engine.store.alert_rules_of(vec![organisation.clone()]).await;
    if snapshot.map_err(|error| error.to_string())?.existing.contains(organisation) {
        return Err("it is there again".to_owned());
    }
    let writer = Writer { client: &engine.client, lease, metrics: &engine.metrics };
    writer.delete_namespace(&tenant).await.map_err(|error| match error {
        WriteError::LeaseLost => "somebody else leads".to_owned(),
        WriteError::Ruler(error) => error.to_string(),
    })
}

fn summary(survey: &Survey, held: Option<&GuardHeld>) -> serde_json::Value {
    serde_json::json!({
        "organisations": survey.total,
        "outcomes": survey.outcomes,
        "problem": survey.problem,
        "guard": held.map(|held| serde_json::json!({ "id": held.id, "reason": held.reason })),
        "duration_ms": whole_ms(survey.began.elapsed()),
    })
}
