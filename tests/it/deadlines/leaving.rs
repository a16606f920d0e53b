//! Clients that half-close their connection, and clients that disconnect.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use harness::{Received, Upstream, wait_until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::connect;
use crate::support::responses::ok;
use crate::support::single::{ProxyFixture, QUERY, count, proxy_fixture};

/// Sends bytes, shuts down the sending side (`SHUT_WR`), and reads to the end.
async fn half_closed(fixture: &ProxyFixture, bytes: &str) -> String {
    let mut socket = connect(fixture).await;
    socket.write_all(bytes.as_bytes()).await.unwrap();
    socket.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut answer)).await;
    read.expect("the connection ends").unwrap();
    String::from_utf8(answer).unwrap()
}

// RFC 9112, 9.6: a client may half-close after its last request. Complete requests are answered; an
// incomplete one is never treated as complete.
#[tokio::test(flavor = "multi_thread")]
async fn a_complete_request_is_answered_after_a_half_close() {
    let upstream = Upstream::start(count).await;
    let fixture = proxy_fixture(&upstream.url(), &[]).await;
    let push = fixture.head("POST /api/v1/push", "Content-Length: 5\r\n") + "bytes";
    let chunked = fixture.head("POST /api/v1/push", "Transfer-Encoding: chunked\r\n");
    let chunked = chunked + "5\r\nbytes\r\n0\r\n\r\n";
    let old = push.replace("HTTP/1.1", "HTTP/1.0");
    for (request, answers) in [(&push, 1), (&chunked, 1), (&old, 1), (&push.repeat(3), 3)] {
        let answer = half_closed(&fixture, request).await;
        assert_eq!(answer.matches(" 200 OK\r\n").count(), answers, "{request} {answer}");
        assert!(answer.ends_with("\r\n\r\n5"), "{answer}");
    }
    wait_until("they are logged", Duration::from_secs(2), async || {
        fixture.proxy.access_log("/api/v1/push").len() == 6
    })
    .await;
    let half = half_closed(&fixture, &push.replace("bytes", "half")).await;
    assert!(!half.contains(" 200 "), "{half}");
}

// A long query is answered, too: a client that has only half-closed accepts the probe (RFC 9110,
// 15.2).
#[tokio::test(flavor = "multi_thread")]
async fn a_half_closed_client_is_waited_for() {
    let upstream = Upstream::start(|request: Received| async {
        tokio::time::sleep(Duration::from_millis(2500)).await;
        ok(request).await
    })
    .await;
    let fixture = proxy_fixture(&upstream.url(), &[]).await;
    let get = fixture.head(&format!("GET {QUERY}"), "");
    let answer = half_closed(&fixture, &get).await;
    let answer = answer.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").expect(&answer);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    // HTTP/1.0 has no interim responses.
    let answer = half_closed(&fixture, &get.replace("HTTP/1.1", "HTTP/1.0")).await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
}

/// How a client disconnects.
#[derive(Clone, Copy, Debug)]
enum Leaves {
    /// The system sends a FIN, and a reset when it receives something.
    ByClosing,
    ByReset,
}

// The query of a client that has disconnected is cancelled at Mimir, even if pipelined bytes are
// still unread.
#[tokio::test(flavor = "multi_thread")]
async fn a_disconnected_client_is_noticed_behind_pipelined_bytes() {
    let (begun, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counters = (Arc::clone(&begun), Arc::clone(&ended));
    let upstream = harness::RawUpstream::start(move |mut socket| {
        let (begun, ended) = (Arc::clone(&counters.0), Arc::clone(&counters.1));
        async move {
            let mut buffer = [0; 8192];
            let _ = socket.read(&mut buffer).await;
            begun.fetch_add(1, Ordering::SeqCst);
            while socket.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
            ended.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let fixture = proxy_fixture(&upstream.url(), &[]).await;
    let get = fixture.head(&format!("GET {QUERY}"), "");
    let mut gone = 0;
    for ahead in ["", "G", "GET /x HTTP/1.1\r\nHost: x\r\n\r\n"] {
        for leaves in [Leaves::ByClosing, Leaves::ByReset] {
            let mut socket: TcpStream = connect(&fixture).await;
            socket.write_all((get.clone() + ahead).as_bytes()).await.unwrap();
            gone += 1;
            wait_until("the query runs", Duration::from_secs(5), async || {
                begun.load(Ordering::SeqCst) == gone
            })
            .await;
            let patience = match leaves {
                Leaves::ByClosing => Duration::from_secs(3),
                Leaves::ByReset => {
                    socket.set_zero_linger().unwrap();
                    Duration::from_secs(1)
                }
            };
            drop(socket);
            wait_until(&format!("{leaves:?} {ahead:?}"), patience, async || {
                ended.load(Ordering::SeqCst) == gone
            })
            .await;
        }
    }
    wait_until("they are logged", Duration::from_secs(2), async || {
        let lines = fixture.proxy.access_log("/prometheus/api/v1/query");
        lines.len() == gone && lines.iter().all(|line| line["outcome"] == "cancelled")
    })
    .await;
}
