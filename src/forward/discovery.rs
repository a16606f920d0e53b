//! Finds instances: the configured names are resolved at every interval, because machines come and
//! go behind a name (Fly.io lists only those that run), and Consul's catalogue is read, if it is
//! configured.
//!
//! A failed or empty lookup changes nothing: the known instances stay, and their health decides
//! which of them are used. The same holds for each name in the catalogue on its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::consul::{Catalogue, Listing, Names, WAIT};
use super::instances::{Addresses, CONSUL, Instances, SourceId};
use super::lookup::lookup;
use crate::backoff::{Backoff, spread};
use crate::config::{Upstream, UpstreamConfig};

/// How long a new name may take to be looked up.
const FIND_TIMEOUT: Duration = Duration::from_secs(5);

/// Looks everything up once, concurrently.
pub async fn resolve(instances: &Arc<Instances>, config: &UpstreamConfig) {
    let generation = instances.generation();
    let mut lookups = JoinSet::new();
    for (source, upstream) in config.upstreams.iter().cloned().enumerate() {
        let instances = Arc::clone(instances);
        lookups.spawn(async move { resolve_name(&instances, generation, source, &upstream).await });
    }
    if let Some(catalogue) = catalogue(config) {
        let instances = Arc::clone(instances);
        lookups.spawn(async move {
            if let Ok(listing) = catalogue.read(None, WAIT).await {
                adopt(&instances, generation, listing);
            }
        });
    }
    while lookups.join_next().await.is_some() {}
}

/// Looks everything up at every interval until it is cancelled, or the sources are replaced.
pub fn resolve_forever(
    instances: Arc<Instances>,
    config: UpstreamConfig,
    cancelled: CancellationToken,
) -> impl Future<Output = ()> {
    // Now, and not when a thread gets to it: the next reload may be through by then, and what this configuration names
    // would be published as that one's.
    let generation = instances.generation();
    async move {
        let mut sources = JoinSet::new();
        for (source, upstream) in config.upstreams.iter().cloned().enumerate() {
            let (instances, interval) = (Arc::clone(&instances), config.resolve_interval);
            sources.spawn(async move {
                loop {
                    sleep(spread(interval)).await;
                    resolve_name(&instances, generation, source, &upstream).await;
                }
            });
        }
        if let Some(catalogue) = catalogue(&config) {
            sources.spawn(follow(instances, generation, catalogue, config.resolve_interval));
        }
        cancelled.cancelled().await;
    }
}

/// What the sources of a configuration have found, to replace those of another.
pub struct FoundInstances {
    by_source: BTreeMap<SourceId, Addresses>,
    /// Of the names in Consul's catalogue, if it was read.
    names: Names,
    /// Whether both configurations have the same catalogue.
    is_same_catalogue: bool,
}

/// Looks up what another configuration names. Sources that `before` has, too, are not asked again: what
/// they have found stays. An error says which key's value finds nothing. Nothing is changed by it.
pub async fn find(
    instances: &Instances,
    before: &UpstreamConfig,
    config: &UpstreamConfig,
) -> Result<FoundInstances, Vec<(&'static str, String)>> {
    let (mut found, mut faults) = (BTreeMap::new(), Vec::new());
    for (source, upstream) in config.upstreams.iter().enumerate() {
        // With http and with https the same authority has different ports, if it names none.
        let is_same = |known: &Upstream| {
            (&known.authority, known.port) == (&upstream.authority, upstream.port)
        };
        let known = before.upstreams.iter().position(is_same);
        if let Some(addresses) = known.and_then(|known| instances.found_by(known)) {
            found.insert(source, addresses);
            continue;
        }
        match timeout(FIND_TIMEOUT, lookup(&upstream.host, upstream.port)).await {
            Ok(Ok(addresses)) => {
                found.insert(source, addressed(addresses, upstream));
            }
            // It was not found before either: nothing gets worse.
            _ if known.is_some() => {}
            Ok(Err(error)) => {
                let problem = format!("'{}' cannot be resolved: {error}", upstream.host);
                faults.push(("upstream.urls", problem));
            }
            Err(_) => {
                let problem = format!("'{}' cannot be resolved: no answer in time", upstream.host);
                faults.push(("upstream.urls", problem));
            }
        }
    }
    let (mut names, is_same_catalogue) = (Names::default(), before.consul == config.consul);
    let is_known = is_same_catalogue && instances.found_by(CONSUL).is_some();
    if !is_known && let Some(catalogue) = catalogue(config) {
        let listing = catalogue.read(None, WAIT).await;
        match listing.map(|listing| names.update(listing, Instant::now())) {
            Ok(addresses) if !addresses.is_empty() => {
                found.insert(CONSUL, addresses);
            }
            // It was not found before either: nothing gets worse, and what else is configured may be the way out.
            _ if is_same_catalogue => {}
            Ok(_) => {
                let problem = "no instance of this service passes its checks in Consul, or none of \
                               their names can be resolved";
                faults.push(("upstream.consul_service", problem.to_owned()));
            }
            Err(problem) => {
                let problem = format!("Consul's catalogue cannot be read: {problem}");
                faults.push(("upstream.consul_url", problem));
            }
        }
    }
    if faults.is_empty() {
        Ok(FoundInstances { by_source: found, names, is_same_catalogue })
    } else {
        Err(faults)
    }
}

