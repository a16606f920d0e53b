//! The audit log: one line for every request to `/admin`, with what became of it. Requests that concern
//! the caller alone have none.

use std::net::IpAddr;
use std::sync::Arc;

use http::Method;

use crate::authn::Principal;
use crate::edge::RequestId;
use crate::reason::Reason;
use crate::route::{Access, AdminEndpoint, Route};
use crate::tenancy::OrganisationId;

/// A request to `/admin`. Its line is written when it is dropped, so that a request that is cancelled
/// has one, too.
pub struct Action {
    id: RequestId,
    client: IpAddr,
    principal: Arc<Principal>,
    method: Method,
    route: &'static Route,
    organisation: Option<OrganisationId>,
    target: Option<String>,
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

    /// It was refused or failed.
    pub fn refused(&mut self, reason: Reason) {
        self.outcome = reason.name();
    }
}

impl Drop for Action {
    /// Writes the line. Its target is `audit`, which the log shows whatever its filter is.
    fn drop(&mut self) {
        if matches!(self.route.access, Access::Admin(AdminEndpoint::Caller(_))) {
            return;
        }
        let what = format!("{} {}", self.method, self.route.path);
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
