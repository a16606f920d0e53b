//! Hostile requests: how they are rejected, and what Mimir would have done.

use harness::{
    Client, Issuer, Mimir, ORG_A, ORG_B, Proxy, ProxyOptions, Upstream, raw_exchange,
    raw_exchange_to_end,
};

use crate::support::responses::ok;

/// The status of a raw response.
fn status(answer: &str) -> u16 {
    let code = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    code.and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// A raw request with `Connection: close`.
fn request(target: &str, headers: &str) -> Vec<u8> {
    let (method, target) = target.split_once(' ').unwrap_or(("GET", target));
    format!("{method} {target} HTTP/1.1\r\nHost: mimir\r\nConnection: close\r\n{headers}\r\n")
        .into_bytes()
}

// CVE-2019-9901, CVE-2021-29492: what a path trick would do at Mimir itself (with its tenant
// header, as a lenient proxy would send it), and what it does here. Nothing is forwarded, and the
// checks precede authentication.
#[tokio::test(flavor = "multi_thread")]
async fn path_tricks_are_rejected_and_mimir_follows_some() {
    let mimir = Mimir::shared().await;
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let proxy = ProxyOptions::new(&issuer.url(), &upstream.url()).start().await;
    let token = issuer.user_of(ORG_A);
    // The status is Mimir's for the same bytes.
    let tricks = [
        ("/prometheus/api/v1/../../../config", 301),
        ("/prometheus/api/v1/query/../../../../config", 301),
        ("//config", 301),
        ("/prometheus//api/v1/query?query=up", 301),
        ("/./config", 301),
        ("/%63onfig", 404),
        ("/prometheus/api/v1/%71uery?query=up", 404),
        ("/%2e%2e/config", 404),
        ("/prometheus/api/v1/%2e%2e/%2e%2e/%2e%2e/config", 404),
        ("http://mimir/config", 200),
        ("http://mimir/prometheus/api/v1/query?query=up", 200),
        ("/config", 200),
        ("/config?mode=diff", 200),
        ("/memberlist", 200),
        ("/ruler/rule_groups", 200),
        ("/ingester/ring", 200),
        ("/debug/pprof/cmdline", 404),
        ("/metrics", 200),
        ("/config;/api/v1/push", 404),
        ("/config\\api", 404),
        ("/prometheus%2Fapi%2Fv1%2Fquery?query=up", 404),
        ("/config%00", 404),
        ("DELETE /prometheus/api/v1/series?match%5B%5D=up", 405),
        ("OPTIONS *", 200),
        ("CONNECT mimir:8080", 301),
    ];
    let mut differences = Vec::new();
    for (target, at_mimir) in tricks {
        let direct =
            raw_exchange(&mimir.url(), &request(target, "X-Scope-OrgID: tricks\r\n")).await;
        if status(&direct) != at_mimir {
            differences.push((target, status(&direct)));
        }
        for credential in [String::new(), format!("Authorization: Bearer {token}\r\n")] {
            let answer = raw_exchange(&proxy.url(), &request(target, &credential)).await;
            // A path that has other methods, too.
            let refused = if target.starts_with("DELETE ") { 405 } else { 404 };
            assert_eq!(status(&answer), refused, "{target}: {answer}");
            assert!(answer.contains("x-request-id: "), "{answer}");
        }
    }
    assert!(differences.is_empty(), "Mimir has changed its mind: {differences:?}");
    assert!(upstream.heads().is_empty());
}

// Parsers disagree about ';': older Go split there, newer Go drops the parameter, and this Mimir
// rejects the request, but only where it parses the query string itself.
#[tokio::test(flavor = "multi_thread")]
async fn semicolons_in_a_query_string_are_refused_because_readers_disagree() {
    let mimir = Mimir::shared().await;
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let proxy = ProxyOptions::new(&issuer.url(), &upstream.url()).start().await;
    let target = "/prometheus/api/v1/query?time=1;query=up&query=vector(7)";
    let direct = Client::new(&mimir.url()).header("x-scope-orgid", ORG_A).get(target).await;
    assert_eq!(direct.status, 400, "{direct:?}");
    let elsewhere = "/prometheus/api/v1/status/buildinfo?a=b;c=d";
    let direct = Client::new(&mimir.url()).header("x-scope-orgid", ORG_A).get(elsewhere).await;
    assert_eq!(direct.status, 200, "{direct:?}");
    for target in [target, elsewhere] {
        let answer = proxy.client().bearer(&issuer.user_of(ORG_A)).get(target).await;
        assert_eq!(
            (answer.status.as_u16(), answer.json()["errorType"].as_str()),
            (400, Some("bad_data"))
        );
    }
    assert!(upstream.heads().is_empty());
}

async fn proxy_fixture() -> (Issuer, Upstream, Proxy, String) {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let proxy = ProxyOptions::new(&issuer.url(), &upstream.url()).start().await;
    let token = format!("Authorization: Bearer {}\r\n", issuer.user_of(ORG_A));
    (issuer, upstream, proxy, token)
}

// The same of the Alertmanager: its page, its configuration, its operators' paths, and every spelling that
// could lead there. Mimir's own statuses are those of a tenant that it has not met.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_else_of_the_alertmanager_is_reachable() {
    let mimir = Mimir::shared().await;
    let (_issuer, upstream, proxy, token) = proxy_fixture().await;
    let tricks = [
        ("/multitenant_alertmanager/configs", 200, 404),
        ("/multitenant_alertmanager/status", 200, 404),
        ("/multitenant_alertmanager/ring", 200, 404),
        ("/alertmanager", 301, 404),
        ("/alertmanager/", 200, 404),
        ("/alertmanager/-/healthy", 200, 404),
        ("/alertmanager/-/reload", 404, 404),
        ("/alertmanager/metrics", 404, 404),
        ("/alertmanager/api/v1/alerts", 410, 404),
        ("/alertmanager/api/v2/", 404, 404),
        // Mimir answers this one with the configuration.
        ("/alertmanager/api/v2/status/", 200, 404),
        ("http://mimir/api/v1/alerts", 200, 404),
        ("/alertmanager/../api/v1/alerts", 301, 404),
        ("/alertmanager/api/v2/../../../api/v1/alerts", 301, 404),
        ("/alertmanager//api/v2/status", 301, 404),
        ("/alertmanager/api/v2/%73tatus", 404, 404),
        ("/alertmanager%2Fapi%2Fv2%2Fstatus", 404, 404),
        ("/Alertmanager/api/v2/status", 404, 404),
        ("/alertmanager/api/v2/alerts;x", 404, 404),
        ("/alertmanager/api/v2/silence/../status", 301, 404),
        ("/alertmanager/api/v2/silence/%2e%2e/status", 404, 404),
        // What stands where a silence's id belongs is no id.
        ("/alertmanager/api/v2/silence/..", 301, 400),
        ("/alertmanager/api/v2/silence/..%2fstatus", 422, 400),
        ("HEAD /alertmanager/api/v2/status", 405, 405),
        ("PUT /alertmanager/api/v2/silences", 404, 405),
        ("DELETE /alertmanager/api/v2/silences", 404, 405),
        ("POST /alertmanager/api/v2/silences/../alerts", 301, 405),
        ("DELETE /api/v1/alerts", 200, 405),
    ];
    let tenant = format!("X-Scope-OrgID: {}\r\n", harness::fresh_organisation());
    let mut differences = Vec::new();
    for (target, at_mimir, here) in tricks {
        let direct = raw_exchange(&mimir.url(), &request(target, &tenant)).await;
        if status(&direct) != at_mimir {
            differences.push((target, status(&direct)));
        }
        for credential in ["", token.as_str()] {
            let answer = raw_exchange(&proxy.url(), &request(target, credential)).await;
            assert_eq!(status(&answer), here, "{target}: {answer}");
            assert!(answer.contains("x-request-id: "), "{answer}");
        }
    }
    assert!(differences.is_empty(), "Mimir has changed its mind: {differences:?}");
    assert!(upstream.heads().is_empty());
}

