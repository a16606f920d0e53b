//! The replay buffer: what is kept of a request's body so that it can be sent again.
//!
//! Pieces are shared with whoever sends them, not copied. The buffer is bounded twice: for one
//! request, and for all requests of a worker together. A body that does not fit is dropped
//! immediately and as a whole: half of it is of no use.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::ahead::{MIN_PIECE_COST, SMALL_PIECE_BYTES};

/// What the replay buffers of a worker may hold together.
pub struct ReplayAllowance(AtomicUsize);

/// The pieces of one body, from its first byte on.
pub(super) struct ReplayBuffer {
    pieces: Vec<Bytes>,
    cost: usize,
    limit: usize,
    allowance: Arc<ReplayAllowance>,
}

impl ReplayAllowance {
    /// So many bytes.
    pub fn new(bytes: usize) -> Self {
        Self(AtomicUsize::new(bytes))
    }

    fn take(&self, cost: usize) -> bool {
        let take = |left: usize| left.checked_sub(cost);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    fn give(&self, cost: usize) {
        self.0.fetch_add(cost, Ordering::Relaxed);
    }
}

impl ReplayBuffer {
    pub(super) fn new(limit: usize, allowance: Arc<ReplayAllowance>) -> Self {
        Self { pieces: Vec::new(), cost: 0, limit, allowance }
    }

    /// Keeps another piece; false if it does not fit.
    #[must_use]
    pub(super) fn keep(&mut self, piece: &Bytes) -> bool {
        let cost = piece.len().max(MIN_PIECE_COST);
        if self.cost + cost > self.limit || !self.allowance.take(cost) {
            return false;
        }
        self.cost += cost;
        // Many small pieces may each keep a whole block of the connection's read buffer.
        let is_copied = piece.len() < SMALL_PIECE_BYTES && !self.pieces.is_empty();
        self.pieces.push(if is_copied { Bytes::copy_from_slice(piece) } else { piece.clone() });
        true
    }

    /// One of the pieces.
    pub(super) fn piece(&self, at: usize) -> Option<&Bytes> {
        self.pieces.get(at)
    }
}

impl Drop for ReplayBuffer {
    fn drop(&mut self) {
        self.allowance.give(self.cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_kept_stays_within_both_bounds_and_is_given_back(
            limit in 0usize..5000,
            total in 0usize..10_000,
            bodies in proptest::collection::vec(proptest::collection::vec(0usize..2000, 0..8), 0..8),
        ) {
            let allowance = Arc::new(ReplayAllowance::new(total));
            let mut held = Vec::new();
            for pieces in bodies {
                let mut kept = ReplayBuffer::new(limit, Arc::clone(&allowance));
                let all = pieces.iter().all(|length| kept.keep(&Bytes::from(vec![0; *length])));
                let bytes: usize = kept.pieces.iter().map(Bytes::len).sum();
                prop_assert!(bytes <= limit);
                if all {
                    prop_assert_eq!(bytes, pieces.iter().sum::<usize>());
                    held.push(kept);
                }
                let in_use: usize = held.iter().map(|kept| kept.cost).sum();
                prop_assert!(in_use <= total);
            }
            drop(held);
            prop_assert_eq!(allowance.0.load(Ordering::Relaxed), total);
        }
    }
}
