//! How long to wait before the next attempt: exponential with full jitter, so that many tenants
//! that failed together do not retry together, and never sooner than Mimir asked.

use std::time::Duration;

use tokio::time::sleep;

use crate::backoff::{self, Jitter};

/// The ceiling of the first wait.
const FIRST: Duration = Duration::from_millis(200);

/// The longest wait, also if Mimir asks for longer: a rule that is late by minutes is a problem in
/// itself, and one more request per minute does no harm.
pub const MAX_DELAY: Duration = Duration::from_secs(60);

/// The wait after failed attempt `attempt` (the first is 0). `random` is in `0..1`; anything else
/// counts as the nearest bound. At least `retry_after`, at most [`MAX_DELAY`].
pub fn next_delay(attempt: u32, retry_after: Option<Duration>, random: f64) -> Duration {
    let jittered = Jitter::Full.apply(backoff::ceiling(FIRST, MAX_DELAY, attempt), random);
    // Tenants that were told the same delay are spread over the time after it.
    let asked = retry_after.map_or(Duration::ZERO, |asked| asked.saturating_add(jittered));
    jittered.max(asked).min(MAX_DELAY)
}

/// Attempts at one call, the first included.
const ATTEMPTS: u32 = 3;
/// A longer delay is left to the caller: the tenant is retried later, and its slot serves others.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// What an error of a call says about trying it again.
pub trait Retriable {
    /// Whether the same call may succeed later without anybody changing anything.
    fn is_transient(&self) -> bool;
    /// Whether it was a timeout, which has held the caller's slot for long enough.
    fn is_slow(&self) -> bool;
    /// How long Mimir asks to be left alone.
    fn retry_after(&self) -> Option<Duration>;
}

/// Calls Mimir until it succeeds, or until another attempt cannot help or has to wait for too long. Each attempt is a
/// call of its own, so what `call` checks is checked again after each delay.
pub async fn retrying<T, E: Retriable, F: Future<Output = Result<T, E>>>(
    call: impl Fn() -> F,
) -> Result<T, E> {
    let mut attempts = Attempts::default();
    loop {
        match call().await {
            Err(error) if attempts.waits_after(&error).await => {}
            done => return done,
        }
    }
}

/// The attempts at one call to Mimir.
#[derive(Default)]
struct Attempts {
    count: u32,
}

impl Attempts {
    /// Returns whether to try again, after the delay before the next attempt.
    async fn waits_after(&mut self, error: &impl Retriable) -> bool {
        let delay = next_delay(self.count, error.retry_after(), fastrand::f64());
        self.count += 1;
        let again = error.is_transient()
            && !error.is_slow()
            && self.count < ATTEMPTS
            && delay <= LONGEST_WAIT;
        if again {
            sleep(delay).await;
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_delay_is_between_retry_after_and_the_cap(
            attempt in 0..u32::MAX, asked in proptest::option::of(0..200_000_u64), random in 0.0..1.0,
        ) {
            let asked = asked.map(Duration::from_millis);
            let delay = next_delay(attempt, asked, random);
            prop_assert!(delay <= MAX_DELAY);
            prop_assert!(delay >= asked.unwrap_or_default().min(MAX_DELAY));
        }

        #[test]
        fn later_attempts_wait_no_less(attempt in 0..40_u32, random in 0.0..1.0) {
            prop_assert!(next_delay(attempt + 1, None, random) >= next_delay(attempt, None, random));
        }

        #[test]
        fn any_random_number_is_accepted(attempt in 0..50_u32, random in proptest::num::f64::ANY) {
            prop_assert!(next_delay(attempt, None, random) <= MAX_DELAY);
        }
    }

    struct Fault {
        is_transient: bool,
        is_slow: bool,
    }

    impl Retriable for Fault {
        fn is_transient(&self) -> bool {
            self.is_transient
        }

        fn is_slow(&self) -> bool {
            self.is_slow
        }

        fn retry_after(&self) -> Option<Duration> {
            None
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_may_succeed_later_is_called_again() {
        for (is_transient, is_slow, wanted) in
            [(true, false, ATTEMPTS), (true, true, 1), (false, false, 1)]
        {
            let calls = std::cell::Cell::new(0);
            let call = || {
                calls.set(calls.get() + 1);
                std::future::ready(Err::<(), _>(Fault { is_transient, is_slow }))
            };
            assert!(retrying(call).await.is_err());
            assert_eq!(calls.get(), wanted);
        }
    }

    #[test]
    fn delays_double_and_use_their_whole_range() {
        let ceiling = |attempt| next_delay(attempt, None, 1.0).as_millis();
        assert_eq!([0, 1, 2, 3].map(ceiling), [200, 400, 800, 1600]);
        assert_eq!(next_delay(5, None, 0.0), Duration::ZERO);
        assert_eq!(next_delay(40, None, 1.0), MAX_DELAY);
        assert_eq!(next_delay(2, Some(Duration::from_secs(3)), 0.5), Duration::from_millis(3_400));
    }
}
