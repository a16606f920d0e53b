//! One activation: one tenant is looked at, and made to be as its rows say.
//!
//! It takes no input but the tenant: whatever hint led here, the rows and Mimir's own listing decide
//! what is done. It is idempotent, it may be ended between any two writes, and it can only ever touch
//! our namespace of this one tenant.
//!
//! Mimir says which rule of a group it will not take. That rule is put into quarantine with its
//! reason, and the plan is made anew without it, so the rest goes live.

mod refused;

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::desired::DesiredGroup;
use super::diff::{Step, steps};
use super::engine::Engine;
use super::guard::{Removal, Verdict, judge};
use super::lease::Lease;
use super::memory::{Memory, Settled};
use super::outcome::{Activated, Ending, Outcome, report};
use super::plan::{ParsedRows, Plan, gone, parse_rows};
use super::trouble::{MIMIR_BUSY, NO_TENANT, Stop, Trouble};
use super::writer::{WriteError, Writer};
use crate::mimir::ruler::{Refusal, RulerError, RulerLimits};
use crate::store::{AlertRuleRow, GuardHeld, Tombstones};
use crate::tenancy::{OrganisationId, TenantId};
use refused::Taken;

/// Why a tenant is held of which others are too. How many others have is nothing for its members.
const PART_OF_MORE: &str = "it is part of a larger deletion that waits for the operator";

/// What an activation may do about rules that would vanish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// What the guard lets pass.
    Guarded,
    /// What the guard lets pass and nobody has to explain: a deletion of many tenants' rules waits.
    Wary,
    /// Nothing that would vanish: this tenant is part of the deletion that waits.
    Held,
    /// Nothing yet: all tenants are to be judged together first.
    Deferring,
    /// So much: an administrator has confirmed it for all tenants together.
    Confirmed(Removal),
}

/// A plan is made anew at most so often. Each time at least one rule has been put aside or a limit
/// been learned, so this is reached only by a Mimir that contradicts itself.
const MOST_ROUNDS: usize = 100;

/// An organisation's rows, and what of it was deleted, at one moment.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) rules: Vec<AlertRuleRow>,
    pub(super) tombstones: Tombstones,
    /// The digest of what Mimir had a moment ago, if that was read for all tenants together.
    pub(super) listing: Option<[u8; 32]>,
}

/// One activation under way.
struct Activation<'a> {
    engine: &'a Engine,
    lease: &'a Lease,
    organisation: &'a OrganisationId,
    tenant: TenantId,
    parsed: ParsedRows,
    memory: &'a mut Memory,
    mode: Mode,
    /// Rules that have been written by now, or were found as they should be.
    live: HashSet<Uuid>,
    /// Rules of groups that Mimir will not take for a reason that names none of them.
    broken: HashMap<Uuid, String>,
    wrote: bool,
    /// Rules whose group was deleted to be written anew, and has not been.
    lost: HashSet<Uuid>,
    removal: Removal,
    /// Groups that there are at the moment, in all namespaces.
    groups: usize,
}

fn is_there(plan: &Plan, group: &DesiredGroup) -> bool {
    plan.observed.iter().any(|observed| observed.name == group.name)
}

/// Looks at one tenant, and does what there is to do.
pub(super) async fn activate(
    engine: &Engine,
    lease: &Lease,
    organisation: &OrganisationId,
    rows: &Rows,
    memory: &mut Memory,
    mode: Mode,
) -> Activated {
    let tenant = match engine.tenant_of(organisation) {
        Ok(tenant) => tenant,
        Err(error) => {
            let trouble = Trouble::new(NO_TENANT, format!("it has no tenant: {error}"));
            return Activated::without_tenant(organisation, &rows.rules, memory, trouble);
        }
    };
    let rows_digest = memory.digest_of(&rows.rules);
    let mut activation = Activation {
        engine,
        lease,
        organisation,
        tenant,
        parsed: ParsedRows::default(),
        memory,
        mode,
        live: HashSet::new(),
        broken: HashMap::new(),
        wrote: false,
        lost: HashSet::new(),
        removal: Removal::default(),
        groups: 0,
    };
    let (outcome, plan) = match activation.run(rows, rows_digest).await {
        Ok(done) => done,
        Err(Stop::LeaseLost) => return Activated::lease_lost(),
        Err(Stop::Failed(trouble)) => (Outcome::Failed(trouble), None),
    };
    let Activation { parsed, memory, live, lost, broken, wrote, removal, .. } = activation;
    let shown = Some(memory.all_shown());
    let Memory { kept: Some(kept), quarantine, .. } = memory else {
        // The statuses could not be read, and so nothing was done.
        return Activated { outcome, wrote, removal, ..Activated::default() };
    };
    if matches!(outcome, Outcome::Unchanged) && plan.is_none() {
        // All is as the rows say, so whatever was deleted is gone or is there again.
        let buried = rows.tombstones.clone();
        return Activated { outcome, removal, buried, shown, ..Activated::counted(kept) };
    }
    let plan = plan.as_ref();
    let (live, lost, broken_rules) = (&live, &lost, &broken);
    let ending = Ending { outcome: &outcome, plan, quarantine, live, lost, broken: broken_rules };
    let now = report(&parsed, kept, &ending);
    let changes = super::statuses::change(organisation, kept, now);
    let is_done = matches!(outcome, Outcome::Unchanged | Outcome::Applied);
    let buried = if is_done { rows.tombstones.clone() } else { Tombstones::new() };
    let broken = broken.into_values().next();
    let counted = Activated::counted(kept);
    Activated { outcome, changes, wrote, removal, buried, broken, shown, ..counted }
}

