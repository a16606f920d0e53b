//! What a request for an unknown path probably meant: paths of other products and older versions, a
//! forgotten prefix, an address that was given twice, a slash too many. Pure text: nothing is
//! redirected or rewritten, and every hint is a constant.

use http::Method;

use super::segment::{self, Match};
use super::{Hint, ROUTES};

const PUSH: Hint = Hint::Path("/api/v1/push");
const OTLP: Hint = Hint::Path("/otlp/v1/metrics");
const INFLUX: Hint = Hint::Path("/api/v1/push/influx/write");
const PROMETHEUS: Hint = Hint::Words(
    "the address of a Prometheus data source ends in /prometheus; its API begins with /prometheus/api/v1",
);
const OTLP_METRICS_ONLY: Hint =
    Hint::Words("only metrics are taken: /otlp/v1/metrics is there, and no traces and no logs");
/// An SDK of OpenTelemetry exports by gRPC unless it is told otherwise (`OTEL_EXPORTER_OTLP_PROTOCOL`).
const OTLP_BY_HTTP_ONLY: Hint = Hint::Words(
    "OTLP is taken over HTTP only, and not over gRPC: export by http/protobuf (the collector's otlphttp) to \
     /otlp/v1/metrics",
);
const PRIVATE: Hint = Hint::Words("health and metrics of the proxy are on its private port");
const ADMIN: Hint = Hint::Words("the admin API is described at /admin/openapi.json");
const ALERTMANAGER: Hint = Hint::Words(
    "of the Alertmanager only alerts and silences are served: /alertmanager/api/v2/alerts, \
     /alertmanager/api/v2/silences; its address for clients ends in /alertmanager",
);
const ALERTMANAGER_CONFIGURATION: Hint = Hint::Words(
    "the Alertmanager's configuration is not served; channels and routes are rows of the database",
);
const OTHER_PROTOCOL: Hint = Hint::Words(
    "only metrics by remote write, OTLP and Influx line protocol are taken: /api/v1/push, \
     /otlp/v1/metrics, /api/v1/push/influx/write",
);

/// Paths by which other products, older versions and manuals take the same thing. They are compared
/// without their last slash, without doubled ones and in lower case.
const ELSEWHERE: [(&str, Hint); 54] = [
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
    ("/ready", PRIVATE),
    ("/metrics", PRIVATE),
    ("/health", PRIVATE),
    ("/healthz", PRIVATE),
    ("/-/ready", PRIVATE),
    ("/-/healthy", PRIVATE),
    // Not served.
    ("/api/v1/alerts", ALERTMANAGER_CONFIGURATION),
    ("/api/prom/configs/alertmanager", ALERTMANAGER_CONFIGURATION),
    ("/api/put", OTHER_PROTOCOL),
    ("/api/v2/series", OTHER_PROTOCOL),
    ("/api/v1/import", OTHER_PROTOCOL),
];

/// Whole trees of paths that are not served.
const TREES: [(&str, Hint); 11] = [
    // OTLP over gRPC.
    ("/opentelemetry.proto.collector.metrics.v1.metricsservice", OTLP_BY_HTTP_ONLY),
    ("/opentelemetry.proto.collector.trace.v1.traceservice", OTLP_METRICS_ONLY),
    ("/opentelemetry.proto.collector.logs.v1.logsservice", OTLP_METRICS_ONLY),
    ("/graphite", OTHER_PROTOCOL),
    ("/opentsdb", OTHER_PROTOCOL),
    ("/datadog", OTHER_PROTOCOL),
    ("/loki", OTLP_METRICS_ONLY),
    ("/tempo", OTLP_METRICS_ONLY),
    ("/alertmanager", ALERTMANAGER),
    ("/multitenant_alertmanager", ALERTMANAGER_CONFIGURATION),
    ("/api/v1/grafana", ALERTMANAGER_CONFIGURATION),
];

/// Prefixes that are one too many, or in the place of ours.
const PREFIXES: [&str; 10] = [
    "/prometheus",
    "/api/prom",
    "/mimir",
    "/cortex",
    "/api/v1/prom",
    "/otlp",
    "/api",
    "/api/v1",
    "/prometheus/api/v1",
    "/prometheus/prometheus",
];

/// Where Mimir, under any prefix, takes writes that are not served.
const WRITES: [&str; 9] = [
    "/config/v1/rules",
    "/api/v1/rules",
    "/api/prom/rules",
    "/api/prom/configs",
    "/api/v1/alerts",
    "/api/v1/grafana",
    "/api/v1/upload",
    "/api/v1/admin",
    "/alertmanager/api",
];

/// No path of ours is longer.
const LONGEST: usize = 300;
/// No path that is known has more segments, so none is looked for in more. Anybody may ask for a path of
/// a hundred segments, and each end of it is compared with everything that is known.
const MOST_SEGMENTS: usize = 8;

