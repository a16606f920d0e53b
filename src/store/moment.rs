//! Times as they come from the database: seconds since the epoch, because Postgres has times that
//! nothing else can hold (`infinity`, the year 200000), and one such row must not break others.

use sqlx::Row as _;
use time::OffsetDateTime;
use time::error::Parse;
use time::format_description::well_known::Rfc3339;

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

/// A time in a text, as Postgres and most others write it: a date, and perhaps a time of day and an
/// offset (ISO 8601). Without an offset it is UTC. Whole seconds as of [`second_of`].
pub(super) fn parse(text: &str) -> Result<Option<i64>, Parse> {
    let text = text.trim();
    match text {
        "infinity" => return Ok(second_of(Some(f64::INFINITY))),
        "-infinity" => return Ok(second_of(Some(f64::NEG_INFINITY))),
        _ => {}
    }
    let date = text.get(..10).unwrap_or(text);
    let rest = text.get(10..).unwrap_or_default().trim_start_matches(['T', ' ']);
    let (clock, offset) = match rest.find(['Z', '+', '-']) {
        Some(at) => rest.split_at(at),
        None => (rest, "Z"),
    };
    let clock = match clock.trim_end() {
        "" => "00:00:00".to_owned(),
        minutes if minutes.len() == "00:00".len() => format!("{minutes}:00"),
        whole => whole.to_owned(),
    };
    // Postgres writes whole hours alone.
    let minutes = if offset.len() == "+00".len() { ":00" } else { "" };
    let read = OffsetDateTime::parse(&format!("{date}T{clock}{offset}{minutes}"), &Rfc3339)?;
    Ok(Some(read.unix_timestamp()))
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

    #[test]
    fn a_time_is_read_as_it_is_usually_written() {
        for (text, wanted) in [
            ("2001-09-09 01:46:40+00", 1_000_000_000),
            ("2001-09-09T01:46:40Z", 1_000_000_000),
            ("2001-09-09T03:46:40.000+02:00", 1_000_000_000),
            (" 2001-09-08 20:16:40-05:30\n", 1_000_000_000),
            ("2001-09-09 01:46:40.5", 1_000_000_000),
            ("2001-09-09 01:46", 999_999_960),
            ("2001-09-09", 999_993_600),
        ] {
            assert_eq!(parse(text).ok(), Some(Some(wanted)), "{text:?}");
        }
        assert_eq!(parse("infinity").ok(), Some(None));
        assert!(parse("-infinity").is_ok_and(|time| time.is_some_and(|time| time < 0)));
        for none in
            ["", "soon", "2001-02-30", "2001-09-09 BC", "20000-01-01", "2001-09-09 01:46:40+é"]
        {
            assert!(parse(none).is_err(), "{none:?}");
        }
    }
}
