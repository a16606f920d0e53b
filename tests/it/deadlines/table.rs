//! Every way to keep a connection silent, by protocol and phase, and what ends it: the table of
//! docs/operations/deadlines.md, row by row.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use harness::{Upstream, wait_until};
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

use super::frames::{self, Frames};
use crate::documents::root;
use crate::support::responses::ok;
use crate::support::single::{MIB, ProxyFixture, QUERY, count, pieces, proxy_fixture};

const LARGE: &str = "/prometheus/api/v1/labels";

// Far enough apart to be distinguished on a busy machine.
const HEADER: Duration = Duration::from_millis(400);
const BODY_IDLE: Duration = Duration::from_millis(1000);
const WRITE: Duration = Duration::from_millis(1800);
const IDLE: Duration = Duration::from_millis(3200);
const BODY: Duration = Duration::from_millis(2500);
/// The response to a slow body: stock senders drop their data on a 4xx.
const SLOW_BODY: u16 = 503;
/// How long the body of a rejected request is read; not configurable.
const LINGER: Duration = Duration::from_secs(5);
const SLACK: Duration = Duration::from_secs(2);

/// How a row ends for its client, and when.
struct Ended {
    seen: Seen,
    after: Duration,
}

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// The connection was closed, after these statuses.
    Closed(Vec<u16>),
    /// The connection was reset.
    Reset,
    /// A stream was reset, and the connection stays open.
    StreamReset,
    /// There is a response.
    Answer(u16),
}

struct Row<'a> {
    /// The row's name in the document.
    name: &'static str,
    seen: Seen,
    after: Duration,
    /// How much later it may end.
    slack: Duration,
    /// The series that counts it.
    counted: &'static str,
    run: Pin<Box<dyn Future<Output = Ended> + Send + 'a>>,
}

fn row<'a>(
    name: &'static str,
    seen: Seen,
    after: Duration,
    counted: &'static str,
    run: impl Future<Output = Ended> + Send + 'a,
) -> Row<'a> {
    Row { name, seen, after, slack: SLACK, counted, run: Box::pin(run) }
}

impl Row<'_> {
    /// There is much to serve before everything stops.
    fn busy(self) -> Self {
        Self { slack: 5 * SLACK, ..self }
    }
}

async fn connect(fixture: &ProxyFixture) -> TcpStream {
    TcpStream::connect(fixture.proxy.url().replace("http://", "")).await.unwrap()
}

/// A client that can receive few bytes before it has to read.
async fn connect_narrow(fixture: &ProxyFixture) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(fixture.proxy.url().replace("http://", "").parse().unwrap()).await.unwrap()
}

fn statuses(answers: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answers);
    let heads = text.split("HTTP/1.").skip(1);
    heads.filter_map(|head| head.get(2..5)?.parse().ok()).collect()
}

/// Sends pieces with pauses before them, then waits for the end, measured from the last byte in
/// either direction.
async fn silent(fixture: &ProxyFixture, script: &[(u64, &str)]) -> Ended {
    let (mut reading, mut writing) = connect(fixture).await.into_split();
    let mut answers = Vec::new();
    let mut last = Instant::now();
    let mut buffer = [0; 8192];
    let mut script = script.iter();
    let mut next = script.next();
    loop {
        let pause =
            next.map_or(Duration::from_secs(20), |(pause, _)| Duration::from_millis(*pause));
        tokio::select! {
            read = reading.read(&mut buffer) => match read {
                Ok(0) => break,
                Ok(length) => {
                    last = Instant::now();
                    answers.extend_from_slice(&buffer[..length]);
                }
                Err(error) => panic!("{error} after {}", String::from_utf8_lossy(&answers)),
            },
            () = tokio::time::sleep(pause) => {
                let (_, bytes) = next.expect("it ends");
                writing.write_all(bytes.as_bytes()).await.unwrap();
                last = Instant::now();
                next = script.next();
            }
        }
    }
    Ended { seen: Seen::Closed(statuses(&answers)), after: last.elapsed() }
}

