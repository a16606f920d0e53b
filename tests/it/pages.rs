//! Which web pages may read our responses (<https://fetch.spec.whatwg.org/#http-cors-protocol>), as
//! seen by any client.

mod browser;

use std::time::Duration;

use harness::{
    Answer, Client, Issuer, Mimir, ORG_A, ORG_B, ProxyOptions, Received, Upstream, wait_until,
};
use http::{Method, Response};
use mimir_tenant_proxy::route::{Access, ROUTES};

use crate::support::responses::{Body, full, ok};
use crate::support::single::{PUSH, ProxyFixture, QUERY, proxy_fixture};

const APP: &str = "https://app.example.com";
const DEPLOYED: &str = "https://abc123.project.pages.dev";
const ON: (&str, &str) =
    ("cors.allowed_origins", "[\"https://app.example.com\", \"https://*.project.pages.dev\"]");

/// Origins that are not allowed, however similar.
const STRANGERS: [&str; 14] = [
    "https://a.b.project.pages.dev",
    "https://evil.pages.dev",
    "https://evil-project.pages.dev",
    "https://project.pages.dev",
    "https://.project.pages.dev",
    "https://abc123.project.pages.dev.evil.example",
    "https://app.example.com.evil.example",
    "https://app.example.com:8443",
    "https://app.example.com:443",
    "https://app.example.com/",
    "http://app.example.com",
    "https://APP.example.com",
    "https://*.project.pages.dev",
    "null",
];

/// An address without a listener.
fn dead_url() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// A browser's preflight for a page's request with a token.
fn asking(client: Client, origin: &str) -> Client {
    let client = client.header("origin", origin).header("access-control-request-method", "GET");
    client.header("access-control-request-headers", "authorization,x-scope-orgid")
}

fn words(answer: &Answer, name: &str) -> Vec<String> {
    let values = answer.headers.get_all(name).iter().map(|value| value.to_str().unwrap());
    values.flat_map(|value| value.split(',')).map(|word| word.trim().to_lowercase()).collect()
}

fn assert_words(answer: &Answer, name: &str, wanted: &[&str]) {
    let words = words(answer, name);
    for wanted in wanted {
        assert!(words.iter().any(|word| word == wanted), "{wanted} in {name} of {answer:?}");
    }
}

fn assert_says_nothing_of_pages(answer: &Answer, about: &str) {
    let mut names = answer.headers.keys();
    let said = names.find(|name| name.as_str().starts_with("access-control-"));
    assert!(said.is_none(), "{about}: {answer:?}");
}

/// A page that is not allowed gets no CORS headers, and caches are told that this depends on the
/// origin.
fn assert_strange(answer: &Answer, origin: &str, about: &str) {
    assert_says_nothing_of_pages(answer, about);
    assert_words(answer, "vary", &["origin"]);
    let mut headers = answer.headers.values();
    let host = origin.split_once("://").map_or(origin, |(_, host)| host);
    assert!(!headers.any(|value| value.to_str().unwrap().contains(host)), "{about}: {answer:?}");
    // JSON has a null of its own.
    assert!(host == "null" || !answer.text.contains(host), "{about}: {answer:?}");
}

