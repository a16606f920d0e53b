//! The steps of a plan, taken so that no rule that stays is at any time in no group.
//!
//! A group that gives a rule to another one is written, or deleted, when the other one has it. Where
//! that cannot be, because groups exchange rules or because Mimir refuses the one that takes, the
//! group that gives is written with the rule in its old version kept, and without it later. For a
//! moment a rule may be in two groups, which Alertmanager takes for one alert.
//!
//! At exactly the tenant's limit on groups Mimir takes nothing before something is deleted: there, and
//! only there, a rule that moves is gone for a moment.

use std::collections::{HashMap, HashSet, VecDeque};

use uuid::Uuid;

use super::Activation;
use super::refused::Taken;
use crate::mimir::ruler::{
    AlertingRule, GroupRefusal, RuleGroup, RulerError, RulerLimits, StoredGroup, StoredRule,
};
use crate::rules::desired::DesiredGroup;
use crate::rules::diff::{Step, steps};
use crate::rules::plan::Plan;
use crate::rules::trouble::Stop;
use crate::rules::vanishing::Entry;
use crate::rules::world::World;
use crate::rules::writer::WriteError;

/// How far a plan was applied.
pub(super) enum Applied {
    /// Mimir has taken all of it.
    Whole,
    /// Something was learned or written; there is another plan to be made.
    Again,
    /// What is left cannot be done.
    Stuck,
}

/// What became of a group that is written with old versions kept.
enum Widened {
    Done,
    /// They are in a group of their own.
    Aside,
    /// Mimir names one of its rules.
    Refused,
    /// Neither there nor in a group of their own.
    NoRoom,
}

/// The rules that a group gives away and that no other group has yet.
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

/// Whether something has to be deleted before something can be written.
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

