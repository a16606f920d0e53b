//! Delays the refusal of unknown device keys, by client address.
//!
//! Guessing 256 bits is hopeless, and the directory bounds what a flood of guesses costs the
//! database. What is left is to make guessing slow: the refusal of an unknown key is held back once
//! its address has sent some. Good keys are never held back, not even new ones: many hubs share one
//! address.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use moka::sync::Cache;

use crate::backoff;
use crate::client_network::client_network;
use crate::telemetry::Metrics;

pub(super) struct GuessDelay {
    addresses: Cache<IpAddr, Arc<Address>>,
    /// Refusals that are held back, of all addresses.
    waiting: AtomicU32,
}

#[derive(Default)]
struct Address {
    unknown: AtomicU32,
    waiting: AtomicU32,
}

/// Unknown keys that an address may send before it is slowed down: keys get mixed up.
const FREE: u32 = 10;
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Refusals that are held back at the same time, of one address and of all. Each may hold what its
/// client has sent of a body (24 KiB of an HTTP/2 stream), without any credential.
const MOST_WAITING_OF_ADDRESS: u32 = 64;
const MOST_WAITING: u32 = 256;
/// An address that has sent nothing unknown for so long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
const MOST_ADDRESSES: u64 = 10_000;

impl Default for GuessDelay {
    fn default() -> Self {
        let addresses = Cache::builder().max_capacity(MOST_ADDRESSES).time_to_idle(FORGOTTEN_AFTER);
        Self { addresses: addresses.build(), waiting: AtomicU32::new(0) }
    }
}

impl GuessDelay {
    /// Call when an address has sent an unknown key; returns when the refusal may be sent.
    pub(super) async fn hold_back(&self, client: IpAddr, metrics: &Metrics) {
        let address = self.addresses.get_with(client_network(client), Arc::default);
        let wait = wait_after(address.unknown.fetch_add(1, Ordering::Relaxed));
        if wait.is_zero() {
            return;
        }
        metrics.device_key_backoffs.increment(1);
        // When too many wait already, the others get the same answer without delay: that the key is
        // unknown is certain, and the delay is only there to slow guessing down. A 503 would have all
        // of them come again.
        let of_all = Waiting::begin(&self.waiting, MOST_WAITING);
        let of_address = Waiting::begin(&address.waiting, MOST_WAITING_OF_ADDRESS);
        if let (Some(_of_all), Some(_of_address)) = (of_all, of_address) {
            tokio::time::sleep(wait).await;
        }
    }
}

/// A place among those that wait, given back also when the client goes away.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn begin(waiting: &'a AtomicU32, most: u32) -> Option<Self> {
        let place = Self(waiting);
        let before = waiting.fetch_add(1, Ordering::Relaxed);
        (before < most).then_some(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn wait_after(unknown: u32) -> Duration {
    match unknown.checked_sub(FREE) {
        None => Duration::ZERO,
        Some(more) => backoff::ceiling(FIRST_WAIT, LONGEST_WAIT, more),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    async fn wait(guess_delay: &GuessDelay, client: &str) -> Duration {
        let (began, metrics) = (Instant::now(), Box::new(Metrics::register()));
        guess_delay.hold_back(ip(client), &metrics).await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_guesses_waits_for_a_second_at_most() {
        let guess_delay = GuessDelay::default();
        for _ in 0..FREE {
            assert_eq!(wait(&guess_delay, "10.0.0.1").await, Duration::ZERO);
        }
        assert!(wait(&guess_delay, "10.0.0.1").await >= FIRST_WAIT);
        for _ in 0..100 {
            let longest = wait(&guess_delay, "10.0.0.1").await;
            assert!(longest < LONGEST_WAIT * 2, "{longest:?}");
        }
        assert!(wait(&guess_delay, "10.0.0.1").await >= LONGEST_WAIT);
        assert_eq!(wait(&guess_delay, "10.0.0.2").await, Duration::ZERO);
    }

    // Each delayed refusal holds memory for an unauthenticated client.
    #[tokio::test(start_paused = true)]
    async fn only_so_many_wait_at_once() {
        let guess_delay = Arc::new(GuessDelay::default());
        let metrics = Arc::new(Metrics::register());
        let flood = |address: u32, requests: u32| {
            let (guess_delay, metrics) = (Arc::clone(&guess_delay), Arc::clone(&metrics));
            (0..requests).map(move |_| {
                let (guess_delay, metrics) = (Arc::clone(&guess_delay), Arc::clone(&metrics));
                let client = ip(&format!("10.0.0.{address}"));
                tokio::spawn(async move { guess_delay.hold_back(client, &metrics).await })
            })
        };
        let mut tasks: Vec<_> = flood(1, 500).collect();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(guess_delay.waiting.load(Ordering::Relaxed), MOST_WAITING_OF_ADDRESS);
        tasks.extend((2..60).flat_map(|address| flood(address, 100)));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(guess_delay.waiting.load(Ordering::Relaxed), MOST_WAITING);
        let answered = tasks.iter().filter(|task| task.is_finished()).count();
        assert!(answered >= 500 + 58 * 100 - 256, "{answered}");
        // A client that goes away gives its place back.
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(guess_delay.waiting.load(Ordering::Relaxed), 0);
    }
}
