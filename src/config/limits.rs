//! `[limits]`

use std::collections::HashMap;
use std::num::{NonZeroU64, NonZeroUsize};
use std::str::FromStr as _;
use std::time::Duration;

use strum::VariantNames as _;
use toml::{Table, Value};

use super::reader::{Raw, Section, kind};
use super::shown::{Shown, short_digest};
use super::values::{GIB, KIB, MIB, bytes, duration, number, size, switch};
use crate::mimir::expression::ExpressionLimits;
use crate::mimir::otlp::{OtlpLimits, UncheckedEncoding};
use crate::spelling::nearest;
use crate::tenancy::OrganisationId;

/// The limits of a request's body, and those of an organisation.
#[derive(Clone, Debug)]
pub struct LimitsConfig {
    /// The body of a remote write or Influx push, compressed.
    pub push_body_bytes: u64,
    /// The body of an OTLP export.
    pub otlp: OtlpLimits,
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
    /// Whether the table `organisation_limit` is read.
    pub from_database: bool,
    pub memory: MemoryLimit,
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
    /// The limits of an organisation without limits of its own, and the keys that set them.
    pub each: OwnLimits,
    /// Organisations with limits of their own.
    pub overrides: HashMap<OrganisationId, OwnLimits>,
}

/// How much memory the process may take before requests are shed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLimit {
    /// What the cgroup allows, else what the machine has.
    Automatic,
    Off,
    Bytes(u64),
}

/// Limits, and which keys have set them; the others are defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnLimits {
    pub limits: OrganisationLimits,
    pub keys: LimitKeys,
}

/// The limits of one organisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrganisationLimits {
    /// Of all its requests.
    pub all: LimitsBySurface,
    /// Of each of its devices.
    pub device: LimitsBySurface,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitsBySurface {
    pub push: SurfaceLimits,
    pub otlp: SurfaceLimits,
    pub query: SurfaceLimits,
    pub rules: SurfaceLimits,
    pub alerts: SurfaceLimits,
}

/// The limits on one surface; `None` means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SurfaceLimits {
    /// An organisation always has such a limit.
    pub in_flight: Option<NonZeroUsize>,
    pub requests_per_second: Option<NonZeroU64>,
    /// Bytes of request bodies per second.
    pub bytes_per_second: Option<NonZeroU64>,
}

/// A set of limits, by their names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitKeys(u32);

/// One limit with a value, as a row of the database sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitValue {
    /// The place in [`KEYS`].
    key: usize,
    /// 0 is none.
    value: u64,
}

impl Default for OrganisationLimits {
    fn default() -> Self {
        let of = |in_flight| SurfaceLimits {
            in_flight: NonZeroUsize::new(in_flight),
            ..SurfaceLimits::default()
        };
        // Half of what a copy accepts from Fly (fly.toml, hard_limit), a quarter of what an
        // instance of Mimir gets: devices with slow connections hold a slot for as long as their
        // body takes.
        // Mimir refuses more than 8 concurrent reads of a tenant's Alertmanager
        // (alertmanager.max-concurrent-get-requests-per-tenant); here they wait instead.
        let all = LimitsBySurface {
            push: of(500),
            otlp: of(500),
            query: of(128),
            rules: of(32),
            alerts: of(8),
        };
        let none = SurfaceLimits::default();
        let device =
            LimitsBySurface { push: none, otlp: none, query: none, rules: none, alerts: none };
        Self { all, device }
    }
}

/// A key of `[limits]` and of its `organisations`, and the limit that it sets.
struct Key {
    name: &'static str,
    whose: Whose,
    surface: LimitedSurface,
    limit: Limit,
}

/// Who has a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Organisation,
    /// Each device of an organisation.
    Device,
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
    Key { name, whose: Whose::Organisation, surface, limit }
}

