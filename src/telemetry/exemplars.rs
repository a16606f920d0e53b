//! Exemplars of `mimir_tenant_proxy_request_duration_seconds`: for each surface and bucket the newest
//! request that was traced. The exporter of metrics knows no exemplars, so they are kept beside it and put
//! into its text, which then is `OpenMetrics` (docs/decisions/0033-exemplars.md).

use std::array;
use std::fmt::Write as _;
use std::time::Duration;

use parking_lot::Mutex;
use strum::{EnumCount as _, VariantArray as _};

use super::metrics::BUCKETS;
use super::table::{self, NO_SURFACE};
use crate::route::Surface;

/// A request that stands for its bucket.
#[derive(Clone, Copy, Debug)]
struct Exemplar {
    trace: u128,
    seconds: f64,
    /// Since the Unix epoch.
    at: Duration,
}

/// One place for each bucket, and one for `+Inf`.
type OfSurface = [Option<Exemplar>; BUCKETS.len() + 1];

/// The newest exemplar of each bucket. Written only by requests that are traced.
pub(super) struct Exemplars {
    /// The last is of requests without a route.
    surfaces: [Mutex<OfSurface>; Surface::COUNT + 1],
}

impl Default for Exemplars {
    fn default() -> Self {
        Self { surfaces: array::from_fn(|_| Mutex::new([None; BUCKETS.len() + 1])) }
    }
}

impl Exemplars {
    pub(super) fn add(&self, surface: Option<Surface>, trace: u128, seconds: f64, at: Duration) {
        let surface = surface.map_or(Surface::COUNT, |surface| surface as usize);
        let bucket = BUCKETS.iter().take_while(|bound| seconds > **bound).count();
        self.surfaces[surface].lock()[bucket] = Some(Exemplar { trace, seconds, at });
    }

    fn of(&self, surface: &str, bound: &str) -> Option<Exemplar> {
        let names = Surface::VARIANTS.iter().map(|surface| surface.name());
        let surface = names.chain([NO_SURFACE]).position(|name| name == surface)?;
        let bucket = match bound {
            "+Inf" => BUCKETS.len(),
            bound => {
                let bound: f64 = bound.parse().ok()?;
                BUCKETS.iter().position(|known| known.to_bits() == bound.to_bits())?
            }
        };
        self.surfaces[surface].lock()[bucket]
    }

    /// The exposition as `OpenMetrics` 1.0 text, with exemplars.
    pub(super) fn open_metrics(&self, prometheus: &str) -> String {
        let mut text = String::with_capacity(prometheus.len() + 4096);
        for line in prometheus.lines().filter(|line| !line.is_empty()) {
            if let Some(about) = line.strip_prefix("# ") {
                header(&mut text, about);
            } else {
                text.push_str(line);
                self.append(&mut text, line);
            }
            text.push('\n');
        }
        text.push_str("# EOF\n");
        text
    }

    /// Appends the exemplar of a bucket's line.
    fn append(&self, text: &mut String, line: &str) {
        let bucket = line
            .strip_prefix(table::DURATION.name)
            .and_then(|rest| rest.strip_prefix("_bucket{surface=\""))
            .and_then(|rest| rest.split_once("\",le=\""))
            .and_then(|(surface, rest)| Some((surface, rest.split_once('"')?.0)));
        let exemplar = bucket.and_then(|(surface, bound)| self.of(surface, bound));
        if let Some(Exemplar { trace, seconds, at }) = exemplar {
            let at = at.as_secs_f64();
            let _ = write!(text, " # {{trace_id=\"{trace:032x}\"}} {seconds} {at:.3}");
        }
    }
}

/// A counter's family is called without `_total` there.
fn header(text: &mut String, about: &str) {
    let mut words = about.splitn(3, ' ');
    let (keyword, name, rest) = (words.next(), words.next(), words.next());
    let (Some(keyword), Some(name)) = (keyword, name) else { return };
    let is_counter = table::METRICS
        .iter()
        .any(|metric| metric.name == name && metric.kind == table::Kind::Counter);
    let name = if is_counter { name.strip_suffix("_total").unwrap_or(name) } else { name };
    let _ = write!(text, "# {keyword} {name} {}", rest.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_can_be_one_of_open_metrics() {
        for metric in table::METRICS.iter().filter(|one| one.kind == table::Kind::Counter) {
            assert!(metric.name.ends_with("_total"), "{}", metric.name);
        }
    }

    #[test]
    fn a_bucket_shows_its_newest_request() {
        let exemplars = Exemplars::default();
        let at = Duration::from_millis(1_700_000_000_123);
        exemplars.add(Some(Surface::Query), 1, 0.002, at);
        exemplars.add(Some(Surface::Query), 0xabc, 0.0025, at);
        exemplars.add(None, 3, 500.0, at);
        let name = "mimir_tenant_proxy_request_duration_seconds";
        let text = format!(
            "# HELP {name} Time.\n# TYPE {name} histogram\n\
             {name}_bucket{{surface=\"query\",le=\"0.001\"}} 0\n\
             {name}_bucket{{surface=\"query\",le=\"0.0025\"}} 2\n\
             {name}_bucket{{surface=\"none\",le=\"+Inf\"}} 1\n\
             {name}_sum{{surface=\"query\"}} 1\n\n\
             # HELP mimir_tenant_proxy_streams_reset_total Streams.\n\
             # TYPE mimir_tenant_proxy_streams_reset_total counter\n\
             mimir_tenant_proxy_streams_reset_total 0\n\n"
        );
        let zeros = "0".repeat(29);
        assert_eq!(
            exemplars.open_metrics(&text),
            format!(
                "# HELP {name} Time.\n# TYPE {name} histogram\n\
                 {name}_bucket{{surface=\"query\",le=\"0.001\"}} 0\n\
                 {name}_bucket{{surface=\"query\",le=\"0.0025\"}} 2 \
                 # {{trace_id=\"{zeros}abc\"}} 0.0025 1700000000.123\n\
                 {name}_bucket{{surface=\"none\",le=\"+Inf\"}} 1 \
                 # {{trace_id=\"{zeros}003\"}} 500 1700000000.123\n\
                 {name}_sum{{surface=\"query\"}} 1\n\
                 # HELP mimir_tenant_proxy_streams_reset Streams.\n\
                 # TYPE mimir_tenant_proxy_streams_reset counter\n\
                 mimir_tenant_proxy_streams_reset_total 0\n\
                 # EOF\n"
            )
        );
    }
}
