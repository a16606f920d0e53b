//! So many of something in each second, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many were taken in the current second. Shared by all threads.
#[derive(Debug, Default)]
pub(crate) struct PerSecond {
    /// The second in the upper half, what was taken in it in the lower one.
    window: AtomicU64,
}

impl PerSecond {
    /// Takes one of `most` in this second, if any is left.
    pub(crate) fn take(&self, second: u64, most: u32) -> bool {
        const HALF: u64 = u32::MAX as u64;
        let take = |window: u64| {
            let taken = if window >> 32 == second & HALF { window & HALF } else { 0 };
            (taken < u64::from(most)).then(|| (second << 32) | (taken + 1))
        };
        self.window.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_has_so_many() {
        let per_second = PerSecond::default();
        let taken = |second, most| (0..100).filter(|_| per_second.take(second, most)).count();
        assert_eq!(taken(1_700_000_000, 10), 10);
        assert_eq!(taken(1_700_000_000, 10), 0);
        assert_eq!(taken(1_700_000_001, 3), 3);
        assert_eq!(taken(1_700_000_002, 0), 0);
        // A second beyond 32 bits is another one than its lower half's.
        assert_eq!(taken((1 << 32) + 5, 1), 1);
    }
}
