//! The work of a leader, from the first full resync to the end of the lease.
//!
//! Triggers, timers, requested syncs and the full resync say which tenants to reconcile. A bounded number
//! of them is reconciled concurrently, and what comes of it is handed to the status writer. One task
//! decides everything, so nothing has to be locked; the reconciles are tasks of their own ([`Job`]).
//! What may be deleted from many tenants is decided by [`FullResync`], which the scheduler obeys.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use time::OffsetDateTime;
use tokio::sync::mpsc::Receiver;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::full_resync::{Command, Event, FullResync, RETRY, ReconcileEnd, ResyncEnd, ResyncId};
use super::health::HealthEnd;
use super::job::{Job, JobEnd, purge};
use super::queue::{Turn, WorkQueue};
use super::reader::{Read, ReadRules, ReadStatuses, TenantRead, start_reading};
use super::records::{Records, log, outcome_of, whole_ms};
use super::requests::Requests;
use super::triggers::{PendingTriggers, Triggers, UnknownOrganisations};
use crate::clock::Clock;
use crate::election::LeaderTask;
use crate::election::leader::{campaign, lead, pause};
use crate::mimir::ruler::next_delay;
use crate::rules::health::Reach;
use crate::rules::health::timetable::Timetable;
use crate::rules::reconcile::reconciler::Reconciler;
use crate::rules::reconcile::report::Reconciled;
use crate::rules::reconcile::tenant_state::TenantState;
use crate::rules::reconcile::{Mode, WriteAccess};
use crate::rules::status::outcome::{Outcome, OutcomeKind};
use crate::rules::status::writer::{Progress, StatusWriter, WriterContext};
use crate::store::{StoreError, SyncRequest};
use crate::telemetry::RuleMetrics;
use crate::tenancy::OrganisationId;

/// What syncs rules in this process, whenever it is the leader.
#[derive(Clone)]
pub struct RuleSync {
    pub reconciler: Arc<Reconciler>,
    pub triggers: Arc<Triggers>,
    pub clock: Clock,
    pub metrics: Arc<RuleMetrics>,
    /// The name of this copy, for administrators.
    pub holder: String,
    /// Whether alerts reach a notification channel; none if nobody can tell.
    pub reach: Option<Reach>,
    /// What this copy does beside the sync, whenever it is the leader.
    pub beside: Vec<Arc<dyn LeaderTask>>,
}

/// How soon a failed read of requests or lookup of organisations is tried again.
const READ_RETRY: Duration = Duration::from_secs(2);

impl RuleSync {
    /// Leads whenever it can, until it is cancelled.
    pub async fn run(self, cancelled: CancellationToken) {
        let mut was_away = false;
        while !cancelled.is_cancelled() {
            let store = &self.reconciler.store;
            if let Some((leadership, lease)) = campaign(store, &mut was_away).await {
                tracing::info!(leader.holder = self.holder, "Leading the sync of alert rules");
                let access =
                    WriteAccess { lease: lease.clone(), metrics: Arc::clone(&self.metrics) };
                let work = self.schedule(access, cancelled.clone());
                Box::pin(lead(store, &self.metrics, leadership, lease, &cancelled, work)).await;
            }
            self.triggers.clear();
            pause(&cancelled).await;
        }
    }

    /// One leadership. Returns the organisations that were being reconciled at its end.
    async fn schedule(
        &self,
        access: WriteAccess,
        cancelled: CancellationToken,
    ) -> Vec<OrganisationId> {
        let context = WriterContext {
            store: self.reconciler.store.clone(),
            metrics: Arc::clone(&self.metrics),
            lease: access.lease.clone(),
        };
        let lease = access.lease.clone();
        let triggers = Arc::clone(&self.triggers);
        let (writer, writing) =
            StatusWriter::new(context, move |organisation| triggers.rule_moved(organisation));
        let work = async {
            match Scheduler::begin(self, access, writer).await {
                Ok(scheduler) => scheduler.run(cancelled).await,
                Err(error) => {
                    tracing::warn!(%error, "State of the last leader not read");
                    Vec::new()
                }
            }
        };
        let beside = join_all(self.beside.iter().map(|task| task.run(lease.clone())));
        tokio::select! {
            in_flight = work => in_flight,
            () = async { beside.await; std::future::pending::<()>().await } => Vec::new(),
            // It ends with the lease. The scheduler sees that too, and says what is in flight.
            () = async { writing.await; std::future::pending().await } => Vec::new(),
        }
    }
}

