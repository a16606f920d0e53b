//! Limits of one organisation: requests above them wait or are rejected, and other organisations
//! are not affected.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use harness::{
    Client, Mimir, NodeExporter, ORG_A, ORG_B, Prometheus, Received, RemoteWrite, Upstream,
    wait_until,
};
use http::{Method, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::support::identity::identity_fixture;
use crate::support::responses::ok;
use crate::support::single::{MIB, PUSH, ProxyFixture, QUERY, pieces, proxy_fixture};

const OTLP: &str = "/otlp/v1/metrics";

/// One that says that it sends protobuf. Any number of the letter x is a message.
fn exporter(client: &Client) -> Client {
    client.clone().header("content-type", "application/x-protobuf")
}

/// An upstream that answers as many requests as it is told to.
async fn gated() -> (Upstream, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let upstream = Upstream::start(move |request: Received| {
        let gate = Arc::clone(&opened);
        async move {
            gate.acquire().await.unwrap().forget();
            ok(request).await
        }
    })
    .await;
    (upstream, gate)
}

fn of(fixture: &ProxyFixture, organisation: &str) -> Client {
    fixture.proxy.client().bearer(&fixture.issuer.user_of(organisation))
}

fn send(tasks: &mut JoinSet<u16>, client: &Client, method: &Method, target: &'static str) {
    let (client, method) = (client.clone(), method.clone());
    tasks.spawn(async move { client.send(method, target, "").await.status.as_u16() });
}

async fn in_flight(fixture: &ProxyFixture) -> f64 {
    fixture.proxy.metric("mimir_tenant_proxy_requests_in_flight").await
}

async fn wait_in_flight(fixture: &ProxyFixture, wanted: f64) {
    wait_until(&format!("{wanted} in flight"), Duration::from_secs(10), async || {
        in_flight(fixture).await == wanted
    })
    .await;
}

// Reads: a 429 like Mimir's own. Other organisations and surfaces are not affected.
#[tokio::test(flavor = "multi_thread")]
async fn reads_over_the_limit_are_rejected_and_others_are_not_affected() {
    let (upstream, gate) = gated().await;
    let settings = [("limits.query_in_flight", "2"), ("limits.max_wait", "\"100ms\"")];
    let fixture = proxy_fixture(&upstream.url(), &settings).await;
    let (a, b) = (of(&fixture, ORG_A), of(&fixture, ORG_B));
    let mut tasks = JoinSet::new();
    for _ in 0..2 {
        send(&mut tasks, &a, &Method::GET, QUERY);
    }
    wait_in_flight(&fixture, 2.0).await;
    let began = Instant::now();
    let refused = a.get(QUERY).await;
    assert!(began.elapsed() >= Duration::from_millis(100), "it waits first");
    assert_eq!(refused.status, 429, "{refused:?}");
    assert_eq!(refused.json()["errorType"], "too_many_requests");
    let after: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=15).contains(&after) && !refused.header("x-request-id").is_empty());
    send(&mut tasks, &b, &Method::GET, QUERY);
    send(&mut tasks, &a, &Method::POST, PUSH);
    send(&mut tasks, &a, &Method::GET, "/prometheus/api/v1/rules");
    wait_in_flight(&fixture, 5.0).await;
    gate.add_permits(100);
    while let Some(status) = tasks.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    assert_eq!(a.get(QUERY).await.status, 200, "there is room again");
    let counted = "mimir_tenant_proxy_requests_total{surface=\"query\",outcome=\"rejected\",reason=\"requests_in_flight\"}";
    assert_eq!(fixture.proxy.metric(counted).await, 1.0);
    wait_in_flight(&fixture, 0.0).await;
}

// Writes: a stock sender drops its data on a 429, and no single device could avoid it when many of
// its organisation write at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn writes_over_the_limit_get_503() {
    let (upstream, gate) = gated().await;
    let settings = [
        ("limits.push_in_flight", "1"),
        ("limits.otlp_in_flight", "1"),
        ("limits.max_wait", "\"0ms\""),
    ];
    let fixture = proxy_fixture(&upstream.url(), &settings).await;
    let a = exporter(&of(&fixture, ORG_A));
    let mut tasks = JoinSet::new();
    send(&mut tasks, &a, &Method::POST, PUSH);
    send(&mut tasks, &a, &Method::POST, OTLP);
    wait_in_flight(&fixture, 2.0).await;
    for target in [PUSH, OTLP] {
        let refused = a.post(target, "x").await;
        assert_eq!(refused.status, 503, "{refused:?}");
        assert!(!refused.header("retry-after").is_empty());
        assert!(refused.text.contains("in flight"), "{refused:?}");
    }
    gate.add_permits(100);
    while let Some(status) = tasks.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    assert_eq!(a.post(PUSH, "x").await.status, 200);
}

