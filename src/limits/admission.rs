//! Sheds requests before the memory of the process runs out: lists first, then reads, then writes.
//!
//! A timer reads how much is taken and sets a level, which each request compares with its priority: one
//! atomic. The level falls only when there is some room again, so that it does not flutter.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::memory::Memory;
use crate::config::MemoryLimit;
use crate::route::Priority;
use crate::telemetry::Metrics;

pub(super) struct Admission {
    memory: Option<Memory>,
    /// How many priorities are shed, from the last on.
    level: AtomicU8,
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

/// The level at a reading, from the level before.
fn level(before: u8, used: u64, limit: u64) -> u8 {
    let percent =
        |part: u64| u64::try_from(u128::from(limit) * u128::from(part) / 100).unwrap_or(limit);
    let mut level = 0;
    for (at, from) in (1..).zip(SHED_FROM) {
        let from = if before >= at { percent(from - ROOM) } else { percent(from) };
        if used >= from {
            level = at;
        }
    }
    level
}

impl Admission {
    pub(super) fn new(config: MemoryLimit, metrics: Arc<Metrics>) -> Self {
        let memory = Memory::find(config);
        if let Some(memory) = &memory {
            metrics.memory_limit.set(number(memory.limit));
        }
        Self { memory, level: AtomicU8::new(0), metrics }
    }

    /// Whether a request may go on.
    pub(super) fn admits(&self, priority: Priority, in_flight: impl FnOnce() -> usize) -> bool {
        let level = self.level.load(Relaxed);
        level == 0 || !is_shed(level, priority) || in_flight() < FEW
    }

    /// What is taken of what there is, at the last reading.
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
            let now = level(self.level(), used, memory.limit);
            self.level.store(now, Relaxed);
            self.metrics.memory_counted.set(number(used));
            self.metrics.shedding.set(f64::from(now));
            let is_due = line.is_none_or(|line| line.elapsed() >= LINE_INTERVAL);
            if now == logged || !is_due {
                continue;
            }
            (line, logged) = (Some(Instant::now()), now);
            let (used_bytes, limit_bytes) = (used, memory.limit);
            if now == 0 {
                tracing::info!(used_bytes, limit_bytes, "No requests are shed any more");
            } else {
                tracing::warn!(
                    used_bytes,
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

    #[test]
    fn a_few_are_admitted_whatever_the_memory() {
        let admission = Admission {
            memory: None,
            level: AtomicU8::new(3),
            metrics: Arc::new(Metrics::register()),
        };
        assert!(admission.admits(Priority::List, || FEW - 1));
        assert!(!admission.admits(Priority::Write, || FEW));
        admission.level.store(2, Relaxed);
        assert!(admission.admits(Priority::Write, || 1_000_000));
        assert!(!admission.admits(Priority::Read, || 1_000_000));
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
