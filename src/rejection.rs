//! Every rejection and failure -> status, body and `Retry-After`. Each stage says what is wrong,
//! [`Reason`] how it counts, and this how the client is told.
//!
//! The rule behind it all: a sender drops what is answered with a 4xx and keeps what is answered
//! with a 503, by OTLP also with a 502 or 504 and by remote write with any 5xx. So whatever is ours to blame is one of
//! these three, with `Retry-After`.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use crate::admin::AdminError;
use crate::authn::Refusal;
use crate::authz::Denial;
use crate::edge::{REQUEST_ID, RequestId};
use crate::forward::ForwardError;
use crate::limits::LimitError;
use crate::mimir::form::FormExcess;
use crate::mimir::otlp::OtlpHeadFault;
use crate::mimir::remote_read::RemoteReadFault;
use crate::mimir::silence::SilenceFault;
use crate::reason::{HasReason as _, Reason};
use crate::request_body::BodyError;
use crate::route::{self, Route, RouteError, Surface};

/// Why a request gets an answer of ours instead of Mimir's.
#[derive(Debug)]
pub enum Rejection {
    /// A preflight of a page that is not allowed, with its origin, which is for the log.
    Origin(String),
    /// No route matches.
    Route(RouteError),
    /// The head is larger than allowed.
    HeadTooLarge,
    /// A body where the route takes none.
    UnexpectedBody,
    /// The body is not acceptable.
    Body(BodyError),
    /// A form in a content type that cannot be read as Mimir reads it.
    ContentType,
    /// An export by OTLP in a content type or an encoding that cannot be checked.
    OtlpHead(OtlpHeadFault),
    /// An expression in the query string costs Mimir too much.
    Expression(FormExcess),
    /// A silence that cannot be passed on.
    Silence(SilenceFault),
    RemoteRead(RemoteReadFault),
    /// Not authenticated.
    Credential(Refusal),
    /// Not authorised, with what `X-Scope-OrgID` asked for, which is for the log.
    Denied(Denial, Option<String>),
    /// A limit is exceeded.
    Limited(LimitError),
    Failed(ForwardError),
    /// An administrator's request was not done.
    Admin(AdminError),
}

impl From<RouteError> for Rejection {
    fn from(error: RouteError) -> Self {
        Self::Route(error)
    }
}

impl From<BodyError> for Rejection {
    fn from(error: BodyError) -> Self {
        Self::Body(error)
    }
}

impl From<FormExcess> for Rejection {
    fn from(excess: FormExcess) -> Self {
        Self::Expression(excess)
    }
}

impl From<OtlpHeadFault> for Rejection {
    fn from(fault: OtlpHeadFault) -> Self {
        Self::OtlpHead(fault)
    }
}

impl From<RemoteReadFault> for Rejection {
    fn from(fault: RemoteReadFault) -> Self {
        Self::RemoteRead(fault)
    }
}

impl From<SilenceFault> for Rejection {
    fn from(fault: SilenceFault) -> Self {
        Self::Silence(fault)
    }
}

impl From<LimitError> for Rejection {
    fn from(error: LimitError) -> Self {
        Self::Limited(error)
    }
}

impl From<ForwardError> for Rejection {
    fn from(error: ForwardError) -> Self {
        match error {
            // The same, whether it is found out before Mimir is asked or while the body passes.
            ForwardError::Body(error) => Self::Body(error),
            other => Self::Failed(other),
        }
    }
}

impl From<AdminError> for Rejection {
    fn from(error: AdminError) -> Self {
        Self::Admin(error)
    }
}

/// `Retry-After` of a 5xx, in seconds: spread, so that clients that were refused together do not
/// come back together. Senders back off further by themselves.
const RETRY_AFTER: std::ops::RangeInclusive<u64> = 5..=15;

