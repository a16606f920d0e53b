//! Rows become rules, or are refused.

mod faults;

use super::*;
use crate::store::Excess;
use crate::tenancy::OrganisationId;
use proptest::prelude::*;

fn row() -> AlertRuleRow {
    AlertRuleRow {
        id: Uuid::from_u128(1),
        organisation: OrganisationId::parse("acme").unwrap(),
        name: text("HighCpu"),
        expr: text("cpu > 0.9"),
        for_duration: None,
        keep_firing_for: None,
        rule_group: None,
        evaluation_interval: None,
        labels: None,
        annotations: None,
        enabled: None,
        created_at_micros: Some(7),
        excess: Excess::None,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "columns may be empty")]
fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn enabled(row: &AlertRuleRow) -> AlertRule {
    match parse(row, &RuleDefaults::default()) {
        Ok(Parsed::Enabled(rule)) => rule,
        other => panic!("{row:?}: {other:?}"),
    }
}

fn faults(change: impl Fn(&mut AlertRuleRow)) -> String {
    let mut row = row();
    change(&mut row);
    parse(&row, &RuleDefaults::default())
        .map_or_else(|refusals| refusals.to_string(), |_| String::new())
}

#[test]
fn absent_columns_have_defaults() {
    let mut row = row();
    for empty in [None, text(""), text("  ")] {
        row.for_duration.clone_from(&empty);
        row.keep_firing_for.clone_from(&empty);
        row.rule_group.clone_from(&empty);
        row.evaluation_interval.clone_from(&empty);
        row.labels.clone_from(&empty);
        row.annotations.clone_from(&empty);
        row.enabled.clone_from(&empty);
        let rule = enabled(&row);
        assert_eq!((rule.id, rule.created, rule.group.as_str()), (row.id, 7, "default"));
        assert_eq!(rule.interval, RuleDefaults::default().interval);
        assert!(rule.rule.for_duration.is_zero() && rule.rule.keep_firing_for.is_zero());
        assert!(rule.rule.labels.is_empty() && rule.rule.annotations.is_empty());
    }
    row.created_at_micros = None;
    assert_eq!(enabled(&row).created, i64::MIN);
}

