//! What Mimir's ruler posts: a list of alerts in the form of Alertmanager's API, version 2.
//!
//! Reading is bounded and strict. One alert that cannot be read does not take the others with it.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::merge::{Payload, Rank, ReportedStart};
use crate::clock::parse_rfc3339;
use crate::store::{AlertStart, Millis, Pairs};

/// Alerts in one message. The ruler sends 256 at most, unless Mimir is told otherwise.
const MOST_ALERTS: usize = 20_000;
/// Labels, or annotations, of an alert.
const MOST_PAIRS: usize = 128;
/// Names and values of an alert's labels and annotations together.
pub(crate) const MOST_ALERT_BYTES: usize = 64 << 10;
/// An alert without an end fires for so long, as at Alertmanager (`resolve_timeout`).
const WITHOUT_END: Millis = 5 * 60_000;
/// How far the ruler's clock may be ahead of ours: an end so near is one that has come.
const CLOCK_SKEW: Millis = 2000;
/// How far in the future an alert may begin, if the ruler's clock is far ahead.
const FUTURE_START: Millis = 3_600_000;
/// The longest that one report may say that an alert fires: five times a rule's interval of a day.
pub(crate) const LONGEST_VALID: Millis = 5 * 86_400_000;
/// The year 2000. The ruler's zero time is the year 1.
const LONG_AGO: Millis = 946_684_800_000;

/// The annotation in which a rule that the proxy wrote carries the ID of its row.
pub(crate) const RULE_ANNOTATION: &str = "alert_rule_id";

/// One alert of a message.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) fingerprint: String,
    pub(crate) start: Millis,
    pub(crate) is_resolved: bool,
    pub(crate) reported: ReportedStart,
}

/// A message that is one.
#[derive(Debug, Default)]
pub(crate) struct Message {
    pub(crate) reports: Vec<Report>,
    /// Alerts that are none, and what is wrong with the first one.
    pub(crate) malformed: usize,
    pub(crate) problem: Option<String>,
}

/// Reads a message that came at a time. The error says why it is none.
pub(crate) fn read(body: &[u8], now: Millis) -> Result<Message, String> {
    let items: Items = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let mut message = Message::default();
    for item in items.0 {
        match read_alert(item, now) {
            Ok(report) => message.reports.push(report),
            Err(problem) => {
                message.malformed += 1;
                message.problem.get_or_insert(problem);
            }
        }
    }
    Ok(message)
}

fn read_alert(item: &RawValue, now: Millis) -> Result<Report, String> {
    let posted: Posted = serde_json::from_str(item.get()).map_err(|error| error.to_string())?;
    let Posted { labels: Strict(mut labels), annotations, starts_at, ends_at } = posted;
    let mut annotations = annotations.unwrap_or_default().0;
    // To Prometheus an empty label is none.
    labels.retain(|_, value| !value.is_empty());
    if !labels.contains_key("alertname") {
        return Err("has no label alertname".to_owned());
    }
    if bytes(&labels) + bytes(&annotations) > MOST_ALERT_BYTES {
        return Err(format!("has more than {MOST_ALERT_BYTES} bytes of labels and annotations"));
    }
    let start = time(&starts_at).ok_or("startsAt is no time")?;
    if start < LONG_AGO || start > now + FUTURE_START {
        return Err("startsAt is no time at which it can have begun".to_owned());
    }
    let end = match ends_at.as_deref().map(|text| time(text).ok_or("endsAt is no time")) {
        None => None,
        Some(end) => Some(end?).filter(|end| *end >= LONG_AGO),
    };
    let end = end.unwrap_or(now + WITHOUT_END);
    // Also one that began in the future by a clock that was wrong then.
    let is_resolved = end <= now + CLOCK_SKEW;
    let end = end.clamp(start, (now + LONGEST_VALID).max(start));
    let (end_at, seen) = (Some(end), Some(now));
    let known = if is_resolved {
        AlertStart { resolved_at: end_at, resolved_seen: seen, ..AlertStart::default() }
    } else {
        AlertStart { valid_until: end_at, firing_seen: seen, ..AlertStart::default() }
    };
    let fingerprint = fingerprint(&labels);
    let rule = annotations.remove(RULE_ANNOTATION);
    let payload = Payload {
        rule: rule.and_then(|rule| Uuid::try_parse(&rule).ok()),
        labels: without_nul(labels),
        annotations: without_nul(annotations),
    };
    let payload = Some((Rank::of_report(start, is_resolved, end), payload));
    Ok(Report {
        fingerprint,
        start,
        is_resolved,
        reported: ReportedStart { start: known, payload },
    })
}

pub(crate) fn bytes(pairs: &Pairs) -> usize {
    pairs.iter().map(|(name, value)| name.len() + value.len()).sum()
}

