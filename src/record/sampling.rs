//! Which requests that were not served get a line in the log. A flood of one reason must neither fill the
//! log nor push out the lines of others, so each reason has so many lines a second. The rest is counted,
//! exactly: in a metric, and in one line a second with the number.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};

use strum::{EnumCount as _, VariantArray as _};

use crate::per_second::PerSecond;
use crate::reason::Reason;

/// The lines of each reason in this second. Shared by all workers.
pub(super) struct Sampling {
    /// 0 for all of them.
    per_second: u32,
    lines: [PerSecond; Reason::COUNT],
    suppressed: [AtomicU64; Reason::COUNT],
}

impl Sampling {
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            per_second,
            lines: array::from_fn(|_| PerSecond::default()),
            suppressed: array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Whether a request has a line. If not, it is counted.
    pub(super) fn takes(&self, reason: Reason, second: u64) -> bool {
        if self.per_second == 0 {
            return true;
        }
        let taken = self.lines[reason as usize].take(second, self.per_second);
        if !taken {
            self.suppressed[reason as usize].fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// The requests of each reason that got no line since the last call.
    pub(super) fn take_suppressed(&self) -> impl Iterator<Item = (Reason, u64)> {
        let counts = Reason::VARIANTS.iter().zip(&self.suppressed);
        let counts = counts.map(|(reason, count)| (*reason, count.swap(0, Ordering::Relaxed)));
        counts.filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_so_many_lines_a_second_and_the_rest_is_counted() {
        let sampling = Sampling::new(10);
        let lines = |reason, second, requests: u32| {
            (0..requests).filter(|_| sampling.takes(reason, second)).count()
        };
        assert_eq!(lines(Reason::NoCredential, 7, 1000), 10);
        assert_eq!(lines(Reason::Expired, 7, 10), 10);
        assert_eq!(lines(Reason::NoCredential, 8, 15), 10);
        let suppressed: Vec<_> = sampling.take_suppressed().collect();
        assert_eq!(suppressed, [(Reason::NoCredential, 995)]);
        assert_eq!(sampling.take_suppressed().count(), 0);
    }

    #[test]
    fn zero_is_no_limit() {
        let sampling = Sampling::new(0);
        assert!((0..10_000).all(|_| sampling.takes(Reason::NoCredential, 1)));
        assert_eq!(sampling.take_suppressed().count(), 0);
    }
}
