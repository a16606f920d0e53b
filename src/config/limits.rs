//! `[limits]`

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::time::Duration;

use toml::{Table, Value};

use super::reader::{Raw, Section, kind};
use super::shown::{Shown, short_digest};
use super::values::{GIB, KIB, MIB, bytes, duration, number, size};
use crate::mimir::expression::ExpressionLimits;
use crate::tenancy::OrganisationId;

/// The limits of a request's body, and those of an organisation.
#[derive(Clone, Debug)]
pub struct LimitsConfig {
    /// The body of a remote write or Influx push, compressed.
    pub push_body_bytes: u64,
    /// The body of an OTLP export, compressed.
    pub otlp_body_bytes: u64,
    /// The body of a query, form-encoded, or of a remote read.
    pub query_body_bytes: u64,
    /// How long a body may pause between two pieces.
    pub body_idle_timeout: Duration,
    /// How long a whole body may take.
    pub body_timeout: Duration,
    /// What is read of a slow body before its request has a permit; 0 means nothing.
    pub upload_buffer_bytes: usize,
    /// Limits for expressions in queries and alert rules.
    pub expressions: ExpressionLimits,
    pub organisations: OrganisationsConfig,
}

/// The limits of organisations, each by itself and all together, on one copy of the proxy.
#[derive(Clone, Debug)]
pub struct OrganisationsConfig {
    /// Requests in flight, of all organisations.
    pub in_flight: usize,
    /// The share of these that one organisation may hold, in percent.
    pub organisation_percent: usize,
    /// What may be read of all bodies of requests that have no permit yet.
    pub upload_total_bytes: usize,
    /// How long a request waits for a slot or for its rate.
    pub max_wait: Duration,
    /// How much unused rate is saved up, as a duration.
    pub burst: Duration,
    pub each: OrganisationLimits,
    pub overrides: HashMap<OrganisationId, OrganisationLimits>,
}

impl OrganisationsConfig {
    /// The limits of one organisation.
    pub fn limits_of(&self, organisation: &OrganisationId) -> &OrganisationLimits {
        self.overrides.get(organisation).unwrap_or(&self.each)
    }
}

/// The limits of one organisation, by surface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrganisationLimits {
    pub push: SurfaceLimits,
    pub otlp: SurfaceLimits,
    pub query: SurfaceLimits,
    pub rules: SurfaceLimits,
    pub alerts: SurfaceLimits,
}

/// The limits of one organisation on one surface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SurfaceLimits {
    pub in_flight: usize,
    /// Requests per second; `None` means no limit.
    pub requests_per_second: Option<NonZeroU64>,
    /// Bytes of request bodies per second; `None` means no limit.
    pub bytes_per_second: Option<NonZeroU64>,
}

impl Default for OrganisationLimits {
    fn default() -> Self {
        let of = |in_flight| SurfaceLimits {
            in_flight,
            requests_per_second: None,
            bytes_per_second: None,
        };
        // Half of what a copy accepts from Fly (fly.toml, hard_limit), a quarter of what an
        // instance of Mimir gets: devices with slow connections hold a slot for as long as their
        // body takes.
        // Mimir refuses more than 8 concurrent reads of a tenant's Alertmanager
        // (alertmanager.max-concurrent-get-requests-per-tenant); here they wait instead.
        Self { push: of(500), otlp: of(500), query: of(128), rules: of(32), alerts: of(8) }
    }
}

/// A key of `[limits]` and of its `organisations`, and the limit that it sets.
struct Key {
    name: &'static str,
    surface: LimitedSurface,
    limit: Limit,
}

/// A surface with limits of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LimitedSurface {
    Push,
    Otlp,
    Query,
    Rules,
    Alerts,
}

/// A limit of one surface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    InFlight,
    RequestsPerSecond,
    BytesPerSecond,
}

const fn key(name: &'static str, surface: LimitedSurface, limit: Limit) -> Key {
    Key { name, surface, limit }
}

/// Bytes are limited only on surfaces with large bodies.
const KEYS: &[Key] = &[
    key("push_in_flight", LimitedSurface::Push, Limit::InFlight),
    key("push_requests_per_second", LimitedSurface::Push, Limit::RequestsPerSecond),
    key("push_bytes_per_second", LimitedSurface::Push, Limit::BytesPerSecond),
    key("otlp_in_flight", LimitedSurface::Otlp, Limit::InFlight),
    key("otlp_requests_per_second", LimitedSurface::Otlp, Limit::RequestsPerSecond),
    key("otlp_bytes_per_second", LimitedSurface::Otlp, Limit::BytesPerSecond),
    key("query_in_flight", LimitedSurface::Query, Limit::InFlight),
    key("query_requests_per_second", LimitedSurface::Query, Limit::RequestsPerSecond),
    key("rules_in_flight", LimitedSurface::Rules, Limit::InFlight),
    key("rules_requests_per_second", LimitedSurface::Rules, Limit::RequestsPerSecond),
    key("alerts_in_flight", LimitedSurface::Alerts, Limit::InFlight),
    key("alerts_requests_per_second", LimitedSurface::Alerts, Limit::RequestsPerSecond),
];

