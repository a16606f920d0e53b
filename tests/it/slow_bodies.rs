//! Bodies that stall or are slow: every stock sender retries, on every surface and protocol.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use harness::{
    ChaosProxy, Client, Issuer, Mimir, NodeExporter, Prometheus, ProxyOptions, RemoteWrite,
    Upstream, fresh_organisation, samples, wait_until,
};

use http::{Method, Response, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::identity::{ADMIN_KEY, identity_fixture};
use crate::support::responses::{full, ok};
use crate::support::single::{PUSH, ProxyFixture, count, proxy_fixture};

const RULES: &str = "/prometheus/api/v1/rules";
const QUERY_RANGE: &str = "/prometheus/api/v1/query_range";

/// The framing of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Http10,
    Length,
    Chunked,
}

/// Its fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slowness {
    /// It stops in the middle.
    Frozen,
    /// It never pauses for long, and never ends.
    Trickle,
}

/// An export is checked, so it says what it is. Any number of the letter x is a message of protobuf.
fn content_type_of(request: &str) -> &'static str {
    if request.contains("/otlp/") {
        "application/x-protobuf"
    } else {
        "application/x-www-form-urlencoded"
    }
}

/// Sends a slow request over HTTP/1 and returns everything up to the end of the connection.
async fn slow_http1(
    url: &str,
    request: &str,
    credential: &str,
    framing: Framing,
    slowness: Slowness,
) -> String {
    let mut socket = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
    let version = if framing == Framing::Http10 { "HTTP/1.0" } else { "HTTP/1.1" };
    let length = if framing == Framing::Chunked {
        "Transfer-Encoding: chunked"
    } else {
        "Content-Length: 10000"
    };
    let content_type = content_type_of(request);
    let head = format!(
        "{request} {version}\r\nHost: proxy\r\nConnection: keep-alive\r\n\
         Authorization: Bearer {credential}\r\nContent-Type: {content_type}\r\n{length}\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let is_empty = request.starts_with("GET");
    let piece: &[u8] = if framing == Framing::Chunked { b"1\r\nx\r\n" } else { b"x" };
    let (mut answer, began) = (Vec::new(), Instant::now());
    let mut buffer = [0; 4096];
    loop {
        assert!(began.elapsed() < Duration::from_secs(20), "no end: {answer:?}");
        let first = answer.is_empty() && began.elapsed() < Duration::from_millis(50);
        if !is_empty && answer.is_empty() && (first || slowness == Slowness::Trickle) {
            let _ = socket.write_all(piece).await;
        }
        match tokio::time::timeout(Duration::from_millis(60), socket.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => return String::from_utf8_lossy(&answer).into_owned(),
            Ok(Ok(length)) => answer.extend_from_slice(&buffer[..length]),
            Err(_) => {}
        }
    }
}

fn slow_stream(
    slowness: Slowness,
    is_empty: bool,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
    futures_util::stream::unfold(0, move |sent| async move {
        if is_empty || (slowness == Slowness::Frozen && sent > 0) {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(Duration::from_millis(60)).await;
        Some((Ok(Bytes::from_static(b"x")), sent + 1))
    })
}

// Prometheus, Alloy and the collector drop their data on a 408 (and on any other 4xx but 429). So a
// slow body gets 503 with Retry-After, and the connection is closed, because the rest of the body
// would be taken for the next request.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_body_is_a_503_on_every_surface_and_protocol() {
    let upstream = Upstream::start(count).await;
    let settings =
        [("limits.body_idle_timeout", "\"300ms\""), ("limits.body_timeout", "\"900ms\"")];
    let identity = identity_fixture(&upstream.url(), &settings).await;
    let (url, org) = (identity.proxy.url(), identity.organisation().await);
    let user = identity.member(&org, "viewer").await.token;
    let admin = format!("/admin/organisations/{org}/device-keys");
    let key = identity.device_key(&org, serde_json::json!({"name": "hub"})).await;
    let key = key["key"].as_str().unwrap().to_owned();
    let requests = [
        (format!("POST {PUSH}"), key.clone()),
        ("POST /api/v1/push/influx/write".to_owned(), key.clone()),
        ("POST /otlp/v1/metrics".to_owned(), key),
        (format!("POST {QUERY_RANGE}"), user.clone()),
        ("POST /prometheus/api/v1/read".to_owned(), user.clone()),
        // A missing body where none is expected.
        (format!("GET {RULES}"), user),
        (format!("POST {admin}"), ADMIN_KEY.to_owned()),
    ];
    let mut cases = JoinSet::new();
    for (request, credential) in requests {
        for slowness in [Slowness::Frozen, Slowness::Trickle] {
            for framing in [Framing::Http10, Framing::Length, Framing::Chunked] {
                let (url, request, credential) = (url.clone(), request.clone(), credential.clone());
                if request.starts_with("GET") && framing != Framing::Chunked {
                    continue;
                }
                cases.spawn(async move {
                    let answer = slow_http1(&url, &request, &credential, framing, slowness).await;
                    let case = format!("{request} {framing:?} {slowness:?}: {answer}");
                    let head = answer.to_ascii_lowercase();
                    assert!(
                        head.starts_with("http/1.1 503 ") || head.starts_with("http/1.0 503 "),
                        "{case}"
                    );
                    assert!(head.contains("\r\nretry-after: "), "{case}");
                    let says_keep_alive = head.contains("keep-alive");
                    let says_close = head.contains("\r\nconnection: close\r\n");
                    assert!(!says_keep_alive, "{case}");
                    assert!(says_close || framing == Framing::Http10, "{case}");
                    assert_eq!(head.matches("http/1.").count(), 1, "{case}");
                });
            }
            let (method, target) = request.split_once(' ').unwrap();
            let method: Method = method.parse().unwrap();
            let client = Client::h2c(&url).bearer(&credential);
            let client = client.header("content-type", content_type_of(&request));
            let target = target.to_owned();
            cases.spawn(async move {
                let body = slow_stream(slowness, method == Method::GET);
                let body = reqwest::Body::wrap_stream(body);
                let answer = client.send(method, &target, body).await;
                assert_eq!(answer.status, 503, "h2 {target} {slowness:?}: {answer:?}");
                assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
            });
        }
    }
    let cases = cases.join_all().await.len();
    println!("{cases} cases");
    let slow = |surface: &str, outcome: &str| {
        format!(
            "mimir_tenant_proxy_requests_total{{surface=\"{surface}\",outcome=\"{outcome}\",reason=\"body_slow\"}}"
        )
    };
    for surface in ["push", "otlp", "query", "rules", "admin"] {
        assert!(identity.proxy.metric(&slow(surface, "rejected")).await > 0.0, "{surface}");
    }
    // A slow but complete body arrives.
    let calm = futures_util::stream::unfold(0, |sent| async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        (sent < 8).then(|| (Ok::<_, std::io::Error>(Bytes::from_static(b"x")), sent + 1))
    });
    let client = identity.client(&identity.member(&org, "viewer").await);
    assert_eq!(client.post(QUERY_RANGE, reqwest::Body::wrap_stream(calm)).await.text, "8");
}

