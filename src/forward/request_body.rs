//! The request's body on its way to Mimir: counted, capped, and not waited for for ever.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::failure::BodyFault;
use super::headers::scrub_trailers;
use crate::deadline::Deadline;
use crate::edge::Upload;

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

/// A body under limits.
pub struct RequestBody {
    upload: Upload,
    limits: BodyLimits,
    /// None for a request without a body, which is most reads.
    progress: Option<Arc<Progress>>,
    timer: Deadline,
    waiting_since: Option<Instant>,
    waited: Duration,
}

/// What the other half of an exchange needs to know of a body that is being sent.
pub(super) struct Progress {
    started: Instant,
    received: Arc<AtomicU64>,
    /// Milliseconds after the start at which the last piece came.
    last_piece: AtomicU64,
    fault: AtomicU8,
    complete: AtomicBool,
}

impl Progress {
    fn new() -> Self {
        Self {
            started: Instant::now(),
            received: Arc::default(),
            last_piece: AtomicU64::new(0),
            fault: AtomicU8::new(0),
            complete: AtomicBool::new(false),
        }
    }

    fn note_piece(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_piece.store(millis, Ordering::Relaxed);
    }

    /// When the client last gave us anything.
    pub(super) fn last_piece(&self) -> Instant {
        self.started + Duration::from_millis(self.last_piece.load(Ordering::Relaxed))
    }

    /// Whether the whole body has been taken.
    pub(super) fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Relaxed)
    }

    /// Why the body failed, if it did.
    pub(super) fn fault(&self, limits: &BodyLimits) -> Option<BodyFault> {
        match self.fault.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(BodyFault::TooLarge { limit: limits.bytes }),
            2 => Some(BodyFault::Slow),
            _ => Some(BodyFault::Incomplete),
        }
    }

    fn note_fault(&self, fault: BodyFault) {
        let code = match fault {
            BodyFault::TooLarge { .. } => 1,
            BodyFault::Slow => 2,
            BodyFault::Incomplete => 3,
        };
        self.fault.store(code, Ordering::Relaxed);
    }
}

impl RequestBody {
    /// Puts a body under limits. One that says itself that it is too large is refused at once.
    pub fn new(upload: Upload, limits: BodyLimits) -> Result<Self, BodyFault> {
        if upload.size_hint().lower() > limits.bytes {
            return Err(BodyFault::TooLarge { limit: limits.bytes });
        }
        let progress = (!upload.is_end_stream()).then(|| Arc::new(Progress::new()));
        Ok(Self {
            upload,
            limits,
            progress,
            timer: Deadline::default(),
            waiting_since: None,
            waited: Duration::ZERO,
        })
    }

    /// Where the bytes of the body are counted, if there is one.
    pub fn received(&self) -> Option<Arc<AtomicU64>> {
        self.progress.as_ref().map(|progress| Arc::clone(&progress.received))
    }

    pub(super) fn progress(&self) -> Option<Arc<Progress>> {
        self.progress.clone()
    }

    pub(super) fn limits(&self) -> BodyLimits {
        self.limits
    }

    fn fail(&self, fault: BodyFault) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        if let Some(progress) = &self.progress {
            progress.note_fault(fault);
        }
        Poll::Ready(Some(Err(fault)))
    }

    /// Whether the client has kept us waiting for too long. Only time spent waiting for the client
    /// counts: while Mimir takes nothing the client cannot send.
    fn is_overdue(&mut self, cx: &mut Context<'_>) -> bool {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let patience = self.limits.idle.min(self.limits.total.saturating_sub(self.waited));
        let deadline = since + patience;
        self.timer.is_past(deadline, cx)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let Some(progress) = self.progress() else { return Poll::Ready(None) };
        let Poll::Ready(frame) = Pin::new(&mut self.upload).poll_frame(cx) else {
            return if self.is_overdue(cx) { self.fail(BodyFault::Slow) } else { Poll::Pending };
        };
        if let Some(since) = self.waiting_since.take() {
            self.waited += since.elapsed();
        }
        let mut frame = match frame {
            None => {
                progress.complete.store(true, Ordering::Relaxed);
                return Poll::Ready(None);
            }
            Some(Err(_)) => return self.fail(BodyFault::Incomplete),
            Some(Ok(frame)) => frame,
        };
        progress.note_piece();
        if let Some(data) = frame.data_ref() {
            let length = data.len() as u64;
            let received = progress.received.fetch_add(length, Ordering::Relaxed) + length;
            if received > self.limits.bytes {
                return self.fail(BodyFault::TooLarge { limit: self.limits.bytes });
            }
        }
        if let Some(trailers) = frame.trailers_mut() {
            scrub_trailers(trailers);
        }
        if self.is_end_stream() {
            progress.complete.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.upload.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.upload.size_hint()
    }
}
