//! Which bytes of a request claim an identity.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderMap, header};

use super::device_keys::format::{self, DEVICE_KEY_PREFIX};
use super::refusal::{CredentialFault, DeviceKeyFault, Refusal};
use crate::store::KeyHash;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Credential<'a> {
    /// What follows `Authorization: Bearer`, a token or an admin key. Its bytes are not even looked
    /// at here: the cache of verified tokens is asked first, and that is the usual way.
    Bearer(&'a [u8]),
    /// The hash of a device key, which came as a bearer token or as a basic-auth password.
    DeviceKey(KeyHash),
    /// What a client's certificate is looked up by, in the place of a device key's hash.
    Certificate(KeyHash),
    /// A basic-auth password that can only be an admin key.
    Password(Vec<u8>),
}

/// Base64 of basic credentials, with or without padding: the bytes are the same.
const BASIC: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The longest basic-auth credential that is decoded.
const MOST_BASIC_BYTES: usize = 1024;

/// Reads the one credential of a request. Two `Authorization` headers are refused: which of them
/// counts would be a matter of opinion. A certificate belongs to the connection, which may be that of
/// many callers, so what the request itself says goes first, also if it is wrong.
pub(super) fn read<'a>(
    headers: &'a HeaderMap,
    certificate: Option<&KeyHash>,
) -> Result<Credential<'a>, Refusal> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        if let Some(hash) = certificate
            && !headers.contains_key("apikey")
            && !is_of_a_page(headers)
        {
            return Ok(Credential::Certificate(*hash));
        }
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
        return refused(mistake(value).unwrap_or(CredentialFault::Malformed));
    };
    let (scheme, rest) = value.split_at(space);
    let rest = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"basic") {
        return basic(rest);
    }
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return refused(mistake(value).unwrap_or(CredentialFault::Scheme));
    }
    if is_device_key(rest) { device_key(rest) } else { Ok(Credential::Bearer(rest)) }
}

/// Whether a browser says that a page sends a request. It shows the certificate of its user for every page,
/// as it would send a cookie.
fn is_of_a_page(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN)
        || headers.contains_key(header::REFERER)
        || headers.keys().any(|name| name.as_str().starts_with("sec-fetch-"))
}

/// `user:password` in base64 (RFC 7617). The user's name means nothing: devices have to send one.
fn basic(encoded: &[u8]) -> Result<Credential<'static>, Refusal> {
    let malformed = || Refusal::Credential(CredentialFault::Malformed);
    if encoded.len() > MOST_BASIC_BYTES {
        return Err(malformed());
    }
    let decoded = BASIC
        .decode(encoded)
        .map_err(|_| Refusal::Credential(mistake(encoded).unwrap_or(CredentialFault::Malformed)))?;
    let colon = decoded.iter().position(|byte| *byte == b':').ok_or_else(malformed)?;
    // As with Bearer: a key that was read from a file often has the file's last line break with it.
    let password = decoded[colon + 1..].trim_ascii();
    if is_device_key(password) {
        return device_key(password);
    }
    Ok(Credential::Password(password.to_vec()))
}

fn is_device_key(bytes: &[u8]) -> bool {
    bytes.starts_with(DEVICE_KEY_PREFIX.as_bytes())
}

fn device_key(key: &[u8]) -> Result<Credential<'static>, Refusal> {
    let hash = format::hash_of(key).ok_or(Refusal::DeviceKey(DeviceKeyFault::Form))?;
    Ok(Credential::DeviceKey(hash))
}

