//! Where requests begin and end in a client's bytes, as far as deadlines need it, and whether there are
//! any.
//!
//! hyper does not say whether its read buffer holds half a head. These observers see the same bytes
//! and work it out. They only affect deadlines and the end of floods: hyper alone decides what a
//! request is.

mod http1;
mod http2;

pub(super) use http1::{BodyLength, Http1};
pub(super) use http2::Http2;

/// A client's protocol, and its state.
#[derive(Debug)]
pub(super) enum Framing {
    /// HTTP/1.0 or HTTP/1.1.
    Http1(Http1),
    /// HTTP/2 with prior knowledge.
    Http2(Http2),
}

impl Framing {
    /// Takes note of bytes that the client sent.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        match self {
            Self::Http1(framing) => framing.read(bytes),
            Self::Http2(framing) => framing.read(bytes),
        }
    }

    /// Whether a part of a head has come and the rest has not.
    pub(super) fn is_in_head(&self) -> bool {
        match self {
            Self::Http1(framing) => framing.is_in_head(),
            Self::Http2(framing) => framing.is_in_head(),
        }
    }

    /// Takes note of bytes that were sent to the client.
    pub(super) fn sent(&mut self, bytes: usize) {
        if let Self::Http2(framing) = self {
            framing.sent(bytes);
        }
    }

    /// Whether the client sends much that is no part of a request. HTTP/1.1 has nothing of the kind.
    pub(super) fn is_flooded(&self) -> bool {
        matches!(self, Self::Http2(framing) if framing.is_flooded())
    }

    /// Whether all that a client of HTTP/1.1 has sent are whole requests.
    pub(super) fn is_between_requests(&self) -> bool {
        matches!(self, Self::Http1(framing) if framing.is_between_requests())
    }

    pub(super) fn is_http1(&self) -> bool {
        matches!(self, Self::Http1(_))
    }
}
