//! Metrics of the sync of notification channels, registered only where it is switched on.

use std::collections::HashMap;

use metrics::{Counter, Gauge, Histogram};

use super::RuleMetricNames;
use super::table::{self, PLAIN};

/// Handles to them.
pub struct ChannelMetrics {
    reconciles: HashMap<&'static str, Counter>,
    pub reconcile_duration: Histogram,
    pub lag: Histogram,
    /// Documents that were written to Mimir, or deleted.
    pub writes: Counter,
    states: HashMap<&'static str, Gauge>,
    /// Organisations whose writes wait for a confirmation.
    pub held: Gauge,
    pub failing: Gauge,
    pub resynced_at: Gauge,
    pub resync_failures: Counter,
    /// Tests of channels, by what became of them.
    tests: HashMap<&'static str, Counter>,
}

impl ChannelMetrics {
    /// Registers everything with the installed recorder. `tests` are the outcomes of a test.
    pub fn register(names: &RuleMetricNames, tests: &[&'static str]) -> Self {
        let reconciles =
            |outcome: &'static str| table::CHANNELS_RECONCILES.counter([("outcome", outcome)]);
        let state = |state: &'static str| table::CHANNELS_CHANNELS.gauge([("state", state)]);
        let test = |outcome: &'static str| table::CHANNELS_TESTS.counter([("outcome", outcome)]);
        Self {
            reconciles: names.outcomes.iter().map(|name| (*name, reconciles(name))).collect(),
            reconcile_duration: table::CHANNELS_RECONCILE_DURATION.histogram(PLAIN),
            lag: table::CHANNELS_LAG.histogram(PLAIN),
            writes: table::CHANNELS_WRITES.counter(PLAIN),
            states: names.states.iter().map(|name| (*name, state(name))).collect(),
            held: table::CHANNELS_HELD.gauge(PLAIN),
            failing: table::CHANNELS_FAILING.gauge(PLAIN),
            resynced_at: table::CHANNELS_FULL_RESYNC_AT.gauge(PLAIN),
            resync_failures: table::CHANNELS_FULL_RESYNC_FAILURES.counter(PLAIN),
            tests: tests.iter().map(|name| (*name, test(name))).collect(),
        }
    }

    /// Handles that record nothing, for a process without a recorder.
    pub fn unrecorded() -> Self {
        Self {
            reconciles: HashMap::new(),
            reconcile_duration: Histogram::noop(),
            lag: Histogram::noop(),
            writes: Counter::noop(),
            states: HashMap::new(),
            held: Gauge::noop(),
            failing: Gauge::noop(),
            resynced_at: Gauge::noop(),
            resync_failures: Counter::noop(),
            tests: HashMap::new(),
        }
    }

    /// Counts a reconcile of one organisation.
    pub fn reconciled(&self, outcome: &'static str) {
        if let Some(counter) = self.reconciles.get(outcome) {
            counter.increment(1);
        }
    }

    /// Channels in a state, over all organisations that this leader has reconciled.
    pub fn channels_in(&self, state: &'static str) -> Option<&Gauge> {
        self.states.get(state)
    }

    /// Counts a test of a channel.
    pub fn tested(&self, outcome: &'static str) {
        if let Some(counter) = self.tests.get(outcome) {
            counter.increment(1);
        }
    }
}
