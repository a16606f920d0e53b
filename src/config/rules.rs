//! `[rules]`

use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::reader::{Raw, Section};
use super::values::{Secret, duration, number, switch, text, url};
use super::{UpstreamConfig, UpstreamTls};
use crate::mimir::MimirConfig;
use crate::mimir::expression::ExpressionLimits;
use crate::prom_duration::PromDuration;

/// How alert rules are synced from Postgres to Mimir's ruler.
#[derive(Clone, Debug)]
pub struct RulesConfig {
    /// Whether this copy takes part in it.
    pub enabled: bool,
    /// The namespace of the proxy, the only one that it writes.
    pub namespace: String,
    /// The addresses of the ruler's configuration API.
    pub urls: Vec<Url>,
    /// The interval of full resyncs, which do not depend on notifications.
    pub reconcile_interval: Duration,
    /// The secret that Supabase's webhook must send; without one, webhooks are rejected.
    pub webhook_secret: Secret,
    /// Whether a full resync requests all tenants' groups from Mimir in one exchange
    /// (`/ruler/rule_groups`, which is for operators).
    pub list_all_tenants: bool,
    /// Tenants that are reconciled concurrently.
    pub concurrency: usize,
    /// How often it is read how Mimir evaluates each tenant's rules.
    pub health_interval: Duration,
    /// Readings per second, of all tenants together. The interval stretches if they are not enough.
    pub health_requests_per_second: usize,
    /// The timeout of one request to Mimir.
    pub request_timeout: Duration,
    pub connect_timeout: Duration,
    /// That of `[upstream]`, for addresses with https.
    pub tls: Option<UpstreamTls>,
    /// For a row without an interval.
    pub evaluation_interval: PromDuration,
    /// The ruler's limit of rules in a group, if Mimir does not report it; `None` for no limit.
    pub max_rules_per_group: Option<usize>,
    /// The ruler's limit of groups of a tenant, if Mimir does not report it; `None` for no limit.
    pub max_groups: Option<usize>,
    /// How long the rules of an organisation that is gone are kept.
    pub organisation_grace: Duration,
    /// Limits for expressions, from `[limits]`, which also apply to queries.
    pub expressions: ExpressionLimits,
    /// When a deletion is held.
    pub guard: GuardConfig,
}

impl RulesConfig {
    /// How Mimir's ruler is reached.
    pub fn mimir(&self) -> MimirConfig {
        MimirConfig {
            urls: self.urls.clone(),
            request_timeout: self.request_timeout,
            connect_timeout: self.connect_timeout,
            tls: self.tls.as_ref().map(|tls| Arc::clone(tls.client())),
        }
    }
}

/// The size from which a deletion waits for an administrator's confirmation: both the count and the
/// share must be reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GuardConfig {
    /// Rules of one tenant that would be deleted, for any reason.
    pub tenant_count: usize,
    /// Their share, 0 to 1.
    pub tenant_share: f64,
    /// Live rules of one tenant whose rows are gone without a tombstone.
    pub missing_count: usize,
    /// Their share, 0 to 1.
    pub missing_share: f64,
    /// Rules of all tenants that would be deleted in one full resync; also live channels and routes of all
    /// organisations that are gone.
    pub overall_count: usize,
    /// Their share, 0 to 1.
    pub overall_share: f64,
}

impl Default for GuardConfig {
    fn default() -> Self {
        Self {
            tenant_count: 20,
            tenant_share: 0.5,
            missing_count: 1,
            missing_share: 0.3,
            overall_count: 50,
            overall_share: 0.2,
        }
    }
}

/// The shortest interval that makes sense: a full resync reads everything.
const SHORTEST_RECONCILE: Duration = Duration::from_secs(1);
/// The minimum length of a webhook's secret, so that it cannot be guessed.
const SHORTEST_SECRET: usize = 16;

