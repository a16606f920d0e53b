//! One worker's connections to Mimir: HTTP/1.1, kept after use, the last used first.
//!
//! HTTP/1.1 and not HTTP/2 on purpose: each request in flight has a connection of its own, so one
//! stalled stream holds up nobody, and cancelling one is closing one.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::request_body::{Progress, RequestBody};
use crate::telemetry::Metrics;

pub(super) struct Pool {
    idle: Mutex<HashMap<SocketAddr, Vec<Kept>>>,
    max_idle: usize,
    connect_timeout: Duration,
    metrics: Arc<Metrics>,
}

struct Kept {
    sender: SendRequest<RequestBody>,
    since: Instant,
}

/// Mimir closes a connection that was idle for two minutes; one that is about to be closed is a
/// request that may have to be refused.
const KEEP: Duration = Duration::from_secs(60);

/// A streamed body is read in pieces of at most this size, which bounds the memory of a stream.
/// Larger pieces were measured not to be faster (docs/performance.md).
const MAX_PIECE_BYTES: usize = 128 << 10;

/// A connection in use.
pub(super) struct Lease {
    pub(super) sender: SendRequest<RequestBody>,
    pub(super) address: SocketAddr,
    progress: Option<Arc<Progress>>,
    pool: Arc<Pool>,
}

impl Lease {
    /// Keeps the connection for another request, unless its last one is still being sent: a
    /// response that came early does not end its request.
    pub(super) fn give_back(self) {
        let is_sent = self.progress.is_none_or(|progress| progress.is_complete());
        if is_sent && !self.sender.is_closed() {
            self.pool.keep(self.address, self.sender);
        }
    }
}

impl Pool {
    pub(super) fn new(max_idle: usize, connect_timeout: Duration, metrics: Arc<Metrics>) -> Self {
        Self { idle: Mutex::default(), max_idle, connect_timeout, metrics }
    }

    /// A connection to an instance, kept or new.
    pub(super) async fn take(
        self: &Arc<Self>,
        address: SocketAddr,
        progress: Option<Arc<Progress>>,
    ) -> io::Result<Lease> {
        while let Some(mut sender) = self.take_kept(address) {
            // One that is still busy with its last request is as good as gone.
            if let Ok(Ok(())) = timeout(self.connect_timeout, sender.ready()).await {
                return Ok(Lease { sender, address, progress, pool: Arc::clone(self) });
            }
        }
        let sender = self.connect(address).await?;
        Ok(Lease { sender, address, progress, pool: Arc::clone(self) })
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<SendRequest<RequestBody>> {
        let outcome = self.try_connect(address).await;
        match &outcome {
            Ok(_) => self.metrics.upstream_connects.increment(1),
            Err(_) => self.metrics.upstream_connect_failures.increment(1),
        }
        outcome
    }

    async fn try_connect(&self, address: SocketAddr) -> io::Result<SendRequest<RequestBody>> {
        let stream = timeout(self.connect_timeout, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        let (sender, connection) = Builder::new()
            .max_buf_size(MAX_PIECE_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        // What ends a connection is told to the request that it carries.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn take_kept(&self, address: SocketAddr) -> Option<SendRequest<RequestBody>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.get_mut(&address)?;
        while let Some(one) = kept.pop() {
            if one.since.elapsed() > KEEP {
                kept.clear(); // all others were kept before this one
            } else if !one.sender.is_closed() {
                return Some(one.sender);
            }
        }
        None
    }

    fn keep(&self, address: SocketAddr, sender: SendRequest<RequestBody>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.entry(address).or_default();
        if kept.len() < self.max_idle {
            kept.push(Kept { sender, since: Instant::now() });
        }
    }

    /// Closes what is kept for instances that are no longer there.
    pub(super) fn retain(&self, addresses: impl Fn(&SocketAddr) -> bool) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|address, _| addresses(address));
    }
}
