//! What a remote read costs Mimir beyond its data: the regular expressions of its matchers, which Mimir compiles as those
//! of a query.
//!
//! The body is a Snappy block of `prometheus.ReadRequest` (`prompb/remote.proto`). It is read here, and refused if it
//! cannot be: Mimir's decoder of Snappy takes more than Snappy. Nothing of it is kept, because a matcher of two bytes is
//! many times as large in memory.

use std::error::Error;
use std::fmt;

use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use snap::raw::{Decoder, decompress_len};

use super::expression::{Excess, ExpressionLimits, Measure, Patterns};

/// Why a remote read is not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteReadFault {
    /// No Snappy, or no `ReadRequest`.
    Unreadable,
    /// It is too long, or its patterns are too large.
    Excess(Excess),
    /// More queries than this.
    Queries { most: usize },
    /// More matchers than [`MOST_MATCHERS`].
    Matchers,
}

/// The longest body: what [`ExpressionLimits::bytes`] by default take in Snappy at most.
pub const MOST_BODY_BYTES: u64 = 320 << 10;

/// The most matchers of all queries. One is two bytes here and some hundred in Mimir.
const MOST_MATCHERS: usize = 10_000;

/// `ReadRequest.queries`, `Query.matchers` and `LabelMatcher.value`.
const QUERIES: u32 = 1;
const MATCHERS: u32 = 3;
const VALUE: u32 = 3;

/// Checks a whole body. An empty one is one without queries.
pub fn check(body: &[u8], limits: &ExpressionLimits) -> Result<(), RemoteReadFault> {
    let length = decompress_len(body).map_err(|_| RemoteReadFault::Unreadable)?;
    if length > limits.bytes {
        let excess = Excess { measure: Measure::Bytes, most: limits.bytes, at: limits.bytes };
        return Err(RemoteReadFault::Excess(excess));
    }
    let request = Decoder::new().decompress_vec(body).map_err(|_| RemoteReadFault::Unreadable)?;
    let (mut patterns, mut queries, mut matchers) = (Patterns::default(), 0, 0);
    each(&request, QUERIES, |query| {
        // Mimir begins them all at the same time.
        queries += 1;
        if queries > limits.count {
            return Err(RemoteReadFault::Queries { most: limits.count });
        }
        each(query, MATCHERS, |matcher| {
            matchers += 1;
            if matchers > MOST_MATCHERS {
                return Err(RemoteReadFault::Matchers);
            }
            each(matcher, VALUE, |value| patterns.add([value]).map_err(RemoteReadFault::Excess))
        })
    })
}

/// Calls a function with each field of a message that has this number and a length.
fn each<'a>(
    mut message: &'a [u8],
    number: u32,
    mut found: impl FnMut(&'a [u8]) -> Result<(), RemoteReadFault>,
) -> Result<(), RemoteReadFault> {
    const UNREADABLE: fn(DecodeError) -> RemoteReadFault = |_| RemoteReadFault::Unreadable;
    while !message.is_empty() {
        let (tag, wire_type) = decode_key(&mut message).map_err(UNREADABLE)?;
        if wire_type != WireType::LengthDelimited {
            let skipped = skip_field(wire_type, tag, &mut message, DecodeContext::default());
            skipped.map_err(UNREADABLE)?;
            continue;
        }
        let length = decode_varint(&mut message).map_err(UNREADABLE)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (field, rest) = message.split_at_checked(length).ok_or(RemoteReadFault::Unreadable)?;
        message = rest;
        if tag == number {
            found(field)?;
        }
    }
    Ok(())
}

impl fmt::Display for RemoteReadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable => f.write_str("the body is not a remote read (Snappy, protobuf)"),
            Self::Excess(excess) => write!(f, "the remote read {excess}"),
            Self::Queries { most } => {
                write!(f, "the remote read has more than {most} queries (limits.expression_count)")
            }
            Self::Matchers => write!(f, "the remote read has more than {MOST_MATCHERS} matchers"),
        }
    }
}

