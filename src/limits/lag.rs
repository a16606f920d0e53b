//! How late a worker is: the time for which what is ready waits for the processor.
//!
//! A timer of the worker's own says it: it fires as late as a request is looked at. A worker that is late for
//! long has more to do than it has processor for, and each request that it takes makes all others later. One
//! late tick says nothing: the machine was suspended, or the process stopped.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::route::Priority;
use crate::telemetry::Metrics;

/// The lag of one worker.
#[derive(Debug, Default)]
pub struct Lag {
    /// How many priorities are shed, from the last on; writes never are.
    level: AtomicU8,
}

const TICK: Duration = Duration::from_millis(100);
/// So many ticks in a row have to be late.
const TICKS: usize = 3;
/// From these on, lists and reads are shed.
const SHED_FROM: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];

/// The lags of the last ticks, and the level that follows.
#[derive(Default)]
struct Ticks([Duration; TICKS]);

impl Ticks {
    fn add(&mut self, late: Duration) -> u8 {
        self.0.rotate_left(1);
        self.0[TICKS - 1] = late;
        let lasting = self.0.iter().min().copied().unwrap_or_default();
        (1..)
            .zip(SHED_FROM)
            .filter(|(_, from)| lasting >= *from)
            .map(|(level, _)| level)
            .max()
            .unwrap_or(0)
    }
}

impl Lag {
    pub(super) fn sheds(&self, priority: Priority) -> bool {
        let level = self.level.load(Relaxed);
        level > 0 && usize::from(level) + priority as usize >= Priority::ALL.len()
    }

    /// Measures it, on the worker that it is about, for ever.
    pub async fn watch(&self, metrics: &Metrics) {
        let (mut ticks, mut logged) = (Ticks::default(), None::<Instant>);
        loop {
            let due = Instant::now() + TICK;
            sleep(TICK).await;
            let late = due.elapsed();
            metrics.worker_lag.record(late.as_secs_f64());
            let level = ticks.add(late);
            self.level.store(level, Relaxed);
            if level > 0 && logged.is_none_or(|at| at.elapsed() >= LINE_INTERVAL) {
                logged = Some(Instant::now());
                let lag_ms = u64::try_from(late.as_millis()).unwrap_or(u64::MAX);
                let shed = if level == 1 { "lists" } else { "lists and reads" };
                tracing::warn!(lag_ms, shed, "Processor is short, requests are shed");
            }
        }
    }
}

/// A line in the log is not repeated sooner.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lasts_counts() {
        let mut ticks = Ticks::default();
        let mut levels = |lags: &[u64]| {
            lags.iter().map(|ms| ticks.add(Duration::from_millis(*ms))).collect::<Vec<_>>()
        };
        // Suspended for a minute, and late now and then.
        assert_eq!(levels(&[0, 60_000, 0, 1900, 1900, 0]), [0; 6]);
        assert_eq!(
            levels(&[1200, 1200, 1200, 3000, 3000, 3000, 1400, 0]),
            [0, 0, 1, 1, 1, 2, 1, 0]
        );
    }

    #[test]
    fn writes_are_never_shed() {
        let lag = Lag::default();
        let shed = |level| {
            lag.level.store(level, Relaxed);
            Priority::ALL.iter().map(|one| lag.sheds(*one)).collect::<Vec<_>>()
        };
        assert_eq!(shed(0), [false, false, false]);
        assert_eq!(shed(1), [false, false, true]);
        assert_eq!(shed(2), [false, true, true]);
    }
}
