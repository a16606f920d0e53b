//! What is read back by expressions, and what a hub has written.

use crate::client::Answer;

/// All samples that a hub has scraped of some dozens of series. (Not of all in one: without their names,
/// which `count_over_time` drops, series of different metrics are the same.)
pub const HUB_SAMPLES: &str = "sum(count_over_time(node_cpu_seconds_total[2h])) \
     + sum(count_over_time(node_scrape_collector_success[2h])) + sum(count_over_time(node_load1[2h]))";

/// A target that asks for an expression, at a moment in seconds or now.
pub fn query(expression: &str, at: Option<f64>) -> String {
    let encoded = encode(expression);
    let at = at.map_or_else(String::new, |at| format!("&time={at:.3}"));
    format!("/prometheus/api/v1/query?query={encoded}{at}")
}

/// An expression as it stands in a target.
pub fn encode(expression: &str) -> String {
    let one = |byte: u8| {
        if byte.is_ascii_alphanumeric() {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    expression.bytes().map(one).collect()
}

/// The value of an answer with exactly one.
pub fn value(answer: &Answer) -> Option<f64> {
    let json: serde_json::Value = serde_json::from_str(&answer.text).ok()?;
    let result = json["data"]["result"].as_array()?;
    let [one] = result.as_slice() else { return None };
    one["value"][1].as_str()?.parse().ok()
}
