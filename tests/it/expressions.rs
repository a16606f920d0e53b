//! Expressions that would overload Mimir are rejected on every path that accepts a query; ordinary
//! ones are not.

use std::time::{Duration, Instant};

use harness::{Client, Issuer, Mimir, ProxyOptions, Upstream, fresh_organisation};
use http::Method;
use http_body_util::StreamBody;
use hyper::body::Frame;

use crate::support::responses::ok;
use crate::support::single::{ProxyFixture, proxy_fixture};

const FORM: &str = "application/x-www-form-urlencoded";

fn nested(open: &str, inside: &str, close: &str, times: usize) -> String {
    format!("{}{inside}{}", open.repeat(times), close.repeat(times))
}

fn digit(number: u8) -> char {
    char::from_digit(number.into(), 16).unwrap().to_ascii_uppercase()
}

fn encoded(text: &str) -> String {
    text.bytes().flat_map(|byte| ['%', digit(byte >> 4), digit(byte & 15)]).collect()
}

async fn before_a_witness() -> (ProxyFixture, Upstream) {
    let upstream = Upstream::start(ok).await;
    (proxy_fixture(&upstream.url(), &[]).await, upstream)
}

/// Queries that reached the upstream.
fn queries(upstream: &Upstream) -> usize {
    upstream.heads().iter().filter(|head| head.target.starts_with("/prometheus")).count()
}

#[track_caller]
fn assert_refused(answer: &harness::Answer, parameter: &str, key: &str, about: &str) {
    assert_eq!(answer.status, 400, "{about}: {answer:?}");
    let json = answer.json();
    assert_eq!(
        (&json["status"], &json["errorType"]),
        (&"error".into(), &"bad_data".into()),
        "{about}"
    );
    let said = json["error"].as_str().unwrap();
    assert!(said.contains(parameter) && said.contains(key), "{about}: {said}");
}

/// Every path that accepts an expression, with the parameter.
const PATHS: [(&str, &str); 12] = [
    ("query", "query"),
    ("query_range", "query"),
    ("query_exemplars", "query"),
    ("format_query", "query"),
    ("series", "match[]"),
    ("labels", "match[]"),
    ("label/job/values", "match[]"),
    ("rules", "match[]"),
    ("cardinality/label_names", "selector"),
    ("cardinality/label_values", "selector"),
    ("cardinality/active_series", "selector"),
    ("cardinality/active_native_histogram_metrics", "selector"),
];

// Each kind took a real Mimir between seconds and minutes of a core; none of them reaches it.
#[tokio::test(flavor = "multi_thread")]
async fn expensive_expressions_never_reach_mimir() {
    let (fixture, upstream) = before_a_witness().await;
    let client = fixture.client();
    let kinds = [
        (nested("(", "1", ")", 101), "expression_depth"),
        (nested("max_over_time(", "x", "[1m:1m])", 6), "expression_subqueries"),
        (format!("a{}", " or a".repeat(401)), "expression_operators"),
        (nested("abs(", &format!("a{}", "+a".repeat(300)), ")", 90), "expression_nested_terms"),
        (
            nested(
                "label_replace(",
                "x",
                &format!(",\"a\",\"{}\",\"a\",\"(.*)\")", "${1}".repeat(10)),
                7,
            ),
            "label_replace and label_join",
        ),
        (
            nested("label_join(", "x", ",\"a\",\"\",\"a\",\"a\",\"a\")", 7),
            "label_replace and label_join",
        ),
        ("count_over_time(vector(1)[5h:1ms])".to_owned(), "expression_subquery_points"),
        ("count_over_time(vector(1)[5h*100:1m])".to_owned(), "expression_subquery_points"),
        (format!("{{a=~\"{}\"}}", ".{1000}".repeat(1_000)), "regular expressions"),
        (
            format!("label_replace(vector(1),\"a\",\"\",\"b\",\"{}\")", "(.?)".repeat(1_000)),
            "too many groups",
        ),
    ];
    for (path, parameter) in PATHS {
        let path = format!("/prometheus/api/v1/{path}");
        for (expr, key) in &kinds {
            let pair = format!("{}={}", encoded(parameter), encoded(expr));
            let target = format!("{path}?{pair}");
            assert_refused(&client.get(&target).await, parameter, key, &path);
            if path.contains("/label/") || path.ends_with("/rules") {
                continue;
            }
            for form in [
                pair.clone(),
                format!("{parameter}=up&x=1&{pair}"),
                format!("{pair}&{parameter}=up"),
            ] {
                assert_refused(&client.post_form(&path, &form).await, parameter, key, &path);
            }
            // In the query string of a POST, whatever its body contains.
            let target = format!("{path}?{parameter}=up&{pair}");
            assert_refused(&client.post_form(&target, "query=up").await, parameter, key, &path);
        }
    }
    // However deep: a long beginning does not help.
    let deep = format!("query={}", nested("(", "1", ")", 60_000));
    assert_refused(
        &client.post_form("/prometheus/api/v1/query", &deep).await,
        "query",
        "expression_depth",
        "60,000",
    );
    assert_eq!(queries(&upstream), 0, "nothing has reached Mimir");
}

