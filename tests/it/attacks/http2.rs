//! HTTP/2 by hand.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness::{ORG_A, Upstream};
use http_body_util::BodyExt as _;
use tokio::net::TcpStream;

use super::bodies::pour;
use super::{QUERY, Target, target, target_before};
use crate::deadlines::frames::{DATA, Frames, frame, literal, opening, status};
use crate::support::responses::ok;

const MIB: u64 = 1 << 20;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A header field as a literal that is not indexed, its name spelt out.
fn field(name: &str, value: &str) -> Vec<u8> {
    literal(&literal(&[0], name), value)
}

fn fields(all: &[(&str, &str)]) -> Vec<u8> {
    all.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// The head of a read that is served.
fn read(target: &Target) -> Vec<u8> {
    fields(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", QUERY),
        (":authority", "x"),
        ("authorization", &token(target)),
    ])
}

fn token(target: &Target) -> String {
    format!("Bearer {}", target.issuer.user_of(ORG_A))
}

// CVE-2023-44487: streams that are opened and reset at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_rapid_reset_flood_harms_no_other() {
    let target = target(&[]).await;
    target.others_are_served().await;
    let (before, served) = (target.proxy.process.memory(), target.upstream.heads().len());
    let block = read(&target);
    let pair = |number: u32| {
        let stream = number * 2 + 1;
        [
            frame(HEADERS, END_STREAM | END_HEADERS, stream, &block),
            frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]),
        ]
        .concat()
    };
    let mut floods = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let address = target.address();
        let pairs: Vec<Vec<u8>> =
            (0..200).map(|batch| (0..100).flat_map(|n| pair(batch * 100 + n)).collect()).collect();
        floods.spawn(async move {
            let mut frames = Frames::new(TcpStream::connect(address).await.unwrap());
            let mut sent = 0;
            if frames.send(&opening(65_535)).await.is_ok() {
                for batch in &pairs {
                    let write =
                        tokio::time::timeout(Duration::from_secs(10), frames.send(batch)).await;
                    if !matches!(write, Ok(Ok(()))) {
                        break;
                    }
                    sent += 100;
                }
            }
            sent
        });
    }
    target.others_are_served().await;
    let sent: Vec<u32> = floods.join_all().await;
    println!("pairs that were taken of 20,000: {sent:?}");
    target.others_are_served().await;
    assert!(sent.iter().all(|sent| *sent < 20_000), "a connection took all of it: {sent:?}");
    let reached = target.upstream.heads().len() - served;
    assert!(reached < 2_000, "{reached} requests reached the upstream");
    assert!(target.proxy.process.peak_memory() - before < 64 * MIB);
}

// CVE-2024-27316 and its kin: a block of header fields that never ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_block_without_an_end_ends_its_connection() {
    let target = target(&[]).await;
    target.others_are_served().await;
    let before = target.proxy.process.memory();
    let many = field("x-a", "b").repeat(1_800);
    for (what, piece) in [
        ("fields", frame(CONTINUATION, 0, 1, &many)),
        ("nothing", frame(CONTINUATION, 0, 1, &[]).repeat(1_000)),
    ] {
        let begin = [opening(65_535), frame(HEADERS, 0, 1, &[0x82, 0x86])].concat();
        let sent = pour(&target, &begin, &piece, 4_000).await;
        println!("{what}: {sent} of 4,000");
        assert!(sent < 4_000, "{what}: the block was read for ever");
        target.others_are_served().await;
    }
    assert!(target.proxy.process.peak_memory() - before < 32 * MIB);
}

// CVE-2016-1544: a block of a few KiB that stands for very many.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_block_that_stands_for_a_large_one_is_refused() {
    let target = target(&[]).await;
    target.others_are_served().await;
    let (before, served) = (target.proxy.process.memory(), target.upstream.heads().len());
    let head = read(&target);
    // One field of 4 KB for the dynamic table, where it is number 62, and then its number again and again.
    let indexed = literal(&literal(&[0x40], "x-bomb"), &"b".repeat(3_900));
    let bomb = [head, indexed, vec![0xbe; 10_000]].concat();
    for _ in 0..8 {
        let mut frames = Frames::new(TcpStream::connect(target.address()).await.unwrap());
        frames.send(&opening(65_535)).await.unwrap();
        frames.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb)).await.unwrap();
        let outcome = outcome(&mut frames, 1).await;
        assert!(matches!(outcome, Outcome::Refused(431) | Outcome::Ended), "{outcome:?}");
    }
    assert_eq!(target.upstream.heads().len(), served);
    assert!(target.proxy.process.peak_memory() - before < 32 * MIB);
    target.others_are_served().await;
}

