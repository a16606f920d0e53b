//! The public socket.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::net as kernel;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::inherited::Inherited;
use super::workers::Workers;
use crate::net;

/// The length of the kernel's queue of connections that are not accepted yet.
const BACKLOG: i32 = 1024;

/// The pause when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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

/// Accepts connections and hands them to the workers until it is cancelled. At the limit further
/// connections wait in the kernel's queue. In the end those that wait in a queue of our own are accepted,
/// too: closing the socket would reset them.
pub async fn accept(
    PublicSocket { listener, is_inherited }: PublicSocket<impl Into<net::TcpListener>>,
    workers: &Workers,
    max_connections: usize,
    cancelled: CancellationToken,
) {
    let listener = listener.into();
    let room = Arc::new(Semaphore::new(max_connections));
    loop {
        let accepted = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            biased;
            () = cancelled.cancelled() => break,
            accepted = accepted => accepted,
        };
        let handed = accepted.and_then(|(socket, peer)| Ok((socket.into_std()?, peer)));
        match (handed, permit) {
            (Ok((socket, peer)), Ok(permit)) => workers.hand_over(socket, peer, permit),
            (Err(error), _) if is_of_one_connection(&error) => {}
            (Err(error), _) => {
                tracing::warn!(%error, "Connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            (_, Err(_)) => return, // the semaphore is never closed
        }
    }
    for _ in 0..if is_inherited { 0 } else { BACKLOG } {
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { return };
        // Not by the budget of this task's turn, which is less than the queue.
        let accepted = tokio::task::unconstrained(listener.accept()).now_or_never();
        let Some(Ok((socket, peer))) = accepted else { return };
        if let Ok(socket) = socket.into_std() {
            workers.hand_over(socket, peer, permit);
        }
    }
}

/// The client went away before it was accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}
