//! Durations as Prometheus writes them: `90s`, `1h30m`, `1d`, `250ms`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A duration in milliseconds, Prometheus' own resolution. Two spellings of one length are equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PromDuration(u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no duration; write for example 30s, 5m or 1h30m")]
pub struct DurationError;

/// Units from the largest to the smallest, as `model.ParseDuration` of Prometheus knows them. They
/// must stand in this order, each at most once.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// The largest that Go's `time.Duration` holds, in milliseconds.
const LONGEST_MS: u64 = i64::MAX as u64 / 1_000_000;

impl PromDuration {
    pub const ZERO: Self = Self(0);

    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(milliseconds)
    }

    pub const fn as_millis(self) -> u64 {
        self.0
    }

    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Reads a duration whose units may stand in any order, and more than once: the configuration
    /// has always taken `30m1h`.
    pub fn parse_unordered(text: &str) -> Result<Self, DurationError> {
        parse(text, false)
    }
}

impl From<PromDuration> for Duration {
    fn from(duration: PromDuration) -> Self {
        Self::from_millis(duration.0)
    }
}

fn parse(text: &str, is_ordered: bool) -> Result<PromDuration, DurationError> {
    if text.is_empty() {
        return Err(DurationError);
    }
    if text == "0" {
        return Ok(PromDuration::ZERO);
    }
    let mut rest = text;
    let mut allowed = &UNITS[..];
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or(DurationError)?;
        let number: u64 = rest[..digits].parse().map_err(|_| DurationError)?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let at = allowed.iter().position(|(unit, _)| *unit == &rest[..letters]);
        let at = at.ok_or(DurationError)?;
        let part = number.checked_mul(allowed[at].1).ok_or(DurationError)?;
        total = total.checked_add(part).filter(|ms| *ms <= LONGEST_MS).ok_or(DurationError)?;
        if is_ordered {
            allowed = &allowed[at + 1..];
        }
        rest = &rest[letters..];
    }
    Ok(PromDuration(total))
}

impl FromStr for PromDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        parse(text, true)
    }
}

/// As Prometheus prints it: weeks and years only for whole ones.
impl fmt::Display for PromDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (unit, length) in UNITS {
            let only_whole = matches!(unit, "y" | "w");
            if rest >= length && (!only_whole || rest.is_multiple_of(length)) {
                write!(f, "{}{unit}", rest / length)?;
                rest %= length;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(text: &str) -> Option<u64> {
        text.parse().ok().map(PromDuration::as_millis)
    }

    // github.com/prometheus/common/model: ParseDuration, Duration.String.
    #[test]
    fn durations_are_those_of_prometheus() {
        for (text, milliseconds, shown) in [
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("5m", 300_000, "5m"),
            ("300s", 300_000, "5m"),
            ("90s", 90_000, "1m30s"),
            ("1h30m", 5_400_000, "1h30m"),
            ("24h", 86_400_000, "1d"),
            ("7d", 604_800_000, "1w"),
            ("8d", 691_200_000, "8d"),
            ("365d", 31_536_000_000, "1y"),
            ("1500ms", 1_500, "1s500ms"),
        ] {
            let read: PromDuration = text.parse().unwrap();
            assert_eq!(
                (read.as_millis(), read.to_string().as_str()),
                (milliseconds, shown),
                "{text}"
            );
        }
        for wrong in
            ["", "5", "m", "5 m", "-5m", "1m1h", "1m1m", "1.5m", "5min", "00:05:00", "300y"]
        {
            assert_eq!(ms(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        // What the configuration took before it had this grammar: these units, in any order.
        #[test]
        fn units_in_any_order_add_up_where_order_does_not_matter(
            parts in proptest::collection::vec(
                (0..10_000_u64, proptest::sample::select(vec!["ms", "s", "m", "h", "d"])), 1..6,
            ),
        ) {
            let texts: Vec<_> = parts.iter().map(|(number, unit)| format!("{number}{unit}")).collect();
            let text = texts.concat();
            let of = |unit: &str| UNITS.iter().find(|(name, _)| *name == unit).unwrap().1;
            let sum: u64 = parts.iter().map(|(number, unit)| number * of(unit)).sum();
            prop_assert_eq!(PromDuration::parse_unordered(&text), Ok(PromDuration(sum)));
        }

        #[test]
        fn what_prometheus_reads_is_read_in_any_order_too(text in "[0-9ywdhms]{0,12}") {
            if let Ok(read) = text.parse::<PromDuration>() {
                prop_assert_eq!(PromDuration::parse_unordered(&text), Ok(read));
            }
        }

        #[test]
        fn what_is_written_is_read_back(milliseconds in 0..LONGEST_MS) {
            let duration = PromDuration::from_millis(milliseconds);
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,30}") {
            let _ = ms(&text);
        }
    }
}
