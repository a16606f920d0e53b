//! What an activation came to, and what that means for each rule.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::alert_rule::AlertRule;
use super::memory::Memory;
use super::plan::{ParsedRows, Plan, Quarantine};
use super::statuses::{Kept, KeptStatuses, StatusChanges};
use super::trouble::Trouble;
use super::vanishing::{Entries, Entry, Vanishing};
use crate::mimir::ruler::RulerLimits;
use crate::store::{AlertRuleRow, GuardHeld, RuleState, Tombstones};
use crate::tenancy::OrganisationId;

/// What it came to.
#[derive(Clone, Debug, Default)]
pub(super) enum Outcome {
    /// Everything was as it should be.
    #[default]
    Unchanged,
    /// Everything is as it should be now.
    Applied,
    /// A deletion waits for an administrator's word; nothing was done.
    Held(GuardHeld),
    /// Something would vanish, and all tenants are to be judged together first; nothing was done.
    Deferred,
    /// It could not be finished.
    Failed(Trouble),
    /// Somebody else may lead.
    LeaseLost,
}

impl Outcome {
    /// Every label.
    pub(super) const LABELS: [&'static str; 6] =
        ["unchanged", "applied", "held", "deferred", "failed", "lease_lost"];

    /// A label for metrics and logs.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Applied => "applied",
            Self::Held(_) => "held",
            Self::Deferred => "deferred",
            Self::Failed(_) => "failed",
            Self::LeaseLost => "lease_lost",
        }
    }
}

/// An activation's result.
#[derive(Debug, Default)]
pub(super) struct Activated {
    pub(super) outcome: Outcome,
    /// Statuses to be written.
    pub(super) changes: StatusChanges,
    /// Whether anything was written to Mimir.
    pub(super) wrote: bool,
    /// What would vanish, or has.
    pub(super) vanishing: Vanishing,
    /// How many rules have vanished.
    pub(super) removed: usize,
    /// An administrator has confirmed it.
    pub(super) by_confirmation: bool,
    /// Deletions that have been carried out.
    pub(super) buried: Tombstones,
    /// Why Mimir takes no group of some rules, if so.
    pub(super) broken: Option<String>,
    /// The limits that Mimir has shown by refusing something, if that is known.
    pub(super) shown: Option<RulerLimits>,
    /// Rules in each state, by [`RuleState::ALL`]; none if that is not known.
    pub(super) states: Option<[usize; RuleState::ALL.len()]>,
}

impl Activated {
    /// Nothing but the number of rules in each state.
    pub(super) fn counted(kept: &KeptStatuses) -> Self {
        let mut states = [0; RuleState::ALL.len()];
        for status in kept.values() {
            states[status.state as usize] += 1;
        }
        Self { states: Some(states), ..Self::default() }
    }

    pub(super) fn lease_lost() -> Self {
        Self { outcome: Outcome::LeaseLost, ..Self::default() }
    }

    /// An organisation that no tenant can be named after.
    pub(super) fn without_tenant(
        organisation: &OrganisationId,
        rows: &[AlertRuleRow],
        memory: &mut Memory,
        trouble: Trouble,
    ) -> Self {
        let kept = memory.kept.get_or_insert_default();
        let status = |row: &AlertRuleRow| {
            let reason = trouble.words.to_owned();
            (row.id, kept_as(RuleState::Error, reason, None))
        };
        let now = rows.iter().map(status).collect();
        let changes = super::statuses::change(organisation, kept, now);
        Self { outcome: Outcome::Failed(trouble), changes, ..Self::counted(kept) }
    }
}

/// How an activation ended, for the statuses.
pub(super) struct Ending<'a> {
    pub(super) outcome: &'a Outcome,
    /// The last plan; none if it never came to one.
    pub(super) plan: Option<&'a Plan>,
    /// Rules that Mimir will not take.
    pub(super) quarantine: &'a Quarantine,
    /// What Mimir has by now; none if it could not be asked.
    pub(super) presence: Option<&'a Presence>,
    /// Rules of groups that Mimir will not take as a whole.
    pub(super) broken: &'a HashMap<Uuid, String>,
    /// Whether anything was written.
    pub(super) wrote: bool,
}

