//! Why a caller is not known. Texts go to the caller, who may be anybody: they speak of the
//! caller's own credential only, in words that help its owner to mend it.

use std::fmt;
use std::time::Duration;

use crate::tenancy::{DeviceId, UserId};

/// Why no principal could be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The request carries no credential in a known form.
    Credential(CredentialFault),
    /// The token is not to be believed.
    Token(TokenFault),
    /// The key that the token names is not known, and the key set cannot be had. Ours to blame:
    /// the token may well be good.
    KeysUnavailable {
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// The device key is not to be believed.
    DeviceKey(DeviceKeyFault),
    /// The token was revoked.
    Revoked(RevokedUser),
    /// The session that the token stems from has ended.
    SessionEnded,
    /// The database cannot be read and nothing is known of the caller. Ours to blame.
    DatabaseUnavailable,
}

/// Whose token was revoked, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevokedUser {
    /// The user, for the log.
    pub user: UserId,
    /// Whether only older tokens are meant, so that signing in again helps.
    pub until_issued: bool,
}

/// What is wrong with a device key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKeyFault {
    /// Its form, or its checksum.
    Form,
    /// No device has it.
    Unknown,
    /// It was revoked.
    Revoked(DeviceId),
    /// It has expired, and so has its grace.
    Expired {
        /// The device.
        device: DeviceId,
        /// How long ago.
        seconds: i64,
    },
    /// There are no device keys without a database.
    Off,
}

/// What is wrong with the credential's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialFault {
    /// No `Authorization` header.
    Missing,
    /// No `Authorization` header, but Supabase's `apikey`.
    ApiKeyOnly,
    /// More than one `Authorization` header.
    Several,
    /// A scheme other than `Bearer` and `Basic`.
    Scheme,
    /// Not of the form `Bearer TOKEN` or `Basic BASE64`.
    Malformed,
    /// A basic-auth password that is no device key.
    Password,
    /// A project key (`sb_publishable_…`, `sb_secret_…`), which says nothing about a user.
    ProjectKey,
    /// Not the webhooks' secret, or there is none.
    Webhook,
}

/// What is wrong with a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenFault {
    /// Not three parts of base64url, or a header that is no JSON object.
    Malformed,
    /// `alg` is `none` or not one that is ever accepted.
    Algorithm(String),
    /// `crit` is there: the token demands something that we do not know (RFC 7515, 4.1.11).
    Critical,
    /// `typ` says that this is something other than a JWT.
    Type(String),
    /// HS256 without a configured secret.
    SharedSecret,
    /// No `kid`.
    NoKeyId,
    /// The issuer's key set has no such key.
    UnknownKey,
    /// The key is bound to another algorithm.
    AlgorithmOfKey,
    /// The signature does not fit.
    Signature,
    /// The claims are no JSON object.
    Claims,
    /// A claim is missing or has the wrong type.
    ClaimType {
        /// The claim.
        claim: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// `iss` is somebody else.
    Issuer,
    /// `role` is not `authenticated`.
    Role(String),
    /// `aud` is not us.
    Audience,
    /// `exp` has passed.
    Expired {
        /// How long ago.
        seconds: i64,
    },
    /// `nbf` is still to come.
    NotYetValid,
    /// `iat` is still to come, or after `exp`.
    IssuedAt,
    /// `sub` is no UUID.
    Subject,
    /// An anonymous user.
    Anonymous,
    /// An OAuth client that is not listed.
    OauthClient,
}

impl Refusal {
    /// A label for metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Credential(CredentialFault::Missing | CredentialFault::ApiKeyOnly) => {
                "no_credential"
            }
            Self::Credential(_) => "malformed_credential",
            Self::Token(fault) => fault.reason(),
            Self::KeysUnavailable { .. } => "keys_unavailable",
            Self::DeviceKey(fault) => fault.reason(),
            Self::Revoked(_) => "revoked",
            Self::SessionEnded => "session_ended",
            Self::DatabaseUnavailable => "database_unavailable",
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
            other => other.to_string(),
        }
    }

    /// Whether the fault is ours, and the caller may be as good as any.
    pub fn is_ours(&self) -> bool {
        matches!(self, Self::KeysUnavailable { .. } | Self::DatabaseUnavailable)
    }
}

impl DeviceKeyFault {
    /// A label for metrics and logs.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Form => "malformed_device_key",
            Self::Unknown | Self::Off => "unknown_device_key",
            Self::Revoked(_) => "revoked_device_key",
            Self::Expired { .. } => "expired_device_key",
        }
    }
}

