//! Metric names, and handles to them made once: counting a request looks nothing up by a text.
//!
//! Every label is bounded: surfaces, outcomes and reasons are lists in the code. No metric carries
//! a tenant, a user or a path.

#![expect(clippy::disallowed_macros, reason = "this is where metrics are registered")]

mod database;
mod late;
mod upstreams;

use std::collections::HashMap;

use super::rule_metrics::{ACTIVATION, LAG, RECONCILE};
use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use upstreams::{UpstreamsByInstance, by_reason};

use late::LateGauge;

use crate::version;

/// The bounded label values that this process can produce; the composition root gathers them
/// from the stages, so that telemetry needs to know none of them.
#[derive(Default)]
pub struct MetricNames {
    /// Surfaces, in the order of their index.
    pub surfaces: Vec<&'static str>,
    /// Reasons of rejections.
    pub rejections: Vec<&'static str>,
    /// Reasons of failures.
    pub failures: Vec<&'static str>,
    /// Kinds of things that are looked up in the database.
    pub directories: Vec<&'static str>,
    /// Why instances of Mimir are left alone.
    pub ejections: Vec<&'static str>,
    /// What is done with requests that failed upstream.
    pub retries: Vec<&'static str>,
    /// Why nothing is done with them.
    pub retry_refusals: Vec<&'static str>,
}

/// Handles to all metrics.
pub struct Metrics {
    surfaces: Vec<SurfaceMetrics>,
    unrouted: SurfaceMetrics,
    /// Verified tokens found in the cache.
    pub token_cache_hits: Counter,
    /// Tokens that had to be verified.
    pub token_cache_misses: Counter,
    /// Tokens in the cache.
    pub token_cache_entries: Gauge,
    key_set_fetches: [Counter; 2],
    /// Age of the key set, where there is one.
    pub key_set_age: LateGauge,
    /// Usable keys, where there is a key set.
    pub key_set_keys: LateGauge,
    /// Whether this process wants requests.
    pub ready: Gauge,
    /// Requests of all organisations on their way.
    pub requests_in_flight: Gauge,
    /// How long requests waited for their turn, of those that did.
    pub permit_waits: Histogram,
    /// Open downstream connections.
    pub connections: Gauge,
    /// Downstream connections accepted.
    pub connections_accepted: Counter,
    connections_ended: HashMap<&'static str, Counter>,
    /// HTTP/2 streams whose client did not read its answer.
    pub streams_reset: Counter,
    /// Upstream connections opened.
    pub upstream_connects: Counter,
    /// Upstream connections that could not be opened.
    pub upstream_connect_failures: Counter,
    /// Requests sent anew because a kept connection had gone.
    pub upstream_resends: Counter,
    /// Upstream instances that are known.
    pub upstream_instances: Gauge,
    /// Those that are left alone.
    pub upstream_instances_ejected: Gauge,
    /// Instances that were used again.
    pub upstream_returns: Counter,
    upstream_ejections: HashMap<&'static str, Counter>,
    upstream_retries: HashMap<&'static str, Counter>,
    upstream_retry_refusals: HashMap<&'static str, Counter>,
    upstream_by_instance: UpstreamsByInstance,
    /// Resolutions that failed.
    pub resolve_failures: Counter,
    /// Log lines dropped.
    pub log_lines_dropped: Counter,
    directories: HashMap<&'static str, DirectoryMetrics>,
    /// Whether changes in the database are heard of, where there is one.
    pub database_listening: LateGauge,
    /// Revocations that count, where there is a database.
    pub revocations: LateGauge,
    /// Age of what is known of them, where there is a database.
    pub revocations_age: LateGauge,
    /// Readings of them that failed.
    pub revocation_failures: Counter,
    /// Uses of device keys that have expired and are in their grace.
    pub device_key_grace_uses: Counter,
    /// Refusals of unknown device keys that were held back.
    pub device_key_backoffs: Counter,
    /// Times of last use that could not be written, and will be with the next batch.
    pub last_used_failures: Counter,
}

