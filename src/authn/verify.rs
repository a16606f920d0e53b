//! Verification of one token, from its bytes to a principal.

use std::sync::Arc;

use jsonwebtoken::Algorithm;

use super::claims::{Claims, is_expired};
use super::jws::{Jws, Named};
use super::key_set::VerificationKey;
use super::key_source::KeySource;
use super::principal::Principal;
use super::refusal::{Refusal, TokenFault};
use crate::config::{AuthConfig, Secret, TokenPolicy};
use crate::tenancy::UserId;

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
    shared_secrets: Vec<Arc<VerificationKey>>,
}

/// Why a token has not passed.
pub(super) struct Failed {
    pub(super) refusal: Refusal,
    /// The user, if the signature fits.
    pub(super) user: Option<UserId>,
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, user: None }
    }
}

impl From<TokenFault> for Failed {
    fn from(fault: TokenFault) -> Self {
        Refusal::Token(fault).into()
    }
}

impl Verifier {
    pub(super) fn new(config: &AuthConfig, keys: Arc<KeySource>) -> Self {
        Self { policy: config.tokens.clone(), keys, shared_secrets: shared_secrets(config) }
    }

    pub(super) async fn verify(&self, token: &str, now: i64) -> Result<Verified, Failed> {
        let jws = Jws::parse(token)?;
        let (claims, key) = self.check_signature(&jws).await?;
        match claims.verify(&self.policy, now) {
            Ok((principal, expires)) => {
                Ok(Verified { principal: Arc::new(principal), expires, key })
            }
            Err(fault) => Err(Failed { refusal: Refusal::Token(fault), user: claims.user() }),
        }
    }

    /// What tokens must say.
    pub(super) fn policy(&self) -> &TokenPolicy {
        &self.policy
    }

    async fn check_signature(
        &self,
        jws: &Jws<'_>,
    ) -> Result<(Claims, Arc<VerificationKey>), Refusal> {
        if jws.algorithm == Named::Known(Algorithm::HS256) {
            // Supabase gives legacy tokens a kid too, but the secrets have no names.
            return verify_by_secret(jws, &self.shared_secrets).map_err(Refusal::Token);
        }
        let absent = |fault| Refusal::Token(jws.algorithm.or(fault));
        let id = jws.key_id.as_deref().ok_or_else(|| absent(TokenFault::NoKeyId))?;
        let key = self.keys.find(id, jws.algorithm).await.map_err(|refusal| match refusal {
            Refusal::Token(fault) => absent(fault),
            ours => ours,
        })?;
        let claims = verify_signature(jws, &key).map_err(Refusal::Token)?;
        Ok((claims, key))
    }

    /// Whether a token that passed once would still pass: time goes on and keys are withdrawn.
    pub(super) fn still_holds(&self, verified: &Verified, now: i64) -> bool {
        let by_secret = verified.key.algorithm == Algorithm::HS256;
        !is_expired(verified.expires, &self.policy, now)
            && !verified.key.is_retired()
            && (by_secret || self.keys.is_trusted())
    }
}

/// The shared secrets as keys of their own, bound to HS256.
pub(super) fn shared_secrets(config: &AuthConfig) -> Vec<Arc<VerificationKey>> {
    let key = |secret: &Secret| Arc::new(VerificationKey::shared_secret(secret.expose()));
    config.hs256_secrets.iter().map(key).collect()
}

/// Checks a signature by any of the shared secrets.
pub(super) fn verify_by_secret(
    jws: &Jws<'_>,
    secrets: &[Arc<VerificationKey>],
) -> Result<(Claims, Arc<VerificationKey>), TokenFault> {
    let mut outcome = Err(TokenFault::SharedSecret);
    for secret in secrets {
        outcome = verify_signature(jws, secret).map(|claims| (claims, Arc::clone(secret)));
        if !matches!(outcome, Err(TokenFault::Signature)) {
            break;
        }
    }
    outcome
}

/// Checks a signature by the algorithm *of the key*; the caller has found the key by a name and an
/// algorithm that agree with it, and this does not rely on that.
pub(super) fn verify_signature(jws: &Jws<'_>, key: &VerificationKey) -> Result<Claims, TokenFault> {
    if jws.algorithm != Named::Known(key.algorithm) {
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
