//! May they: principal, route and selector -> [`Grant`].
//!
//! The caller's choice of organisation (`X-Scope-OrgID`, what Grafana, mimirtool and Alloy send)
//! is a request, never a grant. An organisation that does not exist and one of which the caller is
//! no member get the same answer, by the same path.

mod decision;
mod grant;
mod selector;

use std::fmt;
use std::sync::Arc;

use http::HeaderMap;

use crate::authn::Principal;
use crate::config::TenancyConfig;
use crate::route::Route;
use crate::tenancy::{OrganisationId, Scope, TenantIdError};

pub use grant::Grant;
pub use selector::SelectorFault;

/// Why a known caller may not do this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The selector cannot be read.
    Selector(SelectorFault),
    /// The caller is in no organisation.
    NoOrganisation,
    /// The token's organisation claim cannot be read.
    UnreadableClaim(String),
    /// The caller is in several organisations and names none.
    NameOne(Vec<OrganisationId>),
    /// The caller names an organisation that is not theirs, or that nobody has.
    NotAMember,
    /// The organisation's name makes no tenant ID.
    NoTenant(TenantIdError),
    /// The caller lacks a scope.
    Scope(Scope),
}

/// Decides what a caller may do.
pub struct Authorizer {
    config: TenancyConfig,
}

impl Authorizer {
    /// Makes an authorizer from its section of the configuration.
    pub fn new(config: TenancyConfig) -> Self {
        Self { config }
    }

    /// Grants a request to one organisation's tenant, or says why not.
    pub fn authorize(
        &self,
        principal: &Arc<Principal>,
        route: &'static Route,
        headers: &HeaderMap,
    ) -> Result<Grant, Denial> {
        let selector = selector::read(headers).map_err(Denial::Selector)?;
        decision::decide(&self.config, principal, route, &selector)
    }
}

impl Denial {
    /// A label for metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Selector(_) => "malformed_selector",
            Self::NoOrganisation | Self::UnreadableClaim(_) | Self::NoTenant(_) => {
                "no_organisation"
            }
            Self::NameOne(_) => "no_selector",
            Self::NotAMember => "not_a_member",
            Self::Scope(_) => "missing_scope",
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Selector(fault) => fault.fmt(f),
            Self::NoOrganisation => f.write_str("your token names no organisation"),
            Self::UnreadableClaim(problem) => {
                write!(f, "your token's organisation is unreadable: {problem}")
            }
            Self::NameOne(organisations) => {
                let names: Vec<_> = organisations.iter().map(OrganisationId::as_str).collect();
                write!(
                    f,
                    "you belong to several organisations; name one in X-Scope-OrgID: {}",
                    names.join(", ")
                )
            }
            Self::NotAMember => f.write_str(
                "you are no member of the organisation that X-Scope-OrgID names, or there is none",
            ),
            Self::NoTenant(error) => write!(f, "your organisation has no tenant: {error}"),
            Self::Scope(scope) => write!(f, "this needs the scope {}", scope.name()),
        }
    }
}
