//! `GET /admin/whoami`: who the caller is to us, where they stand, and how we know.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use serde_json::{Value, json};

use super::wire::Answer;
use super::{AdminContext, AdminError};
use crate::authn::{Identity, Principal, Proof};
use crate::authz::{AdminGrant, Denial, Place, Standing};
use crate::directory::Origin;

/// Who the caller is, where they stand, and how that is known.
#[utoipa::path(get, path = crate::route::admin::WHOAMI, tag = "about",
    responses((status = 200, body = serde_json::Value)))]
pub(super) async fn show(
    State(parts): State<Arc<AdminContext>>,
    Extension(grant): Extension<AdminGrant>,
    Extension(proof): Extension<Proof>,
) -> Result<Answer, AdminError> {
    let (authorizer, principal) = (&parts.authorizer, grant.principal());
    let mut value = json!({
        "principal": describe(principal),
        "credential": proof_text(proof),
        "membership_policy": authorizer.config().membership.name(),
    });
    // The organisations are an answer of their own: that they cannot be told is worth telling.
    match authorizer.ask(principal).await {
        Err(denial) => value["organisations_unknown"] = json!(denial.to_string()),
        Ok(asked) => {
            value["memberships"] = json!(asked.origin.map_or("not asked".to_owned(), origin_text));
            match authorizer.standing(principal, &asked) {
                Ok(Standing::Everywhere(scopes)) => {
                    value["every_organisation"] =
                        json!({ "scopes": scopes.names().collect::<Vec<_>>() });
                }
                Ok(Standing::In(places)) => {
                    let places: Vec<Value> =
                        places.iter().map(|place| describe_place(&parts, place)).collect();
                    value["organisations"] = json!(places);
                }
                Err(Denial::NoClaim) => value["organisations"] = json!([]),
                Err(denial) => value["organisations_unknown"] = json!(denial.to_string()),
            }
        }
    }
    Ok(Answer::ok(value))
}

fn describe(principal: &Principal) -> Value {
    let mut value = json!({ "kind": principal.kind(), "id": principal.id().to_string() });
    match principal.identity() {
        Identity::User(user) => value["session_id"] = json!(user.session_id()),
        Identity::Device(device) => value["name"] = json!(device.name()),
        Identity::Service(_) => {}
    }
    value
}

fn describe_place(parts: &AdminContext, place: &Place<'_>) -> Value {
    json!({
        "id": place.organisation.as_str(),
        "tenant": parts.authorizer.tenant_name(place.organisation),
        "role": place.role.map(crate::tenancy::Role::as_str),
        "scopes": place.scopes.names().collect::<Vec<_>>(),
        "is_default": place.is_default,
        "source": place.source.name(),
    })
}

fn proof_text(proof: Proof) -> String {
    match proof {
        Proof::Verified => "verified for this request".to_owned(),
        Proof::Cached => "cached: verified before".to_owned(),
        Proof::Stale(age) => {
            format!("stale: read {} s ago, and the database is away", age.as_secs())
        }
    }
}

fn origin_text(origin: Origin) -> String {
    match origin {
        Origin::Read => "read for this request".to_owned(),
        Origin::Cached(age) => format!("cached: read {} s ago", age.as_secs()),
        Origin::Stale(age) => {
            format!("stale: read {} s ago, and the database is away", age.as_secs())
        }
    }
}