impl Activation<'_> {
    async fn run(
        &mut self,
        rows: &Rows,
        rows_digest: u64,
    ) -> Result<(Outcome, Option<Plan>), Stop> {
        self.load_statuses().await?;
        if let Some(listing) = rows.listing
            && self.memory.is_settled(rows_digest, listing)
        {
            return Ok((self.nothing_to_do(), None));
        }
        let mut listing = match self.engine.list(&self.tenant).await {
            Ok(listing) => listing,
            Err(error) => {
                // Whoever wrote the rows is told, whatever Mimir says.
                self.parsed = parse_rows(&rows.rules, &self.engine.defaults());
                self.memory.settled = None;
                return Err(error.into());
            }
        };
        if self.memory.is_settled(rows_digest, listing.digest()) {
            return Ok((self.nothing_to_do(), None));
        }
        self.memory.settled = None;
        self.parsed = parse_rows(&rows.rules, &self.engine.defaults());
        self.memory.quarantine.tidy(&self.parsed.enabled);
        for _ in 0..MOST_ROUNDS {
            let digest = listing.digest();
            let listed = listing.parse(&self.engine.config.namespace)?;
            let (told, shown) = (self.memory.told_limits(), self.memory.shown_limits());
            let (engine, quarantine) = (self.engine, &self.memory.quarantine);
            let planned = engine.plan(&self.tenant, &self.parsed, quarantine, told, shown, &listed);
            let (plan, told) = planned.await?;
            if let Some(told) = told {
                self.memory.learn_told(told);
            }
            if let Some(outcome) = self.judge(&plan, digest, &rows.tombstones).await? {
                return Ok((outcome, Some(plan)));
            }
            if plan.diff.is_empty() || self.only_broken(&plan) {
                // What is over the limit may fit when that is raised.
                let is_whole = self.broken.is_empty() && plan.over_limit.is_empty();
                self.memory.settled =
                    is_whole.then_some(Settled { rows: rows_digest, listing: digest });
                let outcome = if self.wrote { Outcome::Applied } else { Outcome::Unchanged };
                return Ok((outcome, Some(plan)));
            }
            if self.apply(&plan).await? {
                // Mimir has taken everything: what it has is known without asking again.
                return Ok((Outcome::Applied, Some(plan)));
            }
            listing = self.engine.list(&self.tenant).await?;
        }
        let problem = "mimir refuses rules again and again".to_owned();
        Err(Stop::Failed(Trouble::new(MIMIR_BUSY, problem)))
    }

    /// Rows and listing are those that were seen to agree.
    fn nothing_to_do(&mut self) -> Outcome {
        let live = self.memory.live();
        self.removal = Removal { observed: live, remaining: live, ..Removal::default() };
        Outcome::Unchanged
    }

    async fn load_statuses(&mut self) -> Result<(), Stop> {
        if self.memory.kept.is_none() {
            let organisation = self.organisation.clone();
            let kept = self.engine.store.rule_statuses_by_rule(organisation).await?;
            let kept = kept.into_iter().map(|(rule, row)| (rule, row.into())).collect();
            self.memory.kept = Some(kept);
        }
        Ok(())
    }

    fn limits(&self) -> RulerLimits {
        let told = self.memory.told_limits().unwrap_or_else(|| self.engine.limits_by_default());
        told.within(self.memory.shown_limits())
    }

    /// Whether what would vanish may vanish; if not, what that comes to.
    async fn judge(
        &mut self,
        plan: &Plan,
        listing: [u8; 32],
        tombstones: &Tombstones,
    ) -> Result<Option<Outcome>, Stop> {
        let none = HashMap::new();
        let kept = self.memory.kept.as_ref().unwrap_or(&none);
        let is_removing =
            plan.desired_rules() < plan.observed_rules() || !gone(&self.parsed, kept).is_empty();
        self.removal = plan.removal(&self.parsed, kept, tombstones);
        let unexplained = self.removal.unexplained();
        let reason = match self.mode {
            // The word was about so many, and not about what has vanished since.
            Mode::Confirmed(judged)
                if self.removal.vanished() <= judged.vanished()
                    && unexplained <= judged.unexplained() =>
            {
                return Ok(None);
            }
            Mode::Deferring => return Ok(is_removing.then_some(Outcome::Deferred)),
            Mode::Held if is_removing => Some(PART_OF_MORE.to_owned()),
            Mode::Wary if unexplained > 0 => Some(PART_OF_MORE.to_owned()),
            Mode::Confirmed(_) | Mode::Held | Mode::Wary | Mode::Guarded => {
                match judge(&self.removal, &self.engine.config.guard) {
                    Verdict::Pass => None,
                    Verdict::Hold(reason) => Some(reason.to_string()),
                }
            }
        };
        let Some(reason) = reason else { return Ok(None) };
        let held = GuardHeld { id: guard_id(&listing, &self.removal), reason };
        let sync = self.engine.store.rule_sync_of(self.organisation.clone()).await?;
        let is_confirmed = sync.is_some_and(|sync| sync.confirmed.as_ref() == Some(&held.id));
        Ok((!is_confirmed).then_some(Outcome::Held(held)))
    }

    /// Whether what is left to do are groups that Mimir will not take.
    fn only_broken(&self, plan: &Plan) -> bool {
        let is_broken = |(at, _): &(usize, _)| self.is_broken(&plan.groups[*at]);
        plan.diff.deletes.is_empty() && plan.diff.writes.iter().all(is_broken)
    }

    fn is_broken(&self, group: &DesiredGroup) -> bool {
        group.members.iter().any(|rule| self.broken.contains_key(&rule.id))
    }

    /// Takes the steps; says whether Mimir has taken all of them. When it shows a limit there is another
    /// plan to be made, and nothing more of this one is done.
    async fn apply(&mut self, plan: &Plan) -> Result<bool, Stop> {
        let written: HashSet<usize> = plan.diff.writes.iter().map(|(at, _)| *at).collect();
        for (at, group) in plan.groups.iter().enumerate() {
            if !written.contains(&at) {
                self.live.extend(group.members.iter().map(|rule| rule.id));
            }
        }
        self.groups = plan.observed.len() + plan.others;
        let mut is_whole = true;
        let mut steps = steps(&plan.diff, &plan.groups, self.groups, self.limits().groups);
        // First what tells whether doubtful limits still hold: if they do, nothing has been touched.
        let none = RulerLimits::default();
        steps.sort_by_key(|step| self.exceeded(step, plan) == none);
        for step in steps {
            match &step {
                Step::Set(at) | Step::Replace(at) if self.is_broken(&plan.groups[*at]) => {}
                // A group that was refused may be the one that takes over a rule of this one.
                Step::Delete(_) if !is_whole => {}
                _ => match self.take(&step, plan).await? {
                    Taken::Whole => {}
                    Taken::Refused => is_whole = false,
                    Taken::LimitShown => return Ok(false),
                },
            }
        }
        Ok(is_whole && self.broken.is_empty())
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
        let engine = self.engine;
        let writer = Writer { client: &engine.client, lease: self.lease, metrics: &engine.metrics };
        let done = match step {
            Step::Delete(name) => writer.delete(&self.tenant, name).await,
            Step::Set(at) => writer.set(&self.tenant, &plan.groups[*at].to_group()).await,
            Step::Replace(at) => {
                // Mimir judges the rules before it counts the groups: what it would refuse costs the
                // group that is there nothing.
                let group = plan.groups[*at].to_group();
                match writer.set(&self.tenant, &group).await {
                    Err(WriteError::Ruler(RulerError::Refused(Refusal::TooManyGroups {
                        ..
                    }))) => {
                        writer.delete(&self.tenant, &group.name).await?;
                        self.groups = self.groups.saturating_sub(1);
                        let members = plan.groups[*at].members.iter();
                        self.lost.extend(members.map(|rule| rule.id));
                        writer.set(&self.tenant, &group).await
                    }
                    done => done,
                }
            }
        };
        let (Step::Set(at) | Step::Replace(at)) = step else {
            done?;
            self.wrote = true;
            self.groups = self.groups.saturating_sub(1);
            return Ok(Taken::Whole);
        };
        let group = &plan.groups[*at];
        match done {
            Ok(()) => {
                self.wrote = true;
                let exceeded = self.exceeded(step, plan);
                self.memory.refute(exceeded);
                if !is_there(plan, group) || matches!(step, Step::Replace(_)) {
                    self.groups += 1;
                }
                for rule in &group.members {
                    self.live.insert(rule.id);
                    self.lost.remove(&rule.id);
                }
                Ok(Taken::Whole)
            }
            Err(WriteError::Ruler(RulerError::Refused(refusal))) => {
                self.refused(group, refusal, plan.others).await
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// What an administrator confirms: this deletion from this state, and no other.
fn guard_id(listing: &[u8; 32], removal: &Removal) -> String {
    let text = format!("{listing:?} {} {}", removal.vanished(), removal.unexplained());
    super::digest_text(&text)
}
