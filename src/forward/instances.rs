//! All known instances of Mimir, shared by all workers. [`discovery`](super::discovery) finds them.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::consul::{Listing, Names};
use super::instance::{Instance, Watch};
use super::probe;
use crate::config::HealthConfig;
use crate::telemetry::Metrics;

/// The instances at one time, in the order of their addresses.
pub(super) type InstanceList = Vec<Arc<Instance>>;

/// The source of an instance: a number for each.
pub(super) type SourceId = usize;

/// The number of Consul's catalogue as a source; names have their index in the configuration.
pub(super) const CONSUL: SourceId = SourceId::MAX;

/// What one source has found: addresses, and the value of `Host` for each.
pub(super) type Addresses = Vec<(SocketAddr, HeaderValue)>;

/// All instances that are known now.
pub struct Instances {
    current: ArcSwap<InstanceList>,
    found: Mutex<Found>,
    pub(super) watch: Arc<Watch>,
}

#[derive(Default)]
struct Found {
    /// Of which configuration the sources are.
    generation: u64,
    by_source: BTreeMap<SourceId, Addresses>,
    /// Of the catalogue, by whomever it was read: each task that follows it begins with what those before it knew.
    names: Names,
    probes: HashMap<SocketAddr, AbortOnDropHandle<()>>,
}

/// A summary for `/ready`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceState {
    pub address: SocketAddr,
    /// Why it is ejected, if it is.
    pub ejected: Option<&'static str>,
}

/// One instance, for operators. Times are how long ago.
#[derive(Clone, Debug)]
pub struct InstanceReport {
    pub address: SocketAddr,
    /// Its name, as it is sent in `Host`.
    pub name: String,
    /// Why it is ejected, if it is.
    pub ejected: Option<&'static str>,
    /// Whether the circuit breaker is open: it cannot be connected to.
    pub is_unreachable: bool,
    /// Its share of the requests, from 0 to 1.
    pub share: f64,
    pub in_flight: u32,
    /// Requests and attempts so far.
    pub requests: u64,
    /// Those that failed by its fault.
    pub failures: u64,
    pub last_failure: Option<(&'static str, Duration)>,
    pub ejections: u64,
    /// How long it has been ejected, or back.
    pub changed: Option<Duration>,
}

impl Instances {
    pub fn new(config: HealthConfig, metrics: Arc<Metrics>) -> Self {
        Self {
            current: ArcSwap::default(),
            found: Mutex::default(),
            watch: Arc::new(Watch::new(config, metrics)),
        }
    }

    pub(super) fn current(&self) -> Arc<InstanceList> {
        self.current.load_full()
    }

