//! What a tenant's namespace should hold: rules in groups, within Mimir's limits.
//!
//! The outcome depends on the rules alone and not on their order. A group is what `rule_group`
//! says; where Mimir's model or limits need more groups than that, the oldest rules keep the plain
//! name, so that a newer rule moves no other. No rule is lost: what does not fit is told.

mod names;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use uuid::Uuid;

use super::alert_rule::AlertRule;
use crate::mimir::ruler::{PromDuration, RuleGroup, RulerLimits};

/// A group as it should be; never without members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredGroup {
    /// Its name within the namespace.
    pub name: String,
    /// The interval of all members.
    pub interval: PromDuration,
    /// Oldest first, which is the order of their evaluation.
    pub members: Vec<AlertRule>,
}

/// What should be, and what should be but cannot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// By the age of their oldest members, oldest first.
    pub groups: Vec<DesiredGroup>,
    /// The rules that the limit on groups leaves no room for, oldest first.
    pub over_limit: Vec<AlertRule>,
}

impl DesiredGroup {
    /// As it is written to Mimir.
    pub fn to_group(&self) -> RuleGroup {
        RuleGroup {
            name: self.name.clone(),
            interval: self.interval,
            rules: self.members.iter().map(|member| member.rule.clone()).collect(),
        }
    }
}

/// Puts rules into groups; `other_groups` is how many the tenant has in other namespaces.
pub fn desired(mut rules: Vec<AlertRule>, limits: &RulerLimits, other_groups: usize) -> Desired {
    rules.sort_by(by_age);
    let mut groups = split(rules, limits.rules_per_group.and_then(NonZeroUsize::new));
    groups.sort_by_key(|group| group.members.first().map(age));
    let fitting = match limits.groups.and_then(NonZeroUsize::new) {
        Some(limit) => limit.get().saturating_sub(other_groups).min(groups.len()),
        None => groups.len(),
    };
    let over = groups.split_off(fitting);
    let mut over_limit: Vec<AlertRule> = over.into_iter().flat_map(|group| group.members).collect();
    over_limit.sort_by(by_age);
    Desired { groups, over_limit }
}

fn age(rule: &AlertRule) -> (i64, Uuid) {
    (rule.created, rule.id)
}

/// Two rows of one ID, which only an operator's own query could give, differ by what they say.
fn by_age(one: &AlertRule, other: &AlertRule) -> std::cmp::Ordering {
    age(one).cmp(&age(other)).then_with(|| one.hash().cmp(&other.hash()))
}

/// One group for each name and interval, in chunks of at most so many.
fn split(rules: Vec<AlertRule>, most: Option<NonZeroUsize>) -> Vec<DesiredGroup> {
    let mut by_name: BTreeMap<String, BTreeMap<PromDuration, Vec<AlertRule>>> = BTreeMap::new();
    for rule in rules {
        let intervals = by_name.entry(rule.group.clone()).or_default();
        intervals.entry(rule.interval).or_default().push(rule);
    }
    let names = names::Names::new(by_name.keys());
    let mut groups = Vec::new();
    for (plain, intervals) in by_name {
        // The plain name goes to the interval of the oldest rule.
        let mut intervals: Vec<(PromDuration, Vec<AlertRule>)> = intervals.into_iter().collect();
        intervals.sort_by_key(|(_, members)| members.first().map(age));
        for (nth, (interval, members)) in intervals.into_iter().enumerate() {
            let name = if nth == 0 { plain.clone() } else { names.of_interval(&plain, interval) };
            let chunk_size = most.map_or(members.len(), NonZeroUsize::get);
            let mut rest = members.into_iter();
            for chunk in 1.. {
                let members: Vec<AlertRule> = rest.by_ref().take(chunk_size).collect();
                if members.is_empty() {
                    break;
                }
                groups.push(DesiredGroup { name: names.of_chunk(&name, chunk), interval, members });
            }
        }
    }
    groups
}

#[cfg(test)]
pub(super) mod tests;
