//! One worker's connections to Mimir: HTTP/1.1, kept after use, last in, first out.
//!
//! HTTP/1.1 and not HTTP/2 on purpose: each request in flight has a connection of its own, so a
//! stalled stream blocks no other, and a request is cancelled by closing its connection.
//!
//! No pool crate: hyper-util's cannot select a recently used connection, which a request that must
//! not be sent twice needs, nor drop those to one instance.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until, timeout};

use super::instance::{Instance, InstanceId, InstanceSlot};
use super::socket::{Quiet, Socket};
use super::wire::{LargeReads, Wire};
use crate::config::{UpstreamConfig, UpstreamTls};
use crate::net::{TcpStream, time_out_unacknowledged};
use crate::request_body::Transfer;
use crate::telemetry::Metrics;

pub(super) struct Pool {
    idle: Mutex<Idle>,
    max_idle: usize,
    connect_timeout: Duration,
    ack_timeout: Duration,
    tls: Option<UpstreamTls>,
    large_reads: Arc<LargeReads>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Idle {
    /// By instance and not by address: with another name, the address may lead to another Mimir, and the certificate
    /// was verified for the name that it had. Few, and asked twice with each request: comparing numbers costs less than
    /// hashing them.
    kept: BTreeMap<InstanceId, Vec<IdleConnection>>,
    /// Whether a task closes what is kept for too long.
    is_swept: bool,
}

struct IdleConnection {
    wire: Box<Wire>,
    since: Instant,
}

/// Mimir closes connections that were idle for two minutes. If one is about to be closed, its next
/// request may fail.
const KEEP: Duration = Duration::from_secs(60);

/// A connection in use.
pub(super) struct PooledConnection {
    pub(super) wire: Box<Wire>,
    pub(super) slot: InstanceSlot,
    /// Whether it has carried a request before.
    pub(super) is_reused: bool,
    /// Whether the response says something about the instance.
    pub(super) is_good: bool,
    transfer: Option<Arc<Transfer>>,
    pool: Arc<Pool>,
}

/// How recently a kept connection must have been used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// Any that is not known to be closed.
    Any,
    /// Within [`RECENT`]: the request could not be sent again if the connection had been closed.
    Recent,
    /// Always a new one.
    New,
}

const RECENT: Duration = Duration::from_secs(1);

impl PooledConnection {
    /// Ends the exchange. Keeps the connection, unless the request is still being sent: an early
    /// response does not end its request.
    pub(super) fn give_back(self) {
        if self.is_good {
            self.slot.instance.completed();
        }
        let is_sent = self.transfer.is_none_or(|transfer| transfer.is_complete());
        if is_sent && self.wire.is_reusable() && !self.slot.instance.is_gone() {
            self.pool.keep(self.slot.instance.id, self.wire);
        }
    }
}

impl Pool {
    pub(super) fn new(config: &UpstreamConfig, metrics: Arc<Metrics>) -> Self {
        Self {
            idle: Mutex::default(),
            max_idle: config.max_idle_connections,
            connect_timeout: config.connect_timeout,
            ack_timeout: config.ack_timeout,
            tls: config.tls.clone(),
            large_reads: Arc::default(),
            metrics,
        }
    }

    /// Gets a connection to an instance, kept or new.
    pub(super) async fn take(
        self: &Arc<Self>,
        slot: InstanceSlot,
        transfer: Option<Arc<Transfer>>,
        freshness: Freshness,
    ) -> Result<PooledConnection, (io::Error, InstanceSlot)> {
        let pooled = |wire, slot, is_reused| PooledConnection {
            wire,
            slot,
            is_reused,
            is_good: false,
            transfer,
            pool: Arc::clone(self),
        };
        if let Some(wire) = self.take_kept(&slot.instance, freshness) {
            return Ok(pooled(wire, slot, true));
        }
        match self.connect(&slot.instance).await {
            Ok(wire) => Ok(pooled(wire, slot, false)),
            Err(error) => Err((error, slot)),
        }
    }

    async fn connect(&self, instance: &Instance) -> io::Result<Box<Wire>> {
        let outcome = timeout(self.connect_timeout, self.try_connect(instance)).await;
        let outcome = outcome.unwrap_or_else(|late| Err(late.into()));
        match &outcome {
            Ok(_) => self.metrics.upstream_connects.increment(1),
            Err(_) => self.metrics.upstream_connect_failures.increment(1),
        }
        outcome
    }

