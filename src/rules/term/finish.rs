//! A look has ended: what it came to is written down, and what follows from it is set.

use super::{Instant, Progress, Term, whole_ms};
use crate::mimir::ruler::next_delay;
use crate::rules::look::Looked;
use crate::rules::outcome::{Activated, Outcome};
use crate::rules::overall::Loss;
use crate::rules::survey::Phase;
use crate::rules::tenants::TenantState;
use crate::store::{GuardHeld, GuardRow, RuleState, SyncRow};
use crate::tenancy::OrganisationId;

impl Term {
    pub(super) fn looked(&mut self, looked: Looked) {
        let Looked {
            organisation,
            activated,
            memory,
            heard_at,
            requests,
            took,
            is_absent,
            is_survey,
        } = looked;
        let metrics = &self.engine.metrics;
        metrics.activation(activated.outcome.label());
        metrics.activation_duration.record(took.as_secs_f64());
        if let (Outcome::Applied, Some(heard)) = (&activated.outcome, heard_at) {
            metrics.lag.record(heard.elapsed().as_secs_f64());
        }
        let again = self.tenants.end(&organisation, memory, took);
        self.note_in_survey(&organisation, &activated, is_survey);
        if !is_survey && !activated.by_confirmation && activated.removed > 0 {
            let (live, guard) = (self.live(), &self.engine.config.guard);
            self.window.note(&organisation, activated.removed, live, guard);
        }
        if matches!(activated.outcome, Outcome::LeaseLost) {
            return;
        }
        if is_absent {
            self.absent(&organisation);
        } else if matches!(activated.outcome, Outcome::Deferred) {
            // Nothing was done yet: whoever waits goes on waiting.
            let tenant = self.tenants.get(&organisation);
            tenant.requests.extend(requests);
            tenant.heard_at = tenant.heard_at.or(heard_at);
            if !is_survey {
                self.want_survey(Vec::new());
            }
            self.ledger.statuses(activated.changes);
            if again {
                // What it deletes waits; what was heard of meanwhile is no part of that.
                self.tenants.hear(&organisation, Instant::now());
            }
            return;
        } else {
            log(&organisation, &activated, took);
            self.note(&organisation, &activated);
            self.set_next(&organisation, &activated);
        }
        let outcome = for_whoever_asked(&activated, is_absent);
        self.ledger.statuses(activated.changes);
        self.ledger.buried(&organisation, activated.buried);
        for request in requests {
            let outcome = Some(outcome.clone());
            self.ledger.progress(request, Progress { done: 1, total: 1, outcome });
        }
        if again {
            self.tenants.hear(&organisation, Instant::now());
        }
    }

    /// What a look came to counts in the survey that began it, or that waits for it.
    fn note_in_survey(
        &mut self,
        organisation: &OrganisationId,
        activated: &Activated,
        is_survey: bool,
    ) {
        let Some(survey) = &mut self.survey else { return };
        if !survey.pending.remove(organisation) {
            return;
        }
        if survey.phase == Phase::Looking {
            survey.done += 1;
            if is_survey || matches!(activated.outcome, Outcome::Deferred) {
                let loss = Loss::from(activated.vanishing.clone());
                survey.losses.insert(organisation.clone(), loss);
            }
        }
        if matches!(activated.outcome, Outcome::Deferred) {
            survey.deferred.push(organisation.clone());
            return;
        }
        *survey.outcomes.entry(activated.outcome.label()).or_default() += 1;
        const PROGRESS_STEP: usize = 25;
        if survey.done.is_multiple_of(PROGRESS_STEP) {
            for request in &survey.requests {
                let (done, total) = (survey.done, survey.total);
                self.ledger.progress(*request, Progress { done, total, outcome: None });
            }
        }
    }

