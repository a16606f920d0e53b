//! HTTP/1.1 beyond one request and its answer: tunnels, other protocols, expectations, bodies that are cut off.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness::{NetHttp, ORG_A, ORG_B, ProxyOptions, RawUpstream, raw_exchange, wait_until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{QUERY, target};

const INNER: &str = "GET /config HTTP/1.1\r\nHost: mimir\r\nX-Scope-OrgID: smuggled\r\n\r\n";

fn statuses(answer: &str) -> Vec<u16> {
    let starts = answer.match_indices("HTTP/1.").map(|(at, _)| &answer[at..]);
    starts.filter_map(|rest| rest.get(9..12)?.parse().ok()).collect()
}

fn ids(answer: &str) -> Vec<String> {
    let lines = answer.lines().filter_map(|line| line.strip_prefix("x-request-id: "));
    lines.map(str::to_owned).collect()
}

// CONNECT would lead into Mimir's network, TRACE would show headers that somebody in front has added (cross-site
// tracing), PRI is HTTP/2's preface where no preface may be.
#[tokio::test(flavor = "multi_thread")]
async fn no_method_opens_a_tunnel_or_repeats_a_request() {
    let target = target(&[]).await;
    let token = target.authorization();
    for line in [
        "CONNECT mimir:8080",
        "CONNECT 169.254.169.254:80",
        "CONNECT /config",
        "CONNECT http://mimir/config",
        "CONNECT *",
        &format!("CONNECT {QUERY}"),
        "TRACE /",
        &format!("TRACE {QUERY}"),
        &format!("TRACK {QUERY}"),
        &format!("DEBUG {QUERY}"),
        &format!("PROPFIND {QUERY}"),
        &format!("PURGE {QUERY}"),
        &format!("connect {QUERY}"),
        "PRI *",
        "OPTIONS *",
    ] {
        for version in ["HTTP/1.1", "HTTP/1.0"] {
            let bytes = format!(
                "{line} {version}\r\nHost: proxy\r\n{token}X-Canary: repeated\r\n\r\n{INNER}"
            );
            let answer = raw_exchange(&target.proxy.url(), bytes.as_bytes()).await;
            let about = format!("{line} {version}: {answer}");
            let statuses = statuses(&answer);
            assert!(!statuses.is_empty() || line == "PRI *", "{about}");
            // OPTIONS may be answered, with nothing.
            let refused = |status: &u16| (400..500).contains(status);
            assert!(statuses.iter().all(refused) || line == "OPTIONS *", "{about}");
            assert!(!answer.contains("repeated") && !answer.contains("Bearer"), "{about}");
            let reasons = target.reasons(&ids(&answer)).await;
            assert!(reasons.iter().all(|reason| !reason.is_empty()), "{about}: {reasons:?}");
        }
    }
    assert!(target.upstream.heads().is_empty(), "{:?}", target.upstream.heads());
}

// CVE-2021-32777's relatives: h2c and WebSocket by `Upgrade`, as a way around a proxy that then passes bytes on. An
// upgrade is ignored (RFC 9110, 7.8), whatever the upstream says: what follows is HTTP/1.1 and is asked who it is.
#[tokio::test(flavor = "multi_thread")]
async fn no_upgrade_changes_the_protocol() {
    let target = target(&[]).await;
    let token = target.authorization();
    // An upstream that agrees to anything.
    let eager = RawUpstream::start(|mut socket| async move {
        let mut buffer = [0; 4096];
        while socket.read(&mut buffer).await.is_ok_and(|length| length > 0) {
            let agreed = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nfree";
            let _ = socket.write_all(agreed.as_bytes()).await;
        }
    })
    .await;
    let before_eager = ProxyOptions::new(&target.issuer.url(), &eager.url())
        .set("upstream.eject_after", "1000")
        .start()
        .await;
    let before = target.upstream.heads().len();
    let upgrades = [
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Upgrade: h2c\r\nConnection: Upgrade\r\n",
        "Upgrade: HTTP/2.0\r\nConnection: Upgrade\r\n",
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        "Upgrade: TLS/1.0, HTTP/1.1\r\nConnection: Upgrade\r\n",
        "Upgrade: websocket\r\nConnection: keep-alive, x-scope-orgid, Upgrade\r\n",
        "upgrade: websocket\r\nUpgrade: h2c\r\n",
    ];
    for upgrade in upgrades {
        let head = format!("GET {QUERY} HTTP/1.1\r\nHost: proxy\r\n{token}{upgrade}\r\n");
        let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        for after in [INNER, preface] {
            let answer =
                raw_exchange(&target.proxy.url(), format!("{head}{after}").as_bytes()).await;
            let statuses = statuses(&answer);
            assert_eq!(statuses.first(), Some(&200), "{upgrade}: {answer}");
            assert!(statuses[1..].iter().all(|status| *status >= 400), "{upgrade}: {answer}");
            let answer =
                raw_exchange(&before_eager.url(), format!("{head}{after}").as_bytes()).await;
            assert!(!answer.contains(" 101 ") && !answer.contains("free"), "{upgrade}: {answer}");
        }
    }
    let heads = target.upstream.heads();
    assert_eq!(heads.len() - before, upgrades.len() * 2);
    for head in heads {
        assert_eq!(head.target, QUERY);
        for name in ["upgrade", "http2-settings", "sec-websocket-key", "connection"] {
            assert!(!head.headers.contains_key(name), "{name} reached Mimir");
        }
    }
}

