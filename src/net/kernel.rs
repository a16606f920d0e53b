//! The kernel's sockets.

use std::io;
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// A socket that belongs to no runtime: one on its way to a worker.
pub use std::net::TcpStream as Detached;
pub use tokio::net::{TcpListener, TcpStream};

/// How many bytes wait to be read, at most one: none at the end.
pub(crate) fn peek(stream: &TcpStream) -> io::Result<usize> {
    SockRef::from(stream).peek(&mut [MaybeUninit::uninit()])
}

/// Ends one direction, or both. The end of writing sends a FIN. After the end of reading, what has arrived is still
/// read, and then the end.
pub(crate) fn shut_down(stream: &TcpStream, how: Shutdown) -> io::Result<()> {
    SockRef::from(stream).shutdown(how)
}

/// Asks a silent peer whether it is there.
pub(crate) fn keep_alive(stream: &TcpStream, every: Duration) -> io::Result<()> {
    let probes = TcpKeepalive::new().with_time(every).with_interval(every);
    SockRef::from(stream).set_tcp_keepalive(&probes)
}

/// How long data that the peer does not acknowledge, or has no room for, stays in the kernel.
pub(crate) fn time_out_unacknowledged(socket: &impl AsFd, after: Duration) -> io::Result<()> {
    SockRef::from(socket).set_tcp_user_timeout(Some(after))
}

/// How much of what was written the kernel keeps before it has sent it.
pub(crate) fn limit_unsent(socket: &Detached, bytes: u32) -> io::Result<()> {
    SockRef::from(socket).set_tcp_notsent_lowat(bytes)
}