pub(super) struct Scheduler {
    pub(super) reconciler: Arc<Reconciler>,
    pub(super) access: WriteAccess,
    triggers: Arc<Triggers>,
    pub(super) clock: Clock,
    pub(super) writer: StatusWriter,
    pub(super) queue: WorkQueue,
    tasks: JoinSet<Done>,
    /// Nothing waits for these at the end: they write nothing.
    pub(super) readings: JoinSet<HealthEnd>,
    pub(super) timetable: Timetable,
    pub(super) reach: Option<Reach>,
    resync: FullResync,
    resync_io: ResyncIo,
    pub(super) records: Records,
    unknown: UnknownOrganisations,
    requests: Requests,
}

/// What the scheduler needs to carry out the commands of the full resync.
#[derive(Default)]
struct ResyncIo {
    /// When the next one begins; none while one is running.
    next: Option<Instant>,
    began: Option<Instant>,
    reader: Option<(ResyncId, Receiver<Read>)>,
    /// What was read, until its reconcile starts.
    read: HashMap<OrganisationId, TenantRead>,
    /// Organisations whose rules were read and not known to be unchanged.
    rules_read: usize,
    /// Commands that wait for a slot.
    waiting: VecDeque<Waiting>,
}

enum Waiting {
    Reconcile { id: ResyncId, organisation: OrganisationId, mode: Mode, is_requested: bool },
    Purge { id: ResyncId, organisation: OrganisationId },
}

impl Waiting {
    fn organisation(&self) -> &OrganisationId {
        match self {
            Self::Reconcile { organisation, .. } | Self::Purge { organisation, .. } => organisation,
        }
    }
}

type Confirmed = HashMap<OrganisationId, HashSet<String>>;

/// What a task came to.
enum Done {
    Reconciled(Box<JobEnd>),
    Requests(Result<Vec<SyncRequest>, StoreError>),
    /// With Postgres' time.
    Confirmed(
        ResyncId,
        Arc<HashSet<OrganisationId>>,
        Result<(Confirmed, OffsetDateTime), StoreError>,
    ),
    LookedUp(Vec<(OrganisationId, Instant)>, Result<HashSet<OrganisationId>, StoreError>),
    Purged(ResyncId, OrganisationId, Box<TenantState>, Result<(), String>),
    CleanedUp(Result<(), StoreError>),
}

impl Scheduler {
    /// Reads what the last leader recorded.
    async fn begin(
        sync: &RuleSync,
        access: WriteAccess,
        writer: StatusWriter,
    ) -> Result<Self, StoreError> {
        let RuleSync { reconciler, triggers, clock, holder, reach, .. } = sync;
        let leader = reconciler.store.rule_leader().await?;
        let syncs = reconciler.store.rule_syncs().await?;
        let held = match &leader.guard {
            Some(guard) => reconciler.store.held_keys(guard.id.clone()).await?,
            None => HashMap::new(),
        };
        let held = held.into_iter().map(|(organisation, keys)| (organisation, Arc::new(keys)));
        let mut queue = WorkQueue::default();
        for sync in syncs {
            let organisation = sync.organisation.clone();
            queue.get(&organisation).sync = Some(sync);
        }
        let config = &reconciler.config;
        let (guard, interval) = (config.guard, config.reconcile_interval);
        let resync = FullResync::new(guard, interval, leader.guard.clone(), held.collect());
        let metrics = Arc::clone(&access.metrics);
        Ok(Self {
            resync,
            records: Records::begin(writer.clone(), metrics, clock.clone(), leader, holder),
            reconciler: Arc::clone(reconciler),
            access,
            triggers: Arc::clone(triggers),
            clock: clock.clone(),
            writer,
            queue,
            tasks: JoinSet::new(),
            readings: JoinSet::new(),
            timetable: Timetable::new(
                config.health_interval,
                config.health_requests_per_second,
                Instant::now(),
            ),
            reach: reach.clone(),
            // Requested syncs are read first, so that the first full resync serves them. If they cannot
            // be read, it begins without them.
            resync_io: ResyncIo { next: Some(Instant::now() + RETRY), ..ResyncIo::default() },
            unknown: UnknownOrganisations::default(),
            requests: Requests::default(),
        })
    }