/// A mistake that is often made and easily seen. Nothing of the credential is repeated.
pub(super) fn mistake(bytes: &[u8]) -> Option<CredentialFault> {
    let bytes = bytes.trim_ascii();
    let is_quote = |byte: &u8| matches!(byte, b'"' | b'\'' | b'`');
    if bytes.first().is_some_and(is_quote) || bytes.last().is_some_and(is_quote) {
        return Some(CredentialFault::Quoted);
    }
    // `${KEY}`, `$KEY`, `$(cat key)`, `{{ key }}`, `%KEY%`, `<key>`.
    let holds = |wanted: &[u8]| bytes.windows(wanted.len()).any(|part| part == wanted);
    let is_between = |open: &[u8], close: &[u8]| {
        bytes.len() > 2 && bytes.starts_with(open) && bytes.ends_with(close)
    };
    if bytes.starts_with(b"$")
        || holds(b"${")
        || holds(b"{{")
        || is_between(b"%", b"%")
        || is_between(b"<", b">")
    {
        return Some(CredentialFault::Placeholder);
    }
    let begins = |wanted: &[u8]| {
        bytes.get(..wanted.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(wanted))
    };
    // As in OTEL_EXPORTER_OTLP_HEADERS, which not every sender decodes.
    if begins(b"bearer%20") || begins(b"basic%20") {
        return Some(CredentialFault::EncodedSpace);
    }
    let word = bytes.split(|byte| *byte == b' ').next().unwrap_or_default();
    let is_scheme = |scheme: &[u8]| word.len() < bytes.len() && word.eq_ignore_ascii_case(scheme);
    // The whole header is looked at, too, where its first word was no scheme.
    (is_scheme(b"bearer") || is_scheme(b"basic") || is_scheme(b"authorization:"))
        .then_some(CredentialFault::DoubledScheme)
}

