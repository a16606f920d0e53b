//! A page in a real Chromium, which sends preflights, hides responses from the page and caches
//! preflights by its own rules.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use harness::{Chromium, Mimir, ORG_A, ORG_B, Proxy, Received, Upstream, wait_until};
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::dead_url;
use crate::support::responses::{Body, full};
use crate::support::single::{ProxyFixture, proxy_fixture};

const PAGE: &str = include_str!("page.html");
const PATH: &str = "/prometheus/api/v1/query";
const QUERY: &str = "/prometheus/api/v1/query?query=vector(42)";

/// A web server with one page: its script sends a list of requests, one after the other, and
/// reports what it could read of the responses.
struct Site {
    server: Upstream,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    plan: Value,
    report: Option<Value>,
}

impl Site {
    async fn start() -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = Arc::clone(&state);
        let server = Upstream::start(move |request| serve(Arc::clone(&shared), request)).await;
        Self { server, state }
    }

    /// Its origin by one of its names; in this browser every name resolves to us.
    fn origin(&self, host: &str) -> String {
        self.server.url().replace("127.0.0.1", host)
    }

    /// The setting that allows the page by two of its names.
    fn allowed(&self) -> String {
        let (one, label) = (self.origin("localhost"), self.origin("*.project.pages.test"));
        format!("[{one:?}, {label:?}]")
    }

    /// Opens the page by one of its names and returns its reports, one for each request.
    async fn visit(&self, host: &str, plan: &[Value]) -> Vec<Value> {
        *self.state.lock().unwrap() = State { plan: json!(plan), report: None };
        let chromium = Chromium::open(&self.origin(host));
        let mut report = None;
        let about = "the page reports";
        wait_until(about, Duration::from_secs(90), async || {
            report = self.state.lock().unwrap().report.take();
            report.is_some()
        })
        .await;
        let report = report.unwrap().as_array().unwrap().clone();
        assert_eq!(report.len(), plan.len(), "{}", chromium.log());
        report
    }
}

async fn serve(state: Arc<Mutex<State>>, request: Received) -> Response<Body> {
    let (kind, body) = match request.target.as_str() {
        "/" => ("text/html", PAGE.to_owned()),
        "/plan" => ("application/json", state.lock().unwrap().plan.to_string()),
        "/report" => {
            let report = request.body.unwrap().collect().await.unwrap().to_bytes();
            state.lock().unwrap().report = Some(serde_json::from_slice(&report).unwrap());
            ("text/plain", String::new())
        }
        _ => {
            let mut response = Response::new(full(""));
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        }
    };
    Response::builder().header("content-type", kind).body(full(body)).unwrap()
}

/// A request with a token, which needs a preflight.
fn with_token(proxy: &Proxy, target: &str, token: &str, organisation: &str) -> Value {
    let authorization = format!("Bearer {token}");
    let headers = json!({"authorization": authorization, "x-scope-orgid": organisation});
    json!({"url": format!("{}{target}", proxy.url()), "init": {"headers": headers}})
}

/// The same, with more of `fetch`'s options.
fn with(mut request: Value, option: &str, value: &str) -> Value {
    request["init"][option] = json!(value);
    request
}

fn assert_is_unreadable(seen: &Value) {
    assert_eq!(*seen, json!({"error": "TypeError"}));
}

/// Methods and statuses in the access log, once there are as many.
async fn logged(proxy: &Proxy, path: &str, count: usize) -> Vec<(String, u64)> {
    wait_until("the lines are there", Duration::from_secs(5), async || {
        proxy.access_log(path).len() >= count
    })
    .await;
    let line = |line: &Value| {
        (line["http.method"].as_str().unwrap().to_owned(), line["http.status"].as_u64().unwrap())
    };
    proxy.access_log(path).iter().map(line).collect()
}

