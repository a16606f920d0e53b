//! Which component is queried for samples of which age: ingesters for recent ones, store-gateways for
//! old ones.

use super::{Finding, Profile, values};
use crate::mimir::ruler::PromDuration;

const WITHIN: (&str, PromDuration) = ("limits.query_ingesters_within", hours(13));
const STORE_AFTER: (&str, PromDuration) = ("querier.query_store_after", hours(12));
const IGNORE: (&str, PromDuration) =
    ("blocks_storage.bucket_store.ignore_blocks_within", hours(10));
const RETENTION: (&str, PromDuration) = ("blocks_storage.tsdb.retention_period", hours(13));

const fn hours(hours: u64) -> PromDuration {
    PromDuration::from_millis(hours * 3_600_000)
}

/// The duration of a key, or Mimir's default; none if it is not known.
fn duration(profile: &Profile, (key, default): (&str, PromDuration)) -> Option<PromDuration> {
    match profile.get(key) {
        None => Some(default),
        // A negative one is off, as 0 is.
        Some(node) if node.text().is_some_and(|text| text.starts_with('-')) => Some(hours(0)),
        // Limits are of Prometheus' type, the others of Go's, which knows no days.
        Some(node) if key.starts_with("limits.") => node.text()?.parse().ok(),
        Some(node) => {
            let millis = values::duration(node)?.as_millis();
            u64::try_from(millis).ok().map(PromDuration::from_millis)
        }
    }
}

/// Ingesters keep late samples until their block is shipped, but are queried only for samples newer
/// than `query_ingesters_within`.
pub(super) fn unseen(profile: &Profile) -> Vec<Finding> {
    let window = "limits.out_of_order_time_window";
    let late = profile.get(window).and_then(|node| node.text()?.parse::<PromDuration>().ok());
    let Some(late) = late else { return Vec::new() };
    // 0 means that they are queried for everything.
    let asked = duration(profile, WITHIN).filter(|asked| !asked.is_zero());
    if asked.is_none_or(|asked| asked >= late) {
        return Vec::new();
    }
    let wrong = "is longer than limits.query_ingesters_within (13h by default), so late \
                 samples are not found until their block is shipped, hours later";
    let right = "set limits.query_ingesters_within to the window and some hours";
    vec![profile.warning("late-samples-unseen", window, wrong, right)]
}

/// Store-gateways do not load blocks younger than `ignore_blocks_within`: asked for them, a query
/// fails or finds less, and to lower `query_store_after` alone has no effect.
pub(super) fn young_blocks(profile: &Profile) -> Vec<Finding> {
    let check = "young-blocks-unseen";
    let times = [STORE_AFTER, IGNORE, WITHIN, RETENTION].map(|key| duration(profile, key));
    let [Some(after), Some(ignored), Some(within), Some(kept)] = times else { return Vec::new() };
    let written = |keys: [&'static str; 2]| {
        keys.into_iter().find(|key| profile.get(key).is_some()).unwrap_or(keys[0])
    };
    let mut findings = Vec::new();
    if !ignored.is_zero() && ignored > after {
        let wrong = format!(
            "does not fit: store-gateways load no block younger than ignore_blocks_within \
             ({ignored}), and are asked for what is older than query_store_after ({after}): such \
             queries fail, or find less"
        );
        let right = format!("set {} below {}; 0s loads all", IGNORE.0, STORE_AFTER.0);
        findings.push(profile.error(check, written([STORE_AFTER.0, IGNORE.0]), &wrong, &right));
    }
    if !within.is_zero() && !after.is_zero() && after >= within {
        let wrong = format!(
            "does not fit: query_store_after ({after}) is not below query_ingesters_within \
             ({within}): Mimir does not start"
        );
        let right = format!("set {} below {}", STORE_AFTER.0, WITHIN.0);
        let key = written([STORE_AFTER.0, WITHIN.0]);
        findings.push(profile.error("store-after-ingesters", key, &wrong, &right));
    }
    if kept < after {
        let wrong = format!(
            "leaves a gap: ingesters keep samples for {kept} (retention_period), and the store is \
             asked only for what is older than {after} (query_store_after)"
        );
        let right = format!("set {} above {}", RETENTION.0, STORE_AFTER.0);
        let key = written([RETENTION.0, STORE_AFTER.0]);
        findings.push(profile.error("samples-gap", key, &wrong, &right));
    }
    findings
}
