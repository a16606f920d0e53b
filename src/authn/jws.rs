//! The outer form of a token: JWS compact serialisation (RFC 7515), nothing verified yet.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::json;
use super::refusal::TokenFault;

pub(super) struct Jws<'a> {
    /// The algorithm that the token claims, to be compared with its key's.
    pub(super) algorithm: Named,
    /// The key that the token names.
    pub(super) key_id: Option<String>,
    pub(super) message: &'a str,
    /// The claims, still encoded.
    payload: &'a str,
    /// The signature, still encoded.
    pub(super) signature: &'a str,
}

/// The algorithm that a token names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    Known(Algorithm),
    /// One of public keys that no key is verified with here: an issuer may change to it.
    Unsupported(&'static str),
}

impl Named {
    /// What is wrong with a token for which there is no key: its algorithm, or this.
    pub(super) fn or(self, fault: TokenFault) -> TokenFault {
        match self {
            Self::Known(_) => fault,
            Self::Unsupported(name) => TokenFault::Algorithm(name.to_owned()),
        }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(algorithm) => write!(f, "{algorithm:?}"),
            Self::Unsupported(name) => f.write_str(name),
        }
    }
}

/// Algorithms of public keys in the registry of IANA, beside those that are verified. Supabase Auth can sign with
/// ES512.
const UNSUPPORTED: [&str; 4] = ["ES512", "ES256K", "Ed25519", "Ed448"];

/// The longest key ID that is looked up.
const MAX_KEY_ID_BYTES: usize = 256;

impl<'a> Jws<'a> {
    pub(super) fn parse(token: &'a str) -> Result<Self, TokenFault> {
        let (message, signature) = token.rsplit_once('.').ok_or(TokenFault::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(TokenFault::Malformed)?;
        if payload.contains('.') {
            return Err(TokenFault::Malformed); // five parts are encryption (JWE)
        }
        // `jku`, `x5u`, `jwk` and `x5c` would let a token bring its own key: they are not even
        // looked at.
        let mut header =
            decode(header).and_then(|json| json::object(&json)).ok_or(TokenFault::Malformed)?;
        // Whatever its value: RFC 7515 requires to refuse what is not understood.
        if header.contains_key("crit") {
            return Err(TokenFault::Critical);
        }
        if let Some(kind) = text(&mut header, "typ")?.filter(|kind| !is_jwt(kind)) {
            return Err(TokenFault::Type(shortened(kind)));
        }
        let key_id = text(&mut header, "kid")?;
        if key_id.as_ref().is_some_and(|kid| kid.len() > MAX_KEY_ID_BYTES) {
            return Err(TokenFault::Malformed);
        }
        let name = text(&mut header, "alg")?.ok_or(TokenFault::Malformed)?;
        // `none` and whatever else there may be is not among the names of Algorithm. A shared secret is
        // bound to HS256, and no published key verifies the others of its kind.
        let algorithm = match name.parse() {
            Ok(known) if !matches!(known, Algorithm::HS384 | Algorithm::HS512) => {
                Named::Known(known)
            }
            _ => match UNSUPPORTED.into_iter().find(|one| *one == name) {
                Some(one) => Named::Unsupported(one),
                None => return Err(TokenFault::Algorithm(shortened(name))),
            },
        };
        Ok(Self { algorithm, key_id, message, payload, signature })
    }

    /// The bytes of the claims. To be asked for only once the signature fits.
    pub(super) fn claims(&self) -> Result<Vec<u8>, TokenFault> {
        decode(self.payload).ok_or(TokenFault::Claims)
    }
}

/// A parameter that is a text, if it is there at all.
fn text(header: &mut Map<String, Value>, name: &str) -> Result<Option<String>, TokenFault> {
    match header.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(TokenFault::Malformed),
    }
}

fn decode(part: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}

/// `JWT`, or `at+jwt` (RFC 9068); `application/` may be left out (RFC 7515, 4.1.9).
fn is_jwt(kind: &str) -> bool {
    let kind = kind.to_ascii_lowercase();
    matches!(kind.strip_prefix("application/").unwrap_or(&kind), "jwt" | "at+jwt")
}

