//! Values that Mimir cannot read, of the keys that other checks compare: Mimir does not start with
//! them, and the comparison would be skipped silently.

use std::time::Duration;

use super::{Finding, Profile, expansion};
use crate::mimir::ruler::PromDuration;
use crate::yaml::Node;

/// How Mimir reads a value.
#[derive(Clone, Copy)]
enum Form {
    /// Go's `time.ParseDuration`; a bare number is refused.
    GoDuration,
    /// Prometheus' `model.ParseDuration`.
    PromDuration,
    /// A whole number of bytes.
    Bytes,
}
use Form::{Bytes, GoDuration};

/// The keys that other checks read, by their types in Mimir's `config-descriptor.json`.
const KEYS: [(&str, Form); 10] = [
    ("server.http_server_read_timeout", GoDuration),
    ("server.http_server_write_timeout", GoDuration),
    ("querier.timeout", GoDuration),
    ("querier.query_store_after", GoDuration),
    ("blocks_storage.bucket_store.ignore_blocks_within", GoDuration),
    ("blocks_storage.tsdb.retention_period", GoDuration),
    ("limits.query_ingesters_within", Form::PromDuration),
    ("limits.out_of_order_time_window", Form::PromDuration),
    ("distributor.max_recv_msg_size", Bytes),
    ("distributor.max_otlp_request_size", Bytes),
];

pub(super) fn unreadable(profile: &Profile) -> Vec<Finding> {
    let finding = |(key, form): (&str, Form)| {
        // An empty value is the default, and a variable may be anything.
        let text = profile.text(key).filter(|text| !expansion::is_unknown(text))?;
        let (is_read, right) = match form {
            GoDuration => {
                (go_duration(text).is_some(), "write a duration such as 30s, 2m or 1h30m")
            }
            Form::PromDuration => (
                text.trim_start_matches('-').parse::<PromDuration>().is_ok(),
                "write a duration such as 30s, 2m, 12h or 7d",
            ),
            Bytes => (
                text.replace('_', "").parse::<i64>().is_ok(),
                "write a whole number of bytes, such as 104857600",
            ),
        };
        let wrong = format!("is {text:?}, which Mimir cannot read: it does not start");
        (!is_read).then(|| profile.error("unreadable-value", key, &wrong, right))
    };
    KEYS.into_iter().filter_map(finding).collect()
}

/// A scalar's duration as Go reads it.
pub(super) fn duration(node: &Node) -> Option<Duration> {
    go_duration(node.text()?)
}

/// A duration as Go's `time.ParseDuration` reads it. A negative one becomes zero, which turns all of
/// these keys off.
fn go_duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("μs", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    let is_negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let (mut seconds, mut parts) = (0.0, 0);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let (_, unit) = UNITS.into_iter().find(|(name, _)| *name == &rest[..letters])?;
        (seconds, parts) = (seconds + number * unit, parts + 1);
        rest = &rest[letters..];
    }
    if parts == 0 {
        return None;
    }
    Duration::try_from_secs_f64(if is_negative { 0.0 } else { seconds }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Go's own rules (time.ParseDuration).
    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, seconds) in [
            ("30s", 30.0),
            ("1h30m", 5400.0),
            ("1.5h", 5400.0),
            ("250ms", 0.25),
            ("0", 0.0),
            ("-1s", 0.0),
        ] {
            assert_eq!(go_duration(text), Duration::try_from_secs_f64(seconds).ok(), "{text}");
        }
        for wrong in ["", "5", "120", "5min", "7days", "1d", "s", ".s", "1 s", "-", "1e3s"] {
            assert_eq!(go_duration(wrong), None, "{wrong}");
        }
    }
}
