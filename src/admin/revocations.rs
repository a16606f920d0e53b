//! `/admin/revocations`: tokens revoked before their time.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use bytes::Bytes;
use http::{StatusCode, Uri};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::wire::{Answer, listed_revocation, read_body, read_time};
use super::{AdminContext, AdminError};
use crate::authz::AdminGrant;
use crate::store::{MOST_REVOCATIONS_LISTED, NewRevocation, RevocationKind};

/// What an operator says of a revocation.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RevocationRequest {
    kind: String,
    value: String,
    #[serde(default)]
    issued_before: Option<String>,
    #[serde(default)]
    expires_at: Option<String>,
    #[serde(default)]
    reason: String,
}

const LONGEST_VALUE: usize = 200;
const LONGEST_REASON: usize = 1000;

/// Revokes tokens.
#[utoipa::path(post, path = crate::route::admin::REVOCATIONS, tag = "revocations",
    request_body = RevocationRequest,
    responses((status = 201, body = serde_json::Value)))]
pub(super) async fn add(
    State(parts): State<Arc<AdminContext>>,
    Extension(grant): Extension<AdminGrant>,
    body: Bytes,
) -> Result<Answer, AdminError> {
    let request: RevocationRequest = read_body(&body)?;
    let kind = read_kind(&request)?;
    let optional = |field: &'static str, text: &Option<String>| {
        text.as_deref().map(|text| read_time(field, text)).transpose()
    };
    let expires_at = optional("expires_at", &request.expires_at)?;
    if expires_at.is_some_and(|end| end <= parts.clock.utc()) {
        let problem = "expires_at is over already: this would revoke nothing";
        return Err(AdminError::Request(problem.to_owned()));
    }
    let new = NewRevocation {
        kind,
        value: request.value.clone(),
        issued_before: optional("issued_before", &request.issued_before)?,
        expires_at,
        reason: request.reason.clone(),
        created_by: format!("{} {}", grant.principal().kind(), grant.principal().id()),
    };
    let id = parts.store()?.add_revocation(new).await?;
    let value = json!({ "id": id.to_string(), "kind": kind.name(), "value": request.value });
    Ok(Answer::ok(value)
        .about(format!("{id} {} {}", kind.name(), request.value))
        .with_status(StatusCode::CREATED))
}

fn read_kind(request: &RevocationRequest) -> Result<RevocationKind, AdminError> {
    let problem = |text: &str| AdminError::Request(text.to_owned());
    let kind = RevocationKind::parse(&request.kind)
        .ok_or_else(|| problem("kind must be sub, session_id or jti"))?;
    let is_text = |text: &str| !text.chars().any(char::is_control);
    if !(1..=LONGEST_VALUE).contains(&request.value.len()) || !is_text(&request.value) {
        return Err(problem("value must have 1 to 200 bytes, and no control characters"));
    }
    if request.reason.len() > LONGEST_REASON || !is_text(&request.reason) {
        return Err(problem("reason must have at most 1000 bytes, and no control characters"));
    }
    if kind == RevocationKind::Subject && Uuid::try_parse(&request.value).is_err() {
        return Err(problem("the value of a sub must be a UUID"));
    }
    Ok(kind)
}

/// What is revoked, the newest first.
#[utoipa::path(get, path = crate::route::admin::REVOCATIONS, tag = "revocations",
    responses((status = 200, body = serde_json::Value)))]
pub(super) async fn list(State(parts): State<Arc<AdminContext>>) -> Result<Answer, AdminError> {
    let listed = parts.store()?.list_revocations().await?;
    let is_all = listed.len() < MOST_REVOCATIONS_LISTED;
    let listed: Vec<Value> = listed.iter().map(listed_revocation).collect();
    Ok(Answer::ok(json!({ "revocations": listed, "complete": is_all })))
}

/// Takes a revocation back.
#[utoipa::path(delete, path = crate::route::admin::REVOCATION, tag = "revocations",
    params(("id" = uuid::Uuid, Path)),
    responses((status = 200, body = serde_json::Value)))]
pub(super) async fn remove(
    State(parts): State<Arc<AdminContext>>,
    Extension(grant): Extension<AdminGrant>,
    uri: Uri,
) -> Result<Answer, AdminError> {
    let missing = || AdminError::Missing("revocation");
    let id = grant.route().id_in(uri.path()).ok_or_else(missing)?;
    if !parts.store()?.remove_revocation(id).await? {
        return Err(missing());
    }
    Ok(Answer::ok(json!({ "id": id.to_string(), "removed": true })).about(id))
}
