//! What keeps an activation from its end, in words for members and, apart from those, for whoever
//! runs the system.

use std::time::Duration;

use super::plan::shortened;
use super::writer::WriteError;
use crate::mimir::ruler::RulerError;
use crate::store::StoreError;

/// What keeps an activation from its end.
pub(super) enum Stop {
    LeaseLost,
    Failed(Trouble),
}

/// What went wrong, and how soon to come again.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    /// In words for members: nothing of the inside.
    pub(super) words: &'static str,
    /// For whoever runs the system.
    pub(super) problem: String,
    pub(super) retry_after: Option<Duration>,
}

pub(super) const MIMIR_BUSY: &str = "mimir cannot take it at the moment";
const DATABASE_AWAY: &str = "the database could not be read";
pub(super) const NO_TENANT: &str = "the organisation's identifier cannot be a tenant's";

impl Trouble {
    pub(super) fn new(words: &'static str, problem: String) -> Self {
        Self { words, problem: shortened(&problem), retry_after: None }
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::new(DATABASE_AWAY, error.to_string())
    }
}

impl From<RulerError> for Stop {
    fn from(error: RulerError) -> Self {
        let retry_after = error.retry_after();
        Self::Failed(Trouble { retry_after, ..Trouble::new(MIMIR_BUSY, error.to_string()) })
    }
}

impl From<WriteError> for Stop {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::LeaseLost => Self::LeaseLost,
            WriteError::Ruler(error) => error.into(),
        }
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}
