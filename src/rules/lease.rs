//! The leader's lease: whether this process may write now.
//!
//! It is a time, moved on by every beat that came back. A process that was frozen finds it passed
//! when it wakes, before it asks anybody; whoever writes asks here first, and what is under way when
//! the lease ends is given up ([`Lease::during`]).

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// A lease. Cheap to clone; once lost it is never regained.
#[derive(Clone, Debug)]
pub struct Lease {
    until: Arc<Mutex<Instant>>,
    lost: CancellationToken,
}

/// The lease has ended: somebody else may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseLost;

impl Lease {
    /// Until a time, to be renewed before that.
    pub fn new(until: Instant) -> Self {
        Self { until: Arc::new(Mutex::new(until)), lost: CancellationToken::new() }
    }

    /// Moves the end on. A lease that has ended stays so.
    pub fn renew(&self, until: Instant) {
        if self.is_held() {
            *self.until.lock() = until;
        }
    }

    /// Ends it now.
    pub fn give_up(&self) {
        self.lost.cancel();
    }

    /// Whether this process may write.
    pub fn is_held(&self) -> bool {
        if self.lost.is_cancelled() {
            return false;
        }
        if Instant::now() < self.until() {
            return true;
        }
        self.lost.cancel();
        false
    }

    /// Waits until it has ended.
    pub async fn lost(&self) {
        while self.is_held() {
            tokio::select! {
                () = sleep_until(self.until()) => {}
                () = self.lost.cancelled() => {}
            }
        }
    }

    /// Does something only while it is held: not begun without, given up when it ends.
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> Result<T, LeaseLost> {
        tokio::select! {
            biased;
            () = self.lost() => Err(LeaseLost),
            done = work => Ok(done),
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
        // As after a freeze: a beat that comes too late brings nothing back.
        lease.renew(Instant::now() + 60 * SECOND);
        assert_eq!(lease.during(async { 1 }).await, Err(LeaseLost));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_renewed_in_time_goes_on() {
        let lease = Lease::new(Instant::now() + SECOND);
        let keeper = lease.clone();
        let work = tokio::spawn(async move { lease.during(tokio::time::sleep(5 * SECOND)).await });
        for _ in 0..12 {
            tokio::time::sleep(SECOND / 2).await;
            keeper.renew(Instant::now() + SECOND);
        }
        assert_eq!(work.await.ok(), Some(Ok(())));
    }
}
