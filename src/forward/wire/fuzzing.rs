//! What must be true of every answer of an instance, and of every body on its way to one. hyper is the
//! yardstick on either side of us.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::runtime::{Builder, Runtime};

use super::Wire;
use crate::edge::ClientBody;
use crate::fuzzing::{broken, fields, pieces};
use crate::request_body::{
    BodyLimits, ReplayAllowance, RequestBody, Transfer, UploadBuffer, UploadShare,
};

thread_local! {
    #[expect(clippy::expect_used, reason = "without a runtime there is nothing to be tried")]
    static RUNTIME: Runtime =
        Builder::new_current_thread().enable_all().build().expect("a runtime");
}

/// What a client made of an answer.
#[derive(Debug, PartialEq)]
pub(super) struct Read {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Vec<(String, Vec<u8>)>,
    pub(super) is_whole: bool,
}

fn lines(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let line =
        |(name, value): (&HeaderName, &HeaderValue)| (name.to_string(), value.as_bytes().to_vec());
    let mut lines: Vec<_> = headers.iter().map(line).collect();
    lines.sort();
    lines
}

fn head(response: &Response<impl Sized>) -> Read {
    let (body, trailers) = Default::default();
    let (status, headers) = (response.status(), lines(response.headers()));
    Read { status, headers, body, trailers, is_whole: false }
}

/// Waits for the head of a request, sends an answer in these pieces, and closes.
pub(super) fn instance(pieces: Vec<Vec<u8>>) -> DuplexStream {
    let (ours, mut theirs) = duplex(256);
    tokio::spawn(async move {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            if theirs.read_buf(&mut request).await.unwrap_or(0) == 0 {
                return;
            }
        }
        for piece in pieces {
            if theirs.write_all(&piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
    ours
}

async fn by_wire(method: &Method, pieces: Vec<Vec<u8>>) -> Option<Read> {
    let mut wire = Wire::new(instance(pieces), &Arc::default());
    let write = |out: &mut Vec<u8>| out.extend_from_slice(b"GET / HTTP/1.1\r\nhost: a\r\n");
    wire.begin(method, write, RequestBody::empty(), Vec::new);
    let response = poll_fn(|cx| wire.poll_answer(cx)).await.ok()?;
    let mut read = head(&response);
    loop {
        match poll_fn(|cx| wire.poll_body(cx)).await {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(piece) => read.body.extend_from_slice(&piece),
                Err(frame) => {
                    read.trailers =
                        frame.into_trailers().map_or_else(|_| Vec::new(), |t| lines(&t));
                }
            },
            Some(Err(_)) => return Some(read),
            None => break,
        }
    }
    read.is_whole = true;
    assert!(wire.is_answered());
    Some(read)
}

async fn by_hyper(method: &Method, pieces: Vec<Vec<u8>>) -> Option<Read> {
    let io = TokioIo::new(instance(pieces));
    let (mut sender, connection) = client::handshake(io).await.ok()?;
    tokio::spawn(connection);
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = method.clone();
    let mut response = sender.send_request(request).await.ok()?;
    let mut read = head(&response);
    while let Some(frame) = response.body_mut().frame().await {
        let Ok(frame) = frame else { return Some(read) };
        match frame.into_data() {
            Ok(piece) => read.body.extend_from_slice(&piece),
            Err(frame) => {
                read.trailers = frame.into_trailers().map_or_else(|_| Vec::new(), |t| lines(&t));
            }
        }
    }
    read.is_whole = true;
    Some(read)
}

/// The same answer as we and as hyper read it.
pub(super) fn both(method: &Method, pieces: &[Vec<u8>]) -> (Option<Read>, Option<Read>) {
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            (by_wire(method, pieces.to_vec()).await, by_hyper(method, pieces.to_vec()).await)
        })
    })
}

/// What we accept, hyper accepts, and reads the same. What is wrong, if anything.
pub(super) fn disagreement(ours: Option<&Read>, hyper: Option<&Read>) -> Option<&'static str> {
    let ours = ours?;
    let Some(hyper) = hyper else { return Some("hyper refuses it") };
    if (ours.status, &ours.headers) != (hyper.status, &hyper.headers) {
        return Some("another head");
    }
    // One that is cut off may be cut off a piece earlier or later.
    if !ours.is_whole {
        return None;
    }
    let is_same = hyper.is_whole && ours.body == hyper.body && ours.trailers == hyper.trailers;
    (!is_same).then_some("another body")
}

