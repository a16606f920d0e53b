//! What can break on the way to Mimir and back.

use std::fmt;
use std::io;

use crate::edge::FailureReason;
use crate::mimir::form::FormExcess;

/// Why there is no response of Mimir's to pass on.
#[derive(Debug)]
pub enum Failure {
    /// No upstream name resolves to an address.
    NoInstance,
    /// No instance could be connected to.
    Connect(io::Error),
    /// No instance could be connected to of late, and it is being tried whether one can be now.
    CircuitOpen,
    /// All instances have as many requests as they may.
    Saturated,
    /// An instance took too long to begin its response.
    Timeout,
    /// The connection broke before the head of a response.
    Broken(hyper::Error),
    /// The request's own body failed.
    Body(BodyFault),
    /// An instance gave up reading the request's body, which came too slowly for it.
    UploadTimedOut,
    /// What answered is not Mimir's write path, by this status: a balancer or a redirect in front of
    /// it, or a wrong address.
    Misdirected(u16),
}

/// What is wrong with a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFault {
    /// Larger than its route allows, in bytes.
    TooLarge {
        /// What is allowed.
        limit: u64,
    },
    /// It paused for too long, or took too long as a whole.
    Slow,
    /// It ended before its end, by the client or by the network.
    Incomplete,
    /// Its framing is wrong.
    Malformed,
    /// An expression in it is too much for Mimir.
    Expression(FormExcess),
}

impl BodyFault {
    /// Tells a client that went away from one that breaks the protocol: hyper reports bad chunks
    /// as invalid input, and a lost connection as what the socket said.
    pub(super) fn of(error: &hyper::Error) -> Self {
        let inside = std::error::Error::source(error);
        let kind =
            inside.and_then(|inside| inside.downcast_ref::<io::Error>()).map(io::Error::kind);
        match kind {
            Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => Self::Malformed,
            _ => Self::Incomplete,
        }
    }
}

/// Whether a connection could not be made because of us: we have no file descriptor, no port or no
/// memory left. That says nothing of the instance.
pub(super) fn is_ours(error: &io::Error) -> bool {
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const EADDRNOTAVAIL: i32 = 99;
    const ENOBUFS: i32 = 105;
    let ours = [ENOMEM, ENFILE, EMFILE, EADDRNOTAVAIL, ENOBUFS];
    error.raw_os_error().is_some_and(|code| ours.contains(&code))
}

impl Failure {
    /// A label for metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoInstance => "upstream_unresolved",
            Self::Connect(_) => "upstream_unreachable",
            Self::CircuitOpen => "upstream_circuit_open",
            Self::Saturated => "upstream_saturated",
            Self::Timeout => "upstream_timeout",
            Self::Broken(_) => "upstream_broken",
            Self::Body(fault) => fault.reason(),
            Self::UploadTimedOut => "body_slow_for_upstream",
            Self::Misdirected(_) => "upstream_misdirected",
        }
    }
}

impl BodyFault {
    /// A label for metrics and logs.
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "body_too_large",
            Self::Slow => "body_slow",
            Self::Incomplete => "body_incomplete",
            Self::Malformed => "body_malformed",
            Self::Expression(_) => "expression_limit",
        }
    }
}

/// Text for the client; what Mimir's addresses are is none of its business.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoInstance | Self::Connect(_) | Self::CircuitOpen => {
                f.write_str("the metrics store cannot be reached; try again")
            }
            Self::Saturated => f.write_str("the metrics store has too much to do; try again"),
            Self::Timeout => f.write_str("the metrics store took too long to answer; try again"),
            Self::Broken(_) => f.write_str("the metrics store broke off; try again"),
            Self::Body(fault) => fault.fmt(f),
            Self::UploadTimedOut => {
                f.write_str("the body came too slowly for the metrics store; try again")
            }
            Self::Misdirected(_) => {
                f.write_str("the metrics store does not take this at the moment; try again")
            }
        }
    }
}

impl fmt::Display for BodyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { limit } => write!(f, "the body is larger than {limit} bytes"),
            Self::Slow => f.write_str("the body came too slowly; try again"),
            Self::Incomplete => f.write_str("the body ended early; try again"),
            Self::Malformed => f.write_str("the body's framing is malformed"),
            Self::Expression(excess) => excess.fmt(f),
        }
    }
}

impl std::error::Error for BodyFault {}

/// What can break once the head of a response has been passed on. The client's stream then ends
/// as an error and never as a short success.
#[derive(Debug)]
pub enum StreamFailure {
    /// The instance broke off.
    Broken(hyper::Error),
    /// The instance paused for too long.
    Idle,
}

impl FailureReason for StreamFailure {
    fn failure_reason(&self) -> &'static str {
        match self {
            Self::Broken(_) => "upstream_broken_body",
            Self::Idle => "upstream_idle_body",
        }
    }
}

impl fmt::Display for StreamFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(error) => write!(f, "upstream broke off: {error}"),
            Self::Idle => f.write_str("upstream paused for too long"),
        }
    }
}

impl std::error::Error for StreamFailure {}