    /// Runs until the lease is lost or the process ends.
    async fn run(mut self, cancelled: CancellationToken) -> Vec<OrganisationId> {
        self.read_requests();
        loop {
            self.start_jobs();
            let next = self.next_time();
            let most_read = self.reconciler.config.concurrency * 2;
            tokio::select! {
                // The lease comes first: nothing may be started after its end. Ended tasks come before new
                // work, so that a busy feed of triggers cannot starve them.
                biased;
                () = self.access.lease.lost() => {
                    self.on_resync(Event::LeadershipEnded);
                    break;
                }
                () = cancelled.cancelled() => {
                    self.finish_jobs().await;
                    break;
                }
                Some(done) = self.tasks.join_next() => self.on_done(done),
                Some(end) = self.readings.join_next() => match end {
                    Ok(end) => self.on_evaluated(end),
                    Err(error) => self.on_panic(&error),
                },
                triggers = self.triggers.taken() => self.on_triggers(triggers),
                (id, read) = next_read(&mut self.resync_io, most_read) => self.on_read(id, read),
                () = sleep_until(next) => self.on_time(),
            }
        }
        let running = self.queue.iter().filter(|(_, tenant)| tenant.is_running());
        running.map(|(organisation, _)| organisation.clone()).collect()
    }

    /// When there is something to do even if nothing happens.
    fn next_time(&mut self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3600);
        let due = self.queue.next_due().unwrap_or(far);
        let due = self.timetable.next_time().map_or(due, |next| next.min(due));
        self.resync_io.next.map_or(due, |next| next.min(due))
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        self.queue.fire_due(now);
        self.start_readings();
        if self.resync_io.next.is_some_and(|next| now >= next) {
            self.resync_io.next = None;
            self.on_resync(Event::Due);
        }
    }

    /// Before the process ends: what has begun may end well.
    async fn finish_jobs(&mut self) {
        const TIMEOUT: Duration = Duration::from_secs(2);
        let deadline = Instant::now() + TIMEOUT;
        while let Ok(Some(done)) = tokio::time::timeout_at(deadline, self.tasks.join_next()).await {
            self.on_done(done);
        }
        let _ = tokio::time::timeout_at(deadline, self.writer.flushed()).await;
    }

    fn on_done(&mut self, done: Result<Done, JoinError>) {
        match done {
            Ok(Done::Reconciled(end)) => self.on_reconciled(*end),
            Ok(Done::Requests(read)) => self.on_requests(read),
            Ok(Done::Confirmed(id, listed, read)) => {
                let (confirmed, gone) = match read {
                    Ok((confirmed, now)) => (Ok(confirmed), self.find_gone(&listed, now)),
                    Err(error) => (Err(error.to_string()), Vec::new()),
                };
                self.on_resync(Event::Judge { id, confirmed, gone });
            }
            Ok(Done::LookedUp(batch, existing)) => self.on_looked_up(batch, existing),
            Ok(Done::Purged(id, organisation, state, outcome)) => {
                self.on_purged(id, organisation, state, outcome);
            }
            Ok(Done::CleanedUp(Ok(()))) => {}
            Ok(Done::CleanedUp(Err(error))) => {
                tracing::warn!(%error, "Old records of rule syncs not deleted");
            }
            Err(error) => self.on_panic(&error),
        }
    }

    /// The state of its tenant is lost, which would block that tenant for ever. A new leadership starts from
    /// what is recorded.
    fn on_panic(&self, error: &JoinError) {
        tracing::error!(%error, "Reconcile panicked; giving up the leadership");
        self.access.lease.give_up();
    }
}

/// Triggers and requested syncs.
impl Scheduler {
    fn on_triggers(&mut self, triggers: PendingTriggers) {
        let mut dropped = 0_usize;
        for (organisation, at) in &triggers.organisations {
            if self.queue.is_known(organisation) {
                self.queue.enqueue(organisation, *at);
            } else if !self.unknown.add(organisation, *at) {
                dropped += 1;
            }
        }
        if dropped > 0 {
            tracing::warn!(dropped, "Triggers for unknown organisations dropped");
        }
        self.look_up_unknown();
        for organisation in &triggers.rule_moved {
            self.queue.on_rule_moved(organisation);
        }
        if triggers.everything {
            self.on_resync(Event::Requested(Vec::new()));
        }
        if triggers.requests {
            self.read_requests();
        }
    }

