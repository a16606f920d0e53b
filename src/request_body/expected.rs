//! What the bodies of requests that were let in may still bring.
//!
//! A body comes later than its request is let in. Without this, a moment in which many requests begin is
//! one in which there is much memory, and what they take is seen when it is too late to refuse any of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is expected of all bodies together, or of those of one organisation.
#[derive(Default)]
pub struct Expected(AtomicUsize);

/// What is expected of one body: less as it comes. Dropping it, at its end or before, takes back the rest.
pub struct ExpectedBody {
    all: Arc<Expected>,
    own: Arc<Expected>,
    left: usize,
}

/// Of a longer body, no more is in memory at a time: it is passed on in pieces, and kept whole for a resend
/// only up to about this size.
const MOST: usize = 128 << 10;

impl Expected {
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Expects a body of so many bytes, None if that is not known, and of all bodies of its organisation
    /// together no more than `most`: so much room it would get at most for bodies that it sends slowly, and
    /// who announces more must not have others' requests shed.
    pub fn begin(
        self: &Arc<Self>,
        own: &Arc<Self>,
        most: usize,
        length: Option<u64>,
    ) -> ExpectedBody {
        let length = length.and_then(|length| usize::try_from(length).ok());
        let length = length.map_or(MOST, |length| length.min(MOST));
        let left = length.min(most.saturating_sub(own.bytes()));
        self.0.fetch_add(left, Ordering::Relaxed);
        own.0.fetch_add(left, Ordering::Relaxed);
        ExpectedBody { all: Arc::clone(self), own: Arc::clone(own), left }
    }
}

impl ExpectedBody {
    /// So much of it has come: it is memory that is taken now.
    pub(super) fn came(&mut self, bytes: usize) {
        let bytes = bytes.min(self.left);
        self.left -= bytes;
        self.all.0.fetch_sub(bytes, Ordering::Relaxed);
        self.own.0.fetch_sub(bytes, Ordering::Relaxed);
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
                (
                    any::<bool>(),
                    proptest::option::of(0_u64..300_000),
                    proptest::collection::vec(0_usize..90_000, 0..5),
                ),
                0..20,
            ),
            most in 0_usize..600_000,
        ) {
            let all = Arc::new(Expected::default());
            let owns: [Arc<Expected>; 2] = Default::default();
            let mut held = Vec::new();
            let mut sums = [0; 2];
            for (who, length, pieces) in bodies {
                let (own, sum) = (&owns[usize::from(who)], &mut sums[usize::from(who)]);
                let mut body = all.begin(own, most, length);
                let full = length.map_or(MOST, |length| MOST.min(usize::try_from(length).unwrap()));
                let counted = full.min(most - *sum);
                for piece in &pieces {
                    body.came(*piece);
                }
                *sum += counted.saturating_sub(pieces.iter().sum());
                prop_assert!(own.bytes() <= most);
                held.push(body);
            }
            prop_assert_eq!([owns[0].bytes(), owns[1].bytes()], sums);
            prop_assert_eq!(all.bytes(), sums[0] + sums[1]);
            drop(held);
            prop_assert_eq!([all.bytes(), owns[0].bytes(), owns[1].bytes()], [0; 3]);
        }
    }
}
