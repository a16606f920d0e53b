//! Who calls: credential -> [`Principal`].
//!
//! A bearer token is a Supabase access token. The way is: [`credential`] (which bytes), [`jws`]
//! (their outer form), [`key_source`] (the key that the token names), signature, [`claims`] (what
//! the issuer says). The algorithm is the key's, never the token's word. A verified token is kept
//! in the [`token_cache`] until it expires or its key leaves the set; whether it was revoked
//! ([`revocations`], [`sessions`]) is asked with every request.
//!
//! A device key is opaque: its hash is looked up ([`device_keys`]). So is what names the device in a client's
//! certificate, if the request has no other credential. An admin key stands in the
//! configuration ([`admin_keys`]), and so does the secret of the database's webhooks ([`webhook`]),
//! which is asked for on their route and opens no other.
//!
//! A refusal never depends on the route or the organisation; those are `authz`'s.

mod admin_keys;
mod claims;
mod credential;
mod device_keys;
mod explain;
mod fingerprint;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod json;
mod jws;
mod key_set;
mod key_source;
mod principal;
mod refusal;
mod revocations;
mod sessions;
mod token_cache;
mod verify;
mod webhook;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;

use crate::clock::Clock;
use crate::config::{AuthConfig, Secret};
use crate::directory::Origin;
use crate::store::KeyHash;
use crate::telemetry::Metrics;

pub use device_keys::format::{DEVICE_KEY_PREFIX, NewKey, hash_of as device_key_hash};
pub use device_keys::{DeviceKeyQueue, DeviceKeys};
pub use explain::{Explanation, Verdict, bare_credential, explain};
pub use key_set::KeySet;
pub use key_source::{
    FetchError, KeySetReport, KeySource, KeySourceState, fetch as fetch_key_set, key_set_client,
};
#[cfg(test)]
pub(crate) use principal::samples;
pub use principal::{
    Claimed, ClaimedOrganisations, ClaimedRole, Device, Identity, Principal, PrincipalId, Service,
    User,
};
pub use refusal::{CredentialFault, DeviceKeyFault, Refusal, RevokedUser, Times, TokenFault};
pub use revocations::Revocations;
pub use sessions::{Sessions, refused_client};

use admin_keys::AdminKeys;
use credential::Credential;
use refusal::CredentialFault::Password;
use token_cache::TokenCache;
use verify::Verifier;
use webhook::WebhookSecret;

/// Turns credentials into principals. One for the process, shared by all workers.
pub struct Authenticator {
    verifier: Verifier,
    cache: Arc<TokenCache>,
    admin_keys: AdminKeys,
    webhook: WebhookSecret,
    tables: Tables,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// What the database knows of credentials; nothing where there is none.
#[derive(Clone, Default)]
pub struct Tables {
    pub device_keys: Option<Arc<DeviceKeys>>,
    pub revocations: Option<Arc<Revocations>>,
    /// Sessions, if they are checked.
    pub sessions: Option<Arc<Sessions>>,
}

/// A proven caller, and how the proof was come by.
pub struct Caller {
    pub principal: Arc<Principal>,
    /// Whether the credential was verified for this request, or remembered.
    pub proof: Proof,
}

/// A refusal, and whose credential it was if that is certain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub refusal: Refusal,
    /// Whose it was, for the log: the token's signature fits, or the device's key is known.
    pub known: Option<Known>,
}

/// Who has shown a credential that is genuine, and refused for another reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub kind: &'static str,
    pub id: PrincipalId,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let device = match &refusal {
            Refusal::DeviceKey(
                DeviceKeyFault::Revoked(device) | DeviceKeyFault::Expired { device, .. },
            ) => Some(device.0),
            _ => None,
        };
        let known = device.map(|id| Known { kind: "device", id: PrincipalId::Uuid(id) });
        Self { refusal, known }
    }
}

impl From<verify::Failed> for Refused {
    fn from(failed: verify::Failed) -> Self {
        let user = |user: crate::tenancy::UserId| PrincipalId::Uuid(user.0);
        let known = failed.user.map(|id| Known { kind: "user", id: user(id) });
        Self { refusal: failed.refusal, known }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    Verified,
    Cached,
    /// Before, and the database cannot be asked whether it still holds.
    Stale(Duration),
}

impl From<Origin> for Proof {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::Read => Self::Verified,
            Origin::Cached(_) => Self::Cached,
            Origin::Stale(age) => Self::Stale(age),
        }
    }
}

