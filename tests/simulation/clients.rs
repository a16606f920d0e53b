//! Clients: devices on bad lines, dashboards, and a balancer that mixes the requests of organisations on one connection.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use harness::{ORG_A, ORG_B};
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mimir_tenant_proxy::net::TcpStream;
use mimir_tenant_proxy::net::simulated::Network;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::courses;
use crate::journal::{Asked, Journal, Kind, Seen};
use crate::world::PROXY;

/// What all clients share.
pub struct Callers {
    pub network: Arc<Network>,
    pub journal: Journal,
    pub trouble: u32,
    /// The token of each organisation.
    pub tokens: [(&'static str, String); 2],
    pub next: AtomicU64,
}

/// No answer takes longer, or the request hangs.
const LONGEST: Duration = Duration::from_secs(30 * 60);
/// A client that is slow at first; more would only be a long answer.
const RESTS: u32 = 20;

/// A request and how it is sent.
struct Intent {
    id: u64,
    token: String,
    asked: Asked,
    is_chunked: bool,
    /// The pieces of its body, with a pause before each.
    pieces: VecDeque<(Duration, Bytes)>,
    expects: bool,
    /// Shuts down its sending side after the request.
    half_closes: bool,
    /// Leaves after so long, with a reset or without.
    leaves: Option<(Duration, bool)>,
    /// How long it rests before each of its first reads.
    reading: Duration,
}

impl Callers {
    fn intent(&self, rng: &mut Rng) -> Intent {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (organisation, token) = self.tokens[rng.usize(..2)].clone();
        let kinds = [Kind::Push, Kind::Push, Kind::Otlp, Kind::Influx, Kind::Query, Kind::Form];
        let kind = kinds[rng.usize(..6)];
        let length = match rng.u8(..5) {
            0 => rng.usize(..40),
            1 => rng.usize(..3_000),
            2 => rng.usize(..30_000),
            3 => rng.usize(..100_000),
            _ => rng.usize(..300_000),
        };
        // Of its own, and no two parts are alike.
        let bytes = |length: usize| {
            let mut bytes = vec![0; length];
            for (at, block) in bytes.chunks_mut(61).enumerate() {
                block.fill(u8::try_from((at * 7 + at / 251 + id as usize * 31) % 256).unwrap());
            }
            bytes
        };
        let (method, path, body) = match kind {
            Kind::Push => ("POST", "/api/v1/push", bytes(length + 1)),
            Kind::Otlp => ("POST", "/otlp/v1/metrics", export(bytes(length + 1))),
            Kind::Influx => ("POST", "/api/v1/push/influx/write", bytes(length + 1)),
            Kind::Query => ("GET", "/prometheus/api/v1/query", Vec::new()),
            Kind::Form => {
                let body = format!("query=up&n={id}&x={}", "y".repeat(length.min(3000)));
                ("POST", "/prometheus/api/v1/query", body.into_bytes())
            }
        };
        let query = if kind == Kind::Query { "query=up&" } else { "" };
        let target = format!("{path}?{query}n={id}");
        let slow = rng.u8(..4) == 0;
        let mut pieces = VecDeque::new();
        let mut rest = Bytes::from(body.clone());
        while !rest.is_empty() {
            let most = if slow { 5_000 } else { 60_000 };
            let piece = rest.split_to(rest.len().min(1 + rng.usize(..most)));
            let pause = if slow { rng.u64(..3_000) } else { 0 };
            pieces.push_back((Duration::from_millis(pause), piece));
        }
        if rng.u32(..100) < self.trouble
            && let Some((pause, _)) = pieces.back_mut()
        {
            *pause = Duration::from_secs(rng.u64(..100)); // some are longer than a body may take
        }
        let leaves = (rng.u32(..100) < self.trouble).then(|| {
            let after = [1, 20, 800, 5_000, 60_000][rng.usize(..5)];
            (Duration::from_millis(rng.u64(..after)), rng.bool())
        });
        let expects = !body.is_empty() && rng.u8(..10) == 0;
        let asked = Asked { organisation, kind, method, target, body };
        self.journal.lock().asked.insert(id, asked.clone());
        Intent {
            id,
            token,
            is_chunked: rng.u8(..3) == 0,
            pieces,
            expects,
            half_closes: rng.u8(..10) == 0,
            leaves,
            reading: Duration::from_millis([0, 0, 0, 1, 300][rng.usize(..5)]),
            asked,
        }
    }

    async fn connect(&self, rng: &mut Rng) -> Option<TcpStream> {
        let fate = courses::from_client(rng, self.trouble);
        self.network.connect(PROXY, fate).await.ok()
    }

    /// One client from its start to its end.
    pub async fn run(self: Arc<Self>, mut rng: Rng) {
        sleep(Duration::from_millis(rng.u64(..20_000))).await;
        for _ in 0..rng.usize(1..4) {
            let Some(stream) = self.connect(&mut rng).await else { continue };
            if rng.u8(..4) == 0 {
                self.http2(stream, &mut rng).await;
            } else {
                self.http1(stream, &mut rng).await;
            }
        }
    }

    async fn http1(&self, stream: TcpStream, rng: &mut Rng) {
        let mut stream = stream;
        let is_old = rng.u8(..10) == 0;
        for _ in 0..rng.usize(1..5) {
            let mut intent = self.intent(rng);
            if is_old {
                (intent.is_chunked, intent.expects) = (false, false);
            }
            let id = intent.id;
            self.journal.tell(&format!(
                "client: {id} is {:?} of {}, {} bytes{}{}{}{}",
                intent.asked.kind,
                intent.asked.organisation,
                intent.asked.body.len(),
                if intent.is_chunked { ", chunked" } else { "" },
                if intent.expects { ", expects" } else { "" },
                if intent.half_closes { ", half-closes" } else { "" },
                if is_old { ", HTTP/1.0" } else { "" },
            ));
            let leaves = intent.leaves;
            let exchange = exchange1(&mut stream, intent, is_old, &self.journal);
            let seen = timeout(leaves.map_or(LONGEST, |(after, _)| after), exchange).await;
            match (seen, leaves) {
                (Ok((seen, goes_on)), _) => {
                    self.journal.saw(id, seen);
                    if !goes_on {
                        return;
                    }
                }
                (Err(_), Some((_, resets))) => {
                    if resets {
                        stream.set_zero_linger().unwrap();
                    }
                    self.journal.saw(id, Seen::Left);
                    return;
                }
                (Err(_), None) => {
                    self.journal.broken(format!("{id} has no answer after {LONGEST:?}"));
                    return;
                }
            }
            sleep(Duration::from_millis([0, 0, 50, 2_000, 70_000][rng.usize(..5)])).await;
        }
    }

    async fn http2(&self, stream: TcpStream, rng: &mut Rng) {
        let shaken =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let Ok((sender, connection)) = shaken else { return };
        let mut tasks = JoinSet::new();
        let connection = tokio::spawn(connection);
        for _ in 0..rng.usize(1..7) {
            let (intent, mut sender) = (self.intent(rng), sender.clone());
            let (id, journal) = (intent.id, self.journal.clone());
            journal.count("HTTP/2 requests");
            journal.tell(&format!(
                "client: {id} is {:?} of {}, {} bytes, HTTP/2",
                intent.asked.kind,
                intent.asked.organisation,
                intent.asked.body.len()
            ));
            let pause = Duration::from_millis([0, 0, 20, 3_000][rng.usize(..4)]);
            sleep(pause).await;
            tasks.spawn(async move {
                let leaves = intent.leaves;
                let exchange = exchange2(&mut sender, intent, &journal);
                match timeout(leaves.map_or(LONGEST, |(after, _)| after), exchange).await {
                    Ok(seen) => journal.saw(id, seen),
                    Err(_) if leaves.is_some() => journal.saw(id, Seen::Left),
                    Err(_) => journal.broken(format!("{id} has no answer after {LONGEST:?}")),
                }
            });
        }
        drop(sender);
        while tasks.join_next().await.is_some() {}
        connection.abort();
        let _ = connection.await;
    }
}

/// One exchange of HTTP/1. Whether another may follow on the connection.
fn content_type(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Form => Some("application/x-www-form-urlencoded"),
        Kind::Push | Kind::Otlp => Some("application/x-protobuf"),
        Kind::Influx | Kind::Query => None,
    }
}

/// The bytes as a field of an export by OTLP that nobody knows, as a text would be.
fn export(bytes: Vec<u8>) -> Vec<u8> {
    let mut export = vec![15 << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        export.push(0x80 | u8::try_from(length & 0x7f).unwrap());
        length >>= 7;
    }
    export.push(u8::try_from(length).unwrap());
    export.extend_from_slice(&bytes);
    export
}

async fn exchange1(
    stream: &mut TcpStream,
    intent: Intent,
    is_old: bool,
    journal: &Journal,
) -> (Seen, bool) {
    let asked = intent.asked.clone();
    let version = if is_old { "1.0" } else { "1.1" };
    let mut head = format!(
        "{} {} HTTP/{version}\r\nHost: proxy\r\nAuthorization: Bearer {}\r\nX-Request-Id: r{}\r\n",
        asked.method, asked.target, intent.token, intent.id
    );
    if let Some(content_type) = content_type(asked.kind) {
        head += &format!("Content-Type: {content_type}\r\n");
    }
    match (asked.body.len(), intent.is_chunked) {
        (0, _) => {}
        (_, true) => head += "Transfer-Encoding: chunked\r\n",
        (length, false) => head += &format!("Content-Length: {length}\r\n"),
    }
    if intent.expects {
        head += "Expect: 100-continue\r\n";
    }
    head += "\r\n";
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (is_chunked, half_closes, mut pieces) =
        (intent.is_chunked, intent.half_closes, intent.pieces);
    let writing = async {
        writer.write_all(head.as_bytes()).await?;
        while let Some((pause, piece)) = pieces.pop_front() {
            sleep(pause).await;
            if is_chunked {
                writer.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
                writer.write_all(&piece).await?;
                writer.write_all(b"\r\n").await?;
            } else {
                writer.write_all(&piece).await?;
            }
        }
        if is_chunked && !asked.body.is_empty() {
            writer.write_all(b"0\r\n\r\n").await?;
        }
        if half_closes {
            journal.count("half-closed");
            writer.shutdown().await?;
        }
        std::io::Result::Ok(())
    };
    let mut writing = std::pin::pin!(writing);
    let mut reading = std::pin::pin!(read_answer(&mut reader, is_old, intent.reading));
    let mut written = None;
    let (seen, keeps) = loop {
        tokio::select! {
            biased;
            read = &mut reading => break read,
            wrote = &mut writing, if written.is_none() => written = Some(wrote.is_ok()),
        }
    };
    (seen, keeps && written == Some(true) && !half_closes && !is_old)
}

/// Reads an answer as strictly as it can be. Whether the connection goes on.
async fn read_answer(
    reader: &mut (impl AsyncRead + Unpin),
    is_old: bool,
    rest: Duration,
) -> (Seen, bool) {
    let mut input = Vec::new();
    let mut rests = RESTS;
    let mut more = async |input: &mut Vec<u8>| {
        if rests > 0 {
            rests -= 1;
            sleep(rest).await;
        }
        reader.read_buf(input).await
    };
    // The head.
    let (status, head) = loop {
        let Some(at) = input.windows(4).position(|four| four == b"\r\n\r\n") else {
            match more(&mut input).await {
                Ok(0) | Err(_) => return (Seen::Torn { status: None }, false),
                Ok(_) => continue,
            }
        };
        let head = String::from_utf8(input.drain(..at + 4).collect()).expect("a head is text");
        let status: u16 = head.get(9..12).expect("a status").parse().expect("a status");
        if status >= 200 {
            break (status, head.to_ascii_lowercase());
        }
    };
    let value = |name: &str| {
        let mut lines = head.split("\r\n");
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
    };
    let torn = (Seen::Torn { status: Some(status) }, false);
    let has_retry_after = value("retry-after").is_some();
    let length: Option<usize> = value("content-length").map(|length| length.parse().unwrap());
    let closes = value("connection").is_some_and(|value| value.contains("close"));
    // The body.
    if let Some(length) = length {
        while input.len() < length {
            if !matches!(more(&mut input).await, Ok(1..)) {
                return torn;
            }
        }
        assert_eq!(input.len(), length, "more than an answer");
        return (Seen::Whole { status, body: input, has_retry_after }, !closes);
    }
    if value("transfer-encoding").is_none() {
        assert!(closes || is_old, "an answer without an end: {head}");
        loop {
            match more(&mut input).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(_) => return torn,
            }
        }
        return (Seen::Whole { status, body: input, has_retry_after }, false);
    }
    let mut body = Vec::new();
    loop {
        while !input.windows(2).any(|two| two == b"\r\n") {
            if !matches!(more(&mut input).await, Ok(1..)) {
                return torn;
            }
        }
        let line = input.windows(2).position(|two| two == b"\r\n").unwrap();
        let size = std::str::from_utf8(&input[..line]).expect("a size is text");
        let size = usize::from_str_radix(size, 16).expect("a size is a number");
        while input.len() < line + 4 + size {
            if !matches!(more(&mut input).await, Ok(1..)) {
                return torn;
            }
        }
        body.extend(&input[line + 2..line + 2 + size]);
        input.drain(..line + 4 + size);
        if size == 0 {
            return (Seen::Whole { status, body, has_retry_after }, !closes);
        }
    }
}

