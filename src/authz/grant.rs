//! [`Grant`] and [`AdminGrant`]: proof of permission.

use std::sync::Arc;

use crate::authn::Principal;
use crate::route::Route;
use crate::tenancy::{OrganisationId, Scopes, TenantHeader};

/// One caller's permission for one request to one tenant, or to several for a federated read. Its
/// fields are private to this stage, so nothing else can make one; without one nothing can be
/// forwarded.
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
    /// One, as nearly always.
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

/// One caller's permission for one request to `/admin`.
#[derive(Clone, Debug)]
pub struct AdminGrant {
    pub(super) principal: Arc<Principal>,
    pub(super) route: &'static Route,
    pub(super) reach: Reach,
    pub(super) scopes: Scopes,
}

/// How far an administrator's request reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// To what concerns the caller alone.
    Own,
    /// To one organisation.
    Organisation(OrganisationId),
    /// To all.
    Everything,
}

impl AdminGrant {
    /// Who may.
    pub fn principal(&self) -> &Arc<Principal> {
        &self.principal
    }

    /// What they may do.
    pub fn route(&self) -> &'static Route {
        self.route
    }

    /// How far.
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// What the administrator may do there themselves: nobody grants more than they have.
    pub fn scopes(&self) -> Scopes {
        self.scopes
    }

    /// The one organisation, if it is about one.
    pub fn organisation(&self) -> Option<&OrganisationId> {
        match &self.reach {
            Reach::Organisation(organisation) => Some(organisation),
            Reach::Own | Reach::Everything => None,
        }
    }
}
