//! Connections without a request: HTTP/1.1 between two requests, of which only the socket is kept.

use std::time::{Duration, Instant};

use harness::{Upstream, wait_until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::responses::ok;
use crate::support::single::{ProxyFixture, QUERY, count, proxy_fixture};

/// Longer than a connection keeps what a request needs.
const REST: Duration = Duration::from_millis(300);

async fn connect(fixture: &ProxyFixture) -> TcpStream {
    TcpStream::connect(fixture.proxy.url().replace("http://", "")).await.unwrap()
}

async fn ended(fixture: &ProxyFixture, reason: &str) -> f64 {
    let series = format!("mimir_tenant_proxy_connections_ended_total{{reason=\"{reason}\"}}");
    fixture.proxy.metric(&series).await
}

/// Reads answers until there are so many, and gives their statuses and bodies.
async fn answers(socket: &mut TcpStream, wanted: usize) -> Vec<(u16, String)> {
    let mut bytes = Vec::new();
    loop {
        let found = whole_answers(&bytes);
        if found.len() >= wanted {
            return found;
        }
        let read = tokio::time::timeout(Duration::from_secs(20), socket.read_buf(&mut bytes)).await;
        let length = read.expect("an answer comes").unwrap();
        assert!(length > 0, "it closes after {}", String::from_utf8_lossy(&bytes));
    }
}

fn whole_answers(bytes: &[u8]) -> Vec<(u16, String)> {
    let (mut found, mut rest) = (Vec::new(), std::str::from_utf8(bytes).unwrap());
    while let Some((head, body)) = rest.split_once("\r\n\r\n") {
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.unwrap().parse().unwrap();
        let Some(own) = body.get(..length) else { break };
        found.push((head[9..12].parse().unwrap(), own.to_owned()));
        rest = &body[length..];
    }
    found
}

// Before, each held hyper's buffers: 24 KB. The bound is generous, because the heap of a process is.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_between_two_requests_takes_little_memory() {
    const CONNECTIONS: u64 = 1_000;
    let upstream = Upstream::start(ok).await;
    let fixture = proxy_fixture(&upstream.url(), &[]).await;
    let get = fixture.head(&format!("GET {QUERY}"), "");
    let mut held = Vec::new();
    for number in 0..CONNECTIONS + 50 {
        // The first ones fill caches and pools.
        let before = (number == 50).then(|| fixture.proxy.process.memory());
        let mut socket = connect(&fixture).await;
        socket.write_all(get.as_bytes()).await.unwrap();
        assert_eq!(answers(&mut socket, 1).await[0].0, 200);
        held.push((socket, before));
    }
    tokio::time::sleep(REST).await;
    let before = held.iter().find_map(|(_, before)| *before).unwrap();
    let each = fixture.proxy.process.memory().saturating_sub(before) / CONNECTIONS;
    println!("{each} bytes for each of {CONNECTIONS} connections");
    assert!(each < 8 << 10, "{each} bytes");
    // And each of them is alive.
    for (socket, _) in held.iter_mut().step_by(50) {
        socket.write_all(get.as_bytes()).await.unwrap();
        assert_eq!(answers(socket, 1).await[0].0, 200);
    }
}

// However the bytes of pipelined requests are cut by rests, none is lost and none counts twice. hyper
// may have read them before it gives the connection back.
#[tokio::test(flavor = "multi_thread")]
async fn no_byte_is_lost_by_a_rest_wherever_it_comes() {
    let upstream = Upstream::start(count).await;
    let fixture = proxy_fixture(&upstream.url(), &[]).await;
    let known = fixture.head("POST /api/v1/push", "Content-Length: 5\r\n") + "12345";
    let chunked = fixture.head("POST /api/v1/push", "Transfer-Encoding: chunked\r\n");
    let chunked = chunked + "3\r\n123\r\n0\r\n\r\n";
    let first = fixture.head("POST /api/v1/push", "Content-Length: 1\r\n") + "1";
    let mut cases = JoinSet::new();
    for (requests, bodies) in [
        (format!("{known}{chunked}"), ["1", "5", "3"]),
        (format!("\r\n{chunked}\r\n\r\n{known}"), ["1", "3", "5"]),
    ] {
        // Each place near a border, and a sample of the others.
        let border = requests.len() / 2;
        let near =
            |cut: &usize| cut.abs_diff(border) < 120 || *cut < 8 || cut + 40 > requests.len();
        let cuts = (0..=requests.len()).filter(|cut| near(cut) || cut % 16 == 0);
        for cut in cuts {
            let mut socket = connect(&fixture).await;
            let (first, requests) = (first.clone(), requests.clone());
            cases.spawn(async move {
                socket.write_all(first.as_bytes()).await.unwrap();
                let mut found = answers(&mut socket, 1).await;
                tokio::time::sleep(REST).await;
                let second = fastrand::usize(cut..=requests.len());
                for piece in [&requests[..cut], &requests[cut..second], &requests[second..]] {
                    socket.write_all(piece.as_bytes()).await.unwrap();
                    tokio::time::sleep(REST).await;
                }
                found.extend(answers(&mut socket, 2).await);
                let sums: Vec<&str> = found.iter().map(|(_, body)| body.as_str()).collect();
                assert_eq!(sums, bodies, "cut at {cut} and {second}");
                // Nothing is left of them.
                socket.write_all(first.as_bytes()).await.unwrap();
                assert_eq!(answers(&mut socket, 1).await, [(200, "1".to_owned())], "{cut}");
            });
        }
    }
    cases.join_all().await;
}