// With `remote_timeout: 60s` and one frozen body, the former 408 made Prometheus drop the samples.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_body_of_a_stock_sender_loses_nothing() {
    let mimir = Mimir::shared().await;
    for version in [RemoteWrite::V1, RemoteWrite::V2] {
        let issuer = Issuer::start().await;
        let options = ProxyOptions::new(&issuer.url(), &mimir.url());
        let proxy = options.set("limits.body_idle_timeout", "\"500ms\"").start().await;
        let organisation = fresh_organisation();
        let network = ChaosProxy::start(proxy.url()["http://".len()..].parse().unwrap()).await;
        let exporter = NodeExporter::start().await;
        let token = issuer.user_of(&organisation);
        // From the first push on: a head and a part of its body.
        network.freeze_uploads_after(3000);
        let sender = Prometheus::start(version, &exporter, &network.url(), &token).await;
        let slow = "mimir_tenant_proxy_requests_total{surface=\"push\",outcome=\"rejected\",reason=\"body_slow\"}";
        wait_until("bodies are frozen", Duration::from_secs(60), async || {
            proxy.metric(slow).await >= 2.0
        })
        .await;
        network.calm();
        let of = async |client: &Client, path: &str| {
            let answer = client.get(&format!("{path}?query=count_over_time(up[10m])")).await;
            let value = answer.json()["data"]["result"][0]["value"][1].clone();
            value.as_str().map_or(0, |count| count.parse::<u32>().unwrap())
        };
        let scraped = of(&Client::new(&sender.url()), "/api/v1/query").await;
        assert!(scraped > 0);
        let reader = proxy.client().bearer(&token);
        wait_until("every sample is there", Duration::from_secs(60), async || {
            of(&reader, "/prometheus/api/v1/query").await >= scraped
        })
        .await;
        let text = Client::new(&sender.url()).get("/metrics").await.text;
        let failed = "prometheus_remote_storage_samples_failed_total";
        let failed: Vec<&str> = text.lines().filter(|line| line.starts_with(failed)).collect();
        assert!(!failed.is_empty() && failed.iter().all(|line| line.ends_with(" 0")), "{failed:?}");
    }
}

