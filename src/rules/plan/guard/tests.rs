use super::*;
use proptest::prelude::*;

fn removal(observed: usize, remaining: usize, explained: usize, missing: usize) -> Removal {
    Removal { observed, remaining, explained, missing }
}

fn verdict(removal: Removal) -> Verdict {
    judge(&removal, &GuardConfig::default())
}

fn is_held(removal: Removal) -> bool {
    verdict(removal) != Verdict::Pass
}

// Deleting a rule, or a few of many, is everyday work and leaves its trace.
#[test]
fn explained_deletions_pass() {
    assert!(!is_held(removal(1, 0, 1, 0)));
    assert!(!is_held(removal(10, 0, 10, 0)));
    assert!(!is_held(removal(19, 0, 19, 0)));
    assert!(!is_held(removal(100, 60, 40, 0)));
}

#[test]
fn an_empty_table_is_held() {
    assert_eq!(
        verdict(removal(3, 0, 0, 3)),
        Verdict::Hold(HoldReason::Missing { unexplained: 3, observed: 3 })
    );
    assert!(is_held(removal(1, 0, 0, 1)));
}

#[test]
fn rows_swapped_for_others_are_held() {
    assert!(is_held(removal(10, 10, 0, 10)));
}

#[test]
fn half_of_many_rules_are_held_even_when_explained() {
    assert_eq!(
        verdict(removal(40, 20, 20, 0)),
        Verdict::Hold(HoldReason::Tenant { vanished: 20, observed: 40 })
    );
    assert!(!is_held(removal(38, 19, 19, 0)));
    assert!(!is_held(removal(41, 21, 20, 0)));
}

#[test]
fn few_missing_of_many_pass() {
    assert!(!is_held(removal(4, 3, 0, 1)));
    assert!(is_held(removal(3, 2, 0, 1)));
}

#[test]
fn little_from_each_is_seen_over_all() {
    let config = GuardConfig::default();
    let each = removal(10, 8, 2, 0);
    assert_eq!(judge(&each, &config), Verdict::Pass);
    assert_eq!(
        judge_overall(&[each; 25], &config),
        Verdict::Hold(HoldReason::Overall { vanished: 50, observed: 250 })
    );
    assert_eq!(judge_overall(&[each; 24], &config), Verdict::Pass);
    // Swapped for as many others, too.
    let each = removal(10, 10, 0, 2);
    assert_eq!(judge(&each, &config), Verdict::Pass);
    assert_ne!(judge_overall(&[each; 25], &config), Verdict::Pass);
}

#[test]
fn nothing_left_of_anything_is_held_whatever_the_counts() {
    let config = GuardConfig { overall_count: 1_000, ..GuardConfig::default() };
    assert_eq!(
        judge_overall(&[removal(2, 0, 0, 2), removal(1, 0, 0, 1)], &config),
        Verdict::Hold(HoldReason::Everything { observed: 3 })
    );
    assert_eq!(judge_overall(&[removal(2, 0, 0, 2), removal(1, 0, 1, 0)], &config), Verdict::Pass);
    assert_eq!(judge_overall(&[], &config), Verdict::Pass);
}

#[test]
fn reasons_are_words_with_numbers() {
    let words = |reason: HoldReason| reason.to_string();
    assert_eq!(
        words(HoldReason::Missing { unexplained: 2, observed: 3 }),
        "2 of 3 rules would be deleted, and the database has no record of their deletion"
    );
    assert_eq!(
        words(HoldReason::Tenant { vanished: 20, observed: 40 }),
        "20 of 40 rules would be deleted at once"
    );
    assert_eq!(
        words(HoldReason::Overall { vanished: 50, observed: 250 }),
        "50 of the 250 rules of all organisations would be deleted at once"
    );
    assert_eq!(
        words(HoldReason::Everything { observed: 9 }),
        "all 9 rules of all organisations would be deleted, and the database has no record of their deletion"
    );
}

#[test]
fn a_share_that_is_no_number_holds() {
    let config = GuardConfig { missing_share: f64::NAN, ..GuardConfig::default() };
    assert!(judge(&removal(100, 99, 0, 1), &config) != Verdict::Pass);
}

prop_compose! {
    fn any_config()(
        counts in proptest::array::uniform3(0_usize..30),
        shares in proptest::array::uniform3(0.0..=1.0_f64),
    ) -> GuardConfig {
        GuardConfig {
            tenant_count: counts[0],
            tenant_share: shares[0],
            missing_count: counts[1],
            missing_share: shares[1],
            overall_count: counts[2],
            overall_share: shares[2],
        }
    }
}

fn any_removal() -> impl Strategy<Value = Removal> {
    let any_count = || prop_oneof![4 => 0_usize..40, 1 => any::<usize>()];
    (any_count(), any_count(), any_count(), any_count()).prop_map(
        |(observed, remaining, explained, missing)| {
            removal(observed, remaining, explained, missing)
        },
    )
}

/// The same tenant, with more gone.
fn worse(of: Removal, by: [usize; 3]) -> Removal {
    removal(
        of.observed,
        of.remaining.saturating_sub(by[0]),
        of.explained.saturating_sub(by[1]),
        of.missing.saturating_add(by[2]),
    )
}

proptest! {
    #[test]
    fn more_removed_never_passes_what_was_held(
        removals in proptest::collection::vec(any_removal(), 1..5),
        by in proptest::collection::vec(proptest::array::uniform3(0_usize..10), 5),
        config in any_config(),
    ) {
        let worse: Vec<Removal> = removals.iter().zip(by).map(|(of, by)| worse(*of, by)).collect();
        for (one, worse) in removals.iter().zip(&worse) {
            if judge(one, &config) != Verdict::Pass {
                prop_assert_ne!(judge(worse, &config), Verdict::Pass);
            }
        }
        if judge_overall(&removals, &config) != Verdict::Pass {
            prop_assert_ne!(judge_overall(&worse, &config), Verdict::Pass);
        }
    }

    #[test]
    fn where_nothing_is_deleted_nothing_is_held(
        observed in any::<usize>(),
        new in any::<usize>(),
        explained in any::<usize>(),
        config in any_config(),
    ) {
        let grown = removal(observed, observed.saturating_add(new), explained, 0);
        prop_assert_eq!(judge(&grown, &config), Verdict::Pass);
        prop_assert_eq!(judge_overall(&[grown; 3], &config), Verdict::Pass);
    }
}
