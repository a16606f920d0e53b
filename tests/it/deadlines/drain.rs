//! The end of the process: clients that make no progress do not delay it.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use harness::Upstream;
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::connect;
use super::frames;
use crate::support::responses::ok;
use crate::support::single::{MIB, ProxyFixture, QUERY, pieces, proxy_fixture};

const LARGE: &str = "/prometheus/api/v1/labels";

async fn sent(fixture: &ProxyFixture, bytes: &[u8]) -> TcpStream {
    let mut socket = connect(fixture).await;
    socket.write_all(bytes).await.unwrap();
    socket
}

// All silent connections end within 5 s of the signal, with timeouts of a minute and more; a
// request that makes progress gets its response.
#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_do_not_take_the_whole_drain() {
    let upstream = Upstream::start(|request| async {
        if request.target.starts_with(LARGE) {
            let frames = pieces(256, MIB).map(|piece| piece.map(Frame::data));
            return Response::new(BodyExt::boxed(StreamBody::new(frames)));
        }
        if request.target.ends_with("slow") {
            tokio::time::sleep(Duration::from_secs(4)).await;
        }
        ok(request).await
    })
    .await;
    let fixture = proxy_fixture(&upstream.url(), &[("shutdown.drain_timeout", "\"60s\"")]).await;
    let get = fixture.head(&format!("GET {QUERY}"), "");
    let large = fixture.head(&format!("GET {LARGE}"), "");
    let push = fixture.head("POST /api/v1/push", "Content-Length: 10\r\n");
    let opening = frames::opening(0);
    let stalled = [&opening[..], &frames::head(&fixture, "GET", LARGE, 1)].concat();
    let answered = [&opening[..], &frames::credit(0, 99), &frames::head(&fixture, "GET", QUERY, 1)];
    let mut held = Vec::new();
    for bytes in [
        b"".as_slice(),
        b"GET /half",
        b"\r\n",
        get.as_bytes(),
        (get.clone() + "\r\n").as_bytes(),
        (get.clone() + "GET /half").as_bytes(),
        large.as_bytes(),
        (large.clone() + "G").as_bytes(),
        (push.clone() + "half").as_bytes(),
        b"PRI * HT",
        &opening,
        &stalled,
        &answered.concat(),
        &[&opening[..], &frames::open_head(&fixture, "POST", "/api/v1/push", 1)].concat(),
    ] {
        held.push(sent(&fixture, bytes).await);
    }
    let client = fixture.client();
    let slow = tokio::spawn(async move { client.get(&format!("{QUERY}&x=slow")).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    let mut fixture = fixture;
    fixture.proxy.process.signal("TERM");
    let status = fixture.proxy.process.wait(Duration::from_secs(15)).expect("it ends");
    assert_eq!(status.code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    assert_eq!(slow.await.unwrap().status, 200);
}

// A head that has begun at the signal is served if it is completed soon.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_has_begun_is_served_in_a_drain() {
    let upstream = Upstream::start(ok).await;
    let fixture = proxy_fixture(&upstream.url(), &[]).await;
    let get = fixture.head(&format!("GET {QUERY}"), "");
    let mut socket = sent(&fixture, &get.as_bytes()[..40]).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    fixture.proxy.process.signal("TERM");
    tokio::time::sleep(Duration::from_millis(500)).await;
    socket.write_all(&get.as_bytes()[40..]).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}
