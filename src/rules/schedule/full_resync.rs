//! A full resync, and the deletion guard of all tenants together: a pure state machine.
//!
//! The scheduler tells it what happened ([`Event`]) and does what it says ([`Command`]). It knows no
//! clock, no database and no task, so tests can drive it through any sequence of events.
//!
//! A full resync has three phases:
//!
//! 1. *Reading.* The organisations are listed, their rows are read in batches, and each tenant is
//!    reconciled in [`Mode::Deferring`]: what is new or changed is written, what would be deleted is only
//!    reported.
//! 2. *Judging.* Every listed organisation has answered. The reported deletions are judged as one
//!    ([`judge_all`]).
//! 3. *Deleting.* Tenants with deferred deletions are reconciled again, with rows that are read again,
//!    and organisations that are gone are purged; except for what is held.
//!
//! Rules that protect tenants (the property tests check them):
//!
//! - Nothing is deleted before every listed organisation is accounted for. A reading that ends early,
//!   that fails as a whole, or whose list never came, ends the full resync without a deletion.
//! - An organisation whose reading failed never takes part in the deletions.
//! - An answer to an earlier full resync changes nothing.
//! - After the end of the leadership there are no commands. The next leader has a machine of its own,
//!   which knows of earlier deletions only what is held.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::config::GuardConfig;
use crate::rules::plan::overall::{DeletionWindow, Loss, RuleKeys, judge_all};
use crate::rules::plan::vanishing::Vanishing;
use crate::rules::reconcile::{Mode, Watch};
use crate::rules::status::outcome::{OutcomeKind, SyncOutcome};
use crate::store::{GuardHeld, HeldRule};
use crate::tenancy::OrganisationId;

/// Which full resync of a leadership an event belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResyncId(u64);

#[derive(Debug)]
pub(crate) enum Event {
    /// The requested syncs of a new leader were read: the first full resync may begin, and serves them.
    Ready,
    /// Everything has to be reconciled, by a full resync that begins from now on.
    Requested(Vec<Uuid>),
    /// The time of [`Command::BeginWithin`] has come.
    Due,
    /// All organisations that exist.
    Listed {
        id: ResyncId,
        organisations: HashSet<OrganisationId>,
    },
    /// A batch was read. Organisations in `gone` were listed and do not exist any more.
    Read {
        id: ResyncId,
        organisations: Vec<OrganisationId>,
        gone: Vec<OrganisationId>,
    },
    /// One organisation could not be read although others could.
    Unreadable {
        id: ResyncId,
        organisation: OrganisationId,
    },
    ReadFailed {
        id: ResyncId,
        problem: String,
    },
    ReadAll {
        id: ResyncId,
    },
    /// The scheduler did not carry out [`Command::Reconcile`], because the tenant is queued or running by
    /// itself.
    Skipped {
        id: ResyncId,
        organisation: OrganisationId,
        is_failing: bool,
    },
    /// A reconcile ended, whoever started it.
    Reconciled(ReconcileEnd),
    /// The answer to [`Command::Judge`].
    Judge {
        id: ResyncId,
        /// The keys of the rules whose deletion is confirmed.
        confirmed: Result<HashMap<OrganisationId, HashSet<String>>, String>,
        /// Organisations that had rules, and that have been gone for longer than the grace period, with
        /// the number of their rules in Mimir.
        gone: Vec<(OrganisationId, usize)>,
    },
    /// A purge ended, or was not possible.
    Purged {
        id: ResyncId,
        organisation: OrganisationId,
    },
    LeadershipEnded,
}

#[derive(Debug)]
pub(crate) struct ReconcileEnd {
    pub(crate) organisation: OrganisationId,
    /// The full resync that started it; none for a trigger.
    pub(crate) by: Option<ResyncId>,
    pub(crate) kind: OutcomeKind,
    /// The organisation does not exist, so nothing was compared.
    pub(crate) is_absent: bool,
    /// The rules that would be deleted, or were.
    pub(crate) vanishing: Vanishing,
    /// The number of rules that were deleted.
    pub(crate) removed: usize,
    pub(crate) by_confirmation: bool,
    /// The number of rules of all organisations that Mimir has.
    pub(crate) in_mimir: usize,
}

