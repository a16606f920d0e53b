//! [`Grant`]: proof of permission, the only key to `forward`.

use std::sync::Arc;

use crate::authn::Principal;
use crate::route::Route;
use crate::tenancy::{OrganisationId, TenantId};

/// One caller's permission for one request to one tenant. Its fields are private to this stage,
/// so nothing else can make one; without one nothing can be forwarded.
#[derive(Clone, Debug)]
pub struct Grant {
    pub(super) principal: Arc<Principal>,
    pub(super) route: &'static Route,
    pub(super) organisation: OrganisationId,
    pub(super) tenant: TenantId,
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

    /// In which organisation.
    pub fn organisation(&self) -> &OrganisationId {
        &self.organisation
    }

    /// In which tenant.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }
}
