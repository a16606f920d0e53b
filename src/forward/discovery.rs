//! Finds instances: the configured names are resolved at every interval, because machines come and
//! go behind a name (Fly.io lists only those that run), and Consul's catalogue is read, if it is
//! configured.
//!
//! A failed or empty lookup changes nothing: the known instances stay, and their health decides
//! which of them are used.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::consul::Catalogue;
use super::instances::{Instances, SourceId};
use super::lookup::lookup;
use crate::backoff::{Backoff, spread};
use crate::config::{Upstream, UpstreamConfig};

/// The number of Consul's catalogue as a source; names have their index in the configuration.
const CONSUL: SourceId = SourceId::MAX;

/// Looks everything up once, concurrently.
pub async fn resolve(instances: &Arc<Instances>, config: &UpstreamConfig) {
    let mut lookups = JoinSet::new();
    for (source, upstream) in config.upstreams.iter().cloned().enumerate() {
        let instances = Arc::clone(instances);
        lookups.spawn(async move { resolve_name(&instances, source, &upstream).await });
    }
    if let Some(catalogue) = catalogue(config) {
        let instances = Arc::clone(instances);
        lookups.spawn(async move {
            if let Ok((found, _)) = catalogue.read(None).await {
                adopt(&instances, found);
            }
        });
    }
    while lookups.join_next().await.is_some() {}
}

/// Looks everything up at every interval until it is cancelled.
pub async fn resolve_forever(
    instances: Arc<Instances>,
    config: UpstreamConfig,
    cancelled: CancellationToken,
) {
    let mut sources = JoinSet::new();
    for (source, upstream) in config.upstreams.iter().cloned().enumerate() {
        let (instances, interval) = (Arc::clone(&instances), config.resolve_interval);
        sources.spawn(async move {
            loop {
                sleep(spread(interval)).await;
                resolve_name(&instances, source, &upstream).await;
            }
        });
    }
    if let Some(catalogue) = catalogue(&config) {
        sources.spawn(follow(instances, catalogue, config.resolve_interval));
    }
    cancelled.cancelled().await;
}

async fn resolve_name(instances: &Instances, source: SourceId, upstream: &Upstream) {
    match lookup(&upstream.host, upstream.port).await {
        Ok(addresses) => {
            let found = addresses.into_iter().map(|at| (at, upstream.authority.clone())).collect();
            instances.publish(source, found);
        }
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

fn adopt(instances: &Instances, found: Vec<(SocketAddr, HeaderValue)>) {
    if found.is_empty() {
        instances.watch.metrics.resolve_failures.increment(1);
        tracing::warn!("No passing instance in Consul; keeping the known ones");
    } else {
        instances.publish(CONSUL, found);
    }
}

/// The first and the longest delay after Consul has failed.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// The shortest time between two reads, however often the catalogue changes.
const LEAST_PAUSE: Duration = Duration::from_millis(200);

/// Waits for each change of the catalogue, for ever.
async fn follow(instances: Arc<Instances>, catalogue: Catalogue, interval: Duration) {
    let (mut index, mut backoff) = (None, Backoff::new(FIRST_RETRY, LAST_RETRY));
    loop {
        match catalogue.read(index).await {
            Ok((found, next)) => {
                adopt(&instances, found);
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
