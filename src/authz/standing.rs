//! Where a caller stands: in which organisations, as what, by whose word. Pure.

use crate::authn::{Claimed, ClaimedOrganisations, ClaimedRole, Identity, Principal};
use crate::config::{MembershipPolicy, TenancyConfig};
use crate::tenancy::{Membership, OrganisationId, Role, Scopes};

use super::Denial;

/// Where a caller stands.
#[derive(Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// In these organisations; maybe none.
    In(Vec<Place<'a>>),
    /// In every organisation, with these scopes.
    Everywhere(Scopes),
}

/// A caller's place in one organisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The organisation.
    pub organisation: &'a OrganisationId,
    /// What the caller is there, where that is known.
    pub role: Option<&'a Role>,
    /// What the caller may do there.
    pub scopes: Scopes,
    /// Whether this organisation is meant when none is named.
    pub is_default: bool,
    /// Who says so.
    pub source: Source,
}

/// What somebody may do, and by which role.
pub(super) type May<'a> = (Scopes, Option<&'a Role>);

impl<'a> Place<'a> {
    pub(super) fn may(&self) -> May<'a> {
        (self.scopes, self.role)
    }
}

/// Who says that a caller is in an organisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The token.
    Claim,
    /// The membership table.
    Table,
    /// Both, and it takes both.
    ClaimAndTable,
    /// The device's key.
    DeviceKey,
}

impl Source {
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

/// Says where a caller stands. `memberships` is what the table says of a user, if it was asked.
pub(super) fn standing<'a>(
    config: &TenancyConfig,
    principal: &'a Principal,
    memberships: &'a [Membership],
) -> Result<Standing<'a>, Denial> {
    let claimed = match principal.identity() {
        Identity::Service(_) => return Ok(Standing::Everywhere(config.service_scopes)),
        Identity::Device(device) => {
            return Ok(Standing::In(vec![Place {
                organisation: device.organisation(),
                role: None,
                scopes: device.scopes(),
                is_default: true,
                source: Source::DeviceKey,
            }]));
        }
        Identity::User(user) => user.claimed(),
    };
    let by_table = |membership: &'a Membership, source| Place {
        organisation: &membership.organisation,
        role: Some(&membership.role),
        scopes: config.roles.scopes_of(&membership.role),
        is_default: is_default(claimed, &membership.organisation, membership.is_default),
        source,
    };
    Ok(Standing::In(match config.membership {
        MembershipPolicy::Claims => {
            let (role, scopes) = role_by_claim(config, claimed);
            let place = |organisation| Place {
                organisation,
                role,
                scopes,
                is_default: is_default(claimed, organisation, false),
                source: Source::Claim,
            };
            listed(claimed)?.iter().map(place).collect()
        }
        MembershipPolicy::Table => {
            memberships.iter().map(|membership| by_table(membership, Source::Table)).collect()
        }
        MembershipPolicy::ClaimsAndTable => {
            let listed = listed(claimed)?;
            memberships
                .iter()
                .filter(|membership| listed.contains(&membership.organisation))
                .map(|membership| by_table(membership, Source::ClaimAndTable))
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

fn role_by_claim<'a>(config: &TenancyConfig, claimed: &'a Claimed) -> (Option<&'a Role>, Scopes) {
    match &claimed.role {
        ClaimedRole::Unasked => (None, config.user_scopes),
        ClaimedRole::Missing => (None, Scopes::default()),
        ClaimedRole::Named(role) => (Some(role), config.roles.scopes_of(role)),
    }
}

/// The token's word on what is meant by default goes before the table's.
fn is_default(claimed: &Claimed, organisation: &OrganisationId, by_table: bool) -> bool {
    claimed.default.as_ref().map_or(by_table, |default| default == organisation)
}
