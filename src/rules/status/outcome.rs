//! What a reconcile came to, and what a sync that somebody asked for came to.
//!
//! [`SyncOutcome`] is the one type that goes from the scheduler through the database to the admin API
//! and the command line. It is stored as JSON, so a copy of an older version may have written it: add
//! fields with `#[serde(default)]`, and rename none.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use crate::labels::OutcomeKind;
use crate::labels::RuleState;
use crate::store::{GuardHeld, StoreError, shortened, storable};

/// What a reconcile of one tenant came to.
#[derive(Clone, Debug, Default)]
pub(crate) enum Outcome {
    /// Mimir had what the rows ask for.
    #[default]
    Unchanged,
    /// Mimir has it now.
    Applied,
    /// The deletion guard holds a deletion back; nothing was done.
    Held(GuardHeld),
    /// Something would be deleted, and all tenants have to be read and judged first; nothing was done.
    Deferred,
    Failed(SyncFailure),
    LeaseLost,
}

impl Outcome {
    pub(crate) fn kind(&self) -> OutcomeKind {
        match self {
            Self::Unchanged => OutcomeKind::Unchanged,
            Self::Applied => OutcomeKind::Applied,
            Self::Held(_) => OutcomeKind::Held,
            Self::Deferred => OutcomeKind::Deferred,
            Self::Failed(_) => OutcomeKind::Failed,
            Self::LeaseLost => OutcomeKind::LeaseLost,
        }
    }
}

/// What a sync came to: of one organisation, or of all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SyncOutcome {
    /// The number of organisations, in a sync of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organisations: Option<usize>,
    /// How many organisations were `unchanged`, `applied`, `held`, `deferred` or `failed`.
    #[serde(default)]
    #[schema(value_type = std::collections::HashMap<String, u64>)]
    pub outcomes: BTreeMap<OutcomeKind, usize>,
    /// Why the sync failed or did nothing.
    #[serde(default)]
    pub problem: Option<String>,
    /// The deletion that the guard holds back.
    #[serde(default)]
    pub guard: Option<HeldDeletion>,
    /// How many rules are in each state, in a sync of one organisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<std::collections::HashMap<String, u64>>)]
    pub rules: Option<BTreeMap<RuleState, usize>>,
    /// How long it took, in a sync of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
}

/// A deletion that the guard holds back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeldDeletion {
    pub id: String,
    pub reason: String,
}

impl SyncOutcome {
    /// How many organisations came to this.
    pub fn count(&self, kind: OutcomeKind) -> usize {
        self.outcomes.get(&kind).copied().unwrap_or(0)
    }

    pub fn rules_in(&self, state: RuleState) -> usize {
        self.rules.as_ref().and_then(|rules| rules.get(&state)).copied().unwrap_or(0)
    }

    /// As the database keeps it.
    pub(crate) fn to_json(&self) -> String {
        // What is held is named by the rules' own names.
        let stored = Self {
            problem: self.problem.as_deref().map(storable),
            guard: self
                .guard
                .as_ref()
                .map(|held| HeldDeletion { id: held.id.clone(), reason: storable(&held.reason) }),
            ..self.clone()
        };
        serde_json::to_string(&stored).unwrap_or_else(|_| "{}".to_owned())
    }

    /// Reads it; none if there is no outcome yet, which the database has as `{}`.
    pub fn from_json(json: &str) -> Option<Self> {
        if matches!(json.trim(), "" | "{}") { None } else { serde_json::from_str(json).ok() }
    }
}

impl From<&GuardHeld> for HeldDeletion {
    fn from(held: &GuardHeld) -> Self {
        Self { id: held.id.clone(), reason: held.reason.clone() }
    }
}

/// Why a reconcile failed, and how soon it may be tried again.
#[derive(Clone, Debug)]
pub(crate) struct SyncFailure {
    /// For members of the organisation: nothing about the inside of the system.
    pub(crate) reason: &'static str,
    /// For operators.
    pub(crate) problem: String,
    /// The delay that Mimir asked for.
    pub(crate) retry_after: Option<Duration>,
}

pub(crate) const MIMIR_UNAVAILABLE: &str = "Mimir is temporarily unavailable";
pub(crate) const DATABASE_UNAVAILABLE: &str = "the database is temporarily unavailable";
pub(crate) const NO_TENANT: &str = "the organisation's ID is not a valid tenant ID";

impl SyncFailure {
    pub(crate) fn new(reason: &'static str, problem: String) -> Self {
        Self { reason, problem: shortened(&problem), retry_after: None }
    }
}

impl From<StoreError> for SyncFailure {
    fn from(error: StoreError) -> Self {
        Self::new(DATABASE_UNAVAILABLE, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Scripts read this JSON: `rules sync --json`, and `outcome` in the admin API.
    #[test]
    fn the_json_of_an_outcome_is_stable() {
        let one = SyncOutcome {
            outcomes: BTreeMap::from([(OutcomeKind::Held, 1)]),
            guard: Some(HeldDeletion { id: "a1".to_owned(), reason: "much".to_owned() }),
            rules: Some(BTreeMap::from([(RuleState::OverLimit, 2)])),
            ..SyncOutcome::default()
        };
        let expected = r#"{"outcomes":{"held":1},"problem":null,"guard":{"id":"a1","reason":"much"},"rules":{"over_limit":2}}"#;
        assert_eq!(one.to_json(), expected);
        let all = SyncOutcome {
            organisations: Some(3),
            outcomes: BTreeMap::from([(OutcomeKind::Failed, 1)]),
            duration_ms: Some(5),
            ..SyncOutcome::default()
        };
        let expected = r#"{"organisations":3,"outcomes":{"failed":1},"problem":null,"guard":null,"duration_ms":5}"#;
        assert_eq!(all.to_json(), expected);
        for outcome in [one, all] {
            assert_eq!(SyncOutcome::from_json(&outcome.to_json()), Some(outcome));
        }
        assert_eq!(SyncOutcome::from_json("{}"), None);
    }

    // Postgres refuses a NUL in JSON, and with it the batch: statuses of all organisations waited for ever.
    #[test]
    fn a_nul_in_a_rules_name_is_not_in_the_json_of_an_outcome() {
        let held = HeldDeletion { id: "a1".to_owned(), reason: "A\0B".to_owned() };
        let problem = Some(held.reason.clone());
        let outcome = SyncOutcome { problem, guard: Some(held), ..SyncOutcome::default() };
        let json = outcome.to_json();
        assert!(!json.contains("u0000"), "{json}");
        assert_eq!(json.matches("A\u{fffd}B").count(), 2, "{json}");
    }
}
