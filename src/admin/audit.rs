//! The audit log: one line for every request to `/admin`, with what became of it, and for each request
//! that creates, changes or expires a silence. Requests that concern the caller alone have none.
//!
//! What changes something always has its line. Of refused requests each reason has so many a second
//! ([`Audit`]): anybody with a token can make them by the thousand.

use std::array;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use http::Method;
use strum::EnumCount as _;

use crate::authn::Principal;
use crate::clock::Clock;
use crate::edge::RequestId;
use crate::per_second::PerSecond;
use crate::reason::Reason;
use crate::route::{Access, AdminEndpoint, Route, Surface};
use crate::tenancy::OrganisationId;

/// The audit log of all workers.
pub struct Audit {
    clock: Clock,
    /// Lines a second of refused requests, of each reason; 0 for all of them.
    refused_per_second: AtomicU32,
    refused: [PerSecond; Reason::COUNT],
}

/// A request to `/admin`, or one that changes a silence. Its line is written when it is dropped, so that a
/// request that is cancelled has one, too.
pub struct Action {
    audit: Arc<Audit>,
    id: RequestId,
    client: IpAddr,
    principal: Arc<Principal>,
    method: Method,
    route: &'static Route,
    organisation: Option<OrganisationId>,
    target: Option<String>,
    ends_at: Option<String>,
    outcome: &'static str,
    refused: Option<Reason>,
}

impl Audit {
    pub fn new(clock: Clock, refused_per_second: u32) -> Self {
        let refused_per_second = AtomicU32::new(refused_per_second);
        Self { clock, refused_per_second, refused: array::from_fn(|_| PerSecond::default()) }
    }

    /// Changes how many lines a second refused requests have.
    pub fn set_refused_per_second(&self, lines: u32) {
        self.refused_per_second.store(lines, Relaxed);
    }

    /// Begins a request whose caller is known.
    pub fn begin(
        self: &Arc<Self>,
        id: &RequestId,
        client: IpAddr,
        principal: &Arc<Principal>,
        method: &Method,
        route: &'static Route,
        organisation: Option<OrganisationId>,
    ) -> Action {
        Action {
            audit: Arc::clone(self),
            id: id.clone(),
            client,
            principal: Arc::clone(principal),
            method: method.clone(),
            route,
            organisation,
            target: None,
            ends_at: None,
            // Until it is set. What was sent to the database goes on without the client, so it may
            // have been done.
            outcome: "client_gone",
            refused: None,
        }
    }

    fn takes(&self, refused: Reason) -> bool {
        let most = self.refused_per_second.load(Relaxed);
        most == 0 || self.refused[refused as usize].take(self.clock.now().as_secs(), most)
    }
}

impl Action {
    /// What its path names. A request may be done although its client has gone, and its line must say to what.
    pub fn set_target(&mut self, target: Option<String>) {
        self.target = target;
    }

    /// It was done; `target` is what it acted on, if the path does not say.
    pub fn done(&mut self, target: Option<String>) {
        self.target = target.or(self.target.take());
        self.outcome = "done";
    }

    /// When a silence ends.
    pub fn set_end(&mut self, ends_at: Option<String>) {
        self.ends_at = ends_at;
    }

    /// Mimir refused it.
    pub fn refused_by_mimir(&mut self) {
        self.outcome = "refused_by_mimir";
    }

    /// It was refused or failed.
    pub fn refused(&mut self, reason: Reason) {
        self.outcome = reason.name();
        self.refused = Some(reason);
    }

    fn write_silence(&self, what: &str) {
        tracing::event!(
            target: "audit",
            tracing::Level::INFO,
            request.id = self.id.as_str(),
            client.ip = %self.client,
            principal.kind = self.principal.kind(),
            principal.id = %self.principal.id(),
            action = what,
            organisation.id = self.organisation.as_ref().map(OrganisationId::as_str),
            target.id = self.target.as_deref(),
            silence.ends_at = self.ends_at.as_deref(),
            outcome = self.outcome,
            "Silence"
        );
    }
}

impl Drop for Action {
    /// Writes the line. Its target is `audit`, which the log shows whatever its filter is.
    fn drop(&mut self) {
        if matches!(self.route.access, Access::Admin(AdminEndpoint::Caller(_))) {
            return;
        }
        if self.refused.is_some_and(|reason| !self.audit.takes(reason)) {
            return;
        }
        let what = format!("{} {}", self.method, self.route.path);
        if self.route.surface == Surface::Alerts {
            return self.write_silence(&what);
        }
        tracing::event!(
            target: "audit",
            tracing::Level::INFO,
            request.id = self.id.as_str(),
            client.ip = %self.client,
            principal.kind = self.principal.kind(),
            principal.id = %self.principal.id(),
            action = what,
            organisation.id = self.organisation.as_ref().map(OrganisationId::as_str),
            target.id = self.target.as_deref(),
            outcome = self.outcome,
            "Admin action"
        );
    }
}
