//! The end of a connection whose client still sends what it was refused for.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use harness::{ORG_A, Upstream, wait_until};

use crate::support::responses::ok;
use crate::support::single::{PUSH, ProxyFixture, proxy_fixture};

/// More than the kernels of both sides keep on loopback.
const BODY_BYTES: usize = 24 << 20;

fn connect(fixture: &ProxyFixture) -> TcpStream {
    let socket = TcpStream::connect(fixture.proxy.url().replace("http://", "")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

/// Sends all of a request before it reads the answer, as many senders do.
fn send_whole(mut socket: TcpStream, head: &str, chunked: bool) -> std::io::Result<String> {
    socket.write_all(head.as_bytes())?;
    let piece = vec![b'x'; 64 << 10];
    for _ in 0..BODY_BYTES / piece.len() {
        if chunked {
            write!(socket, "{:x}\r\n", piece.len())?;
        }
        socket.write_all(&piece)?;
        if chunked {
            socket.write_all(b"\r\n")?;
        }
    }
    if chunked {
        socket.write_all(b"0\r\n\r\n")?;
    }
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}

// Closing at once answers what the client still sends with a reset, and its kernel then drops the answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_a_client_that_sends_its_whole_body_first() {
    let upstream = Upstream::start(ok).await;
    let fixture = proxy_fixture(&upstream.url(), &[("limits.push_body_bytes", "\"1MiB\"")]).await;
    let token = fixture.issuer.user_of(ORG_A);
    let length = format!("Content-Length: {BODY_BYTES}\r\n");
    let cases = [
        ("a bad credential", PUSH, "none", 401),
        ("an unknown path", "/nothing/here", token.as_str(), 404),
        ("a body that is too large", PUSH, token.as_str(), 413),
    ];
    for (case, path, token, status) in cases {
        for chunked in [false, true] {
            let framing = if chunked { "Transfer-Encoding: chunked\r\n" } else { &length };
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: proxy\r\nAuthorization: Bearer {token}\r\n{framing}\r\n"
            );
            let socket = connect(&fixture);
            let sent = tokio::task::spawn_blocking(move || send_whole(socket, &head, chunked));
            let answer = sent.await.unwrap().unwrap_or_else(|error| {
                panic!("{case}, chunked {chunked}: the answer is lost: {error}")
            });
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{case}: {answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_neither_sends_nor_ends_is_let_go() {
    let upstream = Upstream::start(ok).await;
    let fixture = proxy_fixture(&upstream.url(), &[]).await;
    let mut socket = connect(&fixture);
    let head = format!("POST {PUSH} HTTP/1.1\r\nHost: proxy\r\nContent-Length: 100\r\n\r\nx");
    socket.write_all(head.as_bytes()).unwrap();
    let began = Instant::now();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(began.elapsed() < Duration::from_secs(3), "the end of our side comes at once");
    // Then it counts as a connection until it is let go.
    assert_eq!(fixture.proxy.metric("mimir_tenant_proxy_connections").await, 1.0);
    wait_until("the connection is let go", Duration::from_secs(15), async || {
        fixture.proxy.metric("mimir_tenant_proxy_connections").await == 0.0
    })
    .await;
    assert!(began.elapsed() >= Duration::from_secs(4), "after {:?}", began.elapsed());
}
