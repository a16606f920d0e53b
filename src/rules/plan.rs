//! What there is to do for one tenant: rows and Mimir's listing -> groups that should be, what
//! differs, and what would vanish. Pure but for the question to Mimir whether two expressions are
//! one.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::alert_rule::{AlertRule, Parsed, RuleDefaults, parse};
use super::desired::{Desired, DesiredGroup, Limits, desired};
use super::diff::{Diff, diff};
use super::guard::Removal;
use super::statuses::KeptStatuses;
use crate::mimir::ruler::{Listed, StoredGroup};
use crate::store::{AlertRuleRow, Tombstones};

/// The rows of an organisation, read.
#[derive(Clone, Debug, Default)]
pub struct ParsedRows {
    /// Rules that should be live.
    pub enabled: Vec<AlertRule>,
    /// Rows that are no rules, and why, in words for their author.
    pub refused: Vec<(Uuid, String)>,
    /// Rows that are switched off.
    pub disabled: Vec<Uuid>,
}

/// Rules that Mimir will not take, by the hash of what they say, and why.
pub(super) type Quarantine = HashMap<String, String>;

/// What there is to do.
#[derive(Debug)]
pub struct Plan {
    /// The groups that should be.
    pub groups: Vec<DesiredGroup>,
    /// Rules that the tenant's limit leaves no room for.
    pub over_limit: Vec<AlertRule>,
    /// Rules that Mimir will not take.
    pub quarantined: Vec<(AlertRule, String)>,
    /// The groups that are there, in our namespace.
    pub observed: Vec<StoredGroup>,
    /// Groups in other namespaces.
    pub others: usize,
    /// What differs.
    pub diff: Diff,
}

/// Reads the rows of one organisation.
pub fn parse_rows(rows: &[AlertRuleRow], defaults: &RuleDefaults) -> ParsedRows {
    let mut parsed = ParsedRows::default();
    for row in rows {
        match parse(row, defaults) {
            Ok(Parsed::Enabled(rule)) => parsed.enabled.push(rule),
            Ok(Parsed::Disabled) => parsed.disabled.push(row.id),
            Err(refusals) => parsed.refused.push((row.id, refusals.to_string())),
        }
    }
    parsed
}

/// The groups that should be, and the rules that cannot be in any.
pub(super) struct Wanted {
    pub(super) desired: Desired,
    pub(super) quarantined: Vec<(AlertRule, String)>,
}

pub(super) fn wanted(
    enabled: &[AlertRule],
    quarantine: &Quarantine,
    limits: &Limits,
    others: usize,
) -> Wanted {
    let mut fit = Vec::with_capacity(enabled.len());
    let mut quarantined = Vec::new();
    for rule in enabled {
        // Hashing every rule would be the most of the work where nothing is wrong.
        let reason = if quarantine.is_empty() { None } else { quarantine.get(&rule.hash()) };
        match reason {
            Some(reason) => quarantined.push((rule.clone(), reason.clone())),
            None => fit.push(rule.clone()),
        }
    }
    Wanted { desired: desired(fit, limits, others), quarantined }
}

impl Plan {
    pub(super) fn new(
        wanted: Wanted,
        listed: Listed,
        same_expr: &dyn Fn(&str, &str) -> bool,
    ) -> Self {
        let Desired { groups, over_limit } = wanted.desired;
        let diff = diff(&groups, &listed.ours, same_expr);
        Self {
            groups,
            over_limit,
            quarantined: wanted.quarantined,
            observed: listed.ours,
            others: listed.others,
            diff,
        }
    }

    /// How many rules our namespace has now.
    pub fn observed_rules(&self) -> usize {
        self.observed.iter().map(|group| group.rules.len()).sum()
    }

    /// How many it would have.
    pub fn desired_rules(&self) -> usize {
        self.groups.iter().map(|group| group.members.len()).sum()
    }

    /// What would vanish from Mimir, and how much of that the database explains.
    pub(super) fn removal(
        &self,
        parsed: &ParsedRows,
        kept: &KeptStatuses,
        tombstones: &Tombstones,
    ) -> Removal {
        let gone = gone(parsed, kept);
        let missing = gone.iter().filter(|rule| !tombstones.contains(rule)).count();
        let rows_that_are_none =
            parsed.refused.len() + parsed.disabled.len() + self.quarantined.len();
        Removal {
            observed: self.observed_rules(),
            remaining: self.desired_rules(),
            explained: tombstones.len() + rows_that_are_none + self.over_limit.len(),
            missing,
        }
    }
}

/// Rules that are live and whose rows are not there.
pub(super) fn gone(parsed: &ParsedRows, kept: &KeptStatuses) -> Vec<Uuid> {
    let there: HashSet<Uuid> = parsed
        .enabled
        .iter()
        .map(|rule| rule.id)
        .chain(parsed.refused.iter().map(|(rule, _)| *rule))
        .chain(parsed.disabled.iter().copied())
        .collect();
    let live = kept.iter().filter(|(_, status)| status.live_hash.is_some()).map(|(rule, _)| *rule);
    live.filter(|rule| !there.contains(rule)).collect()
}
