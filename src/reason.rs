//! Why a client got no answer of Mimir's, one variant a reason: the metric label, the field of the
//! log, and whether it is a rejection or a failure.
//!
//! The bottom of the request path. Each stage keeps an error type of its own and maps it to a
//! reason by an exhaustive match; [`rejection`](crate::rejection) makes the status of it, and
//! [`telemetry`](crate::telemetry) has a counter for each, because its counters are an array with
//! as many places as there are variants. The strings are a contract with alerts and dashboards.

use strum::{EnumCount, EnumMessage, IntoStaticStr, VariantArray, VariantNames};

/// See the module. The first line of each variant's documentation is its meaning in
/// `docs/reference/metrics.md`.
#[derive(
    Clone,
    Copy,
    Debug,
    EnumCount,
    EnumMessage,
    Eq,
    Hash,
    IntoStaticStr,
    PartialEq,
    VariantArray,
    VariantNames,
)]
#[strum(serialize_all = "snake_case")]
pub enum Reason {
    /// Preflight of a page whose origin is not in `cors.allowed_origins`.
    OriginNotAllowed,
    /// No route has this path.
    NoRoute,
    /// A route has this path, but not this method.
    MethodNotAllowed,
    /// The request target is not a path, or the query string separates parameters with `;`.
    MalformedTarget,
    /// The head is larger than `listen.max_header_bytes`.
    HeadTooLarge,
    /// A body where the route takes none.
    UnexpectedBody,
    /// The body is larger than its route allows.
    BodyTooLarge,
    /// The body came too slowly.
    BodySlow,
    /// The body ended early.
    BodyIncomplete,
    /// The framing of the body is malformed.
    BodyMalformed,
    /// The body came too slowly for Mimir, which gave up reading it.
    BodySlowForUpstream,
    /// Parameters in a body that is not `application/x-www-form-urlencoded`, or a silence that is not
    /// `application/json`.
    UnsupportedContentType,
    /// A silence that is not the JSON of Alertmanager's API.
    MalformedSilence,
    /// An expression exceeds a limit (`limits.expression_…`).
    ExpressionLimit,
    /// No credential.
    NoCredential,
    /// The `Authorization` header is malformed, or there are several.
    MalformedCredential,
    /// The token is not a JSON web token, or demands an extension.
    MalformedToken,
    /// The token's algorithm is not accepted, or is not that of its key.
    WrongAlgorithm,
    /// The token names no key, or one that is not in the key set.
    UnknownKey,
    /// The token's key is not in the key set yet; the set is fetched again shortly.
    KeyPending,
    /// The token's signature is wrong.
    BadSignature,
    /// A claim is missing or cannot be read.
    MalformedClaims,
    /// The token's issuer is not `auth.issuer`.
    WrongIssuer,
    /// The token's role is not a user's.
    WrongRole,
    /// The token's audience is not `auth.audience`.
    WrongAudience,
    /// The token has expired.
    Expired,
    /// The token is not valid yet: clocks differ.
    NotYetValid,
    /// The token is an anonymous user's.
    Anonymous,
    /// The token was issued to an OAuth client that is not accepted.
    OauthClient,
    /// The token, or all tokens of its user, were revoked.
    Revoked,
    /// The token's session has ended.
    SessionEnded,
    /// The device key is mistyped or cut off.
    MalformedDeviceKey,
    /// The device key is unknown, or there is no database.
    UnknownDeviceKey,
    /// The device key was revoked.
    RevokedDeviceKey,
    /// The device key has expired.
    ExpiredDeviceKey,
    /// `X-Scope-OrgID` cannot be read.
    MalformedSelector,
    /// The caller belongs to several organisations and names none.
    NoSelector,
    /// The caller belongs to no organisation, or the token names none.
    NoOrganisation,
    /// The caller names an organisation that is not theirs.
    NotAMember,
    /// The caller lacks the scope.
    MissingScope,
    /// Only an operator's service may do this.
    ServiceOnly,
    /// The organisation sends more requests a second than it may.
    RequestRate,
    /// The organisation sends more bytes a second than it may.
    ByteRate,
    /// The organisation has as many requests in flight as it may.
    RequestsInFlight,
    /// The organisation has its share of all requests in flight.
    OrganisationShare,
    /// All organisations together have as many requests in flight, or waiting, as this copy takes.
    Overloaded,
    /// All instances of Mimir have `upstream.max_in_flight` requests.
    UpstreamSaturated,
    /// The head breaks a rule of HTTP (`Host`, `Transfer-Encoding`), or a request to `/admin` asks for something impossible.
    MalformedRequest,
    /// A request to `/admin` names something that does not exist.
    NotFound,
    /// A request to `/admin` contradicts the present state.
    Conflict,
    /// The issuer's key set was never fetched, or is older than `auth.jwks_max_age`.
    KeysUnavailable,
    /// The database gives no answer, and what it would say is not known.
    DatabaseUnavailable,
    /// Mimir's ruler gives no answer to a request to `/admin`.
    RulerUnavailable,
    /// Mimir's Alertmanager gave no usable answer to an administrator's request.
    AlertmanagerUnavailable,
    /// A fault of the proxy itself in `/admin`.
    AdminBroken,
    /// The organisation has as many reads of its Alertmanager in flight as Mimir runs for one tenant.
    AlertmanagerBusy,
    /// Mimir has the organisation's Alertmanager configuration and has not loaded it yet.
    AlertmanagerLoading,
    /// The organisation has no Alertmanager configuration, and Mimir has no fallback.
    AlertmanagerUnconfigured,
    /// Mimir runs without an Alertmanager.
    AlertmanagerAbsent,
    /// No instance of Mimir is known.
    UpstreamUnresolved,
    /// No instance of Mimir could be connected to.
    UpstreamUnreachable,
    /// Circuit open: recent connection attempts failed, and a trial request is in flight.
    UpstreamCircuitOpen,
    /// Mimir did not begin its response in time.
    UpstreamTimeout,
    /// The connection to Mimir broke before the head of a response.
    UpstreamBroken,
    /// The status is none of Mimir's: something else answers at the address.
    UpstreamMisdirected,
    /// An answer of Mimir's that must be rewritten cannot be read, or is too large.
    UpstreamUnreadable,
    /// The connection to Mimir broke in the middle of a response.
    UpstreamBrokenBody,
    /// Mimir paused for too long in the middle of a response.
    UpstreamIdleBody,
}