#[derive(Debug)]
pub(crate) enum Command {
    /// Send [`Event::Due`] after this time, or earlier if an earlier command says so.
    BeginWithin(Duration),
    /// List and read everything.
    StartReading {
        id: ResyncId,
    },
    Reconcile {
        id: ResyncId,
        organisation: OrganisationId,
        mode: Mode,
        /// Somebody waits for the result: what Mimir refused before is tried again.
        is_requested: bool,
    },
    /// Read the confirmations, find the organisations that are gone, and answer with [`Event::Judge`].
    Judge {
        id: ResyncId,
        listed: Arc<HashSet<OrganisationId>>,
    },
    /// Record what is held from now on: nothing, or this deletion with these rules.
    Hold {
        held: Option<GuardHeld>,
        rules: Vec<(OrganisationId, Vec<HeldRule>)>,
    },
    /// Delete all rules of an organisation that is gone.
    Purge {
        id: ResyncId,
        organisation: OrganisationId,
    },
    ReportProgress {
        requests: Vec<Uuid>,
        done: usize,
        total: usize,
    },
    Finish(ResyncEnd),
}

#[derive(Debug)]
pub(crate) struct ResyncEnd {
    pub(crate) requests: Vec<Uuid>,
    pub(crate) done: usize,
    pub(crate) total: usize,
    /// Without the duration, which the machine does not know.
    pub(crate) outcome: SyncOutcome,
}

pub(crate) struct FullResync {
    guard: GuardConfig,
    interval: Duration,
    /// Deletions since the last judgement.
    window: DeletionWindow,
    /// The deletion that is held, and the rules that are part of it.
    hold: Option<GuardHeld>,
    held: RuleKeys,
    /// Organisations of the hold whose rows came back.
    recovered: HashSet<OrganisationId>,
    /// Another full resync has to follow, for these requests.
    requested: Option<Vec<Uuid>>,
    last: ResyncId,
    run: Option<Run>,
    is_leader: bool,
}

/// One full resync.
struct Run {
    id: ResyncId,
    requests: Vec<Uuid>,
    phase: Phase,
    is_reading: bool,
    listed: Option<Arc<HashSet<OrganisationId>>>,
    /// Listed organisations that are not accounted for yet: neither read, nor unreadable, nor gone.
    unread: HashSet<OrganisationId>,
    /// Organisations with a command that was not answered yet.
    outstanding: HashSet<OrganisationId>,
    done: usize,
    losses: BTreeMap<OrganisationId, Loss>,
    /// Tenants whose reconcile would delete something.
    deferred: Vec<OrganisationId>,
    outcomes: BTreeMap<OutcomeKind, usize>,
    problem: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Reading,
    Judging,
    Deleting,
}

/// How soon a failed full resync is tried again.
pub(crate) const RETRY: Duration = Duration::from_secs(5);
/// The pause before a requested full resync, which lets requests come together.
const REST: Duration = Duration::from_millis(200);
/// A progress report for every so many organisations.
const PROGRESS_STEP: usize = 25;

impl FullResync {
    /// `hold` and `held` are what the last leader recorded.
    pub(crate) fn new(
        guard: GuardConfig,
        interval: Duration,
        hold: Option<GuardHeld>,
        held: RuleKeys,
    ) -> Self {
        Self {
            guard,
            interval,
            window: DeletionWindow::default(),
            hold,
            held,
            recovered: HashSet::new(),
            requested: None,
            last: ResyncId::default(),
            run: None,
            is_leader: true,
        }
    }

