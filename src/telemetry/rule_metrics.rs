//! Metrics of the sync of alert rules. They are there only where it is switched on.

#![expect(clippy::disallowed_macros, reason = "this is where metrics are registered")]

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};

/// Handles to them.
pub struct RuleMetrics {
    activations: HashMap<&'static str, Counter>,
    /// One look at one tenant, and what it led to.
    pub activation_duration: Histogram,
    /// From a change heard of to its rule live.
    pub lag: Histogram,
    /// Groups written.
    pub group_sets: Counter,
    /// Groups deleted.
    pub group_deletes: Counter,
    states: HashMap<&'static str, Gauge>,
    /// Organisations of which a deletion waits for an administrator.
    pub guards_held: Gauge,
    /// Whether a deletion in many organisations waits.
    pub overall_guard_held: Gauge,
    /// Whether this process writes.
    pub leader: Gauge,
    /// Times that it began to.
    pub terms: Counter,
    /// When everything was last looked at, in seconds since the epoch.
    pub reconciled_at: Gauge,
    /// How long that took.
    pub reconcile_duration: Histogram,
    /// Looks at everything that failed.
    pub reconcile_failures: Counter,
    /// Organisations whose last look failed.
    pub tenants_failing: Gauge,
    /// Statuses that could not be written yet.
    pub status_write_failures: Counter,
    tenants: Mutex<HashMap<String, Gauge>>,
}

/// The labels of outcomes and states, which the rules engine knows.
pub struct RuleMetricNames {
    /// What a look at a tenant may come to.
    pub outcomes: Vec<&'static str>,
    /// What may have become of a rule.
    pub states: Vec<&'static str>,
}

/// Tenants that have a series of their own: the first that are met. Further ones share `other`.
const MOST_TENANTS: usize = 200;

pub(super) const ACTIVATION: &str = "mimir_tenant_proxy_rules_activation_duration_seconds";
pub(super) const LAG: &str = "mimir_tenant_proxy_rules_lag_seconds";
pub(super) const RECONCILE: &str = "mimir_tenant_proxy_rules_reconcile_duration_seconds";

impl RuleMetrics {
    /// Registers everything with the installed recorder.
    pub fn register(names: &RuleMetricNames) -> Self {
        describe();
        let activations =
            |outcome| counter!("mimir_tenant_proxy_rules_activations_total", "outcome" => outcome);
        let state = |state| gauge!("mimir_tenant_proxy_rules_rules", "state" => state);
        let write = |kind| counter!("mimir_tenant_proxy_rules_group_writes_total", "kind" => kind);
        Self {
            activations: names.outcomes.iter().map(|name| (*name, activations(*name))).collect(),
            activation_duration: histogram!(ACTIVATION),
            lag: histogram!(LAG),
            group_sets: write("set"),
            group_deletes: write("delete"),
            states: names.states.iter().map(|name| (*name, state(*name))).collect(),
            guards_held: gauge!("mimir_tenant_proxy_rules_guards_held", "scope" => "tenant"),
            overall_guard_held: gauge!("mimir_tenant_proxy_rules_guards_held", "scope" => "overall"),
            leader: gauge!("mimir_tenant_proxy_rules_leader"),
            terms: counter!("mimir_tenant_proxy_rules_terms_total"),
            reconciled_at: gauge!("mimir_tenant_proxy_rules_reconciled_timestamp_seconds"),
            reconcile_duration: histogram!(RECONCILE),
            reconcile_failures: counter!("mimir_tenant_proxy_rules_reconcile_failures_total"),
            tenants_failing: gauge!("mimir_tenant_proxy_rules_tenants_failing"),
            status_write_failures: counter!("mimir_tenant_proxy_rules_status_write_failures_total"),
            tenants: Mutex::default(),
        }
    }

    /// Handles that record nothing, for a process without a recorder.
    pub fn unrecorded() -> Self {
        Self {
            activations: HashMap::new(),
            activation_duration: Histogram::noop(),
            lag: Histogram::noop(),
            group_sets: Counter::noop(),
            group_deletes: Counter::noop(),
            states: HashMap::new(),
            guards_held: Gauge::noop(),
            overall_guard_held: Gauge::noop(),
            leader: Gauge::noop(),
            terms: Counter::noop(),
            reconciled_at: Gauge::noop(),
            reconcile_duration: Histogram::noop(),
            reconcile_failures: Counter::noop(),
            tenants_failing: Gauge::noop(),
            status_write_failures: Counter::noop(),
            tenants: Mutex::default(),
        }
    }

    /// Looks at a tenant that came to this.
    pub fn activation(&self, outcome: &'static str) {
        if let Some(counter) = self.activations.get(outcome) {
            counter.increment(1);
        }
    }

    /// Rules in a state, over all organisations that this leader has looked at.
    pub fn rules_in(&self, state: &'static str) -> Option<&Gauge> {
        self.states.get(state)
    }

    /// Notes that a tenant was found or made to be as it should be.
    pub fn tenant_succeeded(&self, tenant: &str, unix_seconds: f64) {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let name = if tenants.contains_key(tenant) || tenants.len() < MOST_TENANTS {
            tenant
        } else {
            "other"
        };
        let series = tenants.entry(name.to_owned()).or_insert_with(|| {
            gauge!("mimir_tenant_proxy_rules_tenant_success_timestamp_seconds", "tenant" => name.to_owned())
        });
        series.set(unix_seconds);
    }
}

fn describe() {
    describe_counter!(
        "mimir_tenant_proxy_rules_activations_total",
        "Looks at one tenant's rules, by what came of it."
    );
    describe_histogram!(
        ACTIVATION,
        Unit::Seconds,
        "One look at one tenant's rules, with the writes that it led to."
    );
    describe_histogram!(LAG, Unit::Seconds, "From a change heard of to its rules live in Mimir.");
    describe_counter!(
        "mimir_tenant_proxy_rules_group_writes_total",
        "Rule groups written to Mimir, or deleted."
    );
    describe_gauge!(
        "mimir_tenant_proxy_rules_rules",
        "Rules by state, over the organisations that this leader has looked at."
    );
    describe_gauge!(
        "mimir_tenant_proxy_rules_guards_held",
        "Deletions that wait for an administrator's word: of single tenants, or one of many tenants."
    );
    describe_gauge!("mimir_tenant_proxy_rules_leader", "1 in the one copy that writes rules.");
    describe_counter!(
        "mimir_tenant_proxy_rules_terms_total",
        "Times that this process became the one that writes rules."
    );
    describe_gauge!(
        "mimir_tenant_proxy_rules_reconciled_timestamp_seconds",
        Unit::Seconds,
        "When all rules were last looked at; 0 if never by this process."
    );
    describe_histogram!(RECONCILE, Unit::Seconds, "One look at all rules.");
    describe_counter!(
        "mimir_tenant_proxy_rules_reconcile_failures_total",
        "Looks at all rules that could not be finished."
    );
    describe_gauge!(
        "mimir_tenant_proxy_rules_tenants_failing",
        "Tenants whose rules could not be brought to Mimir, and will be tried again."
    );
    describe_counter!(
        "mimir_tenant_proxy_rules_status_write_failures_total",
        "Batches of statuses that could not be written, and were tried again."
    );
    describe_gauge!(
        "mimir_tenant_proxy_rules_tenant_success_timestamp_seconds",
        Unit::Seconds,
        "When a tenant's rules were last as they should be; the first 200 tenants, then 'other'."
    );
}
