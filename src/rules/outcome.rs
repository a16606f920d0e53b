//! What an activation came to, and what that means for each rule.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::guard::Removal;
use super::memory::Memory;
use super::plan::{ParsedRows, Plan, Quarantine};
use super::statuses::{Kept, KeptStatuses, StatusChanges};
use super::trouble::Trouble;
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
    pub(super) removal: Removal,
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
    /// Rules that are known to be live as they are.
    pub(super) live: &'a HashSet<Uuid>,
    /// Rules whose group was deleted to be written anew, and has not been.
    pub(super) lost: &'a HashSet<Uuid>,
    /// Rules of groups that Mimir will not take as a whole.
    pub(super) broken: &'a HashMap<Uuid, String>,
}

/// What becomes of each rule.
pub(super) fn report(
    parsed: &ParsedRows,
    kept: &KeptStatuses,
    ending: &Ending<'_>,
) -> KeptStatuses {
    match (ending.outcome, ending.plan) {
        (Outcome::Unchanged | Outcome::Applied, Some(plan)) => done(parsed, kept, plan, ending),
        (Outcome::Held(held), _) => {
            let reason = format!("waits for an administrator: {}", held.reason);
            unfinished(parsed, kept, ending, RuleState::Pending, &reason)
        }
        (Outcome::Failed(trouble), _) => {
            let reason = format!("{}; it is tried again", trouble.words);
            unfinished(parsed, kept, ending, RuleState::Error, &reason)
        }
        (Outcome::Deferred | Outcome::LeaseLost, _)
        | (Outcome::Unchanged | Outcome::Applied, None) => kept.clone(),
    }
}

fn done(
    parsed: &ParsedRows,
    kept: &KeptStatuses,
    plan: &Plan,
    ending: &Ending<'_>,
) -> KeptStatuses {
    let mut now = KeptStatuses::with_capacity(kept.len());
    let of = |state, reason: &str, live_hash| kept_as(state, reason.to_owned(), live_hash);
    for rule in plan.groups.iter().flat_map(|group| &group.members) {
        let status = match ending.broken.get(&rule.id) {
            Some(reason) => {
                let still = live_hash(kept, rule.id);
                of(RuleState::Error, reason, still.filter(|_| !ending.lost.contains(&rule.id)))
            }
            None => of(RuleState::Live, "", Some(rule.hash())),
        };
        now.insert(rule.id, status);
    }
    for rule in &plan.over_limit {
        now.insert(rule.id, of(RuleState::OverLimit, &over_limit(plan), None));
    }
    for (rule, reason) in &plan.quarantined {
        let refused_hash = Some(rule.hash());
        now.insert(rule.id, Kept { refused_hash, ..of(RuleState::Invalid, reason, None) });
    }
    for (rule, reason) in &parsed.refused {
        now.insert(*rule, of(RuleState::Invalid, reason, None));
    }
    for rule in &parsed.disabled {
        now.insert(*rule, of(RuleState::Disabled, "", None));
    }
    for (rule, reason) in &parsed.crowded_out {
        now.insert(*rule, of(RuleState::OverLimit, reason, None));
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

/// What was live before is so still, unless it has been replaced by now.
fn unfinished(
    parsed: &ParsedRows,
    kept: &KeptStatuses,
    ending: &Ending<'_>,
    state: RuleState,
    reason: &str,
) -> KeptStatuses {
    // Rows that are not there may still be live: they are kept, so that they are missed.
    let mut now = kept.clone();
    let still = |rule| live_hash(kept, rule).filter(|_| !ending.lost.contains(&rule));
    for rule in &parsed.enabled {
        let hash = rule.hash();
        let is_live = ending.live.contains(&rule.id) || still(rule.id).as_ref() == Some(&hash);
        let status = if is_live {
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
        let live_hash = still(*rule);
        let reason = if live_hash.is_some() { reason.to_owned() } else { String::new() };
        now.insert(*rule, kept_as(RuleState::Disabled, reason, live_hash));
    }
    now
}

fn kept_as(state: RuleState, reason: String, live_hash: Option<String>) -> Kept {
    Kept { state, reason, live_hash, refused_hash: None }
}

fn live_hash(kept: &KeptStatuses, rule: Uuid) -> Option<String> {
    kept.get(&rule).and_then(|status| status.live_hash.clone())
}
