//! The body of every request as the listener hands it over, whether or not somebody reads it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version, header, request::Parts};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

/// Set by the listener in a request's extensions and taken out here: held until the request's body
/// has ended, because its connection is busy until then.
#[derive(Clone)]
pub struct UntilBodyEnds(pub Arc<dyn WatchBody>);

/// What the listener wants to know of a request's body.
pub trait WatchBody: Send + Sync {
    /// What is to become of the next piece.
    fn next_piece(&self, next: NextPiece);
}

/// What is to become of the next piece of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextPiece {
    /// It has been asked for, and has not come.
    Awaited,
    /// Nobody has asked for it, or it has come.
    Unwanted,
    /// It is read and thrown away, with all that follows it.
    Discarded,
}

/// A request's body. Dropped before its end, the rest is read and discarded for a while: closing a
/// socket with unread bytes in it resets it, and the reset may overtake the response. A sender that
/// sees a reset instead of a 401 or a 413 retries for ever. (nginx calls this a lingering close.)
pub struct ClientBody {
    /// Some until this is dropped.
    incoming: Option<Incoming>,
    is_http2: bool,
    held: Option<UntilBodyEnds>,
    /// `Expect: 100-continue`: the client sends only when it is asked to, which the first poll
    /// does.
    waits_to_be_asked: bool,
}

/// How long a client that has been answered may go on sending.
const LINGER: Duration = Duration::from_secs(5);

impl ClientBody {
    /// Parts a request from its body.
    pub fn split(request: Request<Incoming>) -> (Parts, Self) {
        let (mut parts, incoming) = request.into_parts();
        let held = parts.extensions.remove();
        let waits_to_be_asked = parts.headers.contains_key(header::EXPECT);
        let is_http2 = parts.version == Version::HTTP_2;
        (parts, Self { incoming: Some(incoming), is_http2, held, waits_to_be_asked })
    }

    /// Whether a body that had no further frame was cut off even so: hyper takes a stream that is reset with
    /// `NO_ERROR`, as Envoy does if its own client is gone, for one that has ended. (It means that a server which
    /// resets like this has answered early: RFC 9113, 8.1.)
    pub fn is_cut_off(&self) -> bool {
        // Of chunks over HTTP/1.1 hyper never says that they are at their end.
        self.is_http2 && !self.is_end_stream()
    }

    fn note(&self, next: NextPiece) {
        if let Some(UntilBodyEnds(watch)) = &self.held {
            watch.next_piece(next);
        }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.waits_to_be_asked = false;
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let frame = Pin::new(incoming).poll_frame(cx);
        self.note(if frame.is_pending() { NextPiece::Awaited } else { NextPiece::Unwanted });
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        self.note(NextPiece::Unwanted);
        let Some(mut rest) = self.incoming.take() else { return };
        if rest.is_end_stream() || self.waits_to_be_asked {
            return;
        }
        // When the process ends there is no runtime left, and no client to answer.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        self.note(NextPiece::Discarded);
        let held = self.held.take();
        runtime.spawn(async move {
            let reading = async { while let Some(Ok(_)) = rest.frame().await {} };
            let _ = tokio::time::timeout(LINGER, reading).await;
            drop(held);
        });
    }
}
