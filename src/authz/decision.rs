//! The decision: pure, and the only place that makes a [`Grant`].

use std::sync::Arc;

use super::grant::{AdminGrant, Organisations, Reach};
use super::selector::{Selector, SelectorFault};
use super::standing::{May, Place, Standing};
use super::{Denial, Grant};
use crate::authn::Principal;
use crate::route::{Route, Surface};
use crate::tenancy::{OrganisationId, Scope, TenantHeader, TenantTemplate};

/// Decides on a request for telemetry: which organisations are meant, whether the caller is in each
/// of them, and whether they may do this there.
pub(super) fn decide(
    template: &TenantTemplate,
    principal: &Arc<Principal>,
    standing: &Standing<'_>,
    route: &'static Route,
    scope: Scope,
    selector: &Selector,
) -> Result<Grant, Denial> {
    let tenant_of = |organisation| template.tenant_of(organisation).map_err(Denial::NoTenant);
    let (organisations, tenants) = match selector {
        Selector::Impossible => return Err(Denial::NotAMember),
        Selector::Several(_) if route.surface != Surface::Query => {
            return Err(Denial::Selector(SelectorFault::OnlyOne));
        }
        Selector::Several(wanted) => {
            for organisation in wanted {
                require(scope, may_in(standing, organisation)?)?;
            }
            let tenants = wanted.iter().map(tenant_of).collect::<Result<_, _>>()?;
            let tenants = TenantHeader::federated(tenants).ok_or(Denial::NotAMember)?;
            (Organisations::Several(wanted.as_slice().into()), tenants)
        }
        Selector::One(wanted) => {
            require(scope, may_in(standing, wanted)?)?;
            (Organisations::One(wanted.clone()), tenant_of(wanted)?.into())
        }
        Selector::None => {
            let place = default_place(standing)?;
            require(scope, place.may())?;
            let organisation = place.organisation;
            (Organisations::One(organisation.clone()), tenant_of(organisation)?.into())
        }
    };
    Ok(Grant { principal: Arc::clone(principal), route, organisations, tenants })
}

/// Decides on a request to one organisation's part of `/admin`.
pub(super) fn decide_admin(
    principal: &Arc<Principal>,
    standing: &Standing<'_>,
    route: &'static Route,
    organisation: OrganisationId,
) -> Result<AdminGrant, Denial> {
    let may = may_in(standing, &organisation)?;
    let scopes = may.0;
    require(Scope::Admin, may)?;
    let reach = Reach::Organisation(organisation);
    Ok(AdminGrant { principal: Arc::clone(principal), route, reach, scopes })
}

/// Decides on a request to the part of `/admin` that concerns all organisations.
pub(super) fn decide_everything(
    principal: &Arc<Principal>,
    standing: &Standing<'_>,
    route: &'static Route,
) -> Result<AdminGrant, Denial> {
    let Standing::Everywhere(scopes) = standing else { return Err(Denial::ServiceOnly) };
    let scopes = *scopes;
    require(Scope::Admin, (scopes, None))?;
    let reach = Reach::Everything;
    Ok(AdminGrant { principal: Arc::clone(principal), route, reach, scopes })
}

/// What a caller may do in an organisation, and by which role. One that does not exist gets the same
/// answer as one that is another's.
fn may_in<'a>(standing: &Standing<'a>, wanted: &OrganisationId) -> Result<May<'a>, Denial> {
    match standing {
        Standing::Everywhere(scopes) => Ok((*scopes, None)),
        Standing::In(places) => places
            .iter()
            .find(|place| place.organisation == wanted)
            .map(Place::may)
            .ok_or(Denial::NotAMember),
    }
}

/// The organisation that is meant when none is named.
fn default_place<'a>(standing: &'a Standing<'a>) -> Result<&'a Place<'a>, Denial> {
    let places = match standing {
        Standing::Everywhere(_) => return Err(Denial::NameAny),
        Standing::In(places) => places,
    };
    match places.as_slice() {
        [] => Err(Denial::NoOrganisation),
        [only] => Ok(only),
        several => {
            let default = several.iter().find(|place| place.is_default);
            default.ok_or_else(|| {
                Denial::NameOne(several.iter().map(|place| place.organisation.clone()).collect())
            })
        }
    }
}

fn require(scope: Scope, (scopes, role): May<'_>) -> Result<(), Denial> {
    if scopes.contains(scope) { Ok(()) } else { Err(Denial::Scope(scope, role.cloned())) }
}

#[cfg(test)]
mod tests;
