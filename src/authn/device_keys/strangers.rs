//! Addresses that send unknown device keys.
//!
//! Guessing 256 bits is hopeless, and the directory bounds what a flood of guesses costs the
//! database. What is left is to make guessing slow: the refusal of an unknown key is held back once
//! its address has sent some. Good keys are never held back, not even new ones: many hubs share one
//! address.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use moka::sync::Cache;

use crate::telemetry::Metrics;

pub(super) struct Strangers {
    addresses: Cache<IpAddr, Arc<Address>>,
    /// Of all addresses.
    waiting: AtomicU32,
}

#[derive(Default)]
struct Address {
    unknown: AtomicU32,
    waiting: AtomicU32,
}

/// Unknown keys that an address may send before it is slowed down: somebody mixed keys up.
const FREE: u32 = 10;
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Requests of one address, and of all, that wait at the same time. What they have sent of their
/// bodies waits with them in our memory, and nobody has to show a good credential for it.
const MOST_WAITING: u32 = 32;
const MOST_WAITING_IN_ALL: u32 = 256;
/// An address that has sent nothing unknown for so long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
const MOST_ADDRESSES: u64 = 10_000;

impl Default for Strangers {
    fn default() -> Self {
        let addresses = Cache::builder().max_capacity(MOST_ADDRESSES).time_to_idle(FORGOTTEN_AFTER);
        Self { addresses: addresses.build(), waiting: AtomicU32::new(0) }
    }
}

impl Strangers {
    /// An address has sent an unknown key: holds the answer back for as long as it has deserved.
    pub(super) async fn hold_back(&self, client: IpAddr, metrics: &Metrics) {
        let address = self.addresses.get_with(network(client), Arc::default);
        let wait = wait_after(address.unknown.fetch_add(1, Ordering::Relaxed));
        if wait.is_zero() {
            return;
        }
        metrics.device_key_backoffs.increment(1);
        // When too many wait already the others are answered immediately.
        let of_address = Waiting::begin(&address.waiting, MOST_WAITING);
        let of_all = Waiting::begin(&self.waiting, MOST_WAITING_IN_ALL);
        if of_address.is_some() && of_all.is_some() {
            tokio::time::sleep(wait).await;
        }
    }
}

/// A place among those that wait, given back also when the client goes away.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicU32, most: u32) -> Option<Self> {
        let waiting = Self(count);
        (count.fetch_add(1, Ordering::Relaxed) < most).then_some(waiting)
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
        Some(more) => (FIRST_WAIT * 2_u32.pow(more.min(10))).min(LONGEST_WAIT),
    }
}

/// What one client has of addresses: of IPv6 a /64.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        ip @ IpAddr::V4(_) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::MetricNames;
    use tokio::time::Instant;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    async fn wait(strangers: &Strangers, client: &str) -> Duration {
        let (began, metrics) = (Instant::now(), Metrics::register(&MetricNames::default()));
        strangers.hold_back(ip(client), &metrics).await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_guesses_waits_for_a_second_at_most() {
        let strangers = Strangers::default();
        for _ in 0..FREE {
            assert_eq!(wait(&strangers, "10.0.0.1").await, Duration::ZERO);
        }
        assert!(wait(&strangers, "10.0.0.1").await >= FIRST_WAIT);
        for _ in 0..100 {
            let longest = wait(&strangers, "10.0.0.1").await;
            assert!(longest < LONGEST_WAIT * 2, "{longest:?}");
        }
        assert!(wait(&strangers, "10.0.0.1").await >= LONGEST_WAIT);
        assert_eq!(wait(&strangers, "10.0.0.2").await, Duration::ZERO);
    }

    #[test]
    fn one_client_has_a_whole_ipv6_network() {
        assert_eq!(network(ip("2001:db8::1")), network(ip("2001:db8::ffff:1")));
        assert_ne!(network(ip("2001:db8::1")), network(ip("2001:db8:0:1::1")));
        assert_eq!(network(ip("::ffff:10.0.0.1")), ip("10.0.0.1"));
    }

    // Each of them keeps in memory what it has sent of its body.
    #[tokio::test(start_paused = true)]
    async fn only_so_many_wait_at_once() {
        let strangers = Strangers::default();
        let addresses: Vec<String> = (0..20).map(|last| format!("10.0.0.{last}")).collect();
        for client in &addresses {
            for _ in 0..FREE + 10 {
                wait(&strangers, client).await;
            }
        }
        let one = (0..100).map(|_| wait(&strangers, &addresses[0]));
        let waited = futures_util::future::join_all(one).await;
        assert_eq!(waited.iter().filter(|waited| !waited.is_zero()).count(), 32);
        let all = addresses.iter().flat_map(|client| (0..20).map(|_| wait(&strangers, client)));
        let waited = futures_util::future::join_all(all.collect::<Vec<_>>()).await;
        assert_eq!(waited.iter().filter(|waited| !waited.is_zero()).count(), 256);
        assert!(wait(&strangers, &addresses[0]).await >= LONGEST_WAIT, "nobody waits any more");
    }
}
