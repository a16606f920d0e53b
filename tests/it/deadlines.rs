//! Deadlines: slow clients, idle connections, the end of the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use harness::{Client, ORG_A, Received, Upstream, raw_exchange_to_end, wait_until};
use http::{Method, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::responses::ok;
use crate::support::single::{MIB, ProxyFixture, QUERY, count, pieces, proxy_fixture};

mod drain;
pub(crate) mod frames;
mod leaving;
mod table;

async fn connect(fixture: &ProxyFixture) -> TcpStream {
    TcpStream::connect(fixture.proxy.url().replace("http://", "")).await.unwrap()
}

async fn ended(fixture: &ProxyFixture, reason: &str) -> f64 {
    let series = format!("mimir_tenant_proxy_connections_ended_total{{reason=\"{reason}\"}}");
    fixture.proxy.metric(&series).await
}

// A slow head only closes the connection (after a 408, stock senders drop what they send next on
// it), and so does an idle connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_head_just_closes_and_so_does_an_idle_connection() {
    let upstream = Upstream::start(ok).await;
    let fixture = proxy_fixture(
        &upstream.url(),
        &[("listen.header_timeout", "\"400ms\""), ("listen.idle_timeout", "\"800ms\"")],
    )
    .await;
    let answer = raw_exchange_to_end(
        &fixture.proxy.url(),
        b"GET /prometheus/api/v1/query HTTP/1.1\r\nHost: x\r\nX-Slow",
    )
    .await;
    assert_eq!(answer, "");
    let idle = raw_exchange_to_end(&fixture.proxy.url(), b"").await;
    assert_eq!(idle, "");
    wait_until("the idle one is counted", Duration::from_secs(2), async || {
        ended(&fixture, "idle_timeout").await == 1.0
    })
    .await;
    // A kept connection: one request, a pause within the idle timeout, a second one, then the end.
    let mut socket = connect(&fixture).await;
    let mut buffer = [0; 4096];
    for _ in 0..2 {
        socket.write_all(fixture.head(&format!("GET {QUERY}"), "").as_bytes()).await.unwrap();
        let length = socket.read(&mut buffer).await.unwrap();
        assert!(buffer[..length].starts_with(b"HTTP/1.1 200 "));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // Half a head after whole requests is a slow head, too.
    socket.write_all(b"GET /half").await.unwrap();
    let began = Instant::now();
    assert_eq!(socket.read(&mut buffer).await.unwrap(), 0);
    assert!(began.elapsed() < Duration::from_secs(2));
    wait_until("it is counted", Duration::from_secs(2), async || {
        ended(&fixture, "header_timeout").await == 2.0
    })
    .await;
}

// RFC 9112, 2.2: an empty line between requests is ignored; it does not begin a head, and the next
// request is served.
#[tokio::test(flavor = "multi_thread")]
async fn empty_lines_between_requests_are_ignored() {
    let upstream = Upstream::start(count).await;
    let fixture = proxy_fixture(&upstream.url(), &[("listen.header_timeout", "\"300ms\"")]).await;
    let mut socket = connect(&fixture).await;
    let push = fixture.head("POST /api/v1/push", "Content-Length: 4\r\n") + "body";
    let mut buffer = [0; 4096];
    for breaks in ["", "\r\n", "\n", "\r\n\r\n"] {
        // Some clients send them with the body, some later.
        socket.write_all(push.as_bytes()).await.unwrap();
        socket.write_all(breaks.as_bytes()).await.unwrap();
        let length = socket.read(&mut buffer).await.unwrap();
        assert!(buffer[..length].starts_with(b"HTTP/1.1 200 "), "{breaks:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
        socket.write_all(breaks.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    assert_eq!(upstream.heads().len(), 4);
}

// Unauthenticated connections that do not read lose their slots.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_do_not_exhaust_connections() {
    let upstream = Upstream::start(ok).await;
    let fixture = proxy_fixture(
        &upstream.url(),
        &[("listen.write_timeout", "\"1s\""), ("listen.max_connections", "3")],
    )
    .await;
    let requests = "GET /n HTTP/1.1\r\nHost: x\r\n\r\n".repeat(50_000);
    let mut held = Vec::new();
    for _ in 0..3 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let address = fixture.proxy.url().replace("http://", "").parse().unwrap();
        let mut socket = socket.connect(address).await.unwrap();
        let sending = socket.write_all(requests.as_bytes());
        let _ = tokio::time::timeout(Duration::from_millis(100), sending).await;
        held.push(socket);
    }
    let began = Instant::now();
    assert_eq!(fixture.client().get(QUERY).await.status, 200);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

// Slow read: a client that requests much and reads nothing must not hold a connection to Mimir.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_cut_off() {
    let upstream = Upstream::start(|_| async {
        let frames = pieces(256, MIB).map(|piece| piece.map(Frame::data));
        Response::new(BodyExt::boxed(StreamBody::new(frames)))
    })
    .await;
    let fixture = proxy_fixture(&upstream.url(), &[("listen.write_timeout", "\"500ms\"")]).await;
    let address = fixture.proxy.url().replace("http://", "");
    let mut socket = TcpStream::connect(&address).await.unwrap();
    socket.write_all(fixture.head(&format!("GET {QUERY}"), "").as_bytes()).await.unwrap();
    let ended = "mimir_tenant_proxy_connections_ended_total{reason=\"write_timeout\"}";
    wait_until("it is cut off", Duration::from_secs(5), async || {
        fixture.proxy.metric(ended).await == 1.0
    })
    .await;
    // A slow reader gets everything.
    let answer = fixture.client().open(Method::GET, QUERY, "").await;
    let mut body = answer.bytes_stream();
    let mut received = 0;
    while let Some(piece) = body.next().await {
        received += piece.unwrap().len();
        if received < 20 * MIB {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    assert_eq!(received, 256 * MIB);
}

// HTTP/2 has frames between requests (PING, SETTINGS): they do not begin a head, and the connection
// lives until its idle timeout.
#[tokio::test(flavor = "multi_thread")]
async fn frames_between_requests_begin_no_head() {
    let upstream = Upstream::start(ok).await;
    let fixture = proxy_fixture(&upstream.url(), &[("listen.header_timeout", "\"200ms\"")]).await;
    let address = fixture.proxy.url().replace("http://", "");
    let mut socket = TcpStream::connect(&address).await.unwrap();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let ping = [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], b"pingping"].concat();
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    socket.write_all(&settings).await.unwrap();
    let mut pongs = 0;
    let mut buffer = [0; 4096];
    for _ in 0..3 {
        socket.write_all(&ping).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let length = socket.read(&mut buffer).await.unwrap();
        pongs += buffer[..length].windows(8).filter(|bytes| bytes == b"pingping").count();
    }
    assert_eq!(pongs, 3);
}

// CVE-2019-9512 and similar. The client reads all answers, so no other deadline ends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_pings_ends_its_connection() {
    let upstream = Upstream::start(ok).await;
    let fixture = proxy_fixture(&upstream.url(), &[]).await;
    let (mut reading, mut writing) = connect(&fixture).await.into_split();
    let drained = tokio::spawn(async move {
        let mut buffer = vec![0; 64 << 10];
        while reading.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
    });
    let opening = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    writing.write_all(&opening).await.unwrap();
    let pings = [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], b"pingping"].concat().repeat(1000);
    let mut sent = 0;
    while writing.write_all(&pings).await.is_ok() {
        sent += 1000;
        assert!(sent < 1_000_000, "it goes on for ever");
    }
    drained.await.unwrap();
    assert!(sent > 20_000, "{sent}");
    wait_until("its end is counted", Duration::from_secs(5), async || {
        ended(&fixture, "protocol_error").await == 1.0
    })
    .await;
}

// A long query is not an idle connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_keeps_its_connection() {
    let upstream = Upstream::start(|request: Received| async move {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        ok(request).await
    })
    .await;
    let fixture = proxy_fixture(
        &upstream.url(),
        &[("listen.header_timeout", "\"300ms\""), ("listen.idle_timeout", "\"500ms\"")],
    )
    .await;
    assert_eq!(fixture.client().get(QUERY).await.status, 200);
    let h2c = Client::h2c(&fixture.proxy.url()).bearer(&fixture.issuer.user_of(ORG_A));
    assert_eq!(h2c.get(QUERY).await.status, 200);
}

