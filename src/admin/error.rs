//! What can go wrong while an administrator's request is served.

use std::fmt;

use axum::response::{IntoResponse, Response};

use crate::reason::Reason;
use crate::store::StoreError;
use crate::tenancy::Scopes;

/// Why an administrator's request was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminError {
    /// The request says something that cannot be done, with what would be right.
    Request(String),
    /// It would grant these scopes, which the administrator does not have.
    Beyond(Scopes),
    /// There is no such thing in the organisation.
    Missing(&'static str),
    /// It was right once and is not any more, with what is right now.
    Stale(String),
    /// There is no database, and so none of this.
    NoDatabase,
    /// Alert rules are not synced by this proxy.
    NoRules,
    /// The database gave no answer. Ours to blame.
    Store(StoreError),
    /// Mimir gave no answer, or a strange one. Ours to blame.
    Ruler(String),
    /// Too many administrators' requests about rules at the same time, or one that takes too long.
    Overloaded,
    /// Something of ours broke.
    Broken,
}

impl AdminError {
    /// A label for metrics and logs.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Request(_) => Reason::MalformedRequest,
            Self::Beyond(_) => Reason::MissingScope,
            Self::Missing(_)
            | Self::Store(StoreError::Missing(_))
            | Self::NoDatabase
            | Self::NoRules => Reason::NotFound,
            Self::Stale(_) | Self::Store(StoreError::Elsewhere(_) | StoreError::Full(_)) => {
                Reason::Conflict
            }
            Self::Store(_) => Reason::DatabaseUnavailable,
            Self::Ruler(_) => Reason::RulerUnavailable,
            Self::Overloaded => Reason::Overloaded,
            Self::Broken => Reason::AdminBroken,
        }
    }
}

impl From<StoreError> for AdminError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl fmt::Display for AdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(problem) | Self::Stale(problem) => f.write_str(problem),
            Self::Beyond(scopes) => {
                let names: Vec<_> = scopes.names().collect();
                let names = names.join(", ");
                write!(f, "you cannot grant {names}, which you do not have here yourself")
            }
            Self::Missing(what) | Self::Store(StoreError::Missing(what)) => {
                write!(f, "there is no such {what}")
            }
            Self::NoDatabase => {
                f.write_str("there is none of this here: no database is configured")
            }
            Self::NoRules => f.write_str(
                "there is none of this here: alert rules are not synced (rules.enabled)",
            ),
            Self::Ruler(_) => f.write_str("Mimir's ruler gave no answer that helps; try again"),
            Self::Store(error @ (StoreError::Elsewhere(_) | StoreError::Full(_))) => error.fmt(f),
            // What exactly is wrong with it is for the log.
            Self::Store(_) => f.write_str("the database is not available at the moment; try again"),
            Self::Overloaded => {
                f.write_str("too many requests about rules at the same time; try again")
            }
            Self::Broken => f.write_str("something of ours broke; try again"),
        }
    }
}

/// The way out of a handler: the error itself goes with the response, and `Admin::serve` takes it
/// out again. The status is never seen.
impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        let mut response = Response::default();
        response.extensions_mut().insert(self);
        response
    }
}
