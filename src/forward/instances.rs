//! Mimir's instances: what the configured names resolve to, looked up anew all the time, because
//! machines come and go behind a name (Fly.io lists only those that run).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio_util::sync::CancellationToken;

use crate::config::{Upstream, UpstreamConfig};
use crate::telemetry::Metrics;

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Instance {
    pub(super) address: SocketAddr,
    /// What its `Host` header says: the name, not the address.
    pub(super) authority: HeaderValue,
}

/// All instances known now, shared by all workers.
pub struct Instances {
    current: ArcSwap<Vec<Instance>>,
    metrics: Arc<Metrics>,
}

impl Instances {
    /// None yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { current: ArcSwap::default(), metrics }
    }

    pub(super) fn current(&self) -> Arc<Vec<Instance>> {
        self.current.load_full()
    }

    /// The number of instances known.
    pub fn len(&self) -> usize {
        self.current.load().len()
    }

    /// Whether no instance is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Resolves all names once. A name that does not resolve keeps the addresses that it had.
    pub async fn resolve(&self, config: &UpstreamConfig) {
        let before = self.current.load_full();
        let mut found: HashMap<SocketAddr, HeaderValue> = HashMap::new();
        for upstream in &config.upstreams {
            match lookup(upstream).await {
                Ok(addresses) => {
                    found.extend(addresses.into_iter().map(|at| (at, upstream.authority.clone())));
                }
                Err(error) => {
                    self.metrics.resolve_failures.increment(1);
                    tracing::warn!(upstream = upstream.host, %error, "Upstream name not resolved");
                    let known = before.iter().filter(|one| one.authority == upstream.authority);
                    found.extend(known.map(|one| (one.address, one.authority.clone())));
                }
            }
        }
        let mut now: Vec<Instance> =
            found.into_iter().map(|(address, authority)| Instance { address, authority }).collect();
        now.sort_by_key(|instance| instance.address);
        if now != *before {
            tracing::info!(upstream.instances = now.len(), "Upstream instances changed");
            self.metrics
                .upstream_instances
                .set(f64::from(u32::try_from(now.len()).unwrap_or(u32::MAX)));
            self.current.store(Arc::new(now));
        }
    }
}

async fn lookup(upstream: &Upstream) -> std::io::Result<Vec<SocketAddr>> {
    let addresses: Vec<_> =
        tokio::net::lookup_host((upstream.host.as_str(), upstream.port)).await?.collect();
    if addresses.is_empty() { Err(std::io::Error::other("no address")) } else { Ok(addresses) }
}

/// Resolves all names at every interval until it is cancelled.
pub async fn resolve_forever(
    instances: Arc<Instances>,
    config: UpstreamConfig,
    cancelled: CancellationToken,
) {
    loop {
        tokio::select! {
            () = cancelled.cancelled() => return,
            () = tokio::time::sleep(config.resolve_interval) => instances.resolve(&config).await,
        }
    }
}
