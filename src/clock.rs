//! Wall-clock time, injected: what compares a claim with "now" takes a [`Clock`], so that a test
//! can move time instead of waiting for it. Durations are measured with `tokio::time`.
//!
//! How old something is that was read elsewhere is measured by [`boot_instant`], which counts the time for which the
//! machine was suspended.

mod absences;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::{Instant, sleep};

use absences::Absences;
#[cfg(test)]
pub(crate) use absences::suspend;

/// A source of wall-clock time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<AtomicI64>),
}

impl Clock {
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until it is moved through the returned handle (seconds since the
    /// Unix epoch).
    pub fn manual(unix_seconds: i64) -> (Self, Arc<AtomicI64>) {
        let hand = Arc::new(AtomicI64::new(unix_seconds));
        (Self(Source::Manual(Arc::clone(&hand))), hand)
    }

    /// Time since the Unix epoch.
    #[expect(clippy::disallowed_methods, reason = "this is where the clock is read")]
    pub fn now(&self) -> Duration {
        match &self.0 {
            Source::System => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            Source::Manual(hand) => {
                let seconds = u64::try_from(hand.load(Ordering::Relaxed)).unwrap_or_default();
                Duration::from_secs(seconds)
            }
        }
    }

    /// The time, as it is shown and stored.
    pub fn utc(&self) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + self.now()
    }

    /// Whole seconds since the Unix epoch, the unit of a JWT's `exp`, `nbf` and `iat` (RFC 7519).
    pub fn unix_seconds(&self) -> i64 {
        i64::try_from(self.now().as_secs()).unwrap_or(i64::MAX)
    }
}

/// This moment, on a clock that goes on while the machine is suspended: that of [`Instant`] stands still then. Its times
/// are compared with each other only; a timer takes what is left until one of them.
pub fn boot_instant() -> Instant {
    let now = Instant::now();
    now.checked_add(Absences::at(now).total).unwrap_or(now)
}

/// The time since a [`boot_instant`].
pub fn elapsed_since(at: Instant) -> Duration {
    boot_instant().saturating_duration_since(at)
}

/// How often the machine is known to have been suspended.
pub fn absences() -> u64 {
    Absences::at(Instant::now()).count
}

/// Waits as long as that by [`boot_instant`]: after a suspension, for no longer than a moment more.
pub async fn rest(pause: Duration) {
    const STEP: Duration = Duration::from_secs(1);
    let began = boot_instant();
    loop {
        let left = pause.saturating_sub(elapsed_since(began));
        if left.is_zero() {
            return;
        }
        sleep(left.min(STEP)).await;
    }
}

/// A point in time as text (RFC 3339).
pub fn rfc3339(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}

/// Reads a point in time (RFC 3339).
pub fn parse_rfc3339(text: &str) -> Option<OffsetDateTime> {
    // In UTC: at the ends of the calendar an offset leads out of it, on which Postgres' driver panics.
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    time.checked_to_offset(time::UtcOffset::UTC).filter(|time| time.year() >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    // The driver of Postgres panics at a time whose UTC leaves the calendar.
    #[test]
    fn a_time_is_in_utc_and_inside_the_calendar() {
        let time = parse_rfc3339("2026-12-31T23:59:59-01:00").unwrap();
        assert_eq!((time.offset(), time.hour(), time.year()), (time::UtcOffset::UTC, 0, 2027));
        assert_eq!(parse_rfc3339("9999-12-31T23:59:59-00:01"), None);
        assert_eq!(parse_rfc3339("0000-01-01T00:00:00+00:01"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_of_a_suspension_counts_and_ends_a_rest() {
        let (began, absences) = (boot_instant(), absences());
        let resting = tokio::spawn(rest(Duration::from_secs(300)));
        sleep(Duration::from_secs(10)).await;
        assert!(elapsed_since(began) >= Duration::from_secs(10));
        suspend(Duration::from_secs(3600));
        assert!(elapsed_since(began) >= Duration::from_secs(3610));
        assert_eq!(super::absences(), absences + 1);
        let woken = Instant::now();
        resting.await.unwrap();
        assert!(woken.elapsed() <= Duration::from_secs(1));
    }
}