/// Sends a byte or more every 100 ms; measured from the first.
async fn trickled(fixture: &ProxyFixture, head: &str, piece: &str) -> Ended {
    let (mut reading, mut writing) = connect(fixture).await.into_split();
    let began = Instant::now();
    writing.write_all(head.as_bytes()).await.unwrap();
    let mut answers = Vec::new();
    let trickle = async {
        while writing.write_all(piece.as_bytes()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        std::future::pending::<()>().await;
    };
    let read = async {
        // Bytes that are sent after the end are answered with a reset.
        let _ = reading.read_to_end(&mut answers).await;
    };
    tokio::select! {
        () = trickle => {}
        () = read => {}
    }
    Ended { seen: Seen::Closed(statuses(&answers)), after: began.elapsed() }
}

/// Sends the beginning of a request, then pieces of it every 100 ms, and waits for the response,
/// measured from the beginning.
async fn answered(fixture: &ProxyFixture, beginning: &str, piece: &str) -> Ended {
    let mut socket = connect(fixture).await;
    let began = Instant::now();
    socket.write_all(beginning.as_bytes()).await.unwrap();
    let mut answers = Vec::new();
    loop {
        let pause = tokio::time::sleep(Duration::from_millis(100));
        tokio::select! {
            read = socket.read_buf(&mut answers) => assert!(read.unwrap() > 0),
            () = pause => socket.write_all(piece.as_bytes()).await.unwrap(),
        }
        if let Some(status) = statuses(&answers).into_iter().find(|status| *status >= 200) {
            return Ended { seen: Seen::Answer(status), after: began.elapsed() };
        }
    }
}

/// Sends as much as is accepted and reads nothing.
async fn unread(fixture: &ProxyFixture, bytes: &[u8]) -> Ended {
    let mut socket = connect_narrow(fixture).await;
    let mut began = Instant::now();
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = tokio::time::timeout(Duration::from_millis(300), socket.write(rest)).await;
        let Ok(written) = written else { break };
        (rest, began) = (&rest[written.unwrap()..], Instant::now());
    }
    socket.ready(Interest::ERROR).await.unwrap();
    let error = socket.take_error().unwrap().expect("an error");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    Ended { seen: Seen::Reset, after: began.elapsed() }
}

/// Sends frames with a pause before each, then waits for the end.
async fn silent_frames(fixture: &ProxyFixture, script: &[(u64, Vec<u8>)]) -> Ended {
    let mut frames = Frames::new(connect(fixture).await);
    let began = Instant::now();
    let mut last = began;
    for (pause, bytes) in script {
        tokio::time::sleep(Duration::from_millis(*pause)).await;
        if frames.send(bytes).await.is_err() {
            break;
        }
        last = Instant::now();
    }
    while let Ok(Some(frame)) = frames.next().await {
        if frame.stream != 0 {
            last = Instant::now();
        }
    }
    Ended { seen: Seen::Closed(vec![]), after: last.elapsed() }
}

async fn without_credit(fixture: &ProxyFixture, beside: bool) -> Ended {
    let mut frames = Frames::new(connect(fixture).await);
    let head = frames::head(fixture, "GET", LARGE, 1);
    frames.send(&[frames::opening(0), head].concat()).await.unwrap();
    let began = Instant::now();
    let mut other = 3;
    let mut answered = 0;
    let ended = loop {
        if beside {
            // The other stream has credit of its own and makes progress all the time.
            let head = frames::head(fixture, "GET", QUERY, other);
            let credit = frames::credit(other, 1000);
            frames.send(&[head, credit].concat()).await.unwrap();
            other += 2;
        }
        let pause = tokio::time::sleep(Duration::from_millis(200));
        tokio::pin!(pause);
        let reset = loop {
            tokio::select! {
                () = &mut pause => break false,
                frame = frames.next() => {
                    let frame = frame.unwrap().expect("the connection lives");
                    if (frame.kind, frame.stream) == (frames::RST_STREAM, 1) {
                        break true;
                    }
                    assert_ne!(frame.kind, frames::RST_STREAM);
                    answered += usize::from(frame.stream > 1 && frame.kind == frames::DATA);
                }
            }
        };
        if reset {
            break began.elapsed();
        }
    };
    assert_eq!(beside, answered > 3, "{answered}");
    // The connection continues.
    let head = frames::head(fixture, "GET", QUERY, other);
    frames.send(&[head, frames::credit(other, 1000)].concat()).await.unwrap();
    while frames.next().await.unwrap().expect("it lives").stream != other {}
    Ended { seen: Seen::StreamReset, after: ended }
}