// hyper does not poll the socket after a response: only our own timer ends an idle connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_idle_after_a_request_ends() {
    let upstream = Upstream::start(ok).await;
    let fixture = proxy_fixture(&upstream.url(), &[("listen.idle_timeout", "\"600ms\"")]).await;
    let mut socket = connect(&fixture).await;
    let mut buffer = [0; 4096];
    for request in
        [fixture.head(&format!("GET {QUERY}"), ""), "GET /x HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()]
    {
        socket.write_all(request.as_bytes()).await.unwrap();
        assert!(socket.read(&mut buffer).await.unwrap() > 0);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let rest = tokio::time::timeout(Duration::from_secs(3), socket.read(&mut buffer)).await;
    assert_eq!(rest.expect("the connection ends").unwrap_or(0), 0);
    wait_until("it is counted", Duration::from_secs(2), async || {
        ended(&fixture, "idle_timeout").await == 1.0
    })
    .await;
}

// The body of a rejected request that arrives after the response is not a head.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_after_its_rejection_is_not_a_slow_head() {
    let upstream = Upstream::start(ok).await;
    let fixture = proxy_fixture(&upstream.url(), &[("listen.header_timeout", "\"300ms\"")]).await;
    let mut socket = connect(&fixture).await;
    let mut buffer = [0; 4096];
    let head = "POST /api/v1/push HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\nContent-Length: 8\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    assert!(socket.read(&mut buffer).await.unwrap() > 0);
    for half in [b"half", b"half"] {
        socket.write_all(half).await.unwrap();
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    socket.write_all(fixture.head(&format!("GET {QUERY}"), "").as_bytes()).await.unwrap();
    let length = socket.read(&mut buffer).await.unwrap();
    assert!(
        buffer[..length].starts_with(b"HTTP/1.1 200 "),
        "{}",
        String::from_utf8_lossy(&buffer[..length])
    );
}

// HTTP/2 without flow-control credit: the socket accepts bytes, the stream does not, and the client
// needs no token. Only the stream is reset.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_credit_is_reset() {
    let upstream = Upstream::start(ok).await;
    let fixture = proxy_fixture(&upstream.url(), &[("listen.write_timeout", "\"500ms\"")]).await;
    let mut socket = connect(&fixture).await;
    // SETTINGS with INITIAL_WINDOW_SIZE 0, then HEADERS: GET http / (of the static table).
    let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0];
    let request = [0, 0, 3, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84];
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    socket.write_all(&[&settings[..], &request].concat()).await.unwrap();
    wait_until("it is reset", Duration::from_secs(3), async || {
        fixture.proxy.metric("mimir_tenant_proxy_streams_reset_total").await == 1.0
    })
    .await;
    assert!(ended(&fixture, "write_timeout").await < 1.0);
}

