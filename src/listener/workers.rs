//! Worker threads: one current-thread runtime each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::connection::{self, Connection, Serving, WorkerShared};
use super::load::{Counted, Loads};
use super::resting::Resting;
use super::socket::prepare;
use super::tls::Session;
use crate::config::ListenConfig;
use crate::net::{Detached, TcpStream};
use crate::pipeline::Pipeline;
use crate::record::AccessLog;
use crate::telemetry::Metrics;

/// The workers, as the acceptor and the shutdown see them.
pub struct Workers {
    senders: WorkerSenders,
    loads: Arc<Loads>,
    threads: Vec<JoinHandle<()>>,
    shared: Vec<Arc<WorkerShared>>,
    closing: CancellationToken,
    killed: CancellationToken,
}

/// The ways into all workers.
pub(super) type WorkerSenders = Arc<[mpsc::UnboundedSender<HandOver>]>;

/// A connection on its way to a worker.
pub(super) struct HandOver {
    pub(super) socket: Detached,
    pub(super) peer: SocketAddr,
    pub(super) resting: Resting,
    pub(super) tls: Option<Arc<Session>>,
    pub(super) counted: Counted,
}

/// What a worker is started with.
struct Prepared {
    handed: mpsc::UnboundedReceiver<HandOver>,
    shared: Arc<WorkerShared>,
}

/// How often incomplete batches of lines are handed to the log.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);

impl Workers {
    /// Starts one worker for each pipeline. `log` is where all of them write.
    pub fn start(
        pipelines: Vec<Pipeline>,
        config: &ListenConfig,
        metrics: &Arc<Metrics>,
        log: &AccessLog,
    ) -> std::io::Result<Self> {
        let (mut workers, prepared) = Self::prepare(pipelines, config, metrics);
        for (number, Prepared { handed, shared }) in prepared.into_iter().enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (killed, mut log) = (workers.killed.clone(), log.clone());
            let thread =
                std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                    runtime.block_on(work(handed, shared, killed, log.clone()));
                    // Requests that are cut off end here, and are logged as well.
                    drop(runtime);
                    log.flush();
                })?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// Workers for some pipelines, and what each of them is to be started with.
    fn prepare(
        pipelines: Vec<Pipeline>,
        config: &ListenConfig,
        metrics: &Arc<Metrics>,
    ) -> (Self, Vec<Prepared>) {
        let (closing, killed) = (CancellationToken::new(), CancellationToken::new());
        let loads = Loads::new(pipelines.len(), Arc::clone(metrics));
        let (senders, receivers): (Vec<_>, Vec<_>) =
            pipelines.iter().map(|_| mpsc::unbounded_channel()).unzip();
        let senders: WorkerSenders = senders.into();
        let mut prepared = Vec::with_capacity(pipelines.len());
        let mut all = Vec::with_capacity(pipelines.len());
        for (pipeline, handed) in pipelines.into_iter().zip(receivers) {
            let serving = Serving { pipeline, config: config.clone() };
            let (closing, senders) = (closing.clone(), Arc::clone(&senders));
            let shared = Arc::new(WorkerShared::new(serving, closing, senders));
            all.push(Arc::clone(&shared));
            prepared.push(Prepared { handed, shared });
        }
        (Self { senders, loads, threads: Vec::new(), shared: all, closing, killed }, prepared)
    }

    /// Gives each worker another pipeline, and other limits of a connection. Requests that have begun keep
    /// theirs.
    pub fn replace(&self, pipelines: Vec<Pipeline>, config: &ListenConfig) {
        for (shared, pipeline) in self.shared.iter().zip(pipelines) {
            shared.replace(Serving { pipeline, config: config.clone() });
        }
    }

    /// Starts the workers as tasks of this thread, which a simulation has alone.
    #[cfg(feature = "simulation")]
    pub fn start_here(
        pipelines: Vec<Pipeline>,
        config: &ListenConfig,
        metrics: &Arc<Metrics>,
        log: &AccessLog,
    ) -> (Self, TaskTracker) {
        let (workers, prepared) = Self::prepare(pipelines, config, metrics);
        let tasks = TaskTracker::new();
        for Prepared { handed, shared } in prepared {
            tasks.spawn(work(handed, shared, workers.killed.clone(), log.clone()));
        }
        tasks.close();
        (workers, tasks)
    }

    /// Ends idle connections at once and busy ones after their requests.
    #[cfg(feature = "simulation")]
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Gives a connection to the worker that has the fewest.
    pub(super) fn hand_over(
        &self,
        socket: Detached,
        peer: SocketAddr,
        permit: OwnedSemaphorePermit,
    ) {
        let counted = self.loads.open(permit);
        let sender = &self.senders[counted.worker()];
        // Workers run until the process ends.
        let config = &self.shared[counted.worker()].serving().config;
        let resting = Resting::new(config.expects_proxy_header(peer.ip()));
        let _ = sender.send(HandOver { socket, peer, resting, tls: None, counted });
    }

    /// Ends some of the connections whose clients have been silent for the longest, for others that wait.
    /// Returns how many.
    pub(super) fn evict(&self) -> usize {
        self.loads.evict()
    }

    /// Ends all connections: idle ones immediately, busy ones after their requests, the rest after
    /// `drain_timeout` or when `hurry` completes. Returns whether none had to be cut off.
    pub async fn drain(self, drain_timeout: Duration, hurry: impl Future) -> bool {
        self.closing.cancel();
        let mut joined = tokio::task::spawn_blocking(move || {
            for thread in self.threads {
                let _ = thread.join();
            }
        });
        let in_time = tokio::select! {
            _ = &mut joined => true,
            () = tokio::time::sleep(drain_timeout) => false,
            _ = hurry => false,
        };
        if !in_time {
            self.killed.cancel();
            let _ = joined.await;
        }
        in_time
    }
}

