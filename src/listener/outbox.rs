//! What an HTTP/2 connection says in one turn of its task, kept to the end of the turn.
//!
//! h2 writes each DATA frame of 256 bytes or more on its own, so each answer is a system call, a packet and, with TLS,
//! a record, although several streams often have one at the same time. Kept together they are one of each.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop::unconstrained;

/// What is kept of one connection at most: a TLS record's bytes. It has no memory between turns.
const MOST_BYTES: usize = 16 << 10;

/// A socket that keeps small writes to the end of a [turn](Turns). hyper has one, its connection's task
/// another.
pub(super) struct Outbox<S>(Arc<Mutex<Shared<S>>>);

struct Shared<S> {
    socket: S,
    kept: BytesMut,
    /// Why what was kept could not be written, until hyper has been told.
    failed: Option<io::Error>,
}

impl<S> Clone for Outbox<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: AsyncWrite + Unpin> Outbox<S> {
    pub(super) fn new(socket: S) -> Self {
        Self(Arc::new(Mutex::new(Shared { socket, kept: BytesMut::new(), failed: None })))
    }

    /// Writes what was kept. The task is woken if there is more to write later.
    fn end_turn(&self, cx: &mut Context<'_>) {
        let mut shared = self.0.lock();
        // hyper may have used up what the runtime lets a task do in one turn, and does so again in the next.
        let flush = unconstrained(poll_fn(|cx| shared.poll_flush(cx)));
        if let Poll::Ready(Err(error)) = pin!(flush).poll(cx) {
            // The next read tells hyper.
            shared.kept.clear();
            shared.failed = Some(error);
            cx.waker().wake_by_ref();
        }
    }
}

/// hyper's connection, each turn of which ends with a write. So does the last one: hyper ends without a flush on some
/// errors, and on a `CONNECT` that announces a body, and other streams may have had their answers just before.
pub(super) struct Turns<'c, C, S> {
    pub(super) connection: Pin<&'c mut C>,
    pub(super) outbox: Outbox<S>,
}

impl<C: Future, S: AsyncWrite + Unpin> Future for Turns<'_, C, S> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        let polled = self.connection.as_mut().poll(cx);
        self.outbox.end_turn(cx);
        polled
    }
}

