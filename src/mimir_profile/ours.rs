//! Mimir's limits against the proxy's, where its configuration is given: requests that one of them
//! accepts and the other refuses.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};

use super::{Finding, Profile, values};
use crate::config::Config;
use crate::yaml::Node;

/// The settings of the proxy that have a counterpart in Mimir.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ours {
    /// How many organisations one read may name, 1 if `tenancy.federation` is off.
    pub federation: usize,
    /// `rules.enabled`.
    pub rules: bool,
    /// `channels.enabled`.
    pub channels: bool,
    /// `channels.urls` are others than `rules.urls`: the Alertmanager is not in the Mimir of the rules.
    pub alertmanager_apart: bool,
    /// `channels.allow_private_targets`.
    pub private_targets: bool,
    /// Where alerts are taken, if `alert_events.enabled`.
    pub alert_events: Option<Receiver>,
    /// `limits.body_timeout`.
    pub body_timeout: Duration,
    /// `upstream.response_timeout`.
    pub response_timeout: Duration,
    /// `limits.push_body_bytes`.
    pub push_body_bytes: u64,
    /// `limits.otlp_body_bytes`.
    pub otlp_body_bytes: u64,
}

/// Where the proxy takes alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// Of `alert_events.secret`.
    pub secret: SecretDigest,
    /// The port of `listen.internal_address`.
    pub private_port: u16,
    /// The port of `listen.address`.
    pub public_port: u16,
}

/// Of a secret, to see whether another is the same: a [`Finding`] never needs the secret itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretDigest([u8; 32]);

impl SecretDigest {
    pub fn of(secret: &[u8]) -> Self {
        Self(digest(&SHA256, secret).as_ref().try_into().unwrap_or_default())
    }

    pub(super) fn is(self, secret: &[u8]) -> bool {
        self == Self::of(secret)
    }
}

impl fmt::Debug for SecretDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretDigest(…)")
    }
}

impl From<&Config> for Ours {
    fn from(config: &Config) -> Self {
        Self {
            federation: config.tenancy.federation.unwrap_or(1),
            rules: config.rules.enabled,
            channels: config.channels.enabled,
            alertmanager_apart: config.channels.urls != config.rules.urls,
            private_targets: config.channels.allow_private_targets,
            alert_events: config.alert_events.enabled.then(|| Receiver {
                secret: SecretDigest::of(config.alert_events.secret.expose()),
                private_port: config.listen.internal_address.port(),
                public_port: config.listen.address.port(),
            }),
            body_timeout: config.limits.body_timeout,
            response_timeout: config.upstream.response_timeout,
            push_body_bytes: config.limits.push_body_bytes,
            otlp_body_bytes: config.limits.otlp.bytes,
        }
    }
}

const READ: (&str, Duration) = ("server.http_server_read_timeout", Duration::from_secs(30));
const WRITE: (&str, Duration) = ("server.http_server_write_timeout", Duration::from_secs(120));
const QUERY: (&str, Duration) = ("querier.timeout", Duration::from_secs(120));

/// A duration as Mimir reads it; none if it is off (0) or not known.
fn time(profile: &Profile, (key, default): (&str, Duration)) -> Option<Duration> {
    let time = match profile.get(key) {
        None => default,
        Some(node) => values::duration(node)?,
    };
    (!time.is_zero()).then_some(time)
}

pub(super) fn timeouts(profile: &Profile) -> Vec<Finding> {
    let check = "timeout-mismatch";
    let Some(ours) = profile.assumptions.ours else { return Vec::new() };
    let mut findings = Vec::new();
    if let Some(read) = time(profile, READ).filter(|read| *read < ours.body_timeout) {
        let (wrong, right) = (
            format!(
                "is {read:?}, and our limits.body_timeout {:?}: Mimir refuses a slower upload with \
                 400, again and again",
                ours.body_timeout
            ),
            "make it longer than limits.body_timeout, or that one shorter",
        );
        findings.push(profile.warning(check, READ.0, &wrong, right));
    }
    // Go counts the write timeout from the end of the request's head, so it includes the upload. Seen:
    // a body that took longer got an empty answer.
    if let Some(write) = time(profile, WRITE).filter(|write| *write < ours.body_timeout) {
        let wrong = format!(
            "is {write:?}, counted from a request's head, and our limits.body_timeout {:?}: a slower \
             upload gets no answer, stored or not",
            ours.body_timeout
        );
        let right = "make it longer than limits.body_timeout, or that one shorter";
        findings.push(profile.warning(check, WRITE.0, &wrong, right));
    }
    if let Some(query) = time(profile, QUERY).filter(|query| *query >= ours.response_timeout) {
        let wrong = format!(
            "is {query:?}, and our upstream.response_timeout {:?}: the proxy ends queries (504) \
             that Mimir continues",
            ours.response_timeout
        );
        let right = "make it shorter than upstream.response_timeout, or that one longer";
        findings.push(profile.warning(check, QUERY.0, &wrong, right));
    }
    findings
}

/// Mimir does not start if a query may take longer than its answer (seen with 3.1). If it may take as long, as by
/// default, its timeout comes too late for an answer.
pub(super) fn queries(profile: &Profile) -> Vec<Finding> {
    let times = (time(profile, QUERY), time(profile, WRITE));
    let (Some(query), Some(write)) = times else { return Vec::new() };
    let (has_query, has_write) = (profile.get(QUERY.0).is_some(), profile.get(WRITE.0).is_some());
    let key = if has_query { QUERY.0 } else { WRITE.0 };
    if query > write {
        let wrong = format!(
            "does not fit: {} ({query:?}) is longer than {} ({write:?}): Mimir does not start",
            QUERY.0, WRITE.0
        );
        let right = "make the second at least as long as the first";
        vec![profile.error("query-timeout", key, &wrong, right)]
    } else if query == write && (has_query || has_write) {
        let wrong = format!(
            "does not fit: {} and {} are both {query:?}: Mimir closes the connection of a query that takes as long, \
             and gives no answer",
            QUERY.0, WRITE.0
        );
        let right = "make the second longer than the first, by a minute or so";
        vec![profile.warning("query-timeout", key, &wrong, right)]
    } else {
        Vec::new()
    }
}

pub(super) fn sizes(profile: &Profile) -> Vec<Finding> {
    const DEFAULT: i64 = 100 << 20;
    let Some(ours) = profile.assumptions.ours else { return Vec::new() };
    let pairs = [
        ("distributor.max_recv_msg_size", "limits.push_body_bytes", ours.push_body_bytes),
        ("distributor.max_otlp_request_size", "limits.otlp_body_bytes", ours.otlp_body_bytes),
    ];
    let smaller = pairs.into_iter().filter_map(|(key, name, ours)| {
        let theirs = profile.get(key).map_or(Some(DEFAULT), Node::number)?;
        let theirs = u64::try_from(theirs).ok()?;
        (theirs < ours).then(|| {
            let wrong = format!(
                "is {theirs} bytes, uncompressed, and our {name} {ours}: larger bodies are sent \
                 there and refused, and senders drop them"
            );
            let right = format!("at least as much as {name}, or that one less");
            profile.warning("size-mismatch", key, &wrong, &right)
        })
    });
    smaller.collect()
}
