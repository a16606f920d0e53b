//! How Mimir evaluates the rules of a tenant: `/prometheus/api/v1/rules`, which each ruler answers from
//! what it has loaded, and not from what is stored.

use std::collections::BTreeMap;

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};

use super::{AlertingRule, PromDuration};

/// The alerting rules of our namespace that Mimir has loaded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// When Mimir answered, by its own clock; none if it did not say.
    pub answered_at: Option<OffsetDateTime>,
    /// Alerting rules are not evaluated for this tenant, by its limits.
    pub is_switched_off: bool,
    pub groups: Vec<EvaluatedGroup>,
}

/// A group that is loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluatedGroup {
    pub name: String,
    pub interval: PromDuration,
    /// How long its last evaluation took.
    pub took: PromDuration,
    pub rules: Vec<EvaluatedRule>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct EvaluatedRule {
    /// As Mimir has parsed it: the expression is written in Prometheus' own form.
    pub rule: AlertingRule,
    pub health: RuleHealth,
    /// What its last evaluation failed with; empty if it did not.
    pub last_error: String,
    /// None if it was not evaluated since it was loaded.
    pub last_evaluation: Option<OffsetDateTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleHealth {
    /// Not evaluated since it was loaded.
    Unknown,
    Good,
    Bad,
}

/// A part of what Mimir says instead of an answer when no rule of a tenant is evaluated, in both versions.
pub(super) const ALL_SWITCHED_OFF: &str = "rule evaluation is disabled";
/// A part of the warning when only alerting rules are not.
const ALERTING_SWITCHED_OFF: &str = "alerting rules evaluation is disabled";

#[derive(Deserialize)]
struct Answer {
    data: Data,
    #[serde(default)]
    warnings: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Data {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    name: String,
    file: String,
    #[serde(default)]
    interval: f64,
    #[serde(default, rename = "evaluationTime")]
    evaluation_time: f64,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    query: String,
    #[serde(default)]
    duration: f64,
    #[serde(default)]
    keep_firing_for: f64,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    health: String,
    #[serde(default)]
    last_error: String,
    #[serde(default)]
    last_evaluation: String,
}

impl Evaluation {
    /// Reads an answer. `date` is its header of that name.
    pub(super) fn parse(body: &[u8], date: Option<&str>, namespace: &str) -> Result<Self, String> {
        let Answer { data, warnings } =
            serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let warnings = warnings.unwrap_or_default();
        let groups = data.groups.into_iter().filter(|group| group.file == namespace);
        Ok(Self {
            answered_at: moment_of(date),
            is_switched_off: warnings.iter().any(|text| text.contains(ALERTING_SWITCHED_OFF)),
            groups: groups.map(EvaluatedGroup::from).collect(),
        })
    }

    /// No rule of the tenant is evaluated.
    pub(super) fn switched_off(date: Option<&str>) -> Self {
        Self { answered_at: moment_of(date), is_switched_off: true, groups: Vec::new() }
    }
}

fn moment_of(date: Option<&str>) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(date?, &Rfc2822).ok()
}

impl From<Group> for EvaluatedGroup {
    fn from(group: Group) -> Self {
        let rules = group.rules.into_iter().filter(|rule| rule.kind == "alerting");
        Self {
            name: group.name,
            interval: seconds(group.interval),
            took: seconds(group.evaluation_time),
            rules: rules.map(EvaluatedRule::from).collect(),
        }
    }
}

impl From<Rule> for EvaluatedRule {
    fn from(rule: Rule) -> Self {
        // Go's zero time, the year 1, is that of a rule that was never evaluated.
        let last_evaluation = OffsetDateTime::parse(&rule.last_evaluation, &Rfc3339).ok();
        Self {
            last_evaluation: last_evaluation.filter(|at| at.unix_timestamp() > 0),
            health: match rule.health.as_str() {
                "ok" => RuleHealth::Good,
                "err" => RuleHealth::Bad,
                _ => RuleHealth::Unknown,
            },
            last_error: rule.last_error,
            rule: AlertingRule {
                alert: rule.name,
                expr: rule.query,
                for_duration: seconds(rule.duration),
                keep_firing_for: seconds(rule.keep_firing_for),
                labels: rule.labels,
                annotations: rule.annotations,
            },
        }
    }
}

fn seconds(seconds: f64) -> PromDuration {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast of a float saturates"
    )]
    PromDuration::from_millis((seconds * 1000.0).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: Option<&str> = Some("Thu, 26 Nov 2026 06:04:39 GMT");

    // As Mimir 3.1 and 2.17 answer.
    const ANSWER: &str = r#"{"status":"success","data":{"groups":[
        {"name":"other","file":"theirs","rules":[],"interval":60,"lastEvaluation":"0001-01-01T00:00:00Z","evaluationTime":0,"sourceTenants":null},
        {"name":"default","file":"alert_rule","rules":[
            {"state":"inactive","name":"A","query":"up == 0","duration":90.5,"keepFiringFor":60,"labels":{"severity":"page"},
             "annotations":{"alert_rule_id":"0a0a0a0a-0a0a-4a0a-8a0a-0a0a0a0a0a0a"},"alerts":[],"health":"ok","lastError":"",
             "type":"alerting","lastEvaluation":"2026-11-26T06:04:30.123456789Z","evaluationTime":0.001},
            {"state":"unknown","name":"B","query":"up","duration":0,"keepFiringFor":0,"labels":{},"annotations":{},"alerts":null,
             "health":"err","lastError":"many-to-many","type":"alerting","lastEvaluation":"0001-01-01T00:00:00Z","evaluationTime":0},
            {"name":"r","query":"up","labels":{},"health":"unknown","lastError":"","type":"recording","lastEvaluation":"0001-01-01T00:00:00Z","evaluationTime":0}
        ],"interval":15,"lastEvaluation":"2026-11-26T06:04:30Z","evaluationTime":0.25,"sourceTenants":null}
    ]}}"#;

    #[test]
    fn an_answer_is_read_as_the_rules_of_our_namespace() {
        let read = Evaluation::parse(ANSWER.as_bytes(), DATE, "alert_rule").unwrap();
        assert_eq!(read.answered_at.map(OffsetDateTime::unix_timestamp), Some(1_795_673_079));
        assert!(!read.is_switched_off);
        let [group] = read.groups.as_slice() else { panic!("{read:?}") };
        assert_eq!((group.interval.as_millis(), group.took.as_millis()), (15_000, 250));
        let [a, b] = group.rules.as_slice() else { panic!("{group:?}") };
        assert_eq!((a.health, a.rule.for_duration.as_millis()), (RuleHealth::Good, 90_500));
        assert_eq!(a.last_evaluation.map(OffsetDateTime::unix_timestamp), Some(1_795_673_070));
        assert_eq!((b.health, b.last_evaluation), (RuleHealth::Bad, None));
        assert_eq!(b.last_error, "many-to-many");
    }

    #[test]
    fn a_warning_says_that_alerting_rules_are_not_evaluated() {
        let answer = |warning: &str| {
            let body = format!(r#"{{"data":{{"groups":[]}},"warnings":["{warning}"]}}"#);
            Evaluation::parse(body.as_bytes(), None, "alert_rule").unwrap().is_switched_off
        };
        assert!(answer("alerting rules evaluation is disabled for user"));
        assert!(!answer("rules evaluation is disabled for user"), "that is recording rules");
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for body in ["", "{}", r#"{"status":"success","data":{}}"#, "<html>"] {
            assert!(Evaluation::parse(body.as_bytes(), DATE, "alert_rule").is_err(), "{body}");
        }
        assert_eq!(moment_of(Some("yesterday")), None);
    }
}
