//! Whole reconciles against a model of Mimir that refuses, fails and forgets, with the real planning,
//! guard, statuses and order of steps.

mod model;

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::config::GuardConfig;
use crate::labels::RuleState;
use model::{Fault, Kind, Org, Row};

fn config() -> GuardConfig {
    GuardConfig { tenant_count: 3, ..GuardConfig::default() }
}

fn limits(rules_per_group: usize) -> RulerLimits {
    RulerLimits { rules_per_group: Some(rules_per_group), groups: None }
}

fn good(group: u8) -> Row {
    Row { group, interval: 0, version: 0, kind: Kind::Good }
}

fn with(count: u32, groups: u8, rules_per_group: usize) -> Org {
    let mut org = Org::new(config(), limits(rules_per_group));
    for id in 1..=count {
        let group = u8::try_from(id % u32::from(groups)).unwrap();
        org.write(id, good(group));
    }
    assert_eq!(org.sync(), "applied");
    org
}

// Issue 11, section 2: 30 rules and one that Mimir refuses, half of them lost. The ID changed with each
// confirmation, because the refused rule was tried again and became part of the plan.
#[test]
fn a_refused_rule_does_not_change_what_is_confirmed() {
    for kind in [Kind::BadExpr, Kind::BadTemplate] {
        let mut org = with(30, 1, 20);
        org.write(31, Row { kind, ..good(0) });
        org.sync();
        (1..=15).for_each(|id| org.lose(id));
        assert_eq!(org.sync(), "held");
        let first = org.held().unwrap();
        org.state.expire();
        assert_eq!(org.sync(), "held");
        assert_eq!(org.held().unwrap(), first, "{kind:?}");
        org.confirm();
        org.state.expire();
        assert_eq!(org.sync(), "applied", "{kind:?}");
        let left: BTreeSet<String> = (16..=30).map(|id| format!("A{id}")).collect();
        assert_eq!(org.names(), left);
        org.check_statuses();
    }
}

// Earlier versions wrote rules that name no row. Each group is written once more, and nothing is missing:
// not even for a guard that holds any deletion.
#[test]
fn groups_of_an_earlier_version_are_edited_and_nothing_is_held() {
    let strict = GuardConfig {
        tenant_count: 1,
        tenant_share: 0.0,
        missing_count: 1,
        missing_share: 0.0,
        ..GuardConfig::default()
    };
    for has_statuses in [true, false] {
        let mut org = Org::new(strict, limits(5));
        (1..=12).for_each(|id| org.write(id, good(u8::try_from(id % 2).unwrap())));
        assert_eq!(org.sync(), "applied");
        org.unname();
        if !has_statuses {
            (1..=12).for_each(|id| org.lose_status(id));
        }
        org.restart();
        let before = org.writes();
        assert_eq!(org.full_resync(), "applied");
        assert_eq!(org.writes() - before, 4, "each group once");
        assert!(org.named().iter().all(Option::is_some));
        assert_eq!(org.full_resync(), "unchanged");
        org.check_statuses();
        assert!(org.interrupted().is_empty());
    }
}

// Rows that are known to be in sync are not looked at; Mimir is.
#[test]
fn a_group_that_is_lost_comes_back_although_no_row_has_changed() {
    let mut org = with(6, 2, 20);
    assert_eq!((org.full_resync(), org.full_resync()), ("unchanged", "unchanged"));
    let (before, names) = (org.writes(), org.names());
    org.drop_group(0);
    assert_ne!(org.names(), names);
    assert_eq!(org.full_resync(), "applied");
    assert_eq!((org.writes() - before, org.names()), (1, names));
    assert_eq!((org.full_resync(), org.full_resync()), ("unchanged", "unchanged"));
    org.check_statuses();
}

#[test]
fn a_rule_that_a_ruler_has_not_loaded_is_written_once_more() {
    let mut org = with(6, 2, 20);
    let before = org.writes();
    assert_eq!(org.sync(), "unchanged");
    org.write_again(1);
    assert_eq!(org.sync(), "applied");
    assert_eq!(org.writes() - before, 1, "its group, and no other");
    assert_eq!(org.sync(), "unchanged");
}

