//! The work queue of a leader: what is known of each tenant, which ones are being reconciled, and which
//! one is due when. It decides the order; the scheduler does the work.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use strum::EnumCount as _;
use tokio::time::Instant;
use uuid::Uuid;

use crate::labels::RuleState;
use crate::rules::reconcile::tenant_state::TenantState;
use crate::rules::status::statuses::RuleStatuses;
use crate::store::SyncRow;
use crate::tenancy::OrganisationId;

#[derive(Default)]
pub(crate) struct Tenant {
    /// While the tenant is being reconciled, its job has the state.
    state: Option<Box<TenantState>>,
    /// How its sync stands, as it was last handed to the status writer.
    pub(crate) sync: Option<SyncRow>,
    queue_state: QueueState,
    /// When the first trigger came that no reconcile has answered yet.
    triggered_at: Option<Instant>,
    /// Reconciles that failed in a row.
    failures: u32,
    /// Requested syncs that wait for the next reconcile.
    requests: Vec<Uuid>,
    /// The number of rules in each state.
    pub(crate) states: [usize; RuleState::COUNT],
    rests_until: Option<Instant>,
    /// Mimir asked for this rest, so a requested sync does not cut it short.
    must_rest: bool,
    last_start: Option<Instant>,
    /// The end of the last reconcile, or of a later change of the statuses.
    last_end: Option<Instant>,
    /// A rule moved away during a reconcile: its state forgets the statuses afterwards.
    forgets_statuses: bool,
    last_moved_away: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum QueueState {
    #[default]
    Idle,
    /// Due as soon as there is a slot.
    Queued,
    /// Due at this time.
    Waiting(Instant),
    Running {
        /// A trigger came meanwhile.
        again: bool,
    },
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
        matches!(self.queue_state, QueueState::Running { .. })
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.queue_state == QueueState::Idle
    }

    /// `is_requested`: somebody waits for the full resync.
    pub(crate) fn turn(&self, is_requested: bool) -> Turn {
        match self.queue_state {
            QueueState::Idle => Turn::Reconcile,
            QueueState::Running { .. } => Turn::AwaitRunning,
            QueueState::Queued | QueueState::Waiting(_) if is_requested && !self.must_rest => {
                Turn::Reconcile
            }
            QueueState::Queued | QueueState::Waiting(_) => {
                Turn::Skip { is_failing: self.failures > 0 }
            }
        }
    }

    /// Whether rows that were read at this time are the newest that are known of: there was no trigger
    /// and no reconcile since.
    pub(crate) fn is_as_of(&self, read_at: Instant) -> bool {
        self.is_idle()
            && self.triggered_at.is_none()
            && self.last_start.is_none_or(|start| start < read_at)
    }

    /// Takes over the statuses that were read from the table, unless a reconcile may have changed them
    /// since. If they differ from what was written, somebody else changed the table: the tenant is
    /// compared in full.
    pub(crate) fn learn_statuses(&mut self, read: RuleStatuses, read_at: Instant) {
        if self.is_running() || self.last_end.is_some_and(|end| end >= read_at) {
            return;
        }
        let state = self.state();
        if state.statuses.as_ref() != Some(&read) {
            state.statuses = Some(read);
            state.in_sync = None;
        }
    }

    /// The statuses of its rules may be another organisation's by now.
    pub(crate) fn forget_statuses(&mut self) {
        match &mut self.state {
            Some(state) => state.forget_statuses(),
            None => self.forgets_statuses = true,
        }
    }

    pub(crate) fn reset_failures(&mut self) {
        self.failures = 0;
    }

    /// Counts a failure, and returns how many there were in a row before it.
    pub(crate) fn count_failure(&mut self) -> u32 {
        let before = self.failures;
        self.failures = before.saturating_add(1);
        before
    }

    /// Mimir asked to leave the tenant alone until then.
    pub(crate) fn rest_until(&mut self, at: Instant) {
        self.rests_until = Some(at);
        self.must_rest = true;
    }

    pub(crate) fn add_request(&mut self, request: Uuid) {
        self.requests.push(request);
    }

