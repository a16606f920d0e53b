//! The outer form of a token: JWS compact serialisation (RFC 7515), nothing verified yet.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::Deserialize;

use super::refusal::TokenFault;

/// A token taken apart.
pub(super) struct Jws<'a> {
    /// The algorithm that the token claims, to be compared with its key's.
    pub(super) algorithm: Algorithm,
    /// The key that the token names.
    pub(super) key_id: Option<String>,
    /// What was signed.
    pub(super) message: &'a str,
    /// The claims, still encoded.
    payload: &'a str,
    /// The signature, still encoded.
    pub(super) signature: &'a str,
}

/// What is read of a header. `jku`, `x5u`, `jwk` and `x5c` would let a token bring its own key:
/// they are not even looked at.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<serde_json::Value>,
}

/// The longest key ID that is looked up.
const MAX_KEY_ID_BYTES: usize = 256;

impl<'a> Jws<'a> {
    pub(super) fn parse(token: &'a str) -> Result<Self, TokenFault> {
        let (message, signature) = token.rsplit_once('.').ok_or(TokenFault::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(TokenFault::Malformed)?;
        if payload.contains('.') {
            return Err(TokenFault::Malformed); // five parts are encryption (JWE)
        }
        let header: Header = decode(header)
            .and_then(|json| serde_json::from_slice(&json).ok())
            .ok_or(TokenFault::Malformed)?;
        if header.crit.is_some() {
            return Err(TokenFault::Critical);
        }
        if let Some(kind) = header.typ.filter(|kind| !is_jwt(kind)) {
            return Err(TokenFault::Type(shortened(kind)));
        }
        if header.kid.as_ref().is_some_and(|kid| kid.len() > MAX_KEY_ID_BYTES) {
            return Err(TokenFault::Malformed);
        }
        // `none` and whatever else there may be is not among the names of Algorithm.
        let algorithm =
            header.alg.parse().map_err(|_| TokenFault::Algorithm(shortened(header.alg)))?;
        Ok(Self { algorithm, key_id: header.kid, message, payload, signature })
    }

    /// The bytes of the claims. To be asked for only once the signature fits.
    pub(super) fn claims(&self) -> Result<Vec<u8>, TokenFault> {
        decode(self.payload).ok_or(TokenFault::Claims)
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

/// What is said back to a stranger stays short.
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

    // CVE-2015-9235 and its many spellings.
    #[test]
    fn none_is_no_algorithm() {
        for name in ["none", "None", "NONE", "nOnE", "", "HS257", "es256"] {
            let header = format!("{{\"alg\":{name:?}}}");
            assert_eq!(fault(&token(&header)), TokenFault::Algorithm(name.to_owned()));
        }
    }

    #[test]
    fn critical_extensions_are_refused() {
        let header = r#"{"alg":"ES256","crit":["b64"],"b64":false}"#;
        assert_eq!(fault(&token(header)), TokenFault::Critical);
        assert_eq!(fault(&token(r#"{"alg":"ES256","crit":[]}"#)), TokenFault::Critical);
    }

    #[test]
    fn other_kinds_of_token_are_refused() {
        assert!(Jws::parse(&token(r#"{"alg":"ES256","typ":"JWT"}"#)).is_ok());
        let logout = r#"{"alg":"ES256","typ":"logout+jwt"}"#;
        assert_eq!(fault(&token(logout)), TokenFault::Type("logout+jwt".to_owned()));
    }
}