/// The same by OTLP. An SDK that exports without a collector waits this long in place of its own back-off, and
/// drops the batch if that is longer than what is left of its export timeout, 10 s by default
/// (opentelemetry-js `retrying-transport.ts`, opentelemetry-dotnet `OtlpRetry.cs`). The collector waits
/// for the longer of this and its own back-off, so it does not come more often for it.
const OTLP_RETRY_AFTER: std::ops::RangeInclusive<u64> = 1..=4;

/// A device key may also be the password of Basic authentication.
const BASIC: HeaderValue = HeaderValue::from_static("Basic realm=\"device keys\"");

/// What is added to a moment that all who are refused wait for, in seconds: a rate has room again, or the key
/// set is fetched.
const SPREAD: std::ops::RangeInclusive<u64> = 1..=3;

/// The longest `Retry-After` of a rate. A large body that was charged to a small rate may be paid after hours only, and
/// a sender that waits that long sends nothing meanwhile, also when the rate has been raised.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Rounded up: a request before the time is over would be refused again.
fn whole_seconds(after: Duration) -> u64 {
    (after.as_secs() + u64::from(after.subsec_nanos() > 0)).max(1)
}

/// Who reads the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// A Prometheus API client, or an administrator's: JSON.
    Reader,
    /// A client of Alertmanager's API: the same, but for a 400, which is a JSON text there. amtool shows
    /// nothing of another.
    Alertmanager,
    /// A sender: plain text.
    Sender,
    /// A sender by OTLP: the same, but that it is told to come back sooner.
    OtlpSender,
}

impl Audience {
    /// Judges by the surface of the route. For a path without one, the routes that begin in the same way
    /// say who probably asks.
    pub fn of(route: Option<&Route>, path: &str) -> Self {
        match route.map(|route| route.surface).or_else(|| route::surface_near(path)) {
            Some(Surface::Query | Surface::Rules | Surface::Admin) => Self::Reader,
            Some(Surface::Alerts) => Self::Alertmanager,
            Some(Surface::Otlp) => Self::OtlpSender,
            Some(Surface::Push) | None => Self::Sender,
        }
    }

    fn is_sender(self) -> bool {
        matches!(self, Self::Sender | Self::OtlpSender)
    }
}

