//! `loadtest/sizing`: what the proxy needs, measured, and what fleets need, computed from it.
//!
//! Processor time is measured under full load. Memory is measured as the growth of the resident set: of
//! connections after each has had a request, of tokens and members after each was seen once.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use harness::load::{Connection, Load, Until, address, request};
use harness::report::{circumstances, write_block};
use harness::{Cpu, Issuer, ORG_A, Postgres, Proxy, ProxyOptions, Upstream, showcase};
use serde_json::json;

const QUERY: &str = "/prometheus/api/v1/query?query=up";
const PUSH: &str = "/api/v1/push";

/// How long a load lasts whose processor time is measured.
const LOAD: Duration = Duration::from_secs(5);
/// Until what was only needed for a request is given back.
const CALM: Duration = Duration::from_secs(10);
const CONNECTIONS: usize = 2_000;
const CALLERS: usize = 20_000;

/// How busy the processor of a machine should be on average: the rest is for peaks, and for the other
/// machine's share when one is gone.
const BUSY: f64 = 0.4;

/// Microseconds of one request, and bytes.
struct Measured {
    read: f64,
    small_push: f64,
    large_push: f64,
    start: f64,
    connection: f64,
    token: f64,
    member: f64,
}

/// Devices that push at an interval, and people who look at dashboards.
struct Fleet {
    devices: f64,
    /// Seconds between two pushes of a device.
    interval: f64,
    dashboards: f64,
}

const FLEETS: [Fleet; 4] = [
    Fleet { devices: 100.0, interval: 15.0, dashboards: 5.0 },
    Fleet { devices: 1_000.0, interval: 15.0, dashboards: 50.0 },
    Fleet { devices: 10_000.0, interval: 15.0, dashboards: 500.0 },
    Fleet { devices: 10_000.0, interval: 1.0, dashboards: 500.0 },
];
/// A dashboard's panels, each read every fifteen seconds, and a browser's connections.
const READS_OF_A_DASHBOARD: f64 = 12.0 / 15.0;
const CONNECTIONS_OF_A_DASHBOARD: f64 = 6.0;

