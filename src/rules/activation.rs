//! One activation: one tenant is read, and made to be as its rows say.
//!
//! It takes no input but the tenant: whatever trigger led here, the rows and Mimir's own listing
//! decide what is done. It is idempotent, it may be ended between any two writes, and it can only ever
//! touch our namespace of this one tenant.
//!
//! Mimir says which rule of a group it does not take. That rule is put into quarantine with its
//! reason, and the plan is made again without it, so the rest goes live. What the guard has let pass
//! by then stays so: a later plan of the same activation is judged only by what it deletes beyond
//! that. Rules that stay are at no time in no group (see [`apply`]).

mod apply;
mod refused;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use super::engine::Engine;
use super::guard::{Verdict, judge};
use super::lease::Lease;
use super::memory::{Memory, Settled};
use super::outcome::{Activated, Ending, Outcome, Presence, report};
use super::plan::{Basis, ParsedRows, Plan, Settings, parse_rows};
use super::trouble::{MIMIR_BUSY, NO_TENANT, Stop, Trouble};
use super::vanishing::{Entries, Entry, Vanishing, attribute};
use super::world::{Asking, Live, World};
use crate::mimir::ruler::{RawListing, RulerLimits};
use crate::store::{AlertRuleRow, GuardHeld, Tombstones};
use crate::tenancy::OrganisationId;
use apply::Applied;

/// Why a tenant is held of which others are too. How many others have is nothing for its members.
const PART_OF_MORE: &str = "it is part of a larger deletion that waits for the operator";

/// What an activation may do about rules that would vanish.
#[derive(Clone, Debug)]
pub(super) enum Mode {
    /// Nothing vanishes yet: all tenants are to be judged together first.
    Deferring,
    /// What the guard lets pass, and what else is watched for.
    Guarded(Watch),
}

/// What is watched for besides the tenant's own loss.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    /// A deletion in many organisations waits, and these of the tenant's rules are part of it. Nothing
    /// passes that is among them, or that the database does not explain.
    pub(super) held: Option<Arc<HashSet<String>>>,
    /// So much has vanished of late that the next full resync judges it. What is small and explained
    /// passes meanwhile, up to so many rules: one organisation's change does not wait for others'.
    pub(super) small: Option<usize>,
}

#[cfg(test)]
impl Mode {
    /// The tenant's own guard alone.
    fn guarded() -> Self {
        Self::Guarded(Watch::default())
    }
}

/// A plan is made at most so often. Each time at least one rule has been put aside or a limit been
/// learned, so this is reached only by a Mimir that contradicts itself.
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
struct Activation<'a, W> {
    world: &'a W,
    settings: &'a Settings<'a>,
    organisation: &'a OrganisationId,
    parsed: ParsedRows,
    memory: &'a mut Memory,
    mode: Mode,
    /// The rules that Mimir has in our namespace by now; none before it was asked.
    entries: Option<Entries>,
    /// How many of them there are of each row.
    places: HashMap<Uuid, usize>,
    /// A group of which it is unknown whether it was written, and what it has then.
    uncertain: Option<(String, Vec<Entry>)>,
    /// Rules of groups that Mimir will not take for a reason that names none of them.
    broken: HashMap<Uuid, String>,
    wrote: bool,
    vanishing: Vanishing,
    /// What may vanish; none before that was judged.
    passed: Option<HashSet<String>>,
    /// An administrator has confirmed it.
    by_confirmation: bool,
    /// Groups that there are at the moment, in all namespaces.
    groups: usize,
}

/// Reads one tenant, and does what there is to do.
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
    let world = Live { asking: Asking { engine, tenant: &tenant }, organisation, lease };
    activate_in(&world, &engine.settings(), organisation, rows, memory, mode).await
}

