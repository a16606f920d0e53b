//! `explain-token`: the way of one token up to its principal, step by step, with what was found at
//! each. It walks the same functions as `serve`.

use std::fmt;
use std::sync::Arc;

use jsonwebtoken::Algorithm;

use super::admin_keys::AdminKeys;
use super::credential;
use super::jws::Jws;
use super::key_set::{KeySet, Lookup, VerificationKey};
use super::principal::{Identity, Principal, Service};
use super::refusal::TokenFault;
use super::token_cache::digest;
use super::verify::{shared_secret, verify_signature};
use crate::config::AuthConfig;

/// What was found at each step.
#[derive(Default)]
pub struct Explanation {
    steps: Vec<(String, Result<String, String>)>,
    principal: Option<Arc<Principal>>,
}

impl Explanation {
    /// One problem that ends it all.
    pub fn of_problem(about: &str, problem: String) -> Self {
        let mut explanation = Self::default();
        explanation.step(about, Err(problem));
        explanation
    }

    /// Whether the credential would be let in, with an organisation that has a tenant.
    pub fn passes(&self) -> bool {
        self.steps.iter().all(|(_, outcome)| outcome.is_ok())
    }

    /// Whose it is, if it is believed.
    pub fn principal(&self) -> Option<Arc<Principal>> {
        self.principal.clone()
    }

    /// Whether it is a service's.
    pub fn is_service(&self) -> bool {
        let identity = self.principal.as_ref().map(|principal| principal.identity());
        matches!(identity, Some(Identity::Service(_)))
    }

    /// Adds a step: what it was about, and what was found or was wrong.
    pub fn step(&mut self, about: &str, outcome: Result<String, String>) {
        self.steps.push((about.to_owned(), outcome));
    }
}

/// Walks a token's way up to the principal.
pub fn explain(
    token: &str,
    auth: &AuthConfig,
    keys: Result<&KeySet, &str>,
    now: i64,
) -> Explanation {
    let mut explanation = Explanation::default();
    let is_admin_key = AdminKeys::new(&auth.admin_keys).has(&digest(token.trim().as_bytes()));
    if is_admin_key {
        explanation.step("form", Ok("an admin key".to_owned()));
        explanation.principal = Some(Arc::new(Principal::service(Service::AdminKey)));
        return explanation;
    }
    if let Err(fault) = credential::token(token.trim().as_bytes()) {
        explanation.step("form", Err(fault.to_string()));
        return explanation;
    }
    let jws = match Jws::parse(token.trim()) {
        Ok(jws) => jws,
        Err(fault) => {
            explanation.step("form", Err(fault.to_string()));
            return explanation;
        }
    };
    let kid = jws.key_id.as_deref().unwrap_or("none");
    explanation.step("form", Ok(format!("a JSON web token, alg {:?}, kid {kid:?}", jws.algorithm)));
    let key = match find_key(&jws, auth, keys) {
        Ok(key) => key,
        Err(problem) => {
            explanation.step("key", Err(problem));
            return explanation;
        }
    };
    explanation.step("key", Ok(format!("known, bound to {:?}", key.algorithm)));
    let claims = match verify_signature(&jws, &key) {
        Ok(claims) => claims,
        Err(fault) => {
            explanation.step("signature", Err(fault.to_string()));
            return explanation;
        }
    };
    explanation.step("signature", Ok("fits".to_owned()));
    for check in claims.checks(&auth.tokens) {
        let outcome = (check.make)(&claims, &auth.tokens, now);
        explanation.step(check.about, outcome.map_err(|fault| fault.to_string()));
    }
    if let Ok((principal, _)) = claims.verify(&auth.tokens, now) {
        explanation.principal = Some(Arc::new(principal));
    }
    explanation
}

fn find_key(
    jws: &Jws<'_>,
    auth: &AuthConfig,
    keys: Result<&KeySet, &str>,
) -> Result<Arc<VerificationKey>, String> {
    if jws.algorithm == Algorithm::HS256 {
        return shared_secret(auth).ok_or(TokenFault::SharedSecret.to_string());
    }
    let id = jws.key_id.as_deref().ok_or(TokenFault::NoKeyId.to_string())?;
    let keys = keys?;
    match keys.find(id, jws.algorithm) {
        Lookup::Found(key) => Ok(key),
        Lookup::OtherAlgorithm => Err(TokenFault::AlgorithmOfKey.to_string()),
        Lookup::Unknown if keys.left_out().is_empty() => Err(TokenFault::UnknownKey.to_string()),
        Lookup::Unknown => Err(format!(
            "{}; left out of the set: {}",
            TokenFault::UnknownKey,
            keys.left_out().join("; ")
        )),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (about, outcome) in &self.steps {
            match outcome {
                Ok(found) => writeln!(f, "ok      {about:<13} {found}")?,
                Err(problem) => writeln!(f, "REFUSED {about:<13} {problem}")?,
            }
        }
        f.write_str(if self.passes() { "it passes" } else { "it does not pass" })
    }
}
