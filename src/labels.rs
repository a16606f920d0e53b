//! Label values of metrics that several modules share. They stand below the module that decides
//! and the one that counts, so that counters are arrays with as many places as there are variants:
//! a new variant cannot go uncounted.

use serde::{Deserialize, Serialize};
use strum::{EnumCount, IntoStaticStr, VariantArray, VariantNames};
use utoipa::ToSchema;

/// Why a downstream connection ended.
#[derive(
    Clone, Copy, Debug, EnumCount, IntoStaticStr, PartialEq, Eq, VariantArray, VariantNames,
)]
#[strum(serialize_all = "snake_case")]
pub enum ConnectionEnd {
    /// By the client, after its last response, or while the process drains.
    Closed,
    IdleTimeout,
    HeaderTimeout,
    WriteTimeout,
    ProtocolError,
    /// A balancer that must say whose connection it is has not.
    ProxyHeader,
    /// Its TLS handshake has failed.
    Handshake,
    /// Its client was silent while all connections were taken and another client waited.
    Evicted,
}

/// What became of a TLS handshake with a client.
#[derive(
    Clone, Copy, Debug, EnumCount, IntoStaticStr, PartialEq, Eq, VariantArray, VariantNames,
)]
#[strum(serialize_all = "snake_case")]
pub enum TlsHandshake {
    Full,
    /// With what both sides kept of an earlier one.
    Resumed,
    /// The client did not finish it in time.
    Timeout,
    /// The client went away, or the process ended.
    Closed,
    /// The client speaks something else, such as HTTP.
    NotTls,
    /// No version, cipher or protocol in common.
    NoAgreement,
    /// The client does not trust our certificate.
    Refused,
    /// The client's certificate is missing, expired, or of an unknown authority.
    ClientCertificate,
    /// Anything else that the client did wrong.
    Invalid,
}

/// What an instance of Mimir did, or did not do: why it is ejected.
#[derive(
    Clone, Copy, Debug, EnumCount, IntoStaticStr, PartialEq, Eq, VariantArray, VariantNames,
)]
#[strum(serialize_all = "snake_case")]
pub enum InstanceFault {
    /// It could not be connected to.
    Unreachable,
    /// It did not begin a response in time.
    Timeout,
    /// It broke off before the head of a response.
    Broken,
    /// It broke off, or fell silent, in the middle of a response.
    BrokenBody,
    /// It answered with a status that is its own fault.
    ServerError,
    /// It says that it is not ready.
    NotReady,
    /// It is new, and has not been seen ready yet.
    New,
}

/// Why a request was sent again.
#[derive(
    Clone, Copy, Debug, EnumCount, IntoStaticStr, PartialEq, Eq, VariantArray, VariantNames,
)]
#[strum(serialize_all = "snake_case")]
pub enum Resend {
    /// The instance could not be connected to: nothing had been sent.
    Unreachable,
    /// A kept connection had been closed before the request came.
    Stale,
    /// The connection broke.
    Broken,
    /// The instance answered that it does nothing now.
    Unavailable,
}

/// Why a request that failed was not sent again.
#[derive(
    Clone, Copy, Debug, EnumCount, IntoStaticStr, PartialEq, Eq, VariantArray, VariantNames,
)]
#[strum(serialize_all = "snake_case")]
pub enum NoResend {
    /// Doing it twice is not doing it once, or its body was not kept.
    Unsafe,
    /// It was resent once already.
    Repeated,
    /// The retry budget is spent.
    Budget,
    /// There is no other instance.
    #[strum(serialize = "no_other_instance")]
    NoInstance,
}

/// What is looked up in the database.
#[derive(
    Clone, Copy, Debug, EnumCount, IntoStaticStr, PartialEq, Eq, VariantArray, VariantNames,
)]
#[strum(serialize_all = "snake_case")]
pub enum LookupKind {
    Membership,
    DeviceKey,
    /// Whether there is any device key.
    AnyDeviceKey,
    Session,
    Organisation,
}

/// Why a span did not reach the collector.
#[derive(
    Clone, Copy, Debug, EnumCount, IntoStaticStr, PartialEq, Eq, VariantArray, VariantNames,
)]
#[strum(serialize_all = "snake_case")]
pub enum SpanDrop {
    /// It did not fit the queue, or its trace.
    QueueFull,
    /// The collector did not answer, time and again.
    CollectorAway,
    /// The collector does not take it.
    Refused,
}

