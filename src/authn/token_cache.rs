//! Verified tokens, kept until they expire.
//!
//! The key is the [`Fingerprint`] of the whole token, not the token: as exact for all practical
//! purposes, a fifth of the memory, and no credential stays in ours (docs/decisions/0003).

use std::time::{Duration, Instant};

use moka::Expiry;
use moka::sync::Cache;

use super::fingerprint::{Fingerprint, FingerprintKey};
use super::verify::Verified;

pub(super) struct TokenCache {
    tokens: Cache<Fingerprint, Entry>,
    key: FingerprintKey,
}

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
        let weigh = |_: &Fingerprint, entry: &Entry| {
            let bytes =
                entry.verified.principal.weight() + size_of::<Entry>() + ENTRY_OVERHEAD_BYTES;
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        let tokens = Cache::builder().max_capacity(max_bytes).weigher(weigh).expire_after(AtExpiry);
        Self { tokens: tokens.build(), key: FingerprintKey::generate() }
    }

    /// What stands for a token here.
    pub(super) fn fingerprint(&self, token: &[u8]) -> Fingerprint {
        self.key.of_text(token)
    }

    pub(super) fn get(&self, token: &Fingerprint) -> Option<Verified> {
        self.tokens.get(token).map(|entry| entry.verified)
    }

    pub(super) fn put(&self, token: Fingerprint, verified: Verified, now: i64) {
        let seconds_left = u64::try_from(verified.expires.saturating_sub(now)).unwrap_or(0);
        self.tokens.insert(token, Entry { verified, seconds_left });
    }

    pub(super) fn remove(&self, token: &Fingerprint) {
        self.tokens.invalidate(token);
    }

    pub(super) fn len(&self) -> u64 {
        self.tokens.entry_count()
    }
}

/// Frees the memory of a token once it has expired. Whether it is still valid is never decided
/// by this, but by the clock at each use.
struct AtExpiry;

impl Expiry<Fingerprint, Entry> for AtExpiry {
    fn expire_after_create(&self, _: &Fingerprint, entry: &Entry, _: Instant) -> Option<Duration> {
        // The leeway is at most two minutes; a century is as good as for ever.
        Some(Duration::from_secs(entry.seconds_left.min(3_153_600_000) + 120))
    }
}
