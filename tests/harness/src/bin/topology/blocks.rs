//! Every Mimir is stopped and starts again with an empty disk: what was written is in the bucket, and read
//! back from there.

use std::time::Duration;

use harness::{samples, wait_until};
use tokio::time::Instant;

use crate::senders::counts;
use crate::system::System;
use crate::{chapter, fact, say};

#[expect(clippy::cast_precision_loss, reason = "milliseconds of this century fit")]
pub fn now() -> f64 {
    samples::now_ms() as f64 / 1000.0
}

/// How many samples there are up to a moment once the hub has delivered them all.
pub async fn settled(system: &System, organisation: usize, at: f64, patience: Duration) -> f64 {
    let mut agreed = 0.0;
    wait_until("as many samples are read as were scraped", patience, async || {
        let (stored, scraped) = counts(system, organisation, at).await;
        agreed = scraped.unwrap_or_default();
        stored == scraped && stored.is_some()
    })
    .await;
    agreed
}

pub async fn outlive_every_disk(system: &mut System) {
    chapter("Every Mimir stops and starts with an empty disk");
    let at = now() - 1.0;
    let mut before = Vec::new();
    for organisation in 0..system.organisations.len() {
        before.push(settled(system, organisation, at, Duration::from_secs(30)).await);
    }
    say("stopping all three at once; the hubs go on");
    let told = Instant::now();
    for mimir in &system.mimirs {
        mimir.terminate();
    }
    for mimir in &mut system.mimirs {
        let end = mimir.wait_stopped(Duration::from_secs(120)).expect("it stops in time");
        assert_eq!(end.code(), Some(0), "{}\n{}", mimir.id(), mimir.log());
    }
    fact(format!("all three stopped in {:.1?}, kill_timeout being 300 s", told.elapsed()));
    for organisation in &system.organisations {
        let blocks = system.backing.r2.minio().blocks("mimir-blocks", organisation.id).len();
        assert!(blocks >= 3, "each of three replicas uploads what it holds, not {blocks}");
        fact(format!("{blocks} blocks of {} are in the bucket", organisation.name));
    }
    let key = format!("{}/collectors/ring", system.backing.prefix);
    let ring = system.backing.consul.ring(&key).await;
    assert!(ring.is_empty(), "nobody is left in the ingesters' ring: {ring:?}");
    say("starting all three with empty disks");
    for mimir in &mut system.mimirs {
        mimir.start_with_empty_disk();
    }
    for mimir in &mut system.mimirs {
        mimir.wait_ready().await;
    }
    for (organisation, before) in before.into_iter().enumerate() {
        let after = settled(system, organisation, at, Duration::from_secs(120)).await;
        assert_eq!(after, before, "samples from before the stop");
        fact(format!(
            "{after} samples of {} from before the stop are read from the bucket, none is missing",
            system.organisations[organisation].name
        ));
    }
}