/// Lengths of pieces, and the bytes of an answer. However they are cut, they are read in one way, and as
/// hyper reads them.
pub fn answer(data: &[u8]) {
    let [lengths, bytes] = fields(data);
    let method = if lengths.first().is_some_and(|first| first % 8 == 7) {
        Method::HEAD
    } else {
        Method::GET
    };
    let cut: Vec<Vec<u8>> = pieces(bytes, lengths).into_iter().map(<[u8]>::to_vec).collect();
    let (ours, hyper) = both(&method, &cut);
    if let Some(what) = disagreement(ours.as_ref(), hyper.as_ref()) {
        broken(format_args!("{what}: {ours:?} {hyper:?}"));
    }
    let (whole, _) = both(&method, &[bytes.to_vec()]);
    let known = |read: &Option<Read>| {
        read.as_ref().map(|read| (read.status, read.headers.clone(), read.is_whole))
    };
    assert_eq!(known(&ours), known(&whole));
    if ours.as_ref().is_some_and(|ours| ours.is_whole) {
        // Except for what is known of bytes behind the answer: they may not have come yet.
        assert_eq!(
            ours.map(|ours| (ours.body, ours.trailers)),
            whole.map(|w| (w.body, w.trailers))
        );
    }
}

/// A request as hyper's server gave it to a service.
#[derive(Clone, Debug, PartialEq)]
struct Sent {
    target: String,
    body: Vec<u8>,
    trailers: Vec<(String, Vec<u8>)>,
    is_whole: bool,
}

async fn receive(request: Request<Incoming>, seen: &Mutex<Vec<Sent>>) {
    let (parts, mut body) = request.into_parts();
    let target = parts.uri.to_string();
    let mut sent = Sent { target, body: Vec::new(), trailers: Vec::new(), is_whole: true };
    while let Some(frame) = body.frame().await {
        match frame.map(hyper::body::Frame::into_data) {
            Ok(Ok(piece)) => sent.body.extend_from_slice(&piece),
            Ok(Err(frame)) => {
                sent.trailers = frame.into_trailers().map_or_else(|_| Vec::new(), |t| lines(&t));
            }
            Err(_) => {
                sent.is_whole = false;
                break;
            }
        }
    }
    if let Ok(mut seen) = seen.lock() {
        seen.push(sent);
    }
}

/// What hyper's server reads of a connection.
async fn read_by_hyper(connection: DuplexStream) -> Vec<Sent> {
    let seen: Arc<Mutex<Vec<Sent>>> = Arc::default();
    let kept = Arc::clone(&seen);
    let service = service_fn(move |request| {
        let kept = Arc::clone(&kept);
        async move {
            receive(request, &kept).await;
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"read"))))
        }
    });
    let io = TokioIo::new(connection);
    let _ = server::Builder::new().half_close(true).serve_connection(io, service).await;
    seen.lock().map(|seen| seen.clone()).unwrap_or_default()
}