/// Measures what the proxy needs, and computes what fleets need.
#[derive(Parser)]
struct Options {
    /// A document whose block gets the tables
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

#[tokio::main]
async fn main() {
    let Options { write } = Options::parse();
    let measured = measure().await;
    let tables = format!("{}.\n\n{}\n{}", circumstances(), measured.needs(), measured.fleets());
    print!("{tables}");
    if let Some(document) = write {
        write_block(&document, "loadtest/sizing", &tables);
    }
}

async fn measure() -> Measured {
    let issuer = Issuer::start().await;
    let upstream = Upstream::plain().await;
    let proxy = ProxyOptions::new(&issuer.url(), &upstream.url())
        .set("auth.token_cache_bytes", "\"256MiB\"")
        .start()
        .await;
    let start = proxy.process.memory() as f64;
    let caller = format!("Bearer {}", issuer.user_of(ORG_A));
    let costs = [("GET", QUERY, 0), ("POST", PUSH, 5 << 10), ("POST", PUSH, 50 << 10)].map(
        |(method, target, size)| {
            let request = request(method, target, &caller, &vec![b'x'; size]);
            cost(&proxy, &[request])
        },
    );
    let [read, small_push, large_push] = costs;
    // In this order: what connections give back at their end would be taken for tokens.
    let fresh = (0..CALLERS).map(|_| issuer.user_of(ORG_A)).collect();
    let token = grown(&proxy, fresh);
    let connection = connections(&proxy, &caller);
    let member = members(&issuer, &upstream).await;
    Measured { read, small_push, large_push, start, connection, token, member }
}

/// Microseconds of processor time a request, under full load.
fn cost(proxy: &Proxy, requests: &[Vec<u8>]) -> f64 {
    let load = |until| Load {
        address: address(&proxy.url()),
        requests,
        connections: 32,
        rate: None,
        until,
    };
    tokio::task::block_in_place(|| {
        load(Until::After(Duration::from_secs(1))).run();
        let before = Cpu::of(proxy.process.id());
        let served = load(Until::After(LOAD)).run();
        (Cpu::of(proxy.process.id()) - before).total / served.requests as f64
    })
}

/// Bytes that an idle connection takes after one request.
fn connections(proxy: &Proxy, caller: &str) -> f64 {
    let request = request("GET", QUERY, caller, b"");
    tokio::task::block_in_place(|| {
        std::thread::sleep(CALM);
        let before = proxy.process.memory();
        let open = |_| {
            let mut connection = Connection::open(address(&proxy.url())).expect("a connection");
            assert_eq!(connection.exchange(&request).expect("an answer"), 200);
            connection
        };
        let connections: Vec<Connection> = (0..CONNECTIONS).map(open).collect();
        std::thread::sleep(CALM);
        let grown = proxy.process.memory().saturating_sub(before);
        grown as f64 / connections.len() as f64
    })
}

/// Bytes by which the proxy grows with each token that it has not seen.
fn grown(proxy: &Proxy, tokens: Vec<String>) -> f64 {
    let requests: Vec<Vec<u8>> =
        tokens.iter().map(|token| request("GET", QUERY, &format!("Bearer {token}"), b"")).collect();
    let until = Until::Requests(requests.len());
    let load = Load {
        address: address(&proxy.url()),
        requests: &requests,
        connections: 16,
        rate: None,
        until,
    };
    let before = proxy.process.memory();
    tokio::task::block_in_place(|| {
        load.run();
        // The cache does some of its work later.
        std::thread::sleep(CALM);
    });
    proxy.process.memory().saturating_sub(before) as f64 / tokens.len() as f64
}

/// Bytes of a member: the token and what the database says of the user.
async fn members(issuer: &Issuer, upstream: &Upstream) -> f64 {
    let postgres = Postgres::start().await;
    let database = postgres.database("sizing").await;
    showcase::two_organisations(&database).await;
    database
        .execute(&format!(
            "insert into membership (user_id, organisation_id, role)
             select md5('user ' || n)::uuid, '{ORG_A}', 'viewer' from generate_series(1, {CALLERS}) n"
        ))
        .await;
    let users = format!("select user_id from membership where organisation_id = '{ORG_A}'");
    let users = database.query(&users).await;
    let token = |row: &Vec<Option<String>>| issuer.token().claim("sub", json!(row[0])).sign();
    let tokens = users.iter().map(token).collect();
    let proxy = ProxyOptions::new(&issuer.url(), &upstream.url())
        .set("auth.token_cache_bytes", "\"256MiB\"")
        .set("database.url", &format!("{:?}", database.url()))
        .set("database.cache_ttl", "\"1h\"")
        .start()
        .await;
    // What the first requests allocate for good is not a member's.
    let caller = format!("Bearer {}", issuer.token().claim("sub", json!(showcase::ALICE)).sign());
    cost(&proxy, &[request("GET", QUERY, &caller, b"")]);
    grown(&proxy, tokens)
}

impl Measured {
    fn needs(&self) -> String {
        let cores = |us: f64| format!("{:.3} cores", us / 1000.0);
        let kib = |bytes: f64, count: f64| format!("{:.1} MiB", bytes * count / f64::from(1 << 20));
        let rows = [
            ("1,000 pushes a second of 5 KiB each", cores(self.small_push)),
            ("1,000 pushes a second of 50 KiB each", cores(self.large_push)),
            ("1,000 reads a second of 1 KiB each", cores(self.read)),
            ("a proxy that has just started", kib(self.start, 1.0)),
            ("1,000 idle connections", kib(self.connection, 1e3)),
            ("10,000 tokens", kib(self.token, 1e4)),
            ("10,000 members, each with a token", kib(self.member, 1e4)),
        ];
        let rows = rows.map(|(what, need)| format!("| {what} | {need} |\n"));
        format!("| what | needs |\n|---|---:|\n{}", rows.concat())
    }

    fn fleets(&self) -> String {
        let row = |fleet: &Fleet| {
            let pushes = fleet.devices / fleet.interval;
            let reads = fleet.dashboards * READS_OF_A_DASHBOARD;
            let connections = fleet.devices + fleet.dashboards * CONNECTIONS_OF_A_DASHBOARD;
            let cores = (pushes * self.small_push + reads * self.read) / 1e6 / BUSY;
            // Rounded up: nobody has no core.
            let cores = (cores * 100.0).ceil() / 100.0;
            let callers = (fleet.devices + fleet.dashboards) * self.member;
            let memory = self.start + connections * self.connection + callers;
            format!(
                "| {} | {} s | {} | {pushes:.0} | {reads:.0} | {connections:.0} | {cores:.2} | {:.0} MiB |\n",
                fleet.devices,
                fleet.interval,
                fleet.dashboards,
                memory / f64::from(1 << 20)
            )
        };
        format!(
            "| devices | each pushes every | open dashboards | pushes/s | reads/s | connections | cores | memory |\n|---:|---:|---:|---:|---:|---:|---:|---:|\n{}",
            FLEETS.iter().map(row).collect::<String>()
        )
    }
}