    pub(crate) fn on(&mut self, event: Event) -> Vec<Command> {
        if !self.is_leader {
            return Vec::new();
        }
        let mut commands = match event {
            Event::Ready if self.last == ResyncId::default() => {
                vec![Command::BeginWithin(Duration::ZERO)]
            }
            Event::Ready => Vec::new(),
            Event::Requested(requests) => self.request(requests),
            Event::Due => self.begin(),
            Event::Reconciled(end) => self.reconciled(end),
            Event::LeadershipEnded => {
                (self.is_leader, self.run) = (false, None);
                Vec::new()
            }
            Event::Judge { id, confirmed, gone } => self.judge(id, confirmed, gone),
            Event::Listed { id, organisations } => self.with_run(id, |run| run.list(organisations)),
            Event::Read { id, organisations, gone } => {
                self.with_run(id, |run| run.read(organisations, gone))
            }
            Event::Unreadable { id, organisation } => {
                self.with_run(id, |run| run.unreadable(&organisation))
            }
            Event::ReadFailed { id, problem } => self.with_run(id, |run| run.fail(problem)),
            Event::ReadAll { id } => self.with_run(id, Run::read_all),
            Event::Skipped { id, organisation, is_failing } => {
                self.with_run(id, |run| run.skipped(&organisation, is_failing))
            }
            Event::Purged { id, organisation } => self.with_run(id, |run| {
                run.outstanding.remove(&organisation);
                Vec::new()
            }),
        };
        commands.extend(self.advance());
        commands
    }

    pub(crate) fn is_running(&self) -> bool {
        self.run.is_some()
    }

    /// Whether a command for this organisation still has to be answered.
    pub(crate) fn awaits(&self, organisation: &OrganisationId) -> bool {
        self.run.as_ref().is_some_and(|run| run.outstanding.contains(organisation))
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.run.as_ref().map_or(0, |run| run.outstanding.len())
    }

    /// What the guard looks at when a trigger leads to a reconcile.
    pub(crate) fn watch(&self, organisation: &OrganisationId, in_mimir: usize) -> Watch {
        let small = self.window.small_left(in_mimir, &self.guard);
        Watch { held: self.held_of(organisation), small }
    }

    fn held_of(&self, organisation: &OrganisationId) -> Option<Arc<HashSet<String>>> {
        self.hold.as_ref().map(|_| self.held.get(organisation).cloned().unwrap_or_default())
    }

    /// Events of an earlier full resync are dropped here.
    fn with_run(
        &mut self,
        id: ResyncId,
        work: impl FnOnce(&mut Run) -> Vec<Command>,
    ) -> Vec<Command> {
        match &mut self.run {
            Some(run) if run.id == id => work(run),
            _ => Vec::new(),
        }
    }

    fn request(&mut self, requests: Vec<Uuid>) -> Vec<Command> {
        self.requested.get_or_insert_default().extend(requests);
        // A running one may have read what has changed since, so another one follows it.
        if self.run.is_some() { Vec::new() } else { vec![Command::BeginWithin(REST)] }
    }

    fn begin(&mut self) -> Vec<Command> {
        if self.run.is_some() {
            return Vec::new();
        }
        self.last = ResyncId(self.last.0 + 1);
        self.run = Some(Run::new(self.last, self.requested.take().unwrap_or_default()));
        vec![Command::StartReading { id: self.last }]
    }

    fn reconciled(&mut self, end: ReconcileEnd) -> Vec<Command> {
        // A deletion that was judged with all others, or confirmed, is not counted again.
        if end.by.is_none() && !end.by_confirmation && end.removed > 0 {
            self.window.note(&end.organisation, end.removed, end.in_mimir, &self.guard);
        }
        let ended = self.end_of_hold(&end);
        let deferred_by_trigger = end.by.is_none() && end.kind == OutcomeKind::Deferred;
        let mut commands = match &mut self.run {
            Some(run) => run.reconciled(end),
            None => Vec::new(),
        };
        commands.extend(ended);
        if deferred_by_trigger {
            // The deletion waits for a full resync that begins after it was found.
            commands.extend(self.request(Vec::new()));
        }
        commands
    }

    /// Ends the hold once every organisation of it has its rules again. Otherwise it could be confirmed
    /// later, for a deletion that its administrator has never seen.
    fn end_of_hold(&mut self, end: &ReconcileEnd) -> Option<Command> {
        self.hold.as_ref()?;
        let held = self.held.get(&end.organisation)?;
        let is_whole =
            !end.is_absent && matches!(end.kind, OutcomeKind::Unchanged | OutcomeKind::Applied);
        if is_whole && !end.vanishing.meets(held) {
            self.recovered.insert(end.organisation.clone());
        } else {
            self.recovered.remove(&end.organisation);
        }
        if self.held.keys().any(|organisation| !self.recovered.contains(organisation)) {
            return None;
        }
        self.hold = None;
        self.held.clear();
        self.recovered.clear();
        Some(Command::Hold { held: None, rules: Vec::new() })
    }

