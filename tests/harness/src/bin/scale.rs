//! `loadtest/scale`: what a request costs with one organisation and one member, and with many
//! organisations and many live principals, in one run, in turn.
//!
//! Both proxies have a database of their own, have seen every principal once, and then serve the
//! same number of requests: the small one always for its one member, the large one for all of its
//! members in turn. What counts is the ratio of processor time a request, and the memory.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use clap::Parser;
use harness::report::median;
use harness::{Database, Issuer, Postgres, Proxy, ProxyOptions, Upstream};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;

const QUERY: &str = "/prometheus/api/v1/query?query=up";
const CONNECTIONS: usize = 32;

/// Compares a request's cost with one member to that with many organisations and members.
#[derive(Parser)]
struct Options {
    #[arg(long, default_value_t = 10_000)]
    organisations: usize,
    /// Members of all organisations together
    #[arg(long, default_value_t = 100_000)]
    principals: usize,
    /// Requests of each round
    #[arg(long, default_value_t = 100_000)]
    requests: usize,
    #[arg(long, default_value_t = 7)]
    rounds: usize,
}

/// A proxy, and a token for each of its members.
struct World {
    name: String,
    proxy: Proxy,
    tokens: Arc<Vec<String>>,
    memory_before: u64,
}

#[tokio::main]
async fn main() {
    let options = Options::parse();
    let postgres = Postgres::start().await;
    let issuer = Issuer::start().await;
    let upstream = Upstream::start(|_| async { answer() }).await;
    let small = world(&postgres, &issuer, &upstream, 1, 1).await;
    let (organisations, principals) = (options.organisations, options.principals);
    let large = world(&postgres, &issuer, &upstream, organisations, principals).await;
    for world in [&small, &large] {
        let seen = world.tokens.len();
        world.serve(seen).await;
        let grown = world.proxy.process.memory().saturating_sub(world.memory_before);
        println!(
            "{}: {seen} live principals, {:.1} MiB resident, grown by {} bytes a principal",
            world.name,
            mib(world.proxy.process.memory()),
            grown / seen as u64
        );
    }
    let mut ratios = Vec::new();
    for round in 0..options.rounds {
        let (one, many) = (small.cost(options.requests).await, large.cost(options.requests).await);
        println!("round {round}: {one:.1} us and {many:.1} us a request, ratio {:.3}", many / one);
        ratios.push(many / one);
    }
    println!("median ratio of processor time a request: {:.3}", median(ratios));
    let reads = "mimir_tenant_proxy_directory_lookups_total{kind=\"membership\",outcome=\"read\"}";
    println!("look-ups in the database, all in all: {}", large.proxy.metric(reads).await);
}

async fn world(
    postgres: &Postgres,
    issuer: &Issuer,
    upstream: &Upstream,
    organisations: usize,
    principals: usize,
) -> World {
    let database = postgres.database("scale").await;
    let migrated = Command::new(Proxy::binary())
        .arg("migrate")
        .env("MTP__DATABASE__URL", database.url())
        .env("MTP__AUTH__ISSUER", "http://127.0.0.1:1/auth/v1")
        .env("MTP__UPSTREAM__URLS", "http://127.0.0.1:1")
        .status();
    assert!(migrated.expect("migrate").success());
    let tokens = fill(&database, issuer, organisations, principals).await;
    let proxy = ProxyOptions::new(&issuer.url(), &upstream.url())
        .set("database.url", &format!("{:?}", database.url()))
        // Nothing is to be read anew because of its age while this runs.
        .set("database.cache_ttl", "\"1h\"")
        .set("auth.token_cache_bytes", "\"256MiB\"")
        .start()
        .await;
    let memory_before = proxy.process.memory();
    let name = format!("{organisations} organisations");
    World { name, proxy, tokens: Arc::new(tokens), memory_before }
}

/// Fills the tables and gives a token for each member.
async fn fill(
    database: &Database,
    issuer: &Issuer,
    organisations: usize,
    principals: usize,
) -> Vec<String> {
    database
        .execute(&format!(
            "insert into organisation (id) select md5('org ' || n)::uuid::text from generate_series(1, {organisations}) n;
             insert into membership (user_id, organisation_id, role)
             select md5('user ' || n)::uuid, md5('org ' || (n % {organisations} + 1))::uuid::text, 'viewer'
             from generate_series(1, {principals}) n;
             analyze"
        ))
        .await;
    let users = database.query("select user_id from membership").await;
    let token = |row: &Vec<Option<String>>| {
        let user = row[0].clone().expect("a user");
        issuer.token().claim("sub", json!(user)).sign()
    };
    users.iter().map(token).collect()
}

impl World {
    /// Serves so many requests, for all members in turn.
    async fn serve(&self, requests: usize) {
        let next = Arc::new(AtomicUsize::new(0));
        let address: SocketAddr = harness::load::address(&self.proxy.url());
        let connections = (0..CONNECTIONS).map(|_| {
            let (next, tokens) = (Arc::clone(&next), Arc::clone(&self.tokens));
            tokio::spawn(async move {
                let socket = TcpStream::connect(address).await.expect("connect");
                socket.set_nodelay(true).expect("nodelay");
                let (mut sender, connection) =
                    http1::handshake(TokioIo::new(socket)).await.expect("handshake");
                tokio::spawn(connection);
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= requests {
                        return;
                    }
                    let request = Request::get(QUERY)
                        .header("host", "proxy")
                        .header(
                            "authorization",
                            format!("Bearer {}", tokens[number % tokens.len()]),
                        )
                        .body(Empty::<Bytes>::new())
                        .expect("request");
                    let answer = sender.send_request(request).await.expect("an answer");
                    assert_eq!(answer.status(), StatusCode::OK);
                    answer.into_body().collect().await.expect("a body");
                }
            })
        });
        for connection in connections.collect::<Vec<_>>() {
            connection.await.expect("a connection");
        }
    }

    /// Microseconds of processor time a request.
    async fn cost(&self, requests: usize) -> f64 {
        let before = cpu_us(self.proxy.process.id());
        self.serve(requests).await;
        (cpu_us(self.proxy.process.id()) - before) / requests as f64
    }
}

/// User and system time of a process; the kernel counts it in hundredths of a second.
fn cpu_us(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("stat");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks = |field: usize| fields[field].parse::<f64>().expect("ticks");
    (ticks(11) + ticks(12)) * 10_000.0
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn answer() -> Response<BoxBody<Bytes, std::io::Error>> {
    let body = Bytes::from(vec![b'x'; 1024]);
    Response::new(Full::new(body).map_err(|never| match never {}).boxed())
}
