use super::*;
use crate::labels::RuleState;
use crate::mimir::ruler::{Listed, RulerLimits};
use crate::rules::plan::Wanted;
use crate::rules::plan::desired::desired;
use crate::rules::plan::desired::tests::rule;
use crate::rules::status::statuses::RuleStatus;

/// A deletion of rules with and without tombstones, of `observed` rules.
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
    groups.iter().map(crate::rules::plan::diff::tests::stored).collect()
}

/// As an earlier version of the proxy wrote them, or somebody else.
fn nameless(mut groups: Vec<StoredGroup>) -> Vec<StoredGroup> {
    for rule in groups.iter_mut().flat_map(|group| &mut group.rules) {
        let StoredRule::Alerting(rule) = rule else { panic!("{rule:?}") };
        rule.annotations.clear();
    }
    groups
}

fn in_mimir(rules: &[AlertRule]) -> RuleStatuses {
    let of = |rule: &AlertRule| {
        let rule_hash = Some(rule.hash());
        let status = RuleStatus::new(RuleState::Stored, "", rule_hash);
        (rule.id, status)
    };
    rules.iter().map(of).collect()
}

/// The rules that would be deleted, by name and reason, if Mimir has `before` and the rows ask for `now`.
fn vanishing(
    before: &[AlertRule],
    now: &[AlertRule],
    in_mimir: &RuleStatuses,
    deleted: &[Uuid],
) -> Vec<(String, String)> {
    vanishing_of(stored(before.to_vec()), now, in_mimir, deleted)
}

fn vanishing_of(
    before: Vec<StoredGroup>,
    now: &[AlertRule],
    in_mimir: &RuleStatuses,
    deleted: &[Uuid],
) -> Vec<(String, String)> {
    let observed: usize = before.iter().map(|group| group.rules.len()).sum();
    let listed = Listed { ours: before, others: 0, digest: [0; 32] };
    let wanted = Wanted {
        desired: desired(now.to_vec(), &RulerLimits::default(), 0),
        quarantined: Vec::new(),
    };
    let plan = Plan::new(wanted, &listed, &|_, _| false);
    let parsed = ParsedRows { enabled: now.to_vec(), ..ParsedRows::default() };
    let tombstones: Tombstones = deleted.iter().map(|rule| (*rule, "now".to_owned())).collect();
    let vanishing = attribute(&plan, &parsed, in_mimir, &tombstones).vanishing;
    assert_eq!(vanishing.removal().observed, observed);
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
    for in_mimir in [in_mimir(&before), RuleStatuses::new()] {
        assert_eq!(vanishing(&before, &now, &in_mimir, &[]), []);
    }
}

#[test]
fn a_row_that_is_gone_is_missed_or_was_deleted() {
    let before = [rule(1, "a", 60), rule(2, "a", 60), rule(3, "a@30s", 30)];
    let now = [rule(2, "a", 60)];
    let why = |before: Vec<StoredGroup>, rules: &RuleStatuses| {
        let all = vanishing_of(before, &now, rules, &[rule(1, "a", 60).id]);
        all.into_iter().map(|(name, why)| format!("{name}: {why}")).collect::<Vec<_>>()
    };
    // The statuses may have gone with the rows to another organisation; each rule names its row.
    for statuses in [in_mimir(&before), RuleStatuses::new()] {
        assert_eq!(
            why(stored(before.to_vec()), &statuses),
            [
                "alert 1: its row was deleted",
                "alert 3: its row is missing, and there is no record of a deletion"
            ]
        );
    }
    // Without both nothing is explained.
    let unknown = why(nameless(stored(before.to_vec())), &RuleStatuses::new());
    assert!(
        unknown.iter().all(|why| why.ends_with("it is unknown to the database")),
        "{unknown:?}"
    );
    assert_eq!(unknown.len(), 2);
}

// A leader that ends right after Mimir was written leaves no status; the row is edited meanwhile.
#[test]
fn versions_without_a_status_are_those_of_the_rows_that_they_name() {
    let renamed = |id| AlertRule {
        rule: AlertingRule { alert: "new name".to_owned(), ..edited(id, "a", 60).rule },
        ..rule(id, "a", 60)
    };
    let before = [rule(1, "a", 60), rule(2, "a", 60)];
    let now = [renamed(1), rule(2, "a", 60)];
    assert_eq!(vanishing(&before, &now, &RuleStatuses::new(), &[]), []);
    // The rule that was deleted and inserted again is there under its new row.
    let after = [AlertRule { id: Uuid::from_u128(7), ..edited(2, "a", 60) }];
    assert_eq!(vanishing(&before[1..], &after, &RuleStatuses::new(), &[before[1].id]), []);
}

// Somebody has copied a rule of ours with its annotation, and changed the copies: they are missed.
#[test]
fn of_several_rules_that_name_one_row_one_is_its_version() {
    let copy = |name: &str| {
        let mut copy = edited(1, "copies", 60);
        copy.rule.alert = name.to_owned();
        copy
    };
    let observed = [rule(1, "a", 60), copy("x"), copy("y")];
    for (in_mimir, deleted) in
        [(in_mimir(&observed[..1]), vec![]), (RuleStatuses::new(), vec![observed[0].id])]
    {
        assert_eq!(vanishing(&observed, &observed[..1], &in_mimir, &deleted).len(), 2);
        assert_eq!(vanishing(&observed, &[], &in_mimir, &deleted).len(), 3);
    }
}

