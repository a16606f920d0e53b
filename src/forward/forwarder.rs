//! Sends one worker's requests to Mimir: takes a permit and a request, returns Mimir's response.

use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response};
use tokio::time::Instant;

use super::alertmanager;
use super::attempts::{Answer, Attempts, Upstream};
use super::body::ResponseBody;
use super::budget::Budget;
use super::error::ForwardError;
use super::headers;
use super::instances::{InstanceList, Instances};
use super::pool::{Pool, PooledConnection};
use super::verdict::{
    REFUSAL_BYTES, is_about_a_slow_upload, is_misdirected, may_be_about_a_slow_upload,
};
use crate::config::UpstreamConfig;
use crate::edge::RequestId;
use crate::limits::Permit;
use crate::request_body::{Pace, ReplayAllowance, RequestBody};
use crate::route::Surface;
use crate::telemetry::Metrics;
use crate::trace::Span;

/// One worker's client of Mimir.
pub struct Forwarder {
    instances: Arc<Instances>,
    /// The instances to which the pool may hold connections.
    pooled: Mutex<Arc<InstanceList>>,
    upstream: Upstream,
}

/// Mimir's response, and the instance that sent it.
pub struct Forwarded {
    /// The response, with headers for the client.
    pub response: Response<ResponseBody>,
    pub address: SocketAddr,
}

/// Why there is no response of Mimir's, and the instance that was asked last, if one was.
#[derive(Debug)]
pub struct ForwardFailure {
    pub error: ForwardError,
    pub address: Option<SocketAddr>,
}

impl Forwarder {
    pub fn new(config: UpstreamConfig, instances: Arc<Instances>, metrics: Arc<Metrics>) -> Self {
        let pool = Arc::new(Pool::new(&config, Arc::clone(&metrics)));
        let budget = Budget::new(config.retry.percent, config.retry.reserve, Instant::now());
        let budget = Mutex::new(budget);
        let allowance = Arc::new(ReplayAllowance::new(config.retry.buffer_total_bytes));
        let upstream = Upstream { pool, budget, allowance, config, metrics };
        Self { instances, pooled: Mutex::default(), upstream }
    }

    /// Sends a request to the tenants of a permit's grant. Dropping the returned future cancels it
    /// upstream; the permit is held until the response's body is dropped.
    pub async fn forward(
        &self,
        permit: Permit,
        id: &RequestId,
        span: &Span,
        request: Request<RequestBody>,
    ) -> Result<Forwarded, ForwardFailure> {
        self.upstream.budget.lock().deposit();
        let transfer = request.body().transfer();
        let instances = self.instances();
        let (ran, address) = {
            let (mut attempts, body) =
                Attempts::new(&self.upstream, instances, permit.grant(), (id, span), request);
            (attempts.run(body).await, attempts.last_instance())
        };
        let failed = |error| ForwardFailure { error, address };
        let (answer, connection) = ran.map_err(failed)?;
        let pace = transfer.as_ref().map_or(Pace::Quick, |transfer| transfer.pace());
        // From here on, nothing is sent again.
        if let Some(transfer) = transfer {
            transfer.forget();
        }
        let status = answer.response.status().as_u16();
        let route = permit.grant().route();
        let has_body = answer.first.is_some() || !connection.wire.is_answered();
        if is_misdirected(route.surface, status, answer.response.headers(), has_body) {
            return Err(failed(ForwardError::Misdirected(status)));
        }
        let mut forwarded = self.inbound(answer, connection, permit, id);
        if route.surface == Surface::Alerts {
            // Rare, and so kept out of the size of every other request's future.
            Box::pin(alertmanager::review(route, &mut forwarded.response)).await.map_err(failed)?;
        }
        if may_be_about_a_slow_upload(status, pace) {
            let text = forwarded.response.body_mut().peek(REFUSAL_BYTES).await;
            // A truncated text says nothing, and a sender would drop its data on a refusal.
            if text.map_or(true, |text| is_about_a_slow_upload(status, text, pace)) {
                return Err(failed(ForwardError::UploadTimedOut));
            }
        }
        Ok(forwarded)
    }

    /// The current instances. Connections to removed ones are closed, also where another one has the address: they end
    /// at the Mimir of the other name.
    fn instances(&self) -> Arc<InstanceList> {
        let current = self.instances.current();
        let mut pooled = self.pooled.lock();
        if !Arc::ptr_eq(&current, &pooled) {
            let pool = &self.upstream.pool;
            pool.retain(|id| current.iter().any(|one| one.id == id));
            *pooled = Arc::clone(&current);
        }
        current
    }

    fn inbound(
        &self,
        Answer { response, first }: Answer,
        connection: PooledConnection,
        permit: Permit,
        id: &RequestId,
    ) -> Forwarded {
        let address = connection.slot.instance.address;
        let idle_timeout = self.upstream.config.idle_timeout;
        let body = ResponseBody::new(first, connection, permit.into_held_slots(), idle_timeout);
        let mut response = response.map(|()| body);
        headers::for_client(response.headers_mut(), id);
        Forwarded { response, address }
    }
}
