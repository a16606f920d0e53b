//! Metrics of the sync of alert rules, registered only where it is switched on.

use std::array;
use std::collections::HashMap;

use metrics::{Counter, Gauge, Histogram};
use parking_lot::Mutex;
use strum::{EnumCount as _, VariantArray as _};

use super::table::{self, PLAIN};
use crate::labels::{OutcomeKind, RuleState};

pub struct RuleMetrics {
    reconciles: [Counter; OutcomeKind::COUNT],
    pub reconcile_duration: Histogram,
    pub lag: Histogram,
    /// Readings of how a tenant's rules are evaluated.
    pub health_reads: Counter,
    pub health_read_failures: Counter,
    pub group_sets: Counter,
    pub group_deletes: Counter,
    states: [Gauge; RuleState::COUNT],
    /// Organisations with a deletion that waits for a confirmation.
    pub guards_held: Gauge,
    /// Whether a deletion in many organisations waits for one.
    pub overall_guard_held: Gauge,
    pub leader: Gauge,
    pub leaderships: Counter,
    pub resynced_at: Gauge,
    pub resync_duration: Histogram,
    pub resync_failures: Counter,
    pub tenants_failing: Gauge,
    pub status_write_failures: Counter,
    tenants: Mutex<HashMap<String, Gauge>>,
}

/// Tenants that have a series of their own: the first ones. Further ones share `other`.
const MOST_TENANTS: usize = 200;

impl RuleMetrics {
    /// Registers everything with the installed recorder.
    pub fn register() -> Self {
        let reconciles = |outcome: OutcomeKind| {
            table::RULES_RECONCILES.counter([("outcome", <&str>::from(outcome))])
        };
        let states = |state: RuleState| table::RULES_RULES.gauge([("state", state.name())]);
        let write = |kind: &'static str| table::RULES_GROUP_WRITES.counter([("kind", kind)]);
        let health_reads =
            |outcome: &'static str| table::RULES_HEALTH_READS.counter([("outcome", outcome)]);
        let held = |scope: &'static str| table::RULES_GUARDS_HELD.gauge([("scope", scope)]);
        Self {
            reconciles: array::from_fn(|at| reconciles(OutcomeKind::VARIANTS[at])),
            reconcile_duration: table::RULES_RECONCILE_DURATION.histogram(PLAIN),
            lag: table::RULES_LAG.histogram(PLAIN),
            health_reads: health_reads("read"),
            health_read_failures: health_reads("failed"),
            group_sets: write("set"),
            group_deletes: write("delete"),
            states: array::from_fn(|at| states(RuleState::VARIANTS[at])),
            guards_held: held("tenant"),
            overall_guard_held: held("overall"),
            leader: table::RULES_LEADER.gauge(PLAIN),
            leaderships: table::RULES_LEADERSHIPS.counter(PLAIN),
            resynced_at: table::RULES_FULL_RESYNC_AT.gauge(PLAIN),
            resync_duration: table::RULES_FULL_RESYNC_DURATION.histogram(PLAIN),
            resync_failures: table::RULES_FULL_RESYNC_FAILURES.counter(PLAIN),
            tenants_failing: table::RULES_TENANTS_FAILING.gauge(PLAIN),
            status_write_failures: table::RULES_STATUS_WRITE_FAILURES.counter(PLAIN),
            tenants: Mutex::default(),
        }
    }

    /// Handles that record nothing, for a process without a recorder.
    pub fn unrecorded() -> Self {
        Self {
            reconciles: array::from_fn(|_| Counter::noop()),
            reconcile_duration: Histogram::noop(),
            lag: Histogram::noop(),
            health_reads: Counter::noop(),
            health_read_failures: Counter::noop(),
            group_sets: Counter::noop(),
            group_deletes: Counter::noop(),
            states: array::from_fn(|_| Gauge::noop()),
            guards_held: Gauge::noop(),
            overall_guard_held: Gauge::noop(),
            leader: Gauge::noop(),
            leaderships: Counter::noop(),
            resynced_at: Gauge::noop(),
            resync_duration: Histogram::noop(),
            resync_failures: Counter::noop(),
            tenants_failing: Gauge::noop(),
            status_write_failures: Counter::noop(),
            tenants: Mutex::default(),
        }
    }

    /// Counts a reconcile of one tenant.
    pub fn reconciled(&self, outcome: OutcomeKind) {
        self.reconciles[outcome as usize].increment(1);
    }

    /// Rules in a state, over all organisations that this leader has reconciled.
    pub fn rules_in(&self, state: RuleState) -> &Gauge {
        &self.states[state as usize]
    }

    /// Sets to 0 what only the leader tells.
    pub fn end_of_leadership(&self) {
        let Self { states, guards_held, overall_guard_held, tenants_failing, .. } = self;
        let told = [guards_held, overall_guard_held, tenants_failing];
        states.iter().chain(told).for_each(|gauge| gauge.set(0.0));
    }

    /// Notes a successful reconcile of a tenant.
    pub fn tenant_succeeded(&self, tenant: &str, unix_seconds: f64) {
        let mut tenants = self.tenants.lock();
        let name = if tenants.contains_key(tenant) || tenants.len() < MOST_TENANTS {
            tenant
        } else {
            "other"
        };
        let series = tenants
            .entry(name.to_owned())
            .or_insert_with(|| table::RULES_TENANT_SUCCESS.gauge([("tenant", name.to_owned())]));
        series.set(unix_seconds);
    }
}
