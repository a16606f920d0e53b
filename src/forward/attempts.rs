//! The attempts of one request: which instance gets it, and what happens when one fails.

use parking_lot::Mutex;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use tokio::time::{Instant, timeout};

use super::budget::Budget;
use super::choice::{Bounds, Chance, Chosen, NoChoice, Tried, choose};
use super::error::{ForwardError, is_ours};
use super::evidence::Requester;
use super::exchange::{Exchanged, exchange};
use super::headers::{self, Head};
use super::instance::InstanceSlot;
use super::instances::InstanceList;
use super::pool::{Freshness, Pool, PooledConnection};
use super::repeat::{Next, Repeats, SendFailure, is_stale, next};
use super::verdict::{
    InstanceVerdict, REFUSAL_BYTES, is_about_a_lost_part, is_about_own_reads, is_about_parameters,
    judge, may_be_about_a_lost_part,
};
use super::wire::WireFault;
use crate::authz::Grant;
use crate::config::UpstreamConfig;
use crate::edge::RequestId;
use crate::labels::{InstanceFault, NoResend, Resend};
use crate::reason::{HasReason as _, Reason};
use crate::request_body::{Pace, ReplayAllowance, RequestBody, Transfer};
use crate::route::Surface;
use crate::telemetry::Metrics;
use crate::trace::Span;

/// How many kept connections one request may find closed before it opens a new one.
const MAX_RESENDS: usize = 3;

/// A connection that breaks after a fifth of `upstream.response_timeout` counts as late (docs/decisions/0010), which by
/// default is after 30 s: Mimir's write timeout, which may be why, is two minutes by default and may be shorter.
const LATE_DIVISOR: u32 = 5;

/// What all requests of a worker share.
pub(super) struct Upstream {
    pub(super) pool: Arc<Pool>,
    pub(super) budget: Mutex<Budget>,
    pub(super) allowance: Arc<ReplayAllowance>,
    pub(super) config: UpstreamConfig,
    pub(super) metrics: Arc<Metrics>,
}

pub(super) struct Attempts<'a> {
    upstream: &'a Upstream,
    grant: &'a Grant,
    id: &'a RequestId,
    /// Of the whole request.
    span: &'a Span,
    /// The client's head, from which each attempt builds the one for Mimir.
    head: Parts,
    transfer: Option<Arc<Transfer>>,
    instances: Arc<InstanceList>,
    tried: Tried,
    last: Option<SocketAddr>,
    repeats: Repeats,
    freshness: Freshness,
}

/// An instance's response.
pub(super) struct Answer {
    pub(super) response: Response<()>,
    /// The part of the body that was already read.
    pub(super) first: Option<Bytes>,
}

/// How sending to one instance ended.
enum Sent {
    Answered(Answer, PooledConnection, InstanceVerdict),
    /// Nothing of the request was sent.
    Unsent(io::Error, RequestBody),
    Broken(SendFailure, WireFault),
    Failed(ForwardError),
}

impl<'a> Attempts<'a> {
    /// For a request to the tenants of a grant. The body is kept if it may have to be sent again.
    pub(super) fn new(
        upstream: &'a Upstream,
        instances: Arc<InstanceList>,
        grant: &'a Grant,
        (id, span): (&'a RequestId, &'a Span),
        request: Request<RequestBody>,
    ) -> (Self, RequestBody) {
        let (head, body) = request.into_parts();
        let transfer = body.transfer();
        let repeatable = grant.route().is_repeatable();
        let (limit, allowance) = (upstream.config.retry.buffer_bytes, &upstream.allowance);
        let keeps = |transfer: &Arc<Transfer>| transfer.keep(limit, allowance);
        let can_repeat = repeatable && transfer.as_ref().is_none_or(keeps);
        let freshness = if can_repeat { Freshness::Any } else { Freshness::Recent };
        let (tried, repeats) = Default::default();
        let attempts = Self {
            upstream,
            grant,
            id,
            span,
            head,
            transfer,
            instances,
            tried,
            last: None,
            repeats,
            freshness,
        };
        (attempts, body)
    }

    /// The instance of the last attempt.
    pub(super) fn last_instance(&self) -> Option<SocketAddr> {
        self.last
    }

