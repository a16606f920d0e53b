//! `loadtest/instructions`: the user-space instructions that one request takes, of one build of the
//! proxy or of several side by side. With `--traces RATIO`, of each also with traces on, sending included.
//! With `--check FILE` it fails if the build beside it takes more than the file allows, and with `--record
//! FILE` it writes the file.
//!
//! Each build runs under callgrind, on one connection, with one token that is in the cache. What
//! counts is the difference between a long and a short series of requests, so that the start, timers
//! and the first request do not count. The numbers repeat within half a per cent, on any machine
//! with the same processor features.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use harness::{Issuer, ORG_A, Proxy, ProxyOptions, Upstream};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// A request that is counted.
struct Load {
    /// In the file of what is allowed.
    name: &'static str,
    title: &'static str,
    method: Method,
    target: &'static str,
    size: usize,
    version: Version,
}

const LOADS: [Load; 3] = [
    Load {
        name: "read",
        title: "1 KiB reads",
        method: Method::GET,
        target: "/prometheus/api/v1/query?query=up",
        size: 0,
        version: Version::HTTP_11,
    },
    Load {
        name: "push",
        title: "50 KiB pushes",
        method: Method::POST,
        target: "/api/v1/push",
        size: 50 << 10,
        version: Version::HTTP_11,
    },
    Load {
        name: "h2c",
        title: "1 KiB reads over HTTP/2",
        method: Method::GET,
        target: "/prometheus/api/v1/query?query=up",
        size: 0,
        version: Version::HTTP_2,
    },
];

/// How many requests are served: to warm up, in the short series, in the long one.
struct Series {
    warm_up: usize,
    short: usize,
    long: usize,
}

const PRECISE: Series = Series { warm_up: 200, short: 500, long: 3_000 };
/// A debug build takes four times as long; it is compared with a tolerance.
const QUICK: Series = Series { warm_up: 100, short: 200, long: 700 };

/// How long the proxy is watched while nothing is asked.
const IDLE: Duration = Duration::from_secs(3);

/// By how much a count may exceed the recorded one. Counts of the same build differ by less than one
/// per cent, and those of another machine's C library by a little more.
const TOLERANCE: f64 = 0.03;

#[tokio::main]
async fn main() {
    let (mut builds, mut ratios) = (Vec::new(), vec![None]);
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--traces" {
            let ratio = arguments.next().and_then(|ratio| ratio.into_string().ok());
            ratios.push(Some(ratio.expect("--traces RATIO")));
        } else if argument == "--check" || argument == "--record" {
            let file = PathBuf::from(arguments.next().expect("a file"));
            let counts = Bench::start().await.count(&Proxy::binary(), None, &QUICK).await;
            let is_check = argument == "--check";
            let result = if is_check { check(&file, &counts) } else { record(&file, &counts) };
            if let Err(problem) = result {
                eprintln!("{problem}");
                std::process::exit(1);
            }
            return;
        } else {
            builds.push(PathBuf::from(argument));
        }
    }
    if builds.is_empty() {
        builds.push(Proxy::binary());
    }
    let bench = Bench::start().await;
    let mut first = None;
    let runs = builds.iter().flat_map(|build| ratios.iter().map(move |ratio| (build, ratio)));
    for (build, ratio) in runs {
        println!("{}", build.display());
        if let Some(ratio) = ratio {
            println!("  with traces of {ratio}");
        }
        let counts = bench.count(build, ratio.as_deref(), &PRECISE).await;
        for (at, load) in LOADS.iter().enumerate() {
            let each = counts[at];
            let ratio = each / first.as_ref().map_or(each, |first: &Vec<f64>| first[at]);
            println!("  {}: {each:.0} instructions a request, ratio {ratio:.3}", load.title);
        }
        first.get_or_insert(counts);
    }
}

const FILE_HEAD: &str = "\
# User-space instructions of one request, of the debug build, with a token from the cache. `scripts/test` fails if
# one takes 3 % more. If a change is worth it: loadtest/instructions --record, and say in the commit what it buys.
";