// A body that nobody read must never become a request, whenever the connection rests.
#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_a_rejected_body_is_never_a_request() {
    let upstream = Upstream::start(ok).await;
    let fixture = proxy_fixture(&upstream.url(), &[]).await;
    let smuggled = fixture.head(&format!("GET {QUERY}&smuggled"), "");
    let head = format!(
        "POST /api/v1/push HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\nContent-Length: {}\r\n",
        smuggled.len()
    );
    let chunked = "POST /api/v1/push HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let in_a_chunk = format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len());
    // Alone it is a request, so what follows can fail.
    let mut control = connect(&fixture).await;
    control.write_all(smuggled.as_bytes()).await.unwrap();
    assert_eq!(answers(&mut control, 1).await[0].0, 200);
    assert_eq!(upstream.heads().len(), 1);
    let mut cases = JoinSet::new();
    for (head, body) in [
        (format!("{head}\r\n"), smuggled.clone()),
        (format!("{head}Expect: 100-continue\r\n\r\n"), smuggled.clone()),
        (chunked.to_owned(), in_a_chunk),
    ] {
        let cuts = [0, 1, body.len() / 2, body.len() - 1, body.len()];
        for cut in cuts {
            let mut socket = connect(&fixture).await;
            let (head, body) = (head.clone(), body.clone());
            cases.spawn(async move {
                socket.write_all((head + &body[..cut]).as_bytes()).await.unwrap();
                tokio::time::sleep(REST).await;
                let _ = socket.write_all(&body.as_bytes()[cut..]).await;
                tokio::time::sleep(REST).await;
                let _ = socket.write_all(b"\r\n").await;
                tokio::time::sleep(REST).await;
                // A reset may have overtaken the answer.
                let mut answer = [0; 4096];
                let length = socket.try_read(&mut answer).unwrap_or(0);
                let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
                assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 401 "), "{answer}");
                usize::from(!answer.is_empty())
            });
        }
    }
    let refused: usize = cases.join_all().await.iter().sum();
    assert!(refused > 0, "nobody saw a refusal");
    assert_eq!(upstream.heads().len(), 1, "{:?}", upstream.heads());
}

// The deadlines go on: a head has its time from its first byte, and the idle timeout counts from the last
// request, not from the rest.
#[tokio::test(flavor = "multi_thread")]
async fn a_resting_connection_has_its_deadlines() {
    let upstream = Upstream::start(ok).await;
    let settings = [("listen.header_timeout", "\"400ms\""), ("listen.idle_timeout", "\"1500ms\"")];
    let fixture = proxy_fixture(&upstream.url(), &settings).await;
    let get = fixture.head(&format!("GET {QUERY}"), "");
    let mut socket = connect(&fixture).await;
    let mut after = Instant::now();
    for _ in 0..2 {
        socket.write_all(get.as_bytes()).await.unwrap();
        assert_eq!(answers(&mut socket, 1).await[0].0, 200);
        after = Instant::now();
        // Empty lines are no request, and move no deadline.
        tokio::time::sleep(REST).await;
        socket.write_all(b"\r\n").await.unwrap();
        tokio::time::sleep(REST).await;
    }
    assert_eq!(socket.read(&mut [0; 64]).await.unwrap_or(0), 0);
    let rested = after.elapsed();
    assert!(rested > Duration::from_millis(1400) && rested < Duration::from_secs(4), "{rested:?}");
    assert_eq!(ended(&fixture, "idle_timeout").await, 1.0);

    let mut socket = connect(&fixture).await;
    socket.write_all(get.as_bytes()).await.unwrap();
    assert_eq!(answers(&mut socket, 1).await[0].0, 200);
    tokio::time::sleep(REST).await;
    let began = Instant::now();
    // One byte at a time moves the deadline of a head no further.
    for byte in get.as_bytes().chunks(1).take(20) {
        if socket.write_all(byte).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(socket.read(&mut [0; 64]).await.unwrap_or(0), 0);
    assert!(began.elapsed() < Duration::from_millis(1400), "{:?}", began.elapsed());
    wait_until("it is counted", Duration::from_secs(2), async || {
        ended(&fixture, "header_timeout").await == 1.0
    })
    .await;
}

// A resting connection ends when its client goes, and then no longer counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_while_its_connection_rests_is_noticed() {
    let upstream = Upstream::start(ok).await;
    let fixture = proxy_fixture(&upstream.url(), &[("listen.max_connections", "3")]).await;
    let get = fixture.head(&format!("GET {QUERY}"), "");
    for round in 1..=4_u8 {
        let mut held = Vec::new();
        for _ in 0..3 {
            let mut socket = connect(&fixture).await;
            socket.write_all(get.as_bytes()).await.unwrap();
            assert_eq!(answers(&mut socket, 1).await[0].0, 200);
            held.push(socket);
        }
        tokio::time::sleep(REST).await;
        // A FIN, a reset, and a FIN of one side only.
        held[1].set_zero_linger().unwrap();
        held[2].shutdown().await.unwrap();
        assert_eq!(held[2].read(&mut [0; 64]).await.unwrap_or(0), 0);
        drop(held);
        wait_until("all are counted", Duration::from_secs(5), async || {
            ended(&fixture, "closed").await == f64::from(3 * round)
        })
        .await;
    }
    assert_eq!(fixture.proxy.metric("mimir_tenant_proxy_connections").await, 0.0);
}

