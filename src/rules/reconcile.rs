//! One reconcile: reads one tenant's rows and Mimir's groups, and makes Mimir have what the rows ask for.
//!
//! It takes no input but the organisation: whatever triggered it, the rows and Mimir's listing decide
//! what is done. It is idempotent, it can end between any two writes, and it touches nothing but our
//! namespace of this tenant.
//!
//! Mimir names the rule of a group that it refuses. That rule goes into quarantine with the reason, and
//! the plan is made again without it, so that the rest of the group is stored. A deletion that the guard
//! let pass stays permitted; a later plan of the same reconcile is judged only by what it deletes in
//! addition. [`apply`] takes the steps so that a rule that stays is always in some group.

mod apply;
pub(crate) mod expressions;
pub(crate) mod planning;
pub(crate) mod preview;
pub(crate) mod quarantine;
pub(crate) mod reconciler;
pub(crate) mod report;
pub(crate) mod tenant_state;
pub(crate) mod world;
pub(crate) mod writer;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use crate::election::lease::Lease;
use crate::mimir::Retriable as _;
use crate::mimir::ruler::{RawListing, RulerError, RulerLimits};
use crate::rules::plan::Plan;
use crate::rules::plan::guard::{Verdict, judge};
use crate::rules::plan::vanishing::{Entries, Entry, Vanishing, attribute};
use crate::rules::spec::rows::{ParsedRows, parse_rows};
use crate::rules::status::outcome::{MIMIR_UNAVAILABLE, NO_TENANT, Outcome, SyncFailure};
use crate::rules::status::statuses::{RuleStatuses, change};
use crate::store::{AlertRuleRow, GuardHeld, RowVersions, StoreError, Tombstones};
use crate::telemetry::RuleMetrics;
use crate::tenancy::OrganisationId;
use apply::Applied;
use planning::{Basis, Settings};
use reconciler::Reconciler;
use report::{Ending, Presence, Reconciled, report};
use tenant_state::{InSync, TenantState};
use world::{LiveWorld, TenantReader, World};
use writer::{WriteError, Writer};

/// Members are not told how many rules other organisations would lose.
const PART_OF_MORE: &str =
    "it is part of a larger deletion that has to be confirmed by the operator";

/// What a reconcile may delete.
#[derive(Clone, Debug)]
pub(crate) enum Mode {
    /// Nothing: all tenants have to be read and judged together first.
    Deferring,
    /// What the guard lets pass.
    Guarded(Watch),
}

/// What the guard looks at besides the tenant's own loss.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch {
    /// A deletion in many organisations is held, and these of the tenant's rules are part of it. A
    /// deletion of one of them does not pass, nor one that the database does not explain.
    pub(crate) held: Option<Arc<HashSet<String>>>,
    /// So many rules were deleted since the last full resync that the next one has to judge. Until then
    /// a small and explained deletion of at most this many rules passes, so that one organisation's
    /// change does not wait for another's.
    pub(crate) small: Option<usize>,
}

#[cfg(test)]
impl Mode {
    /// The tenant's own guard alone.
    fn guarded() -> Self {
        Self::Guarded(Watch::default())
    }
}

/// Plans in one reconcile. Each one follows a refusal that quarantined a rule or showed a limit, so only
/// a Mimir that contradicts itself gets here.
const MOST_ROUNDS: usize = 100;

/// The rows and tombstones of one organisation, read in one transaction.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) rules: Vec<AlertRuleRow>,
    pub(crate) tombstones: Tombstones,
    /// The versions that the rows have at least; none if they are not known.
    pub(crate) versions: Option<RowVersions>,
    /// The digest of the tenant's listing, if Mimir has just listed all tenants in one request.
    pub(crate) listing: Option<[u8; 32]>,
}

/// What Mimir answered when it was asked for a tenant's listing.
pub(crate) type ListAnswer = Result<RawListing, RulerError>;

/// Why a reconcile ends early.
enum Stop {
    LeaseLost,
    Failed(SyncFailure),
}

