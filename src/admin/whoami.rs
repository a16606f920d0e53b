//! `GET /admin/whoami`: who the caller is, which organisations it has access to, and how that is
//! known.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use super::{Admin, Answer};
use crate::authn::{Identity, Principal, Proof};
use crate::authz::{AccessSet, CallerGrant, Denial, OrganisationAccess};
use crate::directory::Origin;
use crate::tenancy::Role;

/// Who the caller is.
#[derive(Serialize, ToSchema)]
pub(super) struct Whoami<'a> {
    principal: PrincipalView<'a>,
    /// How the credential was verified.
    credential: String,
    /// `tenancy.membership`: `claims`, `table` or `claims_and_table`.
    membership_policy: &'a str,
    /// Where the memberships come from; left out if they are unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    memberships: Option<String>,
    /// The organisations that the caller has access to; left out if they are unknown, or all.
    #[serde(skip_serializing_if = "Option::is_none")]
    organisations: Option<Vec<AccessView<'a>>>,
    /// The access to every organisation; left out if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    every_organisation: Option<EveryOrganisation>,
    /// Why the organisations are unknown; left out if they are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    organisations_unknown: Option<String>,
}

/// A principal.
#[derive(Serialize, ToSchema)]
pub(super) struct PrincipalView<'a> {
    /// `user`, `device` or `service`.
    kind: &'a str,
    id: String,
    /// The session of a user's token; left out for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    #[expect(clippy::option_option, reason = "null is a user without a session")]
    session_id: Option<Option<&'a str>>,
    /// The name of a device; left out for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

/// The caller's access to one organisation.
#[derive(Serialize, ToSchema)]
pub(super) struct AccessView<'a> {
    id: String,
    tenant: Option<String>,
    role: Option<&'a str>,
    #[schema(value_type = Vec<String>)]
    scopes: Vec<&'static str>,
    /// Whether the organisation is meant when `X-Scope-OrgID` names none.
    is_default: bool,
    /// `claim`, `membership table`, `claim and membership table` or `device key`.
    source: &'a str,
}

/// Access to every organisation.
#[derive(Serialize, ToSchema)]
pub(super) struct EveryOrganisation {
    #[schema(value_type = Vec<String>)]
    scopes: Vec<&'static str>,
}

pub(super) async fn show(admin: &Admin, grant: &CallerGrant, proof: Proof) -> Answer {
    let (authorizer, principal) = (&admin.authorizer, grant.principal());
    let lookup = authorizer.look_up(principal).await;
    let mut whoami = Whoami {
        principal: PrincipalView::of(principal),
        credential: proof_text(proof),
        membership_policy: authorizer.membership_policy().name(),
        memberships: None,
        organisations: None,
        every_organisation: None,
        organisations_unknown: None,
    };
    match &lookup {
        // Who the caller is, is worth an answer even while the memberships cannot be looked up.
        Err(denial) => whoami.organisations_unknown = Some(denial.to_string()),
        Ok(lookup) => {
            whoami.memberships = Some(lookup.origin.map_or("not asked".to_owned(), origin_text));
            match authorizer.access_set(principal, lookup) {
                Ok(AccessSet::Everywhere(scopes)) => {
                    let scopes = scopes.names().collect();
                    whoami.every_organisation = Some(EveryOrganisation { scopes });
                }
                Ok(AccessSet::Listed(listed)) => {
                    let views = listed.iter().map(|access| AccessView::of(admin, access));
                    whoami.organisations = Some(views.collect());
                }
                Err(Denial::NoClaim) => whoami.organisations = Some(Vec::new()),
                Err(denial) => whoami.organisations_unknown = Some(denial.to_string()),
            }
        }
    }
    Answer::of(&whoami)
}

impl<'a> PrincipalView<'a> {
    fn of(principal: &'a Principal) -> Self {
        let (session_id, name) = match principal.identity() {
            Identity::User(user) => (Some(user.session_id()), None),
            Identity::Device(device) => (None, Some(device.name())),
            Identity::Service(_) => (None, None),
        };
        Self { kind: principal.kind(), id: principal.id().to_string(), session_id, name }
    }
}

impl<'a> AccessView<'a> {
    fn of(admin: &Admin, access: &OrganisationAccess<'a>) -> Self {
        Self {
            id: access.organisation.to_string(),
            tenant: admin.authorizer.tenant_name(access.organisation),
            role: access.role.map(Role::as_str),
            scopes: access.scopes.names().collect(),
            is_default: access.is_default,
            source: access.source.name(),
        }
    }
}

fn proof_text(proof: Proof) -> String {
    match proof {
        Proof::Verified => "verified for this request".to_owned(),
        Proof::Cached => "cached: verified before".to_owned(),
        Proof::Stale(age) => stale_text(age),
    }
}

fn origin_text(origin: Origin) -> String {
    match origin {
        Origin::Read => "read for this request".to_owned(),
        Origin::Cached(age) => format!("cached: read {} s ago", age.as_secs()),
        Origin::Stale(age) => stale_text(age),
    }
}

fn stale_text(age: Duration) -> String {
    format!("stale: read {} s ago, and the database is unavailable", age.as_secs())
}
