//! Why an exchange cannot go on.

use std::error::Error;
use std::fmt;
use std::io;

use crate::request_body::BodyError;

/// What ended an exchange before its end.
#[derive(Debug)]
pub enum WireFault {
    /// The socket failed.
    Socket(io::Error),
    /// The instance closed the connection in the middle of an exchange.
    Closed,
    /// The instance's bytes are no answer that is accepted; what is wrong with them.
    Malformed(&'static str),
    /// The client's body failed.
    Upload(BodyError),
}

impl WireFault {
    /// Whether the instance's bytes were no answer.
    pub(in crate::forward) fn is_malformed(&self) -> bool {
        matches!(self, Self::Malformed(_))
    }

    /// Whether the instance's machine did not acknowledge what was sent to it (`TCP_USER_TIMEOUT`).
    pub(in crate::forward) fn is_unacknowledged(&self) -> bool {
        matches!(self, Self::Socket(error) if error.kind() == io::ErrorKind::TimedOut)
    }
}

impl fmt::Display for WireFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(error) => error.fmt(f),
            Self::Closed => f.write_str("the connection was closed before the end of an answer"),
            Self::Malformed(what) => write!(f, "not an HTTP/1.1 answer: {what}"),
            Self::Upload(error) => write!(f, "the client's body failed: {error}"),
        }
    }
}

impl Error for WireFault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Socket(error) => Some(error),
            Self::Upload(error) => Some(error),
            Self::Closed | Self::Malformed(_) => None,
        }
    }
}
