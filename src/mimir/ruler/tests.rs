//! What we write is read back unchanged, and what others wrote is read as what it is.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::mimir::ExchangeError;

/// A group as Mimir's listing shows what we write: indented, below its namespace.
fn listing_of(namespace: &str, groups: &[RuleGroup]) -> RawListing {
    let mut text = format!("{namespace}:\n");
    for group in groups {
        for (at, line) in write_group(group).lines().enumerate() {
            text.push_str(if at == 0 { "    - " } else { "      " });
            text.push_str(line);
            text.push('\n');
        }
    }
    RawListing::new(Bytes::from(text))
}

fn parse(text: &str) -> Result<Listed, RulerError> {
    RawListing::new(Bytes::copy_from_slice(text.as_bytes())).parse("ours")
}

fn is_unreadable(text: &str) -> bool {
    matches!(parse(text), Err(RulerError::Exchange(ExchangeError::Unreadable(_))))
}

fn stored(group: &RuleGroup) -> StoredGroup {
    let rule = |rule: &AlertingRule| StoredRule::Alerting(rule.clone());
    StoredGroup {
        name: group.name.clone(),
        interval: Some(group.interval).filter(|interval| !interval.is_zero()),
        rules: group.rules.iter().map(rule).collect(),
        says_more: false,
    }
}

/// Any text, with many difficult ones.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<char>().prop_map(String::from),
        "[ -~]{0,6}",
        proptest::sample::select(vec![
            "\n",
            "\r",
            "\t",
            " ",
            ": ",
            " #",
            "#",
            "'",
            "\"",
            "\\",
            "{{ $labels.x }}",
            "- ",
            "? ",
            "\u{85}",
            "\u{a0}",
            "\u{2028}",
            "\u{2029}",
            "\u{feff}",
            "\u{7f}",
            "\0",
            "🦀",
            "ä",
            "|",
            ">",
            "%",
            "@",
            "`",
            "&a",
            "*a",
            "!!binary",
            "~",
            "null",
            "true",
            "0x1f",
            "1e3",
            "---",
            "...",
            "<<",
            "=",
        ])
        .prop_map(String::from),
    ];
    proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

fn texts() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map(text(), text(), 0..4)
}

fn duration() -> impl Strategy<Value = PromDuration> {
    (0..10_000_000_000_u64).prop_map(PromDuration::from_millis)
}

fn group() -> impl Strategy<Value = RuleGroup> {
    let rule = ("[^ ].{0,8}", text(), duration(), duration(), texts(), texts()).prop_map(
        |(alert, expr, for_duration, keep_firing_for, labels, annotations)| {
            let expr = expr.trim_matches([' ', '\t', '\n', '\r']).to_owned();
            AlertingRule { alert, expr, for_duration, keep_firing_for, labels, annotations }
        },
    );
    (text(), duration(), proptest::collection::vec(rule, 0..4))
        .prop_map(|(name, interval, rules)| RuleGroup { name, interval, rules })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back_equal(groups in proptest::collection::vec(group(), 1..4)) {
        let listed = listing_of("ours", &groups).parse("ours").unwrap();
        prop_assert_eq!(listed.ours, groups.iter().map(stored).collect::<Vec<_>>());
        prop_assert_eq!(listed.others, 0);
    }

    #[test]
    fn what_is_written_is_printable_ascii(group in group()) {
        let written = write_group(&group);
        prop_assert!(written.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)));
    }

    // A listing that was cut off must never look like fewer groups.
    #[test]
    fn a_listing_that_is_cut_off_within_a_line_is_unreadable(group in group(), cut in any::<u16>()) {
        let whole = listing_of("ours", &[group]);
        let body = whole.body();
        let cut = usize::from(cut) % body.len();
        prop_assume!(cut == 0 || body[cut - 1] != b'\n');
        let read = RawListing::new(body.slice(..cut)).parse("ours");
        prop_assert!(matches!(read, Err(RulerError::Exchange(ExchangeError::Unreadable(_)))), "{:?}", read);
    }

    #[test]
    fn no_listing_panics(body in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _ = RawListing::new(body.into()).parse("ours");
    }

    #[test]
    fn no_yaml_panics(
        pieces in proptest::collection::vec(
            proptest::sample::select(vec![
                "ours:\n", "  - name: a\n", "    rules:\n", "      - alert: a\n", "        expr: b\n", "{", "}",
                "[", "]", "&a ", "*a", "!!x ", "? ", ": ", "\n", "|\n", "  ", "\"", "---\n", "%YAML 1.2\n", "\u{2028}", "'",
            ]),
            0..16,
        ),
    ) {
        let _ = parse(&format!("{}\n", pieces.concat()));
    }
}

