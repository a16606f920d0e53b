//! Verification of one token, from its bytes to a principal.

use std::sync::Arc;

use jsonwebtoken::Algorithm;

use super::claims::{Claims, is_expired};
use super::jws::Jws;
use super::key_set::VerificationKey;
use super::key_source::KeySource;
use super::principal::Principal;
use super::refusal::{Refusal, TokenFault};
use crate::config::{AuthConfig, TokenPolicy};

/// A token that has passed, as the cache keeps it.
#[derive(Clone)]
pub(super) struct Verified {
    pub(super) principal: Arc<Principal>,
    pub(super) expires: i64,
    key: Arc<VerificationKey>,
}

/// Everything that a token is held against.
pub(super) struct Verifier {
    policy: TokenPolicy,
    keys: Arc<KeySource>,
    shared_secret: Option<Arc<VerificationKey>>,
}

impl Verifier {
    pub(super) fn new(config: &AuthConfig, keys: Arc<KeySource>) -> Self {
        Self { policy: config.tokens.clone(), keys, shared_secret: shared_secret(config) }
    }

    pub(super) async fn verify(&self, token: &str, now: i64) -> Result<Verified, Refusal> {
        let jws = Jws::parse(token).map_err(Refusal::Token)?;
        let key = self.key_of(&jws).await?;
        let claims = verify_signature(&jws, &key).map_err(Refusal::Token)?;
        let (principal, expires) = claims.verify(&self.policy, now).map_err(Refusal::Token)?;
        Ok(Verified { principal: Arc::new(principal), expires, key })
    }

    /// Whether a token that passed once would still pass: time goes on and keys are withdrawn.
    pub(super) fn still_holds(&self, verified: &Verified, now: i64) -> bool {
        let by_secret = verified.key.algorithm == Algorithm::HS256;
        !is_expired(verified.expires, &self.policy, now)
            && !verified.key.is_retired()
            && (by_secret || self.keys.is_trusted())
    }

    async fn key_of(&self, jws: &Jws<'_>) -> Result<Arc<VerificationKey>, Refusal> {
        if jws.algorithm == Algorithm::HS256 {
            // Supabase gives legacy tokens a kid too, but only one secret exists.
            return self.shared_secret.clone().ok_or(Refusal::Token(TokenFault::SharedSecret));
        }
        let id = jws.key_id.as_deref().ok_or(Refusal::Token(TokenFault::NoKeyId))?;
        self.keys.find(id, jws.algorithm).await
    }
}

/// The shared secret as a key of its own, bound to HS256.
pub(super) fn shared_secret(config: &AuthConfig) -> Option<Arc<VerificationKey>> {
    let secret = config.hs256_secret.expose();
    (!secret.is_empty()).then(|| Arc::new(VerificationKey::shared_secret(secret)))
}

/// Checks a signature by the algorithm *of the key*; the caller has found the key by a name and an
/// algorithm that agree with it, and this does not rely on that.
pub(super) fn verify_signature(jws: &Jws<'_>, key: &VerificationKey) -> Result<Claims, TokenFault> {
    if jws.algorithm != key.algorithm {
        return Err(TokenFault::AlgorithmOfKey);
    }
    let fits = jsonwebtoken::crypto::verify(
        jws.signature,
        jws.message.as_bytes(),
        &key.key,
        key.algorithm,
    );
    if !matches!(fits, Ok(true)) {
        return Err(TokenFault::Signature);
    }
    Claims::parse(&jws.claims()?)
}
