//! A leader's term: hints, the clock and requests say which tenants to look at, a bounded number is
//! looked at at once, and what comes of it is written down. Ends with the lease.
//!
//! Everything that is decided here is decided by one task, so that there is nothing to lock. The
//! looks themselves are tasks of their own ([`Look`]).

mod finish;
mod judge;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::activation::{Mode, Rows};
use super::engine::Engine;
use super::hints::{Hints, Waiting};
use super::lease::Lease;
use super::ledger::{Ledger, Progress};
use super::look::{Look, Looked};
use super::memory::Memory;
use super::overall::{Keys, Window};
use super::requests::Requests;
use super::strangers::Strangers;
use super::survey::{Phase, Read, Removing, Survey};
use super::tenants::{TenantState, Tenants};
use crate::store::{GuardRow, LeaderRow, RuleState, StoreError, SyncRequest, SyncRow};
use crate::tenancy::OrganisationId;

pub(super) struct Term {
    engine: Arc<Engine>,
    lease: Lease,
    hints: Arc<Hints>,
    ledger: Ledger,
    tenants: Tenants,
    tasks: JoinSet<Done>,
    survey: Option<Survey>,
    /// Another survey is to follow, for these who asked.
    survey_again: Option<Vec<Uuid>>,
    next_survey: Instant,
    surveys: u64,
    /// What is said of this leader.
    leader: LeaderRow,
    /// What has vanished since the last full resync was judged.
    window: Window,
    /// The rules that are part of the deletion in many organisations that waits.
    held: Keys,
    strangers: Strangers,
    requests: Requests,
    /// Rules in each state, over all tenants, and of each as it was last counted.
    totals: [usize; RuleState::ALL.len()],
}

/// What the last leader wrote down.
pub(super) struct Notes {
    pub(super) leader: LeaderRow,
    pub(super) syncs: Vec<SyncRow>,
    /// What its held deletion in many organisations is about.
    pub(super) held: Vec<GuardRow>,
}

/// What a task of a term came to.
enum Done {
    Looked(Box<Looked>),
    Requests(Result<Vec<SyncRequest>, StoreError>),
    /// What administrators have confirmed.
    Confirmed(Result<HashMap<OrganisationId, HashSet<String>>, StoreError>),
    /// Which organisations exist of some that were named.
    Strangers(Vec<(OrganisationId, Instant)>, Result<HashSet<OrganisationId>, StoreError>),
    /// A namespace of an organisation that is gone was deleted, or not.
    Buried(OrganisationId, Box<Memory>, Result<(), String>),
    /// Old notes were forgotten, or not.
    Tidied(Result<(), StoreError>),
}

/// How soon a look at everything that failed is tried again.
const SURVEY_RETRY: Duration = Duration::from_secs(5);
/// How soon it is asked again who has asked for a sync, if that failed.
const REQUESTS_RETRY: Duration = Duration::from_secs(2);
/// Between two looks at everything, however many ask for one.
const SURVEY_REST: Duration = Duration::from_millis(200);

impl Term {
    pub(super) fn new(
        engine: Arc<Engine>,
        lease: Lease,
        hints: Arc<Hints>,
        ledger: Ledger,
        notes: Notes,
    ) -> Self {
        let Notes { leader, syncs, held } = notes;
        let keys = |row: GuardRow| {
            let keys = row.rules.into_iter().map(|rule| rule.key).collect();
            (row.organisation, Arc::new(keys))
        };
        let mut tenants = Tenants::default();
        for sync in syncs {
            let organisation = sync.organisation.clone();
            tenants.get(&organisation).sync = Some(sync);
        }
        Self {
            engine,
            lease,
            hints,
            ledger,
            tenants,
            tasks: JoinSet::new(),
            survey: None,
            survey_again: None,
            // First it is asked who waits for a survey: the first one is for them.
            next_survey: Instant::now() + SURVEY_RETRY,
            surveys: 0,
            leader,
            window: Window::default(),
            held: held.into_iter().map(keys).collect(),
            strangers: Strangers::default(),
            requests: Requests::default(),
            totals: [0; RuleState::ALL.len()],
        }
    }

    /// Runs until the lease is lost or the process ends; gives the organisations that were being
    /// looked at then.
    pub(super) async fn run(mut self, cancelled: CancellationToken) -> Vec<OrganisationId> {
        self.read_requests();
        loop {
            self.start_looks();
            let next = self.next_time();
            tokio::select! {
                biased;
                () = self.lease.lost() => break,
                () = cancelled.cancelled() => {
                    self.finish_looks().await;
                    break;
                }
                Some(done) = self.tasks.join_next() => self.take_done(done),
                waiting = self.hints.taken() => self.take_hints(waiting),
                read = next_read(&mut self.survey, self.engine.config.concurrency * 2) => {
                    self.take_read(read);
                }
                () = sleep_until(next) => self.take_time(),
            }
            self.advance_survey();
        }
        self.under_way()
    }