    pub fn len(&self) -> usize {
        self.current.load().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many requests all instances accept together, without the ejected ones. If all are
    /// ejected, all count, because they are tried.
    pub fn capacity(&self) -> usize {
        let instances = self.current.load();
        let used = instances.iter().filter(|instance| !instance.is_ejected()).count();
        let count = if used == 0 { instances.len().max(1) } else { used };
        let each = usize::try_from(self.watch.max_in_flight()).unwrap_or(usize::MAX);
        count.saturating_mul(each)
    }

    pub fn states(&self) -> Vec<InstanceState> {
        let state = |instance: &Arc<Instance>| InstanceState {
            address: instance.address,
            ejected: instance.why_ejected().map(Into::into),
        };
        self.current.load().iter().map(state).collect()
    }

    /// What is known of each.
    pub fn reports(&self) -> Vec<InstanceReport> {
        let report = |instance: &Arc<Instance>| {
            let trouble = instance.trouble();
            let (in_flight, requests) = instance.counts();
            let (share, is_unreachable) = instance.share();
            InstanceReport {
                address: instance.address,
                name: instance.authority.to_str().unwrap_or_default().to_owned(),
                ejected: instance.why_ejected().map(Into::into),
                is_unreachable,
                share,
                in_flight,
                requests,
                failures: trouble.failures,
                last_failure: trouble.last_failure.map(|(why, at)| (why.into(), at.elapsed())),
                ejections: trouble.ejections,
                changed: trouble.changed.map(|at| at.elapsed()),
            }
        };
        self.current.load().iter().map(report).collect()
    }

    /// The most requests in flight at each instance.
    pub fn most_in_flight(&self) -> u32 {
        self.watch.max_in_flight()
    }

    /// Writes the state of each into the metrics.
    pub fn report(&self) {
        let instances = self.current.load();
        let metrics = &self.watch.metrics;
        let ejected = instances.iter().filter(|instance| instance.is_ejected()).count();
        metrics.upstream_instances_ejected.set(whole(ejected));
        let facts = instances.iter().map(|instance| {
            let (in_flight, requests) = instance.counts();
            (instance.address, in_flight, requests)
        });
        metrics.report_upstream_instances(facts);
    }

    /// Replaces all sources by those of another configuration, with what each has found, and with what is known of the
    /// names in Consul's catalogue. If it is the same catalogue and instances are known of it, these stay and so does
    /// what is known of the names: it was followed until now. Returns the generation in which the sources publish.
    pub(super) fn replace(
        &self,
        mut by_source: BTreeMap<SourceId, Addresses>,
        names: Names,
        is_same_catalogue: bool,
    ) -> u64 {
        let mut found = self.found.lock();
        found.generation += 1;
        let joins = !found.by_source.is_empty();
        match found.by_source.remove(&CONSUL).filter(|_| is_same_catalogue) {
            Some(addresses) => drop(by_source.insert(CONSUL, addresses)),
            None => found.names = names,
        }
        found.by_source = by_source;
        self.update(&mut found, joins);
        found.generation
    }

    pub(super) fn generation(&self) -> u64 {
        self.found.lock().generation
    }

    /// What a source has found.
    pub(super) fn found_by(&self, source: SourceId) -> Option<Addresses> {
        self.found.lock().by_source.get(&source).cloned()
    }

    /// Takes over the instances that one source has found; never an empty list, because an empty
    /// lookup counts as failed. Instances that are still there keep their state.
    pub(super) fn publish(&self, generation: u64, source: SourceId, addresses: Addresses) {
        let mut found = self.found.lock();
        // A lookup may end after its source was replaced.
        if found.generation == generation {
            self.take_over(&mut found, source, addresses);
        }
    }

    /// Takes over what Consul's catalogue lists, and what is known of names that could not be resolved. Returns
    /// whether these should be resolved again soon.
    pub(super) fn publish_listing(&self, generation: u64, listing: Listing) -> bool {
        let mut found = self.found.lock();
        // The names may be another catalogue's by now.
        if found.generation != generation {
            return false;
        }
        let addresses = found.names.update(listing, Instant::now());
        if !addresses.is_empty() {
            self.take_over(&mut found, CONSUL, addresses);
        }
        found.names.has_kept()
    }

    fn take_over(&self, found: &mut Found, source: SourceId, addresses: Addresses) {
        // Instances in the first result of a source are not new.
        let joins = found.by_source.insert(source, addresses).is_some();
        self.update(found, joins);
    }

    /// Changes how health is judged and probed. Each instance keeps its state.
    pub fn set_health(&self, config: HealthConfig) {
        let mut found = self.found.lock();
        self.watch.set(config);
        found.probes.clear();
        let current = self.current.load();
        // Without probes nothing vouches for an instance any more: its ejection ends in time from now on.
        current.iter().for_each(|instance| instance.settle());
        self.probe(&mut found, &Vec::new(), &current);
    }

    fn update(&self, found: &mut Found, joins: bool) {
        let mut all: BTreeMap<SocketAddr, &HeaderValue> = BTreeMap::new();
        for (address, authority) in found.by_source.values().flatten() {
            all.entry(*address).or_insert(authority);
        }
        let before = self.current.load_full();
        let is_same = before.len() == all.len()
            && before.iter().all(|one| all.get(&one.address) == Some(&&one.authority));
        if is_same {
            return;
        }
        let known: HashMap<SocketAddr, &Arc<Instance>> =
            before.iter().map(|instance| (instance.address, instance)).collect();
        let now: InstanceList = all
            .into_iter()
            .map(|(address, authority)| match known.get(&address) {
                Some(instance) if instance.authority == *authority => Arc::clone(instance),
                _ => Arc::new(Instance::new(address, authority.clone(), joins, &self.watch)),
            })
            .collect();
        // One that has got another name is gone, too, though its address stays.
        let is_gone = |one: &&Arc<Instance>| !now.iter().any(|instance| Arc::ptr_eq(instance, one));
        let gone: Vec<_> = before
            .iter()
            .filter(is_gone)
            .inspect(|instance| instance.leave())
            .map(|instance| instance.address.to_string())
            .collect();
        tracing::info!(
            upstream.instances = now.len(),
            gone = gone.join(","),
            "Upstream instances changed"
        );
        self.watch.metrics.upstream_instances.set(whole(now.len()));
        self.probe(found, &before, &now);
        self.current.store(Arc::new(now));
    }

    fn probe(&self, found: &mut Found, before: &InstanceList, now: &InstanceList) {
        let config = self.watch.config();
        if !config.probes() {
            return;
        }
        found.probes.retain(|address, _| now.iter().any(|instance| instance.address == *address));
        for instance in now {
            if !before.iter().any(|known| Arc::ptr_eq(known, instance)) {
                let probing = probe::run(Arc::clone(instance), Arc::clone(&config));
                let task = AbortOnDropHandle::new(tokio::spawn(probing));
                found.probes.insert(instance.address, task);
            }
        }
    }
}

fn whole(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

#[cfg(test)]
pub(super) mod tests;