// Before, 30,000 PING acknowledgements made h2 log as many warnings, 4 MB, which pushed out other
// lines.
#[tokio::test(flavor = "multi_thread")]
async fn a_clients_frames_write_no_log_lines() {
    let upstream = Upstream::start(ok).await;
    let fixture = proxy_fixture(&upstream.url(), &[]).await;
    let mut socket = connect(&fixture).await;
    let log = || fixture.proxy.process.log();
    wait_until("it says that it serves", Duration::from_secs(5), async || {
        log().contains("Serving")
    })
    .await;
    let before = log().lines().count();
    socket.write_all(&frames::opening(1 << 16)).await.unwrap();
    let acknowledged = frames::frame(6, 1, 0, &[0; 8]).repeat(2_000);
    socket.write_all(&acknowledged).await.unwrap();
    // The connection is alive and has read all of them: it answers a PING.
    socket.write_all(&frames::frame(6, 0, 0, b"12345678")).await.unwrap();
    let mut answers = Vec::new();
    while !answers.windows(8).any(|eight| eight == b"12345678") {
        let mut buffer = [0; 1024];
        let read = tokio::time::timeout(Duration::from_secs(5), socket.read(&mut buffer)).await;
        let length = read.expect("a PING is answered").unwrap();
        assert!(length > 0, "the connection has ended");
        answers.extend_from_slice(&buffer[..length]);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let log = log();
    assert!(log.lines().count() <= before + 1, "{log}");
}

// hyper only reports that h2 ended the connection. RST_STREAM on an idle stream is a connection
// error (RFC 9113, 5.1).
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_http_2_connection_is_a_protocol_error() {
    let upstream = Upstream::start(ok).await;
    let fixture = proxy_fixture(&upstream.url(), &[]).await;
    let mut socket = connect(&fixture).await;
    socket.write_all(&frames::opening(1 << 16)).await.unwrap();
    socket.write_all(&frames::frame(3, 0, 7, &[0, 0, 0, 8])).await.unwrap();
    wait_until("it is counted", Duration::from_secs(3), async || {
        ended(&fixture, "protocol_error").await == 1.0
    })
    .await;
}

// HTTP/1.0 ends a body by closing: a truncated response must end with a reset.
#[tokio::test(flavor = "multi_thread")]
async fn half_an_answer_to_http_1_0_ends_by_a_reset() {
    let upstream = harness::RawUpstream::start(|mut socket| async move {
        let _ = socket.read(&mut [0; 8192]).await;
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
        let _ = socket.write_all(answer).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    })
    .await;
    let fixture = proxy_fixture(&upstream.url(), &[]).await;
    let mut socket = connect(&fixture).await;
    let head = fixture.head(&format!("GET {QUERY}"), "").replace("HTTP/1.1", "HTTP/1.0");
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let end = socket.read_to_end(&mut answer).await;
    assert!(end.is_err(), "a clean end after {}", String::from_utf8_lossy(&answer));
}

// So must one that the end of a drain cuts off. One that is whole, and not read yet, is not lost by that.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_a_drain_cuts_off_ends_by_a_reset() {
    const WHOLE: &str = "/prometheus/api/v1/labels";
    let upstream = Upstream::start(|request: Received| async move {
        if request.target.starts_with(WHOLE) {
            return Response::new(BodyExt::boxed(StreamBody::new(
                pieces(1, 32 << 10).map(|piece| piece.map(Frame::data)),
            )));
        }
        let half = pieces(1, 4).chain(futures_util::stream::pending());
        Response::new(BodyExt::boxed(StreamBody::new(half.map(|piece| piece.map(Frame::data)))))
    })
    .await;
    let mut fixture =
        proxy_fixture(&upstream.url(), &[("shutdown.drain_timeout", "\"300ms\"")]).await;
    let mut cut_off = connect(&fixture).await;
    let head = fixture.head(&format!("GET {QUERY}"), "").replace("HTTP/1.1", "HTTP/1.0");
    cut_off.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"xxxx") {
        assert!(cut_off.read_buf(&mut answer).await.unwrap() > 0);
    }
    let mut whole = connect(&fixture).await;
    whole.write_all(fixture.head(&format!("GET {WHOLE}"), "").as_bytes()).await.unwrap();
    wait_until("it is answered", Duration::from_secs(5), async || {
        fixture.proxy.access_log(WHOLE).len() == 1
    })
    .await;
    fixture.proxy.process.signal("TERM");
    let end = cut_off.read_to_end(&mut answer).await;
    let is_reset =
        end.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset);
    assert!(is_reset, "{end:?} after {}", String::from_utf8_lossy(&answer));
    assert!(fixture.proxy.process.wait(Duration::from_secs(5)).is_some());
    let mut answer = Vec::new();
    whole.read_to_end(&mut answer).await.unwrap();
    assert!(answer.ends_with(b"xxxx\r\n0\r\n\r\n"), "{}", answer.len());
}