impl OrganisationLimits {
    /// The limit of a key; 0 is none.
    fn get(&self, key: &Key) -> u64 {
        let surface = match key.surface {
            LimitedSurface::Push => &self.push,
            LimitedSurface::Otlp => &self.otlp,
            LimitedSurface::Query => &self.query,
            LimitedSurface::Rules => &self.rules,
            LimitedSurface::Alerts => &self.alerts,
        };
        match key.limit {
            Limit::InFlight => surface.in_flight as u64,
            Limit::RequestsPerSecond => surface.requests_per_second.map_or(0, NonZeroU64::get),
            Limit::BytesPerSecond => surface.bytes_per_second.map_or(0, NonZeroU64::get),
        }
    }

    /// Sets the limit of a key. Nothing here has a default arm, and every field is named: a new
    /// surface or limit does not compile until it is handled.
    fn set(&mut self, key: &Key, raw: Raw) -> Result<(), String> {
        let Self { push, otlp, query, rules, alerts } = self;
        let surface = match key.surface {
            LimitedSurface::Push => push,
            LimitedSurface::Otlp => otlp,
            LimitedSurface::Query => query,
            LimitedSurface::Rules => rules,
            LimitedSurface::Alerts => alerts,
        };
        let SurfaceLimits { in_flight, requests_per_second, bytes_per_second } = surface;
        match key.limit {
            Limit::InFlight => *in_flight = number(raw, 1, MOST_IN_FLIGHT)?,
            Limit::RequestsPerSecond => *requests_per_second = rate(number(raw, 0, 1 << 30)?),
            Limit::BytesPerSecond => {
                *bytes_per_second = NonZeroU64::new(size(raw, 0, 1024 * GIB)?);
            }
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
        upload_buffer_bytes: section
            .get("upload_buffer_bytes", bytes(64 * KIB), |raw| size(raw, 0, 16 * MIB).map(bytes)),
        expressions: expressions(section),
        organisations: organisations(section),
    }
}

fn expressions(section: &mut Section<'_>) -> ExpressionLimits {
    let default = ExpressionLimits::default();
    ExpressionLimits {
        bytes: section.get("expression_bytes", default.bytes, |raw| size(raw, KIB, GIB).map(bytes)),
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
        let before = each.get(key);
        section.get(key.name, before, |raw| each.set(key, raw).map(|()| each.get(key)));
    }
    OrganisationsConfig {
        in_flight: section.get("in_flight", 4096, |raw| number(raw, 1, MOST_IN_FLIGHT)),
        // A little more than one organisation may have on all surfaces together, if there is one
        // instance of Mimir (upstream.max_in_flight).
        organisation_percent: section.get("organisation_percent", 33, |raw| number(raw, 1, 100)),
        upload_total_bytes: section
            .get("upload_total_bytes", bytes(64 * MIB), |raw| size(raw, 0, 64 * GIB).map(bytes)),
        max_wait: section
            .get("max_wait", 2 * second, |raw| duration(raw, Duration::ZERO, 60 * second)),
        burst: section.get("burst", 10 * second, |raw| duration(raw, second, 3600 * second)),
        overrides: section.get("organisations", HashMap::new(), |raw| overrides(raw, each)),
        each,
    }
}

/// There may be thousands: how many, and what tells them from others.
impl Shown for HashMap<OrganisationId, OrganisationLimits> {
    fn shown(&self) -> String {
        if self.is_empty() {
            return String::new();
        }
        let own = |(organisation, limits): (&OrganisationId, &OrganisationLimits)| {
            let each: Vec<_> = KEYS.iter().map(|key| limits.get(key).to_string()).collect();
            format!("{organisation} {}\n", each.join(" "))
        };
        let mut all: Vec<String> = self.iter().map(own).collect();
        all.sort();
        format!("{} organisations, {}", self.len(), short_digest(&all.concat()))
    }
}

/// Organisations with limits of their own.
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
                    problems.push(format!("{name}: duplicate organisation"));
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
        let known = KEYS.iter().find(|known| known.name == key);
        let set = known.map_or_else(
            || {
                let names: Vec<_> = KEYS.iter().map(|key| key.name).collect();
                Err(format!("is unknown; there are {}", names.join(", ")))
            },
            |known| own.set(known, Raw::Toml(value)),
        );
        if let Err(problem) = set {
            problems.push(format!("{name}.{key} {problem}"));
        }
    }
    Ok((organisation, own))
}

#[cfg(test)]
mod tests {
    use super::*;

    // A key that sets the wrong limit sets one that the operator did not ask for.
    #[test]
    fn every_key_sets_the_limit_that_it_names_and_no_other() {
        for key in KEYS {
            let (surface, limit) = key.name.split_once('_').unwrap();
            let mut limits = OrganisationLimits::default();
            limits.set(key, Raw::Toml(Value::Integer(7))).unwrap();
            let mut wanted = OrganisationLimits::default();
            let of_surface = match surface {
                "push" => &mut wanted.push,
                "otlp" => &mut wanted.otlp,
                "query" => &mut wanted.query,
                "rules" => &mut wanted.rules,
                "alerts" => &mut wanted.alerts,
                other => panic!("{other} is no surface"),
            };
            match limit {
                "in_flight" => of_surface.in_flight = 7,
                "requests_per_second" => of_surface.requests_per_second = NonZeroU64::new(7),
                "bytes_per_second" => of_surface.bytes_per_second = NonZeroU64::new(7),
                other => panic!("{other} is no limit"),
            }
            assert_eq!(limits, wanted, "{}", key.name);
            assert_eq!(limits.get(key), 7, "{}", key.name);
        }
    }
}
