//! Errors of the ruler, by what can be done about them.

use std::time::Duration;

use super::GroupRefusal;
use crate::mimir::{ExchangeError, Retriable};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulerError {
    /// No complete answer: the connection was refused or broke. Whether a write took effect is
    /// unknown; writing again is harmless.
    #[error("mimir is not reachable: {0}")]
    Unreachable(String),
    /// No answer within the configured time. A write may have taken effect.
    #[error("mimir did not answer within {0:?}")]
    Timeout(Duration),
    /// Mimir is temporarily unavailable: a 429, a 5xx, or a listing that its own storage failed.
    #[error("mimir is overloaded or failing, it answered {status}: {message}")]
    Busy {
        status: u16,
        /// The delay that Mimir asks for.
        retry_after: Option<Duration>,
        message: String,
    },
    /// Mimir rejects the group, and will reject it again.
    #[error("mimir refused: {0}")]
    Refused(#[source] GroupRefusal),
    #[error("invalid expression{}: {message}", position(*.line, *.column))]
    InvalidExpression {
        /// What is wrong, in Prometheus' words.
        message: String,
        /// The line within the expression, from 1.
        line: Option<usize>,
        /// The column within that line, from 1.
        column: Option<usize>,
    },
    /// Mimir does not permit it: a 401 or 403, as for a protected namespace. The operator has to
    /// fix this.
    #[error("mimir does not allow it, it answered {status}: {message}")]
    Forbidden { status: u16, message: String },
    /// An answer that this API does not have: probably not from Mimir.
    #[error("mimir gave an unexpected answer {status}: {message}")]
    Unexpected { status: u16, message: String },
    /// A success whose content is malformed or too long. It says nothing about the rules that Mimir
    /// has.
    #[error("mimir's answer cannot be read: {0}")]
    Unreadable(String),
}

fn position(line: Option<usize>, column: Option<usize>) -> String {
    match (line, column) {
        (Some(line), Some(column)) => format!(", line {line}, column {column}"),
        _ => String::new(),
    }
}

impl From<ExchangeError> for RulerError {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::Unreachable(problem) => Self::Unreachable(problem),
            ExchangeError::Timeout(timeout) => Self::Timeout(timeout),
            ExchangeError::Busy { status, retry_after, message } => {
                Self::Busy { status, retry_after, message }
            }
            ExchangeError::Forbidden { status, message } => Self::Forbidden { status, message },
            ExchangeError::Unexpected { status, message } => Self::Unexpected { status, message },
            ExchangeError::Unreadable(problem) => Self::Unreadable(problem),
            ExchangeError::Unaddressable(_) => {
                Self::Refused(GroupRefusal::Other(error.to_string()))
            }
        }
    }
}

impl RulerError {
    /// Whether the same call may succeed later without any change.
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

    /// The delay that Mimir asks for, for [`next_delay`](super::next_delay).
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl Retriable for RulerError {
    fn is_transient(&self) -> bool {
        self.is_transient()
    }

    fn is_slow(&self) -> bool {
        matches!(self, Self::Timeout(_))
    }

    fn retry_after(&self) -> Option<Duration> {
        self.retry_after()
    }
}
