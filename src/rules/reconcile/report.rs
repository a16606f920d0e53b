//! What a reconcile came to, and what follows from it for the status of each rule. Pure.
//!
//! A status says `stored`, `live` or `failing` if and only if Mimir has the rule as its row says. So
//! statuses are not made from what was planned but from what Mimir has ([`Presence`]), writes without an
//! answer included. Only where Mimir could not be asked, the status from before stands in for it. Which
//! of the three it is, evaluation decides (`rules::health`); a new version begins as `stored`.

use std::collections::{HashMap, HashSet};

use strum::EnumCount as _;
use uuid::Uuid;

use super::quarantine::Quarantine;
use crate::labels::RuleState;
use crate::mimir::ruler::RulerLimits;
use crate::rules::plan::Plan;
use crate::rules::plan::vanishing::{Entries, Entry, Vanishing};
use crate::rules::spec::alert_rule::AlertRule;
use crate::rules::spec::rows::ParsedRows;
use crate::rules::status::outcome::{Outcome, SyncFailure};
use crate::rules::status::statuses::{RuleStatus, RuleStatuses, StatusChanges, change, count};
use crate::store::{AlertRuleRow, Tombstones};
use crate::tenancy::OrganisationId;

#[derive(Debug, Default)]
pub(crate) struct Reconciled {
    pub(crate) outcome: Outcome,
    /// Statuses to write.
    pub(crate) changes: StatusChanges,
    /// Whether anything was written to Mimir.
    pub(crate) wrote: bool,
    /// The rules that would be deleted, or were.
    pub(crate) vanishing: Vanishing,
    /// The number of rules that were deleted.
    pub(crate) removed: usize,
    /// The deletion was confirmed by an administrator.
    pub(crate) by_confirmation: bool,
    /// Tombstones of rules that Mimir no longer has.
    pub(crate) deleted: Tombstones,
    /// Why Mimir refuses a whole group, if it does.
    pub(crate) broken: Option<String>,
    /// The limits that refusals have shown.
    pub(crate) observed_limits: Option<RulerLimits>,
    /// The number of rules in each state, by [`RuleState`]; none if it is unknown.
    pub(crate) states: Option<[usize; RuleState::COUNT]>,
}

impl Reconciled {
    pub(crate) fn counted(statuses: &RuleStatuses) -> Self {
        Self { states: Some(count(statuses)), ..Self::default() }
    }

    /// The organisation's ID cannot be a tenant's, so none of its rules can be in Mimir.
    pub(crate) fn without_tenant(
        organisation: &OrganisationId,
        rows: &[AlertRuleRow],
        known: &mut Option<RuleStatuses>,
        failure: SyncFailure,
    ) -> Self {
        let known = known.get_or_insert_default();
        let status =
            |row: &AlertRuleRow| (row.id, RuleStatus::new(RuleState::Error, failure.reason, None));
        let now = rows.iter().map(status).collect();
        let changes = change(organisation, known, now);
        Self { outcome: Outcome::Failed(failure), changes, ..Self::counted(known) }
    }
}

/// How a reconcile ended.
pub(crate) struct Ending<'a> {
    pub(crate) outcome: &'a Outcome,
    /// The last plan; none if it failed before there was one.
    pub(crate) plan: Option<&'a Plan>,
    pub(crate) quarantine: &'a Quarantine,
    /// What Mimir has now; none if it could not be asked.
    pub(crate) presence: Option<&'a Presence>,
    /// Rules of groups that Mimir refuses as a whole, and why.
    pub(crate) broken: &'a HashMap<Uuid, String>,
    pub(crate) wrote: bool,
}

/// The rows whose rules Mimir has.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    rules: HashMap<Uuid, There>,
}

/// In which versions Mimir has a rule.
#[derive(Clone, Copy, Debug, Default)]
struct There {
    /// Certainly as the row says.
    is_exact: bool,
    /// Certainly or perhaps in another version.
    is_other: bool,
    /// Perhaps as the row says: a write got no answer.
    may_be_exact: bool,
}

impl Presence {
    /// `uncertain` is a group that may or may not have been written. Both are considered, and only
    /// what holds in both is certain.
    pub(crate) fn of(mut entries: Entries, uncertain: Option<(String, Vec<Entry>)>) -> Self {
        let one = Self::certain(&entries);
        let Some((group, written)) = uncertain else { return one };
        entries.insert(group, written);
        let other = Self::certain(&entries);
        let mut rules = one.rules;
        for (rule, there) in &mut rules {
            let (is_exact, is_other) = (other.is_exact(*rule), other.has_other(*rule));
            there.may_be_exact = there.is_exact != is_exact;
            there.is_other |= is_other;
            there.is_exact &= is_exact;
        }
        for (rule, there) in other.rules {
            let is_other = there.is_other;
            let perhaps = There { is_exact: false, is_other, may_be_exact: there.is_exact };
            rules.entry(rule).or_insert(perhaps);
        }
        Self { rules }
    }