/// What is repeated to an unauthenticated client stays short.
fn shortened(text: String) -> String {
    if text.chars().count() <= 20 { text } else { text.chars().take(20).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str) -> String {
        format!("{}.e30.AA", URL_SAFE_NO_PAD.encode(header))
    }

    fn fault(token: &str) -> TokenFault {
        Jws::parse(token).err().unwrap()
    }

    #[test]
    fn what_is_no_compact_jws_is_malformed() {
        for text in ["", "a", "a.b", "..", "a.b.c.d", "a.b.c.d.e", "!.e30.AA"] {
            assert_eq!(fault(text), TokenFault::Malformed, "{text:?}");
        }
        for header in ["", "[]", "{}", "{\"alg\":1}", "{\"alg\":\"ES256\",\"kid\":7}"] {
            assert_eq!(fault(&token(header)), TokenFault::Malformed, "{header}");
        }
    }

    // A header of another type, or one that two readers read differently, says nothing.
    #[test]
    fn a_header_is_one_object_whose_parameters_have_their_types() {
        for header in [
            // serde takes an array for an object in this order.
            r#"["ES256","key-1","JWT",null]"#,
            r#"{"alg":"ES256","kid":null}"#,
            r#"{"alg":"ES256","kid":["key-1"]}"#,
            r#"{"alg":"ES256","typ":null}"#,
            r#"{"alg":["ES256"]}"#,
            r#"{"alg":null}"#,
            r#"{"alg":"ES256","alg":"HS256"}"#,
            r#"{"alg":"ES256","kid":"a","kid":"b"}"#,
            r#"{"alg":"ES256","x":{"y":1,"y":2}}"#,
        ] {
            assert_eq!(fault(&token(header)), TokenFault::Malformed, "{header}");
        }
    }

    // CVE-2015-9235 and its many spellings.
    #[test]
    fn none_is_no_algorithm() {
        for name in ["none", "None", "NONE", "nOnE", "", "HS257", "es256"] {
            let header = format!("{{\"alg\":{name:?}}}");
            assert_eq!(fault(&token(&header)), TokenFault::Algorithm(name.to_owned()));
        }
    }

    // Supabase Auth can sign with ES512. Whether the issuer has such a key decides on what the sender is told.
    #[test]
    fn an_algorithm_of_public_keys_may_be_one_that_is_not_supported() {
        for name in UNSUPPORTED {
            let token = token(&format!("{{\"alg\":{name:?},\"kid\":\"a\"}}"));
            let jws = Jws::parse(&token).ok().unwrap();
            assert_eq!(
                (jws.algorithm, jws.algorithm.to_string().as_str()),
                (Named::Unsupported(name), name)
            );
            let fault = jws.algorithm.or(TokenFault::UnknownKey);
            assert_eq!(fault, TokenFault::Algorithm(name.to_owned()));
        }
    }

    // Seen: told that it names no key, which it need not.
    #[test]
    fn of_shared_secrets_only_hs256_is_an_algorithm() {
        for name in ["HS384", "HS512"] {
            for header in
                [format!("{{\"alg\":{name:?}}}"), format!("{{\"alg\":{name:?},\"kid\":\"a\"}}")]
            {
                let fault = fault(&token(&header));
                assert_eq!(fault, TokenFault::Algorithm(name.to_owned()));
                assert!(fault.inside().contains("auth.hs256_secret"), "{}", fault.inside());
            }
        }
    }

    #[test]
    fn critical_extensions_are_refused() {
        let header = r#"{"alg":"ES256","crit":["b64"],"b64":false}"#;
        assert_eq!(fault(&token(header)), TokenFault::Critical);
        for crit in ["[]", "null", "false", "\"\"", "0", "{}"] {
            let header = format!("{{\"alg\":\"ES256\",\"crit\":{crit}}}");
            assert_eq!(fault(&token(&header)), TokenFault::Critical, "{crit}");
        }
    }

    #[test]
    fn other_kinds_of_token_are_refused() {
        assert!(Jws::parse(&token(r#"{"alg":"ES256","typ":"JWT"}"#)).is_ok());
        let logout = r#"{"alg":"ES256","typ":"logout+jwt"}"#;
        assert_eq!(fault(&token(logout)), TokenFault::Type("logout+jwt".to_owned()));
    }
}
