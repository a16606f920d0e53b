//! The public socket.

use std::io;
use std::mem::take;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::net as kernel;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::inherited::Inherited;
use super::workers::Workers;
use crate::net;

/// The length of the kernel's queue of connections that are not accepted yet.
const BACKLOG: i32 = 1024;

/// The pause when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often silent clients are looked for while a connection waits for a slot.
const EVICTION_INTERVAL: Duration = Duration::from_millis(50);

/// How often it is logged that the limit is reached.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// A listening socket.
pub struct PublicSocket<L = kernel::TcpListener> {
    pub listener: L,
    /// Whether others hold it, too: what waits in its queue is not lost when we close it.
    pub is_inherited: bool,
}

/// Listens on an address, by a socket that the process was started with or by one of its own.
pub fn listen(address: SocketAddr, inherited: &mut Inherited) -> io::Result<PublicSocket> {
    if let Some(socket) = inherited.of(address) {
        socket.set_nonblocking(true)?;
        let listener = kernel::TcpListener::from_std(socket)?;
        return Ok(PublicSocket { listener, is_inherited: true });
    }
    Ok(PublicSocket { listener: bind(address)?, is_inherited: false })
}

/// Binds an address; `[::]` accepts IPv4 too, whatever the system's default is.
fn bind(address: SocketAddr) -> io::Result<kernel::TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    kernel::TcpListener::from_std(socket.into())
}

/// Accepts connections and hands them to the workers until it is cancelled. At the limit, silent clients lose their
/// connections to others that wait; if no client is silent, further connections wait in the kernel's queue. In the end
/// those that wait in a queue of our own are accepted, too: closing the socket would reset them.
pub async fn accept(
    PublicSocket { listener, is_inherited }: PublicSocket<impl Into<net::TcpListener>>,
    workers: &Workers,
    max_connections: usize,
    cancelled: CancellationToken,
) {
    let listener = listener.into();
    let mut slots = ConnectionSlots::new(max_connections);
    loop {
        let accepted = tokio::select! {
            biased;
            () = cancelled.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted.and_then(|(socket, peer)| Ok((socket.into_std()?, peer))) {
            Ok((socket, peer)) => {
                if let Some(slot) = slots.next(workers, &cancelled).await {
                    workers.hand_over(socket, peer, slot);
                }
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "Connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    for _ in 0..if is_inherited { 0 } else { BACKLOG } {
        let Some(slot) = slots.free() else { return };
        // Not by the budget of this task's turn, which is less than the queue.
        let accepted = tokio::task::unconstrained(listener.accept()).now_or_never();
        let Some(Ok((socket, peer))) = accepted else { return };
        if let Ok(socket) = socket.into_std() {
            workers.hand_over(socket, peer, slot);
        }
    }
}

/// The slots of `listen.max_connections` connections.
struct ConnectionSlots {
    all: Arc<Semaphore>,
    max_connections: usize,
    evicted: usize,
    logged: Option<Instant>,
}

impl ConnectionSlots {
    fn new(max_connections: usize) -> Self {
        let all = Arc::new(Semaphore::new(max_connections));
        Self { all, max_connections, evicted: 0, logged: None }
    }

    fn free(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.all).try_acquire_owned().ok()
    }

    /// A slot for a connection that has been accepted. If the process ends meanwhile, one more than there are: nobody
    /// else has the connection any more.
    async fn next(
        &mut self,
        workers: &Workers,
        cancelled: &CancellationToken,
    ) -> Option<OwnedSemaphorePermit> {
        let slot = self.free();
        if slot.is_some() {
            return slot;
        }
        let found = async {
            loop {
                self.evicted += workers.evict();
                self.log();
                let freed = timeout(EVICTION_INTERVAL, Arc::clone(&self.all).acquire_owned()).await;
                if let Ok(slot) = freed {
                    return slot.ok();
                }
            }
        };
        tokio::select! {
            biased;
            () = cancelled.cancelled() => {}
            slot = found => return slot,
        }
        self.all.add_permits(1);
        self.free()
    }

    fn log(&mut self) {
        let now = Instant::now();
        if self.logged.is_none_or(|logged| logged + LOG_INTERVAL <= now) {
            self.logged = Some(now);
            tracing::warn!(
                listen.max_connections = self.max_connections,
                evicted = take(&mut self.evicted),
                "Connection limit reached; silent clients are disconnected for others that wait"
            );
        }
    }
}

/// The client went away before it was accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}
