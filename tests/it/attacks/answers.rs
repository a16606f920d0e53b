//! An upstream that answers what it should not: whatever it is, a client sees one answer to its request, and the
//! next client of the same connections sees its own.

use std::time::Duration;

use harness::{ORG_A, ORG_B, ProxyOptions, RawUpstream};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::target;

const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond";
const FOREIGN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nforeign";

/// Answers by the number in the target; a request without one gets [`GOOD`].
fn answers() -> Vec<Vec<u8>> {
    let head = |head: &str| format!("HTTP/1.1 200 OK\r\n{head}\r\n");
    let texts = [
        head("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n")
            + "2\r\nok\r\n0\r\n\r\n"
            + FOREIGN,
        head("Transfer-Encoding: chunked\r\nContent-Length: 2\r\n")
            + "2\r\nok\r\n0\r\n\r\n"
            + FOREIGN,
        head("Content-Length: 2\r\nContent-Length: 60\r\n") + "ok" + FOREIGN,
        head("Content-Length: 2, 60\r\n") + "ok" + FOREIGN,
        head("Content-Length: +2\r\n") + "ok" + FOREIGN,
        head("Content-Length: 0x2\r\n") + "ok" + FOREIGN,
        head("Content-Length: -2\r\n") + "ok" + FOREIGN,
        head("Content-Length: 99999999999999999999\r\n") + "ok" + FOREIGN,
        head("Content-Length : 2\r\n") + "ok" + FOREIGN,
        head("Content-Length: 2\r\n") + "ok" + FOREIGN,
        head("Transfer-Encoding: xchunked\r\n") + "2\r\nok\r\n0\r\n\r\n" + FOREIGN,
        head("Transfer-Encoding: chunked, identity\r\n") + "2\r\nok\r\n0\r\n\r\n" + FOREIGN,
        head("Transfer-Encoding: chunked\r\n") + "2\r\nok\r\n0\r\n\r\n" + FOREIGN,
        head("Transfer-Encoding: chunked\r\n") + "2;a\nb\r\nok\r\n0\r\n\r\n" + FOREIGN,
        head("Transfer-Encoding: chunked\r\n") + "ffffffffffffffffff\r\nok\r\n",
        head("Transfer-Encoding: chunked\r\n") + "-2\r\nok\r\n0\r\n\r\n",
        head("Transfer-Encoding: chunked\r\n")
            + "2\r\nok\r\n0\r\nContent-Length: 0\r\nX-Trailer: a\r\n b\r\n\r\n"
            + FOREIGN,
        head("X: a\r\n folded: b\r\nContent-Length: 2\r\n") + "ok" + FOREIGN,
        head("X: a\rSet-Cookie: b\r\nContent-Length: 2\r\n") + "ok" + FOREIGN,
        head("X: a\0b\r\nContent-Length: 2\r\n") + "ok" + FOREIGN,
        head("X : y\r\nContent-Length: 2\r\n") + "ok" + FOREIGN,
        head(": y\r\nContent-Length: 2\r\n") + "ok" + FOREIGN,
        head("no colon\r\nContent-Length: 2\r\n") + "ok" + FOREIGN,
        head("Connection: content-length, x-request-id, close\r\nContent-Length: 2\r\n")
            + "ok"
            + FOREIGN,
        head(
            "Connection: keep-alive, upgrade\r\nUpgrade: h2c\r\nKeep-Alive: timeout=9\r\nContent-Length: 2\r\n",
        ) + "ok",
        "HTTP/1.1 200 OK\nContent-Length: 2\n\nok".to_owned() + FOREIGN,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"
            .to_owned()
            + FOREIGN,
        "HTTP/1.1 100 Continue\r\n\r\n".repeat(1000) + &head("Content-Length: 2\r\n") + "ok",
        "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(50)
            + &head("Content-Length: 2\r\n")
            + "ok",
        "HTTP/1.1 204 No Content\r\nContent-Length: 44\r\n\r\n".to_owned() + FOREIGN,
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 44\r\n\r\n".to_owned() + FOREIGN,
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned() + FOREIGN,
        "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned(),
        "HTTP/1.1 000 Zero\r\nContent-Length: 2\r\n\r\nok".to_owned(),
        "HTTP/1.1 999 Most\r\nContent-Length: 2\r\n\r\nok".to_owned() + FOREIGN,
        "HTTP/1.1 2000 More\r\nContent-Length: 2\r\n\r\nok".to_owned(),
        "HTTP/1.1 200 O\rK\r\nContent-Length: 2\r\n\r\nok".to_owned() + FOREIGN,
        "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok".to_owned() + FOREIGN,
        "\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned(),
        "<html>not HTTP".to_owned(),
        "\u{16}\u{3}\u{1}\0\u{5}".to_owned(),
        String::new(),
        head(&"X: y\r\n".repeat(2_000)),
        head(&format!("X: {}\r\n", "y".repeat(2 << 20))),
        head("Content-Length: 20\r\n") + "cut off",
        head("Transfer-Encoding: chunked\r\n") + "5\r\ncut",
    ];
    texts.into_iter().map(String::into_bytes).collect()
}

