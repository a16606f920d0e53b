//! The watch of a connection: ends it when the client exceeds a deadline or disconnects, whether or
//! not hyper polls the socket at the time. hyper does not poll it while it has unparsed bytes, and
//! pipelining lets a client bring that about.
//!
//! A client that disconnects and one that only shuts down its sending side (a half close) send the
//! same FIN. A complete request is answered either way. To tell them apart, an HTTP/1.1 client whose
//! answer takes long is sent `100 Continue`, which every client must accept at any time (RFC 9110,
//! 15.2): the system of a client that has disconnected answers with a reset.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::Interest;
use tokio::time::Instant;

use super::activity::Activity;
use super::phase::{Overdue, Timeouts};
use super::resting::KEPT_FOR;
use super::tls::Session;
use crate::deadline::Deadline;
use crate::labels::ConnectionEnd;
use crate::net::{self, TcpStream};

pub(super) struct Watch {
    stream: Arc<TcpStream>,
    activity: Arc<Activity>,
    timeouts: Timeouts,
    timer: Deadline,
    sign: Sign,
    half_close: Option<HalfClose>,
    is_retiring: bool,
    tls: Option<Arc<Session>>,
    expiry: Deadline,
}

/// What to do with the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Accept no further requests.
    Retire,
    /// Give up what a request needs: the client has sent none for a moment.
    Rest,
    /// End it, for this reason (a metric label).
    End(ConnectionEnd),
}

/// The next sign that the client disconnects: a FIN, then an error.
type Sign = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The client sends no more.
struct HalfClose {
    next_probe: Instant,
    interval: Duration,
    timer: Deadline,
}

/// The time from a FIN to the first probe.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// The interval of TCP keep-alive after a FIN, for every protocol.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

const PROBE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

impl Watch {
    pub(super) fn new(
        stream: Arc<TcpStream>,
        activity: Arc<Activity>,
        timeouts: Timeouts,
        tls: Option<Arc<Session>>,
    ) -> Self {
        let sign = sign(&stream, fin_or_error());
        Self {
            stream,
            activity,
            timeouts,
            timer: Deadline::default(),
            sign,
            half_close: None,
            is_retiring: false,
            tls,
            expiry: Deadline::default(),
        }
    }

    /// Whether the client's certificate has expired. It is told as when the process ends: it comes back with
    /// another, and has lost nothing.
    pub(super) fn has_expired(&mut self, cx: &mut Context<'_>) -> bool {
        let until = self.tls.as_ref().and_then(|session| session.until);
        until.is_some_and(|until| self.expiry.is_past(until, cx))
    }

    /// Must be polled after the connection, in its task. Between two requests it asks whether another
    /// worker had better serve the next.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        is_better_elsewhere: impl FnOnce() -> bool,
    ) -> Poll<Action> {
        self.activity.watched_by(cx.waker());
        // Another thread has ended the connection.
        if self.activity.is_broken() {
            return Poll::Ready(Action::End(ConnectionEnd::Closed));
        }
        if self.poll_gone(cx).is_ready() {
            self.activity.break_off();
            return Poll::Ready(Action::End(ConnectionEnd::Closed));
        }
        let resting_since = self.activity.phase().resting_since();
        if let Some(since) = resting_since
            && self.half_close.is_none()
        {
            // What rests has its deadline there.
            let rests = is_better_elsewhere() || self.timer.is_past(since + KEPT_FOR, cx);
            return if rests { Poll::Ready(Action::Rest) } else { Poll::Pending };
        }
        self.poll_overdue(cx)
    }

    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<Action> {
        let phase = self.activity.phase();
        let due = phase.due(&self.timeouts);
        let left_behind = match phase.free_since() {
            Some(free) if !phase.is_http1() => self
                .activity
                .left_behind_since()
                .map(|since| phase.deadline(since.max(free), self.timeouts.write)),
            _ => None,
        };
        let is_idle = phase.is_idle();
        drop(phase);
        if let Some(deadline) = left_behind
            && (is_idle || !self.is_retiring)
            && self.timer.is_past(deadline, cx)
        {
            // Streams that can no longer be reset do not block others, and end with the last of them.
            if is_idle {
                self.activity.break_off();
                return Poll::Ready(Action::End(Overdue::Stalled.end()));
            }
            self.is_retiring = true;
            return Poll::Ready(Action::Retire);
        }
        let Some((deadline, overdue)) = due else { return Poll::Pending };
        if !self.timer.is_past(deadline, cx) {
            return Poll::Pending;
        }
        if matches!(overdue, Overdue::Stalled | Overdue::Upload | Overdue::Flood) {
            self.activity.break_off();
        }
        Poll::Ready(Action::End(overdue.end()))
    }

    /// Ready if the client has disconnected.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.half_close.is_none() {
            ready!(self.sign.as_mut().poll(cx));
            // Finds an error that came with it, too.
            self.sign = sign(&self.stream, Interest::ERROR);
            self.half_close = Some(HalfClose::begin(&self.stream));
        }
        if self.sign.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(half_close) = &mut self.half_close else { return Poll::Pending };
        if !self.activity.phase().owes_head()
            || !half_close.timer.is_past(half_close.next_probe, cx)
        {
            return Poll::Pending;
        }
        half_close.next_probe = Instant::now() + half_close.interval;
        half_close.interval *= 2;
        half_close.timer.is_past(half_close.next_probe, cx);
        // No part of an answer has been sent, so the probe cannot interrupt one.
        let written = match &self.tls {
            None => self.stream.try_write(PROBE),
            Some(session) => session.try_write(PROBE),
        };
        match written {
            Ok(count) if count == PROBE.len() => Poll::Pending,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }
}

impl HalfClose {
    fn begin(stream: &TcpStream) -> Self {
        let _ = net::keep_alive(stream, KEEP_ALIVE);
        Self {
            next_probe: Instant::now() + PROBE_INTERVAL,
            interval: 2 * PROBE_INTERVAL,
            timer: Deadline::default(),
        }
    }
}

/// Waits for an event of the socket. Readability does not show a FIN: the socket is also readable while
/// pipelined bytes wait.
fn sign(stream: &Arc<TcpStream>, interest: Interest) -> Sign {
    let stream = Arc::clone(stream);
    Box::pin(async move {
        let _ = stream.ready(interest).await;
    })
}

/// A FIN is reported as `PRIORITY`, which is used for nothing else.
#[cfg(target_os = "linux")]
fn fin_or_error() -> Interest {
    Interest::PRIORITY | Interest::ERROR
}

#[cfg(not(target_os = "linux"))]
fn fin_or_error() -> Interest {
    Interest::ERROR
}
