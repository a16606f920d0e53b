//! From a request that was not served to its cause: the identifier in the answer leads to one line in the
//! log and to one entry of `/admin/refusals`, for every reason; and a flood of one fills neither.

mod provoked;

use std::time::Duration;

use harness::{Client, Issuer, ORG_A, Proxy, ProxyOptions, Upstream};
use serde_json::{Value, json};

use crate::support::identity::ADMIN_KEY;
use crate::support::responses::ok;

const QUERY: &str = "/prometheus/api/v1/query?query=up";

async fn proxy_before(issuer: &Issuer, upstream: &str, settings: &[(&str, &str)]) -> Proxy {
    let options = ProxyOptions::new(&issuer.url(), upstream);
    let options = options.set("auth.admin_key", &format!("{ADMIN_KEY:?}"));
    let options = settings.iter().fold(options, |options, (key, value)| options.set(key, value));
    options.start().await
}

fn operator(proxy: &Proxy) -> Client {
    proxy.client().bearer(ADMIN_KEY)
}

async fn refusals(proxy: &Proxy, query: &str) -> Value {
    let answer = operator(proxy).get(&format!("/admin/refusals{query}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn lines(proxy: &Proxy) -> Vec<Value> {
    let log = proxy.process.log();
    log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_shown_to_operators_and_without_a_query_string() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let proxy = proxy_before(&issuer, &upstream.url(), &[("listen.workers", "2")]).await;
    let user = proxy.client().bearer(&issuer.user_of(ORG_A));
    let selecting = user.clone().header("x-scope-orgid", "org-b");
    let target = "/prometheus/api/v1/query?query=up%7Bsecret%3D%22tenants-own%22%7D";
    let mut ids = Vec::new();
    // Several connections, so that both workers refuse.
    for _ in 0..8 {
        let one = Client::new(&proxy.url()).bearer(&issuer.user_of(ORG_A));
        let refused = one.header("x-scope-orgid", "org-b").get(target).await;
        assert_eq!(refused.status, 403);
        ids.push(refused.header("x-request-id").to_owned());
    }
    assert_eq!(user.get(QUERY).await.status, 200);
    assert_eq!(proxy.client().get("/nowhere").await.status, 404);
    let shown = refusals(&proxy, "").await;
    let all = shown["refusals"].as_array().unwrap();
    assert_eq!(all.len(), 9, "{shown}");
    assert_eq!(all[0]["reason"], "no_route");
    for (one, id) in all[1..].iter().zip(ids.iter().rev()) {
        assert_eq!(one["request_id"], **id);
        for (name, value) in [
            ("status", json!(403)),
            ("reason", json!("not_a_member")),
            ("surface", json!("query")),
            ("organisation", Value::Null),
            ("asked", json!("org-b")),
            ("method", json!("GET")),
            ("path", json!("/prometheus/api/v1/query")),
            ("client", json!("127.0.0.1")),
            ("kind", json!("user")),
        ] {
            assert_eq!(one[name], value, "{name} in {one}");
        }
        let at = one["at"].as_str().unwrap();
        assert!(at.len() == "2026-01-01T00:00:00.000Z".len() && at.ends_with('Z'), "{at}");
    }
    assert_eq!(shown["counts"], json!({"no_route": 1, "not_a_member": 8}));
    assert_eq!(shown["overwritten"], 0);
    assert!(!shown.to_string().contains("tenants-own") && !shown.to_string().contains("eyJ"));
    let of =
        async |query: &str| refusals(&proxy, query).await["refusals"].as_array().unwrap().len();
    assert_eq!(of("?limit=3").await, 3);
    assert_eq!(of("?reason=no_route").await, 1);
    assert_eq!(of("?organisation=org-b&reason=not_a_member").await, 8);
    assert_eq!(of("?organisation=org-c").await, 0);
    for wrong in ["?limit=0", "?reason=none", "?since=1", "?limit=2&limit=3"] {
        let refused = operator(&proxy).get(&format!("/admin/refusals{wrong}")).await;
        assert_eq!(refused.status, 400, "{wrong}");
    }
    // Neither a user nor a stranger sees them.
    assert_eq!(selecting.get("/admin/refusals").await.status, 403);
    assert_eq!(proxy.client().get("/admin/refusals").await.status, 401);
}

// The log keeps room for others, every request is counted somewhere, and what is served has its line.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_refusal_fills_neither_the_log_nor_the_list() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let settings = [("log.unserved_per_second", "10"), ("listen.workers", "2")];
    let mut proxy = proxy_before(&issuer, &upstream.url(), &settings).await;
    let (stranger, user) = (proxy.client(), proxy.client().bearer(&issuer.user_of(ORG_A)));
    let other = user.clone().header("x-scope-orgid", "org-b").get(QUERY).await;
    assert_eq!(other.status, 403);
    let flood: u32 = 3000;
    let began = std::time::Instant::now();
    for _ in 0..flood / 50 {
        let requests = (0..50).map(|_| stranger.get(QUERY));
        let answers = futures_util::future::join_all(requests).await;
        assert!(answers.iter().all(|answer| answer.status == 401));
        assert_eq!(user.get(QUERY).await.status, 200);
    }
    let seconds = began.elapsed().as_secs() + 2;
    let shown = refusals(&proxy, "").await;
    assert_eq!(shown["counts"]["no_credential"], flood);
    let of_reason = |reason: &str| {
        let all = shown["refusals"].as_array().unwrap().iter();
        all.filter(|one| one["reason"] == reason).count()
    };
    assert_eq!((of_reason("not_a_member"), of_reason("no_credential")), (1, 32));
    assert_eq!(shown["overwritten"], flood - 32);

    let series = "mimir_tenant_proxy_log_lines_suppressed_total{reason=\"no_credential\"}";
    let suppressed = proxy.metric(series).await;
    proxy.process.signal("TERM");
    assert!(proxy.process.wait(Duration::from_secs(20)).is_some());
    let lines = lines(&proxy);
    let count = |wanted: &dyn Fn(&&Value) -> bool| {
        u32::try_from(lines.iter().filter(wanted).count()).unwrap()
    };
    let logged = count(&|line| line["message"] == "Request" && line["reason"] == "no_credential");
    println!("{logged} of {flood} lines in {seconds} s");
    // One source has a quarter of the lines.
    assert!(u64::from(logged) <= 3 * seconds && logged >= 3, "{logged} in {seconds} s");
    // Exactly: each has a line or is counted, in the metric as in the log.
    assert_eq!(f64::from(logged) + suppressed, f64::from(flood));
    let told = lines.iter().filter(|line| line["message"] == "Requests not logged");
    let told: u64 = told.map(|line| line["requests"].as_u64().unwrap()).sum();
    assert_eq!(f64::from(u32::try_from(told).unwrap()), suppressed);
    assert_eq!(count(&|line| line["reason"] == "not_a_member"), 1);
    assert_eq!(count(&|line| line["outcome"] == "forwarded"), flood / 50);
}

// Anybody can ask for the console's files, or ask and leave: such requests have so many lines, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_what_anybody_may_read_does_not_fill_the_log() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let settings = [("log.unserved_per_second", "10")];
    let mut proxy = proxy_before(&issuer, &upstream.url(), &settings).await;
    let stranger = proxy.client();
    let (flood, began) = (1000, std::time::Instant::now());
    for _ in 0..flood / 50 {
        let requests = (0..50).map(|_| stranger.get("/admin/console"));
        let answers = futures_util::future::join_all(requests).await;
        assert!(answers.iter().all(|answer| answer.status == 200));
    }
    let seconds = began.elapsed().as_secs() + 2;
    let user = proxy.client().bearer(&issuer.user_of(ORG_A));
    assert_eq!(user.get(QUERY).await.status, 200);
    let suppressed = proxy
        .metric("mimir_tenant_proxy_log_lines_suppressed_total{reason=\"unknown_caller\"}")
        .await;
    proxy.process.signal("TERM");
    assert!(proxy.process.wait(Duration::from_secs(20)).is_some());
    let lines = lines(&proxy);
    let logged = lines.iter().filter(|line| line["outcome"] == "answered").count();
    let logged = u32::try_from(logged).unwrap();
    assert!((1..=3 * seconds).contains(&u64::from(logged)), "{logged} in {seconds} s");
    assert_eq!(f64::from(logged) + suppressed, f64::from(flood));
    assert_eq!(lines.iter().filter(|line| line["outcome"] == "forwarded").count(), 1);
}

// The audit log is a record of what was done: nothing of it is left out. Refused requests, which anybody
// with a token can make by the thousand, are only counted beyond so many a second.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_is_in_the_audit_log_in_a_flood() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let mut proxy =
        proxy_before(&issuer, &upstream.url(), &[("log.unserved_per_second", "1")]).await;
    let user = proxy.client().bearer(&issuer.user_of(ORG_A));
    let began = std::time::Instant::now();
    for _ in 0..50 {
        let refused =
            futures_util::future::join_all((0..10).map(|_| user.get("/admin/revocations")));
        assert!(refused.await.iter().all(|answer| answer.status == 403));
        assert_eq!(operator(&proxy).get("/admin/refusals").await.status, 200);
    }
    let seconds = began.elapsed().as_secs() + 2;
    proxy.process.signal("TERM");
    assert!(proxy.process.wait(Duration::from_secs(20)).is_some());
    let lines = lines(&proxy);
    let count = |done: bool| {
        let actions = lines.iter().filter(|line| line["message"] == "Admin action");
        actions.filter(|line| (line["outcome"] == "done") == done).count() as u64
    };
    assert_eq!(count(true), 50);
    assert!((1..=seconds).contains(&count(false)), "{} in {seconds} s", count(false));
}