/// Which rules Mimir has, by their rows.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// In any version.
    rules: HashMap<Uuid, There>,
}

/// In which versions Mimir has a rule.
#[derive(Clone, Copy, Debug, Default)]
struct There {
    /// Surely as the row says.
    is_exact: bool,
    /// In another version, or perhaps so.
    is_other: bool,
    /// Perhaps as the row says: a write has had no answer.
    may_be_exact: bool,
}

impl Presence {
    /// What is there, if a group of which it is uncertain may or may not have been written.
    pub(super) fn of(mut entries: Entries, uncertain: Option<(String, Vec<Entry>)>) -> Self {
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
    /// What is live of a rule by its status, if Mimir has it in any version.
    fn still(&self, kept: &KeptStatuses, rule: Uuid) -> Option<String> {
        let is_there = self.presence.is_none_or(|presence| presence.rules.contains_key(&rule));
        live_hash(kept, rule).filter(|_| is_there)
    }

    /// Whether Mimir evaluates a rule as its row says. Where it could not be asked, its status says
    /// what is known.
    fn is_live(&self, kept: &KeptStatuses, rule: Uuid, hash: &str) -> bool {
        match self.presence {
            Some(presence) => presence.is_exact(rule),
            None => live_hash(kept, rule).as_deref() == Some(hash),
        }
    }

    /// The statuses of rows that are not there: kept while Mimir has their rules, so that they are
    /// missed.
    fn of_rows_that_are_gone(&self, kept: &KeptStatuses) -> KeptStatuses {
        let is_there =
            |rule: &Uuid| self.presence.is_none_or(|presence| presence.rules.contains_key(rule));
        let gone = kept.iter().filter(|(rule, _)| is_there(rule));
        gone.map(|(rule, status)| (*rule, status.clone())).collect()
    }
}

/// What becomes of each rule.
pub(super) fn report(
    parsed: &ParsedRows,
    kept: &KeptStatuses,
    ending: &Ending<'_>,
) -> KeptStatuses {
    let mut now = match (ending.outcome, ending.plan) {
        (Outcome::Unchanged | Outcome::Applied, Some(plan)) => done(parsed, kept, plan, ending),
        (Outcome::Held(held), _) => {
            let reason = format!("waits for an administrator: {}", held.reason);
            unfinished(parsed, kept, ending, RuleState::Pending, &reason)
        }
        (Outcome::Failed(trouble), _) => {
            let reason = format!("{}; it is tried again", trouble.words);
            unfinished(parsed, kept, ending, RuleState::Error, &reason)
        }
        (Outcome::Deferred, _) if ending.wrote => {
            let reason = "waits until all organisations have been read";
            unfinished(parsed, kept, ending, RuleState::Pending, reason)
        }
        (Outcome::Deferred | Outcome::LeaseLost, _)
        | (Outcome::Unchanged | Outcome::Applied, None) => return kept.clone(),
    };
    remember_others(&mut now, parsed, kept, ending);
    now
}

/// Notes the versions that Mimir has, or may have, besides the one that is live: if the row is edited
/// or deleted, they are known by that.
fn remember_others(
    now: &mut KeptStatuses,
    parsed: &ParsedRows,
    kept: &KeptStatuses,
    ending: &Ending<'_>,
) {
    // Each move leaves at most one behind.
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
        let before = kept.get(rule);
        let mut others = before.map(|before| before.other_hashes.clone()).unwrap_or_default();
        others.extend(before.and_then(|before| before.live_hash.clone()));
        if may_be_exact {
            others.extend(rows.get(rule).map(|rule| rule.hash()));
        }
        let mut known: HashSet<String> = status.live_hash.iter().cloned().collect();
        others.retain(|hash| known.insert(hash.clone()));
        others.drain(..others.len().saturating_sub(MOST));
        status.other_hashes = others;
    }
}

