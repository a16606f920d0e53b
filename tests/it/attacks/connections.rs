//! All connections taken by clients without a credential, who then are silent: others are served all the same.

use std::time::{Duration, Instant};

use harness::{Upstream, wait_until};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};

use crate::deadlines::frames::{HEADERS, frame, opening};
use crate::support::responses::ok;
use crate::support::single::{ProxyFixture, QUERY, proxy_fixture};

const MOST: usize = 20;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

async fn fixture(upstream: &Upstream) -> ProxyFixture {
    proxy_fixture(&upstream.url(), &[("listen.max_connections", &MOST.to_string())]).await
}

/// A connection whose client sends something, reads nothing and is silent from then on.
async fn hold(fixture: &ProxyFixture, bytes: &[u8]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let address = fixture.proxy.url().replace("http://", "").parse().unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let _ = tokio::time::timeout(Duration::from_millis(50), stream.write_all(bytes)).await;
    stream
}

async fn evicted(fixture: &ProxyFixture) -> f64 {
    let series = "mimir_tenant_proxy_connections_ended_total{reason=\"evicted\"}";
    fixture.proxy.metric(series).await
}

async fn locks_nobody_out(what: &str, bytes: &[u8], connections: usize, most: Duration) {
    let upstream = Upstream::start(ok).await;
    let fixture = fixture(&upstream).await;
    let mut held = Vec::new();
    for _ in 0..connections {
        held.push(hold(&fixture, bytes).await);
    }
    others_are_served(&fixture, what, most).await;
}

async fn others_are_served(fixture: &ProxyFixture, what: &str, most: Duration) {
    for number in 0..5 {
        let began = Instant::now();
        // Each client has a connection of its own.
        assert_eq!(fixture.client().get(QUERY).await.status, 200, "{what}");
        let took = began.elapsed();
        println!("{what}: served after {took:?}");
        assert!(took < most, "{what}, request {number}: {took:?}");
    }
    assert!(evicted(fixture).await >= 1.0, "{what}");
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

// Before, ten thousand such connections, which a laptop can open, kept everybody else waiting: for 10 s those that
// had sent nothing, for 120 s those that had sent one request without a credential.
#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_lock_nobody_out() {
    let refused = b"GET /prometheus/api/v1/query?query=up HTTP/1.1\r\nHost: x\r\n\r\n";
    let locks = |what, bytes| locks_nobody_out(what, bytes, 3 * MOST, Duration::from_secs(8));
    tokio::join!(
        locks("nothing", &b""[..]),
        locks("a part of a head", b"GET / HTTP/1.1\r\nHost: x\r\n"),
        locks("one refused request", refused),
        locks("HTTP/2 without a request", PREFACE),
        locks("a part of HTTP/2's preface", &PREFACE[..10]),
        locks("not HTTP", b"\x16\x03\x01 nonsense\r\n\r\n"),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_read_no_refusal_lock_nobody_out() {
    let refused = b"GET /n HTTP/1.1\r\nHost: x\r\n\r\n".repeat(50_000);
    // A slow reader has 10 s.
    let most = Duration::from_secs(18);
    locks_nobody_out("refusals that are not read", &refused, MOST, most).await;
}

// Each refusal waits for credit until its stream is reset, a minute later, and the socket takes bytes all the time.
// Before, a request a minute was enough to keep a connection; with credit, one in each of the five seconds for which a
// refused body is awaited.
#[tokio::test(flavor = "multi_thread")]
async fn streams_without_credit_lock_nobody_out() {
    // GET http /, of the static table.
    let request = |stream: u32, flags| frame(HEADERS, flags, 2 * stream + 1, &[0x82, 0x86, 0x84]);
    let locks = async |what, window, flags, pause| {
        let upstream = Upstream::start(ok).await;
        let fixture = fixture(&upstream).await;
        let mut held = tokio::task::JoinSet::new();
        for _ in 0..MOST {
            let first = [opening(window), request(0, flags)].concat();
            let mut stream = hold(&fixture, &first).await;
            held.spawn(async move {
                for number in 1.. {
                    tokio::time::sleep(pause).await;
                    if stream.write_all(&request(number, flags)).await.is_err() {
                        break;
                    }
                }
            });
        }
        // A slow reader has 10 s.
        others_are_served(&fixture, what, Duration::from_secs(18)).await;
    };
    tokio::join!(
        locks("refusals that wait for credit", 0, END_HEADERS | END_STREAM, Duration::from_secs(2)),
        locks("... and bodies that do not come", 0, END_HEADERS, Duration::from_secs(2)),
        locks("... after the refusal", 65_535, END_HEADERS, Duration::from_millis(4900)),
    );
}

// Only who is silent is disconnected.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_served_keeps_its_connection_in_a_flood() {
    let upstream = Upstream::start(async |request| {
        tokio::time::sleep(Duration::from_secs(4)).await;
        ok(request).await
    })
    .await;
    let fixture = fixture(&upstream).await;
    let client = fixture.client();
    let flood = async {
        let mut held = Vec::new();
        for _ in 0..4 * MOST {
            held.push(hold(&fixture, b"").await);
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        held
    };
    let (answer, _held) = tokio::join!(client.get(QUERY), flood);
    assert_eq!(answer.status, 200);
    wait_until("silent ones are disconnected", Duration::from_secs(5), async || {
        evicted(&fixture).await >= 1.0
    })
    .await;
}