/// The text of a bearer credential that no cache knows.
pub(super) fn token(bytes: &[u8]) -> Result<&str, CredentialFault> {
    if bytes.starts_with(b"sb_publishable_") || bytes.starts_with(b"sb_secret_") {
        return Err(CredentialFault::ProjectKey);
    }
    if bytes.is_empty() || !bytes.iter().copied().all(is_token_byte) {
        return Err(mistake(bytes).unwrap_or(CredentialFault::Malformed));
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
    use crate::authn::NewKey;
    use base64::engine::general_purpose::STANDARD;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let value = |text: &&str| (header::AUTHORIZATION, HeaderValue::from_str(text).unwrap());
        values.iter().map(value).collect()
    }

    fn read_token(values: &[&str]) -> Result<String, Refusal> {
        let headers = headers(values);
        match read(&headers, None)? {
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
        for wrong in ["Bearer", "Bearer ", "Bearer a b", "Bearer a,b", "Basic x"] {
            assert_eq!(read_token(&[wrong]), refused(Malformed), "{wrong}");
        }
        assert_eq!(read_token(&["Bearer sb_secret_abc"]), refused(ProjectKey));
        assert_eq!(read_token(&["Bearer sb_publishable_abc"]), refused(ProjectKey));
    }

    #[test]
    fn a_device_key_is_a_bearer_token_or_a_password_of_any_user() {
        let key = NewKey::generate().unwrap();
        let wanted = Credential::DeviceKey(key.hash());
        assert_eq!(read(&headers(&[&format!("Bearer {}", key.expose())]), None), Ok(wanted));
        for user in ["", "hub-17", "anything at all"] {
            let encoded = STANDARD.encode(format!("{user}:{}", key.expose()));
            let wanted = Credential::DeviceKey(key.hash());
            assert_eq!(read(&headers(&[&format!("basic {encoded}")]), None), Ok(wanted), "{user}");
        }
    }

    // What is often done to a key on its way into a header, and what helps.
    #[test]
    fn common_mistakes_have_words_of_their_own() {
        use CredentialFault::{DoubledScheme, EncodedSpace, Placeholder, Quoted};
        for (value, fault) in [
            ("Bearer \"mtpd_abc\"", Quoted),
            ("Bearer 'a.b.c'", Quoted),
            ("Bearer a.b.c\"", Quoted),
            ("\"Bearer a.b.c\"", Quoted),
            ("Bearer Bearer a.b.c", DoubledScheme),
            ("Bearer bearer mtpd_abc", DoubledScheme),
            ("Bearer Basic YTpi", DoubledScheme),
            ("Basic Basic YTpi", DoubledScheme),
            ("Authorization: Bearer a.b.c", DoubledScheme),
            ("Bearer%20a.b.c", EncodedSpace),
            ("bearer%20mtpd_abc", EncodedSpace),
            ("BASIC%20YTpi", EncodedSpace),
            ("Bearer%20a b", EncodedSpace),
            ("Bearer Bearer%20a.b.c", EncodedSpace),
            ("Bearer%20${DEVICE_KEY}", Placeholder),
            ("Bearer ${DEVICE_KEY}", Placeholder),
            ("Bearer $DEVICE_KEY", Placeholder),
            ("Bearer $(cat /etc/key)", Placeholder),
            ("Bearer {{ device_key }}", Placeholder),
            ("Bearer %DEVICE_KEY%", Placeholder),
            ("Bearer <device key>", Placeholder),
            ("${AUTHORIZATION}", Placeholder),
        ] {
            assert_eq!(read_token(&[value]), Err(Refusal::Credential(fault)), "{value}");
        }
        for (password, fault) in [
            ("\"mtpd_abc\"", Some(Quoted)),
            ("'mtpd_abc'\n", Some(Quoted)),
            ("Bearer mtpd_abc", Some(DoubledScheme)),
            ("Bearer%20mtpd_abc", Some(EncodedSpace)),
            ("bearer%2", None),
            ("${DEVICE_KEY}", Some(Placeholder)),
            ("secret", None),
        ] {
            assert_eq!(mistake(password.as_bytes()), fault, "{password}");
        }
    }

    // A key from a file often comes with the file's last line break.
    #[test]
    fn a_password_is_trimmed_as_a_bearer_token_is() {
        let key = NewKey::generate().unwrap();
        for (before, after) in [("", "\n"), ("", "\r\n"), ("", " "), (" ", "\t")] {
            let encoded = STANDARD.encode(format!("hub:{before}{}{after}", key.expose()));
            for encoded in [encoded.as_str(), encoded.trim_end_matches('=')] {
                let wanted = Credential::DeviceKey(key.hash());
                assert_eq!(read(&headers(&[&format!("Basic {encoded}")]), None), Ok(wanted));
            }
        }
    }

    #[test]
    fn a_mistyped_device_key_is_said_to_be_one() {
        let key = NewKey::generate().unwrap();
        let cut_off = &key.expose()[..key.expose().len() - 1];
        let refused = Err(Refusal::DeviceKey(DeviceKeyFault::Form));
        assert_eq!(read(&headers(&[&format!("Bearer {cut_off}")]), None), refused);
        let encoded = STANDARD.encode(format!("user:{cut_off}"));
        assert_eq!(read(&headers(&[&format!("Basic {encoded}")]), None), refused);
    }

    // It is the connection's, and perhaps that of a program that passes on what others send.
    #[test]
    fn a_certificate_counts_only_where_nothing_else_is_said() {
        let hash = [7; 32];
        let counts = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| {
                (http::HeaderName::from_static(name), HeaderValue::from_static(value))
            });
            let headers: HeaderMap = pairs.collect();
            let found = read(&headers, Some(&hash));
            found.map(|found| found == Credential::Certificate(hash))
        };
        assert_eq!(counts(&[]), Ok(true));
        assert_eq!(counts(&[("cookie", "a=b"), ("x-scope-orgid", "a")]), Ok(true));
        assert_eq!(counts(&[("authorization", "Bearer a.b.c")]), Ok(false));
        for other in [
            &[("authorization", "")][..],
            &[("authorization", "Digest x")],
            &[("authorization", "Bearer a"), ("authorization", "Bearer b")],
            &[("apikey", "anon")],
            &[("origin", "https://evil.example")],
            &[("origin", "null")],
            &[("referer", "https://evil.example/")],
            &[("sec-fetch-site", "cross-site")],
        ] {
            assert!(counts(other).is_err(), "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let basic = [b"Basic ".as_slice(), &bytes].concat();
            for value in [bytes, basic] {
                let Ok(value) = HeaderValue::from_bytes(&value) else { continue };
                let _ = read(&[(header::AUTHORIZATION, value)].into_iter().collect(), None);
            }
        }
    }
}
