//! What went wrong with the ruler, by what can be done about it.

use std::fmt;
use std::time::Duration;

use super::Refusal;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RulerError {
    /// No answer, or not all of it: nobody listens, or the connection broke. Whether a write took
    /// effect is unknown; writing again is harmless.
    Unreachable(String),
    /// No answer within the configured time, with the same doubt.
    Timeout(Duration),
    /// Mimir cannot now: a 429, a 5xx, or a listing that its own storage failed.
    Busy {
        /// The HTTP status.
        status: u16,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
        /// Its own words.
        message: String,
    },
    /// Mimir will not take the group, however often it is asked.
    Refused(Refusal),
    /// An expression is no `PromQL`.
    InvalidExpression {
        /// What is wrong, in Prometheus' words.
        message: String,
        /// The line within the expression, from 1.
        line: Option<usize>,
        /// The column within that line, from 1.
        column: Option<usize>,
    },
    /// Mimir does not let us: a 401 or 403, as for a protected namespace. A mistake of the
    /// operator's.
    Forbidden {
        /// The HTTP status.
        status: u16,
        /// Its own words.
        message: String,
    },
    /// An answer that this interface should not give: something else may listen there.
    Unexpected {
        /// The HTTP status.
        status: u16,
        /// Its own words.
        message: String,
    },
    /// A success whose content makes no sense or is too long. It says nothing about what Mimir has.
    Unreadable(String),
}

impl RulerError {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Timeout(_) | Self::Busy { .. } => true,
            Self::Refused(_)
            | Self::InvalidExpression { .. }
            | Self::Forbidden { .. }
            | Self::Unexpected { .. }
            | Self::Unreadable(_) => false,
        }
    }

    /// How long Mimir asks to be left alone, for [`next_delay`](super::next_delay).
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl fmt::Display for RulerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "mimir is not reachable: {why}"),
            Self::Timeout(limit) => write!(f, "mimir did not answer within {limit:?}"),
            Self::Busy { status, message, .. } => {
                write!(f, "mimir is busy or ill, it answered {status}: {message}")
            }
            Self::Refused(refusal) => write!(f, "mimir refused: {refusal}"),
            Self::InvalidExpression { message, line: Some(line), column: Some(column) } => {
                write!(f, "invalid expression, line {line}, column {column}: {message}")
            }
            Self::InvalidExpression { message, .. } => write!(f, "invalid expression: {message}"),
            Self::Forbidden { status, message } => {
                write!(f, "mimir does not allow it, it answered {status}: {message}")
            }
            Self::Unexpected { status, message } => {
                write!(f, "mimir gave an unexpected answer {status}: {message}")
            }
            Self::Unreadable(why) => write!(f, "mimir's answer cannot be read: {why}"),
        }
    }
}

impl std::error::Error for RulerError {}
