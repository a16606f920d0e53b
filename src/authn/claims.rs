//! What a token's claims must say, as a list of checks in the order in which they are made.
//!
//! Each check is typed strictly: a claim of the wrong type is wrong, never absent
//! (CVE-2026-25537). `explain-token` walks the same list, so what it says cannot differ from what
//! `serve` does.

use std::fmt;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::json;
use super::principal::{Principal, Service, User, claimed};
use super::refusal::{Times, TokenFault};
use crate::config::{AssuranceLevel, OauthClients, ServiceRole, TokenPolicy};
use crate::tenancy::UserId;

/// The claims of a token whose signature fits.
pub(super) struct Claims(Map<String, Value>);

/// One check: its subject and its function. A check that passes says what it found.
pub(super) struct Check {
    pub(super) about: &'static str,
    pub(super) make: for<'a> fn(&'a Claims, &TokenPolicy, i64) -> Checked<'a>,
}

type Checked<'a> = Result<Found<'a>, TokenFault>;

/// What a check that passes has found. `explain-token` shows it; a request needs no text of it.
#[derive(Debug, PartialEq)]
pub(super) enum Found<'a> {
    Absent,
    Text(&'a str),
    Texts(Vec<&'a str>),
    Flag(bool),
    User(UserId),
    Time(i64),
    End { expires: i64, seconds_left: i64 },
    Service { role: &'a str },
}

/// Every check. The role comes first, because it tells best what a project's API key is; the second factor
/// last, because whoever lacks it has a good token and is to add something to it.
pub(super) const CHECKS: [Check; 12] = [
    Check { about: "role", make: role },
    Check { about: "iss", make: issuer },
    Check { about: "aud", make: audience },
    Check { about: "exp", make: expiry },
    Check { about: "nbf", make: not_before },
    Check { about: "iat", make: issued_at },
    Check { about: "sub", make: subject },
    Check { about: "session_id", make: session },
    Check { about: "jti", make: token_id },
    Check { about: "is_anonymous", make: anonymous },
    Check { about: "client_id", make: oauth_client },
    Check { about: "aal", make: assurance },
];

/// The checks of the project's `service_role` key, where it is let in. It has no `sub`, no `session_id` and no `aud`.
pub(super) const SERVICE_CHECKS: [Check; 5] = [
    Check { about: "role", make: service_role },
    Check { about: "iss", make: service_issuer },
    Check { about: "exp", make: expiry },
    Check { about: "nbf", make: not_before },
    Check { about: "iat", make: issued_at },
];

impl Claims {
    pub(super) fn parse(json: &[u8]) -> Result<Self, TokenFault> {
        json::object(json).map(Self).ok_or(TokenFault::Claims)
    }

    /// The user, if readable: for the log, whatever else is wrong with the token.
    pub(super) fn user(&self) -> Option<UserId> {
        self.subject().ok().map(UserId)
    }

    /// The checks that this token has to pass.
    pub(super) fn checks(&self, policy: &TokenPolicy) -> &'static [Check] {
        if self.is_service(policy) { &SERVICE_CHECKS } else { &CHECKS }
    }

    /// Whether it is the project's own key. Supabase lets an administrator give its role to a user, too; such a token
    /// names the user or a session. As a service's it would pass revocations, bans and sign-outs.
    fn is_service(&self, policy: &TokenPolicy) -> bool {
        let is_of_a_user = ["sub", "session_id"].iter().any(|claim| self.0.contains_key(*claim));
        let role = self.0.get("role").and_then(Value::as_str);
        policy.service_role == ServiceRole::Allowed && role == Some(SERVICE_ROLE) && !is_of_a_user
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
        let claimed = claimed(
            &self.0,
            &policy.organisation_claim,
            &policy.organisation_form,
            policy.default_organisation_claim.as_deref(),
            policy.role_claim.as_deref(),
        );
        let issued = self.time("iat")?;
        let (session, token_id) = (self.optional("session_id")?, self.optional("jti")?);
        let email = self.0.get("email").and_then(Value::as_str);
        let user = User::new(user, session, token_id, issued, email, claimed);
        Ok((Principal::user(user.at_level(self.assurance_level()?)), expires))
    }

    fn text(&self, claim: &'static str) -> Result<&str, TokenFault> {
        let wanted = "a text";
        match self.0.get(claim) {
            None => Err(TokenFault::NoClaim { claim, wanted }),
            Some(value) => value.as_str().ok_or(TokenFault::ClaimType { claim, wanted }),
        }
    }

    /// The text of a claim that is compared with a setting.
    fn compared(
        &self,
        claim: &'static str,
        setting: &'static str,
        wanted: &impl fmt::Debug,
    ) -> Result<&str, TokenFault> {
        self.text(claim).map_err(|fault| uncompared(fault, setting, wanted))
    }

    /// An identifier by which tokens are revoked: one that is there and cannot be read would be a
    /// token that cannot be revoked by it.
    fn optional(&self, claim: &'static str) -> Result<Option<&str>, TokenFault> {
        match self.0.get(claim) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
            Some(_) => Err(TokenFault::ClaimType { claim, wanted: "a text that is not empty" }),
        }
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

    /// How the user has signed in. Supabase Auth gives a whole access token after the password and another
    /// after the second factor; only this tells them apart. What is none of its levels proves nothing.
    fn assurance_level(&self) -> Result<AssuranceLevel, TokenFault> {
        match self.0.get("aal") {
            Some(Value::String(level)) if matches!(level.as_str(), "aal2" | "aal3") => {
                Ok(AssuranceLevel::Aal2)
            }
            None | Some(Value::String(_)) => Ok(AssuranceLevel::Aal1),
            Some(_) => Err(TokenFault::ClaimType { claim: "aal", wanted: "a text" }),
        }
    }

    /// The claim beside `client_id` by which a token is an OAuth client's. A custom access token hook writes the
    /// claims and may drop `client_id`. Supabase Auth opens a session of its own for each client: this method is in
    /// the `amr` of all tokens of it, and what the client was granted in `scope`.
    /// <https://github.com/supabase/auth/blob/master/internal/tokens/service.go>
    fn sign_of_oauth_client(&self) -> Option<&'static str> {
        const METHODS: &str = "oauth_provider/";
        const OIDC_SCOPES: [&str; 5] = ["openid", "email", "profile", "phone", "offline_access"];
        let says = |claim: &str, is_sign: fn(&str) -> bool| match self.0.get(claim) {
            Some(Value::String(text)) => is_sign(text),
            Some(Value::Array(many)) => many.iter().any(|one| {
                one.as_str().or_else(|| one.get("method")?.as_str()).is_some_and(is_sign)
            }),
            _ => false,
        };
        if says("amr", |method| method.starts_with(METHODS)) {
            Some("amr")
        // Hooks write scopes of their own for users, too.
        } else if says("scope", |all| all.split(' ').any(|one| OIDC_SCOPES.contains(&one))) {
            Some("scope")
        } else {
            None
        }
    }

    fn subject(&self) -> Result<Uuid, TokenFault> {
        let text = self.text("sub")?;
        // Only the form that Supabase writes: other spellings would be other identities elsewhere.
        let hyphenated = text.len() == uuid::fmt::Hyphenated::LENGTH;
        Uuid::try_parse(text).ok().filter(|_| hyphenated).ok_or(TokenFault::Subject)
    }
}

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("not there, which is fine"),
            Self::Text(text) => f.write_str(&short(text)),
            Self::Texts(texts) => f.write_str(&short(&texts.join(", "))),
            Self::Flag(flag) => flag.fmt(f),
            Self::User(user) => user.fmt(f),
            Self::Time(time) => time.fmt(f),
            Self::End { expires, seconds_left } => write!(f, "{expires}, in {seconds_left} s"),
            Self::Service { role } => write!(f, "{role:?}: a service, which is let in here"),
        }
    }
}

