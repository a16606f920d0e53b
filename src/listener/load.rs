//! How many connections each worker has, and which worker a connection is served by.
//!
//! A connection stays with its worker while it is busy. One that waits for its next request costs
//! next to nothing to move, so it goes to the worker with the fewest busy ones when that request comes:
//! which connections will be busy is not known when they are accepted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::eviction::{Tracked, Tracker};
use crate::telemetry::Metrics;

/// The connections of all workers.
pub(super) struct Loads {
    workers: Vec<Load>,
    tracked: Tracked,
    metrics: Arc<Metrics>,
}

/// The connections of one worker. Each has a cache line of its own: workers read those of all.
#[derive(Default)]
#[repr(align(64))]
struct Load {
    open: AtomicUsize,
    /// Those that are served, or were a moment ago.
    busy: AtomicUsize,
}

impl Loads {
    pub(super) fn new(workers: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        let workers = (0..workers).map(|_| Load::default()).collect();
        Arc::new(Self { workers, tracked: Tracked::default(), metrics })
    }

    /// Counts a new connection, for the worker that has the fewest.
    pub(super) fn open(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Counted {
        let fewest = self.fewest(|load| &load.open);
        self.workers[fewest].open.fetch_add(1, Ordering::Relaxed);
        self.metrics.connections.increment(1.0);
        self.metrics.connections_accepted.increment(1);
        let tracker = self.tracked.add();
        Counted {
            loads: Arc::clone(self),
            worker: fewest,
            is_busy: false,
            tracker,
            _permit: permit,
        }
    }

    /// Ends some of the connections whose clients have been silent for the longest. Returns how many.
    pub(super) fn evict(&self) -> usize {
        self.tracked.evict(Instant::now())
    }

    fn fewest(&self, count: impl Fn(&Load) -> &AtomicUsize) -> usize {
        let counts = self.workers.iter().map(|load| count(load).load(Ordering::Relaxed));
        counts.enumerate().min_by_key(|(_, count)| *count).map_or(0, |(worker, _)| worker)
    }
}

/// A connection, counted for as long as it lives.
pub(super) struct Counted {
    loads: Arc<Loads>,
    worker: usize,
    is_busy: bool,
    tracker: Arc<Tracker>,
    _permit: OwnedSemaphorePermit,
}

impl Counted {
    pub(super) fn worker(&self) -> usize {
        self.worker
    }

    pub(super) fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    pub(super) fn is_busy(&self) -> bool {
        self.is_busy
    }

    pub(super) fn set_busy(&mut self, is_busy: bool) {
        if self.is_busy == is_busy {
            return;
        }
        self.is_busy = is_busy;
        let busy = &self.load().busy;
        if is_busy {
            busy.fetch_add(1, Ordering::Relaxed);
        } else {
            busy.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The worker that had better serve this connection, if its own has clearly more to do.
    pub(super) fn better_worker(&self) -> Option<usize> {
        let own = self.load().busy.load(Ordering::Relaxed) + usize::from(!self.is_busy);
        let fewest = self.loads.fewest(|load| &load.busy);
        let other = self.loads.workers[fewest].busy.load(Ordering::Relaxed);
        is_uneven(own, other).then_some(fewest)
    }

    pub(super) fn move_to(&mut self, worker: usize) {
        let was_busy = self.is_busy;
        self.set_busy(false);
        self.load().open.fetch_sub(1, Ordering::Relaxed);
        self.worker = worker;
        self.load().open.fetch_add(1, Ordering::Relaxed);
        self.set_busy(was_busy);
    }

    fn load(&self) -> &Load {
        &self.loads.workers[self.worker]
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.set_busy(false);
        self.loads.tracked.remove(&self.tracker);
        self.load().open.fetch_sub(1, Ordering::Relaxed);
        self.loads.metrics.connections.decrement(1.0);
    }
}

/// Whether one of `own` busy connections is better off beside `other` ones. With many, a difference of
/// a few is chance, and moving is not free.
fn is_uneven(own: usize, other: usize) -> bool {
    own >= other + 2 + other / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_goes_on_until_the_workers_are_even_and_then_ends() {
        for all in 0_usize..200 {
            let (mut own, mut other) = (all, 0);
            while is_uneven(own, other) {
                (own, other) = (own - 1, other + 1);
                assert!(!is_uneven(other, own), "it comes back: {own} and {other}");
            }
            assert!(own <= other + 1 + other / 4 || own <= 1, "{own} and {other}");
        }
    }
}