// CVE-2021-32813, CVE-2024-45410, CVE-2025-64484, CVE-2021-32777: on the wire.
#[tokio::test(flavor = "multi_thread")]
async fn no_header_trick_changes_the_tenant() {
    let (_issuer, upstream, proxy, token) = proxy_fixture().await;
    let query = "/prometheus/api/v1/query?query=up";
    let tricks = [
        "Connection: X-Scope-OrgID\r\n".to_owned(),
        "Connection: close, x-scope-orgid, x-request-id, host\r\n".to_owned(),
        format!("X_Scope_OrgID: {ORG_B}\r\n"),
        format!("X-Scope_OrgID: {ORG_B}\r\nX.Scope.OrgID: {ORG_B}\r\n"),
        format!("X-Forwarded-X-Scope-OrgID: {ORG_B}\r\n"),
        "X-Mimir-Skip-Anything: true\r\nX-Filter-Queryables: all\r\nX-Read-Consistency: strong\r\n"
            .to_owned(),
        format!("X-Scope-UserID: {ORG_B}\r\nX-Forwarded-For: 1.1.1.1\r\n"),
    ];
    for trick in &tricks {
        let answer = raw_exchange(&proxy.url(), &request(query, &format!("{token}{trick}"))).await;
        assert_eq!(status(&answer), 200, "{trick}: {answer}");
    }
    for (head, trick) in upstream.heads().iter().zip(&tricks) {
        let tenants: Vec<_> = head.headers.get_all("x-scope-orgid").iter().collect();
        assert_eq!(tenants, [ORG_A], "{trick}");
        let folded = |name: &str| name.replace(['_', '.'], "-");
        let variants = head.headers.keys().filter(|name| folded(name.as_str()).contains("x-scope"));
        assert_eq!(variants.count(), 1, "{trick}: {:?}", head.headers);
        assert!(
            !head
                .headers
                .keys()
                .any(|name| name.as_str().starts_with("x-mimir") || name == "connection")
        );
    }
    assert_eq!(upstream.heads().len(), tricks.len());
    // Several selectors, or an unauthorised one, are rejected and not forwarded.
    for (trick, refused) in [
        (format!("X-Scope-OrgID: {ORG_A}\r\nX-Scope-OrgID: {ORG_B}\r\n"), 400),
        (format!("x-scope-orgid: {ORG_B}\r\n"), 403),
        (format!("X-Scope-OrgID: {ORG_A}:key=value\r\n"), 403),
        (format!("X-Scope-OrgID: {ORG_A}|{ORG_B}\r\n"), 400),
        ("X-Scope-OrgID:\r\n".to_owned(), 400),
        (token.clone(), 401), // a second Authorization header
    ] {
        let answer = raw_exchange(&proxy.url(), &request(query, &format!("{token}{trick}"))).await;
        assert_eq!(status(&answer), refused, "{trick}: {answer}");
    }
    assert_eq!(upstream.heads().len(), tricks.len());
}

