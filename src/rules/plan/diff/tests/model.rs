//! Steps against a model of Mimir that refuses as Mimir does.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::rules::plan::desired::tests::{any_limits, any_rules};

/// One tenant: our namespace, and how many groups there are beside.
#[derive(Debug)]
struct Mimir {
    groups: BTreeMap<String, StoredGroup>,
    others: usize,
    limit: Option<usize>,
}

impl Mimir {
    /// `CreateRuleGroup` asserts the limit against the number of groups + 1, whether or not one is
    /// replaced.
    fn set(&mut self, group: &DesiredGroup) -> Result<(), String> {
        let limit = self.limit.unwrap_or(usize::MAX);
        let actual = self.groups.len() + self.others + 1;
        if actual > limit {
            return Err(format!("limit: {limit} actual: {actual}"));
        }
        self.groups.insert(group.name.clone(), stored(group));
        Ok(())
    }

    fn delete(&mut self, name: &str) -> Result<(), String> {
        self.groups.remove(name).map(drop).ok_or_else(|| format!("no group {name}"))
    }

    fn take(&mut self, step: &Step, desired: &[DesiredGroup]) -> Result<(), String> {
        match step {
            Step::Delete(name) => self.delete(name),
            Step::Set(index) => self.set(&desired[*index]),
            Step::Replace(index) => {
                self.delete(&desired[*index].name)?;
                self.set(&desired[*index])
            }
        }
    }

    fn len(&self) -> usize {
        self.groups.len() + self.others
    }

    fn alerts(&self) -> BTreeSet<String> {
        let rules = self.groups.values().flat_map(alerting);
        rules.map(|rule| rule.alert.clone()).collect()
    }
}

fn never(_: &str, _: &str) -> bool {
    false
}

/// What others, and faults, leave in a namespace.
fn spoil(group: &mut StoredGroup, how: u8) {
    match how {
        0 => group.interval = None,
        1 => group.says_more = true,
        2 => group.rules.push(StoredRule::Other),
        3 => group.rules.reverse(),
        4 => drop(group.rules.pop()),
        5 => first(group).expr.insert(0, ' '),
        6 => first(group).expr.push_str(" > 0"),
        7 => group.name.push('x'),
        _ => {}
    }
}

prop_compose! {
    /// What should be, and a namespace with some of it, some of what is not wanted, and damage.
    fn scene()(
        mut rules in any_rules(30),
        earlier_limits in any_limits(),
        limits in any_limits(),
        kept in proptest::collection::vec(0_u8..10, 30),
        damage in proptest::collection::vec(0_u8..30, 40),
        others in 0_usize..5,
    ) -> (Vec<DesiredGroup>, Mimir) {
        // Some rules were not there before, some are not any more, and some changed group.
        let mut earlier = Vec::new();
        let mut now = Vec::new();
        for (rule, kept) in rules.drain(..).zip(kept) {
            match kept {
                0 => earlier.push(rule),
                1 => now.push(rule),
                2 => {
                    earlier.push(AlertRule { group: "b".to_owned(), ..rule.clone() });
                    now.push(rule);
                }
                _ => {
                    earlier.push(rule.clone());
                    now.push(rule);
                }
            }
        }
        let earlier_limits = RulerLimits { groups: None, ..earlier_limits };
        let mut groups = BTreeMap::new();
        for (group, damage) in desired(earlier, &earlier_limits, 0).groups.iter().zip(damage) {
            let mut group = stored(group);
            spoil(&mut group, damage);
            groups.insert(group.name.clone(), group);
        }
        let mimir = Mimir { groups, others, limit: limits.groups };
        (desired(now, &limits, others).groups, mimir)
    }
}