/// A response of each origin: Mimir, each stage of ours, `/admin`.
async fn each_kind(
    fixture: &ProxyFixture,
    dead: &ProxyFixture,
    origin: &str,
) -> Vec<(String, Answer)> {
    let known = fixture.client().header("origin", origin);
    let unknown = fixture.proxy.client().header("origin", origin);
    let forged = unknown.clone().bearer("no.token.this");
    let elsewhere = known.clone().header("x-scope-orgid", ORG_B);
    let confused = known.clone().header("x-scope-orgid", "a|");
    let wordy = known.clone().header("x-words", &"word ".repeat(10_000));
    let unlucky = dead.client().header("origin", origin);
    let (get, wrong) = (Method::GET, "/prometheus/api/v1/query?query=sum(");
    let large = "x".repeat(2 << 10);
    let mut answers = Vec::new();
    for (kind, status, client, method, target, body) in [
        ("Mimir's answer", 200, &known, &get, QUERY, ""),
        ("Mimir's refusal", 400, &known, &get, wrong, ""),
        ("a target of no good form", 400, &known, &get, "/prometheus/api/v1/query?a;b", ""),
        ("a body where none belongs", 400, &known, &get, "/prometheus/api/v1/rules", "body"),
        ("a selector of no good form", 400, &confused, &get, QUERY, ""),
        ("no credential", 401, &unknown, &get, QUERY, ""),
        ("a forged credential", 401, &forged, &get, QUERY, ""),
        ("no credential of a sender", 401, &unknown, &Method::POST, PUSH, ""),
        ("another's organisation", 403, &elsewhere, &get, QUERY, ""),
        ("no such path", 404, &known, &get, "/no/such/path", ""),
        ("no such path for a stranger", 404, &unknown, &get, "/no/such/path", ""),
        ("another method", 405, &known, &Method::PUT, QUERY, ""),
        ("no body for HEAD", 405, &known, &Method::HEAD, QUERY, ""),
        ("too large a body", 413, &known, &Method::POST, PUSH, large.as_str()),
        ("too large a head", 431, &wordy, &get, QUERY, ""),
        ("no Mimir", 503, &unlucky, &get, QUERY, ""),
        ("our own", 200, &known, &get, "/admin/whoami", ""),
        ("our own to nobody", 401, &unknown, &get, "/admin/whoami", ""),
        ("our own to the service only", 403, &known, &get, "/admin/revocations", ""),
    ] {
        let answer = client.send(method.clone(), target, body.to_owned()).await;
        assert_eq!(answer.status, status, "{kind}: {answer:?}");
        answers.push((format!("{kind} to {origin}"), answer));
    }
    assert!(answers[1].1.text.contains("parse error"), "Mimir's own words: {answers:?}");
    answers
}

/// A fixture with Mimir, and one without.
async fn scenes() -> (ProxyFixture, ProxyFixture) {
    let small = ("limits.push_body_bytes", "\"1KiB\"");
    let mimir = Mimir::shared().await;
    (proxy_fixture(&mimir.url(), &[ON, small]).await, proxy_fixture(&dead_url(), &[ON]).await)
}

// Preflights carry no credentials and must be cheap: here neither the issuer nor Mimir is
// reachable.
#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_is_answered_without_credential_issuer_or_mimir() {
    let issuer = Issuer::start().await;
    let upstream = Upstream::start(ok).await;
    let nobody = format!("{}/auth/v1", dead_url());
    let proxy = ProxyOptions::new(&nobody, &upstream.url()).set(ON.0, ON.1).start().await;
    let token = issuer.token().claim("iss", nobody.into()).sign();
    let refused = proxy.client().bearer(&token).get(QUERY).await;
    assert_eq!(refused.status, 503, "a token is looked at: {refused:?}");
    let client = proxy.client();
    for client in [client.clone(), Client::h2c(&proxy.url()), client.bearer(&token)] {
        for origin in [APP, DEPLOYED] {
            for path in [QUERY, PUSH, "/admin/revocations", "/no/such/path"] {
                let asking = asking(client.clone(), origin);
                let answer = asking.send(Method::OPTIONS, path, "").await;
                assert_eq!(answer.status, 204, "{answer:?}");
                assert_eq!(answer.header("access-control-allow-origin"), origin);
                assert_eq!(answer.header("access-control-max-age"), "7200");
                let headers = ["authorization", "x-scope-orgid", "content-type"];
                assert_words(&answer, "access-control-allow-headers", &headers);
                let methods = ["get", "post", "delete"];
                assert_words(&answer, "access-control-allow-methods", &methods);
                let asked = ["access-control-request-method", "access-control-request-headers"];
                assert_words(&answer, "vary", &["origin"]);
                assert_words(&answer, "vary", &asked);
                // A page may send a token, but never the browser's cookies.
                assert!(!answer.headers.contains_key("access-control-allow-credentials"));
                assert!(!answer.header("x-request-id").is_empty());
                assert!(answer.body.is_empty());
            }
        }
    }
    let lookups = |outcome| format!("mimir_tenant_proxy_token_cache_lookups_total{outcome}");
    assert_eq!(proxy.metric(&lookups("{outcome=\"hit\"}")).await, 0.0);
    assert_eq!(proxy.metric(&lookups("{outcome=\"miss\"}")).await, 1.0, "that of the first");
    let connects = "mimir_tenant_proxy_upstream_connects_total{outcome=\"succeeded\"}";
    assert_eq!(proxy.metric(connects).await, 0.0);
    assert!(upstream.heads().is_empty(), "{:?}", upstream.heads());
    wait_until("the lines are there", Duration::from_secs(5), async || {
        proxy.access_log(PUSH).len() == 6
    })
    .await;
    for line in proxy.access_log(PUSH) {
        assert_eq!(
            (&line["http.method"], &line["outcome"]),
            (&"OPTIONS".into(), &"answered".into())
        );
        let unknown = ["principal.id", "tenant.id", "upstream.address"];
        assert!(unknown.iter().all(|field| line[field].is_null()), "{line}");
    }
}