const SERVICE_ROLE: &str = "service_role";

fn uncompared(fault: TokenFault, setting: &'static str, wanted: &impl fmt::Debug) -> TokenFault {
    TokenFault::Uncompared { fault: Box::new(fault), setting, wanted: format!("{wanted:?}") }
}

fn service_role<'a>(claims: &'a Claims, _: &TokenPolicy, _: i64) -> Checked<'a> {
    Ok(Found::Service { role: claims.text("role")? })
}

/// The legacy key is issued by `supabase` for a project (`ref`); where our issuer is a project of
/// Supabase's, it must be that one.
fn service_issuer<'a>(claims: &'a Claims, policy: &TokenPolicy, _: i64) -> Checked<'a> {
    let issuer = claims.compared("iss", "auth.issuer", &policy.issuer)?;
    if issuer == policy.issuer {
        return Ok(Found::Text(issuer));
    }
    let project =
        policy.issuer.strip_prefix("https://").and_then(|rest| rest.split_once(".supabase.co"));
    let is_ours = match (project, claims.0.get("ref")) {
        (Some((ours, _)), Some(theirs)) => theirs.as_str() == Some(ours),
        (Some(_), None) => false,
        // Self-hosted: the key has no project, and the secret is the project's own.
        (None, _) => true,
    };
    if issuer == "supabase" && is_ours {
        return Ok(Found::Text(issuer));
    }
    let reference = claims.0.get("ref").map_or("none".to_owned(), shown);
    Err(TokenFault::Issuer {
        found: format!("{} (ref {reference})", short(issuer)),
        wanted: policy.issuer.clone(),
    })
}

