//! Traces: a real collector, a real Mimir that sends to the same one, and a real Prometheus that reads
//! exemplars. docs/decisions/0032-traces.md and 0033-exemplars.md have the rules.

use std::time::Duration;

use harness::{
    Client, CollectedSpan, Collector, Issuer, Mimir, Postgres, Process, ProxyOptions, Upstream,
    free_port, fresh_organisation, part, wait_until,
};
use serde_json::json;

use crate::rules::{SOON, rules_fixture_on};
use crate::support::responses::ok;

const QUERY: &str = "/prometheus/api/v1/query?query=up%7Bsecret%3D%22tenants-own%22%7D";
const PAGE_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PAGE_SPAN: &str = "b7ad6b7169203331";

fn page(flags: &str) -> String {
    format!("00-{PAGE_TRACE}-{PAGE_SPAN}-{flags}")
}

fn one<'a>(spans: &'a [CollectedSpan], service: &str, name: &str) -> &'a CollectedSpan {
    let mut found = spans.iter().filter(|span| span.service == service && span.name == name);
    let (Some(span), None) = (found.next(), found.next()) else {
        panic!("not one {name} of {service}: {spans:#?}")
    };
    span
}

// The page's span is the parent of the proxy's, the proxy's attempt that of Mimir's. The page says that it
// is not sampled, and its flag decides nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_from_the_page_to_mimir() {
    let (collector, issuer) = (Collector::start().await, Issuer::start().await);
    let mimir = Mimir::start_traced(&collector.url()).await;
    let proxy = ProxyOptions::new(&issuer.url(), &mimir.url())
        .set("traces.endpoint", &format!("{:?}", collector.url()))
        .set("traces.sample_ratio", "1.0")
        .start()
        .await;
    let organisation = fresh_organisation();
    let token = issuer.token().organisation(&json!(organisation)).sign();
    let client = proxy.client().bearer(&token).header("traceparent", &page("00"));
    let client = client.header("x-request-id", "traced-1");
    assert_eq!(client.get(QUERY).await.status, 200);

    wait_until("both have sent their spans", SOON, async || {
        let spans = collector.trace(PAGE_TRACE);
        let is_there = |service: &str| spans.iter().any(|span| span.service == service);
        is_there("mimir") && is_there("mimir-tenant-proxy")
    })
    .await;
    let spans = collector.trace(PAGE_TRACE);
    let own = |name: &str| one(&spans, "mimir-tenant-proxy", name);
    let routes = ["GET /prometheus/api/v1/query"; 2];
    let (server, attempt) = {
        let of_kind = |kind| {
            let mut found = spans.iter().filter(|span| {
                span.service == "mimir-tenant-proxy" && span.name == routes[0] && span.kind == kind
            });
            found.next().unwrap_or_else(|| panic!("no kind {kind}: {spans:#?}"))
        };
        (of_kind(2), of_kind(3))
    };
    assert_eq!(server.parent, PAGE_SPAN);
    for step in ["authenticate", "authorise", "wait for a permit", "send answer"] {
        assert_eq!(own(step).parent, server.id, "{step}");
        assert!(own(step).start >= server.start && own(step).end <= server.end, "{step}");
    }
    assert_eq!(attempt.parent, server.id);
    let of_mimir: Vec<_> = spans.iter().filter(|span| span.service == "mimir").collect();
    assert!(of_mimir.iter().any(|span| span.parent == attempt.id), "{spans:#?}");

    // What an operator looks for, by the names of the conventions and of the log.
    for (name, value) in [
        ("http.request.method", "GET"),
        ("http.route", "/prometheus/api/v1/query"),
        ("http.response.status_code", "200"),
        ("url.path", "/prometheus/api/v1/query"),
        ("request.id", "traced-1"),
        ("organisation.id", &organisation),
        ("outcome", "forwarded"),
    ] {
        assert_eq!(server.attributes.get(name).map(String::as_str), Some(value), "{server:#?}");
    }
    // No secret and no expression.
    let ours: Vec<_> = spans.iter().filter(|one| one.service != "mimir").collect();
    let text = format!("{ours:?}");
    assert!(!text.contains("tenants-own") && !text.contains(&token), "{text}");
    wait_until("the line is there", SOON, async || {
        let lines = proxy.access_log("/prometheus/api/v1/query");
        lines.first().is_some_and(|line| line["trace.id"] == PAGE_TRACE)
    })
    .await;

    // A refusal is no error of ours.
    let refused = proxy.client().header("traceparent", &page("01").replace("0af7", "1af7"));
    assert_eq!(refused.get(QUERY).await.status, 401);
    let trace = PAGE_TRACE.replace("0af7", "1af7");
    wait_until("it is sent", SOON, async || !collector.trace(&trace).is_empty()).await;
    let spans = collector.trace(&trace);
    let server = one(&spans, "mimir-tenant-proxy", routes[0]);
    assert_eq!((server.status, server.attributes["reason"].as_str()), (0, "no_credential"));
}