// Additional headers, and how long a browser may cache a preflight.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_adds_headers_and_sets_the_age() {
    let (names, age) = (("cors.allowed_headers", "[\"x-dashboard\"]"), ("cors.max_age", "\"10m\""));
    let fixture = proxy_fixture(&dead_url(), &[ON, names, age]).await;
    let answer = asking(fixture.proxy.client(), APP).send(Method::OPTIONS, QUERY, "").await;
    assert_words(&answer, "access-control-allow-headers", &["authorization", "x-dashboard"]);
    assert_eq!(answer.header("access-control-max-age"), "600");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_not_allowed_gets_no_headers_for_a_preflight() {
    let upstream = Upstream::start(ok).await;
    let fixture = proxy_fixture(&upstream.url(), &[ON]).await;
    for origin in STRANGERS {
        for client in [fixture.proxy.client(), Client::h2c(&fixture.proxy.url()), fixture.client()]
        {
            let answer = asking(client, origin).send(Method::OPTIONS, QUERY, "").await;
            assert!(answer.status.is_client_error(), "{origin}: {answer:?}");
            assert_strange(&answer, origin, origin);
        }
    }
    // Of two origins neither is accepted.
    for (one, other) in [(APP, STRANGERS[0]), (STRANGERS[0], APP), (APP, APP)] {
        let client = asking(fixture.proxy.client(), one).header("origin", other);
        let answer = client.send(Method::OPTIONS, QUERY, "").await;
        assert_says_nothing_of_pages(&answer, "two origins");
    }
    assert!(upstream.heads().is_empty(), "{:?}", upstream.heads());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_not_allowed_cannot_read_responses() {
    let (fixture, dead) = scenes().await;
    for origin in STRANGERS {
        for (about, answer) in each_kind(&fixture, &dead, origin).await {
            assert_strange(&answer, origin, &about);
        }
    }
}

// Without these headers a page cannot tell an expired token from a broken network.
#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_answer_is_readable_for_an_allowed_page() {
    let (fixture, dead) = scenes().await;
    for origin in [APP, DEPLOYED] {
        for (about, answer) in each_kind(&fixture, &dead, origin).await {
            let allowed: Vec<_> =
                answer.headers.get_all("access-control-allow-origin").iter().collect();
            assert_eq!(allowed, [origin], "{about}");
            let exposed = ["x-request-id", "retry-after", "www-authenticate"];
            assert_words(&answer, "access-control-expose-headers", &exposed);
            assert_words(&answer, "vary", &["origin"]);
            assert!(!answer.headers.contains_key("access-control-allow-credentials"), "{about}");
            assert!(!answer.header("x-request-id").is_empty(), "{about}");
        }
    }
}

// A cache must not give a page the response for another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_response_without_an_origin_varies_by_origin_too() {
    let (fixture, _) = scenes().await;
    for client in [fixture.client(), fixture.proxy.client()] {
        let answer = client.get(QUERY).await;
        assert_says_nothing_of_pages(&answer, "no page");
        assert_words(&answer, "vary", &["origin"]);
    }
}

