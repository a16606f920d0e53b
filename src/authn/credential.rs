//! Which bytes of a request claim an identity.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, header};

use super::device_key::{self, DEVICE_KEY_PREFIX};
use super::refusal::{CredentialFault, DeviceKeyFault, Refusal};
use crate::store::KeyHash;

/// Unverified bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Credential<'a> {
    /// What follows `Authorization: Bearer`, a token or an admin key. Its bytes are not even looked
    /// at here: the cache of verified tokens is asked first, and that is the usual way.
    Bearer(&'a [u8]),
    /// The hash of a device key, which came as a bearer token or as a basic-auth password.
    DeviceKey(KeyHash),
    /// A basic-auth password that can only be an admin key.
    Password(Vec<u8>),
}

/// The longest basic-auth credential that is decoded.
const MOST_BASIC_BYTES: usize = 1024;

/// Reads the one credential of a request. Two `Authorization` headers are refused: which of them
/// counts would be a matter of opinion.
pub(super) fn read(headers: &HeaderMap) -> Result<Credential<'_>, Refusal> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Err(Refusal::Credential(if headers.contains_key("apikey") {
            CredentialFault::ApiKeyOnly
        } else {
            CredentialFault::Missing
        }));
    };
    let refused = |fault| Err(Refusal::Credential(fault));
    if values.next().is_some() {
        return refused(CredentialFault::Several);
    }
    let value = value.as_bytes();
    let Some(space) = value.iter().position(|byte| *byte == b' ') else {
        return refused(CredentialFault::Malformed);
    };
    let (scheme, rest) = value.split_at(space);
    let rest = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"basic") {
        return basic(rest);
    }
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return refused(CredentialFault::Scheme);
    }
    if is_device_key(rest) { device_key(rest) } else { Ok(Credential::Bearer(rest)) }
}

/// `user:password` in base64 (RFC 7617). The user's name means nothing: devices have to send one.
fn basic(encoded: &[u8]) -> Result<Credential<'static>, Refusal> {
    let malformed = || Refusal::Credential(CredentialFault::Malformed);
    if encoded.len() > MOST_BASIC_BYTES {
        return Err(malformed());
    }
    let decoded = STANDARD.decode(encoded).map_err(|_| malformed())?;
    let colon = decoded.iter().position(|byte| *byte == b':').ok_or_else(malformed)?;
    let password = &decoded[colon + 1..];
    if is_device_key(password) {
        return device_key(password);
    }
    Ok(Credential::Password(password.to_vec()))
}

fn is_device_key(bytes: &[u8]) -> bool {
    bytes.starts_with(DEVICE_KEY_PREFIX.as_bytes())
}

fn device_key(key: &[u8]) -> Result<Credential<'static>, Refusal> {
    let hash = device_key::hash_of(key).ok_or(Refusal::DeviceKey(DeviceKeyFault::Form))?;
    Ok(Credential::DeviceKey(hash))
}

/// The text of a bearer credential that no cache knows.
pub(super) fn token(bytes: &[u8]) -> Result<&str, CredentialFault> {
    if bytes.starts_with(b"sb_publishable_") || bytes.starts_with(b"sb_secret_") {
        return Err(CredentialFault::ProjectKey);
    }
    if bytes.is_empty() || !bytes.iter().copied().all(is_token_byte) {
        return Err(CredentialFault::Malformed);
    }
    std::str::from_utf8(bytes).map_err(|_| CredentialFault::Malformed)
}

/// `b64token` of RFC 6750.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::device_key::NewKey;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let value = |text: &&str| (header::AUTHORIZATION, HeaderValue::from_str(text).unwrap());
        values.iter().map(value).collect()
    }

    fn read_token(values: &[&str]) -> Result<String, Refusal> {
        let headers = headers(values);
        match read(&headers)? {
            Credential::Bearer(bytes) => {
                token(bytes).map(str::to_owned).map_err(Refusal::Credential)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_scheme_is_case_insensitive() {
        for scheme in ["Bearer a.b.c", "bearer a.b.c", "BEARER  a.b.c "] {
            assert_eq!(read_token(&[scheme]).as_deref(), Ok("a.b.c"));
        }
    }

    #[test]
    fn anything_but_one_bearer_token_is_refused() {
        use CredentialFault::{Malformed, Missing, ProjectKey, Scheme, Several};
        let refused = |fault| Err(Refusal::Credential(fault));
        assert_eq!(read_token(&[]), refused(Missing));
        assert_eq!(read_token(&["Bearer a.b.c", "Bearer a.b.c"]), refused(Several));
        assert_eq!(read_token(&["Digest x"]), refused(Scheme));
        for wrong in ["Bearer", "Bearer ", "Bearer a b", "Bearer a,b", "Bearer \"a\"", "Basic x"] {
            assert_eq!(read_token(&[wrong]), refused(Malformed), "{wrong}");
        }
        assert_eq!(read_token(&["Bearer sb_secret_abc"]), refused(ProjectKey));
        assert_eq!(read_token(&["Bearer sb_publishable_abc"]), refused(ProjectKey));
    }

    #[test]
    fn a_device_key_is_a_bearer_token_or_a_password_of_any_user() {
        let key = NewKey::generate().unwrap();
        let wanted = Credential::DeviceKey(key.hash());
        assert_eq!(read(&headers(&[&format!("Bearer {}", key.expose())])), Ok(wanted));
        for user in ["", "hub-17", "anything at all"] {
            let encoded = STANDARD.encode(format!("{user}:{}", key.expose()));
            let wanted = Credential::DeviceKey(key.hash());
            assert_eq!(read(&headers(&[&format!("basic {encoded}")])), Ok(wanted), "{user}");
        }
    }

    #[test]
    fn a_mistyped_device_key_is_said_to_be_one() {
        let key = NewKey::generate().unwrap();
        let cut_off = &key.expose()[..key.expose().len() - 1];
        let refused = Err(Refusal::DeviceKey(DeviceKeyFault::Form));
        assert_eq!(read(&headers(&[&format!("Bearer {cut_off}")])), refused);
        let encoded = STANDARD.encode(format!("user:{cut_off}"));
        assert_eq!(read(&headers(&[&format!("Basic {encoded}")])), refused);
    }

    proptest! {
        #[test]
        fn no_header_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let basic = [b"Basic ".as_slice(), &bytes].concat();
            for value in [bytes, basic] {
                let Ok(value) = HeaderValue::from_bytes(&value) else { continue };
                let _ = read(&[(header::AUTHORIZATION, value)].into_iter().collect());
            }
        }
    }
}
