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
use crate::mimir::form::FormExcess;
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
    /// A form in a content type that cannot be read as Mimir reads it.
    ContentType,
    /// An expression in the query string is too much for Mimir.
    Expression(FormExcess),
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

/// How a device may show its key, too.
const BASIC: HeaderValue = HeaderValue::from_static("Basic realm=\"device keys\"");

/// What is added to the time after which there is room again.
const LIMITED_SPREAD: std::ops::RangeInclusive<u64> = 1..=3;

/// A sender drops what is answered with a 429 (Prometheus does, unless it is told otherwise), and
/// that many of its organisation's devices come at once, as after an outage, is nothing that one of
/// them could help. How large an organisation's share of all is depends on what others do. A rate is
/// what the operator has set on purpose.
fn limited(excess: Excess) -> StatusCode {
    match excess {
        Excess::InFlight { surface: Surface::Push | Surface::Otlp }
        | Excess::Share
        | Excess::All => StatusCode::SERVICE_UNAVAILABLE,
        Excess::InFlight { .. } | Excess::Requests { .. } | Excess::Bytes { .. } => {
            StatusCode::TOO_MANY_REQUESTS
        }
    }
}

/// Rounded up: whoever comes back before it is over comes in vain.
fn whole_seconds(after: Duration) -> u64 {
    (after.as_secs() + u64::from(after.subsec_nanos() > 0)).max(1)
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
        let reads = ["/prometheus/", "/api/v1/user_", "/api/v1/status/", "/admin/"];
        let reads = reads.iter().any(|prefix| path.starts_with(prefix));
        if reads { Self::Reader } else { Self::Sender }
    }
}

