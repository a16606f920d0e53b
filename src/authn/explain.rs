//! `explain-token`: follows one token to its principal, step by step, through the functions that
//! `serve` uses.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::Algorithm;
use serde_json::Value;

use super::admin_keys::AdminKeys;
use super::claims::Claims;
use super::credential;
use super::device_keys::{device_of, explain_validity};
use super::fingerprint::digest;
use super::jws::{Jws, Named};
use super::key_set::{KeySet, Lookup};
use super::principal::{Identity, Principal, Service};
use super::refusal::{CredentialFault, TokenFault, UNUSABLE_KEY};
use super::verify::{shared_secrets, verify_by_secret, verify_signature};
use crate::config::AuthConfig;
use crate::store::DeviceKeyRow;

/// What was found at each step.
#[derive(Default)]
pub struct Explanation {
    steps: Vec<(String, Step)>,
    principal: Option<Arc<Principal>>,
}

enum Step {
    Good(String),
    Refused(String),
    /// Unknown: something of ours is away.
    Unavailable(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The credential would be let in, with an organisation that has a tenant.
    Passes,
    Refused,
    /// What could be checked is good, but not everything could: the answer would be 503.
    Unavailable,
}

impl Explanation {
    /// One problem that ends it all.
    pub fn of_problem(about: &str, problem: String) -> Self {
        let mut explanation = Self::default();
        explanation.step(about, Err(problem));
        explanation
    }

    /// The verdict. A refusal is final, whatever could not be checked.
    pub fn verdict(&self) -> Verdict {
        let has = |wanted: fn(&Step) -> bool| self.steps.iter().any(|(_, step)| wanted(step));
        if has(|step| matches!(step, Step::Refused(_))) {
            Verdict::Refused
        } else if has(|step| matches!(step, Step::Unavailable(_))) {
            Verdict::Unavailable
        } else {
            Verdict::Passes
        }
    }

    /// Whose it is, if it is valid.
    pub fn principal(&self) -> Option<Arc<Principal>> {
        self.principal.clone()
    }

    pub fn is_service(&self) -> bool {
        let identity = self.principal.as_ref().map(|principal| principal.identity());
        matches!(identity, Some(Identity::Service(_)))
    }

    /// Adds a step: what it was about, and what was found or was wrong.
    pub fn step(&mut self, about: &str, outcome: Result<String, String>) {
        let step = outcome.map_or_else(Step::Refused, Step::Good);
        self.steps.push((about.to_owned(), step));
    }

    /// Adds a step that could not be made.
    pub fn unavailable(&mut self, about: &str, problem: String) {
        self.steps.push((about.to_owned(), Step::Unavailable(problem)));
    }

