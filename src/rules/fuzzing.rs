//! What must be true of every rule that a row becomes.

use bytes::Bytes;
use uuid::Uuid;

use super::spec::alert_rule::{Parsed, RuleDefaults, parse};
use super::spec::promql;
use super::spec::template::Budget;
use crate::fuzzing::{broken, columns};
use crate::mimir::expression::{self, ExpressionLimits};
use crate::mimir::ruler::{RawListing, RuleGroup, StoredRule, write_group};
use crate::store::{AlertRuleRow, Excess};
use crate::tenancy::OrganisationId;

/// The columns of a row. A rule that is taken is within the limits, and what is written for it is read back
/// as the same rule, and as nothing besides.
pub fn alert_rule(data: &[u8]) {
    let Ok(organisation) = OrganisationId::parse("acme") else { return };
    let [
        name,
        expr,
        for_duration,
        keep_firing_for,
        rule_group,
        evaluation_interval,
        labels,
        annotations,
        enabled,
    ] = columns(data);
    let row = AlertRuleRow {
        id: Uuid::from_u128(1),
        organisation,
        name,
        expr,
        for_duration,
        keep_firing_for,
        rule_group,
        evaluation_interval,
        labels,
        annotations,
        enabled,
        created_at_micros: Some(7),
        excess: Excess::None,
    };
    let defaults = RuleDefaults::default();
    let rule = match parse(&row, &defaults) {
        Ok(Parsed::Enabled(rule)) => rule,
        Ok(Parsed::Disabled) => return,
        Err(refusals) => return assert!(!refusals.to_string().is_empty()),
    };
    assert_eq!(expression::check(&rule.rule.expr, &defaults.expressions.in_rules()), Ok(()));
    assert_eq!(parse(&row, &defaults), Ok(Parsed::Enabled(rule.clone())));
    let group = RuleGroup {
        name: rule.group.clone(),
        interval: rule.interval,
        rules: vec![rule.rule.clone()],
    };
    let mut listing = String::from("\"alert_rule\":\n");
    for (at, line) in write_group(&group).lines().enumerate() {
        listing += if at == 0 { "  - " } else { "    " };
        listing += line;
        listing += "\n";
    }
    let read = RawListing::new(Bytes::from(listing.clone())).parse("alert_rule");
    let groups = read.map(|listed| listed.ours);
    let Ok([stored]) = groups.as_deref() else { broken(format!("{listing}\n{groups:?}")) };
    assert!(!stored.says_more && stored.name == group.name, "{listing}");
    assert_eq!(stored.rules, [StoredRule::Alerting(rule.rule)], "{listing}");
}

/// A template. What passes is within its budget.
pub fn template(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let limits = ExpressionLimits::default().in_rules();
    let mut budget = Budget::new(&limits);
    match budget.charge(text) {
        Ok(()) => assert!(!budget.is_used_up()),
        Err(fault) => assert!(fault.at <= text.len() && !fault.reason.is_empty(), "{fault:?}"),
    }
}

/// An expression for the local parser, which only warns: an expression that it reads is the same as itself.
pub fn promql(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let is_read = text.len() <= 2_048 && promql::warn(text).is_none();
    // `NaN` is not equal to itself.
    let has_nan = text.to_ascii_lowercase().contains("nan");
    let is_same = promql::are_same(text, text);
    assert!(is_read || !is_same, "{text:?}");
    // What may still have a pattern is not given to the parser, and escapes of bytes are not compared.
    if !has_nan && !text.contains(['~', '\\']) {
        assert_eq!(is_read, is_same, "{text:?}");
    }
}
