use super::*;
use crate::mimir::ruler::{Listed, RulerLimits};
use crate::rules::desired::desired;
use crate::rules::desired::tests::rule;
use crate::rules::plan::Wanted;
use crate::rules::statuses::Kept;
use crate::store::RuleState;

/// Of so many rules so many were deleted, and so many are missed.
pub(in crate::rules) fn losing(deleted: usize, missing: usize, observed: usize) -> Vanishing {
    let gone = |why, number: usize| {
        let gone = Gone { alert: format!("A{number}"), group: "default".to_owned(), why };
        (format!("{why:?} {number}"), gone)
    };
    let deleted = (0..deleted).map(|number| gone(Why::Deleted, number));
    let missing = (0..missing).map(|number| gone(Why::Missing, number));
    Vanishing { rules: deleted.chain(missing).collect(), observed }
}

fn stored(rules: Vec<AlertRule>) -> Vec<StoredGroup> {
    let groups = desired(rules, &RulerLimits::default(), 0).groups;
    groups
        .iter()
        .map(|group| {
            let group = group.to_group();
            StoredGroup {
                name: group.name,
                interval: Some(group.interval),
                rules: group.rules.into_iter().map(StoredRule::Alerting).collect(),
                says_more: false,
            }
        })
        .collect()
}

fn kept(rules: &[AlertRule]) -> KeptStatuses {
    let of = |rule: &AlertRule| {
        let live_hash = Some(rule.hash());
        let kept = Kept {
            state: RuleState::Live,
            reason: String::new(),
            live_hash,
            other_hashes: Vec::new(),
            refused_hash: None,
        };
        (rule.id, kept)
    };
    rules.iter().map(of).collect()
}

/// What vanishes, by name and reason, where Mimir has `before` and the rows say `now`.
fn vanishing(
    before: &[AlertRule],
    now: &[AlertRule],
    kept: &KeptStatuses,
    deleted: &[Uuid],
) -> Vec<(String, String)> {
    let listed = Listed { ours: stored(before.to_vec()), others: 0, digest: [0; 32] };
    let wanted = Wanted {
        desired: desired(now.to_vec(), &RulerLimits::default(), 0),
        quarantined: Vec::new(),
    };
    let plan = Plan::new(wanted, &listed, &|_, _| false);
    let parsed = ParsedRows { enabled: now.to_vec(), ..ParsedRows::default() };
    let tombstones = deleted.iter().map(|rule| (*rule, "now".to_owned())).collect();
    let vanishing = attribute(&plan, &parsed, kept, &tombstones).vanishing;
    assert_eq!(vanishing.removal().observed, before.len());
    vanishing.rules().into_iter().map(|rule| (rule.name, rule.why)).collect()
}

fn edited(id: u32, group: &str, seconds: u64) -> AlertRule {
    let mut rule = rule(id, group, seconds);
    rule.rule.expr = "up == 1".to_owned();
    rule
}

#[test]
fn an_edit_a_move_and_a_new_interval_delete_nothing() {
    let before = [rule(1, "a", 60), rule(2, "a", 60), rule(3, "a", 60), rule(4, "a@30s", 60)];
    let now = [rule(1, "b", 60), edited(2, "c", 30), edited(3, "a", 60), rule(4, "d", 60)];
    for kept in [kept(&before), KeptStatuses::new()] {
        assert_eq!(vanishing(&before, &now, &kept, &[]), []);
    }
}

#[test]
fn a_row_that_is_gone_is_missed_or_was_deleted() {
    let before = [rule(1, "a", 60), rule(2, "a", 60), rule(3, "a@30s", 30)];
    let now = [rule(2, "a", 60)];
    let why = |rules: &KeptStatuses| {
        let all = vanishing(&before, &now, rules, &[before[0].id]);
        all.into_iter().map(|(name, why)| format!("{name}: {why}")).collect::<Vec<_>>()
    };
    assert_eq!(
        why(&kept(&before)),
        [
            "alert 1: its row was deleted",
            "alert 3: its row is gone, and nothing says that it was deleted"
        ]
    );
    // Where nothing is known to be live nothing is explained.
    let unknown = why(&KeptStatuses::new());
    assert!(
        unknown.iter().all(|why| why.ends_with("the database does not know it")),
        "{unknown:?}"
    );
    assert_eq!(unknown.len(), 2);
}

