//! Why a known caller may not do something. Texts go to the caller, and say nothing about
//! organisations that are not theirs.

use std::fmt;

use super::selector::SelectorFault;
use crate::reason::Reason;
use crate::tenancy::{OrganisationId, Role, Scope, TenantIdError};

/// Why a known caller may not do this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The selector cannot be read.
    Selector(SelectorFault),
    /// The token names no organisation, and it is the token that counts.
    NoClaim,
    /// The token's organisation claim cannot be read.
    UnreadableClaim(String),
    /// The caller is in no organisation.
    NoOrganisation,
    /// The caller is in several organisations and names none.
    NameOne(Vec<OrganisationId>),
    /// The caller reaches every organisation and names none.
    NameAny,
    /// The caller names an organisation that is not theirs, or that nobody has.
    NotAMember,
    /// The organisation's name makes no tenant ID.
    NoTenant(TenantIdError),
    /// The caller lacks a scope, by the role that they have, if it is a role that decides.
    Scope(Scope, Option<Role>),
    /// Only a service may do this.
    ServiceOnly,
    /// It cannot be read what the caller may do. Ours to blame.
    Unavailable,
}

/// Organisations that are named in an answer.
const MOST_NAMED: usize = 20;

impl Denial {
    /// A label for metrics and logs.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Selector(_) => Reason::MalformedSelector,
            Self::NoClaim | Self::NoOrganisation | Self::UnreadableClaim(_) | Self::NoTenant(_) => {
                Reason::NoOrganisation
            }
            Self::NameOne(_) | Self::NameAny => Reason::NoSelector,
            Self::NotAMember => Reason::NotAMember,
            Self::Scope(..) => Reason::MissingScope,
            Self::ServiceOnly => Reason::ServiceOnly,
            Self::Unavailable => Reason::DatabaseUnavailable,
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Selector(fault) => fault.fmt(f),
            Self::NoClaim => f.write_str("your token names no organisation"),
            Self::UnreadableClaim(problem) => {
                write!(f, "your token's organisation is unreadable: {problem}")
            }
            Self::NoOrganisation => f.write_str("you are a member of no organisation"),
            Self::NameOne(organisations) => {
                let names: Vec<_> =
                    organisations.iter().take(MOST_NAMED).map(OrganisationId::as_str).collect();
                let names = names.join(", ");
                write!(
                    f,
                    "you belong to several organisations; name one in X-Scope-OrgID: {names}"
                )?;
                match organisations.len().saturating_sub(MOST_NAMED) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
            Self::NameAny => f.write_str("name the organisation in X-Scope-OrgID"),
            Self::NotAMember => {
                f.write_str("you are no member of the organisation that you name, or there is none")
            }
            Self::NoTenant(error) => write!(f, "your organisation has no tenant: {error}"),
            Self::Scope(scope, None) => write!(f, "this needs the scope {}", scope.name()),
            Self::Scope(scope, Some(role)) => {
                write!(
                    f,
                    "this needs the scope {}, which the role {role:?} does not have",
                    scope.name()
                )
            }
            Self::ServiceOnly => f.write_str("this is for the operator's services only"),
            Self::Unavailable => f.write_str(
                "it cannot be looked up at the moment to which organisations you belong; try again",
            ),
        }
    }
}