const fn device(name: &'static str, surface: LimitedSurface, limit: Limit) -> Key {
    Key { name, whose: Whose::Device, surface, limit }
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
    device("device_push_in_flight", LimitedSurface::Push, Limit::InFlight),
    device("device_push_requests_per_second", LimitedSurface::Push, Limit::RequestsPerSecond),
    device("device_push_bytes_per_second", LimitedSurface::Push, Limit::BytesPerSecond),
    device("device_otlp_in_flight", LimitedSurface::Otlp, Limit::InFlight),
    device("device_otlp_requests_per_second", LimitedSurface::Otlp, Limit::RequestsPerSecond),
    device("device_otlp_bytes_per_second", LimitedSurface::Otlp, Limit::BytesPerSecond),
    device("device_query_in_flight", LimitedSurface::Query, Limit::InFlight),
    device("device_query_requests_per_second", LimitedSurface::Query, Limit::RequestsPerSecond),
    device("device_rules_in_flight", LimitedSurface::Rules, Limit::InFlight),
    device("device_rules_requests_per_second", LimitedSurface::Rules, Limit::RequestsPerSecond),
    device("device_alerts_in_flight", LimitedSurface::Alerts, Limit::InFlight),
    device("device_alerts_requests_per_second", LimitedSurface::Alerts, Limit::RequestsPerSecond),
];

impl OrganisationLimits {
    /// The limit of a key; 0 is none.
    fn get(&self, key: &Key) -> u64 {
        let limits = match key.whose {
            Whose::Organisation => &self.all,
            Whose::Device => &self.device,
        };
        let surface = match key.surface {
            LimitedSurface::Push => &limits.push,
            LimitedSurface::Otlp => &limits.otlp,
            LimitedSurface::Query => &limits.query,
            LimitedSurface::Rules => &limits.rules,
            LimitedSurface::Alerts => &limits.alerts,
        };
        match key.limit {
            Limit::InFlight => surface.in_flight.map_or(0, NonZeroUsize::get) as u64,
            Limit::RequestsPerSecond => surface.requests_per_second.map_or(0, NonZeroU64::get),
            Limit::BytesPerSecond => surface.bytes_per_second.map_or(0, NonZeroU64::get),
        }
    }

    /// Sets the limit of a key. Nothing here has a default arm, and every field is named: a new
    /// surface or limit does not compile until it is handled.
    fn set(&mut self, key: &Key, raw: Raw) -> Result<(), String> {
        let value = key.parse(raw)?;
        self.put(key, value);
        Ok(())
    }

    fn put(&mut self, key: &Key, value: u64) {
        let Self { all, device } = self;
        let LimitsBySurface { push, otlp, query, rules, alerts } = match key.whose {
            Whose::Organisation => all,
            Whose::Device => device,
        };
        let surface = match key.surface {
            LimitedSurface::Push => push,
            LimitedSurface::Otlp => otlp,
            LimitedSurface::Query => query,
            LimitedSurface::Rules => rules,
            LimitedSurface::Alerts => alerts,
        };
        let SurfaceLimits { in_flight, requests_per_second, bytes_per_second } = surface;
        match key.limit {
            Limit::InFlight => *in_flight = NonZeroUsize::new(bytes(value)),
            Limit::RequestsPerSecond => *requests_per_second = NonZeroU64::new(value),
            Limit::BytesPerSecond => *bytes_per_second = NonZeroU64::new(value),
        }
    }
}

impl OwnLimits {
    /// Sets a limit that a row of the database has.
    pub fn set(&mut self, value: LimitValue) {
        self.limits.put(&KEYS[value.key], value.value);
        self.keys.0 |= 1 << value.key;
    }
}

impl LimitKeys {
    /// The names of all limits.
    pub fn names() -> impl Iterator<Item = &'static str> {
        KEYS.iter().map(|key| key.name)
    }

    /// Whether it is among them.
    pub fn has(self, name: &str) -> bool {
        KEYS.iter().zip(0..).any(|(key, at)| key.name == name && self.0 & (1 << at) != 0)
    }

    fn add(&mut self, wanted: &Key) {
        for (_, at) in KEYS.iter().zip(0..).filter(|(key, _)| key.name == wanted.name) {
            self.0 |= 1 << at;
        }
    }
}

