//! The public socket.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::workers::Workers;
use crate::net;

/// The length of the kernel's queue of connections that are not accepted yet.
const BACKLOG: i32 = 1024;

/// The pause when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Binds an address; `[::]` accepts IPv4 too, whatever the system's default is.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts connections and hands them to the workers until it is cancelled. At the limit further
/// connections wait in the kernel's queue.
pub async fn accept(
    listener: impl Into<net::TcpListener>,
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
            () = cancelled.cancelled() => return,
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
}

/// The client went away before it was accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}