impl Error for RemoteReadFault {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A field with a length.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut field = vec![number << 3 | 2];
        prost::encoding::encode_varint(bytes.len() as u64, &mut field);
        field.extend_from_slice(bytes);
        field
    }

    /// A request with one query that has these values in its matchers.
    fn request(values: &[&str]) -> Vec<u8> {
        let matcher = |value: &&str| {
            field(3, &[&[8, 2][..], &field(2, b"a"), &field(3, value.as_bytes())].concat())
        };
        let matchers: Vec<u8> = values.iter().flat_map(matcher).collect();
        // Its times, and hints that are not read.
        field(1, &[&[8, 1, 16, 2][..], &matchers, &field(4, b"\x08\x01")].concat())
    }

    fn checked(request: &[u8]) -> Result<(), RemoteReadFault> {
        let body = snap::raw::Encoder::new().compress_vec(request).unwrap();
        check(&body, &ExpressionLimits::default())
    }

    fn measure(request: &[u8]) -> Option<Measure> {
        match checked(request) {
            Ok(()) => None,
            Err(RemoteReadFault::Excess(excess)) => Some(excess.measure),
            Err(fault) => panic!("{fault}"),
        }
    }

    #[test]
    fn patterns_of_all_matchers_add_up() {
        let long = "a|".repeat(20_000);
        assert_eq!(checked(&request(&["up", ".*-[a-z]{5}", &long])), Ok(()));
        let heavy = ".{1000}".repeat(33);
        assert_eq!(measure(&request(&[&heavy])), Some(Measure::Patterns));
        assert_eq!(measure(&request(&vec![".{1000}"; 33])), Some(Measure::Patterns));
        let two = [request(&vec![".{1000}"; 17]), request(&vec![".{1000}"; 17])].concat();
        assert_eq!(measure(&two), Some(Measure::Patterns));
        // Of a field that stands twice Mimir takes the last.
        let twice = field(3, &[field(3, b"a"), field(3, heavy.as_bytes())].concat());
        assert_eq!(measure(&field(1, &twice)), Some(Measure::Patterns));
        let longer = "x".repeat(300_000);
        assert_eq!(measure(&request(&[&longer])), Some(Measure::Bytes));
    }

    #[test]
    fn a_remote_read_has_only_so_many_queries_and_matchers() {
        let most = ExpressionLimits::default().count;
        assert_eq!(checked(&request(&["up"]).repeat(most)), Ok(()));
        let more = request(&["up"]).repeat(most + 1);
        assert_eq!(checked(&more), Err(RemoteReadFault::Queries { most }));
        let empty = |matchers: usize| field(1, &field(3, b"").repeat(matchers));
        assert_eq!(checked(&empty(MOST_MATCHERS)), Ok(()));
        assert_eq!(checked(&empty(MOST_MATCHERS + 1)), Err(RemoteReadFault::Matchers));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let good = request(&["up"]);
        for request in [&good[..good.len() - 1], b"\x0a\xff", b"\x0a", b"\x0b", b"\x07"] {
            assert_eq!(checked(request), Err(RemoteReadFault::Unreadable), "{request:?}");
        }
        // A number of a field that only its lowest 32 bits make one: Go takes it for 1.
        let mut wrapped = Vec::new();
        prost::encoding::encode_varint((1 << 35) + 10, &mut wrapped);
        assert_eq!(checked(&[&wrapped[..], b"\x00"].concat()), Err(RemoteReadFault::Unreadable));
        for body in [&b""[..], b"x", b"\xff\xff\xff\xff\xff\xff", b"\x05\x00"] {
            let checked = check(body, &ExpressionLimits::default());
            assert!(checked.is_err(), "{body:?}");
        }
        assert_eq!(checked(b""), Ok(()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = checked(&bytes);
            let _ = check(&bytes, &ExpressionLimits::default());
        }
    }
}
