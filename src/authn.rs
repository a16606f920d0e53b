//! Who calls: credential -> [`Principal`].
//!
//! A bearer token is a Supabase access token. The way is: [`credential`] (which bytes), [`jws`]
//! (their outer form), [`key_source`] (the key that the token names), signature, [`claims`] (what
//! the issuer says). The algorithm is the key's, never the token's word. A verified token is kept
//! in the [`token_cache`] until it expires or its key leaves the set.
//!
//! A refusal never depends on the route or the organisation; those are `authz`'s.

mod claims;
mod credential;
mod explain;
mod jws;
mod key_set;
mod key_source;
mod principal;
mod refusal;
mod token_cache;
mod verify;

use std::sync::Arc;

use http::HeaderMap;

use crate::clock::Clock;
use crate::config::AuthConfig;
use crate::telemetry::Metrics;

pub use explain::{Explanation, explain};
pub use key_set::KeySet;
pub use key_source::{KeySource, KeySourceState, fetch as fetch_key_set};
pub use principal::{ClaimedOrganisations, Principal};
pub use refusal::{CredentialFault, Refusal, TokenFault};

use credential::Credential;
use token_cache::TokenCache;
use verify::Verifier;

/// Turns credentials into principals. One for the process, shared by all workers.
pub struct Authenticator {
    verifier: Verifier,
    cache: TokenCache,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl Authenticator {
    /// Makes an authenticator from its section of the configuration.
    pub fn new(
        config: &AuthConfig,
        keys: Arc<KeySource>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            verifier: Verifier::new(config, keys),
            cache: TokenCache::new(config.token_cache_bytes),
            clock,
            metrics,
        }
    }

    /// Says who sent a request, or why that cannot be said.
    ///
    /// Waits only when a key is unknown and the key set may be fetched anew.
    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<Arc<Principal>, Refusal> {
        let Credential::Bearer(bytes) = credential::read(headers).map_err(Refusal::Credential)?;
        let digest = token_cache::digest(bytes);
        let now = self.clock.unix_seconds();
        if let Some(verified) = self.cache.get(&digest) {
            // The key may have left the set, or the set may be too old to be trusted.
            if self.verifier.still_holds(&verified, now) {
                self.metrics.token_cache_hits.increment(1);
                return Ok(Arc::clone(&verified.principal));
            }
            self.cache.remove(&digest);
        }
        self.metrics.token_cache_misses.increment(1);
        let token = credential::token(bytes).map_err(Refusal::Credential)?;
        let verified = self.verifier.verify(token, now).await?;
        let principal = Arc::clone(&verified.principal);
        self.cache.put(digest, verified, now);
        Ok(principal)
    }

    /// Tokens in the cache, approximately.
    pub fn cached_tokens(&self) -> u64 {
        self.cache.len()
    }
}
