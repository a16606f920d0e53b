//! One request and its answer: its effect on its connection's [`Phase`](super::phase::Phase) and, for
//! HTTP/2, its own deadline.
//!
//! HTTP/2 streams of one connection may belong to different clients (a proxy in front multiplexes
//! them), so a stream whose client gives no credit is reset alone. Progress is measured where bytes
//! leave: each [`Piece`] knows how much of it the socket has taken, or the [outbox](super::outbox) before it.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::activity::Activity;
use super::framing::BodyLength;
use super::phase::DRAIN_TIMEOUT;
use crate::deadline::Deadline;
use crate::edge::{NextPiece, WatchBody};
use crate::telemetry::Metrics;

/// A request whose answer has not ended; its connection is busy until this is dropped.
pub(super) struct Exchange(Arc<Activity>);

impl Exchange {
    /// Of a request whose head is complete.
    pub(super) fn begin(activity: Arc<Activity>, body: BodyLength, takes_interim: bool) -> Self {
        activity.phase().begin(body, takes_interim, Instant::now);
        Self(activity)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut phase = self.0.phase();
        phase.end(Instant::now);
        // For HTTP/1.1 this runs in the connection's task, which polls the watch next.
        if phase.is_idle() && !phase.is_http1() {
            drop(phase);
            self.0.wake();
        }
    }
}

/// A request whose body has not ended; its connection is busy until this is dropped.
pub(super) struct Uploading {
    activity: Arc<Activity>,
    next: Mutex<NextPiece>,
}

impl Uploading {
    /// Of a request that has a body.
    pub(super) fn begin(activity: Arc<Activity>) -> Self {
        activity.phase().begin_upload();
        Self { activity, next: Mutex::new(NextPiece::Unwanted) }
    }
}

impl WatchBody for Uploading {
    fn next_piece(&self, next: NextPiece) {
        let before = std::mem::replace(&mut *self.next.lock(), next);
        if before == next {
            return;
        }
        self.activity.change(|phase| {
            match before {
                NextPiece::Unwanted => {}
                NextPiece::Awaited => phase.end_waiting(),
                NextPiece::Discarded => phase.end_discarding(),
            }
            match next {
                NextPiece::Unwanted => {}
                NextPiece::Awaited => phase.begin_waiting(Instant::now()),
                NextPiece::Discarded => phase.begin_discarding(),
            }
        });
    }
}

impl Drop for Uploading {
    fn drop(&mut self) {
        self.next_piece(NextPiece::Unwanted);
        self.activity.change(|phase| phase.end_upload(Instant::now()));
    }
}

/// The body of an answer by HTTP/1.1.
pub(super) struct Http1Body<B> {
    body: B,
    exchange: Exchange,
}

impl<B> Http1Body<B> {
    pub(super) fn new(body: B, exchange: Exchange) -> Self {
        Self { body, exchange }
    }
}

impl<B: Body + Unpin> Body for Http1Body<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Err(_))) = &frame {
            self.exchange.0.break_off();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// One stream of HTTP/2.
pub(super) struct Stream {
    sending: Mutex<Sending>,
}

struct Sending {
    /// Bytes given to HTTP/2 that the socket has not taken.
    owed: usize,
    /// All bytes given.
    given: usize,
    /// The connection, until the request has ended: it counts those that are not read.
    activity: Option<Arc<Activity>>,
    /// When bytes were last given, or taken by the socket.
    moved_at: Option<Instant>,
    /// Woken when nothing is owed.
    waiting: Option<Waker>,
}

/// An answer up to this size ends with its last bytes. The end of a larger one is held back until
/// the socket has taken them: once HTTP/2 has the end, the stream cannot be reset.
const SMALL_ANSWER_BYTES: usize = 16 << 10;

impl Stream {
    fn new(activity: Arc<Activity>) -> Arc<Self> {
        let activity = Some(activity);
        let sending = Sending { owed: 0, given: 0, activity, moved_at: None, waiting: None };
        Arc::new(Self { sending: Mutex::new(sending) })
    }

    fn sending(&self) -> MutexGuard<'_, Sending> {
        self.sending.lock()
    }