proptest! {
    // The limit may have been lowered under what there is, and others may have taken all of it.
    #[test]
    fn steps_always_succeed_and_end_at_what_should_be((desired, mut mimir) in scene()) {
        let observed: Vec<StoredGroup> = mimir.groups.values().cloned().collect();
        let found = diff(&desired, &observed, &never);
        let others = mimir.others;
        for step in steps(&found, &desired, mimir.len(), mimir.limit) {
            prop_assert_eq!(mimir.take(&step, &desired), Ok(()), "{:?}", step);
        }
        let observed: Vec<StoredGroup> = mimir.groups.values().cloned().collect();
        let again = diff(&desired, &observed, &never);
        prop_assert!(again.is_empty(), "{:?}", again);
        prop_assert_eq!((again.unchanged, mimir.others), (desired.len(), others));
        prop_assert_eq!(mimir.groups.len(), desired.len());
    }

    #[test]
    fn each_group_is_written_deleted_or_left_once((desired, mimir) in scene()) {
        let observed: Vec<StoredGroup> = mimir.groups.values().cloned().collect();
        let found = diff(&desired, &observed, &never);
        let written: BTreeSet<usize> = found.writes.iter().map(|(index, _)| *index).collect();
        prop_assert_eq!(written.len(), found.writes.len());
        prop_assert_eq!(found.writes.len() + found.unchanged, desired.len());
        let deleted: BTreeSet<&String> = found.deletes.iter().collect();
        prop_assert_eq!(deleted.len(), found.deletes.len());
        prop_assert!(deleted.iter().all(|name| mimir.groups.contains_key(*name)));
        prop_assert!(desired.iter().all(|group| !deleted.contains(&group.name)));
    }

    #[test]
    fn what_is_as_it_should_be_is_not_touched((desired, _) in scene()) {
        let observed: Vec<StoredGroup> = desired.iter().map(stored).collect();
        let found = diff(&desired, &observed, &never);
        prop_assert!(found.is_empty());
        prop_assert_eq!(found.unchanged, desired.len());
        prop_assert!(steps(&found, &desired, 70, Some(70)).is_empty());
    }

    // What the caller has to ask Mimir about is all that it needs to know.
    #[test]
    fn the_differing_expressions_are_all_that_is_asked((desired, mimir) in scene()) {
        let observed: Vec<StoredGroup> = mimir.groups.values().cloned().collect();
        let asked: BTreeSet<(&str, &str)> =
            differing_exprs(&desired, &observed).into_iter().collect();
        let known = diff(&desired, &observed, &|should, is| asked.contains(&(should, is)));
        prop_assert_eq!(known, diff(&desired, &observed, &|_, _| true));
    }

    // A firing alert that is taken out of one chunk and put into another must not resolve between
    // the two. Rules of one group keep their order, so chunks never take from one another in a ring.
    #[test]
    fn below_the_limit_no_alert_is_missing_in_between(
        ids in proptest::collection::btree_map(0_u32..40, 0_u8..6, 1..30),
        most in 1_usize..5,
        earlier_most in 1_usize..5,
    ) {
        let all_but = |kind: u8| -> Vec<AlertRule> {
            let ids = ids.iter().filter(|(_, of)| **of != kind);
            ids.map(|(id, _)| rule(*id, "a", 60)).collect()
        };
        let limits = |most| RulerLimits { rules_per_group: Some(most), groups: None };
        let earlier = desired(all_but(0), &limits(earlier_most), 0).groups;
        let should = desired(all_but(1), &limits(most), 0).groups;
        let groups = earlier.iter().map(|group| (group.name.clone(), stored(group))).collect();
        let mut mimir = Mimir { groups, others: 0, limit: None };
        let observed: Vec<StoredGroup> = mimir.groups.values().cloned().collect();
        let wanted: BTreeSet<String> =
            all_but(1).into_iter().map(|rule| rule.rule.alert).collect();
        let stay: BTreeSet<String> = mimir.alerts().intersection(&wanted).cloned().collect();
        let found = diff(&should, &observed, &never);
        for step in steps(&found, &should, mimir.len(), None) {
            prop_assert_eq!(mimir.take(&step, &should), Ok(()));
            let missing: Vec<String> = stay.difference(&mimir.alerts()).cloned().collect();
            prop_assert!(missing.is_empty(), "{:?} after {:?}", missing, step);
        }
        prop_assert_eq!(mimir.alerts(), wanted);
    }

    // A group is gone for a moment only where no deletion that is due anyway makes room, and none is
    // deleted before the last write but to make room.
    #[test]
    fn deletions_come_first_only_where_the_limit_demands_it((desired, mut mimir) in scene()) {
        let observed: Vec<StoredGroup> = mimir.groups.values().cloned().collect();
        let found = diff(&desired, &observed, &never);
        let (groups, limit) = (mimir.len(), mimir.limit.unwrap_or(usize::MAX));
        let mut steps = steps(&found, &desired, groups, mimir.limit);
        if steps.iter().any(|step| matches!(step, Step::Replace(_))) {
            prop_assert_eq!(groups - found.deletes.len(), limit);
        }
        let last_write = steps.iter().rposition(|step| !matches!(step, Step::Delete(_)));
        steps.truncate(last_write.map_or(0, |at| at + 1));
        for step in steps {
            if matches!(step, Step::Delete(_)) {
                prop_assert!(mimir.len() >= limit);
            }
            mimir.take(&step, &desired).unwrap();
        }
    }

    #[test]
    fn below_the_limit_all_is_written_before_anything_is_deleted((desired, mimir) in scene()) {
        let observed: Vec<StoredGroup> = mimir.groups.values().cloned().collect();
        let found = diff(&desired, &observed, &never);
        let steps = steps(&found, &desired, mimir.len(), None);
        let (writes, deletes) = steps.split_at(found.writes.len());
        prop_assert!(writes.iter().all(|step| matches!(step, Step::Set(_))));
        prop_assert!(deletes.iter().all(|step| matches!(step, Step::Delete(_))));
    }

    // What `groups` and `limit` say may be old by the time a step is taken.
    #[test]
    fn a_group_that_could_not_be_written_again_is_not_deleted(
        (desired, mut mimir) in scene(), more in 1_usize..5,
    ) {
        let observed: Vec<StoredGroup> = mimir.groups.values().cloned().collect();
        let found = diff(&desired, &observed, &never);
        mimir.others += more;
        for step in steps(&found, &desired, mimir.len(), mimir.limit) {
            let done = mimir.take(&step, &desired);
            prop_assert!(done.is_ok() || matches!(step, Step::Set(_)), "{:?}", step);
        }
        for group in &desired {
            let was = observed.iter().any(|one| one.name == group.name);
            prop_assert!(!was || mimir.groups.contains_key(&group.name));
        }
    }
}

