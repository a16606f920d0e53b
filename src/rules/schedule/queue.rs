//! The work queue of a leader: what is known of each tenant, which ones are being reconciled, and which
//! one is due when. It decides the order; the scheduler does the work.

use std::collections::HashMap;
use std::time::Duration;

use strum::EnumCount as _;
use tokio::time::Instant;
use uuid::Uuid;

use crate::due::{Due, Entry};
use crate::labels::RuleState;
use crate::rules::reconcile::tenant_state::{KnownVersions, TenantState};
use crate::rules::status::statuses::RuleStatuses;
use crate::store::{RowVersions, SyncRow};
use crate::tenancy::OrganisationId;

#[derive(Default)]
pub(crate) struct Tenant {
    /// While the tenant is being reconciled, its job has the state.
    state: Option<Box<TenantState>>,
    /// How its sync stands, as it was last handed to the status writer.
    pub(crate) sync: Option<SyncRow>,
    entry: Entry,
    /// Requested syncs that wait for the next reconcile.
    requests: Vec<Uuid>,
    /// The number of rules in each state.
    pub(crate) states: [usize; RuleState::COUNT],
    /// Mimir asked for this rest, so a requested sync does not cut it short.
    must_rest: bool,
    last_start: Option<Instant>,
    /// The end of the last reconcile, or of a later change of the statuses.
    last_end: Option<Instant>,
    /// A rule moved away during a reconcile: its state forgets the statuses afterwards.
    forgets_statuses: bool,
    last_moved_away: Option<Instant>,
}

/// What a full resync has to do with a tenant when its turn comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Reconcile,
    /// It is being reconciled: that result counts for the full resync too.
    AwaitRunning,
    /// It is queued because of a trigger of its own, or waits for a retry.
    Skip {
        is_failing: bool,
    },
}

impl Tenant {
    pub(crate) fn is_running(&self) -> bool {
        self.entry.is_running()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.entry.is_idle()
    }

    /// `is_requested`: somebody waits for the full resync.
    pub(crate) fn turn(&self, is_requested: bool) -> Turn {
        if self.is_running() {
            Turn::AwaitRunning
        } else if self.is_idle() || (is_requested && !self.must_rest) {
            Turn::Reconcile
        } else {
            Turn::Skip { is_failing: self.entry.has_failed() }
        }
    }

    /// Whether rows that were read at this time are the newest that are known of: there was no trigger
    /// and no reconcile since.
    pub(crate) fn is_as_of(&self, read_at: Instant) -> bool {
        self.is_idle()
            && !self.entry.is_triggered()
            && self.last_start.is_none_or(|start| start < read_at)
    }

    /// Takes over the statuses that were read from the table, unless a reconcile may have changed them
    /// since.
    pub(crate) fn learn_statuses(
        &mut self,
        read: RuleStatuses,
        versions: RowVersions,
        read_at: Instant,
    ) {
        if self.is_running() || self.last_end.is_some_and(|end| end >= read_at) {
            return;
        }
        self.state().learn_statuses(read, versions);
    }

    /// What need not be read again; nothing while a reconcile has the state.
    pub(crate) fn known_versions(&self) -> KnownVersions {
        self.state.as_ref().map_or_else(KnownVersions::default, |state| state.known_versions())
    }

    /// The versions of the rows that were seen to be in sync.
    pub(crate) fn versions_in_sync(&self) -> Option<RowVersions> {
        self.state.as_ref()?.in_sync?.versions
    }

    /// The statuses of its rules may be another organisation's by now.
    pub(crate) fn forget_statuses(&mut self) {
        match &mut self.state {
            Some(state) => state.forget_statuses(),
            None => self.forgets_statuses = true,
        }
    }

    pub(crate) fn reset_failures(&mut self) {
        self.entry.reset_failures();
    }

    /// Counts a failure, and returns how many there were in a row before it.
    pub(crate) fn count_failure(&mut self) -> u32 {
        self.entry.count_failure()
    }

    /// Mimir asked to leave the tenant alone until then.
    pub(crate) fn rest_until(&mut self, at: Instant) {
        self.entry.rest_until(at);
        self.must_rest = true;
    }

    pub(crate) fn add_request(&mut self, request: Uuid) {
        self.requests.push(request);
    }

    /// The deletion waits for the next full resync, and so does everything that led to the reconcile.
    pub(crate) fn keep_waiting(&mut self, requests: Vec<Uuid>, triggered_at: Option<Instant>) {
        self.requests.extend(requests);
        self.entry.keep_trigger(triggered_at);
    }

    /// The state, unless a reconcile has it.
    pub(crate) fn state_at_rest(&mut self) -> Option<&mut TenantState> {
        if self.is_running() { None } else { self.state.as_deref_mut() }
    }