/// The client's side: a connection that sends these pieces and ends.
fn sending_client(sent: Vec<Vec<u8>>) -> DuplexStream {
    let (mut ours, theirs) = duplex(4096);
    tokio::spawn(async move {
        for piece in sent {
            if ours.write_all(&piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        let _ = ours.shutdown().await;
        // The answers are nothing to it.
        let _ = ours.read_to_end(&mut Vec::new()).await;
    });
    theirs
}

/// How a body is passed on.
#[derive(Clone, Copy)]
struct Way {
    /// What is read ahead, and whether there is room for it.
    ahead: Option<(usize, bool)>,
    /// The replay buffer.
    kept: usize,
    /// Whether it is sent twice.
    again: bool,
}

impl Way {
    fn of(byte: u8) -> Self {
        let most = [0, 1, 20, 100, 1000][usize::from(byte % 5)];
        let ahead = (!byte.is_multiple_of(3)).then_some((most, byte & 0x20 == 0));
        Self { ahead, kept: if byte & 0x40 == 0 { 0 } else { 2048 }, again: byte & 0x80 != 0 }
    }
}

/// Passes a request's body on to an instance. Returns what the instance read, by turn, and whether we took it for
/// whole.
async fn pass_on(request: Request<Incoming>, way: Way) -> Vec<(Vec<Sent>, bool)> {
    let limits =
        BodyLimits { bytes: 1500, idle: Duration::from_secs(60), total: Duration::from_secs(60) };
    let (parts, body) = ClientBody::split(request);
    let Ok(body) = RequestBody::new(body, limits) else { return Vec::new() };
    if let Some((most, has_room)) = way.ahead {
        let buffer = Arc::new(UploadBuffer::new(4096));
        let share = Arc::new(UploadShare::default());
        let room = |bytes| has_room.then(|| buffer.take(&share, bytes)).flatten();
        if body.read_ahead(most, room).await.is_err() {
            return Vec::new();
        }
    }
    let transfer = body.transfer();
    if let Some(transfer) = &transfer {
        transfer.keep(way.kept, &Arc::new(ReplayAllowance::new(4096)));
    }
    let mut outcomes = Vec::new();
    let mut turn = Some(body);
    while let Some(body) = turn.take() {
        // Small, so that writes are taken in parts.
        let (socket, instance) = duplex(37);
        let reads = tokio::spawn(read_by_hyper(instance));
        let mut wire = Wire::new(socket, &Arc::default());
        let write = |out: &mut Vec<u8>| {
            out.extend_from_slice(parts.method.as_str().as_bytes());
            out.extend_from_slice(b" /pass HTTP/1.1\r\nhost: a\r\nx-scope-orgid: a\r\n");
        };
        let trailers = || vec![HeaderName::from_static("x-sum")];
        wire.begin(&parts.method, write, body, trailers);
        let answer = poll_fn(|cx| wire.poll_answer(cx)).await;
        let is_answered = match answer {
            Ok(response) => response.status() == StatusCode::OK,
            Err(_) => false,
        };
        drop(wire);
        outcomes.push((reads.await.unwrap_or_default(), is_answered));
        if way.again && outcomes.len() == 1 {
            turn = transfer.as_ref().and_then(Transfer::again);
        }
    }
    outcomes
}

/// How a body is passed on, lengths of pieces, and the bytes behind the first line of a client's connection. What an
/// instance takes for a whole request is what hyper read of the client, once; what follows it, nobody sees as a
/// request that was not one for hyper.
pub fn upload(data: &[u8]) {
    let [way, lengths, bytes] = fields(data);
    let way = Way::of(way.first().copied().unwrap_or(0));
    let bytes = [b"POST /sent HTTP/1.1\r\nhost: a\r\n", bytes].concat();
    let cut: Vec<Vec<u8>> = pieces(&bytes, lengths).into_iter().map(<[u8]>::to_vec).collect();
    RUNTIME.with(|runtime| runtime.block_on(compare(way, cut)));
}

/// What an instance read at each attempt, and whether its answer was one.
type Outcomes = Vec<(Vec<Sent>, bool)>;

async fn compare(way: Way, cut: Vec<Vec<u8>>) {
    let direct = read_by_hyper(sending_client(cut.clone())).await;
    // What comes through us.
    let passed: Arc<Mutex<Vec<Outcomes>>> = Arc::default();
    let kept = Arc::clone(&passed);
    let service = service_fn(move |request| {
        let kept = Arc::clone(&kept);
        async move {
            let outcomes = pass_on(request, way).await;
            if let Ok(mut kept) = kept.lock() {
                kept.push(outcomes);
            }
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"passed"))))
        }
    });
    let client = TokioIo::new(sending_client(cut));
    let _ = server::Builder::new().half_close(true).serve_connection(client, service).await;
    let Ok(passed) = passed.lock() else { return };
    for (at, outcomes) in passed.iter().enumerate() {
        for (seen, is_answered) in outcomes {
            let whole: Vec<&Sent> = seen.iter().filter(|sent| sent.is_whole).collect();
            assert!(seen.len() <= 1 && seen.iter().all(|sent| sent.target == "/pass"), "{seen:?}");
            assert!(!is_answered || whole.len() == 1, "answered, and not seen whole: {seen:?}");
            let Some(whole) = whole.first() else { continue };
            let Some(sent) = direct.get(at) else { broken(format_args!("{whole:?} of nothing")) };
            assert!(sent.is_whole && sent.body == whole.body, "{sent:?} became {whole:?}");
            assert!(
                whole.trailers.iter().all(|line| line.0 == "x-sum" && sent.trailers.contains(line))
            );
        }
    }
}
