//! Every refusal and failure -> status, body, `Retry-After`, metric label. The only module that
//! knows HTTP statuses: each stage says what is wrong, this says how that is told.
//!
//! The rule behind it all: a sender drops what is answered with a 4xx and keeps what is answered
//! with a 5xx, so whatever is ours to blame is a 5xx with `Retry-After`.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use crate::admin::AdminError;
use crate::authn::Refusal;
use crate::authz::Denial;
use crate::edge::{Outcome, REQUEST_ID, RequestId};
use crate::forward::{BodyFault, Failure};
use crate::limits::Excess;
use crate::route::{Surface, Unroutable};
use crate::store::StoreError;

/// Why a request gets an answer of ours instead of Mimir's.
#[derive(Debug)]
pub enum Rejection {
    /// The page that asks is not one of ours.
    Origin(String),
    /// Nothing is served there.
    Route(Unroutable),
    /// The head is larger than allowed.
    HeadTooLarge,
    /// A body where none belongs.
    UnexpectedBody,
    /// The body is not acceptable.
    Body(BodyFault),
    /// The caller is not known.
    Credential(Refusal),
    /// The caller may not, and what they asked for, which is for the log.
    Denied(Denial, Option<String>),
    /// Too much is going on already.
    Limited(Excess),
    /// Mimir gave no answer.
    Failed(Failure),
    /// An administrator's request was not done.
    Admin(AdminError),
}

/// How long to stay away when something of ours is broken, in seconds: anything in between, so that
/// all who were sent away do not come back together. Senders back off further themselves.
const RETRY_AFTER: std::ops::RangeInclusive<u64> = 5..=15;

/// What is added to the time after which there is room again.
const LIMITED_SPREAD: std::ops::RangeInclusive<u64> = 1..=3;

/// A sender drops what is answered with a 429 (Prometheus does, unless it is told otherwise), and
/// that many of its organisation's devices come at once, as after an outage, is nothing that one of
/// them could help. A rate is what the operator has set on purpose.
fn limited(excess: Excess) -> StatusCode {
    match excess {
        Excess::InFlight { surface: Surface::Push | Surface::Otlp } | Excess::All => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Excess::InFlight { .. } | Excess::Requests { .. } | Excess::Bytes { .. } => {
            StatusCode::TOO_MANY_REQUESTS
        }
    }
}

/// Who reads the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// A Prometheus API client, or an administrator's: JSON.
    Reader,
    /// A sender: plain text.
    Sender,
}

impl Audience {
    /// Judges by the path, which is known even when the route is not.
    pub fn of_path(path: &str) -> Self {
        let reads = ["/prometheus/", "/api/v1/user_", "/admin/"];
        let reads = reads.iter().any(|prefix| path.starts_with(prefix));
        if reads { Self::Reader } else { Self::Sender }
    }
}

impl Rejection {
    /// Every label that [`Rejection::reason`] can give for a refusal on purpose.
    pub const REJECTION_REASONS: [&'static str; 42] = [
        "no_route",
        "method_not_allowed",
        "malformed_target",
        "head_too_large",
        "unexpected_body",
        "body_too_large",
        "body_slow",
        "body_incomplete",
        "no_credential",
        "malformed_credential",
        "malformed_token",
        "wrong_algorithm",
        "unknown_key",
        "bad_signature",
        "malformed_claims",
        "wrong_issuer",
        "wrong_role",
        "wrong_audience",
        "expired",
        "not_yet_valid",
        "anonymous",
        "oauth_client",
        "malformed_selector",
        "no_organisation",
        "no_selector",
        "not_a_member",
        "missing_scope",
        "malformed_device_key",
        "unknown_device_key",
        "revoked_device_key",
        "expired_device_key",
        "revoked",
        "session_ended",
        "service_only",
        "malformed_request",
        "not_found",
        "conflict",
        "origin_not_allowed",
        "request_rate",
        "byte_rate",
        "requests_in_flight",
        "overloaded",
    ];

