//! The request's body on its way to Mimir: counted, capped, not waited for for ever, and, if it is
//! small, kept so that it can be sent again.
//!
//! What the client sends belongs to a [`Sending`]; a [`RequestBody`] is one turn of passing it on.
//! A new turn begins with what was kept and goes on with what is still to come, so that a connection
//! that breaks in the middle loses nothing; the body of the turn before then ends as an error.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::failure::BodyFault;
use super::headers::scrub_trailers;
use super::replay::{Allowance, Kept};
use super::verdict::Pace;
use crate::deadline::Deadline;
use crate::edge::Upload;
use crate::mimir::expression::ExpressionLimits;
use crate::mimir::form::{FormExcess, FormScanner};

/// How much a body may be and how slowly it may come.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// The largest body in bytes.
    pub bytes: u64,
    /// The longest pause between two pieces.
    pub idle: Duration,
    /// The longest time that the pauses may add up to.
    pub total: Duration,
}

/// A body under limits. One without bytes, which is that of most reads, costs nothing.
pub struct RequestBody {
    sending: Option<Arc<Sending>>,
    /// Which turn this is; an older one than the newest has nothing to say any more.
    turn: u32,
    /// Pieces passed on in this turn.
    pieces: usize,
    /// Bytes passed on in this turn.
    bytes: u64,
}

/// A body that a client is sending, and what the other half of an exchange needs to know of it.
pub(super) struct Sending {
    started: Instant,
    limits: BodyLimits,
    hint: SizeHint,
    received: Arc<AtomicU64>,
    /// Milliseconds after the start at which the last piece came.
    last_piece: AtomicU64,
    fault: AtomicU8,
    excess: OnceLock<FormExcess>,
    complete: AtomicBool,
    turn: AtomicU32,
    source: Mutex<Source>,
}

/// Less waiting than this in all is no slow body.
const SLOW: Duration = Duration::from_millis(500);
/// What stands for [`BodyFault::Expression`], whose inside does not fit in a byte.
const EXPRESSION: u8 = u8::MAX;

/// The least that a piece that was read ahead counts for.
const LEAST: usize = 512;

struct Source {
    /// None once all of it has been taken.
    upload: Option<Upload>,
    kept: Option<Kept>,
    /// What has come before Mimir was to get it.
    ahead: VecDeque<Frame<Bytes>>,
    /// Measures the expressions of a form.
    form: Option<Box<FormScanner>>,
    timer: Deadline,
    waiting_since: Option<Instant>,
    waited: Duration,
}

impl Sending {
    fn new(upload: Upload, limits: BodyLimits) -> Self {
        Self {
            started: Instant::now(),
            limits,
            hint: upload.size_hint(),
            received: Arc::default(),
            last_piece: AtomicU64::new(0),
            fault: AtomicU8::new(0),
            excess: OnceLock::new(),
            complete: AtomicBool::new(false),
            turn: AtomicU32::new(0),
            source: Mutex::new(Source {
                upload: Some(upload),
                kept: None,
                ahead: VecDeque::new(),
                form: None,
                timer: Deadline::default(),
                waiting_since: None,
                waited: Duration::ZERO,
            }),
        }
    }

