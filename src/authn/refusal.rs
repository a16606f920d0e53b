//! Why a caller is not known. Texts go to the caller, who may be anybody: they speak of the
//! caller's own credential only, in words that help its owner to mend it.

use std::fmt;
use std::time::Duration;

use crate::reason::Reason;
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
    /// The key that the token names is not in the set, and the set was fetched before the token came
    /// and cannot be fetched again yet. It may be a new key: while we cannot know it is ours to blame.
    KeyPending {
        /// When the set will have been fetched again.
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
    /// In quotes.
    Quoted,
    /// A scheme where the credential should be: `Bearer Bearer …`.
    DoubledScheme,
    /// The name of a variable that nothing has put a value in for.
    Placeholder,
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
    /// A claim that must be there is missing.
    NoClaim {
        /// The claim.
        claim: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// A claim that is compared with a setting is missing or has the wrong type.
    Uncompared {
        /// What is wrong with the claim.
        fault: Box<TokenFault>,
        /// The setting.
        setting: &'static str,
        /// What the setting says.
        wanted: String,
    },
    /// `iss` is somebody else.
    Issuer {
        /// What the token says.
        found: String,
        /// What it must say.
        wanted: String,
    },
    /// `role` is none that a user has.
    Role {
        /// What the token says.
        found: String,
        /// What it may say.
        wanted: String,
    },
    /// `aud` is not us.
    Audience {
        /// What the token says.
        found: String,
        /// What it must say.
        wanted: String,
    },
    /// `exp` has passed.
    Expired(Times),
    /// `nbf` is still to come.
    NotYetValid(Times),
    /// `iat` is still to come.
    IssuedInFuture(Times),
    /// `iat` is after `exp`.
    IssuedAfterEnd {
        /// `iat`.
        issued: i64,
        /// `exp`.
        expires: i64,
    },
    /// `sub` is no UUID.
    Subject,
    /// An anonymous user.
    Anonymous,
    /// An OAuth client that is not listed.
    OauthClient,
}

/// A token's time and ours, in seconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// What the token says.
    pub token: i64,
    /// What our clock says.
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
                | CredentialFault::Placeholder,
            ) => Reason::MalformedCredential,
            Self::Token(fault) => fault.reason(),
            Self::KeysUnavailable { .. } => Reason::KeysUnavailable,
            Self::KeyPending { .. } => Reason::KeyPending,
            Self::DeviceKey(fault) => fault.reason(),
            Self::Revoked(_) => Reason::Revoked,
            Self::SessionEnded => Reason::SessionEnded,
            Self::DatabaseUnavailable => Reason::DatabaseUnavailable,
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
            Self::Unknown | Self::Off => Reason::UnknownDeviceKey,
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
            Self::Uncompared { setting, wanted, .. } => format!("{self}; {setting} is {wanted}"),
            Self::Algorithm(_) => format!(
                "{self}; accepted are HS256 (auth.hs256_secret) and the algorithms of the issuer's key \
                 set"
            ),
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
            Self::OauthClient => Reason::OauthClient,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credential(fault) => fault.fmt(f),
            Self::Token(fault) => fault.fmt(f),
            Self::KeysUnavailable { .. } => {
                f.write_str("signing keys are temporarily unavailable; retry later")
            }
            Self::KeyPending { .. } => f.write_str(
                "the token's key is not known yet; the key set is fetched again shortly, retry then",
            ),
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
            Self::Quoted => "the credential is in quotation marks; send it without them",
            Self::DoubledScheme => {
                "the credential begins with a scheme (Bearer or Basic) once more; write it once"
            }
            Self::Placeholder => {
                "the credential is a placeholder such as ${DEVICE_KEY}: nothing has put the key in \
                 its place"
            }
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
            Self::NoClaim { claim, wanted } => {
                write!(f, "the token has no {claim}, which must be {wanted}")
            }
            Self::Uncompared { fault, .. } => fault.fmt(f),
            Self::Issuer { found, .. } => {
                write!(
                    f,
                    "the token's issuer (iss) is {found:?}, which is not the one accepted here"
                )
            }
            Self::Role { found, .. } => {
                write!(f, "the token's role is {found:?}, which is no user's: ")?;
                f.write_str(match found.as_str() {
                    "anon" | "service_role" => "this is a project's API key, not a user's token",
                    _ => "sign in as a user",
                })
            }
            Self::Audience { found, .. } => {
                write!(
                    f,
                    "the token's audience (aud) is {found}, which is not the one accepted here"
                )
            }
            Self::Expired(times) => {
                write!(f, "the token expired {} s ago; get a new one", times.apart())
            }
            Self::NotYetValid(times) => write!(
                f,
                "the token is not valid for another {} s (nbf); compare the clocks",
                times.apart()
            ),
            Self::IssuedInFuture(times) => write!(
                f,
                "the token was issued {} s in the future (iat) by the clock here; compare the clocks",
                times.apart()
            ),
            Self::IssuedAfterEnd { .. } => {
                f.write_str("the token was issued (iat) after its own end (exp)")
            }
            Self::Subject => f.write_str("the token's subject (sub) must be a UUID"),
            Self::Anonymous => f.write_str("anonymous users are not accepted here; sign in"),
            Self::OauthClient => f.write_str("tokens of this OAuth client are not accepted here"),
        }
    }
}
