mod model;

use super::*;
use crate::mimir::ruler::PromDuration;
use crate::mimir::ruler::RulerLimits;
use crate::rules::plan::desired::desired;
use crate::rules::plan::desired::tests::rule;

pub(in crate::rules::plan) fn stored(group: &DesiredGroup) -> StoredGroup {
    let group = group.to_group();
    StoredGroup {
        name: group.name,
        interval: Some(group.interval),
        rules: group.rules.into_iter().map(StoredRule::Alerting).collect(),
        says_more: false,
    }
}

fn group(name: &str, members: &[AlertRule]) -> DesiredGroup {
    let members = members.to_vec();
    DesiredGroup { name: name.to_owned(), interval: PromDuration::from_millis(60_000), members }
}

/// Whether a stored group is told apart from what should be, once `change` has been at it.
fn differs(change: impl Fn(&mut StoredGroup)) -> bool {
    let desired = [group("a", &[rule(1, "a", 60), rule(2, "a", 60)])];
    let mut is = stored(&desired[0]);
    change(&mut is);
    let diff = diff(&desired, &[is], &|_, _| false);
    assert_eq!(diff.deletes, [""; 0]);
    assert_eq!(diff.unchanged, 1 - diff.writes.len());
    diff.writes == [(0, Write::Update)]
}

fn first(group: &mut StoredGroup) -> &mut AlertingRule {
    match &mut group.rules[0] {
        StoredRule::Alerting(rule) => rule,
        StoredRule::Other => panic!("not alerting"),
    }
}

#[test]
fn every_value_of_a_group_counts() {
    assert!(!differs(|_| {}));
    assert!(differs(|group| group.interval = None));
    assert!(differs(|group| group.interval = Some(PromDuration::from_millis(1))));
    assert!(differs(|group| group.says_more = true));
    assert!(differs(|group| group.rules.clear()));
    assert!(differs(|group| group.rules.swap(0, 1)));
    assert!(differs(|group| group.rules.push(StoredRule::Other)));
    assert!(differs(|group| group.rules[1] = StoredRule::Other));
    assert!(differs(|group| first(group).alert.push('x')));
    assert!(differs(|group| first(group).expr.push('0')));
    assert!(differs(|group| first(group).for_duration = PromDuration::from_millis(1)));
    assert!(differs(|group| first(group).keep_firing_for = PromDuration::from_millis(1)));
    assert!(differs(|group| drop(first(group).labels.insert("a".to_owned(), String::new()))));
    assert!(differs(|group| drop(first(group).annotations.insert("a".to_owned(), String::new()))));
}

#[test]
fn white_space_around_an_expression_does_not_count() {
    assert!(!differs(|group| first(group).expr.insert_str(0, "\n  ")));
    assert!(!differs(|group| first(group).expr.push('\n')));
}

#[test]
fn groups_are_created_updated_deleted_or_left() {
    let desired = [
        group("new", &[rule(1, "new", 60)]),
        group("same", &[rule(2, "same", 60)]),
        group("other", &[rule(3, "other", 60)]),
    ];
    let observed = [
        stored(&group("gone", &[rule(9, "gone", 60)])),
        stored(&group("other", &[rule(8, "other", 60)])),
        stored(&desired[1]),
    ];
    let found = diff(&desired, &observed, &|_, _| false);
    assert_eq!(found.writes, [(0, Write::Create), (2, Write::Update)]);
    assert_eq!((found.deletes.as_slice(), found.unchanged), (&["gone".to_owned()][..], 1));
    assert!(!found.is_empty());
    assert!(diff(&desired[1..2], &observed[2..], &|_, _| false).is_empty());
}

// Mimir cannot have two; a client that reads pages might give one twice.
#[test]
fn of_a_name_observed_twice_one_is_written_or_deleted() {
    let desired = [group("a", &[rule(1, "a", 60)])];
    let twice = [stored(&desired[0]), stored(&desired[0])];
    assert_eq!(diff(&desired, &twice, &|_, _| true).writes, [(0, Write::Update)]);
    assert_eq!(diff(&[], &twice, &|_, _| true).deletes, ["a"]);
    assert_eq!(differing_exprs(&desired, &twice), []);
}

#[test]
fn mimir_is_asked_only_about_expressions_that_decide() {
    let other = |id, expr: &str| {
        let mut other = rule(id, "a", 60);
        other.rule.expr = expr.to_owned();
        other
    };
    let desired = [
        group("spelled", &[other(1, "up==0"), other(2, " up == 0"), other(3, "up==0")]),
        group("renamed", &[other(4, "up==1")]),
    ];
    let observed = [
        stored(&group("spelled", &[rule(1, "a", 60), rule(2, "a", 60), rule(3, "a", 60)])),
        stored(&group("renamed", &[rule(5, "a", 60)])),
    ];
    assert_eq!(differing_exprs(&desired, &observed), [("up==0", "up == 0")]);
    let same = |should: &str, is: &str| (should, is) == ("up==0", "up == 0");
    assert_eq!(diff(&desired, &observed, &same).writes, [(1, Write::Update)]);
}

#[test]
fn a_group_that_takes_is_written_before_the_one_that_gives() {
    let rules = |ids: std::ops::RangeInclusive<u32>| ids.map(|id| rule(id, "a", 60)).collect();
    let limits = RulerLimits { rules_per_group: Some(2), groups: None };
    let before = desired(rules(2..=7), &limits, 0).groups;
    let observed: Vec<StoredGroup> = before.iter().map(stored).collect();
    // An older rule pushes one out of each chunk; the last goes into a new one.
    let after = desired(rules(1..=7), &limits, 0);
    let found = diff(&after.groups, &observed, &|_, _| false);
    let named = |(index, _): &(usize, Write)| after.groups[*index].name.clone();
    assert_eq!(found.writes.iter().map(named).collect::<Vec<_>>(), ["a#4", "a#3", "a#2", "a"]);
    // Without the oldest two, each chunk takes from the next, and the last is left over.
    let after = desired(rules(4..=7), &limits, 0);
    let found = diff(&after.groups, &observed, &|_, _| false);
    assert_eq!(found.writes, [(0, Write::Update), (1, Write::Update)]);
    assert_eq!(found.deletes, ["a#3"]);
}

#[test]
fn a_group_whose_rules_go_elsewhere_is_deleted_last() {
    let observed =
        [stored(&group("a", &[rule(1, "a", 60)])), stored(&group("b", &[rule(2, "b", 60)]))];
    let desired = [group("c", &[rule(1, "c", 60)])];
    assert_eq!(diff(&desired, &observed, &|_, _| false).deletes, ["b", "a"]);
}

#[test]
fn groups_that_exchange_rules_are_both_written() {
    let before = [group("a", &[rule(1, "a", 60)]), group("b", &[rule(2, "b", 60)])];
    let after = [group("a", &[rule(2, "a", 60)]), group("b", &[rule(1, "b", 60)])];
    let observed: Vec<StoredGroup> = before.iter().map(stored).collect();
    assert_eq!(diff(&after, &observed, &|_, _| false).writes.len(), 2);
}
