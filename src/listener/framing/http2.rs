//! HTTP/2: a preface, then frames (RFC 9113, 3.4 and 4.1).

const PREFACE_BYTES: usize = 24;
const FRAME_HEADER_BYTES: usize = 9;

const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;

/// One connection's bytes.
#[derive(Debug)]
pub(in crate::listener) struct Http2 {
    preface_left: usize,
    /// What has come of a frame's header.
    header: [u8; FRAME_HEADER_BYTES],
    header_bytes: usize,
    payload_left: usize,
    /// HEADERS without the end of its block: until that comes no other frame may (RFC 9113, 6.10),
    /// so nothing on the connection goes on.
    block: Block,
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
            block: Block::None,
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
            bytes = &bytes[take(&mut self.payload_left, bytes)..];
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
        if matches!(kind, HEADERS | CONTINUATION) {
            self.block = if flags & END_HEADERS == 0 { Block::Begun } else { Block::Ending };
        }
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
}
