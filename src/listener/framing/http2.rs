//! HTTP/2: a preface, then frames (RFC 9113, 3.4 and 4.1).

const PREFACE_BYTES: usize = 24;
const FRAME_HEADER_BYTES: usize = 9;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;

/// How many bytes of frames a client may send besides requests and their bodies, for nothing: 30,000
/// PINGs.
const FREE_OVERHEAD: u64 = 512 << 10;

/// So many bytes of requests, bodies and answers allow for one more. A client that acknowledges every
/// 16 KiB of an answer, for stream and connection, needs a hundredth of it. The answer to a PING is as
/// long as the PING, so it allows for half of it.
const BYTES_PER_OVERHEAD: u64 = 2;

/// One connection's bytes.
#[derive(Debug)]
pub(in crate::listener) struct Http2 {
    preface_left: usize,
    /// What has come of a frame's header.
    header: [u8; FRAME_HEADER_BYTES],
    header_bytes: usize,
    payload_left: usize,
    /// Whether the payload belongs to a request.
    is_of_request: bool,
    /// HEADERS without the end of its block: until that comes no other frame may (RFC 9113, 6.10),
    /// so nothing on the connection goes on.
    block: Block,
    /// Bytes of frame headers, and of frames that are no part of a request: PING, SETTINGS,
    /// `WINDOW_UPDATE`, `RST_STREAM`, PRIORITY, empty DATA, unknown ones. h2 handles each and bounds their
    /// number only for a few that break the protocol.
    overhead: u64,
    /// Bytes of requests and bodies, and all that was sent to the client.
    useful: u64,
}

/// A block of header fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    None,
    Begun,
    /// Its last frame is being read.
    Ending,
}

impl Http2 {
    pub(in crate::listener) fn new() -> Self {
        Self {
            preface_left: PREFACE_BYTES,
            header: [0; FRAME_HEADER_BYTES],
            header_bytes: 0,
            payload_left: 0,
            is_of_request: false,
            block: Block::None,
            overhead: 0,
            useful: 0,
        }
    }

    pub(in crate::listener) fn read(&mut self, mut bytes: &[u8]) {
        bytes = &bytes[take(&mut self.preface_left, bytes)..];
        while !bytes.is_empty() {
            if self.header_bytes < FRAME_HEADER_BYTES {
                let count = bytes.len().min(FRAME_HEADER_BYTES - self.header_bytes);
                let end = self.header_bytes + count;
                self.header[self.header_bytes..end].copy_from_slice(&bytes[..count]);
                (self.header_bytes, bytes) = (end, &bytes[count..]);
                if end < FRAME_HEADER_BYTES {
                    return;
                }
                self.begin_frame();
            }
            let taken = take(&mut self.payload_left, bytes);
            let counter = if self.is_of_request { &mut self.useful } else { &mut self.overhead };
            *counter += taken as u64;
            bytes = &bytes[taken..];
            if self.payload_left == 0 {
                self.header_bytes = 0;
                if self.block == Block::Ending {
                    self.block = Block::None;
                }
            }
        }
    }

    fn begin_frame(&mut self) {
        let [high, middle, low, kind, flags, ..] = self.header;
        self.payload_left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.is_of_request = matches!(kind, DATA | HEADERS | CONTINUATION);
        // A body in small pieces is a body; flow control bounds it.
        let carries_data = kind == DATA && self.payload_left > 0;
        if !carries_data {
            self.overhead += FRAME_HEADER_BYTES as u64;
        }
        if matches!(kind, HEADERS | CONTINUATION) {
            self.block = if flags & END_HEADERS == 0 { Block::Begun } else { Block::Ending };
        }
    }

    /// Bytes were sent to the client.
    pub(in crate::listener) fn sent(&mut self, bytes: usize) {
        self.useful += bytes as u64;
    }

    /// Whether the client sends frames and hardly any requests.
    pub(in crate::listener) fn is_flooded(&self) -> bool {
        self.overhead > FREE_OVERHEAD + self.useful / BYTES_PER_OVERHEAD
    }

