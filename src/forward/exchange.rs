//! One worker's way to Mimir, and one exchange on it: send, and wait for the head of the response.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use super::body::ResponseBody;
use super::budget::Budget;
use super::failure::{BodyFault, Failure};
use super::headers;
use super::instances::{Fleet, Instances};
use super::journey::Journey;
use super::pool::{Lease, Pool};
use super::replay::Allowance;
use super::request_body::{RequestBody, Sending};
use super::verdict::{Pace, is_about_a_slow_upload, is_misdirected, may_be_about_a_slow_upload};
use crate::config::UpstreamConfig;
use crate::edge::RequestId;
use crate::limits::Permit;
use crate::telemetry::Metrics;

/// One worker's way to Mimir.
pub struct Forwarder {
    instances: Arc<Instances>,
    /// The instances for which the pool may hold connections.
    pooled: Mutex<Arc<Fleet>>,
    pub(super) pool: Arc<Pool>,
    pub(super) budget: Mutex<Budget>,
    pub(super) allowance: Arc<Allowance>,
    pub(super) config: UpstreamConfig,
    pub(super) metrics: Arc<Metrics>,
}

/// Mimir's response, and which instance gave it.
pub struct Forwarded {
    /// The response, its headers made fit for the client.
    pub response: Response<ResponseBody>,
    /// The instance.
    pub address: SocketAddr,
}

/// How much of a refusal is read to find out what it is about.
const REFUSAL_BYTES: usize = 4 << 10;

/// How an exchange went.
pub(super) enum Exchanged {
    Answered(Response<Incoming>),
    /// Not a byte was sent: the connection had gone.
    Unsent(Box<Request<RequestBody>>),
    /// The connection broke this long after the request was begun.
    Broken(hyper::Error, Duration),
    /// No answer began in time.
    Late,
    /// The client's body failed.
    BodyFault(BodyFault),
}

impl Forwarder {
    /// Makes the way of one worker.
    pub fn new(config: UpstreamConfig, instances: Arc<Instances>, metrics: Arc<Metrics>) -> Self {
        let pool = Pool::new(&config, Arc::clone(&metrics));
        let budget = Budget::new(config.retry.percent, config.retry.reserve, Instant::now());
        Self {
            instances,
            pooled: Mutex::default(),
            pool: Arc::new(pool),
            budget: Mutex::new(budget),
            allowance: Arc::new(Allowance::new(config.retry.buffer_total_bytes)),
            config,
            metrics,
        }
    }

    /// Sends a request to the tenant of a permit's grant. Dropping the returned future cancels it
    /// upstream; the permit is held until the answer's body is dropped.
    pub async fn forward(
        &self,
        permit: Permit,
        id: &RequestId,
        request: Request<RequestBody>,
    ) -> Result<Forwarded, Failure> {
        self.budget.lock().deposit();
        let sending = request.body().sending();
        let (journey, body) = Journey::new(self, self.fleet(), permit.grant(), id, request);
        let (response, lease) = journey.go(body).await?;
        let pace = sending.as_ref().map_or(Pace::Quick, |sending| sending.pace());
        // From here on nothing is sent again.
        if let Some(sending) = sending {
            sending.forget();
        }
        let status = response.status().as_u16();
        if is_misdirected(permit.grant().route().surface, status) {
            return Err(Failure::Misdirected(status));
        }
        let mut forwarded = self.inbound(response, lease, permit, id);
        if may_be_about_a_slow_upload(status, pace) {
            let text = forwarded.response.body_mut().peek(REFUSAL_BYTES).await;
            // One that breaks off says nothing, and a sender drops what it takes for refused.
            if text.map_or(true, |text| is_about_a_slow_upload(status, text, pace)) {
                return Err(Failure::UploadTimedOut);
            }
        }
        Ok(forwarded)
    }

    fn fleet(&self) -> Arc<Fleet> {
        let current = self.instances.current();
        let mut pooled = self.pooled.lock();
        if !Arc::ptr_eq(&current, &pooled) {
            self.pool.retain(|address| current.iter().any(|one| one.address == *address));
            *pooled = Arc::clone(&current);
        }
        current
    }

    fn inbound(
        &self,
        response: Response<Incoming>,
        lease: Lease,
        permit: Permit,
        id: &RequestId,
    ) -> Forwarded {
        let address = lease.slot.instance.address;
        let (mut parts, incoming) = response.into_parts();
        headers::for_client(&mut parts.headers, id);
        let body = ResponseBody::new(incoming, lease, permit.into_hold(), self.config.idle_timeout);
        Forwarded { response: Response::from_parts(parts, body), address }
    }

    /// Sends a request by a connection and waits for the head of its response.
    pub(super) async fn exchange(
        &self,
        lease: &mut Lease,
        request: Box<Request<RequestBody>>,
        sending: Option<&Arc<Sending>>,
    ) -> Exchanged {
        let begun = Instant::now();
        let send = lease.link.sender.try_send_request(*request);
        let Some(outcome) = self.before_deadline(send, begun, sending).await else {
            return Exchanged::Late;
        };
        match outcome {
            Ok(response) => Exchanged::Answered(response),
            Err(mut error) => match (error.take_message(), sending.and_then(|body| body.fault())) {
                (Some(unsent), _) => Exchanged::Unsent(Box::new(unsent)),
                (None, Some(fault)) => Exchanged::BodyFault(fault),
                (None, None) => Exchanged::Broken(error.into_error(), begun.elapsed()),
            },
        }
    }

    /// Waits for the head of a response, for a while counted from the last sign of life: while a
    /// client is still sending, Mimir is not late.
    async fn before_deadline<T>(
        &self,
        send: impl Future<Output = T>,
        begun: Instant,
        sending: Option<&Arc<Sending>>,
    ) -> Option<T> {
        let mut send = pin!(send);
        let mut timer = pin!(sleep_until(begun + self.config.response_timeout));
        loop {
            tokio::select! {
                biased;
                outcome = &mut send => return Some(outcome),
                () = &mut timer => {
                    let last_sign = sending.map_or(begun, |body| body.last_piece().max(begun));
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
