//! Metrics of alert events, registered only where they are switched on.

use std::array;

use metrics::{Counter, Gauge, Histogram};
use strum::{EnumCount as _, VariantArray as _};

use super::table::{self, PLAIN};
use crate::labels::{AlertDrop, AlertPost};

/// Handles to them.
pub struct AlertEventMetrics {
    posts: [Counter; AlertPost::COUNT],
    received_firing: Counter,
    received_resolved: Counter,
    dropped: [Counter; AlertDrop::COUNT],
    /// Alerts whose reports are in the database.
    pub written: Counter,
    pub begun: Counter,
    pub ended: Counter,
    /// Alerts that wait to be written.
    pub pending: Gauge,
    pub write_failures: Counter,
    pub lag: Histogram,
    pub open_alerts: Gauge,
    pub open_devices: Gauge,
}

impl AlertEventMetrics {
    /// Registers everything with the installed recorder.
    pub fn register() -> Self {
        let received =
            |state: &'static str| table::ALERT_EVENTS_RECEIVED.counter([("state", state)]);
        let changes = |kind: &'static str| table::ALERT_EVENTS_CHANGES.counter([("kind", kind)]);
        let open = |kind: &'static str| table::ALERT_EVENTS_OPEN.gauge([("kind", kind)]);
        Self {
            posts: array::from_fn(|at| {
                let outcome: &'static str = AlertPost::VARIANTS[at].into();
                table::ALERT_EVENTS_POSTS.counter([("outcome", outcome)])
            }),
            received_firing: received("firing"),
            received_resolved: received("resolved"),
            dropped: array::from_fn(|at| {
                let reason: &'static str = AlertDrop::VARIANTS[at].into();
                table::ALERT_EVENTS_DROPPED.counter([("reason", reason)])
            }),
            written: table::ALERT_EVENTS_WRITTEN.counter(PLAIN),
            begun: changes("begun"),
            ended: changes("ended"),
            pending: table::ALERT_EVENTS_PENDING.gauge(PLAIN),
            write_failures: table::ALERT_EVENTS_WRITE_FAILURES.counter(PLAIN),
            lag: table::ALERT_EVENTS_LAG.histogram(PLAIN),
            open_alerts: open("alert"),
            open_devices: open("device_silent"),
        }
    }

    /// A message of the ruler's was answered.
    pub fn posted(&self, outcome: AlertPost) {
        self.posts[outcome as usize].increment(1);
    }

    /// So many alerts came in a message.
    pub fn received(&self, firing: usize, resolved: usize) {
        self.received_firing.increment(firing as u64);
        self.received_resolved.increment(resolved as u64);
    }

    pub fn dropped(&self, reason: AlertDrop, alerts: u64) {
        self.dropped[reason as usize].increment(alerts);
    }
}
