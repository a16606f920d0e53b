//! Traces, where they are on: the tracer, and the task that sends what it records.

use std::io;
use std::sync::Arc;

use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::config::TracesConfig;
use crate::otlp::{Authorization, Exporter};
use crate::telemetry::TraceMetrics;
use crate::trace::{FinishedTrace, Sampling, Tracer};

pub(super) struct Traces(Option<Parts>);

struct Parts {
    tracer: Tracer,
    exporter: Exporter,
    finished: Receiver<FinishedTrace>,
    metrics: Arc<TraceMetrics>,
}

impl Traces {
    pub(super) fn new(config: &TracesConfig, clock: &Clock) -> io::Result<Self> {
        let Some(collector) = &config.collector else { return Ok(Self(None)) };
        let metrics = Arc::new(TraceMetrics::register());
        let exporter = Exporter::new(collector, Arc::clone(&metrics)).map_err(io::Error::other)?;
        let sampling = Sampling {
            ratio: config.sample_ratio,
            max_per_second: config.max_per_second,
            follows_callers: config.follow_callers,
        };
        let (tracer, finished) = Tracer::new(sampling, clock.clone());
        Ok(Self(Some(Parts { tracer, exporter, finished, metrics })))
    }

    /// One that records nothing where traces are off.
    pub(super) fn tracer(&self) -> Tracer {
        self.0.as_ref().map_or_else(Tracer::off, |parts| parts.tracer.clone())
    }

    /// What the collector is shown.
    pub(super) fn authorization(&self) -> Option<Authorization> {
        self.0.as_ref().map(|parts| parts.exporter.authorization())
    }

    /// What the private port reports.
    pub(super) fn reported(&self) -> Option<(Tracer, Arc<TraceMetrics>)> {
        self.0.as_ref().map(|parts| (parts.tracer.clone(), Arc::clone(&parts.metrics)))
    }

    pub(super) fn run(self, background: &TaskTracker, cancelled: &CancellationToken) {
        if let Some(Parts { exporter, finished, .. }) = self.0 {
            background.spawn(exporter.run(finished, cancelled.clone()));
        }
    }
}