// RFC 9110, 10.1.1, and the desynchronisation by `Expect` of 2025 (CVE-2025-32094): one side waits for a body, the
// other takes it for a request.
#[tokio::test(flavor = "multi_thread")]
async fn an_expectation_shifts_no_body() {
    let (upstream, target) = (NetHttp::start().await, target(&[]).await);
    let proxy = ProxyOptions::new(&target.issuer.url(), &upstream.url()).start().await;
    let token = target.authorization();
    let chunked = format!("{:x}\r\n{INNER}\r\n0\r\n\r\n", INNER.len());
    let length = format!("Content-Length: {}\r\n", INNER.len());
    for expect in [
        "Expect: 100-continue\r\n",
        "Expect: 100-Continue\r\n",
        "Expect: 100-continue\r\nExpect: 100-continue\r\n",
        "Expect: 100-continue, 100-continue\r\n",
        "Expect: y 100-continue\r\n",
        "Expect: 200-ok\r\n",
        "Expect:\r\n",
        "expect: 100-continue\r\nConnection: expect\r\n",
    ] {
        for (framing, body) in [
            (length.as_str(), INNER),
            ("Transfer-Encoding: chunked\r\n", chunked.as_str()),
            ("Content-Length: 0\r\n", ""),
            ("", ""),
        ] {
            // Let in; not let in; a path that is not served; a GET.
            for (line, credential) in [
                ("POST /api/v1/push", token.as_str()),
                ("POST /api/v1/push", ""),
                ("POST /config", token.as_str()),
                (&format!("GET {QUERY}"), token.as_str()),
            ] {
                let about = format!("{expect:?} {framing:?} {line}");
                let bytes = format!(
                    "{line} HTTP/1.1\r\nHost: proxy\r\n{credential}{expect}{framing}\r\n{body}"
                );
                let mut socket =
                    TcpStream::connect(proxy.url().replace("http://", "")).await.unwrap();
                let mut answer = Vec::new();
                socket.write_all(bytes.as_bytes()).await.unwrap();
                socket.shutdown().await.unwrap();
                let end = socket.read_to_end(&mut answer);
                let _ = tokio::time::timeout(Duration::from_secs(20), end).await.expect("an end");
                let answer = String::from_utf8_lossy(&answer).into_owned();
                let statuses = statuses(&answer);
                let last = statuses.iter().filter(|status| **status >= 200).count();
                // One that is closed without an answer is refused, too.
                assert!(last <= 1, "{about}: {answer}");
                assert!(statuses.iter().filter(|status| **status < 200).count() <= 1, "{answer}");
                assert!(statuses.first().is_none_or(|s| *s != 100 || statuses.len() == 2));
                for request in upstream.take().await {
                    assert_ne!(request.target, "/config", "{about}: {answer}");
                    assert!(request.values("expect").is_empty(), "{about}: {request:?}");
                    assert_eq!(request.values("x-scope-orgid"), [ORG_A], "{about}: {request:?}");
                    assert!(request.body.is_empty() || request.body == INNER.as_bytes());
                }
            }
        }
    }
}

