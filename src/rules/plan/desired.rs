//! From rules to the groups that a tenant's namespace should have, within Mimir's limits.
//!
//! The result depends on the rules and not on their order. Rules of one `rule_group` form a group. Where
//! Mimir's model or limits need several groups, the plain name goes to the interval of the oldest rule. Where the limit
//! on a group's rules cuts a group, a newer rule moves no other, and an older one at most one per later piece. A rule
//! that does not fit is reported, never dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use uuid::Uuid;

use crate::mimir::ruler::{PromDuration, RuleGroup, RulerLimits};
use crate::rules::spec::alert_rule::AlertRule;

/// Never without members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredGroup {
    pub name: String,
    pub interval: PromDuration,
    /// Oldest first, which is the order of evaluation.
    pub members: Vec<AlertRule>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Ordered by the age of their oldest members, oldest first.
    pub groups: Vec<DesiredGroup>,
    /// The rules that the limit on groups leaves no room for, oldest first.
    pub over_limit: Vec<AlertRule>,
}

impl DesiredGroup {
    /// The group as it is written to Mimir.
    pub fn to_group(&self) -> RuleGroup {
        RuleGroup {
            name: self.name.clone(),
            interval: self.interval,
            rules: self.members.iter().map(AlertRule::to_written).collect(),
        }
    }
}

/// `other_groups` is the number of groups that the tenant has in other namespaces.
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

/// Only an operator's own query can return two rows with one ID; they are ordered by their content.
fn by_age(one: &AlertRule, other: &AlertRule) -> std::cmp::Ordering {
    age(one).cmp(&age(other)).then_with(|| one.hash().cmp(&other.hash()))
}

/// One group for each name and interval, in chunks of at most `most` rules.
fn split(rules: Vec<AlertRule>, most: Option<NonZeroUsize>) -> Vec<DesiredGroup> {
    let mut by_name: BTreeMap<String, BTreeMap<PromDuration, Vec<AlertRule>>> = BTreeMap::new();
    for rule in rules {
        let intervals = by_name.entry(rule.group.clone()).or_default();
        intervals.entry(rule.interval).or_default().push(rule);
    }
    let names = GroupNames::new(by_name.keys());
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

/// Names of the groups that a `rule_group` is split into: `cpu@30s`, `cpu#2`, `cpu@30s#2`.
///
/// Two generated names are never equal: the last `@` or `#` of each says what it was made of. But an
/// author may use such a name for a `rule_group`. Then the name is the author's, and the generated one
/// gets `~` appended until it is free, which keeps both properties.
struct GroupNames(BTreeSet<String>);

impl GroupNames {
    fn new<'a>(plain: impl Iterator<Item = &'a String>) -> Self {
        Self(plain.cloned().collect())
    }

    fn of_interval(&self, plain: &str, interval: PromDuration) -> String {
        self.free(format!("{plain}@{interval}"))
    }

    /// Chunks are counted from 1; the first has the group's own name.
    fn of_chunk(&self, group: &str, chunk: usize) -> String {
        if chunk > 1 { self.free(format!("{group}#{chunk}")) } else { group.to_owned() }
    }

    fn free(&self, mut name: String) -> String {
        while self.0.contains(&name) {
            name.push('~');
        }
        name
    }
}

#[cfg(test)]
pub(crate) mod tests;
