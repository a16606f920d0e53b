//! The head of an answer: from bytes to a status, headers and the framing of what follows. Pure.
//!
//! Strict where RFC 9112 lets a recipient be lenient: an answer whose end could be seen in two ways
//! is none. Mimir's server (Go's `net/http`) writes none of these.

use std::mem::MaybeUninit;

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, header};
use httparse::{ParserConfig, Status};

use super::chunks::Chunks;

/// Header lines of one answer.
const MAX_HEADERS: usize = 100;

/// Interim answers before one answer, as in Go's client. Without a bound an instance that sends them for ever
/// would keep the worker busy, and all other requests of that worker waiting.
const MAX_INTERIM: u8 = 5;

/// A head that cannot be read; what is wrong with it.
pub(super) type Malformed = &'static str;

pub(super) struct Head {
    pub(super) response: Response<()>,
    pub(super) rest: Rest,
    /// Whether another request may follow on this connection.
    pub(super) keeps: bool,
}

/// What is still to come of an answer's body.
#[derive(Debug)]
pub(super) enum Rest {
    /// So many bytes.
    Length(u64),
    Chunks(Chunks),
    /// All until the instance closes.
    UntilClose,
}

impl Rest {
    /// Nothing.
    pub(super) const NONE: Self = Self::Length(0);

    pub(super) fn is_none(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunks(chunks) => chunks.is_at_end(),
            Self::UntilClose => false,
        }
    }

    /// How many bytes, if that is known.
    pub(super) fn length(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunks(_) | Self::UntilClose => None,
        }
    }
}

/// Where a header's name and value are in the bytes of a head.
#[derive(Clone, Copy)]
pub(super) struct HeaderSpan {
    name: (usize, usize),
    value: (usize, usize),
}

/// Takes a whole head from the input, if there is one. Interim answers are skipped and counted. `spans` is
/// scratch space.
pub(super) fn take_head(
    input: &mut BytesMut,
    method: &Method,
    interim: &mut u8,
    spans: &mut Vec<HeaderSpan>,
) -> Result<Option<Head>, Malformed> {
    loop {
        let Some(found) = find(input, spans)? else { return Ok(None) };
        let bytes = input.split_to(found.length).freeze();
        if found.status.is_informational() {
            if found.status == StatusCode::SWITCHING_PROTOCOLS {
                return Err("it switches protocols, which was not asked for");
            }
            *interim += 1;
            if *interim > MAX_INTERIM {
                return Err("too many interim answers");
            }
            continue;
        }
        let mut headers = HeaderMap::with_capacity(spans.len() + 2);
        for HeaderSpan { name, value } in &*spans {
            let name = HeaderName::from_bytes(&bytes[name.0..name.1]);
            let value = HeaderValue::from_maybe_shared(bytes.slice(value.0..value.1));
            let (Ok(name), Ok(value)) = (name, value) else { return Err("a header") };
            headers.append(name, value);
        }
        let rest = rest(found.status, found.version, method, &headers)?;
        let keeps = keeps(found.version, &headers) && !matches!(rest, Rest::UntilClose);
        // Its version is ours, whatever the instance's is (RFC 9110, 2.5).
        let mut response = Response::new(());
        *response.status_mut() = found.status;
        *response.headers_mut() = headers;
        return Ok(Some(Head { response, rest, keeps }));
    }
}

struct Found {
    status: StatusCode,
    version: Version,
    length: usize,
}

fn find(input: &[u8], spans: &mut Vec<HeaderSpan>) -> Result<Option<Found>, Malformed> {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let parser = ParserConfig::default();
    let parsed = parser.parse_response_with_uninit_headers(&mut response, input, &mut headers);
    let length = match parsed {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::Version) => return Err("the version"),
        Err(httparse::Error::Status) => return Err("the status"),
        Err(httparse::Error::TooManyHeaders) => return Err("too many headers"),
        Err(_) => return Err("the head"),
    };
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or("the status")?;
    let version = if response.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    spans.clear();
    let start = input.as_ptr().addr();
    spans.extend(response.headers.iter().map(|header| {
        let span = |part: &[u8]| {
            let begin = part.as_ptr().addr() - start;
            (begin, begin + part.len())
        };
        // An empty value may lie anywhere.
        let value = if header.value.is_empty() { (0, 0) } else { span(header.value) };
        HeaderSpan { name: span(header.name.as_bytes()), value }
    }));
    Ok(Some(Found { status, version, length }))
}

/// What follows a head (RFC 9112, 6.3).
fn rest(
    status: StatusCode,
    version: Version,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Rest, Malformed> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let (coding, length) = (codings.next(), lengths.next());
    if codings.next().is_some() || lengths.next().is_some() {
        return Err("its length is given twice");
    }
    let has_none = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let rest = match (coding, length) {
        (Some(_), Some(_)) => return Err("it has a length and a transfer coding"),
        (Some(_), None) if version == Version::HTTP_10 => {
            return Err("HTTP/1.0 has no transfer codings");
        }
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            Rest::Chunks(Chunks::default())
        }
        (Some(_), None) => return Err("a transfer coding besides chunked"),
        (None, Some(length)) => Rest::Length(number(length.as_bytes()).ok_or("its length")?),
        (None, None) => Rest::UntilClose,
    };
    Ok(if has_none || method == Method::HEAD { Rest::NONE } else { rest })
}

/// Digits only, and none too many.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    digits.iter().try_fold(0, |number: u64, digit| {
        digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0'))
    })
}

/// Whether the connection may be used again (RFC 9112, 9.3).
fn keeps(version: Version, headers: &HeaderMap) -> bool {
    if version != Version::HTTP_11 {
        return false;
    }
    let values = headers.get_all(header::CONNECTION).iter();
    let mut tokens = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    !tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"))
}
