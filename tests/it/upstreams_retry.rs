//! Requests that are sent again, and those that are not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use harness::{ChaosProxy, Issuer, Mimir, ProxyOptions, RawUpstream, samples, wait_until};
use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::failover::{before, read_request};
use crate::support::fake_mimir::{FakeMimir, JSON, Mode, TEXT};
use crate::support::single::{PUSH, QUERY, pieces};

fn random(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(length as u64);
    std::iter::repeat_with(|| random.u8(..)).take(length).collect()
}

// A push within the replay buffer is sent to another instance, byte for byte.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_push_is_replayed_exactly() {
    let (bad, good) = (FakeMimir::start_in(Mode::Break).await, FakeMimir::start().await);
    let fixture = before(
        &[bad.url(), good.url()],
        &[("upstream.eject_after", "1000"), ("upstream.retry_percent", "100")],
    )
    .await;
    let mut sent = Vec::new();
    for length in [1, 1000, 50_000, 131_072] {
        for _ in 0..6 {
            let body = random(length);
            let chunks: Vec<_> = body
                .chunks(7000)
                .map(|c| Ok::<_, std::io::Error>(Bytes::copy_from_slice(c)))
                .collect();
            let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
            // Chunks vary in size: stay below the limit.
            let chunked = if length < 100_000 { chunked } else { body.clone().into() };
            for body in [reqwest::Body::from(body.clone()), chunked] {
                let answer = fixture.client().post(PUSH, body).await;
                assert_eq!(answer.status, 200, "{length}: {answer:?}");
            }
            sent.extend([body.clone(), body]);
        }
    }
    assert_eq!(good.bodies(), sent);
    let broken = bad.bodies();
    assert!(broken.len() >= 10, "{}", broken.len());
    assert!(broken.iter().all(|body| sent.iter().any(|sent| sent == body)));
    assert!(fixture.retries("broken").await >= 10.0);
}

/// Reads some bytes of each connection's first request and resets it.
async fn breaks_after(bytes: usize) -> (RawUpstream, Arc<AtomicUsize>) {
    let broken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&broken);
    let upstream = RawUpstream::start(move |mut socket| {
        let counter = Arc::clone(&counter);
        async move {
            let mut buffer = vec![0; bytes];
            let _ = socket.read_exact(&mut buffer).await;
            counter.fetch_add(1, Ordering::SeqCst);
            let _ = socket.readable().await; // unread bytes make it a reset
        }
    })
    .await;
    (upstream, broken)
}

// The connection breaks during the body: the replay buffer is sent again and the rest follows.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_breaks_in_its_middle_is_completed_elsewhere() {
    let ((bad, broken), good) = (breaks_after(20_000).await, FakeMimir::start().await);
    let fixture = before(
        &[bad.url(), good.url()],
        &[("upstream.eject_after", "1000"), ("upstream.retry_percent", "100")],
    )
    .await;
    let mut sent = Vec::new();
    for round in 0..20 {
        let body = random(100_000 + round);
        let slowly = futures_util::stream::unfold(body.clone(), |mut rest| async move {
            if rest.is_empty() {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            let tail = rest.split_off(rest.len().min(9_000));
            Some((Ok::<_, std::io::Error>(Bytes::from(rest)), tail))
        });
        let answer = fixture.client().post(PUSH, reqwest::Body::wrap_stream(slowly)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        sent.push(body);
    }
    assert!(broken.load(Ordering::SeqCst) >= 1, "none met the bad instance");
    assert_eq!(good.bodies(), sent);
}

// More than the buffer: it fails, the sender still has it, and no instance has it twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_push_that_breaks_is_a_503_and_goes_nowhere_else() {
    let ((bad, broken), good) = (breaks_after(300_000).await, FakeMimir::start().await);
    let fixture = before(&[bad.url(), good.url()], &[("upstream.eject_after", "1000")]).await;
    let (mut failed, mut done) = (0, 0);
    for _ in 0..12 {
        for body in [
            reqwest::Body::from(vec![b'x'; 1 << 20]),
            reqwest::Body::wrap_stream(pieces(64, 16 << 10)),
        ] {
            let answer = fixture.client().post(PUSH, body).await;
            match answer.status.as_u16() {
                200 => done += 1,
                503 => {
                    failed += 1;
                    assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
                }
                other => panic!("{other}"),
            }
        }
    }
    assert!(failed > 0, "none met the bad instance");
    assert_eq!(broken.load(Ordering::SeqCst), failed);
    assert_eq!(good.bodies().len(), done);
    assert_eq!(fixture.retries("broken").await, 0.0);
}

