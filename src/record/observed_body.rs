//! The response's body as the client gets it, with the request's record in it: the record ends
//! when the body does.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{Record, RequestOutcome};
use crate::reason::HasReason;

/// A body that knows whose response it is.
///
/// Dropped before its end, it leaves the record at [`RequestOutcome::Cancelled`]: the client went away.
pub struct ObservedBody<B> {
    body: B,
    record: Option<Box<Record>>,
    /// What the record says once the body has ended well.
    outcome: RequestOutcome,
}

impl<B: Body<Data = Bytes>> ObservedBody<B> {
    /// Joins a body and the record of its request.
    pub fn new(body: B, record: Box<Record>, outcome: RequestOutcome) -> Self {
        let mut observed = Self { body, record: Some(record), outcome };
        if observed.body.is_end_stream() {
            observed.end(outcome);
        }
        observed
    }

    fn end(&mut self, outcome: RequestOutcome) {
        if let Some(mut record) = self.record.take() {
            record.set_outcome(outcome);
        }
    }
}

impl<B> Body for ObservedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: HasReason,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(record), Some(data)) = (&mut self.record, frame.data_ref()) {
                    record.add_sent(data.len());
                }
                // With a known length nobody polls once more after the last piece.
                if self.body.is_end_stream() {
                    let outcome = self.outcome;
                    self.end(outcome);
                }
            }
            Some(Err(error)) => {
                let reason = error.reason();
                self.end(RequestOutcome::Unserved(reason));
            }
            None => {
                let outcome = self.outcome;
                self.end(outcome);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
