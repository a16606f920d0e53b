//! Alert events have a thread: messages of any size are read there, and written with a connection of
//! their own.

use std::io;
use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::database::Database;
use super::reload::Followers;
use super::rules::Rules;
use crate::alert_events::{AlertEvents, Parts, Receiver};
use crate::clock::Clock;
use crate::config::Config;
use crate::telemetry::AlertEventMetrics;

/// Connections: one to write, one for the leader.
const CONNECTIONS: u32 = 2;

/// Alert events and their thread.
pub(super) struct Events {
    events: AlertEvents,
    runtime: Runtime,
}

impl Events {
    pub(super) fn new(
        config: &Config,
        database: &Database,
        clock: &Clock,
        rules: &mut Rules,
        followers: &mut Followers,
    ) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let inside = runtime.enter();
        let store = database.store.beside(CONNECTIONS);
        drop(inside);
        let events = AlertEvents::new(Parts {
            config: config.alert_events.clone(),
            store,
            runtime: runtime.handle().clone(),
            template: config.tenancy.template.clone(),
            last_used_interval: database.last_used_interval,
            uses: database.device_keys.uses_written(),
            clock: clock.clone(),
            metrics: Arc::new(AlertEventMetrics::register()),
        });
        followers.alert_events = Some(Arc::clone(&events.receiver));
        rules.beside(Arc::clone(&events.watch));
        Ok(Self { events, runtime })
    }

    pub(super) fn receiver(&self) -> Arc<Receiver> {
        Arc::clone(&self.events.receiver)
    }

    pub(super) fn run(
        self,
        background: &TaskTracker,
        cancelled: &CancellationToken,
    ) -> io::Result<()> {
        let Self { events, runtime } = self;
        let (ended, wait) = oneshot::channel::<()>();
        // The process waits until what can be written is.
        background.spawn(async move {
            let _ = wait.await;
        });
        let stop = cancelled.clone();
        std::thread::Builder::new().name("alert-events".to_owned()).spawn(move || {
            runtime.block_on(events.run(stop));
            drop(ended);
            runtime.shutdown_background();
        })?;
        Ok(())
    }
}
