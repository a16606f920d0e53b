//! What the bodies of requests that were let in may still bring.
//!
//! A body comes later than its request is let in. Without this, a moment in which many requests begin is
//! one in which there is much memory, and what they take is seen when it is too late to refuse any of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is expected of all bodies together.
#[derive(Default)]
pub struct Expected(AtomicUsize);

/// What is expected of one body: less as it comes. Dropping it, at its end or before, takes back the rest.
pub struct ExpectedBody {
    all: Arc<Expected>,
    left: usize,
}

/// Of a longer body, no more is in memory at a time: it is passed on in pieces, and kept whole for a resend
/// only up to about this size.
const MOST: usize = 128 << 10;

impl Expected {
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Expects a body of so many bytes; None if that is not known.
    pub fn begin(self: &Arc<Self>, length: Option<u64>) -> ExpectedBody {
        let length = length.and_then(|length| usize::try_from(length).ok());
        let left = length.map_or(MOST, |length| length.min(MOST));
        self.0.fetch_add(left, Ordering::Relaxed);
        ExpectedBody { all: Arc::clone(self), left }
    }
}

impl ExpectedBody {
    /// So much of it has come: it is memory that is taken now.
    pub(super) fn came(&mut self, bytes: usize) {
        let bytes = bytes.min(self.left);
        self.left -= bytes;
        self.all.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for ExpectedBody {
    fn drop(&mut self) {
        self.came(self.left);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_expected_is_what_has_not_come_of_bodies_that_are_there(
            bodies in proptest::collection::vec(
                (proptest::option::of(0_u64..300_000), proptest::collection::vec(0_usize..90_000, 0..5)),
                0..20,
            ),
        ) {
            let all = Arc::new(Expected::default());
            let mut held = Vec::new();
            let mut sum = 0;
            for (length, pieces) in bodies {
                let mut body = all.begin(length);
                for piece in &pieces {
                    body.came(*piece);
                }
                let most = length.map_or(MOST, |length| MOST.min(usize::try_from(length).unwrap()));
                sum += most.saturating_sub(pieces.iter().sum());
                held.push(body);
            }
            prop_assert_eq!(all.bytes(), sum);
            drop(held);
            prop_assert_eq!(all.bytes(), 0);
        }
    }
}