// What a client has begun and never ends is closed at Mimir, too: its place is not filled by the next client's
// request. By both framings, by every end of a connection, read ahead or not.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_cut_off_takes_no_other_request_along() {
    let (upstream, target) = (NetHttp::start().await, target(&[]).await);
    let token = target.authorization();
    for buffer in ["\"64KiB\"", "\"0\""] {
        let proxy = ProxyOptions::new(&target.issuer.url(), &upstream.url())
            .set("limits.upload_buffer_bytes", buffer)
            .start()
            .await;
        let other = proxy.client().bearer(&target.issuer.user_of(ORG_B));
        for (framing, start) in [
            ("Content-Length: 100000\r\n", String::new()),
            ("Transfer-Encoding: chunked\r\n", "186a0\r\n".to_owned()),
            ("Transfer-Encoding: chunked\r\n", format!("{:x}\r\n{INNER}\r\n", INNER.len())),
            ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n".to_owned()),
        ] {
            for end in 0..3 {
                let mut socket =
                    TcpStream::connect(proxy.url().replace("http://", "")).await.unwrap();
                let head =
                    format!("POST /api/v1/push HTTP/1.1\r\nHost: x\r\n{token}{framing}\r\n{start}");
                socket.write_all(head.as_bytes()).await.unwrap();
                if !start.ends_with("0\r\n") {
                    socket.write_all(INNER.as_bytes()).await.unwrap();
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                match end {
                    0 => drop(socket),
                    1 => {
                        socket.set_zero_linger().unwrap();
                        drop(socket);
                    }
                    _ => {
                        socket.shutdown().await.unwrap();
                        let mut answer = Vec::new();
                        let _ = socket.read_to_end(&mut answer).await;
                        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{framing} {start:?}");
                    }
                }
                for _ in 0..3 {
                    assert_eq!(other.get(QUERY).await.status, 200);
                }
                let mut others = 0;
                for request in upstream.take().await {
                    let tenant = request.values("x-scope-orgid").concat();
                    match request.target.as_str() {
                        "/api/v1/push" => {
                            assert!(tenant == ORG_A && !request.problem.is_empty(), "{request:?}");
                        }
                        QUERY => {
                            assert_eq!(tenant, ORG_B, "{request:?}");
                            others += 1;
                        }
                        _ => panic!("{framing} {start:?}: {request:?}"),
                    }
                }
                assert_eq!(others, 3);
            }
        }
    }
}

// An instance that answers before it has read the request (as one that refuses a body does) and then keeps the
// connection: the rest of the body must go there and nowhere else, or the connection must end.
#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_leaves_no_body_to_the_next_request() {
    let connections: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let kept = Arc::clone(&connections);
    let upstream = RawUpstream::start(move |mut socket| {
        let kept = Arc::clone(&kept);
        async move {
            let own = {
                let mut all = kept.lock().unwrap();
                all.push(Vec::new());
                all.len() - 1
            };
            let mut buffer = [0; 4096];
            let mut seen = 0;
            loop {
                match socket.read(&mut buffer).await {
                    Ok(length) if length > 0 => {
                        kept.lock().unwrap()[own].extend_from_slice(&buffer[..length]);
                    }
                    _ => return,
                }
                let heads = count(&kept.lock().unwrap()[own], b"HTTP/1.1\r\n");
                // One answer for each head, however much of the body has come.
                for _ in seen..heads {
                    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly";
                    if socket.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
                seen = heads;
            }
        }
    })
    .await;
    let target = target(&[]).await;
    let proxy = ProxyOptions::new(&target.issuer.url(), &upstream.url())
        .set("limits.upload_buffer_bytes", "\"0\"")
        .set("upstream.eject_after", "1000")
        // Its connections to the instance are all clients'.
        .set("listen.workers", "1")
        .start()
        .await;
    let token = target.authorization();
    let other = proxy.client().bearer(&target.issuer.user_of(ORG_B));
    // Not `HTTP/1.1` as in a head: that is how the instance counts.
    let rest = "GET /config HTTP/1.0\r\nX-Scope-OrgID: smuggled\r\n\r\n";
    for framing in ["Content-Length: 100000\r\n", "Transfer-Encoding: chunked\r\n"] {
        for wait in [0, 50, 300] {
            let mut socket = TcpStream::connect(proxy.url().replace("http://", "")).await.unwrap();
            let head = format!("POST /api/v1/push HTTP/1.1\r\nHost: x\r\n{token}{framing}\r\n");
            socket.write_all(head.as_bytes()).await.unwrap();
            let piece = if framing.starts_with('C') {
                "begun".to_owned()
            } else {
                "5\r\nbegun\r\n".to_owned()
            };
            socket.write_all(piece.as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(wait)).await;
            assert_eq!(other.get(QUERY).await.status, 200);
            let piece = if framing.starts_with('C') {
                rest.to_owned()
            } else {
                format!("{:x}\r\n{rest}\r\n", rest.len())
            };
            let _ = socket.write_all(piece.as_bytes()).await;
            for _ in 0..3 {
                assert_eq!(other.get(QUERY).await.status, 200);
            }
            drop(socket);
            assert_eq!(other.get(QUERY).await.status, 200);
        }
    }
    // Each connection, read strictly: after a push that has not ended nothing follows that is not its body.
    let connections = connections.lock().unwrap().clone();
    let mut pushes = 0;
    for bytes in connections {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((before, push)) = text.split_once("POST /api/v1/push") else {
            assert!(!text.contains("/config"), "{text}");
            continue;
        };
        pushes += 1;
        assert!(!before.contains("/config"), "{text}");
        assert!(!push.contains(QUERY), "a request follows half a body: {text}");
    }
    assert_eq!(pushes, 6);
}