/// Milliseconds since the epoch of a time (RFC 3339).
fn time(text: &str) -> Option<Millis> {
    let nanoseconds = parse_rfc3339(text)?.unix_timestamp_nanos();
    i64::try_from(nanoseconds.div_euclid(1_000_000)).ok()
}

/// The fingerprint by which Alertmanager's API names an alert (`model.LabelSet.Fingerprint`): FNV-1a of
/// names and values, in the order of the names, each followed by a byte that is in no text.
fn fingerprint(labels: &Pairs) -> String {
    const OFFSET: u64 = 14_695_981_039_346_656_037;
    const PRIME: u64 = 1_099_511_628_211;
    const SEPARATOR: u8 = 255;
    let texts = labels.iter().flat_map(|(name, value)| [name, value]);
    let bytes = texts.flat_map(|text| text.bytes().chain([SEPARATOR]));
    let hash = bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    format!("{hash:016x}")
}

/// Postgres takes no NUL in a text.
fn without_nul(pairs: Pairs) -> Pairs {
    let has_nul = pairs.iter().any(|(name, value)| name.contains('\0') || value.contains('\0'));
    if !has_nul {
        return pairs;
    }
    let replace = |text: String| text.replace('\0', "\u{fffd}");
    pairs.into_iter().map(|(name, value)| (replace(name), replace(value))).collect()
}

/// An alert as it is posted. What else there is, such as `generatorURL`, leads nowhere.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Posted {
    labels: Strict,
    annotations: Option<Strict>,
    starts_at: String,
    ends_at: Option<String>,
}

/// Pairs of texts, each name once.
#[derive(Default)]
struct Strict(Pairs);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Strict;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("names with texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Strict, A::Error> {
                let mut pairs = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, String>()? {
                    if pairs.len() == MOST_PAIRS {
                        return Err(A::Error::custom(format!("more than {MOST_PAIRS} names")));
                    }
                    if pairs.insert(name, value).is_some() {
                        return Err(A::Error::custom("a name twice"));
                    }
                }
                Ok(Strict(pairs))
            }
        }
        deserializer.deserialize_map(Read)
    }
}