    /// Every label for something that broke.
    pub const FAILURE_REASONS: [&'static str; 12] = [
        "keys_unavailable",
        "database_unavailable",
        "ruler_unavailable",
        "admin_broken",
        "upstream_unresolved",
        "upstream_unreachable",
        "upstream_circuit_open",
        "upstream_saturated",
        "upstream_timeout",
        "upstream_broken",
        "upstream_broken_body",
        "upstream_idle_body",
    ];

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Origin(_) => StatusCode::FORBIDDEN,
            Self::Route(Unroutable::Semicolon) | Self::UnexpectedBody => StatusCode::BAD_REQUEST,
            Self::Route(_) => StatusCode::NOT_FOUND,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Body(fault) | Self::Failed(Failure::Body(fault)) => match fault {
                BodyFault::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
                BodyFault::Slow => StatusCode::REQUEST_TIMEOUT,
                BodyFault::Incomplete => StatusCode::BAD_REQUEST,
            },
            Self::Credential(refusal) if refusal.is_ours() => StatusCode::SERVICE_UNAVAILABLE,
            Self::Credential(_) => StatusCode::UNAUTHORIZED,
            Self::Denied(Denial::Unavailable, _) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Denied(Denial::Selector(_) | Denial::NameOne(_) | Denial::NameAny, _) => {
                StatusCode::BAD_REQUEST
            }
            Self::Denied(..) => StatusCode::FORBIDDEN,
            Self::Limited(excess) => limited(*excess),
            Self::Failed(Failure::Timeout) => StatusCode::GATEWAY_TIMEOUT,
            Self::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Admin(AdminError::Request(_)) => StatusCode::BAD_REQUEST,
            Self::Admin(
                AdminError::Missing(_)
                | AdminError::NoDatabase
                | AdminError::NoRules
                | AdminError::Store(StoreError::Missing(_)),
            ) => StatusCode::NOT_FOUND,
            Self::Admin(AdminError::Store(StoreError::Elsewhere(_) | StoreError::Full(_))) => {
                StatusCode::CONFLICT
            }
            Self::Admin(AdminError::Store(_) | AdminError::Ruler(_)) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Admin(AdminError::Broken) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// A label for metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Origin(_) => "origin_not_allowed",
            Self::Route(Unroutable::Path) => "no_route",
            Self::Route(Unroutable::Method(_)) => "method_not_allowed",
            Self::Route(Unroutable::Form | Unroutable::Semicolon) => "malformed_target",
            Self::HeadTooLarge => "head_too_large",
            Self::UnexpectedBody => "unexpected_body",
            Self::Body(fault) => fault.reason(),
            Self::Credential(refusal) => refusal.reason(),
            Self::Denied(denial, _) => denial.reason(),
            Self::Limited(excess) => excess.reason(),
            Self::Failed(failure) => failure.reason(),
            Self::Admin(error) => error.reason(),
        }
    }

    /// How the request's record ends.
    pub fn outcome(&self) -> Outcome {
        let reason = self.reason();
        if self.is_ours() { Outcome::Failed(reason) } else { Outcome::Rejected(reason) }
    }

    /// Whether something of ours, or behind us, is broken: what somebody is to be woken for. Some
    /// refusals are a 5xx only so that senders keep what they have: what an organisation asks for
    /// above its limits, and a body that comes too slowly.
    fn is_ours(&self) -> bool {
        match self {
            Self::Limited(_) | Self::Body(_) | Self::Failed(Failure::Body(_)) => false,
            other => other.status().is_server_error(),
        }
    }

    fn message(&self) -> String {
        match self {
            // The origin itself is for the log: nothing of a stranger's page is repeated to it.
            Self::Origin(_) => {
                "pages of this origin are not allowed (cors.allowed_origins)".to_owned()
            }
            Self::Route(unroutable) => unroutable.to_string(),
            Self::HeadTooLarge => "the request's head is too large".to_owned(),
            Self::UnexpectedBody => "this request takes no body".to_owned(),
            Self::Body(fault) => fault.to_string(),
            Self::Credential(refusal) => refusal.to_string(),
            Self::Denied(denial, _) => denial.to_string(),
            Self::Limited(excess) => excess.to_string(),
            Self::Failed(failure) => failure.to_string(),
            Self::Admin(error) => error.to_string(),
        }
    }

    /// What the log says beyond the reason: the inside of a failure, which no client sees.
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::Failed(Failure::Connect(error)) => Some(error.to_string()),
            Self::Failed(Failure::Broken(error)) => Some(format!("{error:?}")),
            Self::Admin(AdminError::Store(error)) => Some(error.to_string()),
            Self::Admin(AdminError::Ruler(problem)) => Some(problem.clone()),
            Self::Origin(origin) => Some(format!("{}: {origin}", self.message())),
            Self::Credential(refusal) => Some(refusal.inside()),
            Self::Denied(denial, asked) => Some(match asked {
                Some(asked) => format!("{denial}; X-Scope-OrgID asked for {asked:?}"),
                None => denial.to_string(),
            }),
            Self::Failed(_) | Self::Route(_) | Self::HeadTooLarge => None,
            other => Some(other.message()),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Credential(Refusal::KeysUnavailable { retry_after }) => Some(*retry_after),
            Self::Limited(Excess::Requests { retry_after } | Excess::Bytes { retry_after }) => {
                // All who were refused wait for the same moment: not all are to come back in it.
                Some(*retry_after + Duration::from_secs(fastrand::u64(LIMITED_SPREAD)))
            }
            other => {
                let is_ours = other.status().is_server_error() || matches!(self, Self::Limited(_));
                is_ours.then(|| Duration::from_secs(fastrand::u64(RETRY_AFTER)))
            }
        }
    }

    /// Prometheus' name for the kind of error.
    fn error_type(&self) -> &'static str {
        match self.status() {
            StatusCode::UNAUTHORIZED => "unauthorized",
            StatusCode::FORBIDDEN => "forbidden",
            StatusCode::NOT_FOUND => "not_found",
            StatusCode::TOO_MANY_REQUESTS => "too_many_requests",
            StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => "timeout",
            StatusCode::SERVICE_UNAVAILABLE => "unavailable",
            StatusCode::INTERNAL_SERVER_ERROR => "internal",
            _ => "bad_data",
        }
    }

    /// The answer.
    pub fn response(&self, audience: Audience, id: &RequestId) -> Response<Full<Bytes>> {
        let message = self.message();
        let (content_type, text) = match audience {
            Audience::Sender => ("text/plain; charset=utf-8", format!("{message}\n")),
            Audience::Reader => {
                let body = serde_json::json!({
                    "status": "error", "errorType": self.error_type(), "error": message,
                });
                ("application/json", body.to_string())
            }
        };
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REQUEST_ID, id.header_value());
        if let Some(after) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, self.challenge());
        }
        response
    }

    /// RFC 6750, section 3: without a credential only the scheme, else also what was wrong.
    fn challenge(&self) -> HeaderValue {
        HeaderValue::from_static(match self.reason() {
            // RFC 7617: what a basic-auth client, which is a device, understands.
            "malformed_device_key"
            | "unknown_device_key"
            | "revoked_device_key"
            | "expired_device_key" => "Bearer error=\"invalid_token\", Basic realm=\"device keys\"",
            "no_credential" => "Bearer",
            "malformed_credential" => "Bearer error=\"invalid_request\"",
            _ => "Bearer error=\"invalid_token\"",
        })
    }
}

#[cfg(test)]
mod tests;
