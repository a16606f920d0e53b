//! What the leader records: the state of each tenant's sync and of its own work, in the tables that
//! administrators read and in metrics. The status writer brings the rows to the database.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use strum::{EnumCount as _, VariantArray as _};
use time::OffsetDateTime;

use super::queue::{Tenant, WorkQueue};
use crate::clock::Clock;
use crate::labels::RuleState;
use crate::rules::reconcile::report::Reconciled;
use crate::rules::status::outcome::{HeldDeletion, Outcome, SyncOutcome};
use crate::rules::status::statuses::in_mimir;
use crate::rules::status::writer::StatusWriter;
use crate::store::{GuardHeld, GuardRow, HeldRule, LeaderRow, SyncRow};
use crate::telemetry::RuleMetrics;
use crate::tenancy::OrganisationId;

pub(super) struct Records {
    writer: StatusWriter,
    metrics: Arc<RuleMetrics>,
    clock: Clock,
    leader: LeaderRow,
    /// Rules in each state, of all tenants.
    totals: [usize; RuleState::COUNT],
}

impl Records {
    /// Begins with what the last leader recorded.
    pub(super) fn begin(
        writer: StatusWriter,
        metrics: Arc<RuleMetrics>,
        clock: Clock,
        last: LeaderRow,
        holder: &str,
    ) -> Self {
        let leader = LeaderRow { holder: holder.to_owned(), since: Some(clock.utc()), ..last };
        writer.leader(leader.clone());
        Self { writer, metrics, clock, leader, totals: [0; RuleState::COUNT] }
    }

    /// The number of rules that Mimir has.
    pub(super) fn in_mimir(&self) -> usize {
        in_mimir(&self.totals)
    }

    /// Records what is held from now on: nothing, or a deletion of many organisations with its rules.
    pub(super) fn hold(
        &mut self,
        held: Option<GuardHeld>,
        rules: Vec<(OrganisationId, Vec<HeldRule>)>,
    ) {
        let is_held = held.is_some();
        if held != self.leader.guard {
            if let Some(held) = &held {
                tracing::warn!(
                    guard.id = held.id,
                    reason = held.reason,
                    "Deletion of alert rules held"
                );
                let row = |(organisation, rules)| GuardRow {
                    id: held.id.clone(),
                    organisation,
                    is_overall: true,
                    rules,
                };
                self.writer.guards(rules.into_iter().map(row).collect());
            }
            if id_of(held.as_ref()) != id_of(self.leader.guard.as_ref()) {
                self.leader.guard_since = is_held.then(|| self.clock.utc());
            }
            self.leader.guard = held;
            // Now and not at the end: an administrator has to find it in order to confirm it.
            self.writer.leader(self.leader.clone());
        }
        self.metrics.overall_guard_held.set(f64::from(u8::from(is_held)));
    }

    /// Records the end of a full resync.
    pub(super) fn resync_ended(&mut self, outcome: &SyncOutcome, took: Duration) {
        if outcome.problem.is_some() {
            self.metrics.resync_failures.increment(1);
        } else {
            self.metrics.resynced_at.set(self.clock.now().as_secs_f64());
            self.metrics.resync_duration.record(took.as_secs_f64());
            self.leader.resynced_at = Some(self.clock.utc());
        }
        self.leader.resync = outcome.to_json();
        self.writer.leader(self.leader.clone());
    }

    /// Records that an organisation does not exist at this time, if that is new; returns whether it is.
    pub(super) fn absent(&mut self, tenant: &mut Tenant, at: OffsetDateTime) -> bool {
        let Some(sync) = &mut tenant.sync else { return false };
        let is_new = sync.absent_since.is_none();
        if is_new {
            sync.absent_since = Some(at);
            self.writer.sync(sync.clone());
        }
        is_new
    }

    /// A tenant has no rules any more.
    pub(super) fn purged(&mut self, tenant: &mut Tenant) {
        self.recount(tenant, [0; RuleState::COUNT]);
    }

    /// Records the state of a tenant after a reconcile, if it has changed.
    pub(super) fn reconciled(
        &mut self,
        organisation: &OrganisationId,
        tenant: &mut Tenant,
        tenant_id: String,
        reconciled: &Reconciled,
    ) {
        let now = self.clock.utc();
        let is_done = matches!(reconciled.outcome, Outcome::Applied | Outcome::Unchanged);
        if is_done {
            let seconds = self.clock.now().as_secs_f64();
            self.metrics.tenant_succeeded(&tenant_id, seconds);
        }
        if let Some(states) = reconciled.states {
            self.recount(tenant, states);
        }

        let before = tenant.sync.clone();
        let states = tenant.states;
        let has_rules = states.iter().sum::<usize>() > 0;
        if before.is_none() && !has_rules && matches!(reconciled.outcome, Outcome::Unchanged) {
            // An organisation without rules needs no record.
            return;
        }
        let mut sync = before.clone().unwrap_or_else(|| SyncRow::new(organisation));
        sync.tenant = tenant_id;
        if reconciled.states.is_some() {
            set_counts(&mut sync, &states);
        }
        if let Some(limits) = reconciled.observed_limits {
            sync.shown_rules_per_group = limits.rules_per_group;
            sync.shown_groups = limits.groups;
        }
        sync.absent_since = None;
        if reconciled.wrote {
            sync.synced_at = Some(now);
        }

        // A failure says nothing about a deletion that is held: it stays held.
        let (problem, guard) = match &reconciled.outcome {
            Outcome::Failed(failure) => (failure.problem.clone(), sync.guard.clone()),
            Outcome::Held(held) => (String::new(), Some(held.clone())),
            _ => (reconciled.broken.clone().unwrap_or_default(), None),
        };
        if problem.is_empty() {
            sync.problem_since = None;
        } else {
            sync.problem_since.get_or_insert(now);
        }
        sync.problem = problem;

        if is_done && (sync.guard.is_some() || reconciled.by_confirmation) {
            self.writer.end_confirmations(organisation.clone());
        }
        if guard != sync.guard {
            if let Some(held) = &guard {
                self.writer.guards(vec![GuardRow {
                    id: held.id.clone(),
                    organisation: organisation.clone(),
                    is_overall: false,
                    rules: reconciled.vanishing.rules(),
                }]);
            }
            if id_of(guard.as_ref()) != id_of(sync.guard.as_ref()) {
                sync.guard_since = guard.as_ref().map(|_| now);
            }
            sync.guard = guard;
        }
        if before.as_ref() != Some(&sync) {
            tenant.sync = Some(sync.clone());
            self.writer.sync(sync);
        }
    }