/// Sends the beginning of a body, pauses, and sends the rest, over HTTP/1.1.
async fn with_a_pause(
    client: &Client,
    target: &str,
    body: Vec<u8>,
    pause: Duration,
) -> (StatusCode, String) {
    let half = body.len() / 2;
    let (first, rest) = (body[..half].to_vec(), body[half..].to_vec());
    let pieces =
        futures_util::stream::iter([first, rest]).enumerate().then(move |(at, piece)| async move {
            if at == 1 {
                tokio::time::sleep(pause).await;
            }
            Ok::<_, std::io::Error>(Bytes::from(piece))
        });
    let answer = client.post(target, reqwest::Body::wrap_stream(pieces)).await;
    let retry = answer.header("retry-after").to_owned();
    (answer.status, format!("{} retry-after={retry}", answer.text))
}

// Mimir answers an upload that is slower than its http_server_read_timeout (30 s by default) with
// 400 `read body: … i/o timeout`, which every sender takes for final. Refusals for the contents are
// forwarded, at whatever time.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_too_slow_for_mimir_is_a_503() {
    let mimir = Mimir::start_with(&[
        "-server.http-read-timeout=2s",
        "-distributor.max-recv-msg-size=300000",
    ])
    .await;
    let issuer = Issuer::start().await;
    // Without a buffer Mimir waits for the client.
    let options = ProxyOptions::new(&issuer.url(), &mimir.url());
    let proxy = options.set("limits.upload_buffer_bytes", "0").start().await;
    let organisation = fresh_organisation();
    let direct = Client::new(&mimir.url()).header("x-scope-orgid", &organisation);
    let through = proxy.client().bearer(&issuer.user_of(&organisation));
    let kind = |client: &Client, kind: &'static str, encoding: Option<&str>| {
        let client = client.clone().header("content-type", kind);
        encoding.map_or(client.clone(), |encoding| client.header("content-encoding", encoding))
    };
    let protobuf = "application/x-protobuf";
    let form = "application/x-www-form-urlencoded";
    let write = samples::remote_write("slow", &[], 1.0);
    let long_form = format!("query=up&start=1&end=2&step=1&padding={}", "x".repeat(100_000));
    let cases: [(&str, &'static str, Option<&str>, Vec<u8>); 5] = [
        (PUSH, protobuf, Some("snappy"), write.clone()),
        ("/otlp/v1/metrics", protobuf, None, vec![0; 100]),
        ("/otlp/v1/metrics", "application/json", None, b"{\"resourceMetrics\":[]}".to_vec()),
        ("/api/v1/push/influx/write", "text/plain", None, b"slow,a=b c=1".to_vec()),
        (QUERY_RANGE, form, None, long_form.into_bytes()),
    ];
    let pause = Duration::from_secs(4);
    let slow = cases.map(|(target, content_type, encoding, body)| {
        let direct = kind(&direct, content_type, encoding);
        let through = kind(&through, content_type, encoding);
        async move {
            let by_mimir = with_a_pause(&direct, target, body.clone(), pause).await;
            println!("{target} {content_type}: Mimir says {by_mimir:?}");
            let (status, text) = with_a_pause(&through, target, body, pause).await;
            if by_mimir.0.is_client_error() {
                assert_eq!(status, 503, "{target} {content_type}: {text}");
                assert!(!text.ends_with("retry-after="), "{target}: {text}");
            }
            by_mimir.0
        }
    });
    let by_mimir = futures_util::future::join_all(slow).await;
    assert_eq!(by_mimir[0], 400, "Mimir still does what this is for");
    // Mimir gets nothing of a remote read before its end.
    let (read, path) = (samples::remote_read("slow"), "/prometheus/api/v1/read");
    let reads = kind(&through, protobuf, Some("snappy"));
    let (status, text) = with_a_pause(&reads, path, read, pause).await;
    assert_eq!(status, 200, "{text}");
    let bearable = Duration::from_secs(1);
    let reason = "mimir_tenant_proxy_requests_total{surface=\"push\",outcome=\"rejected\",reason=\"body_slow_for_upstream\"}";
    assert!(proxy.metric(reason).await >= 1.0);
    let (status, text) =
        with_a_pause(&through, "/api/v1/push/influx/write", b"no line at all".to_vec(), bearable)
            .await;
    assert_eq!(status, 400, "{text}");
    // Refused for its contents, after a pause that Mimir tolerates, and for its size.
    let pushes = kind(&through, protobuf, Some("snappy"));
    let (status, text) = with_a_pause(&pushes, PUSH, b"not snappy at all".to_vec(), bearable).await;
    assert_eq!(status, 400, "{text}");
    let bad = samples::remote_write("bad", &[("read tcp 1->2: i/o timeout", "x")], 1.0);
    let quick = pushes.post(PUSH, bad).await;
    assert_eq!(quick.status, 400, "{quick:?}");
    let large = pushes.post(PUSH, vec![0; 400_000]).await;
    assert!(large.status == 400 && large.text.contains("larger than the allowed"), "{large:?}");
    // The instance is not at fault.
    let ejections = Client::new(&proxy.internal_url()).get("/metrics").await.text;
    let ejected = ejections.lines().filter(|line| {
        line.starts_with("mimir_tenant_proxy_upstream_ejections_total") && !line.ends_with(" 0")
    });
    assert_eq!(ejected.count(), 0);
}

