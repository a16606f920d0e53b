//! The requests of the last minutes, from this process' own counters: what an operator asks first,
//! before any Prometheus is opened. The counters are read once a minute, and when somebody asks.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::table;

/// How far back the comparison goes.
const WINDOW: Duration = Duration::from_secs(300);
/// Readings that are kept: one a minute, and some room.
const MOST: usize = 8;

/// Reads the counters and remembers some readings.
pub struct Traffic {
    exposition: PrometheusHandle,
    readings: Mutex<VecDeque<(Instant, Reading)>>,
    began: Instant,
}

/// Counts since the start.
#[derive(Clone, Debug, Default)]
struct Reading {
    /// By surface, outcome and reason.
    requests: BTreeMap<[String; 3], u64>,
    /// By surface: requests that took at most so long, in the order of the buckets.
    durations: BTreeMap<String, Vec<(f64, u64)>>,
}

/// The traffic of the last minutes.
#[derive(Clone, Debug)]
pub struct TrafficReport {
    /// The time that it is about.
    pub window: Duration,
    pub surfaces: Vec<SurfaceTraffic>,
}

/// The requests of one surface.
#[derive(Clone, Debug, PartialEq)]
pub struct SurfaceTraffic {
    pub surface: String,
    pub requests: u64,
    /// Not served because something broke, here or at Mimir.
    pub failed: u64,
    /// Refused on purpose.
    pub rejected: u64,
    /// Half of the requests, and 99 of 100, took at most about so many seconds.
    pub p50_seconds: Option<f64>,
    pub p99_seconds: Option<f64>,
}

impl Traffic {
    pub fn new(exposition: PrometheusHandle) -> Self {
        Self { exposition, readings: Mutex::default(), began: Instant::now() }
    }

    /// Remembers a reading; once a minute.
    pub fn note(&self) {
        let reading = parse(&self.exposition.render());
        let mut readings = self.readings.lock();
        readings.push_back((Instant::now(), reading));
        while readings.len() > MOST {
            readings.pop_front();
        }
    }

    /// What has happened since about [`WINDOW`] ago, or since the start.
    pub fn report(&self) -> TrafficReport {
        let now = parse(&self.exposition.render());
        let readings = self.readings.lock();
        let old = readings.iter().find(|(at, _)| at.elapsed() <= WINDOW);
        let window = old.map_or(self.began, |(at, _)| *at).elapsed();
        let surfaces = difference(&now, old.map(|(_, reading)| reading));
        TrafficReport { window, surfaces }
    }
}

fn difference(now: &Reading, old: Option<&Reading>) -> Vec<SurfaceTraffic> {
    let mut surfaces: BTreeMap<&str, SurfaceTraffic> = BTreeMap::new();
    for (key, count) in &now.requests {
        let [surface, outcome, reason] = key;
        let before = old.and_then(|old| old.requests.get(key)).copied().unwrap_or(0);
        let count = count.saturating_sub(before);
        let of = surfaces.entry(surface).or_insert_with(|| SurfaceTraffic {
            surface: surface.clone(),
            requests: 0,
            failed: 0,
            rejected: 0,
            p50_seconds: None,
            p99_seconds: None,
        });
        of.requests += count;
        match (outcome.as_str(), reason.as_str()) {
            ("failed", _) | ("forwarded", "5xx") => of.failed += count,
            ("rejected", _) => of.rejected += count,
            _ => {}
        }
    }
    for (surface, of) in &mut surfaces {
        let Some(buckets) = now.durations.get(*surface) else { continue };
        let before = old.and_then(|old| old.durations.get(*surface));
        let since = |place: usize, count: u64| {
            count.saturating_sub(before.and_then(|before| before.get(place)).map_or(0, |one| one.1))
        };
        let buckets: Vec<(f64, u64)> =
            buckets.iter().enumerate().map(|(at, (le, count))| (*le, since(at, *count))).collect();
        (of.p50_seconds, of.p99_seconds) = (quantile(&buckets, 0.5), quantile(&buckets, 0.99));
    }
    surfaces.into_values().collect()
}