impl TokenFault {
    /// A label for metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed | Self::Claims | Self::Type(_) | Self::Critical => "malformed_token",
            Self::Algorithm(_) | Self::AlgorithmOfKey | Self::SharedSecret => "wrong_algorithm",
            Self::NoKeyId | Self::UnknownKey => "unknown_key",
            Self::Signature => "bad_signature",
            Self::ClaimType { .. } | Self::Subject | Self::IssuedAt => "malformed_claims",
            Self::Issuer => "wrong_issuer",
            Self::Role(_) => "wrong_role",
            Self::Audience => "wrong_audience",
            Self::Expired { .. } => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Anonymous => "anonymous",
            Self::OauthClient => "oauth_client",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credential(fault) => fault.fmt(f),
            Self::Token(fault) => fault.fmt(f),
            Self::KeysUnavailable { .. } => {
                f.write_str("the issuer's keys cannot be had at the moment; try again")
            }
            Self::DeviceKey(fault) => fault.fmt(f),
            Self::Revoked(revoked) if revoked.until_issued => {
                f.write_str("the token was revoked; sign in again")
            }
            Self::Revoked(_) => f.write_str("the token was revoked"),
            Self::SessionEnded => f.write_str("the token's session has ended; sign in again"),
            Self::DatabaseUnavailable => {
                f.write_str("it cannot be looked up at the moment who you are; try again")
            }
        }
    }
}

impl fmt::Display for DeviceKeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => {
                f.write_str("the device key is mistyped or cut off: its checksum is wrong")
            }
            Self::Unknown => f.write_str("the device key is unknown"),
            Self::Revoked(_) => f.write_str("the device key was revoked; create a new one"),
            Self::Expired { seconds, .. } => {
                write!(f, "the device key expired {seconds} s ago; create a new one")
            }
            Self::Off => f.write_str("device keys are not accepted here: there is no database"),
        }
    }
}

impl fmt::Display for CredentialFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => {
                "no credential; send Authorization: Bearer with an access token or a device key"
            }
            Self::ApiKeyOnly => {
                "apikey says nothing about a user; send Authorization: Bearer with an access token"
            }
            Self::Several => "more than one Authorization header; send one",
            Self::Scheme => "the Authorization scheme must be Bearer, or Basic for a device key",
            Self::Malformed => {
                "the Authorization header must be: Bearer TOKEN, or Basic with a device key"
            }
            Self::Password => "the basic-auth password must be a device key (mtpd_…)",
            Self::Webhook => {
                "this is not the secret of the webhooks (rules.webhook_secret), or none is configured"
            }
            Self::ProjectKey => "this is a project's API key; send a user's access token",
        })
    }
}

impl fmt::Display for TokenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the token is not a JSON web token"),
            Self::Algorithm(name) => write!(f, "the token's algorithm {name:?} is not accepted"),
            Self::Critical => f.write_str("the token's header demands extensions (crit)"),
            Self::Type(name) => write!(f, "the token's type is {name:?} and must be JWT"),
            Self::SharedSecret => f.write_str("HS256 tokens are not accepted here"),
            Self::NoKeyId => f.write_str("the token names no key (kid)"),
            Self::UnknownKey => f.write_str("the token's key is not in the issuer's key set"),
            Self::AlgorithmOfKey => f.write_str("the token's algorithm is not that of its key"),
            Self::Signature => f.write_str("the token's signature does not fit"),
            Self::Claims => f.write_str("the token's claims are not a JSON object"),
            Self::ClaimType { claim, wanted } => write!(f, "the token's {claim} must be {wanted}"),
            Self::Issuer => f.write_str("the token's issuer (iss) is another one"),
            Self::Role(role) => {
                write!(f, "the token's role is {role:?} and must be \"authenticated\": ")?;
                f.write_str(match role.as_str() {
                    "anon" | "service_role" => "this is a project's API key, not a user's token",
                    _ => "sign in as a user",
                })
            }
            Self::Audience => f.write_str("the token is meant for another audience (aud)"),
            Self::Expired { seconds } => write!(f, "the token expired {seconds} s ago"),
            Self::NotYetValid => f.write_str("the token is not valid yet (nbf)"),
            Self::IssuedAt => f.write_str("the token's time of issue (iat) cannot be right"),
            Self::Subject => f.write_str("the token's subject (sub) must be a UUID"),
            Self::Anonymous => f.write_str("anonymous users are not accepted here; sign in"),
            Self::OauthClient => f.write_str("tokens of this OAuth client are not accepted here"),
        }
    }
}
