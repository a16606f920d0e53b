//! Wires up the sync of alert rules: one thread that writes rules and one that serves
//! administrators. Neither shares a thread with telemetry or with the look-ups of its callers.

use std::io;
use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::config::{Config, DatabaseConfig};
use crate::rules::{Desk, Engine, Hints, lead_forever, metric_names};
use crate::store::Store;
use crate::telemetry::RuleMetrics;

/// Connections of the thread that writes rules, beside the session that holds the leader's lock.
const WRITER_CONNECTIONS: u32 = 3;
/// Connections of the thread that serves administrators of rules.
const ADMIN_CONNECTIONS: u32 = 2;

/// The engines and their triggers.
pub(super) struct Rules {
    pub(super) desk: Arc<Desk>,
    pub(super) hints: Arc<Hints>,
    writer: (Runtime, Arc<Engine>),
    desk_runtime: Runtime,
}

impl Rules {
    pub(super) fn new(
        config: &Config,
        database: &DatabaseConfig,
        clock: &Clock,
    ) -> io::Result<Self> {
        let metrics = Arc::new(RuleMetrics::register(&metric_names()));
        let made = |connections| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let inside = runtime.enter();
            let fault = |fault: String| io::Error::new(io::ErrorKind::InvalidInput, fault);
            let store = Store::for_rules(database, config.tables_read(), connections);
            let store = store.map_err(|error| fault(error.to_string()))?;
            let template = config.tenancy.template.clone();
            let metrics = Arc::clone(&metrics);
            let engine = Engine::new(store, &config.rules, template, clock.clone(), metrics);
            let engine = Arc::new(engine.map_err(fault)?);
            drop(inside);
            Ok::<_, io::Error>((runtime, engine))
        };
        let (desk_runtime, desk_engine) = made(ADMIN_CONNECTIONS)?;
        let desk = Arc::new(Desk::new(desk_engine, desk_runtime.handle().clone()));
        Ok(Self { desk, hints: Arc::default(), writer: made(WRITER_CONNECTIONS)?, desk_runtime })
    }

    /// Starts the thread that campaigns for leadership and writes rules, and the one for
    /// administrators.
    pub(super) fn run(
        self,
        background: &TaskTracker,
        cancelled: &CancellationToken,
    ) -> io::Result<()> {
        let Self { hints, writer: (runtime, engine), desk_runtime, .. } = self;
        let (ended, wait) = oneshot::channel::<()>();
        // What is under way ends well before the process does.
        background.spawn(async move {
            let _ = wait.await;
        });
        let stop = cancelled.clone();
        std::thread::Builder::new().name("rules-writer".to_owned()).spawn(move || {
            runtime.block_on(lead_forever(engine, hints, holder(), stop));
            drop(ended);
            runtime.shutdown_background();
        })?;
        let stop = cancelled.clone();
        std::thread::Builder::new().name("rules-desk".to_owned()).spawn(move || {
            desk_runtime.block_on(stop.cancelled_owned());
            desk_runtime.shutdown_background();
        })?;
        Ok(())
    }
}

/// The name of this copy: its machine and its process.
fn holder() -> String {
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{} (process {})", machine.trim(), std::process::id())
}
