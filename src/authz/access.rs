//! The access set of a caller: in which organisations it may do what, and what says so. Pure.

use crate::authn::{Claimed, ClaimedOrganisations, ClaimedRole, Identity, Principal, Service};
use crate::config::{MembershipPolicy, TenancyConfig};
use crate::tenancy::{Membership, OrganisationId, Role, Scopes};

use super::Denial;

/// The organisations that a caller has access to.
#[derive(Debug, PartialEq, Eq)]
pub enum AccessSet<'a> {
    /// These; there may be none.
    Listed(Vec<OrganisationAccess<'a>>),
    /// Every organisation, with these scopes.
    Everywhere(Scopes),
}

/// A caller's access to one organisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrganisationAccess<'a> {
    /// The organisation.
    pub organisation: &'a OrganisationId,
    /// The caller's role there, if it has one that is known.
    pub role: Option<&'a Role>,
    /// The caller's scopes there.
    pub scopes: Scopes,
    /// Whether this organisation is meant when the request names none.
    pub is_default: bool,
    /// What says so.
    pub source: AccessSource,
}

/// Scopes, and the role that they come from, if one decides.
pub(super) type RoleScopes<'a> = (Scopes, Option<&'a Role>);

impl<'a> OrganisationAccess<'a> {
    pub(super) fn role_scopes(&self) -> RoleScopes<'a> {
        (self.scopes, self.role)
    }
}

/// What says that a caller has access to an organisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessSource {
    /// The token.
    Claim,
    /// The membership table.
    Table,
    /// Both; each alone is not enough.
    ClaimAndTable,
    /// The device key.
    DeviceKey,
}

impl AccessSource {
    /// The name in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Table => "membership table",
            Self::ClaimAndTable => "claim and membership table",
            Self::DeviceKey => "device key",
        }
    }
}

/// Computes a caller's access set. `memberships` are a user's rows of the table, if it was read.
pub(super) fn access_set<'a>(
    config: &TenancyConfig,
    principal: &'a Principal,
    memberships: &'a [Membership],
) -> Result<AccessSet<'a>, Denial> {
    let claimed = match principal.identity() {
        Identity::Service(Service::AdminKey | Service::ServiceRole) => {
            return Ok(AccessSet::Everywhere(config.service_scopes));
        }
        // The webhooks' secret allows a trigger, and that needs no organisation.
        Identity::Service(Service::Webhook) => return Ok(AccessSet::Listed(Vec::new())),
        Identity::Device(device) => {
            return Ok(AccessSet::Listed(vec![OrganisationAccess {
                organisation: device.organisation(),
                role: None,
                scopes: device.scopes(),
                is_default: true,
                source: AccessSource::DeviceKey,
            }]));
        }
        Identity::User(user) => user.claimed(),
    };
    let by_table = |membership: &'a Membership, source| OrganisationAccess {
        organisation: &membership.organisation,
        role: Some(&membership.role),
        scopes: config.roles.scopes_of(&membership.role),
        is_default: is_default(claimed, &membership.organisation, membership.is_default),
        source,
    };
    Ok(AccessSet::Listed(match config.membership {
        MembershipPolicy::Claims => {
            let (scopes, role) = role_by_claim(config, claimed);
            let by_claim = |organisation| OrganisationAccess {
                organisation,
                role,
                scopes,
                is_default: is_default(claimed, organisation, false),
                source: AccessSource::Claim,
            };
            listed(claimed)?.iter().map(by_claim).collect()
        }
        MembershipPolicy::Table => {
            memberships.iter().map(|membership| by_table(membership, AccessSource::Table)).collect()
        }
        MembershipPolicy::ClaimsAndTable => {
            let listed = listed(claimed)?;
            memberships
                .iter()
                .filter(|membership| listed.contains(&membership.organisation))
                .map(|membership| by_table(membership, AccessSource::ClaimAndTable))
                .collect()
        }
    }))
}

fn listed(claimed: &Claimed) -> Result<&[OrganisationId], Denial> {
    match &claimed.organisations {
        ClaimedOrganisations::Listed(listed) => Ok(listed),
        ClaimedOrganisations::Missing => Err(Denial::NoClaim),
        ClaimedOrganisations::Unreadable(problem) => Err(Denial::UnreadableClaim(problem.clone())),
    }
}

fn role_by_claim<'a>(config: &TenancyConfig, claimed: &'a Claimed) -> RoleScopes<'a> {
    match &claimed.role {
        ClaimedRole::Unasked => (config.user_scopes, None),
        ClaimedRole::Missing => (Scopes::default(), None),
        ClaimedRole::Named(role) => (config.roles.scopes_of(role), Some(role)),
    }
}

/// The token's default goes before the table's.
fn is_default(claimed: &Claimed, organisation: &OrganisationId, by_table: bool) -> bool {
    claimed.default.as_ref().map_or(by_table, |default| default == organisation)
}
