//! HTTP/2 frames by hand, for behaviour that no client library has.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::single::ProxyFixture;
use harness::ORG_A;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

pub(crate) struct Received {
    pub(crate) kind: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) struct Frames {
    socket: TcpStream,
    read: Vec<u8>,
}

impl Frames {
    pub(crate) fn new(socket: TcpStream) -> Self {
        Self { socket, read: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes).await
    }

    /// The next frame; `None` at the end. Cancel-safe.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Received>> {
        loop {
            if let Some(frame) = self.take() {
                return Ok(Some(frame));
            }
            if self.socket.read_buf(&mut self.read).await? == 0 {
                return Ok(None);
            }
        }
    }

    fn take(&mut self) -> Option<Received> {
        let header = self.read.get(..9)?;
        let length =
            usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
        let stream = u32::from_be_bytes(header[5..9].try_into().unwrap());
        let kind = header[3];
        let payload = self.read.get(9..9 + length)?.to_vec();
        self.read.drain(..9 + length);
        Some(Received { kind, stream, payload })
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The preface, with an initial window for each stream.
pub(crate) fn opening(window: u32) -> Vec<u8> {
    let setting = [&[0, 4], &window.to_be_bytes()[..]].concat();
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &setting)].concat()
}

/// `WINDOW_UPDATE`.
pub(crate) fn credit(stream: u32, bytes: u32) -> Vec<u8> {
    frame(8, 0, stream, &bytes.to_be_bytes())
}

/// An authenticated request without a body.
pub(crate) fn head(fixture: &ProxyFixture, method: &str, path: &str, stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(fixture, method, path))
}

/// An authenticated request with a body to come.
pub(crate) fn open_head(fixture: &ProxyFixture, method: &str, path: &str, stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block(fixture, method, path))
}

/// RFC 7541: indices of the static table, and literals without indexing.
fn block(fixture: &ProxyFixture, method: &str, path: &str) -> Vec<u8> {
    let token = format!("Bearer {}", fixture.issuer.user_of(ORG_A));
    let method = if method == "GET" { 0x82 } else { 0x83 };
    [
        &[method, 0x86][..],
        &literal(&[0x04], path),
        &literal(&[0x01], "proxy"),
        &literal(&[0x0f, 23 - 15], &token),
    ]
    .concat()
}

pub(crate) fn literal(name: &[u8], value: &str) -> Vec<u8> {
    let mut bytes = name.to_vec();
    if let Ok(length @ ..127) = u8::try_from(value.len()) {
        bytes.push(length);
    } else {
        bytes.push(127);
        let mut rest = value.len() - 127;
        while rest >= 128 {
            bytes.push(u8::try_from(rest % 128).unwrap() | 0x80);
            rest /= 128;
        }
        bytes.push(u8::try_from(rest).unwrap());
    }
    bytes.extend_from_slice(value.as_bytes());
    bytes
}

/// The status, which comes first in a block of headers: indexed, or as a literal with the name of
/// index 8.
pub(crate) fn status(block: &[u8]) -> u16 {
    match block {
        [0x88, ..] => 200,
        [0x8c, ..] => 400,
        [0x8d, ..] => 404,
        [0x48, 3, digits @ ..] => std::str::from_utf8(&digits[..3]).unwrap().parse().unwrap(),
        // Three digits by Huffman's code are two bytes; 503 is 5 (011011), 0 (00000), 3 (011001).
        [0x48, 0x83 | 0x82, ..] => huffman_digits(&block[2..]),
        _ => panic!("{block:?}"),
    }
}

/// Three digits in Huffman code (RFC 7541, appendix B): 0 to 2 have five bits, the others six.
fn huffman_digits(bytes: &[u8]) -> u16 {
    let bits = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], 0]);
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let five = bits << at >> 27;
        let digit = if five <= 2 {
            at += 5;
            five
        } else {
            let six = bits << at >> 26;
            at += 6;
            six - 0b01_1001 + 3
        };
        number = number * 10 + digit;
    }
    u16::try_from(number).unwrap()
}