/// Answers before it has read the request's body.
async fn early(status: u16, text: &'static str) -> (Upstream, ProxyFixture) {
    let upstream = Upstream::start(move |_| async move {
        tokio::time::sleep(Duration::from_millis(700)).await;
        // As Go's `http.Error` has it.
        let answer = Response::builder().status(status).header("content-type", "text/plain");
        answer.body(full(text)).unwrap()
    })
    .await;
    let fixture = proxy_fixture(&upstream.url(), &[("limits.upload_buffer_bytes", "0")]).await;
    (upstream, fixture)
}

// A response before the end of the body is forwarded, unless it is about the upload itself. A
// balancer before Mimir answers 408.
#[tokio::test(flavor = "multi_thread")]
async fn an_early_refusal_is_forwarded_unless_it_is_about_the_upload() {
    const TIMEOUT: &str = "read body: read tcp 10.0.0.7:8080->10.0.0.9:5123: i/o timeout\n";
    let cases = [
        (400, TIMEOUT, 503),
        (408, "", 503),
        (408, "<html>408 Request Time-out</html>", 503),
        // Influx: without a text. An instance that waits for a body has not judged it.
        (400, "", 503),
        (400, "err-mimir-label-name-too-long: i/o timeout", 400),
        (413, "the request is too large", 413),
        (429, "the request has been rejected because the tenant exceeded the rate limit", 429),
        (500, TIMEOUT, 500),
    ];
    for (status, text, wanted) in cases {
        let (_upstream, fixture) = early(status, text).await;
        let mut socket = TcpStream::connect(&fixture.proxy.url()["http://".len()..]).await.unwrap();
        let head = fixture.head(&format!("POST {PUSH}"), "Content-Length: 1000\r\n") + "half";
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 4096];
        let length = socket.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        let case = format!("{status} {text:?}: {answer}");
        assert!(answer.starts_with(&format!("HTTP/1.1 {wanted} ")), "{case}");
        if wanted == 503 {
            assert!(answer.contains("\r\nretry-after: "), "{case}");
            assert!(answer.contains("\r\nconnection: close\r\n"), "{case}");
        } else {
            assert!(answer.ends_with(text), "{case}");
        }
    }
    // A 408 for a complete request, too: something between us and Mimir did not receive it in time.
    let (_upstream, fixture) = early(408, "").await;
    let whole = fixture.client().post(PUSH, "whole").await;
    assert_eq!(whole.status, 503, "{whole:?}");
}