async fn exchange2(
    sender: &mut hyper::client::conn::http2::SendRequest<UploadBody>,
    intent: Intent,
    journal: &Journal,
) -> Seen {
    let Intent { asked, token, id, pieces, .. } = intent;
    let mut request = Request::builder()
        .method(asked.method)
        .uri(format!("http://proxy{}", asked.target))
        .header("authorization", format!("Bearer {token}"))
        .header("x-request-id", format!("r{id}"));
    if let Some(content_type) = content_type(asked.kind) {
        request = request.header("content-type", content_type);
    }
    if !asked.body.is_empty() && !intent.is_chunked {
        request = request.header("content-length", asked.body.len());
    }
    let body = futures_util::stream::unfold(pieces, |mut pieces| async {
        let (pause, piece) = pieces.pop_front()?;
        sleep(pause).await;
        Some((Ok(Frame::data(piece)), pieces))
    });
    let body: UploadBody = StreamBody::new(Box::pin(body));
    let torn = |error: hyper::Error, status| {
        journal.tell(&format!("client: {id} has an error: {error:?}"));
        if gave_up(&error) { Seen::Left } else { Seen::Torn { status } }
    };
    let response = match sender.send_request(request.body(body).unwrap()).await {
        Ok(response) => response,
        Err(error) => return torn(error, None),
    };
    let status = response.status().as_u16();
    let has_retry_after = response.headers().contains_key("retry-after");
    let (mut incoming, mut body) = (response.into_body(), Vec::new());
    let mut rests = RESTS;
    while let Some(frame) = incoming.frame().await {
        if rests > 0 {
            rests -= 1;
            sleep(intent.reading).await;
        }
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return torn(error, Some(status)),
        };
        if let Ok(data) = frame.into_data() {
            body.extend_from_slice(&data);
        }
    }
    Seen::Whole { status, body, has_retry_after }
}

/// Whether the client itself has ended the connection, or not begun: its HTTP/2 takes about ten thousand DATA
/// frames of a few bytes that nobody has read, and networks of this simulation cut an answer into as many.
fn gave_up(error: &hyper::Error) -> bool {
    let h2 = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    let is_bound = |h2: &h2::Error| {
        h2.is_library() && h2.is_go_away() && h2.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM)
    };
    error.is_canceled() || h2.is_some_and(is_bound)
}

type Pieces = dyn futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send;
type UploadBody = StreamBody<std::pin::Pin<Box<Pieces>>>;

/// The tokens of both organisations.
pub fn tokens(secret: &str, issuer: &str, now: i64) -> [(&'static str, String); 2] {
    let token = |organisation: &'static str| {
        let claims = serde_json::json!({
            "iss": issuer, "aud": "authenticated", "role": "authenticated",
            "sub": "11111111-1111-4111-8111-111111111111", "is_anonymous": false,
            "iat": now - 400_000, "exp": now + 400_000,
            "app_metadata": { "org_id": organisation },
        });
        let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
        (
            organisation,
            jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap(),
        )
    };
    [token(ORG_A), token(ORG_B)]
}
