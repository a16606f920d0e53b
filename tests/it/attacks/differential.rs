//! The same bytes to hyper, which we are made of, and to Go's `net/http`, on which Mimir runs. Where they read
//! something differently, what we have authorised and what Mimir gets could be two things. So whatever bytes come,
//! Mimir must see just the requests that hyper read and that we let in, each as hyper read it, and written so that
//! `net/http` reads no other.
//!
//! `DIFFERENTIAL_ROUNDS=100000 DIFFERENTIAL_SEED=7 cargo test --test it attacks::differential` runs for long.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use harness::{GoRequest, NetHttp, ORG_A, ProxyOptions};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::target;

/// A request as hyper gives it to a service.
#[derive(Clone, Debug)]
struct HyperRequest {
    method: String,
    target: String,
    body: Vec<u8>,
    is_whole: bool,
}

/// hyper's server with its own settings, which tells what it read.
struct Hyper {
    address: String,
    seen: Arc<Mutex<Vec<HyperRequest>>>,
}

impl Hyper {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen: Arc<Mutex<Vec<HyperRequest>>> = Arc::default();
        let kept = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                let service = service_fn(move |request: http::Request<Incoming>| {
                    let kept = Arc::clone(&kept);
                    async move {
                        let (parts, mut body) = request.into_parts();
                        let (mut bytes, mut is_whole) = (Vec::new(), true);
                        while let Some(frame) = body.frame().await {
                            match frame {
                                Ok(frame) => bytes.extend(frame.into_data().unwrap_or_default()),
                                Err(_) => is_whole = false,
                            }
                        }
                        let target = parts.uri.to_string();
                        let method = parts.method.to_string();
                        kept.lock().unwrap().push(HyperRequest {
                            method,
                            target,
                            body: bytes,
                            is_whole,
                        });
                        Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(
                            Bytes::from_static(b"read"),
                        )))
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .half_close(true)
                        .serve_connection(TokioIo::new(socket), service),
                );
            }
        });
        Self { address, seen }
    }

    fn take(&self) -> Vec<HyperRequest> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

/// Sends bytes, says that no more come, and reads to the end.
async fn exchange(address: &str, bytes: &[u8]) -> Vec<u8> {
    exchange_in_pieces(address, &[bytes], Duration::ZERO).await
}

/// The same with rests between pieces.
async fn exchange_in_pieces(address: &str, pieces: &[&[u8]], rest: Duration) -> Vec<u8> {
    let mut socket = TcpStream::connect(address).await.unwrap();
    for (at, piece) in pieces.iter().enumerate() {
        if at > 0 {
            tokio::time::sleep(rest).await;
        }
        // The other side may have ended the connection before it has read all.
        let _ = socket.write_all(piece).await;
    }
    let _ = socket.shutdown().await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut answer))
        .await
        .expect("an end");
    answer
}

/// Pieces of requests: what is usual, what is permitted, and what is neither.
struct Generator {
    random: Rng,
    authorization: String,
    /// Whether any byte may change. Otherwise only the pieces do.
    changes_bytes: bool,
    /// A header of every request that reaches Mimir.
    mark: Option<String>,
}

const METHODS: &[&str] = &[
    "GET", "POST", "POST", "POST", "DELETE", "HEAD", "PUT", "get", "GET\t", "OPTIONS", "TRACE",
    "PRI", "G ET", "",
];
const TARGETS: &[&str] = &[
    "/api/v1/push",
    "/api/v1/push",
    "/api/v1/push",
    "/prometheus/api/v1/query?query=up",
    "/prometheus/api/v1/query?query=up",
    "/prometheus/api/v1/label/a%2Fb/values",
    "/prometheus/config/v1/rules/a%2Fb/c",
    "/alertmanager/api/v2/silence/%2e%2e",
    "/config",
    "//config",
    "/api/v1/push/../../../config",
    "/api/v1/push?x#y",
    "/api/v1/push#y",
    "http://mimir/api/v1/push",
    "http://mimir/config",
    "*",
    "mimir:80",
    "/api/v1/push HTTP/1.1 ",
    "/api/v1/push\u{e9}",
    "/api/v1/push%00",
    "/api/v1/push?a=b c",
    "/api/v1/push?\"<>",
    "/api/v1/push?%zz",
    "?x",
    "",
];
const VERSIONS: &[&str] = &[
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.0",
    "HTTP/1.2",
    "HTTP/2.0",
    "HTTP/0.9",
    "http/1.1",
    "HTTP/1.1 ",
    "HTTP/01.1",
    "",
];
const ENDS: &[&str] =
    &["\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r\r\n", "\r", "\n\r\n"];
