//! The body of Mimir's response on its way to the client, and its connection.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use super::error::StreamError;
use super::pool::PooledConnection;
use super::wire::WireFault;
use crate::labels::InstanceFault;
use crate::limits::HeldSlots;

/// A response's body. After a complete body the connection returns to the pool; dropping it earlier
/// closes the connection, which cancels the request in Mimir.
pub struct ResponseBody {
    /// The beginning that was read before the head was forwarded.
    first: Option<Bytes>,
    /// Until the end of the body.
    connection: Option<PooledConnection>,
    _slots: HeldSlots,
    idle: Duration,
    waiting_since: Option<Instant>,
    /// When the client was given a piece. It asks for the next one when it has room.
    given_at: Option<Instant>,
    /// The total time that the client took between pieces.
    held_up: Duration,
}

/// If the client delayed a body for this long, its failure may be a consequence: Mimir gives up
/// writing after a while. So it does not count against Mimir.
const SLOW_CLIENT: Duration = Duration::from_secs(1);

impl ResponseBody {
    pub(super) fn new(
        first: Option<Bytes>,
        connection: PooledConnection,
        slots: HeldSlots,
        idle: Duration,
    ) -> Self {
        let mut body = Self {
            first,
            connection: Some(connection),
            _slots: slots,
            idle,
            waiting_since: None,
            given_at: None,
            held_up: Duration::ZERO,
        };
        body.give_back_at_end();
        body
    }

    /// Reads the beginning of the body, up to about a limit, before the head is forwarded. The
    /// client still gets all of it.
    ///
    /// # Errors
    /// If it breaks off or pauses for too long. The body must not be used then: the next poll would
    /// look like a regular end.
    pub async fn peek(&mut self, limit: usize) -> Result<&[u8], StreamError> {
        let mut first = Vec::new();
        while first.len() < limit
            && let Some(frame) = self.frame().await
        {
            if let Ok(data) = frame?.into_data() {
                first.extend_from_slice(&data);
            }
        }
        self.given_at = None;
        let first = Bytes::from(first);
        Ok(self.first.insert(first))
    }

    /// Reads the whole body. None if it is larger than a limit; the rest must not be used then.
    pub(super) async fn take(&mut self, limit: usize) -> Result<Option<Bytes>, StreamError> {
        let mut all = Vec::new();
        while let Some(frame) = self.frame().await {
            if let Ok(data) = frame?.into_data() {
                all.extend_from_slice(&data);
            }
            if all.len() > limit {
                return Ok(None);
            }
        }
        Ok(Some(all.into()))
    }

    /// Replaces a body that was [taken](Self::take).
    pub(super) fn replace(&mut self, bytes: Bytes) {
        self.given_at = None;
        self.first = Some(bytes);
    }

    /// Gives the connection back if the whole body was read.
    fn give_back_at_end(&mut self) {
        let answered = |connection: &mut PooledConnection| connection.wire.is_answered();
        if let Some(connection) = self.connection.take_if(answered) {
            connection.give_back();
        }
    }

    /// The instance did not complete its response.
    fn break_off(&mut self) {
        if let Some(connection) = self.connection.take()
            && self.held_up < SLOW_CLIENT
        {
            connection.slot.failed(InstanceFault::BrokenBody);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        if let Some(first) = self.first.take_if(|first| !first.is_empty()) {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if let Some(given) = self.given_at.take() {
            self.held_up += given.elapsed();
        }
        let this = &mut *self;
        let Some(connection) = &mut this.connection else { return Poll::Ready(None) };
        let Poll::Ready(frame) = connection.wire.poll_body(cx) else {
            let deadline = *this.waiting_since.get_or_insert_with(Instant::now) + this.idle;
            if connection.wire.timer.is_past(deadline, cx) {
                self.break_off();
                return Poll::Ready(Some(Err(StreamError::Idle)));
            }
            return Poll::Pending;
        };
        self.waiting_since = None;
        match frame {
            // The client did not complete its request.
            Some(Err(fault @ WireFault::Upload(_))) => {
                self.connection = None;
                Poll::Ready(Some(Err(StreamError::Broken(fault))))
            }
            Some(Err(fault)) => {
                self.break_off();
                Poll::Ready(Some(Err(StreamError::Broken(fault))))
            }
            Some(Ok(frame)) => {
                self.give_back_at_end();
                if self.connection.is_some() {
                    self.given_at = Some(Instant::now());
                }
                Poll::Ready(Some(Ok(frame)))
            }
            None => {
                self.give_back_at_end();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.as_ref().is_none_or(Bytes::is_empty) && self.connection.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.connection.as_ref().map_or(Some(0), |one| one.wire.rest_length());
        let first = self.first.as_ref().map_or(0, Bytes::len) as u64;
        rest.map_or_else(SizeHint::default, |rest| SizeHint::with_exact(rest + first))
    }
}