// Mimir records whatever its parent says that it records, so a client's flag would be an order to it.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_cannot_have_its_requests_recorded() {
    let (collector, issuer) = (Collector::start().await, Issuer::start().await);
    let upstream = Upstream::start(ok).await;
    let start = |endpoint: Option<String>| {
        let options =
            ProxyOptions::new(&issuer.url(), &upstream.url()).set("traces.sample_ratio", "0.0");
        match endpoint {
            Some(endpoint) => options.set("traces.endpoint", &format!("{endpoint:?}")),
            None => options,
        }
        .start()
    };
    let (on, off) = (start(Some(collector.url())).await, start(None).await);
    let token = issuer.token().organisation(&json!("a")).sign();
    let sent = async |proxy: &harness::Proxy, traceparents: &[&str]| {
        let client = proxy.client().bearer(&token).header("tracestate", "vendor=1");
        let client =
            traceparents.iter().fold(client, |client, one| client.header("traceparent", one));
        assert_eq!(client.get(QUERY).await.status, 200);
        let headers = upstream.heads().pop().unwrap().headers;
        let all: Vec<String> = headers
            .get_all("traceparent")
            .iter()
            .map(|value| value.to_str().unwrap().to_owned())
            .collect();
        (all, headers.contains_key("tracestate"))
    };
    // The trace goes on, unrecorded.
    let (parents, has_state) = sent(&on, &[&page("01")]).await;
    let [parent] = &parents[..] else { panic!("{parents:?}") };
    assert!(
        parent.starts_with(&format!("00-{PAGE_TRACE}-")) && parent.ends_with("-00"),
        "{parent}"
    );
    assert!(has_state);
    // What cannot be read is no parent, and neither are two.
    for bad in [vec!["garbage"], vec![], vec!["00-0-0-01"], vec![&*page("01"), "00-1-1-01"]] {
        let (parents, has_state) = sent(&on, &bad).await;
        let [parent] = &parents[..] else { panic!("{bad:?}: {parents:?}") };
        assert!(parent.ends_with("-00") && parent.len() == 55, "{bad:?}: {parent}");
        assert!(!has_state, "{bad:?}");
    }
    // Where traces are off, what came passes as it came.
    assert_eq!(sent(&off, &[&page("01")]).await, (vec![page("01")], true));
    assert!(collector.spans().is_empty());
    let metrics = Client::new(&off.internal_url()).get("/metrics").await.text;
    assert!(!metrics.contains("mimir_tenant_proxy_traces_total"));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_config_asks_the_collector() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let (collector, gone) = (Collector::start().await, format!("http://127.0.0.1:{}", free_port()));
    let other = format!("{}/nowhere", collector.url());
    for (endpoint, wanted) in
        [(collector.url(), "takes traces"), (gone, "refused"), (other, "answered 404")]
    {
        let output = std::process::Command::new(harness::Proxy::binary())
            .args(["check-config", "--connect"])
            .env("MTP__AUTH__ISSUER", issuer.url())
            .env("MTP__UPSTREAM__URLS", upstream.url())
            .env("MTP__TRACES__ENDPOINT", &endpoint)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = said.lines().find(|line| line.contains("/v1/traces"));
        assert!(line.is_some_and(|line| line.contains(wanted)), "{endpoint}: {output:?}");
    }
}

// The queue is bounded, nothing waits for it, and the log says it once.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let proxy = ProxyOptions::new(&issuer.url(), &upstream.url())
        .set("traces.endpoint", &format!("{nowhere:?}"))
        .set("traces.sample_ratio", "1.0")
        .set("traces.max_per_second", "100000")
        .start()
        .await;
    let client = proxy.client().bearer(&issuer.token().organisation(&json!("a")).sign());
    let requests = 3000;
    let began = std::time::Instant::now();
    for _ in 0..requests {
        assert_eq!(client.get(QUERY).await.status, 200);
    }
    let took = began.elapsed();
    let recorded = "mimir_tenant_proxy_traces_total{outcome=\"recorded\"}";
    assert_eq!(proxy.metric(recorded).await, f64::from(requests));
    let dropped = |reason: &str| {
        format!("mimir_tenant_proxy_trace_spans_dropped_total{{reason=\"{reason}\"}}")
    };
    wait_until("drops are counted", SOON, async || {
        let full = proxy.metric(&dropped("queue_full")).await;
        full > 0.0 && proxy.metric(&dropped("collector_away")).await > 0.0
    })
    .await;
    let said = proxy.process.log().matches("Traces cannot be sent").count();
    assert_eq!(said, 1, "{}", proxy.process.log());
    println!("{requests} requests in {took:?} without a collector");
    let memory = proxy.process.memory() >> 20;
    assert!(memory < 120, "{memory} MiB");
}