/// Sends a push in pieces over HTTP/1.1, evenly over `takes`, and gives its answer.
async fn slow_push(fixture: &ProxyFixture, bytes: usize, pieces: usize, takes: Duration) -> String {
    let mut socket = TcpStream::connect(&fixture.proxy.url()["http://".len()..]).await.unwrap();
    let length = format!("Content-Length: {bytes}\r\nConnection: close\r\n");
    socket.write_all(fixture.head(&format!("POST {PUSH}"), &length).as_bytes()).await.unwrap();
    for _ in 0..pieces {
        tokio::time::sleep(takes / u32::try_from(pieces).unwrap()).await;
        socket.write_all(&vec![b'x'; bytes / pieces]).await.unwrap();
    }
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

// vmauth reads a slow body before it takes a place or a back end (since v1.135). Without that, a fleet on
// thin lines needs a slot and a connection for each device.
#[tokio::test(flavor = "multi_thread")]
async fn slow_bodies_hold_neither_slots_nor_connections() {
    const DEVICES: usize = 400;
    let upstream = Upstream::start(count).await;
    let settings = [("limits.push_in_flight", "100"), ("limits.max_wait", "\"1s\"")];
    let fixture = proxy_fixture(&upstream.url(), &settings).await;
    let buffered = "mimir_tenant_proxy_upload_buffer_bytes";
    let slow = || slow_push(&fixture, 20_000, 20, Duration::from_secs(4));
    let fleet = futures_util::future::join_all((0..DEVICES).map(|_| slow()));
    let meanwhile = async {
        wait_until("bodies are in the buffer", Duration::from_secs(10), async || {
            fixture.proxy.metric(buffered).await >= 4_000_000.0
        })
        .await;
        assert_eq!(fixture.proxy.metric("mimir_tenant_proxy_requests_in_flight").await, 0.0);
        // The slots are free for others.
        let quick = fixture.client().post(PUSH, "quick").await;
        assert_eq!((quick.status.as_u16(), quick.text.as_str()), (200, "5"));
    };
    let (answers, ()) = tokio::join!(fleet, meanwhile);
    for answer in &answers {
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("20000"), "{answer}");
    }
    let connects = "mimir_tenant_proxy_upstream_connects_total{outcome=\"succeeded\"}";
    // As many as there are slots, on each of two workers.
    let connects = fixture.proxy.metric(connects).await;
    assert!(connects <= 200.0, "{connects}");
    assert_eq!(fixture.proxy.metric(buffered).await, 0.0);
}