    /// Goes to the next phase once nothing is outstanding.
    fn advance(&mut self) -> Vec<Command> {
        let Some(run) = &mut self.run else { return Vec::new() };
        if run.is_reading || !run.outstanding.is_empty() {
            return Vec::new();
        }
        match (run.phase, &run.listed) {
            (Phase::Reading, Some(listed)) if run.problem.is_none() => {
                run.phase = Phase::Judging;
                vec![Command::Judge { id: run.id, listed: Arc::clone(listed) }]
            }
            (Phase::Judging, _) => Vec::new(),
            (Phase::Reading | Phase::Deleting, _) => self.finish(),
        }
    }

    fn judge(
        &mut self,
        id: ResyncId,
        confirmed: Result<HashMap<OrganisationId, HashSet<String>>, String>,
        gone: Vec<(OrganisationId, usize)>,
    ) -> Vec<Command> {
        let Some(run) = &mut self.run else { return Vec::new() };
        let (Phase::Judging, Some(listed)) = (run.phase, &run.listed) else { return Vec::new() };
        if run.id != id {
            return Vec::new();
        }
        run.phase = Phase::Deleting;
        let confirmed = match confirmed {
            Ok(confirmed) => confirmed,
            Err(problem) => {
                run.problem = Some(problem);
                return Vec::new();
            }
        };

        // If no organisation exists at all, that is no deletion but the wrong database: unexplained.
        let is_empty = listed.is_empty();
        let gone: Vec<(OrganisationId, usize)> =
            gone.into_iter().filter(|(organisation, _)| !listed.contains(organisation)).collect();
        for (organisation, in_mimir) in &gone {
            run.losses.insert(organisation.clone(), Loss::purge(*in_mimir, !is_empty));
        }

        let judged = judge_all(&run.losses, &confirmed, &self.window, &self.held, &self.guard);
        let rules_of = |organisation: &OrganisationId| {
            let loss = run.losses.get(organisation);
            let rules = loss.map(|loss| loss.vanishing.rules()).unwrap_or_default();
            (organisation.clone(), rules)
        };
        let rules = judged.keys.keys().map(rules_of).collect();
        // From here on deletions count from zero: these are judged.
        self.window = DeletionWindow::default();
        (self.hold, self.held) = (judged.held, judged.keys);
        self.recovered.clear();

        // The hold first: an administrator has to find the rules of what the commands after it skip.
        let mut commands = vec![Command::Hold { held: self.hold.clone(), rules }];
        let purged = gone.into_iter().map(|(organisation, _)| organisation);
        for organisation in purged.filter(|organisation| !self.held.contains_key(organisation)) {
            run.outstanding.insert(organisation.clone());
            commands.push(Command::Purge { id, organisation });
        }
        let is_held = self.hold.is_some();
        for organisation in std::mem::take(&mut run.deferred) {
            let held = self.held.get(&organisation).cloned();
            let held = is_held.then(|| held.unwrap_or_default());
            run.outstanding.insert(organisation.clone());
            let mode = Mode::Guarded(Watch { held, small: None });
            commands.push(Command::Reconcile { id, organisation, mode, is_requested: false });
        }
        commands
    }

    fn finish(&mut self) -> Vec<Command> {
        let Some(run) = self.run.take() else { return Vec::new() };
        let delay = match (&self.requested, &run.problem) {
            (Some(_), _) => REST,
            (None, Some(_)) => RETRY.min(self.interval),
            (None, None) => self.interval,
        };
        let total = run.total();
        let outcome = SyncOutcome {
            organisations: Some(total),
            outcomes: run.outcomes,
            problem: run.problem,
            guard: self.hold.as_ref().map(Into::into),
            ..SyncOutcome::default()
        };
        let end = ResyncEnd { requests: run.requests, done: run.done, total, outcome };
        vec![Command::Finish(end), Command::BeginWithin(delay)]
    }
}

