//! One exchange with Mimir: choose an instance, send, wait for the head of the response.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::{Request, Response, Uri, Version, header};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep_until};

use super::body::ResponseBody;
use super::failure::Failure;
use super::headers;
use super::instances::{Instance, Instances};
use super::pool::{Lease, Pool};
use super::request_body::{Progress, RequestBody};
use crate::authz::Grant;
use crate::config::UpstreamConfig;
use crate::edge::RequestId;
use crate::telemetry::Metrics;

/// One worker's way to Mimir.
pub struct Forwarder {
    instances: Arc<Instances>,
    /// The instances for which the pool may hold connections.
    pooled: Mutex<Arc<Vec<Instance>>>,
    pool: Arc<Pool>,
    next: AtomicUsize,
    config: UpstreamConfig,
    metrics: Arc<Metrics>,
}

/// Mimir's response, and which instance gave it.
pub struct Forwarded {
    /// The response, its headers made fit for the client.
    pub response: Response<ResponseBody>,
    /// The instance.
    pub address: SocketAddr,
}

/// Instances that one request tries to connect to, at most.
const MAX_INSTANCES_TRIED: usize = 3;
/// Kept connections that one request finds closed before it stops looking for a kept one.
const MAX_RESENDS: usize = 3;

enum Sent {
    Answered(Response<Incoming>),
    /// Not a byte was sent: the connection had gone.
    Unsent(Box<Request<RequestBody>>),
}

impl Forwarder {
    /// Makes the way of the worker with this number, so that workers begin with different instances.
    pub fn new(
        config: UpstreamConfig,
        instances: Arc<Instances>,
        metrics: Arc<Metrics>,
        worker: usize,
    ) -> Self {
        let pool =
            Pool::new(config.max_idle_connections, config.connect_timeout, Arc::clone(&metrics));
        Self {
            instances,
            pooled: Mutex::default(),
            pool: Arc::new(pool),
            next: AtomicUsize::new(worker),
            config,
            metrics,
        }
    }

    /// Sends a request to the tenant of a grant. Dropping the returned future cancels it upstream.
    pub async fn forward(
        &self,
        grant: &Grant,
        id: &RequestId,
        request: Request<RequestBody>,
    ) -> Result<Forwarded, Failure> {
        let instances = self.instances();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let progress = request.body().progress();
        let mut request = Box::new(self.outbound(grant, id, request));
        let mut failure = Failure::NoInstance;
        for attempt in 0..instances.len().min(MAX_INSTANCES_TRIED) {
            let instance = &instances[(first.wrapping_add(attempt)) % instances.len()];
            request.headers_mut().insert(header::HOST, instance.authority.clone());
            match self.try_instance(instance, request, progress.as_ref()).await {
                Ok((response, lease)) => return Ok(self.inbound(response, lease, id)),
                Err((Failure::Connect(error), Some(unsent))) => {
                    failure = Failure::Connect(error);
                    request = unsent;
                }
                Err((failure, _)) => return Err(failure),
            }
        }
        Err(failure)
    }

    fn instances(&self) -> Arc<Vec<Instance>> {
        let current = self.instances.current();
        let mut pooled = self.pooled.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&current, &pooled) {
            self.pool.retain(|address| current.iter().any(|one| one.address == *address));
            *pooled = Arc::clone(&current);
        }
        current
    }

    fn outbound(
        &self,
        grant: &Grant,
        id: &RequestId,
        request: Request<RequestBody>,
    ) -> Request<RequestBody> {
        let (mut parts, body) = request.into_parts();
        parts.version = Version::HTTP_11;
        // The target of HTTP/2 carries scheme and authority; Mimir gets the path and the query.
        if parts.uri.scheme().is_some() {
            parts.uri = parts.uri.path_and_query().cloned().map(Uri::from).unwrap_or_default();
        }
        parts.headers =
            headers::for_upstream(&parts.headers, &self.config.pass_headers, id, grant.tenants());
        Request::from_parts(parts, body)
    }

    fn inbound(&self, response: Response<Incoming>, lease: Lease, id: &RequestId) -> Forwarded {
        let address = lease.address;
        let (mut parts, incoming) = response.into_parts();
        headers::for_client(&mut parts.headers, id);
        let body = ResponseBody::new(incoming, lease, self.config.idle_timeout);
        Forwarded { response: Response::from_parts(parts, body), address }
    }

    async fn try_instance(
        &self,
        instance: &Instance,
        mut request: Box<Request<RequestBody>>,
        progress: Option<&Arc<Progress>>,
    ) -> Result<(Response<Incoming>, Lease), (Failure, Option<Box<Request<RequestBody>>>)> {
        for _ in 0..=MAX_RESENDS {
            let mut lease = match self.pool.take(instance.address, progress.cloned()).await {
                Ok(lease) => lease,
                Err(error) => return Err((Failure::Connect(error), Some(request))),
            };
            match self.exchange(&mut lease, request, progress).await {
                Ok(Sent::Answered(response)) => return Ok((response, lease)),
                Ok(Sent::Unsent(unsent)) => {
                    self.metrics.upstream_resends.increment(1);
                    request = unsent;
                }
                Err(failure) => return Err((failure, None)),
            }
        }
        let error = io::Error::from(io::ErrorKind::ConnectionReset);
        Err((Failure::Connect(error), Some(request)))
    }

    async fn exchange(
        &self,
        lease: &mut Lease,
        request: Box<Request<RequestBody>>,
        progress: Option<&Arc<Progress>>,
    ) -> Result<Sent, Failure> {
        let limits = request.body().limits();
        let send = lease.sender.try_send_request(*request);
        let Some(outcome) = self.before_deadline(send, progress).await else {
            return Err(Failure::Timeout);
        };
        match outcome {
            Ok(response) => Ok(Sent::Answered(response)),
            Err(mut error) => {
                match (error.take_message(), progress.and_then(|body| body.fault(&limits))) {
                    (Some(unsent), _) => Ok(Sent::Unsent(Box::new(unsent))),
                    (None, Some(fault)) => Err(Failure::Body(fault)),
                    (None, None) => Err(Failure::Broken(error.into_error())),
                }
            }
        }
    }

    /// Waits for the head of a response, for a while counted from the last sign of life: while a
    /// client is still sending, Mimir is not late.
    async fn before_deadline<T>(
        &self,
        send: impl Future<Output = T>,
        progress: Option<&Arc<Progress>>,
    ) -> Option<T> {
        let mut send = pin!(send);
        let begun = Instant::now();
        let mut timer = pin!(sleep_until(begun + self.config.response_timeout));
        loop {
            tokio::select! {
                biased;
                outcome = &mut send => return Some(outcome),
                () = &mut timer => {
                    let last_sign = progress.map_or(begun, |body| body.last_piece());
                    let deadline = last_sign + self.config.response_timeout;
                    if Instant::now() >= deadline {
                        return None;
                    }
                    timer.as_mut().reset(deadline);
                }
            }
        }
    }
}
