//! A socket to Mimir that is checked once more before a kept connection is reused.
//!
//! Bytes that arrive on a connection without a request belong to no request: a second response to
//! the last one, or a late one. HTTP/1.1 does not number responses, so the next user of the
//! connection, perhaps of another organisation, would get them. hyper closes an idle connection
//! when it sees bytes on it, but only after the runtime has polled the kernel, which a busy worker
//! does some tasks later: the request may be written by then. So the kernel is asked here, right
//! before the first byte of the next request is written.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::TcpStream;

/// The socket of one connection.
pub(super) struct GuardedIo {
    socket: TokioIo<TcpStream>,
    reused: ReusedFlag,
}

/// Whether the next write begins another request; set by the pool.
#[derive(Clone, Default)]
pub(super) struct ReusedFlag(Arc<AtomicBool>);

impl ReusedFlag {
    /// The connection is reused.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl GuardedIo {
    pub(super) fn new(socket: TcpStream, reused: ReusedFlag) -> Self {
        Self { socket: TokioIo::new(socket), reused }
    }

    /// Checks the socket before the first write of a reused connection; an error if bytes have
    /// arrived.
    fn check(&self) -> io::Result<()> {
        if !self.reused.0.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        match SockRef::from(self.socket.inner()).peek(&mut [MaybeUninit::uninit()]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
            Ok(0) => Err(io::ErrorKind::ConnectionReset.into()),
            Ok(_) => {
                let address = self.socket.inner().peer_addr().ok();
                tracing::warn!(
                    upstream.address = address.map(tracing::field::display),
                    "Upstream sent an unsolicited answer"
                );
                Err(io::Error::new(io::ErrorKind::ConnectionReset, "unsolicited answer"))
            }
        }
    }
}

impl Read for GuardedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl Write for GuardedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use bytes::Bytes;
    use http::{Request, StatusCode};
    use http_body_util::{BodyExt as _, Empty};
    use hyper::client::conn::http1;

    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    const UNSOLICITED: &[u8] = b"HTTP/1.1 203 Not Yours\r\ncontent-length: 0\r\n\r\n";

    fn request() -> Request<Empty<Bytes>> {
        Request::new(Empty::new())
    }

    /// Sends a request to an upstream that answers on the same thread, so that events happen in the
    /// order of the lines here.
    async fn second_answer(
        unsolicited: &[u8],
        is_guarded: bool,
    ) -> Result<StatusCode, hyper::Error> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut upstream, _) = listener.accept().unwrap();
        let reused = ReusedFlag::default();
        let io = GuardedIo::new(socket, reused.clone());
        let (mut sender, connection) = http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let first = sender.send_request(request());
        let serve = async {
            tokio::task::yield_now().await;
            let mut head = [0; 1024];
            assert!(upstream.read(&mut head).unwrap() > 0);
            upstream.write_all(ANSWER).unwrap();
        };
        let (first, ()) = tokio::join!(first, serve);
        let first = first.unwrap();
        assert_eq!(first.status(), StatusCode::OK);
        first.into_body().collect().await.unwrap();
        sender.ready().await.unwrap();
        if is_guarded {
            reused.set();
        }
        // Nothing is awaited from here to the request: the runtime cannot see these bytes.
        upstream.write_all(unsolicited).unwrap();
        let second = sender.send_request(request());
        let serve = async {
            tokio::task::yield_now().await;
            upstream.set_nonblocking(true).unwrap();
            let mut head = [0; 1024];
            if upstream.read(&mut head).is_ok_and(|length| length > 0) {
                upstream.write_all(ANSWER).unwrap();
            }
        };
        let (second, ()) = tokio::join!(second, serve);
        Ok(second?.status())
    }

    // RFC 9112, 9.2 (security considerations: response smuggling): an unsolicited response belongs
    // to no request.
    #[tokio::test]
    async fn an_unsolicited_answer_goes_to_no_request() {
        assert_eq!(second_answer(b"", true).await.unwrap(), StatusCode::OK);
        assert!(second_answer(UNSOLICITED, true).await.is_err());
        assert!(second_answer(b"x", true).await.is_err());
        // Without the guard, hyper gives the next request this response.
        let by_itself = second_answer(UNSOLICITED, false).await.unwrap();
        assert_eq!(by_itself, StatusCode::NON_AUTHORITATIVE_INFORMATION);
    }
}