/// The same, wherever that is.
pub(super) async fn activate_in<W: World>(
    world: &W,
    settings: &Settings<'_>,
    organisation: &OrganisationId,
    rows: &Rows,
    memory: &mut Memory,
    mode: Mode,
) -> Activated {
    let rows_digest = memory.digest_of(&rows.rules);
    let mut activation = Activation {
        world,
        settings,
        organisation,
        parsed: ParsedRows::default(),
        memory,
        mode,
        entries: None,
        places: HashMap::new(),
        uncertain: None,
        broken: HashMap::new(),
        wrote: false,
        vanishing: Vanishing::default(),
        passed: None,
        by_confirmation: false,
        groups: 0,
    };
    let (outcome, plan) = match activation.run(rows, rows_digest).await {
        Ok(done) => done,
        Err(Stop::LeaseLost) => return Activated::lease_lost(),
        Err(Stop::Failed(trouble)) => (Outcome::Failed(trouble), None),
    };
    let Activation { parsed, memory, entries, uncertain, broken, wrote, .. } = activation;
    let Activation { vanishing, passed, by_confirmation, .. } = activation;
    let shown = Some(memory.all_shown());
    let Memory { kept: Some(kept), quarantine, .. } = memory else {
        // The statuses could not be read, and so nothing was done.
        return Activated { outcome, wrote, vanishing, ..Activated::default() };
    };
    if matches!(outcome, Outcome::Unchanged) && plan.is_none() {
        // All is as the rows say, so whatever was deleted is gone or is there again.
        let buried = rows.tombstones.clone();
        return Activated { outcome, vanishing, buried, shown, ..Activated::counted(kept) };
    }
    let presence = entries.map(|entries| Presence::of(entries, uncertain));
    let ending = Ending {
        outcome: &outcome,
        plan: plan.as_ref(),
        quarantine,
        presence: presence.as_ref(),
        broken: &broken,
        wrote,
    };
    let now = report(&parsed, kept, &ending);
    let changes = super::statuses::change(organisation, kept, now);
    let is_done = matches!(outcome, Outcome::Unchanged | Outcome::Applied);
    let buried = if is_done { rows.tombstones.clone() } else { Tombstones::new() };
    let removed = match &outcome {
        Outcome::Applied => passed.map_or(0, |passed| passed.len()),
        _ => 0,
    };
    let broken = broken.into_values().next();
    let counted = Activated::counted(kept);
    Activated {
        outcome,
        changes,
        wrote,
        vanishing,
        removed,
        by_confirmation,
        buried,
        broken,
        shown,
        ..counted
    }
}

