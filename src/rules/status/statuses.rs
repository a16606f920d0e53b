//! The statuses of one organisation's rules, and which rows of `alert_rule_status` differ from them.
//! Pure.

use std::collections::HashMap;

use uuid::Uuid;

use crate::labels::RuleState;
use crate::store::RuleStatusRow;
use crate::tenancy::OrganisationId;

/// The status of one rule, as it stands in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuleStatus {
    pub(crate) state: RuleState,
    pub(crate) reason: String,
    /// The version that Mimir evaluates, if any.
    pub(crate) live_hash: Option<String>,
    /// Other versions that Mimir has, or may have, because a move was interrupted.
    pub(crate) other_hashes: Vec<String>,
    /// The version that Mimir refused, if the rule is in quarantine.
    pub(crate) refused_hash: Option<String>,
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
        let RuleStatusRow { state, reason, live_hash, other_hashes, refused_hash, .. } = row;
        Self { state, reason, live_hash, other_hashes, refused_hash }
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
                live_hash: status.live_hash.clone(),
                other_hashes: status.other_hashes.clone(),
                refused_hash: status.refused_hash.clone(),
                synced_at: None,
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
    use strum::{EnumCount as _, VariantArray as _};

    fn statuses() -> impl Strategy<Value = RuleStatuses> {
        let status = (0..RuleState::COUNT, "[a-c]{0,1}", proptest::option::of("[a-b]"));
        let status = status.prop_map(|(state, reason, live_hash)| RuleStatus {
            state: RuleState::VARIANTS[state],
            reason,
            live_hash,
            other_hashes: Vec::new(),
            refused_hash: None,
        });
        proptest::collection::hash_map((0..8_u128).prop_map(Uuid::from_u128), status, 0..8)
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
