//! How a request ended.

use crate::reason::{Class, Reason};

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestOutcome {
    /// Mimir's response was passed on.
    Forwarded,
    /// The proxy answered by itself.
    Answered,
    /// Rejected or failed, as the reason says.
    Unserved(Reason),
    /// The client went away before the end.
    Cancelled,
}

impl RequestOutcome {
    /// The label of metrics and the field of the log.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Answered => "answered",
            Self::Unserved(reason) => reason.class().into(),
            Self::Cancelled => "cancelled",
        }
    }

    pub(super) fn reason(self) -> Option<Reason> {
        match self {
            Self::Unserved(reason) => Some(reason),
            Self::Forwarded | Self::Answered | Self::Cancelled => None,
        }
    }

    /// Whether somebody should look.
    pub(super) fn is_failure(self) -> bool {
        self.reason().is_some_and(|reason| reason.class() == Class::Failed)
    }
}
