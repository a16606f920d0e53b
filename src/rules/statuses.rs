//! What becomes of each rule of a tenant, as it is told to whoever wrote it. Pure: which rows are to
//! be written is a function of what was and what is.

use std::collections::HashMap;

use uuid::Uuid;

use crate::store::{RuleState, RuleStatusRow};
use crate::tenancy::OrganisationId;

/// What is known of a rule's status in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) state: RuleState,
    pub(super) reason: String,
    /// What is live, if anything is.
    pub(super) live_hash: Option<String>,
    /// Other versions that Mimir has, or may have.
    pub(super) other_hashes: Vec<String>,
    /// What Mimir has refused, if it is that.
    pub(super) refused_hash: Option<String>,
}

/// The statuses of one organisation's rules as they stand in the table, which only the leader
/// writes.
pub(super) type KeptStatuses = HashMap<Uuid, Kept>;

/// What is to be written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct StatusChanges {
    pub(super) written: Vec<RuleStatusRow>,
    pub(super) gone: Vec<(OrganisationId, Uuid)>,
}

impl From<RuleStatusRow> for Kept {
    fn from(row: RuleStatusRow) -> Self {
        let RuleStatusRow { state, reason, live_hash, other_hashes, refused_hash, .. } = row;
        Self { state, reason, live_hash, other_hashes, refused_hash }
    }
}

/// Takes the statuses as they are now, notes them, and gives what has to be written for that.
pub(super) fn change(
    organisation: &OrganisationId,
    kept: &mut KeptStatuses,
    now: KeptStatuses,
) -> StatusChanges {
    let mut changes = StatusChanges::default();
    for (rule, status) in &now {
        if kept.get(rule) != Some(status) {
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
    let gone = kept.keys().filter(|rule| !now.contains_key(rule));
    changes.gone = gone.map(|rule| (organisation.clone(), *rule)).collect();
    *kept = now;
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn statuses() -> impl Strategy<Value = KeptStatuses> {
        let kept = (0..RuleState::ALL.len(), "[a-c]{0,1}", proptest::option::of("[a-b]"));
        let kept = kept.prop_map(|(state, reason, live_hash)| Kept {
            state: RuleState::ALL[state],
            reason,
            live_hash,
            other_hashes: Vec::new(),
            refused_hash: None,
        });
        proptest::collection::hash_map((0..8_u128).prop_map(Uuid::from_u128), kept, 0..8)
    }

    proptest! {
        // A status is written only on change: unchanged ones would be a write for each look.
        #[test]
        fn what_is_written_makes_the_table_what_it_should_be_and_nothing_more(
            before in statuses(),
            after in statuses(),
        ) {
            let organisation = OrganisationId::parse("acme").unwrap();
            let mut kept = before.clone();
            let changes = change(&organisation, &mut kept, after.clone());
            prop_assert_eq!(&kept, &after);
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
            prop_assert_eq!(change(&organisation, &mut kept, after), StatusChanges::default());
        }
    }
}
