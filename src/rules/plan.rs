//! What has to be done for one tenant: from its rules and Mimir's listing to groups and differences.
//! Everything in this folder is pure.

pub mod desired;
pub mod diff;
pub mod guard;
pub(crate) mod overall;
pub(crate) mod vanishing;

use std::collections::HashSet;

use aws_lc_rs::digest::{SHA256, digest};
use uuid::Uuid;

use crate::mimir::ruler::{Listed, RulerLimits, StoredGroup};
use crate::rules::spec::alert_rule::AlertRule;
use desired::{Desired, DesiredGroup, desired};
use diff::{Diff, Write, diff};

#[derive(Debug)]
pub struct Plan {
    /// The groups that the rows ask for.
    pub groups: Vec<DesiredGroup>,
    /// Rules for which the tenant's limits leave no room.
    pub over_limit: Vec<AlertRule>,
    /// Rules that Mimir refuses, and why.
    pub quarantined: Vec<(AlertRule, String)>,
    /// The groups that Mimir has in our namespace.
    pub observed: Vec<StoredGroup>,
    /// The number of groups in other namespaces.
    pub others: usize,
    pub diff: Diff,
}

/// The groups that the rows ask for, and the rules that can be in none.
pub(crate) struct Wanted {
    pub(crate) desired: Desired,
    pub(crate) quarantined: Vec<(AlertRule, String)>,
}

/// `refused_because` says why Mimir refuses a rule, if it is known to.
pub(crate) fn wanted(
    enabled: &[AlertRule],
    refused_because: &dyn Fn(&AlertRule) -> Option<String>,
    limits: &RulerLimits,
    others: usize,
) -> Wanted {
    let mut fit = Vec::with_capacity(enabled.len());
    let mut quarantined = Vec::new();
    for rule in enabled {
        match refused_because(rule) {
            Some(reason) => quarantined.push((rule.clone(), reason)),
            None => fit.push(rule.clone()),
        }
    }
    Wanted { desired: desired(fit, limits, others), quarantined }
}

impl Plan {
    pub(crate) fn new(
        wanted: Wanted,
        listed: &Listed,
        same_expr: &dyn Fn(&str, &str) -> bool,
    ) -> Self {
        let Desired { groups, over_limit } = wanted.desired;
        let diff = diff(&groups, &listed.ours, same_expr);
        Self {
            groups,
            over_limit,
            quarantined: wanted.quarantined,
            observed: listed.ours.clone(),
            others: listed.others,
            diff,
        }
    }

    /// Writes the groups of these rules, too.
    pub(crate) fn write_again(&mut self, rules: &HashSet<Uuid>) {
        if rules.is_empty() {
            return;
        }
        let written: HashSet<usize> = self.diff.writes.iter().map(|(at, _)| *at).collect();
        for (at, group) in self.groups.iter().enumerate() {
            if !written.contains(&at) && group.members.iter().any(|rule| rules.contains(&rule.id)) {
                self.diff.writes.push((at, Write::Update));
                self.diff.unchanged = self.diff.unchanged.saturating_sub(1);
            }
        }
    }

    /// Whether it comes close to a limit, so that Mimir has to be asked for the real one.
    pub(crate) fn is_near(&self, limits: &RulerLimits) -> bool {
        let groups = self.groups.len() + self.others;
        let is_full = |group: &DesiredGroup| {
            limits.rules_per_group.is_some_and(|limit| group.members.len() >= limit)
        };
        !self.over_limit.is_empty()
            || limits.groups.is_some_and(|limit| groups.saturating_mul(2) > limit)
            || self.groups.iter().any(is_full)
    }

    /// The number of rules that Mimir has in our namespace.
    pub(crate) fn observed_rules(&self) -> usize {
        self.observed.iter().map(|group| group.rules.len()).sum()
    }
}

/// A short ID of a text, the same in every copy: 64 bits of its SHA-256 in hexadecimal.
pub(crate) fn digest_text(text: &str) -> String {
    use std::fmt::Write as _;
    let sum = digest(&SHA256, text.as_bytes());
    sum.as_ref().iter().take(8).fold(String::new(), |mut id, byte| {
        let _ = write!(id, "{byte:02x}");
        id
    })
}
