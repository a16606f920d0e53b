//! What has to be written and deleted so that the observed groups become the desired ones.
//!
//! Values are compared and not texts, so a difference in spelling alone is never written. Only Mimir
//! knows whether two different texts are one expression: the caller asks it about [`differing_exprs`] and
//! passes the answers in.

mod order;
mod steps;

use std::collections::{BTreeMap, BTreeSet};

use crate::mimir::ruler::{AlertingRule, StoredGroup, StoredRule};
use crate::rules::plan::desired::DesiredGroup;
use crate::rules::spec::alert_rule::AlertRule;

pub use steps::{Step, steps};

/// Mimir's API is the same for both, but its limit on groups is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    Create,
    Update,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Indices into the desired groups, in the order in which to write them: a group that takes a rule
    /// from another one comes before it.
    pub writes: Vec<(usize, Write)>,
    /// Names of groups to delete. Groups whose rules move to another group come last.
    pub deletes: Vec<String>,
    pub unchanged: usize,
}

impl Diff {
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.deletes.is_empty()
    }
}

/// `same_expr` says whether two expressions of different text are one.
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
            // It differs; or there are several of one name, which Mimir cannot have: a write leaves one.
            Some(_) => diff.writes.push((index, Write::Update)),
        }
    }
    let wanted: BTreeSet<&str> = desired.iter().map(|group| group.name.as_str()).collect();
    let unwanted = by_name.keys().filter(|name| !wanted.contains(*name));
    diff.deletes = unwanted.map(|name| (*name).to_owned()).collect();
    order::order(&mut diff, desired, &by_name);
    diff
}

/// Pairs of expressions, desired and observed, whose texts differ in groups that are equal otherwise:
/// only they decide whether such a group is written.
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
    member: &AlertRule,
    stored: &AlertingRule,
    same_expr: &dyn Fn(&str, &str) -> bool,
) -> bool {
    // Destructured, so that a new field cannot be forgotten here.
    let AlertingRule { alert, expr, for_duration, keep_firing_for, labels, annotations: _ } =
        &member.rule;
    let (is, should) = (stored.expr.trim(), expr.trim());
    *alert == stored.alert
        && *for_duration == stored.for_duration
        && *keep_firing_for == stored.keep_firing_for
        && *labels == stored.labels
        && member.has_written(&stored.annotations)
        && (should == is || same_expr(should, is))
}

fn alerting(group: &StoredGroup) -> impl Iterator<Item = &AlertingRule> {
    group.rules.iter().filter_map(|rule| match rule {
        StoredRule::Alerting(rule) => Some(rule),
        StoredRule::Other => None,
    })
}

#[cfg(test)]
pub(super) mod tests;
