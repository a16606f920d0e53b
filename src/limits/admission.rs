//! Sheds requests before the memory of the process runs out: lists first, then reads, then writes.
//!
//! A timer reads how much is taken and sets a level, which each request compares with its priority. The level
//! falls only when there is some room again, so that it does not flutter.
//!
//! What was let in takes its memory later, when its body comes. So a new request is let in if there is room
//! for it beside what is expected of those, at any moment between two readings as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http_body::SizeHint;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::memory::Memory;
use crate::config::MemoryLimit;
use crate::request_body::{Expected, ExpectedBody};
use crate::route::Priority;
use crate::telemetry::Metrics;

pub(super) struct Admission {
    memory: Option<Memory>,
    /// What is taken, at the last reading.
    used: AtomicU64,
    /// What is still to come of what was let in.
    expected: Arc<Expected>,
    /// How many priorities are not let in, from the last on: by what is taken and what is expected.
    level: AtomicU8,
    /// The same of what was let in and asks for a permit: by what is taken.
    inner_level: AtomicU8,
    metrics: Arc<Metrics>,
}

/// How often memory is read.
const INTERVAL: Duration = Duration::from_millis(50);

/// From these parts of the limit on, in percent, lists, reads and writes are shed. What has been admitted may
/// still grow: the room before writes is for that.
const SHED_FROM: [u64; 3] = [70, 80, 95];
/// Room that there must be below before that ends, in percent of the limit.
const ROOM: u64 = 5;

/// With so few requests in flight it is not requests that take the memory, and to refuse all would help
/// nobody.
const FEW: usize = 8;

/// A change of the level gets a line in the log this often.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

fn percent(part: u64, limit: u64) -> u64 {
    u64::try_from(u128::from(limit) * u128::from(part) / 100).unwrap_or(limit)
}

/// The level at a reading, from the level before.
fn level(before: u8, used: u64, limit: u64) -> u8 {
    let mut level = 0;
    for (at, from) in (1..).zip(SHED_FROM) {
        let from = percent(if before >= at { from - ROOM } else { from }, limit);
        if used >= from {
            level = at;
        }
    }
    level
}

impl Admission {
    pub(super) fn new(config: MemoryLimit, metrics: Arc<Metrics>) -> Self {
        let memory = Memory::find(config);
        match &memory {
            Some(memory) => metrics.memory_limit.set(number(memory.limit)),
            None if config == MemoryLimit::Automatic => tracing::warn!(
                "Neither a cgroup nor /proc/meminfo tells how much memory there is; set limits.memory_bytes, or no request is shed for memory"
            ),
            None => {}
        }
        Self {
            memory,
            used: AtomicU64::new(0),
            expected: Arc::default(),
            level: AtomicU8::new(0),
            inner_level: AtomicU8::new(0),
            metrics,
        }
    }

    /// Whether a request of whom nothing is known yet is shed.
    pub(super) fn sheds(&self, priority: Priority, in_flight: impl FnOnce() -> usize) -> bool {
        is_shed(self.level(), priority) && in_flight() >= FEW
    }

    /// Whether a request that may be served is shed, and else what is expected of its body. `own` is what is
    /// expected of its organisation, and the most that may be.
    pub(super) fn enter(
        &self,
        priority: Priority,
        body: &SizeHint,
        own: impl FnOnce() -> (Arc<Expected>, usize),
        in_flight: impl FnOnce() -> usize,
    ) -> (bool, Option<ExpectedBody>) {
        let Some(memory) = &self.memory else { return (false, None) };
        // Before the comparison, so that no two requests take the same room.
        let expected = (body.exact() != Some(0)).then(|| {
            let (own, most) = own();
            self.expected.begin(&own, most, body.exact())
        });
        let from = SHED_FROM[Priority::ALL.len() - 1 - priority as usize];
        let is_short =
            is_shed(self.level(), priority) || self.taken() >= percent(from, memory.limit);
        (is_short && in_flight() >= FEW, expected)
    }

    /// Whether a request that was let in may go on.
    pub(super) fn keeps(&self, priority: Priority, in_flight: impl FnOnce() -> usize) -> bool {
        !is_shed(self.inner_level.load(Relaxed), priority) || in_flight() < FEW
    }

    /// What is taken and what is expected.
    fn taken(&self) -> u64 {
        let expected = u64::try_from(self.expected.bytes()).unwrap_or(u64::MAX);
        self.used.load(Relaxed).saturating_add(expected)
    }

    /// What is not let in, at the last reading.
    pub(super) fn level(&self) -> u8 {
        self.level.load(Relaxed)
    }

    pub(super) fn memory_limit(&self) -> Option<u64> {
        self.memory.as_ref().map(|memory| memory.limit)
    }

    pub(super) fn memory_used(&self) -> Option<u64> {
        self.memory.as_ref().and_then(Memory::used)
    }