    /// Runs until there is a response to forward, or no attempt is left.
    pub(super) async fn run(
        &mut self,
        mut body: RequestBody,
    ) -> Result<(Answer, PooledConnection), ForwardError> {
        let mut slot = self.enter()?;
        loop {
            let mut attempt = self.begin_attempt(&slot);
            let sent = self.send(slot, body, &attempt).await;
            sent.describe(&mut attempt);
            drop(attempt);
            (slot, body) = match sent {
                // Forwarded whatever its status, unless another instance may do better.
                Sent::Answered(answer, connection, verdict) => {
                    let is_severed = verdict == InstanceVerdict::Severed;
                    let moves = is_severed || verdict == InstanceVerdict::Unavailable;
                    match moves.then(|| self.move_on(SendFailure::Unavailable)).flatten() {
                        Some(elsewhere) => elsewhere,
                        None if is_severed => {
                            return Err(ForwardError::Severed(answer.first.unwrap_or_default()));
                        }
                        None => return Ok((answer, connection)),
                    }
                }
                // Nothing was done: another instance may be tried at no cost to the budget.
                Sent::Unsent(error, unsent) => match self.enter() {
                    Ok(slot) => {
                        self.upstream.metrics.upstream_resent(Resend::Unreachable);
                        // It was sent before, to an instance that is gone now, perhaps because of
                        // it.
                        self.repeats.moved |= self.repeats.renewed;
                        (slot, unsent)
                    }
                    Err(_) => return Err(ForwardError::Connect(error)),
                },
                // The instance may have done it.
                Sent::Broken(how, error) => match self.move_on(how) {
                    Some(elsewhere) => elsewhere,
                    None => return Err(ForwardError::Broken(error)),
                },
                Sent::Failed(error) => return Err(error),
            }
        }
    }

    /// The span of an attempt, which Mimir's own goes below.
    fn begin_attempt(&self, slot: &InstanceSlot) -> Span {
        let mut attempt = self.span.client("attempt");
        if attempt.is_recording() {
            let method = self.head.method.as_str().to_owned();
            let address = slot.instance.address;
            attempt.rename(|| format!("{method} {}", self.grant.route().path));
            attempt.set("http.request.method", method);
            attempt.set("server.address", address.ip().to_string());
            attempt.set("server.port", address.port());
            attempt.set("url.path", self.head.uri.path().to_owned());
            let resends = self.tried.count().saturating_sub(1);
            if let (true, Ok(resends)) = (resends > 0, i64::try_from(resends)) {
                attempt.set("http.request.resend_count", resends);
            }
        }
        attempt
    }

    /// A slot at an instance that was not tried yet.
    fn enter(&mut self) -> Result<InstanceSlot, ForwardError> {
        let health = &self.upstream.config.health;
        let bounds =
            Bounds { max_in_flight: health.max_in_flight, panic_percent: health.panic_percent };
        let requester = Requester::of(self.grant.organisations());
        // Another worker may be first to start a trial.
        for _ in 0..2 {
            let view = |at: usize| self.instances[at].candidate();
            let chosen = choose(self.instances.len(), view, &self.tried, bounds, &mut Random);
            let (at, slot) = match chosen {
                Ok(Chosen::Normal(at)) => (at, self.instances[at].enter(requester, false)),
                Ok(Chosen::Trial(at)) => (at, self.instances[at].enter(requester, true)),
                Err(NoChoice::None) => return Err(ForwardError::NoInstance),
                Err(NoChoice::Full) => return Err(ForwardError::Saturated),
                Err(NoChoice::Open) => return Err(ForwardError::CircuitOpen),
            };
            if let Some(slot) = slot {
                self.tried.add(at);
                return Ok(slot);
            }
        }
        Err(ForwardError::CircuitOpen)
    }

    /// The request's body for another instance, if a resend is safe and there is one.
    fn move_on(&mut self, how: SendFailure) -> Option<(InstanceSlot, RequestBody)> {
        let metrics = &self.upstream.metrics;
        self.repeats.possible = self.is_possible();
        if next(how, self.repeats) == Next::GiveUp {
            let reason = if self.repeats.possible { NoResend::Repeated } else { NoResend::Unsafe };
            metrics.upstream_not_resent(reason);
            return None;
        }
        let Ok(slot) = self.enter() else {
            metrics.upstream_not_resent(NoResend::NoInstance);
            return None;
        };
        if !self.upstream.budget.lock().withdraw(Instant::now()) {
            metrics.upstream_not_resent(NoResend::Budget);
            return None;
        }
        let body = self.again()?;
        self.repeats.moved = true;
        metrics.upstream_resent(match how {
            SendFailure::Unavailable => Resend::Unavailable,
            SendFailure::OnKept(_) | SendFailure::OnNew => Resend::Broken,
        });
        Some((slot, body))
    }

    fn is_possible(&self) -> bool {
        self.grant.route().is_repeatable()
            && self.transfer.as_ref().is_none_or(|transfer| transfer.is_kept())
    }

    /// The body from its first byte.
    fn again(&self) -> Option<RequestBody> {
        match &self.transfer {
            None => Some(RequestBody::empty()),
            Some(transfer) => transfer.again(),
        }
    }

