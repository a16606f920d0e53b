//! What somebody who asks for a path that is not there probably looks for: paths of other products
//! and older versions, a forgotten prefix, a slash too many. Pure, and only ever a text: nothing is
//! redirected or rewritten, and every hint is a constant.

use super::{Hint, ROUTES, segment};

const PUSH: Hint = Hint::Path("/api/v1/push");
const OTLP: Hint = Hint::Path("/otlp/v1/metrics");
const INFLUX: Hint = Hint::Path("/api/v1/push/influx/write");
const PROMETHEUS: Hint = Hint::Words(
    "the address of a Prometheus data source ends in /prometheus; its API begins with /prometheus/api/v1",
);
const OTLP_METRICS_ONLY: Hint =
    Hint::Words("only metrics are taken: /otlp/v1/metrics is there, and no traces and no logs");
const PRIVATE: Hint = Hint::Words("health and metrics of the proxy are on its private port");
const ADMIN: Hint =
    Hint::Words("the administrator's interface is described at /admin/openapi.json");

/// Paths by which other products, older versions and half-read manuals take the same thing. They are
/// compared without their last slash, without doubled ones and in lower case.
const ELSEWHERE: [(&str, Hint); 43] = [
    // Remote write: Prometheus' own receiver, Cortex, Thanos, VictoriaMetrics, Grafana's manuals.
    ("/api/v1/write", PUSH),
    ("/prometheus/api/v1/write", PUSH),
    ("/prometheus/api/v1/push", PUSH),
    ("/api/prom/push", PUSH),
    ("/api/prom/api/v1/push", PUSH),
    ("/api/prom/remote/write", PUSH),
    ("/api/v1/receive", PUSH),
    ("/api/v1/remote_write", PUSH),
    ("/api/v1/prom/remote/write", PUSH),
    ("/api/push", PUSH),
    ("/api/v1", PUSH),
    ("/v1/push", PUSH),
    ("/v1/write", PUSH),
    ("/push", PUSH),
    ("/write", PUSH),
    ("/receive", PUSH),
    ("/remote_write", PUSH),
    ("/mimir/api/v1/push", PUSH),
    // OTLP: what an exporter adds to an endpoint without a path, and what it is told to add nothing to.
    ("/v1/metrics", OTLP),
    ("/otlp", OTLP),
    ("/otlp/v1", OTLP),
    ("/otlp/metrics", OTLP),
    ("/otlp/v1/metrics/v1/metrics", OTLP),
    ("/otlp/v1/v1/metrics", OTLP),
    ("/otlp/otlp/v1/metrics", OTLP),
    ("/api/v1/otlp", OTLP),
    ("/api/v1/otlp/v1/metrics", OTLP),
    ("/prometheus/api/v1/otlp/v1/metrics", OTLP),
    ("/opentelemetry/v1/metrics", OTLP),
    ("/opentelemetry/api/v1/push", OTLP),
    ("/v1/traces", OTLP_METRICS_ONLY),
    ("/v1/logs", OTLP_METRICS_ONLY),
    ("/otlp/v1/traces", OTLP_METRICS_ONLY),
    ("/otlp/v1/logs", OTLP_METRICS_ONLY),
    // Influx' line protocol.
    ("/api/v2/write", INFLUX),
    ("/api/v1/influx/write", INFLUX),
    ("/influx/write", INFLUX),
    // Reads.
    ("/prometheus", PROMETHEUS),
    ("/prometheus/api", PROMETHEUS),
    ("/prometheus/api/v1", PROMETHEUS),
    ("/api/prom", PROMETHEUS),
    // Ours.
    ("/admin", ADMIN),
    ("/live", PRIVATE),
];

/// Prefixes that are written too much, or in the place of ours.
const PREFIXES: [&str; 7] =
    ["/prometheus", "/api/prom", "/mimir", "/cortex", "/api/v1/prom", "/otlp", "/api"];
/// Further than that no path of ours is long.
const LONGEST: usize = 300;

