//! The statuses of one organisation's rules, and which rows of `alert_rule_status` differ from them.
//! Pure.

use std::collections::HashMap;

use strum::{EnumCount as _, VariantArray as _};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::labels::RuleState;
use crate::store::{RuleStatusRow, shortened};
use crate::tenancy::OrganisationId;

/// The status of one rule, as it stands in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuleStatus {
    pub(crate) state: RuleState,
    pub(crate) reason: String,
    /// The version that Mimir has, if any.
    pub(crate) rule_hash: Option<String>,
    /// Other versions that Mimir has, or may have, because a move was interrupted.
    pub(crate) other_hashes: Vec<String>,
    /// The version that Mimir refused, if the rule is in quarantine.
    pub(crate) refused_hash: Option<String>,
    /// The last evaluation of the version that Mimir has, in whole seconds. None until it was seen.
    pub(crate) evaluated_at: Option<OffsetDateTime>,
    /// Whether its alerts reach a notification channel; none if that is not known.
    pub(crate) notifies: Option<bool>,
}

/// Why a rule is not live that was just written.
pub(crate) const NOT_YET: &str = "Mimir has the rule and has not evaluated it yet";

impl RuleStatus {
    /// The reason as the database keeps it: what differs from the row would be written at each full resync.
    pub(crate) fn new(
        state: RuleState,
        reason: impl Into<String>,
        rule_hash: Option<String>,
    ) -> Self {
        Self {
            state,
            reason: shortened(&reason.into()),
            rule_hash,
            other_hashes: Vec::new(),
            refused_hash: None,
            evaluated_at: None,
            notifies: None,
        }
    }

    /// Mimir has this version. What was known of its evaluation stays true.
    pub(crate) fn in_mimir(before: Option<&Self>, hash: String) -> Self {
        let before = before.filter(|before| before.rule_hash.as_ref() == Some(&hash));
        let (evaluated_at, notifies) =
            before.map_or((None, None), |before| (before.evaluated_at, before.notifies));
        let kept = before.filter(|before| {
            // An earlier version of the proxy called a rule live as soon as Mimir had it.
            before.state.is_in_mimir()
                && (before.state != RuleState::Live || evaluated_at.is_some())
        });
        let (state, reason) = kept.map_or_else(
            || (RuleState::Stored, NOT_YET.to_owned()),
            |kept| (kept.state, kept.reason.clone()),
        );
        Self { evaluated_at, notifies, ..Self::new(state, reason, Some(hash)) }
    }
}

/// The number of statuses in each state.
pub(crate) fn count(statuses: &RuleStatuses) -> [usize; RuleState::COUNT] {
    let mut states = [0; RuleState::COUNT];
    for status in statuses.values() {
        states[status.state as usize] += 1;
    }
    states
}

/// Of the rules in each state, those that Mimir has as their rows say.
pub(crate) fn in_mimir(states: &[usize; RuleState::COUNT]) -> usize {
    let in_mimir = RuleState::VARIANTS.iter().filter(|state| state.is_in_mimir());
    in_mimir.map(|state| states[*state as usize]).sum()
}

/// The statuses of one organisation's rules. Only the leader writes the table, so it need not read
/// them again before each reconcile.
pub(crate) type RuleStatuses = HashMap<Uuid, RuleStatus>;

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct StatusChanges {
    pub(crate) written: Vec<RuleStatusRow>,
    pub(crate) gone: Vec<(OrganisationId, Uuid)>,
}

impl From<RuleStatusRow> for RuleStatus {
    fn from(row: RuleStatusRow) -> Self {
        let RuleStatusRow {
            rule: _,
            organisation: _,
            state,
            reason,
            rule_hash,
            other_hashes,
            refused_hash,
            synced_at: _,
            evaluated_at,
            notifies,
        } = row;
        Self { state, reason, rule_hash, other_hashes, refused_hash, evaluated_at, notifies }
    }
}