// 20 KB in pieces of 100 bytes would hold 200 blocks of the connection's read buffer.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_in_many_small_pieces_takes_room_for_its_bytes_only() {
    let upstream = Upstream::start(count).await;
    let fixture = proxy_fixture(&upstream.url(), &[]).await;
    let slow = || slow_push(&fixture, 20_000, 200, Duration::from_secs(2));
    let before = fixture.proxy.process.peak_memory();
    let answers = futures_util::future::join_all((0..200).map(|_| slow())).await;
    assert!(answers.iter().all(|answer| answer.contains("20000")), "{answers:?}");
    // 200 x 20 KB, and what a connection takes; blocks of 8 KiB would be 320 MB.
    let grown = fixture.proxy.process.peak_memory() - before;
    assert!(grown < 40_000_000, "{grown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_fills_its_room_streams() {
    let upstream = Upstream::start(count).await;
    let small = [("limits.upload_buffer_bytes", "\"8KiB\"")];
    let none = [("limits.upload_total_bytes", "0")];
    for settings in [small, none] {
        let fixture = proxy_fixture(&upstream.url(), &settings).await;
        let before = upstream.heads().len();
        let slow = slow_push(&fixture, 100_000, 20, Duration::from_secs(2));
        let meanwhile = async {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            upstream.heads().len()
        };
        let (answer, after) = tokio::join!(slow, meanwhile);
        assert_eq!(after, before + 1, "Mimir has its head before its end");
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("100000"), "{answer}");
        let unbuffered = fixture.proxy.metric("mimir_tenant_proxy_uploads_without_buffer_total");
        assert_eq!(unbuffered.await, f64::from(u8::from(settings == none)));
    }
}

// A body of a known length fits its room to the last byte, in whatever pieces it comes. One whose last bytes
// were left was streamed, and its connection closed if Mimir answered before.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_with_small_pieces_is_read_to_its_end() {
    let upstream = Upstream::start(ok).await;
    let fixture = proxy_fixture(&upstream.url(), &[]).await;
    let mut socket = TcpStream::connect(&fixture.proxy.url()["http://".len()..]).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let head = fixture.head(&format!("POST {PUSH}"), "Content-Length: 30000\r\n");
    for number in 0..20 {
        socket.write_all(head.as_bytes()).await.unwrap();
        for bytes in [10, 300, 20_000, 100, 9_000, 590] {
            tokio::time::sleep(Duration::from_millis(10)).await;
            socket.write_all(&vec![b'x'; bytes]).await.unwrap();
        }
        let mut answer = [0; 1000];
        let length = socket.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{number}: {answer}");
        assert!(!answer.contains("connection: close"), "{number}: {answer}");
    }
    let heads = upstream.heads();
    assert!(heads.iter().all(|head| head.headers["content-length"] == "30000"), "{heads:?}");
}

// RFC 9110, 10.1.1: a client that expects a 100 wants to know first whether its body is wanted.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_expects_a_100_gets_it_with_its_permit() {
    let upstream = Upstream::start(count).await;
    let settings = [("limits.push_in_flight", "1"), ("limits.max_wait", "\"200ms\"")];
    let fixture = proxy_fixture(&upstream.url(), &settings).await;
    let mut first = TcpStream::connect(&fixture.proxy.url()["http://".len()..]).await.unwrap();
    let head =
        fixture.head(&format!("POST {PUSH}"), "Content-Length: 5\r\nExpect: 100-continue\r\n");
    first.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 1000];
    let length = first.read(&mut answer).await.unwrap();
    assert!(answer[..length].starts_with(b"HTTP/1.1 100 "), "{answer:?}");
    // The only slot is taken.
    let refused = harness::raw_exchange(&fixture.proxy.url(), head.as_bytes()).await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    first.write_all(b"hello").await.unwrap();
    let length = first.read(&mut answer).await.unwrap();
    assert!(answer[..length].starts_with(b"HTTP/1.1 200 "), "{answer:?}");
}