/// What was probably meant.
pub(super) fn hint(path: &str) -> Option<Hint> {
    if path.len() > LONGEST {
        return None;
    }
    let tidy = tidy(path);
    if let Some((_, hint)) = ELSEWHERE.iter().find(|(elsewhere, _)| *elsewhere == tidy) {
        return Some(*hint);
    }
    let stripped = PREFIXES.iter().filter_map(|prefix| tidy.strip_prefix(prefix));
    let rests: Vec<&str> = std::iter::once(tidy.as_str()).chain(stripped).collect();
    let mut candidates = rests.iter().flat_map(|rest| {
        ["", "/prometheus", "/prometheus/api/v1", "/api/v1"]
            .into_iter()
            .map(move |prefix| format!("{prefix}{rest}"))
    });
    candidates.find_map(|candidate| route(&candidate))
}

/// Without doubled slashes and the last one, in lower case.
fn tidy(path: &str) -> String {
    let mut tidy = String::with_capacity(path.len());
    for part in path.split('/').filter(|part| !part.is_empty()) {
        tidy.push('/');
        tidy.push_str(&part.to_ascii_lowercase());
    }
    tidy
}

fn route(path: &str) -> Option<Hint> {
    let found = ROUTES.iter().find(|route| segment::path_matches(route.path, path));
    found.map(|route| Hint::Path(route.path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path_for(path: &str) -> &'static str {
        match hint(path) {
            Some(Hint::Path(path)) => path,
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn every_near_miss_names_a_path_that_is_there() {
        for (elsewhere, hint) in &ELSEWHERE {
            assert!(route(elsewhere).is_none(), "{elsewhere} is no miss");
            assert_eq!(*elsewhere, tidy(elsewhere));
            if let Hint::Path(path) = hint {
                assert!(ROUTES.iter().any(|route| route.path == *path), "{path}");
            }
        }
    }

    #[test]
    fn a_forgotten_prefix_and_a_slash_too_many_are_seen_through() {
        for (asked, meant) in [
            ("/api/v1/push/", "/api/v1/push"),
            ("//api/v1/push", "/api/v1/push"),
            ("/api//v1/push//", "/api/v1/push"),
            ("/API/v1/Push", "/api/v1/push"),
            ("/otlp/v1/metrics/", "/otlp/v1/metrics"),
            ("/api/v1/query", "/prometheus/api/v1/query"),
            ("/api/v1/query_range", "/prometheus/api/v1/query_range"),
            ("/api/v1/labels", "/prometheus/api/v1/labels"),
            ("/api/v1/label/job/values", "/prometheus/api/v1/label/{label}/values"),
            ("/api/v1/metadata", "/prometheus/api/v1/metadata"),
            ("/api/v1/read", "/prometheus/api/v1/read"),
            ("/api/v1/rules", "/prometheus/api/v1/rules"),
            ("/prometheus/rules", "/prometheus/api/v1/rules"),
            ("/prometheus/query", "/prometheus/api/v1/query"),
            ("/api/prom/api/v1/query", "/prometheus/api/v1/query"),
            ("/prometheus/prometheus/api/v1/query", "/prometheus/api/v1/query"),
            ("/prometheus/api/v1/query/", "/prometheus/api/v1/query"),
            ("/query", "/prometheus/api/v1/query"),
            ("/config/v1/rules", "/prometheus/config/v1/rules"),
            ("/prometheus/api/v1/status/flags", "/api/v1/status/flags"),
            ("/prometheus/api/v1/user_stats", "/api/v1/user_stats"),
            ("/user_limits", "/api/v1/user_limits"),
            ("/admin/whoami/", "/admin/whoami"),
        ] {
            assert_eq!(path_for(asked), meant, "{asked}");
        }
        for nothing in ["/", "/favicon.ico", "/compactor/ring", "/wp-login.php", "/ingester/flush"]
        {
            assert_eq!(hint(nothing), None, "{nothing}");
        }
        assert!(matches!(hint("/prometheus/"), Some(Hint::Words(_))));
    }

    proptest! {
        // What a stranger writes is never said back: every hint is one of a few constants.
        #[test]
        fn no_path_panics(path in "/[a-z0-9/_.%-]{0,40}", odd in "\\PC{0,40}") {
            let _ = hint(&path);
            let _ = hint(&odd);
            let _ = hint(&"/a".repeat(path.len() * 10));
        }
    }
}
