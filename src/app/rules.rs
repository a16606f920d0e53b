//! The sync of alert rules has two threads: one for the scheduler, and one for administrators. Neither is
//! shared with telemetry or with the directory.

use std::io;
use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::reload::Followers;
use crate::admin_executor::AdminExecutor;
use crate::channels::{ChannelAdmin, ChannelReconciler, ChannelSync, Reaches};
use crate::clock::Clock;
use crate::config::Config;
use crate::election::LeaderTask;
use crate::mimir::MimirHandle;
use crate::rules::{Reconciler, RuleSync, Triggers};
use crate::store::Store;
use crate::telemetry::{ChannelMetrics, RuleMetrics};
use crate::trace::Tracer;

/// Connections of the thread that writes rules, beside the session that holds the leader's lock.
const WRITER_CONNECTIONS: u32 = 3;
/// Connections of the thread that serves administrators of rules.
const ADMIN_CONNECTIONS: u32 = 2;

/// The scheduler of rules, and what serves administrators.
pub(super) struct Rules {
    pub(super) admin_executor: Arc<AdminExecutor<Reconciler>>,
    pub(super) triggers: Arc<Triggers>,
    /// None where channels are not synced.
    pub(super) channels: Option<Channels>,
    sync: RuleSync,
    sync_runtime: Runtime,
    admin_runtime: Runtime,
}

/// The sync of notification channels, beside that of rules.
pub(super) struct Channels {
    pub(super) triggers: Arc<Triggers>,
    pub(super) admin: ChannelAdmin,
}

impl Rules {
    pub(super) fn new(
        config: &Config,
        store: &Store,
        clock: &Clock,
        tracer: &Tracer,
        followers: &mut Followers,
    ) -> io::Result<Self> {
        let make = |connections| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let inside = runtime.enter();
            let fault = |fault: String| io::Error::new(io::ErrorKind::InvalidInput, fault);
            let (store, template) = (store.beside(connections), config.tenancy.template.clone());
            let reconciler = Reconciler::new(store, &config.rules, template).map_err(fault)?;
            let reconciler = reconciler.with_tracer(tracer.clone());
            drop(inside);
            Ok::<_, io::Error>((runtime, Arc::new(reconciler)))
        };
        let (admin_runtime, for_admin) = make(ADMIN_CONNECTIONS)?;
        let (sync_runtime, reconciler) = make(WRITER_CONNECTIONS)?;
        let triggers: Arc<Triggers> = Arc::default();
        let mut beside: Vec<Arc<dyn LeaderTask>> = Vec::new();
        followers.of_rules = vec![for_admin.mimir(), reconciler.mimir()];
        let (channels, reach) = if config.channels.enabled {
            let runtimes = [(&admin_runtime, &for_admin), (&sync_runtime, &reconciler)];
            let (channels, sync, clients) = channels(config, runtimes, clock, tracer)?;
            followers.of_channels = clients;
            let reach = Arc::clone(&sync.reaches).hook();
            beside.push(Arc::new(sync));
            (Some(channels), Some(reach))
        } else {
            (None, None)
        };
        let handle = admin_runtime.handle().clone();
        let admin_executor = Arc::new(AdminExecutor::new(for_admin, handle));
        let sync = RuleSync {
            reconciler,
            triggers: Arc::clone(&triggers),
            clock: clock.clone(),
            metrics: Arc::new(RuleMetrics::register()),
            holder: holder(),
            reach,
            beside,
        };
        Ok(Self { admin_executor, triggers, channels, sync, sync_runtime, admin_runtime })
    }

    /// Has the leader do this beside the sync.
    pub(super) fn beside(&mut self, task: Arc<dyn LeaderTask>) {
        self.sync.beside.push(task);
    }

    /// Starts to compete for the leadership, and syncs rules whenever this copy is the leader.
    pub(super) fn run(
        self,
        background: &TaskTracker,
        cancelled: &CancellationToken,
    ) -> io::Result<()> {
        let Self { sync, sync_runtime, admin_runtime, .. } = self;
        let (ended, wait) = oneshot::channel::<()>();
        // The process waits until the scheduler has ended.
        background.spawn(async move {
            let _ = wait.await;
        });
        let stop = cancelled.clone();
        std::thread::Builder::new().name("rules-writer".to_owned()).spawn(move || {
            sync_runtime.block_on(sync.run(stop));
            drop(ended);
            sync_runtime.shutdown_background();
        })?;
        let stop = cancelled.clone();
        std::thread::Builder::new().name("rules-admin".to_owned()).spawn(move || {
            admin_runtime.block_on(stop.cancelled_owned());
            admin_runtime.shutdown_background();
        })?;
        Ok(())
    }
}

/// What serves administrators of channels and what syncs them, each on its thread, with the database connections of
/// rules there; and the clients of Mimir of both.
fn channels(
    config: &Config,
    [for_admin, for_sync]: [(&Runtime, &Arc<Reconciler>); 2],
    clock: &Clock,
    tracer: &Tracer,
) -> io::Result<(Channels, ChannelSync, Vec<MimirHandle>)> {
    let make = |(runtime, rules): (&Runtime, &Arc<Reconciler>)| {
        let _inside = runtime.enter();
        let template = config.tenancy.template.clone();
        let store = rules.store().clone();
        let made = ChannelReconciler::new(store, &config.channels, &config.rules, template);
        let made = made.map_err(|fault| io::Error::new(io::ErrorKind::InvalidInput, fault))?;
        Ok::<_, io::Error>(Arc::new(made.with_tracer(tracer.clone())))
    };
    let triggers: Arc<Triggers> = Arc::default();
    let metrics = Arc::new(ChannelMetrics::register());
    let (of_admin, of_sync) = (make(for_admin)?, make(for_sync)?);
    let clients = vec![of_admin.mimir(), of_sync.mimir()];
    let admin = ChannelAdmin::new(of_admin, for_admin.0.handle(), Arc::clone(&metrics));
    let sync = ChannelSync {
        reconciler: of_sync,
        triggers: Arc::clone(&triggers),
        reaches: Arc::new(Reaches::new(Arc::clone(&triggers))),
        clock: clock.clone(),
        metrics,
    };
    Ok((Channels { triggers, admin }, sync, clients))
}

/// The name of this copy: its machine and its process.
pub(super) fn holder() -> String {
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{} (process {})", machine.trim(), std::process::id())
}
