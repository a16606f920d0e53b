//! What can go wrong while `/admin` serves a request. `rejection` turns it into a response.

use std::fmt;

use crate::admin_executor::Overloaded;
use crate::key_management::KeyError;
use crate::reason::Reason;
use crate::store::StoreError;
use crate::tenancy::Scopes;

/// Why a request to `/admin` was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminError {
    /// The request is wrong, with what would be right.
    Request(String),
    /// It would give away these scopes, which the caller lacks.
    ScopesBeyondCaller(Scopes),
    /// The organisation has no such thing.
    Missing(&'static str),
    /// It was right when the caller looked, and is not any more; with what is right now.
    Stale(String),
    /// No database is configured.
    NoDatabase,
    /// Alert rules are not synced by this proxy.
    NoRules,
    /// Notification channels are not synced by this proxy.
    NoChannels,
    /// Mimir runs no Alertmanager.
    NoAlertmanager,
    /// Mimir's Alertmanager gave no usable answer.
    Alertmanager(String),
    /// The database did not do it.
    Store(StoreError),
    /// Mimir's ruler gave no usable answer.
    Ruler(String),
    /// Too many administrators' requests are in progress, or this one takes too long.
    Overloaded,
    /// A fault of the proxy itself.
    Internal,
}

impl AdminError {
    /// The reason, for metrics and logs.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Request(_) => Reason::MalformedRequest,
            Self::ScopesBeyondCaller(_) => Reason::MissingScope,
            Self::Missing(_)
            | Self::Store(StoreError::Missing(_))
            | Self::NoDatabase
            | Self::NoRules
            | Self::NoChannels
            | Self::NoAlertmanager => Reason::NotFound,
            Self::Stale(_)
            | Self::Store(StoreError::Elsewhere(_) | StoreError::Full(_) | StoreError::Taken) => {
                Reason::Conflict
            }
            Self::Store(_) => Reason::DatabaseUnavailable,
            Self::Ruler(_) => Reason::RulerUnavailable,
            Self::Alertmanager(_) => Reason::AlertmanagerUnavailable,
            Self::Overloaded => Reason::Overloaded,
            Self::Internal => Reason::AdminBroken,
        }
    }
}

impl From<StoreError> for AdminError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<KeyError> for AdminError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Request(problem) => Self::Request(problem),
            KeyError::ScopesBeyondCreator(scopes) => Self::ScopesBeyondCaller(scopes),
            KeyError::NoRandomness => Self::Internal,
            KeyError::Store(error) => Self::Store(error),
        }
    }
}

impl From<Overloaded> for AdminError {
    fn from(_: Overloaded) -> Self {
        Self::Overloaded
    }
}

impl fmt::Display for AdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(problem) | Self::Stale(problem) => f.write_str(problem),
            Self::ScopesBeyondCaller(scopes) => {
                let names: Vec<_> = scopes.names().collect();
                let names = names.join(", ");
                write!(
                    f,
                    "you cannot grant scopes that you do not have in this organisation: {names}"
                )
            }
            Self::Missing(what) | Self::Store(StoreError::Missing(what)) => {
                write!(f, "no such {what}")
            }
            Self::NoDatabase => f.write_str("not available: no database is configured"),
            Self::NoRules => {
                f.write_str("not available: alert rules are not synced (rules.enabled)")
            }
            Self::NoChannels => f.write_str(
                "not available: notification channels are not synced (channels.enabled)",
            ),
            Self::NoAlertmanager => f.write_str(
                "not available: Mimir runs no Alertmanager, or its configuration API is off",
            ),
            Self::Alertmanager(_) => {
                f.write_str("Mimir's Alertmanager is temporarily unavailable; retry later")
            }
            Self::Ruler(_) => f.write_str("Mimir's ruler is temporarily unavailable; retry later"),
            Self::Overloaded => {
                f.write_str("too many administrators' requests are in progress; retry later")
            }
            Self::Store(
                error @ (StoreError::Elsewhere(_) | StoreError::Full(_) | StoreError::Taken),
            ) => error.fmt(f),
            // What exactly is wrong with the database is for the log.
            Self::Store(_) => f.write_str("the database is temporarily unavailable; retry later"),
            Self::Internal => f.write_str("internal error; retry later"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Seen: "Mimir's ruler gave no answer that helps", and an alert on failures, for four
    // administrators at one time.
    #[test]
    fn too_many_administrators_are_not_a_fault_of_the_ruler() {
        let error = AdminError::from(Overloaded);
        assert_eq!(error.reason(), Reason::Overloaded);
        assert!(!error.to_string().contains("ruler"), "{error}");
    }
}