/// How a request for which there is a reason counts.
#[derive(Clone, Copy, Debug, IntoStaticStr, PartialEq, Eq)]
#[strum(serialize_all = "snake_case")]
pub enum Class {
    /// Refused on purpose. Nothing is broken, also where the status is a 503 so that senders keep
    /// what they have.
    Rejected,
    /// Something of the operator's is broken or not there: somebody should look.
    Failed,
}

/// What has a reason.
pub trait HasReason {
    /// See [`Reason`].
    fn reason(&self) -> Reason;
}

impl Reason {
    /// The label of metrics and the field of the log.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Whether it is a rejection or a failure. An alert on failures must not fire for a tenant at
    /// its limit, a device on a thin line or a token that anybody can make up.
    pub fn class(self) -> Class {
        match self {
            Self::OriginNotAllowed
            | Self::NoRoute
            | Self::MethodNotAllowed
            | Self::MalformedTarget
            | Self::HeadTooLarge
            | Self::UnexpectedBody
            | Self::BodyTooLarge
            | Self::BodySlow
            | Self::BodyIncomplete
            | Self::BodyMalformed
            | Self::BodySlowForUpstream
            | Self::UnsupportedContentType
            | Self::MalformedSilence
            | Self::ExpressionLimit
            | Self::NoCredential
            | Self::MalformedCredential
            | Self::MalformedToken
            | Self::WrongAlgorithm
            | Self::UnknownKey
            | Self::KeyPending
            | Self::BadSignature
            | Self::MalformedClaims
            | Self::WrongIssuer
            | Self::WrongRole
            | Self::WrongAudience
            | Self::Expired
            | Self::NotYetValid
            | Self::Anonymous
            | Self::OauthClient
            | Self::Revoked
            | Self::SessionEnded
            | Self::MalformedDeviceKey
            | Self::UnknownDeviceKey
            | Self::RevokedDeviceKey
            | Self::ExpiredDeviceKey
            | Self::MalformedSelector
            | Self::NoSelector
            | Self::NoOrganisation
            | Self::NotAMember
            | Self::MissingScope
            | Self::ServiceOnly
            | Self::RequestRate
            | Self::ByteRate
            | Self::RequestsInFlight
            | Self::OrganisationShare
            | Self::Overloaded
            | Self::UpstreamSaturated
            | Self::MalformedRequest
            | Self::NotFound
            | Self::Conflict
            | Self::AlertmanagerBusy
            | Self::AlertmanagerLoading
            | Self::AlertmanagerUnconfigured
            | Self::AlertmanagerAbsent => Class::Rejected,
            Self::KeysUnavailable
            | Self::DatabaseUnavailable
            | Self::RulerUnavailable
            | Self::AlertmanagerUnavailable
            | Self::AdminBroken
            | Self::UpstreamUnresolved
            | Self::UpstreamUnreachable
            | Self::UpstreamCircuitOpen
            | Self::UpstreamTimeout
            | Self::UpstreamBroken
            | Self::UpstreamMisdirected
            | Self::UpstreamUnreadable
            | Self::UpstreamBrokenBody
            | Self::UpstreamIdleBody => Class::Failed,
        }
    }
}