/// What one kind of look-up counts.
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
    /// Changes heard of.
    pub invalidations: Counter,
    /// Keys remembered.
    pub entries: Gauge,
    /// Of one query, for however many keys.
    pub duration: Histogram,
}

impl DirectoryMetrics {
    fn register(kind: &'static str) -> Self {
        let lookups = |outcome| counter!("mimir_tenant_proxy_directory_lookups_total", "kind" => kind, "outcome" => outcome);
        Self {
            hits: lookups("cached"),
            reads: lookups("read"),
            stale: lookups("stale"),
            unavailable: lookups("unavailable"),
            failures: counter!("mimir_tenant_proxy_directory_read_failures_total", "kind" => kind),
            invalidations: counter!("mimir_tenant_proxy_directory_invalidations_total", "kind" => kind),
            entries: gauge!("mimir_tenant_proxy_directory_entries", "kind" => kind),
            duration: histogram!(READ_DURATION, "kind" => kind),
        }
    }
}

struct SurfaceMetrics {
    /// By the first digit of the status, 1 to 5.
    forwarded: [Counter; 5],
    rejected: HashMap<&'static str, Counter>,
    failed: HashMap<&'static str, Counter>,
    answered: Counter,
    cancelled: Counter,
    duration: Histogram,
    received: Counter,
    sent: Counter,
}

/// Reasons for which a downstream connection ends.
const CONNECTION_ENDS: [&str; 5] =
    ["closed", "idle_timeout", "header_timeout", "write_timeout", "protocol_error"];

const DURATION: &str = "mimir_tenant_proxy_request_duration_seconds";
const PERMIT_WAIT: &str = "mimir_tenant_proxy_permit_wait_seconds";
const READ_DURATION: &str = "mimir_tenant_proxy_directory_read_duration_seconds";
const BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0];

/// Makes the process-wide recorder. Once per process.
pub fn install_recorder() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(DURATION.to_owned()), &BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(PERMIT_WAIT.to_owned()), &BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(READ_DURATION.to_owned()), &BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(ACTIVATION.to_owned()), &BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(LAG.to_owned()), &BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(RECONCILE.to_owned()), &BUCKETS)?
        .install_recorder()?;
    describe();
    Ok(handle)
}

