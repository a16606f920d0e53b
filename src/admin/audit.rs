//! One line for every administrator's request: done, refused, or left alone by a client that went
//! away while it was done. What only asks who the caller is has none.

use std::net::IpAddr;
use std::sync::Arc;

use http::Method;

use crate::authn::Principal;
use crate::edge::RequestId;
use crate::reason::Reason;
use crate::route::{Access, Route};
use crate::tenancy::OrganisationId;

/// What somebody does. Its line is written when it is dropped, however it ends.
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
    /// Somebody is about to do something.
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
            // What was sent to the database goes on without the client: it may have been done.
            outcome: "client_gone",
        }
    }

    /// It was done, on this.
    pub fn done(&mut self, target: Option<String>) {
        self.target = target;
        self.outcome = "done";
    }

    /// It was not done, for this reason.
    pub fn refused(&mut self, reason: Reason) {
        self.outcome = reason.name();
    }
}

impl Drop for Action {
    /// Writes the line. Its target is `audit`, which the log shows whatever its filter is.
    fn drop(&mut self) {
        if self.route.access == Access::AnyPrincipal {
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