    fn certain(entries: &Entries) -> Self {
        let mut rules: HashMap<Uuid, There> = HashMap::new();
        for entry in entries.values().flatten() {
            if let Some(rule) = entry.rule {
                let there = rules.entry(rule).or_default();
                there.is_exact |= entry.is_exact;
                there.is_other |= !entry.is_exact;
            }
        }
        Self { rules }
    }

    fn is_exact(&self, rule: Uuid) -> bool {
        self.rules.get(&rule).is_some_and(|there| there.is_exact)
    }

    fn has_other(&self, rule: Uuid) -> bool {
        self.rules.get(&rule).is_some_and(|there| there.is_other)
    }

    fn may_be_exact(&self, rule: Uuid) -> bool {
        self.rules.get(&rule).is_some_and(|there| there.may_be_exact)
    }
}

impl Ending<'_> {
    /// The version in Mimir by the old status, if Mimir still has the rule in any version.
    fn still_in_mimir(&self, known: &RuleStatuses, rule: Uuid) -> Option<String> {
        let is_there = self.presence.is_none_or(|presence| presence.rules.contains_key(&rule));
        rule_hash(known, rule).filter(|_| is_there)
    }

    /// The status of a rule that Mimir has as its row says; by the old status if it could not be asked.
    fn in_mimir(&self, known: &RuleStatuses, rule: Uuid, hash: &str) -> Option<RuleStatus> {
        let is_there = match self.presence {
            Some(presence) => presence.is_exact(rule),
            None => rule_hash(known, rule).as_deref() == Some(hash),
        };
        is_there.then(|| RuleStatus::in_mimir(known.get(&rule), hash.to_owned()))
    }

    /// The statuses of rows that are gone. They stay while Mimir has the rules: the deletion guard
    /// recognises a missing rule by its status.
    fn statuses_of_missing_rows(&self, known: &RuleStatuses) -> RuleStatuses {
        let is_there =
            |rule: &Uuid| self.presence.is_none_or(|presence| presence.rules.contains_key(rule));
        let gone = known.iter().filter(|(rule, _)| is_there(rule));
        gone.map(|(rule, status)| (*rule, status.clone())).collect()
    }
}

/// The status of each rule.
pub(crate) fn report(
    parsed: &ParsedRows,
    known: &RuleStatuses,
    ending: &Ending<'_>,
) -> RuleStatuses {
    let mut now = match (ending.outcome, ending.plan) {
        (Outcome::Unchanged | Outcome::Applied, Some(plan)) => done(parsed, known, plan, ending),
        (Outcome::Held(held), _) => {
            let reason = format!("waits for an administrator's confirmation: {}", held.reason);
            unfinished(parsed, known, ending, RuleState::Pending, &reason)
        }
        (Outcome::Failed(failure), _) => {
            let reason = format!("{}; the sync is retried automatically", failure.reason);
            unfinished(parsed, known, ending, RuleState::Error, &reason)
        }
        (Outcome::Deferred, _) if ending.wrote => {
            let reason = "waits until the rules of all organisations have been read";
            unfinished(parsed, known, ending, RuleState::Pending, reason)
        }
        (Outcome::Deferred | Outcome::LeaseLost, _)
        | (Outcome::Unchanged | Outcome::Applied, None) => return known.clone(),
    };
    note_other_versions(&mut now, parsed, known, ending);
    now
}

/// The versions that Mimir has, or may have, besides the one that the status names: if the row is edited
/// or deleted, they are known by that.
fn note_other_versions(
    now: &mut RuleStatuses,
    parsed: &ParsedRows,
    known: &RuleStatuses,
    ending: &Ending<'_>,
) {
    // Each interrupted move leaves at most one behind.
    const MOST: usize = 8;
    let rows: HashMap<Uuid, &AlertRule> =
        parsed.enabled.iter().map(|rule| (rule.id, rule)).collect();
    for (rule, status) in now {
        let may_be_exact = ending.presence.is_some_and(|presence| presence.may_be_exact(*rule));
        let has_other = ending.presence.is_none_or(|presence| presence.has_other(*rule));
        if !has_other && !may_be_exact {
            status.other_hashes.clear();
            continue;
        }
        let before = known.get(rule);
        let mut others = before.map(|before| before.other_hashes.clone()).unwrap_or_default();
        others.extend(before.and_then(|before| before.rule_hash.clone()));
        if may_be_exact {
            others.extend(rows.get(rule).map(|rule| rule.hash()));
        }
        let mut known: HashSet<String> = status.rule_hash.iter().cloned().collect();
        others.retain(|hash| known.insert(hash.clone()));
        others.drain(..others.len().saturating_sub(MOST));
        status.other_hashes = others;
    }
}