// A field of one byte takes some seventy here, for as long as its request waits for something.
#[tokio::test(flavor = "multi_thread")]
async fn fields_of_a_byte_take_no_memory() {
    let target = target(&[]).await;
    target.others_are_served().await;
    let before = target.proxy.process.memory();
    let named = literal(&literal(&[0x40], "a"), "");
    let mut open = Vec::new();
    for path in ["/admin/console", QUERY] {
        let head = fields(&[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "x"),
        ]);
        let block = [head.clone(), named.clone(), vec![0xbe; 1_000]].concat();
        for _ in 0..10 {
            let mut frames = Frames::new(TcpStream::connect(target.address()).await.unwrap());
            let heads = (0..100).flat_map(|n| frame(HEADERS, END_HEADERS, 2 * n + 1, &block));
            let all = [opening(65_535), heads.collect()].concat();
            frames.send(&all).await.unwrap();
            assert_eq!(outcome(&mut frames, 1).await, Outcome::Refused(431), "{path}");
            open.push(frames);
        }
        // Nor does a file for everybody wait for a body.
        let mut frames = Frames::new(TcpStream::connect(target.address()).await.unwrap());
        let begin = [opening(65_535), frame(HEADERS, END_HEADERS, 1, &head)].concat();
        frames.send(&begin).await.unwrap();
        let answered = tokio::time::timeout(Duration::from_secs(3), outcome(&mut frames, 1)).await;
        assert!(matches!(answered, Ok(Outcome::Refused(_))), "{path}: {answered:?}");
    }
    let grown = target.proxy.process.peak_memory() - before;
    println!("{} KiB for 2,000 requests of 1,000 fields", grown >> 10);
    assert!(grown < 48 * MIB, "{grown}");
    target.others_are_served().await;
}

// A refusal may wait for credit for a minute, and nobody needs a credential to be refused.
// hyper takes a piece of the body before there is credit for it, and with the last piece the record ends, which has
// the target.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_refused_request_is_kept_while_its_answer_waits() {
    let target = target(&[]).await;
    target.others_are_served().await;
    let before = target.proxy.process.memory();
    let path = format!("/{}", "n".repeat(60_000));
    let block =
        fields(&[(":method", "GET"), (":scheme", "http"), (":path", &path), (":authority", "x")]);
    let head = |stream| {
        let mut pieces = block.chunks(16_384);
        let first = frame(HEADERS, END_STREAM, stream, pieces.next().unwrap());
        let last = pieces.next_back().unwrap();
        let others = pieces.flat_map(|piece| frame(CONTINUATION, 0, stream, piece));
        let end = frame(CONTINUATION, END_HEADERS, stream, last);
        first.into_iter().chain(others).chain(end).collect::<Vec<u8>>()
    };
    let mut open = Vec::new();
    for _ in 0..10 {
        let mut frames = Frames::new(TcpStream::connect(target.address()).await.unwrap());
        frames.send(&opening(0)).await.unwrap();
        for number in 0..100 {
            frames.send(&head(2 * number + 1)).await.unwrap();
        }
        assert_eq!(outcome(&mut frames, 199).await, Outcome::Refused(404));
        open.push(frames);
    }
    let grown = target.proxy.process.peak_memory() - before;
    println!("{} KiB for 1,000 refusals of 60 KB", grown >> 10);
    assert!(grown < 24 * MIB, "{grown}");
    target.others_are_served().await;
}