    fn look_up_unknown(&mut self) {
        let Some(batch) = self.unknown.next_batch() else { return };
        let store = self.reconciler.store.clone();
        self.tasks.spawn(async move {
            let names = batch.iter().map(|(name, _)| name.clone()).collect();
            let existing = store.existing_organisations(names).await;
            if existing.is_err() {
                sleep(READ_RETRY).await;
            }
            Done::LookedUp(batch, existing)
        });
    }

    fn on_looked_up(
        &mut self,
        batch: Vec<(OrganisationId, Instant)>,
        existing: Result<HashSet<OrganisationId>, StoreError>,
    ) {
        self.unknown.finish_lookup();
        for (organisation, at) in batch {
            match &existing {
                Ok(existing) if existing.contains(&organisation) => {
                    self.queue.enqueue(&organisation, at);
                }
                Ok(_) => {}
                Err(_) => {
                    self.unknown.add(&organisation, at);
                }
            }
        }
        if let Err(error) = existing {
            tracing::warn!(%error, "Unknown organisations not looked up; retrying");
        }
        self.look_up_unknown();
    }

    fn read_requests(&mut self) {
        if !self.requests.notify() {
            return;
        }
        let store = self.reconciler.store.clone();
        self.tasks.spawn(async move {
            let read = store.take_sync_requests().await;
            if read.is_err() {
                sleep(READ_RETRY).await;
            }
            Done::Requests(read)
        });
    }

    fn on_requests(&mut self, read: Result<Vec<SyncRequest>, StoreError>) {
        let again = self.requests.end_reading() || read.is_err();
        match read {
            Ok(requests) => self.start_requests(requests),
            Err(error) => tracing::warn!(%error, "Requested syncs not read; retrying"),
        }
        if again {
            self.read_requests();
        }
        self.on_resync(Event::Ready);
    }

    fn start_requests(&mut self, requests: Vec<SyncRequest>) {
        let mut everything = Vec::new();
        for request in self.requests.take_new(requests) {
            match request.organisation {
                None => everything.push(request.id),
                Some(organisation) => {
                    self.queue.get(&organisation).add_request(request.id);
                    let progress = Progress { total: 1, ..Progress::default() };
                    self.writer.progress(request.id, progress);
                    self.queue.enqueue(&organisation, Instant::now());
                }
            }
        }
        if !everything.is_empty() {
            self.on_resync(Event::Requested(everything));
        }
    }
}

/// Starting reconciles.
impl Scheduler {
    /// Fills the free slots: with triggered tenants first, because somebody waits for them. But a full
    /// resync always gets a quarter of the slots, or triggers could stop it for ever.
    fn start_jobs(&mut self) {
        let slots = self.reconciler.config.concurrency;
        let share = (slots / 4).max(1);
        while self.queue.running() < slots {
            let started = self.resync.outstanding().saturating_sub(self.resync_io.waiting.len());
            if started < share && self.start_resync_job() {
                continue;
            }
            if let Some(organisation) = self.queue.next() {
                let mode = Mode::Guarded(self.resync.watch(&organisation, self.records.in_mimir()));
                self.start(organisation, None, mode, None, false);
            } else if !self.start_resync_job() {
                return;
            }
        }
    }

    /// Carries out the next waiting command of the full resync; returns whether there was one.
    fn start_resync_job(&mut self) -> bool {
        let Some(waiting) = self.resync_io.waiting.pop_front() else { return false };
        if !self.resync.awaits(waiting.organisation()) {
            // A trigger's reconcile has answered it in the meantime.
            self.resync_io.read.remove(waiting.organisation());
            return true;
        }
        match waiting {
            Waiting::Purge { id, organisation } => self.start_purge(id, organisation),
            Waiting::Reconcile { id, organisation, mode: Mode::Deferring, is_requested } => {
                self.start_first_half(id, organisation, is_requested);
            }
            // The rows are read again: some time has passed since the first phase.
            Waiting::Reconcile { id, organisation, mode, is_requested } => {
                if !self.start(organisation.clone(), None, mode, Some(id), is_requested) {
                    self.on_resync(Event::Skipped { id, organisation, is_failing: false });
                }
            }
        }
        true
    }

