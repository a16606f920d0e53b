//! HTTP/1.1: heads end with an empty line, bodies as their heads say (RFC 9112, 2 and 6).

/// What a request's head says about its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::listener) enum BodyLength {
    /// So many bytes; 0 for a request without a body.
    Known(u64),
    Chunked,
}

/// One connection's bytes.
#[derive(Debug)]
pub(in crate::listener) struct Http1 {
    place: Place,
}

/// Where the last byte read belongs.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Before a head. Empty lines there are to be ignored (RFC 9112, 2.2).
    Between,
    /// In a head.
    Head(Line),
    /// In or behind the body of a head that has ended and that hyper has not parsed yet.
    HeadEnded { behind: u64, tail: Tail },
    /// In a body of which so many bytes are missing.
    Body { left: u64 },
    /// In a chunked body, or behind it: only hyper knows its length.
    Chunked(Tail),
    /// In one of several pipelined requests. A head and a chunked body end with an empty
    /// line, so the last bytes tell whether half a head is left when hyper has parsed the others.
    Pipelined(Tail),
}

/// What a head's current line has so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Empty,
    CarriageReturn,
    Text,
}

/// The line breaks at the end of some bytes.
#[derive(Clone, Copy, Debug)]
struct Tail {
    /// How many bytes there are of them.
    length: u64,
    line_feeds: u64,
}

impl Http1 {
    pub(in crate::listener) fn new() -> Self {
        Self { place: Place::Between }
    }

    pub(in crate::listener) fn read(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.place = match self.place {
            Place::Between => before_head(bytes),
            Place::Head(line) => in_head(line, bytes),
            Place::HeadEnded { behind, tail } => {
                Place::HeadEnded { behind: behind + length(bytes), tail: tail.read(bytes) }
            }
            Place::Body { left } if length(bytes) < left => {
                Place::Body { left: left - length(bytes) }
            }
            Place::Body { left } => {
                let rest = usize::try_from(left).unwrap_or(bytes.len());
                before_head(&bytes[rest..])
            }
            Place::Chunked(tail) => Place::Chunked(tail.read(bytes)),
            // hyper has parsed all that it had, and reads again.
            Place::Pipelined(tail) if tail.is_empty_line() => before_head(bytes),
            Place::Pipelined(tail) => in_head(tail.line(), bytes),
        };
    }

    /// hyper has parsed a head.
    pub(in crate::listener) fn begin(&mut self, body: BodyLength) {
        self.place = match (self.place, body) {
            (Place::HeadEnded { behind, tail }, BodyLength::Known(body)) => match behind {
                _ if behind < body => Place::Body { left: body - behind },
                // Only line breaks behind the body, which some clients send.
                _ if behind - body <= tail.length => Place::Between,
                _ => Place::Pipelined(tail),
            },
            (Place::HeadEnded { tail, .. } | Place::Pipelined(tail), BodyLength::Chunked) => {
                Place::Chunked(tail)
            }
            (place, _) => place,
        };
    }

    /// hyper has come to the end of a body.
    pub(in crate::listener) fn body_ended(&mut self) {
        if let Place::Chunked(tail) = self.place {
            self.place = if tail.is_empty_line() { Place::Between } else { Place::Pipelined(tail) };
        }
    }

    /// Whether no part of a request has come whose rest has not.
    pub(in crate::listener) fn is_between_requests(&self) -> bool {
        match self.place {
            Place::Between => true,
            Place::Pipelined(tail) => tail.is_empty_line(),
            Place::Head(_) | Place::HeadEnded { .. } | Place::Body { .. } | Place::Chunked(_) => {
                false
            }
        }
    }

    pub(in crate::listener) fn is_in_head(&self) -> bool {
        match self.place {
            Place::Head(_) | Place::HeadEnded { .. } => true,
            Place::Pipelined(tail) => !tail.is_empty_line(),
            Place::Between | Place::Body { .. } | Place::Chunked(_) => false,
        }
    }
}

fn before_head(bytes: &[u8]) -> Place {
    match bytes.iter().position(|byte| !is_line_break(*byte)) {
        None => Place::Between,
        Some(start) => in_head(Line::Text, &bytes[start..]),
    }
}

fn in_head(mut line: Line, bytes: &[u8]) -> Place {
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', bytes) {
        if line.with(&bytes[start..end]) != Line::Text {
            let rest = &bytes[end + 1..];
            return Place::HeadEnded { behind: length(rest), tail: Tail::EMPTY_LINE.read(rest) };
        }
        (line, start) = (Line::Empty, end + 1);
    }
    Place::Head(line.with(&bytes[start..]))
}

impl Line {
    fn with(self, bytes: &[u8]) -> Self {
        match (self, bytes) {
            (line, []) => line,
            (Self::Empty, [b'\r']) => Self::CarriageReturn,
            _ => Self::Text,
        }
    }
}

