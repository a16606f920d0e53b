//! Times as they come from the database: seconds since the epoch, because Postgres has times that
//! nothing else can hold (`infinity`, the year 200000), and one such row must not break others.

use sqlx::Row as _;
use time::OffsetDateTime;

use super::{Store, StoreError, statement};

impl Store {
    /// The time by Postgres' clock, for what several copies write and compare: theirs differ.
    pub async fn now(&self) -> Result<OffsetDateTime, StoreError> {
        let sql = "select extract(epoch from now())::float8 as now".to_owned();
        self.fetch(statement(sql), |rows| {
            let now = rows.first().map(|row| row.try_get("now")).transpose()?;
            shown(now).ok_or_else(|| StoreError::Unavailable("it has no time".to_owned()))
        })
        .await
    }
}

/// How a time is selected: as seconds, or infinite.
pub(super) fn select(column: &str) -> String {
    format!("extract(epoch from {column}::timestamptz)::float8 as {column}")
}

/// The end of the year 9999, the last that RFC 3339 can write. What is later never comes.
const NEVER: f64 = 253_402_300_800.0;
/// The beginning of the year 1.
const LONG_AGO: f64 = -62_135_596_800.0;

/// Whole seconds since the epoch, rounded up, for what ends then; none for a time that never comes.
pub(super) fn seconds(read: Option<f64>) -> Option<i64> {
    whole(read, f64::ceil)
}

/// The same, rounded down: the second that a moment is in.
pub(super) fn second_of(read: Option<f64>) -> Option<i64> {
    whole(read, f64::floor)
}

fn whole(read: Option<f64>, round: fn(f64) -> f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "within the years 1 to 9999")]
    read.filter(|seconds| *seconds < NEVER).map(|seconds| round(seconds.max(LONG_AGO)) as i64)
}

/// A time to be shown; none for one that never comes.
pub(super) fn shown(read: Option<f64>) -> Option<OffsetDateTime> {
    let read = read.filter(|seconds| *seconds < NEVER)?;
    let nanoseconds = read.max(LONG_AGO) * 1e9;
    #[expect(clippy::cast_possible_truncation, reason = "within the years 1 to 9999")]
    OffsetDateTime::from_unix_timestamp_nanos(nanoseconds as i128).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_never_comes_is_none_and_one_long_ago_is_the_past() {
        for never in [f64::INFINITY, 1e18, NEVER] {
            assert_eq!((seconds(Some(never)), shown(Some(never))), (None, None));
        }
        assert_eq!(seconds(None), None);
        for past in [f64::NEG_INFINITY, -1e18] {
            assert!(seconds(Some(past)).is_some_and(|seconds| seconds < 0));
            assert!(shown(Some(past)).is_some_and(|time| time.year() == 1));
        }
    }

    #[test]
    fn the_second_of_a_moment_is_rounded_down() {
        for (moment, second) in [(1000.0, 1000), (1000.001, 1000), (1000.999, 1000), (-0.5, -1)] {
            assert_eq!(second_of(Some(moment)), Some(second), "{moment}");
        }
        assert_eq!((second_of(None), second_of(Some(f64::INFINITY))), (None, None));
        assert!(second_of(Some(f64::NEG_INFINITY)).is_some_and(|second| second < 0));
    }

    // A key never ends before its time.
    #[test]
    fn seconds_are_rounded_up() {
        assert_eq!(seconds(Some(1000.0)), Some(1000));
        assert_eq!(seconds(Some(1000.001)), Some(1001));
        assert_eq!(shown(Some(1000.5)).map(OffsetDateTime::millisecond), Some(500));
    }
}
