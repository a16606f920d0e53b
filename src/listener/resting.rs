//! A connection without a request. Of HTTP/1.1 nothing is left between two requests but the socket, so
//! that is all that is kept: hyper's buffers, and all that follows a request, are given up a moment
//! after it, and made again when the client sends its next byte. A connection that has sent nothing
//! yet is kept in the same way. docs/decisions/0036-idle-connections.md has the figures and the argument.

use std::future::poll_fn;
use std::mem::take;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::WaitForCancellationFuture;

use super::phase::Timeouts;
use super::tls::Session;
use crate::deadline::Deadline;
use crate::net::TcpStream;

/// How long a connection keeps all that a request needs after the last one: a client that goes on at
/// once finds it there. If it is long, many connections that come at the same time and then rest leave
/// the heap in pieces.
pub(super) const KEPT_FOR: Duration = Duration::from_millis(100);

/// How long a client may still send its next request when the process ends. One that was sent a moment
/// before must not meet a closed connection; its answer says that the connection ends.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);

/// What is known of it.
pub(super) enum Resting {
    /// It has sent nothing, or too little to tell its protocol.
    New {
        opened: Instant,
        first: Vec<u8>,
        /// A balancer has to say whose connection it is before anything else.
        expects_header: bool,
    },
    /// Between two requests of HTTP/1.1.
    Between {
        opened: Instant,
        /// When the last request ended.
        since: Instant,
        /// What hyper has read and not taken: line breaks, which it ignores before a request (RFC 9112,
        /// 2.2).
        unread: Bytes,
    },
}

/// A resting connection that is served again.
pub(super) struct Resumed {
    pub(super) opened: Instant,
    /// When its last request ended.
    pub(super) since: Option<Instant>,
    pub(super) bytes: Bytes,
}

/// Why the wait is over.
pub(super) enum Woken {
    /// The client has sent something, a FIN included.
    Client,
    /// It has done so while the process ends.
    ClientAtLast,
    Deadline,
    /// The process ends.
    Closing,
}

impl Resting {
    pub(super) fn new(expects_header: bool) -> Self {
        Self::New { opened: Instant::now(), first: Vec::new(), expects_header }
    }

    /// Of a connection that was served. Of hyper's buffer only what is in it is kept.
    pub(super) fn between(opened: Instant, since: Instant, unread: &Bytes) -> Self {
        let unread = if unread.is_empty() { Bytes::new() } else { Bytes::copy_from_slice(unread) };
        Self::Between { opened, since, unread }
    }

    /// What serving it goes on with.
    pub(super) fn resume(&mut self) -> Resumed {
        match self {
            Self::New { opened, first, .. } => {
                Resumed { opened: *opened, since: None, bytes: take(first).into() }
            }
            Self::Between { opened, since, unread } => {
                Resumed { opened: *opened, since: Some(*since), bytes: take(unread) }
            }
        }
    }

    /// Whether bytes of a request are here, for which nothing has to be waited.
    fn has_request(&self) -> bool {
        match self {
            Self::New { .. } => false,
            Self::Between { unread, .. } => {
                !unread.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
            }
        }
    }

    /// A new connection has the time of a head for its first byte: silent ones cost an attacker
    /// nothing.
    fn deadline(&self, timeouts: &Timeouts) -> Instant {
        match self {
            Self::New { opened, .. } => *opened + timeouts.header,
            Self::Between { since, .. } => *since + timeouts.idle,
        }
    }

    /// Waits for the client's next byte.
    pub(super) async fn wait(
        &self,
        (stream, tls): (&TcpStream, Option<&Session>),
        timeouts: &Timeouts,
        mut closing: Pin<&mut WaitForCancellationFuture<'_>>,
    ) -> Woken {
        let mut deadline = self.deadline(timeouts);
        let has_request = self.has_request() || tls.is_some_and(Session::has_unread);
        let mut timer = Deadline::default();
        let mut is_closing = false;
        poll_fn(move |cx| {
            if !is_closing && closing.as_mut().poll(cx).is_ready() {
                is_closing = true;
                deadline = deadline.min(Instant::now() + FAREWELL);
            }
            if has_request || stream.poll_read_ready(cx).is_ready() {
                let woken = if is_closing { Woken::ClientAtLast } else { Woken::Client };
                return Poll::Ready(woken);
            }
            if timer.is_past(deadline, cx) {
                return Poll::Ready(if is_closing { Woken::Closing } else { Woken::Deadline });
            }
            Poll::Pending
        })
        .await
    }
}