// One of two rules with the same content loses its row: exactly that one would be deleted.
#[test]
fn of_two_equal_rules_the_one_without_a_row_is_deleted() {
    let mut twin = rule(2, "a", 60);
    twin.rule.alert = "alert 1".to_owned();
    let before = [rule(1, "a", 60), twin];
    let gone = vanishing(&before, &before[..1], &in_mimir(&before), &[]);
    assert_eq!(gone.len(), 1, "{gone:?}");
}

// Deleted and inserted again under another identifier, as some applications save.
#[test]
fn a_row_that_was_replaced_by_one_of_its_name_is_an_update() {
    let before = [rule(1, "a", 60)];
    let mut now = edited(7, "a", 60);
    now.rule.alert = "alert 1".to_owned();
    assert_eq!(vanishing(&before, &[now.clone()], &in_mimir(&before), &[before[0].id]), []);
    // Without a tombstone: rows were swapped.
    assert_eq!(vanishing(&before, &[now], &in_mimir(&before), &[]).len(), 1);
}

#[test]
fn a_status_without_a_rule_in_mimir_is_not_missed() {
    let before = [rule(1, "a", 60)];
    let forged = in_mimir(&[rule(1, "a", 60), rule(2, "a", 60)]);
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

// Several rules of one name are common, one for each severity. The name alone does not make one a version
// of another: if the row and the status are lost (a restored backup), the rule is missed.
#[test]
fn a_rule_of_the_name_of_one_that_is_there_is_missed() {
    let mut namesake = edited(2, "a", 60);
    namesake.rule.alert = "alert 1".to_owned();
    let before = [rule(1, "a", 60), namesake];
    let in_mimir = in_mimir(&before[..1]);
    let gone = |observed| vanishing_of(observed, &before[..1], &in_mimir, &[]);
    let missing = "its row is missing, and there is no record of a deletion";
    let alert = "alert 1".to_owned();
    assert_eq!(gone(stored(before.to_vec())), [(alert.clone(), missing.to_owned())]);
    let unknown = "it is unknown to the database".to_owned();
    assert_eq!(gone(nameless(stored(before.to_vec()))), [(alert, unknown)]);
}

// Somebody replaced a group of ours. Ours is written again, and replaces as many unknown rules as it has
// itself. Without statuses this may be another database, and the deletion is held.
#[test]
fn a_group_that_was_written_over_is_put_back() {
    let (ours, theirs) = ([rule(1, "a", 60)], [rule(7, "a", 60), rule(8, "a", 60)]);
    let gone = |theirs: &[AlertRule], now: &[AlertRule], in_mimir: &RuleStatuses| {
        vanishing_of(nameless(stored(theirs.to_vec())), now, in_mimir, &[]).len()
    };
    assert_eq!(gone(&theirs[..1], &ours, &in_mimir(&ours)), 0);
    assert_eq!(gone(&theirs, &ours, &in_mimir(&ours)), 1);
    assert_eq!(gone(&theirs[..1], &ours, &RuleStatuses::new()), 1);
    // They name rows: of another database.
    assert_eq!(vanishing(&theirs[..1], &ours, &in_mimir(&ours), &[]).len(), 1);
    // In a group with a known rule, an unknown one is a rule whose row and status are lost.
    let beside = [rule(1, "a", 60), rule(7, "a", 60)];
    let now = [rule(1, "a", 60), rule(2, "a", 60)];
    assert_eq!(gone(&beside, &now, &in_mimir(&now)), 1);
}

/// The rows that the rules of the first group are taken for, and whether each is exact.
fn recognised(observed: StoredGroup, now: &[AlertRule]) -> Vec<(Option<Uuid>, bool)> {
    let name = observed.name.clone();
    let listed = Listed { ours: vec![observed], others: 0, digest: [0; 32] };
    let wanted = Wanted {
        desired: desired(now.to_vec(), &RulerLimits::default(), 0),
        quarantined: Vec::new(),
    };
    let plan = Plan::new(wanted, &listed, &|_, _| false);
    let parsed = ParsedRows { enabled: now.to_vec(), ..ParsedRows::default() };
    let attribution = attribute(&plan, &parsed, &in_mimir(now), &Tombstones::new());
    attribution.entries[&name].iter().map(|entry| (entry.rule, entry.is_exact)).collect()
}

// Two rules of one content: their results are told apart by the row that each names, so each is found by it.
#[test]
fn of_equal_rules_each_is_found_by_the_row_that_it_names() {
    let twins = [1, 2, 3].map(|id| {
        let mut twin = rule(id, "a", 60);
        twin.rule.alert = "twin".to_owned();
        twin
    });
    let mut observed = stored(twins.to_vec()).remove(0);
    observed.rules.swap(0, 2);
    let found = recognised(observed.clone(), &twins);
    assert_eq!(found, [2, 1, 0].map(|at: usize| (Some(twins[at].id), true)));
    // The third row is new; the rule stands for it, and names a row that is gone.
    let new = AlertRule { id: Uuid::from_u128(9), ..twins[0].clone() };
    let found = recognised(observed, &[twins[1].clone(), twins[2].clone(), new.clone()]);
    assert_eq!(found[2], (Some(new.id), false), "Mimir has it as another row's");
}

// As an earlier version wrote it: Mimir evaluates it as the row says.
#[test]
fn a_rule_that_names_no_row_is_as_its_row_says() {
    let rows = [rule(1, "a", 60), rule(2, "a", 60)];
    let observed = nameless(stored(rows.to_vec())).remove(0);
    assert_eq!(recognised(observed, &rows), rows.map(|row| (Some(row.id), true)));
}
