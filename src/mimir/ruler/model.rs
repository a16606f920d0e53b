//! Rule groups: those that we write, and those that Mimir has, which others may have written.

use std::collections::BTreeMap;

use super::PromDuration;

/// An alerting rule, its values parsed: two spellings of one rule are equal, but for their
/// expressions, which only Mimir can judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertingRule {
    pub alert: String,
    /// The `PromQL` expression, without white space around it.
    pub expr: String,
    /// How long the expression must hold before the alert fires.
    pub for_duration: PromDuration,
    /// How long it fires on after that.
    pub keep_firing_for: PromDuration,
    pub labels: BTreeMap<String, String>,
    /// Texts for people; templates are left as they are.
    pub annotations: BTreeMap<String, String>,
}

/// A group as we write it. The tenants that it reads are never among what it says: `source_tenants`
/// would let it read others'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleGroup {
    pub name: String,
    /// How often it is evaluated.
    pub interval: PromDuration,
    /// Its rules, in the order of their evaluation.
    pub rules: Vec<AlertingRule>,
}

/// A group as Mimir has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredGroup {
    pub name: String,
    /// How often it is evaluated; the ruler's default if it does not say.
    pub interval: Option<PromDuration>,
    /// Its rules, in the order of their evaluation.
    pub rules: Vec<StoredRule>,
    /// Whether it says more than we ever write, such as `limit` or `source_tenants`.
    pub says_more: bool,
}

/// A rule as Mimir has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredRule {
    /// One that we could have written.
    Alerting(AlertingRule),
    /// One that we could not: a recording rule, or one with a field or value that we do not know.
    Other,
}
