//! `loadtest/instructions`: the user-space instructions that one request takes, of one build of the
//! proxy or of several side by side. With `--traces RATIO`, of each also with traces on, sending included.
//!
//! Each build runs under callgrind, on one connection, with one token that is in the cache. What
//! counts is the difference between a long and a short series of requests, so that the start, timers
//! and the first request do not count. The numbers repeat within half a per cent, on any machine
//! with the same processor features.

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use harness::{Issuer, ORG_A, Proxy, ProxyOptions, Upstream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpStream;

const LOADS: [(&str, Method, &str, usize); 2] = [
    ("1 KiB reads", Method::GET, "/prometheus/api/v1/query?query=up", 0),
    ("50 KiB pushes", Method::POST, "/api/v1/push", 50 << 10),
];
const WARM_UP: usize = 200;
const SHORT: usize = 500;
const LONG: usize = 3_000;

#[tokio::main]
async fn main() {
    let (mut builds, mut ratios) = (Vec::new(), vec![None]);
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--traces" {
            let ratio = arguments.next().and_then(|ratio| ratio.into_string().ok());
            ratios.push(Some(ratio.expect("--traces RATIO")));
        } else {
            builds.push(PathBuf::from(argument));
        }
    }
    if builds.is_empty() {
        builds.push(Proxy::binary());
    }
    let issuer = Issuer::start().await;
    let upstream = Upstream::start(answer).await;
    let user = issuer.token().organisation(&json!(ORG_A)).expires_in(24 * 3600);
    let token = user.sign();
    let collector = Upstream::start(answer).await;
    let mut first = None;
    let runs = builds.iter().flat_map(|build| ratios.iter().map(move |ratio| (build, ratio)));
    for (build, ratio) in runs {
        let build = build.canonicalize().expect("the build");
        let directory = TempDir::with_prefix("instructions-").expect("directory");
        let mut options = ProxyOptions::new(&issuer.url(), &upstream.url())
            .binary(&under_callgrind(&directory, &build));
        println!("{}", build.display());
        if let Some(ratio) = ratio {
            println!("  with traces of {ratio}");
            options = options
                .set("traces.endpoint", &format!("{:?}", collector.url()))
                .set("traces.sample_ratio", ratio)
                .set("traces.max_per_second", "100000");
        }
        let proxy = options.start().await;
        let mut counts = Vec::new();
        for (at, (name, method, target, size)) in LOADS.iter().enumerate() {
            let mut sender = connect(&proxy).await;
            let request = || {
                Request::builder()
                    .method(method)
                    .uri(*target)
                    .header("host", "proxy")
                    .header("authorization", format!("Bearer {token}"))
                    .body(Full::new(Bytes::from(vec![b'x'; *size])))
                    .expect("request")
            };
            serve(&mut sender, WARM_UP, request).await;
            let mut counted = Vec::new();
            for requests in [SHORT, LONG] {
                control(&proxy, "--zero");
                serve(&mut sender, requests, request).await;
                control(&proxy, "--dump");
                counted.push(total(directory.path()));
            }
            let each = (counted[1] - counted[0]) / (LONG - SHORT) as f64;
            counts.push(each);
            let ratio = each / first.as_ref().map_or(each, |first: &Vec<f64>| first[at]);
            println!("  {name}: {each:.0} instructions a request, ratio {ratio:.3}");
        }
        first.get_or_insert(counts);
    }
}

/// A program that becomes valgrind with this build.
fn under_callgrind(directory: &TempDir, build: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let path = directory.path().join("proxy");
    let text = format!(
        "#!/bin/sh\nexec valgrind --tool=callgrind --callgrind-out-file={}/out {} \"$@\"\n",
        directory.path().display(),
        build.display()
    );
    std::fs::write(&path, text).expect("script");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("mode");
    path
}

async fn connect(proxy: &Proxy) -> SendRequest<Full<Bytes>> {
    let address = proxy.url();
    let socket = TcpStream::connect(address.trim_start_matches("http://")).await.expect("connect");
    socket.set_nodelay(true).expect("nodelay");
    let (sender, connection) = http1::handshake(TokioIo::new(socket)).await.expect("handshake");
    tokio::spawn(connection);
    sender
}

async fn serve(
    sender: &mut SendRequest<Full<Bytes>>,
    requests: usize,
    request: impl Fn() -> Request<Full<Bytes>>,
) {
    for _ in 0..requests {
        sender.ready().await.expect("a connection");
        let answer = sender.send_request(request()).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        answer.into_body().collect().await.expect("a body");
    }
}

fn control(proxy: &Proxy, what: &str) {
    let id = proxy.process.id().to_string();
    let output = Command::new("callgrind_control").args([what, &id]).output().expect("valgrind");
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
