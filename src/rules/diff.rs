//! What has to be written and deleted so that Mimir holds what it should.
//!
//! Compared are values and not texts, so what differs in spelling alone is never written. Whether
//! two expressions of different text are one is for Mimir to say: the caller asks it about
//! [`differing_exprs`] and hands the answers in.

mod order;
mod steps;

use std::collections::{BTreeMap, BTreeSet};

use super::alert_rule::AlertRule;
use super::desired::DesiredGroup;
use crate::mimir::ruler::{AlertingRule, StoredGroup, StoredRule};

pub use steps::{Step, steps};

/// How a group is written; Mimir's interface is the same for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// There is none of its name.
    Create,
    /// There is one of its name that differs.
    Update,
}

/// What has to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Indices into the desired groups, in the order in which they should be written: a group that
    /// takes over another's rule before the one that gives it up.
    pub writes: Vec<(usize, Write)>,
    /// Names of groups to delete, first those whose rules go nowhere else.
    pub deletes: Vec<String>,
    /// How many groups are as they should be.
    pub unchanged: usize,
}

impl Diff {
    /// Whether nothing has to be done.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.deletes.is_empty()
    }
}

/// Compares what should be with what is. `same_expr` judges two expressions of different text.
pub fn diff(
    desired: &[DesiredGroup],
    observed: &[StoredGroup],
    same_expr: &dyn Fn(&str, &str) -> bool,
) -> Diff {
    let by_name = by_name(observed);
    let mut diff = Diff::default();
    for (index, group) in desired.iter().enumerate() {
        match by_name.get(group.name.as_str()).map(Vec::as_slice) {
            None => diff.writes.push((index, Write::Create)),
            Some([stored]) if is_same(group, stored, same_expr) => diff.unchanged += 1,
            // One that differs, or several of one name, which Mimir cannot have: writing it makes
            // it one again.
            Some(_) => diff.writes.push((index, Write::Update)),
        }
    }
    let wanted: BTreeSet<&str> = desired.iter().map(|group| group.name.as_str()).collect();
    let unwanted = by_name.keys().filter(|name| !wanted.contains(*name));
    diff.deletes = unwanted.map(|name| (*name).to_owned()).collect();
    order::order(&mut diff, desired, &by_name);
    diff
}

/// Pairs of expressions, desired and observed, whose texts differ in groups that are otherwise
/// equal: whether those have to be written hangs on them alone.
pub fn differing_exprs<'a>(
    desired: &'a [DesiredGroup],
    observed: &'a [StoredGroup],
) -> Vec<(&'a str, &'a str)> {
    let by_name = by_name(observed);
    let mut pairs = BTreeSet::new();
    for group in desired {
        if let Some([stored]) = by_name.get(group.name.as_str()).map(Vec::as_slice)
            && is_same(group, stored, &|_, _| true)
        {
            let exprs = alerting(stored).zip(&group.members);
            let exprs = exprs.map(|(is, should)| (should.rule.expr.trim(), is.expr.trim()));
            pairs.extend(exprs.filter(|(should, is)| should != is));
        }
    }
    pairs.into_iter().collect()
}

fn by_name(observed: &[StoredGroup]) -> BTreeMap<&str, Vec<&StoredGroup>> {
    let mut by_name: BTreeMap<&str, Vec<&StoredGroup>> = BTreeMap::new();
    for group in observed {
        by_name.entry(&group.name).or_default().push(group);
    }
    by_name
}

fn is_same(
    group: &DesiredGroup,
    stored: &StoredGroup,
    same_expr: &dyn Fn(&str, &str) -> bool,
) -> bool {
    stored.interval == Some(group.interval)
        && !stored.says_more
        && stored.rules.len() == group.members.len()
        && group.members.iter().zip(&stored.rules).all(|(member, stored)| match stored {
            StoredRule::Alerting(stored) => is_same_rule(member, stored, same_expr),
            StoredRule::Other => false,
        })
}

fn is_same_rule(
    AlertRule { rule, .. }: &AlertRule,
    stored: &AlertingRule,
    same_expr: &dyn Fn(&str, &str) -> bool,
) -> bool {
    // All fields by name, so that none is forgotten when there are more.
    let AlertingRule { alert, expr, for_duration, keep_firing_for, labels, annotations } = rule;
    let (is, should) = (stored.expr.trim(), expr.trim());
    *alert == stored.alert
        && *for_duration == stored.for_duration
        && *keep_firing_for == stored.keep_firing_for
        && *labels == stored.labels
        && *annotations == stored.annotations
        && (should == is || same_expr(should, is))
}

fn alerting(group: &StoredGroup) -> impl Iterator<Item = &AlertingRule> {
    group.rules.iter().filter_map(|rule| match rule {
        StoredRule::Alerting(rule) => Some(rule),
        StoredRule::Other => None,
    })
}

#[cfg(test)]
mod tests;
