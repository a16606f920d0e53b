//! What must be true of the observers of a client's bytes.

use super::framing::{BodyLength, Framing, Http1, Http2};
use crate::fuzzing::{fields, pieces};

/// Lengths of pieces, and the bytes of a connection. However they are cut, what is seen is the same.
pub fn framing(data: &[u8]) {
    let [lengths, bytes] = fields(data);
    let observers: [fn() -> Framing; 2] =
        [|| Framing::Http1(Http1::new()), || Framing::Http2(Http2::new())];
    for observer in observers {
        let (mut whole, mut cut) = (observer(), observer());
        whole.read(bytes);
        for piece in pieces(bytes, lengths) {
            cut.read(piece);
        }
        assert_eq!(whole.is_in_head(), cut.is_in_head(), "{whole:?} {cut:?}");
        assert_eq!(whole.is_flooded(), cut.is_flooded(), "{whole:?} {cut:?}");
    }
    // With heads that hyper finds: it stays consistent, whatever hyper says.
    let mut framing = Http1::new();
    for (at, piece) in pieces(bytes, lengths).into_iter().enumerate() {
        framing.read(piece);
        match at % 4 {
            1 => framing.begin(BodyLength::Known(piece.len() as u64)),
            2 => framing.begin(BodyLength::Chunked),
            3 => framing.body_ended(),
            _ => {}
        }
    }
}
