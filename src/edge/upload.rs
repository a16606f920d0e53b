//! The body that a client sends, from the listener to whoever reads it, or to nobody.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header, request::Parts};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

/// Set by the listener in a request's extensions, taken out here: held until the request's body
/// has ended, because its connection is busy until then.
#[derive(Clone)]
pub struct UntilBodyEnds(pub Arc<dyn WatchUpload>);

/// What the listener wants to know of a request's body.
pub trait WatchUpload: Send + Sync {
    /// Whether it is wanted and does not come.
    fn waits(&self, waits: bool);
}

/// A request's body. Dropped before its end, what is left of it is taken and forgotten, for a
/// while: closing a socket with unread bytes in it resets it, and the reset may overtake the
/// answer. A sender that sees a reset instead of a 401 or a 413 tries for ever. (nginx calls this
/// a lingering close.)
pub struct Upload {
    /// There until we are dropped.
    incoming: Option<Incoming>,
    held: Option<UntilBodyEnds>,
    /// `Expect: 100-continue`: the client sends only when it is asked to, which is done by the
    /// first poll.
    waits_to_be_asked: bool,
}

/// How long a client that has been answered may go on sending.
const LINGER: Duration = Duration::from_secs(5);

impl Upload {
    /// Parts a request from its body.
    pub fn split(request: Request<Incoming>) -> (Parts, Self) {
        let (mut parts, incoming) = request.into_parts();
        let held = parts.extensions.remove();
        let waits_to_be_asked = parts.headers.contains_key(header::EXPECT);
        (parts, Self { incoming: Some(incoming), held, waits_to_be_asked })
    }

    fn note_waiting(&self, waits: bool) {
        if let Some(UntilBodyEnds(upload)) = &self.held {
            upload.waits(waits);
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.waits_to_be_asked = false;
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let frame = Pin::new(incoming).poll_frame(cx);
        self.note_waiting(frame.is_pending());
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.note_waiting(false);
        let Some(mut rest) = self.incoming.take() else { return };
        if rest.is_end_stream() || self.waits_to_be_asked {
            return;
        }
        // At the end of the process there is no runtime left, and nobody to answer.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let held = self.held.take();
        runtime.spawn(async move {
            let reading = async { while let Some(Ok(_)) = rest.frame().await {} };
            let _ = tokio::time::timeout(LINGER, reading).await;
            drop(held);
        });
    }
}
