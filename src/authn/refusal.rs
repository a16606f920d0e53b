//! Why a credential is refused. The texts go to the client, which may be an attacker: they speak of
//! its own credential only, and say what its owner can do.

use std::fmt;
use std::time::Duration;

use crate::reason::Reason;
use crate::tenancy::{DeviceId, UserId};

/// Why no principal could be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request carries no credential in a known form.
    #[error(transparent)]
    Credential(#[from] CredentialFault),
    #[error(transparent)]
    Token(#[from] TokenFault),
    /// The key that the token names is not known, and the key set cannot be had. Ours to blame:
    /// the token may well be good.
    #[error("signing keys are temporarily unavailable; retry later")]
    KeysUnavailable {
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// The key that the token names is not in the set, and the set was fetched before the token came
    /// and cannot be fetched again yet. It may be a new key: while we cannot know it is ours to blame.
    #[error("the token's key is not known yet; the key set is fetched again shortly, retry then")]
    KeyPending {
        /// When the set will have been fetched again.
        retry_after: Duration,
    },
    /// The issuer's set has the key that the token names, of a kind that cannot be used. Ours to blame: the token may
    /// well be good.
    #[error("{UNUSABLE_KEY}; retry later")]
    KeyUnusable {
        /// When the set will have been fetched again.
        retry_after: Duration,
    },
    #[error(transparent)]
    DeviceKey(#[from] DeviceKeyFault),
    /// The key is unknown, and so is every other: the table is empty. Ours to blame.
    #[error("device keys cannot be checked at the moment; retry later")]
    NoDeviceKeys,
    #[error("the token was revoked{}", if .0.until_issued { "; sign in again" } else { "" })]
    Revoked(RevokedUser),
    /// The session that the token stems from has ended.
    #[error("the token's session has ended; sign in again")]
    SessionEnded,
    /// The database cannot be read and nothing is known of the caller. Ours to blame.
    #[error("credentials cannot be checked at the moment; retry later")]
    DatabaseUnavailable,
}

/// What is said of a token's key that is of a kind that cannot be used.
pub(super) const UNUSABLE_KEY: &str =
    "the token's key is in the issuer's key set and cannot be used here";

/// Whose token was revoked, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevokedUser {
    pub user: UserId,
    /// Whether only older tokens are meant, so that signing in again helps.
    pub until_issued: bool,
}

/// What is wrong with a device key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceKeyFault {
    #[error("the device key is mistyped or cut off: its checksum is wrong")]
    Form,
    #[error("the device key is unknown")]
    Unknown,
    #[error("no device is known by the client's certificate, and there is no other credential")]
    Certificate,
    #[error("the device key was revoked; create a new one")]
    Revoked(DeviceId),
    /// It has expired, and so has its grace.
    #[error("the device key expired {seconds} s ago; create a new one")]
    Expired { device: DeviceId, seconds: i64 },
    /// There are no device keys without a database.
    #[error("device keys are not accepted here: there is no database")]
    Off,
}

/// What is wrong with the credential's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialFault {
    #[error("no credential; send Authorization: Bearer with an access token or a device key")]
    Missing,
    /// No `Authorization` header, but Supabase's `apikey`.
    #[error("an apikey does not identify a user; send Authorization: Bearer with an access token")]
    ApiKeyOnly,
    #[error("more than one credential header; send one")]
    Several,
    /// A scheme other than `Bearer` and `Basic`.
    #[error("the Authorization scheme must be Bearer, or Basic for a device key")]
    Scheme,
    /// Not of the form `Bearer TOKEN` or `Basic BASE64`.
    #[error("the Authorization header must be: Bearer TOKEN, or Basic with a device key")]
    Malformed,
    /// A basic-auth password that is no device key.
    #[error("the basic-auth password must be a device key (mtpd_…)")]
    Password,
    /// A project key (`sb_publishable_…`, `sb_secret_…`), which says nothing about a user.
    #[error("this is a project's API key; send a user's access token")]
    ProjectKey,
    /// Not the webhooks' secret, or there is none.
    #[error("this is not the webhook secret (rules.webhook_secret), or none is configured")]
    Webhook,
    #[error("the credential is in quotation marks; send it without them")]
    Quoted,
    /// A scheme where the credential should be: `Bearer Bearer …`.
    #[error("the credential begins with a scheme (Bearer or Basic) once more; write it once")]
    DoubledScheme,
    /// `Bearer%20…`.
    #[error(
        "the space after Bearer or Basic is written as %20, which the sender does not decode; write a space"
    )]
    EncodedSpace,
    /// The name of a variable that nothing has put a value in for.
    #[error(
        "the credential is a placeholder such as ${{DEVICE_KEY}}: nothing has put the key in its place"
    )]
    Placeholder,
}

