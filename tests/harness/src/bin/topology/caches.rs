//! All four caches are hit.

use std::time::Duration;

use harness::wait_until;

use crate::blocks::now;
use crate::system::System;
use crate::{chapter, fact};

/// As Mimir calls them.
const CACHES: [&str; 4] = ["frontend-cache", "index-cache", "chunks-cache", "metadata-cache"];

pub async fn are_hit(system: &System) {
    chapter("Caches in memcached");
    let member = system.member(&system.organisations[0], 0);
    // The same question hits the results; another one about the same samples hits the rest.
    // Results are only kept of questions whose ends are multiples of their step.
    let end = ((now() - 30.0) / 30.0).floor() * 30.0;
    let start = end - 600.0;
    let range = |expression: &str, step: u32| {
        format!(
            "/prometheus/api/v1/query_range?query={expression}&start={start:.0}&end={end:.0}&step={step}"
        )
    };
    let mut before = [0.0; CACHES.len()];
    for (cache, before) in CACHES.iter().zip(&mut before) {
        *before = hits(system, cache).await;
    }
    wait_until("every cache is hit by these questions", Duration::from_secs(60), async || {
        for step in [10, 10, 15] {
            for expression in ["node_load1", "sum(node_cpu_seconds_total)"] {
                let answer = member.get(&range(expression, step)).await;
                assert_eq!(answer.status, 200, "{}", answer.text);
            }
        }
        let mut hit = true;
        for (cache, before) in CACHES.iter().zip(before) {
            hit &= hits(system, cache).await > before;
        }
        hit
    })
    .await;
    for cache in CACHES {
        fact(format!("{cache}: {} hits", hits(system, cache).await));
    }
    let stats = system.backing.memcached.stats().await;
    assert!(stats["get_hits"] > 0);
    fact(format!(
        "memcached itself counts {} hits and {} misses",
        stats["get_hits"], stats["get_misses"]
    ));
}

async fn hits(system: &System, cache: &str) -> f64 {
    let name = format!("name=\"{cache}\"");
    let mut sum = 0.0;
    for mimir in &system.mimirs {
        sum += mimir.metric("thanos_cache_hits_total", &[&name]).await;
    }
    sum
}
