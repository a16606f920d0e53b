//! Which requests get a line in the log that anybody can make. A flood of one kind must neither fill the
//! log nor push out the lines of others, so each kind has so many lines a second, and one source a
//! quarter of them. The rest is counted, exactly: in a metric, and in one line a second with the number.
//! Requests that are served for a caller who is known always have their line.

use std::array;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::per_second::PerSecond;
use crate::reason::Sampled;

/// Sources share counters, so many for each kind; which of them changes every second.
const COUNTERS: usize = 16;

/// The lines of each kind in this second. Shared by all workers.
pub(super) struct Sampling {
    /// 0 for all of them.
    per_second: AtomicU32,
    lines: [Lines; Sampled::COUNT],
    suppressed: [AtomicU64; Sampled::COUNT],
    hasher: RandomState,
}

#[derive(Default)]
struct Lines {
    all: PerSecond,
    of_sources: [PerSecond; COUNTERS],
}

impl Sampling {
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            per_second: AtomicU32::new(per_second),
            lines: array::from_fn(|_| Lines::default()),
            suppressed: array::from_fn(|_| AtomicU64::new(0)),
            hasher: RandomState::new(),
        }
    }

    pub(super) fn set(&self, per_second: u32) {
        self.per_second.store(per_second, Ordering::Relaxed);
    }

    /// Whether a request of a source has a line. If not, it is counted.
    pub(super) fn takes(&self, kind: Sampled, source: impl Hash, second: u64) -> bool {
        let per_second = self.per_second.load(Ordering::Relaxed);
        if per_second == 0 {
            return true;
        }
        let lines = &self.lines[kind.index()];
        let counter = self.hasher.hash_one((source, second)) % COUNTERS as u64;
        let of_source = usize::try_from(counter).ok().and_then(|at| lines.of_sources.get(at));
        let quarter = per_second.div_ceil(4);
        let taken = of_source.is_none_or(|of_source| of_source.take(second, quarter))
            && lines.all.take(second, per_second);
        if !taken {
            self.suppressed[kind.index()].fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// The requests of each kind that got no line since the last call.
    pub(super) fn take_suppressed(&self) -> impl Iterator<Item = (Sampled, u64)> {
        let counts = Sampled::ALL.into_iter().zip(&self.suppressed);
        let counts = counts.map(|(kind, count)| (kind, count.swap(0, Ordering::Relaxed)));
        counts.filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;

    const NOT_A_MEMBER: Sampled = Sampled::Unserved(Reason::NotAMember);

    #[test]
    fn each_reason_has_so_many_lines_a_second_and_the_rest_is_counted() {
        let sampling = Sampling::new(10);
        let lines = |reason, second, requests: u32| {
            (0..requests)
                .filter(|source| sampling.takes(Sampled::Unserved(reason), source, second))
                .count()
        };
        assert_eq!(lines(Reason::NoCredential, 7, 1000), 10);
        assert_eq!(lines(Reason::Expired, 7, 1000), 10);
        assert_eq!(lines(Reason::NoCredential, 8, 1500), 10);
        let suppressed: Vec<_> = sampling.take_suppressed().collect();
        let wanted = [
            (Sampled::Unserved(Reason::NoCredential), 990 + 1490),
            (Sampled::Unserved(Reason::Expired), 990),
        ];
        assert!(wanted.iter().all(|one| suppressed.contains(one)), "{suppressed:?}");
        assert_eq!(sampling.take_suppressed().count(), 0);
    }

    // A flood from one source must not hide the requests of another.
    #[test]
    fn a_source_has_a_quarter_of_the_lines() {
        let sampling = Sampling::new(100);
        let flood = (0..10_000).filter(|_| sampling.takes(NOT_A_MEMBER, "victor", 7)).count();
        assert_eq!(flood, 25);
        // In each second another counter.
        let seen = (0..64).filter(|second| {
            for _ in 0..100 {
                let _ = sampling.takes(NOT_A_MEMBER, "victor", *second);
            }
            sampling.takes(NOT_A_MEMBER, "bruno", *second)
        });
        assert!(seen.count() > 32);
    }

    #[test]
    fn each_kind_has_its_own_place() {
        assert!(Sampled::ALL.iter().enumerate().all(|(at, kind)| kind.index() == at));
    }

    #[test]
    fn zero_is_no_limit() {
        let sampling = Sampling::new(0);
        assert!((0..10_000).all(|_| sampling.takes(Sampled::UnknownCaller, 0, 1)));
        assert_eq!(sampling.take_suppressed().count(), 0);
    }
}