    /// The organisation is gone: its rules are kept for a while.
    fn absent(&mut self, organisation: &OrganisationId) {
        let now = self.now();
        let tenant = self.tenants.get(organisation);
        if let Some(memory) = &mut tenant.memory {
            // Its rules may have moved to another one, and their statuses with them.
            memory.forget_rows();
        }
        let Some(sync) = &mut tenant.sync else {
            // There never was one of that name.
            if tenant.state == TenantState::Idle {
                self.tenants.forget(organisation);
            }
            return;
        };
        if sync.absent_since.is_none() {
            sync.absent_since = Some(now);
            let sync = sync.clone();
            self.ledger.sync(sync);
        }
    }

    /// Writes down how it stands with an organisation, if that has changed.
    fn note(&mut self, organisation: &OrganisationId, activated: &Activated) {
        let now = self.now();
        let tenant_id = self.engine.tenant_of(organisation);
        let tenant_id = tenant_id.map(|tenant| tenant.as_str().to_owned()).unwrap_or_default();
        if matches!(activated.outcome, Outcome::Applied | Outcome::Unchanged) {
            let seconds = self.engine.clock.now().as_secs_f64();
            self.engine.metrics.tenant_succeeded(&tenant_id, seconds);
        }
        if let Some(states) = activated.states {
            self.recount(organisation, states);
        }
        let tenant = self.tenants.get(organisation);
        let before = tenant.sync.clone();
        // What is not known this time is as it was.
        let states = tenant.states;
        let is_nothing =
            states.iter().sum::<usize>() == 0 && matches!(activated.outcome, Outcome::Unchanged);
        if before.is_none() && is_nothing {
            return;
        }
        let mut sync = before.clone().unwrap_or_else(|| SyncRow {
            organisation: organisation.clone(),
            tenant: String::new(),
            live: 0,
            not_live: 0,
            synced_at: None,
            problem: String::new(),
            problem_since: None,
            absent_since: None,
            guard: None,
            guard_since: None,
            shown_rules_per_group: None,
            shown_groups: None,
        });
        sync.tenant = tenant_id;
        if activated.states.is_some() {
            sync.live = states[RuleState::Live as usize];
            sync.not_live = not_live(&states);
        }
        if let Some(shown) = activated.shown {
            (sync.shown_rules_per_group, sync.shown_groups) = (shown.rules_per_group, shown.groups);
        }
        sync.absent_since = None;
        if activated.wrote {
            sync.synced_at = Some(now);
        }
        let (problem, guard) = match &activated.outcome {
            Outcome::Failed(trouble) => (trouble.problem.clone(), sync.guard.clone()),
            Outcome::Held(held) => (String::new(), Some(held.clone())),
            _ => (activated.broken.clone().unwrap_or_default(), None),
        };
        if problem.is_empty() {
            sync.problem_since = None;
        } else {
            sync.problem_since.get_or_insert(now);
        }
        sync.problem = problem;
        let is_done = matches!(activated.outcome, Outcome::Applied | Outcome::Unchanged);
        if is_done && (sync.guard.is_some() || activated.by_confirmation) {
            self.ledger.end_confirmations(organisation.clone());
        }
        if guard != sync.guard {
            if let Some(held) = &guard {
                self.ledger.guards(vec![GuardRow {
                    id: held.id.clone(),
                    organisation: organisation.clone(),
                    is_overall: false,
                    rules: activated.vanishing.rules(),
                }]);
            }
            let id = |guard: &Option<GuardHeld>| guard.as_ref().map(|held| held.id.clone());
            if id(&guard) != id(&sync.guard) {
                sync.guard_since = guard.as_ref().map(|_| now);
            }
            sync.guard = guard;
        }
        if before.as_ref() != Some(&sync) {
            tenant.sync = Some(sync.clone());
            self.ledger.sync(sync);
        }
        // In a survey this would be done for each of all by each of all.
        if self.survey.is_none() {
            self.count_troubles();
        }
    }

