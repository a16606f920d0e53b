//! Errors of the ruler, by what can be done about them.

use std::time::Duration;

use super::GroupRefusal;
use crate::mimir::{ExchangeError, Retriable};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulerError {
    #[error(transparent)]
    Exchange(ExchangeError),
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
            // The path has the name of a group, which its author has to change.
            ExchangeError::Unaddressable(_) => {
                Self::Refused(GroupRefusal::Other(error.to_string()))
            }
            error => Self::Exchange(error),
        }
    }
}

impl Retriable for RulerError {
    fn is_transient(&self) -> bool {
        matches!(self, Self::Exchange(error) if error.is_transient())
    }

    fn is_slow(&self) -> bool {
        matches!(self, Self::Exchange(error) if error.is_slow())
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Exchange(error) => error.retry_after(),
            Self::Refused(_) | Self::InvalidExpression { .. } => None,
        }
    }
}
