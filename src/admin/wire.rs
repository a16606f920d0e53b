//! The JSON of `/admin`: times, bodies, and the things themselves.

use axum::response::IntoResponse;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{AdminError, Target};
use crate::store::{ListedDeviceKey, ListedRevocation};

/// An answer: a status, a value, and what it is about.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) value: Value,
    pub(super) target: Option<String>,
}

impl Answer {
    pub(super) fn ok(value: Value) -> Self {
        Self { status: StatusCode::OK, value, target: None }
    }

    /// A thing that has a shape of its own.
    pub(super) fn of(thing: &impl Serialize) -> Self {
        Self::ok(serde_json::to_value(thing).unwrap_or_default())
    }

    pub(super) fn about(mut self, target: impl ToString) -> Self {
        self.target = Some(target.to_string());
        self
    }

    pub(super) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> axum::response::Response {
        let mut response = (self.status, axum::Json(self.value)).into_response();
        // A key that is shown once must not stay in a cache.
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(target) = self.target {
            response.extensions_mut().insert(Target(target));
        }
        response
    }
}

/// Reads a body, and says where it is wrong.
pub(super) fn read_body<T: DeserializeOwned>(body: &Bytes) -> Result<T, AdminError> {
    serde_json::from_slice(body)
        .map_err(|error| AdminError::Request(format!("the body is not as it must be: {error}")))
}

/// A time as text (RFC 3339).
pub fn time_text(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}

/// Reads a time (RFC 3339).
pub(super) fn read_time(field: &str, text: &str) -> Result<OffsetDateTime, AdminError> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
        AdminError::Request(format!("{field} must be a time such as 2026-12-31T23:59:59Z"))
    })
}

/// A device key as its administrators see it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what listed_key gives")]
pub(super) struct DeviceKeyView {
    id: Uuid,
    name: String,
    /// The key's first characters.
    key_hint: String,
    /// `metrics:write`, `metrics:read`, `rules:read`.
    scopes: Vec<String>,
    /// `active`, `in_grace`, `expired` or `revoked`.
    state: String,
    expires_at: Option<String>,
    grace_seconds: i32,
    revoked_at: Option<String>,
    last_used_at: Option<String>,
    created_at: Option<String>,
    created_by: String,
    /// The key itself, in the answer to its making only.
    key: Option<String>,
}

/// The keys of an organisation.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what the list gives")]
pub(super) struct DeviceKeyList {
    device_keys: Vec<DeviceKeyView>,
    /// Whether these are all.
    complete: bool,
}

/// A device key as JSON.
pub fn listed_key(key: &ListedDeviceKey, now: OffsetDateTime) -> Value {
    let grace = time::Duration::seconds(key.grace_seconds.into());
    let state = match (key.revoked_at, key.expires_at) {
        (Some(_), _) => "revoked",
        (None, Some(end)) if end.checked_add(grace).is_some_and(|end| end <= now) => "expired",
        (None, Some(end)) if end <= now => "in_grace",
        _ => "active",
    };
    json!({
        "id": key.id.to_string(),
        "name": key.name,
        "key_hint": key.hint,
        "scopes": key.scopes.names().collect::<Vec<_>>(),
        "state": state,
        "expires_at": key.expires_at.map(time_text),
        "grace_seconds": key.grace_seconds,
        "revoked_at": key.revoked_at.map(time_text),
        "last_used_at": key.last_used_at.map(time_text),
        "created_at": key.created_at.map(time_text),
        "created_by": key.created_by,
    })
}

pub(super) fn listed_revocation(listed: &ListedRevocation) -> Value {
    let revocation = &listed.revocation;
    json!({
        "id": listed.id.to_string(),
        "kind": revocation.kind.name(),
        "value": revocation.value,
        "issued_before": revocation.issued_before.map(time_text),
        "expires_at": revocation.expires_at.map(time_text),
        "reason": revocation.reason,
        "created_at": listed.created_at.map(time_text),
        "created_by": revocation.created_by,
    })
}