fn leeway(policy: &TokenPolicy) -> i64 {
    i64::try_from(policy.leeway.as_secs()).unwrap_or(i64::MAX)
}

/// Whether a token's time is over.
pub(super) fn is_expired(expires: i64, policy: &TokenPolicy, now: i64) -> bool {
    now >= expires.saturating_add(leeway(policy))
}

fn times(token: i64, policy: &TokenPolicy, now: i64) -> Times {
    Times { token, now, leeway: leeway(policy) }
}

/// What is repeated of a token's content stays short.
fn short(text: &str) -> String {
    const MOST: usize = 200;
    if text.chars().count() <= MOST {
        text.to_owned()
    } else {
        text.chars().take(MOST).chain(['…']).collect()
    }
}

/// A claim as JSON, so that one cannot be taken for two.
fn shown(value: &Value) -> String {
    short(&value.to_string())
}

/// Which of the operator's roles a token has. A project's API keys are never a user's, whatever the
/// configuration says.
fn role<'a>(claims: &'a Claims, policy: &TokenPolicy, _: i64) -> Checked<'a> {
    let role = claims.compared("role", "auth.user_roles", &policy.user_roles)?;
    let is_key = matches!(role, "anon" | SERVICE_ROLE);
    if !is_key && policy.user_roles.iter().any(|one| one == role) {
        return Ok(Found::Text(role));
    }
    let found = role.chars().take(40).collect();
    Err(TokenFault::Role { found, wanted: format!("{:?}", policy.user_roles) })
}

fn issuer<'a>(claims: &'a Claims, policy: &TokenPolicy, _: i64) -> Checked<'a> {
    let issuer = claims.compared("iss", "auth.issuer", &policy.issuer)?;
    if issuer == policy.issuer {
        return Ok(Found::Text(issuer));
    }
    Err(TokenFault::Issuer { found: short(issuer), wanted: policy.issuer.clone() })
}

/// `aud` is a string, or an array once a custom access token hook is on.
fn audience<'a>(claims: &'a Claims, policy: &TokenPolicy, _: i64) -> Checked<'a> {
    let (claim, wanted) = ("aud", "a text or a list of texts");
    let audiences = match claims.0.get(claim) {
        None => Err(TokenFault::NoClaim { claim, wanted }),
        Some(Value::String(one)) => Ok(vec![one.as_str()]),
        Some(Value::Array(many)) => many
            .iter()
            .map(Value::as_str)
            .collect::<Option<_>>()
            .ok_or(TokenFault::ClaimType { claim, wanted }),
        Some(_) => Err(TokenFault::ClaimType { claim, wanted }),
    };
    let audiences: Vec<&str> =
        audiences.map_err(|fault| uncompared(fault, "auth.audience", &policy.audience))?;
    if audiences.contains(&policy.audience.as_str()) {
        Ok(Found::Texts(audiences))
    } else {
        let found = claims.0.get("aud").map(shown).unwrap_or_default();
        Err(TokenFault::Audience { found, wanted: policy.audience.clone() })
    }
}

