//! `[limits]`

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::time::Duration;

use toml::{Table, Value};

use super::reader::{Raw, Section, kind};
use super::values::{GIB, KIB, MIB, duration, number, size};
use crate::mimir::expression::ExpressionLimits;
use crate::tenancy::OrganisationId;

/// How large and how slow a request's body may be, and how much an organisation may ask for.
#[derive(Clone, Debug)]
pub struct LimitsConfig {
    /// The body of a remote write or influx push, compressed.
    pub push_body_bytes: u64,
    /// The body of an OTLP export, compressed.
    pub otlp_body_bytes: u64,
    /// The body of a query, form-encoded, or of a remote read.
    pub query_body_bytes: u64,
    /// How long a body may pause between two pieces.
    pub body_idle_timeout: Duration,
    /// How long a whole body may take.
    pub body_timeout: Duration,
    /// What an expression may be, in a query and in an alert rule.
    pub expressions: ExpressionLimits,
    pub organisations: OrganisationsConfig,
}

/// What organisations may ask for, each by itself and all together, on one copy of the proxy.
#[derive(Clone, Debug)]
pub struct OrganisationsConfig {
    /// Requests in flight, of all organisations.
    pub in_flight: usize,
    /// The share of it that one organisation may hold, in percent.
    pub organisation_percent: usize,
    /// How long a request waits for a slot or for its rate.
    pub max_wait: Duration,
    /// How much unused rate is saved up, as a duration.
    pub burst: Duration,
    pub each: OrganisationLimits,
    pub overrides: HashMap<OrganisationId, OrganisationLimits>,
}

/// What one organisation may ask for, by surface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrganisationLimits {
    pub push: SurfaceLimits,
    pub otlp: SurfaceLimits,
    pub query: SurfaceLimits,
    pub rules: SurfaceLimits,
}

/// What one organisation may ask for of one surface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SurfaceLimits {
    pub in_flight: usize,
    /// Requests a second; no limit if none.
    pub requests_per_second: Option<NonZeroU64>,
    /// Bytes of request bodies a second; no limit if none.
    pub bytes_per_second: Option<NonZeroU64>,
}

impl Default for OrganisationLimits {
    fn default() -> Self {
        let of = |in_flight| SurfaceLimits {
            in_flight,
            requests_per_second: None,
            bytes_per_second: None,
        };
        // Half of what a copy takes from Fly (fly.toml, hard_limit), a quarter of what an instance of
        // Mimir gets: devices on thin lines hold a slot for as long as their body takes.
        Self { push: of(500), otlp: of(500), query: of(128), rules: of(32) }
    }
}

/// The limits of a surface: its name first.
const KEYS: [&str; 10] = [
    "push_in_flight",
    "push_requests_per_second",
    "push_bytes_per_second",
    "otlp_in_flight",
    "otlp_requests_per_second",
    "otlp_bytes_per_second",
    "query_in_flight",
    "query_requests_per_second",
    "rules_in_flight",
    "rules_requests_per_second",
];

impl OrganisationLimits {
    fn set(&mut self, key: &str, raw: Raw) -> Result<(), String> {
        let Some((surface, limit)) = key.split_once('_') else { return Ok(()) };
        let surface = match surface {
            "push" => &mut self.push,
            "otlp" => &mut self.otlp,
            "query" => &mut self.query,
            _ => &mut self.rules,
        };
        match limit {
            "in_flight" => surface.in_flight = number(raw, 1, MOST_IN_FLIGHT)?,
            "requests_per_second" => surface.requests_per_second = rate(number(raw, 0, 1 << 30)?),
            _ => surface.bytes_per_second = NonZeroU64::new(size(raw, 0, 1024 * GIB)?),
        }
        Ok(())
    }
}

const MOST_IN_FLIGHT: usize = 1_000_000;

fn rate(number: usize) -> Option<NonZeroU64> {
    NonZeroU64::new(number as u64)
}

pub(super) fn read(section: &mut Section<'_>) -> LimitsConfig {
    let body = |raw: Raw| size(raw, KIB, 1024 * GIB);
    let second = Duration::from_secs(1);
    let day = 86_400 * second;
    LimitsConfig {
        // Mimir's own default for distributor.max-recv-msg-size is 100 MiB.
        push_body_bytes: section.get("push_body_bytes", 100 * MIB, body),
        otlp_body_bytes: section.get("otlp_body_bytes", 100 * MIB, body),
        query_body_bytes: section.get("query_body_bytes", MIB, body),
        body_idle_timeout: section
            .get("body_idle_timeout", 30 * second, |raw| duration(raw, second / 10, day)),
        body_timeout: section
            .get("body_timeout", 300 * second, |raw| duration(raw, second / 10, day)),
        expressions: expressions(section),
        organisations: organisations(section),
    }
}

