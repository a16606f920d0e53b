//! Reads a row of `alert_rule`: into an [`AlertRule`], or into [`Refusals`] that name all of its faults.
//!
//! Checked is what can be checked without Mimir: names, durations, sizes, counts, and what an expression
//! ([`crate::mimir::expression`]) and the templates ([`crate::rules::spec::template`]) may cost. Whether the
//! expression and the templates are valid, Mimir decides. What a row cannot express, such as
//! `source_tenants`, has no place in [`AlertRule`] either.

mod pairs;
mod row_id;
mod text;

use aws_lc_rs::digest;
use uuid::Uuid;

use crate::mimir::expression::ExpressionLimits;
use crate::mimir::ruler::{AlertingRule, PromDuration};
use crate::rules::spec::refusal::{Faults, Refusals};
use crate::store::AlertRuleRow;

pub use pairs::{
    MAX_ANNOTATION_BYTES, MAX_LABEL_BYTES, MAX_PAIR_NAME_BYTES, MAX_PAIRS, MAX_PAIRS_BYTES,
};
pub use row_id::{ROW_ANNOTATION, row_of};
pub use text::{MAX_EXPR_BYTES, MAX_GROUP_BYTES, MAX_NAME_BYTES};

/// The shortest interval between evaluations.
pub const MIN_INTERVAL: PromDuration = PromDuration::from_millis(1_000);

/// The longest: a group that is evaluated less than once a day is a mistake of units.
pub const MAX_INTERVAL: PromDuration = PromDuration::from_millis(86_400_000);

/// A rule that may be written to Mimir.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertRule {
    /// The row's ID.
    pub id: Uuid,
    /// Microseconds since the epoch; together with `id` the order of rules.
    pub created: i64,
    /// The row's `rule_group`.
    pub group: String,
    pub interval: PromDuration,
    /// Without the annotation that names the row ([`AlertRule::to_written`]).
    pub rule: AlertingRule,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    Enabled(AlertRule),
    /// The author disabled it. The rest of the row is not checked.
    Disabled,
}

/// The values of columns that are empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleDefaults {
    pub interval: PromDuration,
    pub group: String,
    /// The limits of expressions, also of those in templates.
    pub expressions: ExpressionLimits,
}

impl RuleDefaults {
    pub fn new(interval: PromDuration, expressions: ExpressionLimits) -> Self {
        Self { interval, group: "default".to_owned(), expressions }
    }
}

/// Those of a configuration that sets none of them.
impl Default for RuleDefaults {
    fn default() -> Self {
        Self::new(PromDuration::from_millis(60_000), ExpressionLimits::default())
    }
}

/// Reads a row. The destructuring makes a new column a compile error until it is read here, or named as
/// one that is no part of a rule.
pub fn parse(row: &AlertRuleRow, defaults: &RuleDefaults) -> Result<Parsed, Refusals> {
    let AlertRuleRow {
        id,
        organisation: _,
        name,
        expr,
        for_duration,
        keep_firing_for,
        rule_group,
        evaluation_interval,
        labels,
        annotations,
        enabled,
        created_at_micros,
        excess: _,
    } = row;
    let mut faults = Faults::default();
    if !text::enabled(enabled.as_deref(), &mut faults) {
        return Ok(Parsed::Disabled);
    }
    let rule = AlertingRule {
        alert: text::name(name.as_deref(), &mut faults),
        expr: text::expr(expr.as_deref(), &defaults.expressions, &mut faults),
        for_duration: text::wait("for_duration", for_duration.as_deref(), &mut faults),
        keep_firing_for: text::wait("keep_firing_for", keep_firing_for.as_deref(), &mut faults),
        labels: pairs::labels(labels.as_deref(), &mut faults),
        annotations: pairs::annotations(annotations.as_deref(), &mut faults),
    };
    pairs::check_together(&rule, &mut faults);
    pairs::check_templates(&rule, &defaults.expressions, &mut faults);
    let parsed = Parsed::Enabled(AlertRule {
        id: *id,
        created: created_at_micros.unwrap_or(i64::MIN),
        group: text::group(rule_group.as_deref(), &defaults.group, &mut faults),
        interval: text::interval(evaluation_interval.as_deref(), defaults.interval, &mut faults),
        rule,
    });
    faults.none_or(parsed)
}

impl AlertRule {
    /// SHA-256 in hexadecimal: equal for two spellings of one rule, and different if anything differs that
    /// Mimir evaluates, or the group.
    ///
    /// The destructuring here and in [`Hash::rule`] makes a new field a compile error until it is hashed.
    /// A column that missed the hash would be an edit that nobody notices: the rule would count as stored.
    pub fn hash(&self) -> String {
        let Self { id: _, created: _, group, interval, rule } = self;
        hash_in(group, *interval, rule)
    }

    /// The hash without the group.
    pub(crate) fn content_hash(&self) -> String {
        content_hash(self.interval, &self.rule)
    }
}

/// See [`AlertRule::hash`].
pub(crate) fn hash_in(group: &str, interval: PromDuration, rule: &AlertingRule) -> String {
    let mut hash = Hash::new();
    hash.text(group);
    hash.rule(interval, rule);
    hash.finish()
}

/// The hash of a rule without its group. The annotation that names the row does not count, so that a rule
/// that an earlier version wrote without it is recognised.
pub(crate) fn content_hash(interval: PromDuration, rule: &AlertingRule) -> String {
    let mut hash = Hash::new();
    hash.rule(interval, rule);
    hash.finish()
}

/// Each text is preceded by its length, so that different rules are different byte sequences.
struct Hash(digest::Context);

impl Hash {
    fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    fn rule(&mut self, interval: PromDuration, rule: &AlertingRule) {
        let AlertingRule { alert, expr, for_duration, keep_firing_for, labels, annotations } = rule;
        self.number(interval.as_millis());
        self.text(alert);
        self.text(expr);
        self.number(for_duration.as_millis());
        self.number(keep_firing_for.as_millis());
        self.pairs(labels.iter());
        // Which row it was written from is not what the row says.
        self.pairs(row_id::without_row(annotations));
    }

    fn pairs<'a>(&mut self, pairs: impl Iterator<Item = (&'a String, &'a String)> + Clone) {
        self.number(pairs.clone().count() as u64);
        for (name, value) in pairs {
            self.text(name);
            self.text(value);
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