#[test]
fn every_column_is_read() {
    let rule = enabled(&AlertRuleRow {
        name: text(" High CPU \u{feff}"),
        expr: text("\u{feff}\n  sum(cpu)\r\n  > 0.9\t\n"),
        for_duration: text("5m"),
        keep_firing_for: text("300s"),
        rule_group: text(" cpu/all "),
        evaluation_interval: text("30s"),
        labels: text(r#"{"severity": "page", "team": "{{ $labels.team }}", "job": ""}"#),
        annotations: text(r#"{"summary": "line\none", "__dashboardUid__": "x"}"#),
        enabled: text("t"),
        ..row()
    });
    assert_eq!((rule.group.as_str(), rule.interval.as_millis()), ("cpu/all", 30_000));
    let rule = rule.rule;
    assert_eq!((rule.alert.as_str(), rule.expr.as_str()), ("High CPU", "sum(cpu)\n  > 0.9"));
    assert_eq!(rule.for_duration, rule.keep_firing_for);
    assert_eq!(rule.labels["team"], "{{ $labels.team }}");
    assert_eq!(rule.labels["job"], "");
    assert_eq!(rule.annotations["summary"], "line\none");
    assert_eq!(rule.annotations["__dashboardUid__"], "x");
}

// Whoever's query gives numbers must not be told to quote them: jsonb has them as they are.
#[test]
fn numbers_and_booleans_are_labels_as_they_are_written() {
    let labels = text(r#"{"a": 1, "b": 1.50, "c": true, "d": -2e3, "e": 123456789012345678901}"#);
    let rule = enabled(&AlertRuleRow { labels, ..row() }).rule;
    let values: Vec<&str> = rule.labels.values().map(String::as_str).collect();
    assert_eq!(values, ["1", "1.50", "true", "-2e3", "123456789012345678901"]);
}

#[test]
fn of_two_equal_names_the_last_counts() {
    let labels = text(r#"{"a": "1", "a": "2"}"#);
    assert_eq!(enabled(&AlertRuleRow { labels, ..row() }).rule.labels["a"], "2");
}

#[test]
fn a_row_is_switched_off_in_any_spelling_of_postgres_and_not_looked_at() {
    for off in ["false", "f", "FALSE", "off", "no", "n", "0", " false "] {
        let row = AlertRuleRow { enabled: text(off), name: None, expr: None, ..row() };
        assert_eq!(parse(&row, &RuleDefaults::default()), Ok(Parsed::Disabled), "{off}");
    }
    assert_eq!(
        faults(|row| row.enabled = text("maybe")),
        r#"enabled: is "maybe"; should be true or false"#
    );
}

#[test]
fn all_faults_of_a_row_are_told_at_once() {
    let told = faults(|row| {
        row.name = text(" ");
        row.expr = None;
        row.for_duration = text("00:05:00");
        row.labels = text(r#"{"a-b": "x", "ok": null}"#);
    });
    assert_eq!(
        told,
        "name: is empty; name the alert; \
         expr: is empty; write a PromQL expression; \
         for_duration: \"00:05:00\" is no duration; write for example 30s, 5m or 1h30m; \
         labels: label \"a-b\" is not a valid name; use letters, digits and _, and do not start with a digit; \
         labels: label \"ok\" is null; give it a string or leave it out"
    );
}

#[test]
fn labels_and_annotations_are_bounded_in_number_and_together() {
    let object = |count: usize, value: &str| {
        let pairs: Vec<String> = (0..count).map(|n| format!(r#""n{n}": "{value}""#)).collect();
        Some(format!("{{{}}}", pairs.join(",")))
    };
    assert_eq!(faults(|row| row.labels = object(64, "")), "");
    assert_eq!(faults(|row| row.labels = object(65, "")), "labels: are 65; at most 64");
    assert_eq!(
        faults(|row| row.annotations = object(5, &"x".repeat(16_000))),
        "annotations: and labels are 80010 bytes together; at most 65536"
    );
    let name = "n".repeat(1_025);
    let told = faults(|row| row.labels = Some(format!(r#"{{"{name}": ""}}"#)));
    assert!(told.ends_with("…\" has a name of 1025 bytes; at most 1024"), "{told}");
}

#[test]
fn spellings_of_one_rule_have_one_hash() {
    let one = AlertRuleRow {
        for_duration: text("300s"),
        evaluation_interval: text("60s"),
        labels: text(r#"{"a": "1", "b": "2"}"#),
        ..row()
    };
    let other = AlertRuleRow {
        id: Uuid::from_u128(2),
        created_at_micros: None,
        for_duration: text("5m"),
        evaluation_interval: text("1m"),
        labels: text(r#"{"b": 2, "a": 1}"#),
        rule_group: text("default"),
        ..row()
    };
    assert_eq!(enabled(&one).hash(), enabled(&other).hash());
    assert_eq!(enabled(&one).hash().len(), 64);
}

#[test]
fn texts_that_only_divide_otherwise_have_other_hashes() {
    let of = |name, expr, labels| {
        enabled(&AlertRuleRow { name: text(name), expr: text(expr), labels: text(labels), ..row() })
            .hash()
    };
    assert_ne!(of("ab", "c", ""), of("a", "bc", ""));
    assert_ne!(of("a", "b", r#"{"cd": "e"}"#), of("a", "b", r#"{"c": "de"}"#));
}

// It is stored beside each rule's status; a change of encoding would make every status be written.
#[test]
fn hashes_stay_over_versions() {
    assert_eq!(
        enabled(&row()).hash(),
        "ac3b1411dfbb8a9996e4a4fb96f7af73e0af2f2eaa400153213c79b13c0ed929"
    );
}

/// Texts that are likely to be nearly right.
fn any_text() -> impl Strategy<Value = Option<String>> {
    prop_oneof![
        Just(None),
        "[ a-c0-9smhd._-]{0,8}".prop_map(Some),
        r#"\{("(a|b|__x|alertname)":("[a-z"]?"|1|null|\[\]),?){0,3}\}"#.prop_map(Some),
        "(?s).{0,30}".prop_map(Some),
    ]
}

prop_compose! {
    fn any_row()(
        texts in proptest::collection::vec(any_text(), 9),
        created_at_micros in any::<Option<i64>>(),
    ) -> AlertRuleRow {
        let [name, expr, for_duration, keep_firing_for, rule_group, evaluation_interval, labels, annotations, enabled] =
            texts.try_into().unwrap();
        AlertRuleRow {
            name, expr, for_duration, keep_firing_for, rule_group, evaluation_interval, labels,
            annotations, enabled, created_at_micros, ..row()
        }
    }
}

proptest! {
    #[test]
    fn any_row_is_a_rule_or_told_why_not(row in any_row()) {
        match parse(&row, &RuleDefaults::default()) {
            Err(refusals) => prop_assert!(!refusals.0.is_empty()),
            Ok(Parsed::Disabled) => prop_assert!(row.enabled.is_some()),
            Ok(Parsed::Enabled(rule)) => {
                prop_assert!(!rule.rule.alert.is_empty() && !rule.rule.expr.is_empty());
                prop_assert!(!matches!(rule.group.as_str(), "" | "." | ".."));
                prop_assert!((MIN_INTERVAL..=MAX_INTERVAL).contains(&rule.interval));
                prop_assert!(!rule.rule.labels.keys().any(|name| name.starts_with("__")));
            }
        }
    }

    // What was read is written to no other row than one that reads the same.
    #[test]
    fn a_rule_reads_as_itself(row in any_row()) {
        let Ok(Parsed::Enabled(rule)) = parse(&row, &RuleDefaults::default()) else { return Ok(()) };
        let again = AlertRuleRow {
            name: Some(rule.rule.alert.clone()),
            expr: Some(rule.rule.expr.clone()),
            for_duration: Some(rule.rule.for_duration.to_string()),
            keep_firing_for: Some(rule.rule.keep_firing_for.to_string()),
            rule_group: Some(rule.group.clone()),
            evaluation_interval: Some(rule.interval.to_string()),
            labels: serde_json::to_string(&rule.rule.labels).ok(),
            annotations: serde_json::to_string(&rule.rule.annotations).ok(),
            ..row
        };
        prop_assert_eq!(parse(&again, &RuleDefaults::default()), Ok(Parsed::Enabled(rule)));
    }

    #[test]
    fn two_rules_have_one_hash_only_if_they_are_one(one in any_rule(), other in any_rule()) {
        let is_one = (&one.group, one.interval, &one.rule) == (&other.group, other.interval, &other.rule);
        prop_assert_eq!(one.hash() == other.hash(), is_one);
    }
}

prop_compose! {
    // Few letters, so that what stands in one field may also stand in the next.
    fn any_rule()(
        texts in proptest::collection::vec("a{0,2}", 3),
        durations in proptest::collection::vec(0_u64..2, 3),
        labels in proptest::collection::btree_map("a{0,2}", "a{0,2}", 0..3),
        annotations in proptest::collection::btree_map("a{0,2}", "a{0,2}", 0..3),
    ) -> AlertRule {
        let durations: Vec<PromDuration> = durations.into_iter().map(PromDuration::from_millis).collect();
        AlertRule {
            id: Uuid::nil(),
            created: 0,
            group: texts[0].clone(),
            interval: durations[0],
            rule: AlertingRule {
                alert: texts[1].clone(),
                expr: texts[2].clone(),
                for_duration: durations[1],
                keep_firing_for: durations[2],
                labels,
                annotations,
            },
        }
    }
}
