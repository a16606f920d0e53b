//! How much of an answer is read at once: by how much came before.
//!
//! Each read and each write wakes a peer, so a long answer costs less in large pieces: by those of
//! 128 KiB 1.6 times nginx's processor time, by those of 1 MiB as much as nginx's
//! (docs/performance.md). But they are memory for as long as the client takes, so only a few streams
//! at a time have them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What is read at first.
pub(super) const LEAST_BYTES: usize = 8 << 10;
/// What every stream may read at once, which bounds its memory.
pub(super) const MOST_BYTES: usize = 128 << 10;
/// What a stream reads at once that has room among the large reads.
const LARGE_BYTES: usize = 1 << 20;

/// What the streams of a worker read at once beyond [`MOST_BYTES`] each.
#[derive(Default)]
pub(in crate::forward) struct LargeReads {
    taken: AtomicUsize,
}

/// All of them together.
const MOST_LARGE_READS: usize = 4 << 20;

impl LargeReads {
    fn take(&self, bytes: usize) -> bool {
        let after = |taken: usize| taken.checked_add(bytes).filter(|all| *all <= MOST_LARGE_READS);
        self.taken.fetch_update(Relaxed, Relaxed, after).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Relaxed);
    }
}

/// The size of one connection's next read.
pub(super) struct Room {
    bytes: usize,
    /// The last read was short.
    was_short: bool,
    large: Arc<LargeReads>,
}

impl Room {
    pub(super) fn new(large: &Arc<LargeReads>) -> Self {
        Self { bytes: LEAST_BYTES, was_short: false, large: Arc::clone(large) }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes note of how much came at once.
    pub(super) fn came(&mut self, count: usize) {
        if count >= self.bytes {
            self.was_short = false;
            self.grow();
        } else if count < self.bytes / 2 {
            if std::mem::replace(&mut self.was_short, true) {
                self.resize((self.bytes / 2).max(LEAST_BYTES));
            }
        } else {
            self.was_short = false;
        }
    }

    /// A stream has ended.
    pub(super) fn reset(&mut self) {
        self.resize(LEAST_BYTES);
    }

    fn grow(&mut self) {
        let larger = (self.bytes * 2).min(LARGE_BYTES);
        let more = beyond(larger) - beyond(self.bytes);
        if more == 0 || self.large.take(more) {
            self.bytes = larger;
        }
    }

    /// Not to a larger size.
    fn resize(&mut self, bytes: usize) {
        self.large.give_back(beyond(self.bytes) - beyond(bytes));
        self.bytes = bytes;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.reset();
    }
}

/// The part of a read that counts as large.
fn beyond(bytes: usize) -> usize {
    bytes.saturating_sub(MOST_BYTES)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A stream whose every read is full, so many times.
    fn full(large: &Arc<LargeReads>, reads: usize) -> Room {
        let mut room = Room::new(large);
        for _ in 0..reads {
            room.came(room.bytes());
        }
        room
    }

    #[test]
    fn a_few_long_streams_have_large_reads() {
        let large = Arc::default();
        assert_eq!(full(&large, 1).bytes(), 16 << 10);
        assert_eq!(full(&large, 20).bytes(), LARGE_BYTES);
        let rooms: Vec<Room> = (0..64).map(|_| full(&large, 20)).collect();
        let are_large = rooms.iter().filter(|room| room.bytes() == LARGE_BYTES).count();
        assert_eq!(are_large, 4);
        assert!(rooms.iter().all(|room| room.bytes() >= MOST_BYTES));
        drop(rooms);
        assert_eq!(large.taken.load(Relaxed), 0);
        // And so has the next one.
        assert_eq!(full(&large, 20).bytes(), LARGE_BYTES);
    }

    #[test]
    fn a_stream_that_brings_little_gives_its_room_back() {
        let large = Arc::default();
        let mut room = full(&large, 20);
        room.came(100);
        assert_eq!(room.bytes(), LARGE_BYTES, "one short read says nothing");
        for _ in 0..20 {
            room.came(100);
        }
        assert_eq!((room.bytes(), large.taken.load(Relaxed)), (LEAST_BYTES, 0));
    }

    proptest! {
        // Whatever comes, the large reads of all are bounded, and none is lost.
        #[test]
        fn large_reads_are_bounded_and_given_back(
            steps in proptest::collection::vec((0usize..9, 0usize..(2 << 20), any::<bool>()), 0..400),
        ) {
            let large = Arc::default();
            let mut rooms: [Room; 9] = std::array::from_fn(|_| Room::new(&large));
            for (at, came, resets) in steps {
                rooms[at].came(came);
                if resets && came % 7 == 0 {
                    rooms[at].reset();
                }
                let taken: usize = rooms.iter().map(|room| beyond(room.bytes())).sum();
                prop_assert_eq!(large.taken.load(Relaxed), taken);
                prop_assert!(taken <= MOST_LARGE_READS);
                prop_assert!(rooms.iter().all(|room| (LEAST_BYTES..=LARGE_BYTES).contains(&room.bytes())));
            }
            drop(rooms);
            prop_assert_eq!(large.taken.load(Relaxed), 0);
        }
    }
}
