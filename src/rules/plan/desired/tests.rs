use super::*;
use crate::mimir::ruler::AlertingRule;
use crate::rules::spec::alert_rule::{MAX_GROUP_BYTES, MAX_INTERVAL};
use proptest::prelude::*;

/// A rule of group and interval in seconds; `id` is also its age.
pub(in crate::rules) fn rule(id: u32, group: &str, seconds: u64) -> AlertRule {
    AlertRule {
        id: Uuid::from_u128(id.into()),
        created: id.into(),
        group: group.to_owned(),
        interval: PromDuration::from_millis(seconds * 1_000),
        rule: AlertingRule {
            alert: format!("alert {id}"),
            expr: "up == 0".to_owned(),
            for_duration: PromDuration::ZERO,
            keep_firing_for: PromDuration::ZERO,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        },
    }
}

/// Names that are made to be mistaken for generated ones.
const HOSTILE: [&str; 10] =
    ["a", "b", "a@30s", "a#2", "a@30s#2", "a@30s~", "a#2~", "a@1m", "a@30s#2~", "a@30s@1m"];

prop_compose! {
    /// Rules with equal ages, of hostile names.
    pub(in crate::rules) fn any_rules(most: usize)(
        of in proptest::collection::vec((0..HOSTILE.len(), 0_usize..3, 0_i64..4, any::<u32>()), 0..most),
    ) -> Vec<AlertRule> {
        let numbered = of.into_iter().zip(1_u32..);
        numbered.map(|((name, interval, created, random), number)| {
            let mut one = rule(number, HOSTILE[name], [30, 60, 90][interval]);
            one.id = Uuid::from_u128(u128::from(random) << 32 | u128::from(number));
            one.created = created;
            one
        }).collect()
    }
}

pub(in crate::rules) fn any_limits() -> impl Strategy<Value = RulerLimits> {
    let any_limit = |most| proptest::option::weighted(0.7, 1_usize..most);
    (any_limit(5), any_limit(12))
        .prop_map(|(rules_per_group, groups)| RulerLimits { rules_per_group, groups })
}

fn shown(desired: &Desired) -> Vec<(&str, u64, Vec<i64>)> {
    let ages = |members: &[AlertRule]| members.iter().map(|member| member.created).collect();
    let shown = |group: &DesiredGroup| group.interval.as_millis() / 1_000;
    let groups = desired.groups.iter();
    groups.map(|group| (group.name.as_str(), shown(group), ages(&group.members))).collect()
}

fn limits(rules_per_group: usize, groups: usize) -> RulerLimits {
    RulerLimits { rules_per_group: Some(rules_per_group), groups: Some(groups) }
}

#[test]
fn a_group_is_what_its_rules_say() {
    let rules = vec![rule(3, "b", 60), rule(2, "a", 30), rule(1, "b", 60)];
    let desired = desired(rules, &limits(20, 70), 0);
    assert_eq!(shown(&desired), [("b", 60, vec![1, 3]), ("a", 30, vec![2])]);
    let group = desired.groups[0].to_group();
    assert_eq!((group.name.as_str(), group.interval.as_millis()), ("b", 60_000));
    assert_eq!(group.rules[1].alert, "alert 3");
}

// Mimir evaluates a group at one interval.
#[test]
fn the_oldest_interval_keeps_the_name() {
    let rules = vec![rule(1, "a", 60), rule(2, "a", 30), rule(3, "a", 60), rule(4, "a", 90)];
    assert_eq!(
        shown(&desired(rules, &RulerLimits::default(), 0)),
        [("a", 60, vec![1, 3]), ("a@30s", 30, vec![2]), ("a@1m30s", 90, vec![4])]
    );
}