// Both are requests for which a browser asks first.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_makes_and_ends_a_silence() {
    let (site, mimir) = (Site::start().await, Mimir::shared().await);
    let allowed = site.allowed();
    let fixture = proxy_fixture(&mimir.url(), &[("cors.allowed_origins", allowed.as_str())]).await;
    let (proxy, organisation) = (&fixture.proxy, harness::fresh_organisation());
    let token = fixture.issuer.user_of(&organisation);
    let to = |target: &str| with_token(proxy, target, &token, &organisation);
    let silences = "/alertmanager/api/v2/silences";
    let mut make = with(to(silences), "method", "POST");
    make["init"]["headers"]["content-type"] = json!("application/json");
    let silence = json!({
        "matchers": [{"name": "hub", "value": "17", "isRegex": false, "isEqual": true}],
        "startsAt": "2026-01-01T00:00:00.000Z", "endsAt": "2099-01-01T00:00:00.000Z",
        "comment": "maintenance", "createdBy": "",
    });
    make["init"]["body"] = json!(silence.to_string());
    let seen = site.visit("localhost", &[make]).await;
    assert_eq!(seen[0]["status"], 200, "{seen:#?}");
    let made: Value = serde_json::from_str(seen[0]["text"].as_str().unwrap()).unwrap();
    let id = made["silenceID"].as_str().unwrap();
    // Mimir starts a tenant's Alertmanager with its first request. If it was just reading the configurations of all
    // tenants, it stops this one once, answers 406 until it reads them again, and then has the silence.
    let deadline = Instant::now() + Duration::from_secs(60);
    let seen = loop {
        let seen = site.visit("localhost", &[to(silences)]).await;
        if seen[0]["status"] != 406 || Instant::now() > deadline {
            break seen;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    assert_eq!(seen[0]["status"], 200, "{seen:#?}");
    assert!(seen[0]["text"].as_str().unwrap().contains(id), "{seen:#?}");
    let one = format!("/alertmanager/api/v2/silence/{id}");
    let seen = site.visit("localhost", &[with(to(&one), "method", "DELETE"), to(&one)]).await;
    assert_eq!(seen[0]["status"], 200, "{seen:#?}");
    assert!(seen[1]["text"].as_str().unwrap().contains("expired"), "{seen:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_an_allowed_origin_reads_answers_and_refusals() {
    let (site, mimir) = (Site::start().await, Mimir::shared().await);
    let allowed = site.allowed();
    let on = [("cors.allowed_origins", allowed.as_str())];
    let (ProxyFixture { issuer, proxy }, dead) =
        (proxy_fixture(&mimir.url(), &on).await, proxy_fixture(&dead_url(), &on).await);
    let (token, expired) = (issuer.user_of(ORG_A), issuer.token().expires_in(-600).sign());
    let revocation = "/admin/revocations/00000000-0000-4000-8000-000000000000";
    let good = with_token(&proxy, QUERY, &token, ORG_A);
    let mut form = with(with_token(&proxy, PATH, &token, ORG_A), "method", "POST");
    form["init"]["body"] = json!("query=vector(43)");
    form["init"]["headers"]["content-type"] = json!("application/x-www-form-urlencoded");
    let delete = with(with_token(&proxy, revocation, &token, ORG_A), "method", "DELETE");
    let plan = [
        good.clone(),
        form,
        with_token(&proxy, QUERY, &expired, ORG_A),
        with_token(&proxy, QUERY, &token, ORG_B),
        with_token(&proxy, "/no/such/path", &token, ORG_A),
        delete,
        with_token(&dead.proxy, QUERY, &dead.issuer.user_of(ORG_A), ORG_A),
    ];
    for host in ["localhost", "abc123.project.pages.test"] {
        let seen = site.visit(host, &plan).await;
        let status = |seen: &Value| seen["status"].as_u64();
        let statuses: Vec<_> = seen.iter().filter_map(status).collect();
        assert_eq!(statuses, [200, 200, 401, 403, 404, 403, 503], "{seen:#?}");
        for seen in &seen {
            assert_eq!(seen["type"], "cors");
            assert!(seen["headers"]["x-request-id"].as_str().is_some_and(|id| !id.is_empty()));
            // Headers that are not exposed stay hidden.
            assert!(seen["headers"]["vary"].is_null() && seen["headers"]["date"].is_null());
        }
        let text = |at: usize| seen[at]["text"].as_str().unwrap();
        let body = |at: usize| serde_json::from_str::<Value>(text(at)).unwrap();
        assert_eq!(body(0)["data"]["result"][0]["value"][1], "42");
        assert_eq!(body(1)["data"]["result"][0]["value"][1], "43");
        assert_eq!(body(2)["errorType"], "unauthorized");
        assert_eq!(seen[2]["headers"]["www-authenticate"], "Bearer error=\"invalid_token\"");
        assert_eq!(body(3)["errorType"], "forbidden");
        assert!(text(4).contains("no such path"), "{}", text(4));
        assert_eq!(body(5)["errorType"], "forbidden");
        assert_eq!(body(6)["errorType"], "unavailable");
        let after = seen[6]["headers"]["retry-after"].as_str().unwrap().parse::<u64>().unwrap();
        assert!((5..=15).contains(&after), "{after}");
    }
}

// A page may send allowed headers, and never a cookie: no other site can use a visitor's.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_cannot_send_what_was_not_agreed_on() {
    let (site, mimir) = (Site::start().await, Mimir::shared().await);
    let ProxyFixture { issuer, proxy } =
        proxy_fixture(&mimir.url(), &[("cors.allowed_origins", &site.allowed())]).await;
    let good = with_token(&proxy, QUERY, &issuer.user_of(ORG_A), ORG_A);
    let mut header = good.clone();
    header["init"]["headers"]["x-mimir-anything"] = json!("1");
    let plan = [header, with(good.clone(), "method", "PUT"), with(good, "credentials", "include")];
    for seen in site.visit("localhost", &plan).await {
        assert_is_unreadable(&seen);
    }
    let log = logged(&proxy, PATH, 3).await;
    assert!(log.iter().all(|line| *line == ("OPTIONS".to_owned(), 204)), "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_reads_nothing() {
    let (site, mimir) = (Site::start().await, Mimir::shared().await);
    let ProxyFixture { issuer, proxy } =
        proxy_fixture(&mimir.url(), &[("cors.allowed_origins", &site.allowed())]).await;
    let token = issuer.user_of(ORG_A);
    let url = |target: &str| json!({"url": format!("{}{target}", proxy.url()), "init": {}});
    for (round, host) in ["127.0.0.1", "a.b.project.pages.test"].into_iter().enumerate() {
        let plan = [
            with_token(&proxy, QUERY, &token, ORG_A),
            with_token(&proxy, "/admin/whoami", &token, ORG_A),
            // The browser hides the response to a request that needs no preflight.
            url("/no/such/path"),
            url("/prometheus/api/v1/labels"),
            with(url("/prometheus/api/v1/labels"), "mode", "no-cors"),
        ];
        let seen = site.visit(host, &plan).await;
        let (opaque, unreadable) = seen.split_last().unwrap();
        unreadable.iter().for_each(assert_is_unreadable);
        assert_eq!(*opaque, json!({"status": 0, "type": "opaque", "headers": {}, "text": ""}));
        let log = logged(&proxy, "/prometheus/api/v1/labels", 2 * (round + 1)).await;
        assert!(log.iter().all(|line| *line == ("GET".to_owned(), 401)), "{log:?}");
    }
    // The token stayed in the browser.
    for path in [PATH, "/admin/whoami"] {
        let log = logged(&proxy, path, 2).await;
        assert!(log.iter().all(|(method, _)| method == "OPTIONS"), "{log:?}");
    }
}

// Without `Access-Control-Max-Age` Chromium would send another preflight after five seconds, so the
// page waits for longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_browser_asks_once_for_all_requests_to_an_address() {
    let (site, mimir) = (Site::start().await, Mimir::shared().await);
    let allowed = site.allowed();
    for (max_age, requests, preflights) in [("\"2h\"", 5, 1), ("\"0s\"", 3, 3)] {
        let settings = [("cors.allowed_origins", allowed.as_str()), ("cors.max_age", max_age)];
        let ProxyFixture { issuer, proxy } = proxy_fixture(&mimir.url(), &settings).await;
        let request = with_token(&proxy, QUERY, &issuer.user_of(ORG_A), ORG_A);
        let mut plan = vec![request; requests];
        if preflights == 1 {
            plan[requests - 1]["after_ms"] = json!(7_000);
        }
        let seen = site.visit("localhost", &plan).await;
        assert!(seen.iter().all(|seen| seen["status"] == 200), "{seen:#?}");
        let log = logged(&proxy, PATH, requests + preflights).await;
        let count = |wanted| log.iter().filter(|(method, _)| method == wanted).count();
        assert_eq!((count("OPTIONS"), count("GET")), (preflights, requests), "{log:?}");
    }
}
