//! The upload buffer: what is kept of bodies that are read before their requests have a permit.
//!
//! A device with a slow connection sends 20 KB in five seconds. If its request held a slot and a
//! connection to Mimir meanwhile, a hundred times as many of each would be needed as for a fast
//! one. So a body is read first; a longer one streams as soon as its part of the buffer is full.
//!
//! The buffer belongs to the process. An organisation may have at most as much of it as is free, so
//! that no organisation keeps the others out: one alone gets a half, a second one a quarter. A
//! request that gets no room is not refused: its body streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The upload buffer of all requests of the process.
pub struct UploadBuffer {
    most: AtomicUsize,
    used: AtomicUsize,
}

/// What one organisation has of the upload buffer.
#[derive(Default)]
pub struct UploadShare(AtomicUsize);

/// Room for one body. Dropping it frees the room.
pub struct UploadRoom {
    buffer: Arc<UploadBuffer>,
    share: Arc<UploadShare>,
    bytes: usize,
}

impl UploadBuffer {
    /// So many bytes.
    pub fn new(most: usize) -> Self {
        Self { most: AtomicUsize::new(most), used: AtomicUsize::new(0) }
    }

    /// Changes the size. Bodies keep the room that they have.
    pub fn resize(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Bytes that requests have taken.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes room for a body, if there is some for this organisation.
    pub fn take(self: &Arc<Self>, share: &Arc<UploadShare>, bytes: usize) -> Option<UploadRoom> {
        let own = share.0.load(Ordering::Relaxed);
        let take = |used: usize| {
            let now_used = used.checked_add(bytes)?;
            let free = self.most.load(Ordering::Relaxed).checked_sub(now_used)?;
            (own + bytes <= free).then_some(now_used)
        };
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        share.0.fetch_add(bytes, Ordering::Relaxed);
        Some(UploadRoom { buffer: Arc::clone(self), share: Arc::clone(share), bytes })
    }
}

impl UploadShare {
    /// Whether the organisation has nothing of the buffer.
    pub fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

impl UploadRoom {
    /// Bytes of the body that fit.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for UploadRoom {
    fn drop(&mut self) {
        self.share.0.fetch_sub(self.bytes, Ordering::Relaxed);
        self.buffer.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fill(buffer: &Arc<UploadBuffer>, share: &Arc<UploadShare>, bytes: usize) -> Vec<UploadRoom> {
        std::iter::from_fn(|| buffer.take(share, bytes)).collect()
    }

    #[test]
    fn one_organisation_gets_a_half_and_leaves_a_quarter_to_the_next() {
        let (buffer, shares) =
            (Arc::new(UploadBuffer::new(1000)), [(); 2].map(|()| Arc::default()));
        let first = fill(&buffer, &shares[0], 10);
        let second = fill(&buffer, &shares[1], 10);
        assert_eq!((first.len(), second.len()), (50, 25));
        drop(first);
        assert_eq!(buffer.used(), 250);
        assert!(shares[0].is_empty());
    }

    #[test]
    fn without_a_buffer_there_is_no_room() {
        let buffer = Arc::new(UploadBuffer::new(0));
        assert!(buffer.take(&Arc::default(), 1).is_none());
    }

    proptest! {
        // No sequence takes more than there is, and what is given back is all that was taken.
        #[test]
        fn room_is_bounded_and_given_back(
            most in 0usize..5000,
            steps in proptest::collection::vec((0usize..3, 0usize..900, any::<bool>()), 0..60),
        ) {
            let buffer = Arc::new(UploadBuffer::new(most));
            let shares: [Arc<UploadShare>; 3] = Default::default();
            let mut rooms = Vec::new();
            for (who, bytes, drops) in steps {
                if drops {
                    rooms.pop();
                } else if let Some(room) = buffer.take(&shares[who], bytes) {
                    rooms.push(room);
                }
                let sum: usize = rooms.iter().map(|room| room.bytes).sum();
                prop_assert_eq!(buffer.used(), sum);
                prop_assert!(sum <= most);
            }
            rooms.clear();
            prop_assert_eq!(buffer.used(), 0);
            prop_assert!(shares.iter().all(|share| share.is_empty()));
        }
    }
}