    /// Reads the memory again and again.
    pub(super) async fn run(&self, cancelled: CancellationToken) {
        let Some(memory) = &self.memory else { return };
        tracing::info!(limit_bytes = memory.limit, source = memory.source(), "Memory limit");
        let mut tick = interval(INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut line: Option<Instant> = None;
        let mut logged = 0;
        while cancelled.run_until_cancelled(tick.tick()).await.is_some() {
            // What cannot be read says nothing; the last level holds.
            let Some(used) = memory.used() else { continue };
            self.used.store(used, Relaxed);
            let inner = level(self.inner_level.load(Relaxed), used, memory.limit);
            self.inner_level.store(inner, Relaxed);
            let taken = self.taken();
            let now = level(self.level(), taken, memory.limit);
            self.level.store(now, Relaxed);
            self.metrics.memory_counted.set(number(used));
            self.metrics.shedding.set(f64::from(now));
            let is_due = line.is_none_or(|line| line.elapsed() >= LINE_INTERVAL);
            if now == logged || !is_due {
                continue;
            }
            (line, logged) = (Some(Instant::now()), now);
            let (used_bytes, expected_bytes, limit_bytes) = (used, taken - used, memory.limit);
            if now == 0 {
                tracing::info!(
                    used_bytes,
                    expected_bytes,
                    limit_bytes,
                    "No requests are shed any more"
                );
            } else {
                tracing::warn!(
                    used_bytes,
                    expected_bytes,
                    limit_bytes,
                    shed = SHED_NAMES[usize::from(now - 1)],
                    "Memory is short, requests are shed"
                );
            }
        }
    }
}

/// What is shed at each level, for people.
const SHED_NAMES: [&str; 3] = ["lists", "lists and reads", "lists, reads and writes"];

/// Priorities are shed from the last on.
fn is_shed(level: u8, priority: Priority) -> bool {
    usize::from(level) + priority as usize >= Priority::ALL.len()
}

#[expect(clippy::cast_precision_loss, reason = "a metric")]
fn number(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_are_shed_first_and_writes_last() {
        let shed = |level| Priority::ALL.iter().map(|one| is_shed(level, *one)).collect::<Vec<_>>();
        assert_eq!(shed(0), [false, false, false]);
        assert_eq!(shed(1), [false, false, true]);
        assert_eq!(shed(2), [false, true, true]);
        assert_eq!(shed(3), [true, true, true]);
    }

    #[test]
    fn a_level_ends_only_when_there_is_room() {
        let mut now = 0;
        let mut levels = Vec::new();
        for used in [69, 70, 66, 64, 80, 96, 91, 89, 77, 74, 65, 0] {
            now = level(now, used, 100);
            levels.push(now);
        }
        assert_eq!(levels, [0, 1, 1, 0, 2, 3, 3, 2, 2, 1, 1, 0]);
    }

    fn admission(limit: u64) -> Admission {
        Admission::new(MemoryLimit::Bytes(limit), Arc::new(Metrics::register()))
    }

    fn unbounded() -> (Arc<Expected>, usize) {
        (Arc::default(), usize::MAX)
    }

    // One that opens thousands of connections and announces a body on each.
    #[test]
    fn an_organisation_that_announces_much_has_no_others_shed() {
        let (admission, body) = (admission(1_000_000), SizeHint::with_exact(100_000));
        let own: Arc<Expected> = Arc::default();
        let enter =
            |priority| admission.enter(priority, &body, || (Arc::clone(&own), 300_000), || FEW);
        let announced: Vec<_> = (0..1000).map(|_| enter(Priority::Write)).collect();
        assert!(announced.iter().all(|(is_shed, _)| !is_shed));
        assert_eq!(admission.taken(), 300_000);
        let (is_shed, _) =
            admission.enter(Priority::List, &SizeHint::with_exact(0), unbounded, || FEW);
        assert!(!is_shed);
    }

    #[test]
    fn a_few_are_admitted_whatever_the_memory() {
        let (admission, body) = (admission(100), SizeHint::with_exact(0));
        let is_shed =
            |priority, in_flight| admission.enter(priority, &body, unbounded, || in_flight).0;
        let keeps = |priority, in_flight| admission.keeps(priority, || in_flight);
        for level in [&admission.level, &admission.inner_level] {
            level.store(3, Relaxed);
        }
        assert!(!is_shed(Priority::List, FEW - 1) && keeps(Priority::List, FEW - 1));
        assert!(is_shed(Priority::Write, FEW) && !keeps(Priority::Write, FEW));
        assert!(!admission.sheds(Priority::List, || FEW - 1));
        assert!(admission.sheds(Priority::Write, || FEW));
        for level in [&admission.level, &admission.inner_level] {
            level.store(2, Relaxed);
        }
        assert!(!is_shed(Priority::Write, FEW) && keeps(Priority::Write, FEW));
        assert!(is_shed(Priority::Read, FEW) && !keeps(Priority::Read, FEW));
    }

    // A burst between two readings, whose bodies have not come: reads leave the last fifth to writes.
    #[test]
    fn no_more_is_let_in_than_there_is_room_for_when_it_has_come() {
        let (admission, body) = (admission(100_000), SizeHint::with_exact(1000));
        admission.used.store(40_000, Relaxed);
        let burst = |priority| {
            let enter = || admission.enter(priority, &body, unbounded, || FEW);
            std::iter::from_fn(|| Some(enter()).filter(|(is_shed, _)| !is_shed)).collect::<Vec<_>>()
        };
        let lists = burst(Priority::List);
        let reads = burst(Priority::Read);
        let writes = burst(Priority::Write);
        assert_eq!([lists.len(), reads.len(), writes.len()], [29, 10, 15]);
        // What was let in goes on: it was counted.
        assert!(admission.keeps(Priority::List, || FEW));
        drop((lists, reads, writes));
        assert_eq!(burst(Priority::List).len(), 29);
        let unknown = admission.enter(Priority::Write, &SizeHint::default(), unbounded, || FEW);
        assert!(unknown.0, "a body of unknown length may be long");
    }

    proptest! {
        #[test]
        fn more_memory_never_sheds_less(before in 0_u8..4, used: u64, more: u64, limit in 1_u64..) {
            let (less, more) = (used.min(more), used.max(more));
            prop_assert!(level(before, less, limit) <= level(before, more, limit));
            prop_assert_eq!(level(before, limit, limit), 3);
            prop_assert_eq!(level(before, 0, limit.max(100)), 0);
        }
    }
}
