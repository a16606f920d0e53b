//! What a reconcile of one organisation's document came to.

use std::time::Duration;

use crate::labels::OutcomeKind;
use crate::mimir::Retriable as _;
use crate::mimir::alertmanager::AlertmanagerError;
use crate::rules::{DATABASE_UNAVAILABLE, MIMIR_UNAVAILABLE, NO_TENANT};
use crate::store::{GuardHeld, StoreError, shortened};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Mimir had what the rows ask for.
    Unchanged,
    /// Mimir has it now.
    Applied,
    /// A confirmation is awaited; nothing was done.
    Held(GuardHeld),
    Failed(Failure),
    LeaseLost,
}

/// Why a reconcile failed, and how soon it may be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// For members of the organisation: nothing about the inside of the system.
    pub(crate) reason: &'static str,
    /// For operators. It holds no secret: what Mimir says has been redacted.
    pub(crate) problem: String,
    /// The delay that Mimir asked for.
    pub(crate) retry_after: Option<Duration>,
    /// Whether it may pass by itself, so that it is worth trying again soon.
    pub(crate) is_transient: bool,
}

const NO_ALERTMANAGER: &str =
    "notifications are not available: the operator has to switch on Mimir's Alertmanager";
const REFUSED: &str = "Mimir refuses the organisation's channels and routes as a whole";

impl Outcome {
    pub(crate) fn kind(&self) -> OutcomeKind {
        match self {
            Self::Unchanged => OutcomeKind::Unchanged,
            Self::Applied => OutcomeKind::Applied,
            Self::Held(_) => OutcomeKind::Held,
            Self::Failed(_) => OutcomeKind::Failed,
            Self::LeaseLost => OutcomeKind::LeaseLost,
        }
    }
}

impl Failure {
    pub(crate) fn no_tenant(problem: &impl ToString) -> Self {
        Self::lasting(NO_TENANT, format!("no tenant: {}", problem.to_string()))
    }

    fn lasting(reason: &'static str, problem: String) -> Self {
        Self { reason, problem: shortened(&problem), retry_after: None, is_transient: false }
    }
}

impl From<AlertmanagerError> for Failure {
    fn from(error: AlertmanagerError) -> Self {
        let problem = error.to_string();
        match &error {
            AlertmanagerError::NotEnabled => Self::lasting(NO_ALERTMANAGER, problem),
            AlertmanagerError::Refused(_) | AlertmanagerError::TooBig(_) => {
                Self::lasting(REFUSED, problem)
            }
            // What is wrong with the way to Mimir may be mended by its operator at any time.
            AlertmanagerError::Exchange(_)
            | AlertmanagerError::NotConfigured
            | AlertmanagerError::NotLoaded => Self {
                reason: MIMIR_UNAVAILABLE,
                problem: shortened(&problem),
                retry_after: error.retry_after(),
                is_transient: true,
            },
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self {
            reason: DATABASE_UNAVAILABLE,
            problem: error.to_string(),
            retry_after: None,
            is_transient: true,
        }
    }
}
