//! Keys that Mimir does not know: it does not start with them.

use super::document::Entry;
use super::rings::written;
use super::{Finding, MimirVersion, Profile};

/// The keys at the top that only 2.x has, and those that came with 3.0.
const ONLY_2: [&str; 1] = ["flusher"];
const SINCE_3: [&str; 5] = [
    "block_builder",
    "block_builder_scheduler",
    "compactor_scheduler",
    "include_tenant_id_in_profile_labels",
    "usage_tracker",
];
const THREE: MimirVersion = MimirVersion(3, 0);

/// The keys at the top of all.
const TOP: [&str; 36] = [
    "activity_tracker",
    "alertmanager",
    "alertmanager_storage",
    "api",
    "blocks_storage",
    "common",
    "compactor",
    "cost_attribution_cleanup_interval",
    "cost_attribution_eviction_interval",
    "cost_attribution_registry_path",
    "distributor",
    "enable_go_runtime_metrics",
    "frontend",
    "frontend_worker",
    "ingest_storage",
    "ingester",
    "ingester_client",
    "limits",
    "max_separate_metrics_groups_per_user",
    "memberlist",
    "multitenancy_enabled",
    "no_auth_tenant",
    "overrides_exporter",
    "querier",
    "query_scheduler",
    "ruler",
    "ruler_storage",
    "runtime_config",
    "server",
    "shutdown_delay",
    "store_gateway",
    "target",
    "tenant_federation",
    "timeseries_unmarshal_caching_optimization_enabled",
    "usage_stats",
    "vault",
];
const KVSTORE: [&str; 5] = ["store", "prefix", "consul", "etcd", "multi"];
const CONSUL: [&str; 7] = [
    "host",
    "acl_token",
    "http_client_timeout",
    "consistent_reads",
    "watch_rate_limit",
    "watch_burst_size",
    "cas_retry_delay",
];

pub(super) fn unknown(profile: &Profile) -> Vec<Finding> {
    let of_version = if profile.assumptions.mimir < THREE { &ONLY_2[..] } else { &SINCE_3[..] };
    let known = |name: &str| TOP.contains(&name) || of_version.contains(&name);
    let top = profile.document.entries().iter().filter(|entry| !known(&entry.key));
    let mut findings: Vec<Finding> =
        top.map(|entry| finding(profile, &entry.key, &entry.key, &TOP)).collect();
    for ring in written(profile) {
        for (block, known) in [("kvstore", &KVSTORE[..]), ("kvstore.consul", &CONSUL[..])] {
            let block = ring.key(block);
            let entries = profile.get(&block).map_or(&[][..], |node| node.entries());
            // What belongs to the ring has a check of its own.
            let is_new = |entry: &&Entry| {
                !known.contains(&entry.key.as_str())
                    && !entry.key.starts_with("instance_")
                    && entry.key != "replication_factor"
            };
            findings.extend(entries.iter().filter(is_new).map(|entry| {
                finding(profile, &format!("{block}.{}", entry.key), &entry.key, known)
            }));
        }
    }
    findings
}

fn finding(profile: &Profile, key: &str, name: &str, known: &[&str]) -> Finding {
    let nearest = known.iter().map(|known| (distance(name, known), known)).min();
    let right = match nearest {
        Some((distance, known)) if distance <= 3 && distance < name.len() => {
            format!("did you mean {known}?")
        }
        _ => "leave it out, or see where it belongs".to_owned(),
    };
    profile.error("unknown-key", key, "is no key of Mimir's: it does not start", &right)
}

/// How many letters are to be changed, put in or left out (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (at, letter) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (other_at, other) in b.iter().enumerate() {
            let substitution = diagonal + usize::from(letter != *other);
            diagonal = row[other_at + 1];
            row[other_at + 1] = substitution.min(diagonal + 1).min(row[other_at] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn distance_counts_letters() {
        assert_eq!(distance("ingestor", "ingester"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