    fn start_first_half(&mut self, id: ResyncId, organisation: OrganisationId, is_requested: bool) {
        let read = self.resync_io.read.remove(&organisation);
        let tenant = self.queue.get(&organisation);
        let mut known = None;
        if let Some(TenantRead { rules, read_at, statuses, .. }) = read {
            if let ReadStatuses::Read(statuses, versions) = statuses {
                tenant.learn_statuses(statuses, versions, read_at);
            }
            // A newer trigger or reconcile knows more than these rows.
            let is_newest =
                tenant.is_as_of(read_at) && rules.still_holds(tenant.versions_in_sync());
            known = is_newest.then_some(rules);
        }
        match tenant.turn(is_requested) {
            Turn::AwaitRunning => {}
            Turn::Skip { is_failing } => {
                self.on_resync(Event::Skipped { id, organisation, is_failing });
            }
            Turn::Reconcile => {
                self.start(organisation, known, Mode::Deferring, Some(id), is_requested);
            }
        }
    }

    fn start(
        &mut self,
        organisation: OrganisationId,
        read: Option<ReadRules>,
        mode: Mode,
        resync: Option<ResyncId>,
        is_requested: bool,
    ) -> bool {
        let Some(started) = self.queue.start(&organisation) else { return false };
        let (reconciler, access) = (Arc::clone(&self.reconciler), self.access.clone());
        let job =
            Job { reconciler, access, organisation, read, mode, started, resync, is_requested };
        self.tasks.spawn(async move { Done::Reconciled(Box::new(Box::pin(job.run()).await)) });
        true
    }

    fn start_purge(&mut self, id: ResyncId, organisation: OrganisationId) {
        let Some(started) = self.queue.start(&organisation) else {
            // It is being reconciled, so somebody has found it again.
            self.on_resync(Event::Purged { id, organisation });
            return;
        };
        let (reconciler, access) = (Arc::clone(&self.reconciler), self.access.clone());
        self.tasks.spawn(async move {
            let outcome = purge(&reconciler, &access, &organisation).await;
            Done::Purged(id, organisation, started.state, outcome)
        });
    }
}