// RFC 9110, 6.4: no bytes are no body, with any framing.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_bytes_is_no_body() {
    let upstream = Upstream::start(ok).await;
    let identity =
        identity_fixture(&upstream.url(), &[("limits.body_idle_timeout", "\"500ms\"")]).await;
    let org = identity.organisation().await;
    let key = identity.device_key(&org, serde_json::json!({"name": "hub"})).await;
    let id = key["id"].as_str().unwrap().to_owned();
    let revoke = format!("DELETE /admin/organisations/{org}/device-keys/{id}");
    let user = identity.member(&org, "viewer").await.token;
    let cases = [
        (format!("GET {RULES}"), user.clone(), 200),
        ("GET /prometheus/api/v1/label/job/values".to_owned(), user.clone(), 200),
        (revoke, ADMIN_KEY.to_owned(), 200),
    ];
    let head = |request: &str, credential: &str| {
        format!(
            "{request} HTTP/1.1\r\nHost: proxy\r\nAuthorization: Bearer {credential}\r\n\
             Transfer-Encoding: chunked\r\n\r\n"
        )
    };
    for (request, credential, status) in &cases {
        for body in ["1\r\nx\r\n0\r\n\r\n", "5\r\nhello\r\n"] {
            let bytes = head(request, credential) + body;
            let answer = harness::raw_exchange(&identity.proxy.url(), bytes.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{request} {body:?}: {answer}");
            assert!(answer.contains("takes no body"), "{request} {body:?}: {answer}");
        }
        // Twice on one connection: what follows the body is the next request.
        let bytes = head(request, credential) + "0\r\n\r\n";
        let answer = harness::raw_exchange(&identity.proxy.url(), bytes.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
    }
    let before = upstream.heads().len();
    let bytes = head(&format!("GET {RULES}"), &user) + "0\r\n\r\n";
    let answer =
        harness::raw_exchange(&identity.proxy.url(), (bytes.clone() + &bytes).as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 2, "{answer}");
    // HTTP/2: HEADERS without END_STREAM, then an empty DATA frame with it.
    let h2c = Client::h2c(&identity.proxy.url()).bearer(&user);
    let nothing = futures_util::stream::empty::<Result<Bytes, std::io::Error>>();
    let answer = h2c.send(Method::GET, RULES, reqwest::Body::wrap_stream(nothing)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let some = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"x"))]);
    let answer = h2c.send(Method::GET, RULES, reqwest::Body::wrap_stream(some)).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    // Mimir gets a request without a body, and none of the rejected ones.
    let heads = upstream.heads();
    assert_eq!(heads.len() - before, 3);
    for head in &heads {
        for name in ["transfer-encoding", "content-length", "trailer"] {
            assert!(!head.headers.contains_key(name), "{head:?}");
        }
    }
    // By a method that may have one; the connection to Mimir is kept.
    let connects = "mimir_tenant_proxy_upstream_connects_total{outcome=\"succeeded\"}";
    let connected = identity.proxy.metric(connects).await;
    let bytes = head("POST /prometheus/api/v1/query?query=up", &user) + "0\r\n\r\n";
    let bytes = bytes.repeat(4);
    let answer = harness::raw_exchange(&identity.proxy.url(), bytes.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 4, "{answer}");
    let connected = identity.proxy.metric(connects).await - connected;
    assert!(connected <= 1.0, "{connected}");
}

// While the client pauses Mimir is not late, however short `upstream.response_timeout` is: that is the body's own
// limit to judge.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_pauses_is_no_delay_of_mimirs() {
    let upstream = Upstream::start(count).await;
    let settings = [
        ("limits.upload_total_bytes", "0"),
        ("limits.body_idle_timeout", "\"3s\""),
        ("upstream.response_timeout", "\"700ms\""),
        ("upstream.eject_after", "1"),
    ];
    let fixture = proxy_fixture(&upstream.url(), &settings).await;
    let answer = slow_push(&fixture, 200_000, 2, Duration::from_secs(4)).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("200000"), "{answer}");
    let answer = slow_push(&fixture, 200_000, 1, Duration::from_secs(8)).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("too slowly"), "{answer}");
    assert_eq!(fixture.proxy.metric("mimir_tenant_proxy_upstream_ejections_total").await, 0.0);
}

// The end of a body counts as what the client sent last: Mimir has its time from then on.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_end_of_a_body_is_no_delay_of_mimirs() {
    let upstream = Upstream::start(count).await;
    let settings = [
        ("limits.upload_total_bytes", "0"),
        ("limits.body_idle_timeout", "\"4s\""),
        ("upstream.response_timeout", "\"700ms\""),
    ];
    let fixture = proxy_fixture(&upstream.url(), &settings).await;
    let mut socket = TcpStream::connect(&fixture.proxy.url()["http://".len()..]).await.unwrap();
    let head = fixture
        .head(&format!("POST {PUSH}"), "Transfer-Encoding: chunked\r\nConnection: close\r\n");
    socket.write_all(format!("{head}5\r\nhello\r\n").as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    socket.write_all(b"0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}
