//! Metrics of instances of Mimir. Addresses are bounded by the configuration, but not over
//! time: machines come and go, and a series once made stays. So only so many are told apart.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::Metrics;
use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use parking_lot::Mutex;

impl Metrics {
    /// An instance of Mimir is left alone for a while.
    pub fn upstream_ejected(&self, reason: &'static str) {
        increment(&self.upstream_ejections, reason);
    }

    /// A request was sent again.
    pub fn upstream_retried(&self, reason: &'static str) {
        increment(&self.upstream_retries, reason);
    }

    /// A request was not sent again.
    pub fn upstream_retry_refused(&self, reason: &'static str) {
        increment(&self.upstream_retry_refusals, reason);
    }

    /// Takes over what each instance has in flight and what it has had.
    pub fn report_upstream_instances(&self, facts: impl Iterator<Item = (SocketAddr, u32, u64)>) {
        self.upstream_by_instance.report(facts);
    }
}

pub(super) fn by_reason(
    reasons: &[&'static str],
    register: impl Fn(&'static str) -> Counter,
) -> HashMap<&'static str, Counter> {
    reasons.iter().map(|reason| (*reason, register(reason))).collect()
}

fn increment(counters: &HashMap<&'static str, Counter>, reason: &'static str) {
    if let Some(counter) = counters.get(reason) {
        counter.increment(1);
    }
}

/// Addresses that are told apart in the life of a process.
const MAX_INSTANCES: usize = 64;

/// Handles by address.
#[derive(Default)]
pub(super) struct UpstreamsByInstance(Mutex<HashMap<SocketAddr, OfInstance>>);

struct OfInstance {
    in_flight: Gauge,
    requests: Counter,
    /// What its own count was when it was last seen.
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
            let instance = known.entry(address).or_insert_with(|| OfInstance::register(address));
            instance.in_flight.set(f64::from(in_flight));
            // One that went away and came back counts from nothing.
            let more = requests.checked_sub(instance.seen).unwrap_or(requests);
            instance.requests.increment(more);
            instance.seen = requests;
        }
    }
}

impl OfInstance {
    fn register(address: SocketAddr) -> Self {
        let label = address.to_string();
        Self {
            in_flight: gauge!("mimir_tenant_proxy_upstream_instance_in_flight", "instance" => label.clone()),
            requests: counter!("mimir_tenant_proxy_upstream_instance_requests_total", "instance" => label),
            seen: 0,
        }
    }
}

pub(super) fn describe() {
    describe_counter!(
        "mimir_tenant_proxy_upstream_connects_total",
        "Connections to Mimir opened, or not."
    );
    describe_counter!(
        "mimir_tenant_proxy_upstream_resends_total",
        "Requests sent anew because a kept connection had been closed before a byte of them was sent."
    );
    describe_gauge!("mimir_tenant_proxy_upstream_instances", "Instances of Mimir that are known.");
    describe_gauge!(
        "mimir_tenant_proxy_upstream_instances_ejected",
        "Instances that are left alone because they failed or are not ready."
    );
    describe_counter!(
        "mimir_tenant_proxy_upstream_ejections_total",
        "Instances left alone for a while, by what they did."
    );
    describe_counter!(
        "mimir_tenant_proxy_upstream_returns_total",
        "Instances that were used again."
    );
    describe_counter!(
        "mimir_tenant_proxy_upstream_retries_total",
        "Requests sent again: unreachable (nothing had been sent), stale (a kept connection had been closed), broken and unwilling (to another instance, under the budget)."
    );
    describe_counter!(
        "mimir_tenant_proxy_upstream_retries_refused_total",
        "Requests that failed upstream and were not sent again: unsafe (doing it twice is not doing it once, or the body was not kept), repeated (it was once already), budget, nobody (no other instance)."
    );
    describe_gauge!(
        "mimir_tenant_proxy_upstream_instance_in_flight",
        "Requests that an instance has; 64 addresses are told apart in the life of a process."
    );
    describe_counter!(
        "mimir_tenant_proxy_upstream_instance_requests_total",
        "Requests that an instance has had, repeats included."
    );
    describe_counter!(
        "mimir_tenant_proxy_upstream_resolve_failures_total",
        "Look-ups of instances, of a name or in Consul, that failed or found nothing."
    );
}
