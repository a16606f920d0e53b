//! Bodies and heads without an end.

use std::time::Duration;

use harness::{NetHttp, raw_exchange};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Target, target};

const MIB: u64 = 1 << 20;

/// Sends pieces until the server ends the connection or `most` pieces were taken. Returns how many were.
pub(super) async fn pour(target: &Target, begin: &[u8], piece: &[u8], most: usize) -> usize {
    let socket = TcpStream::connect(target.address()).await.unwrap();
    let (mut reading, mut writing) = socket.into_split();
    let ended = tokio::spawn(async move {
        let mut buffer = vec![0; 64 << 10];
        while reading.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
    });
    let mut sent = 0;
    if writing.write_all(begin).await.is_ok() {
        while sent < most && !ended.is_finished() {
            let write =
                tokio::time::timeout(Duration::from_secs(20), writing.write_all(piece)).await;
            if !matches!(write, Ok(Ok(()))) {
                break;
            }
            sent += 1;
        }
    }
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_and_trailers_without_an_end_are_cut_off() {
    let target = target(&[]).await;
    let token = target.authorization();
    target.others_are_served().await;
    let (before, served) = (target.proxy.process.memory(), target.upstream.heads().len());
    let push = format!(
        "POST /api/v1/push HTTP/1.1\r\nHost: x\r\n{token}Transfer-Encoding: chunked\r\n\r\n"
    );
    let piece = format!("X-Header: {}\r\n", "x".repeat(1000)).repeat(16);
    let long_line = "x".repeat(16 << 10);
    for (what, begin, piece) in [
        ("a target", "GET /prometheus/api/v1/query?query=".to_owned(), &long_line),
        ("a method", String::new(), &long_line),
        ("a header", "GET / HTTP/1.1\r\nX: ".to_owned(), &long_line),
        ("headers", "GET / HTTP/1.1\r\nHost: x\r\n".to_owned(), &piece),
        ("a chunk's extension", format!("{push}5;a="), &long_line),
        ("a chunk's size", format!("{push}00000"), &"0".repeat(16 << 10)),
        ("a trailer", format!("{push}0\r\nX: "), &long_line),
        ("trailers", format!("{push}0\r\n"), &piece),
    ] {
        // 16 KiB each: what the sockets of both sides hold besides is a few MiB.
        let sent = pour(&target, begin.as_bytes(), piece.as_bytes(), 4096).await;
        // Zeros before a size are read and forgotten; they are no progress of the body, whose deadline ends it.
        assert!(sent < 4096 || what == "a chunk's size", "{what}: 64 MiB were taken");
        target.others_are_served().await;
    }
    let grown = target.proxy.process.peak_memory().saturating_sub(before);
    assert!(grown < 32 * MIB, "grown by {} KiB", grown >> 10);
    // Pushes whose end never came are not complete at Mimir, and heads never got there.
    let heads = target.upstream.heads();
    assert!(heads[served..].iter().all(|head| head.target != "/config"), "{heads:?}");
}

// The sizes of chunks are read in one way (CVE-2015-3183, CVE-2019-18277, CVE-2023-39326, the "TERM.EXT" family
// of 2025): what passes is encoded anew, and what readers disagree about is no whole body at Mimir.
#[tokio::test(flavor = "multi_thread")]
async fn chunks_arrive_as_one_body_or_not_at_all() {
    let (upstream, attacked) = (NetHttp::start().await, target(&[]).await);
    let proxy = harness::ProxyOptions::new(&attacked.issuer.url(), &upstream.url()).start().await;
    let token = attacked.authorization();
    let inner = "GET /config HTTP/1.1\r\nHost: x\r\nX-Scope-OrgID: smuggled\r\n\r\n";
    for chunks in [
        "5\r\nhello\r\n0\r\n\r\n",
        "0005\r\nhello\r\n000\r\n\r\n",
        "5;a=b\r\nhello\r\n0;c\r\n\r\n",
        "5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\t;a\r\nhello\r\n0\r\n\r\n",
        "5;\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5_0\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "\r\n5\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n",
        "5\r\nhello\r\n0\r\nX\r\n\r\n",
        "5\r\nhello\r\n0\r\n: a\r\n\r\n",
        "5\r\nhello\r\n0\r\nX : a\r\n\r\n",
        "5\r\nhello\r\n0\r\n\n",
        "5\r\nhello\r\n",
        "5\r\nhell",
        "",
    ] {
        let request = format!(
            "POST /api/v1/push HTTP/1.1\r\nHost: x\r\n{token}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n{chunks}{inner}"
        );
        let answer = raw_exchange(&proxy.url(), request.as_bytes()).await;
        let answers = answer.matches("HTTP/1.1 ").count();
        assert!(answers <= 1, "{chunks:?}: {answer}");
        let seen = upstream.take().await;
        assert!(seen.len() <= 1, "{chunks:?}: {seen:?}");
        for request in seen {
            assert_eq!(request.target, "/api/v1/push", "{chunks:?}");
            let is_whole = request.problem.is_empty();
            assert!(!is_whole || request.body == b"hello", "{chunks:?}: {request:?}");
            assert!(is_whole || !answer.starts_with("HTTP/1.1 200"), "{chunks:?}: {answer}");
        }
    }
}
