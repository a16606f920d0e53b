//! A restart on one machine: whoever starts the proxy holds its listening socket, so the next process
//! listens before the last one stops, and no connection attempt and no request is lost.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use harness::{Client, Issuer, Mimir, ORG_A, Proxy, ProxyOptions, Upstream, samples, wait_until};
use http::Method;
use serde_json::json;

use crate::support::responses::ok;

const QUERY: &str = "/prometheus/api/v1/query?query=up";
const PUSH: &str = "/api/v1/push";

/// A client that repeats nothing: each request is answered with success, or counts as failed.
struct PlainClient {
    address: SocketAddr,
    connection: Option<TcpStream>,
    /// Whether it keeps its connection for the next request.
    keeps: bool,
    buffer: Vec<u8>,
}

impl PlainClient {
    fn exchange(&mut self, request: &[u8]) -> io::Result<()> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => TcpStream::connect(self.address)?,
        };
        connection.set_nodelay(true)?;
        connection.set_read_timeout(Some(Duration::from_secs(20)))?;
        connection.write_all(request)?;
        let (mut filled, mut end) = (0, None);
        while end.is_none_or(|end| filled < end) {
            let count = connection.read(&mut self.buffer[filled..])?;
            if count == 0 {
                let seen = String::from_utf8_lossy(&self.buffer[..filled]).into_owned();
                return Err(io::Error::other(format!("closed after {seen:?}")));
            }
            filled += count;
            let seen = &self.buffer[..filled];
            let head = seen.windows(4).position(|four| four == b"\r\n\r\n");
            if let (None, Some(head)) = (end, head) {
                let text = String::from_utf8_lossy(&seen[..head]).to_ascii_lowercase();
                let status = text.get(9..12).unwrap_or_default();
                if !status.starts_with('2') {
                    return Err(io::Error::other(text));
                }
                let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
                let length: usize =
                    length.unwrap_or("0").trim().parse().map_err(io::Error::other)?;
                end = Some(head + 4 + length);
                self.keeps = self.keeps && !text.contains("\r\nconnection: close");
            }
        }
        if self.keeps {
            self.connection = Some(connection);
        }
        Ok(())
    }
}

/// A push and a query. Each sender has a metric of its own: of one series Mimir refuses older samples.
fn requests(token: &str, sender: usize) -> [Vec<u8>; 2] {
    let body = samples::remote_write(&format!("restart_{sender}"), &[], 1.0);
    let head = |line: &str, more: &str| {
        format!("{line} HTTP/1.1\r\nHost: proxy\r\nAuthorization: Bearer {token}\r\n{more}\r\n")
    };
    let length = format!("Content-Length: {}\r\n", body.len());
    let push = [head(&format!("POST {PUSH}"), &length).into_bytes(), body].concat();
    [push, head(&format!("GET {QUERY}"), "").into_bytes()]
}

/// Sends until it is told to stop; the failures.
fn keep_sending(
    address: SocketAddr,
    keeps: bool,
    pause: Duration,
    requests: [Vec<u8>; 2],
    (stop, served): (Arc<AtomicBool>, Arc<AtomicUsize>),
) -> thread::JoinHandle<Vec<String>> {
    thread::spawn(move || {
        let buffer = vec![0; 64 << 10];
        let mut client = PlainClient { address, connection: None, keeps, buffer };
        let mut failures = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            for request in &requests {
                if let Err(error) = client.exchange(request) {
                    failures.push(format!("keeps {keeps}, pause {pause:?}: {error}"));
                }
                client.keeps = keeps;
                served.fetch_add(1, Ordering::Relaxed);
                thread::sleep(pause);
            }
        }
        failures
    })
}

// The order: the next one listens, the last one drains. Some clients keep their connections and send as fast
// as they can, or after pauses; others connect for each request; one speaks HTTP/2.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_place_under_load_fails_no_request() {
    let mimir = Mimir::shared().await;
    let issuer = Issuer::start().await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let options = ProxyOptions::new(&issuer.url(), &mimir.url()).socket(&socket);
    let mut proxy = options.clone().start().await;
    let organisation = harness::fresh_organisation();
    let token = issuer.token().organisation(&json!(organisation)).sign();
    let state = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let kinds = [(true, 0), (true, 7), (true, 170), (true, 600), (false, 3)];
    let senders: Vec<_> = kinds
        .into_iter()
        .flat_map(|kind| [kind; 4])
        .enumerate()
        .map(|(sender, (keeps, pause))| {
            let pause = Duration::from_millis(pause);
            keep_sending(address, keeps, pause, requests(&token, sender), state.clone())
        })
        .collect();
    let h2c = tokio::spawn({
        let (client, (stop, _)) = (Client::h2c(&proxy.url()).bearer(&token), state.clone());
        async move {
            let mut failures = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                match client.try_send(Method::GET, QUERY, Vec::new()).await {
                    Ok(answer) if answer.status.is_success() => {}
                    other => failures.push(format!("h2c: {other:?}")),
                }
            }
            failures
        }
    });
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let next = options.clone().start().await;
        proxy.process.signal("TERM");
        let status = proxy.process.wait(Duration::from_secs(20)).expect("it ends");
        assert_eq!(status.code(), Some(0));
        assert!(proxy.process.log().contains("\"complete\":true"), "{}", proxy.process.log());
        proxy = next;
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    state.0.store(true, Ordering::Relaxed);
    let mut failures = h2c.await.unwrap();
    for sender in senders {
        failures.extend(sender.join().unwrap());
    }
    let served = state.1.load(Ordering::Relaxed);
    println!("{served} requests during 5 restarts, {} failed", failures.len());
    assert!(failures.is_empty(), "{} of {served}: {failures:#?}", failures.len());
    assert!(served > 1000, "{served}");
    // The last one has all of them.
    assert!(proxy.metric("mimir_tenant_proxy_connections_accepted_total").await > 1.0);
}

