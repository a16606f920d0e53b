//! The request's body on its way to Mimir: counted, capped, not waited for for ever, and, if it is
//! small, kept so that it can be sent again.
//!
//! Stands below [`limits`](crate::limits), which charges for the bytes that it counts, and
//! [`forward`](crate::forward), which sends it.
//!
//! What the client sends belongs to a [`Transfer`]; a [`RequestBody`] is one *turn* of passing it
//! on, as the body of one request to one instance. A resend begins a new turn: a second
//! [`RequestBody`] that reads the replay buffer first and then what is still to come, so that a
//! connection that breaks in the middle of a body loses nothing. From then on the body of the turn
//! before, if anything still holds it, ends as an error.

mod ahead;
mod error;
mod expected;
mod replay;
mod scanner;
mod upload_buffer;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::deadline::Deadline;
use crate::edge::ClientBody;
use crate::mimir;
use ahead::{Ahead, MIN_PIECE_COST};
pub use error::BodyError;
pub use expected::{Expected, ExpectedBody};
pub use replay::ReplayAllowance;
use replay::ReplayBuffer;
pub use scanner::BodyScanner;
pub use upload_buffer::{UploadBuffer, UploadRoom, UploadShare};

/// How large a body may be and how slowly it may come.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    pub bytes: u64,
    /// The longest pause between two pieces.
    pub idle: Duration,
    /// The longest time that the pauses may add up to.
    pub total: Duration,
}

/// How a request's body had come when its response did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// To its end without waiting for it, or there was none.
    Quick,
    /// To its end after waiting for it.
    Slow,
    /// Not to its end, and Mimir does not take it as fast as it comes.
    Unfinished,
    /// Not to its end, because it is waited for.
    Awaited,
}

/// Bytes of a request's body that have come so far.
#[derive(Clone, Default)]
pub struct ReceivedBytes(Arc<AtomicU64>);

impl ReceivedBytes {
    /// So many.
    #[cfg(test)]
    pub(crate) fn of(bytes: u64) -> Self {
        Self(Arc::new(AtomicU64::new(bytes)))
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds some, and gives the sum.
    fn add(&self, bytes: u64) -> u64 {
        self.0.fetch_add(bytes, Ordering::Relaxed) + bytes
    }
}

/// A body under limits. One without bytes, which is that of most reads, costs nothing.
pub struct RequestBody {
    transfer: Option<Arc<Transfer>>,
    /// Which turn this is; only the newest may read.
    turn: u32,
    /// Pieces passed on in this turn.
    pieces: usize,
    /// Bytes passed on in this turn.
    bytes: u64,
}

/// A body that a client is sending, and what the other half of an exchange needs to know of it.
pub struct Transfer {
    started: Instant,
    limits: BodyLimits,
    hint: SizeHint,
    /// Its length, if all of it was read ahead.
    whole: OnceLock<u64>,
    received: ReceivedBytes,
    /// Milliseconds after the start at which the last piece came.
    last_piece: AtomicU64,
    /// The first fault is the last: nothing that comes after it is passed on.
    fault: OnceLock<BodyError>,
    /// Whether this turn has passed on the whole body.
    complete: AtomicBool,
    /// The newest turn.
    turn: AtomicU32,
    source: Mutex<Source>,
}

/// Less waiting than this in all is no slow body.
const SLOW_BODY_WAIT: Duration = Duration::from_millis(500);

struct Source {
    /// None once all of it has been taken.
    client: Option<ClientBody>,
    kept: Option<ReplayBuffer>,
    /// What has come before Mimir was to get it.
    ahead: Ahead,
    /// What may still come of it, while memory is watched.
    expected: Option<ExpectedBody>,
    scanner: Option<BodyScanner>,
    timer: Deadline,
    waiting_since: Option<Instant>,
    waited: Duration,
    /// Of `waited`, the time before anything was passed on.
    waited_ahead: Duration,
}

impl Transfer {
    fn new(body: ClientBody, limits: BodyLimits) -> Self {
        let hint = body.size_hint();
        Self::of(Some(body), Ahead::default(), hint, limits)
    }

    fn of(client: Option<ClientBody>, ahead: Ahead, hint: SizeHint, limits: BodyLimits) -> Self {
        Self {
            started: Instant::now(),
            limits,
            hint,
            whole: OnceLock::new(),
            received: ReceivedBytes::default(),
            last_piece: AtomicU64::new(0),
            fault: OnceLock::new(),
            complete: AtomicBool::new(false),
            turn: AtomicU32::new(0),
            source: Mutex::new(Source {
                client,
                kept: None,
                ahead,
                expected: None,
                scanner: None,
                timer: Deadline::default(),
                waiting_since: None,
                waited: Duration::ZERO,
                waited_ahead: Duration::ZERO,
            }),
        }
    }

