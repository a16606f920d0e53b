//! May they: principal, route and selector -> [`Grant`], or [`AdminGrant`] for `/admin`.
//!
//! The way is: [`memberships`] (a user's rows of the table), [`access`] (the organisations that the
//! caller has access to, with which scopes), [`selector`] (which of them the request is for),
//! [`decision`].
//!
//! The caller's choice of organisation (`X-Scope-OrgID`, what Grafana, mimirtool and Alloy send)
//! is a request, never a grant. An organisation that does not exist and one of which the caller is
//! no member get the same answer, by the same path.

mod access;
mod decision;
mod denial;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod grant;
mod memberships;
mod organisations;
mod selector;

use std::sync::Arc;

use http::HeaderMap;

use crate::authn::{Identity, Principal};
use crate::config::{AssuranceLevel, MembershipPolicy, TenancyConfig};
use crate::directory::{Found, Origin};
use crate::route::{AdminEndpoint, Route};
use crate::tenancy::{Membership, OrganisationId, Role, Scope, Scopes};

use selector::Selector;

pub use access::{AccessSet, AccessSource, OrganisationAccess};
pub use denial::Denial;
pub use grant::{AdminGrant, CallerGrant, Grant, OperatorGrant, OrganisationGrant, WebhookGrant};
pub use memberships::Memberships;
pub use organisations::Organisations;
pub use selector::SelectorFault;

/// Decides what a caller may do.
pub struct Authorizer {
    config: TenancyConfig,
    /// How a user must have signed in to administer an organisation.
    admin_level: AssuranceLevel,
    memberships: Option<Arc<Memberships>>,
    organisations: Option<Arc<Organisations>>,
}

/// A caller's rows of the membership table.
pub struct MembershipLookup {
    memberships: Option<Arc<[Membership]>>,
    /// Where the rows come from; none if the table has no say about this caller.
    pub origin: Option<Origin>,
}

impl Authorizer {
    /// `memberships` is none where no table of them is configured.
    pub fn new(
        config: TenancyConfig,
        admin_level: AssuranceLevel,
        memberships: Option<Arc<Memberships>>,
    ) -> Self {
        Self { config, admin_level, memberships, organisations: None }
    }

    /// Adds the table of organisations: callers with access to every organisation then have access to
    /// those that exist.
    #[must_use]
    pub fn with_organisations(mut self, organisations: Option<Arc<Organisations>>) -> Self {
        self.organisations = organisations;
        self
    }

    /// Grants a request for telemetry, or says why not.
    pub async fn authorize(
        &self,
        principal: &Arc<Principal>,
        route: &'static Route,
        scope: Scope,
        headers: &HeaderMap,
    ) -> Result<Grant, Denial> {
        // A selector that cannot be read is refused before the table is read.
        let selector = selector::read(headers, self.config.federation).map_err(Denial::Selector)?;
        let lookup = self.look_up(principal).await?;
        let grant = self.decide(principal, &lookup, route, scope, &selector)?;
        if let (Identity::Service(_), Some(known)) = (principal.identity(), &self.organisations) {
            for organisation in grant.organisations() {
                if known.is_missing(organisation).await.map_err(|_| Denial::Unavailable)? {
                    return Err(Denial::NotAMember);
                }
            }
        }
        Ok(grant)
    }

    /// Decides by rows that were read elsewhere, for `explain-token`.
    pub fn explain(
        &self,
        principal: &Arc<Principal>,
        lookup: &MembershipLookup,
        route: &'static Route,
        scope: Scope,
        headers: &HeaderMap,
    ) -> Result<Grant, Denial> {
        let selector = selector::read(headers, self.config.federation).map_err(Denial::Selector)?;
        self.decide(principal, lookup, route, scope, &selector)
    }

    fn decide(
        &self,
        principal: &Arc<Principal>,
        lookup: &MembershipLookup,
        route: &'static Route,
        scope: Scope,
        selector: &Selector,
    ) -> Result<Grant, Denial> {
        let access = self.access_set(principal, lookup)?;
        decision::decide(&self.config.template, principal, &access, route, scope, selector)
    }

    /// Grants a request to `/admin`, or says why not. The organisation is the path's: the selector has
    /// no say.
    pub async fn authorize_admin(
        &self,
        principal: &Arc<Principal>,
        endpoint: AdminEndpoint,
        organisation: Option<&OrganisationId>,
    ) -> Result<AdminGrant, Denial> {
        Ok(match endpoint {
            AdminEndpoint::Caller(endpoint) => {
                AdminGrant::Caller(endpoint, decision::grant_caller(principal))
            }
            AdminEndpoint::Organisation(endpoint) => {
                let organisation = organisation.ok_or(Denial::NotAMember)?;
                let lookup = self.look_up(principal).await?;
                let access = self.access_set(principal, &lookup)?;
                let level = self.admin_level;
                let grant = decision::decide_organisation(principal, &access, organisation, level)?;
                AdminGrant::Organisation(endpoint, grant)
            }
            AdminEndpoint::Operator(endpoint) => {
                let lookup = self.look_up(principal).await?;
                let access = self.access_set(principal, &lookup)?;
                AdminGrant::Operator(endpoint, decision::decide_operator(principal, &access)?)
            }
            AdminEndpoint::Webhook(endpoint) => {
                AdminGrant::Webhook(endpoint, decision::decide_webhook(principal)?)
            }
        })
    }

    /// Reads a user's rows of the membership table, if the table has a say.
    pub async fn look_up(&self, principal: &Principal) -> Result<MembershipLookup, Denial> {
        let (Some(memberships), Identity::User(user)) = (&self.memberships, principal.identity())
        else {
            return Ok(MembershipLookup::not_needed());
        };
        let Found { value, origin } =
            memberships.of(user.id()).await.map_err(|_| Denial::Unavailable)?;
        Ok(MembershipLookup { memberships: value, origin: Some(origin) })
    }

    /// The organisations that a caller has access to.
    pub fn access_set<'a>(
        &self,
        principal: &'a Principal,
        lookup: &'a MembershipLookup,
    ) -> Result<AccessSet<'a>, Denial> {
        let memberships = lookup.memberships.as_deref().unwrap_or_default();
        access::access_set(&self.config, principal, memberships)
    }

    /// Whether tokens, the table or both say who is in which organisation.
    pub fn membership_policy(&self) -> MembershipPolicy {
        self.config.membership
    }

    /// What a role of the table means.
    pub fn scopes_of_role(&self, role: &Role) -> Scopes {
        self.config.roles.scopes_of(role)
    }

    /// The tenant of an organisation, for answers to its members.
    pub fn tenant_name(&self, organisation: &OrganisationId) -> Option<String> {
        let tenant = self.config.template.tenant_of(organisation).ok()?;
        Some(tenant.as_str().to_owned())
    }
}

impl MembershipLookup {
    /// Rows that were read elsewhere, for `explain-token`.
    pub fn read(memberships: Vec<Membership>) -> Self {
        Self { memberships: Some(memberships.into()), origin: Some(Origin::Read) }
    }

    /// No rows, because the table has no say.
    pub fn not_needed() -> Self {
        Self { memberships: None, origin: None }
    }
}
