//! What comes late: hubs that were away send what they kept.

use super::document::Node;
use super::{Finding, Profile};
use crate::mimir::ruler::PromDuration;

/// Ingesters keep what came late until its block is shipped, and are asked only for what is newer
/// than `query_ingesters_within`.
pub(super) fn unseen(profile: &Profile) -> Vec<Finding> {
    const BY_DEFAULT: PromDuration = PromDuration::from_millis(13 * 3_600_000);
    let (window, asked) = ("limits.out_of_order_time_window", "limits.query_ingesters_within");
    let duration = |node: &Node| node.text()?.parse::<PromDuration>().ok();
    let Some(late) = profile.get(window).and_then(duration) else { return Vec::new() };
    let asked = match profile.get(asked) {
        None => Some(BY_DEFAULT),
        // By 0 they are asked for everything.
        Some(node) => duration(node).filter(|asked| !asked.is_zero()),
    };
    if asked.is_none_or(|asked| asked >= late) {
        return Vec::new();
    }
    let wrong = "is longer than limits.query_ingesters_within (13h by default), so what comes late \
                 is not found until its block is shipped, hours later";
    let right = "set limits.query_ingesters_within to the window and some hours";
    vec![profile.warning("late-samples-unseen", window, wrong, right)]
}
