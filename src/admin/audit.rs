//! The audit log: one line for every request to `/admin`, with what became of it, and for each request
//! that creates, changes or expires a silence. Requests that concern the caller alone have none.

use std::net::IpAddr;
use std::sync::Arc;

use http::Method;

use crate::authn::Principal;
use crate::edge::RequestId;
use crate::reason::Reason;
use crate::route::{Access, AdminEndpoint, Route, Surface};
use crate::tenancy::OrganisationId;

/// A request to `/admin`, or one that changes a silence. Its line is written when it is dropped, so that a request that is cancelled
/// has one, too.
pub struct Action {
    id: RequestId,
    client: IpAddr,
    principal: Arc<Principal>,
    method: Method,
    route: &'static Route,
    organisation: Option<OrganisationId>,
    target: Option<String>,
    ends_at: Option<String>,
    outcome: &'static str,
}

impl Action {
    /// Begins a request whose caller is known.
    pub fn begin(
        id: &RequestId,
        client: IpAddr,
        principal: &Arc<Principal>,
        method: &Method,
        route: &'static Route,
        organisation: Option<OrganisationId>,
    ) -> Self {
        Self {
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
        }
    }

    /// It was done; `target` is what it acted on.
    pub fn done(&mut self, target: Option<String>) {
        self.target = target;
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
    }
}

impl Action {
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
