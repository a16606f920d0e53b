//! What a token's claims must say, as a list of checks in the order in which they are made.
//!
//! Each check is typed strictly: a claim of the wrong type is wrong, never absent
//! (CVE-2026-25537). `explain-token` walks the same list, so what it says cannot differ from what
//! `serve` does.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::principal::{Principal, Service, User, claimed};
use super::refusal::TokenFault;
use crate::config::{OauthClients, ServiceRole, TokenPolicy};
use crate::tenancy::UserId;

/// The claims of a token whose signature fits.
pub(super) struct Claims(Map<String, Value>);

/// One check: what it is about, and how it is made. A check that passes says what it found.
pub(super) struct Check {
    pub(super) about: &'static str,
    pub(super) make: fn(&Claims, &TokenPolicy, i64) -> Result<String, TokenFault>,
}

/// Every check. The role comes first, because it tells best what a project's API key is.
pub(super) const CHECKS: [Check; 9] = [
    Check { about: "role", make: role },
    Check { about: "iss", make: issuer },
    Check { about: "aud", make: audience },
    Check { about: "exp", make: expiry },
    Check { about: "nbf", make: not_before },
    Check { about: "iat", make: issued_at },
    Check { about: "sub", make: subject },
    Check { about: "is_anonymous", make: anonymous },
    Check { about: "client_id", make: oauth_client },
];

/// What the project's `service_role` key must say, where it is let in: it has no `sub` and no `aud`,
/// and may have no session.
pub(super) const SERVICE_CHECKS: [Check; 5] = [
    Check { about: "role", make: service_role },
    Check { about: "iss", make: service_issuer },
    Check { about: "exp", make: expiry },
    Check { about: "nbf", make: not_before },
    Check { about: "iat", make: issued_at },
];

impl Claims {
    pub(super) fn parse(json: &[u8]) -> Result<Self, TokenFault> {
        serde_json::from_slice(json).map(Self).map_err(|_| TokenFault::Claims)
    }

    /// The checks that this token has to pass.
    pub(super) fn checks(&self, policy: &TokenPolicy) -> &'static [Check] {
        if self.is_service(policy) { &SERVICE_CHECKS } else { &CHECKS }
    }

    fn is_service(&self, policy: &TokenPolicy) -> bool {
        let role = self.0.get("role").and_then(Value::as_str);
        policy.service_role == ServiceRole::Allowed && role == Some(SERVICE_ROLE)
    }

    /// Makes every check and, if all pass, the principal and the time at which the token ends.
    pub(super) fn verify(
        &self,
        policy: &TokenPolicy,
        now: i64,
    ) -> Result<(Principal, i64), TokenFault> {
        for check in self.checks(policy) {
            (check.make)(self, policy, now)?;
        }
        let expires = self.time("exp")?.ok_or(TokenFault::Claims)?;
        if self.is_service(policy) {
            return Ok((Principal::service(Service::ServiceRole), expires));
        }
        let user = UserId(self.subject()?);
        let optional = |claim| self.0.get(claim).and_then(Value::as_str);
        let claimed = claimed(
            &self.0,
            &policy.organisation_claim,
            policy.default_organisation_claim.as_deref(),
            policy.role_claim.as_deref(),
        );
        let issued = self.time("iat")?;
        let user = User::new(user, optional("session_id"), optional("jti"), issued, claimed);
        Ok((Principal::user(user), expires))
    }

    fn text(&self, claim: &'static str) -> Result<&str, TokenFault> {
        let wanted = TokenFault::ClaimType { claim, wanted: "a text" };
        self.0.get(claim).and_then(Value::as_str).ok_or(wanted)
    }

    /// A time in seconds since the epoch (RFC 7519's `NumericDate`, which may have a fraction).
    fn time(&self, claim: &'static str) -> Result<Option<i64>, TokenFault> {
        let wanted = TokenFault::ClaimType { claim, wanted: "a time in seconds since 1970" };
        let Some(value) = self.0.get(claim) else {
            return Ok(None);
        };
        // Beyond 2^53 a time makes no sense, and comparing it could overflow.
        const LATEST: f64 = 9_007_199_254_740_992.0;
        let seconds =
            value.as_f64().filter(|seconds| (0.0..LATEST).contains(seconds)).ok_or(wanted)?;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "within 2^53, and the fraction is dropped on purpose"
        )]
        Ok(Some(seconds.floor() as i64))
    }

    fn subject(&self) -> Result<Uuid, TokenFault> {
        let text = self.text("sub")?;
        // Only the form that Supabase writes: other spellings would be other identities elsewhere.
        let hyphenated = text.len() == uuid::fmt::Hyphenated::LENGTH;
        Uuid::try_parse(text).ok().filter(|_| hyphenated).ok_or(TokenFault::Subject)
    }
}

const SERVICE_ROLE: &str = "service_role";

fn service_role(claims: &Claims, _: &TokenPolicy, _: i64) -> Result<String, TokenFault> {
    Ok(format!("{:?}: a service, which is let in here", claims.text("role")?))
}