impl Tail {
    /// Right behind an empty line, of which no byte is counted.
    const EMPTY_LINE: Self = Self { length: 0, line_feeds: 2 };

    fn read(self, bytes: &[u8]) -> Self {
        let breaks = bytes.iter().rev().take_while(|byte| is_line_break(**byte)).count();
        let line_feeds = bytes[bytes.len() - breaks..].iter().filter(|byte| **byte == b'\n');
        let own = Self { length: breaks as u64, line_feeds: line_feeds.count() as u64 };
        if breaks < bytes.len() {
            return own;
        }
        let line_feeds = self.line_feeds + own.line_feeds;
        Self { length: self.length + own.length, line_feeds }
    }

    fn is_empty_line(self) -> bool {
        self.line_feeds >= 2
    }

    /// The line that begins behind these bytes, of which some are text.
    fn line(self) -> Line {
        if self.line_feeds > 0 { Line::Empty } else { Line::Text }
    }
}

fn is_line_break(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

fn length(bytes: &[u8]) -> u64 {
    bytes.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NONE: BodyLength = BodyLength::Known(0);
    const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    /// Reads bytes in one piece and lets hyper parse these heads.
    fn after(text: &str, heads: &[BodyLength]) -> Http1 {
        let mut framing = Http1::new();
        framing.read(text.as_bytes());
        for head in heads {
            framing.begin(*head);
            if *head == BodyLength::Chunked {
                framing.body_ended();
            }
        }
        framing
    }

    #[test]
    fn half_a_head_is_seen_wherever_it_stands() {
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        let post = "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
        let two_gets = GET.repeat(2);
        let cases = [
            ("", vec![]),
            (GET, vec![NONE]),
            (&two_gets, vec![NONE, NONE]),
            (post, vec![BodyLength::Known(3)]),
            (chunked, vec![BodyLength::Chunked]),
        ];
        for (requests, heads) in cases {
            for breaks in ["", "\r\n", "\r", "\n", "\r\n\r\n"] {
                let whole = after(&format!("{requests}{breaks}"), &heads);
                assert!(!whole.is_in_head(), "{requests:?} {breaks:?} {whole:?}");
                for half in ["G", "GET / HTTP/1.1", "GET / HTTP/1.1\r\nHost: x\r\n"] {
                    let text = format!("{requests}{breaks}{half}");
                    let half = after(&text, &heads);
                    assert!(half.is_in_head(), "{text:?} {half:?}");
                }
            }
        }
    }

    // A request that begins twice came while another was read.
    #[test]
    fn a_body_is_no_head_however_it_is_cut() {
        let head = "POST / HTTP/1.1\r\nContent-Length: 12\r\n\r\n";
        let body = "GET / x\r\n\r\ny";
        for cut in 0..=body.len() {
            let mut framing = after(&format!("{head}{}", &body[..cut]), &[BodyLength::Known(12)]);
            assert!(!framing.is_in_head(), "{cut} {framing:?}");
            framing.read(&body.as_bytes()[cut..]);
            assert!(!framing.is_in_head(), "{cut} {framing:?}");
            framing.read(b"zGET");
            assert!(framing.is_in_head(), "{cut} {framing:?}");
        }
    }

    #[test]
    fn heads_may_end_with_bare_line_feeds() {
        for end in ["\n\n", "\n\r\n", "\r\n\n"] {
            let text = format!("GET / HTTP/1.1\r\nHost: x{end}");
            assert!(!after(&text, &[NONE]).is_in_head(), "{text:?}");
            assert!(after(&format!("{text}G"), &[NONE]).is_in_head(), "{text:?}");
        }
    }

    proptest! {
        // However a stream of requests is cut into pieces, behind each of them stands no head, and
        // in the middle of each of them one does.
        #[test]
        fn cuts_do_not_matter(
            requests in prop::collection::vec((0u64..40, any::<bool>()), 1..6),
            sizes in prop::collection::vec(1usize..50, 1..40),
        ) {
            let mut sizes = sizes.iter().cycle();
            let mut framing = Http1::new();
            for (body, breaks) in requests {
                let head = format!("POST / HTTP/1.1\r\nContent-Length: {body}\r\n\r\n");
                let text = format!("{head}{}", "\n".repeat(usize::try_from(body).unwrap()));
                let (mut read, mut begun) = (0, false);
                while read < text.len() {
                    let next = (read + sizes.next().unwrap()).min(text.len());
                    framing.read(&text.as_bytes()[read..next]);
                    read = next;
                    if read < head.len() {
                        prop_assert!(framing.is_in_head());
                    } else if !begun {
                        begun = true;
                        framing.begin(BodyLength::Known(body));
                    }
                    if begun {
                        prop_assert!(!framing.is_in_head(), "{:?}", framing);
                    }
                }
                if breaks {
                    framing.read(b"\r\n");
                }
                prop_assert!(!framing.is_in_head(), "{:?}", framing);
            }
        }
    }
}
