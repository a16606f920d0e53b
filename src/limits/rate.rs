//! A rate with a burst, by the generic cell rate algorithm (ITU-T I.371): one number, the
//! *theoretical arrival time*, which every unit moves forward by its interval.
//!
//! Not the `governor` crate: the size of a body is known only when it has ended, so it is charged
//! afterwards and later requests wait for it. `governor` only admits or refuses beforehand.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Units per second, or no limit. Times are counted from a beginning that the caller chooses.
#[derive(Debug)]
pub(super) struct Rate {
    /// 0 is no limit.
    per_second: AtomicU64,
    /// In nanoseconds.
    burst: AtomicU64,
    /// The theoretical arrival time in nanoseconds. If it is in the future, that much is owed.
    paid_until: AtomicU64,
}

impl Rate {
    /// A rate that saves up to `burst` of unused time.
    pub(super) fn new(per_second: Option<NonZeroU64>, burst: Duration) -> Self {
        let per_second = per_second.map_or(0, NonZeroU64::get);
        Self {
            per_second: AtomicU64::new(per_second),
            burst: AtomicU64::new(saved(per_second, burst)),
            paid_until: AtomicU64::new(0),
        }
    }

    pub(super) fn is_limited(&self) -> bool {
        self.per_second.load(Relaxed) != 0
    }

    /// Takes units and returns how long to wait before they may be used. If that is longer than
    /// `max_wait`, nothing is taken, and the error is the wait.
    pub(super) fn take(
        &self,
        now: Duration,
        units: u64,
        max_wait: Duration,
    ) -> Result<Duration, Duration> {
        let Some(cost) = self.cost(units) else { return Ok(Duration::ZERO) };
        let (now, burst) = (nanos(now), self.burst.load(Relaxed));
        let after = |paid_until: u64| paid_until.max(now).saturating_add(cost);
        let wait = |after: u64| after.saturating_sub(now.saturating_add(burst));
        let mut result = Ok(Duration::ZERO);
        let _ = self.paid_until.fetch_update(Relaxed, Relaxed, |paid_until| {
            let after = after(paid_until);
            let wait = Duration::from_nanos(wait(after));
            result = if wait <= max_wait { Ok(wait) } else { Err(wait) };
            result.is_ok().then_some(after)
        });
        result
    }

    /// Charges units that were used already.
    pub(super) fn charge(&self, now: Duration, units: u64) {
        let Some(cost) = self.cost(units) else { return };
        let now = nanos(now);
        let _ = self.paid_until.fetch_update(Relaxed, Relaxed, |paid_until| {
            Some(paid_until.max(now).saturating_add(cost))
        });
    }

    /// Changes the rate. What is owed stays the same number of units: with ten times the rate it is
    /// paid in a tenth of the time. A request that is counted meanwhile may be counted at either rate.
    pub(super) fn change(&self, now: Duration, per_second: Option<NonZeroU64>, burst: Duration) {
        let (now, new) = (nanos(now), per_second.map_or(0, NonZeroU64::get));
        self.burst.store(saved(new, burst), Relaxed);
        let old = self.per_second.swap(new, Relaxed);
        if old == new {
            return;
        }
        let _ = self.paid_until.fetch_update(Relaxed, Relaxed, |paid_until| {
            let owed = u128::from(paid_until.saturating_sub(now)) * u128::from(old);
            let owed = owed.checked_div(u128::from(new)).unwrap_or(0);
            Some(now.saturating_add(u64::try_from(owed).unwrap_or(u64::MAX)))
        });
    }

    /// Whether nothing is owed: a new one would be the same.
    pub(super) fn is_idle(&self, now: Duration) -> bool {
        self.paid_until.load(Relaxed) <= nanos(now)
    }

    /// The time that units take; none without a limit.
    fn cost(&self, units: u64) -> Option<u64> {
        NonZeroU64::new(self.per_second.load(Relaxed)).map(|rate| cost(units, rate))
    }
}

/// What is saved up, in nanoseconds: at least a single unit always fits.
fn saved(per_second: u64, burst: Duration) -> u64 {
    let one = NonZeroU64::new(per_second).map_or(0, |rate| cost(1, rate));
    nanos(burst).max(one)
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

        // What is owed is units, whatever the rate becomes; the wait is what is over the burst.
        #[test]
        fn a_new_rate_pays_the_same_debt(
            old in 1_u32..100_000,
            new in 1_u32..100_000,
            owed in 0_u32..1_000_000,
            burst_ms in 1000_u64..5000,
        ) {
            let burst = Duration::from_millis(burst_ms);
            let changed = rate(old.into(), burst);
            let now = Duration::from_secs(1000);
            changed.charge(now, owed.into());
            changed.change(now, NonZeroU64::new(new.into()), burst);
            let fresh = rate(new.into(), burst);
            fresh.charge(now, owed.into());
            let waits = [&changed, &fresh].map(|rate| match rate.take(now, 0, Duration::ZERO) {
                Ok(wait) | Err(wait) => wait,
            });
            // Times are whole nanoseconds of the rate before.
            let close = Duration::from_micros(u64::from(old.div_ceil(new)).max(1));
            prop_assert!(waits[0].abs_diff(waits[1]) <= close, "{waits:?}");
        }

        // `Retry-After` is right: a request that comes back then passes, and one just before does not.
        #[test]
        fn who_comes_back_when_it_is_told_passes(
            per_second in 1_u32..5000,
            burst_ms in 1_u64..2000,
            owed in 0_u32..100_000,
            units in 0_u32..=1,
        ) {
            let rate = rate(per_second.into(), Duration::from_millis(burst_ms));
            rate.charge(Duration::ZERO, owed.into());
            if let Err(wait) = rate.take(Duration::ZERO, units.into(), Duration::ZERO) {
                let early = wait.saturating_sub(Duration::from_nanos(1));
                prop_assert!(rate.take(early, units.into(), Duration::ZERO).is_err());
                prop_assert_eq!(rate.take(wait, units.into(), Duration::ZERO), Ok(Duration::ZERO));
            }
        }

        // In the long run the rate is used up: who always asks gets all of it, whatever the sizes, up to
        // a burst.
        #[test]
        fn never_less_than_the_rate(per_second in 20_u32..2000, units in 1_u32..20) {
            let (rate, second) = (rate(per_second.into(), Duration::from_secs(1)), Duration::from_secs(1));
            let (mut now, mut taken) = (Duration::ZERO, 0_u32);
            while now < 60 * second {
                match rate.take(now, units.into(), Duration::ZERO) {
                    Ok(_) => taken += units,
                    Err(wait) => now += wait,
                }
            }
            prop_assert!(f64::from(taken) >= 60.0 * f64::from(per_second), "{taken}");
        }
    }

    #[test]
    fn no_limit_owes_nothing_and_a_limit_comes_and_goes() {
        let (unlimited, none) = (Rate::new(None, Duration::from_secs(1)), Duration::ZERO);
        unlimited.charge(none, u64::MAX);
        assert!(!unlimited.is_limited() && unlimited.is_idle(none));
        assert_eq!(unlimited.take(none, u64::MAX, none), Ok(none));
        unlimited.change(none, NonZeroU64::new(10), Duration::from_secs(1));
        assert_eq!(unlimited.take(none, 11, none), Err(Duration::from_millis(100)));
        unlimited.charge(none, 1000);
        unlimited.change(none, None, Duration::from_secs(1));
        assert_eq!(unlimited.take(none, 1000, none), Ok(none));
        assert!(unlimited.is_idle(none));
    }
}
