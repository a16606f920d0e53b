//! Slots whose number can change while they are taken. First come, first served.
//!
//! Where there are fewer than are taken, none is taken back: what is too many is not given out again
//! when it is freed.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

pub(super) struct Slots {
    free: Semaphore,
    /// How many there are.
    size: AtomicUsize,
    /// Taken ones that are too many.
    surplus: AtomicUsize,
    resizing: Mutex<()>,
}

/// As good as no limit, with room for the sums of the semaphore.
const UNLIMITED: usize = Semaphore::MAX_PERMITS / 4;

impl Slots {
    /// So many; without a limit if none.
    pub(super) fn new(size: Option<NonZeroUsize>) -> Self {
        let size = size.map_or(UNLIMITED, NonZeroUsize::get);
        Self {
            free: Semaphore::new(size),
            size: AtomicUsize::new(size),
            surplus: AtomicUsize::new(0),
            resizing: Mutex::default(),
        }
    }

    /// Takes a free one. Who has taken one gives it back.
    pub(super) fn try_take(&self) -> bool {
        self.free.try_acquire().map(tokio::sync::SemaphorePermit::forget).is_ok()
    }

    /// The same, and waits for it. Whoever stops waiting has taken none.
    pub(super) async fn take(&self, deadline: Instant) -> bool {
        let Ok(Ok(slot)) = timeout_at(deadline, self.free.acquire()).await else { return false };
        slot.forget();
        true
    }

    pub(super) fn give_back(&self) {
        let is_too_many = self.surplus.load(SeqCst) > 0
            && self.surplus.fetch_update(SeqCst, SeqCst, |many| many.checked_sub(1)).is_ok();
        if !is_too_many {
            self.free.add_permits(1);
        }
    }

    pub(super) fn resize(&self, size: Option<NonZeroUsize>) {
        let new = size.map_or(UNLIMITED, NonZeroUsize::get);
        let _alone = self.resizing.lock();
        let old = self.size.swap(new, SeqCst);
        if new < old {
            let too_many = old - new - self.free.forget_permits(old - new);
            self.surplus.fetch_add(too_many, SeqCst);
            return;
        }
        let mut more = new - old;
        let _ = self.surplus.fetch_update(SeqCst, SeqCst, |many| {
            let fewer = many.saturating_sub(new - old);
            more = new - old - (many - fewer);
            Some(fewer)
        });
        self.free.add_permits(more);
    }

    pub(super) fn size(&self) -> usize {
        self.size.load(SeqCst)
    }

    pub(super) fn taken(&self) -> usize {
        let there_are = self.size() + self.surplus.load(SeqCst);
        there_are.saturating_sub(self.free.available_permits())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Take,
        GiveBack,
        Resize(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Take),
            2 => Just(Step::GiveBack),
            1 => (0_usize..20).prop_map(Step::Resize),
        ]
    }

    proptest! {
        // However the number changes: none is given out above it, none is lost, and none is taken back.
        #[test]
        fn the_number_holds_for_whoever_comes_next(
            first in 1_usize..20,
            steps in proptest::collection::vec(step(), 1..200),
        ) {
            let slots = Slots::new(NonZeroUsize::new(first));
            // 0 is no limit.
            let (mut size, mut taken) = (first, 0);
            for step in steps {
                match step {
                    Step::Take => {
                        let got = slots.try_take();
                        prop_assert_eq!(got, size == 0 || taken < size);
                        taken += usize::from(got);
                    }
                    Step::GiveBack if taken > 0 => {
                        slots.give_back();
                        taken -= 1;
                    }
                    Step::GiveBack => {}
                    Step::Resize(new) => {
                        slots.resize(NonZeroUsize::new(new));
                        size = new;
                    }
                }
                prop_assert_eq!(slots.taken(), taken);
            }
            (0..taken).for_each(|_| slots.give_back());
            slots.resize(NonZeroUsize::new(3));
            prop_assert_eq!((0..10).filter(|_| slots.try_take()).count(), 3);
        }
    }

    // More slots serve those who wait already.
    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_one_of_the_new() {
        let slots = Slots::new(NonZeroUsize::new(1));
        assert!(slots.try_take());
        let deadline = Instant::now() + std::time::Duration::from_secs(1);
        let (got, ()) = tokio::join!(slots.take(deadline), async {
            tokio::task::yield_now().await;
            slots.resize(NonZeroUsize::new(2));
        });
        assert!(got);
        assert!(!slots.take(deadline).await);
        assert_eq!((slots.taken(), slots.size()), (2, 2));
    }
}