// CVE-2026-2833, CVE-2026-2835: both sides must agree on the end of a message. A request that is
// not rejected arrives as exactly one request with one framing.
#[tokio::test(flavor = "multi_thread")]
async fn no_second_request_is_smuggled() {
    let (_issuer, upstream, proxy, token) = proxy_fixture().await;
    let inner = "GET /config HTTP/1.1\r\nHost: mimir\r\nX-Scope-OrgID: smuggled\r\n\r\n";
    let chunked = format!("0\r\n\r\n{inner}");
    for (headers, body, expected) in [
        // Both framings: chunked counts (RFC 9112, 6.3), and the connection ends after it.
        (format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", chunked.len()), chunked.clone(), 200),
        (format!("Transfer-Encoding: chunked\r\nContent-Length: {}\r\n", chunked.len()), chunked.clone(), 200),
        ("Transfer-Encoding: chunked, identity\r\n".to_owned(), chunked.clone(), 400),
        ("Transfer-Encoding: xchunked\r\n".to_owned(), chunked.clone(), 400),
        // Only the framing would be removed, and the coding lost (RFC 9112, 6.1 and 7).
        ("Transfer-Encoding: gzip, chunked\r\n".to_owned(), chunked.clone(), 400),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n".to_owned(), chunked.clone(), 400),
        ("Transfer-Encoding: chunked, chunked\r\n".to_owned(), chunked.clone(), 400),
        // RFC 9112, 3.2.
        ("Host: other\r\nContent-Length: 0\r\n".to_owned(), String::new(), 400),
        ("Transfer-Encoding : chunked\r\n".to_owned(), chunked.clone(), 400),
        ("Transfer-Encoding:\x0bchunked\r\n".to_owned(), chunked.clone(), 400),
        ("Content-Length: 0\r\nContent-Length: 5\r\n".to_owned(), inner.to_owned(), 400),
        ("Content-Length: +5\r\n".to_owned(), inner.to_owned(), 400),
        ("Content-Length: 0x5\r\n".to_owned(), inner.to_owned(), 400),
        ("X: a\r\n folded: b\r\nContent-Length: 0\r\n".to_owned(), String::new(), 400),
        ("X: a\0b\r\nContent-Length: 0\r\n".to_owned(), String::new(), 400),
        // h2c by Upgrade is not supported: the request is served as HTTP/1.1.
        ("Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nConnection: Upgrade, HTTP2-Settings\r\nContent-Length: 0\r\n".to_owned(), String::new(), 200),
    ] {
        let before = upstream.heads().len();
        let head = format!("POST /api/v1/push HTTP/1.1\r\nHost: mimir\r\n{token}{headers}\r\n");
        // Only the last one may stay: it is a request like others.
        let answer = if headers.starts_with("Upgrade") {
            raw_exchange(&proxy.url(), (head + &body).as_bytes()).await
        } else {
            raw_exchange_to_end(&proxy.url(), (head + &body).as_bytes()).await
        };
        assert_eq!(status(&answer), expected, "{headers}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{headers}: {answer}");
        assert!(!answer.contains("101 Switching"), "{answer}");
        let heads = upstream.heads();
        let forwarded = usize::from(expected == 200);
        assert_eq!(heads.len() - before, forwarded, "{headers}: {heads:?}");
        for head in &heads[before..] {
            assert_eq!(head.target, "/api/v1/push");
            let framings = ["content-length", "transfer-encoding"].iter().filter(|name| head.headers.contains_key(**name));
            // A body that is known to be empty needs none.
            assert!(framings.count() <= 1, "{head:?}");
            assert!(!head.headers.contains_key("upgrade") && !head.headers.contains_key("http2-settings"));
        }
    }
}

// RFC 9112, 3.2: what follows such a head is not parsed as a request.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_host_is_refused_and_its_connection_closed() {
    let (_issuer, upstream, proxy, token) = proxy_fixture().await;
    let query = "GET /prometheus/api/v1/query?query=up HTTP/1.1\r\n";
    let next = format!("{query}Host: mimir\r\n{token}\r\n");
    for hosts in ["", "Host: a\r\nHost: a\r\n", "Host: a, b\r\n", "Host: a/b\r\n"] {
        let both = format!("{query}{hosts}{token}\r\n{next}");
        let answer = raw_exchange_to_end(&proxy.url(), both.as_bytes()).await;
        assert_eq!(status(&answer), 400, "{hosts}: {answer}");
        assert!(answer.to_lowercase().contains("connection: close"), "{hosts}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{hosts}: {answer}");
    }
    assert!(upstream.heads().is_empty());
    let old = format!("GET /prometheus/api/v1/query?query=up HTTP/1.0\r\n{token}\r\n");
    let answer = raw_exchange(&proxy.url(), old.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
}

// Two requests in one packet are two requests, in order, each with its own tenant.
#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_keep_their_own_tenants() {
    let (issuer, upstream, proxy, token_a) = proxy_fixture().await;
    let token_b = format!("Authorization: Bearer {}\r\n", issuer.user_of(ORG_B));
    let get = |token: &str, end: &str| {
        format!("GET /api/v1/user_stats HTTP/1.1\r\nHost: x\r\n{token}{end}\r\n")
    };
    let burst =
        [get(&token_a, ""), get(&token_b, ""), get("", ""), get(&token_a, "Connection: close\r\n")]
            .concat();
    let answer = raw_exchange(&proxy.url(), burst.as_bytes()).await;
    let statuses: Vec<&str> =
        answer.split("HTTP/1.1 ").skip(1).map(|rest| rest.get(..3).unwrap_or_default()).collect();
    assert_eq!(statuses, ["200", "200", "401", "200"], "{answer}");
    let tenants: Vec<_> =
        upstream.heads().iter().map(|head| head.headers["x-scope-orgid"].clone()).collect();
    assert_eq!(tenants, [ORG_A, ORG_B, ORG_A]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_head_is_a_431() {
    let (_issuer, upstream, proxy, token) = proxy_fixture().await;
    let query = "/prometheus/api/v1/query?query=up";
    for size in [33 << 10, 70 << 10, 300 << 10] {
        let padding = format!("X-Padding: {}\r\n", "x".repeat(size));
        let answer =
            raw_exchange(&proxy.url(), &request(query, &format!("{token}{padding}"))).await;
        assert_eq!(status(&answer), 431, "{size}: {answer}");
    }
    let many: Vec<String> = (0..200).map(|number| format!("X-{number}: x\r\n")).collect();
    assert_eq!(status(&raw_exchange(&proxy.url(), &request(query, &many.concat())).await), 431);
    let long = format!("{query}{}", "x".repeat(33 << 10));
    assert_eq!(status(&raw_exchange(&proxy.url(), &request(&long, &token)).await), 431);
    assert!(upstream.heads().is_empty());
    let h2c = Client::h2c(&proxy.url()).header("x-padding", &"x".repeat(100 << 10));
    assert_eq!(h2c.get(query).await.status, 431);
    assert!(upstream.heads().is_empty());
}

// A client's text cannot break a line of the log.
#[tokio::test(flavor = "multi_thread")]
async fn log_lines_stay_intact_whatever_a_request_contains() {
    let (_issuer, _upstream, proxy, _token) = proxy_fixture().await;
    let path = "/a\"b\\c{\"level\":\"ERROR\"}";
    let answer = raw_exchange(&proxy.url(), &request(path, "X-Request-Id: a\"b\r\n")).await;
    assert_eq!(status(&answer), 404, "{answer}");
    harness::wait_until("the line is there", std::time::Duration::from_secs(5), async || {
        proxy.access_log(path).len() == 1
    })
    .await;
    assert_eq!(proxy.access_log(path)[0]["request.id"].as_str().unwrap().len(), 32);
}
