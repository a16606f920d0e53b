//! Where in a client's bytes its requests begin and end, as far as deadlines need it.
//!
//! hyper does not tell what it has read and not yet parsed, so the socket cannot know whether a head
//! is incomplete. These observers see the same bytes and work it out. They only steer deadlines: what
//! a request is, hyper alone decides.

mod http1;
mod http2;

pub(super) use http1::{BodyLength, Http1};
pub(super) use http2::Http2;

/// The protocol, and the position in it.
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

    pub(super) fn is_http1(&self) -> bool {
        matches!(self, Self::Http1(_))
    }
}
