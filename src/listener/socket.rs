//! The client's socket as hyper sees it. It reports traffic to the connection's
//! [`Phase`](super::phase::Phase).

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::time::Instant;

use super::activity::Activity;
use super::tls::Session;
use crate::net::{self, Detached, TcpStream};

/// hyper's half of the socket; the other is its [`Watch`](super::watch::Watch)'s.
pub(super) struct Socket {
    stream: Arc<TcpStream>,
    /// What was read to find out the protocol, or by the last request.
    prefix: Bytes,
    activity: Arc<Activity>,
    tls: Option<Arc<Session>>,
}

impl Socket {
    pub(super) fn new(
        stream: Arc<TcpStream>,
        prefix: Bytes,
        activity: Arc<Activity>,
        tls: Option<Arc<Session>>,
    ) -> Self {
        if let Some(session) = &tls {
            session.resume(&stream, &activity);
        }
        Self { stream, prefix, activity, tls }
    }

    /// Ends without `close_notify`: the session goes on.
    pub(super) fn rest(mut self) {
        if let Some(session) = self.tls.take() {
            session.rest();
        }
    }

    fn poll_write_with(
        &self,
        cx: &mut Context<'_>,
        length: usize,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let blocked = || self.activity.phase().blocked(Instant::now);
        let count = ready!(poll_write_of(&self.stream, cx, length, write, blocked))?;
        let mut phase = self.activity.phase();
        phase.wrote(Instant::now);
        phase.sent(count);
        Poll::Ready(Ok(count))
    }

    /// What a session takes. What the kernel takes of it is noted beneath.
    fn note_sent(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = written {
            self.activity.phase().sent(count);
        }
        written
    }
}

/// Takes what was read before. Whether there was some.
pub(super) fn take_first(first: &mut Bytes, buf: &mut ReadBuf<'_>) -> bool {
    if first.is_empty() {
        return false;
    }
    let length = first.len().min(buf.remaining());
    buf.put_slice(&first.split_to(length));
    true
}