// Mimir loads all rules of a tenant or none: one that an upgraded Mimir cannot parse stops the others. The
// ruler says which one it is as soon as the group is written again.
#[test]
fn what_mimir_refuses_since_an_upgrade_leaves_the_others_alone() {
    let mut org = with(6, 1, 20);
    org.write(3, Row { version: 2, ..good(0) });
    assert_eq!(org.sync(), "applied");
    org.refuse_version(Some(2));
    assert_eq!(org.sync(), "unchanged", "the stored text is the same");
    org.write_again(1);
    assert_eq!(org.sync(), "applied");
    assert_eq!(org.status(3), Some(RuleState::Invalid));
    assert!(org.reason_of(3).starts_with("Mimir took the rule before"), "{}", org.reason_of(3));
    assert!(!org.names().contains("A3"));
    assert_eq!((org.names().len(), org.status(1)), (5, Some(RuleState::Stored)));
    org.check_statuses();
    // Another upgrade: a requested sync, or an hour, brings it back.
    org.refuse_version(None);
    org.state.expire();
    assert_eq!(org.sync(), "applied");
    assert_eq!(org.status(3), Some(RuleState::Stored));
}

// Seen: after the minimum was raised, one edit took a whole group of rules out of Mimir. The
// refusal is about the write alone: Mimir goes on with what it has.
#[test]
fn live_rules_stay_when_mimirs_minimum_interval_is_raised() {
    let mut org = with(3, 1, 20);
    let before = org.shown();
    org.least_interval(Some(120_000));
    org.write(1, Row { version: 1, ..good(0) });
    org.write(9, good(0));
    for _ in 0..3 {
        org.sync();
        assert_eq!(org.shown(), before, "Mimir has what it had");
        for number in [1, 9] {
            assert_eq!(org.status(number), Some(RuleState::Error));
            let reason = org.reason_of(number);
            assert_eq!(reason, "evaluation_interval 1m is too short; the minimum is 2m");
        }
        assert_eq!(org.status(3), Some(RuleState::Stored), "it is as its row says");
        org.check_statuses();
    }
    org.write(2, Row { kind: Kind::Disabled, ..good(0) });
    org.sync();
    assert_eq!((org.shown(), org.status(2)), (before, Some(RuleState::Error)));
    assert!(org.reason_of(2).starts_with("Mimir still evaluates it"), "{}", org.reason_of(2));
    // It is lowered again.
    (1..=3).for_each(|id| org.write(id, Row { version: 2, ..good(0) }));
    org.least_interval(Some(60_000));
    assert_eq!(org.sync(), "applied");
    assert_eq!((org.status(1), org.status(9)), (Some(RuleState::Stored), Some(RuleState::Stored)));
    org.check_statuses();
}

// Where nothing is in Mimir there is nothing to keep, and the author's row is at fault.
#[test]
fn a_new_rule_with_too_short_an_interval_is_invalid() {
    let mut org = with(4, 1, 20);
    org.least_interval(Some(60_000));
    org.write(9, Row { interval: 1, ..good(0) });
    assert_eq!(org.sync(), "unchanged");
    assert_eq!(org.status(9), Some(RuleState::Invalid));
    assert_eq!(org.reason_of(9), "evaluation_interval 30s is too short; the minimum is 1m");
    org.check_statuses();
}

// While a deletion is held, Mimir evaluates a disabled rule: `disabled` would say that it does not.
#[test]
fn a_disabled_rule_is_pending_while_mimir_has_it() {
    let mut org = with(10, 1, 20);
    (1..=8).for_each(|id| org.write(id, Row { kind: Kind::Disabled, ..good(0) }));
    assert_eq!(org.sync(), "held");
    assert_eq!(org.names().len(), 10);
    assert_eq!(org.status(1), Some(RuleState::Pending));
    org.confirm();
    assert_eq!(org.sync(), "applied");
    assert_eq!((org.names().len(), org.status(1)), (2, Some(RuleState::Disabled)));
}