// h2 takes requests until its first GOAWAY is acknowledged, by the answer to a PING.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_acknowledges_no_goaway_holds_up_no_drain() {
    let mut target = target(&[]).await;
    let head = read(&target);
    let mut frames = Frames::new(TcpStream::connect(target.address()).await.unwrap());
    frames.send(&opening(65_535)).await.unwrap();
    frames.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &head)).await.unwrap();
    assert_eq!(outcome(&mut frames, 1).await, Outcome::Refused(200));
    target.proxy.process.signal("TERM");
    let began = std::time::Instant::now();
    let mut ended = None;
    for stream in (3..).step_by(2) {
        let request = frame(HEADERS, END_STREAM | END_HEADERS, stream, &head);
        if frames.send(&request).await.is_err() {
            ended = Some(began.elapsed());
            break;
        }
        let pause = tokio::time::sleep(Duration::from_millis(400));
        tokio::pin!(pause);
        let is_over = loop {
            tokio::select! {
                () = &mut pause => break false,
                received = frames.next() => match received {
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => break true,
                },
            }
        };
        if is_over {
            ended = Some(began.elapsed());
            break;
        }
        if began.elapsed() > Duration::from_secs(20) {
            break;
        }
    }
    println!("ended after {ended:?}");
    assert!(ended.is_some_and(|after| after < Duration::from_secs(10)), "{ended:?}");
    assert!(target.proxy.process.wait(Duration::from_secs(10)).is_some());
    assert!(target.proxy.process.log().contains("\"complete\":true"));
}

/// The head of a push, with a body to come.
/// A body that is also an export by OTLP.
const WHOLE: &[u8] = b"xxxxx";

fn push(token: &str, path: &str, stream: u32, length: Option<usize>) -> Vec<u8> {
    let length = length.map(|length| length.to_string());
    let mut all = vec![
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
        ("authorization", token),
        ("content-type", "application/x-protobuf"),
    ];
    all.extend(length.as_deref().map(|length| ("content-length", length)));
    frame(HEADERS, END_HEADERS, stream, &fields(&all))
}

/// A target whose upstream notes the length of each body that it has got whole.
async fn target_of_bodies() -> (Target, Arc<Mutex<Vec<usize>>>) {
    let whole: Arc<Mutex<Vec<usize>>> = Arc::default();
    let notes = Arc::clone(&whole);
    let upstream = Upstream::start(move |mut received: harness::Received| {
        let notes = Arc::clone(&notes);
        async move {
            let body = received.body.take();
            if let Some(body) = body
                && let Ok(body) = body.collect().await
                && received.method == "POST"
            {
                notes.lock().unwrap().push(body.to_bytes().len());
            }
            ok(received).await
        }
    });
    (target_before(upstream.await, &[]).await, whole)
}

// Envoy resets with NO_ERROR if its own client is gone, which hyper takes for the end of the body. A line of Influx that
// is cut in its value is another value.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_whose_stream_is_reset_is_never_whole() {
    let (target, whole) = target_of_bodies().await;
    let token = token(&target);
    let mut frames = Frames::new(TcpStream::connect(target.address()).await.unwrap());
    frames.send(&opening(65_535)).await.unwrap();
    let (mut streams, mut good) = ((1..).step_by(2), Vec::new());
    for path in ["/api/v1/push/influx/write", "/api/v1/push", "/otlp/v1/metrics"] {
        for (length, code) in [(None, 0), (Some(2_000), 0), (None, 8)] {
            for pause in [None, Some(0), Some(1), Some(50)] {
                // Mimir's connection is kept for the next one, which then waits for nothing.
                let stream = streams.next().unwrap();
                let head = push(&token, path, stream, None);
                let end = frame(DATA, END_STREAM, stream, WHOLE);
                frames.send(&[head, end].concat()).await.unwrap();
                assert_eq!(outcome(&mut frames, stream).await, Outcome::Refused(200));
                good.push(WHOLE.len());
                let stream = streams.next().unwrap();
                let head = push(&token, path, stream, length);
                let data = frame(DATA, 0, stream, &[b'x'; 1_000]);
                let reset = frame(RST_STREAM, 0, stream, &[0, 0, 0, code]);
                let (now, later) = if pause.is_none() { (reset, vec![]) } else { (vec![], reset) };
                frames.send(&[head, data, now].concat()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(pause.unwrap_or(0))).await;
                frames.send(&later).await.unwrap();
            }
        }
    }
    target.others_are_served().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(*whole.lock().unwrap(), good);
}