// An Influx line may have no timestamp: sent twice it would be two samples.
#[tokio::test(flavor = "multi_thread")]
async fn influx_is_not_repeated() {
    let fakes = [FakeMimir::start_in(Mode::Break).await, FakeMimir::start_in(Mode::Break).await];
    let fixture = before(&[fakes[0].url(), fakes[1].url()], &[]).await;
    for _ in 0..5 {
        let answer = fixture.client().post("/api/v1/push/influx/write", "m f=1").await;
        assert_eq!(answer.status, 503, "{answer:?}");
    }
    assert_eq!(fakes[0].requests() + fakes[1].requests(), 5);
}

// A starting or stopping instance answers 503 in plain text: another is tried. Without another one,
// its response is forwarded.
#[tokio::test(flavor = "multi_thread")]
async fn an_unavailable_instance_is_replaced_by_another() {
    let (bad, good) =
        (FakeMimir::start_in(Mode::Status(503, TEXT)).await, FakeMimir::start().await);
    let fixture = before(
        &[bad.url(), good.url()],
        &[("upstream.eject_after", "1000"), ("upstream.retry_percent", "100")],
    )
    .await;
    for _ in 0..10 {
        assert_eq!(fixture.client().get(QUERY).await.status, 200);
        assert_eq!(fixture.client().post(PUSH, random(5000)).await.status, 200);
    }
    assert!(fixture.retries("unavailable").await >= 1.0, "none met the bad instance");
    good.set(Mode::Status(503, TEXT));
    let both = fixture.client().get(QUERY).await;
    assert_eq!((both.status.as_u16(), both.text.as_str()), (503, "{}"), "Mimir's own answer");
}

/// What Mimir 3 answered to reads while an ingester, or the querier that had the query, died (`scripts/chaos kill`).
const LOST: [(u16, &str, &str); 4] = [
    (
        422,
        JSON,
        r#"{"status":"error","errorType":"execution","error":"rpc error: code = Unavailable desc = connection error: desc = \"transport: Error while dialing: dial tcp 10.0.0.9:9095: connect: connection refused\""}"#,
    ),
    (
        500,
        JSON,
        r#"{"status":"error","errorType":"internal","error":"rpc error: code = Unavailable desc = ingester is unavailable (current state: Starting)"}"#,
    ),
    (
        500,
        JSON,
        r#"{"status":"error","errorType":"internal","error":"too many unhealthy instances in the ring"}"#,
    ),
    (500, TEXT, "failed to receive response from querier 'vm': querier disconnected ungracefully"),
];