// Prometheus' API, which Mimir serves, repeats any origin on some paths; which page may read is our
// decision.
#[tokio::test(flavor = "multi_thread")]
async fn cors_headers_of_mimir_are_never_forwarded() {
    let mimir = Mimir::shared().await;
    let direct = Client::new(&mimir.url()).header("x-scope-orgid", ORG_A);
    let direct = direct.header("origin", STRANGERS[0]);
    // Even if an operator forwards the origin to Mimir.
    let pass = ("upstream.pass_headers", "[\"origin\"]");
    let off = proxy_fixture(&mimir.url(), &[pass]).await;
    let on = proxy_fixture(&mimir.url(), &[pass, ON]).await;
    let stranger = |fixture: &ProxyFixture| fixture.client().header("origin", STRANGERS[0]);
    let (off, page, on) = (stranger(&off), on.client().header("origin", APP), stranger(&on));
    let mut repeated = Vec::new();
    let tenants = ROUTES.iter().filter(|route| matches!(route.access, Access::Tenant(_)));
    for (route, method) in tenants.flat_map(|route| route.methods.iter().map(move |m| (route, m))) {
        let path = route.path.replace("{label}", "job").replace("{name}", "none");
        let target = format!("{path}?query=up&start=1800000000&end=1800000060&step=15&match[]=up");
        let origin = |answer: Answer| answer.header("access-control-allow-origin").to_owned();
        if origin(direct.send(method.clone(), &target, "").await) == STRANGERS[0] {
            repeated.push(route.path);
        }
        for client in [&off, &on] {
            let answer = client.send(method.clone(), &target, "").await;
            assert_says_nothing_of_pages(&answer, &target);
        }
        assert_eq!(origin(page.send(method.clone(), &target, "").await), APP, "{target}");
    }
    assert!(repeated.contains(&"/prometheus/api/v1/format_query"), "{repeated:?}");
}

/// Allows every page to read everything.
async fn lax(request: Received) -> Response<Body> {
    let mut response = ok(request).await;
    for (name, value) in [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-headers", "*"),
        ("access-control-allow-methods", "*"),
        ("access-control-allow-private-network", "true"),
        ("access-control-expose-headers", "*"),
        ("access-control-max-age", "86400"),
        ("vary", "accept-encoding"),
    ] {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

#[tokio::test(flavor = "multi_thread")]
async fn cors_headers_of_an_upstream_are_removed() {
    let upstream = Upstream::start(lax).await;
    let off = proxy_fixture(&upstream.url(), &[]).await;
    let on = proxy_fixture(&upstream.url(), &[ON]).await;
    for client in [off.client(), off.client().header("origin", APP), on.client()] {
        let answer = client.get(QUERY).await;
        assert_eq!(answer.status, 200);
        assert_says_nothing_of_pages(&answer, "nobody is allowed");
        assert_words(&answer, "vary", &["accept-encoding"]);
    }
    for origin in STRANGERS {
        let answer = on.client().header("origin", origin).get(QUERY).await;
        assert_strange(&answer, origin, origin);
    }
    let answer = on.client().header("origin", APP).get(QUERY).await;
    let mut said: Vec<(&str, &str)> = answer
        .headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("access-control-"))
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    said.sort_unstable();
    assert_eq!(said[0], ("access-control-allow-origin", APP));
    assert_eq!(said[1].0, "access-control-expose-headers");
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(!said[1].1.contains('*'), "{said:?}");
    assert_words(&answer, "vary", &["accept-encoding", "origin"]);
}

// Without a preflight's headers, OPTIONS is a method that no route has.
#[tokio::test(flavor = "multi_thread")]
async fn options_without_a_preflight_is_a_405() {
    let upstream = Upstream::start(|_| async { Response::new(full("")) }).await;
    let (on, off) =
        (proxy_fixture(&upstream.url(), &[ON]).await, proxy_fixture(&upstream.url(), &[]).await);
    let empty = proxy_fixture(&upstream.url(), &[("cors.allowed_origins", "[]")]).await;
    let no_origin = on.client().header("access-control-request-method", "GET");
    for client in [no_origin, on.client().header("origin", STRANGERS[0]), on.client()] {
        let answer = client.send(Method::OPTIONS, QUERY, "").await;
        assert_eq!(answer.status, 405, "{answer:?}");
        assert_says_nothing_of_pages(&answer, "no preflight");
    }
    let answer = on.client().header("origin", APP).send(Method::OPTIONS, QUERY, "").await;
    assert_eq!(answer.status, 405, "{answer:?}");
    assert_eq!(answer.header("access-control-allow-origin"), APP);
    for fixture in [off, empty] {
        for origin in [APP, STRANGERS[0]] {
            for client in [fixture.proxy.client(), fixture.client()] {
                // No page is allowed: a preflight is refused like that of any other page.
                let answer = asking(client, origin).send(Method::OPTIONS, QUERY, "").await;
                assert_eq!(answer.status, 403, "{answer:?}");
                assert_says_nothing_of_pages(&answer, "CORS is off");
            }
        }
        let answer = fixture.client().header("origin", APP).get(QUERY).await;
        assert_eq!(answer.status, 200);
        assert_says_nothing_of_pages(&answer, "CORS is off");
    }
    assert!(upstream.heads().iter().all(|head| head.method == "GET"));
}
