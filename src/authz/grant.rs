//! Grants: proof that a caller may do what it asks.
//!
//! Their fields are private to `authz`, so nothing else can make one. A [`Grant`] is for telemetry:
//! without one nothing can be forwarded. The others are for `/admin`, one type for each kind of
//! endpoint, and each handler takes the one that it needs: an operator's handler cannot be called
//! with an organisation's grant.

use std::sync::Arc;

use crate::authn::Principal;
use crate::route::{
    CallerEndpoint, OperatorEndpoint, OrganisationEndpoint, Route, WebhookEndpoint,
};
use crate::tenancy::{OrganisationId, Scopes, TenantHeader};

/// Permission for one request to one tenant, or to several for a federated read.
#[derive(Clone, Debug)]
pub struct Grant {
    pub(super) principal: Arc<Principal>,
    pub(super) route: &'static Route,
    pub(super) organisations: Organisations,
    pub(super) tenants: TenantHeader,
}

/// The organisations of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Organisations {
    /// One, as nearly always, so that it costs no allocation.
    One(OrganisationId),
    /// Several, of a federated read.
    Several(Arc<[OrganisationId]>),
}

impl Grant {
    /// Who may.
    pub fn principal(&self) -> &Arc<Principal> {
        &self.principal
    }

    /// What they may do.
    pub fn route(&self) -> &'static Route {
        self.route
    }

    /// In which organisations.
    pub fn organisations(&self) -> &[OrganisationId] {
        match &self.organisations {
            Organisations::One(one) => std::slice::from_ref(one),
            Organisations::Several(several) => several,
        }
    }

    /// In which tenants.
    pub fn tenants(&self) -> &TenantHeader {
        &self.tenants
    }
}

/// Permission for one request to `/admin`: the endpoint, with the grant of its kind.
#[derive(Debug)]
pub enum AdminGrant {
    /// What concerns the caller alone.
    Caller(CallerEndpoint, CallerGrant),
    /// One organisation.
    Organisation(OrganisationEndpoint, OrganisationGrant),
    /// All organisations.
    Operator(OperatorEndpoint, OperatorGrant),
    /// A notification of the database's webhooks.
    Webhook(WebhookEndpoint, WebhookGrant),
}

/// Proof that the caller is known.
#[derive(Debug)]
pub struct CallerGrant {
    pub(super) principal: Arc<Principal>,
}

impl CallerGrant {
    /// Who calls.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }
}

/// Proof that the caller may administer one organisation.
#[derive(Debug)]
pub struct OrganisationGrant {
    pub(super) principal: Arc<Principal>,
    pub(super) organisation: OrganisationId,
    pub(super) scopes: Scopes,
}

impl OrganisationGrant {
    /// Who administers it.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The organisation, which is the path's.
    pub fn organisation(&self) -> &OrganisationId {
        &self.organisation
    }

    /// The administrator's own scopes there. They cannot give away more than these.
    pub fn scopes(&self) -> Scopes {
        self.scopes
    }
}

/// Proof that the caller is one of the operator's services and may administer all organisations.
#[derive(Debug)]
pub struct OperatorGrant {
    pub(super) principal: Arc<Principal>,
}

impl OperatorGrant {
    /// Which service.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }
}

/// Proof that the caller has the webhooks' secret. It allows a trigger and nothing else.
#[derive(Debug)]
pub struct WebhookGrant(pub(super) ());