    /// Records how a tenant's rules are evaluated, if that has changed.
    pub(super) fn evaluated(&mut self, tenant: &mut Tenant, states: [usize; RuleState::COUNT]) {
        self.recount(tenant, states);
        let Some(sync) = &mut tenant.sync else { return };
        let before = sync.clone();
        set_counts(sync, &states);
        if before != *sync {
            self.writer.sync(sync.clone());
        }
    }

    /// Counts the tenants with a problem, and those with a deletion that is held.
    pub(super) fn count_troubles(&self, queue: &WorkQueue) {
        let (mut failing, mut held) = (0_u32, 0_u32);
        for sync in queue.iter().filter_map(|(_, tenant)| tenant.sync.as_ref()) {
            failing += u32::from(!sync.problem.is_empty());
            held += u32::from(sync.guard.is_some());
        }
        self.metrics.tenants_failing.set(f64::from(failing));
        self.metrics.guards_held.set(f64::from(held));
    }

    /// Updates the number of rules in each state over all tenants.
    fn recount(&mut self, tenant: &mut Tenant, states: [usize; RuleState::COUNT]) {
        let before = std::mem::replace(&mut tenant.states, states);
        for state in RuleState::VARIANTS {
            let at = *state as usize;
            self.totals[at] = (self.totals[at] + states[at]).saturating_sub(before[at]);
            let total = f64::from(u32::try_from(self.totals[at]).unwrap_or(u32::MAX));
            self.metrics.rules_in(*state).set(total);
        }
    }
}

impl Drop for Records {
    /// Only the leader has something to tell: what it last set would stand until it leads again.
    fn drop(&mut self) {
        self.metrics.end_of_leadership();
    }
}

fn set_counts(sync: &mut SyncRow, states: &[usize; RuleState::COUNT]) {
    sync.stored = states[RuleState::Stored as usize];
    sync.live = states[RuleState::Live as usize];
    sync.failing = states[RuleState::Failing as usize];
    sync.not_in_mimir = not_in_mimir(states);
}

fn id_of(held: Option<&GuardHeld>) -> Option<&str> {
    held.map(|held| held.id.as_str())
}

pub(super) fn whole_ms(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

fn not_in_mimir(states: &[usize; RuleState::COUNT]) -> usize {
    let states_of =
        [RuleState::Pending, RuleState::Invalid, RuleState::OverLimit, RuleState::Error];
    states_of.iter().map(|state| states[*state as usize]).sum()
}

/// One line for each reconcile that did something, or could not.
pub(super) fn log(organisation: &OrganisationId, reconciled: &Reconciled, took: Duration) {
    let states = reconciled.states.unwrap_or_default();
    match &reconciled.outcome {
        Outcome::Applied => tracing::info!(
            organisation.id = %organisation,
            rules.in_mimir = in_mimir(&states),
            rules.not_live = not_in_mimir(&states),
            duration_ms = whole_ms(took),
            "Alert rules synced"
        ),
        Outcome::Failed(failure) => tracing::warn!(
            organisation.id = %organisation,
            problem = failure.problem,
            "Alert rules not synced; retrying"
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

/// The outcome for whoever requested the sync of one organisation.
pub(super) fn outcome_of(reconciled: &Reconciled, is_absent: bool) -> SyncOutcome {
    let problem = match &reconciled.outcome {
        _ if is_absent => Some("organisation not found"),
        Outcome::Failed(failure) => Some(failure.reason),
        Outcome::Held(held) => Some(held.reason.as_str()),
        _ => None,
    };
    let states = reconciled.states.unwrap_or_default();
    let rules = RuleState::VARIANTS.iter().map(|state| (*state, states[*state as usize]));
    SyncOutcome {
        outcomes: BTreeMap::from([(reconciled.outcome.kind(), 1)]),
        problem: problem.map(ToOwned::to_owned),
        guard: match &reconciled.outcome {
            Outcome::Held(held) => Some(HeldDeletion::from(held)),
            _ => None,
        },
        rules: Some(rules.collect()),
        ..SyncOutcome::default()
    }
}
