//! `/admin/revocations`: tokens revoked before they expire.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::body::read_body;
use super::{Admin, AdminError, Answer, recorded_name};
use crate::authz::OperatorGrant;
use crate::clock::{parse_rfc3339, rfc3339};
use crate::key_management::is_invisible_command;
use crate::store::{ListedRevocation, MOST_REVOCATIONS_LISTED, NewRevocation, RevocationKind};

/// A revocation to add.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RevocationRequest {
    /// The claim that it goes by: `sub`, `session_id` or `jti`.
    kind: String,
    /// The claim's value.
    value: String,
    /// Revoke only tokens issued before this time (RFC 3339).
    #[serde(default)]
    issued_before: Option<String>,
    /// When it ends (RFC 3339); never if omitted.
    #[serde(default)]
    expires_at: Option<String>,
    /// Why, for those who list it later.
    #[serde(default)]
    reason: String,
}

/// A revocation that was just added.
#[derive(Serialize, ToSchema)]
pub(super) struct AddedRevocation<'a> {
    id: Uuid,
    kind: &'a str,
    value: &'a str,
}

/// The revocations in force.
#[derive(Serialize, ToSchema)]
pub(super) struct RevocationList<'a> {
    revocations: Vec<RevocationView<'a>>,
    /// Whether these are all.
    complete: bool,
}

/// A revocation.
#[derive(Serialize, ToSchema)]
pub(super) struct RevocationView<'a> {
    id: Uuid,
    /// The claim that it goes by: `sub`, `session_id` or `jti`.
    kind: &'a str,
    /// The claim's value.
    value: &'a str,
    /// Only tokens issued before this time are revoked (RFC 3339); all if null.
    issued_before: Option<String>,
    /// When it ends (RFC 3339); never if null.
    expires_at: Option<String>,
    reason: &'a str,
    /// When it was added (RFC 3339).
    created_at: Option<String>,
    /// Who added it.
    created_by: &'a str,
}

/// A revocation that was removed.
#[derive(Serialize, ToSchema)]
pub(super) struct RemovedRevocation {
    id: Uuid,
    removed: bool,
}

const LONGEST_VALUE: usize = 200;
const LONGEST_REASON: usize = 1000;

pub(super) async fn add(
    admin: &Admin,
    grant: &OperatorGrant,
    body: &[u8],
) -> Result<Answer, AdminError> {
    let request: RevocationRequest = read_body(body)?;
    let kind = read_kind(&request)?;
    let issued_before = read_time("issued_before", request.issued_before.as_deref())?;
    let expires_at = read_time("expires_at", request.expires_at.as_deref())?;
    if expires_at.is_some_and(|end| end <= admin.now()) {
        let problem = "expires_at must be in the future, else nothing is revoked";
        return Err(AdminError::Request(problem.to_owned()));
    }
    let new = NewRevocation {
        kind,
        value: request.value.clone(),
        issued_before,
        expires_at,
        reason: request.reason.clone(),
        created_by: recorded_name(grant.principal()),
    };
    let id = admin.store()?.add_revocation(new).await?;
    let added = AddedRevocation { id, kind: kind.name(), value: &request.value };
    let target = format!("{id} {} {}", kind.name(), request.value);
    Ok(Answer::of(&added).created().about(target))
}

fn read_kind(request: &RevocationRequest) -> Result<RevocationKind, AdminError> {
    let problem = |text: &str| AdminError::Request(text.to_owned());
    let kind = RevocationKind::parse(&request.kind)
        .ok_or_else(|| problem("kind must be sub, session_id or jti"))?;
    let is_text = |text: &str| !text.chars().any(is_invisible_command);
    if !(1..=LONGEST_VALUE).contains(&request.value.len()) || !is_text(&request.value) {
        return Err(problem("value must have 1 to 200 bytes, and no control characters"));
    }
    if request.reason.len() > LONGEST_REASON || !is_text(&request.reason) {
        return Err(problem("reason must have at most 1000 bytes, and no control characters"));
    }
    if kind == RevocationKind::Subject && Uuid::try_parse(&request.value).is_err() {
        return Err(problem("value must be a UUID if kind is sub"));
    }
    Ok(kind)
}

fn read_time(field: &str, text: Option<&str>) -> Result<Option<OffsetDateTime>, AdminError> {
    let Some(text) = text else { return Ok(None) };
    let time = parse_rfc3339(text).ok_or_else(|| {
        AdminError::Request(format!("{field} must be a time such as 2026-12-31T23:59:59Z"))
    })?;
    Ok(Some(time))
}

pub(super) async fn list(admin: &Admin, _: &OperatorGrant) -> Result<Answer, AdminError> {
    let listed = admin.store()?.list_revocations().await?;
    Ok(Answer::of(&RevocationList {
        revocations: listed.iter().map(RevocationView::of).collect(),
        complete: listed.len() < MOST_REVOCATIONS_LISTED,
    }))
}

pub(super) async fn remove(
    admin: &Admin,
    _: &OperatorGrant,
    id: Uuid,
) -> Result<Answer, AdminError> {
    if !admin.store()?.remove_revocation(id).await? {
        return Err(AdminError::Missing("revocation"));
    }
    Ok(Answer::of(&RemovedRevocation { id, removed: true }).about(id))
}

impl<'a> RevocationView<'a> {
    fn of(listed: &'a ListedRevocation) -> Self {
        let revocation = &listed.revocation;
        Self {
            id: listed.id,
            kind: revocation.kind.name(),
            value: &revocation.value,
            issued_before: revocation.issued_before.map(rfc3339),
            expires_at: revocation.expires_at.map(rfc3339),
            reason: &revocation.reason,
            created_at: listed.created_at.map(rfc3339),
            created_by: &revocation.created_by,
        }
    }
}