    fn give(&self, bytes: usize) {
        let (mut sending, now) = (self.sending(), Instant::now());
        if let Some(activity) = &sending.activity
            && sending.owed == 0
            && bytes > 0
        {
            activity.phase().begin_unread(now);
        }
        sending.owed += bytes;
        sending.given += bytes;
        sending.moved_at = Some(now);
    }

    /// Bytes are owed no longer: the socket has taken them, or never will.
    fn settle(&self, bytes: usize, are_taken: bool) {
        if bytes == 0 {
            return;
        }
        let mut sending = self.sending();
        sending.owed -= bytes;
        if let Some(activity) = &sending.activity {
            let mut phase = activity.phase();
            if sending.owed == 0 {
                phase.end_unread();
            }
            if are_taken {
                phase.took(Instant::now);
            }
        }
        if sending.owed > 0 {
            sending.moved_at = Some(Instant::now());
        } else if let Some(waker) = sending.waiting.take() {
            drop(sending);
            waker.wake();
        }
    }

    /// The request has ended. What of its answer still waits in HTTP/2 is no request's any more.
    fn leave(&self) {
        let mut sending = self.sending();
        if let Some(activity) = sending.activity.take()
            && sending.owed > 0
        {
            activity.phase().end_unread();
        }
    }

    /// The end of an answer, when it may be given.
    fn poll_end<T>(&self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut sending = self.sending();
        if sending.owed == 0 || sending.given <= SMALL_ANSWER_BYTES {
            return Poll::Ready(None);
        }
        sending.waiting = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Since when the client takes none of the bytes that wait for it.
    pub(super) fn stalled_since(&self) -> Option<Instant> {
        let sending = self.sending();
        sending.moved_at.filter(|_| sending.owed > 0)
    }
}

/// A piece of an answer's body, until the socket has taken it.
pub(super) struct Piece {
    bytes: Bytes,
    stream: Arc<Stream>,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.stream.settle(count, true);
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.stream.settle(self.bytes.len(), false);
    }
}

/// The body of an answer by HTTP/2.
pub(super) struct Http2Body<B> {
    body: B,
    stream: Arc<Stream>,
    is_over: bool,
    _exchange: Exchange,
}

impl<B> Http2Body<B> {
    pub(super) fn new(body: B, stream: Arc<Stream>, exchange: Exchange) -> Self {
        Self { body, stream, is_over: false, _exchange: exchange }
    }
}

