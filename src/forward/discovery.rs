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
use super::instances::{Addresses, Instances, SourceId};
use super::lookup::lookup;
use crate::backoff::{Backoff, spread};
use crate::config::{Upstream, UpstreamConfig};

/// The number of Consul's catalogue as a source; names have their index in the configuration.
const CONSUL: SourceId = SourceId::MAX;

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
                adopt(&instances, generation, &mut Names::default(), listing);
            }
        });
    }
    while lookups.join_next().await.is_some() {}
}

/// Looks everything up at every interval until it is cancelled, or the sources are replaced.
pub async fn resolve_forever(
    instances: Arc<Instances>,
    config: UpstreamConfig,
    cancelled: CancellationToken,
) {
    let generation = instances.generation();
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

/// What the sources of a configuration have found, to replace those of another.
pub struct FoundInstances(BTreeMap<SourceId, Addresses>);

/// Looks up what another configuration names. Sources that `before` has, too, are not asked again: what
/// they have found stays. An error says which key's value finds nothing.
pub async fn find(
    instances: &Instances,
    before: &UpstreamConfig,
    config: &UpstreamConfig,
) -> Result<FoundInstances, Vec<(&'static str, String)>> {
    let (mut found, mut faults) = (BTreeMap::new(), Vec::new());
    for (source, upstream) in config.upstreams.iter().enumerate() {
        let is_same = |known: &Upstream| known.authority == upstream.authority;
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
    let known = (before.consul == config.consul).then(|| instances.found_by(CONSUL)).flatten();
    if let Some(addresses) = known.filter(|_| config.consul.is_some()) {
        found.insert(CONSUL, addresses);
    } else if let Some(catalogue) = catalogue(config) {
        let listing = catalogue.read(None, WAIT).await;
        match listing.map(|listing| Names::default().update(listing, Instant::now())) {
            Ok(addresses) if !addresses.is_empty() => {
                found.insert(CONSUL, addresses);
            }
            // It was not found before either: nothing gets worse, and what else is configured may be the way out.
            _ if before.consul == config.consul => {}
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
    if faults.is_empty() { Ok(FoundInstances(found)) } else { Err(faults) }
}

impl Instances {
    /// Uses what another configuration's sources have found. Whatever still follows the old ones finds
    /// nothing any more.
    pub fn adopt(&self, found: FoundInstances) {
        self.replace(found.0);
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

/// Publishes what the catalogue has, and what `names` knows of names that could not be resolved.
fn adopt(instances: &Instances, generation: u64, names: &mut Names, listing: Listing) {
    if listing.names.is_empty() {
        tracing::warn!("No passing instance in Consul; keeping the known ones");
    }
    if !listing.is_whole() {
        instances.watch.metrics.resolve_failures.increment(1);
    }
    let found = names.update(listing, Instant::now());
    if !found.is_empty() {
        instances.publish(generation, CONSUL, found);
    }
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
    let (mut index, mut backoff) = (None, Backoff::new(FIRST_RETRY, LAST_RETRY));
    let (mut names, mut wait) = (Names::default(), WAIT);
    loop {
        match catalogue.read(index, wait).await {
            Ok(listing) => {
                let next = listing.index;
                adopt(&instances, generation, &mut names, listing);
                // A change of the catalogue is still known immediately, but a name may be resolved again
                // without one.
                wait = if names.has_kept() { spread(interval).min(WAIT) } else { WAIT };
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
mod tests {
    use super::*;
    use crate::forward::instances::tests::instances;

    #[test]
    fn a_list_with_a_name_that_is_not_resolved_is_adopted_without_it() {
        let instances = instances(false);
        let at = |host: u8| SocketAddr::from(([127, 0, 0, host], 8080));
        let name = |host: &str| (host.to_owned(), 8080);
        let found = |second: Result<Vec<SocketAddr>, String>| Listing {
            names: [(name("127.0.0.1"), Ok(vec![at(1)])), (name("b"), second)].into(),
            index: Some(7),
        };
        let published = || {
            let found = instances.found_by(CONSUL).unwrap_or_default();
            found.into_iter().map(|(address, _)| address).collect::<Vec<_>>()
        };
        let (mut names, generation) = (Names::default(), instances.generation());
        let away = || Err("try again".to_owned());
        for (second, expected, is_soon) in [
            (away(), vec![at(1)], false),
            (Ok(vec![at(2)]), vec![at(1), at(2)], false),
            (away(), vec![at(1), at(2)], true),
        ] {
            adopt(&instances, generation, &mut names, found(second));
            assert_eq!((published(), names.has_kept()), (expected, is_soon));
        }
    }
}
