//! Verified tokens, kept until they expire.
//!
//! The key is the SHA-256 of the whole token, not the token: as exact for all practical purposes,
//! a fifth of the memory, and no credential stays in ours (docs/decisions/0003).

use std::hash::{BuildHasherDefault, Hasher};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest as sha256};
use moka::Expiry;
use moka::sync::Cache;

use super::verify::Verified;

/// The SHA-256 of a token.
pub(super) type Digest = [u8; 32];

pub(super) fn digest(token: &[u8]) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(sha256(&SHA256, token).as_ref());
    bytes
}

pub(super) struct TokenCache(Cache<Digest, Entry, BuildHasherDefault<DigestHasher>>);

#[derive(Clone)]
struct Entry {
    verified: Verified,
    /// Seconds that the token had left when it was put in.
    seconds_left: u64,
}

/// What an entry costs beyond its own bytes: a process that held 100,000 tokens of one organisation
/// had grown by 647 bytes for each, of which 208 were the entry's own.
const ENTRY_OVERHEAD_BYTES: usize = 440;

impl TokenCache {
    pub(super) fn new(max_bytes: u64) -> Self {
        let weigh = |_: &Digest, entry: &Entry| {
            let bytes =
                entry.verified.principal.weight() + size_of::<Entry>() + ENTRY_OVERHEAD_BYTES;
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        let cache = Cache::builder().max_capacity(max_bytes).weigher(weigh).expire_after(AtExpiry);
        Self(cache.build_with_hasher(BuildHasherDefault::default()))
    }

    pub(super) fn get(&self, digest: &Digest) -> Option<Verified> {
        self.0.get(digest).map(|entry| entry.verified)
    }

    pub(super) fn put(&self, digest: Digest, verified: Verified, now: i64) {
        let seconds_left = u64::try_from(verified.expires.saturating_sub(now)).unwrap_or(0);
        self.0.insert(digest, Entry { verified, seconds_left });
    }

    pub(super) fn remove(&self, digest: &Digest) {
        self.0.invalidate(digest);
    }

    pub(super) fn len(&self) -> u64 {
        self.0.entry_count()
    }
}

/// Frees the memory of a token once it has expired. Whether it is still valid is never decided
/// by this, but by the clock at each use.
struct AtExpiry;

impl Expiry<Digest, Entry> for AtExpiry {
    fn expire_after_create(&self, _: &Digest, entry: &Entry, _: Instant) -> Option<Duration> {
        // The leeway is at most two minutes; a century is as good as for ever.
        Some(Duration::from_secs(entry.seconds_left.min(3_153_600_000) + 120))
    }
}

/// A digest is as good as random already.
#[derive(Default)]
struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn write(&mut self, bytes: &[u8]) {
        for (at, byte) in bytes.iter().take(8).enumerate() {
            self.0 ^= u64::from(*byte) << (8 * at);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
