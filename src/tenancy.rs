//! The identities that the whole crate speaks of, each valid by construction.
//!
//! An *organisation* is the customer, as Supabase knows it; a *tenant* is Mimir's unit of
//! isolation. One maps to the other by the operator's [`TenantTemplate`], which is injective:
//! two organisations never share a tenant.

mod organisation_id;
mod scope;
mod tenant_id;

pub use organisation_id::{OrganisationId, OrganisationIdError};
pub use scope::{Scope, Scopes};
pub use tenant_id::{TemplateError, TenantId, TenantIdError, TenantTemplate};

/// A Supabase user: the `sub` of a token, always a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UserId(pub uuid::Uuid);

impl std::fmt::Display for UserId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