impl Metrics {
    /// Registers everything with the installed recorder, so that each series is there from the
    /// start at zero.
    pub fn register(names: &MetricNames) -> Self {
        gauge!("mimir_tenant_proxy_build_info", "version" => version::NUMBER, "commit" => version::COMMIT).set(1.0);
        let surface = |name: &&'static str| SurfaceMetrics::register(name, names);
        let fetches =
            |outcome| counter!("mimir_tenant_proxy_key_set_fetches_total", "outcome" => outcome);
        let cache = |outcome| counter!("mimir_tenant_proxy_token_cache_lookups_total", "outcome" => outcome);
        let ended =
            |reason| counter!("mimir_tenant_proxy_connections_ended_total", "reason" => reason);
        Self {
            surfaces: names.surfaces.iter().map(surface).collect(),
            unrouted: SurfaceMetrics::register("none", names),
            token_cache_hits: cache("hit"),
            token_cache_misses: cache("miss"),
            token_cache_entries: gauge!("mimir_tenant_proxy_token_cache_entries"),
            key_set_fetches: [fetches("failed"), fetches("succeeded")],
            key_set_age: LateGauge::new("mimir_tenant_proxy_key_set_age_seconds"),
            key_set_keys: LateGauge::new("mimir_tenant_proxy_key_set_keys"),
            ready: gauge!("mimir_tenant_proxy_ready"),
            requests_in_flight: gauge!("mimir_tenant_proxy_requests_in_flight"),
            permit_waits: histogram!(PERMIT_WAIT),
            connections: gauge!("mimir_tenant_proxy_connections"),
            connections_accepted: counter!("mimir_tenant_proxy_connections_accepted_total"),
            connections_ended: CONNECTION_ENDS.map(|reason| (reason, ended(reason))).into(),
            streams_reset: counter!("mimir_tenant_proxy_streams_reset_total"),
            upstream_connects: counter!("mimir_tenant_proxy_upstream_connects_total", "outcome" => "succeeded"),
            upstream_connect_failures: counter!("mimir_tenant_proxy_upstream_connects_total", "outcome" => "failed"),
            upstream_resends: counter!("mimir_tenant_proxy_upstream_resends_total"),
            upstream_instances: gauge!("mimir_tenant_proxy_upstream_instances"),
            upstream_instances_ejected: gauge!("mimir_tenant_proxy_upstream_instances_ejected"),
            upstream_returns: counter!("mimir_tenant_proxy_upstream_returns_total"),
            upstream_ejections: by_reason(
                &names.ejections,
                |reason| counter!("mimir_tenant_proxy_upstream_ejections_total", "reason" => reason),
            ),
            upstream_retries: by_reason(
                &names.retries,
                |reason| counter!("mimir_tenant_proxy_upstream_retries_total", "reason" => reason),
            ),
            upstream_retry_refusals: by_reason(
                &names.retry_refusals,
                |reason| counter!("mimir_tenant_proxy_upstream_retries_refused_total", "reason" => reason),
            ),
            upstream_by_instance: UpstreamsByInstance::default(),
            resolve_failures: counter!("mimir_tenant_proxy_upstream_resolve_failures_total"),
            log_lines_dropped: counter!("mimir_tenant_proxy_log_lines_dropped_total"),
            directories: names
                .directories
                .iter()
                .map(|kind| (*kind, DirectoryMetrics::register(kind)))
                .collect(),
            database_listening: LateGauge::new("mimir_tenant_proxy_database_listening"),
            revocations: LateGauge::new("mimir_tenant_proxy_revocations"),
            revocations_age: LateGauge::new("mimir_tenant_proxy_revocations_age_seconds"),
            revocation_failures: counter!("mimir_tenant_proxy_revocation_read_failures_total"),
            device_key_grace_uses: counter!("mimir_tenant_proxy_device_key_grace_uses_total"),
            device_key_backoffs: counter!("mimir_tenant_proxy_device_key_backoffs_total"),
            last_used_failures: counter!("mimir_tenant_proxy_device_key_last_used_failures_total"),
        }
    }

    /// Of one kind of look-up; one that was not registered is not exposed.
    pub fn directory(&self, kind: &'static str) -> DirectoryMetrics {
        self.directories.get(kind).cloned().unwrap_or_else(|| DirectoryMetrics::register(kind))
    }

    /// Attempts to fetch the key set.
    pub fn key_set_fetch(&self, succeeded: bool) -> &Counter {
        &self.key_set_fetches[usize::from(succeeded)]
    }

    /// A downstream connection has ended.
    pub fn connection_ended(&self, reason: &'static str) {
        if let Some(counter) = self.connections_ended.get(reason) {
            counter.increment(1);
        }
    }

    fn surface(&self, index: Option<usize>) -> &SurfaceMetrics {
        index.and_then(|index| self.surfaces.get(index)).unwrap_or(&self.unrouted)
    }

    /// Mimir's answer was passed on.
    pub fn forwarded(&self, surface: Option<usize>, status: u16) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.surface(surface).forwarded[class].increment(1);
    }

    /// A request was refused on purpose.
    pub fn rejected(&self, surface: Option<usize>, reason: &'static str) {
        if let Some(counter) = self.surface(surface).rejected.get(reason) {
            counter.increment(1);
        }
    }

    /// Something broke while a request was served.
    pub fn failed(&self, surface: Option<usize>, reason: &'static str) {
        if let Some(counter) = self.surface(surface).failed.get(reason) {
            counter.increment(1);
        }
    }

    /// We answered ourselves.
    pub fn answered(&self, surface: Option<usize>) {
        self.surface(surface).answered.increment(1);
    }

    /// The client went away.
    pub fn cancelled(&self, surface: Option<usize>) {
        self.surface(surface).cancelled.increment(1);
    }

    /// What a finished request took and carried.
    pub fn finished(&self, surface: Option<usize>, seconds: f64, received: u64, sent: u64) {
        let metrics = self.surface(surface);
        metrics.duration.record(seconds);
        metrics.received.increment(received);
        metrics.sent.increment(sent);
    }
}

