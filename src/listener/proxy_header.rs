//! The header with which a balancer says from whom a connection comes, before the client's first byte: the
//! PROXY protocol, versions 1 and 2 (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>). Pure.
//!
//! Stricter than the specification asks for where leniency would only help an attacker: an address has one
//! spelling, and a version 1 line exactly one space between its words.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProxyHeader {
    /// Too few to tell.
    Incomplete,
    /// No header, or a wrong one.
    Invalid,
    Complete {
        /// How long it is.
        length: usize,
        /// Whose connection it is; none if it is the balancer's own, for a check of health.
        source: Option<IpAddr>,
    },
}

/// The longest line of version 1, with its line break.
const LONGEST_LINE: usize = 107;

/// The longest header of version 2: addresses, and what balancers add to them. The specification allows 64
/// KiB; what is known to be sent has some hundred bytes.
const LONGEST: usize = 2048;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const FIXED: usize = 16;

pub(super) fn read(bytes: &[u8]) -> ProxyHeader {
    let begins = |with: &[u8]| {
        let length = bytes.len().min(with.len());
        bytes[..length] == with[..length]
    };
    if begins(SIGNATURE) {
        if bytes.len() < FIXED { ProxyHeader::Incomplete } else { binary(bytes) }
    } else if begins(b"PROXY ") {
        line(bytes)
    } else {
        ProxyHeader::Invalid
    }
}

fn line(bytes: &[u8]) -> ProxyHeader {
    let end = bytes.iter().take(LONGEST_LINE).position(|byte| *byte == b'\n');
    let Some(end) = end else {
        let is_open = bytes.len() < LONGEST_LINE;
        return if is_open { ProxyHeader::Incomplete } else { ProxyHeader::Invalid };
    };
    let words = bytes[..end].strip_suffix(b"\r").and_then(|line| std::str::from_utf8(line).ok());
    let source = words.and_then(|line| source_of(line.strip_prefix("PROXY ")?));
    source.map_or(ProxyHeader::Invalid, |source| source.ends_at(end + 1))
}

/// Whose connection it is, by a header that is right.
#[derive(Clone, Copy)]
enum Source {
    Named(IpAddr),
    /// On purpose.
    Unnamed,
}

impl<T: Into<IpAddr>> From<T> for Source {
    fn from(source: T) -> Self {
        Self::Named(source.into())
    }
}

impl Source {
    fn ends_at(self, length: usize) -> ProxyHeader {
        let source = match self {
            Self::Named(source) => Some(source),
            Self::Unnamed => None,
        };
        ProxyHeader::Complete { length, source }
    }
}

/// The source that a line names.
fn source_of(words: &str) -> Option<Source> {
    // What follows is to be ignored.
    if words == "UNKNOWN" || words.starts_with("UNKNOWN ") {
        return Some(Source::Unnamed);
    }
    let words: Vec<&str> = words.split(' ').collect();
    let [family, source, destination, ports @ ..] = words.as_slice() else { return None };
    let are_ports = ports.len() == 2 && ports.iter().all(|port| is_port(port));
    let addresses = match *family {
        "TCP4" => one::<Ipv4Addr>(source).zip(one::<Ipv4Addr>(destination)),
        "TCP6" => one::<Ipv6Addr>(source).zip(one::<Ipv6Addr>(destination)),
        _ => None,
    };
    addresses.filter(|_| are_ports).map(|(source, _)| source.into())
}

fn one<T: FromStr + Into<IpAddr>>(text: &str) -> Option<IpAddr> {
    text.parse::<T>().ok().map(Into::into)
}