/// The items of a list that is not too long.
struct Items<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Items<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Items<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of alerts")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Items<'de>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    if items.len() == MOST_ALERTS {
                        return Err(A::Error::custom(format!("more than {MOST_ALERTS} alerts")));
                    }
                    items.push(item);
                }
                Ok(Items(items))
            }
        }
        deserializer.deserialize_seq(Read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Millis = 1_764_000_000_000;

    fn one(text: &str) -> Report {
        let mut message = read(format!("[{text}]").as_bytes(), NOW).unwrap();
        assert_eq!(message.problem, None);
        message.reports.pop().unwrap()
    }

    fn problem(text: &str) -> String {
        let message = read(format!("[{text}]").as_bytes(), NOW).unwrap();
        assert_eq!((message.malformed, message.reports.len()), (1, 0));
        message.problem.unwrap()
    }

    fn at(millis: Millis) -> String {
        let time = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000);
        crate::clock::rfc3339(time.unwrap())
    }

    // As Mimir 3.1's ruler has posted it.
    #[test]
    fn a_firing_alert_and_its_end_are_read() {
        let text = |end: Millis| {
            format!(
                r#"{{"annotations":{{"alert_rule_id":"0c0c0c0c-0c0c-4c0c-8c0c-0c0c0c0c0c0c","summary":"hot"}},
                "endsAt":"{}","startsAt":"{}","generatorURL":"http://localhost/graph?g0.expr=up",
                "labels":{{"alertname":"Hot","device":"hub-1"}}}}"#,
                at(end),
                at(NOW - 60_000)
            )
        };
        let firing = one(&text(NOW + 300_000));
        assert!(!firing.is_resolved);
        assert_eq!(firing.start, NOW - 60_000);
        assert_eq!(firing.reported.start.valid_until, Some(NOW + 300_000));
        let (_, payload) = firing.reported.payload.unwrap();
        assert_eq!(payload.rule, "0c0c0c0c-0c0c-4c0c-8c0c-0c0c0c0c0c0c".parse().ok());
        assert_eq!(payload.annotations.keys().collect::<Vec<_>>(), ["summary"]);
        let resolved = one(&text(NOW - 1));
        assert!(resolved.is_resolved);
        assert_eq!(resolved.fingerprint, firing.fingerprint);
        assert_eq!(resolved.reported.start.resolved_at, Some(NOW - 1));
        // The ruler's clock is a little ahead.
        assert!(one(&text(NOW + 1000)).is_resolved);
    }

    // From Alertmanager's API of the same labels, and of its own tests.
    #[test]
    fn the_fingerprint_is_alertmanagers() {
        let of = |pairs: &[(&str, &str)]| {
            fingerprint(&pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
        };
        assert_eq!(of(&[]), "cbf29ce484222325");
        assert_ne!(of(&[("a", "bc")]), of(&[("ab", "c")]));
    }

    #[test]
    fn an_alert_without_an_end_fires_for_five_minutes_and_none_for_ever() {
        let start = at(NOW);
        for end in ["", r#""endsAt":"0001-01-01T00:00:00.000Z","#] {
            let text = format!(r#"{{{end}"startsAt":"{start}","labels":{{"alertname":"A"}}}}"#);
            assert_eq!(one(&text).reported.start.valid_until, Some(NOW + WITHOUT_END));
        }
        let text = format!(
            r#"{{"endsAt":"9999-01-01T00:00:00Z","startsAt":"{start}","labels":{{"alertname":"A"}}}}"#
        );
        assert_eq!(one(&text).reported.start.valid_until, Some(NOW + LONGEST_VALID));
    }

    // Its clock was ahead and was put right: the end was taken for a time until which it fires, and as it was never
    // resolved, its event stayed open for an hour and expired.
    #[test]
    fn an_end_before_a_beginning_in_the_future_is_an_end() {
        let (start, end) = (at(NOW + 1_800_000), at(NOW - 1000));
        let text =
            format!(r#"{{"startsAt":"{start}","endsAt":"{end}","labels":{{"alertname":"A"}}}}"#);
        let report = one(&text);
        assert!(report.is_resolved);
        assert_eq!(report.reported.start.resolved_at, Some(NOW + 1_800_000), "not before it began");
        assert_eq!(report.reported.start.valid_until, None);
    }

    #[test]
    fn what_is_no_alert_is_refused_and_the_others_are_read() {
        let good = format!(r#"{{"startsAt":"{}","labels":{{"alertname":"A"}}}}"#, at(NOW));
        let long = "x".repeat(MOST_ALERT_BYTES);
        for (wrong, word) in [
            ("1".to_owned(), "invalid type"),
            ("{}".to_owned(), "missing field"),
            (good.replace("alertname", "name"), "alertname"),
            (good.replace("\"A\"", "\"\""), "alertname"),
            (good.replace("\"A\"", "7"), "invalid type"),
            (good.replace("\"A\"", "\"A\",\"alertname\":\"B\""), "twice"),
            (good.replace("\"A\"", &format!("{long:?}")), "bytes"),
            (good.replace("20", "99"), "startsAt"),
            (good.replace("20", "00"), "startsAt"),
            (good.replace("\"startsAt\"", "\"endsAt\""), "missing field"),
            (good.replace("{\"startsAt\"", "{\"endsAt\":\"soon\",\"startsAt\""), "endsAt"),
        ] {
            let problem = problem(&wrong);
            assert!(problem.contains(word), "{wrong}: {problem}");
            let message = read(format!("[{wrong},{good}]").as_bytes(), NOW).unwrap();
            assert_eq!((message.malformed, message.reports.len()), (1, 1), "{wrong}");
        }
        for wrong in ["", "{}", "[", "[}", "null", "\"\"", "[{},", "\u{0}"] {
            assert!(read(wrong.as_bytes(), NOW).is_err(), "{wrong}");
        }
        let many = format!("[{}1]", "1,".repeat(MOST_ALERTS));
        assert!(read(many.as_bytes(), NOW).is_err());
        assert_eq!(read(b"[]", NOW).unwrap().reports.len(), 0);
    }

    #[test]
    fn a_nul_is_replaced_because_postgres_takes_none() {
        let text = format!(
            r#"{{"startsAt":"{}","labels":{{"alertname":"A\u0000"}},"annotations":{{"\u0000":"\u0000b"}}}}"#,
            at(NOW)
        );
        let (_, payload) = one(&text).reported.payload.unwrap();
        assert_eq!(payload.labels["alertname"], "A\u{fffd}");
        assert_eq!(payload.annotations["\u{fffd}"], "\u{fffd}b");
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes, NOW);
        }

        #[test]
        fn what_is_read_is_within_its_bounds(start in ".{0,30}", end in ".{0,30}", label in ".{0,20}", now in 0..4_000_000_000_000_i64) {
            let text = serde_json::json!([{"startsAt": start, "endsAt": end, "labels": {"alertname": label, label.clone(): "x"}},
                                          {"startsAt": at(now), "labels": {"alertname": "x", label.clone(): label}}]);
            for report in read(text.to_string().as_bytes(), now).unwrap().reports {
                let start = report.reported.start;
                let end = start.valid_until.or(start.resolved_at).unwrap();
                prop_assert!(report.start >= LONG_AGO && end >= report.start);
                prop_assert!(end <= now + LONGEST_VALID.max(FUTURE_START));
            }
        }
    }
}
