//! Which organisations are due, in which order, and what the leader remembers of each.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::channels::reconcile::Memory;
use crate::channels::spec::State;
use crate::tenancy::OrganisationId;

#[derive(Default)]
pub(super) struct Tenant {
    /// While the organisation is being reconciled, its job has the memory.
    memory: Option<Box<Memory>>,
    queue_state: QueueState,
    triggered_at: Option<Instant>,
    /// Reconciles that failed in a row.
    failures: u32,
    rests_until: Option<Instant>,
    pub(super) is_failing: bool,
    pub(super) is_held: bool,
    /// Channels in each state.
    pub(super) states: [usize; State::ALL.len()],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum QueueState {
    #[default]
    Idle,
    /// Due as soon as there is a slot, and before those of the full resync.
    Queued,
    /// Due in the full resync.
    Later,
    /// Due at this time.
    Waiting(Instant),
    Running {
        /// A trigger came meanwhile.
        again: bool,
    },
}

/// What a job takes along.
pub(super) struct Started {
    pub(super) memory: Box<Memory>,
    pub(super) triggered_at: Option<Instant>,
}

#[derive(Default)]
pub(super) struct WorkQueue {
    tenants: HashMap<OrganisationId, Tenant>,
    triggered: VecDeque<OrganisationId>,
    later: VecDeque<OrganisationId>,
    timers: BinaryHeap<Reverse<(Instant, OrganisationId)>>,
    running: usize,
    turns: usize,
}

/// After a reconcile an organisation rests for this many times as long as the reconcile took, however
/// fast its rows change. So one with very many changes gets at most its share of the time.
const REST_SHARE: u32 = 3;
const SHORTEST_REST: Duration = Duration::from_millis(20);
const LONGEST_REST: Duration = Duration::from_secs(10);
/// Every so many turns the full resync comes first, or triggers could stop it for ever.
const RESYNC_TURN: usize = 4;

impl Tenant {
    /// Counts a failure, and returns how many there were in a row before it.
    pub(super) fn count_failure(&mut self) -> u32 {
        let before = self.failures;
        self.failures = before.saturating_add(1);
        before
    }

    pub(super) fn reset_failures(&mut self) {
        self.failures = 0;
    }

    /// Mimir asked to leave the organisation alone until then.
    pub(super) fn rest_until(&mut self, at: Instant) {
        self.rests_until = Some(at);
    }
}

impl WorkQueue {
    pub(super) fn get(&mut self, organisation: &OrganisationId) -> &mut Tenant {
        // `entry` would clone the name although it is nearly always there.
        if !self.tenants.contains_key(organisation) {
            self.tenants.insert(organisation.clone(), Tenant::default());
        }
        self.tenants.entry(organisation.clone()).or_default()
    }

    pub(super) fn tenants(&self) -> impl Iterator<Item = &Tenant> {
        self.tenants.values()
    }

    pub(super) fn known(&self) -> Vec<OrganisationId> {
        self.tenants.keys().cloned().collect()
    }

    pub(super) fn forget(&mut self, organisation: &OrganisationId) {
        self.tenants.remove(organisation);
    }

    pub(super) fn running(&self) -> usize {
        self.running
    }

    /// A trigger: the organisation is reconciled soon, or once more if it is being reconciled, because
    /// the rows may have been read before the change.
    pub(super) fn enqueue(&mut self, organisation: &OrganisationId, triggered_at: Instant) {
        let now = Instant::now();
        let tenant = self.get(organisation);
        tenant.triggered_at.get_or_insert(triggered_at);
        match tenant.queue_state {
            QueueState::Queued => {}
            QueueState::Running { .. } => tenant.queue_state = QueueState::Running { again: true },
            // A trigger cuts the wait for a retry short, but not a rest.
            QueueState::Idle | QueueState::Later | QueueState::Waiting(_) => {
                if let Some(at) = tenant.rests_until.filter(|at| *at > now) {
                    self.wait_until(organisation, at);
                } else {
                    tenant.queue_state = QueueState::Queued;
                    self.triggered.push_back(organisation.clone());
                }
            }
        }
    }

    /// The full resync wants it. One that is queued, waits or runs is reconciled anyway.
    pub(super) fn enqueue_later(&mut self, organisation: &OrganisationId) {
        let tenant = self.get(organisation);
        if tenant.queue_state == QueueState::Idle {
            tenant.queue_state = QueueState::Later;
            self.later.push_back(organisation.clone());
        }
    }

    pub(super) fn wait_until(&mut self, organisation: &OrganisationId, at: Instant) {
        self.get(organisation).queue_state = QueueState::Waiting(at);
        self.timers.push(Reverse((at, organisation.clone())));
    }

    /// When the next organisation is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// Queues the organisations that are due.
    pub(super) fn fire_due(&mut self, now: Instant) {
        while let Some(Reverse((at, _))) = self.timers.peek()
            && *at <= now
            && let Some(Reverse((at, organisation))) = self.timers.pop()
        {
            // Timers are never removed from the heap. One that was superseded finds another state.
            let tenant = self.tenants.get_mut(&organisation);
            if let Some(tenant) = tenant
                && tenant.queue_state == QueueState::Waiting(at)
            {
                tenant.queue_state = QueueState::Queued;
                self.triggered.push_back(organisation);
            }
        }
    }