    fn take_hints(&mut self, waiting: Waiting) {
        let mut dropped = 0_usize;
        for (organisation, at) in &waiting.organisations {
            if self.tenants.is_known(organisation) {
                self.tenants.hear(organisation, *at);
            } else if !self.strangers.add(organisation, *at) {
                dropped += 1;
            }
        }
        if dropped > 0 {
            tracing::warn!(dropped, "Triggers for unknown organisations dropped");
        }
        self.ask_for_strangers();
        for organisation in &waiting.left {
            self.tenants.leave(organisation);
        }
        if waiting.everything {
            self.want_survey(Vec::new());
        }
        if waiting.requests {
            self.read_requests();
        }
    }

    /// Asks which of the organisations that nothing is known of exist.
    fn ask_for_strangers(&mut self) {
        let Some(batch) = self.strangers.next() else { return };
        let store = self.engine.store.clone();
        self.tasks.spawn(async move {
            let names = batch.iter().map(|(name, _)| name.clone()).collect();
            let existing = store.existing_organisations(names).await;
            if existing.is_err() {
                sleep(REQUESTS_RETRY).await;
            }
            Done::Strangers(batch, existing)
        });
    }

    fn take_strangers(
        &mut self,
        batch: Vec<(OrganisationId, Instant)>,
        existing: Result<HashSet<OrganisationId>, StoreError>,
    ) {
        self.strangers.end();
        for (organisation, at) in batch {
            match &existing {
                Ok(existing) if existing.contains(&organisation) => {
                    self.tenants.hear(&organisation, at);
                }
                Ok(_) => {}
                Err(_) => {
                    self.strangers.add(&organisation, at);
                }
            }
        }
        if let Err(error) = existing {
            tracing::warn!(%error, "Organisations not looked up; tried again");
        }
        self.ask_for_strangers();
    }

    /// Reads who has asked; after a failure again, a little later.
    pub(super) fn read_requests(&mut self) {
        if !self.requests.hear() {
            return;
        }
        let store = self.engine.store.clone();
        self.tasks.spawn(async move {
            let read = store.take_sync_requests().await;
            if read.is_err() {
                sleep(REQUESTS_RETRY).await;
            }
            Done::Requests(read)
        });
    }

    fn take_requests(&mut self, requests: Vec<SyncRequest>) {
        let mut everything = Vec::new();
        for request in self.requests.take(requests) {
            match request.organisation {
                None => everything.push(request.id),
                Some(organisation) => {
                    self.tenants.get(&organisation).requests.push(request.id);
                    self.ledger.progress(request.id, Progress { total: 1, ..Progress::default() });
                    self.tenants.hear(&organisation, Instant::now());
                }
            }
        }
        if !everything.is_empty() {
            self.want_survey(everything);
        }
    }

    /// Everything is to be looked at, by a survey that begins from now on.
    fn want_survey(&mut self, requests: Vec<Uuid>) {
        self.survey_again.get_or_insert_default().extend(requests);
        if self.survey.is_none() {
            self.next_survey = self.next_survey.min(Instant::now() + SURVEY_REST);
        }
    }