impl SurfaceMetrics {
    fn register(surface: &'static str, names: &MetricNames) -> Self {
        let requests = |outcome: &'static str, reason: &'static str| counter!("mimir_tenant_proxy_requests_total", "surface" => surface, "outcome" => outcome, "reason" => reason);
        let all = |outcome, reasons: &[&'static str]| {
            reasons.iter().map(|reason| (*reason, requests(outcome, reason))).collect()
        };
        Self {
            forwarded: ["1xx", "2xx", "3xx", "4xx", "5xx"]
                .map(|class| requests("forwarded", class)),
            rejected: all("rejected", &names.rejections),
            failed: all("failed", &names.failures),
            answered: requests("answered", "own"),
            cancelled: requests("cancelled", "client_gone"),
            duration: histogram!(DURATION, "surface" => surface),
            received: counter!("mimir_tenant_proxy_received_bytes_total", "surface" => surface),
            sent: counter!("mimir_tenant_proxy_sent_bytes_total", "surface" => surface),
        }
    }
}

fn describe() {
    describe_gauge!("mimir_tenant_proxy_build_info", "The version and commit that run; always 1.");
    describe_counter!(
        "mimir_tenant_proxy_requests_total",
        "Requests by surface, outcome (forwarded, answered, rejected, failed, cancelled) and reason (for forwarded: the class of Mimir's status)."
    );
    describe_histogram!(
        DURATION,
        Unit::Seconds,
        "From a request's head to the last byte of its response."
    );
    describe_counter!(
        "mimir_tenant_proxy_received_bytes_total",
        Unit::Bytes,
        "Bytes of request bodies."
    );
    describe_counter!(
        "mimir_tenant_proxy_sent_bytes_total",
        Unit::Bytes,
        "Bytes of response bodies."
    );
    describe_counter!(
        "mimir_tenant_proxy_token_cache_lookups_total",
        "Tokens found in the cache of verified tokens, or not."
    );
    describe_gauge!("mimir_tenant_proxy_token_cache_entries", "Verified tokens in the cache.");
    describe_counter!(
        "mimir_tenant_proxy_key_set_fetches_total",
        "Attempts to fetch the issuer's key set."
    );
    describe_gauge!(
        "mimir_tenant_proxy_key_set_age_seconds",
        Unit::Seconds,
        "Time since the key set was fetched; -1 if it never was; absent without a key set."
    );
    describe_gauge!(
        "mimir_tenant_proxy_key_set_keys",
        "Usable keys in the key set; absent without a key set."
    );
    describe_gauge!(
        "mimir_tenant_proxy_ready",
        "1 while this process wants requests, 0 while it starts or drains."
    );
    database::describe();
    describe_gauge!(
        "mimir_tenant_proxy_requests_in_flight",
        "Requests of all organisations that Mimir has been asked, or that are about to ask it."
    );
    describe_histogram!(
        PERMIT_WAIT,
        Unit::Seconds,
        "How long requests waited for their organisation's turn, of those that had to."
    );
    describe_gauge!("mimir_tenant_proxy_connections", "Open downstream connections.");
    describe_counter!(
        "mimir_tenant_proxy_connections_accepted_total",
        "Downstream connections accepted."
    );
    describe_counter!(
        "mimir_tenant_proxy_connections_ended_total",
        "Downstream connections ended, by reason."
    );
    describe_counter!(
        "mimir_tenant_proxy_streams_reset_total",
        "Downstream HTTP/2 streams reset because their client did not read its answer."
    );
    upstreams::describe();
    describe_counter!(
        "mimir_tenant_proxy_log_lines_dropped_total",
        "Log writes dropped because standard output was not read fast enough."
    );
}
