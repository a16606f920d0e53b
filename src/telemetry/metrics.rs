//! Handles to all metrics, made once: counting a request looks nothing up by a text, and what is
//! counted by an enum is an array with as many places as the enum has variants.

mod upstreams;

use std::array;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use strum::{EnumCount as _, VariantArray};

use super::exemplars::Exemplars;
use super::table::{self, Kind, METRICS, Metric, NO_SURFACE, PLAIN};
use crate::labels::{ConnectionEnd, InstanceFault, LookupKind, NoResend, Resend, TlsHandshake};
use crate::reason::{Reason, Sampled};
use crate::route::Surface;
use crate::version;
use upstreams::UpstreamsByInstance;

/// Handles to all metrics but those of [alert rules](super::RuleMetrics).
pub struct Metrics {
    surfaces: [SurfaceMetrics; Surface::COUNT],
    /// Of requests for which no route was found.
    unrouted: SurfaceMetrics,
    pub token_cache_hits: Counter,
    pub token_cache_misses: Counter,
    pub token_cache_entries: Gauge,
    key_set_fetches_succeeded: Counter,
    key_set_fetches_failed: Counter,
    pub key_set_age: LateGauge,
    pub key_set_keys: LateGauge,
    pub ready: Gauge,
    pub memory: Gauge,
    pub config_reload_successful: Gauge,
    pub config_reload_time: Gauge,
    pub config_hash: Gauge,
    pub requests_in_flight: Gauge,
    pub permit_waits: Histogram,
    pub limited_organisations: Gauge,
    pub limited_devices: Gauge,
    pub device_accounts: Gauge,
    pub limit_rows: LateGauge,
    pub limit_rows_invalid: LateGauge,
    pub limit_rows_age: LateGauge,
    pub limit_row_failures: Counter,
    pub memory_limit: LateGauge,
    pub memory_counted: LateGauge,
    pub shedding: Gauge,
    pub worker_lag: Histogram,
    pub upload_buffer: Gauge,
    pub uploads_without_buffer: Counter,
    pub connections: Gauge,
    pub connections_accepted: Counter,
    connections_ended: [Counter; ConnectionEnd::COUNT],
    tls_handshakes: [Counter; TlsHandshake::COUNT],
    pub tls_certificate_expiry: LateGauge,
    pub streams_reset: Counter,
    pub upstream_connects: Counter,
    pub upstream_connect_failures: Counter,
    pub upstream_resends: Counter,
    pub upstream_instances: Gauge,
    pub upstream_instances_ejected: Gauge,
    pub upstream_returns: Counter,
    upstream_ejections: [Counter; InstanceFault::COUNT],
    upstream_retries: [Counter; Resend::COUNT],
    upstream_retry_refusals: [Counter; NoResend::COUNT],
    upstream_by_instance: UpstreamsByInstance,
    pub resolve_failures: Counter,
    pub log_lines_dropped: Counter,
    log_lines_suppressed: [Counter; Sampled::COUNT],
    exemplars: Exemplars,
    directories: [DirectoryMetrics; LookupKind::COUNT],
    pub database_listening: LateGauge,
    pub revocations: LateGauge,
    pub revocations_age: LateGauge,
    pub revocation_failures: Counter,
    pub device_key_grace_uses: Counter,
    pub device_key_backoffs: Counter,
    pub last_used_failures: Counter,
}

/// Handles to the metrics of one kind of lookup.
#[derive(Clone)]
pub struct DirectoryMetrics {
    /// Answered from memory.
    pub hits: Counter,
    /// Read from the database.
    pub reads: Counter,
    /// Answered from memory after its time, because the database is away.
    pub stale: Counter,
    /// Not answered.
    pub unavailable: Counter,
    /// Queries that failed.
    pub failures: Counter,
    pub invalidations: Counter,
    pub entries: Gauge,
    /// Of one query, for however many keys.
    pub duration: Histogram,
}

