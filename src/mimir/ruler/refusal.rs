//! Why Mimir rejects a group, parsed from the text of its answer.
//!
//! The text begins with Mimir's words and continues with those of the rules' authors, so only the
//! beginning is trusted: a name or an expression that looks like another rule's error must not get
//! that rule quarantined. Mimir may name several rules; the first one counts, and the others show
//! when it is gone.

use std::str::FromStr;

use super::PromDuration;
use super::quoting::{quoted, unquote};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupRefusal {
    /// One rule is invalid; without it Mimir may accept the group, or name another rule.
    #[error("rule {index} ({alert:?}): {reason}{}", at(*.position))]
    Rule {
        /// Its index in the group as it was sent, from 0. Only the index identifies the rule
        /// reliably.
        index: usize,
        alert: String,
        /// What is wrong, for the rule's author.
        reason: String,
        /// Line and column in the expression, from 1, if the expression is at fault.
        position: Option<(usize, usize)>,
    },
    #[error("the group has {actual} rules, and {limit} are allowed")]
    TooManyRules {
        /// The limit of rules in a group.
        limit: usize,
        actual: usize,
    },
    /// The tenant would have too many groups. Mimir also answers this to the update of an existing
    /// group when their number is exactly the limit.
    #[error("there would be {actual} rule groups, and {limit} are allowed")]
    TooManyGroups {
        /// The limit of groups of the tenant, or of the namespace, if it has a limit of its own.
        limit: usize,
        /// Their number, and one.
        actual: usize,
    },
    /// The group is evaluated too often.
    #[error("the group is evaluated every {actual}, and {limit} is the shortest")]
    IntervalTooShort { limit: PromDuration, actual: PromDuration },
    #[error("{0}")]
    Other(String),
}

fn at(position: Option<(usize, usize)>) -> String {
    position.map_or_else(String::new, |(line, column)| format!(" (line {line}, column {column})"))
}

/// Parses the text of a rejection.
pub fn read_refusal(text: &str) -> GroupRefusal {
    let text = text.strip_suffix('\n').unwrap_or(text);
    rule(text)
        .or_else(|| {
            let (limit, actual) = limit(text, "per-user rules per rule group")?;
            Some(GroupRefusal::TooManyRules { limit, actual })
        })
        .or_else(|| {
            let (limit, actual) = limit(text, "per-user rule groups")?;
            Some(GroupRefusal::TooManyGroups { limit, actual })
        })
        .or_else(|| {
            let (limit, actual) = limit(text, "per-user minimum rule evaluation interval")?;
            Some(GroupRefusal::IntervalTooShort { limit, actual })
        })
        .unwrap_or_else(|| GroupRefusal::Other(text.to_owned()))
}

/// `per-user rule groups limit (limit: 70 actual: 71) exceeded`
fn limit<T: FromStr>(text: &str, what: &str) -> Option<(T, T)> {
    let numbers = text.strip_prefix(what)?.strip_prefix(" limit (limit: ")?;
    let (limit, actual) = numbers.strip_suffix(") exceeded")?.split_once(" actual: ")?;
    Some((limit.parse().ok()?, actual.parse().ok()?))
}

/// `5:9: group "g", rule 0, "A": could not parse expression: 1:6: parse error: …`, and so on for
/// every fault of every rule, separated by `, `.
fn rule(text: &str) -> Option<GroupRefusal> {
    let (marker, fault) = Marker::read(text)?;
    let alert = unquote(marker.alert);
    // Mimir lists a rule's faults in random order; its author should read the same every time.
    let mut reasons = Vec::new();
    let mut position = None;
    let mut rest = Some(fault);
    while let Some(fault) = rest {
        let (this, next) = marker.part(fault);
        let (at, reason) = explain(this, &alert);
        position = position.or(at);
        reasons.push(reason);
        rest = next;
    }
    reasons.sort();
    reasons.dedup();
    Some(GroupRefusal::Rule { index: marker.index, alert, reason: reasons.join("; "), position })
}

/// The prefix of each fault.
struct Marker<'a> {
    /// The group's name in Go's quotes, a comma, and the word before the index.
    group: &'a str,
    index: usize,
    /// The rule's name in Go's quotes.
    alert: &'a str,
}

impl<'a> Marker<'a> {
    /// Splits a marker at the beginning of a text from what follows it.
    fn read(text: &'a str) -> Option<(Self, &'a str)> {
        let from_group = without_positions(text);
        let group = quoted(from_group.strip_prefix("group ")?)?;
        let rest = group.1.strip_prefix(", rule ")?;
        let head = &from_group[..from_group.len() - rest.len()];
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let index = rest[..digits].parse().ok()?;
        let (alert, rest) = quoted(rest[digits..].strip_prefix(", ")?)?;
        Some((Self { group: head, index, alert }, rest.strip_prefix(": ")?))
    }

