//! Headers and trailers that steer somebody behind a careless proxy.

use std::collections::BTreeSet;

use harness::{NetHttp, ORG_A, ORG_B, raw_exchange};

use super::{QUERY, target};
use crate::deadlines::frames::{Frames, frame, literal, opening};

/// All that reaches Mimir, besides `Host` and the framing (`mimir::passes`, and what the proxy itself sets).
const PASSES: &[&str] = &[
    "accept",
    "accept-encoding",
    "baggage",
    "cache-control",
    "content-encoding",
    "content-type",
    "retry-attempt",
    "traceparent",
    "tracestate",
    "user-agent",
    "x-prometheus-remote-read-version",
    "x-prometheus-remote-write-version",
    "te",
    "trailer",
    "x-request-id",
    "x-scope-orgid",
];

/// Names that somebody, somewhere, takes for a tenant, a path, a method, a user, an address or a switch.
/// CVE-2018-14773 (X-Original-URL), CVE-2021-32777, CVE-2025-64484 (underscores), CVE-2024-45410 (Connection),
/// the switches of Mimir.
const STEERING: &[&str] = &[
    "X_Scope_OrgID",
    "X-Scope_OrgID",
    "x_scope-orgid",
    "X.Scope.OrgID",
    "X-Scope-OrgID-",
    "X-Scope-Org-ID",
    "XScopeOrgID",
    "X-ScopeOrgID",
    "X-Scope-UserID",
    "X-Scope-TenantID",
    "X-Tenant",
    "X-Tenant-ID",
    "THANOS-TENANT",
    "X-Forwarded-X-Scope-OrgID",
    "HTTP_X_SCOPE_ORGID",
    "X-Org-ID",
    "X-Grafana-Org-Id",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Original-Method",
    "X-HTTP-Method",
    "X-HTTP-Method-Override",
    "X-Method-Override",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Prefix",
    "X-Forwarded-Path",
    "X-Forwarded-Uri",
    "X-Forwarded-Method",
    "X-Forwarded-User",
    "X-Forwarded-Server",
    "X_Forwarded_For",
    "Forwarded",
    "X-Real-IP",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "True-Client-IP",
    "Fly-Client-IP",
    "CF-Connecting-IP",
    "X-Remote-User",
    "Remote-User",
    "X-WEBAUTH-USER",
    "X-Authenticated-User",
    "X-Auth-Request-User",
    "X-Mimir-Ruler-Override-Namespace-Protection",
    "X-Mimir-SkipLabelNameValidation",
    "X-Mimir-OTLP-Anything",
    "X_Mimir_SkipLabelNameValidation",
    "X-Mimir-Force-Prometheus-Engine",
    "X-Mimir-Chunk-Info-Logger",
    "X-Filter-Queryables",
    "X-Read-Consistency",
    "X-Read-Consistency-Offsets",
    "Sharding-Control",
    "X-Cortex-Anything",
    "X-Cluster",
    "Cookie",
    "apikey",
    "Proxy-Authorization",
    "Proxy-Connection",
    "Keep-Alive",
    "Upgrade-Insecure-Requests",
    "Expect-CT",
    "Origin-Agent-Cluster",
    "Range",
    "If-Range",
    "If-None-Match",
    "X-Accel-Redirect",
    "X-Sendfile",
    "Destination",
    "X-Amz-Website-Redirect-Location",
    "Authorization-Extra",
    "X-Webhook-Secret",
    "Via",
    "Max-Forwards",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_steering_header_reaches_mimir() {
    let (upstream, attacked) = (NetHttp::start().await, target(&[]).await);
    let proxy = harness::ProxyOptions::new(&attacked.issuer.url(), &upstream.url()).start().await;
    let token = attacked.authorization();
    for name in STEERING {
        for value in [ORG_B, "/config", "DELETE", "127.0.0.1", "true"] {
            let request = format!(
                "GET {QUERY} HTTP/1.1\r\nHost: proxy\r\nConnection: close\r\n{token}{name}: {value}\r\n\r\n"
            );
            let answer = raw_exchange(&proxy.url(), request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{name}: {answer}");
        }
    }
    // The same by HTTP/2, where names are in lower case.
    let mut frames = Frames::new(
        tokio::net::TcpStream::connect(proxy.url().replace("http://", "")).await.unwrap(),
    );
    frames.send(&opening(1 << 20)).await.unwrap();
    for (at, name) in STEERING.iter().enumerate() {
        let name = name.to_ascii_lowercase();
        if matches!(name.as_str(), "keep-alive" | "proxy-connection") {
            continue; // they break the protocol: `malformed_heads_of_http_2_reach_nobody`
        }
        let stream = u32::try_from(at).unwrap() * 2 + 1;
        let block = [
            &[0x82, 0x86][..],
            &literal(&[0x04], QUERY),
            &literal(&[0x01], "proxy"),
            &literal(&[0x0f, 23 - 15], token.trim_end().split_once(": ").unwrap().1),
            &literal(&literal(&[0], &name), ORG_B),
        ];
        frames.send(&frame(1, 5, stream, &block.concat())).await.unwrap();
        // Its answer, so that none of them waits.
        while let Some(received) = frames.next().await.unwrap() {
            assert!(!matches!(received.kind, 3 | 7), "{name} ends the stream");
            if received.stream == stream && received.kind == 1 {
                assert_eq!(crate::deadlines::frames::status(&received.payload), 200, "{name}");
                break;
            }
        }
    }
    let seen = upstream.take().await;
    assert_eq!(seen.len(), STEERING.len() * 6 - 2);
    let allowed: BTreeSet<&str> = PASSES.iter().copied().collect();
    for request in seen {
        assert_eq!((request.method.as_str(), request.target.as_str()), ("GET", QUERY));
        assert_eq!(request.values("x-scope-orgid"), [ORG_A], "{request:?}");
        let names = request.headers.iter().map(|(name, _)| name.to_ascii_lowercase());
        let strange: Vec<String> = names.filter(|name| !allowed.contains(name.as_str())).collect();
        assert!(strange.is_empty(), "{strange:?}");
        assert!(
            !request.host.contains("proxy") || request.host.contains(':'),
            "the client's Host passed"
        );
    }
}

// RFC 9110, 6.5.1: a trailer must not become what it could not be as a header. Some servers merge them.
#[tokio::test(flavor = "multi_thread")]
async fn no_steering_trailer_reaches_mimir() {
    let (upstream, attacked) = (NetHttp::start().await, target(&[]).await);
    let proxy = harness::ProxyOptions::new(&attacked.issuer.url(), &upstream.url()).start().await;
    let token = attacked.authorization();
    for name in STEERING.iter().chain(&[
        "X-Scope-OrgID",
        "x-scope-orgid",
        "Authorization",
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
        "Trailer",
        "TE",
    ]) {
        let request = format!(
            "POST /api/v1/push HTTP/1.1\r\nHost: proxy\r\nConnection: close\r\n{token}Transfer-Encoding: chunked\r\n\
             Trailer: {name}\r\n\r\n4\r\nbody\r\n0\r\n{name}: {ORG_B}\r\n\r\n"
        );
        let answer = raw_exchange(&proxy.url(), request.as_bytes()).await;
        for request in upstream.take().await {
            assert_eq!(request.values("x-scope-orgid"), [ORG_A], "{name}: {request:?}");
            let trailers: Vec<String> =
                request.trailers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
            let steers = |name: &String| {
                let folded = name.replace(['_', '.'], "-");
                ["x-scope", "x-mimir", "x-forwarded", "x-cortex", "x-read-consistency"]
                    .iter()
                    .any(|prefix| folded.starts_with(prefix))
                    || [
                        "authorization",
                        "host",
                        "content-length",
                        "transfer-encoding",
                        "connection",
                    ]
                    .contains(&folded.as_str())
            };
            assert!(!trailers.iter().any(steers), "{name}: {trailers:?} {answer}");
            assert!(request.problem.is_empty() && request.body == b"body", "{request:?}");
        }
    }
}
