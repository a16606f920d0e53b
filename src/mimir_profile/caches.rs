//! Caches: Redis until 2.17, memcached in every version.

use super::expansion::is_unknown;
use super::{Finding, MimirVersion, Profile};
use crate::yaml::Kind;

const CACHES: [&str; 5] = [
    "frontend.results_cache",
    "blocks_storage.bucket_store.index_cache",
    "blocks_storage.bucket_store.chunks_cache",
    "blocks_storage.bucket_store.metadata_cache",
    "ruler_storage.cache",
];

/// Deprecated in 2.14, gone in 3.0.
const WITHOUT_REDIS: MimirVersion = MimirVersion(3, 0);

fn written(profile: &Profile) -> impl Iterator<Item = &'static str> {
    CACHES.into_iter().filter(|cache| profile.get(cache).is_some())
}

fn backend<'a>(profile: &'a Profile, cache: &str) -> &'a str {
    profile.text(&format!("{cache}.backend")).unwrap_or_default()
}

/// Mimir 3 does not know it.
pub(super) fn redis(profile: &Profile) -> Vec<Finding> {
    if profile.assumptions.mimir < WITHOUT_REDIS {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for cache in written(profile) {
        let (wrong, right) = (
            "is Redis, which Mimir 3 no longer has: it does not start",
            "memcached with memcached.addresses; or check with --mimir-version 2.17",
        );
        let keys = [
            (format!("{cache}.backend"), backend(profile, cache) == "redis"),
            (format!("{cache}.redis"), profile.get(&format!("{cache}.redis")).is_some()),
        ];
        let first = keys.into_iter().find(|(_, is_redis)| *is_redis);
        findings.extend(first.map(|(key, _)| profile.error("redis-removed", &key, wrong, right)));
    }
    findings
}

/// A comma-separated list of `host:port`, each with an optional prefix for service discovery.
pub(super) fn addresses(profile: &Profile) -> Vec<Finding> {
    let mut findings = Vec::new();
    for cache in written(profile) {
        let (list, right) = match backend(profile, cache) {
            "memcached" => ("memcached.addresses", "such as dns+memcached.internal:11211"),
            "redis" if profile.assumptions.mimir < WITHOUT_REDIS => {
                ("redis.endpoint", "such as redis.example.com:6379")
            }
            _ => continue,
        };
        let key = format!("{cache}.{list}");
        if profile.get(&key).is_some_and(|node| matches!(node.kind, Kind::List(_))) {
            let wrong = "is a list: Mimir does not start";
            let right = "one text, with commas between the addresses";
            findings.push(profile.error("cache-address", &key, wrong, right));
            continue;
        }
        let Some(text) = profile.text(&key) else {
            let wrong = "is missing: Mimir does not start";
            findings.push(profile.error("cache-address", &key, wrong, right));
            continue;
        };
        // Mimir ignores empty entries, and a path is a socket.
        let of_network = |address: &&str| !address.is_empty() && !address.starts_with('/');
        for address in text.split(',').map(str::trim).filter(of_network) {
            let (way, host) = address.split_once('+').unwrap_or(("", address));
            let wrong = if host.contains("://") {
                "begins with a scheme"
            } else if !host.contains(':') && !way.starts_with("dnssrv") && !is_unknown(host) {
                "has no port"
            } else {
                continue;
            };
            let right = format!("host and port, {right}");
            findings.push(profile.error("cache-address", &key, wrong, &right));
        }
    }
    findings
}

/// A cache that is configured but not selected.
pub(super) fn unused(profile: &Profile) -> Vec<Finding> {
    let mut findings = Vec::new();
    for cache in written(profile) {
        let described = ["memcached", "redis"]
            .into_iter()
            .find(|backend| profile.get(&format!("{cache}.{backend}")).is_some());
        if let Some(described) = described.filter(|_| {
            // By default the index cache is in memory.
            matches!(backend(profile, cache), "" | "inmemory")
        }) {
            let (key, right) = (format!("{cache}.backend"), format!("set it to {described}"));
            let wrong = format!("does not select {described}, so the block below it is not used");
            findings.push(profile.warning("cache-unused", &key, &wrong, &right));
        }
    }
    let results = "frontend.results_cache";
    let switch = "frontend.cache_results";
    if !backend(profile, results).is_empty() && !profile.is(switch, true) {
        let wrong = "is not on, so results_cache is not used";
        findings.push(profile.warning("cache-unused", switch, wrong, "set it to true"));
    }
    findings
}