// Mimir's Alertmanager compiles what filters its lists, and keeps what a silence matches; a remote read has the matchers of
// a query. None is an expression, and each took gigabytes by the same patterns.
#[tokio::test(flavor = "multi_thread")]
async fn patterns_outside_expressions_never_reach_mimir_either() {
    let (fixture, upstream) = before_a_witness().await;
    let client = fixture.client();
    let heavy = ".{1000}".repeat(40);
    let asked = || upstream.heads().len();
    let before = asked();
    for path in ["alerts", "alerts/groups", "silences", "receivers"] {
        for query in [
            format!("receiver={}", encoded(&heavy)),
            format!("filter={}", encoded(&format!("a=~\"{heavy}\""))),
            vec!["filter=a%3D~.%7B1000%7D"; 40].join("&"),
        ] {
            let answer = client.get(&format!("/alertmanager/api/v2/{path}?{query}")).await;
            assert_eq!(answer.status, 400, "{path}: {answer:?}");
            assert!(answer.text.contains("32768 characters at most"), "{path}: {answer:?}");
        }
    }
    let groups = encoded(&"(.?)".repeat(1_100));
    for query in [format!("receiver={groups}"), format!("filter=a%3D~{groups}")] {
        let answer = client.get(&format!("/alertmanager/api/v2/alerts?{query}")).await;
        assert!(answer.status == 400 && answer.text.contains("too many groups"), "{answer:?}");
    }
    let silence = |value: &str| {
        let matcher = serde_json::json!({"name": "a", "value": value, "isRegex": true});
        serde_json::json!({"matchers": [matcher], "comment": "x"}).to_string()
    };
    let json = client.clone().header("content-type", "application/json");
    for value in [heavy.clone(), "(.?)".repeat(1_100)] {
        let answer = json.post("/alertmanager/api/v2/silences", silence(&value)).await;
        assert!(answer.status == 400 && answer.text.contains("too large"), "{answer:?}");
    }
    let read = "/prometheus/api/v1/read";
    for (body, said) in [
        (harness::samples::remote_read_of_patterns(&[&heavy]), "32768 characters at most"),
        (
            harness::samples::remote_read_of_patterns(&vec![".{1000}"; 40]),
            "32768 characters at most",
        ),
        (
            harness::samples::remote_read_of_patterns(&[&"x".repeat(300_000)]),
            "longer than 262144 bytes",
        ),
        (
            harness::samples::remote_read_of_patterns(&[&"(.?)".repeat(1_100)]),
            "with too many groups",
        ),
        (b"no snappy".to_vec(), "not a remote read"),
    ] {
        let answer = client.post(read, body).await;
        assert!(answer.status == 400 && answer.text.contains(said), "{answer:?}");
    }
    assert_eq!(asked(), before, "nothing has reached Mimir");
    let reason = "reason=\"expression_limit\"";
    let metrics = Client::new(&fixture.proxy.internal_url()).get("/metrics").await.text;
    assert!(
        metrics.lines().any(|line| line.contains("surface=\"alerts\"") && line.contains(reason))
    );
    // Ordinary ones do.
    let answer =
        client.get("/alertmanager/api/v2/alerts?filter=a%3D~%22b.%2B%22&receiver=.*").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = json.post("/alertmanager/api/v2/silences", silence("host-[0-9]{1,3}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = client.post(read, harness::samples::remote_read_of_patterns(&["a|b", ".+"])).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(asked(), before + 3);
}

// A body that is longer than what is read ahead is forwarded while it is checked, but never
// completely: Mimir reads a form to its end before it parses it.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_form_is_checked_to_its_end() {
    let (fixture, upstream) = before_a_witness().await;
    let form = format!("x={}&query={}", "y".repeat(300_000), nested("(", "1", ")", 101));
    let answer = fixture.client().post_form("/prometheus/api/v1/query", &form).await;
    assert_refused(&answer, "query", "expression_depth", "at the end");
    let good = format!("x={}&query={}", "y".repeat(300_000), nested("(", "1", ")", 50));
    let answer = fixture.client().post_form("/prometheus/api/v1/query", &good).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(queries(&upstream) >= 1);
}

// Mimir also reads parameters of multipart/form-data, and of content types that only look
// different.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_with_an_ambiguous_content_type_is_rejected() {
    let (fixture, upstream) = before_a_witness().await;
    let path = "/prometheus/api/v1/query_exemplars";
    let body = format!(
        "--b\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\n{}\r\n--b--\r\n",
        nested("(", "1", ")", 101)
    );
    for kind in [
        "multipart/form-data; boundary=b",
        "Multipart/Form-Data;boundary=b",
        "multipart/mixed; boundary=b",
    ] {
        let answer = fixture.client().header("content-type", kind).post(path, body.clone()).await;
        assert_eq!(answer.status, 415, "{kind}: {answer:?}");
        assert!(answer.text.contains(FORM), "{answer:?}");
    }
    // With any other content type it is checked as a form, which can only reject too much.
    for kind in
        ["text/plain", "application/json", "APPLICATION/x-www-FORM-urlencoded; charset=utf-16"]
    {
        let form = format!("query={}", nested("(", "1", ")", 101));
        let answer = fixture.client().header("content-type", kind).post(path, form).await;
        assert_eq!(answer.status, 400, "{kind}: {answer:?}");
    }
    assert_eq!(queries(&upstream), 0);
}

