//! Which organisations are due, in which order, and what the leader remembers of each.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::channels::reconcile::Memory;
use crate::channels::spec::State;
use crate::due::{Due, Entry};
use crate::tenancy::OrganisationId;

#[derive(Default)]
pub(super) struct Tenant {
    /// While the organisation is being reconciled, its job has the memory.
    memory: Option<Box<Memory>>,
    pub(super) entry: Entry,
    /// The full resync waits for it.
    is_later: bool,
    pub(super) is_failing: bool,
    pub(super) is_held: bool,
    /// Channels in each state.
    pub(super) states: [usize; State::ALL.len()],
}

/// What a job takes along.
pub(super) struct Started {
    pub(super) memory: Box<Memory>,
    pub(super) triggered_at: Option<Instant>,
}

#[derive(Default)]
pub(super) struct WorkQueue {
    tenants: HashMap<OrganisationId, Tenant>,
    due: Due,
    /// Those of the full resync, which come after those that are due.
    later: VecDeque<OrganisationId>,
    turns: usize,
}

/// Every so many turns the full resync comes first, or triggers could stop it for ever.
const RESYNC_TURN: usize = 4;

impl WorkQueue {
    pub(super) fn get(&mut self, organisation: &OrganisationId) -> &mut Tenant {
        self.parts(organisation).1
    }

    fn parts(&mut self, organisation: &OrganisationId) -> (&mut Due, &mut Tenant) {
        // `entry` would clone the name although it is nearly always there.
        if !self.tenants.contains_key(organisation) {
            self.tenants.insert(organisation.clone(), Tenant::default());
        }
        (&mut self.due, self.tenants.entry(organisation.clone()).or_default())
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
        self.due.running()
    }

    /// A trigger: the organisation is reconciled soon, or once more if it is being reconciled, because
    /// the rows may have been read before the change.
    pub(super) fn enqueue(&mut self, organisation: &OrganisationId, triggered_at: Instant) {
        let (due, tenant) = self.parts(organisation);
        due.trigger(organisation, &mut tenant.entry, triggered_at);
    }

    /// The full resync wants it. One that is queued, waits or runs is reconciled anyway.
    pub(super) fn enqueue_later(&mut self, organisation: &OrganisationId) {
        let tenant = self.get(organisation);
        if tenant.entry.is_idle() && !tenant.is_later {
            tenant.is_later = true;
            self.later.push_back(organisation.clone());
        }
    }

    pub(super) fn wait_until(&mut self, organisation: &OrganisationId, at: Instant) {
        let (due, tenant) = self.parts(organisation);
        due.wait_until(organisation, &mut tenant.entry, at);
    }

    /// When the next organisation is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.next_time()
    }

    /// Queues the organisations that are due.
    pub(super) fn fire_due(&mut self, now: Instant) {
        while let Some((at, organisation)) = self.due.pop_timer(now) {
            if let Some(tenant) = self.tenants.get_mut(&organisation) {
                self.due.resume(organisation, &mut tenant.entry, at);
            }
        }
    }

    /// The next organisation to reconcile.
    pub(super) fn next(&mut self) -> Option<OrganisationId> {
        self.turns = self.turns.wrapping_add(1);
        if self.turns.is_multiple_of(RESYNC_TURN) {
            self.pop_later().or_else(|| self.pop_due())
        } else {
            self.pop_due().or_else(|| self.pop_later())
        }
    }

    fn pop_due(&mut self) -> Option<OrganisationId> {
        loop {
            let organisation = self.due.pop()?;
            if self.tenants.get(&organisation).is_some_and(|tenant| tenant.entry.is_queued()) {
                return Some(organisation);
            }
        }
    }

    fn pop_later(&mut self) -> Option<OrganisationId> {
        loop {
            let organisation = self.later.pop_front()?;
            let Some(tenant) = self.tenants.get_mut(&organisation) else { continue };
            // It may have been reconciled, or queued by a trigger, in the meantime.
            if std::mem::take(&mut tenant.is_later) && tenant.entry.is_idle() {
                return Some(organisation);
            }
        }
    }

    /// Marks an organisation as running, unless it is already.
    pub(super) fn start(&mut self, organisation: &OrganisationId) -> Option<Started> {
        let (due, tenant) = self.parts(organisation);
        let triggered_at = due.start(&mut tenant.entry).ok()?;
        tenant.is_later = false;
        Some(Started { memory: tenant.memory.take().unwrap_or_default(), triggered_at })
    }

    /// Takes the memory back; returns whether a trigger came meanwhile.
    pub(super) fn finish(
        &mut self,
        organisation: &OrganisationId,
        memory: Box<Memory>,
        took: Duration,
    ) -> bool {
        let (due, tenant) = self.parts(organisation);
        tenant.memory = Some(memory);
        due.finish(&mut tenant.entry, took)
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
