//! The client's socket as hyper sees it, which tells the connection's
//! [`Phase`](super::phase::Phase) what passes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::activity::Activity;

/// hyper's half of the socket; the other is its [`Watch`](super::watch::Watch)'s.
pub(super) struct Socket {
    stream: Arc<TcpStream>,
    /// What was read to find out the protocol.
    prefix: Bytes,
    activity: Arc<Activity>,
}

impl Socket {
    pub(super) fn new(stream: Arc<TcpStream>, prefix: Bytes, activity: Arc<Activity>) -> Self {
        Self { stream, prefix, activity }
    }

    fn poll_write_with(
        &self,
        cx: &mut Context<'_>,
        length: usize,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let Poll::Ready(ready) = self.stream.poll_write_ready(cx) else {
                self.activity.phase().blocked(Instant::now);
                return Poll::Pending;
            };
            ready?;
            match write(&self.stream) {
                Ok(count) => {
                    if 0 < count && count < length {
                        exhausted(&self.stream, Interest::WRITABLE);
                    }
                    self.activity.phase().wrote(Instant::now);
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// Less was read or written than could have been: the kernel will say when there is more. With
/// epoll that saves the call that would say so (tokio's own sockets do the same).
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
        if !self.prefix.is_empty() {
            let length = self.prefix.len().min(buf.remaining());
            buf.put_slice(&self.prefix[..length]);
            self.activity.phase().read(&self.prefix[..length], Instant::now);
            self.prefix.advance(length);
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            let (before, room) = (buf.filled().len(), buf.remaining());
            match self.stream.try_read_buf(buf) {
                Ok(count) => {
                    if 0 < count && count < room {
                        exhausted(&self.stream, Interest::READABLE);
                    }
                    self.activity.phase().read(&buf.filled()[before..], Instant::now);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, buf.len(), |stream| stream.try_write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        self.poll_write_with(cx, length, |stream| stream.try_write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(socket2::SockRef::from(&*self.stream).shutdown(std::net::Shutdown::Write))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // HTTP/1.0 ends a body by closing: only a reset tells a broken response from a whole one. And
        // the kernel would keep offering what the client does not read.
        if self.activity.is_broken() {
            let _ = self.stream.set_zero_linger();
        }
    }
}

/// The protocol, by the client's first bytes.
pub(super) enum Protocol {
    Http1,
    Http2,
}

const HTTP2_PREFACE_BEGINS: &[u8] = b"PRI";

/// Reads until it is clear what the client speaks: no method of HTTP/1.1 begins like HTTP/2's
/// preface (RFC 9113, 3.4). None if the client sends nothing.
pub(super) async fn find_protocol(socket: &mut TcpStream) -> io::Result<Option<(Protocol, Bytes)>> {
    use tokio::io::AsyncReadExt as _;
    let mut first = Vec::with_capacity(64);
    loop {
        if socket.read_buf(&mut first).await? == 0 {
            return Ok(None);
        }
        let length = first.len().min(HTTP2_PREFACE_BEGINS.len());
        if first[..length] != HTTP2_PREFACE_BEGINS[..length] {
            return Ok(Some((Protocol::Http1, first.into())));
        }
        if length == HTTP2_PREFACE_BEGINS.len() {
            return Ok(Some((Protocol::Http2, first.into())));
        }
    }
}
