//! Which of a client's headers are forwarded to Mimir.
//!
//! A list of headers that pass, not of those that are removed: new releases of Mimir add headers
//! that change its behaviour (`X-Mimir-Force-Prometheus-Engine`, `X-Mimir-Chunk-Info-Logger` and
//! others that we had not listed), and an unknown one must not pass. An operator can add names with
//! `upstream.pass_headers`, except those of [`is_never_forwarded`].

use http::{HeaderName, header};

/// Mimir's tenant header. If it occurs twice, Mimir silently takes the first.
pub const TENANT_HEADER: HeaderName = HeaderName::from_static("x-scope-orgid");

/// Whether a client's header passes by default: what the protocols themselves need, and W3C trace
/// context. Hop-by-hop headers were removed before.
pub fn passes(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "accept"
            | "accept-encoding"
            | "baggage"
            | "cache-control" // `no-store` by-passes Mimir's results cache
            | "content-encoding"
            | "content-length"
            | "content-type"
            | "retry-attempt" // Prometheus: lets Mimir choose a fitting Retry-After
            | "traceparent"
            | "tracestate"
            | "user-agent"
            | "x-prometheus-remote-read-version"
            | "x-prometheus-remote-write-version"
    )
}

/// Whether a header must not reach Mimir, even if the operator lists it: credentials, headers that
/// name a tenant or change Mimir's behaviour, and those of a single connection. Spelling variants
/// count as the name itself: a server behind us may treat `_` and `-` alike (CVE-2025-64484).
pub fn is_never_forwarded(name: &HeaderName) -> bool {
    if [header::AUTHORIZATION, header::COOKIE, header::HOST, header::EXPECT].contains(name) {
        return true;
    }
    let folded: String =
        name.as_str().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    const PREFIXES: [&str; 6] =
        ["x-scope", "x-mimir", "x-read-consistency", "x-forwarded", "proxy-", "x-cortex"];
    const NAMES: [&str; 12] = [
        "apikey",
        "connection",
        "forwarded",
        "keep-alive",
        "sharding-control",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-cluster",
        "x-filter-queryables",
        "x-real-ip",
    ];
    PREFIXES.iter().any(|prefix| folded.starts_with(prefix)) || NAMES.contains(&folded.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn steering_headers_never_pass() {
        for name in [
            "x-scope-orgid",
            "x_scope_orgid",
            "x-scope_orgid",
            "x.scope.orgid",
            "x-scope-userid",
            "x-mimir-ruler-override-namespace-protection",
            "x-mimir-skiplabelnamevalidation",
            "x-mimir-otlp-addsuffixes",
            "x-mimir-force-prometheus-engine",
            "x-filter-queryables",
            "x-read-consistency",
            "x-read-consistency-offsets",
            "sharding-control",
            "authorization",
            "apikey",
            "cookie",
            "x-forwarded-for",
            "host",
            "connection",
        ] {
            let name: HeaderName = name.parse().unwrap();
            assert!(!passes(&name), "{name} passes");
            assert!(is_never_forwarded(&name), "{name} may be configured");
        }
    }

    proptest! {
        #[test]
        fn a_header_that_passes_is_never_a_forbidden_one(name in "[a-z][a-z0-9_.-]{0,40}") {
            let name: HeaderName = name.parse().unwrap();
            prop_assert!(!(passes(&name) && is_never_forwarded(&name)));
        }
    }
}
