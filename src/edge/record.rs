//! What became of one request. It is filled in along the way and written once, when the request
//! ends however it ends: a record that is dropped unfinished tells of a client that went away.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Method, Uri, Version};
use tokio::time::Instant;

use super::access_log::AccessLog;
use super::request_id::RequestId;
use crate::authn::{Known, Principal};
use crate::authz::Grant;
use crate::route::{Route, Surface};
use crate::telemetry::Metrics;
use crate::tenancy::OrganisationId;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Mimir's answer was passed on.
    Forwarded,
    /// We answered ourselves.
    Answered,
    /// Refused on purpose, with the reason.
    Rejected(&'static str),
    /// Something broke, with the reason.
    Failed(&'static str),
    /// The client went away before the end.
    Cancelled,
}

/// The facts of one request, for the access log and the metrics. Nothing reads them to decide
/// anything.
pub struct Record {
    pub(super) id: RequestId,
    pub(super) started: Instant,
    pub(super) client: IpAddr,
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) version: Version,
    pub(super) route: Option<&'static Route>,
    pub(super) principal: Option<Arc<Principal>>,
    /// Whose credential was refused, if that is certain.
    pub(super) refused: Option<Known>,
    /// The organisation that a request names in `X-Scope-OrgID` and that was not granted.
    pub(super) asked: Option<String>,
    pub(super) grant: Option<Grant>,
    /// The organisation that an administrator's request is about.
    pub(super) organisation: Option<OrganisationId>,
    pub(super) upstream: Option<SocketAddr>,
    pub(super) upstream_head: Option<Duration>,
    pub(super) status: u16,
    pub(super) outcome: Outcome,
    /// What was found inside, for the log only.
    pub(super) detail: Option<String>,
    pub(super) sent: u64,
    received: Option<Arc<AtomicU64>>,
    log: Option<AccessLog>,
    metrics: Arc<Metrics>,
}

impl Record {
    /// Begins the record of a request.
    pub fn begin<B>(
        request: &http::Request<B>,
        id: RequestId,
        client: IpAddr,
        log: Option<AccessLog>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            id,
            started: Instant::now(),
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
            outcome: Outcome::Cancelled,
            detail: None,
            sent: 0,
            received: None,
            log,
            metrics,
        }
    }

    /// What is asked.
    pub fn set_route(&mut self, route: &'static Route) {
        self.route = Some(route);
    }

    /// Who asks.
    pub fn set_principal(&mut self, principal: &Arc<Principal>) {
        self.principal = Some(Arc::clone(principal));
    }

    /// Whose credential was refused.
    pub fn set_refused(&mut self, known: Option<Known>) {
        self.refused = known;
    }

    /// Which organisation was asked for and not granted.
    pub fn set_asked(&mut self, asked: Option<String>) {
        self.asked = asked;
    }

    /// Which organisation an administrator's request is about, whether they may or not.
    pub fn set_organisation(&mut self, organisation: &OrganisationId) {
        self.organisation = Some(organisation.clone());
    }

    /// What was granted.
    pub fn set_grant(&mut self, grant: &Grant) {
        self.grant = Some(grant.clone());
    }

    /// Where the bytes of the request's body are counted, if there is one.
    pub fn set_received(&mut self, counter: Option<Arc<AtomicU64>>) {
        self.received = counter;
    }

    /// Which instance answered.
    pub fn set_upstream(&mut self, address: SocketAddr) {
        self.upstream = Some(address);
        self.upstream_head = Some(self.started.elapsed());
    }

    /// The status that the client sees. The outcome is settled when the body ends.
    pub fn set_status(&mut self, status: u16) {
        self.status = status;
    }

    /// What happened inside, for the log only.
    pub fn set_detail(&mut self, detail: String) {
        self.detail = Some(detail);
    }

    /// How the request ended.
    pub fn set_outcome(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }

    pub(super) fn add_sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    pub(super) fn received_bytes(&self) -> u64 {
        self.received.as_ref().map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    fn count(&self, took: Duration) {
        let surface = self.route.map(|route| surface_index(route.surface));
        match self.outcome {
            Outcome::Forwarded => self.metrics.forwarded(surface, self.status),
            Outcome::Answered => self.metrics.answered(surface),
            Outcome::Rejected(reason) => self.metrics.rejected(surface, reason),
            Outcome::Failed(reason) => self.metrics.failed(surface, reason),
            Outcome::Cancelled => self.metrics.cancelled(surface),
        }
        self.metrics.finished(surface, took.as_secs_f64(), self.received_bytes(), self.sent);
    }
}

/// The index of a surface among the metrics.
fn surface_index(surface: Surface) -> usize {
    surface as usize
}

impl Drop for Record {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        self.count(took);
        if let Some(log) = self.log.take() {
            log.write(self, took);
        }
    }
}
