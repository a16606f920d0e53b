//! Errors on the way to Mimir and back.

use std::error::Error;
use std::fmt;
use std::io;

use bytes::Bytes;

use super::alertmanager::AlertmanagerState;
use super::wire::WireFault;
use crate::reason::{HasReason, Reason};
use crate::request_body::BodyError;

/// Why there is no response of Mimir to forward.
#[derive(Debug)]
pub enum ForwardError {
    /// No instance is known: no upstream name resolves to an address.
    NoInstance,
    /// No instance could be connected to.
    Connect(io::Error),
    /// The circuit is open: recent connection attempts failed and a trial request is in flight.
    CircuitOpen,
    /// All instances have `upstream.max_in_flight` requests.
    Saturated,
    /// An instance did not begin its response in time.
    Timeout,
    /// The connection broke before the head of a response.
    Broken(WireFault),
    /// The client's body failed.
    Body(BodyError),
    /// An instance gave up reading the client's body, because it was too slow.
    UploadTimedOut,
    /// The status cannot come from Mimir's write path: a balancer or a redirect in front of it, or
    /// a wrong address.
    Misdirected(u16),
    /// An instance has lost a part of Mimir that the request needs, and no other could be asked, or had
    /// it; what it said, which names addresses.
    Severed(Bytes),
    /// The Alertmanager does nothing for this tenant now.
    Alertmanager(AlertmanagerState),
    /// An answer that must be rewritten cannot be read; why, for the log.
    Unreadable(String),
}

/// Whether a connection failed because this process has no file descriptor, no port or no memory
/// left. It says nothing about the instance.
pub(super) fn is_ours(error: &io::Error) -> bool {
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const EADDRNOTAVAIL: i32 = 99;
    const ENOBUFS: i32 = 105;
    let ours = [ENOMEM, ENFILE, EMFILE, EADDRNOTAVAIL, ENOBUFS];
    error.raw_os_error().is_some_and(|code| ours.contains(&code))
}

impl HasReason for ForwardError {
    fn reason(&self) -> Reason {
        match self {
            Self::NoInstance => Reason::UpstreamUnresolved,
            Self::Connect(_) => Reason::UpstreamUnreachable,
            Self::CircuitOpen => Reason::UpstreamCircuitOpen,
            Self::Saturated => Reason::UpstreamSaturated,
            Self::Timeout => Reason::UpstreamTimeout,
            Self::Broken(_) => Reason::UpstreamBroken,
            Self::Body(error) => error.reason(),
            Self::UploadTimedOut => Reason::BodySlowForUpstream,
            Self::Misdirected(_) => Reason::UpstreamMisdirected,
            Self::Severed(_) => Reason::UpstreamSevered,
            Self::Alertmanager(state) => state.reason(),
            Self::Unreadable(_) => Reason::UpstreamUnreadable,
        }
    }
}

/// The text for the client, which does not contain Mimir's addresses.
impl fmt::Display for ForwardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoInstance | Self::Connect(_) | Self::CircuitOpen => {
                f.write_str("the metrics store cannot be reached; try again")
            }
            Self::Saturated => f.write_str("the metrics store is overloaded; try again"),
            Self::Timeout => f.write_str("the metrics store took too long to answer; try again"),
            Self::Broken(_) => f.write_str("the connection to the metrics store broke; try again"),
            Self::Body(error) => error.fmt(f),
            Self::UploadTimedOut => {
                f.write_str("the body came too slowly for the metrics store; try again")
            }
            Self::Misdirected(_) | Self::Unreadable(_) => {
                f.write_str("the metrics store is temporarily unavailable; try again")
            }
            Self::Severed(_) => f.write_str(
                "a part of the metrics store is being replaced or cannot be reached; try again",
            ),
            Self::Alertmanager(state) => state.fmt(f),
        }
    }
}

impl From<StreamError> for ForwardError {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Broken(error) => Self::Broken(error),
            StreamError::Idle => Self::Timeout,
        }
    }
}

/// Failures after the head of a response has been forwarded. The client's stream then ends with an
/// error and never as a short success.
#[derive(Debug)]
pub enum StreamError {
    /// The instance broke off its response.
    Broken(WireFault),
    /// The instance paused for too long.
    Idle,
}

impl HasReason for StreamError {
    fn reason(&self) -> Reason {
        match self {
            Self::Broken(_) => Reason::UpstreamBrokenBody,
            Self::Idle => Reason::UpstreamIdleBody,
        }
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(error) => write!(f, "upstream broke off: {error}"),
            Self::Idle => f.write_str("upstream paused for too long"),
        }
    }
}

impl Error for StreamError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Broken(error) => Some(error),
            Self::Idle => None,
        }
    }
}
