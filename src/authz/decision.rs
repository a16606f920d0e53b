//! The decision: pure, and the only place that makes grants.

use std::sync::Arc;

use super::access::{AccessSet, OrganisationAccess, RoleScopes};
use super::grant::{CallerGrant, OperatorGrant, OrganisationGrant, Organisations, WebhookGrant};
use super::selector::{Selector, SelectorFault};
use super::{Denial, Grant};
use crate::authn::{Identity, Principal, Service};
use crate::config::AssuranceLevel;
use crate::route::{Route, Surface};
use crate::tenancy::{OrganisationId, Scope, TenantHeader, TenantTemplate};

/// Decides on a request for telemetry: which organisations it is for, and whether the caller has the
/// scope in each of them.
pub(super) fn decide(
    template: &TenantTemplate,
    principal: &Arc<Principal>,
    access: &AccessSet<'_>,
    route: &'static Route,
    scope: Scope,
    selector: &Selector,
) -> Result<Grant, Denial> {
    let tenant_of = |organisation: &OrganisationId| {
        let no_tenant = |error| Denial::NoTenant(organisation.clone(), error);
        template.tenant_of(organisation).map_err(no_tenant)
    };
    let (organisations, tenants) = match selector {
        Selector::Impossible => return Err(Denial::NotAMember),
        Selector::Several(_) if route.surface != Surface::Query => {
            return Err(Denial::Selector(SelectorFault::OnlyOne));
        }
        Selector::Several(wanted) => {
            for organisation in wanted {
                require(scope, scopes_in(access, organisation)?)?;
            }
            let tenants = wanted.iter().map(tenant_of).collect::<Result<_, _>>()?;
            let tenants = TenantHeader::federated(tenants).ok_or(Denial::NotAMember)?;
            (Organisations::Several(wanted.as_slice().into()), tenants)
        }
        Selector::One(wanted) => {
            require(scope, scopes_in(access, wanted)?)?;
            (Organisations::One(wanted.clone()), tenant_of(wanted)?.into())
        }
        Selector::None => {
            let default = default_of(access)?;
            require(scope, default.role_scopes())?;
            let organisation = default.organisation;
            (Organisations::One(organisation.clone()), tenant_of(organisation)?.into())
        }
    };
    Ok(Grant { principal: Arc::clone(principal), route, organisations, tenants })
}

/// Every principal is a known caller.
pub(super) fn grant_caller(principal: &Arc<Principal>) -> CallerGrant {
    CallerGrant { principal: Arc::clone(principal) }
}

/// Decides on a request to the part of `/admin` that concerns one organisation. A user must have signed in
/// at the level; whoever may not do this at all is told so, and not to sign in once more.
pub(super) fn decide_organisation(
    principal: &Arc<Principal>,
    access: &AccessSet<'_>,
    organisation: &OrganisationId,
    level: AssuranceLevel,
) -> Result<OrganisationGrant, Denial> {
    let (scopes, role) = scopes_in(access, organisation)?;
    require(Scope::Admin, (scopes, role))?;
    require_level(level, principal)?;
    let (principal, organisation) = (Arc::clone(principal), organisation.clone());
    Ok(OrganisationGrant { principal, organisation, scopes })
}

/// Decides on a request to the part of `/admin` that concerns all organisations.
pub(super) fn decide_operator(
    principal: &Arc<Principal>,
    access: &AccessSet<'_>,
) -> Result<OperatorGrant, Denial> {
    let AccessSet::Everywhere(scopes) = access else { return Err(Denial::ServiceOnly) };
    require(Scope::Admin, (*scopes, None))?;
    Ok(OperatorGrant { principal: Arc::clone(principal) })
}

/// Decides on a notification of the database's webhooks.
pub(super) fn decide_webhook(principal: &Principal) -> Result<WebhookGrant, Denial> {
    match principal.identity() {
        Identity::Service(Service::Webhook) => Ok(WebhookGrant(())),
        Identity::Service(Service::AdminKey | Service::ServiceRole)
        | Identity::User(_)
        | Identity::Device(_) => Err(Denial::ServiceOnly),
    }
}

/// The caller's scopes in an organisation, and the role that they come from. An organisation that
/// does not exist gets the same answer as one that the caller has no access to.
fn scopes_in<'a>(
    access: &AccessSet<'a>,
    wanted: &OrganisationId,
) -> Result<RoleScopes<'a>, Denial> {
    match access {
        AccessSet::Everywhere(scopes) => Ok((*scopes, None)),
        AccessSet::Listed(listed) => listed
            .iter()
            .find(|access| access.organisation == wanted)
            .map(OrganisationAccess::role_scopes)
            .ok_or(Denial::NotAMember),
    }
}

/// The organisation that is meant when the request names none.
fn default_of<'a>(access: &'a AccessSet<'a>) -> Result<&'a OrganisationAccess<'a>, Denial> {
    let listed = match access {
        AccessSet::Everywhere(_) => return Err(Denial::NameAny),
        AccessSet::Listed(listed) => listed,
    };
    match listed.as_slice() {
        [] => Err(Denial::NoOrganisation),
        [only] => Ok(only),
        several => {
            let default = several.iter().find(|access| access.is_default);
            default.ok_or_else(|| {
                Denial::NameOne(several.iter().map(|access| access.organisation.clone()).collect())
            })
        }
    }
}

fn require(scope: Scope, (scopes, role): RoleScopes<'_>) -> Result<(), Denial> {
    if scopes.contains(scope) { Ok(()) } else { Err(Denial::Scope(scope, role.cloned())) }
}

/// Only people have factors.
fn require_level(level: AssuranceLevel, principal: &Principal) -> Result<(), Denial> {
    match principal.identity() {
        Identity::User(user) if user.assurance_level() < level => Err(Denial::SecondFactor),
        Identity::User(_) | Identity::Device(_) | Identity::Service(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
