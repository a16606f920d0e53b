//! Addresses that send unknown device keys.
//!
//! Guessing 256 bits is hopeless; what a flood of guesses could do is load the database, and that
//! is bounded by the directory. So an address that guesses is slowed down and not locked out: many
//! hubs share one address, and a new one among them must get through. Its key waits for a second at
//! most and is known from then on.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use moka::sync::Cache;

use crate::authn::refusal::Refusal;
use crate::telemetry::Metrics;

pub(super) struct Strangers(Cache<IpAddr, Arc<Address>>);

#[derive(Default)]
struct Address {
    unknown: AtomicU32,
    waiting: AtomicU32,
}

/// Unknown keys that an address may send before it is slowed down: somebody mixed keys up.
const FREE: u32 = 10;
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Requests of one address that may wait at the same time; further ones are told to come again.
const MOST_WAITING: u32 = 1000;
/// An address that has sent nothing unknown for so long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
const MOST_ADDRESSES: u64 = 10_000;

impl Default for Strangers {
    fn default() -> Self {
        let addresses = Cache::builder().max_capacity(MOST_ADDRESSES).time_to_idle(FORGOTTEN_AFTER);
        Self(addresses.build())
    }
}

impl Strangers {
    /// Holds up an unknown key for as long as its address has deserved.
    pub(super) async fn wait(&self, client: IpAddr, metrics: &Metrics) -> Result<(), Refusal> {
        let Some(address) = self.0.get(&network(client)) else { return Ok(()) };
        let wait = wait_after(address.unknown.load(Ordering::Relaxed));
        if wait.is_zero() {
            return Ok(());
        }
        metrics.device_key_backoffs.increment(1);
        let waiting = Waiting::begin(&address).ok_or(Refusal::Backoff)?;
        tokio::time::sleep(wait).await;
        drop(waiting);
        Ok(())
    }

    /// An address has sent an unknown key.
    pub(super) fn note(&self, client: IpAddr) {
        let address = self.0.get_with(network(client), Arc::default);
        address.unknown.fetch_add(1, Ordering::Relaxed);
    }
}

/// A place among those that wait, given back also when the client goes away.
struct Waiting<'a>(&'a Address);

impl<'a> Waiting<'a> {
    fn begin(address: &'a Address) -> Option<Self> {
        let waiting = Self(address);
        let before = address.waiting.fetch_add(1, Ordering::Relaxed);
        (before < MOST_WAITING).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
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
        strangers.wait(ip(client), &metrics).await.unwrap();
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_guesses_waits_and_is_never_locked_out() {
        let strangers = Strangers::default();
        for _ in 0..FREE {
            assert_eq!(wait(&strangers, "10.0.0.1").await, Duration::ZERO);
            strangers.note(ip("10.0.0.1"));
        }
        assert!(wait(&strangers, "10.0.0.1").await >= FIRST_WAIT);
        for _ in 0..100_000 {
            strangers.note(ip("10.0.0.1"));
        }
        let longest = wait(&strangers, "10.0.0.1").await;
        assert!(longest >= LONGEST_WAIT && longest < LONGEST_WAIT * 2, "{longest:?}");
        assert_eq!(wait(&strangers, "10.0.0.2").await, Duration::ZERO);
    }

    #[test]
    fn one_client_has_a_whole_ipv6_network() {
        assert_eq!(network(ip("2001:db8::1")), network(ip("2001:db8::ffff:1")));
        assert_ne!(network(ip("2001:db8::1")), network(ip("2001:db8:0:1::1")));
        assert_eq!(network(ip("::ffff:10.0.0.1")), ip("10.0.0.1"));
    }

    #[test]
    fn only_so_many_wait_at_once() {
        let address = Address::default();
        let waiting: Vec<_> =
            (0..MOST_WAITING).map(|_| Waiting::begin(&address).unwrap()).collect();
        assert!(Waiting::begin(&address).is_none());
        drop(waiting);
        assert!(Waiting::begin(&address).is_some());
    }
}
