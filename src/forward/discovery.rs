//! Where instances are found: what the configured names resolve to, looked up anew all the time,
//! because machines come and go behind a name (Fly.io lists only those that run), and Consul's
//! catalogue, if it is configured.
//!
//! A look-up that fails or finds nothing changes nothing: what is known stays, and health says what
//! of it is of use.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::consul::Catalogue;
use super::instances::{Instances, SourceId};
use crate::backoff::{Backoff, spread};
use crate::config::{Upstream, UpstreamConfig};

/// The source that Consul's catalogue is; names have the numbers of their places in the list.
const CONSUL: SourceId = SourceId::MAX;

/// Looks everything up once, all at the same time.
pub async fn resolve(instances: &Arc<Instances>, config: &UpstreamConfig) {
    let mut lookups = JoinSet::new();
    for (source, upstream) in config.upstreams.iter().cloned().enumerate() {
        let instances = Arc::clone(instances);
        lookups.spawn(async move { resolve_name(&instances, source, &upstream).await });
    }
    if let Some(catalogue) = catalogue(config) {
        let instances = Arc::clone(instances);
        lookups.spawn(async move {
            if let Ok((found, _)) = catalogue.look(None).await {
                adopt(&instances, found);
            }
        });
    }
    while lookups.join_next().await.is_some() {}
}

/// Looks everything up all the time until it is cancelled.
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

/// All addresses of a name, A and AAAA, as this system finds them.
pub(super) async fn lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut addresses: Vec<_> = tokio::net::lookup_host((host, port)).await?.collect();
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() { Err(io::Error::other("no address")) } else { Ok(addresses) }
}

fn catalogue(config: &UpstreamConfig) -> Option<Catalogue> {
    let consul = config.consul.clone()?;
    Catalogue::new(consul).inspect_err(|error| tracing::error!(error, "No client for Consul")).ok()
}

fn adopt(instances: &Instances, found: Vec<(SocketAddr, HeaderValue)>) {
    if found.is_empty() {
        instances.watch.metrics.resolve_failures.increment(1);
        tracing::warn!("Consul's catalogue has no passing instance; those known are kept");
    } else {
        instances.publish(CONSUL, found);
    }
}

/// How long to wait after Consul has failed, at first and at most.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// The least time between two looks, however often the catalogue changes.
const LEAST_PAUSE: Duration = Duration::from_millis(200);

/// Waits for each change of the catalogue, for ever.
async fn follow(instances: Arc<Instances>, catalogue: Catalogue, interval: Duration) {
    let (mut index, mut backoff) = (None, Backoff::new(FIRST_RETRY, LAST_RETRY));
    loop {
        match catalogue.look(index).await {
            Ok((found, next)) => {
                adopt(&instances, found);
                backoff.reset();
                // An index that went back is of another catalogue (a restored one).
                let goes_on = index.zip(next).is_none_or(|(before, now)| now >= before);
                index = next.filter(|_| goes_on);
                // Without an index Consul does not wait for a change.
                sleep(if index.is_some() { LEAST_PAUSE } else { spread(interval) }).await;
            }
            Err(error) => {
                instances.watch.metrics.resolve_failures.increment(1);
                tracing::warn!(error, "Consul's catalogue not read; instances known are kept");
                index = None;
                sleep(backoff.next_wait()).await;
            }
        }
    }
}
