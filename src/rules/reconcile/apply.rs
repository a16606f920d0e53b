//! Takes the steps of a plan so that a rule that stays is always in some group.
//!
//! A group that gives a rule to another one is written, or deleted, only when the other one has the
//! rule. Where that is impossible, because groups exchange rules or because Mimir refuses the group that
//! takes, the giving group is *widened*: it is written with its new rules and the old version of the
//! rule, and once more without it later. For a moment a rule may be in two groups, which Alertmanager
//! treats as one alert.
//!
//! At exactly the tenant's limit on groups Mimir accepts nothing before something is deleted. There, and
//! only there, a rule that moves is gone for a moment.

use std::collections::{HashMap, HashSet, VecDeque};

use uuid::Uuid;

use super::world::World;
use super::writer::WriteError;
use super::{Reconcile, Stop};
use crate::mimir::ruler::{
    AlertingRule, GroupRefusal, RuleGroup, RulerError, RulerLimits, StoredGroup, StoredRule,
};
use crate::rules::plan::Plan;
use crate::rules::plan::desired::DesiredGroup;
use crate::rules::plan::diff::{Step, steps};
use crate::rules::plan::vanishing::Entry;
use crate::rules::spec::alert_rule::AlertRule;
use crate::rules::spec::refusal::in_words;

pub(super) enum Applied {
    /// Mimir accepted all of it.
    Whole,
    /// Something was written, or learned by a refusal: make another plan.
    Again,
    /// No step is left that can be taken: the plan is empty, or the rest is refused or has no room.
    NothingLeft,
}

/// How Mimir answered a step.
enum Taken {
    Whole,
    /// It named what is wrong with the group.
    Refused,
    /// The refusal shows a limit that was not known.
    LimitShown,
}

/// The steps that are left, and what came of the others.
struct Taking {
    pending: VecDeque<Step>,
    /// The steps delete something before the last write.
    is_at_the_limit: bool,
    is_refused: bool,
    has_written: bool,
    /// There is a temporary group, which the next plan deletes.
    is_aside: bool,
    /// Groups that were widened, or could not be.
    widened: HashSet<usize>,
}

/// What came of the steps that were possible, or of widening a group.
enum Turn {
    /// Other steps may be possible now.
    Progressed,
    /// There was nothing to do.
    Stalled,
    LimitShown,
}

enum Widened {
    Done,
    /// The old versions are in a temporary group.
    Aside,
    /// Mimir named one of the group's own rules.
    Refused,
    /// Neither the group nor a temporary one has room for the old versions.
    NoRoom,
}

/// The rules that a group gives away and that no other group has yet, as Mimir has them.
struct Given {
    entries: Vec<Entry>,
    rules: Vec<AlertingRule>,
}

fn is_there(plan: &Plan, group: &DesiredGroup) -> bool {
    observed(plan, &group.name).is_some()
}

fn observed<'a>(plan: &'a Plan, name: &str) -> Option<&'a StoredGroup> {
    plan.observed.iter().find(|observed| observed.name == name)
}

/// Whether the steps delete something before the last write.
fn is_at_the_limit(steps: &[Step]) -> bool {
    let last_write = steps.iter().rposition(|step| !matches!(step, Step::Delete(_)));
    let first_delete = steps.iter().position(|step| matches!(step, Step::Delete(_)));
    steps.iter().any(|step| matches!(step, Step::Replace(_)))
        || first_delete.zip(last_write).is_some_and(|(delete, write)| delete < write)
}

fn is_same(group: &RuleGroup, stored: &StoredGroup) -> bool {
    stored.interval == Some(group.interval)
        && !stored.says_more
        && stored.rules.len() == group.rules.len()
        && stored
            .rules
            .iter()
            .zip(&group.rules)
            .all(|(stored, rule)| matches!(stored, StoredRule::Alerting(stored) if stored == rule))
}

