//! The record of one request: what every stage has found out, and, when the request ends, one line
//! in the access log and the metrics.
//!
//! Stands beside the [`pipeline`](crate::pipeline), which fills it in, and knows what the stages
//! mint; no stage knows it. Nothing reads it to decide anything. It is written when it is dropped,
//! so that a request that ends in any way has its line: an unfinished record is that of a client
//! that went away.

mod access_log;
mod facts;
mod fields;
mod observed_body;
mod sampling;
mod spans;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::authn::{Known, Principal};
use crate::authz::Grant;
use crate::clock::Clock;
use crate::edge::RequestId;
use crate::reason::Reason;
use crate::refusals::{Refusal, Refusals};
use crate::request_body::ReceivedBytes;
use crate::route::Route;
use crate::telemetry::Metrics;
use crate::tenancy::OrganisationId;
use crate::trace::Span;
pub use access_log::AccessLog;
use facts::Facts;
pub use facts::RequestOutcome;
pub use fields::{FIELDS, Field};
pub use observed_body::ObservedBody;

/// The facts of one request, and where they go.
pub struct Record {
    facts: Facts,
    started: Instant,
    outlets: Arc<Outlets>,
    /// Of the whole request.
    span: Span,
    /// From the head of the response to its end.
    answer: Span,
}

/// Where records go. One for the process.
pub struct Outlets {
    /// None where the access log is off.
    pub log: Option<AccessLog>,
    pub metrics: Arc<Metrics>,
    pub refusals: Arc<Refusals>,
    pub clock: Clock,
}

impl Record {
    /// Begins the record of a request.
    pub fn begin<B>(
        request: &http::Request<B>,
        id: RequestId,
        client: IpAddr,
        outlets: Arc<Outlets>,
        span: Span,
    ) -> Self {
        let facts = Facts {
            id,
            client,
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            route: None,
            principal: None,
            refused: None,
            asked: None,
            grant: None,
            organisation: None,
            upstream: None,
            upstream_head: None,
            status: 0,
            outcome: RequestOutcome::Cancelled,
            detail: None,
            sent: 0,
            received: None,
            trace: span.trace(),
        };
        Self { facts, started: Instant::now(), outlets, span, answer: Span::none() }
    }

    /// The span of the whole request.
    pub fn span(&self) -> &Span {
        &self.span
    }

    pub fn set_route(&mut self, route: &'static Route) {
        self.facts.route = Some(route);
    }

    pub fn route(&self) -> Option<&'static Route> {
        self.facts.route
    }

    pub fn path(&self) -> &str {
        self.facts.uri.path()
    }

    pub fn set_principal(&mut self, principal: &Arc<Principal>) {
        self.facts.principal = Some(Arc::clone(principal));
    }

    /// Whose credential was refused.
    pub fn set_refused(&mut self, known: Option<Known>) {
        self.facts.refused = known;
    }

    /// Which organisation was asked for and not granted.
    pub fn set_asked(&mut self, asked: Option<String>) {
        self.facts.asked = asked;
    }

    /// Which organisation an administrator's request is about, whether it is allowed or not.
    pub fn set_organisation(&mut self, organisation: &OrganisationId) {
        self.facts.organisation = Some(organisation.clone());
    }

    pub fn set_grant(&mut self, grant: &Grant) {
        self.facts.grant = Some(grant.clone());
    }

    /// Where the bytes of the request's body are counted, if there is one.
    pub fn set_received(&mut self, received: Option<ReceivedBytes>) {
        self.facts.received = received;
    }

    /// Which instance answered, just now.
    pub fn set_upstream(&mut self, address: SocketAddr) {
        self.answer = self.span.child("send answer");
        self.facts.upstream = Some(address);
        self.facts.upstream_head = Some(self.started.elapsed());
    }

    /// Which instance was asked and gave no answer that was forwarded.
    pub fn set_asked_instance(&mut self, address: Option<SocketAddr>) {
        self.facts.upstream = address;
    }

    /// The status that the client sees. The outcome is known when the body ends.
    pub fn set_status(&mut self, status: u16) {
        self.facts.status = status;
    }

    /// What the log says beyond the reason.
    pub fn set_detail(&mut self, detail: String) {
        self.facts.detail = Some(detail);
    }

    pub fn set_outcome(&mut self, outcome: RequestOutcome) {
        self.facts.outcome = outcome;
    }

    fn add_sent(&mut self, bytes: usize) {
        self.facts.sent += bytes as u64;
    }

    fn count(&self, took: Duration) {
        let Facts { route, outcome, status, sent, .. } = &self.facts;
        let (surface, metrics) = (route.map(|route| route.surface), &self.outlets.metrics);
        match *outcome {
            RequestOutcome::Forwarded => metrics.forwarded(surface, *status),
            RequestOutcome::Answered => metrics.answered(surface),
            RequestOutcome::Unserved(reason) => metrics.unserved(surface, reason),
            RequestOutcome::Cancelled => metrics.cancelled(surface),
        }
        let received = self.facts.received_bytes();
        metrics.finished(surface, took.as_secs_f64(), received, *sent);
    }

    /// Rare beside requests that are served, and so kept out of their code.
    #[cold]
    fn keep_refusal(&self, reason: Reason) {
        let facts = &self.facts;
        self.outlets.refusals.add(Refusal {
            at: self.outlets.clock.utc(),
            request_id: facts.id.as_str().to_owned(),
            status: facts.status,
            reason,
            surface: facts.route.map(|route| route.surface.name()),
            organisation: facts.organisations(),
            asked: facts.asked.clone(),
            method: facts.method.as_str().to_owned(),
            path: facts.uri.path().to_owned(),
            client: facts.client,
            principal: facts.caller().map(|(kind, id)| (kind, id.to_string())),
            detail: facts.detail.clone(),
        });
    }

    #[cold]
    fn end_trace(&mut self, trace: u128, took: Duration) {
        self.answer = Span::none();
        let surface = self.facts.route.map(|route| route.surface);
        let now = self.outlets.clock.now();
        self.outlets.metrics.exemplar(surface, trace, took.as_secs_f64(), now);
        spans::describe(&mut self.span, &self.facts);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        self.count(took);
        if let Some(reason) = self.facts.outcome.reason() {
            self.keep_refusal(reason);
        }
        if let Some(trace) = self.facts.trace {
            self.end_trace(trace, took);
        }
        let Some(log) = &self.outlets.log else { return };
        if let Err(kind) = log.write(&self.facts, took) {
            self.outlets.metrics.log_line_suppressed(kind);
        }
    }
}
