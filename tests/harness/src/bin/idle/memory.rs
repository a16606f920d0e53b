//! What a connection costs in memory while it does nothing.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use harness::{Issuer, Process, Upstream, free_port, part};
use tempfile::TempDir;

use crate::client::{Request, connect};

/// Connections that are opened at the same time.
const CONCURRENT: usize = 32;
/// How long they rest before they are measured.
const REST: Duration = Duration::from_secs(2);

pub async fn measure(issuer: &Issuer, upstream: &Upstream, request: &Request, connections: usize) {
    println!("{connections} connections that do nothing: bytes each");
    let directory = TempDir::new().expect("directory");
    let (nginx, at) = nginx(&directory, &upstream.url()).await;
    served(nginx.id(), at, request, connections, "nginx, after a request").await;
    drop(nginx);
    for kind in [Kind::Served, Kind::Again, Kind::Silent, Kind::Http2] {
        let proxy = crate::proxy(issuer, upstream).await;
        let (process, at) = (proxy.process.id(), harness::load::address(&proxy.url()));
        match kind {
            Kind::Served => {
                served(process, at, request, connections, "this proxy, after a request").await;
            }
            Kind::Again => again(process, at, request, connections).await,
            Kind::Silent => silent(process, at, connections).await,
            Kind::Http2 => http2(process, at, request, connections / 10).await,
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Served,
    Again,
    Silent,
    Http2,
}

async fn served(process: u32, to: SocketAddr, request: &Request, count: usize, name: &str) {
    warm_up(to, request).await;
    let before = private_bytes(process);
    let held = open(to, Some(request), count).await;
    report(process, before, count, name).await;
    drop(held);
}

/// All of them make requests at the same time, which costs what it costs; then they rest.
async fn again(process: u32, to: SocketAddr, request: &Request, count: usize) {
    warm_up(to, request).await;
    let before = private_bytes(process);
    let mut held = open(to, Some(request), count).await;
    for _ in 0..2 {
        for socket in &mut held {
            request.send(socket).await;
        }
    }
    report(process, before, count, "this proxy, after three requests").await;
}

async fn silent(process: u32, to: SocketAddr, count: usize) {
    let before = private_bytes(process);
    let held = open(to, None, count).await;
    report(process, before, count, "this proxy, nothing sent").await;
    drop(held);
}

async fn http2(process: u32, to: SocketAddr, request: &Request, count: usize) {
    warm_up(to, request).await;
    let before = private_bytes(process);
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(request.send_http2(to).await);
    }
    report(process, before, count, &format!("this proxy, HTTP/2 ({count}), after a request")).await;
    drop(held);
}

async fn warm_up(to: SocketAddr, request: &Request) {
    let mut sockets = open(to, Some(request), CONCURRENT).await;
    for _ in 0..20 {
        for socket in &mut sockets {
            request.send(socket).await;
        }
    }
}

async fn open(
    to: SocketAddr,
    request: Option<&Request>,
    count: usize,
) -> Vec<tokio::net::TcpStream> {
    let mut held = Vec::with_capacity(count);
    while held.len() < count {
        let next = (0..CONCURRENT.min(count - held.len())).map(|_| async {
            let mut socket = connect(to).await;
            if let Some(request) = request {
                request.send(&mut socket).await;
            }
            socket
        });
        held.extend(futures_util::future::join_all(next).await);
    }
    held
}

async fn report(process: u32, before: u64, count: usize, name: &str) {
    tokio::time::sleep(REST).await;
    let grown = private_bytes(process).saturating_sub(before);
    println!("{name:46} {:8}", grown / count as u64);
}

/// The memory that a process and its children have for themselves.
fn private_bytes(process: u32) -> u64 {
    let of = |process: &str| {
        let text = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup"));
        let text = text.unwrap_or_default();
        let private = text.lines().filter(|line| line.starts_with("Private_"));
        private.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum::<u64>()
    };
    let children = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    let children = children.unwrap_or_default();
    let children = children.split_whitespace().map(of).sum::<u64>();
    (of(&process.to_string()) + children) * 1024
}

async fn nginx(directory: &TempDir, upstream: &str) -> (Process, SocketAddr) {
    let (port, home) = (free_port(), directory.path().join("nginx"));
    std::fs::create_dir(&home).expect("directory");
    let config = home.join("nginx.conf");
    std::fs::write(&config, configuration(&home, port, upstream)).expect("config");
    // Its workers end with it if it is asked to end, and not if it is killed.
    let ended_by = ["--pdeathsig", "TERM"];
    let process =
        Process::start_with("nginx", &ended_by, &part("nginx"), directory.path(), |command| {
            command
                .arg("-p")
                .arg(&home)
                .arg("-e")
                .arg(home.join("error.log"))
                .arg("-c")
                .arg(&config);
        });
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    harness::wait_until("nginx listens", Duration::from_secs(10), async || {
        tokio::net::TcpStream::connect(to).await.is_ok()
    })
    .await;
    (process, to)
}

fn configuration(home: &Path, port: u16, upstream: &str) -> String {
    let (home, upstream) = (home.display(), upstream.trim_start_matches("http://"));
    format!(
        "daemon off; worker_processes 2; user root; pid {home}/pid; worker_rlimit_nofile 60000;\n\
         events {{ worker_connections 30000; }}\n\
         http {{ access_log {home}/access.log combined buffer=16k flush=1s; keepalive_timeout 1h;\n\
         proxy_temp_path {home}/proxy; client_body_temp_path {home}/body;\n\
         upstream mimir {{ server {upstream}; keepalive 128; }}\n\
         server {{ listen 127.0.0.1:{port} backlog=4096;\n\
         location / {{ proxy_pass http://mimir; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }} }}\n"
    )
}