    fn source(&self) -> MutexGuard<'_, Source> {
        self.source.lock()
    }

    /// Fills a replay buffer from now on, up to a limit; to be called before the first piece.
    /// False if the body is known to be too large.
    pub fn keep(&self, limit: usize, allowance: &Arc<ReplayAllowance>) -> bool {
        let fits = self.hint.lower() <= limit as u64;
        if fits {
            self.source().kept = Some(ReplayBuffer::new(limit, Arc::clone(allowance)));
        }
        fits
    }

    /// Drops the replay buffer, unless it is what is being sent now.
    pub fn forget(&self) {
        if self.turn.load(Ordering::Relaxed) == 0 || self.is_complete() {
            self.source().kept = None;
        }
    }

    /// Whether all that came so far is kept and what is to come can still come.
    pub fn is_kept(&self) -> bool {
        self.fault.get().is_none() && self.source().kept.is_some()
    }

    /// Begins another turn from the first byte, if all that came was kept.
    pub fn again(self: &Arc<Self>) -> Option<RequestBody> {
        if !self.is_kept() {
            return None;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        self.complete.store(false, Ordering::Relaxed);
        // What is kept comes first.
        self.source().waiting_since = None;
        Some(RequestBody { transfer: Some(Arc::clone(self)), turn, pieces: 0, bytes: 0 })
    }

    fn note_piece(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_piece.store(millis, Ordering::Relaxed);
    }

    /// When the client last sent anything, its end included.
    pub fn last_piece(&self) -> Instant {
        self.started + Duration::from_millis(self.last_piece.load(Ordering::Relaxed))
    }

    /// Whether the whole body has been passed on in this turn.
    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Relaxed)
    }

    /// Whether the next piece was asked for and has not come.
    pub fn is_awaited(&self) -> bool {
        self.source().waiting_since.is_some()
    }

    /// How the body has come so far.
    pub fn pace(&self) -> Pace {
        let source = self.source();
        let waiting = source.waiting_since.map_or(Duration::ZERO, |since| since.elapsed());
        // While a body was read ahead, Mimir did not wait for it.
        let has_waited =
            source.waited.saturating_sub(source.waited_ahead) + waiting >= SLOW_BODY_WAIT;
        match (source.client.is_some(), has_waited) {
            (true, true) => Pace::Awaited,
            (true, false) => Pace::Unfinished,
            (false, true) => Pace::Slow,
            (false, false) => Pace::Quick,
        }
    }

    /// Why the body failed, if it did.
    pub fn fault(&self) -> Option<BodyError> {
        self.fault.get().copied()
    }

    fn fail(&self, fault: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(Some(Err(*self.fault.get_or_init(|| fault))))
    }

    /// The next piece for Mimir: of what was read ahead, or from the client.
    fn poll_next(
        &self,
        source: &mut Source,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        // What was read ahead comes first.
        let frame = match source.ahead.pop() {
            Some(frame) => frame,
            None => match ready!(self.poll_client(source, cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(fault)) => return Poll::Ready(Some(Err(fault))),
                None => {
                    self.complete.store(true, Ordering::Relaxed);
                    return Poll::Ready(None);
                }
            },
        };
        // Into the replay buffer, or drop the buffer if the piece does not fit.
        match frame.data_ref() {
            Some(data) => drop(source.kept.take_if(|kept| !kept.keep(data))),
            // Trailers are rare, and not worth keeping.
            None => source.kept = None,
        }
        // With a known length the last piece is the end: there is no further poll.
        if source.client.is_none() && source.ahead.is_empty() {
            self.complete.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    /// The next piece from the client, counted and measured.
    fn poll_client(
        &self,
        source: &mut Source,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        // Nothing that comes after a fault is passed on.
        if let Some(fault) = self.fault() {
            return Poll::Ready(Some(Err(fault)));
        }
        let Some(client) = &mut source.client else { return Poll::Ready(None) };
        // The client has sent nothing: the clocks of `idle` and `total` run.
        let Poll::Ready(frame) = Pin::new(client).poll_frame(cx) else {
            return if source.is_overdue(&self.limits, cx) {
                self.fail(BodyError::Slow)
            } else {
                Poll::Pending
            };
        };
        // Something has come, or has ended: they stop.
        if let Some(since) = source.waiting_since.take() {
            source.waited += since.elapsed();
        }
        let mut frame = match frame {
            None => {
                if source.client.as_ref().is_some_and(ClientBody::is_cut_off) {
                    return self.fail(BodyError::Incomplete);
                }
                self.note_piece();
                return match source.end() {
                    Ok(()) => Poll::Ready(None),
                    Err(fault) => self.fail(fault),
                };
            }
            Some(Err(error)) => return self.fail(BodyError::of(&error)),
            Some(Ok(frame)) => frame,
        };
        // Count it, cap it, measure it.
        self.note_piece();
        let mut is_last = false;
        if let Some(data) = frame.data_ref() {
            if let Some(expected) = &mut source.expected {
                expected.came(data.len());
            }
            let received = self.received.add(data.len() as u64);
            is_last = self.hint.exact() == Some(received);
            if received > self.limits.bytes {
                return self.fail(BodyError::TooLarge { limit: self.limits.bytes });
            }
            if let Some(Err(fault)) = source.scanner.as_mut().map(|scanner| scanner.push(data)) {
                return self.fail(fault);
            }
        }
        // The trailers end a body, and so does the last piece of a known length: over HTTP/2 its end may come in a
        // frame of its own, which is not worth waiting for.
        if let Some(trailers) = frame.trailers_mut() {
            scrub_trailers(trailers);
        }
        if (is_last || source.client.as_ref().is_some_and(Body::is_end_stream))
            && let Err(fault) = source.end()
        {
            return self.fail(fault);
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Source {
    /// All of it has come.
    fn end(&mut self) -> Result<(), BodyError> {
        self.client = None;
        self.expected = None;
        self.scanner.take().map_or(Ok(()), BodyScanner::end)
    }

    /// Whether the client has been waited for too long. Only time spent waiting for the client
    /// counts: while Mimir takes nothing the client cannot send.
    fn is_overdue(&mut self, limits: &BodyLimits, cx: &mut Context<'_>) -> bool {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let timeout = limits.idle.min(limits.total.saturating_sub(self.waited));
        let deadline = since + timeout;
        self.timer.is_past(deadline, cx)
    }

    fn is_at_end(&self, pieces: usize) -> bool {
        let replayed = self.kept.as_ref().is_none_or(|kept| kept.piece(pieces).is_none());
        replayed && self.ahead.is_empty() && self.client.as_ref().is_none_or(Body::is_end_stream)
    }
}

/// Removes from a client's trailers whatever it may not send as a header.
fn scrub_trailers(trailers: &mut HeaderMap) {
    let forbidden: Vec<HeaderName> =
        trailers.keys().filter(|name| mimir::is_never_forwarded(name)).cloned().collect();
    for name in forbidden {
        trailers.remove(name);
    }
}

impl RequestBody {
    /// Puts a body under limits. One whose length is known to be too large is refused immediately.
    pub fn new(body: ClientBody, limits: BodyLimits) -> Result<Self, BodyError> {
        if body.size_hint().lower() > limits.bytes {
            return Err(BodyError::TooLarge { limit: limits.bytes });
        }
        let has_bytes = !body.is_end_stream();
        let transfer = has_bytes.then(|| Arc::new(Transfer::new(body, limits)));
        Ok(Self { transfer, ..Self::empty() })
    }

    /// A body of the proxy's own that replaces a client's.
    pub fn replaced(bytes: Bytes, limits: BodyLimits) -> Self {
        let hint = SizeHint::with_exact(bytes.len() as u64);
        let transfer = Transfer::of(None, Ahead::of(bytes), hint, limits);
        Self { transfer: Some(Arc::new(transfer)), ..Self::empty() }
    }

    /// A body without bytes.
    pub fn empty() -> Self {
        Self { transfer: None, turn: 0, pieces: 0, bytes: 0 }
    }

    /// Reads the body to its end, within its limits, and gives one that has no bytes and needs no
    /// framing. An empty chunked body or HTTP/2 DATA frame is no body (RFC 9110, 6.4); at the first
    /// byte the limit is exceeded if it is 0.
    pub async fn read_to_end(mut self) -> Result<Self, BodyError> {
        while let Some(frame) = self.frame().await {
            frame?;
        }
        Ok(Self::empty())
    }

    /// Checks the body from its first byte on.
    pub fn check(&self, scanner: BodyScanner) {
        if let Some(transfer) = &self.transfer {
            transfer.source().scanner = Some(scanner);
        }
    }

    /// Reads the body before any of it is passed on: to its end, or until it fills its room, for
    /// which it asks when it has to wait for the client. Without room it reads what is there.
    ///
    /// A slow client then holds no slot and no connection to Mimir, and a short body that is at fault
    /// costs Mimir nothing.
    pub async fn read_ahead(
        &self,
        most: usize,
        room: impl FnOnce(usize) -> Option<UploadRoom>,
    ) -> Result<(), BodyError> {
        let Some(transfer) = &self.transfer else { return Ok(()) };
        let mut room = Some(room);
        poll_fn(|cx| {
            let mut source = transfer.source();
            while source.client.is_some() && !source.ahead.is_full(most) {
                let frame = match transfer.poll_client(&mut source, cx) {
                    Poll::Ready(Some(Ok(frame))) => frame,
                    Poll::Ready(Some(Err(fault))) => return Poll::Ready(Err(fault)),
                    Poll::Ready(None) => break,
                    Poll::Pending => {
                        // Joined, the pieces may fit.
                        source.ahead.compact();
                        if let Some(room) = room.take() {
                            let rest = transfer.hint.upper().map(|all| usize::try_from(all).ok());
                            let bytes = rest.flatten().map_or(most, |all| all.min(most));
                            let scanner =
                                source.scanner.as_ref().map_or(0, BodyScanner::memory_bytes);
                            source.ahead.room = room(bytes.max(MIN_PIECE_COST) + scanner);
                        }
                        if source.ahead.room.is_none() {
                            // From here on the client is not waited for until it is polled again.
                            source.waiting_since = None;
                            break;
                        }
                        return Poll::Pending;
                    }
                };
                source.ahead.add(frame);
            }
            source.waited_ahead = source.waited;
            // There is nothing to pass on.
            if source.client.is_none() && source.ahead.is_empty() {
                transfer.complete.store(true, Ordering::Relaxed);
            }
            // With trailers the framing stays chunked.
            if source.client.is_none() && !source.ahead.has_trailers() {
                let _ = transfer.whole.set(transfer.received.get());
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Counts off what comes from now on from what is expected of the body.
    pub fn expect(&self, expected: Option<ExpectedBody>) {
        if let Some(transfer) = &self.transfer {
            transfer.source().expected = expected;
        }
    }

    /// Where the bytes of the body are counted, if there is one.
    pub fn received(&self) -> Option<ReceivedBytes> {
        self.transfer.as_ref().map(|transfer| transfer.received.clone())
    }

    /// What the other half of an exchange needs to know of it.
    pub fn transfer(&self) -> Option<Arc<Transfer>> {
        self.transfer.clone()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Some(transfer) = &this.transfer else { return Poll::Ready(None) };
        // A resend has begun: this turn has nothing more to say.
        if this.turn != transfer.turn.load(Ordering::Relaxed) {
            return Poll::Ready(Some(Err(BodyError::Incomplete)));
        }
        let mut source = transfer.source();
        // From the replay buffer as far as it goes, then from the client.
        let replayed = source.kept.as_ref().and_then(|kept| kept.piece(this.pieces)).cloned();
        let polled = if let Some(piece) = replayed {
            if source.is_at_end(this.pieces + 1) {
                transfer.complete.store(true, Ordering::Relaxed);
            }
            Poll::Ready(Some(Ok(Frame::data(piece))))
        } else {
            transfer.poll_next(&mut source, cx)
        };
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            this.pieces += 1;
            this.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.transfer.as_ref().is_none_or(|transfer| transfer.source().is_at_end(self.pieces))
    }

    fn size_hint(&self) -> SizeHint {
        let Some(transfer) = &self.transfer else { return SizeHint::with_exact(0) };
        let all = transfer.whole.get().copied().or(transfer.hint.exact());
        let rest = all.map(|all| all.saturating_sub(self.bytes));
        rest.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_trailer_names_a_tenant() {
        let names = ["x-checksum", "x-scope-orgid"].map(HeaderName::from_static);
        let value = http::HeaderValue::from_static("org-b");
        let mut trailers: HeaderMap = names.into_iter().map(|name| (name, value.clone())).collect();
        scrub_trailers(&mut trailers);
        assert_eq!(trailers.keys().collect::<Vec<_>>(), ["x-checksum"]);
    }
}