impl DirectoryMetrics {
    fn register(kind: LookupKind) -> Self {
        let kind: (&str, &str) = ("kind", kind.into());
        let lookups = |outcome| table::DIRECTORY_LOOKUPS.counter([kind, ("outcome", outcome)]);
        Self {
            hits: lookups("cached"),
            reads: lookups("read"),
            stale: lookups("stale"),
            unavailable: lookups("unavailable"),
            failures: table::DIRECTORY_READ_FAILURES.counter([kind]),
            invalidations: table::DIRECTORY_INVALIDATIONS.counter([kind]),
            entries: table::DIRECTORY_ENTRIES.gauge([kind]),
            duration: table::DIRECTORY_READ_DURATION.histogram([kind]),
        }
    }
}

/// A gauge that is registered when it is first set, for features that may not be configured: an age
/// of 0 or -1 without a database would look like one of a database.
pub struct LateGauge {
    metric: Metric,
    gauge: OnceLock<Gauge>,
}

impl LateGauge {
    pub(super) fn new(metric: Metric) -> Self {
        Self { metric, gauge: OnceLock::new() }
    }

    /// Sets the gauge; it is exposed from then on.
    pub fn set(&self, value: f64) {
        self.gauge.get_or_init(|| self.metric.gauge(PLAIN)).set(value);
    }

    /// There is no value any more. What was exposed cannot be taken back; no comparison is true of it.
    pub fn unset(&self) {
        if let Some(gauge) = self.gauge.get() {
            gauge.set(f64::NAN);
        }
    }
}

struct SurfaceMetrics {
    /// By the first digit of the status, 1 to 5.
    forwarded: [Counter; table::CLASSES.len()],
    unserved: [Counter; Reason::COUNT],
    answered: Counter,
    cancelled: Counter,
    duration: Histogram,
    received: Counter,
    sent: Counter,
}

pub(super) const BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0];

/// Makes the process-wide recorder. Once per process.
pub fn install_recorder() -> Result<PrometheusHandle, BuildError> {
    let handle = recorder()?.install_recorder()?;
    table::describe();
    Ok(handle)
}

fn recorder() -> Result<PrometheusBuilder, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for metric in METRICS.iter().filter(|metric| metric.kind == Kind::Histogram) {
        builder =
            builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), &BUCKETS)?;
    }
    Ok(builder)
}

