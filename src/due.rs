//! Which tenants are due: the part of a work queue that the sync of rules and that of channels share.
//!
//! A tenant is reconciled by one task at a time. A trigger that comes meanwhile leads to one more reconcile,
//! because the rows may have been read before the change. After a reconcile the tenant rests, so that one
//! with very many changes gets at most its share of the time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::tenancy::OrganisationId;

/// The tenants that are due, and the times at which others will be.
#[derive(Default)]
pub(crate) struct Due {
    queue: VecDeque<OrganisationId>,
    timers: BinaryHeap<Reverse<(Instant, OrganisationId)>>,
    running: usize,
}

/// What the queue knows of one tenant.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    phase: Phase,
    /// When the first trigger came that no reconcile has answered yet.
    triggered_at: Option<Instant>,
    /// Reconciles that failed in a row.
    failures: u32,
    rests_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
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

/// A rest takes this many times as long as the reconcile before it.
const REST_SHARE: u32 = 3;
const SHORTEST_REST: Duration = Duration::from_millis(10);
const LONGEST_REST: Duration = Duration::from_secs(10);

impl Entry {
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }

    pub(crate) fn is_queued(&self) -> bool {
        self.phase == Phase::Queued
    }

    pub(crate) fn is_triggered(&self) -> bool {
        self.triggered_at.is_some()
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failures > 0
    }

    /// Counts a failure, and returns how many there were in a row before it.
    pub(crate) fn count_failure(&mut self) -> u32 {
        let before = self.failures;
        self.failures = before.saturating_add(1);
        before
    }

    pub(crate) fn reset_failures(&mut self) {
        self.failures = 0;
    }

    /// Mimir asked to leave the tenant alone until then.
    pub(crate) fn rest_until(&mut self, at: Instant) {
        self.rests_until = Some(at);
    }

    /// A trigger that a reconcile took along and did not answer.
    pub(crate) fn keep_trigger(&mut self, triggered_at: Option<Instant>) {
        self.triggered_at = self.triggered_at.or(triggered_at);
    }
}

impl Due {
    pub(crate) fn running(&self) -> usize {
        self.running
    }

    /// A trigger: the tenant is due, or once more if it is being reconciled.
    pub(crate) fn trigger(
        &mut self,
        organisation: &OrganisationId,
        entry: &mut Entry,
        triggered_at: Instant,
    ) {
        entry.triggered_at.get_or_insert(triggered_at);
        match entry.phase {
            Phase::Queued => {}
            Phase::Running { .. } => entry.phase = Phase::Running { again: true },
            // A trigger cuts the wait for a retry short, but not a rest.
            Phase::Idle | Phase::Waiting(_) => {
                match entry.rests_until.filter(|at| *at > Instant::now()) {
                    Some(at) => self.wait_until(organisation, entry, at),
                    None => self.push(organisation.clone(), entry),
                }
            }
        }
    }

    pub(crate) fn wait_until(
        &mut self,
        organisation: &OrganisationId,
        entry: &mut Entry,
        at: Instant,
    ) {
        entry.phase = Phase::Waiting(at);
        self.timers.push(Reverse((at, organisation.clone())));
    }

    /// When the next tenant is due.
    pub(crate) fn next_time(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// The next timer that has run out. Timers are never removed: whether the tenant still waits for it is
    /// for [`Due::resume`] to find out.
    pub(crate) fn pop_timer(&mut self, now: Instant) -> Option<(Instant, OrganisationId)> {
        self.timers.peek().filter(|Reverse((at, _))| *at <= now)?;
        self.timers.pop().map(|Reverse(timer)| timer)
    }

    /// Makes a tenant due whose timer has run out, unless it was superseded.
    pub(crate) fn resume(&mut self, organisation: OrganisationId, entry: &mut Entry, at: Instant) {
        if entry.phase == Phase::Waiting(at) {
            self.push(organisation, entry);
        }
    }

    fn push(&mut self, organisation: OrganisationId, entry: &mut Entry) {
        entry.phase = Phase::Queued;
        self.queue.push_back(organisation);
    }

    /// The first of the queue. It may have been reconciled in the meantime: see [`Entry::is_queued`].
    pub(crate) fn pop(&mut self) -> Option<OrganisationId> {
        self.queue.pop_front()
    }

    /// Marks a tenant as running, unless it is already; returns the trigger that it answers.
    pub(crate) fn start(&mut self, entry: &mut Entry) -> Result<Option<Instant>, AlreadyRunning> {
        if entry.is_running() {
            return Err(AlreadyRunning);
        }
        entry.phase = Phase::Running { again: false };
        self.running += 1;
        Ok(entry.triggered_at.take())
    }

    /// The end of a reconcile; returns whether a trigger came meanwhile.
    pub(crate) fn finish(&mut self, entry: &mut Entry, took: Duration) -> bool {
        self.running = self.running.saturating_sub(1);
        let again = entry.phase == Phase::Running { again: true };
        let rest = (took * REST_SHARE).clamp(SHORTEST_REST, LONGEST_REST);
        entry.rests_until = Some(Instant::now() + rest);
        entry.phase = Phase::Idle;
        again
    }
}

/// One task at a time reconciles a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AlreadyRunning;