/// An answer as a strict reader sees it: one framing, no folded lines, no byte that is no field's.
#[derive(Debug)]
struct Strict {
    status: u16,
    body: Vec<u8>,
    is_whole: bool,
}

/// Reads answers from the beginning of some bytes. Panics at what another reader could read differently.
fn read_strictly(mut bytes: &[u8], about: &str) -> Vec<Strict> {
    let mut answers = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.windows(4).position(|part| part == b"\r\n\r\n");
        let Some(end) = end else {
            panic!("{about}: half a head: {:?}", String::from_utf8_lossy(bytes))
        };
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        bytes = &bytes[end + 4..];
        let mut lines = head.split("\r\n");
        let line = lines.next().unwrap();
        let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let status: u16 = status.unwrap_or_else(|| panic!("{about}: {line:?}"));
        let (mut length, mut is_chunked) = (None, false);
        for line in lines {
            let (name, value) =
                line.split_once(": ").unwrap_or_else(|| panic!("{about}: {line:?}"));
            assert!(
                !name.is_empty()
                    && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)),
                "{about}: {line:?}"
            );
            assert!(!value.contains(['\r', '\n', '\0']), "{about}: {line:?}");
            match name.to_ascii_lowercase().as_str() {
                "content-length" => {
                    assert!(length.replace(value.parse::<usize>().unwrap()).is_none(), "{about}");
                }
                "transfer-encoding" => {
                    assert!(
                        !std::mem::replace(&mut is_chunked, true) && value == "chunked",
                        "{about}"
                    );
                }
                "upgrade" | "keep-alive" | "proxy-connection" => panic!("{about}: {line:?}"),
                _ => {}
            }
        }
        assert!(!(is_chunked && length.is_some()), "{about}: two framings");
        assert!(status >= 200, "{about}: {status}");
        let (body, is_whole, rest) = if is_chunked {
            chunks(bytes)
        } else {
            let length = if matches!(status, 204 | 304) { 0 } else { length.unwrap_or(0) };
            let taken = length.min(bytes.len());
            (bytes[..taken].to_vec(), taken == length, &bytes[taken..])
        };
        bytes = rest;
        answers.push(Strict { status, body, is_whole });
    }
    answers
}