/// A response that fits a window, except for its last bytes.
async fn last_bytes(fixture: &ProxyFixture) -> Ended {
    let mut frames = Frames::new(connect(fixture).await);
    let head = frames::head(fixture, "GET", QUERY, 1);
    frames.send(&[frames::opening(10), head].concat()).await.unwrap();
    let began = Instant::now();
    let seen = loop {
        match frames.next().await {
            Ok(Some(_)) => {}
            Ok(None) => break Seen::Closed(vec![]),
            Err(_) => break Seen::Reset,
        }
    };
    Ended { seen, after: began.elapsed() }
}

async fn unread_frames(fixture: &ProxyFixture) -> Ended {
    let window = [frames::opening(0x7fff_ffff), frames::credit(0, 0x7fff_0000)].concat();
    unread(fixture, &[window, frames::head(fixture, "GET", LARGE, 1)].concat()).await
}

async fn unread_pings(fixture: &ProxyFixture) -> Ended {
    let pings = frames::frame(6, 0, 0, b"pingping").repeat(1 << 20);
    unread(fixture, &[frames::opening(0), pings].concat()).await
}

async fn stream_without_body(fixture: &ProxyFixture) -> Ended {
    let mut frames = Frames::new(connect(fixture).await);
    let head = frames::open_head(fixture, "POST", "/api/v1/push", 1);
    frames.send(&[frames::opening(1 << 16), head].concat()).await.unwrap();
    let began = Instant::now();
    let status = loop {
        let frame = frames.next().await.unwrap().expect("the connection lives");
        if (frame.kind, frame.stream) == (frames::HEADERS, 1) {
            break frames::status(&frame.payload);
        }
    };
    Ended { seen: Seen::Answer(status), after: began.elapsed() }
}

fn http1(fixture: &ProxyFixture) -> Vec<Row<'_>> {
    let head = |line: &str, headers: &str| fixture.head(line, headers);
    let get = head(&format!("GET {QUERY}"), "");
    let get_large = head(&format!("GET {LARGE}"), "");
    let push = |headers: &str| head("POST /api/v1/push", headers);
    let closed = |statuses: &[u16]| Seen::Closed(statuses.to_vec());
    let slow_body = || Seen::Answer(SLOW_BODY);
    let (idle, header, write) = (ENDED_IDLE, ENDED_HEADER, ENDED_WRITE);

    let again = get.clone();
    let behind = get.clone() + "GET /half";
    let behind_body = push("Content-Length: 4\r\n") + "bodyGET /half";
    let old = get.replace("HTTP/1.1", "HTTP/1.0");
    let old_large = get_large.replace("HTTP/1.1", "HTTP/1.0");
    let large_and_more = get_large.clone() + "G";
    let small = "GET /n HTTP/1.1\r\nHost: x\r\n\r\n".repeat(50_000);
    let half_body = push("Content-Length: 100\r\n") + "half";
    let slow = push("Content-Length: 1000\r\n");
    let trailers = push("Transfer-Encoding: chunked\r\n") + "1\r\nx\r\n0\r\nX-Half: ";
    let expect = push("Content-Length: 4\r\nExpect: 100-continue\r\n");
    let refused = "POST /api/v1/push HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf";
    vec![
        row("nothing is sent", closed(&[]), HEADER, idle, silent(fixture, &[])),
        row("only empty lines", closed(&[]), HEADER, idle, trickled(fixture, "", "\r\n")),
        row(
            "part of a head",
            closed(&[]),
            HEADER,
            header,
            silent(fixture, &[(0, "GET / HTTP/1.1\r\nHost: x\r\nX-Half")]),
        ),
        row("a slow request head", closed(&[]), HEADER, header, trickled(fixture, "GET /", "x")),
        row("a request, then part of a head", closed(&[200]), HEADER, header, async move {
            silent(fixture, &[(0, &behind)]).await
        }),
        row("a body, then part of a head", closed(&[200]), HEADER, header, async move {
            silent(fixture, &[(0, &behind_body)]).await
        }),
        row("no further request", closed(&[200]), IDLE, idle, async move {
            silent(fixture, &[(0, &get)]).await
        }),
        row("empty lines after a request", closed(&[200, 200]), IDLE, idle, async move {
            silent(fixture, &[(0, &again), (200, "\r\n"), (600, &again)]).await
        }),
        row("HTTP/1.0, after the answer", closed(&[200]), Duration::ZERO, CLOSED, async move {
            silent(fixture, &[(0, &old)]).await
        }),
        row("an answer that is not read", Seen::Reset, WRITE, write, async move {
            unread(fixture, get_large.as_bytes()).await
        }),
        row("… with a byte of the next request", Seen::Reset, WRITE, write, async move {
            unread(fixture, large_and_more.as_bytes()).await
        }),
        row("… over HTTP/1.0", Seen::Reset, WRITE, write, async move {
            unread(fixture, old_large.as_bytes()).await
        }),
        row("many small answers that are not read", Seen::Reset, WRITE, write, async move {
            unread(fixture, small.as_bytes()).await
        })
        .busy(),
        row("a body that does not arrive", slow_body(), BODY_IDLE, CLOSED, async move {
            answered(fixture, &half_body, "").await
        }),
        row("a body that arrives slowly", slow_body(), BODY, CLOSED, async move {
            answered(fixture, &slow, "x").await
        }),
        row("trailers without an end", slow_body(), BODY_IDLE, CLOSED, async move {
            answered(fixture, &trailers, "").await
        }),
        row("a body after 100 Continue", slow_body(), BODY_IDLE, CLOSED, async move {
            answered(fixture, &expect, "").await
        }),
        row("the body of a rejected request", closed(&[401]), LINGER, CLOSED, async move {
            silent(fixture, &[(0, refused)]).await
        }),
    ]
}

