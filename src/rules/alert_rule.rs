//! A row of `alert_rule` becomes an [`AlertRule`], or [`Refusals`] that name all of its faults at
//! once.
//!
//! Checked is what can be said without Mimir: names, durations, sizes, counts, and what an expression
//! ([`crate::mimir::expression`]) and the templates ([`super::template`]) may cost. Whether an
//! expression is `PromQL` and a template a template is for Mimir to say. What a row cannot say, such as
//! `source_tenants`, has no place in [`AlertRule`] either.

mod pairs;
mod text;

use aws_lc_rs::digest;
use uuid::Uuid;

use super::refusal::{Faults, Refusals};
use crate::mimir::expression::ExpressionLimits;
use crate::mimir::ruler::{AlertingRule, PromDuration};
use crate::store::AlertRuleRow;

pub use pairs::{
    MAX_ANNOTATION_BYTES, MAX_LABEL_BYTES, MAX_PAIR_NAME_BYTES, MAX_PAIRS, MAX_PAIRS_BYTES,
};
pub use text::{MAX_EXPR_BYTES, MAX_GROUP_BYTES, MAX_NAME_BYTES};

/// The shortest interval between evaluations.
pub const MIN_INTERVAL: PromDuration = PromDuration::from_millis(1_000);

/// The longest: a group that is looked at less than once a day is a mistake of units.
pub const MAX_INTERVAL: PromDuration = PromDuration::from_millis(86_400_000);

/// A rule that may go to Mimir.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertRule {
    /// Its row's.
    pub id: Uuid,
    /// Microseconds since the epoch; together with `id` the order of rules.
    pub created: i64,
    /// The group that its author wants it in.
    pub group: String,
    /// How often it is evaluated.
    pub interval: PromDuration,
    /// What is evaluated.
    pub rule: AlertingRule,
}

/// What a row is that has no fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A rule.
    Enabled(AlertRule),
    /// Nothing: its author switched it off. The rest of the row is not looked at.
    Disabled,
}

/// What holds for rows that do not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleDefaults {
    /// Their interval.
    pub interval: PromDuration,
    /// Their group.
    pub group: String,
    /// What their expressions may be, and those in their templates.
    pub expressions: ExpressionLimits,
}

/// Reads a row.
pub fn parse(row: &AlertRuleRow, defaults: &RuleDefaults) -> Result<Parsed, Refusals> {
    let mut faults = Faults::default();
    if !text::enabled(row.enabled.as_deref(), &mut faults) {
        return Ok(Parsed::Disabled);
    }
    let rule = AlertingRule {
        alert: text::name(row.name.as_deref(), &mut faults),
        expr: text::expr(row.expr.as_deref(), &defaults.expressions, &mut faults),
        for_duration: text::wait("for_duration", row.for_duration.as_deref(), &mut faults),
        keep_firing_for: text::wait("keep_firing_for", row.keep_firing_for.as_deref(), &mut faults),
        labels: pairs::labels(row.labels.as_deref(), &mut faults),
        annotations: pairs::annotations(row.annotations.as_deref(), &mut faults),
    };
    pairs::check_together(&rule, &mut faults);
    pairs::check_templates(&rule, &defaults.expressions, &mut faults);
    let parsed = Parsed::Enabled(AlertRule {
        id: row.id,
        created: row.created_at_micros.unwrap_or(i64::MIN),
        group: text::group(row.rule_group.as_deref(), &defaults.group, &mut faults),
        interval: text::interval(
            row.evaluation_interval.as_deref(),
            defaults.interval,
            &mut faults,
        ),
        rule,
    });
    faults.none_or(parsed)
}

impl AlertRule {
    /// What makes it this rule, as SHA-256 in hexadecimal: equal for two spellings of one rule, and
    /// different when anything that Mimir would evaluate differs, or where.
    pub fn hash(&self) -> String {
        hash_in(&self.group, self.interval, &self.rule)
    }

    /// The same without the group.
    pub(super) fn content_hash(&self) -> String {
        content_hash(self.interval, &self.rule)
    }
}

/// The hash of a rule of a group, see [`AlertRule::hash`].
pub(super) fn hash_in(group: &str, interval: PromDuration, rule: &AlertingRule) -> String {
    let mut hash = Hash::new();
    hash.text(group);
    hash.rule(interval, rule);
    hash.finish()
}

/// The hash of a rule wherever it stands.
pub(super) fn content_hash(interval: PromDuration, rule: &AlertingRule) -> String {
    let mut hash = Hash::new();
    hash.rule(interval, rule);
    hash.finish()
}

/// Every text goes in with its length, so that no two rules are one sequence of bytes.
struct Hash(digest::Context);

impl Hash {
    fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    fn rule(&mut self, interval: PromDuration, rule: &AlertingRule) {
        self.number(interval.as_millis());
        self.text(&rule.alert);
        self.text(&rule.expr);
        self.number(rule.for_duration.as_millis());
        self.number(rule.keep_firing_for.as_millis());
        for pairs in [&rule.labels, &rule.annotations] {
            self.number(pairs.len() as u64);
            for (name, value) in pairs {
                self.text(name);
                self.text(value);
            }
        }
    }

    fn number(&mut self, number: u64) {
        self.0.update(&number.to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.update(text.as_bytes());
    }

    fn finish(self) -> String {
        let digest = self.0.finish();
        let mut hex = String::with_capacity(64);
        for byte in digest.as_ref() {
            for nibble in [byte >> 4, byte & 15] {
                hex.extend(char::from_digit(nibble.into(), 16));
            }
        }
        hex
    }
}

#[cfg(test)]
mod tests;
