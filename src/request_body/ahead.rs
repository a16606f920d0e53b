//! What has come of a body before Mimir was to get it. Small pieces are joined, so that they take no more memory than
//! they count for.

use std::collections::VecDeque;

use bytes::Bytes;
use http_body::Frame;

use super::upload_buffer::UploadRoom;

/// The least that a piece that is kept counts for.
pub(super) const MIN_PIECE_COST: usize = 512;

/// So many pieces are kept before small ones are joined.
const MAX_UNJOINED_PIECES: usize = 64;

/// A shorter piece that is kept is copied: what is left of its block is not worth keeping.
pub(super) const SMALL_PIECE_BYTES: usize = 8 << 10;

#[derive(Default)]
pub(super) struct Ahead {
    frames: VecDeque<Frame<Bytes>>,
    /// What the frames count for.
    cost: usize,
    /// How many of the frames, from the first, are copies of their own.
    compact: usize,
    /// Room for them in the upload buffer.
    pub(super) room: Option<UploadRoom>,
}

impl Ahead {
    /// All of a body of the proxy's own, which counts for nothing.
    pub(super) fn of(bytes: Bytes) -> Self {
        Self { frames: VecDeque::from([Frame::data(bytes)]), ..Self::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(super) fn has_trailers(&self) -> bool {
        !self.frames.iter().all(Frame::is_data)
    }

    /// Whether the frames count for all that they may.
    pub(super) fn is_full(&self, without_room: usize) -> bool {
        self.cost >= self.room.as_ref().map_or(without_room, UploadRoom::bytes)
    }

    fn push(&mut self, frame: Frame<Bytes>) {
        self.cost += cost(&frame);
        self.frames.push_back(frame);
    }

    /// Adds what has come.
    pub(super) fn add(&mut self, frame: Frame<Bytes>) {
        self.push(frame);
        if self.frames.len() - self.compact >= MAX_UNJOINED_PIECES {
            self.compact();
        }
    }

    pub(super) fn pop(&mut self) -> Option<Frame<Bytes>> {
        let frame = self.frames.pop_front();
        self.compact = self.compact.saturating_sub(1);
        if self.frames.is_empty() {
            self.room = None;
        }
        frame
    }

    /// Joins small pieces that will be kept for a while, in memory of their own: each of them may keep
    /// a whole block of the connection's read buffer, of 8 KiB and more, although it is a few bytes
    /// long.
    pub(super) fn compact(&mut self) {
        for frame in self.frames.split_off(self.compact) {
            self.cost -= cost(&frame);
            let frame = match frame.into_data() {
                Ok(small) if small.len() < SMALL_PIECE_BYTES => self.join(&small),
                Ok(data) => Frame::data(data),
                Err(trailers) => trailers,
            };
            self.push(frame);
        }
        self.compact = self.frames.len();
    }

    /// A copy of a piece, with the last of the others before it if that is small as well.
    fn join(&mut self, small: &Bytes) -> Frame<Bytes> {
        let fits = |last: &Bytes| last.len() + small.len() <= SMALL_PIECE_BYTES;
        if self.frames.back().and_then(Frame::data_ref).is_some_and(fits)
            && let Some(last) = self.frames.pop_back()
        {
            self.cost -= cost(&last);
            let last = last.into_data().unwrap_or_default();
            return Frame::data([last, small.clone()].concat().into());
        }
        Frame::data(Bytes::copy_from_slice(small))
    }
}

/// What a piece that was read ahead counts for: its bytes, so that a body of a known length fits its room
/// to the last one. An empty piece takes room as well.
fn cost(frame: &Frame<Bytes>) -> usize {
    frame.data_ref().map(Bytes::len).filter(|bytes| *bytes > 0).unwrap_or(MIN_PIECE_COST)
}