    /// Writes the request's head to a connection, and hands the body to it.
    fn write_request(&self, connection: &mut PooledConnection, body: RequestBody, attempt: &Span) {
        let PooledConnection { wire, slot, .. } = connection;
        let head = Head {
            client: &self.head,
            pass: &self.upstream.config.pass_headers,
            id: self.id,
            tenants: self.grant.tenants(),
            host: &slot.instance.authority,
            // The proxy parses the answer.
            takes_encodings: !self.grant.route().answers_configuration(),
            attempt,
        };
        let trailers = || headers::announced_trailers(&self.head.headers);
        wire.begin(&self.head.method, |out| head.write(out), body, trailers);
    }

    /// Sends to one instance, on a kept connection or a new one.
    async fn send(
        &mut self,
        mut slot: InstanceSlot,
        mut body: RequestBody,
        attempt: &Span,
    ) -> Sent {
        let Upstream { pool, metrics, config, .. } = self.upstream;
        let (mut freshness, mut resends) = (self.freshness, 0);
        self.last = Some(slot.instance.address);
        loop {
            // Connect.
            let transfer = self.transfer.as_ref();
            let mut connection = match pool.take(slot, transfer.cloned(), freshness).await {
                Ok(connection) => connection,
                Err((error, slot)) => {
                    if !is_ours(&error) {
                        slot.failed(InstanceFault::Unreachable);
                    }
                    return Sent::Unsent(error, body);
                }
            };

            // Send, and wait for a head. Every arm that does not return tries the same instance
            // again on another connection.
            self.write_request(&mut connection, body, attempt);
            let (begun, timeout) = (Instant::now(), config.response_timeout);
            match exchange(&mut connection, transfer, begun, timeout).await {
                Exchanged::Answered(response) => {
                    let surface = self.grant.route().surface;
                    let verdict = judge(surface, response.status().as_u16(), response.headers());
                    let (status, headers) = (response.status().as_u16(), response.headers());
                    let is_alerts =
                        surface == Surface::Alerts && verdict == InstanceVerdict::Unavailable;
                    if is_alerts || may_be_about_a_lost_part(surface, status, headers) {
                        // Rare, and so kept out of the size of every other request's future.
                        return Box::pin(self.judge_by_text(response, connection, verdict)).await;
                    }
                    return Self::answered(Answer { response, first: None }, connection, verdict);
                }

                // Instances close kept connections at any time. If a new one is closed before
                // anything was sent, the instance is at fault.
                Exchanged::Unsent(unsent) if connection.is_reused => {
                    metrics.upstream_resends.increment(1);
                    resends += 1;
                    if resends >= MAX_RESENDS {
                        freshness = Freshness::New;
                    }
                    (slot, body) = (connection.slot, unsent);
                }
                Exchanged::Unsent(unsent) => {
                    connection.slot.failed(InstanceFault::Broken);
                    return Sent::Unsent(io::ErrorKind::ConnectionReset.into(), unsent);
                }

                // The request was sent. If the connection had been closed before it arrived, it is
                // sent to the same instance again on a new one.
                Exchanged::Broken(error, after) => {
                    if is_late(&error, transfer, begun, timeout) {
                        connection.slot.failed(InstanceFault::Timeout);
                        return Sent::Failed(ForwardError::Broken(error));
                    }
                    // The response was not HTTP: the connection had not been closed before.
                    let was_closed = connection.is_reused && !error.is_malformed();
                    let how =
                        if was_closed { SendFailure::OnKept(after) } else { SendFailure::OnNew };
                    if !is_stale(how) {
                        // An instance that waits for the rest of a body gives up in the end: the
                        // connection broke because of the client.
                        if transfer.is_none_or(|transfer| transfer.pace() != Pace::Awaited) {
                            connection.slot.failed(InstanceFault::Broken);
                        }
                        return Sent::Broken(how, error);
                    }
                    pool.discard(connection.slot.instance.id);
                    self.repeats.possible = self.is_possible();
                    let renews = next(how, self.repeats) == Next::Renew;
                    let Some(again) = renews.then(|| self.again()).flatten() else {
                        return Sent::Broken(how, error);
                    };
                    self.repeats.renewed = true;
                    metrics.upstream_resent(Resend::Stale);
                    freshness = Freshness::New;
                    (slot, body) = (connection.slot, again);
                }

                // The instance may still be doing it: nothing is sent again.
                Exchanged::Late => {
                    connection.slot.failed(InstanceFault::Timeout);
                    return Sent::Failed(ForwardError::Timeout);
                }
                Exchanged::BodyFailed(error) => return Sent::Failed(ForwardError::Body(error)),
            }
        }
    }

