//! Worker threads: one current-thread runtime each.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{self, Surroundings};
use super::socket::prepare;
use crate::config::ListenConfig;
use crate::pipeline::Pipeline;
use crate::record::AccessLog;
use crate::telemetry::Metrics;

/// The workers, as the acceptor and the shutdown see them.
pub struct Workers {
    all: Vec<Worker>,
    closing: CancellationToken,
    killed: CancellationToken,
    metrics: Arc<Metrics>,
}

struct Worker {
    connections: mpsc::UnboundedSender<Handed>,
    open: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

/// A connection on its way to a worker.
struct Handed {
    socket: TcpStream,
    peer: SocketAddr,
    open: Open,
}

/// Counts an open connection for as long as it lives.
struct Open {
    counter: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
    _permit: OwnedSemaphorePermit,
}

/// How often incomplete batches of lines are handed to the log.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);

impl Workers {
    /// Starts one worker for each pipeline.
    pub fn start(
        pipelines: Vec<Pipeline>,
        config: &ListenConfig,
        metrics: &Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let (closing, killed) = (CancellationToken::new(), CancellationToken::new());
        let mut workers = Vec::with_capacity(pipelines.len());
        for (number, pipeline) in pipelines.into_iter().enumerate() {
            let (sender, receiver) = mpsc::unbounded_channel();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (config, closing) = (config.clone(), closing.clone());
            let surroundings = Surroundings { pipeline, config, closing };
            let killed = killed.clone();
            let thread =
                std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                    let log = surroundings.pipeline.outlets.log.clone();
                    runtime.block_on(work(receiver, Arc::new(surroundings), killed));
                    // Requests that are cut off end here, and are logged as well.
                    drop(runtime);
                    if let Some(mut log) = log {
                        log.flush();
                    }
                })?;
            workers.push(Worker { connections: sender, open: Arc::default(), thread });
        }
        Ok(Self { all: workers, closing, killed, metrics: Arc::clone(metrics) })
    }

    /// Gives a connection to the worker that has the fewest.
    pub(super) fn hand_over(
        &self,
        socket: TcpStream,
        peer: SocketAddr,
        permit: OwnedSemaphorePermit,
    ) {
        let fewest = self.all.iter().min_by_key(|worker| worker.open.load(Ordering::Relaxed));
        let Some(worker) = fewest else { return };
        let counter = Arc::clone(&worker.open);
        counter.fetch_add(1, Ordering::Relaxed);
        self.metrics.connections.increment(1.0);
        self.metrics.connections_accepted.increment(1);
        let open = Open { counter, metrics: Arc::clone(&self.metrics), _permit: permit };
        // Workers run until the process ends.
        let _ = worker.connections.send(Handed { socket, peer, open });
    }

    /// Ends all connections: idle ones immediately, busy ones after their requests, the rest after
    /// `drain_timeout` or when `hurry` completes. Returns whether none had to be cut off.
    pub async fn drain(self, drain_timeout: Duration, hurry: impl Future) -> bool {
        self.closing.cancel();
        let threads = self.all.into_iter().map(|worker| {
            drop(worker.connections);
            worker.thread
        });
        let threads: Vec<_> = threads.collect();
        let mut joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
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
) {
    let connections = TaskTracker::new();
    if let Some(log) = around.pipeline.outlets.log.clone() {
        tokio::spawn(flush(log));
    }
    while let Some(connection) = handed.recv().await {
        let around = Arc::clone(&around);
        connections.spawn(async move {
            let Handed { socket, peer, open } = connection;
            let ListenConfig { idle_timeout, write_timeout, .. } = around.config;
            let socket = prepare(&socket, idle_timeout + write_timeout)
                .and_then(|()| tokio::net::TcpStream::from_std(socket));
            if let Ok(socket) = socket {
                let why = connection::serve(socket, peer, &around).await;
                open.metrics.connection_ended(why);
            }
        });
    }
    connections.close();
    tokio::select! {
        () = connections.wait() => {}
        () = killed.cancelled() => {}
    }
}

async fn flush(mut log: AccessLog) {
    let mut tick = tokio::time::interval(FLUSH_INTERVAL);
    loop {
        tick.tick().await;
        log.flush();
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.counter.fetch_sub(1, Ordering::Relaxed);
        self.metrics.connections.decrement(1.0);
    }
}
