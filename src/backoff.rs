//! How long to wait before the next attempt: doubling from a first wait up to a longest one, with
//! jitter.
//!
//! The jitter keeps copies that lost the same server together from coming back together. It is a
//! parameter because two things need it: a wait that somebody configured is only spread, and very
//! many that failed together need all of the range.

use std::time::Duration;

/// How a wait is randomised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Jitter {
    /// From 80 % to 120 %.
    Spread,
    /// From nothing to all of it.
    Full,
}

impl Jitter {
    /// A wait with jitter. `random` is in `0..1`; anything else counts as the nearest bound.
    pub(crate) fn apply(self, wait: Duration, random: f64) -> Duration {
        // A NaN is not greater than 0.
        let random = if random > 0.0 { random.min(1.0) } else { 0.0 };
        match self {
            Self::Spread => wait.mul_f64(0.8 + 0.4 * random),
            Self::Full => wait.mul_f64(random),
        }
    }
}

/// The wait after a number of failures (the first wait is after 0 others), without jitter.
pub(crate) fn ceiling(first: Duration, longest: Duration, failures: u32) -> Duration {
    let factor = 2_u32.saturating_pow(failures);
    first.checked_mul(factor).unwrap_or(longest).min(longest)
}

/// An interval between polls, spread, so that copies that began together do not poll together.
pub(crate) fn spread(interval: Duration) -> Duration {
    Jitter::Spread.apply(interval, fastrand::f64())
}

/// The waits of one loop that retries.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// The wait after one more failure.
    pub(crate) fn next_wait(&mut self) -> Duration {
        let wait = ceiling(self.first, self.longest, self.failures);
        self.failures = self.failures.saturating_add(1);
        spread(wait)
    }

    /// After a success.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn waits_double_up_to_the_longest(
            first in 1..5_000_u64, longest in 1..100_000_u64, failures in 0..u32::MAX,
        ) {
            let (first, longest) = (Duration::from_millis(first), Duration::from_millis(longest));
            let wait = ceiling(first, longest, failures);
            prop_assert!(wait <= longest);
            prop_assert!(wait >= first.min(longest));
            let next = ceiling(first, longest, failures.saturating_add(1));
            prop_assert!(next == longest || next == wait * 2 || failures == u32::MAX);
        }

        #[test]
        fn jitter_stays_in_its_range(millis in 0..100_000_u64, random in proptest::num::f64::ANY) {
            let wait = Duration::from_millis(millis);
            let spread = Jitter::Spread.apply(wait, random);
            prop_assert!(wait.mul_f64(0.8) <= spread && spread <= wait.mul_f64(1.2));
            prop_assert!(Jitter::Full.apply(wait, random) <= wait);
        }
    }

    #[test]
    fn two_copies_that_failed_together_do_not_come_back_together() {
        let waits = |_| Backoff::new(Duration::from_secs(1), Duration::from_secs(30)).next_wait();
        let waits: std::collections::HashSet<Duration> = (0..20).map(waits).collect();
        assert!(waits.len() > 10, "{waits:?}");
    }

    #[test]
    fn a_success_begins_with_the_first_wait_again() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        for _ in 0..10 {
            backoff.next_wait();
        }
        assert!(backoff.next_wait() >= Duration::from_secs(24));
        backoff.reset();
        assert!(backoff.next_wait() <= Duration::from_millis(1200));
    }
}