// Envoy says that a body has ended in an empty frame behind it. To wait for that is to wait for nothing, and not to is to
// close a connection that Mimir would keep.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_a_known_length_ends_with_its_last_byte() {
    let (target, whole) = target_of_bodies().await;
    let mut frames = Frames::new(TcpStream::connect(target.address()).await.unwrap());
    frames.send(&opening(65_535)).await.unwrap();
    let (token, path) = (token(&target), "/api/v1/push");
    for stream in (1..40).step_by(2) {
        frames.send(&push(&token, path, stream, Some(30_000))).await.unwrap();
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            frames.send(&frame(DATA, 0, stream, &[b'x'; 10_000])).await.unwrap();
        }
        // Answered before the end, and with it.
        if stream % 4 == 1 {
            assert_eq!(outcome(&mut frames, stream).await, Outcome::Refused(200));
            frames.send(&frame(DATA, END_STREAM, stream, &[])).await.unwrap();
        } else {
            frames.send(&frame(DATA, END_STREAM, stream, &[])).await.unwrap();
            assert_eq!(outcome(&mut frames, stream).await, Outcome::Refused(200));
        }
    }
    assert_eq!(*whole.lock().unwrap(), [30_000; 20]);
    assert_eq!(target.upstream.all_connections(), 1);
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Answered with this status.
    Refused(u16),
    /// The stream or the connection was ended.
    Ended,
}

async fn outcome(frames: &mut Frames, stream: u32) -> Outcome {
    let wait = Duration::from_secs(10);
    loop {
        match tokio::time::timeout(wait, frames.next()).await.expect("an answer or an end") {
            Ok(Some(received)) if received.kind == HEADERS && received.stream == stream => {
                return Outcome::Refused(status(&received.payload));
            }
            Ok(Some(received)) if received.kind == GOAWAY => return Outcome::Ended,
            Ok(Some(received)) if received.kind == RST_STREAM && received.stream == stream => {
                return Outcome::Ended;
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return Outcome::Ended,
        }
    }
}

// RFC 9113, 8.2 and 8.3: what would be another request once it is written as HTTP/1.1.
#[tokio::test(flavor = "multi_thread")]
async fn malformed_heads_of_http_2_reach_nobody() {
    let target = target(&[]).await;
    let token = token(&target);
    let good: Vec<(&str, &str)> = vec![
        (":method", "GET"),
        (":scheme", "http"),
        (":path", QUERY),
        (":authority", "x"),
        ("authorization", &token),
    ];
    let with = |more: &[(&'static str, &'static str)]| {
        fields(&good.iter().copied().chain(more.iter().copied()).collect::<Vec<_>>())
    };
    let replaced = |name: &str, value: &'static str| {
        let change =
            |(own, old): &(&'static str, &str)| field(own, if *own == name { value } else { old });
        let fixed: Vec<(&'static str, &str)> = vec![
            (":method", "GET"),
            (":scheme", "http"),
            (":path", QUERY),
            (":authority", "x"),
            ("authorization", &token),
        ];
        fixed.iter().flat_map(change).collect::<Vec<u8>>()
    };
    let without = |name: &str| {
        fields(&good.iter().copied().filter(|(own, _)| *own != name).collect::<Vec<_>>())
    };
    let injected = "a\r\nX-Scope-OrgID: smuggled";
    let second = "x HTTP/1.1\r\nHost: x\r\n\r\nGET /config";
    let blocks: Vec<(&str, Vec<u8>)> = vec![
        ("a name in capitals", with(&[("X-Scope-OrgID", "smuggled")])),
        ("a name in capitals, of ours", with(&[("Authorization", "Bearer x")])),
        ("connection", with(&[("connection", "x-scope-orgid")])),
        ("keep-alive", with(&[("keep-alive", "1")])),
        ("proxy-connection", with(&[("proxy-connection", "x")])),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("upgrade", with(&[("upgrade", "h2c")])),
        ("te", with(&[("te", "gzip")])),
        ("a line break in a value", with(&[("x-a", injected)])),
        ("a line feed in a value", with(&[("x-a", "a\nX-Scope-OrgID: smuggled")])),
        ("a NUL in a value", with(&[("x-a", "a\0b")])),
        ("a line break in a name", with(&[("x-a\r\nx-scope-orgid", "smuggled")])),
        ("a colon in a name", with(&[("x-scope-orgid: smuggled\r\nx", "b")])),
        ("a space in a name", with(&[("x-scope-orgid ", "smuggled")])),
        ("an empty name", with(&[("", "b")])),
        ("an unknown pseudo-header", with(&[(":protocol", "websocket")])),
        ("an answer's pseudo-header", with(&[(":status", "200")])),
        ("a pseudo-header behind a header", with(&[(":path", "/config")])),
        ("two paths", [field(":path", "/config"), with(&[])].concat()),
        ("two methods", [field(":method", "DELETE"), with(&[])].concat()),
        ("no path", without(":path")),
        ("no method", without(":method")),
        ("an empty path", replaced(":path", "")),
        ("a path with a second request", replaced(":path", second)),
        ("a path with a space", replaced(":path", "/prometheus/api/v1/query?query=up HTTP/1.1")),
        ("an absolute path", replaced(":path", "http://mimir/config")),
        ("an asterisk", replaced(":path", "*")),
        (
            "a method with a second request",
            replaced(":method", "GET /config HTTP/1.1\r\nHost: x\r\n\r\nGET"),
        ),
        ("a method with a space", replaced(":method", "GET /config")),
        ("a path that is not served", replaced(":path", "/config")),
        ("dots", replaced(":path", "/prometheus/api/v1/../../../config")),
        ("a line break in the authority", replaced(":authority", injected)),
        ("a slash in the authority", replaced(":authority", "x/config")),
        ("CONNECT", replaced(":method", "CONNECT")),
        ("a length without a body", with(&[("content-length", "5")])),
        ("two lengths", with(&[("content-length", "0"), ("content-length", "5")])),
        ("a length that is none", with(&[("content-length", "+0")])),
        ("another host", with(&[("host", "a"), ("host", "b")])),
        ("two selectors", with(&[("x-scope-orgid", ORG_A), ("x-scope-orgid", "other")])),
        ("two credentials", with(&[("authorization", "Bearer x")])),
        ("no credential", without("authorization")),
    ];
    for (what, block) in &blocks {
        let mut frames = Frames::new(TcpStream::connect(target.address()).await.unwrap());
        frames.send(&opening(65_535)).await.unwrap();
        frames.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, block)).await.unwrap();
        match outcome(&mut frames, 1).await {
            Outcome::Refused(status) => assert!((400..500).contains(&status), "{what}: {status}"),
            Outcome::Ended => {}
        }
    }
    assert!(target.upstream.heads().is_empty(), "{:?}", target.upstream.heads());
    // The same head without a fault is served.
    let mut frames = Frames::new(TcpStream::connect(target.address()).await.unwrap());
    frames.send(&opening(65_535)).await.unwrap();
    frames.send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &fields(&good))).await.unwrap();
    assert_eq!(outcome(&mut frames, 1).await, Outcome::Refused(200));
    assert_eq!(target.upstream.heads().len(), 1);
    target.others_are_served().await;
}

