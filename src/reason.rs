//! Why a client got no answer of Mimir's, one variant a reason: the metric label, the field of the
//! log, and whether it is a rejection or a failure.
//!
//! The bottom of the request path. Each stage keeps an error type of its own and maps it to a
//! reason by an exhaustive match; [`rejection`](crate::rejection) makes the status of it, and
//! [`telemetry`](crate::telemetry) has a counter for each, because its counters are an array with
//! as many places as there are variants. The strings are a contract with alerts and dashboards.

use strum::{EnumCount, EnumMessage, IntoStaticStr, VariantArray, VariantNames};

/// See the module. A variant's documentation is its meaning in `docs/reference/reasons.md`, its message
/// what an operator does about it.
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
    #[strum(
        message = "Is the page yours? Add its origin to `cors.allowed_origins`; `detail` has it. Else leave it."
    )]
    OriginNotAllowed,
    /// No route has this path.
    #[strum(
        message = "Correct the address in the client; the answer names the path that was probably meant."
    )]
    NoRoute,
    /// A route has this path, but not this method.
    #[strum(
        message = "Use a method of the answer's `Allow`. Rules and Alertmanager configurations are rows, not requests."
    )]
    MethodNotAllowed,
    /// The request target is not a path, or the query string separates parameters with `;`.
    #[strum(message = "Correct the address in the client.")]
    MalformedTarget,
    /// The head is larger than `listen.max_header_bytes`, or has more than 100 fields.
    #[strum(
        message = "Find what the client puts into its headers (cookies?); raise `listen.max_header_bytes` only if it needs them."
    )]
    HeadTooLarge,
    /// A body where the route takes none.
    #[strum(message = "Correct the client: it sends a body with a request that has none.")]
    UnexpectedBody,
    /// The body is larger than its route allows.
    #[strum(
        message = "Let the sender make smaller batches, or raise the limit that `detail` names, in Mimir too."
    )]
    BodyTooLarge,
    /// The body came too slowly.
    #[strum(
        message = "Check the client's line. Let the sender make smaller batches; raise `limits.body_timeout` if its line is that thin."
    )]
    BodySlow,
    /// The body ended early.
    #[strum(
        message = "Check the client's line and what is between: the connection ended in the middle of a body."
    )]
    BodyIncomplete,
    /// The framing of the body is malformed, or a remote read or an OTLP export is not one.
    #[strum(
        message = "Correct the client, or what is between; `detail` says whether it breaks the framing of HTTP, or its body is not what its headers say."
    )]
    BodyMalformed,
    /// The values of an OTLP export nest more than 100 levels deep, which takes Mimir's memory or ends it.
    #[strum(
        message = "Correct the client: no attribute of a metric nests like that. If it is none of yours, revoke its credential."
    )]
    BodyTooDeep,
    /// The body came too slowly for Mimir, which gave up reading it.
    #[strum(
        message = "Raise Mimir's `server.http_server_read_timeout` above `limits.body_timeout`; `check-config --mimir` compares them."
    )]
    BodySlowForUpstream,
    /// Parameters in a body that is not `application/x-www-form-urlencoded`, a silence that is not
    /// `application/json`, or an OTLP export that is neither `application/x-protobuf` nor `application/json`.
    #[strum(message = "Correct the client's `Content-Type`; `detail` says which is wanted.")]
    UnsupportedContentType,
    /// An OTLP export in an encoding other than `gzip` that `limits.otlp_unchecked_encodings` does not name.
    #[strum(
        message = "Let the sender compress by gzip (`compression: gzip`). Else allow its encoding, and trust all senders not to end Mimir."
    )]
    UnsupportedContentEncoding,
    /// A silence that is not the JSON of Alertmanager's API.
    #[strum(message = "Correct the client; `detail` says what is wrong in its JSON.")]
    MalformedSilence,
    /// An expression exceeds a limit (`limits.expression_…`), or the regular expressions of a remote read, a silence or a
    /// filter of the Alertmanager do.
    #[strum(
        message = "Simplify the query or split it; `detail` names the limit. Raise `limits.expression_…` if it is honest."
    )]
    ExpressionLimit,
    /// No credential.
    #[strum(
        message = "Configure a token or a device key in the client. A redirect or a proxy between may drop the header."
    )]
    NoCredential,
    /// The `Authorization` header is malformed, or there are several.
    #[strum(
        message = "Correct the header: `Bearer TOKEN`, or Basic with the device key as the password."
    )]
    MalformedCredential,
    /// The token is not a JSON web token, or demands an extension.
    #[strum(
        message = "Let the client send the access token of its session, whole; `explain-token` reads it."
    )]
    MalformedToken,
    /// The token's algorithm is not accepted, or is not that of its key.
    #[strum(
        message = "Is it a token of this project? A token of the legacy secret needs `auth.hs256_secret`; `detail` has the algorithm."
    )]
    WrongAlgorithm,
    /// The token names no key, or one that is not in the key set.
    #[strum(
        message = "Is it a token of this project? Compare `auth.jwks_url` with the issuer. If the key was rotated, sign in again."
    )]
    UnknownKey,
    /// The token's key is not in the key set yet; the set is fetched again shortly.
    #[strum(
        message = "Nothing: the client retries, and the key set is fetched within seconds. Behind a cache that serves an older copy it can last for 20 minutes. If it lasts longer, see `key_set_fetches_total`."
    )]
    KeyPending,
    /// The token's signature is wrong.
    #[strum(
        message = "Is it a token of this project, whole and unchanged? With `auth.hs256_secret`: compare the secret."
    )]
    BadSignature,
    /// A claim is missing or cannot be read.
    #[strum(
        message = "Compare the token's claims with `[tenancy]`: `explain-token` shows them. Check the token hook."
    )]
    MalformedClaims,
    /// The token's issuer is not `auth.issuer`.
    #[strum(
        message = "Is it a token of this project? Compare `auth.issuer` with the token's `iss`."
    )]
    WrongIssuer,
    /// The token's role is not a user's.
    #[strum(
        message = "Let the client send the session's access token, not the project's `anon` or `service_role` key."
    )]
    WrongRole,
    /// The token's audience is not `auth.audience`.
    #[strum(message = "Compare `auth.audience` with the token's `aud`.")]
    WrongAudience,
    /// The token has expired.
    #[strum(
        message = "Let the client refresh its session, or sign in again. If tokens of all users expire early, compare the clocks."
    )]
    Expired,
    /// The token is not valid yet: clocks differ.
    #[strum(
        message = "Compare the clocks of this machine and the issuer; `auth.leeway` bridges small differences."
    )]
    NotYetValid,
    /// The token is an anonymous user's.
    #[strum(message = "Let the user sign in, or set `auth.allow_anonymous`.")]
    Anonymous,
    /// The token was issued to an OAuth client that is not accepted.
    #[strum(message = "Add the client to `auth.oauth_clients` if it is yours.")]
    OauthClient,
    /// The user has signed in without the second factor that is required here.
    #[strum(
        message = "Let the user verify a second factor and send the new token; `auth.required_aal` and `auth.admin_required_aal` say where one is required."
    )]
    SecondFactorMissing,
    /// The token, or all tokens of its user, were revoked.
    #[strum(
        message = "Sign in again. If it was not meant, see the table `revocation` and the audit log."
    )]
    Revoked,
    /// The token's session has ended.
    #[strum(message = "Sign in again.")]
    SessionEnded,
    /// The device key is mistyped or cut off.
    #[strum(
        message = "Copy the key again, whole. If it is lost, create another: it cannot be shown twice."
    )]
    MalformedDeviceKey,
    /// The device key is unknown, or there is no database.
    #[strum(
        message = "Is it a key of this proxy and database? Create another. Many of them mean that a client guesses keys."
    )]
    UnknownDeviceKey,
    /// The device key was revoked.
    #[strum(
        message = "Create another key for the device if it is still yours; `principal.id` says which it was."
    )]
    RevokedDeviceKey,
    /// The device key has expired.
    #[strum(
        message = "Create another key for the device, and longer ahead next time (`DeviceKeysInGrace`)."
    )]
    ExpiredDeviceKey,
    /// `X-Scope-OrgID` cannot be read.
    #[strum(
        message = "Correct `X-Scope-OrgID` in the client: one organisation's ID, or several with `|` between them."
    )]
    MalformedSelector,
    /// The caller belongs to several organisations and names none.
    #[strum(message = "Let the client name the organisation in `X-Scope-OrgID`.")]
    NoSelector,
    /// The caller belongs to no organisation, or the token names none.
    #[strum(
        message = "Add the user to an organisation, or check the claim that `[tenancy]` names."
    )]
    NoOrganisation,
    /// The organisation's identifier and `tenancy.tenant_template` make no tenant ID that Mimir takes.
    #[strum(
        message = "Give the organisation another identifier, or shorten `tenancy.tenant_template`; `detail` names it and says what Mimir refuses."
    )]
    NoTenant,
    /// The caller names an organisation that is not theirs.
    #[strum(
        message = "Correct the ID in `X-Scope-OrgID` (`organisation.asked` has it), or add the user to the organisation."
    )]
    NotAMember,
    /// The caller lacks the scope.
    #[strum(
        message = "Give the member another role, or the device a key with the scope; `detail` names it."
    )]
    MissingScope,
    /// Only an operator's service may do this.
    #[strum(message = "Use an admin key or a token of a service; members cannot do this.")]
    ServiceOnly,
    /// The organisation sends more requests a second than it may.
    #[strum(
        message = "Find out why the organisation sends so much; raise its `…_requests_per_second` if it may."
    )]
    RequestRate,
    /// The organisation sends more bytes a second than it may.
    #[strum(
        message = "Find out why the organisation sends so much; raise its `…_bytes_per_second` if it may."
    )]
    ByteRate,
    /// The organisation has as many requests in flight as it may.
    #[strum(
        message = "Is Mimir slow? Then that is the cause. Else the organisation sends more at a time than it may: `…_in_flight`."
    )]
    RequestsInFlight,
    /// The device sends more requests a second than it may.
    #[strum(
        message = "Is it in a loop? Repair it: `principal.id` has the key, or the user. Else raise `device_…_requests_per_second`."
    )]
    DeviceRequestRate,
    /// The device sends more bytes a second than it may.
    #[strum(
        message = "Find out why the device sends so much: `principal.id` has the key, or the user. Else raise `device_…_bytes_per_second`."
    )]
    DeviceByteRate,
    /// The device has as many requests in flight as it may.
    #[strum(
        message = "Is Mimir slow? Then that is the cause. Else the device sends more at a time than it may: `device_…_in_flight`."
    )]
    DeviceRequestsInFlight,
    /// The organisation has its share of all requests in flight.
    #[strum(
        message = "Is Mimir slow? Then that is the cause. Else see `limits.organisation_percent`."
    )]
    OrganisationShare,
    /// All organisations together have as many requests in flight, or waiting, as this copy takes.
    #[strum(
        message = "Is Mimir slow? Then that is the cause. Else start another copy, or raise `limits.in_flight`."
    )]
    Overloaded,
    /// The memory of this copy is nearly used up.
    #[strum(
        message = "See [ProxyShedsForMemory](../runbooks/limits.md#proxyshedsformemory): more memory, more copies, or fewer slow clients."
    )]
    MemoryShort,
    /// The worker has more to do than it has processor time for.
    #[strum(
        message = "Start another copy, or give this one more processors: `worker_lag_seconds` says how late it is."
    )]
    ProcessorShort,
    /// All instances of Mimir have `upstream.max_in_flight` requests.
    #[strum(
        message = "Is Mimir slow? Then that is the cause. Else add instances, or raise `upstream.max_in_flight`."
    )]
    UpstreamSaturated,
    /// The head breaks a rule of HTTP (`Host`, `Transfer-Encoding`), or a request to `/admin` asks for something impossible.
    #[strum(message = "Correct the client; `detail` says what is wrong.")]
    MalformedRequest,
    /// A request to `/admin` names something that does not exist.
    #[strum(message = "Correct the ID in the request, or switch on the function that it asks for.")]
    NotFound,
    /// A request to `/admin` contradicts the present state.
    #[strum(message = "Read the present state, and ask again; `detail` says what contradicts.")]
    Conflict,
    /// The issuer's key set was never fetched, is older than `auth.jwks_max_age`, is suddenly empty, or has the token's key in a kind that is not supported.
    #[strum(
        message = "Restore access to the issuer's key set, or sign with a supported key: [KeySetOld](../runbooks/identity.md#keysetold)."
    )]
    KeysUnavailable,
    /// The database gives no answer, and what it would say is not known; or a row cannot be read, or there
    /// is no device key at all.
    #[strum(
        message = "Restore the database: [DatabaseLookupsFailing](../runbooks/identity.md#databaselookupsfailing). If `detail` says that `device_key` is empty: [restore it](../operations/backup.md#restore-the-database), or create a key."
    )]
    DatabaseUnavailable,
    /// Mimir's ruler gives no answer to a request to `/admin`.
    #[strum(
        message = "Check Mimir's ruler: [AlertRulesOfTenantsFailing](../runbooks/rules.md#alertrulesoftenantsfailing)."
    )]
    RulerUnavailable,
    /// Mimir's Alertmanager gave no usable answer to an administrator's request.
    #[strum(
        message = "Check Mimir's Alertmanager: [ChannelsOfOrganisationsFailing](../runbooks/channels.md#channelsoforganisationsfailing)."
    )]
    AlertmanagerUnavailable,
    /// A fault of the proxy itself in `/admin`.
    #[strum(message = "Report it with its log line: it is a fault of the proxy.")]
    AdminBroken,
    /// The organisation has as many reads of its Alertmanager in flight as Mimir runs for one tenant.
    #[strum(
        message = "Let the client poll less often, or raise Mimir's `alertmanager.max_concurrent_get_requests_per_tenant`."
    )]
    AlertmanagerBusy,
    /// Mimir has the organisation's Alertmanager configuration and has not loaded it yet.
    #[strum(
        message = "Wait for Mimir's poll interval. If it lasts: [AlertmanagerConfigurationNotLoaded](../runbooks/notifications.md#alertmanagerconfigurationnotloaded)."
    )]
    AlertmanagerLoading,
    /// The organisation has no Alertmanager configuration, and Mimir has no fallback.
    #[strum(
        message = "Let the organisation create a channel, or give Mimir a fallback configuration."
    )]
    AlertmanagerUnconfigured,
    /// Mimir runs without an Alertmanager.
    #[strum(message = "Run Mimir with its Alertmanager, or take the data source away.")]
    AlertmanagerAbsent,
    /// No instance of Mimir is known.
    #[strum(
        message = "Check the name in `upstream.urls`, and DNS or Consul: [MimirUnreachable](../runbooks/upstreams.md#mimirunreachable)."
    )]
    UpstreamUnresolved,
    /// No instance of Mimir could be connected to.
    #[strum(
        message = "Check that Mimir runs and its port can be reached: [MimirUnreachable](../runbooks/upstreams.md#mimirunreachable)."
    )]
    UpstreamUnreachable,
    /// Circuit open: recent connection attempts failed, and a trial request is in flight.
    #[strum(message = "As `upstream_unreachable`: Mimir was unreachable a moment ago.")]
    UpstreamCircuitOpen,
    /// Mimir did not begin its response in time.
    #[strum(
        message = "Is Mimir slow? See its metrics; raise `upstream.response_timeout` only for queries that may take that long."
    )]
    UpstreamTimeout,
    /// The connection to Mimir broke before the head of a response.
    #[strum(
        message = "Did Mimir crash, or was it replaced? `upstream.address` names the instance; see its log."
    )]
    UpstreamBroken,
    /// An instance of Mimir could not reach another part of Mimir that the request needs, such as an ingester that died.
    #[strum(
        message = "Is an instance of Mimir gone, or starting, or Consul away? `detail` has what Mimir said. One that does not come back must be [taken out of the ring](../operations/upstreams.md#when-an-instance-does-not-come-back)."
    )]
    UpstreamSevered,
    /// The status is none of Mimir's: something else answers at the address.
    #[strum(
        message = "Check `upstream.urls`: something else than Mimir answers there; `detail` has the status. With 404 for Influx lines alone, set `distributor.influx_endpoint_enabled` in Mimir."
    )]
    UpstreamMisdirected,
    /// An answer of Mimir's that must be rewritten cannot be read, or is too large.
    #[strum(
        message = "Check `upstream.urls`, and the versions of Mimir's instances; `detail` says what was not understood."
    )]
    UpstreamUnreadable,
    /// The connection to Mimir broke in the middle of a response.
    #[strum(
        message = "Did Mimir crash, or was it replaced? `upstream.address` names the instance; see its log."
    )]
    UpstreamBrokenBody,
    /// Mimir paused for too long in the middle of a response.
    #[strum(message = "Is Mimir overloaded? `upstream.address` names the instance; see its log.")]
    UpstreamIdleBody,
}

