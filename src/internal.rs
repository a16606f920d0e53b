//! The private port: `/live`, `/ready`, `/metrics`, and where Mimir's ruler posts alerts. Never to be
//! reachable from outside.
//!
//! Readiness says whether this process wants requests, and nothing about Supabase or Mimir: those
//! are shared by all copies, and if their outage took every copy out of rotation, clients would
//! get the platform's error page instead of our 503 with `Retry-After`. Their state is in the
//! body and in the metrics.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tower_http::timeout::TimeoutLayer;

use crate::alert_events::{self, Receiver};
use crate::authn::{Authenticator, KeySource, Revocations};
use crate::forward::Instances;
use crate::lifecycle::Readiness;
use crate::limits::Limits;
use crate::store::Feed;
use crate::telemetry::{LogSink, Metrics, TraceMetrics};
use crate::trace::Tracer;

/// What the private port reports on.
pub struct Reported {
    pub readiness: Readiness,
    pub keys: Arc<KeySource>,
    /// None without a database.
    pub revocations: Option<Arc<Revocations>>,
    /// Whether notifications of changes arrive; none without a database.
    pub feed: Option<Arc<Feed>>,
    pub authenticator: Arc<Authenticator>,
    pub limits: Arc<Limits>,
    pub instances: Arc<Instances>,
    /// Takes in alerts; none where alert events are off.
    pub alert_events: Option<Arc<Receiver>>,
    pub metrics: Arc<Metrics>,
    /// None where traces are off.
    pub traces: Option<(Tracer, Arc<TraceMetrics>)>,
    /// The metrics' text form.
    pub exposition: PrometheusHandle,
    pub log: LogSink,
}

/// The longest that an answer may take.
const LONGEST: Duration = Duration::from_secs(10);

/// The private port's routes.
pub fn router(reported: Reported) -> Router {
    let alerts = reported.alert_events.clone().map(alert_events::router);
    Router::new()
        .route("/live", get(async || "alive\n"))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(reported))
        .merge(alerts.unwrap_or_default())
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, LONGEST))
}

async fn ready(State(reported): State<Arc<Reported>>) -> Response {
    let keys = reported.keys.state();
    let age = keys.age.map_or("never fetched".to_owned(), |age| format!("{} s old", age.as_secs()));
    let states = reported.instances.states();
    let ejected: String = states
        .iter()
        .filter_map(|state| Some(format!("; {} ejected: {}", state.address, state.ejected?)))
        .collect();
    let instances = states.len();
    let database = match &reported.feed {
        None => "none",
        Some(feed) if feed.is_connected() => "notifications arrive",
        Some(_) => "notifications do not arrive",
    };
    let facts = format!(
        "key set: {} keys, {age}\nupstream: {instances} instances{ejected}\ndatabase: {database}\n",
        keys.keys
    );
    if reported.readiness.is_ready() {
        (StatusCode::OK, format!("ready\n{facts}")).into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: starting or draining\n{facts}"))
            .into_response()
    }
}

async fn metrics(State(reported): State<Arc<Reported>>, headers: HeaderMap) -> Response {
    let keys = reported.keys.state();
    let metrics = &reported.metrics;
    if reported.keys.is_configured() {
        metrics.key_set_age.set(keys.age.map_or(-1.0, |age| age.as_secs_f64()));
        metrics.key_set_keys.set(whole(keys.keys as u64));
    }
    metrics.ready.set(f64::from(u8::from(reported.readiness.is_ready())));
    if let Some(bytes) = resident_memory() {
        metrics.memory.set(bytes);
    }
    metrics.token_cache_entries.set(whole(reported.authenticator.cached_tokens()));
    if let Some(feed) = &reported.feed {
        metrics.database_listening.set(f64::from(u8::from(feed.is_connected())));
    }
    if let Some(revocations) = &reported.revocations {
        metrics.revocations_age.set(revocations.age().map_or(-1.0, |age| age.as_secs_f64()));
    }
    metrics.requests_in_flight.set(whole(reported.limits.in_flight() as u64));
    let (organisations, devices) = reported.limits.limited();
    metrics.limited_organisations.set(whole(organisations as u64));
    metrics.limited_devices.set(whole(devices as u64));
    metrics.device_accounts.set(whole(reported.limits.devices() as u64));
    if let Some(age) = reported.limits.rows_age() {
        metrics.limit_rows_age.set(age.as_secs_f64());
    }
    metrics.upload_buffer.set(whole(reported.limits.upload_buffer() as u64));
    reported.instances.report();
    metrics.log_lines_dropped.absolute(reported.log.dropped() as u64);
    let Some((tracer, of_traces)) = &reported.traces else {
        return reported.exposition.render().into_response();
    };
    if let Some(counts) = tracer.counts() {
        of_traces.report(counts.recorded, counts.over_limit, counts.dropped);
    }
    // Only there are exemplars, and only where traces are on: whoever has none keeps the older form.
    if !wants_open_metrics(&headers) {
        return reported.exposition.render().into_response();
    }
    let text = metrics.open_metrics(&reported.exposition);
    ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response()
}

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Prometheus names what it understands, the best first.
fn wants_open_metrics(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|one| one.split(';').map(str::trim).collect::<Vec<_>>())
        .any(|one| {
            one[0] == "application/openmetrics-text"
                && one.iter().all(|part| !part.starts_with("version=") || *part == "version=1.0.0")
        })
}

/// In bytes, as proc(5) has it in kilobytes. The kernel makes this file in memory, so that reading it
/// blocks nobody.
fn resident_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024.0)
}

fn whole(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_process_takes_some_memory() {
        let bytes = resident_memory().unwrap();
        assert!(bytes > 1_000_000.0, "{bytes}");
    }

    #[test]
    fn open_metrics_is_for_who_asks_for_its_first_version() {
        let wants = |accept: &'static str| {
            let accept = (header::ACCEPT, HeaderValue::from_static(accept));
            wants_open_metrics(&[accept].into_iter().collect())
        };
        // What Prometheus 3 and 2 send.
        assert!(wants(
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
             application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,\
             text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
        ));
        assert!(wants("application/openmetrics-text; version=1.0.0, text/plain"));
        assert!(!wants("application/openmetrics-text;version=0.0.1,text/plain;version=0.0.4"));
        assert!(!wants("text/plain;version=0.0.4;q=0.5,*/*;q=0.1"));
        assert!(!wants("*/*"));
    }
}