// Requests that are cut off at the end of a drain are logged, too.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_cut_off_are_logged() {
    for second_signal in [false, true] {
        let begun = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&begun);
        let upstream = Upstream::start(move |request: Received| {
            counter.fetch_add(1, Ordering::SeqCst);
            async move {
                tokio::time::sleep(Duration::from_secs(60)).await;
                ok(request).await
            }
        })
        .await;
        let timeout = if second_signal { "\"60s\"" } else { "\"300ms\"" };
        let mut fixture =
            proxy_fixture(&upstream.url(), &[("shutdown.drain_timeout", timeout)]).await;
        let client = fixture.client();
        let request = tokio::spawn(async move { client.try_send(Method::GET, QUERY, "").await });
        wait_until("it is upstream", Duration::from_secs(5), async || {
            begun.load(Ordering::SeqCst) == 1
        })
        .await;
        fixture.proxy.process.signal("TERM");
        if second_signal {
            tokio::time::sleep(Duration::from_millis(300)).await;
            fixture.proxy.process.signal("TERM");
        }
        let status = fixture.proxy.process.wait(Duration::from_secs(5)).expect("it ends");
        assert_eq!(status.code(), Some(0));
        assert!(request.await.unwrap().is_err());
        let lines = fixture.proxy.access_log("/prometheus/api/v1/query");
        assert_eq!(lines.len(), 1, "{}", fixture.proxy.process.log());
        assert_eq!(lines[0]["outcome"], "cancelled");
    }
}

