//! One worker's connections to Mimir: HTTP/1.1, kept after use, last in, first out.
//!
//! HTTP/1.1 and not HTTP/2 on purpose: each request in flight has a connection of its own, so a
//! stalled stream blocks no other, and a request is cancelled by closing its connection.
//!
//! No pool crate: hyper-util's cannot select a recently used connection, which a request that must
//! not be sent twice needs, nor drop those to one instance.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http1::{Builder, SendRequest};
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::guarded_io::{GuardedIo, ReusedFlag};
use super::instance::InstanceSlot;
use crate::config::UpstreamConfig;
use crate::request_body::{RequestBody, Transfer};
use crate::telemetry::Metrics;

pub(super) struct Pool {
    idle: Mutex<HashMap<SocketAddr, Vec<IdleConnection>>>,
    max_idle: usize,
    connect_timeout: Duration,
    ack_timeout: Duration,
    metrics: Arc<Metrics>,
}

/// A connection, and the flag that marks its socket as reused.
pub(super) struct Link {
    pub(super) sender: SendRequest<RequestBody>,
    reused: ReusedFlag,
}

struct IdleConnection {
    link: Link,
    since: Instant,
}

/// Mimir closes connections that were idle for two minutes. If one is about to be closed, its next
/// request may fail.
const KEEP: Duration = Duration::from_secs(60);

/// A streamed body is read in pieces of at most this size, which bounds the memory of a stream.
/// Larger pieces were not faster when measured (docs/performance.md).
const MAX_PIECE_BYTES: usize = 128 << 10;

/// A connection in use.
pub(super) struct PooledConnection {
    pub(super) link: Link,
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
        if is_sent && !self.link.sender.is_closed() {
            self.pool.keep(self.slot.instance.address, self.link);
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
        let address = slot.instance.address;
        let pooled = |link, slot, is_reused| PooledConnection {
            link,
            slot,
            is_reused,
            is_good: false,
            transfer,
            pool: Arc::clone(self),
        };
        while let Some(mut link) = self.take_kept(address, freshness) {
            // One that is still busy with its last request cannot be used.
            if let Ok(Ok(())) = timeout(self.connect_timeout, link.sender.ready()).await {
                link.reused.set();
                return Ok(pooled(link, slot, true));
            }
        }
        match self.connect(address).await {
            Ok(link) => Ok(pooled(link, slot, false)),
            Err(error) => Err((error, slot)),
        }
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<Link> {
        let outcome = self.try_connect(address).await;
        match &outcome {
            Ok(_) => self.metrics.upstream_connects.increment(1),
            Err(_) => self.metrics.upstream_connect_failures.increment(1),
        }
        outcome
    }

    async fn try_connect(&self, address: SocketAddr) -> io::Result<Link> {
        let stream = timeout(self.connect_timeout, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        // A machine that disappeared sends no reset: without this, its response is awaited until
        // the timeout.
        SockRef::from(&stream).set_tcp_user_timeout(Some(self.ack_timeout))?;
        let reused = ReusedFlag::default();
        let (sender, connection) = Builder::new()
            .max_buf_size(MAX_PIECE_BYTES)
            .handshake(GuardedIo::new(stream, reused.clone()))
            .await
            .map_err(io::Error::other)?;
        // The error that ends a connection also reaches the request on it.
        tokio::spawn(connection);
        Ok(Link { sender, reused })
    }

    fn take_kept(&self, address: SocketAddr, freshness: Freshness) -> Option<Link> {
        let age = match freshness {
            Freshness::Any => KEEP,
            Freshness::Recent => RECENT,
            Freshness::New => return None,
        };
        let mut idle = self.idle.lock();
        let kept = idle.get_mut(&address)?;
        while let Some(one) = kept.pop() {
            let idle_for = one.since.elapsed();
            if idle_for > KEEP {
                kept.clear(); // all others were kept before this one
            } else if idle_for > age {
                kept.push(one); // and so are these
                return None;
            } else if !one.link.sender.is_closed() {
                return Some(one.link);
            }
        }
        None
    }

    /// Closes kept connections to an instance: it has closed one of them, and probably all that
    /// were kept before.
    pub(super) fn discard(&self, address: SocketAddr) {
        let mut idle = self.idle.lock();
        idle.remove(&address);
    }

    fn keep(&self, address: SocketAddr, link: Link) {
        let mut idle = self.idle.lock();
        let kept = idle.entry(address).or_default();
        if kept.len() < self.max_idle {
            kept.push(IdleConnection { link, since: Instant::now() });
        }
    }

    /// Closes kept connections to removed instances.
    pub(super) fn retain(&self, addresses: impl Fn(&SocketAddr) -> bool) {
        let mut idle = self.idle.lock();
        idle.retain(|address, _| addresses(address));
    }
}