impl Metrics {
    /// Registers everything with the installed recorder, so that each series is there from the
    /// start at zero.
    pub fn register() -> Self {
        let build = [("version", version::NUMBER), ("commit", version::COMMIT)];
        table::BUILD_INFO.gauge(build).set(1.0);
        let fetches =
            |outcome: &'static str| table::KEY_SET_FETCHES.counter([("outcome", outcome)]);
        let cache =
            |outcome: &'static str| table::TOKEN_CACHE_LOOKUPS.counter([("outcome", outcome)]);
        let connects =
            |outcome: &'static str| table::UPSTREAM_CONNECTS.counter([("outcome", outcome)]);
        Self {
            surfaces: array::from_fn(|at| SurfaceMetrics::register(Surface::VARIANTS[at].into())),
            unrouted: SurfaceMetrics::register(NO_SURFACE),
            token_cache_hits: cache("hit"),
            token_cache_misses: cache("miss"),
            token_cache_entries: table::TOKEN_CACHE_ENTRIES.gauge(PLAIN),
            key_set_fetches_succeeded: fetches("succeeded"),
            key_set_fetches_failed: fetches("failed"),
            key_set_age: LateGauge::new(table::KEY_SET_AGE),
            key_set_keys: LateGauge::new(table::KEY_SET_KEYS),
            ready: table::READY.gauge(PLAIN),
            memory: table::MEMORY.gauge(PLAIN),
            config_reload_successful: table::CONFIG_LAST_RELOAD_SUCCESSFUL.gauge(PLAIN),
            config_reload_time: table::CONFIG_LAST_RELOAD_SUCCESS_TIMESTAMP.gauge(PLAIN),
            config_hash: table::CONFIG_HASH.gauge(PLAIN),
            requests_in_flight: table::REQUESTS_IN_FLIGHT.gauge(PLAIN),
            permit_waits: table::PERMIT_WAIT.histogram(PLAIN),
            limited_organisations: table::LIMITED_ORGANISATIONS.gauge(PLAIN),
            limited_devices: table::LIMITED_DEVICES.gauge(PLAIN),
            device_accounts: table::DEVICE_ACCOUNTS.gauge(PLAIN),
            limit_rows: LateGauge::new(table::LIMIT_ROWS),
            limit_rows_invalid: LateGauge::new(table::LIMIT_ROWS_INVALID),
            limit_rows_age: LateGauge::new(table::LIMIT_ROWS_AGE),
            limit_row_failures: table::LIMIT_ROW_READ_FAILURES.counter(PLAIN),
            memory_limit: LateGauge::new(table::MEMORY_LIMIT),
            memory_counted: LateGauge::new(table::MEMORY_COUNTED),
            shedding: table::SHEDDING.gauge(PLAIN),
            worker_lag: table::WORKER_LAG.histogram(PLAIN),
            upload_buffer: table::UPLOAD_BUFFER.gauge(PLAIN),
            uploads_without_buffer: table::UPLOADS_WITHOUT_BUFFER.counter(PLAIN),
            connections: table::CONNECTIONS.gauge(PLAIN),
            connections_accepted: table::CONNECTIONS_ACCEPTED.counter(PLAIN),
            connections_ended: by_reason::<ConnectionEnd, _>(&table::CONNECTIONS_ENDED),
            tls_handshakes: array::from_fn(|at| {
                let outcome: &'static str = TlsHandshake::VARIANTS[at].into();
                table::TLS_HANDSHAKES.counter([("outcome", outcome)])
            }),
            tls_certificate_expiry: LateGauge::new(table::TLS_CERTIFICATE_EXPIRY),
            streams_reset: table::STREAMS_RESET.counter(PLAIN),
            upstream_connects: connects("succeeded"),
            upstream_connect_failures: connects("failed"),
            upstream_resends: table::UPSTREAM_RESENDS.counter(PLAIN),
            upstream_instances: table::UPSTREAM_INSTANCES.gauge(PLAIN),
            upstream_instances_ejected: table::UPSTREAM_INSTANCES_EJECTED.gauge(PLAIN),
            upstream_returns: table::UPSTREAM_RETURNS.counter(PLAIN),
            upstream_ejections: by_reason::<InstanceFault, _>(&table::UPSTREAM_EJECTIONS),
            upstream_retries: by_reason::<Resend, _>(&table::UPSTREAM_RETRIES),
            upstream_retry_refusals: by_reason::<NoResend, _>(&table::UPSTREAM_RETRIES_REFUSED),
            upstream_by_instance: UpstreamsByInstance::default(),
            resolve_failures: table::UPSTREAM_RESOLVE_FAILURES.counter(PLAIN),
            log_lines_dropped: table::LOG_LINES_DROPPED.counter(PLAIN),
            log_lines_suppressed: Sampled::ALL
                .map(|kind| table::LOG_LINES_SUPPRESSED.counter([("reason", kind.name())])),
            exemplars: Exemplars::default(),
            directories: array::from_fn(|at| DirectoryMetrics::register(LookupKind::VARIANTS[at])),
            database_listening: LateGauge::new(table::DATABASE_LISTENING),
            revocations: LateGauge::new(table::REVOCATIONS),
            revocations_age: LateGauge::new(table::REVOCATIONS_AGE),
            revocation_failures: table::REVOCATION_READ_FAILURES.counter(PLAIN),
            device_key_grace_uses: table::DEVICE_KEY_GRACE_USES.counter(PLAIN),
            device_key_backoffs: table::DEVICE_KEY_BACKOFFS.counter(PLAIN),
            last_used_failures: table::DEVICE_KEY_LAST_USED_FAILURES.counter(PLAIN),
        }
    }

    /// Handles to the metrics of one kind of lookup.
    pub fn directory(&self, kind: LookupKind) -> DirectoryMetrics {
        self.directories[kind as usize].clone()
    }