/// The status that goes with a reason.
fn status_of(reason: Reason) -> StatusCode {
    match reason {
        Reason::MalformedTarget
        | Reason::NoRoute
        | Reason::NotFound
        | Reason::AlertmanagerAbsent => StatusCode::NOT_FOUND,
        // Those of Mimir.
        Reason::AlertmanagerLoading => StatusCode::NOT_ACCEPTABLE,
        Reason::AlertmanagerUnconfigured => StatusCode::PRECONDITION_FAILED,
        // RFC 9110, 15.5.6. mimirtool takes a 404 in answer to DELETE for "it is gone already".
        Reason::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Reason::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        Reason::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::UnsupportedContentType | Reason::UnsupportedContentEncoding => {
            StatusCode::UNSUPPORTED_MEDIA_TYPE
        }
        Reason::UnexpectedBody
        | Reason::BodyMalformed
        | Reason::BodyTooDeep
        | Reason::ExpressionLimit
        | Reason::MalformedSilence
        | Reason::MalformedSelector
        | Reason::NoSelector
        | Reason::MalformedRequest => StatusCode::BAD_REQUEST,
        Reason::NoCredential
        | Reason::MalformedCredential
        | Reason::MalformedToken
        | Reason::WrongAlgorithm
        | Reason::UnknownKey
        | Reason::BadSignature
        | Reason::MalformedClaims
        | Reason::WrongIssuer
        | Reason::WrongRole
        | Reason::WrongAudience
        | Reason::Expired
        | Reason::NotYetValid
        | Reason::Anonymous
        | Reason::OauthClient
        | Reason::Revoked
        | Reason::SessionEnded
        | Reason::MalformedDeviceKey
        | Reason::UnknownDeviceKey
        | Reason::RevokedDeviceKey
        | Reason::ExpiredDeviceKey => StatusCode::UNAUTHORIZED,
        // Not 401: a page gets another token with the same claims then, and asks again in vain.
        Reason::SecondFactorMissing => StatusCode::FORBIDDEN,
        Reason::OriginNotAllowed
        | Reason::NoOrganisation
        | Reason::NotAMember
        | Reason::MissingScope
        | Reason::ServiceOnly => StatusCode::FORBIDDEN,
        Reason::Conflict => StatusCode::CONFLICT,
        // The operator has set a rate on purpose. How large an organisation's share of all slots is
        // depends on what others do, so that is none of its faults.
        Reason::RequestRate
        | Reason::ByteRate
        | Reason::RequestsInFlight
        | Reason::DeviceRequestRate
        | Reason::DeviceByteRate
        | Reason::DeviceRequestsInFlight => StatusCode::TOO_MANY_REQUESTS,
        Reason::OrganisationShare
        | Reason::Overloaded
        | Reason::MemoryShort
        | Reason::ProcessorShort
        | Reason::UpstreamSaturated => StatusCode::SERVICE_UNAVAILABLE,
        // Not 408: Prometheus, Alloy and the collector drop what is answered with it.
        Reason::BodySlow | Reason::BodyIncomplete | Reason::BodySlowForUpstream => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        // Not 403: the organisation's row and the template are the operator's.
        Reason::NoTenant
        | Reason::KeyPending
        | Reason::KeysUnavailable
        | Reason::DatabaseUnavailable
        | Reason::RulerUnavailable
        | Reason::AlertmanagerUnavailable
        | Reason::UpstreamUnresolved
        | Reason::UpstreamUnreachable
        | Reason::UpstreamCircuitOpen
        | Reason::AlertmanagerBusy
        | Reason::UpstreamBroken
        | Reason::UpstreamSevered
        | Reason::UpstreamMisdirected => StatusCode::SERVICE_UNAVAILABLE,
        Reason::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
        Reason::AdminBroken => StatusCode::INTERNAL_SERVER_ERROR,
        // The head of Mimir's response has been passed on when these happen.
        Reason::UpstreamBrokenBody | Reason::UpstreamIdleBody => StatusCode::BAD_GATEWAY,
        Reason::UpstreamUnreadable => StatusCode::BAD_GATEWAY,
    }
}