impl<B> Drop for Http2Body<B> {
    fn drop(&mut self) {
        // Before the exchange ends, which is one fewer that could be unread.
        self.stream.leave();
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Http2Body<B> {
    type Data = Piece;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, B::Error>>> {
        if !self.is_over {
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
            let Some(frame) = frame else {
                self.is_over = true;
                return self.stream.poll_end(cx);
            };
            return Poll::Ready(Some(frame.map(|frame| {
                frame.map_data(|bytes| {
                    self.stream.give(bytes.len());
                    Piece { bytes, stream: Arc::clone(&self.stream) }
                })
            })));
        }
        self.stream.poll_end(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && self.stream.sending().given <= SMALL_ANSWER_BYTES
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Runs the streams of one HTTP/2 connection, each until its client stalls for too long.
/// Dropping a stream's future resets it.
#[derive(Clone)]
pub(super) struct Streams {
    activity: Arc<Activity>,
    write_timeout: Duration,
    metrics: Arc<Metrics>,
    /// The stream whose request hyper has just given to the service: the next future is its.
    called: Arc<Mutex<Option<Arc<Stream>>>>,
}

impl Streams {
    pub(super) fn new(
        activity: Arc<Activity>,
        write_timeout: Duration,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { activity, write_timeout, metrics, called: Arc::default() }
    }

    /// A stream for a request that the service is called with.
    pub(super) fn call(&self) -> Arc<Stream> {
        let stream = Stream::new(Arc::clone(&self.activity));
        *self.called() = Some(Arc::clone(&stream));
        stream
    }

    fn called(&self) -> MutexGuard<'_, Option<Arc<Stream>>> {
        self.called.lock()
    }

    fn is_overdue(&self, stream: &Stream, timer: &mut Deadline, cx: &mut Context<'_>) -> bool {
        let Some(since) = stream.stalled_since() else { return false };
        let phase = self.activity.phase();
        // While the socket takes nothing, which has its own deadline, a stream cannot move, whatever
        // credit it has.
        let since = phase.free_since().map_or_else(Instant::now, |free| since.max(free));
        let deadline = phase.deadline(since, self.write_timeout);
        drop(phase);
        if timer.is_past(deadline, cx) {
            return true;
        }
        // Only the connection is woken at the end of the process: a stream has to check.
        timer.is_past(deadline.min(Instant::now() + DRAIN_TIMEOUT), cx);
        false
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, future: F) {
        let Some(stream) = self.called().take() else {
            tokio::spawn(future);
            return;
        };
        let streams = self.clone();
        tokio::spawn(async move {
            let mut timer = Deadline::default();
            let mut future = pin!(future);
            let is_whole = std::future::poll_fn(|cx| {
                if future.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(true);
                }
                if streams.is_overdue(&stream, &mut timer, cx) {
                    return Poll::Ready(false);
                }
                Poll::Pending
            })
            .await;
            if !is_whole {
                streams.metrics.streams_reset.increment(1);
            } else if stream.stalled_since().is_some() {
                streams.activity.left_behind(stream);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::Full;

    use super::*;
    use crate::listener::framing::{Framing, Http2};
    use crate::listener::phase::{Phase, Quiet};

    type Answer = Http2Body<Full<Bytes>>;

    fn begin(activity: &Arc<Activity>) -> (Answer, Arc<Stream>) {
        let exchange = Exchange::begin(Arc::clone(activity), BodyLength::Known(0), false);
        let stream = Stream::new(Arc::clone(activity));
        let body = Full::new(Bytes::from_static(b"refused"));
        (Http2Body::new(body, Arc::clone(&stream), exchange), stream)
    }

    fn next_piece(answer: &mut Answer) -> Piece {
        let mut cx = Context::from_waker(Waker::noop());
        let frame: Poll<Option<Result<_, Infallible>>> = Pin::new(answer).poll_frame(&mut cx);
        let Poll::Ready(Some(Ok(frame))) = frame else { panic!("a piece") };
        frame.into_data().unwrap_or_else(|_| panic!("a piece"))
    }

    fn activity() -> Arc<Activity> {
        Activity::new(Phase::new(Framing::Http2(Http2::new()), Instant::now()))
    }

    fn unread_since(activity: &Activity) -> Option<Instant> {
        let quiet = activity.phase().quiet();
        quiet.and_then(|(since, quiet)| (quiet == Quiet::NotReading).then_some(since))
    }

    // A client that takes bytes is a slow reader; one whose streams are reset has taken none.
    #[tokio::test(start_paused = true)]
    async fn only_bytes_that_are_taken_are_progress() {
        let (activity, began) = (activity(), Instant::now());
        let second = Duration::from_secs(1);
        let (mut first, _) = begin(&activity);
        assert_eq!(unread_since(&activity), None, "it is served");
        let mut piece = next_piece(&mut first);
        assert_eq!(unread_since(&activity), Some(began));
        tokio::time::advance(second).await;
        let (mut second_answer, _) = begin(&activity);
        assert_eq!(unread_since(&activity), None, "another one is served");
        let reset = next_piece(&mut second_answer);
        drop((reset, second_answer));
        assert_eq!(unread_since(&activity), Some(began));
        piece.advance(1);
        assert_eq!(unread_since(&activity), Some(began + second));
        piece.advance(6);
        assert_eq!(unread_since(&activity), None, "it has been read");
    }

    // The last bytes of a small answer wait in HTTP/2 alone, beside requests that are served.
    #[tokio::test]
    async fn an_answer_that_has_ended_counts_for_no_request() {
        let activity = activity();
        let (mut first, stream) = begin(&activity);
        let piece = next_piece(&mut first);
        drop(first);
        activity.left_behind(stream);
        let (_served, _) = begin(&activity);
        assert_eq!(unread_since(&activity), None);
        drop(piece);
        assert_eq!(activity.left_behind_since(), None);
    }

    #[tokio::test]
    async fn a_stream_that_is_left_behind_keeps_no_connection_in_memory() {
        let activity = activity();
        let (mut answer, stream) = begin(&activity);
        let _piece = next_piece(&mut answer);
        activity.left_behind(stream);
        drop(answer);
        assert_eq!(Arc::strong_count(&activity), 1);
    }
}