pub(super) fn read(
    section: &mut Section<'_>,
    upstream: Option<&UpstreamConfig>,
    has_database: bool,
) -> RulesConfig {
    let second = Duration::from_secs(1);
    let (hour, day) = (3600 * second, 86_400 * second);
    let by_default = GuardConfig::default();
    let enabled = section.get("enabled", false, switch);
    if enabled && !has_database {
        section.fault("enabled", "needs database.url, where the rules are".to_owned());
    }
    let webhook_secret = section.secret("webhook_secret");
    if !webhook_secret.is_empty() && webhook_secret.expose().len() < SHORTEST_SECRET {
        let problem = format!("must have at least {SHORTEST_SECRET} characters");
        section.fault("webhook_secret", problem);
    }
    let of_upstream = upstream.map(of_upstream).unwrap_or_default();
    let is_asked = upstream.is_some_and(|upstream| upstream.consul.is_some());
    let urls = section.get_list("urls", of_upstream, ruler_url);
    if urls.is_empty() && section.says("urls") && !section.is_faulty("urls") {
        section.fault("urls", "must hold at least one address".to_owned());
    } else if enabled && urls.is_empty() && is_asked && !section.is_faulty("urls") {
        let problem =
            "is missing: with upstream.consul_service alone it is not known where the ruler is";
        section.fault("urls", problem.to_owned());
    }
    let limit = |raw| number(raw, 0, 1_000_000).map(|limit| (limit > 0).then_some(limit));
    RulesConfig {
        enabled,
        namespace: section.get("namespace", "alert_rule".to_owned(), namespace),
        urls,
        reconcile_interval: section
            .get("reconcile_interval", 300 * second, |raw| duration(raw, SHORTEST_RECONCILE, day)),
        webhook_secret,
        list_all_tenants: section.get("list_all_tenants", false, switch),
        concurrency: section.get("concurrency", 16, |raw| number(raw, 1, 1000)),
        health_interval: section
            .get("health_interval", 60 * second, |raw| duration(raw, second, day)),
        health_requests_per_second: section
            .get("health_requests_per_second", 10, |raw| number(raw, 1, 10_000)),
        request_timeout: section
            .get("request_timeout", 10 * second, |raw| duration(raw, second / 10, hour)),
        connect_timeout: upstream.map_or(2 * second, |upstream| upstream.connect_timeout),
        tls: upstream.and_then(|upstream| upstream.tls.clone()),
        evaluation_interval: section.get("evaluation_interval", ONE_MINUTE, interval),
        max_rules_per_group: section.get("max_rules_per_group", Some(20), limit),
        max_groups: section.get("max_groups", Some(70), limit),
        organisation_grace: section
            .get("organisation_grace", day, |raw| duration(raw, Duration::ZERO, 365 * day)),
        expressions: ExpressionLimits::default(),
        guard: GuardConfig {
            tenant_count: section.get("guard_tenant_count", by_default.tenant_count, count),
            tenant_share: section.get("guard_tenant_share", by_default.tenant_share, share),
            missing_count: section.get("guard_missing_count", by_default.missing_count, count),
            missing_share: section.get("guard_missing_share", by_default.missing_share, share),
            overall_count: section.get("guard_overall_count", by_default.overall_count, count),
            overall_share: section.get("guard_overall_share", by_default.overall_share, share),
        },
    }
}

const ONE_MINUTE: PromDuration = PromDuration::from_millis(60_000);

fn of_upstream(upstream: &UpstreamConfig) -> Vec<Url> {
    let address = |one: &super::Upstream| {
        let scheme = if one.is_https { "https" } else { "http" };
        Url::parse(&format!("{scheme}://{}", one.authority.to_str().unwrap_or_default())).ok()
    };
    upstream.upstreams.iter().filter_map(address).collect()
}

fn ruler_url(address: String) -> Result<Url, String> {
    let read = url(Raw::Text(address.clone()), "http://mimir.internal:8080")?;
    if read.path() != "/" {
        return Err(format!("'{address}' must have no path"));
    }
    Ok(read)
}

/// A namespace is a path segment and, in Mimir's rulers, a file name.
fn namespace(raw: Raw) -> Result<String, String> {
    const LONGEST: usize = 128;
    let name = text(raw)?;
    let is_plain = !name.is_empty()
        && name.len() <= LONGEST
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        && !name.bytes().all(|byte| byte == b'.');
    if is_plain {
        Ok(name)
    } else {
        Err(format!("must be 1 to {LONGEST} characters of a-z, A-Z, 0-9, '_', '-' and '.'"))
    }
}

fn interval(raw: Raw) -> Result<PromDuration, String> {
    let wanted = "must be a duration such as \"1m\"";
    let read: PromDuration = text(raw)?.parse().map_err(|_| wanted.to_owned())?;
    if read.is_zero() { Err(wanted.to_owned()) } else { Ok(read) }
}

fn count(raw: Raw) -> Result<usize, String> {
    number(raw, 1, 1_000_000_000)
}

fn share(raw: Raw) -> Result<f64, String> {
    let wanted = || "must be a share from 0 to 1, such as 0.5".to_owned();
    let share = match raw {
        Raw::Toml(toml::Value::Float(share)) => share,
        Raw::Toml(toml::Value::Integer(0)) => 0.0,
        Raw::Toml(toml::Value::Integer(1)) => 1.0,
        Raw::Text(text) => text.parse().map_err(|_| wanted())?,
        Raw::Toml(_) => return Err(wanted()),
    };
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err(wanted()) }
}