// The same with three groups. Seen: a rule that moved was removed from one group and, because the other
// one was refused, not added there; the plan after that was held.
#[test]
fn a_confirmed_deletion_is_never_half_done() {
    let mut org = with(50, 1, 20);
    org.write(51, Row { kind: Kind::BadTemplate, ..good(0) });
    org.write(10, Row { kind: Kind::BadTemplate, version: 1, ..good(0) });
    (1..=50).filter(|id| id % 2 == 0).for_each(|id| org.lose(id));
    assert_eq!(org.sync(), "held");
    assert_eq!(org.names().len(), 50, "nothing is written while it is held");
    org.confirm();
    org.state.expire();
    assert_eq!(org.sync(), "applied");
    assert_eq!(org.names().len(), 25);
    org.check_statuses();
    assert!(org.interrupted().is_empty(), "{:?}", org.interrupted());
}

// A confirmation permits the rules that it is for, or some of them, and no others.
#[test]
fn a_confirmation_is_about_these_rules_and_no_others() {
    let mut org = with(12, 1, 20);
    (1..=6).for_each(|id| org.lose(id));
    assert_eq!(org.sync(), "held");
    org.confirm();
    // A rule is lost that was not confirmed.
    org.lose(7);
    assert_eq!(org.sync(), "held");
    assert!(org.reason().contains("more than what was confirmed: A7"), "{}", org.reason());
    assert_eq!(org.names().len(), 12);
    // It is back, and so is one that was confirmed.
    org.write(7, good(0));
    org.write(6, good(0));
    assert_eq!(org.sync(), "applied");
    assert_eq!(org.names().len(), 7);
    org.check_statuses();
}

// Groups that exchange rules: for a moment both have both rules, even if they are full.
#[test]
fn groups_that_exchange_rules_lose_none_in_between() {
    for room in [20, 2] {
        let mut org = Org::new(config(), limits(room));
        for (id, group) in [(1, 0), (2, 0), (3, 1), (4, 1)] {
            org.write(id, good(group));
        }
        assert_eq!(org.sync(), "applied");
        org.write(2, good(1));
        org.write(3, good(0));
        assert_eq!(org.sync(), "applied");
        assert!(org.interrupted().is_empty(), "{room}: {:?}", org.interrupted());
        org.check_statuses();
        assert_eq!(org.sync(), "unchanged", "{room}: nothing is left over");
    }
}

// Whatever the cause: statuses are compared with what Mimir has.
#[test]
fn a_wrong_status_is_corrected() {
    let mut org = with(6, 2, 20);
    org.forge_status(99);
    org.lose_status(1);
    org.drop_group(1);
    (2..=3).for_each(|id| org.lose(id));
    org.full_resync();
    org.check_statuses();
    assert!(org.status(99).is_none(), "there is no such rule in Mimir");
}

// While a deletion is held, nothing is written. A group that somebody deletes meanwhile is not in Mimir.
#[test]
fn what_somebody_deletes_in_mimir_while_a_deletion_is_held_is_not_live() {
    let mut org = with(8, 2, 20);
    for id in [1, 3, 5] {
        org.lose(id);
    }
    assert_eq!(org.sync(), "held");
    org.drop_group(0);
    assert_eq!(org.sync(), "held");
    org.check_statuses();
}

// An interrupted move leaves the old version behind. The row and its rule are both there, so deleting the
// old version is no loss and is not held, whatever changed with the move.
#[test]
fn the_old_version_of_an_interrupted_move_is_no_lost_rule() {
    for fault in [Fault::Busy, Fault::BusyButDone] {
        for is_restarted in [false, true] {
            for (interval, version) in [(1, 0), (0, 1), (1, 1)] {
                let mut org = with(4, 1, 2);
                for id in [1, 2] {
                    org.write(id, Row { group: 2, interval, version, kind: Kind::Good });
                }
                // The group that takes is written, the one that gives is not.
                org.fail(1, fault);
                assert_eq!(org.sync(), "failed");
                if is_restarted {
                    org.restart();
                }
                assert_eq!(org.sync(), "applied", "{fault:?} {interval} {version}");
                assert_eq!(org.names().len(), 4);
                org.check_statuses();
                assert!(org.interrupted().is_empty(), "{:?}", org.interrupted());
                assert_eq!(org.sync(), "unchanged");
            }
        }
    }
}