async fn work(
    mut handed: mpsc::UnboundedReceiver<HandOver>,
    shared: Arc<WorkerShared>,
    killed: CancellationToken,
    log: AccessLog,
) {
    let connections = TaskTracker::new();
    // They end with the worker, which in a simulation does not end the runtime.
    let _flushing = AbortOnDropHandle::new(tokio::spawn(flush(log)));
    let watched = Arc::clone(&shared);
    let _watch = AbortOnDropHandle::new(tokio::spawn(async move {
        // It belongs to the worker, whichever pipeline that has.
        let serving = watched.serving();
        let (lag, metrics) = (&serving.pipeline.lag, &serving.pipeline.outlets.metrics);
        let (lag, metrics) = (Arc::clone(lag), Arc::clone(metrics));
        drop((serving, watched));
        lag.watch(&metrics).await;
    }));
    while let Some(next) = shared.closing.run_until_cancelled(handed.recv()).await.flatten() {
        serve_handed(next, &connections, &shared);
    }
    // Those that are under way are ended as all others are.
    handed.close();
    while let Some(next) = handed.recv().await {
        serve_handed(next, &connections, &shared);
    }
    connections.close();
    tokio::select! {
        () = connections.wait() => {}
        () = killed.cancelled() => {}
    }
}

fn serve_handed(handed: HandOver, connections: &TaskTracker, shared: &Arc<WorkerShared>) {
    let HandOver { socket, peer, resting, tls, counted } = handed;
    let ListenConfig { idle_timeout, write_timeout, .. } = shared.serving().config;
    let prepared = match resting {
        Resting::New { .. } => prepare(&socket, idle_timeout + write_timeout),
        Resting::Between { .. } => Ok(()),
    };
    if let Ok(socket) = prepared.and_then(|()| TcpStream::from_std(socket)) {
        let stream = Arc::new(socket);
        counted.tracker().is_on(&stream);
        let connection = Box::new(Connection { stream, peer, resting, tls, counted });
        connections.spawn(connection::serve(connection, Arc::clone(shared)));
    }
}

async fn flush(mut log: AccessLog) {
    let mut tick = tokio::time::interval(FLUSH_INTERVAL);
    loop {
        tick.tick().await;
        log.flush();
    }
}
