//! What must be true of every credential that is accepted.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, header};
use jsonwebtoken::Algorithm;
use serde_json::Value;

use super::credential::{self, Credential};
use super::device_keys::format;
use super::jws::{Jws, Named};
use super::key_set::{KeySet, Lookup, VerificationKey};
use super::principal::Identity;
use super::verify::{verify_by_secret, verify_signature};
use crate::config::{AssuranceLevel, OauthClients, OrganisationForm, ServiceRole, TokenPolicy};
use crate::fuzzing::{broken, fields};

/// The values of `Authorization`. At most one is read, to its last byte, and a refusal repeats none.
pub fn credential(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for value in data.split(|byte| *byte == 0x1e).take(3) {
        let Ok(value) = HeaderValue::from_bytes(value) else { return };
        headers.append(header::AUTHORIZATION, value);
    }
    let Some(value) = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes) else { return };
    let read = credential::read(&headers, Some(&[7; 32]));
    assert!(headers.len() == 1 || read.is_err(), "one of several was chosen");
    match read {
        Ok(Credential::Bearer(bytes)) => {
            assert!(value.ends_with(bytes) || value.trim_ascii_end().ends_with(bytes));
            let text = credential::token(bytes);
            assert!(text.is_err() || text.is_ok_and(|text| text.as_bytes() == bytes));
        }
        Ok(Credential::DeviceKey(hash)) => {
            // The bytes that were hashed have the checksum of a key.
            let key = value
                .rsplit(|byte| *byte == b' ')
                .map(<[u8]>::trim_ascii)
                .find_map(format::hash_of);
            assert!(key.is_none_or(|key| key == hash));
        }
        Ok(Credential::Certificate(_)) => unreachable!("there is a header"),
        Ok(Credential::Password(password)) => assert!(password.len() <= 1024),
        Err(refusal) => assert!(!refusal.to_string().is_empty() && !refusal.inside().is_empty()),
    }
}

const SECRET: &[u8] = b"a shared secret of thirty-two bytes";
const NOW: i64 = 1_795_000_000;
const ISSUER: &str = "https://ref.supabase.co/auth/v1";

fn policy() -> TokenPolicy {
    TokenPolicy {
        issuer: ISSUER.to_owned(),
        audience: "authenticated".to_owned(),
        user_roles: vec!["authenticated".to_owned()],
        organisation_claim: "app_metadata.org_id".to_owned(),
        organisation_form: OrganisationForm::Texts,
        default_organisation_claim: None,
        role_claim: Some("app_metadata.role".to_owned()),
        service_role: ServiceRole::Refused,
        leeway: Duration::from_secs(10),
        allow_anonymous: false,
        oauth_clients: OauthClients::Listed(vec!["known".to_owned()]),
        required_aal: AssuranceLevel::Aal1,
    }
}

/// The JSON of a token's header and of its claims, and a signature; with an empty signature it is signed.
/// No token is accepted but by HS256 with the secret, and its claims say what they must.
pub fn token(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Jws::parse(text);
    }
    let [header, claims, signature] = fields(data);
    let message = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    let sum = hmac::sign(&key, message.as_bytes());
    let is_signed = signature.is_empty();
    let signature = URL_SAFE_NO_PAD.encode(if is_signed { sum.as_ref() } else { signature });
    let token = format!("{message}.{signature}");
    let Ok(jws) = Jws::parse(&token) else { return };
    // Two readers read the header alike: the last of two names would count here, the first one there.
    let Ok(Value::Object(header)) = serde_json::from_slice::<Value>(header) else {
        broken("a header that is no object was taken")
    };
    assert!(!header.contains_key("crit"));
    assert_eq!(header.get("alg").and_then(Value::as_str), Some(&*jws.algorithm.to_string()));
    assert_eq!(header.get("kid").and_then(Value::as_str), jws.key_id.as_deref());

    let shared = std::sync::Arc::new(VerificationKey::shared_secret(SECRET));
    let verified = verify_signature(&jws, &shared);
    assert_eq!(verify_by_secret(&jws, &[shared]).is_ok(), verified.is_ok());
    let Ok(verified) = verified else { return };
    assert_eq!(jws.algorithm, Named::Known(Algorithm::HS256));
    assert!(is_signed || signature == URL_SAFE_NO_PAD.encode(sum.as_ref()), "forged");
    let Ok((principal, expires)) = verified.verify(&policy(), NOW) else { return };
    let said: Value = serde_json::from_slice(claims).unwrap_or_default();
    let is = |claim: &str, wanted: &str| said[claim].as_str() == Some(wanted);
    let audiences = said["aud"].as_array();
    let lists = |list: &Vec<Value>| list.iter().any(|one| one.as_str() == Some("authenticated"));
    assert!(is("iss", ISSUER) && is("role", "authenticated"), "{said}");
    assert!(is("aud", "authenticated") || audiences.is_some_and(lists), "{said}");
    assert!(expires > NOW - 11 && said["exp"].is_number(), "{said}");
    assert!(said["is_anonymous"] != Value::Bool(true), "{said}");
    assert!(said["client_id"].is_null() || is("client_id", "known"), "{said}");
    assert_eq!(principal.kind(), "user");
    let Identity::User(user) = principal.identity() else { return };
    let is_second = user.assurance_level() == AssuranceLevel::Aal2;
    assert_eq!(is_second, is("aal", "aal2") || is("aal", "aal3"), "{said}");
}

/// A document of the issuer. Every key that is taken has a name and one algorithm with a public key.
pub fn key_set(data: &[u8]) {
    let Ok(mut set) = KeySet::parse(data) else { return };
    for (id, algorithm) in set.names() {
        assert!(!id.is_empty());
        assert!(!matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512));
        for secret in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            assert!(!matches!(set.find(id, Named::Known(secret)), Lookup::Found(_)));
        }
        if let Lookup::Found(key) = set.find(id, Named::Known(algorithm)) {
            assert_eq!(key.algorithm, algorithm);
            let token = format!(
                "{}.e30.AAAA",
                URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"{algorithm:?}\"}}"))
            );
            let Ok(jws) = Jws::parse(&token) else { return };
            assert!(verify_signature(&jws, &key).is_err(), "an empty signature fits {algorithm:?}");
        }
    }
    // The same document again changes nothing.
    let Ok(older) = KeySet::parse(data) else { return };
    assert!(!set.succeed(&older) && set.len() == older.len());
}