// Another instance may reach what this one lost. If none does, the client tries again: it is no fault of its own,
// whatever Mimir's status says. The instances are not at fault.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_whose_mimir_lost_a_part_is_asked_elsewhere() {
    for (status, content_type, text) in LOST {
        let lost = Mode::Says(status, content_type, text);
        let (bad, good) = (FakeMimir::start_in(lost).await, FakeMimir::start().await);
        let settings = [("upstream.eject_after", "2"), ("upstream.retry_percent", "100")];
        let fixture = before(&[bad.url(), good.url()], &settings).await;
        let client = fixture.client();
        for _ in 0..10 {
            let answer = client.get(QUERY).await;
            assert_eq!(answer.status, 200, "{text}: {answer:?}");
            let answer = client.post_form("/prometheus/api/v1/query_range", "query=up").await;
            assert_eq!(answer.status, 200, "{text}: {answer:?}");
        }
        assert!(bad.requests() >= 1 && fixture.retries("unavailable").await >= 1.0, "{text}");
        good.set(lost);
        let answer = client.get(QUERY).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
        assert_eq!(answer.json()["errorType"], "unavailable");
        assert!(!answer.text.contains("10.0.0.9"), "{answer:?}");
        assert!(!fixture.ejected().await, "{text}");
    }
}

// The same for pushes: another distributor may see enough replicas. A sender is told to come back.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_whose_mimir_lost_its_replicas_is_sent_elsewhere() {
    let text = "send data to ingesters: at least 2 live replicas required, could only find 1 - unhealthy instances: 10.0.0.9:9095,10.0.0.10:9095";
    let lost = Mode::Says(500, TEXT, text);
    let (bad, good) = (FakeMimir::start_in(lost).await, FakeMimir::start().await);
    let settings = [("upstream.eject_after", "1000"), ("upstream.retry_percent", "100")];
    let fixture = before(&[bad.url(), good.url()], &settings).await;
    for _ in 0..10 {
        assert_eq!(fixture.client().post(PUSH, random(500)).await.status, 200);
    }
    assert_eq!(good.bodies().len(), 10);
    assert!(fixture.retries("unavailable").await >= 1.0, "none met the bad instance");
    good.set(lost);
    let answer = fixture.client().post(PUSH, random(500)).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(!answer.header("retry-after").is_empty() && !answer.text.contains("10.0.0.9"));
    // Influx lines may not be repeated: they may be stored by one replica.
    let before = bad.requests() + good.requests();
    let answer = fixture.client().post("/api/v1/push/influx/write", "m f=1").await;
    assert_eq!((answer.status.as_u16(), bad.requests() + good.requests()), (503, before + 1));
}

// A query that fails by itself fails everywhere, also if what it quotes looks like a lost part.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_fails_by_itself_is_asked_once() {
    let quoted = r#"{"status":"error","errorType":"execution","error":"found duplicate series for the match group {a=\"rpc error: code = Unavailable desc = \"} on the right hand-side of the operation"}"#;
    let own = Mode::Says(422, JSON, quoted);
    let fakes = [FakeMimir::start_in(own).await, FakeMimir::start_in(own).await];
    let fixture = before(&[fakes[0].url(), fakes[1].url()], &[]).await;
    for _ in 0..5 {
        let answer = fixture.client().get(QUERY).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (422, quoted));
    }
    assert_eq!(fakes[0].requests() + fakes[1].requests(), 5);
}

// If everything fails, the budget bounds the load on Mimir: a fifth more, and a few.
#[tokio::test(flavor = "multi_thread")]
async fn a_failing_mimir_gets_few_resends() {
    const ASKED: usize = 400;
    for mode in [Mode::Status(503, TEXT), Mode::Break] {
        let fakes = [
            FakeMimir::start_in(mode).await,
            FakeMimir::start_in(mode).await,
            FakeMimir::start_in(mode).await,
        ];
        let urls = [fakes[0].url(), fakes[1].url(), fakes[2].url()];
        let fixture = before(&urls, &[]).await;
        let began = std::time::Instant::now();
        for _ in 0..ASKED {
            assert_eq!(fixture.client().get(QUERY).await.status, 503);
        }
        let got: usize = fakes.iter().map(FakeMimir::requests).sum();
        let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
        println!("{mode:?}: {got} for {ASKED} in {seconds} s");
        assert!(got >= ASKED && got <= ASKED * 12 / 10 + 10 + seconds + 1, "{got}");
    }
}