// With a short wait no request is rejected: requests wait in order of arrival.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_can_wait_are_served_in_order() {
    let upstream = Upstream::start(|request: Received| async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        ok(request).await
    })
    .await;
    let settings = [("limits.push_in_flight", "10"), ("limits.max_wait", "\"20s\"")];
    let fixture = proxy_fixture(&upstream.url(), &settings).await;
    let a = of(&fixture, ORG_A);
    let mut tasks = JoinSet::new();
    // Four times as many may wait as have a slot.
    for _ in 0..50 {
        send(&mut tasks, &a, &Method::POST, PUSH);
    }
    while let Some(status) = tasks.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    let waits = fixture.proxy.metric("mimir_tenant_proxy_permit_wait_seconds_count").await;
    assert!(waits >= 1.0, "{waits} waited");
}

// A slot is held until the last byte of the response, and freed however the request ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_is_held_as_long_as_the_response_and_always_freed() {
    let upstream = Upstream::start(|request: Received| async move {
        if request.method == "GET" {
            let frames = pieces(256, MIB).map(|piece| piece.map(Frame::data));
            return Response::new(http_body_util::BodyExt::boxed(StreamBody::new(frames)));
        }
        let _ = request.body.unwrap().collect().await;
        std::future::pending().await
    })
    .await;
    let settings = [("limits.query_in_flight", "1"), ("limits.max_wait", "\"0ms\"")];
    let fixture = proxy_fixture(&upstream.url(), &settings).await;
    let a = of(&fixture, ORG_A);
    let answer = a.open(Method::GET, QUERY, "").await;
    assert_eq!(answer.status(), 200);
    assert_eq!(in_flight(&fixture).await, 1.0);
    assert_eq!(a.get(QUERY).await.status, 429);
    let mut body = answer.bytes_stream();
    assert!(body.next().await.unwrap().is_ok());
    // The client disconnects in the middle.
    drop(body);
    wait_in_flight(&fixture, 0.0).await;
    // Clients that disconnect before there is a response, while others wait behind them.
    let impatient = (0..200).map(|_| {
        let client = a.clone();
        async move {
            let sending = client.try_send(Method::POST, QUERY, "query=up");
            let _ = tokio::time::timeout(Duration::from_millis(20), sending).await;
        }
    });
    futures_util::stream::iter(impatient).buffer_unordered(20).collect::<Vec<()>>().await;
    wait_in_flight(&fixture, 0.0).await;
    let whole = a.open(Method::GET, QUERY, "").await;
    assert_eq!(whole.bytes().await.unwrap().len(), 256 * MIB, "there is room");
    wait_in_flight(&fixture, 0.0).await;
}

