//! Every read of Mimir, by GET and POST.

use std::time::Duration;

use harness::{
    Client, Issuer, Mimir, Proxy, ProxyOptions, fresh_organisation, samples, wait_until,
};

struct ProxyFixture {
    client: Client,
    direct: Client,
    proxy: Proxy,
    issuer: Issuer,
}

/// An organisation with one series, through the proxy and at Mimir itself.
async fn proxy_fixture() -> ProxyFixture {
    let mimir = Mimir::shared().await;
    let issuer = Issuer::start().await;
    let proxy = ProxyOptions::new(&issuer.url(), &mimir.url()).start().await;
    let organisation = fresh_organisation();
    let client = proxy.client().bearer(&issuer.user_of(&organisation));
    let direct = Client::new(&mimir.url()).header("x-scope-orgid", &organisation);
    let sender = client
        .clone()
        .header("content-type", "application/x-protobuf")
        .header("content-encoding", "snappy");
    let body = samples::remote_write("reads_sample", &[("job", "reads")], 42.0);
    let pushed = sender.post("/api/v1/push", body).await;
    assert_eq!(pushed.status, 200, "{pushed:?}");
    wait_until("the sample is there", Duration::from_secs(30), async || {
        client
            .get("/prometheus/api/v1/query?query=reads_sample")
            .await
            .text
            .contains("reads_sample")
    })
    .await;
    ProxyFixture { client, direct, proxy, issuer }
}

/// Every read that takes its parameters in the query string or in a form.
const BY_GET_AND_POST: [(&str, &str); 10] = [
    ("query", "query=reads_sample"),
    ("query_range", "query=reads_sample&start=1800000000&end=1800000060&step=15"),
    ("query_exemplars", "query=reads_sample&start=1800000000&end=1800000060"),
    ("labels", "match%5B%5D=reads_sample"),
    ("series", "match%5B%5D=reads_sample"),
    ("format_query", "query=sum(reads_sample)by(job)"),
    ("cardinality/label_names", ""),
    ("cardinality/label_values", "label_names%5B%5D=job"),
    ("cardinality/active_series", "selector=reads_sample"),
    ("cardinality/active_native_histogram_metrics", "selector=reads_sample"),
];

const BY_GET: [&str; 23] = [
    "/prometheus/api/v1/label/job/values",
    "/prometheus/api/v1/label/U__job_2e_x/values",
    "/prometheus/api/v1/label/k8s.pod.name/values",
    "/prometheus/api/v1/label/k8s%2Epod%2Ename/values",
    "/prometheus/api/v1/label/http-method/values",
    "/prometheus/api/v1/label/%C3%A9t%C3%A9/values",
    "/prometheus/api/v1/label/a%20b/values",
    "/api/v1/status/buildinfo",
    "/api/v1/status/config",
    "/api/v1/status/flags",
    "/prometheus/api/v1/metadata",
    "/prometheus/api/v1/rules",
    "/prometheus/api/v1/alerts",
    "/prometheus/api/v1/status/buildinfo",
    "/prometheus/config/v1/rules",
    "/api/v1/user_stats",
    "/api/v1/user_limits",
    "/alertmanager/api/v2/alerts",
    "/alertmanager/api/v2/alerts/groups",
    "/alertmanager/api/v2/alerts?filter=alertname%3D%22x%22&active=true",
    "/alertmanager/api/v2/silences",
    "/alertmanager/api/v2/receivers",
    "/prometheus/api/v1/query?query=reads_sample%7Bjob%3D%22reads%22%7D",
];

// The proxy's response is Mimir's: status, type and body.
#[tokio::test(flavor = "multi_thread")]
async fn every_read_answers_as_mimir_does() {
    let fixture = proxy_fixture().await;
    for (endpoint, parameters) in BY_GET_AND_POST {
        let path = format!("/prometheus/api/v1/{endpoint}");
        let target = format!("{path}?{parameters}");
        let through = fixture.client.get(&target).await;
        assert_eq!(through.status, 200, "GET {target}: {through:?}");
        assert_same(&through.text, &fixture.direct.get(&target).await.text, &target);
        let through = fixture.client.post_form(&path, parameters).await;
        assert_eq!(through.status, 200, "POST {path}: {through:?}");
        assert_same(&through.text, &fixture.direct.post_form(&path, parameters).await.text, &path);
    }
    for target in BY_GET {
        let (through, direct) =
            (fixture.client.get(target).await, fixture.direct.get(target).await);
        assert_eq!(
            (through.status, through.header("content-type")),
            (direct.status, direct.header("content-type")),
            "{target}"
        );
        assert!(through.status.is_success(), "{target}: {through:?}");
        assert_same(&through.text, &direct.text, target);
    }
}