fn chunks(mut bytes: &[u8]) -> (Vec<u8>, bool, &[u8]) {
    let mut body = Vec::new();
    loop {
        let Some(end) = bytes.windows(2).position(|part| part == b"\r\n") else {
            return (body, false, &[]);
        };
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        bytes = &bytes[end + 2..];
        if size == 0 {
            // Trailers, to the empty line.
            while let Some(end) = bytes.windows(2).position(|part| part == b"\r\n") {
                bytes = &bytes[end + 2..];
                if end == 0 {
                    return (body, true, bytes);
                }
            }
            return (body, false, &[]);
        }
        if bytes.len() < size + 2 {
            return (body, false, &[]);
        }
        body.extend_from_slice(&bytes[..size]);
        bytes = &bytes[size + 2..];
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_of_a_hostile_upstream_is_read_as_two_or_by_another() {
    let upstream = RawUpstream::start(|mut socket| async move {
        let (answers, mut head, mut buffer) = (answers(), Vec::new(), [0; 8192]);
        loop {
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                match socket.read(&mut buffer).await {
                    Ok(length) if length > 0 => head.extend_from_slice(&buffer[..length]),
                    _ => return,
                }
            }
            let text = String::from_utf8_lossy(&head).into_owned();
            head.clear();
            let case = text
                .split("case=")
                .nth(1)
                .and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok());
            let answer = case.map_or(GOOD, |case| &answers[case]);
            if socket.write_all(answer).await.is_err() {
                return;
            }
            // What is cut off, or has no length, ends here.
            if case.is_some_and(|case| case >= answers.len() - 7 || [10, 11].contains(&case)) {
                return;
            }
        }
    })
    .await;
    let attacked = target(&[]).await;
    let proxy = ProxyOptions::new(&attacked.issuer.url(), &upstream.url())
        .set("upstream.eject_after", "1000")
        .set("log.unserved_per_second", "0")
        .start()
        .await;
    let users = [ORG_A, ORG_B].map(|organisation| attacked.issuer.user_of(organisation));
    let mut served = 0;
    for case in 0..answers().len() {
        let request = |user: usize, query: &str, end: &str| {
            format!(
                "GET /prometheus/api/v1/query?query=up{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
                 X-Request-ID: case-{case}-{user}\r\n{end}\r\n",
                users[user]
            )
        };
        // The first client, and another one on the connection to the upstream that the first may have spoilt.
        let mut socket = TcpStream::connect(proxy.url().replace("http://", "")).await.unwrap();
        let both =
            request(0, &format!("&case={case}"), "") + &request(1, "", "Connection: close\r\n");
        socket.write_all(both.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        // A reset is an end, too: of an answer that is cut off.
        let _ = tokio::time::timeout(Duration::from_secs(30), socket.read_to_end(&mut bytes))
            .await
            .expect("an end");
        let about = format!(
            "{case}: {:?}",
            String::from_utf8_lossy(&answers()[case]).chars().take(90).collect::<String>()
        );
        let read = read_strictly(&bytes, &about);
        assert!(read.len() <= 2, "{about}: {read:?}");
        let is_broken = |first: &Strict| !first.is_whole || (500..600).contains(&first.status);
        let has_failed = read.first().is_none_or(is_broken);
        let line = request_line(&proxy, &format!("case-{case}-0")).await;
        let reason = line["reason"].as_str().unwrap_or_default();
        assert_eq!(!reason.is_empty(), has_failed, "{about}: {line}");
        // A body that cannot be read from its first byte on ends before the head was sent.
        let Some(first) = read.first() else { continue };
        if first.status == 200 && first.is_whole {
            served += 1;
            assert_eq!(first.body, b"ok", "{about}: {read:?}");
        }
        if let Some(second) = read.get(1) {
            assert_eq!(
                (second.status, &second.body[..]),
                (200, &b"second"[..]),
                "{about}: {read:?}"
            );
        } else {
            // Nothing follows what is not whole.
            assert!(!first.is_whole || first.status >= 400, "{about}: {read:?}");
        }
        // And on a connection of its own.
        let other =
            attacked_client(&proxy, &users[1]).get("/prometheus/api/v1/query?query=up").await;
        assert_eq!((other.status.as_u16(), other.text.as_str()), (200, "second"), "{about}");
    }
    assert!(served >= 8, "{served}");
}

/// The line of a request in the log.
async fn request_line(proxy: &harness::Proxy, id: &str) -> Value {
    let mut found = Value::Null;
    harness::wait_until("the request has a line", Duration::from_secs(10), async || {
        let log = proxy.process.log();
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        found = lines
            .find(|line| line["message"] == "Request" && line["request.id"] == id)
            .unwrap_or_default();
        !found.is_null()
    })
    .await;
    found
}

fn attacked_client(proxy: &harness::Proxy, token: &str) -> harness::Client {
    proxy.client().bearer(token)
}