fn record(file: &Path, counts: &[f64]) -> Result<(), String> {
    let lines =
        LOADS.iter().zip(counts).map(|(load, count)| format!("{} = {count:.0}\n", load.name));
    let text = format!("{FILE_HEAD}{}", lines.collect::<String>());
    std::fs::write(file, &text).map_err(|error| format!("{}: {error}", file.display()))?;
    print!("{text}");
    Ok(())
}

fn check(file: &Path, counts: &[f64]) -> Result<(), String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let mut exceeded = Vec::new();
    for (load, count) in LOADS.iter().zip(counts) {
        let line = text.lines().find_map(|line| line.strip_prefix(load.name)?.strip_prefix(" = "));
        let recorded: f64 = line
            .and_then(|number| number.parse().ok())
            .ok_or_else(|| format!("{}: no number for {}", file.display(), load.name))?;
        let change = (count / recorded - 1.0) * 100.0;
        println!(
            "{}: {count:.0} instructions a request, recorded {recorded:.0}, {change:+.1} %",
            load.title
        );
        if *count > recorded * (1.0 + TOLERANCE) {
            exceeded.push(format!("{} take {change:.1} % more than recorded", load.title));
        } else if *count < recorded * (1.0 - TOLERANCE) {
            println!("  cheaper than recorded: run loadtest/instructions --record");
        }
    }
    if exceeded.is_empty() { Ok(()) } else { Err(exceeded.join("; ")) }
}

/// What a proxy under test needs.
struct Bench {
    issuer: Issuer,
    upstream: Upstream,
    collector: Upstream,
    token: String,
}

impl Bench {
    async fn start() -> Self {
        let issuer = Issuer::start().await;
        let user = issuer.token().organisation(&json!(ORG_A)).expires_in(24 * 3600);
        let token = user.sign();
        let (upstream, collector) = (Upstream::start(answer).await, Upstream::start(answer).await);
        Self { issuer, upstream, collector, token }
    }

    /// The instructions of each load, with traces of a ratio or without.
    async fn count(&self, build: &Path, traces: Option<&str>, series: &Series) -> Vec<f64> {
        let build = build.canonicalize().expect("the build");
        let directory = TempDir::with_prefix("instructions-").expect("directory");
        let mut options = ProxyOptions::new(&self.issuer.url(), &self.upstream.url())
            .binary(&under_callgrind(&directory, &build))
            .ready_within(Duration::from_secs(60))
            // Every few seconds, and not part of a request.
            .set("reload.watch_interval", "\"1h\"");
        if let Some(ratio) = traces {
            options = options
                .set("traces.endpoint", &format!("{:?}", self.collector.url()))
                .set("traces.sample_ratio", ratio)
                .set("traces.max_per_second", "100000");
        }
        let proxy = options.start().await;
        // The start is not counted, and so is faster.
        control(&proxy, &directory, "--instr=on");
        // What the proxy does every few milliseconds, asked or not: a busy machine gives it more time for that
        // during a series.
        let began = Instant::now();
        control(&proxy, &directory, "--zero");
        tokio::time::sleep(IDLE).await;
        control(&proxy, &directory, "--dump");
        let each_second = total(directory.path()) / began.elapsed().as_secs_f64();
        let mut counts = Vec::new();
        for load in &LOADS {
            let mut sender = Sender::connect(&proxy, load.version).await;
            let request = || {
                Request::builder()
                    .method(&load.method)
                    .uri(format!("http://proxy{}", load.target))
                    .header("host", "proxy")
                    .header("authorization", format!("Bearer {}", self.token))
                    .body(Full::new(Bytes::from(vec![b'x'; load.size])))
                    .expect("request")
            };
            serve(&mut sender, series.warm_up, request).await;
            let mut counted = Vec::new();
            for requests in [series.short, series.long, series.long] {
                let began = Instant::now();
                control(&proxy, &directory, "--zero");
                serve(&mut sender, requests, request).await;
                control(&proxy, &directory, "--dump");
                let took = began.elapsed().as_secs_f64();
                counted.push(total(directory.path()) - each_second * took);
            }
            // What happens once, or every few seconds, falls into one of the two.
            let long = counted[1].min(counted[2]);
            counts.push((long - counted[0]) / (series.long - series.short) as f64);
        }
        counts
    }
}

