//! Deletions of all tenants together (pure): a fault that takes little from each is seen only here.
//!
//! A full resync reads every tenant before it deletes anything, and what would vanish is judged as one.
//! Between two of them each tenant's deletions are carried out as they come, and counted: when they
//! become as many, in several tenants, as would be held in a full resync, the rest waits for one. What
//! is small and explained does not wait, within bounds: one organisation's change has nothing to do
//! with another's mass deletion.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::digest_text;
use super::guard::{HoldReason, Removal, Verdict, judge, judge_overall};
use super::vanishing::Vanishing;
use crate::config::GuardConfig;
use crate::store::GuardHeld;
use crate::tenancy::OrganisationId;

/// What one tenant would lose.
#[derive(Clone, Debug, Default)]
pub(super) struct Loss {
    pub(super) removal: Removal,
    pub(super) vanishing: Vanishing,
}

impl From<Vanishing> for Loss {
    fn from(vanishing: Vanishing) -> Self {
        Self { removal: vanishing.removal(), vanishing }
    }
}

/// Rules by their keys, by organisation.
pub(super) type Keys = HashMap<OrganisationId, Arc<HashSet<String>>>;

/// What has vanished since the last full resync was judged, and was neither confirmed nor judged with
/// all others.
#[derive(Debug, Default)]
pub(super) struct Window {
    removed: HashMap<OrganisationId, usize>,
    /// Of what was let pass as small after it was used up.
    small: usize,
}

impl Window {
    /// So many rules of an organisation have vanished; `live` are left of all.
    pub(super) fn note(
        &mut self,
        organisation: &OrganisationId,
        removed: usize,
        live: usize,
        config: &GuardConfig,
    ) {
        if self.is_used_up(live, config) {
            self.small = self.small.saturating_add(removed);
        }
        let all = self.removed.entry(organisation.clone()).or_default();
        *all = all.saturating_add(removed);
    }

    fn total(&self) -> usize {
        self.removed.values().copied().fold(0, usize::saturating_add)
    }

    /// In all tenants but the one that lost most: what one loses is for its own guard to judge.
    fn across(&self) -> usize {
        self.total() - self.removed.values().copied().max().unwrap_or(0)
    }

    fn is_used_up(&self, live: usize, config: &GuardConfig) -> bool {
        let observed = live.saturating_add(self.total());
        let across = self.across();
        let removal =
            Removal { observed, remaining: observed - across, explained: across, missing: 0 };
        judge_overall(&[removal], config) != Verdict::Pass
    }

    /// How many rules may still vanish by small deletions once it is used up; none while it is not.
    pub(super) fn small_left(&self, live: usize, config: &GuardConfig) -> Option<usize> {
        self.is_used_up(live, config).then(|| self.small_budget(config))
    }

    fn small_budget(&self, config: &GuardConfig) -> usize {
        config.overall_count.saturating_sub(1).saturating_sub(self.small)
    }

    fn removal(&self) -> Removal {
        let across = self.across();
        Removal { observed: across, remaining: 0, explained: across, missing: 0 }
    }
}

/// What a full resync found would vanish, as it was judged.
#[derive(Clone, Debug, Default)]
pub(super) struct Judged {
    /// The deletion that waits, if any.
    pub(super) held: Option<GuardHeld>,
    /// What is part of it.
    pub(super) keys: Keys,
}

/// Judges what all tenants would lose. `held_before` is what the last judgement held: what is part of
/// that is not let pass as small.
pub(super) fn judge_all(
    losses: &BTreeMap<OrganisationId, Loss>,
    confirmed: &HashMap<OrganisationId, HashSet<String>>,
    window: &Window,
    held_before: &Keys,
    config: &GuardConfig,
) -> Judged {
    let is_confirmed = |organisation: &OrganisationId, loss: &Loss| {
        let confirmed = confirmed.get(organisation);
        confirmed.is_some_and(|keys| loss.vanishing.is_within(keys))
    };
    let open: BTreeMap<&OrganisationId, &Loss> = losses
        .iter()
        .filter(|(organisation, loss)| {
            !loss.vanishing.is_empty() && !is_confirmed(organisation, loss)
        })
        .collect();
    // What is confirmed counts as gone.
    let removals: Vec<Removal> = losses
        .iter()
        .map(|(organisation, loss)| {
            let removal = loss.removal;
            if open.contains_key(organisation) {
                return removal;
            }
            let left = removal.remaining;
            Removal { observed: left, remaining: left, explained: 0, missing: 0 }
        })
        .chain([window.removal()])
        .collect();
    let verdict = match judge_overall(&removals, config) {
        Verdict::Hold(HoldReason::Overall { .. }) => {
            // What each tenant's own guard holds is held anyway, and holds up nobody else.
            let passing = removals.into_iter().filter(|one| judge(one, config) == Verdict::Pass);
            let passing: Vec<Removal> = passing.chain([window.removal()]).collect();
            judge_overall(&passing, config)
        }
        verdict => verdict,
    };
    let Verdict::Hold(reason) = verdict else { return Judged::default() };
    let released = released(&open, window, held_before, config);
    let keys: Keys = open
        .iter()
        .filter(|(organisation, _)| !released.contains(*organisation))
        .map(|(organisation, loss)| {
            let keys = loss.vanishing.keys().cloned().collect();
            ((*organisation).clone(), Arc::new(keys))
        })
        .collect();
    if keys.is_empty() {
        return Judged::default();
    }
    let mut reason = reason.to_string();
    if keys.keys().any(|organisation| confirmed.contains_key(organisation)) {
        reason.push_str("; more than what was confirmed");
    }
    Judged { held: Some(GuardHeld { id: name(&keys), reason }), keys }
}

/// Small deletions of single tenants, the smallest first, as long as they are few together.
fn released<'a>(
    open: &BTreeMap<&'a OrganisationId, &'a Loss>,
    window: &Window,
    held_before: &Keys,
    config: &GuardConfig,
) -> HashSet<&'a OrganisationId> {
    let mut small: Vec<(usize, &OrganisationId)> = open
        .iter()
        .filter(|(organisation, loss)| {
            let was_held =
                held_before.get(**organisation).is_some_and(|keys| loss.vanishing.meets(keys));
            !was_held
                && loss.removal.is_small(config)
                && judge(&loss.removal, config) == Verdict::Pass
        })
        .map(|(organisation, loss)| (loss.removal.vanished(), *organisation))
        .collect();
    small.sort();
    let mut budget = window.small_budget(config);
    let mut released = HashSet::new();
    for (vanished, organisation) in small {
        if vanished > budget {
            break;
        }
        budget -= vanished;
        released.insert(organisation);
    }
    released
}

/// The name of a deletion: the same rules have the same name, and no others.
fn name(keys: &Keys) -> String {
    let mut lines: Vec<String> = keys
        .iter()
        .flat_map(|(organisation, keys)| {
            keys.iter().map(move |key| format!("{organisation} {key}"))
        })
        .collect();
    lines.sort();
    digest_text(&lines.join("\n"))
}

#[cfg(test)]
mod tests;
