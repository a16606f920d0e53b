//! One line for every administrator's request, done or refused.

use std::net::IpAddr;

use http::Method;

use crate::authn::Principal;
use crate::edge::RequestId;
use crate::route::Route;
use crate::tenancy::OrganisationId;

/// What somebody did, or was refused.
pub struct Action<'a> {
    /// The request.
    pub id: &'a RequestId,
    /// From where.
    pub client: IpAddr,
    /// Who.
    pub principal: &'a Principal,
    /// How.
    pub method: &'a Method,
    /// What.
    pub route: &'static Route,
    /// In which organisation.
    pub organisation: Option<&'a OrganisationId>,
    /// On what.
    pub target: Option<&'a str>,
    /// What came of it: `done`, or the reason of the refusal.
    pub outcome: &'a str,
}

/// Writes the line. Its target is `audit`, which the log shows whatever its filter is.
pub fn audit(action: &Action<'_>) {
    let what = format!("{} {}", action.method, action.route.path);
    tracing::event!(
        target: "audit",
        tracing::Level::INFO,
        request.id = action.id.as_str(),
        client.ip = %action.client,
        principal.kind = action.principal.kind(),
        principal.id = %action.principal.id(),
        action = what,
        organisation.id = action.organisation.map(OrganisationId::as_str),
        target.id = action.target,
        outcome = action.outcome,
        "Admin action"
    );
}