impl Instances {
    /// Uses what another configuration's sources have found. Whatever still follows the old ones finds
    /// nothing any more.
    pub fn adopt(&self, found: FoundInstances) {
        self.replace(found.by_source, found.names, found.is_same_catalogue);
    }
}

fn addressed(addresses: Vec<SocketAddr>, upstream: &Upstream) -> Addresses {
    addresses.into_iter().map(|at| (at, upstream.authority.clone())).collect()
}

async fn resolve_name(
    instances: &Instances,
    generation: u64,
    source: SourceId,
    upstream: &Upstream,
) {
    match lookup(&upstream.host, upstream.port).await {
        Ok(addresses) => instances.publish(generation, source, addressed(addresses, upstream)),
        Err(error) => {
            instances.watch.metrics.resolve_failures.increment(1);
            tracing::warn!(upstream = upstream.host, %error, "Upstream name not resolved");
        }
    }
}

fn catalogue(config: &UpstreamConfig) -> Option<Catalogue> {
    let consul = config.consul.clone()?;
    Catalogue::new(consul)
        .inspect_err(|error| tracing::error!(error, "Consul client not created"))
        .ok()
}

/// Publishes what the catalogue has, and what is known of names that could not be resolved. Returns whether these should
/// be resolved again soon.
fn adopt(instances: &Instances, generation: u64, listing: Listing) -> bool {
    if listing.names.is_empty() {
        tracing::warn!("No passing instance in Consul; keeping the known ones");
    }
    if !listing.is_whole() {
        instances.watch.metrics.resolve_failures.increment(1);
    }
    instances.publish_listing(generation, listing)
}

/// The first and the longest delay after Consul has failed.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// The shortest time between two reads, however often the catalogue changes.
const LEAST_PAUSE: Duration = Duration::from_millis(200);

/// Waits for each change of the catalogue, for ever.
async fn follow(
    instances: Arc<Instances>,
    generation: u64,
    catalogue: Catalogue,
    interval: Duration,
) {
    let (mut index, mut wait) = (None, WAIT);
    let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
    loop {
        match catalogue.read(index, wait).await {
            Ok(listing) => {
                let next = listing.index;
                let has_kept = adopt(&instances, generation, listing);
                // A change of the catalogue is still known immediately, but a name may be resolved again
                // without one.
                wait = if has_kept { spread(interval).min(WAIT) } else { WAIT };
                backoff.reset();
                // An index that went back belongs to another catalogue (a restored one).
                let goes_on = index.zip(next).is_none_or(|(before, now)| now >= before);
                index = next.filter(|_| goes_on);
                // Without an index Consul does not wait for a change.
                sleep(if index.is_some() { LEAST_PAUSE } else { spread(interval) }).await;
            }
            Err(error) => {
                instances.watch.metrics.resolve_failures.increment(1);
                tracing::warn!(error, "Consul catalogue not read; keeping the known instances");
                index = None;
                sleep(backoff.next_wait()).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
