//! Which bytes of a request claim an identity.

use http::{HeaderMap, header};

use super::refusal::CredentialFault;

/// Unverified bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Credential<'a> {
    /// `Authorization: Bearer …`, a JSON web token.
    Bearer(&'a str),
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
    let text = value.to_str().map_err(|_| CredentialFault::Malformed)?;
    let (scheme, rest) = text.split_once(' ').ok_or(CredentialFault::Malformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(CredentialFault::Scheme);
    }
    let token = rest.trim_matches(' ');
    if token.starts_with("sb_publishable_") || token.starts_with("sb_secret_") {
        return Err(CredentialFault::ProjectKey);
    }
    if token.is_empty() || !token.bytes().all(is_token_byte) {
        return Err(CredentialFault::Malformed);
    }
    Ok(Credential::Bearer(token))
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

    #[test]
    fn the_scheme_is_case_insensitive() {
        for scheme in ["Bearer a.b.c", "bearer a.b.c", "BEARER  a.b.c "] {
            assert_eq!(read(&headers(&[scheme])), Ok(Credential::Bearer("a.b.c")));
        }
    }

    #[test]
    fn anything_but_one_bearer_token_is_refused() {
        use CredentialFault::{Malformed, Missing, ProjectKey, Scheme, Several};
        assert_eq!(read(&headers(&[])), Err(Missing));
        assert_eq!(
            read(&headers(&["Bearer a.b.c", "Bearer a.b.c"])),
            Err(Several)
        );
        assert_eq!(read(&headers(&["Digest x"])), Err(Scheme));
        for wrong in [
            "Bearer",
            "Bearer ",
            "Bearer a b",
            "Bearer a,b",
            "Bearer \"a\"",
        ] {
            assert_eq!(read(&headers(&[wrong])), Err(Malformed), "{wrong}");
        }
        assert_eq!(read(&headers(&["Bearer sb_secret_abc"])), Err(ProjectKey));
        assert_eq!(
            read(&headers(&["Bearer sb_publishable_abc"])),
            Err(ProjectKey)
        );
    }
}