fn expressions(section: &mut Section<'_>) -> ExpressionLimits {
    let default = ExpressionLimits::default();
    let bytes = section.get("expression_bytes", default.bytes as u64, |raw| size(raw, KIB, GIB));
    ExpressionLimits {
        bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
        depth: section.get("expression_depth", default.depth, |raw| {
            number(raw, 1, ExpressionLimits::MOST_DEPTH)
        }),
        subqueries: section.get("expression_subqueries", default.subqueries, |raw| {
            number(raw, 0, ExpressionLimits::MOST_SUBQUERIES)
        }),
        operators: section
            .get("expression_operators", default.operators, |raw| number(raw, 1, 1_000_000)),
        nested_terms: section.get("expression_nested_terms", default.nested_terms, |raw| {
            number(raw, 1, 1_000_000_000)
        }),
        subquery_points: section.get(
            "expression_subquery_points",
            default.subquery_points,
            |raw| number(raw, 1, 1_000_000_000),
        ),
        label_bytes: default.label_bytes,
    }
}

fn organisations(section: &mut Section<'_>) -> OrganisationsConfig {
    let second = Duration::from_secs(1);
    let mut each = OrganisationLimits::default();
    for key in KEYS {
        section.get(key, (), |raw| each.set(key, raw));
    }
    OrganisationsConfig {
        in_flight: section.get("in_flight", 4096, |raw| number(raw, 1, MOST_IN_FLIGHT)),
        // A bit more than one organisation may have on all surfaces together, where the places are
        // those of one instance of Mimir (upstream.max_in_flight).
        organisation_percent: section.get("organisation_percent", 33, |raw| number(raw, 1, 100)),
        max_wait: section
            .get("max_wait", 2 * second, |raw| duration(raw, Duration::ZERO, 60 * second)),
        burst: section.get("burst", 10 * second, |raw| duration(raw, second, 3600 * second)),
        overrides: section.get("organisations", HashMap::new(), |raw| overrides(raw, each)),
        each,
    }
}

/// Organisations that may more or less than each.
fn overrides(
    raw: Raw,
    each: OrganisationLimits,
) -> Result<HashMap<OrganisationId, OrganisationLimits>, String> {
    let wanted = "must be a section for each organisation, such as \
                  [limits.organisations.acme] with push_in_flight = 512";
    let table = match raw {
        Raw::Toml(Value::Table(table)) => table,
        Raw::Toml(other) => return Err(format!("{wanted}, not {}", kind(&other))),
        // As an inline table, such as {acme = {push_in_flight = 512}}.
        Raw::Text(text) => {
            let written = format!("organisations = {text}").parse::<Table>();
            match written.ok().and_then(|mut table| table.remove("organisations")) {
                Some(Value::Table(table)) => table,
                _ => return Err(wanted.to_owned()),
            }
        }
    };
    let (mut overrides, mut problems) = (HashMap::new(), Vec::new());
    for (name, limits) in table {
        match one_override(&name, limits, each, &mut problems) {
            Ok((organisation, own)) => {
                if overrides.insert(organisation, own).is_some() {
                    problems.push(format!("{name}: stands there twice"));
                }
            }
            Err(problem) => problems.push(format!("{name}: {problem}")),
        }
    }
    if problems.is_empty() { Ok(overrides) } else { Err(problems.join("; ")) }
}

fn one_override(
    name: &str,
    limits: Value,
    each: OrganisationLimits,
    problems: &mut Vec<String>,
) -> Result<(OrganisationId, OrganisationLimits), String> {
    let organisation = OrganisationId::parse(name).map_err(|error| error.to_string())?;
    let Value::Table(table) = limits else {
        return Err(format!("must be a section, not {}", kind(&limits)));
    };
    let mut own = each;
    for (key, value) in table {
        let set = if KEYS.contains(&key.as_str()) {
            own.set(&key, Raw::Toml(value))
        } else {
            Err(format!("is unknown; there are {}", KEYS.join(", ")))
        };
        if let Err(problem) = set {
            problems.push(format!("{name}.{key} {problem}"));
        }
    }
    Ok((organisation, own))
}
