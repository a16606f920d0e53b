//! How much is done in one statement or transaction: less after one that was too much for the database, slowly more again.

/// A number of rows, at least 1.
pub(crate) struct BatchSize {
    now: usize,
    most: usize,
}

impl BatchSize {
    pub(crate) fn new(most: usize) -> Self {
        Self { now: most, most }
    }

    pub(crate) fn get(&self) -> usize {
        self.now
    }

    /// So many were too many.
    pub(crate) fn was_too_much(&mut self, tried: usize) {
        self.now = (tried / 2).max(1);
    }

    /// Grows slowly: each attempt that is too much on a slow link costs the time of a query.
    pub(crate) fn went_well(&mut self) {
        self.now = self.most.min(self.now + self.now / 4 + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A batch that is too much is halved until it passes, and what passes is tried as more only now and then.
    #[test]
    fn a_batch_shrinks_quickly_and_grows_slowly() {
        let (mut size, mut tries) = (BatchSize::new(500), 0);
        while size.get() > 7 {
            size.was_too_much(size.get());
            tries += 1;
        }
        assert_eq!((size.get(), tries), (7, 6));
        let mut failures = 0;
        for _ in 0..100 {
            if size.get() > 7 {
                size.was_too_much(size.get());
            } else {
                size.went_well();
            }
            failures += usize::from(size.get() > 7);
        }
        assert!(failures <= 34, "{failures} of 100 are too much");
        size.was_too_much(1);
        assert_eq!(size.get(), 1);
        (0..25).for_each(|_| size.went_well());
        assert_eq!(size.get(), 500);
    }
}
