//! Gauges that are exposed only where there is something to expose: an age of 0 or -1 without a
//! database is no age, and an alert could not tell one from the other.

use std::sync::OnceLock;

use metrics::Gauge;

use crate::telemetry::table::{Metric, PLAIN};

/// A gauge that is registered when it is first set.
pub struct LateGauge {
    metric: Metric,
    gauge: OnceLock<Gauge>,
}

impl LateGauge {
    pub(super) fn new(metric: Metric) -> Self {
        Self { metric, gauge: OnceLock::new() }
    }

    /// Sets the gauge; it is exposed from then on.
    pub fn set(&self, value: f64) {
        self.gauge.get_or_init(|| self.metric.gauge(PLAIN)).set(value);
    }
}
