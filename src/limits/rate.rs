//! A rate with a burst, by the generic cell rate algorithm (ITU-T I.371): one number, the
//! *theoretical arrival time*, which every unit moves forward by its interval.
//!
//! Not the `governor` crate: the size of a body is known only when it has ended, so it is charged
//! afterwards and later requests wait for it. `governor` only admits or refuses beforehand.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Units per second. Times are counted from a beginning that the caller chooses.
#[derive(Debug)]
pub(super) struct Rate {
    /// 0 for no limit.
    per_second: AtomicU64,
    burst: AtomicU64,
    /// The theoretical arrival time in nanoseconds. If it is in the future, that much is owed.
    paid_until: AtomicU64,
}

impl Rate {
    /// A rate, or no limit, that saves up to `burst` of unused time.
    pub(super) fn new(per_second: Option<NonZeroU64>, burst: Duration) -> Self {
        let (number, burst) = numbers(per_second, burst);
        Self {
            per_second: AtomicU64::new(number),
            burst: AtomicU64::new(burst),
            paid_until: AtomicU64::new(0),
        }
    }

    /// Changes the rate. The units that are owed stay the same, and take as long as the new rate says.
    pub(super) fn set(&self, now: Duration, per_second: Option<NonZeroU64>, burst: Duration) {
        let (number, burst) = numbers(per_second, burst);
        self.burst.store(burst, Ordering::Relaxed);
        let before = self.per_second.swap(number, Ordering::Relaxed);
        if before == number {
            return;
        }
        let now = nanos(now);
        let _ = self.paid_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |paid_until| {
            let owed = u128::from(paid_until.saturating_sub(now)) * u128::from(before);
            let owed = owed.checked_div(u128::from(number)).unwrap_or(0);
            Some(now.saturating_add(u64::try_from(owed).unwrap_or(u64::MAX)))
        });
    }

    /// The units per second, if there is a limit.
    pub(super) fn per_second(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.per_second.load(Ordering::Relaxed))
    }

    /// Takes units and returns how long to wait before they may be used. If that is longer than
    /// `max_wait`, nothing is taken, and the error is the wait.
    pub(super) fn take(
        &self,
        now: Duration,
        units: u64,
        max_wait: Duration,
    ) -> Result<Duration, Duration> {
        let Some(per_second) = self.per_second() else { return Ok(Duration::ZERO) };
        let (now, cost) = (nanos(now), cost(units, per_second));
        let burst = self.burst.load(Ordering::Relaxed);
        let after = |paid_until: u64| paid_until.max(now).saturating_add(cost);
        let wait = |after: u64| after.saturating_sub(now.saturating_add(burst));
        let mut result = Ok(Duration::ZERO);
        let _ = self.paid_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |paid_until| {
            let after = after(paid_until);
            let wait = Duration::from_nanos(wait(after));
            result = if wait <= max_wait { Ok(wait) } else { Err(wait) };
            result.is_ok().then_some(after)
        });
        result
    }

    /// Charges units that were used already.
    pub(super) fn charge(&self, now: Duration, units: u64) {
        let Some(per_second) = self.per_second() else { return };
        let (now, cost) = (nanos(now), cost(units, per_second));
        let _ = self.paid_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |paid_until| {
            Some(paid_until.max(now).saturating_add(cost))
        });
    }

    /// Whether nothing is owed: a new one would be the same.
    pub(super) fn is_idle(&self, now: Duration) -> bool {
        self.paid_until.load(Ordering::Relaxed) <= nanos(now)
    }
}

/// A limit and its burst, of which a single unit always fits.
fn numbers(per_second: Option<NonZeroU64>, burst: Duration) -> (u64, u64) {
    let one = per_second.map_or(0, |per_second| cost(1, per_second));
    (per_second.map_or(0, NonZeroU64::get), nanos(burst).max(one))
}

