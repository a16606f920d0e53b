//! What stock senders write through one proxy is read back through the other, by their own people only.

use std::time::Duration;

use harness::readings::{HUB_SAMPLES, query, value};
use harness::wait_until;

use crate::system::System;
use crate::{chapter, fact};

pub async fn are_read_back(system: &System) {
    chapter("Stock senders write through the proxy");
    for (organisation, protocol, reader) in
        [(&system.organisations[0], "1.0", 1), (&system.organisations[1], "2.0", 0)]
    {
        let member = system.member(organisation, reader);
        wait_until("series of the hub are read", Duration::from_secs(60), async || {
            value(&member.get(&query(HUB_SAMPLES, None)).await).is_some_and(|count| count > 100.0)
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
            stranger.header("x-scope-orgid", organisation.id).get(&query(HUB_SAMPLES, None)).await;
        assert_eq!(refused.status, 403, "the other organisation's member may not");
    }
}

/// How many samples there are of an organisation's hub up to a moment: as its members read them, and as
/// the hub itself has scraped them.
pub async fn counts(system: &System, organisation: usize, at: f64) -> (Option<f64>, Option<f64>) {
    let organisation = &system.organisations[organisation];
    let stored = system.member(organisation, 0).get(&query(HUB_SAMPLES, Some(at))).await;
    let hub = harness::Client::new(&organisation.hub.url());
    let scraped = hub.get(query(HUB_SAMPLES, Some(at)).trim_start_matches("/prometheus")).await;
    (value(&stored), value(&scraped))
}