// Requests and bytes per second, set for all organisations and for one.
#[tokio::test(flavor = "multi_thread")]
async fn rates_are_kept_and_one_organisation_may_have_others() {
    let upstream = Upstream::start(ok).await;
    let more = format!("{{\"{ORG_B}\" = {{push_requests_per_second = 1000}}}}");
    let settings = [
        ("limits.push_requests_per_second", "2"),
        ("limits.otlp_bytes_per_second", "1000"),
        ("limits.burst", "\"1s\""),
        ("limits.max_wait", "\"0ms\""),
        ("limits.organisations", &more),
    ];
    let fixture = proxy_fixture(&upstream.url(), &settings).await;
    let (a, b) = (of(&fixture, ORG_A), of(&fixture, ORG_B));
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(a.post(PUSH, "x").await.status.as_u16());
    }
    assert_eq!(statuses[..2], [200, 200]);
    assert!(statuses[2..].contains(&503), "{statuses:?}");
    // Not 429, which Prometheus drops unless it is told otherwise.
    let refused = loop {
        let answer = a.post(PUSH, "x").await;
        if answer.status != 200 {
            break answer;
        }
    };
    assert_eq!(refused.status, 503, "{refused:?}");
    let after: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=4).contains(&after), "{refused:?}");
    assert!(refused.text.contains("requests per second"), "{refused:?}");
    for _ in 0..50 {
        assert_eq!(b.post(PUSH, "x").await.status, 200, "another one's are not counted");
    }
    // Bytes are charged after they were received, so one large body passes.
    let (a, b) = (exporter(&a), exporter(&b));
    assert_eq!(a.post(OTLP, vec![b'x'; 8000]).await.status, 200);
    let refused = a.post(OTLP, "x").await;
    // Not 429, which the SDK for Python drops, and not the 7 s until there is room, for which others do not wait.
    assert_eq!(refused.status, 503, "{refused:?}");
    let after: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=4).contains(&after), "{refused:?}");
    assert_eq!(b.post(OTLP, vec![b'x'; 8000]).await.status, 200);
    let reason = |reason: &str| {
        format!(
            "mimir_tenant_proxy_requests_total{{surface=\"otlp\",outcome=\"rejected\",reason=\"{reason}\"}}"
        )
    };
    assert_eq!(fixture.proxy.metric(&reason("byte_rate")).await, 1.0);
}

// The limit of all organisations together is a 503.
#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_all_organisations_is_a_503() {
    let (upstream, gate) = gated().await;
    let settings = [("limits.in_flight", "1"), ("limits.max_wait", "\"0ms\"")];
    let fixture = proxy_fixture(&upstream.url(), &settings).await;
    let mut tasks = JoinSet::new();
    send(&mut tasks, &of(&fixture, ORG_A), &Method::GET, QUERY);
    wait_in_flight(&fixture, 1.0).await;
    let refused = of(&fixture, ORG_B).get(QUERY).await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after").is_empty()), (503, false));
    gate.add_permits(100);
    assert_eq!(tasks.join_next().await.unwrap().unwrap(), 200);
    assert_eq!(of(&fixture, ORG_B).get(QUERY).await.status, 200);
}

// 2,256 sockets of two organisations, each with a head and one byte, took every slot; all others
// got 503.
#[tokio::test(flavor = "multi_thread")]
async fn greedy_organisations_leave_slots_for_others() {
    let upstream = Upstream::start(ok).await;
    let settings = [
        ("upstream.max_in_flight", "60"),
        ("limits.max_wait", "\"100ms\""),
        // Bodies in the buffer hold no slots.
        ("limits.upload_buffer_bytes", "0"),
    ];
    let fixture = proxy_fixture(&upstream.url(), &settings).await;
    let address = fixture.proxy.url().replace("http://", "");
    let mut sockets = Vec::new();
    let open = async |organisation: &str| {
        let head = format!(
            "POST {PUSH} HTTP/1.1\r\nHost: proxy\r\nAuthorization: Bearer {}\r\nContent-Length: 1000\r\n\r\nx",
            fixture.issuer.user_of(organisation)
        );
        let mut socket = tokio::net::TcpStream::connect(&address).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        socket
    };
    for _ in 0..60 {
        for organisation in [ORG_A, ORG_B] {
            sockets.push(open(organisation).await);
        }
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let held = in_flight(&fixture).await;
    println!("two organisations hold {held} of 60 places");
    assert!((25.0..=40.0).contains(&held), "{held}");
    // A third organisation gets slots, for several concurrent requests.
    let third = of(&fixture, "third");
    let answers = (0..6).map(|_| third.post(PUSH, "x"));
    let answers = futures_util::future::join_all(answers).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    // The two get 503 with the reason.
    let refused = of(&fixture, ORG_A).post(PUSH, "x").await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(
        !refused.header("retry-after").is_empty() && refused.text.contains("share"),
        "{refused:?}"
    );
    let reason = "mimir_tenant_proxy_requests_total{surface=\"push\",outcome=\"rejected\",reason=\"organisation_share\"}";
    assert!(fixture.proxy.metric(reason).await > 50.0);
    // Their slots are freed.
    drop(sockets);
    wait_in_flight(&fixture, 0.0).await;
    assert_eq!(of(&fixture, ORG_A).post(PUSH, "x").await.status, 200);
}

// A federated read takes a slot of each organisation that it names.
#[tokio::test(flavor = "multi_thread")]
async fn a_federated_read_counts_for_each() {
    let (upstream, gate) = gated().await;
    let settings = [
        ("tenancy.federation", "true"),
        ("limits.query_in_flight", "1"),
        ("limits.max_wait", "\"0ms\""),
    ];
    let identity = identity_fixture(&upstream.url(), &settings).await;
    let (a, b) = (identity.organisation().await, identity.organisation().await);
    let service = identity.service();
    let both = service.clone().header("x-scope-orgid", &format!("{a}|{b}"));
    let waiting = tokio::spawn(async move { both.get(QUERY).await.status });
    wait_until("it is on its way", Duration::from_secs(10), async || {
        identity.proxy.metric("mimir_tenant_proxy_requests_in_flight").await == 1.0
    })
    .await;
    for one in [&a, &b] {
        let answer = service.clone().header("x-scope-orgid", one).get(QUERY).await;
        assert_eq!(answer.status, 429, "{answer:?}");
    }
    gate.add_permits(100);
    assert_eq!(waiting.await.unwrap(), 200);
    assert_eq!(service.header("x-scope-orgid", &b).get(QUERY).await.status, 200);
}

// A stock sender whose slot is nearly always taken loses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_stock_sender_over_the_limit_loses_nothing() {
    let settings = [("limits.push_in_flight", "1"), ("limits.upload_buffer_bytes", "0")];
    a_stock_sender_loses_nothing("requests_in_flight", &settings).await;
}