    pub(super) fn count_troubles(&self) {
        let (mut failing, mut held) = (0_u32, 0_u32);
        for sync in self.tenants.iter().filter_map(|(_, tenant)| tenant.sync.as_ref()) {
            failing += u32::from(!sync.problem.is_empty());
            held += u32::from(sync.guard.is_some());
        }
        self.engine.metrics.tenants_failing.set(f64::from(failing));
        self.engine.metrics.guards_held.set(f64::from(held));
    }

    /// Sets when a tenant is looked at again by itself.
    fn set_next(&mut self, organisation: &OrganisationId, activated: &Activated) {
        let retry_after = match &activated.outcome {
            Outcome::Failed(trouble) => trouble.retry_after,
            _ if activated.broken.is_some() => None,
            _ => {
                self.tenants.get(organisation).failures = 0;
                return;
            }
        };
        let tenant = self.tenants.get(organisation);
        let delay = next_delay(tenant.failures + 2, retry_after, fastrand::f64());
        tenant.failures = tenant.failures.saturating_add(1);
        let at = Instant::now() + delay;
        if retry_after.is_some() {
            // Mimir asked for it: news do not shorten it.
            tenant.rests_until = Some(at);
            tenant.must_wait = true;
        }
        self.tenants.wait_until(organisation, at);
    }

    /// Keeps the number of rules in each state.
    pub(super) fn recount(
        &mut self,
        organisation: &OrganisationId,
        states: [usize; RuleState::ALL.len()],
    ) {
        let before = std::mem::replace(&mut self.tenants.get(organisation).states, states);
        for state in RuleState::ALL {
            let at = state as usize;
            let total = self.totals[at] + states[at] - before[at].min(self.totals[at] + states[at]);
            self.totals[at] = total;
            if let Some(gauge) = self.engine.metrics.rules_in(state.name()) {
                gauge.set(f64::from(u32::try_from(total).unwrap_or(u32::MAX)));
            }
        }
    }
}

fn log(organisation: &OrganisationId, activated: &Activated, took: std::time::Duration) {
    let states = activated.states.unwrap_or_default();
    let count = |state: RuleState| states[state as usize];
    let not_live = not_live(&states);
    match &activated.outcome {
        Outcome::Applied => tracing::info!(
            organisation.id = %organisation,
            rules.live = count(RuleState::Live),
            rules.not_live = not_live,
            duration_ms = whole_ms(took),
            "Alert rules synced"
        ),
        Outcome::Failed(trouble) => tracing::warn!(
            organisation.id = %organisation,
            problem = trouble.problem,
            "Alert rules not synced; tried again"
        ),
        Outcome::Held(held) => tracing::warn!(
            organisation.id = %organisation,
            guard.id = held.id,
            reason = held.reason,
            "Deletion of alert rules held"
        ),
        Outcome::Unchanged | Outcome::Deferred | Outcome::LeaseLost => {}
    }
}

fn not_live(states: &[usize; RuleState::ALL.len()]) -> usize {
    let states_of =
        [RuleState::Pending, RuleState::Invalid, RuleState::OverLimit, RuleState::Error];
    states_of.iter().map(|state| states[*state as usize]).sum()
}

fn for_whoever_asked(activated: &Activated, is_absent: bool) -> String {
    let problem = match &activated.outcome {
        _ if is_absent => Some("there is no such organisation"),
        Outcome::Failed(trouble) => Some(trouble.words),
        Outcome::Held(held) => Some(held.reason.as_str()),
        _ => None,
    };
    let states = RuleState::ALL
        .map(|state| (state.name(), activated.states.unwrap_or_default()[state as usize]));
    let states: std::collections::BTreeMap<_, _> = states.into();
    serde_json::json!({
        "outcomes": { (activated.outcome.label()): 1 },
        "problem": problem,
        "guard": match &activated.outcome {
            Outcome::Held(held) => serde_json::json!({ "id": held.id, "reason": held.reason }),
            _ => serde_json::Value::Null,
        },
        "rules": states,
    })
    .to_string()
}