/// The full resync: tells it what happened, and does what it says.
impl Scheduler {
    fn on_resync(&mut self, event: Event) {
        for command in self.resync.on(event) {
            self.execute(command);
        }
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::BeginWithin(delay) => {
                let at = Instant::now() + delay;
                let next = self.resync_io.next;
                self.resync_io.next = Some(next.map_or(at, |next| next.min(at)));
            }
            Command::StartReading { id } => {
                self.resync_io.next = None;
                self.resync_io.began = Some(Instant::now());
                self.resync_io.read.clear();
                self.resync_io.rules_read = 0;
                let tenants = self.queue.iter();
                let known = tenants.map(|(name, tenant)| (name.clone(), tenant.known_versions()));
                let reader = start_reading(
                    Arc::clone(&self.reconciler),
                    self.writer.clone(),
                    known.collect(),
                );
                self.resync_io.reader = Some((id, reader));
            }
            Command::Reconcile { id, organisation, mode, is_requested } => {
                let waiting = Waiting::Reconcile { id, organisation, mode, is_requested };
                self.resync_io.waiting.push_back(waiting);
            }
            Command::Purge { id, organisation } => {
                self.resync_io.waiting.push_back(Waiting::Purge { id, organisation });
            }
            Command::Judge { id, listed } => {
                let store = self.reconciler.store.clone();
                self.tasks.spawn(async move {
                    let confirmed =
                        async { Ok((store.confirmed_deletions().await?, store.now().await?)) };
                    let confirmed = confirmed.await;
                    Done::Confirmed(id, listed, confirmed)
                });
            }
            Command::Hold { held, rules } => self.records.hold(held, rules),
            Command::ReportProgress { requests, done, total } => {
                for request in requests {
                    self.writer.progress(request, Progress { done, total, outcome: None });
                }
            }
            Command::Finish(end) => self.finish_resync(end),
        }
    }

    fn on_read(&mut self, id: ResyncId, read: Option<Read>) {
        match read {
            None => {
                self.resync_io.reader = None;
                self.on_resync(Event::ReadAll { id });
            }
            Some(Read::Listed(organisations)) => {
                self.on_resync(Event::Listed { id, organisations });
            }
            Some(Read::Batch { read, gone }) => {
                let organisations = read.iter().map(|read| read.organisation.clone()).collect();
                let are_rows = |read: &&TenantRead| matches!(read.rules, ReadRules::Rows(_));
                self.resync_io.rules_read += read.iter().filter(are_rows).count();
                let read = read.into_iter().map(|read| (read.organisation.clone(), read));
                self.resync_io.read.extend(read);
                self.on_resync(Event::Read { id, organisations, gone });
            }
            Some(Read::Unreadable(organisation, error)) => {
                tracing::warn!(organisation.id = %organisation, %error, "Alert rules not read; nothing is deleted");
                self.on_resync(Event::Unreadable { id, organisation });
            }
            Some(Read::Failed(error)) => {
                tracing::warn!(%error, "Alert rules not read; nothing is deleted");
                self.resync_io.reader = None;
                self.on_resync(Event::ReadFailed { id, problem: error.to_string() });
            }
        }
    }

    /// The organisations that have been gone for longer than the grace period, with the number
    /// of their rules in Mimir.
    /// Records which ones are gone at all. The time is that of Postgres: another copy may have seen first
    /// that one is gone, and clocks differ.
    fn find_gone(
        &mut self,
        listed: &HashSet<OrganisationId>,
        now: OffsetDateTime,
    ) -> Vec<(OrganisationId, usize)> {
        let oldest = now - self.reconciler.config.organisation_grace;
        let missing = self.queue.iter().filter(|(organisation, tenant)| {
            !listed.contains(*organisation) && !tenant.is_running() && tenant.sync.is_some()
        });
        let missing: Vec<OrganisationId> =
            missing.map(|(organisation, _)| organisation.clone()).collect();
        let mut gone = Vec::new();
        for organisation in missing {
            let tenant = self.queue.get(&organisation);
            if self.records.absent(tenant, now) {
                tracing::info!(organisation.id = %organisation, "Organisation is gone; purging its rules after the grace period");
                continue;
            }
            let Some(sync) = &tenant.sync else { continue };
            if sync.absent_since.is_some_and(|since| since <= oldest) {
                gone.push((organisation, sync.in_mimir()));
            }
        }
        gone
    }

    fn on_purged(
        &mut self,
        id: ResyncId,
        organisation: OrganisationId,
        state: Box<TenantState>,
        outcome: Result<(), String>,
    ) {
        let again = self.queue.finish(&organisation, state, Duration::ZERO);
        match outcome {
            Ok(()) => {
                tracing::info!(organisation.id = %organisation, "Rules of a deleted organisation purged");
                self.records.purged(self.queue.get(&organisation));
                self.timetable.forget(&organisation);
                self.writer.forget(organisation.clone());
                self.queue.forget(&organisation);
                if again {
                    self.queue.enqueue(&organisation, Instant::now());
                }
            }
            Err(problem) => {
                tracing::warn!(organisation.id = %organisation, problem, "Rules of a deleted organisation not purged; retrying");
            }
        }
        self.on_resync(Event::Purged { id, organisation });
    }

    fn finish_resync(&mut self, end: ResyncEnd) {
        let ResyncEnd { requests, done, total, mut outcome } = end;
        let took = self.resync_io.began.take().map_or(Duration::ZERO, |began| began.elapsed());
        outcome.duration_ms = Some(whole_ms(took));
        self.resync_io.reader = None;
        self.resync_io.read.clear();
        self.records.count_troubles(&self.queue);
        let store = self.reconciler.store.clone();
        self.tasks.spawn(async move { Done::CleanedUp(store.forget_old_rule_notes().await) });
        // The notification of a request may have been lost.
        self.read_requests();

        tracing::info!(
            organisations = total,
            read = self.resync_io.rules_read,
            failed = outcome.count(OutcomeKind::Failed),
            problem = outcome.problem.as_deref(),
            duration_ms = whole_ms(took),
            "Full resync of alert rules finished"
        );
        self.records.resync_ended(&outcome, took);
        for request in requests {
            let outcome = Some(outcome.clone());
            self.writer.progress(request, Progress { done, total, outcome });
        }
    }
}