impl<W: World> Reconcile<'_, W> {
    /// Takes the steps. If a refusal shows a limit, the rest is left to the next plan.
    pub(super) async fn apply(&mut self, plan: &Plan) -> Result<Applied, Stop> {
        self.groups = plan.observed.len() + plan.others;
        let mut steps = steps(&plan.diff, &plan.groups, self.groups, self.limits().groups);
        // First the steps that would exceed an expired limit: if Mimir refuses one, nothing of the
        // tenant was touched yet, and the next plan respects the limit.
        let none = RulerLimits::default();
        steps.sort_by_cached_key(|step| self.exceeded(step, plan) == none);
        let is_at_the_limit = is_at_the_limit(&steps);
        let mut taking = Taking {
            pending: steps.into(),
            is_at_the_limit,
            is_refused: false,
            has_written: false,
            is_aside: false,
            widened: HashSet::new(),
        };
        loop {
            let turn = self.take_possible_steps(&mut taking, plan).await?;
            let turn = match turn {
                Turn::LimitShown => return Ok(Applied::Again),
                _ if taking.pending.is_empty() || taking.is_refused => break,
                Turn::Progressed => continue,
                Turn::Stalled => self.widen_one(&mut taking, plan).await?,
            };
            match turn {
                Turn::LimitShown => return Ok(Applied::Again),
                Turn::Progressed => {}
                Turn::Stalled => break,
            }
        }
        let Taking { pending, is_refused, has_written, is_aside, .. } = taking;
        Ok(if pending.is_empty() && !is_refused && !is_aside && self.broken.is_empty() {
            Applied::Whole
        } else if is_refused || has_written {
            Applied::Again
        } else {
            Applied::NothingLeft
        })
    }

    /// Takes every step that loses no rule. The others stay pending: one that was taken may make them possible.
    async fn take_possible_steps(
        &mut self,
        taking: &mut Taking,
        plan: &Plan,
    ) -> Result<Turn, Stop> {
        let steps = std::mem::take(&mut taking.pending);
        let before = steps.len();
        for step in steps {
            let in_order = taking.is_at_the_limit && !taking.is_refused && self.broken.is_empty();
            let is_possible = in_order || !self.would_lose(&step, plan) && self.has_room(&step);
            if self.is_broken_step(&step, plan) || !is_possible {
                taking.pending.push_back(step);
                continue;
            }
            match self.take(&step, plan).await? {
                Taken::Whole => taking.has_written = true,
                Taken::Refused => taking.is_refused = true,
                Taken::LimitShown => return Ok(Turn::LimitShown),
            }
        }
        let has_progressed = taking.pending.len() < before;
        Ok(if has_progressed { Turn::Progressed } else { Turn::Stalled })
    }

    /// No step is possible as it is: widens one group, which makes others possible. Each group is widened once, so this
    /// ends.
    async fn widen_one(&mut self, taking: &mut Taking, plan: &Plan) -> Result<Turn, Stop> {
        let next = taking.pending.iter().find_map(|step| match step {
            Step::Set(at) | Step::Replace(at)
                if !self.is_broken(&plan.groups[*at]) && taking.widened.insert(*at) =>
            {
                Some(*at)
            }
            _ => None,
        });
        let Some(at) = next else { return Ok(Turn::Stalled) };
        match self.widen(at, plan).await? {
            Widened::Done => taking.has_written = true,
            Widened::Aside => (taking.has_written, taking.is_aside) = (true, true),
            Widened::Refused => taking.is_refused = true,
            Widened::NoRoom => {
                // If every group that takes is still to be written, write this one regardless: the
                // rules are back after the next steps. Otherwise the group stays as it is.
                if self.is_exchange(at, &taking.pending, plan) {
                    match self.take(&Step::Set(at), plan).await? {
                        Taken::Whole => taking.has_written = true,
                        Taken::Refused => taking.is_refused = true,
                        Taken::LimitShown => return Ok(Turn::LimitShown),
                    }
                    taking.pending.retain(|step| !matches!(step, Step::Set(other) | Step::Replace(other) if *other == at));
                }
            }
        }
        Ok(Turn::Progressed)
    }

    pub(super) fn count_entries(&mut self) {
        let mut counts = HashMap::new();
        let entries = self.entries.iter().flat_map(std::collections::BTreeMap::values);
        for rule in entries.flatten().filter_map(|entry| entry.rule) {
            *counts.entry(rule).or_default() += 1;
        }
        self.entry_counts = counts;
    }

    fn entries_of(&self, group: &str) -> &[Entry] {
        self.entries.as_ref().and_then(|entries| entries.get(group)).map_or(&[], Vec::as_slice)
    }

    /// The rules of a group that stay, are in no other group, and are not among `members`.
    fn given<'b>(
        &'b self,
        group: &str,
        members: &'b HashSet<Uuid>,
    ) -> impl Iterator<Item = (usize, Entry)> + 'b {
        let entries = self.entries_of(group);
        entries.iter().copied().enumerate().filter(move |(_, entry)| {
            let Some(rule) = entry.rule else { return false };
            if !entry.stays || members.contains(&rule) {
                return false;
            }
            let here = entries.iter().filter(|other| other.rule == Some(rule)).count();
            self.entry_counts.get(&rule).copied().unwrap_or(0) <= here
        })
    }

    /// Whether the limit on groups permits a write. Mimir counts a group that is written as one more,
    /// even if it replaces one.
    fn has_room(&self, step: &Step) -> bool {
        let limit = self.limits().groups.unwrap_or(usize::MAX);
        !matches!(step, Step::Set(_)) || self.groups < limit
    }

    /// Whether a rule that stays would be in no group after the step.
    fn would_lose(&self, step: &Step, plan: &Plan) -> bool {
        match step {
            Step::Delete(name) => self.given(name, &HashSet::new()).next().is_some(),
            Step::Set(at) | Step::Replace(at) => {
                let group = &plan.groups[*at];
                self.given(&group.name, &ids(group)).next().is_some()
            }
        }
    }

    /// Whether groups that are still to be written take every rule that this group gives away.
    fn is_exchange(&self, at: usize, pending: &VecDeque<Step>, plan: &Plan) -> bool {
        let taken: HashSet<Uuid> = pending
            .iter()
            .filter_map(|step| match step {
                Step::Set(other) | Step::Replace(other) if *other != at => Some(*other),
                _ => None,
            })
            .filter(|other| !self.is_broken(&plan.groups[*other]))
            .flat_map(|other| ids(&plan.groups[other]))
            .collect();
        let group = &plan.groups[at];
        self.given(&group.name, &ids(group))
            .all(|(_, entry)| entry.rule.is_some_and(|rule| taken.contains(&rule)))
    }

    /// Writes a group together with the rules that it gives away and no group has taken yet, or writes
    /// those into a temporary group.
    async fn widen(&mut self, at: usize, plan: &Plan) -> Result<Widened, Stop> {
        let group = &plan.groups[at];
        let Some(given) = self.to_be_kept(group, plan) else { return Ok(Widened::NoRoom) };
        let limits = self.limits();
        let room = limits.rules_per_group.unwrap_or(usize::MAX);
        let mut wide = group.to_group();
        wide.rules.extend(given.rules.iter().cloned());
        if wide.rules.len() <= room {
            let same = observed(plan, &group.name).is_some_and(|stored| is_same(&wide, stored));
            if same {
                // Mimir has it already: the group that takes the rules is the one that it refuses.
                return Ok(Widened::NoRoom);
            }
            let entries = members(group).chain(given.entries.iter().copied()).collect();
            match self.write(&wide, entries).await {
                Ok(()) => return Ok(Widened::Done),
                Err(WriteError::Ruler(RulerError::Refused(
                    refusal @ GroupRefusal::Rule { index, .. },
                ))) if index < group.members.len() => {
                    self.refused(group, refusal, plan.others).await?;
                    return Ok(Widened::Refused);
                }
                Err(WriteError::Ruler(RulerError::Refused(_))) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.groups >= limits.groups.unwrap_or(usize::MAX) {
            return Ok(Widened::NoRoom);
        }
        // A temporary group, under a name that nothing uses.
        let mut name = format!("{}~", group.name);
        while observed(plan, &name).is_some() || plan.groups.iter().any(|group| group.name == name)
        {
            name.push('~');
        }
        let aside = RuleGroup { name, interval: wide.interval, rules: given.rules };
        match self.write(&aside, given.entries).await {
            Ok(()) => {
                self.groups += 1;
                Ok(Widened::Aside)
            }
            Err(WriteError::Ruler(RulerError::Refused(_))) => Ok(Widened::NoRoom),
            Err(error) => Err(error.into()),
        }
    }

    /// What a group gives away and no group has taken yet; none if one of the rules is not an alerting
    /// rule and could not be written again.
    fn to_be_kept(&self, group: &DesiredGroup, plan: &Plan) -> Option<Given> {
        let stored = observed(plan, &group.name)?;
        let mut given = Given { entries: Vec::new(), rules: Vec::new() };
        for (index, entry) in self.given(&group.name, &ids(group)) {
            let StoredRule::Alerting(rule) = stored.rules.get(index)? else { return None };
            given.entries.push(Entry { is_exact: false, ..entry });
            given.rules.push(rule.clone());
        }
        Some(given)
    }

    fn is_broken_step(&self, step: &Step, plan: &Plan) -> bool {
        match step {
            Step::Set(at) | Step::Replace(at) => self.is_broken(&plan.groups[*at]),
            Step::Delete(_) => false,
        }
    }

    fn is_broken(&self, group: &DesiredGroup) -> bool {
        group.members.iter().any(|rule| self.broken.contains_key(&rule.id))
    }

    /// The expired limits that a step exceeds.
    fn exceeded(&self, step: &Step, plan: &Plan) -> RulerLimits {
        let (Step::Set(at) | Step::Replace(at)) = step else { return RulerLimits::default() };
        let (group, expired) = (&plan.groups[*at], self.state.expired_limits());
        let is_new = !is_there(plan, group);
        RulerLimits {
            rules_per_group: expired.rules_per_group.filter(|limit| group.members.len() > *limit),
            groups: expired.groups.filter(|limit| is_new && self.groups >= *limit),
        }
    }

    async fn take(&mut self, step: &Step, plan: &Plan) -> Result<Taken, Stop> {
        let at = match step {
            Step::Delete(name) => {
                self.delete(name).await?;
                return Ok(Taken::Whole);
            }
            Step::Set(at) | Step::Replace(at) => *at,
        };
        let group = &plan.groups[at];
        let wire = group.to_group();
        let is_new = !is_there(plan, group) && self.entries_of(&group.name).is_empty();
        let mut done = self.write(&wire, members(group).collect()).await;
        let mut is_replaced = false;
        let too_many = matches!(
            done,
            Err(WriteError::Ruler(RulerError::Refused(GroupRefusal::TooManyGroups { .. })))
        );
        if too_many && matches!(step, Step::Replace(_)) {
            // Mimir checks the rules before it counts the groups. So the rules are valid, and the group
            // can be written again after it is deleted.
            self.delete(&group.name).await?;
            is_replaced = true;
            done = self.write(&wire, members(group).collect()).await;
        }
        match done {
            Ok(()) => {
                let exceeded = self.exceeded(step, plan);
                self.state.refute_limits(exceeded);
                self.groups += usize::from(is_new || is_replaced);
                Ok(Taken::Whole)
            }
            Err(WriteError::Ruler(RulerError::Refused(refusal))) => {
                self.refused(group, refusal, plan.others).await
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a group, and notes what Mimir has then.
    async fn write(&mut self, group: &RuleGroup, entries: Vec<Entry>) -> Result<(), WriteError> {
        match self.world.set(group).await {
            Ok(()) => {
                self.wrote = true;
                self.note(&group.name, entries);
                Ok(())
            }
            Err(error) => {
                if !matches!(error, WriteError::Ruler(RulerError::Refused(_))) {
                    self.uncertain = Some((group.name.clone(), entries));
                }
                Err(error)
            }
        }
    }

    async fn delete(&mut self, group: &str) -> Result<(), Stop> {
        if let Err(error) = self.world.delete(group).await {
            self.uncertain = Some((group.to_owned(), Vec::new()));
            return Err(error.into());
        }
        self.wrote = true;
        self.groups = self.groups.saturating_sub(1);
        self.note(group, Vec::new());
        Ok(())
    }

    fn note(&mut self, group: &str, now: Vec<Entry>) {
        let entries = self.entries.get_or_insert_default();
        let before = entries.remove(group).unwrap_or_default();
        for rule in before.iter().filter_map(|entry| entry.rule) {
            if let Some(count) = self.entry_counts.get_mut(&rule) {
                *count = count.saturating_sub(1);
            }
        }
        for rule in now.iter().filter_map(|entry| entry.rule) {
            *self.entry_counts.entry(rule).or_default() += 1;
        }
        if !now.is_empty() {
            entries.insert(group.to_owned(), now);
        }
    }

    /// Mimir refused a group: draws the consequence from what it named.
    async fn refused(
        &mut self,
        group: &DesiredGroup,
        refusal: GroupRefusal,
        others: usize,
    ) -> Result<Taken, Stop> {
        let limits = self.limits();
        match refusal {
            GroupRefusal::Rule { index, reason, position, .. } if index < group.members.len() => {
                self.quarantine(&group.members[index], in_words(&reason, position));
                self.find_other_faults(group, index).await;
            }
            GroupRefusal::TooManyRules { limit, .. } if Some(limit) != limits.rules_per_group => {
                let rules_per_group = Some(limit);
                self.state.observe_limits(RulerLimits { rules_per_group, groups: None });
                return Ok(Taken::LimitShown);
            }
            GroupRefusal::TooManyGroups { limit, actual }
                if Some(self.total(limit, actual, others)) != limits.groups =>
            {
                let groups = Some(self.total(limit, actual, others));
                self.state.observe_limits(RulerLimits { groups, rules_per_group: None });
                return Ok(Taken::LimitShown);
            }
            GroupRefusal::IntervalTooShort { limit, .. } => {
                let reason = format!(
                    "evaluation_interval {} is too short; the minimum is {limit}",
                    group.interval
                );
                // The minimum was raised: Mimir goes on with what it has of the group, and refuses only
                // to write it. In quarantine all its rules would be deleted.
                if group.members.iter().any(|rule| self.was_taken(rule, &rule.hash())) {
                    let rules = group.members.iter().map(|rule| (rule.id, reason.clone()));
                    self.broken.extend(rules);
                } else {
                    for rule in &group.members {
                        self.quarantine(rule, reason.clone());
                    }
                }
            }
            other => {
                let reason = format!("Mimir refuses the group {:?}: {other}", group.name);
                self.broken.extend(group.members.iter().map(|rule| (rule.id, reason.clone())));
            }
        }
        Ok(Taken::Refused)
    }

    /// The limit on groups of all namespaces together. If our namespace has a limit of its own, Mimir
    /// counts only the groups in it, which shows in the count.
    fn total(&self, limit: usize, actual: usize, others: usize) -> usize {
        let counts_others = actual > self.groups;
        if counts_others { limit } else { limit + others }
    }

    /// Checks the other expressions of a group: Mimir names one fault at a time, and each costs a write.
    /// Without an answer the faults are found one by one.
    async fn find_other_faults(&mut self, group: &DesiredGroup, known: usize) {
        for (at, rule) in group.members.iter().enumerate() {
            if at == known {
                continue;
            }
            match self.world.fault_of(&rule.rule.expr).await {
                Ok(None) => {}
                Ok(Some(fault)) => self.quarantine(rule, fault),
                Err(_) => return,
            }
        }
    }

    /// Whether Mimir has taken a rule as its row says.
    fn was_taken(&self, rule: &AlertRule, hash: &str) -> bool {
        let known = self.state.statuses.as_ref().and_then(|known| known.get(&rule.id));
        known.is_some_and(|known| known.rule_hash.as_deref() == Some(hash))
    }

    fn quarantine(&mut self, rule: &AlertRule, reason: String) {
        tracing::info!(
            organisation.id = %self.organisation,
            rule.id = %rule.id,
            "Alert rule refused by Mimir"
        );
        let hash = rule.hash();
        let was_taken = self.was_taken(rule, &hash);
        let reason = if was_taken { format!("{NOT_ANY_MORE}: {reason}") } else { reason };
        self.state.quarantine.put(hash, &reason);
    }
}

/// The reason of a rule that is not at fault.
const NOT_ANY_MORE: &str = "Mimir took the rule before and refuses it now, as after an upgrade or a change of \
     its settings";

fn ids(group: &DesiredGroup) -> HashSet<Uuid> {
    group.members.iter().map(|rule| rule.id).collect()
}

/// The members of a group after it is written.
fn members(group: &DesiredGroup) -> impl Iterator<Item = Entry> {
    let entry = |rule: Uuid| Entry { rule: Some(rule), stays: true, is_exact: true };
    group.members.iter().map(move |member| entry(member.id))
}
