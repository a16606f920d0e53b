//! When the evaluation of each tenant is read. Pure but for the jitter.
//!
//! Every tenant with rules in Mimir once in each interval; soon after a rule was written, and then with growing
//! pauses until it was evaluated. All tenants together get a bounded number of requests per second: if that is
//! not enough, the interval stretches. Tenants whose rules wait take turns with the others, so that neither
//! starves.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use crate::tenancy::OrganisationId;

#[derive(Debug)]
pub(crate) struct Timetable {
    interval: Duration,
    /// The time between two requests.
    spacing: Duration,
    tenants: HashMap<OrganisationId, Entry>,
    /// Tenants by the time they are due: those whose rules wait, and the others.
    queues: [Queue; 2],
    /// Which queue comes first when both are due.
    turn: usize,
    /// When the next request may be made.
    free_at: Instant,
    running: usize,
}

type Queue = BinaryHeap<Reverse<(Instant, OrganisationId)>>;

#[derive(Debug)]
struct Entry {
    /// None while it is read.
    due: Option<Instant>,
    /// Pauses so far since a rule was written.
    quick: u32,
    /// A rule was written while it was read.
    again: bool,
}

const WAITING: usize = 0;
const USUAL: usize = 1;

/// The first pause after a write.
const FIRST: Duration = Duration::from_secs(2);
/// The longest of the quick pauses, and their number. A rule with an interval of a minute was evaluated by then.
const LONGEST_QUICK: Duration = Duration::from_secs(15);
const MOST_QUICK: u32 = 12;
/// Readings at once. One that gets no answer takes a whole timeout.
const MOST_RUNNING: usize = 8;

impl Timetable {
    pub(crate) fn new(interval: Duration, requests_per_second: usize, now: Instant) -> Self {
        let rate = u32::try_from(requests_per_second.max(1)).unwrap_or(u32::MAX);
        Self {
            interval,
            spacing: Duration::from_secs(1) / rate,
            tenants: HashMap::new(),
            queues: [Queue::new(), Queue::new()],
            turn: WAITING,
            free_at: now,
            running: 0,
        }
    }

    /// A reconcile has ended: the tenant has rules in Mimir, and some of them wait for their evaluation if
    /// `is_waiting`; `wrote` if something was written just now.
    pub(crate) fn reconciled(
        &mut self,
        organisation: &OrganisationId,
        is_waiting: bool,
        wrote: bool,
        now: Instant,
    ) {
        let is_new = !self.tenants.contains_key(organisation);
        if wrote || (is_new && is_waiting) {
            let entry = self.entry(organisation);
            entry.quick = 0;
            entry.again = entry.due.is_none() && !is_new;
            if !entry.again {
                let at = now + FIRST.min(self.interval);
                self.put(organisation, WAITING, at);
            }
        } else if is_new {
            // Not all tenants of a new leader at once.
            let at = now + self.interval.mul_f64(fastrand::f64());
            self.put(organisation, USUAL, at);
        }
    }

    /// It has no rules in Mimir any more.
    pub(crate) fn forget(&mut self, organisation: &OrganisationId) {
        self.tenants.remove(organisation);
    }

    /// The next tenant to read, if one is due and a request may be made.
    pub(crate) fn next(&mut self, now: Instant) -> Option<OrganisationId> {
        if self.running >= MOST_RUNNING || now < self.free_at {
            return None;
        }
        for queue in [self.turn, 1 - self.turn] {
            if self.head(queue).is_some_and(|at| at <= now)
                && let Some(Reverse((_, organisation))) = self.queues[queue].pop()
            {
                self.turn = 1 - queue;
                self.entry(&organisation).due = None;
                self.running += 1;
                self.charge(1, now);
                return Some(organisation);
            }
        }
        None
    }

    /// So many requests were made.
    pub(crate) fn charge(&mut self, requests: u32, now: Instant) {
        self.free_at = self.free_at.max(now) + self.spacing.saturating_mul(requests);
    }

    /// When [`next`](Self::next) has something to say; none before something else happens.
    pub(crate) fn next_time(&mut self) -> Option<Instant> {
        if self.running >= MOST_RUNNING {
            return None;
        }
        let first = [WAITING, USUAL].into_iter().filter_map(|queue| self.head(queue)).min()?;
        Some(first.max(self.free_at))
    }

    /// A reading has ended. If rules still wait, or it failed, the next one is soon.
    pub(crate) fn finish(&mut self, organisation: &OrganisationId, is_waiting: bool, now: Instant) {
        self.running = self.running.saturating_sub(1);
        let interval = self.interval;
        let Some(entry) = self.tenants.get_mut(organisation) else { return };
        let again = std::mem::take(&mut entry.again);
        if again {
            entry.quick = 0;
        }
        if is_waiting || again {
            let pause = match entry.quick {
                0..MOST_QUICK => FIRST.saturating_mul(1 << entry.quick).min(LONGEST_QUICK),
                _ => interval,
            };
            entry.quick = entry.quick.saturating_add(1);
            self.put(organisation, WAITING, now + pause.min(interval));
        } else {
            entry.quick = 0;
            self.put(organisation, USUAL, now + interval);
        }
    }

    /// The tenant that is to be read has no rules in Mimir: it is not read, now or later.
    pub(crate) fn leave_out(&mut self, organisation: &OrganisationId) {
        self.running = self.running.saturating_sub(1);
        self.forget(organisation);
    }

    fn entry(&mut self, organisation: &OrganisationId) -> &mut Entry {
        let new = || Entry { due: None, quick: 0, again: false };
        self.tenants.entry(organisation.clone()).or_insert_with(new)
    }

    fn put(&mut self, organisation: &OrganisationId, queue: usize, at: Instant) {
        self.entry(organisation).due = Some(at);
        self.queues[queue].push(Reverse((at, organisation.clone())));
    }

    /// When the first of a queue is due. Entries are never removed from the middle: one that was superseded
    /// has another time.
    fn head(&mut self, queue: usize) -> Option<Instant> {
        while let Some(Reverse((at, organisation))) = self.queues[queue].peek() {
            let is_current =
                self.tenants.get(organisation).is_some_and(|entry| entry.due == Some(*at));
            if is_current {
                return Some(*at);
            }
            self.queues[queue].pop();
        }
        None
    }
}

#[cfg(test)]
mod tests;
