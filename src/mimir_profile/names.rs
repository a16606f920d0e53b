//! Values that are one of a few words: `target`, and the `backend` of every store and cache. Mimir does
//! not start with another.

use super::{Finding, MimirVersion, Profile, expansion};
use crate::spelling::nearest;
use crate::yaml::Kind;

/// What `target` may name (`pkg/mimir/modules.go`); everything else is internal.
const TARGETS: &str = "all alertmanager backend block-builder block-builder-scheduler compactor \
    compactor-scheduler continuous-test distributor flusher ingester memberlist-kv \
    overrides-exporter querier query-frontend query-scheduler read ruler store-gateway \
    usage-tracker write";

/// Targets that came with 3.0, and those that went.
const SINCE_3: &str = "compactor-scheduler usage-tracker";
const UNTIL_3: &str = "flusher";
const THREE: MimirVersion = MimirVersion(3, 0);

const OBJECT_STORES: [&str; 5] = ["s3", "gcs", "azure", "swift", "filesystem"];
/// Rules and the Alertmanager's configurations may be files, too.
const OR_FILES: [&str; 6] = ["s3", "gcs", "azure", "swift", "filesystem", "local"];
const CACHE: [&str; 1] = ["memcached"];
const INDEX_CACHE: [&str; 2] = ["inmemory", "memcached"];

/// Every `backend` of Mimir's configuration, and what it may be; caches besides Redis, which
/// [`caches`](super::caches) judges by the version.
const BACKENDS: [(&str, &[&str]); 9] = [
    ("common.storage.backend", &OBJECT_STORES),
    ("blocks_storage.backend", &OBJECT_STORES),
    ("ruler_storage.backend", &OR_FILES),
    ("alertmanager_storage.backend", &OR_FILES),
    ("frontend.results_cache.backend", &CACHE),
    ("blocks_storage.bucket_store.index_cache.backend", &INDEX_CACHE),
    ("blocks_storage.bucket_store.chunks_cache.backend", &CACHE),
    ("blocks_storage.bucket_store.metadata_cache.backend", &CACHE),
    ("ruler_storage.cache.backend", &CACHE),
];

pub(super) fn targets(profile: &Profile) -> Vec<Finding> {
    let error = |wrong: &str, right: &str| profile.error("unknown-value", "target", wrong, right);
    if profile.get("target").is_some_and(|node| matches!(node.kind, Kind::List(_) | Kind::Map(_))) {
        let right = "one text, with commas between the components";
        return vec![error("is not a text: Mimir does not start", right)];
    }
    let version = profile.assumptions.mimir;
    let other = if version < THREE { SINCE_3 } else { UNTIL_3 };
    let is_of_other = |name: &str| other.split_whitespace().any(|other| other == name);
    let known: Vec<&str> = TARGETS.split_whitespace().filter(|name| !is_of_other(name)).collect();
    let finding = |name: &str| {
        if expansion::is_unknown(name) || known.contains(&name) {
            return None;
        }
        let trimmed = name.trim();
        // Mimir splits at commas, and spaces belong to the name.
        let right = if known.contains(&trimmed) {
            format!("write {trimmed:?} without spaces around it")
        } else {
            match nearest(trimmed, known.iter().copied()) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("one of {}", known.join(", ")),
            }
        };
        Some(error(&format!("names {name:?}, which is no target: Mimir does not start"), &right))
    };
    let names = profile.text("target").into_iter().flat_map(|text| text.split(','));
    names.filter_map(finding).take(1).collect()
}

pub(super) fn backends(profile: &Profile) -> Vec<Finding> {
    let finding = |(key, known): (&str, &[&str])| {
        let text = profile.text(key)?;
        let is_redis = text == "redis" && key.contains("cache");
        if known.contains(&text) || is_redis || expansion::is_unknown(text) {
            return None;
        }
        let right = match nearest(text, known.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("one of {}", known.join(", ")),
        };
        let wrong = format!("is {text:?}, which Mimir does not know: it does not start");
        Some(profile.error("unknown-value", key, &wrong, &right))
    };
    BACKENDS.into_iter().filter_map(finding).collect()
}