impl Run {
    fn new(id: ResyncId, requests: Vec<Uuid>) -> Self {
        Self {
            id,
            requests,
            phase: Phase::Reading,
            is_reading: true,
            listed: None,
            unread: HashSet::new(),
            outstanding: HashSet::new(),
            done: 0,
            losses: BTreeMap::new(),
            deferred: Vec::new(),
            outcomes: BTreeMap::new(),
            problem: None,
        }
    }

    fn total(&self) -> usize {
        self.listed.as_ref().map_or(0, |listed| listed.len())
    }

    fn list(&mut self, organisations: HashSet<OrganisationId>) -> Vec<Command> {
        if self.listed.is_none() && self.is_reading {
            self.unread.clone_from(&organisations);
            self.listed = Some(Arc::new(organisations));
        }
        Vec::new()
    }

    fn read(
        &mut self,
        organisations: Vec<OrganisationId>,
        gone: Vec<OrganisationId>,
    ) -> Vec<Command> {
        for organisation in &gone {
            self.unread.remove(organisation);
        }
        let mut commands = Vec::with_capacity(organisations.len());
        for organisation in organisations {
            if !self.unread.remove(&organisation) {
                continue;
            }
            self.outstanding.insert(organisation.clone());
            commands.push(Command::Reconcile {
                id: self.id,
                organisation,
                mode: Mode::Deferring,
                is_requested: !self.requests.is_empty(),
            });
        }
        commands
    }

    fn unreadable(&mut self, organisation: &OrganisationId) -> Vec<Command> {
        if self.unread.remove(organisation) {
            self.count(OutcomeKind::Failed);
            return self.one_done();
        }
        Vec::new()
    }

    fn fail(&mut self, problem: String) -> Vec<Command> {
        // Reconciles that have begun go on; they delete nothing.
        if self.is_reading {
            self.is_reading = false;
            self.problem = Some(problem);
        }
        Vec::new()
    }

    fn read_all(&mut self) -> Vec<Command> {
        let is_whole = self.listed.is_some() && self.unread.is_empty();
        if self.is_reading && !is_whole {
            return self.fail("the rules were not read completely".to_owned());
        }
        self.is_reading = false;
        Vec::new()
    }

    fn skipped(&mut self, organisation: &OrganisationId, is_failing: bool) -> Vec<Command> {
        if !self.outstanding.remove(organisation) || self.phase != Phase::Reading {
            return Vec::new();
        }
        if is_failing {
            self.count(OutcomeKind::Failed);
        }
        self.one_done()
    }

    fn reconciled(&mut self, end: ReconcileEnd) -> Vec<Command> {
        let ReconcileEnd { organisation, by, kind, vanishing, .. } = end;
        if !self.outstanding.remove(&organisation) {
            return Vec::new();
        }
        if kind == OutcomeKind::LeaseLost {
            self.problem = Some("the leadership was lost".to_owned());
        }
        let is_deferred = kind == OutcomeKind::Deferred;
        if !is_deferred {
            self.count(kind);
        }
        if self.phase != Phase::Reading {
            return Vec::new();
        }
        // A tenant that could not be read reports no rules, and so adds nothing to the sum.
        if is_deferred || by == Some(self.id) {
            self.losses.insert(organisation.clone(), Loss::from(vanishing));
        }
        if is_deferred {
            self.deferred.push(organisation);
        }
        self.one_done()
    }

    fn count(&mut self, kind: OutcomeKind) {
        *self.outcomes.entry(kind).or_default() += 1;
    }

    fn one_done(&mut self) -> Vec<Command> {
        self.done += 1;
        if self.requests.is_empty() || !self.done.is_multiple_of(PROGRESS_STEP) {
            return Vec::new();
        }
        let (requests, done, total) = (self.requests.clone(), self.done, self.total());
        vec![Command::ReportProgress { requests, done, total }]
    }
}

#[cfg(test)]
mod tests;
