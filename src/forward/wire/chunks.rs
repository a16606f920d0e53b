//! The chunked coding of an answer's body (RFC 9112, 7.1). Pure.

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use httparse::Status;

use super::answer::Malformed;

/// How far a chunked body has been read.
#[derive(Debug, Default)]
pub(super) enum Chunks {
    /// A chunk's size comes next.
    #[default]
    Size,
    /// So many bytes of a chunk are still to come.
    Data(u64),
    /// The line end behind a chunk comes next.
    DataEnd,
    /// The last chunk has come; trailers, or the line end behind them, come next.
    Trailers,
    End,
}

/// What was taken from the input.
#[derive(Debug)]
pub(super) enum Step {
    Piece(Bytes),
    Trailers(HeaderMap),
    End,
    /// Nothing: more has to be read.
    More,
}

/// The longest line of a chunk's size, with its extensions.
const LONGEST_LINE: usize = 4 << 10;
/// Trailers of one body.
const MAX_TRAILERS: usize = 64;
const LONGEST_TRAILERS: usize = 16 << 10;

impl Chunks {
    pub(super) fn is_at_end(&self) -> bool {
        matches!(self, Self::End)
    }

    /// Takes the next piece from the input.
    pub(super) fn next(&mut self, input: &mut BytesMut) -> Result<Step, Malformed> {
        loop {
            match self {
                Self::Size => {
                    let Some(end) = memchr::memchr(b'\n', &input[..input.len().min(LONGEST_LINE)])
                    else {
                        let is_long = input.len() >= LONGEST_LINE;
                        return if is_long { Err("the size of a chunk") } else { Ok(Step::More) };
                    };
                    let size = size(&input[..end]).ok_or("the size of a chunk")?;
                    input.advance(end + 1);
                    *self = if size == 0 { Self::Trailers } else { Self::Data(size) };
                }
                Self::Data(left) => {
                    if input.is_empty() {
                        return Ok(Step::More);
                    }
                    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                    *left -= length as u64;
                    if *left == 0 {
                        *self = Self::DataEnd;
                    }
                    return Ok(Step::Piece(input.split_to(length).freeze()));
                }
                Self::DataEnd => {
                    if !takes_line_end(input)? {
                        return Ok(Step::More);
                    }
                    *self = Self::Size;
                }
                Self::Trailers => {
                    if input.first() == Some(&b'\r') {
                        if !takes_line_end(input)? {
                            return Ok(Step::More);
                        }
                        *self = Self::End;
                        return Ok(Step::End);
                    }
                    let Some(trailers) = take_trailers(input)? else { return Ok(Step::More) };
                    *self = Self::End;
                    return Ok(Step::Trailers(trailers));
                }
                Self::End => return Ok(Step::End),
            }
        }
    }
}

/// Digits, perhaps with extensions behind them, and a carriage return.
fn size(line: &[u8]) -> Option<u64> {
    let line = line.strip_suffix(b"\r")?;
    let digits = line.iter().position(|byte| *byte == b';').map_or(line, |at| &line[..at]);
    // A carriage return of its own ends a line elsewhere.
    if digits.is_empty() || digits.len() > 15 || line.contains(&b'\r') {
        return None;
    }
    digits.iter().try_fold(0, |number: u64, digit| {
        char::from(*digit).to_digit(16).map(|value| number * 16 + u64::from(value))
    })
}

/// Whether a line end was there; an error if something else is.
fn takes_line_end(input: &mut BytesMut) -> Result<bool, Malformed> {
    let length = input.len().min(2);
    if input[..length] != b"\r\n"[..length] {
        return Err("the end of a chunk");
    }
    if length == 2 {
        input.advance(2);
    }
    Ok(length == 2)
}

fn take_trailers(input: &mut BytesMut) -> Result<Option<HeaderMap>, Malformed> {
    let mut lines = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    let mut trailers = HeaderMap::new();
    let length = match httparse::parse_headers(input, &mut lines) {
        Ok(Status::Complete((length, lines))) => {
            for line in lines {
                let name = HeaderName::from_bytes(line.name.as_bytes());
                let value = HeaderValue::from_bytes(line.value);
                let (Ok(name), Ok(value)) = (name, value) else { return Err("a trailer") };
                trailers.append(name, value);
            }
            length
        }
        Ok(Status::Partial) if input.len() < LONGEST_TRAILERS => return Ok(None),
        Ok(Status::Partial) | Err(_) => return Err("the trailers"),
    };
    // httparse takes a line feed of its own for a line end. Where one line is two elsewhere, a trailer is another
    // one.
    if memchr::memchr_iter(b'\n', &input[..length]).any(|at| at == 0 || input[at - 1] != b'\r') {
        return Err("the trailers");
    }
    input.advance(length);
    Ok(Some(trailers))
}