impl Rejection {
    /// The route that almost matched, or was probably meant, of a request without one.
    pub fn route(&self) -> Option<&'static Route> {
        match self {
            Self::Route(error) => error.meant(),
            _ => None,
        }
    }

    /// See [`Reason`].
    pub fn reason(&self) -> Reason {
        match self {
            Self::Origin(_) => Reason::OriginNotAllowed,
            Self::Route(error) => error.reason(),
            Self::HeadTooLarge => Reason::HeadTooLarge,
            Self::UnexpectedBody => Reason::UnexpectedBody,
            Self::Body(error) => error.reason(),
            Self::ContentType | Self::OtlpHead(OtlpHeadFault::ContentType) => {
                Reason::UnsupportedContentType
            }
            Self::OtlpHead(OtlpHeadFault::ContentEncoding) => Reason::UnsupportedContentEncoding,
            Self::Expression(_) => Reason::ExpressionLimit,
            Self::Silence(SilenceFault::ContentType) => Reason::UnsupportedContentType,
            Self::Silence(SilenceFault::Patterns)
            | Self::RemoteRead(
                RemoteReadFault::Excess(_)
                | RemoteReadFault::Queries { .. }
                | RemoteReadFault::Matchers,
            ) => Reason::ExpressionLimit,
            Self::RemoteRead(RemoteReadFault::Unreadable) => Reason::BodyMalformed,
            Self::Silence(_) => Reason::MalformedSilence,
            Self::Credential(refusal) => refusal.reason(),
            Self::Denied(denial, _) => denial.reason(),
            Self::Limited(error) => error.reason(),
            Self::Failed(error) => error.reason(),
            Self::Admin(error) => error.reason(),
        }
    }

    /// The status of the answer: that of the reason, but for some of which the case matters.
    pub(crate) fn status(&self, audience: Audience) -> StatusCode {
        match self {
            Self::Route(RouteError::Semicolon | RouteError::Name(_)) => StatusCode::BAD_REQUEST,
            // Prometheus drops what is answered with a 429, unless it is told otherwise, and so does the SDK of
            // OpenTelemetry for Python. Every sender repeats what is answered with a 503. A reader loses nothing.
            Self::Limited(
                LimitError::InFlight { .. }
                | LimitError::Requests { .. }
                | LimitError::Bytes { .. },
            ) if audience.is_sender() => StatusCode::SERVICE_UNAVAILABLE,
            other => status_of(other.reason()),
        }
    }

    /// Whether the connection is of no use after the answer: the rest of the request's body, which
    /// did not come in time, would have to be waited for.
    pub fn closes_connection(&self) -> bool {
        // Whoever sent such a head may disagree with us about where the next request begins.
        let is_ambiguous =
            matches!(self, Self::Route(RouteError::Host | RouteError::TransferCoding));
        let is_unfinished = matches!(
            self.reason(),
            Reason::BodySlow | Reason::BodyIncomplete | Reason::BodySlowForUpstream
        );
        is_ambiguous || is_unfinished
    }

    fn message(&self) -> String {
        match self {
            // The origin itself is for the log: it is never repeated to a page that is not allowed.
            Self::Origin(_) => {
                "pages of this origin are not allowed (cors.allowed_origins)".to_owned()
            }
            Self::Route(error) => error.to_string(),
            Self::HeadTooLarge => "the request's head is too large".to_owned(),
            Self::UnexpectedBody => "this request takes no body".to_owned(),
            Self::Body(error) => error.to_string(),
            Self::ContentType => {
                "parameters in a body must be application/x-www-form-urlencoded".to_owned()
            }
            Self::OtlpHead(fault) => fault.to_string(),
            Self::Expression(excess) => excess.to_string(),
            Self::Silence(fault) => fault.to_string(),
            Self::RemoteRead(fault) => fault.to_string(),
            Self::Credential(refusal) => refusal.to_string(),
            Self::Denied(denial, _) => denial.to_string(),
            Self::Limited(error) => error.to_string(),
            Self::Failed(error) => error.to_string(),
            Self::Admin(error) => error.to_string(),
        }
    }

    /// What the log says beyond the reason, and no client sees.
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::Failed(ForwardError::Connect(error)) => Some(error.to_string()),
            // Of pushes Mimir itself answers only those of Influx lines so, if it does not take them.
            Self::Failed(ForwardError::Misdirected(status @ 404)) => Some(format!(
                "upstream answered {status}, which is none of Mimir's answers to a push, but for Influx lines while \
                 distributor.influx_endpoint_enabled is off"
            )),
            Self::Failed(ForwardError::Misdirected(status @ 501)) => Some(format!(
                "upstream answered {status}, which is none of Mimir's answers to a push, but while \
                 ingester.push_grpc_method_enabled is off"
            )),
            Self::Failed(ForwardError::Misdirected(status)) => Some(format!(
                "upstream answered {status}, which is none of Mimir's answers to a push"
            )),
            Self::Failed(ForwardError::Broken(error)) => Some(format!("{error:?}")),
            Self::Failed(ForwardError::Severed(text)) => {
                let beginning = &text[..text.len().min(300)];
                Some(format!("upstream answered {}", String::from_utf8_lossy(beginning).trim()))
            }
            Self::Failed(ForwardError::Unreadable(problem)) => Some(problem.clone()),
            Self::Admin(AdminError::Store(error)) => Some(error.to_string()),
            Self::Admin(AdminError::Ruler(problem) | AdminError::Alertmanager(problem)) => {
                Some(problem.clone())
            }
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

    fn retry_after(&self, audience: Audience) -> Option<Duration> {
        let status = self.status(audience);
        if !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS {
            return None;
        }
        let (least, spread) = match self {
            // Also where the moment is known: who comes too early is told again, and who is told a longer time
            // does not come at all.
            _ if audience == Audience::OtlpSender => (Duration::ZERO, OTLP_RETRY_AFTER),
            Self::Credential(
                Refusal::KeysUnavailable { retry_after }
                | Refusal::KeyPending { retry_after }
                | Refusal::KeyUnusable { retry_after },
            ) => (*retry_after, SPREAD),
            Self::Limited(
                LimitError::Requests { retry_after, .. } | LimitError::Bytes { retry_after, .. },
            ) => {
                let most = LONGEST_RETRY_AFTER.saturating_sub(Duration::from_secs(*SPREAD.end()));
                ((*retry_after).min(most), SPREAD)
            }
            _ => (Duration::ZERO, RETRY_AFTER),
        };
        Some(least + Duration::from_secs(fastrand::u64(spread)))
    }

    /// Prometheus' name for the kind of error.
    fn error_type(&self, audience: Audience) -> &'static str {
        match self.status(audience) {
            StatusCode::UNAUTHORIZED => "unauthorized",
            StatusCode::FORBIDDEN => "forbidden",
            StatusCode::NOT_FOUND => "not_found",
            StatusCode::TOO_MANY_REQUESTS => "too_many_requests",
            StatusCode::GATEWAY_TIMEOUT => "timeout",
            StatusCode::SERVICE_UNAVAILABLE => "unavailable",
            StatusCode::INTERNAL_SERVER_ERROR => "internal",
            StatusCode::BAD_GATEWAY => "unavailable",
            _ => "bad_data",
        }
    }

    pub fn response(&self, audience: Audience, id: &RequestId) -> Response<Full<Bytes>> {
        let (message, status) = (self.message(), self.status(audience));
        let (content_type, text) = match audience {
            Audience::Sender | Audience::OtlpSender => {
                ("text/plain; charset=utf-8", format!("{message}\n"))
            }
            Audience::Alertmanager if status == StatusCode::BAD_REQUEST => {
                ("application/json", serde_json::Value::from(message).to_string())
            }
            Audience::Reader | Audience::Alertmanager => {
                let body = serde_json::json!({
                    "status": "error", "errorType": self.error_type(audience), "error": message,
                });
                ("application/json", body.to_string())
            }
        };
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REQUEST_ID, id.header_value());
        if let Some(after) = self.retry_after(audience) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, self.challenge());
            if self.offers_basic(audience) {
                // A line of its own: not every client looks behind a comma.
                headers.append(header::WWW_AUTHENTICATE, BASIC);
            }
        }
        if let Self::Route(error) = self
            && let Some(Ok(allowed)) = error.allowed().map(HeaderValue::try_from)
        {
            headers.insert(header::ALLOW, allowed);
        }
        response
    }

    /// Whether Basic is offered (RFC 7617), which is for device keys: where devices push. Elsewhere users
    /// send tokens, and a browser would ask them for a password and keep the page's request waiting.
    fn offers_basic(&self, audience: Audience) -> bool {
        let is_credential =
            matches!(self.reason(), Reason::NoCredential | Reason::MalformedCredential);
        audience.is_sender()
            && (is_credential || matches!(self, Self::Credential(Refusal::DeviceKey(_))))
    }

    /// RFC 6750, section 3: without a credential only the scheme, else also what was wrong.
    fn challenge(&self) -> HeaderValue {
        HeaderValue::from_static(match self.reason() {
            Reason::NoCredential => "Bearer",
            Reason::MalformedCredential => "Bearer error=\"invalid_request\"",
            _ => "Bearer error=\"invalid_token\"",
        })
    }
}

#[cfg(test)]
mod tests;
