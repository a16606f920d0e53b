//! `explain-token`: the way of one token, step by step, with what was found at each. It walks the
//! same functions as `serve`.

use std::fmt;
use std::sync::Arc;

use jsonwebtoken::Algorithm;

use super::claims::CHECKS;
use super::jws::Jws;
use super::key_set::{KeySet, Lookup, VerificationKey};
use super::principal::ClaimedOrganisations;
use super::refusal::TokenFault;
use super::verify::{shared_secret, verify_signature};
use crate::config::{AuthConfig, TenancyConfig};

/// What was found at each step.
pub struct Explanation {
    steps: Vec<(String, Result<String, String>)>,
}

impl Explanation {
    /// Whether the token would be let in, with an organisation that has a tenant.
    pub fn passes(&self) -> bool {
        self.steps.iter().all(|(_, outcome)| outcome.is_ok())
    }

    fn step(&mut self, about: &str, outcome: Result<String, String>) {
        self.steps.push((about.to_owned(), outcome));
    }
}

/// Walks a token's way. Without a key set (none given, none fetched) an asymmetric signature
/// cannot be checked, and the explanation says so.
pub fn explain(
    token: &str,
    auth: &AuthConfig,
    tenancy: &TenancyConfig,
    keys: Result<&KeySet, &str>,
    now: i64,
) -> Explanation {
    let mut explanation = Explanation { steps: Vec::new() };
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
    for check in &CHECKS {
        let outcome = (check.make)(&claims, &auth.tokens, now);
        explanation.step(check.about, outcome.map_err(|fault| fault.to_string()));
    }
    if let Ok((principal, _)) = claims.verify(&auth.tokens, now) {
        explain_organisations(&mut explanation, principal.organisations(), auth, tenancy);
    }
    explanation
}

fn explain_organisations(
    explanation: &mut Explanation,
    claimed: &ClaimedOrganisations,
    auth: &AuthConfig,
    tenancy: &TenancyConfig,
) {
    let claim = &auth.tokens.organisation_claim;
    match claimed {
        ClaimedOrganisations::Missing => {
            explanation.step("organisation", Err(format!("the claim {claim} is not there")));
        }
        ClaimedOrganisations::Unreadable(problem) => {
            explanation.step("organisation", Err(problem.clone()));
        }
        ClaimedOrganisations::Listed(organisations) => {
            for organisation in organisations {
                let outcome = tenancy.template.tenant_of(organisation);
                let found =
                    outcome.map(|tenant| format!("{organisation}, tenant {}", tenant.as_str()));
                explanation.step("organisation", found.map_err(|error| error.to_string()));
            }
        }
    }
    let scopes: Vec<_> = tenancy.user_scopes.names().collect();
    explanation.step("scopes", Ok(scopes.join(", ")));
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
        f.write_str(if self.passes() { "the token passes" } else { "the token does not pass" })
    }
}