// A body that is longer or shorter than its head says (RFC 9113, 8.1.1) is not a whole one at Mimir: as HTTP/1.1
// its rest would be the next request.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_another_length_than_said_is_not_whole() {
    let (upstream, target) = (harness::NetHttp::start().await, target(&[]).await);
    let proxy = harness::ProxyOptions::new(&target.issuer.url(), &upstream.url()).start().await;
    let token = token(&target);
    let inner = "GET /config HTTP/1.1\r\nHost: x\r\nX-Scope-OrgID: smuggled\r\n\r\n";
    for (said, body) in [
        ("4", "hello".to_owned()),
        ("5", format!("hello{inner}")),
        ("6", "hello".to_owned()),
        ("0", inner.to_owned()),
    ] {
        let block = fields(&[
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/api/v1/push"),
            (":authority", "x"),
            ("authorization", &token),
            ("content-length", said),
        ]);
        let mut frames =
            Frames::new(TcpStream::connect(proxy.url().replace("http://", "")).await.unwrap());
        frames.send(&opening(65_535)).await.unwrap();
        frames.send(&frame(HEADERS, END_HEADERS, 1, &block)).await.unwrap();
        let _ = frames.send(&frame(0, END_STREAM, 1, body.as_bytes())).await;
        let outcome = outcome(&mut frames, 1).await;
        assert_ne!(outcome, Outcome::Refused(200), "{said}");
        tokio::time::sleep(Duration::from_millis(200)).await;
        for request in upstream.take().await {
            assert_eq!(request.target, "/api/v1/push", "{said}");
            assert!(!request.problem.is_empty(), "{said}: {request:?}");
        }
    }
}