    /// The counter of attempts to fetch the key set that ended like this.
    pub fn key_set_fetch(&self, succeeded: bool) -> &Counter {
        if succeeded { &self.key_set_fetches_succeeded } else { &self.key_set_fetches_failed }
    }

    pub fn connection_ended(&self, reason: ConnectionEnd) {
        self.connections_ended[reason as usize].increment(1);
    }

    pub fn tls_handshake(&self, outcome: TlsHandshake) {
        self.tls_handshakes[outcome as usize].increment(1);
    }

    pub fn upstream_ejected(&self, reason: InstanceFault) {
        self.upstream_ejections[reason as usize].increment(1);
    }

    pub fn upstream_resent(&self, reason: Resend) {
        self.upstream_retries[reason as usize].increment(1);
    }

    pub fn upstream_not_resent(&self, reason: NoResend) {
        self.upstream_retry_refusals[reason as usize].increment(1);
    }

    /// Takes over each instance's requests in flight and requests so far.
    pub fn report_upstream_instances(&self, facts: impl Iterator<Item = (SocketAddr, u32, u64)>) {
        self.upstream_by_instance.report(facts);
    }

    fn surface(&self, surface: Option<Surface>) -> &SurfaceMetrics {
        surface.map_or(&self.unrouted, |surface| &self.surfaces[surface as usize])
    }

    /// Mimir's response was passed on.
    pub fn forwarded(&self, surface: Option<Surface>, status: u16) {
        let class = usize::from(status / 100).clamp(1, table::CLASSES.len()) - 1;
        self.surface(surface).forwarded[class].increment(1);
    }

    /// A request was rejected, or failed.
    pub fn unserved(&self, surface: Option<Surface>, reason: Reason) {
        self.surface(surface).unserved[reason as usize].increment(1);
    }

    /// The proxy answered by itself.
    pub fn answered(&self, surface: Option<Surface>) {
        self.surface(surface).answered.increment(1);
    }

    /// The client went away.
    pub fn cancelled(&self, surface: Option<Surface>) {
        self.surface(surface).cancelled.increment(1);
    }

    /// A request without a line in the log, because there are too many like it.
    pub fn log_line_suppressed(&self, kind: Sampled) {
        self.log_lines_suppressed[kind.index()].increment(1);
    }

    /// A traced request, which may stand for its bucket. `at` is since the Unix epoch.
    pub fn exemplar(&self, surface: Option<Surface>, trace: u128, seconds: f64, at: Duration) {
        self.exemplars.add(surface, trace, seconds, at);
    }

    /// The exposition as `OpenMetrics` text, with exemplars.
    pub fn open_metrics(&self, exposition: &PrometheusHandle) -> String {
        self.exemplars.open_metrics(&exposition.render())
    }

    /// What a finished request took and carried.
    pub fn finished(&self, surface: Option<Surface>, seconds: f64, received: u64, sent: u64) {
        let metrics = self.surface(surface);
        metrics.duration.record(seconds);
        metrics.received.increment(received);
        metrics.sent.increment(sent);
    }
}

/// A counter for each variant of an enum, in its order.
fn by_reason<L, const N: usize>(metric: &Metric) -> [Counter; N]
where
    L: VariantArray + Copy + Into<&'static str>,
{
    array::from_fn(|at| {
        let reason: &'static str = L::VARIANTS[at].into();
        metric.counter([("reason", reason)])
    })
}

impl SurfaceMetrics {
    fn register(surface: &'static str) -> Self {
        let surface = ("surface", surface);
        let requests = |outcome, reason| {
            table::REQUESTS.counter([surface, ("outcome", outcome), ("reason", reason)])
        };
        Self {
            forwarded: table::CLASSES.map(|class| requests("forwarded", class)),
            unserved: array::from_fn(|at| {
                let reason = Reason::VARIANTS[at];
                requests(reason.class().into(), reason.into())
            }),
            answered: requests("answered", "own"),
            cancelled: requests("cancelled", "client_gone"),
            duration: table::DURATION.histogram([surface]),
            received: table::RECEIVED_BYTES.counter([surface]),
            sent: table::SENT_BYTES.counter([surface]),
        }
    }
}