    /// The next organisation to reconcile.
    pub(super) fn next(&mut self) -> Option<OrganisationId> {
        self.turns = self.turns.wrapping_add(1);
        let is_resync_first = self.turns.is_multiple_of(RESYNC_TURN);
        if is_resync_first {
            self.pop(QueueState::Later).or_else(|| self.pop(QueueState::Queued))
        } else {
            self.pop(QueueState::Queued).or_else(|| self.pop(QueueState::Later))
        }
    }

    fn pop(&mut self, state: QueueState) -> Option<OrganisationId> {
        loop {
            let queue =
                if state == QueueState::Later { &mut self.later } else { &mut self.triggered };
            let organisation = queue.pop_front()?;
            // It may have been reconciled, or queued otherwise, in the meantime.
            let tenant = self.tenants.get(&organisation);
            if tenant.is_some_and(|tenant| tenant.queue_state == state) {
                return Some(organisation);
            }
        }
    }

    /// Marks an organisation as running, unless it is already.
    pub(super) fn start(&mut self, organisation: &OrganisationId) -> Option<Started> {
        let tenant = self.get(organisation);
        if matches!(tenant.queue_state, QueueState::Running { .. }) {
            return None;
        }
        tenant.queue_state = QueueState::Running { again: false };
        let started = Started {
            memory: tenant.memory.take().unwrap_or_default(),
            triggered_at: tenant.triggered_at.take(),
        };
        self.running += 1;
        Some(started)
    }

    /// Takes the memory back; returns whether a trigger came meanwhile.
    pub(super) fn finish(
        &mut self,
        organisation: &OrganisationId,
        memory: Box<Memory>,
        took: Duration,
    ) -> bool {
        self.running = self.running.saturating_sub(1);
        let tenant = self.get(organisation);
        let again = tenant.queue_state == QueueState::Running { again: true };
        tenant.memory = Some(memory);
        let rest = (took * REST_SHARE).clamp(SHORTEST_REST, LONGEST_REST);
        tenant.rests_until = Some(Instant::now() + rest);
        tenant.queue_state = QueueState::Idle;
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> OrganisationId {
        OrganisationId::parse(name).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn triggers_during_a_reconcile_lead_to_one_more() {
        let (mut queue, acme) = (WorkQueue::default(), named("acme"));
        for _ in 0..3 {
            queue.enqueue(&acme, Instant::now());
        }
        assert_eq!(queue.next(), Some(acme.clone()));
        assert_eq!(queue.next(), None);
        let started = queue.start(&acme).unwrap();
        assert!(queue.start(&acme).is_none(), "one reconcile at a time");
        queue.enqueue(&acme, Instant::now());
        queue.enqueue(&acme, Instant::now());
        assert!(queue.finish(&acme, started.memory, Duration::ZERO));
        assert_eq!(queue.running(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_organisation_rests_in_proportion_to_its_reconcile() {
        let (mut queue, acme) = (WorkQueue::default(), named("acme"));
        queue.enqueue(&acme, Instant::now());
        queue.next();
        let started = queue.start(&acme).unwrap();
        queue.finish(&acme, started.memory, Duration::from_secs(2));
        queue.enqueue(&acme, Instant::now());
        assert_eq!(queue.next(), None);
        let due = queue.next_due().unwrap();
        assert_eq!(due, Instant::now() + Duration::from_secs(6));
        queue.fire_due(due);
        assert_eq!(queue.next(), Some(acme));
    }

    // A busy organisation's triggers must not keep the others from their full resync.
    #[tokio::test(start_paused = true)]
    async fn a_full_resync_gets_its_turns() {
        let mut queue = WorkQueue::default();
        for number in 0..100 {
            queue.enqueue(&named(&format!("busy-{number}")), Instant::now());
        }
        for number in 0..10 {
            queue.enqueue_later(&named(&format!("quiet-{number}")));
        }
        let first: Vec<OrganisationId> = (0..40).filter_map(|_| queue.next()).collect();
        let quiet = first.iter().filter(|name| name.as_str().starts_with("quiet")).count();
        assert_eq!(quiet, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_trigger_comes_before_the_full_resync_and_is_not_done_twice() {
        let mut queue = WorkQueue::default();
        queue.enqueue_later(&named("a"));
        queue.enqueue_later(&named("b"));
        queue.enqueue(&named("b"), Instant::now());
        assert_eq!(queue.next(), Some(named("b")));
        let started = queue.start(&named("b")).unwrap();
        queue.finish(&named("b"), started.memory, Duration::ZERO);
        assert_eq!(queue.next(), Some(named("a")));
        queue.start(&named("a"));
        assert_eq!(queue.next(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_superseded_timer_does_nothing() {
        let (mut queue, acme) = (WorkQueue::default(), named("acme"));
        let later = Instant::now() + Duration::from_secs(60);
        queue.wait_until(&acme, later);
        queue.enqueue(&acme, Instant::now());
        assert_eq!(queue.next(), Some(acme.clone()));
        let started = queue.start(&acme).unwrap();
        queue.finish(&acme, started.memory, Duration::ZERO);
        queue.fire_due(later);
        assert_eq!(queue.next(), None);
        // And one of an organisation that is forgotten.
        queue.wait_until(&acme, later + Duration::from_secs(1));
        queue.forget(&acme);
        queue.fire_due(later + Duration::from_secs(2));
        assert_eq!(queue.next(), None);
    }
}
