//! What stock senders write through one proxy is read back through the other, by their own people only.

use std::time::Duration;

use harness::{Answer, wait_until};

use crate::system::System;
use crate::{chapter, fact};

/// All samples that the hub has scraped of some dozens of series. (Not of all in one: without their names,
/// which `count_over_time` drops, series of different metrics are the same.)
const SAMPLES: &str = "sum(count_over_time(node_cpu_seconds_total[2h])) \
     + sum(count_over_time(node_scrape_collector_success[2h])) + sum(count_over_time(node_load1[2h]))";

pub async fn are_read_back(system: &System) {
    chapter("Stock senders write through the proxy");
    for (organisation, protocol, reader) in
        [(&system.organisations[0], "1.0", 1), (&system.organisations[1], "2.0", 0)]
    {
        let member = system.member(organisation, reader);
        wait_until("series of the hub are read", Duration::from_secs(60), async || {
            value(&member.get(&query(SAMPLES, None)).await).is_some_and(|count| count > 100.0)
        })
        .await;
        let answer = member.get(&query("count({job=\"node\"})", None)).await;
        fact(format!(
            "the hub of {} (remote write {protocol}) has written {} series; its member reads them by the other proxy",
            organisation.name,
            value(&answer).expect("a value")
        ));
        let stranger = system.organisations.iter().find(|other| other.id != organisation.id);
        let stranger = system.member(stranger.expect("another"), reader);
        let refused =
            stranger.header("x-scope-orgid", organisation.id).get(&query(SAMPLES, None)).await;
        assert_eq!(refused.status, 403, "the other organisation's member may not");
    }
}

/// A target that asks for an expression, at a moment in seconds or now.
pub fn query(expression: &str, at: Option<f64>) -> String {
    let encoded: String = expression
        .bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect();
    let at = at.map_or_else(String::new, |at| format!("&time={at:.3}"));
    format!("/prometheus/api/v1/query?query={encoded}{at}")
}

/// The value of an answer with exactly one.
pub fn value(answer: &Answer) -> Option<f64> {
    let json: serde_json::Value = serde_json::from_str(&answer.text).ok()?;
    let result = json["data"]["result"].as_array()?;
    let [one] = result.as_slice() else { return None };
    one["value"][1].as_str()?.parse().ok()
}

/// How many samples there are of an organisation's hub up to a moment: as its members read them, and as
/// the hub itself has scraped them.
pub async fn counts(system: &System, organisation: usize, at: f64) -> (Option<f64>, Option<f64>) {
    let organisation = &system.organisations[organisation];
    let stored = system.member(organisation, 0).get(&query(SAMPLES, Some(at))).await;
    let hub = harness::Client::new(&organisation.hub.url());
    let scraped = hub.get(query(SAMPLES, Some(at)).trim_start_matches("/prometheus")).await;
    (value(&stored), value(&scraped))
}