/// As Prometheus' `histogram_quantile`: linear within a bucket, and the last bound for what is above.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn quantile(buckets: &[(f64, u64)], part: f64) -> Option<f64> {
    let (_, all) = *buckets.last()?;
    if all == 0 {
        return None;
    }
    let rank = part * all as f64;
    let (mut low, mut below) = (0.0, 0_u64);
    for (le, count) in buckets {
        if *count as f64 >= rank {
            if le.is_infinite() {
                return Some(low);
            }
            let inside = (count - below) as f64;
            return Some(low + (le - low) * (rank - below as f64) / inside.max(1.0));
        }
        (low, below) = (*le, *count);
    }
    Some(low)
}

/// Takes what is needed from the text form. It is our own, so that what does not fit is left out.
fn parse(text: &str) -> Reading {
    let requests = table::REQUESTS.name;
    let buckets = format!("{}_bucket", table::DURATION.name);
    let mut reading = Reading::default();
    for line in text.lines() {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let Some((name, labels)) = series.split_once('{') else { continue };
        let Ok(count) = value.parse::<u64>() else { continue };
        let label = |name: &str| {
            let (_, rest) = labels.split_once(&format!("{name}=\""))?;
            rest.split('"').next()
        };
        if name == requests {
            if let (Some(surface), Some(outcome), Some(reason)) =
                (label("surface"), label("outcome"), label("reason"))
            {
                let key = [surface, outcome, reason].map(str::to_owned);
                reading.requests.insert(key, count);
            }
        } else if name == buckets
            && let (Some(surface), Some(le)) = (label("surface"), label("le"))
        {
            let le = if le == "+Inf" { f64::INFINITY } else { le.parse().unwrap_or(f64::NAN) };
            reading.durations.entry(surface.to_owned()).or_default().push((le, count));
        }
    }
    reading
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "\
# TYPE mimir_tenant_proxy_requests_total counter
mimir_tenant_proxy_requests_total{surface=\"push\",outcome=\"forwarded\",reason=\"2xx\"} 100
mimir_tenant_proxy_request_duration_seconds_bucket{surface=\"push\",le=\"0.01\"} 100
mimir_tenant_proxy_request_duration_seconds_bucket{surface=\"push\",le=\"+Inf\"} 100
";
    const AFTER: &str = "\
mimir_tenant_proxy_requests_total{surface=\"push\",outcome=\"forwarded\",reason=\"2xx\"} 190
mimir_tenant_proxy_requests_total{surface=\"push\",outcome=\"forwarded\",reason=\"5xx\"} 5
mimir_tenant_proxy_requests_total{surface=\"push\",outcome=\"failed\",reason=\"upstream_unavailable\"} 3
mimir_tenant_proxy_requests_total{surface=\"push\",outcome=\"rejected\",reason=\"expired\"} 2
mimir_tenant_proxy_request_duration_seconds_bucket{surface=\"push\",le=\"0.01\"} 150
mimir_tenant_proxy_request_duration_seconds_bucket{surface=\"push\",le=\"0.05\"} 200
mimir_tenant_proxy_request_duration_seconds_bucket{surface=\"push\",le=\"+Inf\"} 200
";

    #[test]
    fn only_what_has_happened_since_counts() {
        let (before, after) = (parse(BEFORE), parse(AFTER));
        let push = &difference(&after, Some(&before))[0];
        assert_eq!((push.requests, push.failed, push.rejected), (100, 8, 2));
        let since_start = &difference(&after, None)[0];
        assert_eq!(since_start.requests, 200);
    }

    #[test]
    fn quantiles_are_as_prometheus_estimates_them() {
        let buckets = [(0.01, 50), (0.05, 100), (f64::INFINITY, 100)];
        assert_eq!(quantile(&buckets, 0.5), Some(0.01));
        let p99 = quantile(&buckets, 0.99).unwrap();
        assert!((p99 - 0.0492).abs() < 1e-9, "{p99}");
        assert_eq!(quantile(&[(0.01, 0), (f64::INFINITY, 10)], 0.5), Some(0.01));
        assert_eq!(quantile(&[(0.01, 0), (f64::INFINITY, 0)], 0.5), None);
    }
}