// FACTS: at 70 groups of 70, Mimir answers even an update with 400.
#[test]
fn with_70_groups_at_the_limit_an_update_goes_through() {
    let rules = |seconds| (1..=70).map(move |id| rule(id, &format!("g{id}"), seconds)).collect();
    let limits = RulerLimits { rules_per_group: Some(20), groups: Some(70) };
    let before = desired(rules(60), &limits, 0).groups;
    let groups = before.iter().map(|group| (group.name.clone(), stored(group))).collect();
    let mut mimir = Mimir { groups, others: 0, limit: Some(70) };
    assert!(mimir.set(&before[0]).is_err());

    let mut should = before;
    should[3] = desired(vec![rule(4, "g4", 30)], &limits, 0).groups.remove(0);
    let observed: Vec<StoredGroup> = mimir.groups.values().cloned().collect();
    let found = diff(&should, &observed, &never);
    let planned = steps(&found, &should, mimir.len(), mimir.limit);
    assert_eq!(planned, [Step::Replace(3)]);
    mimir.take(&planned[0], &should).unwrap();
    assert_eq!(mimir.groups["g4"], stored(&should[3]));

    // One that has to go makes the room that the update needs.
    let should = &should[1..];
    let mut changed = should.to_vec();
    changed[0] = desired(vec![rule(2, "g2", 30)], &limits, 0).groups.remove(0);
    let observed: Vec<StoredGroup> = mimir.groups.values().cloned().collect();
    let found = diff(&changed, &observed, &never);
    let planned = steps(&found, &changed, mimir.len(), mimir.limit);
    assert_eq!(planned, [Step::Delete("g1".to_owned()), Step::Set(0)]);
}
