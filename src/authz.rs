//! May they: principal, route and selector -> [`Grant`].
//!
//! The way is: [`memberships`] (what the table says of a user), [`standing`] (in which
//! organisations the caller is, and as what), [`selector`] (which of them is meant), [`decision`].
//!
//! The caller's choice of organisation (`X-Scope-OrgID`, what Grafana, mimirtool and Alloy send)
//! is a request, never a grant. An organisation that does not exist and one of which the caller is
//! no member get the same answer, by the same path.

mod decision;
mod denial;
mod grant;
mod memberships;
mod organisations;
mod selector;
mod standing;

use std::sync::Arc;

use http::HeaderMap;

use crate::authn::{Identity, Principal};
use crate::config::TenancyConfig;
use crate::directory::{Found, Origin};
use crate::route::{Access, Route};
use crate::tenancy::{Membership, OrganisationId, Scope, Scopes};

use selector::Selector;

pub use denial::Denial;
pub use grant::{AdminGrant, Grant, Reach};
pub use memberships::Memberships;
pub use organisations::Organisations;
pub use selector::SelectorFault;
pub use standing::{Place, Source, Standing};

/// Decides what a caller may do.
pub struct Authorizer {
    config: TenancyConfig,
    memberships: Option<Arc<Memberships>>,
    organisations: Option<Arc<Organisations>>,
}

/// What the table says of a caller, and where that comes from; nothing if it was not asked.
pub struct Asked {
    memberships: Option<Arc<[Membership]>>,
    /// Where the answer comes from.
    pub origin: Option<Origin>,
}

impl Authorizer {
    /// Makes an authorizer from its section of the configuration, with the memberships if there is a
    /// table of them.
    pub fn new(config: TenancyConfig, memberships: Option<Arc<Memberships>>) -> Self {
        Self { config, memberships, organisations: None }
    }

    /// The same with a table of all organisations: callers who reach every one of them then reach
    /// those that there are.
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
        // What cannot be read is refused before the table is asked.
        let selector = selector::read(headers, self.config.federation).map_err(Denial::Selector)?;
        let asked = self.ask(principal).await?;
        let grant = self.decide(principal, &asked, route, scope, &selector)?;
        if let (Identity::Service(_), Some(known)) = (principal.identity(), &self.organisations) {
            for organisation in grant.organisations() {
                if known.lack(organisation).await.map_err(|_| Denial::Unavailable)? {
                    return Err(Denial::NotAMember);
                }
            }
        }
        Ok(grant)
    }

    /// Decides by what the table said, for `explain-token`.
    pub fn explain(
        &self,
        principal: &Arc<Principal>,
        asked: &Asked,
        route: &'static Route,
        scope: Scope,
        headers: &HeaderMap,
    ) -> Result<Grant, Denial> {
        let selector = selector::read(headers, self.config.federation).map_err(Denial::Selector)?;
        self.decide(principal, asked, route, scope, &selector)
    }

    fn decide(
        &self,
        principal: &Arc<Principal>,
        asked: &Asked,
        route: &'static Route,
        scope: Scope,
        selector: &Selector,
    ) -> Result<Grant, Denial> {
        let standing = self.standing(principal, asked)?;
        decision::decide(&self.config.template, principal, &standing, route, scope, selector)
    }

    /// Grants a request to `/admin`, or says why not. The organisation is the path's.
    pub async fn authorize_admin(
        &self,
        principal: &Arc<Principal>,
        route: &'static Route,
        path: &str,
    ) -> Result<AdminGrant, Denial> {
        if let Access::AnyPrincipal | Access::Webhook = route.access {
            let principal = Arc::clone(principal);
            let scopes = Scopes::default();
            return Ok(AdminGrant { principal, route, reach: Reach::Own, scopes });
        }
        let asked = self.ask(principal).await?;
        let standing = self.standing(principal, &asked)?;
        match route.access {
            Access::Organisation => {
                let organisation = route.organisation_in(path).ok_or(Denial::NotAMember)?;
                decision::decide_admin(principal, &standing, route, organisation)
            }
            _ => decision::decide_everything(principal, &standing, route),
        }
    }

    /// Asks the table about a caller, if it has a say.
    pub async fn ask(&self, principal: &Principal) -> Result<Asked, Denial> {
        let (Some(memberships), Identity::User(user)) = (&self.memberships, principal.identity())
        else {
            return Ok(Asked { memberships: None, origin: None });
        };
        let Found { value, origin } =
            memberships.of(user.id()).await.map_err(|_| Denial::Unavailable)?;
        Ok(Asked { memberships: value, origin: Some(origin) })
    }

    /// Where a caller stands, by what the table said.
    pub fn standing<'a>(
        &self,
        principal: &'a Principal,
        asked: &'a Asked,
    ) -> Result<Standing<'a>, Denial> {
        standing::standing(
            &self.config,
            principal,
            asked.memberships.as_deref().unwrap_or_default(),
        )
    }

    /// The rules that this is decided by.
    pub fn config(&self) -> &TenancyConfig {
        &self.config
    }

    /// The tenant of an organisation, for answers to its people.
    pub fn tenant_name(&self, organisation: &OrganisationId) -> Option<String> {
        let tenant = self.config.template.tenant_of(organisation).ok()?;
        Some(tenant.as_str().to_owned())
    }
}

impl Asked {
    /// What was read elsewhere, for `explain-token`.
    pub fn read(memberships: Vec<Membership>) -> Self {
        Self { memberships: Some(memberships.into()), origin: Some(Origin::Read) }
    }

    /// Nothing, because the table has no say.
    pub fn nothing() -> Self {
        Self { memberships: None, origin: None }
    }
}