    fn source(&self) -> MutexGuard<'_, Source> {
        self.source.lock()
    }

    /// From now on keeps what comes, up to a limit; to be called before the first piece. False if
    /// it is known to be too large.
    pub(super) fn keep(&self, limit: usize, allowance: &Arc<Allowance>) -> bool {
        let fits = self.hint.lower() <= limit as u64;
        if fits {
            self.source().kept = Some(Kept::new(limit, Arc::clone(allowance)));
        }
        fits
    }

    /// Lets go of what was kept, unless it is what is being sent now.
    pub(super) fn forget(&self) {
        if self.turn.load(Ordering::Relaxed) == 0 || self.is_complete() {
            self.source().kept = None;
        }
    }

    /// Whether all that came so far is kept and what is to come can still come.
    pub(super) fn is_kept(&self) -> bool {
        self.fault.load(Ordering::Relaxed) == 0 && self.source().kept.is_some()
    }

    /// Begins another turn from the first byte, if all that came was kept.
    pub(super) fn again(self: &Arc<Self>) -> Option<RequestBody> {
        if !self.is_kept() {
            return None;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        self.complete.store(false, Ordering::Relaxed);
        Some(RequestBody { sending: Some(Arc::clone(self)), turn, pieces: 0, bytes: 0 })
    }

    fn note_piece(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_piece.store(millis, Ordering::Relaxed);
    }

    /// When the client last gave us anything.
    pub(super) fn last_piece(&self) -> Instant {
        self.started + Duration::from_millis(self.last_piece.load(Ordering::Relaxed))
    }

    /// Whether the whole body has been passed on in this turn.
    pub(super) fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Relaxed)
    }

    /// How the body has come so far.
    pub(super) fn pace(&self) -> Pace {
        let source = self.source();
        let waiting = source.waiting_since.map_or(Duration::ZERO, |since| since.elapsed());
        let has_waited = source.waited + waiting >= SLOW;
        match (source.upload.is_some(), has_waited) {
            (true, true) => Pace::Awaited,
            (true, false) => Pace::Unfinished,
            (false, true) => Pace::Slow,
            (false, false) => Pace::Quick,
        }
    }

    /// Why the body failed, if it did.
    pub(super) fn fault(&self) -> Option<BodyFault> {
        match self.fault.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(BodyFault::TooLarge { limit: self.limits.bytes }),
            2 => Some(BodyFault::Slow),
            3 => Some(BodyFault::Incomplete),
            EXPRESSION => self.excess.get().copied().map(BodyFault::Expression),
            _ => Some(BodyFault::Malformed),
        }
    }

    fn fail(&self, fault: BodyFault) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let code = match fault {
            BodyFault::TooLarge { .. } => 1,
            BodyFault::Slow => 2,
            BodyFault::Incomplete => 3,
            BodyFault::Malformed => 4,
            BodyFault::Expression(excess) => {
                // The first fault is the last.
                let _ = self.excess.set(excess);
                EXPRESSION
            }
        };
        self.fault.store(code, Ordering::Relaxed);
        Poll::Ready(Some(Err(fault)))
    }

    /// The next piece for Mimir: of what was read ahead, or from the client.
    fn poll_upload(
        &self,
        source: &mut Source,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let frame = match source.ahead.pop_front() {
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
        match frame.data_ref() {
            Some(data) => drop(source.kept.take_if(|kept| !kept.keep(data))),
            // Trailers are rare, and not worth keeping.
            None => source.kept = None,
        }
        if source.upload.is_none() && source.ahead.is_empty() {
            self.complete.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    /// The next piece from the client, counted and measured.
    fn poll_client(
        &self,
        source: &mut Source,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        // Nothing that comes after a fault is passed on.
        if let Some(fault) = self.fault() {
            return Poll::Ready(Some(Err(fault)));
        }
        let Some(upload) = &mut source.upload else { return Poll::Ready(None) };
        let Poll::Ready(frame) = Pin::new(upload).poll_frame(cx) else {
            return if source.is_overdue(&self.limits, cx) {
                self.fail(BodyFault::Slow)
            } else {
                Poll::Pending
            };
        };
        if let Some(since) = source.waiting_since.take() {
            source.waited += since.elapsed();
        }
        let mut frame = match frame {
            None => {
                source.upload = None;
                return Poll::Ready(None);
            }
            Some(Err(error)) => return self.fail(BodyFault::of(&error)),
            Some(Ok(frame)) => frame,
        };
        self.note_piece();
        if let Some(data) = frame.data_ref() {
            let length = data.len() as u64;
            let received = self.received.fetch_add(length, Ordering::Relaxed) + length;
            if received > self.limits.bytes {
                return self.fail(BodyFault::TooLarge { limit: self.limits.bytes });
            }
            if let Some(Err(excess)) = source.form.as_mut().map(|form| form.push(data)) {
                return self.fail(BodyFault::Expression(excess));
            }
        }
        if let Some(trailers) = frame.trailers_mut() {
            scrub_trailers(trailers);
        }
        if source.upload.as_ref().is_some_and(Body::is_end_stream) {
            source.upload = None;
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Source {
    /// Whether the client has kept us waiting for too long. Only time spent waiting for the client
    /// counts: while Mimir takes nothing the client cannot send.
    fn is_overdue(&mut self, limits: &BodyLimits, cx: &mut Context<'_>) -> bool {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let patience = limits.idle.min(limits.total.saturating_sub(self.waited));
        let deadline = since + patience;
        self.timer.is_past(deadline, cx)
    }

    fn is_at_end(&self, pieces: usize) -> bool {
        let replayed = self.kept.as_ref().is_none_or(|kept| kept.piece(pieces).is_none());
        replayed && self.ahead.is_empty() && self.upload.as_ref().is_none_or(Body::is_end_stream)
    }
}

impl RequestBody {
    /// Puts a body under limits. One that says itself that it is too large is refused at once.
    pub fn new(upload: Upload, limits: BodyLimits) -> Result<Self, BodyFault> {
        if upload.size_hint().lower() > limits.bytes {
            return Err(BodyFault::TooLarge { limit: limits.bytes });
        }
        let has_bytes = !upload.is_end_stream();
        let sending = has_bytes.then(|| Arc::new(Sending::new(upload, limits)));
        Ok(Self { sending, ..Self::empty() })
    }

    /// A body without bytes.
    pub(super) fn empty() -> Self {
        Self { sending: None, turn: 0, pieces: 0, bytes: 0 }
    }

    /// Reads the body to its end, within its limits, and gives one that has no bytes and needs no
    /// framing. An empty chunked body or HTTP/2 DATA frame is no body (RFC 9110, 6.4); at the first
    /// byte the limit is exceeded if it is 0.
    pub async fn read_to_end(mut self) -> Result<Self, BodyFault> {
        while let Some(frame) = self.frame().await {
            frame?;
        }
        Ok(Self::empty())
    }

    /// Measures the expressions of a form from its first byte on. A body in which one is too much
    /// ends as a fault before its last byte is passed on, so that Mimir, which reads all of a form
    /// before any of it, sees no such expression.
    pub fn measure_form(&self, limits: &ExpressionLimits) {
        if let Some(sending) = &self.sending {
            sending.source().form = Some(Box::new(FormScanner::new(limits)));
        }
    }

    /// Takes what comes until the end or until there is so much of it, before any of it is passed on:
    /// a short body that is at fault then costs Mimir not even a connection.
    pub async fn read_ahead(&self, most: usize) -> Result<(), BodyFault> {
        let Some(sending) = &self.sending else { return Ok(()) };
        let mut bytes = 0;
        while bytes < most {
            let next = poll_fn(|cx| {
                let mut source = sending.source();
                sending.poll_client(&mut source, cx)
            });
            let Some(frame) = next.await else { break };
            let frame = frame?;
            // An empty piece takes room as well.
            bytes += frame.data_ref().map_or(0, Bytes::len).max(LEAST);
            sending.source().ahead.push_back(frame);
        }
        Ok(())
    }

    /// Where the bytes of the body are counted, if there is one.
    pub fn received(&self) -> Option<Arc<AtomicU64>> {
        self.sending.as_ref().map(|sending| Arc::clone(&sending.received))
    }

    pub(super) fn sending(&self) -> Option<Arc<Sending>> {
        self.sending.clone()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let this = &mut *self;
        let Some(sending) = &this.sending else { return Poll::Ready(None) };
        if this.turn != sending.turn.load(Ordering::Relaxed) {
            return Poll::Ready(Some(Err(BodyFault::Incomplete)));
        }
        let mut source = sending.source();
        let replayed = source.kept.as_ref().and_then(|kept| kept.piece(this.pieces)).cloned();
        let polled = if let Some(piece) = replayed {
            if source.is_at_end(this.pieces + 1) {
                sending.complete.store(true, Ordering::Relaxed);
            }
            Poll::Ready(Some(Ok(Frame::data(piece))))
        } else {
            sending.poll_upload(&mut source, cx)
        };
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            this.pieces += 1;
            this.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.sending.as_ref().is_none_or(|sending| sending.source().is_at_end(self.pieces))
    }

    fn size_hint(&self) -> SizeHint {
        let Some(sending) = &self.sending else { return SizeHint::with_exact(0) };
        let rest = sending.hint.exact().map(|all| all.saturating_sub(self.bytes));
        rest.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