impl<S: AsyncWrite + Unpin> Shared<S> {
    fn socket(&mut self) -> Pin<&mut S> {
        Pin::new(&mut self.socket)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.kept.is_empty() {
            let taken = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.kept))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.kept.advance(taken);
        }
        self.kept = BytesMut::new();
        self.socket().poll_flush(cx)
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        if self.kept.len() + length > MOST_BYTES {
            // A TLS session takes more than the socket does, and says so only here.
            ready!(self.poll_flush(cx))?;
        }
        if length > MOST_BYTES {
            return self.socket().poll_write_vectored(cx, slices);
        }
        if self.kept.is_empty() {
            self.kept.reserve(MOST_BYTES);
        }
        for slice in slices {
            self.kept.extend_from_slice(slice);
        }
        Poll::Ready(Ok(length))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Outbox<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut shared = self.0.lock();
        if let Some(error) = shared.failed.take() {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut shared.socket).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Outbox<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().poll_write(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().poll_write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// h2 flushes after each DATA frame. The end of the turn does it.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.0.lock();
        ready!(shared.poll_flush(cx))?;
        shared.socket().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::task::Waker;

    use proptest::prelude::*;

    use super::*;

    /// Takes so much of each write, none for one that has to wait, and of all later ones everything.
    #[derive(Default)]
    struct Line {
        takes: VecDeque<usize>,
        writes: Vec<Vec<u8>>,
        flushes: usize,
        is_reset: bool,
        /// It has taken what it cannot write yet.
        is_full: bool,
    }

    impl AsyncWrite for Line {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            if self.is_reset {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let taken = self.takes.pop_front().unwrap_or(usize::MAX).min(bytes.len());
            if taken == 0 {
                return Poll::Pending;
            }
            self.writes.push(bytes[..taken].to_vec());
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            if self.is_full { Poll::Pending } else { Poll::Ready(Ok(())) }
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncRead for Line {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    fn write(outbox: &mut Outbox<Line>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(outbox).poll_write_vectored(&mut cx(), &[IoSlice::new(b""), IoSlice::new(bytes)])
    }

    fn written(outbox: &Outbox<Line>) -> Vec<Vec<u8>> {
        std::mem::take(&mut outbox.0.lock().socket.writes)
    }

    #[test]
    fn the_writes_of_a_turn_are_one() {
        let mut outbox = Outbox::new(Line::default());
        for piece in [b"one".as_slice(), b"two", b"three"] {
            assert!(
                matches!(write(&mut outbox, piece), Poll::Ready(Ok(length)) if length == piece.len())
            );
            assert!(Pin::new(&mut outbox).poll_flush(&mut cx()).is_ready());
        }
        assert!(written(&outbox).is_empty());
        outbox.end_turn(&mut cx());
        assert_eq!(written(&outbox), [b"onetwothree"]);
        let shared = outbox.0.lock();
        assert_eq!((shared.kept.capacity(), shared.socket.flushes), (0, 1), "kept nothing");
    }

    #[test]
    fn a_large_write_follows_what_was_kept() {
        let mut outbox = Outbox::new(Line::default());
        let large = vec![b'x'; MOST_BYTES + 1];
        assert!(write(&mut outbox, b"head").is_ready() && write(&mut outbox, &large).is_ready());
        let all = written(&outbox);
        assert_eq!(all.concat(), [b"head", large.as_slice()].concat());
    }

    #[test]
    fn a_connection_that_ends_has_written_all() {
        let mut outbox = Outbox::new(Line { takes: [0, 3].into(), ..Line::default() });
        assert!(write(&mut outbox, b"the last words").is_ready());
        assert!(Pin::new(&mut outbox).poll_shutdown(&mut cx()).is_pending());
        assert!(Pin::new(&mut outbox).poll_shutdown(&mut cx()).is_ready());
        assert_eq!(written(&outbox).concat(), b"the last words");
    }

    // Without it a connection that only reads would go on.
    #[test]
    fn a_failure_at_the_end_of_a_turn_is_told_by_the_next_read() {
        let mut outbox = Outbox::new(Line { is_reset: true, ..Line::default() });
        assert!(write(&mut outbox, b"lost").is_ready());
        outbox.end_turn(&mut cx());
        let (mut room, mut cx) = ([0; 8], cx());
        let read = Pin::new(&mut outbox).poll_read(&mut cx, &mut ReadBuf::new(&mut room));
        assert!(
            matches!(read, Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset)
        );
    }

    // As after a CONNECT that announces a body: hyper ends the connection, and another stream has its answer.
    #[test]
    fn the_last_turn_ends_with_a_write_too() {
        let mut outbox = Outbox::new(Line::default());
        let kept = outbox.clone();
        let connection = pin!(poll_fn(|_| write(&mut outbox, b"answer")));
        let mut turns = Turns { connection, outbox: kept };
        assert!(Pin::new(&mut turns).poll(&mut cx()).is_ready());
        assert_eq!(written(&turns.outbox), [b"answer"]);
    }

    // Else a client that reads nothing fills the session as well.
    #[test]
    fn a_session_that_is_full_gets_no_more() {
        let mut outbox = Outbox::new(Line { is_full: true, ..Line::default() });
        assert!(write(&mut outbox, &vec![b'x'; MOST_BYTES]).is_ready());
        assert!(write(&mut outbox, b"x").is_pending());
        assert_eq!(written(&outbox).concat().len(), MOST_BYTES);
        for length in [1, MOST_BYTES + 1] {
            outbox.0.lock().kept = BytesMut::from(&[b'x'; MOST_BYTES][..]);
            assert!(write(&mut outbox, &vec![b'x'; length]).is_pending());
            assert!(outbox.0.lock().kept.is_empty());
        }
        written(&outbox);
        assert!(write(&mut outbox, &vec![b'x'; MOST_BYTES + 1]).is_pending());
        assert!(written(&outbox).is_empty());
    }

    #[tokio::test]
    async fn a_turn_ends_with_a_write_however_much_was_done_in_it() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut outbox = Outbox::new(socket);
        poll_fn(|cx| {
            while pin!(tokio::task::coop::consume_budget()).poll(cx).is_ready() {}
            assert!(Pin::new(&mut outbox).poll_write(cx, b"answer").is_ready());
            outbox.end_turn(cx);
            Poll::Ready(())
        })
        .await;
        assert!(outbox.0.lock().kept.is_empty());
    }

    proptest! {
        // Whatever the socket takes when, all that was accepted arrives, once and in order, and little is kept.
        #[test]
        fn every_byte_arrives_in_order(
            pieces in proptest::collection::vec((1usize..(3 * MOST_BYTES), any::<bool>()), 1..40),
            takes in proptest::collection::vec(0usize..(2 * MOST_BYTES), 0..60),
        ) {
            let mut outbox = Outbox::new(Line { takes: takes.into(), ..Line::default() });
            let (mut sent, mut next) = (Vec::new(), 0u8);
            for (length, ends_turn) in pieces {
                let piece: Vec<u8> = (0..length).map(|_| { next = next.wrapping_add(1); next }).collect();
                let mut left = piece.as_slice();
                while !left.is_empty() {
                    match write(&mut outbox, left) {
                        Poll::Ready(taken) => left = &left[taken.unwrap()..],
                        // The task is woken when the socket takes more.
                        Poll::Pending => outbox.end_turn(&mut cx()),
                    }
                    prop_assert!(outbox.0.lock().kept.len() <= MOST_BYTES);
                }
                sent.extend(piece);
                if ends_turn {
                    outbox.end_turn(&mut cx());
                }
            }
            while !outbox.0.lock().kept.is_empty() {
                outbox.end_turn(&mut cx());
            }
            prop_assert_eq!(written(&outbox).concat(), sent);
        }
    }
}