const FIELDS: &[&str] = &[
    "Content-Length: 5",
    "Content-Length: 0",
    "Content-Length: 5, 5",
    "Content-Length: +5",
    "Content-Length: 05",
    "Content-Length: 5 ",
    "Content-Length:\t5",
    "Content-Length : 5",
    " Content-Length: 5",
    "Content-Length: 5\r\nContent-Length: 5",
    "Content-Length: 5\r\nContent-Length: 6",
    "Content-Length: 18446744073709551617",
    "Content-Length: -0",
    "Content-Length:",
    "content_length: 5",
    "Content-Length: 0x5",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: Chunked",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding:\u{b}chunked",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding: chunked;q=1",
    "Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding:\r\n chunked",
    "Transfer-Encoding: chunked\r\n",
    "X: y\rTransfer-Encoding: chunked",
    "X: y\nTransfer-Encoding: chunked",
    "X:y\r\n\tContent-Length: 5",
    "Transfer\u{ad}-Encoding: chunked",
    "Transfer-Encoding: , chunked",
    "Transfer-Encoding: chunked,",
    "Connection: close",
    "Connection: keep-alive",
    "Connection: content-length",
    "Connection: transfer-encoding",
    "Connection: x-scope-orgid, authorization",
    "Expect: 100-continue",
    "Expect: 200-ok",
    "Upgrade: h2c\r\nConnection: upgrade, http2-settings\r\nHTTP2-Settings: AAMAAABk",
    "X-Scope-OrgID: smuggled",
    "X-Scope-OrgID: smuggled\r\nX-Scope-OrgID: smuggled",
    "x_scope_orgid: smuggled",
    "Trailer: X-Scope-OrgID",
    "TE: trailers",
    "Host: other",
    "Host:",
    "Host: a b",
    "Host : x",
    "X: \0",
    "X: \u{e9}",
    "X\u{e9}: y",
    "X",
    ": y",
    "X y: z",
    "X:",
    "X(: y",
    "X: y\u{7f}",
    "Content-Encoding: gzip",
    "Content-Type: application/x-www-form-urlencoded",
];
const BODIES: &[&str] = &[
    "",
    "hello",
    "hello",
    "5\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\n\r\n",
    "5;a=b\r\nhello\r\n0\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    "05\r\nhello\r\n00\r\n\r\n",
    "5\nhello\n0\n\n",
    "5\r\nhello\n0\r\n\r\n",
    "5;\na\r\nhello\r\n0\r\n\r\n",
    "5;a\rb\r\nhello\r\n0\r\n\r\n",
    "+5\r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "ffffffffffffffff5\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\nX-Scope-OrgID: smuggled\r\n\r\n",
    "5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n",
    "5\r\nhello\r\n0\r\nX\r\n\r\n",
    "0\r\n\r\n",
    "0\r\n\r\nX",
    "5\r\nhello\r\n",
    "5\r\nhel",
    "0\n\n",
    "0\r\n\n",
    "0\r\nContent-Length: 5\r\n\r\nhello",
];
const INNER: &str = "GET /config HTTP/1.1\r\nHost: mimir\r\nX-Scope-OrgID: smuggled\r\n\r\n";

impl Generator {
    fn new(seed: u64, authorization: String) -> Self {
        Self { random: Rng::with_seed(seed), authorization, changes_bytes: true, mark: None }
    }

    fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.random.usize(..list.len())]
    }

    fn request(&mut self, into: &mut Vec<u8>) {
        // Mostly right, so that most faults stand alone.
        let [method, target, version] =
            [(METHODS, 0.3), (TARGETS, 0.5), (VERSIONS, 0.2)].map(|(list, share)| {
                if self.random.f64() < share { self.pick(list) } else { list[1] }
            });
        let end =
            |random: &mut Self| if random.random.f64() < 0.06 { random.pick(ENDS) } else { "\r\n" };
        let mut head = format!("{method} {target} {version}");
        match self.mark.clone() {
            // The first line, which no odd end of another can hide.
            Some(mark) => head.extend(["\r\n", mark.as_str(), "\r\n"]),
            None => head += end(self),
        }
        let mut lines = vec!["Host: proxy".to_owned(), self.authorization.clone()];
        for _ in 0..self.random.usize(..4) {
            lines.push(self.pick(FIELDS).to_owned());
        }
        if self.random.f64() < 0.5 {
            self.random.shuffle(&mut lines);
        }
        for line in lines {
            head += &line;
            head += end(self);
        }
        head += end(self);
        into.extend_from_slice(head.as_bytes());
        into.extend_from_slice(self.pick(BODIES).as_bytes());
        if self.random.f64() < 0.6 {
            into.extend_from_slice(INNER.as_bytes());
        }
    }

    /// Some requests without a fault, so that others of the same connection follow them, and how many of them must
    /// reach Mimir: those before one that is refused, whose body may end the connection.
    fn served(&mut self) -> (Vec<u8>, usize) {
        let (mut bytes, mut wanted, mut is_refused) = (String::new(), 0, false);
        for _ in 0..self.random.usize(..4) {
            let (line, rest) = *self
                .random
                .choice(&[
                    ("GET /prometheus/api/v1/query?query=up", "\r\n"),
                    ("POST /api/v1/push", "Content-Length: 5\r\n\r\nhello"),
                    (
                        "POST /api/v1/push",
                        "Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n",
                    ),
                    ("POST /api/v1/push", "Content-Length: 0\r\n\r\n\r\n"),
                    // Refused, and its body is read and dropped.
                    ("POST /config", "Content-Length: 5\r\n\r\nhello"),
                    ("POST /config", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
                ])
                .unwrap();
            is_refused |= line == "POST /config";
            wanted += usize::from(!is_refused);
            let mark = self.mark.as_deref().unwrap_or("X: y");
            let lines = [
                line,
                " HTTP/1.1\r\nHost: proxy\r\n",
                self.authorization.as_str(),
                "\r\n",
                mark,
                "\r\n",
                rest,
            ];
            bytes.extend(lines);
        }
        (bytes.into_bytes(), wanted)
    }

    fn bytes(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..self.random.usize(1..3) {
            self.request(&mut bytes);
        }
        if self.changes_bytes && self.random.f64() < 0.3 {
            for _ in 0..self.random.usize(1..4) {
                let at = self.random.usize(..bytes.len());
                match self.random.u8(..4) {
                    0 => drop(bytes.remove(at)),
                    1 => {
                        bytes
                            .insert(at, *self.random.choice(b"\r\n\0 \t:;,\x0b\x85\xa0/").unwrap());
                    }
                    2 => bytes[at] ^= 1 << self.random.u8(..8),
                    _ => bytes[at] = self.random.u8(..),
                }
            }
        }
        bytes
    }
}

/// What is wrong with what Mimir's side saw of some bytes, if anything.
fn fault(read: &[HyperRequest], seen: &[GoRequest], served: usize) -> Option<String> {
    let mut read = read.iter();
    for request in seen {
        if request.values("x-scope-orgid") != [ORG_A] {
            return Some(format!("another tenant: {request:?}"));
        }
        // In order, each that hyper read at most once.
        let is_same = |other: &&HyperRequest| {
            other.method == request.method
                && other.target == request.target
                && (request.problem.is_empty() == other.is_whole || !request.problem.is_empty())
                && (!request.problem.is_empty() || other.body == request.body)
        };
        if read.find(is_same).is_none() {
            return Some(format!("not as hyper read it: {request:?}"));
        }
        let framings =
            usize::from(request.is_chunked) + request.values("content-length").len().min(1);
        if framings > 1 {
            return Some(format!("two framings: {request:?}"));
        }
    }
    let whole = seen.iter().filter(|request| request.problem.is_empty()).count();
    (served > whole).then(|| format!("{served} requests were served, of which Mimir saw {whole}"))
}