/// Reads what is there.
pub(super) fn poll_read_of(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    loop {
        ready!(stream.poll_read_ready(cx))?;
        let room = buf.remaining();
        match stream.try_read_buf(buf) {
            Ok(count) => {
                if 0 < count && count < room {
                    exhausted(stream, Interest::READABLE);
                }
                return Poll::Ready(Ok(()));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
}

/// Writes as much as is taken.
pub(super) fn poll_write_of(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    length: usize,
    write: impl Fn(&TcpStream) -> io::Result<usize>,
    blocked: impl FnOnce(),
) -> Poll<io::Result<usize>> {
    loop {
        let Poll::Ready(ready) = stream.poll_write_ready(cx) else {
            blocked();
            return Poll::Pending;
        };
        ready?;
        match write(stream) {
            Ok(count) => {
                if 0 < count && count < length {
                    exhausted(stream, Interest::WRITABLE);
                }
                return Poll::Ready(Ok(count));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
}

/// Less was read or written than possible: the kernel reports when there is more. With epoll this
/// saves a system call (tokio's own sockets do the same).
fn exhausted(stream: &TcpStream, interest: Interest) {
    if cfg!(target_os = "linux") {
        let _ = stream.try_io(interest, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.activity.poll_wanted(cx));
        let before = buf.filled().len();
        if !take_first(&mut self.prefix, buf) {
            match &self.tls {
                None => ready!(poll_read_of(&self.stream, cx, buf))?,
                Some(session) => ready!(session.poll_read(cx, buf))?,
            }
        }
        self.activity.phase().read(&buf.filled()[before..], Instant::now);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(session) = &self.tls {
            return self.note_sent(session.poll_write(cx, buf));
        }
        self.poll_write_with(cx, buf.len(), |stream| stream.try_write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(session) = &self.tls {
            return self.note_sent(session.poll_write_vectored(cx, bufs));
        }
        let length = bufs.iter().map(|buf| buf.len()).sum();
        self.poll_write_with(cx, length, |stream| stream.try_write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.tls {
            None => Poll::Ready(Ok(())),
            Some(session) => session.poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper has flushed all answers before. A `close_notify` may still wait, but it is not a part of one.
        self.activity.phase().said_all();
        match &self.tls {
            None => Poll::Ready(net::shut_down(&self.stream, Shutdown::Write)),
            Some(session) => session.poll_shutdown(cx),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // HTTP/1.0 ends a body by closing: only a reset tells a cut-off answer from a complete one. It
        // also drops unread bytes, which the kernel would otherwise keep for long. An answer may be cut off here,
        // too: at the end of a drain, or by a panic. hyper drops the socket before the body, so the answer's
        // exchange has not ended yet.
        if self.activity.is_broken() || self.activity.phase().owes_rest() {
            let _ = self.stream.set_zero_linger();
        } else if let Some(session) = &self.tls {
            session.send_close_notify();
        }
    }
}

/// How much of an answer the kernel keeps for a client that it has not sent yet. What is on its way is
/// not counted, so this bounds no line's speed; without it the kernel's buffer grows to megabytes
/// for each client that does not read, and keeps them after the connection is closed.
const MOST_UNSENT_BYTES: u32 = 128 << 10;

/// Sets how the kernel treats a client's socket. `unacknowledged` is how long data that the client does
/// not acknowledge, or has no room for, stays in the kernel, also after the connection is closed. It is
/// longer than every deadline of ours, so that those decide while the connection is open.
pub(super) fn prepare(socket: &Detached, unacknowledged: Duration) -> io::Result<()> {
    socket.set_nodelay(true)?;
    // Old kernels and sandboxes lack these; the connection works all the same.
    let _ = net::limit_unsent(socket, MOST_UNSENT_BYTES);
    let _ = net::time_out_unacknowledged(socket, unacknowledged);
    Ok(())
}

/// A client's protocol.
pub(super) enum Protocol {
    Http1,
    Http2,
}

const HTTP2_PREFACE_BEGINS: &[u8] = b"PRI";

/// How many bytes are read at once to find it out.
const FIRST_BYTES: usize = 64;

/// Reads a new connection's first bytes. An error if the client sends no more.
pub(super) fn read_first(stream: &TcpStream, first: &mut Vec<u8>) -> io::Result<()> {
    first.reserve(FIRST_BYTES);
    match stream.try_read_buf(first) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
    }
}

/// The protocol is clear from a few bytes: no method of HTTP/1.1 begins like HTTP/2's preface (RFC 9113,
/// 3.4). None if there are fewer yet.
pub(super) fn protocol_of(first: &[u8]) -> Option<Protocol> {
    if first.is_empty() {
        return None;
    }
    let length = first.len().min(HTTP2_PREFACE_BEGINS.len());
    if first[..length] != HTTP2_PREFACE_BEGINS[..length] {
        Some(Protocol::Http1)
    } else if length == HTTP2_PREFACE_BEGINS.len() {
        Some(Protocol::Http2)
    } else {
        None
    }
}

#[cfg(not(feature = "simulation"))]
#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// How much the kernel takes for a client that reads nothing.
    fn taken_unread(prepares: bool) -> usize {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut socket, _) = listener.accept().unwrap();
        if prepares {
            prepare(&socket, Duration::from_secs(120)).unwrap();
        }
        socket.set_nonblocking(true).unwrap();
        let (piece, mut taken) = (vec![0; 64 << 10], 0);
        // The kernel widens its buffers as it goes: a pause, and it may take more.
        for _ in 0..20 {
            while let Ok(count) = socket.write(&piece) {
                taken += count;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        taken
    }

    #[test]
    fn an_unread_answer_takes_little_of_the_kernels_memory() {
        let (before, after) = (taken_unread(false), taken_unread(true));
        assert!(after < 1 << 20 && after < before / 2, "{before} without, {after} with");
    }
}