// Of two rules that say the same one is gone: that one vanishes, and the name of the deletion is its own.
#[test]
fn of_two_that_say_the_same_the_one_without_a_row_vanishes() {
    let mut twin = rule(2, "a", 60);
    twin.rule.alert = "alert 1".to_owned();
    let before = [rule(1, "a", 60), twin];
    let gone = vanishing(&before, &before[..1], &kept(&before), &[]);
    assert_eq!(gone.len(), 1, "{gone:?}");
}

// Deleted and inserted again under another identifier, as some applications save.
#[test]
fn a_row_that_was_replaced_by_one_of_its_name_is_an_update() {
    let before = [rule(1, "a", 60)];
    let mut now = edited(7, "a", 60);
    now.rule.alert = "alert 1".to_owned();
    assert_eq!(vanishing(&before, &[now.clone()], &kept(&before), &[before[0].id]), []);
    // Nothing says that it was deleted: rows were swapped.
    assert_eq!(vanishing(&before, &[now], &kept(&before), &[]).len(), 1);
}

#[test]
fn a_status_of_what_mimir_has_not_is_missed_by_nobody() {
    let before = [rule(1, "a", 60)];
    let forged = kept(&[rule(1, "a", 60), rule(2, "a", 60)]);
    assert_eq!(vanishing(&before, &before, &forged, &[]), []);
}

#[test]
fn generated_names_lead_back_to_what_the_author_wrote() {
    for (group, name) in [
        ("cpu", "cpu"),
        ("cpu#2", "cpu"),
        ("cpu@30s", "cpu"),
        ("cpu@30s#2~", "cpu"),
        ("a#2~~", "a"),
    ] {
        assert!(plain_names(group).contains(&name), "{group}");
        assert!(plain_names(group).contains(&group));
    }
    assert!(!plain_names("cpu").contains(&"c"));
}

#[test]
fn a_long_list_is_cut() {
    assert_eq!(name_some(&["A"]), "A");
    assert_eq!(name_some(&["A", "B", "C", "D", "E"]), "A, B, C and 2 more");
}

// Rules of one alert's name are common, one for each severity. The name alone does not make one a version
// of another: where row and status are gone (a restored backup), the rule is missed.
#[test]
fn a_rule_of_the_name_of_one_that_is_there_is_missed() {
    let mut namesake = edited(2, "a", 60);
    namesake.rule.alert = "alert 1".to_owned();
    let before = [rule(1, "a", 60), namesake];
    let gone = vanishing(&before, &before[..1], &kept(&before[..1]), &[]);
    assert_eq!(gone, [("alert 1".to_owned(), "the database does not know it".to_owned())]);
}

// Somebody has written over a group of ours: ours is put back, and no more of theirs goes unasked than
// ours were. Without a status nothing says that ours was there: then it may be another database.
#[test]
fn a_group_that_was_written_over_is_put_back() {
    let ours = [rule(1, "a", 60)];
    let theirs = [rule(7, "a", 60), rule(8, "a", 60)];
    assert_eq!(vanishing(&theirs[..1], &ours, &kept(&ours), &[]), []);
    assert_eq!(vanishing(&theirs, &ours, &kept(&ours), &[]).len(), 1);
    assert_eq!(vanishing(&theirs[..1], &ours, &KeptStatuses::new(), &[]).len(), 1);
    // Beside one that is known another is a rule whose row and status are lost.
    let beside = [rule(1, "a", 60), rule(7, "a", 60)];
    let now = [rule(1, "a", 60), rule(2, "a", 60)];
    assert_eq!(vanishing(&beside, &now, &kept(&now), &[]).len(), 1);
}