#[test]
fn the_oldest_rules_of_a_large_group_stay() {
    let mut rules: Vec<AlertRule> = (1..=5).map(|id| rule(id, "a", 60)).collect();
    rules.extend((6..=8).map(|id| rule(id, "a", 30)));
    assert_eq!(
        shown(&desired(rules, &limits(2, 70), 0)),
        [
            ("a", 60, vec![1, 2]),
            ("a#2", 60, vec![3, 4]),
            ("a#3", 60, vec![5]),
            ("a@30s", 30, vec![6, 7]),
            ("a@30s#2", 30, vec![8]),
        ]
    );
}

#[test]
fn a_name_that_an_author_gave_is_the_authors() {
    let mut rules: Vec<AlertRule> = (1..=3).map(|id| rule(id, "a", 60)).collect();
    rules.extend([rule(4, "a", 30), rule(5, "a#2", 60), rule(6, "a@30s", 60), rule(7, "a#2~", 90)]);
    assert_eq!(
        shown(&desired(rules, &limits(2, 70), 0)),
        [
            ("a", 60, vec![1, 2]),
            ("a#2~~", 60, vec![3]),
            ("a@30s~", 30, vec![4]),
            ("a#2", 60, vec![5]),
            ("a@30s", 60, vec![6]),
            ("a#2~", 90, vec![7]),
        ]
    );
}

#[test]
fn the_oldest_groups_stay_within_the_limit_on_groups() {
    let rules = || vec![rule(1, "a", 60), rule(2, "b", 60), rule(3, "c", 60), rule(4, "a", 60)];
    let fitting = desired(rules(), &limits(20, 3), 1);
    assert_eq!(shown(&fitting), [("a", 60, vec![1, 4]), ("b", 60, vec![2])]);
    assert_eq!(fitting.over_limit, [rule(3, "c", 60)]);
    for others in [3, 4] {
        let none = desired(rules(), &limits(20, 3), others);
        assert_eq!((none.groups.len(), none.over_limit.len()), (0, 4));
    }
}

// `-ruler.max-rule-groups-per-tenant=0` switches the limit off.
#[test]
fn a_limit_of_zero_is_none() {
    let rules = (1..=100).map(|id| rule(id, "a", id.into())).collect();
    let desired = desired(rules, &limits(0, 0), 100);
    assert_eq!((desired.groups.len(), desired.over_limit.len()), (100, 0));
}

// Mimir's file store names a file after the group, in base64: 255 bytes hold 189.
#[test]
fn generated_names_fit_into_a_file_name() {
    let longest = "x".repeat(MAX_GROUP_BYTES);
    let odd = PromDuration::from_millis(MAX_INTERVAL.as_millis() - 1);
    let mut rules = vec![rule(0, &longest, 60)];
    rules.extend((1..=1_000).map(|id| AlertRule { interval: odd, ..rule(id, &longest, 60) }));
    let desired = desired(rules, &limits(1, 2_000), 0);
    let names = desired.groups.iter().map(|group| group.name.len());
    assert_eq!(names.max(), Some(150 + "@23h59m59s999ms#1000".len()));
    assert!(150 + "@23h59m59s999ms#1000~~~".len() < 189);
}

fn places(desired: &Desired) -> BTreeMap<Uuid, &str> {
    let mut places = BTreeMap::new();
    for group in &desired.groups {
        places.extend(group.members.iter().map(|member| (member.id, group.name.as_str())));
    }
    places
}