    /// Judges an answer by its text. A tenant's own limit and an instance that is not ready have the same
    /// head (a 503 of the Alertmanager), and so have a query that fails and one for which a part of Mimir
    /// was lost, and a remote read with a faulty matcher and an instance that fails. `by_head` is what is thought of it otherwise.
    async fn judge_by_text(
        &self,
        response: Response<()>,
        mut connection: PooledConnection,
        by_head: InstanceVerdict,
    ) -> Sent {
        let reading = read_beginning(&mut connection);
        match timeout(self.upstream.config.response_timeout, reading).await {
            Ok(Ok(text)) => {
                let is_alerts = self.grant.route().surface == Surface::Alerts;
                let is_severed = !is_alerts && is_about_a_lost_part(&text);
                let is_own =
                    if is_alerts { is_about_own_reads(&text) } else { is_about_parameters(&text) };
                let verdict = if is_own { InstanceVerdict::Neutral } else { by_head };
                let answer = Answer { response, first: Some(text) };
                match Self::answered(answer, connection, verdict) {
                    // Whether it counts against the instance is as it was: an instance that alone is cut
                    // off from the others is better not asked.
                    Sent::Answered(answer, connection, _) if is_severed => {
                        Sent::Answered(answer, connection, InstanceVerdict::Severed)
                    }
                    sent => sent,
                }
            }
            // The client did not complete its request.
            Ok(Err(WireFault::Upload(fault))) => Sent::Failed(ForwardError::Body(fault)),
            Ok(Err(error)) => {
                connection.slot.failed(InstanceFault::BrokenBody);
                Sent::Broken(SendFailure::OnNew, error)
            }
            Err(_) => {
                connection.slot.failed(InstanceFault::Timeout);
                Sent::Failed(ForwardError::Timeout)
            }
        }
    }

    /// An instance answered. Records what the answer says about it.
    fn answered(
        answer: Answer,
        mut connection: PooledConnection,
        verdict: InstanceVerdict,
    ) -> Sent {
        connection.slot.end_trial();
        connection.slot.instance.answered();
        connection.is_good = verdict == InstanceVerdict::Good;
        if matches!(verdict, InstanceVerdict::Faulty | InstanceVerdict::Unavailable) {
            connection.slot.failed(InstanceFault::ServerError);
        }
        Sent::Answered(answer, connection, verdict)
    }
}

impl Sent {
    /// Tells the attempt's span how it ended.
    fn describe(&self, attempt: &mut Span) {
        if !attempt.is_recording() {
            return;
        }
        match self {
            Self::Answered(answer, ..) => {
                let status = answer.response.status().as_u16();
                attempt.set("http.response.status_code", status);
                match status {
                    500.. => attempt.fail("5xx"),
                    400.. => attempt.fail("4xx"),
                    _ => {}
                }
            }
            Self::Unsent(..) => attempt.fail(Reason::UpstreamUnreachable.name()),
            Self::Broken(..) => attempt.fail(Reason::UpstreamBroken.name()),
            Self::Failed(error) => attempt.fail(error.reason().name()),
        }
    }
}

/// Whether a connection broke so long after its request had been sent that the request may be why: Go's server closes it
/// without an answer once `server.http-write-timeout` is over, and Mimir's own timeout of a query may be as long (both
/// are two minutes by default). Like one that is late, such a request is not sent again, and counts only together with
/// others'.
fn is_late(
    error: &WireFault,
    transfer: Option<&Arc<Transfer>>,
    begun: Instant,
    response_timeout: Duration,
) -> bool {
    // A machine that vanished acknowledges nothing, whatever it was asked.
    if error.is_malformed() || error.is_unacknowledged() {
        return false;
    }
    let (is_sent, sent_at) = transfer.map_or((true, begun), |transfer| {
        (transfer.is_complete(), transfer.last_piece().max(begun))
    });
    is_sent && sent_at.elapsed() >= response_timeout / LATE_DIVISOR
}

/// The beginning of a body.
async fn read_beginning(connection: &mut PooledConnection) -> Result<Bytes, WireFault> {
    let mut text = Vec::new();
    while text.len() < REFUSAL_BYTES
        && let Some(frame) = poll_fn(|cx| connection.wire.poll_body(cx)).await
    {
        if let Ok(data) = frame?.into_data() {
            text.extend_from_slice(&data);
        }
    }
    Ok(text.into())
}

/// Randomness outside of tests.
struct Random;

impl Chance for Random {
    fn below(&mut self, bound: usize) -> usize {
        fastrand::usize(..bound)
    }

    fn fraction(&mut self) -> f64 {
        fastrand::f64()
    }
}
