//! The leader's lease: whether this process may write now.
//!
//! It is a point in time that every answered beat moves on. Mimir knows no fencing tokens, so the
//! writer fences itself: a process that was frozen finds its lease expired when it wakes, before it
//! asks anything else. That does not hold for a machine that was suspended together with its clock
//! (docs/decisions/0011). Every write checks the lease when it begins and is dropped when the lease ends
//! ([`Lease::during`]). What remains is the moment between that check and the bytes on the wire.
//!
//! A statement that Postgres has is not taken back: the store runs it to its end on a task of its own, for at most
//! the time of a query. Statuses and records of a former leader can be written that late; the next leader's full
//! resync reads them again.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::mimir::{Retriable, retrying};

/// Cheap to clone. Once it is lost it is never held again.
#[derive(Clone, Debug)]
pub struct Lease {
    until: Arc<Mutex<Instant>>,
    lost: CancellationToken,
}

/// The lease has ended: another copy may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseLost;

impl Lease {
    pub(crate) fn new(until: Instant) -> Self {
        Self { until: Arc::new(Mutex::new(until)), lost: CancellationToken::new() }
    }

    /// Extends it. A lease that has ended stays ended.
    pub(crate) fn renew(&self, until: Instant) {
        if self.is_held() {
            *self.until.lock() = until;
        }
    }

    pub(crate) fn give_up(&self) {
        self.lost.cancel();
    }

    /// Whether this process may write now.
    pub(crate) fn is_held(&self) -> bool {
        if self.lost.is_cancelled() {
            return false;
        }
        if Instant::now() < self.until() {
            return true;
        }
        self.lost.cancel();
        false
    }

    pub(crate) async fn lost(&self) {
        while self.is_held() {
            tokio::select! {
                () = sleep_until(self.until()) => {}
                () = self.lost.cancelled() => {}
            }
        }
    }

    /// Runs `work` only while the lease is held: not started without it, dropped when it ends.
    pub(crate) async fn during<T>(&self, work: impl Future<Output = T>) -> Result<T, LeaseLost> {
        tokio::select! {
            biased;
            () = self.lost() => Err(LeaseLost),
            done = work => Ok(done),
        }
    }

    /// Calls Mimir, with retries, only while the lease is held. Each attempt checks it again: it may have ended during
    /// the delay.
    pub(crate) async fn retrying<T, E: Retriable, F: Future<Output = Result<T, E>>>(
        &self,
        call: impl Fn() -> F,
    ) -> Result<Result<T, E>, LeaseLost> {
        let attempt = move || {
            let attempt = self.during(call());
            async move {
                match attempt.await {
                    Ok(done) => done.map(Ok),
                    Err(lost) => Ok(Err(lost)),
                }
            }
        };
        match retrying(attempt).await {
            Ok(Ok(done)) => Ok(Ok(done)),
            Ok(Err(lost)) => Err(lost),
            Err(error) => Ok(Err(error)),
        }
    }

    fn until(&self) -> Instant {
        *self.until.lock()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn nothing_is_begun_or_finished_after_its_end() {
        let lease = Lease::new(Instant::now() + SECOND);
        assert_eq!(lease.during(async { 1 }).await, Ok(1));
        assert_eq!(lease.during(tokio::time::sleep(2 * SECOND)).await, Err(LeaseLost));
        assert!(!lease.is_held());
        // As after a freeze: a late beat brings nothing back.
        lease.renew(Instant::now() + 60 * SECOND);
        assert_eq!(lease.during(async { 1 }).await, Err(LeaseLost));
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewed_lease_goes_on() {
        let lease = Lease::new(Instant::now() + SECOND);
        let keeper = lease.clone();
        let work = tokio::spawn(async move { lease.during(tokio::time::sleep(5 * SECOND)).await });
        for _ in 0..12 {
            tokio::time::sleep(SECOND / 2).await;
            keeper.renew(Instant::now() + SECOND);
        }
        assert_eq!(work.await.ok(), Some(Ok(())));
    }

    struct Fault;

    impl Retriable for Fault {
        fn is_transient(&self) -> bool {
            true
        }

        fn is_slow(&self) -> bool {
            false
        }

        fn retry_after(&self) -> Option<Duration> {
            Some(SECOND)
        }
    }

    // Another copy may have written what the second attempt would undo.
    #[tokio::test(start_paused = true)]
    async fn nothing_is_called_again_once_the_lease_has_ended() {
        let lease = Lease::new(Instant::now() + SECOND / 2);
        let calls = std::cell::Cell::new(0);
        let call = || async {
            calls.set(calls.get() + 1);
            Err::<(), _>(Fault)
        };
        assert!(matches!(lease.retrying(call).await, Err(LeaseLost)));
        assert_eq!(calls.get(), 1);
    }
}