// The same, and the rows are edited again or deleted before the next attempt: the statuses know both
// versions.
#[test]
fn an_old_version_is_recognised_after_its_row_changes_again() {
    for fault in [Fault::Busy, Fault::BusyButDone] {
        for (at, is_deleted) in [(0, false), (1, false), (0, true), (1, true)] {
            let mut org = with(8, 1, 4);
            for id in [1, 2] {
                org.write(id, Row { version: 1, ..good(2) });
            }
            org.fail(at, fault);
            assert_eq!(org.sync(), "failed");
            org.restart();
            for id in [1, 2] {
                if is_deleted {
                    org.delete(id);
                } else {
                    org.write(id, Row { version: 2, ..good(3) });
                }
            }
            assert_eq!(org.sync(), "applied", "{fault:?} at {at}: {}", org.reason());
            assert_eq!(org.names().len(), if is_deleted { 6 } else { 8 });
            org.check_statuses();
        }
    }
}

// Rules that exceed the limits and whose deletion is held: Mimir evaluates them as their rows say until it
// is confirmed, even if a status was lost.
#[test]
fn what_is_over_the_limit_is_live_until_its_deletion_is_confirmed() {
    let limits = RulerLimits { rules_per_group: Some(20), groups: Some(2) };
    let mut org = Org::new(config(), limits);
    (11..=16).for_each(|id| org.write(id, good(0)));
    assert_eq!(org.sync(), "applied");
    // Older rules, in groups of their own.
    org.write(1, good(1));
    org.write(2, good(2));
    assert_eq!(org.full_resync(), "held");
    org.check_statuses();
    org.lose_status(11);
    assert_eq!(org.full_resync(), "held");
    assert_eq!(org.status(11), Some(RuleState::Stored));
    org.check_statuses();
    org.confirm();
    assert_eq!(org.sync(), "applied");
    assert_eq!(org.status(11), Some(RuleState::OverLimit));
    org.check_statuses();
}

#[derive(Clone, Debug)]
enum Op {
    Write(u32, Row),
    Delete(u32),
    Lose(u32),
    DropGroup(usize),
    LoseStatus(u32),
    ForgeStatus(u32),
    /// Another copy, of an earlier version, wrote all groups.
    Unname,
    /// No ruler has loaded a rule.
    WriteAgain(u32),
    Confirm,
    /// The n-th write from now on fails.
    Fail(usize, Fault),
    Restart,
    Sync,
    SyncAgainAll,
}

fn any_row() -> impl Strategy<Value = Row> {
    let kind = prop_oneof![
        8 => Just(Kind::Good),
        1 => Just(Kind::BadExpr),
        1 => Just(Kind::BadTemplate),
        1 => Just(Kind::Disabled),
        1 => Just(Kind::Nonsense),
    ];
    (0_u8..4, 0_u8..2, 0_u8..3, kind).prop_map(|(group, interval, version, kind)| Row {
        group,
        interval,
        version,
        kind,
    })
}

fn any_op() -> impl Strategy<Value = Op> {
    let id = || 1_u32..14;
    let fault = prop_oneof![
        Just(Fault::Busy),
        Just(Fault::BusyButDone),
        Just(Fault::Died),
        Just(Fault::DiedButDone)
    ];
    prop_oneof![
        12 => (id(), any_row()).prop_map(|(id, row)| Op::Write(id, row)),
        3 => id().prop_map(Op::Delete),
        4 => id().prop_map(Op::Lose),
        1 => (0_usize..6).prop_map(Op::DropGroup),
        1 => id().prop_map(Op::LoseStatus),
        1 => (1_u32..20).prop_map(Op::ForgeStatus),
        1 => Just(Op::Unname),
        2 => (1_u32..14).prop_map(Op::WriteAgain),
        2 => Just(Op::Confirm),
        1 => (0_usize..4, fault).prop_map(|(at, fault)| Op::Fail(at, fault)),
        1 => Just(Op::Restart),
        6 => Just(Op::Sync),
        4 => Just(Op::SyncAgainAll),
    ]
}