    /// Adds what is known of a device key.
    pub fn device(&mut self, row: &DeviceKeyRow, now: i64) {
        self.step("device", Ok(format!("{} ({:?})", row.id, row.name)));
        let validity = explain_validity(row, now);
        if validity.is_ok() {
            self.principal = Some(device_of(row));
        }
        self.step("validity", validity);
    }
}

/// The credential in what was copied out of a request, a session, a file or a log, and what
/// was left aside.
pub fn bare_credential(text: &str) -> (Cow<'_, str>, Option<&'static str>) {
    let text = text.trim();
    let strip = |text: &str, word: &str| {
        let start = text.get(..word.len()).filter(|start| start.eq_ignore_ascii_case(word));
        start.map(str::len)
    };
    // What `signInWithPassword` and the token endpoint of Supabase Auth answer.
    if let Some(token) = access_token(text) {
        return (Cow::Owned(token), Some("the access_token of the session is taken"));
    }
    let mut bare = text;
    if let Some(length) = strip(bare, "authorization:") {
        bare = bare[length..].trim_start();
    }
    if let Some(password) = strip(bare, "basic ").and_then(|length| password(&bare[length..])) {
        return (Cow::Owned(password), Some("the password of the Basic credential is taken"));
    }
    if let Some(length) = strip(bare, "bearer ") {
        bare = bare[length..].trim_start();
    }
    let note = "the words in front (Authorization: Bearer) are left aside";
    (Cow::Borrowed(bare), (bare.len() < text.len()).then_some(note))
}

fn access_token(text: &str) -> Option<String> {
    let session: Value = serde_json::from_str(text).ok()?;
    // The client library wraps it, by version: `{data: {session: …}}`, `{session: …}`.
    let places = ["/access_token", "/session/access_token", "/data/session/access_token"];
    places.into_iter().find_map(|place| session.pointer(place)?.as_str().map(str::to_owned))
}

fn password(encoded: &str) -> Option<String> {
    let decoded = STANDARD.decode(encoded.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    text.split_once(':').map(|(_, password)| password.trim().to_owned())
}

/// What is wrong with the form of a pasted credential.
fn misshapen(token: &str, fault: CredentialFault) -> String {
    let joined: String = token.split_whitespace().collect();
    if token.is_empty() {
        "nothing was given: pass the token or device key as an argument, or on standard input"
            .to_owned()
    } else if token.starts_with('{') {
        "is JSON without an access_token; give the token itself".to_owned()
    } else if joined.len() < token.len() && Jws::parse(&joined).is_ok() {
        "the token is broken over several lines or words; join them".to_owned()
    } else if fault == CredentialFault::Malformed {
        "is neither a JSON web token nor a device key (mtpd_…)".to_owned()
    } else {
        fault.to_string()
    }
}

/// Follows a token up to its principal.
pub fn explain(
    token: &str,
    auth: &AuthConfig,
    keys: Result<&KeySet, &str>,
    now: i64,
) -> Explanation {
    let mut explanation = Explanation::default();
    let token = token.trim();
    let is_admin_key = AdminKeys::new(&auth.admin_keys).has(&digest(token.as_bytes()));
    if is_admin_key {
        explanation.step("form", Ok("an admin key".to_owned()));
        explanation.principal = Some(Arc::new(Principal::service(Service::AdminKey)));
        return explanation;
    }
    if let Err(fault) = credential::token(token.as_bytes()) {
        explanation.step("form", Err(misshapen(token, fault)));
        return explanation;
    }
    let jws = match Jws::parse(token) {
        Ok(jws) => jws,
        Err(fault) => {
            explanation.step("form", Err(fault.inside()));
            return explanation;
        }
    };
    let kid = jws.key_id.as_deref().unwrap_or("none");
    explanation.step("form", Ok(format!("a JSON web token, alg {}, kid {kid:?}", jws.algorithm)));
    let Some(claims) = check_signature(&mut explanation, &jws, auth, keys) else {
        return explanation;
    };
    explanation.step("signature", Ok("fits".to_owned()));
    for check in claims.checks(&auth.tokens) {
        let outcome = (check.make)(&claims, &auth.tokens, now);
        let outcome = outcome.map(|found| found.to_string()).map_err(|fault| fault.inside());
        explanation.step(check.about, outcome);
    }
    if let Ok((principal, _)) = claims.verify(&auth.tokens, now) {
        explanation.principal = Some(Arc::new(principal));
    }
    explanation
}

fn check_signature(
    explanation: &mut Explanation,
    jws: &Jws<'_>,
    auth: &AuthConfig,
    keys: Result<&KeySet, &str>,
) -> Option<Claims> {
    if jws.algorithm == Named::Known(Algorithm::HS256) {
        let secrets = shared_secrets(auth);
        return match verify_by_secret(jws, &secrets) {
            Ok((claims, _)) => {
                let which = if secrets.len() > 1 {
                    "one of the shared secrets"
                } else {
                    "the shared secret"
                };
                explanation.step("key", Ok(format!("{which}, bound to HS256")));
                Some(claims)
            }
            Err(TokenFault::SharedSecret) => {
                let is_legacy = keys.is_ok_and(KeySet::is_empty);
                let why = if is_legacy {
                    "; the issuer's key set is empty: this project signs with its legacy secret only"
                } else {
                    ""
                };
                let problem = format!("{}{why}", TokenFault::SharedSecret.inside());
                explanation.step("key", Err(problem));
                None
            }
            Err(fault) => {
                let tried = format!("; {} secrets of auth.hs256_secret were tried", secrets.len());
                explanation.step("signature", Err(format!("{}{tried}", fault.inside())));
                None
            }
        };
    }
    let Some(id) = jws.key_id.as_deref() else {
        explanation.step("key", Err(jws.algorithm.or(TokenFault::NoKeyId).inside()));
        return None;
    };
    let keys = match keys {
        Ok(keys) => keys,
        Err(problem) => {
            explanation.unavailable("key", problem.to_owned());
            return None;
        }
    };
    let key = match keys.find(id, jws.algorithm) {
        Lookup::Found(key) => key,
        Lookup::OtherAlgorithm => {
            explanation.step("key", Err(TokenFault::AlgorithmOfKey.to_string()));
            return None;
        }
        Lookup::Unusable => {
            let left_out = keys.left_out().join("; ");
            explanation
                .unavailable("key", format!("{UNUSABLE_KEY}; left out of the set: {left_out}"));
            return None;
        }
        Lookup::Unknown => {
            let absent = match jws.algorithm {
                Named::Known(_) => describe_absence(keys),
                unsupported @ Named::Unsupported(_) => {
                    unsupported.or(TokenFault::UnknownKey).inside()
                }
            };
            explanation.step("key", Err(absent));
            return None;
        }
    };
    explanation.step("key", Ok(format!("known, bound to {:?}", key.algorithm)));
    match verify_signature(jws, &key) {
        Ok(claims) => Some(claims),
        Err(fault) => {
            explanation.step("signature", Err(fault.to_string()));
            None
        }
    }
}

fn describe_absence(keys: &KeySet) -> String {
    let known: Vec<&str> = keys.ids().collect();
    let known = if known.is_empty() {
        "it has no usable key".to_owned()
    } else {
        format!("it has {}", known.join(", "))
    };
    let left_out = match keys.left_out() {
        [] => String::new(),
        some => format!("; left out of the set: {}", some.join("; ")),
    };
    format!("{}, {known}{left_out}", TokenFault::UnknownKey)
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (about, step) in &self.steps {
            match step {
                Step::Good(found) => writeln!(f, "ok      {about:<13} {found}")?,
                Step::Refused(problem) => writeln!(f, "REFUSED {about:<13} {problem}")?,
                Step::Unavailable(problem) => writeln!(f, "UNKNOWN {about:<13} {problem}")?,
            }
        }
        f.write_str(match self.verdict() {
            Verdict::Passes => "it passes",
            Verdict::Refused => "it does not pass",
            Verdict::Unavailable => "it cannot be said: something that decides is unavailable",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_front_are_left_aside() {
        for (text, bare) in [
            ("a.b.c", "a.b.c"),
            (" a.b.c\n", "a.b.c"),
            ("Bearer a.b.c", "a.b.c"),
            ("bearer   a.b.c", "a.b.c"),
            ("Authorization: Bearer a.b.c", "a.b.c"),
            ("authorization:bearer a.b.c", "a.b.c"),
            ("bearer", "bearer"),
            ("é", "é"),
        ] {
            assert_eq!(bare_credential(text).0, bare, "{text}");
        }
        for (text, bare) in [
            ("Basic aHViOm10cGRfYWJj", "mtpd_abc"),
            ("Authorization: Basic aHViOm10cGRfYWJjCg==", "mtpd_abc"),
            ("{\"access_token\": \"a.b.c\", \"token_type\": \"bearer\"}", "a.b.c"),
            ("{\"data\": {\"session\": {\"access_token\": \"a.b.c\"}}}\n", "a.b.c"),
        ] {
            let (found, note) = bare_credential(text);
            assert!(found == bare && note.is_some(), "{text}: {found} {note:?}");
        }
        assert_eq!(bare_credential("a.b.c\n").1, None);
        assert!(bare_credential("Bearer a.b.c").1.is_some());
    }

    // Seen: all of them were told what the Authorization header must be, and there is no header.
    #[test]
    fn what_is_no_token_is_told_without_a_header() {
        let token = "eyJhbGciOiJFUzI1NiJ9.e30.AA";
        let (front, back) = token.split_at(12);
        for (text, wanted) in [
            ("", "nothing was given"),
            ("{}", "JSON without an access_token"),
            (&format!("{front}\n{back}"), "several lines"),
            ("a b", "neither"),
        ] {
            let told = credential::token(text.as_bytes()).err().map(|fault| misshapen(text, fault));
            let told = told.unwrap_or_default();
            assert!(told.contains(wanted) && !told.contains("header"), "{text:?}: {told}");
        }
    }

    // An outage is no refusal, and a refusal stays one.
    #[test]
    fn what_could_not_be_seen_is_not_refused() {
        let mut explanation = Explanation::default();
        explanation.step("form", Ok("good".to_owned()));
        assert_eq!(explanation.verdict(), Verdict::Passes);
        explanation.unavailable("memberships", "refused".to_owned());
        assert_eq!(explanation.verdict(), Verdict::Unavailable);
        let text = explanation.to_string();
        assert!(text.contains("unavailable") && !text.contains("does not pass"), "{text}");
        explanation.step("exp", Err("expired".to_owned()));
        assert_eq!(explanation.verdict(), Verdict::Refused);
    }
}
