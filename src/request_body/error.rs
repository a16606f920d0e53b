//! What can be wrong with a request's body.

use std::error::Error;
use std::fmt;
use std::io;

use crate::mimir::form::FormExcess;
use crate::mimir::otlp::OtlpFault;
use crate::reason::{HasReason, Reason};

/// What is wrong with a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    TooLarge {
        /// The most bytes that its route allows.
        limit: u64,
    },
    /// It paused for too long, or took too long as a whole.
    Slow,
    /// It ended early, by the client or by the network.
    Incomplete,
    /// Its framing is wrong.
    Malformed,
    /// An expression in it costs Mimir too much.
    Expression(FormExcess),
    /// The contents of an export by OTLP are not acceptable.
    Otlp(OtlpFault),
}

impl BodyError {
    /// Tells a client that went away from one that breaks the protocol: hyper reports bad chunks
    /// as invalid input, and a lost connection as what the socket said.
    pub(super) fn of(error: &hyper::Error) -> Self {
        let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        match source.map(io::Error::kind) {
            Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => Self::Malformed,
            _ => Self::Incomplete,
        }
    }
}

impl HasReason for BodyError {
    fn reason(&self) -> Reason {
        match self {
            Self::TooLarge { .. } => Reason::BodyTooLarge,
            Self::Slow => Reason::BodySlow,
            Self::Incomplete => Reason::BodyIncomplete,
            Self::Malformed => Reason::BodyMalformed,
            Self::Expression(_) => Reason::ExpressionLimit,
            Self::Otlp(OtlpFault::TooDeep) => Reason::BodyTooDeep,
            Self::Otlp(OtlpFault::TooLarge { .. } | OtlpFault::TooManyParts) => {
                Reason::BodyTooLarge
            }
            Self::Otlp(OtlpFault::NotGzip | OtlpFault::NotProtobuf | OtlpFault::NotJson) => {
                Reason::BodyMalformed
            }
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { limit } => write!(f, "the body is larger than {limit} bytes"),
            Self::Slow => f.write_str("the body came too slowly; try again"),
            Self::Incomplete => f.write_str("the body ended early; try again"),
            Self::Malformed => f.write_str("the body's framing is malformed"),
            Self::Expression(excess) => excess.fmt(f),
            Self::Otlp(fault) => fault.fmt(f),
        }
    }
}

impl Error for BodyError {}
