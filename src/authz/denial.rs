//! Why a known caller may not do something. The texts go to the caller, so they say nothing about
//! organisations that the caller has no access to.

use std::fmt;

use super::selector::SelectorFault;
use crate::reason::Reason;
use crate::tenancy::{OrganisationId, Role, Scope, TenantIdError};

/// Why a known caller may not do this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The selector cannot be read.
    Selector(SelectorFault),
    /// The token names no organisation, and the policy goes by the token.
    NoClaim,
    /// The token's organisation claim cannot be read.
    UnreadableClaim(String),
    /// The caller has access to no organisation.
    NoOrganisation,
    /// The caller has access to several organisations and names none.
    NameOne(Vec<OrganisationId>),
    /// The caller has access to every organisation and names none.
    NameAny,
    /// The organisation does not exist, or the caller has no access to it. The two are one denial on
    /// purpose: a caller must not find out which organisations exist.
    NotAMember,
    /// The tenant template and the organisation's identifier make no valid tenant ID. The operator's
    /// fault, not the caller's.
    NoTenant(OrganisationId, TenantIdError),
    /// The caller lacks a scope, and the role that decided it, if one did.
    Scope(Scope, Option<Role>),
    /// The caller may do this, and must sign in with a second factor first.
    SecondFactor,
    /// Only a service may do this.
    ServiceOnly,
    /// The memberships cannot be read. The proxy's fault, not the caller's.
    Unavailable,
}

/// The text names this many organisations at most.
const MOST_NAMED: usize = 20;

impl Denial {
    /// The reason, for metrics and logs.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Selector(_) => Reason::MalformedSelector,
            Self::NoClaim | Self::NoOrganisation | Self::UnreadableClaim(_) => {
                Reason::NoOrganisation
            }
            Self::NoTenant(..) => Reason::NoTenant,
            Self::NameOne(_) | Self::NameAny => Reason::NoSelector,
            Self::NotAMember => Reason::NotAMember,
            Self::Scope(..) => Reason::MissingScope,
            Self::SecondFactor => Reason::SecondFactorMissing,
            Self::ServiceOnly => Reason::ServiceOnly,
            Self::Unavailable => Reason::DatabaseUnavailable,
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Selector(fault) => fault.fmt(f),
            Self::NoClaim => f.write_str("the token names no organisation"),
            Self::UnreadableClaim(problem) => {
                write!(f, "the token's organisation claim is malformed: {problem}")
            }
            Self::NoOrganisation => f.write_str("you are not a member of any organisation"),
            Self::NameOne(organisations) => {
                let names: Vec<_> =
                    organisations.iter().take(MOST_NAMED).map(OrganisationId::as_str).collect();
                let names = names.join(", ");
                write!(
                    f,
                    "you are a member of several organisations; name one in X-Scope-OrgID: {names}"
                )?;
                match organisations.len().saturating_sub(MOST_NAMED) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
            Self::NameAny => f.write_str("no organisation named; name one in X-Scope-OrgID"),
            Self::NotAMember => f.write_str("organisation not found, or you are not a member"),
            Self::NoTenant(organisation, error) => {
                write!(f, "the organisation {organisation} has no valid tenant ID: {error}")
            }
            Self::Scope(scope, None) => write!(f, "scope {} is required", scope.name()),
            Self::Scope(scope, Some(role)) => {
                write!(f, "scope {} is required; the role {role:?} does not have it", scope.name())
            }
            Self::SecondFactor => f.write_str(
                "a second factor is required to administer an organisation here; verify one (the \
                 token's aal must be aal2) and send the new token",
            ),
            Self::ServiceOnly => f.write_str("only the operator's services may do this"),
            Self::Unavailable => {
                f.write_str("membership lookup is temporarily unavailable; retry later")
            }
        }
    }
}
