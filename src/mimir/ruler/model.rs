//! Rule groups as we write them, and as Mimir has them, where others may have written them.

use std::collections::BTreeMap;

use super::PromDuration;

/// An alerting rule with parsed values: two spellings of one rule are equal, except for their
/// expressions, which only Mimir can compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertingRule {
    pub alert: String,
    /// The `PromQL` expression, without white space around it.
    pub expr: String,
    /// `for`: how long the expression must hold before the alert fires.
    pub for_duration: PromDuration,
    /// `keep_firing_for`: how long the alert fires after that.
    pub keep_firing_for: PromDuration,
    pub labels: BTreeMap<String, String>,
    /// Annotations; templates are kept as they are.
    pub annotations: BTreeMap<String, String>,
}

/// A group as we write it. It never has `source_tenants`, which would let it read the data of other
/// tenants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleGroup {
    pub name: String,
    pub interval: PromDuration,
    /// In the order of their evaluation.
    pub rules: Vec<AlertingRule>,
}

/// A group as Mimir has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredGroup {
    pub name: String,
    /// The evaluation interval; the ruler's default if there is none.
    pub interval: Option<PromDuration>,
    /// In the order of their evaluation.
    pub rules: Vec<StoredRule>,
    /// Whether it has fields that we never write, such as `limit` or `source_tenants`.
    pub says_more: bool,
}

/// A rule as Mimir has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredRule {
    /// One that we could have written.
    Alerting(AlertingRule),
    /// Another one: a recording rule, or a rule with an unknown field or value.
    Other,
}
