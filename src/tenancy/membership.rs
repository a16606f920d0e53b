//! Memberships: who is in which organisation, as what.

use super::{OrganisationId, Role};

/// One person's place in one organisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The organisation.
    pub organisation: OrganisationId,
    /// What the person is there.
    pub role: Role,
    /// Whether this organisation is meant when none is named.
    pub is_default: bool,
}