fn run(org: &mut Org, ops: Vec<Op>) {
    for op in ops {
        match op {
            Op::Write(id, row) => org.write(id, row),
            Op::Delete(id) => org.delete(id),
            Op::Lose(id) => org.lose(id),
            Op::DropGroup(at) => org.drop_group(at),
            Op::LoseStatus(id) => org.lose_status(id),
            Op::ForgeStatus(id) => org.forge_status(id),
            Op::Unname => org.unname(),
            Op::WriteAgain(id) => org.write_again(id),
            Op::Confirm => org.confirm(),
            Op::Fail(at, fault) => org.fail(at, fault),
            Op::Restart => org.restart(),
            Op::Sync => drop(org.sync()),
            Op::SyncAgainAll => {
                org.state.expire();
                org.full_resync();
            }
        }
    }
}

proptest! {
    // PROPTEST_CASES asks for more.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(400)))]

    // Any mix of refused, lost, deleted and moved rules, failures and lost leases: after the last failure a
    // status says that Mimir has the rule if and only if it has it; after a confirmation exactly the confirmed rules
    // are gone; and a rule that stays was always in some group.
    #[test]
    fn after_a_confirmation_exactly_what_was_confirmed_is_gone_and_live_is_in_mimir(
        before in proptest::collection::vec((1_u32..14, any_row()), 0..14),
        ops in proptest::collection::vec(any_op(), 0..40),
        room in 1_usize..6,
        is_known in any::<bool>(),
    ) {
        let mut org = Org::new(config(), limits(room));
        org.tells_limits(is_known);
        for (id, row) in before {
            org.write(id, row);
        }
        run(&mut org, ops);
        org.quiet();
        org.end_confirmations();
        let outcome = org.full_resync();
        org.check_statuses();
        if outcome == "held" {
            let (mut held, there) = (org.held_names(), org.names());
            let (known, unknown) = (org.held_names_of_rows(), org.held_versions());
            prop_assert!(!held.is_empty());
            prop_assert!(unknown.is_subset(&org.versions()));
            org.confirm();
            let mut outcome = org.full_resync();
            if outcome == "held" {
                // If its status was lost, only the alert's name connects a rule in Mimir with its row, and
                // only until Mimir has refused what the row says now. It needs a confirmation of its own.
                let more = org.held_names();
                let refused = org.refused_names();
                prop_assert!(more.difference(&held).all(|name| refused.contains(name)));
                org.confirm();
                outcome = org.full_resync();
            }
            prop_assert_eq!(outcome, "applied", "held again: {}", org.reason());
            org.check_statuses();
            let left = org.names();
            // An unknown rule is a version and no row's rule: a process that dies between a write and its
            // status leaves a version that is recorded nowhere, and if the row is edited before the next
            // attempt, only the alert's name is left of it, which proves nothing. So the confirmation is
            // for this version, and the row's rule of the same name stays.
            prop_assert!(unknown.is_disjoint(&org.versions()));
            held.retain(|name| known.contains(name) || !left.contains(name));
            let gone: BTreeSet<String> = there.difference(&left).cloned().collect();
            // Only a write shows what Mimir refuses. And a rule that its author has switched off goes, also
            // when no status tells which version Mimir has.
            let mut refused = org.refused_names();
            refused.append(&mut org.disabled_names());
            let unrefused = |names: &BTreeSet<String>| -> BTreeSet<String> {
                names.difference(&refused).cloned().collect()
            };
            prop_assert_eq!(unrefused(&gone), unrefused(&held));
        }
        prop_assert_eq!(org.full_resync(), "unchanged");
        org.check_statuses();
        prop_assert!(org.interrupted().is_empty(), "{:?}", org.interrupted());
    }

    // With a limit on groups some rules have no room. Their statuses are still true.
    #[test]
    fn within_a_limit_on_groups_live_is_in_mimir(
        before in proptest::collection::vec((1_u32..14, any_row()), 0..14),
        ops in proptest::collection::vec(any_op(), 0..40),
        room in 1_usize..6,
        groups in 1_usize..5,
    ) {
        let mut org =
            Org::new(config(), RulerLimits { rules_per_group: Some(room), groups: Some(groups) });
        for (id, row) in before {
            org.write(id, row);
        }
        run(&mut org, ops);
        org.quiet();
        org.full_resync();
        org.check_statuses();
        org.confirm();
        org.full_resync();
        org.check_statuses();
    }
}