// Once the head of a response was forwarded, nothing is sent again, whatever breaks.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_resent_once_a_response_has_begun() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let half = move |mut socket: TcpStream| {
        let counter = Arc::clone(&counter);
        async move {
            if read_request(&mut socket).await.is_some() {
                counter.fetch_add(1, Ordering::SeqCst);
                let _ =
                    socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await;
            }
        }
    };
    let upstreams = [RawUpstream::start(half.clone()).await, RawUpstream::start(half).await];
    let fixture = before(&[upstreams[0].url(), upstreams[1].url()], &[]).await;
    for round in 1..=5 {
        let answer = fixture.client().try_send(Method::GET, QUERY, "").await;
        assert!(answer.is_err(), "{answer:?}");
        assert_eq!(asked.load(Ordering::SeqCst), round);
    }
}

// All kept bodies of a worker together are bounded: beyond that, bodies are forwarded and not kept.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_above_the_bound_are_forwarded_and_not_kept() {
    let fakes = [FakeMimir::start_in(Mode::Break).await, FakeMimir::start_in(Mode::Break).await];
    let fixture = before(
        &[fakes[0].url(), fakes[1].url()],
        &[
            ("upstream.replay_buffer_bytes", "\"1KiB\""),
            ("upstream.replay_total_bytes", "\"1KiB\""),
        ],
    )
    .await;
    assert_eq!(fixture.client().post(PUSH, random(1000)).await.status, 503);
    assert_eq!(fakes[0].requests() + fakes[1].requests(), 2, "kept, and so repeated");
    assert_eq!(fixture.client().post(PUSH, random(2000)).await.status, 503);
    assert_eq!(fakes[0].requests() + fakes[1].requests(), 3, "not kept");
}

// Many small pushes wait for a response concurrently: their replay buffers are bounded.
#[tokio::test(flavor = "multi_thread")]
async fn replay_buffers_take_little_memory() {
    const AT_ONCE: usize = 400;
    let mut grown = Vec::new();
    for buffer in ["\"0B\"", "\"128KiB\""] {
        let fake = FakeMimir::start_in(Mode::Slow(Duration::from_secs(2))).await;
        let fixture = before(
            &[fake.url()],
            &[
                ("upstream.replay_buffer_bytes", buffer),
                ("upstream.replay_total_bytes", "\"8MiB\""),
            ],
        )
        .await;
        let before = fixture.proxy.process.peak_memory();
        let mut pushing = tokio::task::JoinSet::new();
        for _ in 0..AT_ONCE {
            let client = fixture.client();
            pushing.spawn(async move { client.post(PUSH, vec![b'x'; 100_000]).await.status });
        }
        assert!(pushing.join_all().await.iter().all(|status| *status == 200));
        grown.push((fixture.proxy.process.peak_memory() - before) >> 20);
    }
    println!("{AT_ONCE} pushes of 100 kB: grown by {grown:?} MiB without and with keeping 8 MiB");
    assert!(grown[1] < grown[0] + 40, "{grown:?}");
}