// RFC 9113, 6.9.2: a stream has 64 KiB until the client has read our settings. However much it has
// sent by then, it gets credit to continue.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_before_it_reads_our_settings_can_go_on() {
    use frames::{DATA, Frames, HEADERS, frame, open_head, opening};
    const SETTINGS: u8 = 4;
    const WINDOW_UPDATE: u8 = 8;
    let upstream = Upstream::start(count).await;
    let fixture = proxy_fixture(&upstream.url(), &[]).await;
    for early in [16_384_usize, 16_385, 20_000, 21_844, 21_846, 24_576, 24_577, 32_768, 65_535] {
        let mut client = Frames::new(connect(&fixture).await);
        client.send(&opening(65_535)).await.unwrap();
        client.send(&open_head(&fixture, "POST", "/api/v1/push", 1)).await.unwrap();
        for piece in vec![0; early].chunks(16_384) {
            client.send(&frame(DATA, 0, 1, piece)).await.unwrap();
        }
        // Time for all of it to be read.
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.send(&frame(SETTINGS, 1, 0, &[])).await.unwrap();
        let mut window = -i64::try_from(early).unwrap();
        let mut knows_settings = false;
        let has_credit = async {
            while !knows_settings || window <= 0 {
                let next = client.next().await.unwrap().expect("the connection stays open");
                let number = |at: usize| {
                    i64::from(u32::from_be_bytes(next.payload[at..at + 4].try_into().unwrap()))
                };
                if next.kind == SETTINGS && !next.payload.is_empty() {
                    knows_settings = true;
                    let all = next.payload.chunks(6).position(|setting| setting[..2] == [0, 4]);
                    window += all.map_or(65_535, |at| number(at * 6 + 2));
                } else if next.kind == WINDOW_UPDATE && next.stream == 1 {
                    window += number(0);
                }
            }
        };
        let outcome = tokio::time::timeout(Duration::from_secs(3), has_credit).await;
        assert!(outcome.is_ok(), "{early} bytes: no credit, {window}");
        client.send(&frame(DATA, 1, 1, b"x")).await.unwrap();
        let answered = async { while client.next().await.unwrap().unwrap().kind != HEADERS {} };
        let outcome = tokio::time::timeout(Duration::from_secs(3), answered).await;
        assert!(outcome.is_ok(), "{early} bytes: no answer");
    }
}