// The reconciler's reads and writes, and the ruler's part of each.
#[tokio::test(flavor = "multi_thread")]
async fn a_reconcile_is_a_trace_that_goes_on_in_the_ruler() {
    let collector = Collector::start().await;
    let mimir = Mimir::start_traced(&collector.url()).await;
    let database = Postgres::shared().await.database("traces").await;
    let endpoint = format!("{:?}", collector.url());
    let settings = [("traces.endpoint", &*endpoint), ("traces.sample_ratio", "1.0")];
    let fixture = rules_fixture_on(database, &mimir.url(), &mimir.url(), &settings).await;
    let organisation = fixture.identity.organisation().await;
    fixture.rule(&organisation, "Hot", "vector(1) > 0").await;
    let writes = || {
        let spans = collector.spans();
        let write = spans.iter().find(|span| {
            span.service == "mimir-tenant-proxy"
                && span.name == "POST ruler"
                && span.attributes["url.path"].contains("/config/v1/rules/")
        })?;
        let trace = collector.trace(&write.trace);
        let is_whole = trace.iter().any(|span| span.parent == write.id)
            && trace.iter().any(|span| span.name == "reconcile rules");
        is_whole.then_some((write.clone(), trace))
    };
    wait_until("a write is traced", SOON, async || writes().is_some()).await;
    let (write, trace) = writes().unwrap();
    let root = one(&trace, "mimir-tenant-proxy", "reconcile rules");
    assert_eq!(
        (root.parent.as_str(), root.attributes["organisation.id"].as_str()),
        ("", &*organisation)
    );
    assert_eq!(root.attributes["outcome"], "applied");
    assert_eq!((write.parent.as_str(), write.kind), (root.id.as_str(), 3));
    let joined = trace.iter().find(|span| span.parent == write.id).unwrap();
    assert_eq!(joined.service, "mimir");
    assert!(trace.iter().any(|span| span.name == "GET ruler" && span.parent == root.id));
}

// Exemplars come in OpenMetrics only, so Prometheus has to ask for it, and does by default.
#[tokio::test(flavor = "multi_thread")]
async fn prometheus_reads_exemplars_of_traced_requests() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let collector = Collector::start().await;
    let proxy = ProxyOptions::new(&issuer.url(), &upstream.url())
        .set("traces.endpoint", &format!("{:?}", collector.url()))
        .set("traces.sample_ratio", "1.0")
        .start()
        .await;
    let token = issuer.token().organisation(&json!("a")).sign();
    let client = proxy.client().bearer(&token).header("traceparent", &page("01"));
    assert_eq!(client.get(QUERY).await.status, 200);

    // Without the header it is the text that it always was.
    let private = Client::new(&proxy.internal_url());
    let plain = private.get("/metrics").await.text;
    assert!(!plain.contains("# EOF") && !plain.contains(PAGE_TRACE));
    let open = private.header("accept", "application/openmetrics-text;version=1.0.0");
    let open = open.get("/metrics").await;
    assert!(open.header("content-type").starts_with("application/openmetrics-text; version=1.0.0"));
    assert!(open.text.ends_with("# EOF\n") && open.text.contains(PAGE_TRACE), "{}", open.text);

    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let target = proxy.internal_url().replace("http://", "");
    let config = directory.path().join("prometheus.yml");
    let text = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
         scrape_configs:\n  - job_name: mimir-tenant-proxy\n    \
         static_configs: [{{targets: ['{target}']}}]\n"
    );
    std::fs::write(&config, text).unwrap();
    let mut prometheus =
        Process::start("prometheus", &part("prometheus3"), directory.path(), |command| {
            command
                .arg("--enable-feature=exemplar-storage")
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.tsdb.path={}/data", directory.path().display()))
                .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        });
    let url = format!("http://127.0.0.1:{port}");
    prometheus.wait_ready(&format!("{url}/-/ready"), "eady", Duration::from_secs(30)).await;
    let reader = Client::new(&url);
    wait_until("the exemplar is there", SOON, async || {
        let query = "/api/v1/query_exemplars?query=mimir_tenant_proxy_request_duration_seconds_bucket\
                     &start=0&end=4102444800";
        let answer = reader.get(query).await.json();
        let series = answer["data"].as_array().cloned().unwrap_or_default();
        series.iter().any(|one| {
            one["seriesLabels"]["surface"] == "query"
                && one["exemplars"][0]["labels"]["trace_id"] == PAGE_TRACE
        })
    })
    .await;
    // The counters keep their names, and the scrape is whole.
    for query in ["up", "mimir_tenant_proxy_requests_total"] {
        let answer = reader.get(&format!("/api/v1/query?query={query}")).await.json();
        assert_ne!(answer["data"]["result"], json!([]), "{query}: {answer}");
        assert!(query != "up" || answer["data"]["result"][0]["value"][1] == "1", "{answer}");
    }
}