/// The end of a reconcile.
impl Scheduler {
    fn on_reconciled(&mut self, end: JobEnd) {
        let JobEnd {
            organisation,
            reconciled,
            state,
            triggered_at,
            requests,
            took,
            absent_at,
            resync,
        } = end;
        let is_absent = absent_at.is_some();
        let kind = reconciled.outcome.kind();
        let metrics = &self.access.metrics;
        metrics.reconciled(kind);
        metrics.reconcile_duration.record(took.as_secs_f64());
        if let (Outcome::Applied, Some(at)) = (&reconciled.outcome, triggered_at) {
            metrics.lag.record(at.elapsed().as_secs_f64());
        }

        // First the queue takes the state back: the full resync may want to start the tenant again.
        let again = self.queue.finish(&organisation, state, took);
        self.on_resync(Event::Reconciled(ReconcileEnd {
            organisation: organisation.clone(),
            by: resync,
            kind,
            is_absent,
            vanishing: reconciled.vanishing.clone(),
            removed: reconciled.removed,
            by_confirmation: reconciled.by_confirmation,
            in_mimir: self.records.in_mimir(),
        }));

        match &reconciled.outcome {
            Outcome::LeaseLost => return,
            Outcome::Deferred if !is_absent => {
                // Nothing was done for these requests yet: they wait for the full resync.
                self.queue.get(&organisation).keep_waiting(requests, triggered_at);
                self.writer.statuses(reconciled.changes);
            }
            _ => {
                if let Some(at) = absent_at {
                    self.on_absent(&organisation, at);
                } else {
                    log(&organisation, &reconciled, took);
                    self.record(&organisation, &reconciled);
                    self.note_health(&organisation, &reconciled);
                    self.set_retry(&organisation, &reconciled);
                }
                let outcome = outcome_of(&reconciled, is_absent);
                self.writer.statuses(reconciled.changes);
                self.writer.deleted(&organisation, reconciled.deleted);
                for request in requests {
                    let outcome = Some(outcome.clone());
                    self.writer.progress(request, Progress { done: 1, total: 1, outcome });
                }
            }
        }
        if again {
            self.queue.enqueue(&organisation, Instant::now());
        }
    }

    /// The organisation does not exist. Its rules stay for the grace period.
    fn on_absent(&mut self, organisation: &OrganisationId, at: OffsetDateTime) {
        let tenant = self.queue.get(organisation);
        // Its rules may have moved to another organisation, with their statuses.
        tenant.forget_statuses();
        if tenant.sync.is_some() {
            self.records.absent(tenant, at);
        } else if tenant.is_idle() {
            // It never existed.
            self.queue.forget(organisation);
        }
    }

    fn record(&mut self, organisation: &OrganisationId, reconciled: &Reconciled) {
        let tenant_id = self.reconciler.tenant_of(organisation);
        let tenant_id = tenant_id.map(|tenant| tenant.as_str().to_owned()).unwrap_or_default();
        let tenant = self.queue.get(organisation);
        self.records.reconciled(organisation, tenant, tenant_id, reconciled);
        // In a full resync this would look at every tenant for each tenant.
        if !self.resync.is_running() {
            self.records.count_troubles(&self.queue);
        }
    }

    /// Sets when a failed tenant is tried again.
    fn set_retry(&mut self, organisation: &OrganisationId, reconciled: &Reconciled) {
        let tenant = self.queue.get(organisation);
        let retry_after = match &reconciled.outcome {
            Outcome::Failed(failure) => failure.retry_after,
            _ if reconciled.broken.is_some() => None,
            _ => return tenant.reset_failures(),
        };
        let failures = tenant.count_failure();
        let at = Instant::now() + next_delay(failures + 2, retry_after, fastrand::f64());
        if retry_after.is_some() {
            // Mimir asked for the delay, so triggers do not shorten it.
            tenant.rest_until(at);
        }
        self.queue.wait_until(organisation, at);
    }
}

/// What the reader says next, as long as few commands wait: rows wait in the database and not in memory.
async fn next_read(resync: &mut ResyncIo, most_waiting: usize) -> (ResyncId, Option<Read>) {
    match &mut resync.reader {
        Some((id, reader)) if resync.waiting.len() < most_waiting => (*id, reader.recv().await),
        _ => std::future::pending().await,
    }
}