impl LimitValue {
    /// Reads a limit by its name. It is written as in `[limits]`, but for "none" in place of 0:
    /// whoever writes 0 into a table may as well mean that nothing shall pass.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let known = KEYS.iter().position(|key| key.name == name);
        let at = known.ok_or_else(|| unknown(name))?;
        let (key, text) = (&KEYS[at], text.trim());
        let value = match (text, key.is_required()) {
            ("none", false) => 0,
            ("none", true) => {
                return Err("cannot be \"none\": every organisation has one".to_owned());
            }
            _ => match key.parse(Raw::Text(text.to_owned()))? {
                0 => return Err("cannot be 0; \"none\" is no limit".to_owned()),
                value => value,
            },
        };
        Ok(Self { key: at, value })
    }

    pub fn name(self) -> &'static str {
        KEYS[self.key].name
    }

    /// Of two values for the same limit the one that lets less pass.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        let rank = |value: u64| if value == 0 { u64::MAX } else { value };
        if rank(other.value) < rank(self.value) { other } else { self }
    }
}

impl Key {
    /// Whether there is always such a limit.
    fn is_required(&self) -> bool {
        self.whose == Whose::Organisation && self.limit == Limit::InFlight
    }

    /// Reads a value; 0 is none.
    fn parse(&self, raw: Raw) -> Result<u64, String> {
        match self.limit {
            Limit::InFlight => {
                let least = usize::from(self.is_required());
                number(raw, least, MOST_IN_FLIGHT).map(|number| number as u64)
            }
            Limit::RequestsPerSecond => number(raw, 0, 1 << 30).map(|number| number as u64),
            Limit::BytesPerSecond => size(raw, 0, 1024 * GIB),
        }
    }
}

fn unknown(name: &str) -> String {
    let names: Vec<_> = LimitKeys::names().collect();
    match nearest(name, names.iter().copied()) {
        Some(meant) => format!("is unknown; did you mean {meant}?"),
        None => format!("is unknown; there are {}", names.join(", ")),
    }
}

const MOST_IN_FLIGHT: usize = 1_000_000;

pub(super) fn read(section: &mut Section<'_>, has_database: bool) -> LimitsConfig {
    let body = |raw: Raw| size(raw, KIB, 1024 * GIB);
    let second = Duration::from_secs(1);
    let day = 86_400 * second;
    LimitsConfig {
        // Mimir's own default for distributor.max-recv-msg-size is 100 MiB.
        push_body_bytes: section.get("push_body_bytes", 100 * MIB, body),
        otlp: OtlpLimits {
            bytes: section.get("otlp_body_bytes", 16 * MIB, body),
            unchecked: section.get_list("otlp_unchecked_encodings", Vec::new(), |name| {
                UncheckedEncoding::from_str(&name).map_err(|_| {
                    format!(
                        "is one of {}; gzip is always accepted",
                        UncheckedEncoding::VARIANTS.join(", ")
                    )
                })
            }),
        },
        query_body_bytes: section.get("query_body_bytes", MIB, body),
        body_idle_timeout: section
            .get("body_idle_timeout", 30 * second, |raw| duration(raw, second / 10, day)),
        body_timeout: section
            .get("body_timeout", 300 * second, |raw| duration(raw, second / 10, day)),
        upload_buffer_bytes: section
            .get("upload_buffer_bytes", bytes(64 * KIB), |raw| size(raw, 0, 16 * MIB).map(bytes)),
        expressions: expressions(section),
        organisations: organisations(section),
        from_database: from_database(section, has_database),
        memory: section.get("memory_bytes", MemoryLimit::Automatic, memory),
    }
}