/// What is wrong with a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// Not three parts of base64url, or a header that is no JSON object.
    #[error("the token is not a JSON web token")]
    Malformed,
    /// `alg` is `none` or not one that is ever accepted.
    #[error("the token's algorithm {0:?} is not accepted")]
    Algorithm(String),
    /// `crit` is there: the token demands something that we do not know (RFC 7515, 4.1.11).
    #[error("the token's header demands extensions (crit)")]
    Critical,
    /// `typ` says that this is something other than a JWT.
    #[error("the token's type is {0:?} and must be JWT")]
    Type(String),
    #[error("HS256 tokens are not accepted here")]
    SharedSecret,
    #[error("the token names no key (kid)")]
    NoKeyId,
    /// The issuer's key set has no such key.
    #[error("the token's key is not in the issuer's key set")]
    UnknownKey,
    /// The key is bound to another algorithm.
    #[error("the token's algorithm is not that of its key")]
    AlgorithmOfKey,
    #[error("the token's signature is invalid")]
    Signature,
    /// The claims are no JSON object.
    #[error("the token's claims are not a JSON object")]
    Claims,
    /// A claim is missing or has the wrong type.
    #[error("the token's {claim} must be {wanted}")]
    ClaimType { claim: &'static str, wanted: &'static str },
    /// A claim that must be there is missing.
    #[error("the token has no {claim}, which must be {wanted}")]
    NoClaim { claim: &'static str, wanted: &'static str },
    /// A claim that is compared with a setting is missing or has the wrong type.
    #[error("{fault}")]
    Uncompared {
        /// What is wrong with the claim.
        fault: Box<TokenFault>,
        setting: &'static str,
        wanted: String,
    },
    #[error("the token's issuer (iss) is {found:?}, which is not the one accepted here")]
    Issuer { found: String, wanted: String },
    /// `role` is none that a user has.
    #[error("the token's role is {found:?}, which is no user's: {}", not_a_users(.found))]
    Role { found: String, wanted: String },
    #[error("the token's audience (aud) is {found}, which is not the one accepted here")]
    Audience { found: String, wanted: String },
    #[error("the token expired {} s ago; get a new one", .0.apart())]
    Expired(Times),
    #[error("the token is not valid for another {} s (nbf); compare the clocks", .0.apart())]
    NotYetValid(Times),
    #[error("the token was issued {} s in the future (iat) by the clock here; compare the clocks", .0.apart())]
    IssuedInFuture(Times),
    #[error("the token's iat is later than its exp")]
    IssuedAfterEnd { issued: i64, expires: i64 },
    #[error("the token's subject (sub) must be a UUID")]
    Subject,
    #[error("anonymous users are not accepted here; sign in")]
    Anonymous,
    /// An OAuth client that is not listed.
    #[error("tokens of this OAuth client are not accepted here")]
    OauthClient {
        found: String,
        /// What names it: the claim, or the table of sessions.
        by: &'static str,
    },
    /// The token is an OAuth client's by this claim, and `client_id` is missing.
    #[error(
        "the token is an OAuth client's by its {claim}, and does not name the client (client_id)"
    )]
    UnnamedOauthClient { claim: &'static str },
    /// The user has signed in without a second factor.
    #[error(
        "a second factor is required here; verify one (the token's aal must be {wanted}) and send the new token"
    )]
    SecondFactor { found: String, wanted: &'static str },
}

/// A token's time and ours, in seconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    pub token: i64,
    pub now: i64,
    /// How much they may differ (`auth.leeway`).
    pub leeway: i64,
}

impl Times {
    /// How far the two are apart.
    fn apart(self) -> i64 {
        self.now.saturating_sub(self.token).saturating_abs()
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token, now, leeway } = self;
        write!(f, "{token}, the clock here {now}, auth.leeway {leeway} s")
    }
}

impl Refusal {
    /// A label for metrics and logs.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Credential(CredentialFault::Missing | CredentialFault::ApiKeyOnly) => {
                Reason::NoCredential
            }
            Self::Credential(
                CredentialFault::Several
                | CredentialFault::Scheme
                | CredentialFault::Malformed
                | CredentialFault::Password
                | CredentialFault::Webhook
                | CredentialFault::ProjectKey
                | CredentialFault::Quoted
                | CredentialFault::DoubledScheme
                | CredentialFault::EncodedSpace
                | CredentialFault::Placeholder,
            ) => Reason::MalformedCredential,
            Self::Token(fault) => fault.reason(),
            Self::KeysUnavailable { .. } | Self::KeyUnusable { .. } => Reason::KeysUnavailable,
            Self::KeyPending { .. } => Reason::KeyPending,
            Self::DeviceKey(fault) => fault.reason(),
            Self::Revoked(_) => Reason::Revoked,
            Self::SessionEnded => Reason::SessionEnded,
            Self::NoDeviceKeys | Self::DatabaseUnavailable => Reason::DatabaseUnavailable,
        }
    }

    /// What the log says: the same, and whose credential it was if that is known.
    pub fn inside(&self) -> String {
        match self {
            Self::DeviceKey(
                DeviceKeyFault::Revoked(device) | DeviceKeyFault::Expired { device, .. },
            ) => {
                format!("{self}; device {device}")
            }
            Self::Revoked(revoked) => format!("{self}; user {}", revoked.user),
            Self::SessionEnded => format!(
                "{self}; auth.sessions (or database.session_query) does not have it, or the user is banned"
            ),
            Self::NoDeviceKeys => format!("{self}; the table device_key is empty"),
            Self::KeyUnusable { .. } => format!(
                "{self}; GET /admin/keys says why: have the issuer sign with another key (ES256, RS256)"
            ),
            Self::Token(fault) => fault.inside(),
            other => other.to_string(),
        }
    }
}

