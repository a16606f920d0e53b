//! One request's way to an answer: which instance, and what next when one fails.

use std::io;
use std::sync::Arc;

use http::request::Parts;
use http::{Request, Response, Uri, Version, header};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::choice::{Bounds, Chance, Chosen, NoChoice, Tried, choose};
use super::exchange::{Exchanged, Forwarder};
use super::failure::{Failure, is_ours};
use super::headers;
use super::health::Evidence;
use super::instance::Slot;
use super::instances::Fleet;
use super::pool::{Choosiness, Lease};
use super::repeat::{Broken, Next, Repeats, is_repeatable, is_stale, next};
use super::request_body::{RequestBody, Sending};
use super::testimony::Witness;
use super::verdict::{Pace, Verdict, judge};
use crate::authz::Grant;
use crate::edge::RequestId;

/// What is done with requests that failed.
pub(super) const RETRIES: [&str; 4] = ["unreachable", "stale", "broken", "unwilling"];
/// Why nothing is done.
pub(super) const REFUSALS: [&str; 4] = ["unsafe", "repeated", "budget", "nobody"];

/// Kept connections that one request finds closed before it takes a new one.
const MAX_RESENDS: usize = 3;

/// One request on its way.
pub(super) struct Journey<'a> {
    forwarder: &'a Forwarder,
    grant: &'a Grant,
    id: &'a RequestId,
    /// The client's own head, from which ours can be made once more.
    head: Parts,
    sending: Option<Arc<Sending>>,
    fleet: Arc<Fleet>,
    tried: Tried,
    repeats: Repeats,
    choosiness: Choosiness,
}

/// How sending to one instance ended.
enum Sent {
    Answered(Response<Incoming>, Lease, Verdict),
    /// Not a byte of the request was sent.
    Unsent(io::Error, Box<Request<RequestBody>>),
    Broken(Broken, hyper::Error),
    Failed(Failure),
}

impl<'a> Journey<'a> {
    /// A request to the tenant of a grant, and its body, which is kept if it may be needed again.
    pub(super) fn new(
        forwarder: &'a Forwarder,
        fleet: Arc<Fleet>,
        grant: &'a Grant,
        id: &'a RequestId,
        request: Request<RequestBody>,
    ) -> (Self, RequestBody) {
        let (head, body) = request.into_parts();
        let sending = body.sending();
        let repeatable = is_repeatable(grant.route());
        let (limit, allowance) = (forwarder.config.retry.buffer_bytes, &forwarder.allowance);
        let keeps = |sending: &Arc<Sending>| repeatable && sending.keep(limit, allowance);
        let choosiness =
            if sending.as_ref().is_none_or(keeps) { Choosiness::Any } else { Choosiness::Recent };
        let (tried, repeats) = Default::default();
        let journey =
            Self { forwarder, grant, id, head, sending, fleet, tried, repeats, choosiness };
        (journey, body)
    }

    /// Goes until there is an answer to pass on, or none to be had.
    pub(super) async fn go(
        mut self,
        body: RequestBody,
    ) -> Result<(Response<Incoming>, Lease), Failure> {
        let mut slot = self.enter()?;
        let mut request = self.outbound(body);
        loop {
            (slot, request) = match self.send(slot, request).await {
                Sent::Answered(answer, lease, verdict) => {
                    let unwilling = verdict == Verdict::Unwilling;
                    match unwilling.then(|| self.move_on(Broken::Unwilling)).flatten() {
                        Some(elsewhere) => elsewhere,
                        None => return Ok((answer, lease)),
                    }
                }
                Sent::Unsent(error, unsent) => match self.enter() {
                    Ok(slot) => {
                        self.forwarder.metrics.upstream_retried("unreachable");
                        // It was sent before to one that is gone now, and may be why.
                        self.repeats.moved |= self.repeats.renewed;
                        (slot, unsent)
                    }
                    Err(_) => return Err(Failure::Connect(error)),
                },
                Sent::Broken(how, error) => match self.move_on(how) {
                    Some(elsewhere) => elsewhere,
                    None => return Err(Failure::Broken(error)),
                },
                Sent::Failed(failure) => return Err(failure),
            }
        }
    }

    /// A place at an instance that has not been tried.
    fn enter(&mut self) -> Result<Slot, Failure> {
        let health = &self.forwarder.config.health;
        let bounds =
            Bounds { max_in_flight: health.max_in_flight, panic_percent: health.panic_percent };
        let witness = Witness::of(self.grant.organisations());
        // A trial can be lost to another worker.
        for _ in 0..2 {
            let view = |at: usize| self.fleet[at].candidate();
            let chosen = choose(self.fleet.len(), view, &self.tried, bounds, &mut Random);
            let (at, slot) = match chosen {
                Ok(Chosen::Normal(at)) => (at, self.fleet[at].enter(witness, false)),
                Ok(Chosen::Trial(at)) => (at, self.fleet[at].enter(witness, true)),
                Err(NoChoice::Nobody) => return Err(Failure::NoInstance),
                Err(NoChoice::Full) => return Err(Failure::Saturated),
                Err(NoChoice::Open) => return Err(Failure::CircuitOpen),
            };
            if let Some(slot) = slot {
                self.tried.add(at);
                return Ok(slot);
            }
        }
        Err(Failure::CircuitOpen)
    }

