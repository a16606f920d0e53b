//! Metrics of single upstream instances. Addresses are bounded by the configuration, but not over
//! time: machines come and go, and a series once made stays. So only so many get series.

use std::collections::HashMap;
use std::net::SocketAddr;

use metrics::{Counter, Gauge};
use parking_lot::Mutex;

use crate::telemetry::table::{UPSTREAM_INSTANCE_IN_FLIGHT, UPSTREAM_INSTANCE_REQUESTS};

/// Addresses that get series in the life of a process.
const MAX_INSTANCES: usize = 64;

#[derive(Default)]
pub(super) struct UpstreamsByInstance(Mutex<HashMap<SocketAddr, InstanceMetrics>>);

struct InstanceMetrics {
    in_flight: Gauge,
    requests: Counter,
    /// The instance's own count at the last report.
    seen: u64,
}

impl UpstreamsByInstance {
    pub(super) fn report(&self, facts: impl Iterator<Item = (SocketAddr, u32, u64)>) {
        let mut known = self.0.lock();
        for instance in known.values() {
            instance.in_flight.set(0.0);
        }
        for (address, in_flight, requests) in facts {
            if known.len() >= MAX_INSTANCES && !known.contains_key(&address) {
                continue;
            }
            let instance =
                known.entry(address).or_insert_with(|| InstanceMetrics::register(address));
            instance.in_flight.set(f64::from(in_flight));
            // An instance that went away and came back counts from 0.
            let more = requests.checked_sub(instance.seen).unwrap_or(requests);
            instance.requests.increment(more);
            instance.seen = requests;
        }
    }
}

impl InstanceMetrics {
    fn register(address: SocketAddr) -> Self {
        let label = [("instance", address.to_string())];
        Self {
            in_flight: UPSTREAM_INSTANCE_IN_FLIGHT.gauge(label.clone()),
            requests: UPSTREAM_INSTANCE_REQUESTS.counter(label),
            seen: 0,
        }
    }
}