    /// The deletion waits for the next full resync, and so does everything that led to the reconcile.
    pub(crate) fn keep_waiting(&mut self, requests: Vec<Uuid>, triggered_at: Option<Instant>) {
        self.requests.extend(requests);
        self.triggered_at = self.triggered_at.or(triggered_at);
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
    queue: VecDeque<OrganisationId>,
    timers: BinaryHeap<Reverse<(Instant, OrganisationId)>>,
    running: usize,
}

/// After a reconcile a tenant rests for this many times as long as the reconcile took, however fast its
/// rows change. So a tenant with very many rules gets at most its share of the time.
const REST_SHARE: u32 = 3;
const SHORTEST_REST: Duration = Duration::from_millis(10);
const LONGEST_REST: Duration = Duration::from_secs(10);

/// What a job takes along.
pub(crate) struct Started {
    pub(crate) state: Box<TenantState>,
    pub(crate) triggered_at: Option<Instant>,
    pub(crate) requests: Vec<Uuid>,
}

impl WorkQueue {
    pub(crate) fn get(&mut self, organisation: &OrganisationId) -> &mut Tenant {
        // `entry` would clone the name although it is nearly always there.
        if !self.tenants.contains_key(organisation) {
            self.tenants.insert(organisation.clone(), Tenant::default());
        }
        self.tenants.entry(organisation.clone()).or_default()
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
        self.running
    }

    /// A trigger: the tenant is reconciled soon, or once more if it is being reconciled, because the
    /// rows may have been read before the change.
    pub(crate) fn enqueue(&mut self, organisation: &OrganisationId, triggered_at: Instant) {
        let now = Instant::now();
        let tenant = self.get(organisation);
        tenant.triggered_at.get_or_insert(triggered_at);
        match tenant.queue_state {
            QueueState::Queued => {}
            QueueState::Running { .. } => tenant.queue_state = QueueState::Running { again: true },
            // A trigger cuts the wait for a retry short, but not a rest.
            QueueState::Idle | QueueState::Waiting(_) => {
                match tenant.rests_until.filter(|at| *at > now) {
                    Some(at) => self.wait_until(organisation, at),
                    None => self.queue(organisation),
                }
            }
        }
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

    fn queue(&mut self, organisation: &OrganisationId) {
        self.get(organisation).queue_state = QueueState::Queued;
        self.queue.push_back(organisation.clone());
    }

    pub(crate) fn wait_until(&mut self, organisation: &OrganisationId, at: Instant) {
        self.get(organisation).queue_state = QueueState::Waiting(at);
        self.timers.push(Reverse((at, organisation.clone())));
    }

    /// When the next tenant is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// Queues the tenants that are due.
    pub(crate) fn fire_due(&mut self, now: Instant) {
        while let Some(Reverse((at, _))) = self.timers.peek()
            && *at <= now
            && let Some(Reverse((at, organisation))) = self.timers.pop()
        {
            // Timers are never removed from the heap. One that was superseded finds another state.
            if self.get(&organisation).queue_state == QueueState::Waiting(at) {
                self.queue(&organisation);
            }
        }
    }

    /// The next tenant to reconcile.
    pub(crate) fn next(&mut self) -> Option<OrganisationId> {
        while let Some(organisation) = self.queue.pop_front() {
            // A full resync may have reconciled it in the meantime.
            if self.get(&organisation).queue_state == QueueState::Queued {
                return Some(organisation);
            }
        }
        None
    }

    /// Marks a tenant as running, unless it is already.
    pub(crate) fn start(&mut self, organisation: &OrganisationId) -> Option<Started> {
        let tenant = self.get(organisation);
        if tenant.is_running() {
            return None;
        }
        tenant.queue_state = QueueState::Running { again: false };
        tenant.must_rest = false;
        tenant.last_start = Some(Instant::now());
        tenant.state();
        let started = Started {
            state: tenant.state.take().unwrap_or_default(),
            triggered_at: tenant.triggered_at.take(),
            requests: std::mem::take(&mut tenant.requests),
        };
        self.running += 1;
        Some(started)
    }

    /// Takes the state back; returns whether a trigger came meanwhile.
    pub(crate) fn finish(
        &mut self,
        organisation: &OrganisationId,
        state: Box<TenantState>,
        took: Duration,
    ) -> bool {
        self.running = self.running.saturating_sub(1);
        let tenant = self.get(organisation);
        let again = tenant.queue_state == QueueState::Running { again: true };
        tenant.state = Some(state);
        if std::mem::take(&mut tenant.forgets_statuses) {
            tenant.forget_statuses();
        }
        let rest = (took * REST_SHARE).clamp(SHORTEST_REST, LONGEST_REST);
        tenant.last_end = Some(Instant::now());
        tenant.rests_until = Some(Instant::now() + rest);
        tenant.queue_state = QueueState::Idle;
        again
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
        queue.get(&acme()).learn_statuses(forged, read_at);
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