    /// The request once more, for another instance, if that is safe and there is one.
    fn move_on(&mut self, how: Broken) -> Option<(Slot, Box<Request<RequestBody>>)> {
        let metrics = &self.forwarder.metrics;
        self.repeats.possible = self.is_possible();
        if next(how, self.repeats) == Next::GiveUp {
            let reason = if self.repeats.possible { "repeated" } else { "unsafe" };
            metrics.upstream_retry_refused(reason);
            return None;
        }
        let Ok(slot) = self.enter() else {
            metrics.upstream_retry_refused("nobody");
            return None;
        };
        if !self.forwarder.budget.lock().withdraw(Instant::now()) {
            metrics.upstream_retry_refused("budget");
            return None;
        }
        let request = self.again()?;
        self.repeats.moved = true;
        metrics.upstream_retried(if how == Broken::Unwilling { "unwilling" } else { "broken" });
        Some((slot, request))
    }

    fn is_possible(&self) -> bool {
        is_repeatable(self.grant.route())
            && self.sending.as_ref().is_none_or(|sending| sending.is_kept())
    }

    fn again(&self) -> Option<Box<Request<RequestBody>>> {
        let body = match &self.sending {
            None => RequestBody::empty(),
            Some(sending) => sending.again()?,
        };
        Some(self.outbound(body))
    }

    fn outbound(&self, body: RequestBody) -> Box<Request<RequestBody>> {
        let mut request = Box::new(Request::new(body));
        *request.method_mut() = self.head.method.clone();
        *request.version_mut() = Version::HTTP_11;
        let uri = &self.head.uri;
        // The target of HTTP/2 carries scheme and authority; Mimir gets the path and the query.
        *request.uri_mut() = if uri.scheme().is_some() {
            uri.path_and_query().cloned().map(Uri::from).unwrap_or_default()
        } else {
            uri.clone()
        };
        let (pass, tenants) = (&self.forwarder.config.pass_headers, self.grant.tenants());
        *request.headers_mut() = headers::for_upstream(&self.head.headers, pass, self.id, tenants);
        request
    }

    /// Sends to one instance, by a kept connection or a new one.
    async fn send(&mut self, mut slot: Slot, mut request: Box<Request<RequestBody>>) -> Sent {
        let forwarder = self.forwarder;
        let (mut choosiness, mut resends) = (self.choosiness, 0);
        request.headers_mut().insert(header::HOST, slot.instance.authority.clone());
        loop {
            let sending = self.sending.as_ref();
            let mut lease = match forwarder.pool.take(slot, sending.cloned(), choosiness).await {
                Ok(lease) => lease,
                Err((error, slot)) => {
                    if !is_ours(&error) {
                        slot.failed(Evidence::Unreachable);
                    }
                    return Sent::Unsent(error, request);
                }
            };
            match forwarder.exchange(&mut lease, request, sending).await {
                Exchanged::Answered(answer) => return self.judge(answer, lease),
                Exchanged::Unsent(unsent) if lease.was_kept => {
                    forwarder.metrics.upstream_resends.increment(1);
                    resends += 1;
                    if resends >= MAX_RESENDS {
                        choosiness = Choosiness::New;
                    }
                    (slot, request) = (lease.slot, unsent);
                }
                Exchanged::Unsent(unsent) => {
                    lease.slot.failed(Evidence::Broken);
                    return Sent::Unsent(io::ErrorKind::ConnectionReset.into(), unsent);
                }
                Exchanged::Broken(error, after) => {
                    // What came was no HTTP: the connection had not been closed before.
                    let was_closed = lease.was_kept && !error.is_parse();
                    let how = if was_closed { Broken::OnKept(after) } else { Broken::OnNew };
                    if !is_stale(how) {
                        // Whoever waits for the rest of a body gives up on the connection at last.
                        if sending.is_none_or(|sending| sending.pace() != Pace::Awaited) {
                            lease.slot.failed(Evidence::Broken);
                        }
                        return Sent::Broken(how, error);
                    }
                    forwarder.pool.discard(lease.slot.instance.address);
                    self.repeats.possible = self.is_possible();
                    let renewed = next(how, self.repeats) == Next::Renew;
                    let Some(mut anew) = renewed.then(|| self.again()).flatten() else {
                        return Sent::Broken(how, error);
                    };
                    self.repeats.renewed = true;
                    forwarder.metrics.upstream_retried("stale");
                    let authority = lease.slot.instance.authority.clone();
                    anew.headers_mut().insert(header::HOST, authority);
                    choosiness = Choosiness::New;
                    (slot, request) = (lease.slot, anew);
                }
                Exchanged::Late => {
                    lease.slot.failed(Evidence::Timeout);
                    return Sent::Failed(Failure::Timeout);
                }
                Exchanged::BodyFault(fault) => return Sent::Failed(Failure::Body(fault)),
            }
        }
    }

    fn judge(&self, answer: Response<Incoming>, mut lease: Lease) -> Sent {
        let surface = self.grant.route().surface;
        let verdict = judge(surface, answer.status().as_u16(), answer.headers());
        lease.slot.end_trial();
        lease.slot.instance.answered();
        lease.is_good = verdict == Verdict::Good;
        if matches!(verdict, Verdict::Faulty | Verdict::Unwilling) {
            lease.slot.failed(Evidence::ServerError);
        }
        Sent::Answered(answer, lease, verdict)
    }
}

/// Chance as it is outside of tests.
struct Random;

impl Chance for Random {
    fn below(&mut self, bound: usize) -> usize {
        fastrand::usize(..bound)
    }

    fn fraction(&mut self) -> f64 {
        fastrand::f64()
    }
}