fn expiry<'a>(claims: &'a Claims, policy: &TokenPolicy, now: i64) -> Checked<'a> {
    let missing = TokenFault::NoClaim { claim: "exp", wanted: "a time in seconds since 1970" };
    let expires = claims.time("exp")?.ok_or(missing)?;
    if is_expired(expires, policy, now) {
        return Err(TokenFault::Expired(times(expires, policy, now)));
    }
    Ok(Found::End { expires, seconds_left: expires.saturating_sub(now) })
}

fn not_before<'a>(claims: &'a Claims, policy: &TokenPolicy, now: i64) -> Checked<'a> {
    match claims.time("nbf")? {
        None => Ok(Found::Absent),
        Some(start) if start > now.saturating_add(leeway(policy)) => {
            Err(TokenFault::NotYetValid(times(start, policy, now)))
        }
        Some(start) => Ok(Found::Time(start)),
    }
}

fn issued_at<'a>(claims: &'a Claims, policy: &TokenPolicy, now: i64) -> Checked<'a> {
    let Some(issued) = claims.time("iat")? else {
        return Ok(Found::Absent);
    };
    if issued > now.saturating_add(leeway(policy)) {
        return Err(TokenFault::IssuedInFuture(times(issued, policy, now)));
    }
    // An exp that cannot be read has a check of its own.
    match claims.time("exp").unwrap_or_default() {
        Some(expires) if issued > expires => Err(TokenFault::IssuedAfterEnd { issued, expires }),
        _ => Ok(Found::Time(issued)),
    }
}

fn session<'a>(claims: &'a Claims, _: &TokenPolicy, _: i64) -> Checked<'a> {
    identifier(claims, "session_id")
}

fn token_id<'a>(claims: &'a Claims, _: &TokenPolicy, _: i64) -> Checked<'a> {
    identifier(claims, "jti")
}

fn identifier<'a>(claims: &'a Claims, claim: &'static str) -> Checked<'a> {
    Ok(claims.optional(claim)?.map_or(Found::Absent, Found::Text))
}

fn subject<'a>(claims: &'a Claims, _: &TokenPolicy, _: i64) -> Checked<'a> {
    claims.subject().map(|user| Found::User(UserId(user)))
}

fn anonymous<'a>(claims: &'a Claims, policy: &TokenPolicy, _: i64) -> Checked<'a> {
    match claims.0.get("is_anonymous") {
        None => Ok(Found::Absent),
        Some(Value::Bool(true)) if !policy.allow_anonymous => Err(TokenFault::Anonymous),
        Some(Value::Bool(anonymous)) => Ok(Found::Flag(*anonymous)),
        Some(_) => Err(TokenFault::ClaimType { claim: "is_anonymous", wanted: "true or false" }),
    }
}

fn oauth_client<'a>(claims: &'a Claims, policy: &TokenPolicy, _: i64) -> Checked<'a> {
    if !claims.0.contains_key("client_id") {
        return match claims.sign_of_oauth_client() {
            Some(claim) if policy.oauth_clients != OauthClients::Any => {
                Err(TokenFault::UnnamedOauthClient { claim })
            }
            _ => Ok(Found::Absent),
        };
    }
    let client = claims.text("client_id")?;
    if policy.oauth_clients.allow(client) {
        return Ok(Found::Text(client));
    }
    Err(TokenFault::OauthClient { found: short(client), by: "client_id" })
}

fn assurance<'a>(claims: &'a Claims, policy: &TokenPolicy, _: i64) -> Checked<'a> {
    let level = claims.assurance_level()?;
    let said = claims.0.get("aal").and_then(Value::as_str);
    if level < policy.required_aal {
        let found = said.map_or("none".to_owned(), |said| format!("{:?}", short(said)));
        return Err(TokenFault::SecondFactor { found, wanted: policy.required_aal.name() });
    }
    Ok(said.map_or(Found::Absent, Found::Text))
}

#[cfg(test)]
mod tests;