impl<W: World> Activation<'_, W> {
    /// Takes the steps. When Mimir shows a limit there is another plan to be made, and nothing more of
    /// this one is done.
    pub(super) async fn apply(&mut self, plan: &Plan) -> Result<Applied, Stop> {
        self.groups = plan.observed.len() + plan.others;
        let mut steps = steps(&plan.diff, &plan.groups, self.groups, self.limits().groups);
        // First what tells whether doubtful limits still hold: if they do, nothing has been touched.
        let none = RulerLimits::default();
        steps.sort_by_key(|step| self.exceeded(step, plan) == none);
        let is_at_the_limit = is_at_the_limit(&steps);
        let mut pending: VecDeque<Step> = steps.into();
        let (mut is_refused, mut has_written) = (false, false);
        // Groups that have been written with old versions kept, or cannot be.
        let mut widened = HashSet::new();
        // Rules that stand in a group that nobody wants: the next plan deletes it.
        let mut is_aside = false;
        loop {
            let mut left = VecDeque::new();
            let before = pending.len();
            while let Some(step) = pending.pop_front() {
                let in_order = is_at_the_limit && !is_refused && self.broken.is_empty();
                let is_possible = in_order || !self.would_lose(&step, plan) && self.has_room(&step);
                if self.is_broken_step(&step, plan) || !is_possible {
                    left.push_back(step);
                    continue;
                }
                match self.take(&step, plan).await? {
                    Taken::Whole => has_written = true,
                    Taken::Refused => is_refused = true,
                    Taken::LimitShown => return Ok(Applied::Again),
                }
            }
            let has_progressed = left.len() < before;
            pending = left;
            if pending.is_empty() || is_refused {
                break;
            }
            if has_progressed {
                continue;
            }
            let next = pending.iter().find_map(|step| match step {
                Step::Set(at) | Step::Replace(at)
                    if !self.is_broken(&plan.groups[*at]) && widened.insert(*at) =>
                {
                    Some(*at)
                }
                _ => None,
            });
            let Some(at) = next else { break };
            match self.widen(at, plan).await? {
                Widened::Done => has_written = true,
                Widened::Aside => (has_written, is_aside) = (true, true),
                Widened::Refused => is_refused = true,
                Widened::NoRoom => {
                    // There is no room to keep them. Where all that take are still to be written that
                    // happens next; otherwise the group stays as it is.
                    if self.is_exchange(at, &pending, plan) {
                        match self.take(&Step::Set(at), plan).await? {
                            Taken::Whole => has_written = true,
                            Taken::Refused => is_refused = true,
                            Taken::LimitShown => return Ok(Applied::Again),
                        }
                        pending.retain(|step| !matches!(step, Step::Set(other) | Step::Replace(other) if *other == at));
                    }
                }
            }
        }
        Ok(if pending.is_empty() && !is_refused && !is_aside && self.broken.is_empty() {
            Applied::Whole
        } else if is_refused || has_written {
            Applied::Again
        } else {
            Applied::Stuck
        })
    }

    pub(super) fn count_places(&mut self) {
        let mut places = HashMap::new();
        let entries = self.entries.iter().flat_map(std::collections::BTreeMap::values);
        for rule in entries.flatten().filter_map(|entry| entry.rule) {
            *places.entry(rule).or_default() += 1;
        }
        self.places = places;
    }

    fn entries_of(&self, group: &str) -> &[Entry] {
        self.entries.as_ref().and_then(|entries| entries.get(group)).map_or(&[], Vec::as_slice)
    }

    /// Which rules of a group are in no other, and stay, and are not among these.
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
            self.places.get(&rule).copied().unwrap_or(0) <= here
        })
    }

    /// Whether Mimir would count no group too many: it counts one that is written as one more.
    fn has_room(&self, step: &Step) -> bool {
        let limit = self.limits().groups.unwrap_or(usize::MAX);
        !matches!(step, Step::Set(_)) || self.groups < limit
    }

    /// Whether a rule that stays would be in no group after a step.
    fn would_lose(&self, step: &Step, plan: &Plan) -> bool {
        match step {
            Step::Delete(name) => self.given(name, &HashSet::new()).next().is_some(),
            Step::Set(at) | Step::Replace(at) => {
                let group = &plan.groups[*at];
                self.given(&group.name, &ids(group)).next().is_some()
            }
        }
    }

    /// Whether every rule that a group gives away is taken by a group that is still to be written.
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

    /// Writes a group with the rules that it gives away and nobody has taken yet, or those by
    /// themselves.
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
                // It stands so already: what takes the rules is not to be had.
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
        // A group of their own for a while.
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

    /// What a group gives away and nobody has taken yet, as Mimir has it; none if it is not known any
    /// more what it says.
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

    /// The doubtful limits for which Mimir would refuse a step.
    fn exceeded(&self, step: &Step, plan: &Plan) -> RulerLimits {
        let (Step::Set(at) | Step::Replace(at)) = step else { return RulerLimits::default() };
        let (group, doubtful) = (&plan.groups[*at], self.memory.doubtful_limits());
        let is_new = !is_there(plan, group);
        RulerLimits {
            rules_per_group: doubtful.rules_per_group.filter(|limit| group.members.len() > *limit),
            groups: doubtful.groups.filter(|limit| is_new && self.groups >= *limit),
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
            // Mimir judges the rules before it counts the groups: what it would refuse costs the group
            // that is there nothing.
            self.delete(&group.name).await?;
            is_replaced = true;
            done = self.write(&wire, members(group).collect()).await;
        }
        match done {
            Ok(()) => {
                let exceeded = self.exceeded(step, plan);
                self.memory.refute(exceeded);
                self.groups += usize::from(is_new || is_replaced);
                Ok(Taken::Whole)
            }
            Err(WriteError::Ruler(RulerError::Refused(refusal))) => {
                self.refused(group, refusal, plan.others).await
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a group, and notes what there is then.
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
            if let Some(places) = self.places.get_mut(&rule) {
                *places = places.saturating_sub(1);
            }
        }
        for rule in now.iter().filter_map(|entry| entry.rule) {
            *self.places.entry(rule).or_default() += 1;
        }
        if !now.is_empty() {
            entries.insert(group.to_owned(), now);
        }
    }
}

fn ids(group: &DesiredGroup) -> HashSet<Uuid> {
    group.members.iter().map(|rule| rule.id).collect()
}

/// The members of a group, once it is written.
fn members(group: &DesiredGroup) -> impl Iterator<Item = Entry> {
    let entry = |rule: Uuid| Entry { rule: Some(rule), stays: true, is_exact: true };
    group.members.iter().map(move |member| entry(member.id))
}