/// How many requests were answered as served.
fn served(answer: &str) -> usize {
    answer.matches("HTTP/1.1 200 ").count() + answer.matches("HTTP/1.0 200 ").count()
}

/// A number of the environment.
fn number(name: &str, or: u64) -> u64 {
    std::env::var_os(name).map_or(or, |number| number.to_str().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn mimir_reads_no_request_but_those_that_were_let_in() {
    let (rounds, seed) = (number("DIFFERENTIAL_ROUNDS", 500), number("DIFFERENTIAL_SEED", 16));
    let (go, behind, hyper, attacked) =
        (NetHttp::start().await, NetHttp::start().await, Hyper::start().await, target(&[]).await);
    let proxy = ProxyOptions::new(&attacked.issuer.url(), &behind.url())
        .set("log.filter", "\"warn\"")
        .start()
        .await;
    let [proxy_address, go_address] = [proxy.url(), go.url()].map(|url| url.replace("http://", ""));
    // For long: the default ends after an hour.
    let token =
        attacked.issuer.token().organisation(&serde_json::json!(ORG_A)).expires_in(86_400).sign();
    let authorization = format!("Authorization: Bearer {token}");
    let mut generator = Generator::new(seed, authorization);
    let (mut differences, mut reached, mut refused) = (0, 0, 0);
    for round in 0..rounds {
        let bytes = generator.bytes();
        let (_, _, answer) = tokio::join!(
            exchange(&hyper.address, &bytes),
            exchange(&go_address, &bytes),
            exchange(&proxy_address, &bytes),
        );
        let (read, by_go, seen) = (hyper.take(), go.take().await, behind.take().await);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let served = served(&answer);
        let is_alike = read.len() == by_go.len()
            && read.iter().zip(&by_go).all(|(one, other)| {
                (&one.method, &one.target, &one.body, one.is_whole)
                    == (&other.method, &other.target, &other.body, other.problem.is_empty())
            });
        differences += usize::from(!is_alike);
        reached += seen.len();
        refused += usize::from(seen.is_empty());
        if let Some(fault) = fault(&read, &seen, served) {
            panic!(
                "seed {seed}, round {round}: {fault}\nbytes: {:?}\nhyper: {read:?}\nnet/http: {by_go:?}\nanswer: {answer:?}",
                String::from_utf8_lossy(&bytes)
            );
        }
    }
    println!(
        "{rounds} inputs: {differences} that hyper and net/http read differently; {reached} requests reached Mimir's side, {refused} inputs none"
    );
    // Otherwise nothing was tried.
    let rounds = usize::try_from(rounds).unwrap();
    assert!(differences * 50 > rounds && reached * 50 > rounds, "{differences} {reached}");
}

// Between two requests only the socket of a connection is kept (docs/decisions/0036). Wherever the rests come, in the
// middle of a line, a size or a body that nobody reads, what reaches Mimir is what hyper reads of the bytes in one go.
#[tokio::test(flavor = "multi_thread")]
async fn rests_change_nothing_of_what_mimir_reads() {
    const AT_ONCE: u64 = 40;
    // Longer than a connection keeps what a request needs.
    const REST: Duration = Duration::from_millis(160);
    let (rounds, seed) = (number("DIFFERENTIAL_RESTS", 400), number("DIFFERENTIAL_SEED", 16));
    let (behind, attacked) = (NetHttp::start().await, target(&[]).await);
    let proxy = ProxyOptions::new(&attacked.issuer.url(), &behind.url())
        .set("log.filter", "\"warn\"")
        .start()
        .await;
    let address = proxy.url().replace("http://", "");
    let token =
        attacked.issuer.token().organisation(&serde_json::json!(ORG_A)).expires_in(86_400).sign();
    let mut generator = Generator::new(seed, format!("Authorization: Bearer {token}"));
    // Who sent what Mimir's side saw is known by a header.
    generator.changes_bytes = false;
    let (mut reached, mut rested) = (0, 0);
    for batch in 0..rounds / AT_ONCE {
        let mut exchanges = tokio::task::JoinSet::new();
        for number in batch * AT_ONCE..(batch + 1) * AT_ONCE {
            generator.mark = Some(format!("User-Agent: case-{number}"));
            let (good, wanted) = generator.served();
            let bytes = [good, generator.bytes()].concat();
            // Mostly where something begins or ends.
            let mut cuts: Vec<usize> = (0..generator.random.usize(1..4))
                .map(|_| {
                    let any = generator.random.usize(..=bytes.len());
                    let lines = bytes[any..].iter().position(|byte| *byte == b'\n');
                    let near = generator.random.usize(..3);
                    match lines {
                        Some(line) if generator.random.f64() < 0.7 => {
                            (any + line + near).min(bytes.len())
                        }
                        _ => any,
                    }
                })
                .collect();
            cuts.sort_unstable();
            let address = address.clone();
            exchanges.spawn(async move {
                let hyper = Hyper::start().await;
                exchange(&hyper.address, &bytes).await;
                let ends = cuts.iter().copied().chain([bytes.len()]);
                let starts = [0].into_iter().chain(cuts.iter().copied());
                let pieces: Vec<&[u8]> =
                    starts.zip(ends).map(|(from, to)| &bytes[from..to]).collect();
                let answer = exchange_in_pieces(&address, &pieces, REST).await;
                let answer = String::from_utf8_lossy(&answer).into_owned();
                (
                    number,
                    hyper.take(),
                    answer,
                    String::from_utf8_lossy(&bytes).into_owned(),
                    cuts,
                    wanted,
                )
            });
        }
        let exchanges = exchanges.join_all().await;
        let seen = behind.take().await;
        reached += seen.len();
        let mut explained = 0;
        for (number, read, answer, bytes, cuts, wanted) in exchanges {
            let mark = format!("case-{number}");
            let own: Vec<GoRequest> = seen
                .iter()
                .filter(|request| request.values("user-agent") == [&mark])
                .cloned()
                .collect();
            explained += own.len();
            rested += usize::from(own.len() > 1);
            if let Some(fault) = fault(&read, &own, served(&answer)) {
                panic!(
                    "seed {seed}, case {number}: {fault}\nbytes: {bytes:?}\ncuts: {cuts:?}\nhyper: {read:?}\nto be served: {wanted}\nanswer: {answer:?}"
                );
            }
        }
        assert_eq!(
            explained,
            seen.len(),
            "seed {seed}, batch {batch}: not sent by anybody: {seen:?}"
        );
    }
    println!(
        "{rounds} inputs: {reached} requests reached Mimir's side, {rested} connections with several"
    );
    let rounds = usize::try_from(rounds).unwrap();
    assert!(reached * 2 > rounds && rested * 10 > rounds, "{reached} {rested}");
}

// The check sees what it is for: a proxy that sends the bytes on as they are lets another tenant in.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_passes_bytes_through_is_found() {
    let (behind, hyper) = (NetHttp::start().await, Hyper::start().await);
    let authorization = format!("X-Scope-OrgID: {ORG_A}");
    let mut generator = Generator::new(16, authorization);
    let address = behind.url().replace("http://", "");
    for _ in 0..500 {
        let bytes = generator.bytes();
        exchange(&hyper.address, &bytes).await;
        exchange(&address, &bytes).await;
        if fault(&hyper.take(), &behind.take().await, 0).is_some() {
            return;
        }
    }
    panic!("it is not found");
}