impl Rejection {
    /// Every label that [`Rejection::reason`] can give for a refusal on purpose.
    pub const REJECTION_REASONS: &'static [&'static str] = &[
        "key_pending",
        "no_route",
        "method_not_allowed",
        "malformed_target",
        "head_too_large",
        "unexpected_body",
        "body_too_large",
        "body_slow",
        "body_incomplete",
        "body_malformed",
        "body_slow_for_upstream",
        "unsupported_content_type",
        "expression_limit",
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
        "organisation_share",
        "overloaded",
        "upstream_saturated",
    ];

    /// Every label for something that broke.
    pub const FAILURE_REASONS: &'static [&'static str] = &[
        "keys_unavailable",
        "database_unavailable",
        "ruler_unavailable",
        "admin_broken",
        "upstream_unresolved",
        "upstream_unreachable",
        "upstream_circuit_open",
        "upstream_timeout",
        "upstream_broken",
        "upstream_misdirected",
        "upstream_broken_body",
        "upstream_idle_body",
    ];

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Origin(_) => StatusCode::FORBIDDEN,
            Self::Route(
                Unroutable::Semicolon
                | Unroutable::Name(_)
                | Unroutable::Host
                | Unroutable::TransferCoding,
            )
            | Self::UnexpectedBody => StatusCode::BAD_REQUEST,
            // RFC 9110, 15.5.6. mimirtool takes a 404 in answer to DELETE for "it is gone already".
            Self::Route(Unroutable::Method(_) | Unroutable::Write) => {
                StatusCode::METHOD_NOT_ALLOWED
            }
            Self::Route(_) => StatusCode::NOT_FOUND,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Body(fault) | Self::Failed(Failure::Body(fault)) => match fault {
                BodyFault::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
                BodyFault::Malformed | BodyFault::Expression(_) => StatusCode::BAD_REQUEST,
                // Not 408: Prometheus, Alloy and the collector drop what is answered with it.
                BodyFault::Slow | BodyFault::Incomplete => StatusCode::SERVICE_UNAVAILABLE,
            },
            Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Expression(_) => StatusCode::BAD_REQUEST,
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
            Self::Admin(AdminError::Beyond(_)) => StatusCode::FORBIDDEN,
            Self::Admin(
                AdminError::Missing(_)
                | AdminError::NoDatabase
                | AdminError::NoRules
                | AdminError::Store(StoreError::Missing(_)),
            ) => StatusCode::NOT_FOUND,
            Self::Admin(
                AdminError::Stale(_)
                | AdminError::Store(StoreError::Elsewhere(_) | StoreError::Full(_)),
            ) => StatusCode::CONFLICT,
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
            Self::Route(Unroutable::Path(_)) => "no_route",
            Self::Route(Unroutable::Method(_) | Unroutable::Write) => "method_not_allowed",
            Self::Route(Unroutable::Form | Unroutable::Semicolon | Unroutable::Name(_)) => {
                "malformed_target"
            }
            Self::Route(Unroutable::Host | Unroutable::TransferCoding) => "malformed_request",
            Self::HeadTooLarge => "head_too_large",
            Self::UnexpectedBody => "unexpected_body",
            Self::Body(fault) => fault.reason(),
            Self::ContentType => "unsupported_content_type",
            Self::Expression(_) => "expression_limit",
            Self::Credential(refusal) => refusal.reason(),
            Self::Denied(denial, _) => denial.reason(),
            Self::Limited(excess) => excess.reason(),
            Self::Failed(failure) => failure.reason(),
            Self::Admin(error) => error.reason(),
        }
    }

    /// How the request's record ends. A 503 that a limit or a slow body causes is a refusal:
    /// nothing broke, and an alert on failures does not fire for it.
    pub fn outcome(&self) -> Outcome {
        let reason = self.reason();
        if self.is_ours() { Outcome::Failed(reason) } else { Outcome::Rejected(reason) }
    }

    /// Whether something of ours, or behind us, is broken: what somebody is to be woken for. Some
    /// refusals are a 5xx only so that senders keep what they have: what an organisation asks for
    /// above its limits, and a body that comes too slowly.
    fn is_ours(&self) -> bool {
        match self {
            Self::Limited(_) | Self::Body(_) => false,
            Self::Failed(Failure::Body(_) | Failure::UploadTimedOut | Failure::Saturated) => false,
            // Any stranger can bring this about.
            Self::Credential(Refusal::KeyPending { .. }) => false,
            other => other.status().is_server_error(),
        }
    }

    /// Whether the connection is of no use after the answer: the rest of the request's body, which
    /// did not come in time, would have to be waited for.
    pub fn closes_connection(&self) -> bool {
        use BodyFault::{Incomplete, Slow};
        matches!(
            self,
            // Whoever sent it may disagree with us about where the next request begins.
            Self::Route(Unroutable::Host | Unroutable::TransferCoding)
                | Self::Body(Slow | Incomplete)
                | Self::Failed(Failure::Body(Slow | Incomplete) | Failure::UploadTimedOut)
        )
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
            Self::ContentType => {
                "parameters in a body must be application/x-www-form-urlencoded".to_owned()
            }
            Self::Expression(excess) => excess.to_string(),
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
            Self::Failed(Failure::Misdirected(status)) => Some(format!(
                "upstream answered {status}, which is none of Mimir's answers to a push"
            )),
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
            Self::Credential(
                Refusal::KeysUnavailable { retry_after } | Refusal::KeyPending { retry_after },
            ) => Some(*retry_after),
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
            StatusCode::GATEWAY_TIMEOUT => "timeout",
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
            headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, self.challenge());
            if self.offers_basic(audience) {
                // A line of its own: not every client looks behind a comma.
                headers.append(header::WWW_AUTHENTICATE, BASIC);
            }
        }
        if let Self::Route(unroutable) = self
            && let Some(Ok(allowed)) = unroutable.allowed().map(HeaderValue::try_from)
        {
            headers.insert(header::ALLOW, allowed);
        }
        response
    }

    /// Whether a basic-auth client, which is a device, is told that it may be one (RFC 7617): where
    /// devices push, and where the key of one is wrong. Elsewhere people are asked for tokens, and a
    /// browser would ask them for a password.
    fn offers_basic(&self, audience: Audience) -> bool {
        let is_credential = matches!(self.reason(), "no_credential" | "malformed_credential");
        matches!(self, Self::Credential(Refusal::DeviceKey(_)))
            || (is_credential && audience == Audience::Sender)
    }

    /// RFC 6750, section 3: without a credential only the scheme, else also what was wrong.
    fn challenge(&self) -> HeaderValue {
        HeaderValue::from_static(match self.reason() {
            "no_credential" => "Bearer",
            "malformed_credential" => "Bearer error=\"invalid_request\"",
            _ => "Bearer error=\"invalid_token\"",
        })
    }
}

#[cfg(test)]
mod tests;
