//! How many requests may be sent a second time: a share of all, and a few.
//!
//! Without it a Mimir that fails everything under load gets twice the load. The share is of the
//! requests that there were; the reserve fills with time, so that a proxy with little to do may
//! still try again.

use std::time::Duration;

use tokio::time::Instant;

/// A bucket that each request puts a part of a token into and each repeat takes a token from.
#[derive(Debug)]
pub(super) struct Budget {
    /// In hundredths of a repeat.
    balance: u64,
    percent: u64,
    most: u64,
    filled: Instant,
}

const REPEAT: u64 = 100;
/// A repeat comes back by itself in this time.
const REFILL: Duration = Duration::from_secs(1);

impl Budget {
    /// With a share of requests in hundredths, and as many repeats that can be saved up.
    pub(super) fn new(percent: usize, reserve: usize, now: Instant) -> Self {
        let most = (reserve as u64).saturating_mul(REPEAT);
        Self { balance: most, percent: percent as u64, most, filled: now }
    }

    /// A request came.
    pub(super) fn deposit(&mut self) {
        self.balance = (self.balance + self.percent).min(self.most);
    }

    /// Whether one may be repeated.
    pub(super) fn withdraw(&mut self, now: Instant) -> bool {
        let intervals = now.duration_since(self.filled).as_secs() / REFILL.as_secs();
        if intervals > 0 {
            self.balance = self.balance.saturating_add(intervals.saturating_mul(REPEAT));
            self.balance = self.balance.min(self.most);
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
        fn repeats_are_never_more_than_the_share_the_reserve_and_the_time_allow(
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

        #[test]
        fn a_reserve_comes_back_with_time(reserve in 1usize..50) {
            let start = Instant::now();
            let mut budget = Budget::new(0, reserve, start);
            let spend = |budget: &mut Budget, now| (0..100).filter(|_| budget.withdraw(now)).count();
            prop_assert_eq!(spend(&mut budget, start), reserve);
            prop_assert_eq!(spend(&mut budget, start + Duration::from_secs(1)), 1);
            prop_assert_eq!(spend(&mut budget, start + Duration::from_secs(1000)), reserve);
        }
    }
}
