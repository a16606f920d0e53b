//! Readings of the instances' metrics that several tests of channels share.
//!
//! A page of metrics has lines of every tenant, and an instance makes it anew for each request. So there is
//! one reading of all instances at a time, and a rest after it. Whoever asks meanwhile takes part in the next
//! one: what one gets was read after one asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep_until};

use super::counters::{Asked, Counters, Found, Pages};

#[derive(Debug, Default)]
pub(super) struct Readings {
    /// The one that has not begun.
    next: Mutex<Arc<Reading>>,
    /// When the last one ended. Whoever reads holds it.
    ended: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Reading {
    asked: Mutex<Found>,
    found: OnceCell<Pages>,
}

/// Between the end of a reading and the next one's beginning.
const REST: Duration = Duration::from_secs(1);

impl Readings {
    /// Takes part in the next reading. `read` reads all instances for everybody who takes part; the `read`
    /// of only one of them is called. Returns what each instance has counted; `None` if it gave no answer.
    pub(super) async fn share<F>(
        &self,
        asked: Asked,
        read: impl FnOnce(Found) -> F,
    ) -> BTreeMap<String, Option<Counters>>
    where
        F: Future<Output = Pages>,
    {
        let reading = {
            let next = self.next.lock();
            next.asked.lock().entry(asked.clone()).or_default();
            Arc::clone(&next)
        };
        let work = async {
            let mut ended = self.ended.lock().await;
            if let Some(at) = *ended {
                sleep_until(at + REST).await;
            }
            let everything = self.begin(&reading);
            let found = read(everything).await;
            *ended = Some(Instant::now());
            found
        };
        // If the one who reads goes away, another one does it again.
        let found = reading.found.get_or_init(|| work).await;
        let own = |page: &Found| page.get(&asked).cloned().unwrap_or_default();
        found.iter().map(|(instance, page)| (instance.clone(), page.as_ref().map(own))).collect()
    }

    /// From here on nobody can join it.
    fn begin(&self, reading: &Arc<Reading>) -> Found {
        let mut next = self.next.lock();
        if Arc::ptr_eq(&next, reading) {
            *next = Arc::default();
        }
        reading.asked.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

    use futures_util::future::join_all;
    use tokio::time::{sleep, timeout};

    use super::*;

    /// Instances that take a while, and count how often they are read, also at the same time.
    #[derive(Default)]
    struct Instances {
        readings: AtomicU32,
        now: AtomicUsize,
    }

    impl Instances {
        async fn read(&self, mut found: Found) -> Pages {
            let number = f64::from(self.readings.fetch_add(1, Relaxed) + 1);
            assert_eq!(self.now.fetch_add(1, Relaxed), 0, "one reading at a time");
            sleep(Duration::from_millis(200)).await;
            self.now.fetch_sub(1, Relaxed);
            for counters in found.values_mut() {
                counters.loaded = vec![number];
            }
            Pages::from([("one".to_owned(), Some(found)), ("away".to_owned(), None)])
        }
    }

    /// In which reading these were read.
    fn number(reading: &BTreeMap<String, Option<Counters>>) -> Option<f64> {
        assert_eq!(reading["away"], None);
        reading["one"].as_ref()?.loaded.first().copied()
    }

    fn asked(tenant: usize) -> Asked {
        Asked { tenant: format!("tenant-{tenant}"), integration: "webhook".to_owned() }
    }

    // Seen: 32 tests read every page of metrics 32 times a second.
    #[tokio::test(start_paused = true)]
    async fn tests_that_wait_share_one_reading_a_second() {
        let (readings, instances) = (&Readings::default(), &Instances::default());
        let began = Instant::now();
        join_all((0..32).map(|tenant| async move {
            while began.elapsed() < Duration::from_secs(12) {
                let counters = readings.share(asked(tenant), |all| instances.read(all)).await;
                assert!(number(&counters).is_some(), "each gets its own");
            }
        }))
        .await;
        let count = instances.readings.load(Relaxed);
        assert!((9..=12).contains(&count), "{count}");
    }

    // What is compared with what comes later must not be older than the question.
    #[tokio::test(start_paused = true)]
    async fn nobody_gets_what_was_read_before_they_asked() {
        let (readings, instances) = (Readings::default(), Instances::default());
        let first = readings.share(asked(1), |all| instances.read(all));
        let second = async {
            sleep(Duration::from_millis(100)).await;
            readings.share(asked(2), |all| instances.read(all)).await
        };
        let (first, second) = tokio::join!(first, second);
        assert_eq!((number(&first), number(&second)), (Some(1.0), Some(2.0)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reading_whose_reader_goes_away_is_made_by_another() {
        let (readings, instances) = (Readings::default(), Instances::default());
        readings.share(asked(0), |all| instances.read(all)).await;
        // Both take part in the next one, which the first of them begins and does not end.
        let gone = readings.share(asked(1), |_| std::future::pending());
        let gone = timeout(REST + Duration::from_millis(50), gone);
        let other = readings.share(asked(2), |all| instances.read(all));
        let (gone, other) = tokio::join!(gone, other);
        assert!(gone.is_err());
        assert_eq!(number(&other), Some(2.0));
    }
}
