//! What an OTLP export may hold, read as it passes.
//!
//! An attribute of OTLP may hold a list of values that hold lists. Mimir decodes them by calls within calls, without
//! a limit: 182 KB of gzip with 3,000,000 lists within each other overflow Go's stack, which ends the process for all
//! tenants, and protobuf of 4 MiB with 472,000 takes half a gigabyte. So the contents of every export are decompressed
//! and their structure is followed here, piece by piece. Nothing of them is kept, and a body at fault ends before its
//! last byte is passed on: Mimir reads a body to its end before it decodes any of it.

mod json;
mod protobuf;

use std::error::Error;
use std::fmt;
use std::io::{self, Write};

use flate2::write::GzDecoder;
use http::{HeaderMap, HeaderName, header};
use json::Json;
use protobuf::Protobuf;
use strum::{EnumString, IntoStaticStr, VariantNames};

/// The deepest nesting of messages, or of lists and objects, the outermost included. Libraries for protobuf stop
/// at 100, too (C++, Java and Rust). An export with plain attributes has at most 15.
const MOST_DEPTH: usize = 100;

/// The most messages, or lists and objects, of one export. Mimir takes some 150 bytes for each, and two bytes make one
/// empty message: without a limit, 16 MiB of these would take more than a gigabyte.
const MOST_PARTS: u32 = 1_000_000;

/// A compression that Mimir decodes and that is not decoded here.
#[derive(Clone, Copy, Debug, EnumString, IntoStaticStr, PartialEq, Eq, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum UncheckedEncoding {
    Lz4,
    Zstd,
}

/// What an export may be.
#[derive(Clone, Debug)]
pub struct OtlpLimits {
    /// The most bytes, as they are sent and decompressed.
    pub bytes: u64,
    /// What is passed on without a look at its contents.
    pub unchecked: Vec<UncheckedEncoding>,
}

/// Why the headers of an export are not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpHeadFault {
    ContentType,
    ContentEncoding,
}

/// What is wrong with the contents of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpFault {
    TooDeep,
    TooManyParts,
    /// More bytes than this when decompressed.
    TooLarge {
        limit: u64,
    },
    NotGzip,
    NotProtobuf,
    NotJson,
}

/// Follows the contents of one export.
pub struct OtlpScanner {
    contents: Encoded,
}

enum Encoded {
    Plain(Contents),
    Gzip(Box<GzDecoder<Contents>>),
}

/// What has come of the contents, decompressed.
struct Contents {
    format: Format,
    bytes: u64,
    limit: u64,
    fault: Option<OtlpFault>,
}

enum Format {
    Protobuf(Protobuf),
    Json(Json),
}

impl OtlpScanner {
    /// A scanner for a body with these headers, or none for what may pass without one. Mimir compares both headers
    /// byte by byte, and takes the first of several; anything that it would not take is refused.
    pub fn for_body(
        headers: &HeaderMap,
        limits: &OtlpLimits,
    ) -> Result<Option<Self>, OtlpHeadFault> {
        let format = match only(headers, &header::CONTENT_TYPE) {
            Some(b"application/x-protobuf") => Format::Protobuf(Protobuf::new()),
            Some(b"application/json") => Format::Json(Json::new()),
            _ => return Err(OtlpHeadFault::ContentType),
        };
        let contents = Contents { format, bytes: 0, limit: limits.bytes, fault: None };
        let contents = match only(headers, &header::CONTENT_ENCODING) {
            Some(b"") => Encoded::Plain(contents),
            Some(b"gzip") => Encoded::Gzip(Box::new(GzDecoder::new(contents))),
            Some(other) => {
                let is_unchecked =
                    |allowed: &UncheckedEncoding| <&str>::from(*allowed).as_bytes() == other;
                let passes = limits.unchecked.iter().any(is_unchecked);
                return if passes { Ok(None) } else { Err(OtlpHeadFault::ContentEncoding) };
            }
            None => return Err(OtlpHeadFault::ContentEncoding),
        };
        Ok(Some(Self { contents }))
    }

    /// About how much memory it takes: of a decoder 32 KiB of output, 32 KiB of window and its tables.
    pub fn memory_bytes(&self) -> usize {
        match &self.contents {
            Encoded::Plain(_) => 0,
            Encoded::Gzip(_) => 80 << 10,
        }
    }

    /// Follows the next piece of the body, as it is sent.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), OtlpFault> {
        match &mut self.contents {
            Encoded::Plain(contents) => contents.follow(piece),
            Encoded::Gzip(decoder) => {
                let written = decoder.write_all(piece);
                written.map_err(|_| decoder.get_ref().fault.unwrap_or(OtlpFault::NotGzip))
            }
        }
    }

    /// Follows what is still in the decoder. Mimir itself refuses contents that end early.
    pub fn end(self) -> Result<(), OtlpFault> {
        match self.contents {
            Encoded::Plain(_) => Ok(()),
            Encoded::Gzip(mut decoder) => {
                let finished = decoder.try_finish();
                finished.map_err(|_| decoder.get_ref().fault.unwrap_or(OtlpFault::NotGzip))
            }
        }
    }
}

/// The value of a header that comes once, or an empty one if it is absent. None if it comes several times.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().map_or(&b""[..], |value| value.as_bytes());
    values.next().is_none().then_some(first)
}

impl Contents {
    fn follow(&mut self, piece: &[u8]) -> Result<(), OtlpFault> {
        self.bytes += piece.len() as u64;
        let followed = if self.bytes > self.limit {
            Err(OtlpFault::TooLarge { limit: self.limit })
        } else {
            match &mut self.format {
                Format::Protobuf(protobuf) => protobuf.follow(piece),
                Format::Json(json) => json.follow(piece),
            }
        };
        followed.inspect_err(|fault| self.fault = Some(*fault))
    }
}

/// Where the decoder writes to.
impl Write for Contents {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        // The decoder writes what it has left when it is dropped.
        if self.fault.is_some() || self.follow(piece).is_err() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Display for OtlpHeadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ContentType => {
                "Content-Type of an OTLP export must be application/x-protobuf or application/json, without parameters"
            }
            Self::ContentEncoding => {
                "Content-Encoding of an OTLP export must be gzip, or there must be none (limits.otlp_unchecked_encodings)"
            }
        })
    }
}

impl fmt::Display for OtlpFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooDeep => write!(f, "the values of the export nest more than {MOST_DEPTH} deep"),
            Self::TooManyParts => {
                write!(f, "the export has more than {MOST_PARTS} messages, or lists and objects")
            }
            Self::TooLarge { limit } => {
                write!(
                    f,
                    "the body is larger than {limit} bytes when decompressed (limits.otlp_body_bytes)"
                )
            }
            Self::NotGzip => {
                f.write_str("the body is not one member of gzip, as its Content-Encoding says")
            }
            Self::NotProtobuf => f.write_str("the body is not protobuf, as its Content-Type says"),
            Self::NotJson => f.write_str("the body is not JSON, as its Content-Type says"),
        }
    }
}

impl Error for OtlpFault {}

#[cfg(test)]
mod tests;