/// What became of a message of the ruler's.
#[derive(
    Clone, Copy, Debug, EnumCount, Hash, IntoStaticStr, PartialEq, Eq, VariantArray, VariantNames,
)]
#[strum(serialize_all = "snake_case")]
pub enum AlertPost {
    Accepted,
    /// The secret is wrong or missing.
    Unauthorised,
    /// It, or one of its alerts, is none.
    Malformed,
    TooLarge,
    UnknownOrganisation,
    /// The buffer is full.
    NoRoom,
    /// Too many at once.
    Busy,
}

/// Why an alert becomes no event.
#[derive(
    Clone, Copy, Debug, EnumCount, Hash, IntoStaticStr, PartialEq, Eq, VariantArray, VariantNames,
)]
#[strum(serialize_all = "snake_case")]
pub enum AlertDrop {
    Malformed,
    UnknownOrganisation,
    /// The buffer is full.
    NoRoom,
    /// The organisation has as many open events as it may.
    OverLimit,
    /// The database refuses it.
    Refused,
}

/// What a reconcile of one tenant came to, without details. Also in the JSON of a sync's outcome.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    EnumCount,
    IntoStaticStr,
    VariantArray,
    VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum OutcomeKind {
    Unchanged,
    Applied,
    Held,
    Deferred,
    Failed,
    LeaseLost,
}

/// The status of a row of `alert_rule`, also in its table and in JSON.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    EnumCount,
    IntoStaticStr,
    VariantArray,
    VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum RuleState {
    /// It will be written to Mimir, but is not yet.
    Pending,
    /// Mimir has it as its row says, and has not been seen to evaluate it.
    Stored,
    /// Mimir has it as its row says, and its last evaluation was successful and recent.
    Live,
    /// Mimir has it as its row says, and does not evaluate it, or without success.
    Failing,
    /// It cannot be evaluated; its author has to change it.
    Invalid,
    /// The tenant's limits leave no room for it.
    OverLimit,
    Disabled,
    /// It could not be written, and that is not its author's fault.
    Error,
}

impl RuleState {
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Whether Mimir has the rule exactly as its row says.
    pub fn is_in_mimir(self) -> bool {
        match self {
            Self::Stored | Self::Live | Self::Failing => true,
            Self::Pending | Self::Invalid | Self::OverLimit | Self::Disabled | Self::Error => false,
        }
    }
}

/// The status of a row of `notification_channel` or `notification_route`, also in its table and in JSON.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    EnumCount,
    IntoStaticStr,
    VariantArray,
    VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum NotificationState {
    /// It will be written to Mimir, but is not yet.
    Pending,
    /// Mimir has it as it is.
    Live,
    /// It cannot be used; its author has to change it.
    Invalid,
    /// The organisation has too many.
    OverLimit,
    Disabled,
    /// It could not be written, and that is not its author's fault.
    Error,
}

impl NotificationState {
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Live, Self::Invalid, Self::OverLimit, Self::Disabled, Self::Error];

    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// What became of a test of a notification channel, also in JSON.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Serialize,
    EnumCount,
    IntoStaticStr,
    ToSchema,
    VariantArray,
    VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum TestOutcome {
    /// The channel's service has accepted it.
    Delivered,
    /// It was sent and not accepted.
    Failed,
    /// The channel is not live, so nothing was sent.
    NotLive,
    /// Mimir has not loaded the channel yet, so nothing was sent.
    NotLoaded,
    /// It cannot be said.
    Unknown,
}

impl TestOutcome {
    pub fn name(self) -> &'static str {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_json_and_metrics_agree() {
        for kind in <OutcomeKind as VariantArray>::VARIANTS {
            let name: &str = kind.into();
            assert_eq!(serde_json::to_string(kind).unwrap(), format!("{name:?}"));
        }
        for state in <RuleState as VariantArray>::VARIANTS {
            assert_eq!(serde_json::to_string(state).unwrap(), format!("{:?}", state.name()));
        }
        for state in <NotificationState as VariantArray>::VARIANTS {
            assert_eq!(serde_json::to_string(state).unwrap(), format!("{:?}", state.name()));
        }
        for outcome in <TestOutcome as VariantArray>::VARIANTS {
            assert_eq!(serde_json::to_string(outcome).unwrap(), format!("{:?}", outcome.name()));
        }
    }
}
