//! Which bytes of a request claim an identity.

use http::{HeaderMap, header};

use super::refusal::CredentialFault;

/// Unverified bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Credential<'a> {
    /// What follows `Authorization: Bearer`. Its bytes are not even looked at here: the cache of
    /// verified tokens is asked first, and that is the usual way.
    Bearer(&'a [u8]),
}

/// Reads the one credential of a request. Two `Authorization` headers are refused: which of them
/// counts would be a matter of opinion.
pub(super) fn read(headers: &HeaderMap) -> Result<Credential<'_>, CredentialFault> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Err(if headers.contains_key("apikey") {
            CredentialFault::ApiKeyOnly
        } else {
            CredentialFault::Missing
        });
    };
    if values.next().is_some() {
        return Err(CredentialFault::Several);
    }
    let value = value.as_bytes();
    let space = value.iter().position(|byte| *byte == b' ').ok_or(CredentialFault::Malformed)?;
    let (scheme, rest) = value.split_at(space);
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err(CredentialFault::Scheme);
    }
    Ok(Credential::Bearer(rest.trim_ascii()))
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
    use http::HeaderValue;

    fn headers(values: &[&'static str]) -> HeaderMap {
        let value = |text: &&'static str| (header::AUTHORIZATION, HeaderValue::from_static(text));
        values.iter().map(value).collect()
    }

    fn read_token(values: &[&'static str]) -> Result<String, CredentialFault> {
        let headers = headers(values);
        let Credential::Bearer(bytes) = read(&headers)?;
        token(bytes).map(str::to_owned)
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
        assert_eq!(read_token(&[]), Err(Missing));
        assert_eq!(read_token(&["Bearer a.b.c", "Bearer a.b.c"]), Err(Several));
        assert_eq!(read_token(&["Digest x"]), Err(Scheme));
        for wrong in ["Bearer", "Bearer ", "Bearer a b", "Bearer a,b", "Bearer \"a\""] {
            assert_eq!(read_token(&[wrong]), Err(Malformed), "{wrong}");
        }
        assert_eq!(read_token(&["Bearer sb_secret_abc"]), Err(ProjectKey));
        assert_eq!(read_token(&["Bearer sb_publishable_abc"]), Err(ProjectKey));
    }
}
