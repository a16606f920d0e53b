//! The watch beside a connection. It ends the connection when the client has kept it waiting for too
//! long or has gone away, whether or not hyper polls the socket at the time. hyper does not while
//! bytes that it has read wait for their turn, and clients decide whether some do.
//!
//! A client that has gone away and one that has only ended what it sends (a half close) send the
//! same FIN. A whole request is answered either way. To find out which it is, a client of
//! HTTP/1.1 whose answer takes long is sent `100 Continue`, which every client must take at any
//! time (RFC 9110, 15.2): the system of one that has gone away answers that with a reset.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::activity::Activity;
use super::phase::{Overdue, Timeouts};
use crate::deadline::Deadline;
use crate::labels::ConnectionEnd;

pub(super) struct Watch {
    stream: Arc<TcpStream>,
    activity: Arc<Activity>,
    timeouts: Timeouts,
    timer: Deadline,
    sign: Sign,
    half_close: Option<HalfClose>,
    is_retiring: bool,
}

/// What is to be done with the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// It takes no further requests.
    Retire,
    /// It ends, for this reason.
    End(ConnectionEnd),
}

/// The next sign of the client's end: a FIN, then an error.
type Sign = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The client sends no more.
struct HalfClose {
    next_probe: Instant,
    interval: Duration,
    timer: Deadline,
}

/// How long after its FIN a client is first probed.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// As often as that the system probes a client that has sent its FIN, whatever it speaks.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

const PROBE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

impl Watch {
    pub(super) fn new(stream: Arc<TcpStream>, activity: Arc<Activity>, timeouts: Timeouts) -> Self {
        let sign = sign(&stream, fin_or_error());
        Self {
            stream,
            activity,
            timeouts,
            timer: Deadline::default(),
            sign,
            half_close: None,
            is_retiring: false,
        }
    }

    /// To be polled after the connection, in its task.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Action> {
        self.activity.watched_by(cx.waker());
        if self.poll_gone(cx).is_ready() {
            self.activity.break_off();
            return Poll::Ready(Action::End(ConnectionEnd::Closed));
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
            // Streams that cannot be reset any more hold up no others, but end with them.
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
        if matches!(overdue, Overdue::Stalled | Overdue::Upload) {
            self.activity.break_off();
        }
        Poll::Ready(Action::End(overdue.end()))
    }

    /// Ready if the client has gone away.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.half_close.is_none() {
            ready!(self.sign.as_mut().poll(cx));
            // An error that came with it is found by this one.
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
        // Nothing of an answer is under way, so it fits in as a whole.
        match self.stream.try_write(PROBE) {
            Ok(count) if count == PROBE.len() => Poll::Pending,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }
}

impl HalfClose {
    fn begin(stream: &TcpStream) -> Self {
        let probes = socket2::TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE);
        let _ = socket2::SockRef::from(stream).set_tcp_keepalive(&probes);
        Self {
            next_probe: Instant::now() + PROBE_INTERVAL,
            interval: 2 * PROBE_INTERVAL,
            timer: Deadline::default(),
        }
    }
}

/// Waits for something to happen to the socket. Being readable does not do for a FIN: that it is
/// while pipelined bytes wait.
fn sign(stream: &Arc<TcpStream>, interest: Interest) -> Sign {
    let stream = Arc::clone(stream);
    Box::pin(async move {
        let _ = stream.ready(interest).await;
    })
}

/// The peer's FIN is in `PRIORITY`, of which the sockets are not asked for anything else.
#[cfg(target_os = "linux")]
fn fin_or_error() -> Interest {
    Interest::PRIORITY | Interest::ERROR
}

#[cfg(not(target_os = "linux"))]
fn fin_or_error() -> Interest {
    Interest::ERROR
}