impl DeviceKeyFault {
    /// A label for metrics and logs.
    pub fn reason(self) -> Reason {
        match self {
            Self::Form => Reason::MalformedDeviceKey,
            Self::Unknown | Self::Certificate | Self::Off => Reason::UnknownDeviceKey,
            Self::Revoked(_) => Reason::RevokedDeviceKey,
            Self::Expired { .. } => Reason::ExpiredDeviceKey,
        }
    }
}

impl TokenFault {
    /// What the operator is told: both sides of a comparison that failed, and the setting.
    pub fn inside(&self) -> String {
        match self {
            Self::Issuer { found, wanted } => {
                format!("{self}; iss is {found:?}, auth.issuer is {wanted:?}")
            }
            Self::Audience { found, wanted } => {
                format!("{self}; aud is {found}, auth.audience is {wanted:?}")
            }
            Self::Role { found, wanted } => {
                format!("{self}; role is {found:?}, auth.user_roles is {wanted}")
            }
            Self::SecondFactor { found, wanted } => {
                format!("{self}; aal is {found}, auth.required_aal is {wanted:?}")
            }
            Self::OauthClient { found, by } => {
                format!("{self}; {by} is {found:?}, which auth.oauth_clients does not list")
            }
            Self::UnnamedOauthClient { .. } => format!(
                "{self}: have the custom access token hook keep client_id, and list the client in \
                 auth.oauth_clients if it is yours"
            ),
            Self::Uncompared { setting, wanted, .. } => format!("{self}; {setting} is {wanted}"),
            Self::Algorithm(_) => format!(
                "{self}; accepted are HS256 (auth.hs256_secret) and the algorithms of the issuer's key \
                 set"
            ),
            Self::UnknownKey => format!(
                "{self}; the token is another issuer's, or the key was revoked: GET /admin/keys has the set"
            ),
            Self::Anonymous => format!("{self}; auth.allow_anonymous is false"),
            Self::Expired(times) => format!("{self}; exp is {times}"),
            Self::NotYetValid(times) => format!("{self}; nbf is {times}"),
            Self::IssuedInFuture(times) => format!("{self}; iat is {times}"),
            Self::IssuedAfterEnd { issued, expires } => {
                format!("{self}; iat is {issued}, exp is {expires}")
            }
            Self::SharedSecret => format!(
                "{self}: auth.hs256_secret is empty (on Supabase: Project Settings, JWT Keys, legacy \
                 secret), or have the project sign with a key of its key set"
            ),
            other => other.to_string(),
        }
    }

    /// A label for metrics and logs.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Malformed | Self::Claims | Self::Type(_) | Self::Critical => {
                Reason::MalformedToken
            }
            Self::Algorithm(_) | Self::AlgorithmOfKey | Self::SharedSecret => {
                Reason::WrongAlgorithm
            }
            Self::NoKeyId | Self::UnknownKey => Reason::UnknownKey,
            Self::Signature => Reason::BadSignature,
            Self::ClaimType { .. }
            | Self::NoClaim { .. }
            | Self::Uncompared { .. }
            | Self::Subject
            | Self::IssuedAfterEnd { .. } => Reason::MalformedClaims,
            Self::Issuer { .. } => Reason::WrongIssuer,
            Self::Role { .. } => Reason::WrongRole,
            Self::Audience { .. } => Reason::WrongAudience,
            Self::Expired(_) => Reason::Expired,
            // Of both the clocks are to blame, and waiting helps.
            Self::NotYetValid(_) | Self::IssuedInFuture(_) => Reason::NotYetValid,
            Self::Anonymous => Reason::Anonymous,
            Self::OauthClient { .. } | Self::UnnamedOauthClient { .. } => Reason::OauthClient,
            Self::SecondFactor { .. } => Reason::SecondFactorMissing,
        }
    }
}

/// Why a role is none that a user has.
fn not_a_users(role: &str) -> &'static str {
    match role {
        "anon" | "service_role" => "this is the role of a project's API key, not of a user",
        _ => "sign in as a user",
    }
}
