//! Whether what the ruler evaluates is what a row says. Pure.
//!
//! The ruler shows a rule as it has parsed it, so all values can be compared but the expression, whose text is
//! in Prometheus' own form. Mimir's parser could tell, at the price of a request for each expression. Nearly
//! always the local one tells as well: two texts that it reads as one tree are one expression.

use crate::mimir::ruler::{AlertingRule, PromDuration};
use crate::rules::plan::vanishing::may_be_in;
use crate::rules::spec::alert_rule::{AlertRule, hash_in};
use crate::rules::spec::promql::are_same;

/// A digest of what is shown of a rule: the same as long as one version is evaluated.
pub(super) fn shown(group: &str, interval: PromDuration, rule: &AlertingRule) -> String {
    hash_in(group, interval, rule)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Same {
    Yes,
    No,
    /// If both texts are one expression.
    IfExpressionsAre,
}

/// Whether a rule that is shown in a group is the row's.
pub(super) fn is_version(
    row: &AlertRule,
    group: &str,
    interval: PromDuration,
    shown: &AlertingRule,
) -> Same {
    let is_alike = row.interval == interval
        && may_be_in(row, group)
        && row.rule.alert == shown.alert
        && row.rule.for_duration == shown.for_duration
        && row.rule.keep_firing_for == shown.keep_firing_for
        // A label without a value is none.
        && with_values(&row.rule).eq(with_values(shown))
        && row.has_written(&shown.annotations);
    if !is_alike {
        Same::No
    } else if row.rule.expr.trim() == shown.expr.trim() || are_same(&row.rule.expr, &shown.expr) {
        Same::Yes
    } else {
        Same::IfExpressionsAre
    }
}

fn with_values(rule: &AlertingRule) -> impl Iterator<Item = (&String, &String)> {
    rule.labels.iter().filter(|(_, value)| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::plan::desired::tests::rule;

    fn same(change: impl Fn(&mut AlertingRule)) -> Same {
        let mut row = rule(1, "cpu", 60);
        row.rule.expr = "sum(rate(a[60s])) by (job) > 1".to_owned();
        row.rule.labels.insert("none".to_owned(), String::new());
        let mut shown = row.to_written();
        shown.labels.clear();
        shown.expr = "sum by (job) (rate(a[1m])) > 1".to_owned();
        change(&mut shown);
        is_version(&row, "cpu@1m#2", row.interval, &shown)
    }

    #[test]
    fn a_row_is_known_by_all_that_is_shown() {
        let seconds = |seconds: u64| PromDuration::from_millis(seconds * 1000);
        assert_eq!(same(|_| {}), Same::Yes);
        assert_eq!(same(|shown| shown.alert.push('x')), Same::No);
        assert_eq!(same(|shown| shown.for_duration = seconds(1)), Same::No);
        assert_eq!(same(|shown| shown.keep_firing_for = seconds(1)), Same::No);
        assert_eq!(same(|shown| drop(shown.labels.insert("a".into(), "b".into()))), Same::No);
        assert_eq!(same(|shown| drop(shown.annotations.insert("a".into(), "b".into()))), Same::No);
        assert_eq!(same(|shown| shown.annotations.clear()), Same::No);
        // Another expression, or one that the local parser does not know.
        assert_eq!(same(|shown| shown.expr.push('0')), Same::IfExpressionsAre);
        let row = rule(1, "cpu", 60);
        assert_eq!(is_version(&row, "cpu", seconds(30), &row.to_written()), Same::No);
        assert_eq!(is_version(&row, "mem", seconds(60), &row.to_written()), Same::No);
    }
}
