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
    whole_answer(&mut socket)
}

/// Reads the head of an answer and so much of a body as it announces.
fn whole_answer(socket: &mut TcpStream) -> std::io::Result<String> {
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&answer);
        let text = text.trim_start_matches("HTTP/1.1 100 Continue\r\n\r\n");
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.expect("a length").parse().unwrap() {
                return Ok(text.to_owned());
            }
        }
        match socket.read(&mut piece)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => answer.extend_from_slice(&piece[..count]),
        }
    }
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
    let mut lost = Vec::new();
    for (case, path, token, status) in cases {
        for framing in [length.as_str(), "Transfer-Encoding: chunked\r\n"] {
            for header in ["", "Connection: close\r\n", "Expect: 100-continue\r\n"] {
                let head = format!(
                    "POST {path} HTTP/1.1\r\nHost: proxy\r\nAuthorization: Bearer {token}\r\n\
                     {framing}{header}\r\n"
                );
                let (socket, chunked) = (connect(&fixture), framing != length);
                let sent = tokio::task::spawn_blocking(move || send_whole(socket, &head, chunked));
                match sent.await.unwrap() {
                    Ok(answer) => {
                        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
                    }
                    Err(error) => lost.push(format!("{case}, {framing:?}, {header:?}: {error}")),
                }
            }
        }
    }
    assert!(lost.is_empty(), "lost: {lost:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_neither_sends_nor_ends_is_let_go() {
    let upstream = Upstream::start(ok).await;
    let fixture = proxy_fixture(&upstream.url(), &[]).await;
    let mut socket = connect(&fixture);
    let head = format!(
        "POST {PUSH} HTTP/1.1\r\nHost: proxy\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\nx"
    );
    socket.write_all(head.as_bytes()).unwrap();
    let began = Instant::now();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(began.elapsed() < Duration::from_secs(3), "the end of our side comes at once");
    // Then it counts as a connection until it is let go.
    let open = async || fixture.proxy.metric("mimir_tenant_proxy_connections").await;
    assert!(open().await > 0.0);
    wait_until("the connection is let go", Duration::from_secs(15), async || open().await == 0.0)
        .await;
    assert!(began.elapsed() >= Duration::from_secs(4), "after {:?}", began.elapsed());
}

// Each of these waited for a timeout when the socket was read only for a wanted body: a task that is polled for the
// first time has to be woken, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_comes_after_its_head_is_read_at_once() {
    let upstream = Upstream::start(ok).await;
    let fixture = proxy_fixture(&upstream.url(), &[]).await;
    let token = fixture.issuer.user_of(ORG_A);
    // Known tokens are found without waiting.
    assert_eq!(fixture.client().post(PUSH, "x").await.status, 200);
    let bodies = [
        ("Content-Length: 9\r\n", &["123", "456789"][..]),
        ("Transfer-Encoding: chunked\r\n", &["9\r\n", "123456789\r\n0\r\n\r\n"][..]),
    ];
    let slow = tokio::task::spawn_blocking(move || {
        let mut slow = Vec::new();
        for (framing, pieces) in bodies {
            let mut socket = connect(&fixture);
            for rests in [0, 20, 400] {
                std::thread::sleep(Duration::from_millis(rests));
                for (status, token) in [(200, token.as_str()), (401, "none"), (200, token.as_str())]
                {
                    let head = format!(
                        "POST {PUSH} HTTP/1.1\r\nHost: proxy\r\nAuthorization: Bearer {token}\r\n{framing}\r\n"
                    );
                    let began = Instant::now();
                    for piece in [&[head.as_str()], pieces].concat() {
                        socket.write_all(piece.as_bytes()).unwrap();
                        std::thread::sleep(Duration::from_millis(50));
                    }
                    let answer = whole_answer(&mut socket).unwrap();
                    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
                    if began.elapsed() > Duration::from_secs(2) {
                        slow.push((framing, rests, status, began.elapsed()));
                    }
                }
            }
        }
        slow
    });
    let slow = slow.await.unwrap();
    assert!(slow.is_empty(), "{slow:#?}");
}