/// Equal except for the evaluation time of a query.
#[track_caller]
fn assert_same(through: &str, direct: &str, about: &str) {
    let timeless = |text: &str| -> String {
        let Ok(mut json) = serde_json::from_str::<serde_json::Value>(text) else {
            return text.to_owned();
        };
        if let Some(results) =
            json.pointer_mut("/data/result").and_then(|results| results.as_array_mut())
        {
            for result in results {
                result["value"][0] = 0.into();
            }
        }
        json.to_string()
    };
    assert_eq!(timeless(through), timeless(direct), "{about}");
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_read_answers_with_samples() {
    let fixture = proxy_fixture().await;
    let client = fixture.client.clone();
    let client = client
        .header("content-type", "application/x-protobuf")
        .header("content-encoding", "snappy");
    let client = client.header("x-prometheus-remote-read-version", "0.1.0");
    let answer = client.post("/prometheus/api/v1/read", samples::remote_read("reads_sample")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(samples::remote_read_values(&answer.body), [42.0]);
}

// Mimir's plain 500 for it, by which the proxy knows that the instance is not at fault. Mimir notes activities by
// default; the shared one does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_remote_read_with_a_faulty_matcher_is_told_from_a_failure_by_its_text() {
    let directory = tempfile::tempdir().unwrap();
    let activities = directory.path().join("activities");
    let argument = format!("-activity-tracker.filepath={}", activities.display());
    let mimir = Mimir::start_with(&[&argument]).await;
    let issuer = Issuer::start().await;
    let proxy = ProxyOptions::new(&issuer.url(), &mimir.url()).start().await;
    let client = proxy.client().bearer(&issuer.user_of(&fresh_organisation()));
    let client = client.header("content-type", "application/x-protobuf");
    let client = client.header("content-encoding", "snappy");
    let read = samples::remote_read_of_patterns(&["("]);
    let answer = client.post("/prometheus/api/v1/read", read).await;
    assert_eq!(answer.status, 500, "{answer:?}");
    let text = "failed to parse request params for activity tracking\n";
    assert_eq!((answer.text.as_str(), answer.header("content-type")), (text, TEXT_PLAIN));
}

const TEXT_PLAIN: &str = "text/plain; charset=utf-8";

// A tenant's rules can be read; Mimir's percent-encoding is forwarded unchanged.
#[tokio::test(flavor = "multi_thread")]
async fn rule_configuration_is_read_and_never_written() {
    let fixture = proxy_fixture().await;
    let group = "name: g/1\nrules: [{record: 'a:b', expr: 'up'}]\n";
    let namespace = "/prometheus/config/v1/rules/team%2Frules.yaml";
    let posted = fixture
        .direct
        .clone()
        .header("content-type", "application/yaml")
        .post(namespace, group)
        .await;
    assert_eq!(posted.status, 202, "{posted:?}");
    for target in [
        "/prometheus/config/v1/rules",
        namespace,
        "/prometheus/config/v1/rules/team%2Frules.yaml/g%2F1",
    ] {
        let through = fixture.client.get(target).await;
        assert_eq!(through.status, 200, "{target}: {through:?}");
        assert_eq!(through.text, fixture.direct.get(target).await.text);
        assert!(through.text.contains("a:b"), "{}", through.text);
    }
    for method in [http::Method::POST, http::Method::DELETE] {
        let refused = fixture.client.send(method, namespace, group).await;
        assert_eq!(refused.status, 405, "{refused:?}");
        assert_eq!(refused.header("allow"), "GET");
    }
}

// Grafana requests gzip; the body is forwarded as Mimir compressed it.
#[tokio::test(flavor = "multi_thread")]
async fn compressed_answers_go_through_untouched() {
    let fixture = proxy_fixture().await;
    let target =
        "/prometheus/api/v1/query_range?query=vector(1)&start=1800000000&end=1800010000&step=5";
    let plain = fixture.client.get(target).await;
    let answer = fixture.client.clone().header("accept-encoding", "gzip").get(target).await;
    assert_eq!(answer.header("content-encoding"), "gzip", "{answer:?}");
    assert_ne!(answer.body, plain.body);
    assert_eq!(answer.body[..2], [0x1f, 0x8b]);
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_without_tls_is_spoken() {
    let fixture = proxy_fixture().await;
    let issuer = &fixture.issuer;
    let organisation = fresh_organisation();
    let h2c = Client::h2c(&fixture.proxy.url()).bearer(&issuer.user_of(&organisation));
    let answers = futures_util::future::join_all(
        (0..20).map(|_| h2c.get("/prometheus/api/v1/query?query=up")),
    )
    .await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    let sender =
        h2c.header("content-type", "application/x-protobuf").header("content-encoding", "snappy");
    let pushed = sender.post("/api/v1/push", samples::remote_write("by_h2c", &[], 1.0)).await;
    assert_eq!(pushed.status, 200, "{pushed:?}");
    wait_until("the push is logged", Duration::from_secs(5), async || {
        let lines = fixture.proxy.access_log("/api/v1/push");
        lines.iter().any(|line| line["http.version"] == "2")
    })
    .await;
}

// UTF-8 label names: the caller gets Mimir's response to each spelling. (This Mimir accepts no
// samples with such labels without `name_validation_scheme`, but answers queries for them.)
#[tokio::test(flavor = "multi_thread")]
async fn values_of_utf8_labels_are_asked_for_by_every_spelling() {
    let fixture = proxy_fixture().await;
    for (name, status) in [
        ("job", 200),
        ("U__job", 200),
        ("%6Aob", 200),
        ("k8s.pod.name", 200),
        ("k8s%2Epod%2Ename", 200),
        ("U__k8s_2e_pod_2e_name", 200),
        ("http-method", 200),
        ("%C3%A9t%C3%A9", 200),
        ("a%20b", 200),
        ("été", 200),
        ("a%0Ab", 200),
        ("a:b", 200),
        ("1st", 200),
    ] {
        let path = format!("/prometheus/api/v1/label/{name}/values");
        let (through, direct) = (fixture.client.get(&path).await, fixture.direct.get(&path).await);
        println!("{name}: {} {}", direct.status, direct.text);
        assert_eq!(direct.status, status, "{name}: {direct:?}");
        assert_eq!((through.status, &through.text), (direct.status, &direct.text), "{name}");
    }
    // A slash makes it another path at Mimir (404), which is the caller's mistake.
    for name in ["a%2Fb", "%ff", "a%00b"] {
        let refused = fixture.client.get(&format!("/prometheus/api/v1/label/{name}/values")).await;
        assert_eq!(refused.status, 400, "{name}: {refused:?}");
    }
    for name in ["job", "U__job", "%6Aob"] {
        let path = format!("/prometheus/api/v1/label/{name}/values");
        assert!(fixture.client.get(&path).await.text.contains("reads"), "{name}");
    }
}

// mimirtool silently takes a 404 for success; it reports a 405.
#[tokio::test(flavor = "multi_thread")]
async fn mimirtool_reports_that_rules_cannot_be_deleted_here() {
    let fixture = proxy_fixture().await;
    let organisation = fresh_organisation();
    let token = fixture.issuer.user_of(&organisation);
    let url = fixture.proxy.url();
    let prefixed = format!("{url}/prometheus");
    let rules = ["rules", "delete", "alert_rule", "default"];
    for (command, address, more) in [
        (&rules[..], &url, None),
        (&rules[..], &prefixed, None),
        (&rules[..], &url, Some("--use-legacy-routes")),
        (&["alertmanager", "delete"][..], &url, None),
        (&["alertmanager", "delete"][..], &prefixed, None),
    ] {
        let delete = std::process::Command::new(harness::part("mimirtool"))
            .args(command)
            .args([&format!("--address={address}"), &format!("--id={organisation}")])
            .arg(format!("--auth-token={token}"))
            .args(more)
            .output()
            .unwrap();
        let about = format!("{command:?} {address} {more:?}: {delete:?}");
        assert!(!delete.status.success(), "{about}");
        assert!(String::from_utf8_lossy(&delete.stderr).contains("405"), "{about}");
    }
}