// A listing of Mimir 3; groups in other namespaces are counted whatever they contain.
#[test]
fn a_listing_of_mimir_is_read() {
    let listed = parse(
        r#"ours:
    - name: cold room
      interval: 1m30s
      rules:
        - alert: Cold
          expr: |
            temperature
              < 3
          for: 5m
          keep_firing_for: 1d
          labels:
            level: "1"
            severity: page
          annotations:
            summary: '{{ $labels.room }}: too cold'
    - name: empty
      rules: []
others/a:
    - name: x
      rules: []
    - name: y
      limit: [1, {a: b}]
others/b: 5
"#,
    )
    .unwrap();
    let text = |key: &str, text: &str| (key.to_owned(), text.to_owned());
    let rule = AlertingRule {
        alert: "Cold".into(),
        expr: "temperature\n  < 3".into(),
        for_duration: PromDuration::from_millis(300_000),
        keep_firing_for: PromDuration::from_millis(86_400_000),
        labels: BTreeMap::from([text("level", "1"), text("severity", "page")]),
        annotations: BTreeMap::from([text("summary", "{{ $labels.room }}: too cold")]),
    };
    let group = RuleGroup {
        name: "cold room".into(),
        interval: PromDuration::from_millis(90_000),
        rules: vec![rule],
    };
    let empty = RuleGroup { name: "empty".into(), interval: PromDuration::ZERO, rules: Vec::new() };
    assert_eq!(listed.ours, [stored(&group), stored(&empty)]);
    assert_eq!(listed.others, 2);
}

// Others may have written into our namespace, by hand or with a newer Mimir.
#[test]
fn unknown_content_is_marked_and_kept() {
    let listed = parse(
        r"ours:
    - name: more
      limit: 5
      interval: soon
      source_tenants: [a]
      rules:
        - record: a
          expr: b
        - alert: A
          expr: b
          new_key: 1
        - alert: A
          expr: !!binary aGk=
        - alert: A
          expr: b
          for: long
        - alert: A
          expr: b
          labels: [a]
        - alert: A
        - A
        - alert: A
          expr: b
          labels: {n: 0755, o: on, t: ~}
",
    )
    .unwrap();
    let [group] = &listed.ours[..] else { panic!("{listed:?}") };
    assert!(group.says_more && group.interval.is_none());
    assert_eq!(group.rules.len(), 8);
    assert!(group.rules[..7].iter().all(|rule| *rule == StoredRule::Other));
    let StoredRule::Alerting(rule) = &group.rules[7] else { panic!("{group:?}") };
    let labels: Vec<&str> = rule.labels.values().map(String::as_str).collect();
    assert_eq!(labels, ["0755", "on", ""]);
}

#[test]
fn no_rules_needs_a_complete_answer() {
    let none = parse("{}\n").unwrap();
    assert_eq!((none.ours.len(), none.others), (0, 0));
    assert_eq!(parse("ours: []\n").unwrap().ours, []);
    for wrong in [
        "",
        "\n",
        "null\n",
        "{}",
        "[]\n",
        "no rule groups found\n",
        "<html></html>\n",
        "{\n",
        "{}\n---\n{}\n",
        "ours:\n    - name: a\n      rules:\n        - alert: \"A\n",
        "ours: 5\n",
        "ours:\n    - rules: []\n",
        "ours: []\nours: []\n",
        "ours: []\n\u{0}\n",
        "ours: [*a]\n",
    ] {
        assert!(is_unreadable(wrong), "{wrong:?}");
    }
    let latin = RawListing::new(Bytes::from_static(b"ours: [] # \xe4\n"));
    assert!(latin.parse("ours").is_err());
}