    /// The state, unless a reconcile has it or may have changed it since then.
    pub(crate) fn state_as_of(&mut self, read_at: Instant) -> Option<&mut TenantState> {
        if self.last_end.is_some_and(|end| end >= read_at) {
            return None;
        }
        self.state_at_rest()
    }

    /// The statuses changed without a reconcile: what was read from the table before is out of date.
    pub(crate) fn note_change(&mut self) {
        self.last_end = Some(Instant::now());
    }

    fn state(&mut self) -> &mut TenantState {
        let sync = self.sync.as_ref();
        self.state.get_or_insert_with(|| Box::new(TenantState::from_sync(sync)))
    }
}

#[derive(Default)]
pub(crate) struct WorkQueue {
    tenants: HashMap<OrganisationId, Tenant>,
    due: Due,
}

/// What a job takes along.
pub(crate) struct Started {
    pub(crate) state: Box<TenantState>,
    pub(crate) triggered_at: Option<Instant>,
    pub(crate) requests: Vec<Uuid>,
}

impl WorkQueue {
    pub(crate) fn get(&mut self, organisation: &OrganisationId) -> &mut Tenant {
        self.parts(organisation).1
    }

    fn parts(&mut self, organisation: &OrganisationId) -> (&mut Due, &mut Tenant) {
        // `entry` would clone the name although it is nearly always there.
        if !self.tenants.contains_key(organisation) {
            self.tenants.insert(organisation.clone(), Tenant::default());
        }
        (&mut self.due, self.tenants.entry(organisation.clone()).or_default())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&OrganisationId, &Tenant)> {
        self.tenants.iter()
    }

    /// Whether an organisation of this name exists or existed.
    pub(crate) fn is_known(&self, organisation: &OrganisationId) -> bool {
        self.tenants.get(organisation).is_some_and(|tenant| {
            tenant.state.is_some() || tenant.sync.is_some() || tenant.is_running()
        })
    }

    pub(crate) fn forget(&mut self, organisation: &OrganisationId) {
        self.tenants.remove(organisation);
    }

    pub(crate) fn running(&self) -> usize {
        self.due.running()
    }

    /// A trigger: the tenant is reconciled soon, or once more if it is being reconciled, because the
    /// rows may have been read before the change.
    pub(crate) fn enqueue(&mut self, organisation: &OrganisationId, triggered_at: Instant) {
        let (due, tenant) = self.parts(organisation);
        due.trigger(organisation, &mut tenant.entry, triggered_at);
    }

    /// A rule moved to another organisation and took its status along. Two organisations that both have
    /// a rule of one ID would take its status from each other for ever, so this triggers a reconcile only
    /// once in a while.
    pub(crate) fn on_rule_moved(&mut self, organisation: &OrganisationId) {
        const PAUSE: Duration = Duration::from_secs(60);
        let now = Instant::now();
        let tenant = self.get(organisation);
        tenant.forget_statuses();
        if tenant.last_moved_away.is_none_or(|at| now.duration_since(at) >= PAUSE) {
            tenant.last_moved_away = Some(now);
            self.enqueue(organisation, now);
        }
    }

    pub(crate) fn wait_until(&mut self, organisation: &OrganisationId, at: Instant) {
        let (due, tenant) = self.parts(organisation);
        due.wait_until(organisation, &mut tenant.entry, at);
    }