// Nor does one over a rate: Prometheus drops what is answered with a 429.
#[tokio::test(flavor = "multi_thread")]
async fn a_stock_sender_over_a_rate_loses_nothing() {
    let settings = [("limits.push_requests_per_second", "1"), ("limits.burst", "\"1s\"")];
    a_stock_sender_loses_nothing("request_rate", &settings).await;
}

async fn a_stock_sender_loses_nothing(reason: &str, settings: &[(&str, &str)]) {
    let mimir = Mimir::shared().await;
    let settings = [settings, &[("limits.max_wait", "\"0ms\"")]].concat();
    let identity = identity_fixture(&mimir.url(), &settings).await;
    let a = identity.organisation().await;
    let key = async |name: &str| {
        let key = identity.device_key(&a, json!({ "name": name })).await;
        key["key"].as_str().unwrap().to_owned()
    };
    let exporter = NodeExporter::start().await;
    let (url, secret) = (identity.proxy.url(), key("hub").await);
    let sender = Prometheus::start_with_password(RemoteWrite::V1, &exporter, &url, "hub", &secret);
    let sender = sender.await;
    let slow = identity.proxy.client().bearer(&key("slow").await);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(8) {
        let slowly = pieces(8, 10).then(async |piece| {
            tokio::time::sleep(Duration::from_millis(100)).await;
            piece
        });
        let _ = slow.post(PUSH, reqwest::Body::wrap_stream(slowly)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let refused = format!(
        "mimir_tenant_proxy_requests_total{{surface=\"push\",outcome=\"rejected\",reason=\"{reason}\"}}"
    );
    let refused = identity.proxy.metric(&refused).await;
    println!("{refused} pushes were told to come again");
    assert!(refused >= 1.0, "nobody was");
    let count = async |client: &Client, path: &str| {
        let answer = client.get(&format!("{path}?query=count_over_time(up[10m])")).await;
        let value = answer.json()["data"]["result"][0]["value"][1].clone();
        value.as_str().map_or(0, |count| count.parse::<u32>().unwrap())
    };
    let scraped = count(&Client::new(&sender.url()), "/api/v1/query").await;
    assert!(scraped > 0);
    let reader = identity.service().header("x-scope-orgid", &a);
    wait_until("every sample is there", Duration::from_secs(60), async || {
        count(&reader, "/prometheus/api/v1/query").await >= scraped
    })
    .await;
    let text = Client::new(&sender.url()).get("/metrics").await.text;
    let failed = "prometheus_remote_storage_samples_failed_total";
    let failed: Vec<&str> = text.lines().filter(|line| line.starts_with(failed)).collect();
    assert!(!failed.is_empty() && failed.iter().all(|line| line.ends_with(" 0")), "{failed:?}");
}
