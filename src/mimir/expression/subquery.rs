//! The number of points of a subquery, from the contents of its brackets, such as `1h:5m`.

/// The step of `[1h:]`: Mimir's default evaluation interval.
const DEFAULT_STEP: f64 = 60.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Points {
    /// In its own range.
    pub(super) points: u64,
    /// In a day: Mimir evaluates a range query a day at a time.
    pub(super) in_a_day: u64,
}

/// Reads plain durations and numbers of seconds. The size of anything else, such as `step()` and
/// calculated durations, is unknown.
pub(super) fn points(brackets: &[u8]) -> Option<Points> {
    let text = std::str::from_utf8(brackets).ok()?;
    let (range, step) = text.split_once(':')?;
    let range = seconds(range)?;
    let step = if step.is_empty() { DEFAULT_STEP } else { seconds(step)? };
    Some(Points { points: count(range, step), in_a_day: count(86_400.0, step) })
}

/// With a step of 0 there is no end to the points.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast of a float saturates, and of a quotient of positive numbers it loses no sign"
)]
fn count(range: f64, step: f64) -> u64 {
    if step > 0.0 { ((range / step) as u64).saturating_add(1) } else { u64::MAX }
}

/// Signs are ignored: Mimir rejects negative durations, and two signs cancel out.
fn seconds(text: &str) -> Option<f64> {
    let mut rest = text.trim_start_matches(['+', '-']);
    if !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return rest.parse().ok();
    }
    let mut sum = None;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let (unit, after) = [
            ("ms", 0.001),
            ("s", 1.0),
            ("m", 60.0),
            ("h", 3_600.0),
            ("d", 86_400.0),
            ("w", 604_800.0),
            ("y", 31_536_000.0),
        ]
        .into_iter()
        .find_map(|(name, unit)| after.strip_prefix(name).map(|after| (unit, after)))?;
        sum = Some(sum.unwrap_or(0.0) + number.parse::<f64>().ok()? * unit);
        rest = after;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::points;

    #[test]
    fn plain_durations_are_read() {
        for (text, expected) in [
            ("1h:5m", 13),
            ("1h:", 61),
            ("1h30m:1m30s", 61),
            ("1y2w3d4h5m6s7ms:1w", 55),
            ("300:1", 301),
            ("300.5:.5", 602),
            ("5h:1ms", 18_000_001),
            ("--5m:+1m", 6),
            ("1h:0s", u64::MAX),
            ("1h:0.0001", 36_000_001),
        ] {
            assert_eq!(
                points(text.as_bytes()).map(|points| points.points),
                Some(expected),
                "{text}"
            );
        }
        assert_eq!(points(b"1m:1s").map(|points| points.in_a_day), Some(86_401));
    }

    #[test]
    fn calculated_durations_are_unknown() {
        for text in [
            "step():1m",
            "1h:step()",
            "(1h):1m",
            "1h+1h:1m",
            "1h:1m*2",
            "max(1h,2h):1m",
            "1e3:1",
            "0x9:1",
            "1_0:1",
            ":1m",
            "",
            "1h",
            "h:1m",
            "1hm:1m",
            "1h:1m:1m",
            "-:1m",
            "0e0m:1m",
            "1.5h:1m",
            ".:1m",
        ] {
            assert_eq!(points(text.as_bytes()), None, "{text}");
        }
    }
}
