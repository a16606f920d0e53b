//! Bodies: backpressure, cancellation, failures, memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use harness::{Client, ORG_A, RawUpstream, Received, Upstream, raw_exchange, wait_until};
use http::{Method, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::responses::{full, ok};
use crate::support::single::{MIB, PUSH, QUERY, count, pieces, proxy_fixture};

const GIB_LIMIT: (&str, &str) = ("limits.push_body_bytes", "\"2GiB\"");

// A gibibyte each way, in pieces: memory grows by less than 8 MiB.
#[tokio::test(flavor = "multi_thread")]
async fn a_gibibyte_each_way_takes_no_memory() {
    const PIECES: usize = 1024;
    let upstream = Upstream::start(|request: Received| async move {
        if request.method == "POST" {
            return count(request).await;
        }
        let frames = pieces(PIECES, MIB).map(|piece| piece.map(Frame::data));
        Response::new(BodyExt::boxed(StreamBody::new(frames)))
    })
    .await;
    let fixture = proxy_fixture(&upstream.url(), &[GIB_LIMIT]).await;
    assert_eq!(fixture.client().get("/api/v1/user_stats").await.status, 200); // warm: pools, caches
    let before = fixture.proxy.process.peak_memory();
    let up = fixture.client().post(PUSH, reqwest::Body::wrap_stream(pieces(PIECES, MIB))).await;
    assert_eq!(up.text, (PIECES * MIB).to_string());
    let after_up = fixture.proxy.process.peak_memory();
    let down = fixture.client().open(Method::GET, QUERY, "").await;
    let mut received = 0;
    let mut body = down.bytes_stream();
    while let Some(piece) = body.next().await {
        received += piece.unwrap().len();
    }
    assert_eq!(received, PIECES * MIB);
    let after_down = fixture.proxy.process.peak_memory();
    let grown = |from: u64, to: u64| to.saturating_sub(from) / 1024;
    println!(
        "memory grew by {} KiB up and {} KiB down",
        grown(before, after_up),
        grown(after_up, after_down)
    );
    assert!(after_down - before < 8 * MIB as u64, "{before} -> {after_up} -> {after_down}");
}

// Backpressure: what the reader does not accept is not read from the upstream, and in the other
// direction.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_slows_the_upstream() {
    let produced = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&produced);
    let upstream = Upstream::start(move |_: Received| {
        let counter = Arc::clone(&counter);
        async move {
            let frames = pieces(256, MIB).map(move |piece| {
                counter.fetch_add(1, Ordering::Relaxed);
                piece.map(Frame::data)
            });
            Response::new(BodyExt::boxed(StreamBody::new(frames)))
        }
    })
    .await;
    let fixture = proxy_fixture(&upstream.url(), &[]).await;
    let answer = fixture.client().open(Method::GET, QUERY, "").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after_one_second = produced.load(Ordering::Relaxed);
    // The kernel buffers of two connections have some MiB; 256 would be all.
    assert!(after_one_second < 64, "{after_one_second} MiB were read ahead");
    assert_eq!(answer.bytes().await.unwrap().len(), 256 * MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_upstream_slows_the_sender() {
    let upstream = RawUpstream::start(|socket| async move {
        tokio::time::sleep(Duration::from_secs(30)).await;
        drop(socket);
    })
    .await;
    let fixture = proxy_fixture(&upstream.url(), &[GIB_LIMIT]).await;
    let sent = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent);
    let body = pieces(256, MIB).inspect(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let client = fixture.client();
    let sending = tokio::spawn(async move {
        client.try_send(Method::POST, PUSH, reqwest::Body::wrap_stream(body)).await
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(sent.load(Ordering::Relaxed) < 64, "{sent:?} MiB were taken and not passed on");
    sending.abort();
}

/// An upstream that records connections that end before it has answered.
async fn waiting_upstream() -> (RawUpstream, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (begun, cut) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counters = (Arc::clone(&begun), Arc::clone(&cut));
    let upstream = RawUpstream::start(move |mut socket| {
        let (begun, cut) = (Arc::clone(&counters.0), Arc::clone(&counters.1));
        async move {
            let mut buffer = [0; 4096];
            let mut first = true;
            while let Ok(length) = socket.read(&mut buffer).await {
                if std::mem::take(&mut first) {
                    begun.fetch_add(1, Ordering::SeqCst);
                }
                if length == 0 {
                    break;
                }
            }
            cut.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    (upstream, begun, cut)
}

// A dashboard that is closed must not leave its query running (VictoriaMetrics#10318 marked all
// back ends down on it).
#[tokio::test(flavor = "multi_thread")]
async fn client_disconnect_cancels_upstream() {
    let (upstream, begun, cut) = waiting_upstream().await;
    let fixture = proxy_fixture(&upstream.url(), &[]).await;
    for client in [Client::new(&fixture.proxy.url()), Client::h2c(&fixture.proxy.url())] {
        let before = cut.load(Ordering::SeqCst);
        let client = client.bearer(&fixture.issuer.user_of(ORG_A));
        let request = tokio::spawn(async move { client.get(QUERY).await });
        wait_until("the request is upstream", Duration::from_secs(5), async || {
            begun.load(Ordering::SeqCst) > before
        })
        .await;
        request.abort();
        wait_until("upstream is cancelled", Duration::from_secs(2), async || {
            cut.load(Ordering::SeqCst) > before
        })
        .await;
    }
    wait_until("it is counted", Duration::from_secs(2), async || {
        let cancelled = "mimir_tenant_proxy_requests_total{surface=\"query\",outcome=\"cancelled\",reason=\"client_gone\"}";
        fixture.proxy.metric(cancelled).await >= 2.0
    })
    .await;
}

/// The states of the connections to a port of this machine, but for those that are open or listen.
fn ending(port: u16) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{port:04X}");
    let state = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_one = fields[1].ends_with(&port) || fields[2].ends_with(&port);
        (is_one && !matches!(fields[3], "01" | "0A")).then(|| fields[3].to_owned())
    };
    table.lines().skip(1).filter_map(state).collect()
}

/// Waits until the connections to a port have ended for a second. None may keep its own port for a minute
/// (`TIME_WAIT`), which it does only when the other side has closed, too.
async fn assert_no_port_is_kept(port: u16) {
    let mut ended_since = tokio::time::Instant::now();
    wait_until("the connections have ended", Duration::from_secs(10), async || {
        let states = ending(port);
        assert!(!states.iter().any(|state| state == "06"), "{states:?}");
        if !states.is_empty() {
            ended_since = tokio::time::Instant::now();
        }
        ended_since.elapsed() >= Duration::from_secs(1)
    })
    .await;
}

// Who cancels requests faster than ports become free again would have all that there are to an instance.
#[tokio::test(flavor = "multi_thread")]
async fn cancelled_requests_keep_no_ports() {
    let (upstream, begun, cut) = waiting_upstream().await;
    let fixture = proxy_fixture(&upstream.url(), &[]).await;
    let port = upstream.url().rsplit_once(':').unwrap().1.parse().unwrap();
    let client = Client::h2c(&fixture.proxy.url()).bearer(&fixture.issuer.user_of(ORG_A));
    let client = Arc::new(client);
    let asked = || {
        let client = Arc::clone(&client);
        tokio::spawn(async move { client.get(QUERY).await })
    };
    let requests: Vec<_> = (0..20).map(|_| asked()).collect();
    wait_until("the requests are upstream", Duration::from_secs(10), async || {
        begun.load(Ordering::SeqCst) == 20
    })
    .await;
    for request in requests {
        request.abort();
    }
    wait_until("they are cancelled", Duration::from_secs(10), async || {
        cut.load(Ordering::SeqCst) == 20
    })
    .await;
    assert_no_port_is_kept(port).await;
}

// A sender disconnects in the middle of its body: Mimir must not take the part for the whole.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_body_is_never_complete_upstream() {
    let completed = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&completed);
    let upstream = Upstream::start(move |request: Received| {
        let counter = Arc::clone(&counter);
        async move {
            if request.body.unwrap().collect().await.is_ok() {
                counter.fetch_add(1, Ordering::SeqCst);
            }
            Response::new(full(""))
        }
    })
    .await;
    let fixture = proxy_fixture(&upstream.url(), &[]).await;
    let address = fixture.proxy.url().replace("http://", "");
    // Longer than what is read before the request is sent.
    for (at, (framing, half)) in [
        ("Content-Length: 1000000\r\n", "x".repeat(100_000)),
        ("Transfer-Encoding: chunked\r\n", format!("186a0\r\n{}\r\n", "x".repeat(100_000))),
    ]
    .into_iter()
    .enumerate()
    {
        let mut socket = tokio::net::TcpStream::connect(&address).await.unwrap();
        socket.write_all(fixture.head("POST /api/v1/push", framing).as_bytes()).await.unwrap();
        socket.write_all(half.as_bytes()).await.unwrap();
        wait_until("upstream has the head", Duration::from_secs(5), async || {
            upstream.heads().len() > at
        })
        .await;
        drop(socket);
    }
    wait_until("both are upstream", Duration::from_secs(5), async || upstream.heads().len() == 2)
        .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(completed.load(Ordering::SeqCst), 0);
}

/// Answers every request with raw bytes and closes.
async fn raw_answers(answer: &'static str) -> RawUpstream {
    RawUpstream::start(move |mut socket| async move {
        let mut buffer = [0; 8192];
        let _ = socket.read(&mut buffer).await;
        let _ = socket.write_all(answer.as_bytes()).await;
        let _ = socket.shutdown().await;
    })
    .await
}

// A truncated response must never look like a short complete one: half a query result is a wrong
// result.
#[tokio::test(flavor = "multi_thread")]
async fn upstream_failure_in_the_middle_ends_the_clients_stream_as_an_error() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"status\":\"succ",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{\"status\":\"succe\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{\"status\":\"succe\r\nnonsense\r\n",
    ] {
        let upstream = raw_answers(answer).await;
        let fixture = proxy_fixture(&upstream.url(), &[]).await;
        for client in [Client::new(&fixture.proxy.url()), Client::h2c(&fixture.proxy.url())] {
            let answer = client
                .bearer(&fixture.issuer.user_of(ORG_A))
                .try_send(Method::GET, QUERY, "")
                .await;
            assert!(answer.is_err(), "{answer:?}");
        }
        let failed = "mimir_tenant_proxy_requests_total{surface=\"query\",outcome=\"failed\",reason=\"upstream_broken_body\"}";
        wait_until("it is counted", Duration::from_secs(2), async || {
            fixture.proxy.metric(failed).await == 2.0
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_pauses_for_too_long_ends_the_stream_as_an_error() {
    let upstream = RawUpstream::start(|mut socket| async move {
        let _ = socket.read(&mut [0; 8192]).await;
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf").await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    })
    .await;
    let fixture = proxy_fixture(&upstream.url(), &[("upstream.idle_timeout", "\"500ms\"")]).await;
    let began = Instant::now();
    let error = fixture.client().try_send(Method::GET, QUERY, "").await.unwrap_err();
    assert!(!error.is_timeout() && began.elapsed() < Duration::from_secs(5), "{error:?}");
    let failed = "mimir_tenant_proxy_requests_total{surface=\"query\",outcome=\"failed\",reason=\"upstream_idle_body\"}";
    wait_until("it is counted", Duration::from_secs(2), async || {
        fixture.proxy.metric(failed).await == 1.0
    })
    .await;
}

// A body above its limit is a 413 and never reaches Mimir completely, with and without
// Content-Length.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_its_cap_is_a_413() {
    let upstream = Upstream::start(count).await;
    let fixture = proxy_fixture(
        &upstream.url(),
        &[("limits.push_body_bytes", "\"64KiB\""), ("limits.query_body_bytes", "\"1KiB\"")],
    )
    .await;
    let client = fixture.client();
    let announced = client.post(PUSH, vec![0; 65 * 1024]).await;
    assert_eq!(announced.status, 413, "{announced:?}");
    assert!(announced.text.contains("65536"), "{announced:?}");
    assert!(upstream.heads().is_empty());
    let chunked = client.post(PUSH, reqwest::Body::wrap_stream(pieces(65, 1024))).await;
    assert_eq!(chunked.status, 413, "{chunked:?}");
    let form = client.post_form("/prometheus/api/v1/query", &"x".repeat(2000)).await;
    assert_eq!((form.status.as_u16(), form.json()["errorType"].as_str()), (413, Some("bad_data")));
    let fits = client.post(PUSH, reqwest::Body::wrap_stream(pieces(64, 1024))).await;
    assert_eq!((fits.status.as_u16(), fits.text.as_str()), (200, "65536"));
    let get_with_body = client.send(Method::GET, "/prometheus/api/v1/metadata", "body").await;
    assert_eq!(get_with_body.status, 400, "{get_with_body:?}");
}

// Mimir may answer before the end of the body (429): the response is forwarded, the connection is
// not reused.
#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_passes_while_the_body_is_still_coming() {
    let upstream = RawUpstream::start(|mut socket| async move {
        let _ = socket.read(&mut [0; 1024]).await;
        let answer =
            "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 17\r\nContent-Length: 4\r\n\r\nslow";
        let _ = socket.write_all(answer.as_bytes()).await;
        let mut rest = [0; 65536];
        while socket.read(&mut rest).await.is_ok_and(|length| length > 0) {}
    })
    .await;
    let fixture = proxy_fixture(&upstream.url(), &[]).await;
    for _ in 0..3 {
        let head =
            fixture.head("POST /api/v1/push", "Content-Length: 5000000\r\n") + &"x".repeat(100_000);
        let answer = raw_exchange(&fixture.proxy.url(), head.as_bytes()).await;
        assert!(
            answer.starts_with("HTTP/1.1 429 ")
                && answer.contains("retry-after: 17")
                && answer.ends_with("slow"),
            "{answer}"
        );
    }
}

// A rejected sender is still sending: it must receive the response and not a reset, or it retries
// for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_sender_sees_the_refusal() {
    let upstream = Upstream::start(count).await;
    let fixture = proxy_fixture(&upstream.url(), &[]).await;
    for size in [100, 60_000, 900_000] {
        let answer = fixture.proxy.client().bearer("garbage").post(PUSH, vec![0; size]).await;
        assert_eq!(answer.status, 401, "{size}");
    }
    assert!(upstream.heads().is_empty());
}

// We answer Expect: 100-continue ourselves, and only to authorised callers.
#[tokio::test(flavor = "multi_thread")]
async fn continue_is_sent_only_to_authorised_callers() {
    let upstream = Upstream::start(count).await;
    let fixture = proxy_fixture(&upstream.url(), &[]).await;
    let expect = "Expect: 100-continue\r\nContent-Length: 4\r\nConnection: close\r\n";
    let welcome = raw_exchange(
        &fixture.proxy.url(),
        (fixture.head("POST /api/v1/push", expect) + "body").as_bytes(),
    )
    .await;
    assert!(welcome.starts_with("HTTP/1.1 100 ") && welcome.contains("HTTP/1.1 200 "), "{welcome}");
    assert!(!upstream.heads()[0].headers.contains_key("expect"));
    let stranger = format!("POST /api/v1/push HTTP/1.1\r\nHost: x\r\n{expect}\r\n");
    let refused = raw_exchange(&fixture.proxy.url(), stranger.as_bytes()).await;
    assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
}

// Trailers pass in both directions where HTTP/1.1 has them, without the forbidden ones.
#[tokio::test(flavor = "multi_thread")]
async fn trailers_pass_in_both_directions() {
    let seen = Arc::new(std::sync::Mutex::new(None));
    let kept = Arc::clone(&seen);
    let upstream = Upstream::start(move |request: Received| {
        let kept = Arc::clone(&kept);
        async move {
            let body = request.body.unwrap().collect().await.unwrap();
            *kept.lock().unwrap() = body.trailers().cloned();
            let trailers: http::HeaderMap = [("x-answer", "yes")]
                .iter()
                .map(|(n, v)| (n.parse::<http::HeaderName>().unwrap(), v.parse().unwrap()))
                .collect();
            let frames =
                [Ok(Frame::data(Bytes::from_static(b"done"))), Ok(Frame::trailers(trailers))];
            Response::builder()
                .header("trailer", "x-answer")
                .body(BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames))))
                .unwrap()
        }
    })
    .await;
    let fixture = proxy_fixture(&upstream.url(), &[]).await;
    let headers = "Transfer-Encoding: chunked\r\nTrailer: X-Checksum, X-Scope-OrgID\r\nTE: trailers\r\nConnection: close, TE\r\n";
    let body = "4\r\nbody\r\n0\r\nX-Checksum: 7\r\nX-Scope-OrgID: other\r\n\r\n";
    let answer = raw_exchange(
        &fixture.proxy.url(),
        (fixture.head("POST /api/v1/push", headers) + body).as_bytes(),
    )
    .await;
    assert!(answer.contains("x-answer: yes"), "{answer}");
    let trailers = seen.lock().unwrap().clone().expect("trailers upstream");
    assert_eq!((trailers.len(), trailers["x-checksum"].to_str().unwrap()), (1, "7"));
}

// The compression of a body is end to end.
#[tokio::test(flavor = "multi_thread")]
async fn encodings_pass_untouched() {
    let upstream = Upstream::start(|request: Received| async move {
        let encoding = request.headers["content-encoding"].clone();
        let body = request.body.unwrap().collect().await.unwrap().to_bytes();
        Response::builder().header("content-encoding", encoding).body(full(body)).unwrap()
    })
    .await;
    let fixture = proxy_fixture(&upstream.url(), &[]).await;
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    // A remote read is checked, and its own compression is one.
    let read = harness::samples::remote_read("up");
    for encoding in ["zstd", "snappy", "gzip", "deflate"] {
        for (target, body) in [(PUSH, &bytes), ("/prometheus/api/v1/read", &read)] {
            let client = fixture.client().header("content-encoding", encoding);
            let answer = client.post(target, body.clone()).await;
            assert_eq!(answer.header("content-encoding"), encoding);
            assert_eq!(answer.body, *body, "{encoding} {target}");
        }
    }
}

// RFC 9110, 9.3.2: a response to HEAD has no body; for HTTP/2 clients one breaks the stream.
#[tokio::test(flavor = "multi_thread")]
async fn head_is_refused_without_a_body() {
    let upstream = Upstream::start(ok).await;
    let fixture = proxy_fixture(&upstream.url(), &[]).await;
    for client in [Client::new(&fixture.proxy.url()), Client::h2c(&fixture.proxy.url())] {
        for (target, status) in [(QUERY, 405), ("/nothing", 404)] {
            let answer = client.try_send(Method::HEAD, target, "").await.expect("an answer");
            assert_eq!((answer.status.as_u16(), answer.text.as_str()), (status, ""));
        }
    }
    let counted = "mimir_tenant_proxy_requests_total{surface=\"none\",outcome=\"rejected\",reason=\"method_not_allowed\"}";
    assert_eq!(fixture.proxy.metric(counted).await, 2.0);
}

// Chunked and far above its limit: the client receives the response, not a reset.
#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_body_far_over_its_cap_sees_the_413() {
    let upstream = Upstream::start(count).await;
    let fixture = proxy_fixture(&upstream.url(), &[("limits.push_body_bytes", "\"64KiB\"")]).await;
    for _ in 0..5 {
        let answer = fixture.client().post(PUSH, reqwest::Body::wrap_stream(pieces(4, MIB))).await;
        assert_eq!(answer.status, 413, "{answer:?}");
    }
}
