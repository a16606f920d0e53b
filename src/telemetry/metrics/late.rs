//! Gauges that are exposed only where there is something to expose: an age of 0 or -1 without a
//! database is no age, and an alert could not tell one from the other.

use std::sync::OnceLock;

use metrics::{Gauge, gauge};

/// A gauge that is registered when it is first set.
pub struct LateGauge {
    name: &'static str,
    gauge: OnceLock<Gauge>,
}

impl LateGauge {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, gauge: OnceLock::new() }
    }

    /// Sets the gauge; it is exposed from then on.
    pub fn set(&self, value: f64) {
        self.gauge.get_or_init(|| gauge!(self.name)).set(value);
    }
}
