//! The text for each fault of a row.

use super::*;

type Change = fn(&mut AlertRuleRow);

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn each_fault_says_what_is_wrong_and_what_would_be_right() {
    let cases: [(Change, &str); 31] = [
        (
            |row| row.name = text("a\nb"),
            "name: 1:2: contains the character U+000A, which is not printable; remove it",
        ),
        (
            |row| row.name = text("é\u{1b}[31m"),
            "name: 1:2: contains the character U+001B, which is not printable; remove it",
        ),
        (|row| row.name = Some("x".repeat(2_049)), "name: is 2049 bytes long; at most 2048"),
        (
            |row| row.expr = text("a\n >\0 1"),
            "expr: 2:3: contains the character U+0000, which is not printable; remove it",
        ),
        (
            |row| row.expr = text("a\u{feff} > 1"),
            "expr: 1:2: contains the character U+FEFF, which is not printable; remove it",
        ),
        (|row| row.expr = Some("x".repeat(65_537)), "expr: is 65537 bytes long; at most 65536"),
        (
            |row| row.for_duration = text("-5m"),
            r#"for_duration: "-5m" is no duration; write for example 30s, 5m or 1h30m"#,
        ),
        (
            |row| row.keep_firing_for = text("1.5h"),
            r#"keep_firing_for: "1.5h" is no duration; write for example 30s, 5m or 1h30m"#,
        ),
        (
            |row| row.evaluation_interval = text("60"),
            r#"evaluation_interval: "60" is no duration; write for example 30s, 5m or 1h30m"#,
        ),
        (
            |row| row.evaluation_interval = text("0s"),
            "evaluation_interval: is 0s; should be from 1s to 1d",
        ),
        (
            |row| row.evaluation_interval = text("999ms"),
            "evaluation_interval: is 999ms; should be from 1s to 1d",
        ),
        (
            |row| row.evaluation_interval = text("25h"),
            "evaluation_interval: is 1d1h; should be from 1s to 1d",
        ),
        (
            |row| row.rule_group = text("a\tb"),
            "rule_group: 1:2: contains the character U+0009, which is not printable; remove it",
        ),
        (|row| row.rule_group = Some("é".repeat(76)), "rule_group: is 152 bytes long; at most 150"),
        (
            |row| row.rule_group = text("."),
            r#"rule_group: is ".", which Mimir takes for a path; use another name"#,
        ),
        (
            |row| row.rule_group = text(" .. "),
            r#"rule_group: is "..", which Mimir takes for a path; use another name"#,
        ),
        (
            |row| row.labels = text("[]"),
            r#"labels: are an array in JSON; should be an object such as {"severity": "page"}"#,
        ),
        (
            |row| row.labels = text(r#""{}""#),
            r#"labels: are a string in JSON; should be an object such as {"severity": "page"}"#,
        ),
        (
            |row| row.labels = text("-1"),
            r#"labels: are a number in JSON; should be an object such as {"severity": "page"}"#,
        ),
        (
            |row| row.labels = text("true"),
            r#"labels: are a boolean in JSON; should be an object such as {"severity": "page"}"#,
        ),
        (
            |row| row.labels = text(r#"{"a": 1,}"#),
            "labels: are not valid JSON: trailing comma at line 1 column 9",
        ),
        (
            |row| row.labels = text(r#"{"alertname": "x"}"#),
            r#"labels: label "alertname" is the alert's name; set the column name instead"#,
        ),
        (
            |row| row.labels = text(r#"{"__name__": "x"}"#),
            r#"labels: label "__name__" starts with __, which is reserved for Prometheus; use another name"#,
        ),
        (
            |row| row.labels = text(r#"{"": "x"}"#),
            r#"labels: label "" is not a valid name; use letters, digits and _, and do not start with a digit"#,
        ),
        (
            |row| row.labels = text(r#"{"1a": "x"}"#),
            r#"labels: label "1a" is not a valid name; use letters, digits and _, and do not start with a digit"#,
        ),
        (
            |row| row.labels = text(r#"{"a": {"b": 1}}"#),
            r#"labels: label "a" is an object; should be a string"#,
        ),
        (
            |row| row.labels = text(r#"{"a": ["b"]}"#),
            r#"labels: label "a" is an array; should be a string"#,
        ),
        (
            |row| row.labels = text(r#"{"a": "\u0007"}"#),
            r#"labels: label "a" contains the character U+0007, which is not printable; remove it"#,
        ),
        (
            |row| row.labels = Some(format!(r#"{{"a": "{}"}}"#, "x".repeat(2_049))),
            r#"labels: label "a" is 2049 bytes long; at most 2048"#,
        ),
        (
            |row| row.annotations = text(r#"{"é": "x"}"#),
            r#"annotations: annotation "é" is not a valid name; use letters, digits and _, and do not start with a digit"#,
        ),
        (
            |row| row.annotations = Some(format!(r#"{{"a": "{}"}}"#, "x".repeat(16_385))),
            r#"annotations: annotation "a" is 16385 bytes long; at most 16384"#,
        ),
    ];
    for (change, told) in cases {
        assert_eq!(faults(change), told);
    }
}