impl<W: World> Activation<'_, W> {
    async fn run(
        &mut self,
        rows: &Rows,
        rows_digest: u64,
    ) -> Result<(Outcome, Option<Plan>), Stop> {
        if self.memory.kept.is_none() {
            self.memory.kept = Some(self.world.statuses().await?);
        }
        if let Some(listing) = rows.listing
            && self.memory.is_settled(rows_digest, listing)
        {
            return Ok((self.nothing_to_do(), None));
        }
        let mut listing = match self.world.list().await {
            Ok(listing) => listing,
            Err(error) => {
                // Whoever wrote the rows is told, whatever Mimir says.
                self.parsed = parse_rows(&rows.rules, &self.settings.defaults);
                self.memory.settled = None;
                return Err(error.into());
            }
        };
        if self.memory.is_settled(rows_digest, listing.digest()) {
            return Ok((self.nothing_to_do(), None));
        }
        self.memory.settled = None;
        self.parsed = parse_rows(&rows.rules, &self.settings.defaults);
        self.memory.quarantine.tidy(&self.parsed.enabled);
        for _ in 0..MOST_ROUNDS {
            let plan = self.plan(&listing, &rows.tombstones).await?;
            if let Some(outcome) = self.judge().await? {
                return Ok((outcome, Some(plan)));
            }
            let applied =
                if plan.diff.is_empty() { Applied::Stuck } else { self.apply(&plan).await? };
            match applied {
                // Mimir has taken everything: what it has is known without asking again.
                Applied::Whole => return Ok((Outcome::Applied, Some(plan))),
                Applied::Again => listing = self.world.list().await?,
                Applied::Stuck => {
                    // What is over the limit may fit when that is raised.
                    let is_whole = plan.diff.is_empty() && plan.over_limit.is_empty();
                    self.memory.settled = is_whole
                        .then_some(Settled { rows: rows_digest, listing: listing.digest() });
                    let outcome = if self.wrote { Outcome::Applied } else { Outcome::Unchanged };
                    return Ok((outcome, Some(plan)));
                }
            }
        }
        let problem = "mimir refuses rules again and again".to_owned();
        Err(Stop::Failed(Trouble::new(MIMIR_BUSY, problem)))
    }

    /// Rows and listing are those that were seen to agree.
    fn nothing_to_do(&mut self) -> Outcome {
        self.vanishing = Vanishing::none_of(self.memory.live());
        Outcome::Unchanged
    }

    /// Makes a plan, and recognises what is there and what would vanish.
    async fn plan(&mut self, listing: &RawListing, tombstones: &Tombstones) -> Result<Plan, Stop> {
        let listed = listing.parse(self.settings.namespace)?;
        let basis = Basis {
            parsed: &self.parsed,
            quarantine: &self.memory.quarantine,
            told: self.memory.told_limits(),
            shown: self.memory.shown_limits(),
            listed: &listed,
        };
        let (plan, told) = basis.plan(self.world, self.settings.limits).await?;
        if let Some(told) = told {
            self.memory.learn_told(told);
        }
        let none = HashMap::new();
        let kept = self.memory.kept.as_ref().unwrap_or(&none);
        let attribution = attribute(&plan, &self.parsed, kept, tombstones);
        self.vanishing = attribution.vanishing;
        self.entries = Some(attribution.entries);
        self.uncertain = None;
        self.count_places();
        Ok(plan)
    }

    fn limits(&self) -> RulerLimits {
        let told = self.memory.told_limits().unwrap_or(self.settings.limits);
        told.within(self.memory.shown_limits())
    }

    /// Whether what would vanish may vanish; if not, what that comes to.
    async fn judge(&mut self) -> Result<Option<Outcome>, Stop> {
        // Rows are read once: what a later plan deletes beyond an earlier one is what Mimir has refused
        // since, and that alone is judged.
        let fresh = match &self.passed {
            Some(passed) => self.vanishing.beyond(passed),
            None => self.vanishing.clone(),
        };
        if fresh.is_empty() {
            self.let_pass();
            return Ok(None);
        }
        let removal = fresh.removal();
        let guard = self.settings.guard;
        let held = match &self.mode {
            Mode::Deferring => return Ok(Some(Outcome::Deferred)),
            Mode::Guarded(Watch { small: Some(most), .. })
                if !removal.is_small(guard) || removal.vanished() > *most =>
            {
                None
            }
            Mode::Guarded(Watch { held: Some(held), .. })
                if fresh.meets(held) || removal.unexplained() > 0 =>
            {
                Some(PART_OF_MORE.to_owned())
            }
            Mode::Guarded(_) => match judge(&removal, guard) {
                Verdict::Pass => {
                    self.let_pass();
                    return Ok(None);
                }
                Verdict::Hold(reason) => Some(reason.to_string()),
            },
        };
        let confirmed = self.world.confirmed().await?;
        if fresh.is_within(&confirmed) {
            self.by_confirmation = true;
            self.let_pass();
            return Ok(None);
        }
        let Some(mut reason) = held else { return Ok(Some(Outcome::Deferred)) };
        if !confirmed.is_empty() {
            let more = fresh.beyond(&confirmed);
            reason.push_str("; more than what was confirmed: ");
            reason.push_str(&more.in_words());
        }
        Ok(Some(Outcome::Held(GuardHeld { id: self.vanishing.id(), reason })))
    }

    fn let_pass(&mut self) {
        self.passed.get_or_insert_default().extend(self.vanishing.keys().cloned());
    }
}