fn http2(fixture: &ProxyFixture) -> Vec<Row<'_>> {
    let closed = || Seen::Closed(vec![]);
    let (idle, header, write) = (ENDED_IDLE, ENDED_HEADER, ENDED_WRITE);
    let opening = || frames::opening(1 << 16);
    let block = |flags| frames::frame(frames::HEADERS, flags, 1, &[0x82, 0x86, 0x84]);
    let large = frames::head(fixture, "GET", LARGE, 3);
    let noise =
        [frames::frame(6, 0, 0, b"pingping"), frames::frame(4, 0, 0, &[]), frames::credit(0, 1)]
            .concat();
    vec![
        row("part of the preface", closed(), HEADER, header, async {
            silent_frames(fixture, &[(0, b"PRI * HTTP/2.0\r\n".to_vec())]).await
        }),
        row("only the preface", closed(), IDLE, idle, async move {
            silent_frames(fixture, &[(0, opening())]).await
        }),
        row("frames without a request", closed(), IDLE, idle, async move {
            let mut script = vec![(0, opening())];
            script.extend(std::iter::repeat_n((150, noise), 100));
            let began = Instant::now();
            let ended = silent_frames(fixture, &script).await;
            Ended { after: began.elapsed(), ..ended }
        }),
        row("a header block without its end", closed(), HEADER, header, async move {
            silent_frames(fixture, &[(0, [opening(), block(0)].concat())]).await
        }),
        row("part of a HEADERS frame", closed(), HEADER, header, async move {
            let whole = block(4);
            silent_frames(fixture, &[(0, [&opening()[..], &whole[..11]].concat())]).await
        }),
        row("part of a head, beside another stream", closed(), HEADER, header, async move {
            silent_frames(fixture, &[(0, [opening(), large, block(0)].concat())]).await
        }),
        row("a stream without window credit", Seen::StreamReset, WRITE, STREAM_RESET, async move {
            without_credit(fixture, false).await
        }),
        row("… beside other streams", Seen::StreamReset, WRITE, STREAM_RESET, async move {
            without_credit(fixture, true).await
        }),
        row("the last bytes of a small answer", Seen::Reset, WRITE, write, last_bytes(fixture)),
        row("a connection that is not read", Seen::Reset, WRITE, write, unread_frames(fixture)),
        row("PINGs whose answers are not read", Seen::Reset, WRITE, write, unread_pings(fixture))
            .busy(),
        row(
            "a stream's body that does not arrive",
            Seen::Answer(SLOW_BODY),
            BODY_IDLE,
            CLOSED,
            stream_without_body(fixture),
        ),
    ]
}

