//! The identities that the whole crate speaks of, each valid by construction.
//!
//! An *organisation* is the customer, as Supabase knows it; a *tenant* is Mimir's unit of
//! isolation. One maps to the other by the operator's [`TenantTemplate`], which is injective:
//! two organisations never share a tenant.

mod organisation_id;
mod role;
mod scope;
mod tenant_header;
mod tenant_id;

pub use organisation_id::{OrganisationId, OrganisationIdError};
pub use role::{Role, RoleMap};
pub use scope::{Scope, Scopes};
pub use tenant_header::TenantHeader;
pub use tenant_id::{TemplateError, TenantId, TenantIdError, TenantTemplate};

/// One person's place in one organisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    pub organisation: OrganisationId,
    pub role: Role,
    /// Whether this organisation is meant when none is named.
    pub is_default: bool,
}

/// A Supabase user: the `sub` of a token, always a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UserId(pub uuid::Uuid);

impl std::fmt::Display for UserId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A device key's identifier: who calls, when a device does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceId(pub uuid::Uuid);

impl std::fmt::Display for DeviceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