// As an idle connection always did: the end of the process waits for none.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_resting_connections_at_once() {
    let upstream = Upstream::start(ok).await;
    let mut fixture =
        proxy_fixture(&upstream.url(), &[("shutdown.drain_timeout", "\"60s\"")]).await;
    let get = fixture.head(&format!("GET {QUERY}"), "");
    let mut held = Vec::new();
    for number in 0..40 {
        let mut socket = connect(&fixture).await;
        if number % 4 > 0 {
            socket.write_all(get.as_bytes()).await.unwrap();
            assert_eq!(answers(&mut socket, 1).await[0].0, 200);
        }
        held.push(socket);
    }
    tokio::time::sleep(REST).await;
    let began = Instant::now();
    fixture.proxy.process.signal("TERM");
    for mut socket in held {
        assert_eq!(socket.read(&mut [0; 64]).await.unwrap_or(0), 0);
    }
    let status = fixture.proxy.process.wait(Duration::from_secs(10)).expect("it ends");
    assert_eq!(status.code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

/// The processor time of each worker in nanoseconds.
#[cfg(target_os = "linux")]
fn worker_times(fixture: &ProxyFixture) -> Vec<u64> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", fixture.proxy.process.id())).unwrap();
    let tasks = tasks.map(|task| task.unwrap().path());
    let workers = tasks
        .filter(|task| std::fs::read_to_string(task.join("comm")).unwrap().starts_with("worker-"));
    let time = |task: std::path::PathBuf| {
        let spent = std::fs::read_to_string(task.join("schedstat")).unwrap();
        spent.split_whitespace().next().unwrap().parse().unwrap()
    };
    let mut workers: Vec<_> = workers.collect();
    workers.sort();
    workers.into_iter().map(time).collect()
}

// Connections are dealt to workers in turn when they are accepted, so every other one is with the same
// worker. If only those are busy, the other worker gets half of them.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn busy_connections_of_one_worker_spread() {
    let upstream = Upstream::start(ok).await;
    let fixture = proxy_fixture(&upstream.url(), &[("listen.workers", "2")]).await;
    let get = fixture.head(&format!("GET {QUERY}"), "");
    // Whether or not they rest before they become busy.
    for rest in [REST, Duration::ZERO] {
        let mut held = Vec::new();
        for _ in 0..8 {
            let mut socket = connect(&fixture).await;
            socket.write_all(get.as_bytes()).await.unwrap();
            assert_eq!(answers(&mut socket, 1).await[0].0, 200);
            held.push(socket);
        }
        tokio::time::sleep(rest).await;
        let before = worker_times(&fixture);
        let mut busy = JoinSet::new();
        for mut socket in held.into_iter().step_by(2) {
            let get = get.clone();
            busy.spawn(async move {
                for _ in 0..400 {
                    socket.write_all(get.as_bytes()).await.unwrap();
                    assert_eq!(answers(&mut socket, 1).await[0].0, 200);
                }
            });
        }
        busy.join_all().await;
        let after = worker_times(&fixture);
        let spent: Vec<u64> = after.iter().zip(before).map(|(after, b)| after - b).collect();
        let (least, all) = (spent.iter().min().unwrap(), spent.iter().sum::<u64>());
        assert!(least * 4 > all, "after a rest of {rest:?}: {spent:?}");
    }
}
