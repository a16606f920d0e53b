//! What the sync of alert rules is put together from.

use std::io;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::config::Config;
use crate::rules::{Engine, Hints, lead_forever, metric_names};
use crate::store::Store;
use crate::telemetry::RuleMetrics;

/// The engine, and where it is told of changes.
pub(super) struct Rules {
    pub(super) engine: Arc<Engine>,
    pub(super) hints: Arc<Hints>,
}

impl Rules {
    pub(super) fn new(config: &Config, store: &Store, clock: &Clock) -> io::Result<Self> {
        let metrics = Arc::new(RuleMetrics::register(&metric_names()));
        let template = config.tenancy.template.clone();
        let engine = Engine::new(store.clone(), &config.rules, template, clock.clone(), metrics);
        let engine = engine.map_err(|fault| io::Error::new(io::ErrorKind::InvalidInput, fault))?;
        Ok(Self { engine: Arc::new(engine), hints: Arc::default() })
    }

    /// Starts to stand for writing, and writes whenever nobody else does.
    pub(super) fn run(self, background: &TaskTracker, cancelled: &CancellationToken) {
        let Self { engine, hints } = self;
        background.spawn(lead_forever(engine, hints, holder(), cancelled.clone()));
    }
}

/// How this copy is called: by its machine, and its process.
fn holder() -> String {
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{} (process {})", machine.trim(), std::process::id())
}