/// How a request for which there is a reason counts.
#[derive(Clone, Copy, Debug, IntoStaticStr, PartialEq, Eq)]
#[strum(serialize_all = "snake_case")]
pub enum Class {
    /// Refused on purpose. Nothing is broken, also where the status is a 503 so that senders keep
    /// what they have.
    Rejected,
    /// Something of the operator's is broken or unavailable: the operator should look.
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
    /// its limit, a device on a thin line or a token that any client can make up.
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
            | Self::BodyTooDeep
            | Self::BodySlowForUpstream
            | Self::UnsupportedContentType
            | Self::UnsupportedContentEncoding
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
            | Self::SecondFactorMissing
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
            | Self::DeviceRequestRate
            | Self::DeviceByteRate
            | Self::DeviceRequestsInFlight
            | Self::OrganisationShare
            | Self::Overloaded
            | Self::MemoryShort
            | Self::ProcessorShort
            | Self::UpstreamSaturated
            | Self::MalformedRequest
            | Self::NotFound
            | Self::Conflict
            | Self::AlertmanagerBusy
            | Self::AlertmanagerLoading
            | Self::AlertmanagerUnconfigured
            | Self::AlertmanagerAbsent => Class::Rejected,
            Self::NoTenant
            | Self::KeysUnavailable
            | Self::DatabaseUnavailable
            | Self::RulerUnavailable
            | Self::AlertmanagerUnavailable
            | Self::AdminBroken
            | Self::UpstreamUnresolved
            | Self::UpstreamUnreachable
            | Self::UpstreamCircuitOpen
            | Self::UpstreamTimeout
            | Self::UpstreamBroken
            | Self::UpstreamSevered
            | Self::UpstreamMisdirected
            | Self::UpstreamUnreadable
            | Self::UpstreamBrokenBody
            | Self::UpstreamIdleBody => Class::Failed,
        }
    }
}

/// What shares lines in the log, of which each kind has so many a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampled {
    /// Not served, for a reason.
    Unserved(Reason),
    /// Of a caller that is not known, and not refused: files for everybody, preflights, and what the
    /// client gave up before it was known.
    UnknownCaller,
}

impl Sampled {
    /// The name of [`Sampled::UnknownCaller`] in metrics and in the log, beside those of the reasons.
    pub const UNKNOWN_CALLER: &str = "unknown_caller";
    pub const COUNT: usize = Reason::COUNT + 1;

    pub const ALL: [Self; Self::COUNT] = {
        let mut all = [Self::UnknownCaller; Self::COUNT];
        let mut at = 0;
        while at < Reason::COUNT {
            all[at] = Self::Unserved(<Reason as VariantArray>::VARIANTS[at]);
            at += 1;
        }
        all
    };

    /// Its place in [`Sampled::ALL`].
    pub fn index(self) -> usize {
        match self {
            Self::Unserved(reason) => reason as usize,
            Self::UnknownCaller => Reason::COUNT,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Unserved(reason) => reason.name(),
            Self::UnknownCaller => Self::UNKNOWN_CALLER,
        }
    }
}