// Bytes are forwarded unchanged, in however many pieces.
#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_form_arrives_unchanged() {
    let (sent, mut received) = tokio::sync::mpsc::unbounded_channel();
    let upstream = Upstream::start(move |request: harness::Received| {
        let sent = sent.clone();
        async move {
            let body =
                http_body_util::BodyExt::collect(request.body.unwrap()).await.unwrap().to_bytes();
            sent.send(body).unwrap();
            ok(harness::Received { body: None, ..request }).await
        }
    })
    .await;
    let fixture = proxy_fixture(&upstream.url(), &[]).await;
    let client = fixture.client().header("content-type", FORM);
    for form in [
        "query=up".to_owned(),
        String::from("q%75ery=a+b%2B%2b%zz;&&=&match[]=%7B%7D"),
        format!("query={}", "sum(a)+".repeat(300) + "a"),
        format!("x={}&query=up", "y".repeat(200_000)),
    ] {
        let pieces: Vec<Result<_, std::io::Error>> = form
            .as_bytes()
            .chunks(1 + form.len() / 7)
            .map(|piece| Ok(Frame::data(bytes::Bytes::copy_from_slice(piece))))
            .collect();
        let whole = client.post("/prometheus/api/v1/query", form.clone()).await;
        assert_eq!(whole.status, 200, "{whole:?}");
        assert_eq!(received.recv().await.unwrap(), form.as_bytes());
        let stream = StreamBody::new(futures_util::stream::iter(pieces));
        let body = reqwest::Body::wrap(stream);
        let chunked = client.send(Method::POST, "/prometheus/api/v1/query", body).await;
        assert_eq!(chunked.status, 200, "{chunked:?}");
        assert_eq!(received.recv().await.unwrap(), form.as_bytes());
    }
}

// Expressions in the style of large dashboards, of the largest size that people write: Mimir
// answers all of them, and we reject none.
#[tokio::test(flavor = "multi_thread")]
async fn queries_of_dashboards_are_answered() {
    let mimir = Mimir::shared().await;
    let issuer = Issuer::start().await;
    let proxy = ProxyOptions::new(&issuer.url(), &mimir.url()).start().await;
    let client: Client = proxy.client().bearer(&issuer.user_of(&fresh_organisation()));
    let terms = |count: usize, term: &str, operator: &str| vec![term; count].join(operator);
    let hosts: Vec<String> = (0..3_000).map(|at| format!("host-{at}.example.com:9100")).collect();
    for expr in [
        terms(200, "sum by (job) (rate(a{code=~\"5..\",job!=\"x\"}[5m]))", " or "),
        terms(350, "a{b=\"c\"}", " + "),
        nested("label_replace(", "up", ", \"a\", \"$1\", \"b\", \"(.*)\")", 20),
        nested("clamp_max(1 + (", "up", "), 10)", 30),
        format!("sum(rate(a{{instance=~\"{}\"}}[5m]))", hosts.join("|")),
        nested("max_over_time(", "x", "[1h:5m])", 5),
        "histogram_quantile(0.99, sum by (le, job) (rate(a_bucket[5m]))) > 1 # ((((((".to_owned(),
    ] {
        let form = format!("query={}", encoded(&expr));
        let began = Instant::now();
        let answer = client.post_form("/prometheus/api/v1/query", &form).await;
        assert_eq!(answer.status, 200, "{expr:.80}: {answer:?}");
        assert!(began.elapsed() < Duration::from_secs(30), "{expr:.80}");
    }
}

// The limits are configurable, for expressions that need more.
#[tokio::test(flavor = "multi_thread")]
async fn limits_of_expressions_are_configurable() {
    let upstream = Upstream::start(ok).await;
    let settings = [("limits.expression_depth", "3"), ("limits.expression_bytes", "\"1KiB\"")];
    let fixture = proxy_fixture(&upstream.url(), &settings).await;
    let query = |expr: String| format!("/prometheus/api/v1/query?query={}", encoded(&expr));
    assert_eq!(fixture.client().get(&query(nested("(", "1", ")", 3))).await.status, 200);
    let deep = fixture.client().get(&query(nested("(", "1", ")", 4))).await;
    assert_refused(&deep, "query", "more than 3 deep (limits.expression_depth)", "depth");
    let long = fixture.client().get(&query("a".repeat(1_025))).await;
    assert_refused(&long, "query", "longer than 1024 bytes (limits.expression_bytes)", "bytes");
}