// With the socket held by somebody, there need not be a next process yet: attempts wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_attempt_between_two_processes_waits() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = ProxyOptions::new(&issuer.url(), &upstream.url()).socket(&socket);
    let mut proxy = options.clone().start().await;
    proxy.process.signal("TERM");
    assert_eq!(proxy.process.wait(Duration::from_secs(20)).unwrap().code(), Some(0));
    let client = proxy.client().bearer(&issuer.user_of(ORG_A));
    let waiting = tokio::spawn(async move { client.get(QUERY).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!waiting.is_finished());
    let _next = options.start().await;
    assert_eq!(waiting.await.unwrap().status, 200);
}

// What was in the queue of a socket of our own was reset when it was closed.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_in_the_queue_at_the_end_is_served() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let mut proxy = ProxyOptions::new(&issuer.url(), &upstream.url()).start().await;
    let [_, query] = requests(&issuer.user_of(ORG_A), 0);
    let address: SocketAddr = proxy.url().trim_start_matches("http://").parse().unwrap();
    // It is stopped while they come, so that none is accepted before the signal.
    proxy.process.signal("STOP");
    let connections: Vec<_> = (0..50)
        .map(|_| {
            let mut connection = TcpStream::connect(address).unwrap();
            connection.write_all(&query).unwrap();
            connection.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            connection
        })
        .collect();
    proxy.process.signal("TERM");
    proxy.process.signal("CONT");
    for (number, mut connection) in connections.into_iter().enumerate() {
        let mut answer = Vec::new();
        let read = connection.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        assert!(read.is_ok() && text.starts_with("HTTP/1.1 200 "), "{number}: {read:?} {text}");
    }
    assert_eq!(proxy.process.wait(Duration::from_secs(20)).unwrap().code(), Some(0));
}

// A client that keeps its connection is told to leave with an answer, and one that says nothing holds
// nothing up.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_a_kept_connection_ask_once_more() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let mut proxy = ProxyOptions::new(&issuer.url(), &upstream.url()).start().await;
    let [_, query] = requests(&issuer.user_of(ORG_A), 0);
    let address: SocketAddr = proxy.url().trim_start_matches("http://").parse().unwrap();
    let buffer = vec![0; 64 << 10];
    let mut client = PlainClient { address, connection: None, keeps: true, buffer };
    client.exchange(&query).unwrap();
    let mut silent = TcpStream::connect(address).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let began = Instant::now();
    proxy.process.signal("TERM");
    tokio::time::sleep(Duration::from_millis(500)).await;
    client.exchange(&query).unwrap();
    assert!(client.connection.is_none(), "the answer says that the connection ends");
    assert_eq!(silent.read(&mut [0; 8]).unwrap(), 0);
    assert_eq!(proxy.process.wait(Duration::from_secs(20)).unwrap().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

// systemd's Type=notify: a unit counts as started when it serves, so that the old one is stopped then.
#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_is_told() {
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("notify");
    let supervisor = UnixDatagram::bind(&place).unwrap();
    supervisor.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let options = ProxyOptions::new(&issuer.url(), &upstream.url());
    let mut proxy = options.variable("NOTIFY_SOCKET", place.to_str().unwrap()).start().await;
    let said = || {
        let mut buffer = [0; 64];
        let count = supervisor.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    };
    assert_eq!(said(), "READY=1");
    proxy.process.signal("TERM");
    assert_eq!(said(), "STOPPING=1");
    proxy.process.wait(Duration::from_secs(20)).unwrap();
}

// Connections to a socket that nobody accepts from would wait for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_nothing_listens_on_is_a_fault() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/config/proxy.toml");
    let output = Command::new(Proxy::binary())
        .args(["serve", "--config", sample])
        .envs([("LISTEN_FDS", "1"), ("LISTEN_FDS_FIRST_FD", "0")])
        .envs([("MTP__LISTEN__ADDRESS", "127.0.0.1:0")])
        .envs([("MTP__LISTEN__INTERNAL_ADDRESS", "127.0.0.1:0")])
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(socket)))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains(&address.to_string()) && said.contains("listen.address"), "{said}");
}

// SIGTERM while the start waited for the database was heard when that was over: after half a minute, when most platforms
// had killed the process.
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_the_start() {
    // Takes connections and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://u:p@{}/d", silent.local_addr().unwrap());
    for signal in ["TERM", "INT"] {
        let mut start = Command::new(Proxy::binary())
            .arg("serve")
            .env("MTP__DATABASE__URL", &url)
            .env("MTP__DATABASE__CONNECT_TIMEOUT", "30s")
            .env("MTP__AUTH__ISSUER", "http://127.0.0.1:1/auth/v1")
            .env("MTP__UPSTREAM__URLS", "http://127.0.0.1:1")
            .env("MTP__LISTEN__ADDRESS", "127.0.0.1:0")
            .env("MTP__LISTEN__INTERNAL_ADDRESS", "127.0.0.1:0")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let connected = tokio::time::timeout(Duration::from_secs(20), silent.accept()).await;
        let _connection = connected.expect("it asks the database").unwrap();
        let pid = start.id().to_string();
        let told = Command::new("kill").args([&format!("-{signal}"), &pid]).status();
        assert!(told.unwrap().success());
        wait_until("it ends", Duration::from_secs(3), async || start.try_wait().unwrap().is_some())
            .await;
        let output = start.wait_with_output().unwrap();
        let log = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "SIG{signal}: {log}");
        assert!(log.contains("Start ended by a signal"), "{log}");
    }
}