fn is_port(text: &str) -> bool {
    let is_plain = text == "0" || !text.starts_with('0');
    is_plain && text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

fn binary(bytes: &[u8]) -> ProxyHeader {
    let (command, family) = (bytes[12], bytes[13]);
    let rest = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    let length = FIXED + rest;
    if length > LONGEST {
        return ProxyHeader::Invalid;
    }
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return ProxyHeader::Invalid,
    };
    let Some(addresses) = bytes.get(FIXED..length) else { return ProxyHeader::Incomplete };
    let source = match family {
        _ if is_local => Some(Source::Unnamed),
        // Not said, or over another protocol.
        0x00 => Some(Source::Unnamed),
        0x11 => addresses.get(..12).and_then(<[u8]>::first_chunk::<4>).map(|ip| (*ip).into()),
        0x21 => addresses.get(..36).and_then(<[u8]>::first_chunk::<16>).map(|ip| (*ip).into()),
        _ => None,
    };
    source.map_or(ProxyHeader::Invalid, |source| source.ends_at(length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn complete(length: usize, source: Option<&str>) -> ProxyHeader {
        ProxyHeader::Complete { length, source: source.map(|ip| ip.parse().unwrap()) }
    }

    fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    #[test]
    fn a_line_names_the_source() {
        for (line, source) in [
            ("PROXY TCP4 203.0.113.7 10.0.0.1 56324 443\r\n", Some("203.0.113.7")),
            ("PROXY TCP6 2001:db8::7 fdaa::1 0 65535\r\n", Some("2001:db8::7")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
        ] {
            assert_eq!(read(line.as_bytes()), complete(line.len(), source), "{line:?}");
            let more = format!("{line}GET / HTTP/1.1\r\n");
            assert_eq!(read(more.as_bytes()), complete(line.len(), source), "{line:?}");
        }
    }

    #[test]
    fn a_wrong_line_is_no_header() {
        for line in [
            "GET / HTTP/1.1\r\n",
            "proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
            "PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
            "PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY UNKNOWNX\r\n",
            "PROXY \r\n",
        ] {
            assert_eq!(read(line.as_bytes()), ProxyHeader::Invalid, "{line:?}");
        }
        assert_eq!(read(&[b"PROXY ", &[b'x'; 101][..]].concat()), ProxyHeader::Invalid, "endless");
    }

    #[test]
    fn a_binary_header_names_the_source() {
        let four = [203, 0, 113, 7, 10, 0, 0, 1, 0, 1, 0, 2];
        let header = version_2(0x21, 0x11, &four);
        assert_eq!(read(&header), complete(28, Some("203.0.113.7")));
        let more = [&four[..], &[3, 0, 4, 1, 2, 3, 4]].concat();
        assert_eq!(read(&version_2(0x21, 0x11, &more)), complete(35, Some("203.0.113.7")));
        let mut six = [0; 36];
        six[..16].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(read(&version_2(0x21, 0x21, &six)), complete(52, Some("2001:db8::7")));
        // A check of health by the balancer itself, and one that says nothing of addresses.
        assert_eq!(read(&version_2(0x20, 0x11, &four)), complete(28, None));
        assert_eq!(read(&version_2(0x20, 0x00, &[])), complete(16, None));
        assert_eq!(read(&version_2(0x21, 0x00, &[])), complete(16, None));
        for (command, family, rest) in [
            (0x11, 0x11, &four[..]),
            (0x22, 0x11, &four[..]),
            (0x21, 0x12, &four[..]),
            (0x21, 0x31, &[0; 216][..]),
            (0x21, 0x11, &four[..11]),
            (0x21, 0x21, &four[..]),
            (0x21, 0x11, &[0; 2033][..]),
        ] {
            assert_eq!(
                read(&version_2(command, family, rest)),
                ProxyHeader::Invalid,
                "{command:x}"
            );
        }
    }

    proptest! {
        // Bytes come in any pieces: what is read of a beginning is never taken back.
        #[test]
        fn more_bytes_change_nothing_that_was_certain(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..80),
            start in 0usize..4,
            cut in 0usize..80,
        ) {
            let beginnings: [&[u8]; 4] = [b"", b"PROXY TCP4 ", SIGNATURE, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"];
            bytes.splice(0..0, beginnings[start].iter().copied());
            let early = read(&bytes[..cut.min(bytes.len())]);
            if early != ProxyHeader::Incomplete {
                prop_assert_eq!(read(&bytes), early);
            }
            if let ProxyHeader::Complete { length, .. } = read(&bytes) {
                prop_assert!(length <= bytes.len() && length <= LONGEST);
            }
        }
    }
}
