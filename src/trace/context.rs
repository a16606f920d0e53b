//! W3C trace context (<https://www.w3.org/TR/trace-context/>): the identity of a trace in a header.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

use super::TRACEPARENT;

/// A span of a trace, as one process tells another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    pub trace: u128,
    pub span: u64,
    /// Whether the sender records it.
    pub is_sampled: bool,
}

const LENGTH: usize = 55;

impl TraceContext {
    /// The context of a request; none if it has none, several, or one that cannot be read.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let (one, None) = (values.next()?, values.next()) else { return None };
        Self::parse(one.as_bytes())
    }

    /// Reads `00-<32 digits>-<16 digits>-<2 digits>`. A later version may have more behind it.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let (known, rest) = text.split_at_checked(LENGTH)?;
        let version = number(&known[..2])?;
        let has_end = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.first().is_none_or(|next| *next == b'-'),
        };
        let has_dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
        let trace = number(&known[3..35])?;
        let span = u64::try_from(number(&known[36..52])?).ok()?;
        let flags = number(&known[53..])?;
        let is_valid = has_end && has_dashes && trace != 0 && span != 0;
        is_valid.then_some(Self { trace, span, is_sampled: flags & 1 == 1 })
    }

    pub(super) fn header_value(self) -> HeaderValue {
        let mut text = *b"00-................................-................-00";
        hexadecimal(&mut text[3..35], self.trace);
        hexadecimal(&mut text[36..52], self.span.into());
        text[54] = b'0' + u8::from(self.is_sampled);
        HeaderValue::from_maybe_shared(Bytes::copy_from_slice(&text))
            .unwrap_or(HeaderValue::from_static(""))
    }
}

/// Lower case only, as the standard wants it.
fn number(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

fn hexadecimal(text: &mut [u8], mut number: u128) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for place in text.iter_mut().rev() {
        *place = DIGITS[usize::try_from(number & 15).unwrap_or_default()];
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // The examples of the standard, and its rules for what is invalid (section 3.2.2).
    #[test]
    fn what_is_not_a_context_is_none() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(TraceContext::parse(good.as_bytes()).unwrap().is_sampled);
        let later = format!("cc{}-what-the-future-brings", &good[2..]);
        assert!(TraceContext::parse(later.as_bytes()).is_some());
        for bad in [
            "",
            "00",
            &good[..54],
            &format!("{good}-more"),
            &format!("cc{}.more", &good[2..]),
            &format!("ff{}", &good[2..]),
            &good.to_uppercase(),
            &good.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &good.replace("b7ad6b7169203331", &"0".repeat(16)),
            &good.replace('-', "_"),
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333g-01",
        ] {
            assert_eq!(TraceContext::parse(bad.as_bytes()), None, "{bad}");
        }
        let one = HeaderValue::from_str(good).unwrap();
        let twice = [(TRACEPARENT, one.clone()), (TRACEPARENT, one)];
        let mut headers = HeaderMap::new();
        for (name, value) in twice {
            headers.append(name, value);
        }
        assert_eq!(TraceContext::of(&headers), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(trace in 1..u128::MAX, span in 1..u64::MAX, is_sampled: bool) {
            let context = TraceContext { trace, span, is_sampled };
            let headers = [(TRACEPARENT, context.header_value())].into_iter().collect();
            prop_assert_eq!(TraceContext::of(&headers), Some(context));
        }

        #[test]
        fn no_header_breaks_it(text in proptest::collection::vec(any::<u8>(), 0..70)) {
            let _ = TraceContext::parse(&text);
        }
    }
}