struct Reconcile<'a, W> {
    world: &'a W,
    settings: &'a Settings<'a>,
    organisation: &'a OrganisationId,
    parsed: ParsedRows,
    state: &'a mut TenantState,
    mode: Mode,
    /// A listing that was asked for before.
    listed: Option<ListAnswer>,
    /// The rules that Mimir has in our namespace; none before it was asked. Each write changes them.
    entries: Option<Entries>,
    /// How many of these entries each row has.
    entry_counts: HashMap<Uuid, usize>,
    /// A group whose write got no answer, and what it holds if the write was done.
    uncertain: Option<(String, Vec<Entry>)>,
    /// Rules of groups that Mimir refuses without naming a rule, and why.
    broken: HashMap<Uuid, String>,
    wrote: bool,
    vanishing: Vanishing,
    /// The rules that may be deleted; none before the guard has judged.
    permitted: Option<HashSet<String>>,
    by_confirmation: bool,
    /// The number of groups in all namespaces of the tenant. Each write changes it.
    groups: usize,
}

/// What writing needs: only the leader has it.
#[derive(Clone)]
pub(crate) struct WriteAccess {
    pub(crate) lease: Lease,
    pub(crate) metrics: Arc<RuleMetrics>,
}

/// A reconcile without rows: they have no tombstones, and have not changed since they were in sync. If
/// Mimir's listing has not changed either, that is all. Otherwise gives Mimir's answer, for a reconcile
/// with the rows; none if Mimir was not asked.
pub(crate) async fn reconcile_unchanged(
    reconciler: &Reconciler,
    organisation: &OrganisationId,
    listing: Option<[u8; 32]>,
    state: &mut TenantState,
) -> Result<Reconciled, Option<ListAnswer>> {
    let tenant = reconciler.tenant_of(organisation).map_err(|_| None)?;
    let reader = TenantReader { reconciler, tenant: &tenant };
    reconcile_unchanged_in(|| reader.list(), listing, state).await
}

async fn reconcile_unchanged_in<L: Future<Output = ListAnswer>>(
    list: impl FnOnce() -> L,
    listing: Option<[u8; 32]>,
    state: &mut TenantState,
) -> Result<Reconciled, Option<ListAnswer>> {
    // A requested sync may have something to be tried again.
    let (Some(_), Some(known)) = (state.in_sync, &state.statuses) else { return Err(None) };
    if listing.is_none_or(|listing| !state.is_in_sync_with(listing)) {
        match list().await {
            Ok(listing) if state.is_in_sync_with(listing.digest()) => {}
            answer => return Err(Some(answer)),
        }
    }
    Ok(unchanged(state, known))
}

/// Mimir has what the rows ask for, as it had when they were last compared.
fn unchanged(state: &TenantState, known: &RuleStatuses) -> Reconciled {
    Reconciled {
        outcome: Outcome::Unchanged,
        vanishing: Vanishing::none_of(state.in_mimir()),
        observed_limits: Some(state.all_observed_limits()),
        ..Reconciled::counted(known)
    }
}

/// `listed`: the tenant's listing, if Mimir has just been asked for it.
pub(crate) async fn reconcile(
    reconciler: &Reconciler,
    access: &WriteAccess,
    organisation: &OrganisationId,
    rows: &Rows,
    listed: Option<ListAnswer>,
    state: &mut TenantState,
    mode: Mode,
) -> Reconciled {
    let tenant = match reconciler.tenant_of(organisation) {
        Ok(tenant) => tenant,
        Err(error) => {
            let failure = SyncFailure::new(NO_TENANT, format!("no tenant: {error}"));
            let known = &mut state.statuses;
            return Reconciled::without_tenant(organisation, &rows.rules, known, failure);
        }
    };
    let WriteAccess { lease, metrics } = access;
    let reader = TenantReader { reconciler, tenant: &tenant };
    let writer = Writer { client: &reconciler.client, lease, metrics };
    let world = LiveWorld { reader, organisation, writer };
    reconcile_in(&world, &reconciler.settings(), organisation, rows, listed, state, mode).await
}