fn done(
    parsed: &ParsedRows,
    kept: &KeptStatuses,
    plan: &Plan,
    ending: &Ending<'_>,
) -> KeptStatuses {
    // What could not be deleted is still live.
    let mut now = ending.of_rows_that_are_gone(kept);
    let still = |rule| ending.still(kept, rule);
    let of = |state, reason: &str, live_hash| kept_as(state, reason.to_owned(), live_hash);
    for rule in plan.groups.iter().flat_map(|group| &group.members) {
        let hash = rule.hash();
        let status = match ending.broken.get(&rule.id) {
            _ if ending.is_live(kept, rule.id, &hash) => of(RuleState::Live, "", Some(hash)),
            Some(reason) => of(RuleState::Error, reason, still(rule.id)),
            None => {
                let reason = "another rule of its group cannot be moved; it is tried again";
                of(RuleState::Error, reason, still(rule.id))
            }
        };
        now.insert(rule.id, status);
    }
    // What could not be deleted yet is still evaluated as its row says.
    for rule in &plan.over_limit {
        let hash = rule.hash();
        let status = if ending.is_live(kept, rule.id, &hash) {
            of(RuleState::Live, "", Some(hash))
        } else {
            of(RuleState::OverLimit, &over_limit(plan), still(rule.id))
        };
        now.insert(rule.id, status);
    }
    for (rule, reason) in &plan.quarantined {
        let hash = rule.hash();
        let status = if ending.is_live(kept, rule.id, &hash) {
            of(RuleState::Live, "", Some(hash.clone()))
        } else {
            of(RuleState::Invalid, reason, still(rule.id))
        };
        now.insert(rule.id, Kept { refused_hash: Some(hash), ..status });
    }
    for (rule, reason) in &parsed.refused {
        now.insert(*rule, of(RuleState::Invalid, reason, still(*rule)));
    }
    for rule in &parsed.disabled {
        now.insert(*rule, of(RuleState::Disabled, "", still(*rule)));
    }
    for (rule, reason) in &parsed.crowded_out {
        now.insert(*rule, of(RuleState::OverLimit, reason, still(*rule)));
    }
    now
}

fn over_limit(plan: &Plan) -> String {
    let ours = plan.groups.len();
    let others = match plan.others {
        0 => String::new(),
        others => format!(", {others} of them in other namespaces"),
    };
    format!(
        "the organisation may have {} rule groups{others}, and older rules fill them; put rules \
         into fewer groups, or remove some",
        ours + plan.others
    )
}

/// What Mimir had before it has still, unless it has been replaced by now.
fn unfinished(
    parsed: &ParsedRows,
    kept: &KeptStatuses,
    ending: &Ending<'_>,
    state: RuleState,
    reason: &str,
) -> KeptStatuses {
    let mut now = ending.of_rows_that_are_gone(kept);
    let still = |rule| ending.still(kept, rule);
    for rule in &parsed.enabled {
        let hash = rule.hash();
        let status = if ending.is_live(kept, rule.id, &hash) {
            kept_as(RuleState::Live, String::new(), Some(hash))
        } else {
            // A reason of the rule's own comes before that of the whole.
            match ending.quarantine.reason(&hash) {
                Some(own) => Kept {
                    refused_hash: Some(hash.clone()),
                    ..kept_as(RuleState::Invalid, own.to_owned(), still(rule.id))
                },
                None => kept_as(state, reason.to_owned(), still(rule.id)),
            }
        };
        now.insert(rule.id, status);
    }
    for (rule, reason) in &parsed.refused {
        let (reason, live_hash) = (reason.clone(), still(*rule));
        now.insert(*rule, kept_as(RuleState::Invalid, reason, live_hash));
    }
    for (rule, reason) in &parsed.crowded_out {
        let (reason, live_hash) = (reason.clone(), still(*rule));
        now.insert(*rule, kept_as(RuleState::OverLimit, reason, live_hash));
    }
    for rule in &parsed.disabled {
        // Mimir evaluates it until the plan can be carried out.
        let status = match still(*rule) {
            Some(live) => kept_as(state, reason.to_owned(), Some(live)),
            None => kept_as(RuleState::Disabled, String::new(), None),
        };
        now.insert(*rule, status);
    }
    now
}

fn kept_as(state: RuleState, reason: String, live_hash: Option<String>) -> Kept {
    Kept { state, reason, live_hash, other_hashes: Vec::new(), refused_hash: None }
}

fn live_hash(kept: &KeptStatuses, rule: Uuid) -> Option<String> {
    kept.get(&rule).and_then(|status| status.live_hash.clone())
}