/// What was probably meant.
pub(super) fn hint(path: &str) -> Option<Hint> {
    if path.len() > LONGEST {
        return None;
    }
    let tidy = tidy(path);
    let stripped = PREFIXES.iter().filter_map(|prefix| tidy.strip_prefix(prefix));
    let rests: Vec<&str> = std::iter::once(tidy.as_str()).chain(stripped).collect();
    let mut candidates = rests.iter().flat_map(|rest| {
        [
            "",
            "/prometheus",
            "/prometheus/api/v1",
            "/api/v1",
            "/prometheus/config/v1",
            "/alertmanager",
        ]
        .into_iter()
        .map(move |prefix| format!("{prefix}{rest}"))
    });
    route(&tidy)
        .or_else(|| elsewhere(&tidy))
        .or_else(|| candidates.find_map(|candidate| route(&candidate)))
        .or_else(|| rests.iter().find_map(|rest| elsewhere(rest)))
        .or_else(|| behind_another(&tidy))
}

/// Whether a request wants to write or delete what Mimir keeps for a tenant. mimirtool and its like
/// take a 404 in answer to DELETE for "it is gone already", so nothing but /admin answers it with one.
pub(super) fn is_write(method: &Method, path: &str) -> bool {
    match *method {
        Method::DELETE => !path.starts_with("/admin/"),
        Method::POST | Method::PUT | Method::PATCH if path.len() <= LONGEST => {
            let tidy = tidy(path);
            WRITES.iter().any(|write| tidy.contains(write))
        }
        _ => false,
    }
}

fn elsewhere(tidy: &str) -> Option<Hint> {
    let is_in = |tree: &str| tidy.strip_prefix(tree).is_some_and(|rest| rest.starts_with('/'));
    let path = ELSEWHERE.iter().find(|(elsewhere, _)| *elsewhere == tidy);
    let tree = TREES.iter().find(|(tree, _)| *tree == tidy || is_in(tree));
    path.or(tree).map(|(_, hint)| *hint)
}

/// A known path behind something else: a whole address where only its beginning belongs, such as
/// /api/v1/push/api/v1/push, or a prefix of somebody's balancer.
fn behind_another(tidy: &str) -> Option<Hint> {
    ends_of(tidy).find_map(|suffix| {
        let of_prometheus = suffix.starts_with("/api/v1/").then(|| format!("/prometheus{suffix}"));
        route(suffix).or_else(|| route(&of_prometheus?)).or_else(|| elsewhere(suffix))
    })
}