/// Replaces the statuses in `known` by `now`, and returns what has to be written for that.
pub(crate) fn change(
    organisation: &OrganisationId,
    known: &mut RuleStatuses,
    now: RuleStatuses,
) -> StatusChanges {
    let mut changes = StatusChanges::default();
    for (rule, status) in &now {
        if known.get(rule) != Some(status) {
            changes.written.push(RuleStatusRow {
                rule: *rule,
                organisation: organisation.clone(),
                state: status.state,
                reason: status.reason.clone(),
                rule_hash: status.rule_hash.clone(),
                other_hashes: status.other_hashes.clone(),
                refused_hash: status.refused_hash.clone(),
                synced_at: None,
                evaluated_at: status.evaluated_at,
                notifies: status.notifies,
            });
        }
    }
    let gone = known.keys().filter(|rule| !now.contains_key(rule));
    changes.gone = gone.map(|rule| (organisation.clone(), *rule)).collect();
    *known = now;
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn statuses() -> impl Strategy<Value = RuleStatuses> {
        let evaluated = proptest::option::of(0_i64..2);
        let status = (0..RuleState::COUNT, "[a-c]{0,1}", proptest::option::of("[a-b]"), evaluated);
        let status = status.prop_map(|(state, reason, rule_hash, evaluated)| RuleStatus {
            evaluated_at: evaluated.and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok()),
            notifies: evaluated.map(|at| at > 0),
            ..RuleStatus::new(RuleState::VARIANTS[state], reason, rule_hash)
        });
        proptest::collection::hash_map((0..8_u128).prop_map(Uuid::from_u128), status, 0..8)
    }

    // Earlier versions called a rule live as soon as Mimir had it.
    #[test]
    fn what_was_known_of_a_version_stays_and_live_without_an_evaluation_is_stored() {
        let hash = || "a".to_owned();
        let stored = RuleStatus::in_mimir(None, hash());
        assert_eq!((stored.state, stored.reason.as_str()), (RuleState::Stored, NOT_YET));
        let unseen = RuleStatus::new(RuleState::Live, "", Some(hash()));
        assert_eq!(RuleStatus::in_mimir(Some(&unseen), hash()), stored);
        let seen = RuleStatus {
            evaluated_at: Some(OffsetDateTime::UNIX_EPOCH),
            notifies: Some(false),
            ..unseen
        };
        assert_eq!(RuleStatus::in_mimir(Some(&seen), hash()), seen);
        assert_eq!(RuleStatus::in_mimir(Some(&seen), "b".to_owned()).evaluated_at, None);
        // It was refused for a while, or waited: this version was seen before.
        let back = RuleStatus { state: RuleState::Error, reason: "no".to_owned(), ..seen.clone() };
        let back = RuleStatus::in_mimir(Some(&back), hash());
        assert_eq!((back.state, back.evaluated_at), (RuleState::Stored, seen.evaluated_at));
    }

    // Seen: what Mimir said of a rule was kept whole here and cut in the table, and so written at each full resync.
    #[test]
    fn a_reason_is_as_the_database_keeps_it() {
        for reason in ["x".repeat(10_000), format!("{}\0y", "ü".repeat(3_000)), "a\0b".to_owned()]
        {
            let kept = RuleStatus::new(RuleState::Error, reason, None).reason;
            assert!(kept.chars().count() <= 2_001 && !kept.contains('\0'));
            assert_eq!(RuleStatus::new(RuleState::Error, kept.clone(), None).reason, kept);
        }
    }

    proptest! {
        // A status is written only on change: unchanged ones would be a write for each reconcile.
        #[test]
        fn what_is_written_makes_the_table_what_it_should_be_and_nothing_more(
            before in statuses(),
            after in statuses(),
        ) {
            let organisation = OrganisationId::parse("acme").unwrap();
            let mut known = before.clone();
            let changes = change(&organisation, &mut known, after.clone());
            prop_assert_eq!(&known, &after);
            let mut table = before.clone();
            for row in changes.written {
                let rule = row.rule;
                prop_assert_ne!(before.get(&rule), after.get(&rule));
                table.insert(rule, row.into());
            }
            for (_, rule) in changes.gone {
                prop_assert!(table.remove(&rule).is_some());
            }
            prop_assert_eq!(&table, &after);
            prop_assert_eq!(change(&organisation, &mut known, after), StatusChanges::default());
        }
    }
}