    /// When the next tenant is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.next_time()
    }

    /// Queues the tenants that are due.
    pub(crate) fn fire_due(&mut self, now: Instant) {
        while let Some((at, organisation)) = self.due.pop_timer(now) {
            let (due, tenant) = self.parts(&organisation);
            due.resume(organisation, &mut tenant.entry, at);
        }
    }

    /// The next tenant to reconcile.
    pub(crate) fn next(&mut self) -> Option<OrganisationId> {
        while let Some(organisation) = self.due.pop() {
            // A full resync may have reconciled it in the meantime.
            if self.get(&organisation).entry.is_queued() {
                return Some(organisation);
            }
        }
        None
    }

    /// Marks a tenant as running, unless it is already.
    pub(crate) fn start(&mut self, organisation: &OrganisationId) -> Option<Started> {
        let (due, tenant) = self.parts(organisation);
        let triggered_at = due.start(&mut tenant.entry).ok()?;
        tenant.must_rest = false;
        tenant.last_start = Some(Instant::now());
        tenant.state();
        let started = Started {
            state: tenant.state.take().unwrap_or_default(),
            triggered_at,
            requests: std::mem::take(&mut tenant.requests),
        };
        Some(started)
    }

    /// Takes the state back; returns whether a trigger came meanwhile.
    pub(crate) fn finish(
        &mut self,
        organisation: &OrganisationId,
        state: Box<TenantState>,
        took: Duration,
    ) -> bool {
        let (due, tenant) = self.parts(organisation);
        tenant.state = Some(state);
        if std::mem::take(&mut tenant.forgets_statuses) {
            tenant.forget_statuses();
        }
        tenant.last_end = Some(Instant::now());
        due.finish(&mut tenant.entry, took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::status::statuses::RuleStatus;

    fn acme() -> OrganisationId {
        OrganisationId::parse("acme").unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn triggers_during_a_reconcile_lead_to_one_more() {
        let mut queue = WorkQueue::default();
        for _ in 0..3 {
            queue.enqueue(&acme(), Instant::now());
        }
        assert_eq!(queue.next(), Some(acme()));
        assert_eq!(queue.next(), None);
        let started = queue.start(&acme()).unwrap();
        assert!(queue.start(&acme()).is_none(), "one reconcile at a time");
        queue.enqueue(&acme(), Instant::now());
        queue.enqueue(&acme(), Instant::now());
        assert!(queue.finish(&acme(), started.state, Duration::ZERO));
        assert_eq!(queue.running(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn changes_in_quick_succession_are_reconciled_together() {
        let mut queue = WorkQueue::default();
        queue.enqueue(&acme(), Instant::now());
        let organisation = queue.next().unwrap();
        let started = queue.start(&organisation).unwrap();
        assert!(!queue.finish(&acme(), started.state, Duration::ZERO));
        queue.enqueue(&acme(), Instant::now());
        assert_eq!(queue.next(), None, "it rests first");
        let due = queue.next_due().unwrap();
        queue.fire_due(due);
        assert_eq!(queue.next(), Some(acme()));
    }

    // Rows that a full resync read do not overrule a newer trigger or reconcile.
    #[tokio::test(start_paused = true)]
    async fn rows_of_a_full_resync_are_not_used_after_a_trigger() {
        let mut queue = WorkQueue::default();
        let read_at = Instant::now();
        assert!(queue.get(&acme()).is_as_of(read_at));
        tokio::time::advance(Duration::from_secs(1)).await;
        queue.enqueue(&acme(), Instant::now());
        assert!(!queue.get(&acme()).is_as_of(read_at), "triggered");
        let organisation = queue.next().unwrap();
        let started = queue.start(&organisation).unwrap();
        assert!(!queue.get(&acme()).is_as_of(read_at), "running");
        queue.finish(&acme(), started.state, Duration::ZERO);
        assert!(!queue.get(&acme()).is_as_of(read_at), "reconciled since");
        assert!(queue.get(&acme()).is_as_of(Instant::now() + Duration::from_secs(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_rests_in_proportion_to_its_reconcile() {
        let mut queue = WorkQueue::default();
        queue.enqueue(&acme(), Instant::now());
        queue.next();
        let started = queue.start(&acme()).unwrap();
        queue.finish(&acme(), started.state, Duration::from_secs(2));
        queue.enqueue(&acme(), Instant::now());
        assert_eq!(queue.next(), None);
        assert_eq!(queue.next_due(), Some(Instant::now() + Duration::from_secs(6)));
    }

    // An evaluation that was read before a reconcile ended says nothing about what it wrote.
    #[tokio::test(start_paused = true)]
    async fn a_reading_that_is_older_than_a_reconcile_does_not_count() {
        let mut queue = WorkQueue::default();
        let read_at = Instant::now();
        assert!(queue.get(&acme()).state_as_of(read_at).is_none(), "nothing is known");
        let started = queue.start(&acme()).unwrap();
        assert!(queue.get(&acme()).state_at_rest().is_none(), "running");
        tokio::time::advance(Duration::from_secs(1)).await;
        queue.finish(&acme(), started.state, Duration::ZERO);
        assert!(queue.get(&acme()).state_as_of(read_at).is_none(), "reconciled since");
        let read_at = Instant::now() + Duration::from_secs(1);
        assert!(queue.get(&acme()).state_as_of(read_at).is_some());
        // Statuses that were read from the table before a change are out of date, too.
        tokio::time::advance(Duration::from_secs(2)).await;
        queue.get(&acme()).note_change();
        let forged =
            RuleStatuses::from([(Uuid::nil(), RuleStatus::in_mimir(None, "a".to_owned()))]);
        queue.get(&acme()).learn_statuses(forged, RowVersions::default(), read_at);
        let state = queue.get(&acme()).state_at_rest().map(|state| state.statuses.is_none());
        assert_eq!(state, Some(true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_superseded_timer_does_nothing() {
        let mut queue = WorkQueue::default();
        let later = Instant::now() + Duration::from_secs(60);
        queue.wait_until(&acme(), later);
        queue.enqueue(&acme(), Instant::now());
        assert_eq!(queue.next(), Some(acme()));
        let started = queue.start(&acme()).unwrap();
        queue.finish(&acme(), started.state, Duration::ZERO);
        queue.fire_due(later);
        assert_eq!(queue.next(), None);
    }
}
