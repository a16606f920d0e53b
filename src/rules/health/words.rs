//! Why a rule is not live, for its author. Constant texts, so that a status is not written anew for nothing.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::mimir::ruler::PromDuration;
use crate::store::shortened;

pub(crate) const EARLIER_VERSION: &str =
    "Mimir has the rule and still evaluates the version before the last change";

pub(crate) const SWITCHED_OFF: &str = "alert rules are not evaluated for this organisation: evaluation is \
     switched off in Mimir; ask the operator";

pub(crate) const UNKNOWN: &str = "Mimir has the rule, and whether it evaluates it is unknown: its rulers have \
     not answered for some minutes; this is read again automatically";

pub(crate) const NEVER_LOADED: &str = "Mimir has the rule and does not evaluate it: its ruler has not loaded \
     it; it is written again automatically";

pub(crate) const NEVER_LOADED_VERSION: &str = "Mimir has the rule and evaluates only the version before the \
     last change: its ruler has not loaded the new one; it is written again automatically";

pub(crate) const NOTIFIES_NOBODY: &str = "it is evaluated, and its alerts notify nobody: they match no route \
     to a channel that works, and there is no default channel";

/// A rule that was evaluated and is not any more.
pub(crate) fn not_since(evaluated_at: OffsetDateTime, interval: PromDuration) -> String {
    let at = evaluated_at.replace_nanosecond(0).unwrap_or(evaluated_at);
    let at = at.format(&Rfc3339).unwrap_or_default();
    format!("Mimir has not evaluated it since {at}; it should every {interval}")
}

/// A rule that is loaded and was never evaluated.
pub(crate) fn loaded_only(interval: PromDuration) -> String {
    format!("Mimir has loaded the rule and has not evaluated it; it should every {interval}")
}

/// What Mimir says of an evaluation that failed.
pub(crate) fn failed(error: &str) -> String {
    let error = error.trim();
    if error.contains("same labelset after applying alert labels") {
        return shortened(&format!(
            "two results of the expression are the same alert: the rule's labels replace those by which they \
             differ. Rename such a label, or aggregate the expression ({error})"
        ));
    }
    if is_of_the_inside(error) {
        return "the last evaluation failed because Mimir was overloaded or a part of it unavailable; it is \
                evaluated again automatically"
            .to_owned();
    }
    shortened(&format!("the last evaluation failed: {error}"))
}

/// Members of an organisation are told nothing about the inside of the system, such as addresses.
fn is_of_the_inside(error: &str) -> bool {
    const SIGNS: [&str; 12] = [
        "rpc error",
        "connection refused",
        "connection reset",
        "dial tcp",
        "context deadline exceeded",
        "context canceled",
        "unhealthy instances",
        "empty ring",
        "no such host",
        "i/o timeout",
        "EOF",
        "http2:",
    ];
    SIGNS.iter().any(|sign| error.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_author_learns_what_to_change_and_nothing_of_the_inside() {
        let same = "vector contains metrics with the same labelset after applying alert labels";
        assert!(failed(same).starts_with("two results of the expression are the same alert"));
        assert!(failed(same).contains(same));
        let inside =
            "rpc error: code = Unavailable desc = dial tcp 10.0.0.7:9095: connection refused";
        assert!(!failed(inside).contains("10.0.0.7"));
        let many = "multiple matches for labels: many-to-one matching must be explicit";
        assert_eq!(failed(many), format!("the last evaluation failed: {many}"));
        assert!(failed(&"x".repeat(10_000)).len() < 2_100);
    }

    #[test]
    fn a_time_is_whole_seconds() {
        let at = OffsetDateTime::from_unix_timestamp_nanos(1_795_673_070_123_456_789).unwrap();
        assert_eq!(
            not_since(at, PromDuration::from_millis(60_000)),
            "Mimir has not evaluated it since 2026-11-26T06:04:30Z; it should every 1m"
        );
    }
}