/// A program that becomes valgrind with this build.
fn under_callgrind(directory: &TempDir, build: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let path = directory.path().join("proxy");
    // valgrind reads debug information at its start, which takes longer than all else for a debug build.
    let stripped = directory.path().join("stripped");
    let mut strip = Command::new("strip");
    strip.args(["--strip-debug", "-o"]).arg(&stripped).arg(build);
    assert!(strip.status().expect("strip").success(), "strip {}", build.display());
    let build = &stripped;
    let text = format!(
        "#!/bin/sh\nexec valgrind --tool=callgrind --instr-atstart=no --callgrind-out-file={0}/out {1} {2} \"$@\"\n",
        directory.path().display(),
        pipes(directory.path()),
        build.display()
    );
    std::fs::write(&path, text).expect("script");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("mode");
    path
}

/// Where valgrind and callgrind_control have their pipes, so that a run that is killed leaves none in /tmp.
fn pipes(directory: &Path) -> String {
    format!("--vgdb-prefix={}/pipe", directory.display())
}

/// A connection to the proxy.
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Sender {
    async fn connect(proxy: &Proxy, version: Version) -> Self {
        let address = proxy.url();
        let address = address.trim_start_matches("http://");
        let socket = TcpStream::connect(address).await.expect("connect");
        socket.set_nodelay(true).expect("nodelay");
        let socket = TokioIo::new(socket);
        if version == Version::HTTP_2 {
            let handshake = http2::handshake(TokioExecutor::new(), socket).await;
            let (sender, connection) = handshake.expect("handshake");
            tokio::spawn(connection);
            Self::Http2(sender)
        } else {
            let (sender, connection) = http1::handshake(socket).await.expect("handshake");
            tokio::spawn(connection);
            Self::Http1(sender)
        }
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let answer = match self {
            Self::Http1(sender) => {
                sender.ready().await.expect("a connection");
                let (mut head, body) = request.into_parts();
                head.uri = head.uri.path_and_query().expect("a path").as_str().parse().expect("it");
                sender.send_request(Request::from_parts(head, body)).await
            }
            Self::Http2(sender) => {
                sender.ready().await.expect("a connection");
                sender.send_request(request).await
            }
        };
        answer.expect("an answer")
    }
}

async fn serve(sender: &mut Sender, requests: usize, request: impl Fn() -> Request<Full<Bytes>>) {
    for _ in 0..requests {
        let answer = sender.send(request()).await;
        assert_eq!(answer.status(), StatusCode::OK);
        answer.into_body().collect().await.expect("a body");
    }
}

fn control(proxy: &Proxy, directory: &TempDir, what: &str) {
    let id = proxy.process.id().to_string();
    let pipes = pipes(directory.path());
    let output =
        Command::new("callgrind_control").args([&pipes, what, &id]).output().expect("valgrind");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The instructions in the newest dump. `out.1` is the first.
fn total(directory: &Path) -> f64 {
    let dump = (1..).map(|at| directory.join(format!("out.{at}"))).take_while(|dump| dump.exists());
    let dump = dump.last().expect("a dump");
    let text = std::fs::read_to_string(dump).expect("a dump");
    let line = text.lines().find_map(|line| line.strip_prefix("totals: ")).expect("totals");
    line.trim().parse().expect("a number")
}

async fn answer(received: harness::Received) -> Response<BoxBody<Bytes, std::io::Error>> {
    let is_read = received.method == "GET";
    if let Some(body) = received.body {
        let _ = body.collect().await;
    }
    let body = Bytes::from(vec![b'x'; if is_read { 1024 } else { 0 }]);
    Response::new(Full::new(body).map_err(|never| match never {}).boxed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_above_the_recorded_one_and_its_tolerance_fails() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("instructions.toml");
        record(&file, &[1_000.0, 2_000.0, 3_000.0]).unwrap();
        assert_eq!(check(&file, &[1_029.0, 1_500.0, 3_000.0]), Ok(()));
        let problem = check(&file, &[1_000.0, 2_070.0, 3_000.0]).unwrap_err();
        assert_eq!(problem, "50 KiB pushes take 3.5 % more than recorded");
        std::fs::write(&file, "read = 1\n").unwrap();
        assert!(check(&file, &[1.0, 1.0, 1.0]).unwrap_err().contains("no number for push"));
    }
}
