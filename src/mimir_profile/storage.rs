//! The object stores of blocks, rules and the Alertmanager's state.
//!
//! Each of the three stores takes from `common.storage` what it does not say itself, key by key.

use super::expansion::is_unknown;
use super::{Finding, Profile};

struct Store {
    path: &'static str,
}

const BLOCKS: Store = Store { path: "blocks_storage" };
const RULER: Store = Store { path: "ruler_storage" };
const ALERTMANAGER: Store = Store { path: "alertmanager_storage" };
const COMMON: &str = "common.storage";

fn stores(profile: &Profile) -> impl Iterator<Item = Store> {
    let alertmanager = profile.runs_alertmanager().then_some(ALERTMANAGER);
    [BLOCKS, RULER].into_iter().chain(alertmanager)
}

fn s3_stores(profile: &Profile) -> impl Iterator<Item = Store> {
    stores(profile).filter(|store| store.backend(profile) == Some("s3"))
}

impl Store {
    /// The key that decides: the store's own, or the common one.
    fn key(&self, profile: &Profile, rest: &str) -> String {
        let (own, common) = (format!("{}.{rest}", self.path), format!("{COMMON}.{rest}"));
        if profile.get(&own).is_none() && profile.get(&common).is_some() { common } else { own }
    }

    fn text<'a>(&self, profile: &'a Profile, rest: &str) -> Option<&'a str> {
        profile.text(&self.key(profile, rest))
    }

    fn backend<'a>(&self, profile: &'a Profile) -> Option<&'a str> {
        self.text(profile, "backend")
    }

    /// Where a key that is missing is best put: where the endpoint is.
    fn beside_endpoint(&self, profile: &Profile, name: &str) -> String {
        self.key(profile, "s3.endpoint").replace("endpoint", name)
    }

    fn is_r2(&self, profile: &Profile) -> bool {
        let endpoint = self.text(profile, "s3.endpoint").unwrap_or_default();
        endpoint.contains("r2.cloudflarestorage.com") || endpoint.contains("⟦R2_")
    }
}

/// The client takes a host and an optional port.
pub(super) fn s3_endpoint(profile: &Profile) -> Vec<Finding> {
    s3_stores(profile)
        .filter_map(|store| {
            let endpoint = store.text(profile, "s3.endpoint").unwrap_or_default();
            let key = store.key(profile, "s3.endpoint");
            let right = "the host only, such as <account>.r2.cloudflarestorage.com";
            let wrong = if endpoint.contains("://") {
                "begins with a scheme, which the S3 client refuses"
            } else if endpoint.contains('/') {
                "has a path, which the S3 client refuses"
            } else if endpoint.is_empty() {
                "is missing"
            } else {
                return None;
            };
            Some(profile.error("s3-endpoint", &key, wrong, right))
        })
        .collect()
}

/// Where R2 differs from S3.
pub(super) fn r2(profile: &Profile) -> Vec<Finding> {
    let mut findings = Vec::new();
    for store in s3_stores(profile).filter(|store| store.is_r2(profile)) {
        let md5 = store.key(profile, "s3.send_content_md5");
        let is_unknown = profile.text(&md5).is_some_and(is_unknown);
        if !profile.is(&md5, true) && !is_unknown {
            let key = if profile.get(&md5).is_some() {
                md5
            } else {
                store.beside_endpoint(profile, "send_content_md5")
            };
            let wrong = "is not on, and R2 refuses the checksums that are sent instead";
            findings.push(profile.error("r2-content-md5", &key, wrong, "set it to true"));
        }
        let sse = store.key(profile, "s3.sse.type");
        if profile.text(&sse).is_some() {
            let wrong = "asks for encryption by a header that R2 does not implement";
            let right = "leave sse out: R2 encrypts everything by itself";
            findings.push(profile.error("r2-sse", &sse, wrong, right));
        }
        if store.text(profile, "s3.region").is_none() {
            let key = store.beside_endpoint(profile, "region");
            let wrong = "is missing, so the client has to find it out";
            findings.push(profile.warning("r2-region", &key, wrong, "set it to auto"));
        }
    }
    findings
}

/// Bucket and prefix.
fn place<'a>(profile: &'a Profile, store: &Store) -> Option<(&'a str, &'a str)> {
    let bucket = store.text(profile, "s3.bucket_name")?;
    // common.storage has no prefix to inherit.
    let own = profile.text(&format!("{}.storage_prefix", store.path));
    Some((bucket, own.unwrap_or_default()))
}

/// Mimir does not start if blocks share bucket and prefix with rules or Alertmanager's state.
pub(super) fn shared_by_two(profile: &Profile) -> Vec<Finding> {
    let place = |store: &Store| place(profile, store);
    let Some(blocks) = s3_stores(profile).find(|store| store.path == BLOCKS.path) else {
        return Vec::new();
    };
    let others = s3_stores(profile).filter(|store| store.path != BLOCKS.path);
    others
        .filter(|other| place(&blocks).is_some_and(|blocks| place(other) == Some(blocks)))
        .map(|other| {
            let key = format!("{}.storage_prefix", other.path);
            let wrong = "is the same place as that of blocks_storage: Mimir does not start";
            let right = "give it a bucket or a storage_prefix of its own";
            profile.error("storage-shared", &key, wrong, right)
        })
        .collect()
}

/// Rules and Alertmanager's state in one place: Mimir starts and puts one beside the other.
pub(super) fn mixed(profile: &Profile) -> Vec<Finding> {
    let of = |path: &str| s3_stores(profile).find(|store| store.path == path);
    let (Some(rules), Some(alertmanager)) = (of(RULER.path), of(ALERTMANAGER.path)) else {
        return Vec::new();
    };
    let (ours, theirs) = (place(profile, &alertmanager), place(profile, &rules));
    // Beside the blocks is an error of its own.
    let blocks = of(BLOCKS.path).and_then(|blocks| place(profile, &blocks));
    if ours.is_none() || ours != theirs || ours == blocks {
        return Vec::new();
    }
    let wrong = "is the same place as that of ruler_storage: configurations and rules are mixed";
    let right = "give it a bucket or a storage_prefix of its own";
    vec![profile.warning("storage-mixed", "alertmanager_storage.storage_prefix", wrong, right)]
}

/// Letters and digits only: Mimir does not start otherwise.
pub(super) fn storage_prefix(profile: &Profile) -> Vec<Finding> {
    stores(profile)
        .filter_map(|store| {
            let prefix = store.text(profile, "storage_prefix")?;
            let is_plain = prefix.chars().all(|c| c.is_ascii_alphanumeric());
            if is_plain || is_unknown(prefix) {
                return None;
            }
            let wrong = format!("is '{prefix}': Mimir does not start");
            let key = store.key(profile, "storage_prefix");
            let right = "letters and digits only, without slashes";
            Some(profile.error("storage-prefix-form", &key, &wrong, right))
        })
        .collect()
}

/// Blocks in an object store, but rules or the Alertmanager's state on the local disk.
pub(super) fn on_this_disk(profile: &Profile) -> Vec<Finding> {
    if BLOCKS.backend(profile) != Some("s3") {
        return Vec::new();
    }
    stores(profile)
        .filter(|store| matches!(store.backend(profile), None | Some("filesystem")))
        .map(|store| {
            let wrong = "is the file system of one machine, unlike that of the blocks";
            let right = "set it to s3, so that every instance sees the same";
            profile.error("storage-on-disk", &store.key(profile, "backend"), wrong, right)
        })
        .collect()
}