/// The legacy key is issued by `supabase` for a project (`ref`); where our issuer is a project of
/// Supabase's, it must be that one.
fn service_issuer(claims: &Claims, policy: &TokenPolicy, _: i64) -> Result<String, TokenFault> {
    let issuer = claims.text("iss")?;
    if issuer == policy.issuer {
        return Ok(issuer.to_owned());
    }
    let project =
        policy.issuer.strip_prefix("https://").and_then(|rest| rest.split_once(".supabase.co"));
    let is_ours = match (project, claims.0.get("ref")) {
        (Some((ours, _)), Some(theirs)) => theirs.as_str() == Some(ours),
        (Some(_), None) => false,
        // Self-hosted: the key has no project, and the secret is the project's own.
        (None, _) => true,
    };
    if issuer == "supabase" && is_ours { Ok(issuer.to_owned()) } else { Err(TokenFault::Issuer) }
}

fn leeway(policy: &TokenPolicy) -> i64 {
    i64::try_from(policy.leeway.as_secs()).unwrap_or(i64::MAX)
}

/// Whether a token's time is over.
pub(super) fn is_expired(expires: i64, policy: &TokenPolicy, now: i64) -> bool {
    now >= expires.saturating_add(leeway(policy))
}

fn role(claims: &Claims, _: &TokenPolicy, _: i64) -> Result<String, TokenFault> {
    match claims.text("role")? {
        role @ "authenticated" => Ok(role.to_owned()),
        other => Err(TokenFault::Role(other.chars().take(40).collect())),
    }
}

fn issuer(claims: &Claims, policy: &TokenPolicy, _: i64) -> Result<String, TokenFault> {
    let issuer = claims.text("iss")?;
    if issuer == policy.issuer { Ok(issuer.to_owned()) } else { Err(TokenFault::Issuer) }
}

/// `aud` is a string, or an array once a custom access token hook is on.
fn audience(claims: &Claims, policy: &TokenPolicy, _: i64) -> Result<String, TokenFault> {
    let wanted = TokenFault::ClaimType { claim: "aud", wanted: "a text or a list of texts" };
    let audiences = match claims.0.get("aud") {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(many)) => {
            many.iter().map(Value::as_str).collect::<Option<_>>().ok_or(wanted)?
        }
        _ => return Err(wanted),
    };
    if audiences.contains(&policy.audience.as_str()) {
        Ok(audiences.join(", "))
    } else {
        Err(TokenFault::Audience)
    }
}

fn expiry(claims: &Claims, policy: &TokenPolicy, now: i64) -> Result<String, TokenFault> {
    let wanted = TokenFault::ClaimType { claim: "exp", wanted: "a time in seconds since 1970" };
    let expires = claims.time("exp")?.ok_or(wanted)?;
    if is_expired(expires, policy, now) {
        return Err(TokenFault::Expired { seconds: now.saturating_sub(expires) });
    }
    Ok(format!("{expires}, in {} s", expires.saturating_sub(now)))
}

fn not_before(claims: &Claims, policy: &TokenPolicy, now: i64) -> Result<String, TokenFault> {
    match claims.time("nbf")? {
        None => Ok("not there, which is fine".to_owned()),
        Some(start) if start > now.saturating_add(leeway(policy)) => Err(TokenFault::NotYetValid),
        Some(start) => Ok(start.to_string()),
    }
}

fn issued_at(claims: &Claims, policy: &TokenPolicy, now: i64) -> Result<String, TokenFault> {
    let Some(issued) = claims.time("iat")? else {
        return Ok("not there, which is fine".to_owned());
    };
    let in_the_future = issued > now.saturating_add(leeway(policy));
    let after_the_end = claims.time("exp")?.is_some_and(|expires| issued > expires);
    if in_the_future || after_the_end { Err(TokenFault::IssuedAt) } else { Ok(issued.to_string()) }
}

fn subject(claims: &Claims, _: &TokenPolicy, _: i64) -> Result<String, TokenFault> {
    claims.subject().map(|user| user.to_string())
}

fn anonymous(claims: &Claims, policy: &TokenPolicy, _: i64) -> Result<String, TokenFault> {
    match claims.0.get("is_anonymous") {
        None => Ok("not there, which is fine".to_owned()),
        Some(Value::Bool(true)) if !policy.allow_anonymous => Err(TokenFault::Anonymous),
        Some(Value::Bool(anonymous)) => Ok(anonymous.to_string()),
        Some(_) => Err(TokenFault::ClaimType { claim: "is_anonymous", wanted: "true or false" }),
    }
}

fn oauth_client(claims: &Claims, policy: &TokenPolicy, _: i64) -> Result<String, TokenFault> {
    if !claims.0.contains_key("client_id") {
        return Ok("not there, which is fine".to_owned());
    }
    let client = claims.text("client_id")?;
    match &policy.oauth_clients {
        OauthClients::Any => Ok(client.to_owned()),
        OauthClients::Listed(listed) if listed.iter().any(|one| one == client) => {
            Ok(client.to_owned())
        }
        OauthClients::Listed(_) => Err(TokenFault::OauthClient),
    }
}

#[cfg(test)]
mod tests;