fn cost(units: u64, per_second: NonZeroU64) -> u64 {
    let cost = u128::from(units) * 1_000_000_000 / u128::from(per_second.get());
    u64::try_from(cost).unwrap_or(u64::MAX)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(per_second: u64, burst: Duration) -> Rate {
        Rate::new(NonZeroU64::new(per_second), burst)
    }

    #[test]
    fn what_is_owed_is_kept_when_the_rate_changes() {
        let (second, none) = (Duration::from_secs(1), Duration::ZERO);
        let rate = rate(1000, second);
        rate.charge(none, 5000);
        rate.set(none, NonZeroU64::new(4000), second);
        assert_eq!(rate.take(none, 0, none), Err(second / 4), "5000 are owed, and a burst is free");
        rate.set(none, NonZeroU64::new(4000), second / 2);
        assert_eq!(
            rate.take(none, 0, none),
            Err(3 * second / 4),
            "another burst alone changes no debt"
        );
        rate.set(none, None, second);
        assert_eq!(rate.take(none, 1 << 40, none), Ok(none), "no limit");
        rate.charge(none, 1 << 40);
        rate.set(none, NonZeroU64::new(1), second);
        assert_eq!(rate.take(none, 1, none), Ok(none), "what came without a limit is not owed");
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let (rate, none) = (rate(10, Duration::from_secs(1)), Duration::ZERO);
        for _ in 0..10 {
            assert_eq!(rate.take(none, 1, none), Ok(none));
        }
        let wait = Duration::from_millis(100);
        assert_eq!(rate.take(none, 1, none), Err(wait));
        assert_eq!(rate.take(wait, 1, none), Ok(none));
        assert_eq!(rate.take(wait, 1, none), Err(wait));
    }

    #[test]
    fn each_waiting_request_has_its_own_turn() {
        let (rate, none) = (rate(10, Duration::from_millis(100)), Duration::ZERO);
        let ms = Duration::from_millis;
        assert_eq!(rate.take(none, 1, none), Ok(none));
        assert_eq!(rate.take(none, 1, ms(200)), Ok(ms(100)));
        assert_eq!(rate.take(none, 1, ms(200)), Ok(ms(200)));
        assert_eq!(rate.take(none, 1, ms(200)), Err(ms(300)));
    }

    #[test]
    fn later_charges_delay_the_next_request() {
        let (rate, none) = (rate(1000, Duration::from_secs(1)), Duration::ZERO);
        assert_eq!(rate.take(none, 0, none), Ok(none));
        rate.charge(none, 5000);
        assert_eq!(rate.take(none, 0, none), Err(Duration::from_secs(4)));
        assert!(!rate.is_idle(Duration::from_secs(4)));
        assert_eq!(rate.take(Duration::from_secs(4), 0, none), Ok(none));
        assert!(rate.is_idle(Duration::from_secs(5)));
    }

    #[test]
    fn nothing_overflows() {
        let rate = rate(1, Duration::MAX);
        rate.charge(Duration::MAX, u64::MAX);
        assert_eq!(rate.take(Duration::MAX, u64::MAX, Duration::ZERO), Ok(Duration::ZERO));
    }

    proptest! {
        // In any period, no more passes than the rate and one burst.
        #[test]
        fn never_more_than_the_rate_and_a_burst(
            per_second in 1_u32..2000,
            burst_ms in 1_u64..5000,
            steps in proptest::collection::vec((0_u64..200, 1_u32..20), 1..200),
        ) {
            let burst = Duration::from_millis(burst_ms);
            let rate = rate(per_second.into(), burst);
            let (mut now, mut taken) = (Duration::ZERO, 0_u32);
            for (pause, units) in steps {
                now += Duration::from_millis(pause);
                if rate.take(now, units.into(), Duration::ZERO).is_ok() {
                    taken += units;
                }
                let per_second = f64::from(per_second);
                let time = now.as_secs_f64() + burst.as_secs_f64().max(1.0 / per_second);
                prop_assert!(f64::from(taken) <= time * per_second + 0.001, "{taken} in {time}");
            }
        }
    }
}