    async fn try_connect(&self, instance: &Instance) -> io::Result<Box<Wire>> {
        let stream = TcpStream::connect(instance.address).await?;
        stream.set_nodelay(true)?;
        // A machine that disappeared sends no reset: without this, its response is awaited until
        // the timeout.
        time_out_unacknowledged(&stream, self.ack_timeout)?;
        let tls = self.tls.as_ref().map(UpstreamTls::client);
        let socket = Socket::secured(stream, instance.address, &instance.authority, tls).await?;
        Ok(Box::new(Wire::new(socket, &self.large_reads).over_tls(self.tls.is_some())))
    }

    fn take_kept(&self, instance: &Instance, freshness: Freshness) -> Option<Box<Wire>> {
        let age = match freshness {
            Freshness::Any => KEEP,
            Freshness::Recent => RECENT,
            Freshness::New => return None,
        };
        let mut idle = self.idle.lock();
        let kept = idle.kept.get_mut(&instance.id)?;
        while let Some(mut one) = kept.pop() {
            let idle_for = one.since.elapsed();
            if idle_for > KEEP {
                kept.clear(); // all others were kept before this one
            } else if idle_for > age {
                kept.push(one); // and so are these
                return None;
            } else {
                // Its request follows at once.
                match one.wire.is_quiet() {
                    Quiet::Yes => return Some(one.wire),
                    Quiet::Closed => {}
                    Quiet::Unsolicited => {
                        tracing::warn!(
                            upstream.address = %instance.address,
                            "Upstream sent an unsolicited answer"
                        );
                    }
                }
            }
        }
        None
    }

    /// Closes kept connections to an instance: it has closed one of them, and probably all that
    /// were kept before.
    pub(super) fn discard(&self, instance: InstanceId) {
        self.idle.lock().kept.remove(&instance);
    }

    fn keep(self: &Arc<Self>, instance: InstanceId, mut wire: Box<Wire>) {
        wire.settle();
        let mut idle = self.idle.lock();
        let kept = idle.kept.entry(instance).or_default();
        if kept.len() < self.max_idle {
            kept.push(IdleConnection { wire, since: Instant::now() });
        }
        if !idle.is_swept
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            idle.is_swept = true;
            runtime.spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// Closes kept connections to removed instances.
    pub(super) fn retain(&self, is_there: impl Fn(InstanceId) -> bool) {
        self.idle.lock().kept.retain(|instance, _| is_there(*instance));
    }

    /// Closes what was kept for too long. Returns when the next connection is due; none if none is left.
    fn close_old(&self) -> Option<Instant> {
        let mut idle = self.idle.lock();
        idle.kept.retain(|_, kept| {
            kept.retain(|one| one.since.elapsed() <= KEEP);
            !kept.is_empty()
        });
        let oldest = idle.kept.values().flatten().map(|one| one.since).min();
        idle.is_swept = oldest.is_some();
        oldest.map(|oldest| oldest + KEEP)
    }
}

/// Nothing is told of a kept connection that Mimir closes: until it is taken, or swept, its socket is
/// half closed.
async fn sweep(pool: Weak<Pool>) {
    while let Some(next) = pool.upgrade().and_then(|pool| pool.close_old()) {
        sleep_until(next + Duration::from_secs(1)).await;
    }
}

#[cfg(not(feature = "simulation"))]
#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use tokio::net::TcpListener;

    use super::*;
    use crate::forward::instances::tests::{instances, requester, upstream_config};

    async fn take(pool: &Arc<Pool>, instance: &Arc<Instance>) -> PooledConnection {
        let slot = instance.enter(requester("a"), false).unwrap();
        let taken = pool.take(slot, None, Freshness::Any).await;
        taken.map_err(|(error, _)| error).unwrap()
    }

    // Behind one address there may be several Mimirs, of which the name in the handshake chooses one: its requests would
    // go on to that, whatever their `Host`, and the other's certificate would never be verified.
    #[tokio::test]
    async fn a_connection_carries_requests_for_the_name_it_was_made_for_only() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Arc::new(Metrics::register());
        let pool = Arc::new(Pool::new(&upstream_config(), metrics));
        let instances = instances(false);
        let named = |name| {
            instances.publish(0, 0, vec![(address, HeaderValue::from_static(name))]);
            Arc::clone(&instances.current()[0])
        };
        let old = named("mimir-old");
        take(&pool, &old).await.give_back();
        let in_flight = take(&pool, &old).await;
        assert!(in_flight.is_reused, "it was kept");
        take(&pool, &old).await.give_back();

        let new = named("mimir-new");
        let first = take(&pool, &new).await;
        assert!(!first.is_reused, "one that was idle");
        in_flight.give_back();
        assert!(!take(&pool, &new).await.is_reused, "one that was in flight");

        pool.retain(|id| id == new.id);
        assert!(pool.idle.lock().kept.is_empty());
        first.give_back();
        assert!(take(&pool, &new).await.is_reused);
    }
}
