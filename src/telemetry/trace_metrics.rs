//! Metrics of traces, registered only where they are switched on.

use std::array;

use metrics::Counter;
use strum::{EnumCount as _, VariantArray as _};

use super::table::{self, PLAIN};
use crate::labels::SpanDrop;

/// Handles to them.
pub struct TraceMetrics {
    recorded: Counter,
    over_limit: Counter,
    exported: Counter,
    dropped: [Counter; SpanDrop::COUNT],
}

impl TraceMetrics {
    /// Registers everything with the installed recorder.
    pub fn register() -> Self {
        let traces = |outcome: &'static str| table::TRACES.counter([("outcome", outcome)]);
        Self {
            recorded: traces("recorded"),
            over_limit: traces("over_limit"),
            exported: table::SPANS_EXPORTED.counter(PLAIN),
            dropped: array::from_fn(|at| {
                let reason: &'static str = SpanDrop::VARIANTS[at].into();
                table::SPANS_DROPPED.counter([("reason", reason)])
            }),
        }
    }

    /// Takes over what was counted where traces are made.
    pub fn report(&self, recorded: u64, over_limit: u64, queue_full: u64) {
        self.recorded.absolute(recorded);
        self.over_limit.absolute(over_limit);
        self.dropped[SpanDrop::QueueFull as usize].absolute(queue_full);
    }

    /// The collector has so many more spans.
    pub fn exported(&self, spans: usize) {
        self.exported.increment(spans as u64);
    }

    /// So many spans got lost.
    pub fn dropped(&self, reason: SpanDrop, spans: usize) {
        self.dropped[reason as usize].increment(spans as u64);
    }
}
