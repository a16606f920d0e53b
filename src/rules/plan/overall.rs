//! The deletion guard of all tenants together: a fault that takes a little from each shows only here.
//!
//! A full resync reads every tenant before it deletes anything, and all that would be deleted is judged
//! as one deletion ([`judge_all`]). Between two full resyncs, deletions are done as they come and counted
//! ([`DeletionWindow`]). Once several tenants have lost as many rules as a full resync would hold back,
//! further deletions wait for the next one. Small and explained deletions do not wait, within bounds: one
//! organisation's change has nothing to do with another's mass deletion.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::config::GuardConfig;
use crate::rules::plan::digest_text;
use crate::rules::plan::guard::{HoldReason, Removal, Verdict, judge, judge_overall};
use crate::rules::plan::vanishing::Vanishing;
use crate::store::GuardHeld;
use crate::tenancy::OrganisationId;

#[derive(Clone, Debug, Default)]
pub(crate) struct Loss {
    pub(crate) removal: Removal,
    pub(crate) vanishing: Vanishing,
    /// The organisation is gone, and its rules are deleted without its own guard.
    is_purge: bool,
}

impl From<Vanishing> for Loss {
    fn from(vanishing: Vanishing) -> Self {
        Self { removal: vanishing.removal(), vanishing, is_purge: false }
    }
}

impl Loss {
    /// All `in_mimir` rules of an organisation that is gone.
    pub(crate) fn purge(in_mimir: usize, is_explained: bool) -> Self {
        let explained = if is_explained { in_mimir } else { 0 };
        let removal = Removal { observed: in_mimir, remaining: 0, explained, missing: 0 };
        Self { removal, vanishing: Vanishing::everything(), is_purge: true }
    }
}

/// The keys of rules, by organisation.
pub(crate) type RuleKeys = HashMap<OrganisationId, Arc<HashSet<String>>>;

/// The rules that were deleted since the last full resync was judged, without a confirmation.
#[derive(Debug, Default)]
pub(crate) struct DeletionWindow {
    removed: HashMap<OrganisationId, usize>,
    /// Those that passed as small after the window was used up.
    small: usize,
}

impl DeletionWindow {
    /// `removed` rules of an organisation were deleted; all organisations together have `in_mimir` left.
    pub(crate) fn note(
        &mut self,
        organisation: &OrganisationId,
        removed: usize,
        in_mimir: usize,
        config: &GuardConfig,
    ) {
        if self.is_used_up(in_mimir, config) {
            self.small = self.small.saturating_add(removed);
        }
        let all = self.removed.entry(organisation.clone()).or_default();
        *all = all.saturating_add(removed);
    }

    fn total(&self) -> usize {
        self.removed.values().copied().fold(0, usize::saturating_add)
    }

    /// Without the tenant that lost most, because its own guard judges that.
    fn across(&self) -> usize {
        self.total() - self.removed.values().copied().max().unwrap_or(0)
    }

    fn is_used_up(&self, in_mimir: usize, config: &GuardConfig) -> bool {
        let observed = in_mimir.saturating_add(self.total());
        let across = self.across();
        let removal =
            Removal { observed, remaining: observed - across, explained: across, missing: 0 };
        judge_overall(&[removal], config) != Verdict::Pass
    }

    /// How many rules small deletions may still take once the window is used up; none before that.
    pub(crate) fn small_left(&self, in_mimir: usize, config: &GuardConfig) -> Option<usize> {
        self.is_used_up(in_mimir, config).then(|| self.small_budget(config))
    }

    fn small_budget(&self, config: &GuardConfig) -> usize {
        config.overall_count.saturating_sub(1).saturating_sub(self.small)
    }

    fn removal(&self) -> Removal {
        let across = self.across();
        Removal { observed: across, remaining: 0, explained: across, missing: 0 }
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Judged {
    /// The deletion that is held, if any.
    pub(crate) held: Option<GuardHeld>,
    /// The rules that are part of it.
    pub(crate) keys: RuleKeys,
}

/// Judges what all tenants would lose. A deletion that is part of `held_before`, which the last full
/// resync held, does not pass as small.
pub(crate) fn judge_all(
    losses: &BTreeMap<OrganisationId, Loss>,
    confirmed: &HashMap<OrganisationId, HashSet<String>>,
    window: &DeletionWindow,
    held_before: &RuleKeys,
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
    // Confirmed deletions count as done.
    let counted = |organisation: &OrganisationId, loss: &Loss| {
        let removal = loss.removal;
        if open.contains_key(organisation) {
            return removal;
        }
        let left = removal.remaining;
        Removal { observed: left, remaining: left, explained: 0, missing: 0 }
    };
    type IsMeant<'a> = &'a dyn Fn(&OrganisationId, &Loss, &Removal) -> bool;
    let removals = |is_meant: IsMeant<'_>| -> Vec<Removal> {
        losses
            .iter()
            .map(|(organisation, loss)| (organisation, loss, counted(organisation, loss)))
            .filter(|(organisation, loss, removal)| is_meant(organisation, loss, removal))
            .map(|(_, _, removal)| removal)
            .chain([window.removal()])
            .collect()
    };
    // One organisation that is deleted is an everyday change, however many rules it has, but no remainder of a purge
    // that was held.
    let has_rules = |loss: &&&Loss| loss.is_purge && loss.removal.observed > 0;
    let are_purged_together = open.values().filter(has_rules).count() > 1;
    let is_judged_here = |organisation: &OrganisationId, loss: &Loss| {
        let was_held =
            || held_before.get(organisation).is_some_and(|keys| loss.vanishing.meets(keys));
        loss.is_purge && (are_purged_together || was_held())
    };
    let verdict = match judge_overall(&removals(&|_, _, _| true), config) {
        Verdict::Hold(HoldReason::Overall { .. }) => {
            // What a tenant's own guard holds is held anyway. It must not hold the others too. No guard but this
            // one holds a purge.
            let passing = removals(&|organisation, loss, removal| {
                is_judged_here(organisation, loss) || judge(removal, config) == Verdict::Pass
            });
            judge_overall(&passing, config)
        }
        verdict => verdict,
    };
    let Verdict::Hold(reason) = verdict else { return Judged::default() };
    let released = released(&open, window, held_before, config);
    let keys: RuleKeys = open
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
    Judged { held: Some(GuardHeld { id: deletion_id(&keys), reason }), keys }
}

/// The small deletions that pass although the whole is held: the smallest first, within the budget.
fn released<'a>(
    open: &BTreeMap<&'a OrganisationId, &'a Loss>,
    window: &DeletionWindow,
    held_before: &RuleKeys,
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

/// The ID of a deletion: equal for equal sets of rules.
fn deletion_id(keys: &RuleKeys) -> String {
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
