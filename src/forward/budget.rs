//! The retry budget: resends are bounded by a share of all requests and a small reserve.
//!
//! Without it, an overloaded Mimir that fails everything would get twice the load. The reserve
//! fills with time, so that a proxy with few requests can resend some.

use std::time::Duration;

use tokio::time::Instant;

/// A token bucket: each request adds a part of a token, and each resend takes a token.
#[derive(Debug)]
pub(super) struct Budget {
    /// In hundredths of a resend.
    balance: u64,
    percent: u64,
    reserve: u64,
    /// At least one resend: without a reserve, requests save up for it.
    most: u64,
    filled: Instant,
}

const REPEAT: u64 = 100;
/// The reserve grows by one resend in this time.
const REFILL: Duration = Duration::from_secs(1);

impl Budget {
    /// The share is in hundredths of all requests, the reserve in resends.
    pub(super) fn new(percent: usize, reserve: usize, now: Instant) -> Self {
        let reserve = (reserve as u64).saturating_mul(REPEAT);
        Self {
            balance: reserve,
            percent: percent as u64,
            reserve,
            most: reserve.max(REPEAT),
            filled: now,
        }
    }

    /// Counts a request.
    pub(super) fn deposit(&mut self) {
        self.balance = (self.balance + self.percent).min(self.most);
    }

    /// Takes a resend, if there is one.
    pub(super) fn withdraw(&mut self, now: Instant) -> bool {
        let intervals = now.duration_since(self.filled).as_secs() / REFILL.as_secs();
        if intervals > 0 {
            let grown = self.balance.saturating_add(intervals.saturating_mul(REPEAT));
            self.balance = self.balance.max(grown.min(self.reserve));
            self.filled += Duration::from_secs(intervals);
        }
        match self.balance.checked_sub(REPEAT) {
            Some(rest) => {
                self.balance = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn resends_never_exceed_the_share_and_the_reserve(
            percent in 0usize..100,
            reserve in 0usize..50,
            steps in proptest::collection::vec((0u64..3000, 0usize..20, 0usize..20), 0..60),
        ) {
            let start = Instant::now();
            let mut budget = Budget::new(percent, reserve, start);
            let (mut now, mut requests, mut repeats) = (start, 0, 0);
            for (millis, asked, wanted) in steps {
                now += Duration::from_millis(millis);
                for _ in 0..asked {
                    budget.deposit();
                    requests += 1;
                }
                repeats += (0..wanted).filter(|_| budget.withdraw(now)).count();
            }
            let time = usize::try_from(now.duration_since(start).as_secs()).unwrap();
            prop_assert!(repeats * 100 <= requests * percent + (reserve + time) * 100);
        }

        // It is documented as additional: without it, the share was nothing.
        #[test]
        fn without_a_reserve_the_share_is_there(percent in 1usize..100) {
            let start = Instant::now();
            let mut budget = Budget::new(percent, 0, start);
            prop_assert!(!budget.withdraw(start + Duration::from_secs(60)));
            (0..100_usize.div_ceil(percent)).for_each(|_| budget.deposit());
            prop_assert!(budget.withdraw(start) && !budget.withdraw(start));
        }

        #[test]
        fn the_reserve_fills_with_time(reserve in 1usize..50) {
            let start = Instant::now();
            let mut budget = Budget::new(0, reserve, start);
            let spend = |budget: &mut Budget, now| (0..100).filter(|_| budget.withdraw(now)).count();
            prop_assert_eq!(spend(&mut budget, start), reserve);
            prop_assert_eq!(spend(&mut budget, start + Duration::from_secs(1)), 1);
            prop_assert_eq!(spend(&mut budget, start + Duration::from_secs(1000)), reserve);
        }
    }
}