fn done(
    parsed: &ParsedRows,
    known: &RuleStatuses,
    plan: &Plan,
    ending: &Ending<'_>,
) -> RuleStatuses {
    // A rule that could not be deleted is still in Mimir.
    let mut now = ending.statuses_of_missing_rows(known);
    let still_in_mimir = |rule| ending.still_in_mimir(known, rule);
    let of = |state, reason: &str, rule_hash| RuleStatus::new(state, reason, rule_hash);
    for rule in plan.groups.iter().flat_map(|group| &group.members) {
        let hash = rule.hash();
        let status = ending.in_mimir(known, rule.id, &hash).unwrap_or_else(|| {
            let not_moved =
                "another rule of its group could not be moved; the sync is retried automatically";
            let reason = ending.broken.get(&rule.id).map_or(not_moved, String::as_str);
            of(RuleState::Error, reason, still_in_mimir(rule.id))
        });
        now.insert(rule.id, status);
    }
    // A rule over the limit may still be in Mimir, because its deletion is held or failed.
    for rule in &plan.over_limit {
        let hash = rule.hash();
        let status = ending.in_mimir(known, rule.id, &hash).unwrap_or_else(|| {
            of(RuleState::OverLimit, &over_limit(plan), still_in_mimir(rule.id))
        });
        now.insert(rule.id, status);
    }
    for (rule, reason) in &plan.quarantined {
        let hash = rule.hash();
        let status = ending
            .in_mimir(known, rule.id, &hash)
            .unwrap_or_else(|| of(RuleState::Invalid, reason, still_in_mimir(rule.id)));
        now.insert(rule.id, RuleStatus { refused_hash: Some(hash), ..status });
    }
    for (rule, reason) in &parsed.refused {
        now.insert(*rule, of(RuleState::Invalid, reason, still_in_mimir(*rule)));
    }
    for rule in &parsed.disabled {
        // Not `disabled` while Mimir evaluates it.
        let status = match still_in_mimir(*rule) {
            Some(hash) => of(RuleState::Error, &still_there(ending), Some(hash)),
            None => of(RuleState::Disabled, "", None),
        };
        now.insert(*rule, status);
    }
    for (rule, reason) in &parsed.crowded_out {
        now.insert(*rule, of(RuleState::OverLimit, reason, still_in_mimir(*rule)));
    }
    now
}

/// Why a disabled rule is in Mimir.
fn still_there(ending: &Ending<'_>) -> String {
    let why = ending.broken.values().next();
    let why = why.map_or("the sync is retried automatically", String::as_str);
    format!("Mimir still evaluates it, because its group cannot be written: {why}")
}

fn over_limit(plan: &Plan) -> String {
    let ours = plan.groups.len();
    let others = match plan.others {
        0 => String::new(),
        others => format!(" ({others} of them in other namespaces)"),
    };
    format!(
        "the organisation's limit of {} rule groups{others} is reached by older rules; use fewer \
         groups, or delete rules",
        ours + plan.others
    )
}

/// The statuses if the plan was not carried out: what Mimir had it still has, unless it was replaced
/// before the end.
fn unfinished(
    parsed: &ParsedRows,
    known: &RuleStatuses,
    ending: &Ending<'_>,
    state: RuleState,
    reason: &str,
) -> RuleStatuses {
    let mut now = ending.statuses_of_missing_rows(known);
    let still_in_mimir = |rule| ending.still_in_mimir(known, rule);
    for rule in &parsed.enabled {
        let hash = rule.hash();
        let status = ending.in_mimir(known, rule.id, &hash).unwrap_or_else(|| {
            // The rule's own reason helps its author more than that of the whole sync.
            match ending.quarantine.reason(&hash) {
                Some(own) => RuleStatus {
                    refused_hash: Some(hash.clone()),
                    ..RuleStatus::new(RuleState::Invalid, own, still_in_mimir(rule.id))
                },
                None => RuleStatus::new(state, reason, still_in_mimir(rule.id)),
            }
        });
        now.insert(rule.id, status);
    }
    for (rule, reason) in &parsed.refused {
        now.insert(*rule, RuleStatus::new(RuleState::Invalid, reason, still_in_mimir(*rule)));
    }
    for (rule, reason) in &parsed.crowded_out {
        now.insert(*rule, RuleStatus::new(RuleState::OverLimit, reason, still_in_mimir(*rule)));
    }
    for rule in &parsed.disabled {
        // Not `disabled`, because Mimir evaluates it until the plan can be carried out.
        let status = match still_in_mimir(*rule) {
            Some(hash) => RuleStatus::new(state, reason, Some(hash)),
            None => RuleStatus::new(RuleState::Disabled, "", None),
        };
        now.insert(*rule, status);
    }
    now
}

fn rule_hash(known: &RuleStatuses, rule: Uuid) -> Option<String> {
    known.get(&rule).and_then(|status| status.rule_hash.clone())
}