fn count(bytes: &[u8], part: &[u8]) -> usize {
    bytes.windows(part.len()).filter(|window| *window == part).count()
}

// What a request says is in no line of its answer's head but the identifier that is harmless, and the origin that is
// configured: CR and LF in any encoding would be a second answer for whoever reads next (response splitting).
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_request_becomes_a_line_of_an_answers_head() {
    let target = target(&[]).await;
    let token = target.authorization();
    let split = "%0d%0aX-Canary:%20canary%0d%0a%0d%0aHTTP/1.1%20200%20OK%0d%0a%0d%0acanary";
    let unicode = "%E5%98%8A%E5%98%8DX-Canary:canary\u{560d}\u{560a}";
    let mut tried = Vec::new();
    for value in [split, "canary", unicode, "canary\tcanary", "canary; HttpOnly"] {
        let escaped = value.replace([' ', '\t'], "%20").replace(['\u{560d}', '\u{560a}'], "");
        for path in [
            format!("/{escaped}"),
            format!("/prometheus/api/v1/label/{escaped}/values"),
            format!("/prometheus/config/v1/rules/{escaped}/{escaped}"),
            format!("/alertmanager/api/v2/silence/{escaped}"),
            format!("/admin/organisations/{escaped}/device-keys"),
            format!("/console/{escaped}"),
            format!("/login?next={escaped}"),
            format!("{QUERY}&x={escaped}"),
        ] {
            tried.push((path, String::new()));
        }
        for name in [
            "X-Request-ID",
            "Origin",
            "Access-Control-Request-Method",
            "Access-Control-Request-Headers",
            "Referer",
            "Cookie",
            "traceparent",
            "tracestate",
            "Accept",
            "Accept-Encoding",
            "Accept-Language",
            "Content-Type",
            "X-Scope-OrgID",
            "Forwarded",
            "TE",
            "Via",
        ] {
            for method in ["GET", "OPTIONS"] {
                // An identifier that is harmless is repeated: that is what it is for.
                if name != "X-Request-ID" || value != "canary" {
                    tried.push((format!("{method} {QUERY}"), format!("{name}: {value}\r\n")));
                }
            }
        }
    }
    let mut ids_of_refused = Vec::new();
    for (line, header) in &tried {
        let line = if line.starts_with('/') { format!("GET {line}") } else { line.clone() };
        for credential in ["", token.as_str()] {
            let request = format!(
                "{line} HTTP/1.1\r\nHost: proxy\r\nConnection: close\r\n{credential}{header}\r\n"
            );
            let answer = raw_exchange(&target.proxy.url(), request.as_bytes()).await;
            let head = answer.split("\r\n\r\n").next().unwrap().to_lowercase();
            assert!(!head.contains("canary"), "{line} {header}: {answer}");
            assert_eq!(
                answer.matches("HTTP/1.1 ").count(),
                1 + answer.matches("%20HTTP").count(),
                "{answer}"
            );
            if statuses(&answer).first().is_some_and(|status| *status >= 400) {
                ids_of_refused.extend(ids(&answer));
            }
        }
    }
    let reasons = target.reasons(&ids_of_refused).await;
    assert!(!reasons.is_empty() && reasons.iter().all(|reason| !reason.is_empty()));
}