fn from_database(section: &mut Section<'_>, has_database: bool) -> bool {
    let from_database = section.get("from_database", false, switch);
    if from_database && !has_database {
        let problem = "needs [database]: the limits are rows of organisation_limit";
        section.fault("from_database", problem.to_owned());
    }
    from_database
}

/// A size, or one of two words.
fn memory(raw: Raw) -> Result<MemoryLimit, String> {
    if let Raw::Toml(Value::String(word)) | Raw::Text(word) = &raw {
        match word.as_str() {
            "auto" => return Ok(MemoryLimit::Automatic),
            "off" => return Ok(MemoryLimit::Off),
            _ => {}
        }
    }
    let bytes = size(raw, 16 * MIB, 1024 * GIB);
    bytes.map(MemoryLimit::Bytes).map_err(|problem| format!("{problem}; or \"auto\" or \"off\""))
}

impl Shown for UncheckedEncoding {
    fn shown(&self) -> String {
        <&str>::from(*self).to_owned()
    }
}

impl Shown for MemoryLimit {
    fn shown(&self) -> String {
        match self {
            Self::Automatic => "auto".to_owned(),
            Self::Off => "off".to_owned(),
            Self::Bytes(bytes) => bytes.to_string(),
        }
    }
}

fn expressions(section: &mut Section<'_>) -> ExpressionLimits {
    let default = ExpressionLimits::default();
    ExpressionLimits {
        count: section.get("expression_count", default.count, |raw| number(raw, 1, 1_000_000)),
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
    let mut each = OwnLimits::default();
    for key in KEYS {
        let limits = &mut each.limits;
        let before = limits.get(key);
        section.get(key.name, before, |raw| limits.set(key, raw).map(|()| limits.get(key)));
        if section.says(key.name) {
            each.keys.add(key);
        }
    }
    let overrides = section.get("organisations", HashMap::new(), |raw| overrides(raw, each));
    warn_of_no_effect(section, "", &each.limits);
    let mut named: Vec<_> = overrides.iter().collect();
    named.sort_by_key(|(organisation, _)| organisation.as_str());
    for (organisation, own) in named {
        warn_of_no_effect(section, &format!("{organisation}: "), &own.limits);
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
        overrides,
        each,
    }
}

/// A device's limit that its organisation's own limit never lets it reach. `about` begins the problem.
fn warn_of_no_effect(section: &mut Section<'_>, about: &str, limits: &OrganisationLimits) {
    for key in KEYS.iter().filter(|key| key.whose == Whose::Device) {
        let of_all = KEYS.iter().find(|all| {
            all.whose == Whose::Organisation && all.surface == key.surface && all.limit == key.limit
        });
        let (Some(all), own) = (of_all, limits.get(key)) else { continue };
        let most = limits.get(all);
        if own > 0 && most > 0 && own >= most {
            let problem = format!(
                "{about}{} = {own} has no effect: all devices together may have {} = {most}",
                key.name, all.name
            );
            section.warn(if about.is_empty() { key.name } else { "organisations" }, problem);
        }
    }
}

/// There may be thousands: how many, and what tells them from others.
impl Shown for HashMap<OrganisationId, OwnLimits> {
    fn shown(&self) -> String {
        if self.is_empty() {
            return String::new();
        }
        let own = |(organisation, own): (&OrganisationId, &OwnLimits)| {
            let each: Vec<_> = KEYS.iter().map(|key| own.limits.get(key).to_string()).collect();
            format!("{organisation} {}\n", each.join(" "))
        };
        let mut all: Vec<String> = self.iter().map(own).collect();
        all.sort();
        format!("{} organisations, {}", self.len(), short_digest(&all.concat()))
    }
}

/// Organisations with limits of their own.
fn overrides(raw: Raw, each: OwnLimits) -> Result<HashMap<OrganisationId, OwnLimits>, String> {
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
    each: OwnLimits,
    problems: &mut Vec<String>,
) -> Result<(OrganisationId, OwnLimits), String> {
    let organisation = OrganisationId::parse(name).map_err(|error| error.to_string())?;
    let Value::Table(table) = limits else {
        return Err(format!("must be a section, not {}", kind(&limits)));
    };
    let mut own = each;
    for (key, value) in table {
        let known = KEYS.iter().find(|known| known.name == key);
        let set = known.ok_or_else(|| unknown(&key)).and_then(|known| {
            own.keys.add(known);
            own.limits.set(known, Raw::Toml(value))
        });
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
            let mut wanted = OrganisationLimits::default();
            let (by_surface, name) = match key.name.strip_prefix("device_") {
                Some(name) => (&mut wanted.device, name),
                None => (&mut wanted.all, key.name),
            };
            let (surface, limit) = name.split_once('_').unwrap();
            let mut limits = OrganisationLimits::default();
            limits.set(key, Raw::Toml(Value::Integer(7))).unwrap();
            let of_surface = match surface {
                "push" => &mut by_surface.push,
                "otlp" => &mut by_surface.otlp,
                "query" => &mut by_surface.query,
                "rules" => &mut by_surface.rules,
                "alerts" => &mut by_surface.alerts,
                other => panic!("{other} is no surface"),
            };
            match limit {
                "in_flight" => of_surface.in_flight = NonZeroUsize::new(7),
                "requests_per_second" => of_surface.requests_per_second = NonZeroU64::new(7),
                "bytes_per_second" => of_surface.bytes_per_second = NonZeroU64::new(7),
                other => panic!("{other} is no limit"),
            }
            assert_eq!(limits, wanted, "{}", key.name);
            assert_eq!(limits.get(key), 7, "{}", key.name);
        }
    }

    // A row is written by a program: what it got wrong must not lift a limit, or let nothing pass.
    #[test]
    fn a_row_s_value_is_a_limit_or_none_in_so_many_words() {
        let parse = LimitValue::parse;
        let set = |name: &str, text: &str| {
            let mut own = OwnLimits::default();
            own.set(parse(name, text).unwrap());
            assert!(
                own.keys.has(name) && LimitKeys::names().filter(|n| own.keys.has(n)).count() == 1
            );
            own.limits
        };
        assert_eq!(set("push_in_flight", "7").all.push.in_flight, NonZeroUsize::new(7));
        let bytes = set("device_otlp_bytes_per_second", " 1MiB ").device.otlp.bytes_per_second;
        assert_eq!(bytes, NonZeroU64::new(1 << 20));
        assert_eq!(set("query_requests_per_second", "none").all.query.requests_per_second, None);
        for (name, text, problem) in [
            ("push_in_flight", "0", "from 1"),
            ("push_in_flight", "none", "every organisation"),
            ("push_requests_per_second", "0", "\"none\" is no limit"),
            ("device_push_in_flight", "0", "\"none\" is no limit"),
            ("push_requests_per_second", "-1", "whole number"),
            ("push_requests_per_second", "1e9", "whole number"),
            ("push_requests_per_second", "", "whole number"),
            ("push_bytes_per_second", "10MB", "must be a size"),
            ("push_bytes_per_second", "99999999999999999999", "must be a size"),
            ("push_request_per_second", "1", "did you mean push_requests_per_second"),
            ("", "1", "is unknown"),
        ] {
            let wrong = parse(name, text).unwrap_err();
            assert!(wrong.contains(problem), "{name} {text:?}: {wrong}");
        }
    }

    #[test]
    fn the_stricter_of_two_rows_is_the_one_with_less() {
        let of = |text| LimitValue::parse("device_push_in_flight", text).unwrap();
        for (one, other) in [("5", "9"), ("5", "none"), ("5", "5")] {
            assert_eq!(of(one).stricter(of(other)), of("5"));
            assert_eq!(of(other).stricter(of(one)), of("5"));
        }
    }
}