/// What a path ends in and does not consist of, the longest first: at most [`MOST_SEGMENTS`] segments. One
/// segment alone is too little.
fn ends_of(tidy: &str) -> impl Iterator<Item = &str> {
    let segments = tidy.matches('/').count();
    let first = segments.saturating_sub(MOST_SEGMENTS).max(1);
    let last = segments.saturating_sub(1).max(first);
    tidy.match_indices('/').take(last).skip(first).map(move |(at, _)| &tidy[at..])
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
    let found = ROUTES.iter().find(|route| segment::compare(route.path, path) == Match::Yes);
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
        for (elsewhere, hint) in ELSEWHERE.iter().chain(&TREES) {
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
            // An Alertmanager's address without the prefix, and with a prefix too many.
            ("/api/v2/silences", "/alertmanager/api/v2/silences"),
            ("/api/v2/alerts/groups", "/alertmanager/api/v2/alerts/groups"),
            ("/prometheus/api/v2/alerts", "/alertmanager/api/v2/alerts"),
            ("/api/prom/alertmanager/api/v2/status", "/alertmanager/api/v2/status"),
            ("/alertmanager/api/v2/silences/", "/alertmanager/api/v2/silences"),
            (
                "/api/v2/silence/00000000-0000-4000-8000-000000000000",
                "/alertmanager/api/v2/silence/{silence}",
            ),
            // Legacy routes of rules (mimirtool --use-legacy-routes), and an address that ends in
            // /prometheus.
            ("/api/v1/rules/ns", "/prometheus/config/v1/rules/{name}"),
            ("/api/v1/rules/ns/g", "/prometheus/config/v1/rules/{name}/{name}"),
            ("/prometheus/api/v1/rules/ns/g", "/prometheus/config/v1/rules/{name}/{name}"),
            ("/api/prom/rules/ns/g", "/prometheus/config/v1/rules/{name}/{name}"),
            ("/prometheus/prometheus/config/v1/rules", "/prometheus/config/v1/rules"),
            (
                "/prometheus/prometheus/config/v1/rules/a/b",
                "/prometheus/config/v1/rules/{name}/{name}",
            ),
            // An address that was given whole where its beginning belongs.
            ("/api/v1/push/api/v1/push", "/api/v1/push"),
            ("/api/v1/push/api/v1/write", "/api/v1/push"),
            ("/api/v1/push/v1/metrics", "/otlp/v1/metrics"),
            ("/api/v1/push/influx/write/api/v2/write", "/api/v1/push/influx/write"),
            ("/prometheus/api/v1/query/api/v1/query", "/prometheus/api/v1/query"),
            ("/gateway/eu/prometheus/api/v1/labels", "/prometheus/api/v1/labels"),
            ("/gateway/eu/api/v1/push", "/api/v1/push"),
            ("/prometheus/api/v1/push", "/api/v1/push"),
            ("/api/v1/otlp/v1/metrics", "/otlp/v1/metrics"),
        ] {
            assert_eq!(path_for(asked), meant, "{asked}");
        }
        for nothing in ["/", "/favicon.ico", "/compactor/ring", "/wp-login.php", "/ingester/flush"]
        {
            assert_eq!(hint(nothing), None, "{nothing}");
        }
        for (asked, words) in [
            ("/prometheus/", PROMETHEUS),
            ("/ready", PRIVATE),
            ("/metrics", PRIVATE),
            ("/prometheus/metrics", PRIVATE),
            ("/-/healthy", PRIVATE),
            ("/graphite", OTHER_PROTOCOL),
            ("/graphite/metrics", OTHER_PROTOCOL),
            ("/datadog/api/v1/series", OTHER_PROTOCOL),
            ("/loki/api/v1/push", OTLP_METRICS_ONLY),
            ("/api/v1/alerts", ALERTMANAGER_CONFIGURATION),
            ("/alertmanager", ALERTMANAGER),
            ("/alertmanager/api/v1/silences", ALERTMANAGER),
            ("/alertmanager/-/reload", ALERTMANAGER),
            ("/multitenant_alertmanager/configs", ALERTMANAGER_CONFIGURATION),
            ("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", OTLP_BY_HTTP_ONLY),
            ("/opentelemetry.proto.collector.trace.v1.TraceService/Export", OTLP_METRICS_ONLY),
        ] {
            assert_eq!(hint(asked), Some(words), "{asked}");
        }
    }

    // Seen: /a/a/a/… of 150 segments was compared 150 times with everything that is known, which takes
    // longer than the signature of a token. Nobody had to be known for that.
    #[test]
    fn only_so_many_ends_of_a_path_are_compared() {
        let known = ROUTES.iter().map(|route| route.path);
        let elsewhere = ELSEWHERE.iter().chain(&TREES).map(|(path, _)| *path);
        for path in known.chain(elsewhere) {
            assert!(path.matches('/').count() <= MOST_SEGMENTS, "{path}");
        }
        let long = "/a".repeat(LONGEST / 2);
        assert_eq!(ends_of(&long).count(), MOST_SEGMENTS - 1);
        assert_eq!(hint(&long), None);
        let ends = |path: &'static str| ends_of(path).collect::<Vec<_>>();
        assert_eq!(ends("/a/b/c/d"), ["/b/c/d", "/c/d"]);
        for short in ["", "/", "/a", "/a/b"] {
            assert_eq!(ends(short), [""; 0], "{short}");
        }
    }

    #[test]
    fn a_known_path_is_found_behind_a_prefix_of_any_length() {
        let silence = "/alertmanager/api/v2/silence/00000000-0000-4000-8000-000000000000";
        for (path, meant) in [
            ("/api/v1/push", "/api/v1/push"),
            ("/api/v1/query", "/prometheus/api/v1/query"),
            ("/otlp/v1/metrics/v1/metrics", "/otlp/v1/metrics"),
            ("/prometheus/config/v1/rules/a/b", "/prometheus/config/v1/rules/{name}/{name}"),
            (silence, "/alertmanager/api/v2/silence/{silence}"),
        ] {
            for segments in [1, 2, MOST_SEGMENTS - 1, MOST_SEGMENTS, (LONGEST - path.len()) / 2] {
                let asked = format!("{}{path}", "/x".repeat(segments));
                assert_eq!(path_for(&asked), meant, "{asked}");
            }
        }
    }

    // Any prefix that somebody gives mimirtool, and its legacy routes.
    #[test]
    fn writes_are_known_under_any_prefix() {
        for path in [
            "/api/v1/rules/ns/g",
            "/api/v1/rules/ns",
            "/prometheus/prometheus/config/v1/rules/ns/g",
            "/api/prom/rules/ns/g",
            "/api/v1/alerts",
            "/gateway/api/v1/alerts",
            "/api/v1/grafana/config",
        ] {
            assert!(is_write(&Method::POST, path), "{path}");
            assert!(is_write(&Method::DELETE, path), "{path}");
            assert!(!is_write(&Method::GET, path), "{path}");
        }
        assert!(is_write(&Method::DELETE, "/somewhere/else"));
        assert!(!is_write(&Method::POST, "/somewhere/else"));
        assert!(!is_write(&Method::DELETE, "/admin/revocations/x"));
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
