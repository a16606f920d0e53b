//! For how long the machine was suspended, while this process went on.
//!
//! Linux' monotonic clock stands still meanwhile, and so do all timers. The wall clock is set right at the resume, or
//! soon after by the host of a virtual machine (Fly's `suspend` is a snapshot that is restored): when it has moved
//! further than the monotonic one, that is the time away. A wall clock that is set forward looks the same; then what
//! was read is read again, which does no harm. One that is set back says nothing.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::Clock;

/// What is known of suspensions until now.
pub(super) struct Absences {
    pub(super) total: Duration,
    pub(super) count: u64,
}

/// The counts, all in milliseconds.
struct Counts {
    /// By how much the wall clock is ahead of the monotonic one.
    ahead: AtomicI64,
    total: AtomicU64,
    count: AtomicU64,
}

#[expect(
    clippy::disallowed_methods,
    reason = "a paused clock of a test must not look like a suspension"
)]
static BEGAN: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
static COUNTS: Counts = Counts::new();

const MOST_BETWEEN_MILLIS: i64 = 100;
/// Below this, clocks are adjusted.
const LEAST_MILLIS: i64 = 1_000;
/// A machine without a clock of its own begins in 1970.
const MOST_MILLIS: i64 = 100 * 365 * 86_400_000;
const UNKNOWN: i64 = i64::MIN;

/// How often the clocks are compared, by the monotonic one: requests ask several times each, and a clock is not
/// read for nothing.
const PAUSE_MILLIS: i64 = 50;
/// When they are compared next.
static NEXT: AtomicI64 = AtomicI64::new(0);

impl Absences {
    /// What is known now. The clocks were compared a moment ago at most.
    pub(super) fn at(now: Instant) -> Self {
        let now = millis(now.into_std().saturating_duration_since(*BEGAN));
        if cfg!(test) || now >= NEXT.load(Ordering::Relaxed) {
            NEXT.store(now.saturating_add(PAUSE_MILLIS), Ordering::Relaxed);
            Self::compare();
        }
        let known = COUNTS.known();
        #[cfg(test)]
        let known = tests::with_those_of_the_test(known);
        known
    }

    fn compare() {
        let monotonic = millis(BEGAN.elapsed());
        let wall = millis(Clock::system().now());
        // A thread that has to wait for the processor in between reads two times that do not belong together.
        if millis(BEGAN.elapsed()).saturating_sub(monotonic) < MOST_BETWEEN_MILLIS {
            COUNTS.note(wall, monotonic);
        }
    }
}

impl Counts {
    const fn new() -> Self {
        Self { ahead: AtomicI64::new(UNKNOWN), total: AtomicU64::new(0), count: AtomicU64::new(0) }
    }

    fn note(&self, wall: i64, monotonic: i64) {
        let (before, ahead) = (self.ahead.load(Ordering::Acquire), wall.saturating_sub(monotonic));
        let away = ahead.saturating_sub(before);
        if away.saturating_abs() < LEAST_MILLIS {
            return;
        }
        // Of those who see it at the same time one counts it.
        let set = self.ahead.compare_exchange(before, ahead, Ordering::AcqRel, Ordering::Acquire);
        if set.is_ok() && before != UNKNOWN && away > 0 {
            self.total.fetch_add(away.min(MOST_MILLIS).unsigned_abs(), Ordering::AcqRel);
            self.count.fetch_add(1, Ordering::AcqRel);
            tracing::info!(
                away_ms = away,
                "The machine was suspended, or its clock was set forward"
            );
        }
    }

    fn known(&self) -> Absences {
        Absences {
            total: Duration::from_millis(self.total.load(Ordering::Acquire)),
            count: self.count.load(Ordering::Acquire),
        }
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
pub(crate) use tests::suspend;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static SUSPENDED: Cell<(Duration, u64)> = const { Cell::new((Duration::ZERO, 0)) };
    }

    /// As if the machine had been suspended for so long, for the thread of one test.
    pub(crate) fn suspend(time: Duration) {
        SUSPENDED.set((SUSPENDED.get().0 + time, SUSPENDED.get().1 + 1));
    }

    pub(super) fn with_those_of_the_test(known: Absences) -> Absences {
        let (time, count) = SUSPENDED.get();
        Absences { total: known.total + time, count: known.count + count }
    }

    #[test]
    fn what_the_wall_clock_is_further_is_the_time_away() {
        let counts = Counts::new();
        let known = |wall, monotonic| {
            counts.note(wall, monotonic);
            (counts.known().total.as_millis(), counts.known().count)
        };
        const WALL: i64 = 1_800_000_000_000;
        assert_eq!(known(WALL, 5), (0, 0));
        assert_eq!(known(WALL + 60_000, 60_005), (0, 0));
        // Adjusted by less than a second, here and there.
        assert_eq!(known(WALL + 120_900, 120_005), (0, 0));
        assert_eq!(known(WALL + 180_000, 180_005), (0, 0));
        // An hour away, seen once.
        assert_eq!(known(WALL + 3_780_000, 180_005), (3_600_000, 1));
        assert_eq!(known(WALL + 3_790_000, 190_005), (3_600_000, 1));
        // Set back, and right again.
        assert_eq!(known(WALL, 190_005), (3_600_000, 1));
        assert_eq!(known(WALL + 10_000, 200_005), (3_600_000, 1));
        assert_eq!(known(WALL + 15_000, 200_005), (3_605_000, 2));
        assert_eq!(known(i64::MAX, 200_005).1, 3);
    }
}