// Interim answers without an end are no answer, and the worker serves others meanwhile. Before there was a bound, one
// such instance made every other request of its worker wait for seconds.
#[tokio::test(flavor = "multi_thread")]
async fn interim_answers_without_an_end_are_no_answer() {
    let upstream = RawUpstream::start(|mut socket| async move {
        let mut buffer = [0; 4096];
        let Ok(length) = socket.read(&mut buffer).await else { return };
        if !String::from_utf8_lossy(&buffer[..length]).contains("endless") {
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            return;
        }
        let interim =
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
                .repeat(200);
        while socket.write_all(&interim).await.is_ok() {}
    })
    .await;
    let target = target(&[]).await;
    let proxy = ProxyOptions::new(&target.issuer.url(), &upstream.url())
        .set("upstream.eject_after", "1000")
        .set("listen.workers", "1")
        .start()
        .await;
    let client = proxy.client().bearer(&target.issuer.user_of(ORG_A));
    let before = proxy.process.memory();
    let attacked = client.clone();
    let endless = tokio::spawn(async move { attacked.get(&format!("{QUERY}&endless")).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let other = proxy.client().bearer(&target.issuer.user_of(ORG_B));
    for _ in 0..10 {
        let began = std::time::Instant::now();
        assert_eq!(other.get(QUERY).await.status, 200);
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
    let answer =
        tokio::time::timeout(Duration::from_secs(30), endless).await.expect("an end").unwrap();
    assert!((502..=504).contains(&answer.status.as_u16()), "{}", answer.text);
    assert!(proxy.process.peak_memory().saturating_sub(before) < 16 << 20);
    wait_until("its connection ends", Duration::from_secs(10), async || {
        client.get(QUERY).await.status == 200
    })
    .await;
}

// What hyper cannot read is no request and has no line in the log. It has an answer or none, and it is counted.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_request_are_counted_and_reach_nobody() {
    let target = target(&[]).await;
    let token = target.authorization();
    let series = "mimir_tenant_proxy_connections_ended_total{reason=\"protocol_error\"}";
    let head = format!("GET {QUERY} HTTP/1.1\r\nHost: x\r\n{token}");
    let mut counted = target.proxy.metric(series).await;
    for bytes in [
        "\u{16}\u{3}\u{1}\0\u{5}\r\n\r\n".to_owned(),
        "SSH-2.0-x\r\n\r\n".to_owned(),
        "\0\0\0\0\0\0\0\0\r\n\r\n".to_owned(),
        format!("G\0T {QUERY} HTTP/1.1\r\nHost: x\r\n{token}\r\n"),
        format!("GET {QUERY} HTTP/9.9\r\nHost: x\r\n{token}\r\n"),
        format!("GET {QUERY} x HTTP/1.1\r\nHost: x\r\n{token}\r\n"),
        format!("{head}X Y: z\r\n\r\n"),
        format!("{head}: z\r\n\r\n"),
        format!("{head}X: a\0b\r\n\r\n"),
        format!("{head}X: a\r\n folded\r\n\r\n"),
        format!("{head}Content-Length: +5\r\n\r\nhello"),
        format!("{head}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
    ] {
        let answer = raw_exchange(&target.proxy.url(), format!("{bytes}{INNER}").as_bytes()).await;
        let statuses = statuses(&answer);
        assert!(statuses.iter().all(|status| *status == 400) && statuses.len() <= 1, "{answer}");
        wait_until("its end is counted", Duration::from_secs(5), async || {
            target.proxy.metric(series).await > counted
        })
        .await;
        counted += 1.0;
        assert_eq!(target.proxy.metric(series).await, counted, "{bytes:?}");
    }
    assert!(target.upstream.heads().is_empty(), "{:?}", target.upstream.heads());
}