    /// Splits a fault from what follows it, which is returned if it is about the same rule.
    fn part(&self, fault: &'a str) -> (&'a str, Option<&'a str>) {
        for (at, _) in fault.match_indices(self.group) {
            let Some(end) = before_positions(&fault[..at]).strip_suffix(", ") else { continue };
            let next = Self::read(&fault[at..]).filter(|(next, _)| next.index == self.index);
            return (end, next.map(|(_, rest)| rest));
        }
        (fault, None)
    }
}

/// Where the fault is and what it is, in words for the rule's author.
fn explain(fault: &str, alert: &str) -> (Option<(usize, usize)>, String) {
    if let Some(parse) = fault.strip_prefix("could not parse expression: ") {
        let (at, words) = position(parse);
        return (at, format!("could not parse expression: {words}"));
    }
    if fault == "field 'expr' must be set in rule" {
        return (None, "the expression is empty".to_owned());
    }
    (None, template(fault, alert).unwrap_or_else(|| fault.to_owned()))
}

/// `annotation "summary": template: __alert_A:1: unexpected "}" in operand`
fn template(fault: &str, alert: &str) -> Option<String> {
    let what = ["annotation ", "label "].into_iter().find(|what| fault.starts_with(what))?;
    let (name, rest) = quoted(&fault[what.len()..])?;
    let rest = rest.strip_prefix(": template: __alert_")?;
    // Go takes the alert's name for a format string: after a per cent sign in it, the message has
    // addresses in Mimir's memory, different ones every time.
    if alert.contains('%') {
        return Some(format!("{what}{name}: its template cannot be parsed"));
    }
    let (line, words) = rest.strip_prefix(alert)?.strip_prefix(':')?.split_once(": ")?;
    let line: usize = line.parse().ok()?;
    Some(format!("{what}{name}: line {line} of its template: {words}"))
}

/// The position of an error in an expression, and Prometheus' message without it.
pub(super) fn position(text: &str) -> (Option<(usize, usize)>, String) {
    let text = text.strip_prefix("invalid parameter \"query\": ").unwrap_or(text);
    let (at, rest) = match line_and_column(text) {
        Some((at, rest)) => (Some(at), rest),
        None => (
            None,
            ["unknown position: ", "invalid position: "]
                .into_iter()
                .find_map(|prefix| text.strip_prefix(prefix))
                .unwrap_or(text),
        ),
    };
    (at, rest.strip_prefix("parse error: ").unwrap_or(rest).to_owned())
}

/// `5:9: ` and what follows.
fn line_and_column(text: &str) -> Option<((usize, usize), &str)> {
    let (position, rest) = text.split_once(": ")?;
    let (line, column) = position.split_once(':')?;
    let number = |digits: &str| {
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
    };
    Some(((number(line)?, number(column)?), rest))
}

/// A text without the positions in our YAML at its beginning: none, one or two.
fn without_positions(text: &str) -> &str {
    let once = line_and_column(text).map_or(text, |(_, rest)| rest);
    line_and_column(once).map_or(once, |(_, rest)| rest)
}