impl Authenticator {
    /// Makes an authenticator from its section of the configuration.
    pub fn new(
        config: &AuthConfig,
        keys: Arc<KeySource>,
        tables: Tables,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            verifier: Verifier::new(config, keys),
            cache: Arc::new(TokenCache::new(config.token_cache_bytes)),
            admin_keys: AdminKeys::new(&config.admin_keys),
            webhook: WebhookSecret::default(),
            tables,
            clock,
            metrics,
        }
    }

    /// Says who sent a request, or why that cannot be said. A certificate, as a device is looked up by it,
    /// counts where the request has no other credential.
    ///
    /// Waits only when a key is unknown and the key set may be fetched again, or when the database
    /// has to be asked.
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        certificate: Option<&KeyHash>,
        client: IpAddr,
    ) -> Result<Caller, Refused> {
        match credential::read(headers, certificate)? {
            Credential::Bearer(bytes) => self.by_token(bytes).await,
            Credential::DeviceKey(hash) => Ok(self.by_device_key(&hash, client).await?),
            Credential::Certificate(hash) => {
                let found = self.by_device_key(&hash, client).await;
                let unknown = Refusal::DeviceKey(DeviceKeyFault::Unknown);
                let no_device = Refusal::DeviceKey(DeviceKeyFault::Certificate);
                Ok(found.map_err(|why| if why == unknown { no_device } else { why })?)
            }
            Credential::Password(password) => {
                let digest = fingerprint::digest(&password);
                let wrong = || credential::mistake(&password).unwrap_or(Password);
                self.by_admin_key(&digest).ok_or_else(|| Refusal::Credential(wrong()).into())
            }
        }
    }

    /// Remembers what another one has verified: only right if both hold tokens against the same policy and
    /// the same keys.
    #[must_use]
    pub fn with_tokens_of(mut self, other: &Self) -> Self {
        self.cache = Arc::clone(&other.cache);
        self
    }

    /// The same with a webhook's secret, which is none if it is empty.
    #[must_use]
    pub fn with_webhook(mut self, secret: &Secret) -> Self {
        self.webhook = WebhookSecret::new(secret);
        self
    }

    /// Says whether a request comes from the database's webhooks.
    pub fn authenticate_webhook(&self, headers: &HeaderMap) -> Result<Caller, Refused> {
        self.webhook.check(headers)?;
        let principal = Arc::new(Principal::service(Service::Webhook));
        Ok(Caller { principal, proof: Proof::Verified })
    }

    async fn by_device_key(&self, hash: &KeyHash, client: IpAddr) -> Result<Caller, Refusal> {
        let off = Refusal::DeviceKey(DeviceKeyFault::Off);
        let keys = self.tables.device_keys.as_ref().ok_or(off)?;
        let (principal, origin) = keys.authenticate(hash, client).await?;
        Ok(Caller { principal, proof: origin.into() })
    }

    fn by_admin_key(&self, digest: &fingerprint::Digest) -> Option<Caller> {
        let principal = || Arc::new(Principal::service(Service::AdminKey));
        self.admin_keys
            .has(digest)
            .then(|| Caller { principal: principal(), proof: Proof::Verified })
    }

    async fn by_token(&self, bytes: &[u8]) -> Result<Caller, Refused> {
        let fingerprint = self.cache.fingerprint(bytes);
        let now = self.clock.unix_seconds();
        if let Some(verified) = self.cache.get(&fingerprint) {
            // The key may have left the set, or the set may be too old to be trusted.
            if self.verifier.still_holds(&verified, now) {
                self.metrics.token_cache_hits.increment(1);
                return self.unless_revoked(verified.principal, Proof::Cached).await;
            }
            self.cache.remove(&fingerprint);
        }
        if let Some(service) = self.by_admin_key(&fingerprint::digest(bytes)) {
            return Ok(service);
        }
        self.metrics.token_cache_misses.increment(1);
        let token = credential::token(bytes).map_err(Refusal::Credential)?;
        let verified = self.verifier.verify(token, now).await?;
        let principal = Arc::clone(&verified.principal);
        self.cache.put(fingerprint, verified, now);
        self.unless_revoked(principal, Proof::Verified).await
    }

    async fn unless_revoked(
        &self,
        principal: Arc<Principal>,
        proof: Proof,
    ) -> Result<Caller, Refused> {
        match self.check_not_revoked(&principal).await {
            Ok(()) => Ok(Caller { principal, proof }),
            Err(refusal) => {
                let known = Known { kind: principal.kind(), id: principal.id() };
                Err(Refused { refusal, known: Some(known) })
            }
        }
    }

    async fn check_not_revoked(&self, principal: &Principal) -> Result<(), Refusal> {
        let Identity::User(user) = principal.identity() else { return Ok(()) };
        if let Some(revocations) = &self.tables.revocations {
            revocations.check(user)?;
        }
        if let Some(sessions) = &self.tables.sessions {
            sessions.check(user, &self.verifier.policy().oauth_clients).await?;
        }
        Ok(())
    }

    /// Tokens in the cache, approximately.
    pub fn cached_tokens(&self) -> u64 {
        self.cache.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use http::header::AUTHORIZATION;
    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;
    use crate::config::{Config, Environment};

    #[tokio::test]
    async fn a_cached_token_is_refused_once_it_has_expired() {
        const NOW: i64 = 1_800_000_000;
        const SECRET: &str = "a-secret-of-at-least-thirty-two-bytes";
        let text = format!(
            "[auth]\nissuer = \"https://ref.supabase.co/auth/v1\"\njwks_url = \"\"\n\
             hs256_secret = {SECRET:?}\nleeway = \"10s\"\n[upstream]\nurls = [\"http://m\"]"
        );
        let config = Config::read(&text, &Environment::default()).unwrap().auth;
        let (clock, hand) = Clock::manual(NOW);
        let metrics = Arc::new(Metrics::register());
        let keys = Arc::new(KeySource::new(None, Arc::clone(&metrics)));
        let authenticator = Authenticator::new(&config, keys, Tables::default(), clock, metrics);
        let claims = json!({
            "iss": "https://ref.supabase.co/auth/v1", "aud": "authenticated",
            "role": "authenticated", "sub": "11111111-2222-4333-8444-555555555555",
            "iat": NOW, "exp": NOW + 60, "app_metadata": {"org_id": "org-a"},
        });
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let token = encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap();
        let headers: HeaderMap =
            [(AUTHORIZATION, format!("Bearer {token}").parse().unwrap())].into_iter().collect();
        let at = async |seconds: i64| {
            hand.store(NOW + seconds, Ordering::Relaxed);
            authenticator.authenticate(&headers, None, [127, 0, 0, 1].into()).await
        };
        assert_eq!(at(0).await.unwrap().proof, Proof::Verified);
        assert_eq!(at(69).await.unwrap().proof, Proof::Cached);
        let refused = at(71).await.err().unwrap();
        assert_eq!(refused.refusal.reason(), crate::reason::Reason::Expired);
        assert_eq!(at(69).await.unwrap().proof, Proof::Verified);
    }
}
