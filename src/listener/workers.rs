//! Worker threads: one current-thread runtime each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::connection::{self, Connection, Front, Surroundings};
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
    doors: Doors,
    loads: Arc<Loads>,
    threads: Vec<JoinHandle<()>>,
    surroundings: Vec<Arc<Surroundings>>,
    closing: CancellationToken,
    killed: CancellationToken,
}

/// The ways into all workers.
pub(super) type Doors = Arc<[mpsc::UnboundedSender<Handed>]>;

/// A connection on its way to a worker.
pub(super) struct Handed {
    pub(super) socket: Detached,
    pub(super) peer: SocketAddr,
    pub(super) resting: Resting,
    pub(super) tls: Option<Arc<Session>>,
    pub(super) counted: Counted,
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
        let (closing, killed) = (CancellationToken::new(), CancellationToken::new());
        let loads = Loads::new(pipelines.len(), Arc::clone(metrics));
        let (doors, receivers): (Vec<_>, Vec<_>) =
            pipelines.iter().map(|_| mpsc::unbounded_channel()).unzip();
        let doors: Doors = doors.into();
        let mut threads = Vec::with_capacity(pipelines.len());
        let mut all = Vec::with_capacity(pipelines.len());
        for (number, (pipeline, receiver)) in pipelines.into_iter().zip(receivers).enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let front = Front { pipeline, config: config.clone() };
            let (closing, doors) = (closing.clone(), Arc::clone(&doors));
            let surroundings = Arc::new(Surroundings::new(front, closing, doors));
            all.push(Arc::clone(&surroundings));
            let (killed, mut log) = (killed.clone(), log.clone());
            let thread =
                std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                    runtime.block_on(work(receiver, surroundings, killed, log.clone()));
                    // Requests that are cut off end here, and are logged as well.
                    drop(runtime);
                    log.flush();
                })?;
            threads.push(thread);
        }
        Ok(Self { doors, loads, threads, surroundings: all, closing, killed })
    }

    /// Gives each worker another pipeline, and other limits of a connection. Requests that have begun keep
    /// theirs.
    pub fn replace(&self, pipelines: Vec<Pipeline>, config: &ListenConfig) {
        for (surroundings, pipeline) in self.surroundings.iter().zip(pipelines) {
            surroundings.replace(Front { pipeline, config: config.clone() });
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
        let (closing, killed) = (CancellationToken::new(), CancellationToken::new());
        let loads = Loads::new(pipelines.len(), Arc::clone(metrics));
        let (doors, receivers): (Vec<_>, Vec<_>) =
            pipelines.iter().map(|_| mpsc::unbounded_channel()).unzip();
        let doors: Doors = doors.into();
        let (tasks, mut all) = (TaskTracker::new(), Vec::new());
        for (pipeline, receiver) in pipelines.into_iter().zip(receivers) {
            let front = Front { pipeline, config: config.clone() };
            let (closing, doors) = (closing.clone(), Arc::clone(&doors));
            let surroundings = Arc::new(Surroundings::new(front, closing, doors));
            all.push(Arc::clone(&surroundings));
            tasks.spawn(work(receiver, surroundings, killed.clone(), log.clone()));
        }
        tasks.close();
        (Self { doors, loads, threads: Vec::new(), surroundings: all, closing, killed }, tasks)
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
        let door = &self.doors[counted.worker()];
        // Workers run until the process ends.
        let config = &self.surroundings[counted.worker()].front().config;
        let resting = Resting::new(config.expects_proxy_header(peer.ip()));
        let _ = door.send(Handed { socket, peer, resting, tls: None, counted });
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
    mut handed: mpsc::UnboundedReceiver<Handed>,
    around: Arc<Surroundings>,
    killed: CancellationToken,
    log: AccessLog,
) {
    let connections = TaskTracker::new();
    // They end with the worker, which in a simulation does not end the runtime.
    let _flushing = AbortOnDropHandle::new(tokio::spawn(flush(log)));
    let watched = Arc::clone(&around);
    let _watch = AbortOnDropHandle::new(tokio::spawn(async move {
        // It belongs to the worker, whichever pipeline that has.
        let front = watched.front();
        let (lag, metrics) = (&front.pipeline.lag, &front.pipeline.outlets.metrics);
        let (lag, metrics) = (Arc::clone(lag), Arc::clone(metrics));
        drop((front, watched));
        lag.watch(&metrics).await;
    }));
    while let Some(next) = around.closing.run_until_cancelled(handed.recv()).await.flatten() {
        take(next, &connections, &around);
    }
    // Those that are under way are ended as all others are.
    handed.close();
    while let Some(next) = handed.recv().await {
        take(next, &connections, &around);
    }
    connections.close();
    tokio::select! {
        () = connections.wait() => {}
        () = killed.cancelled() => {}
    }
}

fn take(handed: Handed, connections: &TaskTracker, around: &Arc<Surroundings>) {
    let Handed { socket, peer, resting, tls, counted } = handed;
    let ListenConfig { idle_timeout, write_timeout, .. } = around.front().config;
    let prepared = match resting {
        Resting::New { .. } => prepare(&socket, idle_timeout + write_timeout),
        Resting::Between { .. } => Ok(()),
    };
    if let Ok(socket) = prepared.and_then(|()| TcpStream::from_std(socket)) {
        let stream = Arc::new(socket);
        counted.tracker().is_on(&stream);
        let connection = Box::new(Connection { stream, peer, resting, tls, counted });
        connections.spawn(connection::serve(connection, Arc::clone(around)));
    }
}

async fn flush(mut log: AccessLog) {
    let mut tick = tokio::time::interval(FLUSH_INTERVAL);
    loop {
        tick.tick().await;
        log.flush();
    }
}
