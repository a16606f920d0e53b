//! Metrics of the sync of alert rules, registered only where it is switched on.

use std::collections::HashMap;

use metrics::{Counter, Gauge, Histogram};
use parking_lot::Mutex;

use super::table::{self, PLAIN};

/// Handles to them.
pub struct RuleMetrics {
    reconciles: HashMap<&'static str, Counter>,
    pub reconcile_duration: Histogram,
    pub lag: Histogram,
    health_reads: HashMap<&'static str, Counter>,
    pub group_sets: Counter,
    pub group_deletes: Counter,
    states: HashMap<&'static str, Gauge>,
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

/// Label values that `rules` and `store` know.
pub struct RuleMetricNames {
    pub outcomes: Vec<&'static str>,
    pub states: Vec<&'static str>,
}

/// Tenants that have a series of their own: the first ones. Further ones share `other`.
const MOST_TENANTS: usize = 200;

impl RuleMetrics {
    /// Registers everything with the installed recorder.
    pub fn register(names: &RuleMetricNames) -> Self {
        let reconciles =
            |outcome: &'static str| table::RULES_RECONCILES.counter([("outcome", outcome)]);
        let state = |state: &'static str| table::RULES_RULES.gauge([("state", state)]);
        let write = |kind: &'static str| table::RULES_GROUP_WRITES.counter([("kind", kind)]);
        let held = |scope: &'static str| table::RULES_GUARDS_HELD.gauge([("scope", scope)]);
        Self {
            reconciles: names.outcomes.iter().map(|name| (*name, reconciles(name))).collect(),
            reconcile_duration: table::RULES_RECONCILE_DURATION.histogram(PLAIN),
            lag: table::RULES_LAG.histogram(PLAIN),
            health_reads: ["read", "failed"]
                .map(|outcome| (outcome, table::RULES_HEALTH_READS.counter([("outcome", outcome)])))
                .into(),
            group_sets: write("set"),
            group_deletes: write("delete"),
            states: names.states.iter().map(|name| (*name, state(name))).collect(),
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
            reconciles: HashMap::new(),
            reconcile_duration: Histogram::noop(),
            lag: Histogram::noop(),
            health_reads: HashMap::new(),
            group_sets: Counter::noop(),
            group_deletes: Counter::noop(),
            states: HashMap::new(),
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
    pub fn reconciled(&self, outcome: &'static str) {
        if let Some(counter) = self.reconciles.get(outcome) {
            counter.increment(1);
        }
    }

    /// Counts a reading of how one tenant's rules are evaluated.
    pub fn health_read(&self, outcome: &'static str) {
        if let Some(counter) = self.health_reads.get(outcome) {
            counter.increment(1);
        }
    }

    /// Rules in a state, over all organisations that this leader has reconciled.
    pub fn rules_in(&self, state: &'static str) -> Option<&Gauge> {
        self.states.get(state)
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
