//! Unknown keys: Mimir does not start with them.

use super::ring_addresses::OF_THE_RING;
use super::rings::written;
use super::{Finding, MimirVersion, Profile};
use crate::spelling::nearest;
use crate::yaml::Entry;

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

const ETCD: [&str; 13] = [
    "endpoints",
    "dial_timeout",
    "max_retries",
    "tls_enabled",
    "tls_cert_path",
    "tls_key_path",
    "tls_ca_path",
    "tls_server_name",
    "tls_insecure_skip_verify",
    "tls_cipher_suites",
    "tls_min_version",
    "username",
    "password",
];
const MULTI: [&str; 4] = ["primary", "secondary", "mirror_enabled", "mirror_timeout"];

const PARTITION_RING: [&str; 4] = [
    "kvstore",
    "min_partition_owners_count",
    "min_partition_owners_duration",
    "delete_inactive_partition_after",
];

/// The blocks of a ring, and what each may hold, as Mimir's `config-descriptor.json` has them; the
/// ring's own keys are in `rings`.
const BLOCKS: [(&str, &[&str]); 4] = [
    ("kvstore", &KVSTORE),
    ("kvstore.consul", &CONSUL),
    ("kvstore.etcd", &ETCD),
    ("kvstore.multi", &MULTI),
];

pub(super) fn unknown(profile: &Profile) -> Vec<Finding> {
    let of_version = if profile.assumptions.mimir < THREE { &ONLY_2[..] } else { &SINCE_3[..] };
    let known = |name: &str| TOP.contains(&name) || of_version.contains(&name);
    let top = profile.document.entries().iter().filter(|entry| !known(&entry.key));
    let mut findings: Vec<Finding> =
        top.map(|entry| finding(profile, &entry.key, &entry.key, &TOP)).collect();
    for ring in written(profile) {
        findings.extend(unknown_in(profile, ring.path, &ring.keys()));
        findings.extend(unknown_in_store(profile, ring.path));
    }
    // The partition ring, and the store of the HA tracker, which has no ring.
    findings.extend(unknown_in(profile, "ingester.partition_ring", &PARTITION_RING));
    for path in ["ingester.partition_ring", "distributor.ha_tracker"] {
        findings.extend(unknown_in_store(profile, path));
    }
    findings
}

fn unknown_in_store(profile: &Profile, path: &str) -> Vec<Finding> {
    let of_block = |(block, known)| unknown_in(profile, &format!("{path}.{block}"), known);
    BLOCKS.into_iter().flat_map(of_block).collect()
}

fn unknown_in(profile: &Profile, block: &str, known: &[&str]) -> Vec<Finding> {
    let entries = profile.get(block).map_or(&[][..], |node| node.entries());
    // Keys of the ring that are nested too deep have their own check.
    let is_misplaced =
        |entry: &Entry| block.contains("kvstore") && OF_THE_RING.contains(&entry.key.as_str());
    let unknown =
        entries.iter().filter(|entry| !known.contains(&entry.key.as_str()) && !is_misplaced(entry));
    let unknown =
        unknown.map(|entry| finding(profile, &format!("{block}.{}", entry.key), &entry.key, known));
    unknown.collect()
}

fn finding(profile: &Profile, key: &str, name: &str, known: &[&str]) -> Finding {
    let right = match nearest(name, known.iter().copied()) {
        Some(known) => format!("did you mean {known}?"),
        None if CONSUL.contains(&name) => "it belongs in kvstore.consul".to_owned(),
        None if KVSTORE.contains(&name) => "it belongs in kvstore".to_owned(),
        None => "leave it out, or see where it belongs".to_owned(),
    };
    profile.error("unknown-key", key, "is not a key of Mimir: it does not start", &right)
}
