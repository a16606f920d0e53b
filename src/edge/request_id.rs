//! `X-Request-Id`: one name for a request in the client's log, in ours and in Mimir's.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

/// The header that carries the identifier, in all three directions.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request's identifier: the client's own if it is harmless, else a random one.
#[derive(Clone, Debug)]
pub struct RequestId(HeaderValue);

/// The longest identifier of a client's that is kept. UUIDs and trace identifiers fit, and it cannot make a line of
/// the log long.
const MAX_ID_BYTES: usize = 64;

impl RequestId {
    /// Takes the client's identifier, or makes one.
    pub fn of(headers: &HeaderMap) -> Self {
        match headers.get(REQUEST_ID) {
            Some(given) if is_harmless(given.as_bytes()) => Self(given.clone()),
            _ => Self::random(),
        }
    }

    fn random() -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let random = fastrand::u128(..).to_le_bytes();
        let mut text = [0; 32];
        for (pair, byte) in text.chunks_exact_mut(2).zip(random) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        let value = HeaderValue::from_maybe_shared(Bytes::copy_from_slice(&text));
        Self(value.unwrap_or(HeaderValue::from_static("none")))
    }

    /// Not to be indexed (RFC 7541, 6.2.3): in the table of an HTTP/2 connection it would push out values that
    /// repeat.
    pub fn header_value(&self) -> HeaderValue {
        let mut value = self.0.clone();
        value.set_sensitive(true);
        value
    }

    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

/// What may stand in a log without being quoted.
fn is_harmless(id: &[u8]) -> bool {
    (1..=MAX_ID_BYTES).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(given: &'static str) -> String {
        let headers = [(REQUEST_ID, HeaderValue::from_static(given))].into_iter().collect();
        RequestId::of(&headers).as_str().to_owned()
    }

    #[test]
    fn a_harmless_identifier_is_kept() {
        assert_eq!(of("01HV-abc_9.x"), "01HV-abc_9.x");
    }

    #[test]
    fn anything_else_is_replaced() {
        for given in ["", "a b", "a\"b", "a{b}"] {
            assert_eq!(of(given).len(), 32);
        }
        assert_ne!(RequestId::random().as_str(), RequestId::random().as_str());
        assert!(RequestId::random().header_value().is_sensitive());
    }
}
