//! Metrics of the sync of notification channels, registered only where it is switched on.

use std::array;

use metrics::{Counter, Gauge, Histogram};
use strum::{EnumCount as _, VariantArray as _};

use super::table::{self, PLAIN};
use crate::labels::{NotificationState, OutcomeKind, TestOutcome};

/// Handles to them.
pub struct ChannelMetrics {
    reconciles: [Counter; OutcomeKind::COUNT],
    pub reconcile_duration: Histogram,
    pub lag: Histogram,
    /// Documents that were written to Mimir, or deleted.
    pub writes: Counter,
    states: [Gauge; NotificationState::COUNT],
    /// Organisations whose writes wait for a confirmation.
    pub held: Gauge,
    pub failing: Gauge,
    pub resynced_at: Gauge,
    pub resync_failures: Counter,
    /// Tests of channels, by what became of them.
    tests: [Counter; TestOutcome::COUNT],
}

impl ChannelMetrics {
    /// Registers everything with the installed recorder.
    pub fn register() -> Self {
        let reconciles = |outcome: OutcomeKind| {
            table::CHANNELS_RECONCILES.counter([("outcome", <&str>::from(outcome))])
        };
        let states =
            |state: NotificationState| table::CHANNELS_CHANNELS.gauge([("state", state.name())]);
        let tests =
            |outcome: TestOutcome| table::CHANNELS_TESTS.counter([("outcome", outcome.name())]);
        Self {
            reconciles: array::from_fn(|at| reconciles(OutcomeKind::VARIANTS[at])),
            reconcile_duration: table::CHANNELS_RECONCILE_DURATION.histogram(PLAIN),
            lag: table::CHANNELS_LAG.histogram(PLAIN),
            writes: table::CHANNELS_WRITES.counter(PLAIN),
            states: array::from_fn(|at| states(NotificationState::VARIANTS[at])),
            held: table::CHANNELS_HELD.gauge(PLAIN),
            failing: table::CHANNELS_FAILING.gauge(PLAIN),
            resynced_at: table::CHANNELS_FULL_RESYNC_AT.gauge(PLAIN),
            resync_failures: table::CHANNELS_FULL_RESYNC_FAILURES.counter(PLAIN),
            tests: array::from_fn(|at| tests(TestOutcome::VARIANTS[at])),
        }
    }

    /// Handles that record nothing, for a process without a recorder.
    pub fn unrecorded() -> Self {
        Self {
            reconciles: array::from_fn(|_| Counter::noop()),
            reconcile_duration: Histogram::noop(),
            lag: Histogram::noop(),
            writes: Counter::noop(),
            states: array::from_fn(|_| Gauge::noop()),
            held: Gauge::noop(),
            failing: Gauge::noop(),
            resynced_at: Gauge::noop(),
            resync_failures: Counter::noop(),
            tests: array::from_fn(|_| Counter::noop()),
        }
    }

    /// Counts a reconcile of one organisation.
    pub fn reconciled(&self, outcome: OutcomeKind) {
        self.reconciles[outcome as usize].increment(1);
    }

    /// Channels in a state, over all organisations that this leader has reconciled.
    pub fn channels_in(&self, state: NotificationState) -> &Gauge {
        &self.states[state as usize]
    }

    /// Sets to 0 what only the leader tells.
    pub fn end_of_leadership(&self) {
        let Self { states, held, failing, .. } = self;
        states.iter().chain([held, failing]).for_each(|gauge| gauge.set(0.0));
    }

    /// Counts a test of a channel.
    pub fn tested(&self, outcome: TestOutcome) {
        self.tests[outcome as usize].increment(1);
    }
}