const ENDED_IDLE: &str = "mimir_tenant_proxy_connections_ended_total{reason=\"idle_timeout\"}";
const ENDED_HEADER: &str = "mimir_tenant_proxy_connections_ended_total{reason=\"header_timeout\"}";
const ENDED_WRITE: &str = "mimir_tenant_proxy_connections_ended_total{reason=\"write_timeout\"}";
const CLOSED: &str = "mimir_tenant_proxy_connections_ended_total{reason=\"closed\"}";
const STREAM_RESET: &str = "mimir_tenant_proxy_streams_reset_total";

/// The first cells of the document's rows, and the name of the counter of each.
fn documented() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(root().join("docs/operations/deadlines.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.contains("counted as"));
    let cells = rows.map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    // Another table of that page has fewer columns.
    let cells = cells.filter(|cells| cells.len() == 7);
    cells.map(|cells| (cells[1].to_owned(), cells[5].replace('`', ""))).collect()
}

async fn started() -> (Upstream, ProxyFixture) {
    let upstream = Upstream::start(|request| async {
        if request.target.starts_with(LARGE) {
            let frames = pieces(256, MIB).map(|piece| piece.map(Frame::data));
            return Response::new(BodyExt::boxed(StreamBody::new(frames)));
        }
        if request.method == "POST" { count(request).await } else { ok(request).await }
    })
    .await;
    let millis = |time: Duration| format!("\"{}ms\"", time.as_millis());
    let settings = [
        ("listen.header_timeout", millis(HEADER)),
        ("listen.idle_timeout", millis(IDLE)),
        ("listen.write_timeout", millis(WRITE)),
        ("limits.body_idle_timeout", millis(BODY_IDLE)),
        ("limits.body_timeout", millis(BODY)),
    ];
    let settings: Vec<_> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let fixture = proxy_fixture(&upstream.url(), &settings).await;
    (upstream, fixture)
}

// All rows concurrently: each ends when, how and counted as the document says, however much was
// sent ahead, and whether or not hyper polls the socket meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_keep_a_connection_silent_ends() {
    let (_upstream, fixture) = started().await;
    let rows: Vec<Row<'_>> = http1(&fixture).into_iter().chain(http2(&fixture)).collect();
    let named = rows.iter().map(|row| {
        let counted = row.counted.replace("mimir_tenant_proxy_", "");
        let counted = counted.replace("connections_ended_total{reason=\"", "").replace("\"}", "");
        (row.name.to_owned(), counted)
    });
    assert_eq!(documented(), named.collect::<Vec<_>>(), "the document and the test are one table");
    let mut counts = BTreeMap::new();
    for row in &rows {
        *counts.entry(row.counted).or_insert(0.0) += 1.0;
    }
    let checks = rows.into_iter().map(|row| async move {
        let limit = row.after + row.slack;
        let ended = tokio::time::timeout(limit + Duration::from_secs(5), row.run).await;
        let Ok(ended) = ended else { return Some(format!("{}: no end", row.name)) };
        let early = row.after.saturating_sub(Duration::from_millis(250));
        let in_time = (early..limit).contains(&ended.after);
        let is_right = ended.seen == row.seen && in_time;
        (!is_right).then(|| {
            let (name, seen, after) = (row.name, row.seen, row.after);
            format!(
                "{name}: {:?} after {:?}, not {seen:?} after {after:?}",
                ended.seen, ended.after
            )
        })
    });
    let faults: Vec<String> =
        futures_util::future::join_all(checks).await.into_iter().flatten().collect();
    assert!(faults.is_empty(), "{faults:#?}");
    for (series, expected) in counts {
        if series != CLOSED {
            wait_until(series, Duration::from_secs(2), async || {
                fixture.proxy.metric(series).await >= expected
            })
            .await;
        }
    }
}