async fn reconcile_in<W: World>(
    world: &W,
    settings: &Settings<'_>,
    organisation: &OrganisationId,
    rows: &Rows,
    listed: Option<ListAnswer>,
    state: &mut TenantState,
    mode: Mode,
) -> Reconciled {
    let rows_digest = state.digest_of(&rows.rules);
    let mut run = Reconcile {
        world,
        settings,
        organisation,
        parsed: ParsedRows::default(),
        state,
        mode,
        listed,
        entries: None,
        entry_counts: HashMap::new(),
        uncertain: None,
        broken: HashMap::new(),
        wrote: false,
        vanishing: Vanishing::default(),
        permitted: None,
        by_confirmation: false,
        groups: 0,
    };
    let (outcome, plan) = match run.run(rows, rows_digest).await {
        Ok(done) => done,
        Err(Stop::LeaseLost) => {
            return Reconciled { outcome: Outcome::LeaseLost, ..Reconciled::default() };
        }
        Err(Stop::Failed(failure)) => (Outcome::Failed(failure), None),
    };
    let Reconcile { parsed, state, entries, uncertain, broken, wrote, .. } = run;
    let Reconcile { vanishing, permitted, by_confirmation, .. } = run;

    if let (Outcome::Unchanged, None, Some(known)) = (&outcome, &plan, &state.statuses) {
        // So every rule with a tombstone has left Mimir or is back.
        return Reconciled { deleted: rows.tombstones.clone(), ..unchanged(state, known) };
    }
    let observed_limits = Some(state.all_observed_limits());
    let TenantState { statuses: Some(known), quarantine, .. } = state else {
        // The statuses could not be read, so nothing was done.
        return Reconciled { outcome, wrote, vanishing, ..Reconciled::default() };
    };

    let presence = entries.map(|entries| Presence::of(entries, uncertain));
    let ending = Ending {
        outcome: &outcome,
        plan: plan.as_ref(),
        quarantine,
        presence: presence.as_ref(),
        broken: &broken,
        wrote,
    };
    let now = report(&parsed, known, &ending);
    let changes = change(organisation, known, now);
    let is_done = matches!(outcome, Outcome::Unchanged | Outcome::Applied);
    let deleted = if is_done { rows.tombstones.clone() } else { Tombstones::new() };
    let removed = match &outcome {
        Outcome::Applied => permitted.map_or(0, |permitted| permitted.len()),
        _ => 0,
    };
    let broken = broken.into_values().next();
    let counted = Reconciled::counted(known);
    Reconciled {
        outcome,
        changes,
        wrote,
        vanishing,
        removed,
        by_confirmation,
        deleted,
        broken,
        observed_limits,
        ..counted
    }
}