// CVE-2025-8671 ("MadeYouReset"): faults of a stream that make the server reset it, so that the limit of resets by
// the client does not count them. CVE-2019-9512, 9515 and 9518: frames that cost an answer or nothing at all.
#[tokio::test(flavor = "multi_thread")]
async fn streams_that_the_server_has_to_reset_are_counted() {
    let target = target(&[]).await;
    target.others_are_served().await;
    let (before, served) = (target.proxy.process.memory(), target.upstream.heads().len());
    let block = read(&target);
    let open = |stream| frame(HEADERS, END_HEADERS, stream, &block);
    let zero_credit = |stream| frame(8, 0, stream, &[0; 4]);
    let too_much_credit = |stream| frame(8, 0, stream, &[0x7f, 0xff, 0xff, 0xff]);
    let own_dependency =
        |stream: u32| frame(2, 0, stream, &[&stream.to_be_bytes()[..], &[0]].concat());
    let behind_the_end = |stream| {
        let end = frame(0, END_STREAM, stream, b"");
        [end, frame(0, 0, stream, b"more")].concat()
    };
    type Fault<'a> = &'a dyn Fn(u32) -> Vec<u8>;
    let faults: [(&str, Fault<'_>); 4] = [
        ("no credit", &zero_credit),
        ("too much credit", &too_much_credit),
        ("a stream that depends on itself", &own_dependency),
        ("data behind the end", &behind_the_end),
    ];
    for (what, fault) in faults {
        let mut frames = Frames::new(TcpStream::connect(target.address()).await.unwrap());
        frames.send(&opening(65_535)).await.unwrap();
        let mut sent = 0;
        for number in 0..20_000_u32 {
            let stream = number * 2 + 1;
            let both = [open(stream), fault(stream)].concat();
            let write = tokio::time::timeout(Duration::from_secs(10), frames.send(&both)).await;
            if !matches!(write, Ok(Ok(()))) {
                break;
            }
            sent += 1;
        }
        println!("{what}: {sent} of 20,000");
        assert!(sent < 20_000, "{what}: all were taken");
        target.others_are_served().await;
    }
    let reached = target.upstream.heads().len() - served;
    assert!(reached < 4_000, "{reached} requests reached the upstream");
    assert!(target.proxy.process.peak_memory() - before < 64 * MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_say_nothing_end_their_connection() {
    let target = target(&[]).await;
    target.others_are_served().await;
    let before = target.proxy.process.memory();
    let settings = frame(4, 0, 0, &[0, 4, 0, 1, 0, 0]).repeat(1_000);
    let empty_settings = frame(4, 0, 0, &[]).repeat(1_000);
    let pings = frame(6, 0, 0, b"12345678").repeat(1_000);
    let head = fields(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/api/v1/push"),
        (":authority", "x"),
        ("authorization", &token(&target)),
    ]);
    let push = [opening(65_535), frame(HEADERS, END_HEADERS, 1, &head)].concat();
    let empty_data = frame(0, 0, 1, &[]).repeat(1_000);
    for (what, begin, piece) in [
        ("settings", opening(65_535), settings),
        ("empty settings", opening(65_535), empty_settings),
        ("pings", opening(65_535), pings),
        ("empty data", push.clone(), empty_data),
    ] {
        let sent = pour(&target, &begin, &piece, 20_000).await;
        println!("{what}: {sent},000 frames of 20,000,000");
        assert!(sent < 20_000, "{what}: all were taken");
        target.others_are_served().await;
    }
    // A byte of padding and a byte of its length, by a client that waits for the credit that h2 gives for it.
    let mut frames = Frames::new(TcpStream::connect(target.address()).await.unwrap());
    frames.send(&push).await.unwrap();
    let padding = frame(0, 8, 1, &[1, 0]).repeat(1_000);
    let mut sent = 0;
    'flood: while sent < 300 {
        for _ in 0..5 {
            if frames.send(&padding).await.is_err() {
                break 'flood;
            }
            sent += 1;
        }
        loop {
            let received = tokio::time::timeout(Duration::from_millis(30), frames.next()).await;
            match received {
                Ok(Ok(Some(frame))) if frame.kind != GOAWAY => {}
                Ok(_) => break 'flood,
                Err(_) => break,
            }
        }
    }
    println!("padding: {sent},000 frames of 300,000");
    assert!(sent < 300, "padding: all were taken");
    target.others_are_served().await;
    let grown = target.proxy.process.peak_memory().saturating_sub(before);
    assert!(grown < 32 * MIB, "grown by {} KiB", grown >> 10);
}