// A real Mimir behind two relays that are cut in turn while samples are written: each push that
// succeeded is stored, and none was rejected as a duplicate.
#[tokio::test(flavor = "multi_thread")]
async fn no_sample_is_lost_or_refused_while_connections_to_a_real_mimir_break() {
    let (mimir, issuer) = (Mimir::shared().await, Issuer::start().await);
    let direct = ([127, 0, 0, 1], mimir.port()).into();
    let ways = [ChaosProxy::start(direct).await, ChaosProxy::start(direct).await];
    let proxy = ProxyOptions::new(&issuer.url(), &ways[0].url())
        .upstream(&ways[1].url())
        .set("listen.workers", "2")
        .set("upstream.ready_interval", "\"200ms\"")
        .set("upstream.eject_min", "\"200ms\"")
        .set("upstream.eject_max", "\"400ms\"")
        .set("upstream.retry_percent", "100")
        .start()
        .await;
    let organisation = harness::fresh_organisation();
    let client = proxy.client().bearer(&issuer.user_of(&organisation));
    let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..6 {
        let (over, client) = (Arc::clone(&over), client.clone());
        let client = client.header("content-type", "application/x-protobuf");
        let client = client.header("content-encoding", "snappy");
        senders.spawn(async move {
            let mut sent = 0;
            while !over.load(Ordering::SeqCst) {
                let series = format!("{sender}-{sent}");
                let body = samples::remote_write("survives", &[("series", &series)], 1.0);
                let answer = client.post(PUSH, body).await;
                assert_eq!(answer.status, 200, "{series}: {answer:?}");
                sent += 1;
            }
            sent
        });
    }
    for round in 0..6 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        ways[round % 2].cut();
        tokio::time::sleep(Duration::from_millis(500)).await;
        ways[round % 2].calm();
    }
    over.store(true, Ordering::SeqCst);
    let sent: usize = senders.join_all().await.into_iter().sum();
    for reason in ["unreachable", "stale", "broken"] {
        let name = "mimir_tenant_proxy_upstream_retries_total";
        println!("{reason}: {}", proxy.metric(&format!("{name}{{reason=\"{reason}\"}}")).await);
    }
    println!("{sent} pushes");
    let (count, sent) = ("/prometheus/api/v1/query?query=count(survives)", sent.to_string());
    wait_until("every sample is there", Duration::from_secs(30), async || {
        client.get(count).await.json()["data"]["result"][0]["value"][1] == sent.as_str()
    })
    .await;
}

// Mimir closes a connection without an answer when its `server.http-write-timeout` is over, which by default is as long
// as a query may take. Elsewhere the query would take as long again; and one organisation's slow queries had instances
// ejected.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_ends_its_connection_late_is_sent_once_and_ejects_nothing() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let slow = RawUpstream::start(move |mut socket| {
        let counter = Arc::clone(&counter);
        async move {
            if read_request(&mut socket).await.is_some() {
                counter.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(1500)).await;
            }
        }
    })
    .await;
    let good = FakeMimir::start().await;
    let settings = [
        ("upstream.eject_after", "1"),
        ("upstream.retry_percent", "100"),
        ("upstream.response_timeout", "\"5s\""),
    ];
    let fixture = before(&[slow.url(), good.url()], &settings).await;
    let answers = futures_util::future::join_all((0..12).map(|_| {
        let client = fixture.client();
        async move { client.get(QUERY).await.status.as_u16() }
    }))
    .await;
    let late = asked.load(Ordering::SeqCst);
    assert!((1..12).contains(&late), "{late}");
    assert_eq!(answers.iter().filter(|status| **status >= 500).count(), late, "{answers:?}");
    assert_eq!(good.requests(), 12 - late, "none is sent twice");
    assert!(!fixture.ejected().await);
}

// By OTLP senders come back after 429, 502, 503 and 504 only, and Mimir answers 503 for any fault of its own: another
// status is of something in between.
#[tokio::test(flavor = "multi_thread")]
async fn no_status_of_5xx_has_otlp_senders_drop_their_data() {
    let upstream = FakeMimir::start().await;
    let fixture = before(&[upstream.url()], &[]).await;
    let client = fixture.client().header("content-type", "application/x-protobuf");
    for status in [500, 501, 502, 503, 504, 505, 511, 529] {
        upstream.set(Mode::Status(status, TEXT));
        let answer = client.post("/otlp/v1/metrics", "x").await;
        assert!([502, 503, 504].contains(&answer.status.as_u16()), "{status}: {answer:?}");
        if answer.status != status {
            assert!(!answer.header("retry-after").is_empty(), "{status}: {answer:?}");
        }
        // By remote write every 5xx is tried again, and passes as it is.
        let answer = fixture.client().post(PUSH, "x").await;
        assert!(answer.status.is_server_error(), "{status}: {answer:?}");
    }
}