/// The same at the end.
fn before_positions(text: &str) -> &str {
    let strip = |text: &'_ str| -> Option<usize> {
        let digits = |c: char| c.is_ascii_digit();
        let column = text.strip_suffix(": ")?;
        let line = column.trim_end_matches(digits).strip_suffix(':')?;
        Some(line.trim_end_matches(digits).len())
    };
    let once = strip(text).map_or(text, |end| &text[..end]);
    strip(once).map_or(once, |end| &once[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(
        index: usize,
        alert: &str,
        reason: &str,
        position: Option<(usize, usize)>,
    ) -> GroupRefusal {
        GroupRefusal::Rule { index, alert: alert.into(), reason: reason.into(), position }
    }

    // tests/it/ruler_client.rs checks these texts against the real Mimir.
    #[test]
    fn limits_are_read() {
        assert_eq!(
            read_refusal("per-user rules per rule group limit (limit: 20 actual: 21) exceeded\n"),
            GroupRefusal::TooManyRules { limit: 20, actual: 21 }
        );
        assert_eq!(
            read_refusal("per-user rule groups limit (limit: 70 actual: 71) exceeded"),
            GroupRefusal::TooManyGroups { limit: 70, actual: 71 }
        );
        let (limit, actual) = (PromDuration::from_millis(60_000), PromDuration::from_millis(1_000));
        assert_eq!(
            read_refusal(
                "per-user minimum rule evaluation interval limit (limit: 1m actual: 1s) exceeded"
            ),
            GroupRefusal::IntervalTooShort { limit, actual }
        );
    }

    #[test]
    fn faults_are_reported_without_positions_in_our_yaml() {
        for (text, expected) in [
            (
                r#"5:9: group "g1", rule 1, "Hot": could not parse expression: 2:4: parse error: unexpected <op:*>"#,
                rule(1, "Hot", "could not parse expression: unexpected <op:*>", Some((2, 4))),
            ),
            (
                r#"0:0: group "g", rule 0, "A": field 'expr' must be set in rule"#,
                rule(0, "A", "the expression is empty", None),
            ),
            (
                r#"group "g", rule 0, "A": annotation "s": template: __alert_A:2: function "foo" not defined"#,
                rule(
                    0,
                    "A",
                    r#"annotation "s": line 2 of its template: function "foo" not defined"#,
                    None,
                ),
            ),
            (
                "group \"g\", rule 0, \"A:\\n\": label \"s\\\"x\": template: __alert_A:\n:1: unexpected {{end}}",
                rule(
                    0,
                    "A:\n",
                    r#"label "s\"x": line 1 of its template: unexpected {{end}}"#,
                    None,
                ),
            ),
            (
                r#"group "g", rule 0, "A%d 1%": label "s": template: __alert_A&{7 119 4721767756576} 1%!:(MISSING)1: unexpected %!s(MISSING)"#,
                rule(0, "A%d 1%", r#"label "s": its template cannot be parsed"#, None),
            ),
            (
                r#"group "g", rule 12, "A": invalid label name: "#,
                rule(12, "A", "invalid label name: ", None),
            ),
            (
                r#"1:50: 1:35: group "g", rule 0, "A": only one of 'record' and 'alert' must be set"#,
                rule(0, "A", "only one of 'record' and 'alert' must be set", None),
            ),
        ] {
            assert_eq!(read_refusal(text), expected, "{text}");
        }
    }

    #[test]
    fn all_faults_of_the_first_rule_are_reported_and_no_others() {
        let text = concat!(
            r#"5:9: group "g", rule 1, "A": could not parse expression: 1:1: parse error: no, "#,
            r#"group "g", rule 1, "A": invalid label name: b, "#,
            r#"group "g", rule 1, "A": invalid label name: a, "#,
            r#"12:9: group "g", rule 4, "B": field 'expr' must be set in rule"#,
        );
        let reason = "could not parse expression: no; invalid label name: a; invalid label name: b";
        assert_eq!(read_refusal(text), rule(1, "A", reason, Some((1, 1))));
    }

    // An alert's name, or an expression that Prometheus quotes, may look like another rule's error.
    #[test]
    fn text_of_a_rule_never_blames_another_rule() {
        let text = r#"5:9: group "g", rule 2, "x\", rule 0, \"y": could not parse expression: 1:3: parse error: unexpected ", group "g", rule 0, "A": bad""#;
        let GroupRefusal::Rule { index, alert, .. } = read_refusal(text) else { panic!("{text}") };
        assert_eq!((index, alert.as_str()), (2, r#"x", rule 0, "y"#));
    }

    #[test]
    fn other_messages_are_reported_verbatim() {
        for text in [
            "",
            "unable to decode rule group",
            "invalid rules configuration: rule group 'g' has no rules",
            r#"see group "g", rule 1, "A": x"#,
            r#"group "g", rule 99999999999999999999, "A": x"#,
            "per-user rule groups limit (limit: seventy actual: 71) exceeded",
        ] {
            assert_eq!(read_refusal(text), GroupRefusal::Other(text.to_owned()));
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(
            pieces in proptest::collection::vec(
                prop_oneof![
                    Just("group \"g\", rule "), Just("5:9: "), Just("\""), Just("\\"), Just(", "), Just("1"),
                    Just("group \"g\", rule 1, \"A\": "), Just("annotation \"a\": template: __alert_A:1: "),
                    Just("could not parse expression: "), Just("per-user rule groups limit (limit: "),
                    Just(": "), Just("ä"),
                ],
                0..12,
            ),
        ) {
            let _ = read_refusal(&pieces.concat());
        }

        #[test]
        fn a_rule_is_identified_by_its_index_whatever_its_name(
            group in "\\PC{0,9}", index in 0..1000_usize, alert in "\\PC{0,9}", fault in "\\PC{0,40}",
        ) {
            // Go would also escape what is not printable; it is not needed here.
            let quote = |text: &str| format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""));
            let text = format!("1:2: group {}, rule {index}, {}: {fault}", quote(&group), quote(&alert));
            match read_refusal(&text) {
                GroupRefusal::Rule { index: read, alert: named, .. } => {
                    prop_assert_eq!((read, named), (index, alert));
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
