//! Wall-clock time, injected: what compares a claim with "now" takes a [`Clock`], so that a test
//! can move time instead of waiting for it. Durations are measured with `tokio::time`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

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
    pub fn now(&self) -> std::time::Duration {
        match &self.0 {
            Source::System => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            Source::Manual(hand) => {
                let seconds = u64::try_from(hand.load(Ordering::Relaxed)).unwrap_or_default();
                std::time::Duration::from_secs(seconds)
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
}