impl<W: World> Reconcile<'_, W> {
    async fn run(
        &mut self,
        rows: &Rows,
        rows_digest: u64,
    ) -> Result<(Outcome, Option<Plan>), Stop> {
        if self.state.statuses.is_none() {
            self.state.statuses = Some(self.world.statuses().await?);
        }

        // Nearly every reconcile ends here: neither the rows nor Mimir have changed.
        if let Some(listing) = rows.listing
            && self.state.is_in_sync(rows_digest, listing)
        {
            return Ok((self.nothing_to_do(rows), None));
        }
        let answer = match self.listed.take() {
            Some(answer) => answer,
            None => self.world.list().await,
        };
        let mut listing = match answer {
            Ok(listing) => listing,
            Err(error) => {
                // Authors learn about faults in their rows even while Mimir is down.
                self.parsed = parse_rows(&rows.rules, &self.settings.defaults);
                self.state.in_sync = None;
                return Err(error.into());
            }
        };
        if self.state.is_in_sync(rows_digest, listing.digest()) {
            return Ok((self.nothing_to_do(rows), None));
        }

        self.state.in_sync = None;
        self.parsed = parse_rows(&rows.rules, &self.settings.defaults);
        self.state.quarantine.tidy(&self.parsed.enabled);
        self.state.memory.note_rows(&self.parsed.enabled);

        // Each round plans, asks the guard, and applies. A refusal leads to another round, with the
        // refused rule in quarantine or the observed limit in the plan.
        for _ in 0..MOST_ROUNDS {
            let plan = self.plan(&listing, &rows.tombstones).await?;
            if let Some(outcome) = self.judge().await? {
                return Ok((outcome, Some(plan)));
            }
            let applied =
                if plan.diff.is_empty() { Applied::NothingLeft } else { self.apply(&plan).await? };
            match applied {
                // Mimir accepted everything, so what it has is known without another listing. The next
                // reconcile lists it and finds both in sync.
                Applied::Whole => {
                    self.state.written_again.clear();
                    return Ok((Outcome::Applied, Some(plan)));
                }
                Applied::Again => listing = self.world.list().await?,
                Applied::NothingLeft => {
                    self.state.written_again.clear();
                    // Rules over the limit may fit as soon as it is raised, so this is not settled.
                    let is_whole = plan.diff.is_empty() && plan.over_limit.is_empty();
                    let (versions, listing) = (rows.versions, listing.digest());
                    self.state.in_sync =
                        is_whole.then_some(InSync { rows: rows_digest, versions, listing });
                    let outcome = if self.wrote { Outcome::Applied } else { Outcome::Unchanged };
                    return Ok((outcome, Some(plan)));
                }
            }
        }
        let problem = "mimir refuses rules again and again".to_owned();
        Err(Stop::Failed(SyncFailure::new(MIMIR_UNAVAILABLE, problem)))
    }

    fn nothing_to_do(&mut self, rows: &Rows) -> Outcome {
        self.state.note_versions(rows.versions);
        Outcome::Unchanged
    }

    /// Makes a plan, and finds out which rules it would delete.
    async fn plan(&mut self, listing: &RawListing, tombstones: &Tombstones) -> Result<Plan, Stop> {
        let listed = listing.parse(self.settings.namespace)?;
        let basis = Basis {
            parsed: &self.parsed,
            quarantine: &self.state.quarantine,
            reported: self.state.reported_limits(),
            observed: self.state.observed_limits(),
            listed: &listed,
            written_again: &self.state.written_again,
        };
        let (plan, reported) = basis.plan(self.world, self.settings.limits).await?;
        if let Some(reported) = reported {
            self.state.report_limits(reported);
        }
        let none = HashMap::new();
        let known = self.state.statuses.as_ref().unwrap_or(&none);
        let attribution = attribute(&plan, &self.parsed, known, tombstones);
        self.vanishing = attribution.vanishing;
        self.entries = Some(attribution.entries);
        self.uncertain = None;
        self.count_entries();
        Ok(plan)
    }

    fn limits(&self) -> RulerLimits {
        let reported = self.state.reported_limits().unwrap_or(self.settings.limits);
        reported.within(self.state.observed_limits())
    }

    /// Asks the guard. Returns none if the plan may be carried out, else the outcome.
    async fn judge(&mut self) -> Result<Option<Outcome>, Stop> {
        // Rows are read once in a reconcile. So what a later plan deletes beyond an earlier one are
        // rules that Mimir has refused since, and only those are judged again.
        let fresh = match &self.permitted {
            Some(permitted) => self.vanishing.beyond(permitted),
            None => self.vanishing.clone(),
        };
        if fresh.is_empty() {
            self.permit();
            return Ok(None);
        }

        // The order matters: what exceeds the small deletions is deferred even if it is part of a held
        // one, because the next full resync judges both; none means that it is deferred.
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
                    self.permit();
                    return Ok(None);
                }
                Verdict::Hold(reason) => Some(reason.to_string()),
            },
        };

        // A confirmation is for a set of rules: it permits any deletion within that set, and no other.
        let confirmed = self.world.confirmed().await?;
        if fresh.is_within(&confirmed) {
            self.by_confirmation = true;
            self.permit();
            return Ok(None);
        }
        let Some(mut reason) = held else { return Ok(Some(Outcome::Deferred)) };
        if !confirmed.is_empty() {
            let more = fresh.beyond(&confirmed);
            reason.push_str("; more than what was confirmed: ");
            reason.push_str(&more.names());
        }
        Ok(Some(Outcome::Held(GuardHeld { id: self.vanishing.id(), reason })))
    }

    fn permit(&mut self) {
        self.permitted.get_or_insert_default().extend(self.vanishing.keys().cloned());
    }
}

impl From<RulerError> for Stop {
    fn from(error: RulerError) -> Self {
        let retry_after = error.retry_after();
        let failure = SyncFailure::new(MIMIR_UNAVAILABLE, error.to_string());
        Self::Failed(SyncFailure { retry_after, ..failure })
    }
}

impl From<WriteError> for Stop {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::LeaseLost => Self::LeaseLost,
            WriteError::Ruler(error) => error.into(),
        }
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}