proptest! {
    #[test]
    fn every_rule_is_in_one_group_or_over_the_limit(
        rules in any_rules(40), limits in any_limits(), others in 0_usize..6,
    ) {
        let desired = desired(rules.clone(), &limits, others);
        let mut found: Vec<AlertRule> = desired.over_limit.clone();
        for group in &desired.groups {
            prop_assert!(!group.members.is_empty());
            prop_assert!(group.members.len() <= limits.rules_per_group.unwrap_or(usize::MAX));
            prop_assert!(group.members.iter().all(|member| member.interval == group.interval));
            found.extend_from_slice(&group.members);
        }
        let mut given = rules;
        given.sort_by(by_age);
        found.sort_by(by_age);
        prop_assert_eq!(found, given);
        if let Some(limit) = limits.groups {
            prop_assert!(desired.groups.len() <= limit.saturating_sub(others));
            prop_assert!(desired.over_limit.is_empty() || desired.groups.len() + others >= limit);
        }
    }

    #[test]
    fn the_order_of_rows_does_not_matter(
        (rules, shuffled) in any_rules(30).prop_flat_map(|rules| (Just(rules.clone()), Just(rules).prop_shuffle())),
        limits in any_limits(),
    ) {
        prop_assert_eq!(desired(rules, &limits, 2), desired(shuffled, &limits, 2));
    }

    // Even two rows of one ID and age.
    #[test]
    fn the_order_of_equal_ids_does_not_matter(mut rules in any_rules(10), limits in any_limits()) {
        for rule in &mut rules {
            (rule.id, rule.created) = (Uuid::nil(), 0);
        }
        let mut reversed = rules.clone();
        reversed.reverse();
        prop_assert_eq!(desired(rules, &limits, 0), desired(reversed, &limits, 0));
    }

    #[test]
    fn names_never_collide_and_authors_keep_theirs(rules in any_rules(40), most in 1_usize..4) {
        let limits = RulerLimits { rules_per_group: Some(most), groups: None };
        let desired = desired(rules.clone(), &limits, 0);
        let names: BTreeMap<&str, &DesiredGroup> =
            desired.groups.iter().map(|group| (group.name.as_str(), group)).collect();
        prop_assert_eq!(names.len(), desired.groups.len());
        for rule in &rules {
            let named = names[rule.group.as_str()];
            prop_assert!(named.members.iter().all(|member| member.group == rule.group));
            let oldest = rules.iter().filter(|other| other.group == rule.group).map(age).min();
            prop_assert_eq!(named.members.first().map(age), oldest);
        }
    }

    #[test]
    fn the_rules_over_the_limit_are_the_groups_that_began_last(rules in any_rules(40), most in 1_usize..4, groups in 1_usize..6) {
        let desired = desired(rules, &limits(most, groups), 0);
        let begins = desired.groups.iter().filter_map(|group| group.members.first().map(age)).max();
        prop_assert!(desired.over_limit.iter().all(|over| Some(age(over)) > begins));
    }

    #[test]
    fn a_newer_rule_moves_no_other(rules in any_rules(40), at in any::<prop::sample::Index>(), interval in 0_u64..4, most in 1_usize..4) {
        prop_assume!(!rules.is_empty());
        let limits = RulerLimits { rules_per_group: Some(most), groups: None };
        let newer = AlertRule { created: 100, ..rule(1_000, &at.get(&rules).group, 30 * (interval + 1)) };
        let before = desired(rules.clone(), &limits, 0);
        let after = desired(rules.into_iter().chain([newer.clone()]).collect(), &limits, 0);
        let (before, mut after) = (places(&before), places(&after));
        after.remove(&newer.id);
        prop_assert_eq!(before, after);
    }

    // Rows whose creation an operator's query gives otherwise, or that are switched on again.
    #[test]
    fn an_older_rule_moves_one_of_each_later_chunk(count in 0_u32..30, at in 0_u32..30, most in 1_usize..5) {
        let limits = RulerLimits { rules_per_group: Some(most), groups: None };
        let rules: Vec<AlertRule> = (0..count).map(|id| rule(2 * id, "a", 60)).collect();
        let before = desired(rules.clone(), &limits, 0);
        let after = desired(rules.into_iter().chain([rule(2 * at + 1, "a", 60)]).collect(), &limits, 0);
        let (before, after) = (places(&before), places(&after));
        let mut moved: BTreeMap<&str, usize> = BTreeMap::new();
        for (id, name) in before {
            if after[&id] != name {
                *moved.entry(name).or_default() += 1;
            }
        }
        prop_assert!(moved.values().all(|moved| *moved == 1), "{:?}", moved);
    }
}