    /// The preface counts as a head: without it nothing can begin.
    pub(in crate::listener) fn is_in_head(&self) -> bool {
        self.preface_left > 0 || self.block != Block::None
    }
}

/// Counts bytes off what is left, and says how many.
fn take(left: &mut usize, bytes: &[u8]) -> usize {
    let count = bytes.len().min(*left);
    *left -= count;
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let mut frame = vec![0, 0, u8::try_from(payload).unwrap(), kind, flags, 0, 0, 0, 1];
        frame.resize(FRAME_HEADER_BYTES + payload, 0xff);
        frame
    }

    // Every cut of a whole conversation, and where a head stands open in it.
    #[test]
    fn a_preface_and_a_block_of_headers_are_heads() {
        let settings = frame(4, 0, 6);
        let data = frame(0, 1, 40);
        let ping = frame(6, 0, 8);
        let parts: [(&[u8], bool); 8] = [
            (PREFACE, false),
            (&settings, false),
            (&frame(HEADERS, END_HEADERS, 20), false),
            (&data, false),
            (&frame(HEADERS, 0, 10), true),
            (&frame(CONTINUATION, 0, 0), true),
            (&frame(CONTINUATION, END_HEADERS, 3), false),
            (&ping, false),
        ];
        let all: Vec<u8> = parts.iter().flat_map(|(bytes, _)| bytes.to_vec()).collect();
        for size in 1..=all.len() {
            let mut framing = Http2::new();
            for piece in all.chunks(size) {
                framing.read(piece);
            }
            assert!(!framing.is_in_head(), "{size}");
        }
        let mut framing = Http2::new();
        for (number, (bytes, open)) in parts.iter().enumerate() {
            framing.read(&bytes[..bytes.len() - 1]);
            let is_head = !matches!(number, 1 | 3 | 7);
            assert_eq!(framing.is_in_head(), is_head, "in part {number}");
            framing.read(&bytes[bytes.len() - 1..]);
            assert_eq!(framing.is_in_head(), *open, "behind part {number}");
        }
    }

    // CVE-2019-9512 (PING), -9515 (SETTINGS), -9518 (empty frames), -9513 (PRIORITY).
    #[test]
    fn frames_without_requests_are_a_flood() {
        for (kind, payload, answered) in [
            (0x6, 8, true),
            (0x4, 0, true),
            (0x0, 0, false),
            (0x2, 5, false),
            (0x8, 4, false),
            (0x3, 4, true),
        ] {
            let mut framing = Http2::new();
            framing.read(PREFACE);
            let bytes = frame(kind, 0, payload);
            let mut count = 0;
            while !framing.is_flooded() {
                framing.read(&bytes);
                framing.sent(if answered { bytes.len() } else { 0 });
                count += 1;
                assert!(count < 200_000, "frames of kind {kind} go on for ever");
            }
            assert!(count > 25_000, "{kind}: {count}");
        }
    }

    #[test]
    fn traffic_is_no_flood() {
        // A download of gigabytes, acknowledged twice for each frame of the usual size.
        let mut framing = Http2::new();
        framing.read(PREFACE);
        for _ in 0..100_000 {
            framing.sent(FRAME_HEADER_BYTES + (16 << 10));
            framing.read(&frame(0x8, 0, 4));
            framing.read(&frame(0x8, 0, 4));
            assert!(!framing.is_flooded());
        }
        // Small requests in small frames, each cancelled.
        for _ in 0..100_000 {
            framing.read(&frame(HEADERS, END_HEADERS, 30));
            framing.read(&frame(0x3, 0, 4));
            framing.sent(60);
            assert!(!framing.is_flooded());
        }
        // A body in pieces of a few bytes.
        let mut framing = Http2::new();
        framing.read(PREFACE);
        for _ in 0..200_000 {
            framing.read(&frame(DATA, 0, 4));
            assert!(!framing.is_flooded());
        }
        // A PING every ten seconds for a day, beside nothing.
        let mut framing = Http2::new();
        framing.read(PREFACE);
        for _ in 0..8_640 {
            framing.read(&frame(0x6, 0, 8));
            framing.sent(17);
        }
        assert!(!framing.is_flooded());
    }
}