    /// When there is something to do even if nothing happens.
    fn next_time(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3600);
        let alarm = self.tenants.next_alarm().unwrap_or(far);
        if self.survey.is_some() { alarm } else { alarm.min(self.next_survey) }
    }

    fn take_time(&mut self) {
        let now = Instant::now();
        self.tenants.ring(now);
        if self.survey.is_none() && now >= self.next_survey {
            let requests = self.survey_again.take().unwrap_or_default();
            let (engine, ledger) = (Arc::clone(&self.engine), self.ledger.clone());
            let survey = Survey::begin(engine, ledger, requests);
            self.surveys += 1;
            self.survey = Some(survey);
        }
    }

    /// Starts looks while there is room: first at those of whom something was heard, but a survey
    /// always has some places.
    fn start_looks(&mut self) {
        let places = self.engine.config.concurrency;
        let of_survey = (places / 4).max(1);
        while self.tenants.running() < places {
            let busy = self.survey.as_ref().map_or(0, |survey| survey.pending.len());
            if busy < of_survey && self.start_survey_look() {
                continue;
            }
            if let Some(organisation) = self.tenants.next() {
                let mode = self.mode_of_hints(&organisation);
                self.start(organisation, None, mode, false);
            } else if !self.start_survey_look() {
                return;
            }
        }
    }

    /// Starts the next look of a survey; says whether there was one.
    fn start_survey_look(&mut self) -> bool {
        let Some(survey) = &mut self.survey else { return false };
        if let Some(removing) = survey.removing.pop_front() {
            match removing {
                // Read anew: some time has passed.
                Removing::Look(organisation, mode) => {
                    if self.start(organisation.clone(), None, mode, true)
                        && let Some(survey) = &mut self.survey
                    {
                        survey.pending.insert(organisation);
                    }
                }
                Removing::Bury(organisation) => self.start_burial(organisation),
            }
            return true;
        }
        let Some(surveyed) = survey.todo.pop_front() else { return false };
        let organisation = surveyed.organisation;
        let tenant = self.tenants.get(&organisation);
        if let Some(kept) = surveyed.kept {
            tenant.learn_statuses(kept, surveyed.read_at);
        }
        match tenant.state {
            TenantState::Idle => {}
            TenantState::Running { .. } => {
                // What comes of that look counts here too.
                survey.pending.insert(organisation);
                return true;
            }
            // Somebody waits for this, and Mimir has not asked for patience.
            TenantState::Queued | TenantState::Waiting(_)
                if survey.is_asked_for() && !tenant.must_wait => {}
            TenantState::Queued | TenantState::Waiting(_) => {
                // It is looked at by news of its own, or waits for a better time.
                survey.done += 1;
                if tenant.failures > 0 {
                    *survey.outcomes.entry("failed").or_default() += 1;
                }
                return true;
            }
        }
        // What is known of it may be newer than these rows.
        let rows = tenant.is_as_of(surveyed.read_at).then_some(surveyed.rows);
        if self.start(organisation.clone(), rows, Mode::Deferring, true)
            && let Some(survey) = &mut self.survey
        {
            survey.pending.insert(organisation);
        }
        true
    }

    fn start(
        &mut self,
        organisation: OrganisationId,
        rows: Option<Rows>,
        mode: Mode,
        is_survey: bool,
    ) -> bool {
        let Some(begun) = self.tenants.begin(&organisation) else { return false };
        let (engine, lease) = (Arc::clone(&self.engine), self.lease.clone());
        let is_asked_for = is_survey && self.survey.as_ref().is_some_and(Survey::is_asked_for);
        let look = Look { engine, lease, organisation, rows, mode, begun, is_survey, is_asked_for };
        self.tasks.spawn(async move { Done::Looked(Box::new(look.run().await)) });
        true
    }

    fn take_read(&mut self, read: Option<Read>) {
        let Some(survey) = &mut self.survey else { return };
        match read {
            None => survey.reader = None,
            Some(Read::Organisations(organisations)) => {
                survey.total = organisations.len();
                survey.organisations = organisations;
            }
            Some(Read::Batch(batch)) => survey.todo.extend(batch),
            Some(Read::Unread(organisation, error)) => {
                tracing::warn!(organisation.id = %organisation, %error, "Alert rules not read; nothing is deleted");
                survey.done += 1;
                *survey.outcomes.entry("failed").or_default() += 1;
            }
            Some(Read::Failed(error)) => {
                tracing::warn!(%error, "Alert rules not read; nothing is deleted");
                survey.problem = Some(error.to_string());
                survey.reader = None;
            }
        }
    }

    fn take_done(&mut self, done: Result<Done, JoinError>) {
        match done {
            Ok(Done::Looked(looked)) => self.looked(*looked),
            Ok(Done::Requests(read)) => {
                let again = self.requests.end_reading() || read.is_err();
                match read {
                    Ok(requests) => self.take_requests(requests),
                    Err(error) => tracing::warn!(%error, "Requested syncs not read"),
                }
                if again {
                    self.read_requests();
                }
                if self.surveys == 0 {
                    self.next_survey = Instant::now();
                }
            }
            Ok(Done::Confirmed(confirmed)) => self.judge_survey(confirmed),
            Ok(Done::Strangers(batch, existing)) => self.take_strangers(batch, existing),
            Ok(Done::Buried(organisation, memory, outcome)) => {
                self.buried(&organisation, memory, outcome);
            }
            Ok(Done::Tidied(Ok(()))) => {}
            Ok(Done::Tidied(Err(error))) => tracing::warn!(%error, "Old notes on rules kept"),
            Err(error) => {
                // A look that broke would block its tenant for ever: begin anew.
                tracing::error!(%error, "A look at alert rules broke");
                self.lease.give_up();
            }
        }
    }

    fn advance_survey(&mut self) {
        let Some(survey) = &mut self.survey else { return };
        if !survey.is_seen() {
            return;
        }
        match survey.phase {
            Phase::Looking if survey.problem.is_some() => self.end_survey(),
            Phase::Looking => {
                survey.phase = Phase::Judging;
                self.find_absent();
                let store = self.engine.store.clone();
                self.tasks.spawn(async move { Done::Confirmed(store.confirmed_deletions().await) });
            }
            Phase::Judging => {}
            Phase::Removing => self.end_survey(),
        }
    }

    fn now(&self) -> OffsetDateTime {
        self.engine.clock.utc()
    }

    /// Before the process ends: what has begun may end well.
    async fn finish_looks(&mut self) {
        const PATIENCE: Duration = Duration::from_secs(2);
        let deadline = Instant::now() + PATIENCE;
        while let Ok(Some(done)) = tokio::time::timeout_at(deadline, self.tasks.join_next()).await {
            self.take_done(done);
        }
        let _ = tokio::time::timeout_at(deadline, self.ledger.flushed()).await;
    }

    fn under_way(&self) -> Vec<OrganisationId> {
        let running = self.tenants.iter().filter(|(_, tenant)| tenant.is_running());
        running.map(|(organisation, _)| organisation.clone()).collect()
    }
}

/// Milliseconds as a number that JSON has.
fn whole_ms(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

async fn next_read(survey: &mut Option<Survey>, enough: usize) -> Option<Read> {
    match survey {
        Some(survey) => survey.next_read(enough).await,
        None => std::future::pending().await,
    }
}
