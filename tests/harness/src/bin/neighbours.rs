//! `loadtest/neighbours`: what others notice of one device, and of one organisation, at ten times its limit.
//!
//! Others send at a fixed rate, and every request of theirs must pass. Rounds with a flood and quiet ones
//! take turns, so that what else the machine does is in all of them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use harness::load::{Connection, Load, Until, address, request};
use harness::report::circumstances;
use harness::{Issuer, ORG_A, ProxyOptions, Upstream};
use serde_json::json;
use tokio::time::Instant;

const PUSH: &str = "/api/v1/push";
/// Requests a second of one device, and of one organisation.
const DEVICE_LIMIT: u32 = 20;
const ORGANISATION_LIMIT: u32 = 100;
/// How far above its limit the flood is.
const TIMES: u32 = 10;
/// Requests a second of all others together, and their connections.
const OTHERS: f64 = 100.0;
const CONNECTIONS: usize = 10;
/// Connections of a flood: many wait for their turn.
const FLOOD: usize = 100;
const ROUND: Duration = Duration::from_secs(6);

/// Requests of a flood by the first digit of their status.
#[derive(Default)]
struct Statuses([AtomicUsize; 6]);

#[tokio::main]
async fn main() {
    let rounds: usize = std::env::args().nth(1).map_or(5, |text| text.parse().expect("a number"));
    let (issuer, upstream) = (Issuer::start().await, Upstream::plain().await);
    let proxy = ProxyOptions::new(&issuer.url(), &upstream.url())
        .set("limits.device_push_requests_per_second", &DEVICE_LIMIT.to_string())
        .set("limits.push_requests_per_second", &ORGANISATION_LIMIT.to_string())
        .set("limits.burst", "\"1s\"")
        .start()
        .await;
    let address = address(&proxy.url());
    let push = |token: &str| request("POST", PUSH, &format!("Bearer {token}"), &[b'x'; 1000]);
    let device = |organisation: &str, number: u32| {
        let id = format!("00000000-0000-4000-8000-{number:012}");
        let token = issuer.token().claim("sub", json!(id));
        push(&token.organisation(&json!(organisation)).sign())
    };
    // The others: devices of the same organisation, within its limit, and of five others.
    let own = (1..6).map(|number| device(ORG_A, number));
    let foreign = (10..15).map(|number| device(&format!("other-{number}"), number));
    let others: Vec<_> = own.chain(foreign.clone()).collect();
    let foreign: Vec<_> = foreign.collect();
    let broken = vec![device(ORG_A, 0)];
    // Each device of it is within its own limit.
    let crowd: Vec<_> = (100..200).map(|number| device("crowded", number)).collect();
    let cases = [
        ("one device at 10x its limit", &broken, DEVICE_LIMIT, &others),
        ("one organisation at 10x its limit", &crowd, ORGANISATION_LIMIT, &foreign),
    ];
    tokio::task::block_in_place(|| {
        println!("{}.\n", circumstances());
        for (name, flood, limit, others) in cases {
            compare(name, address, flood, limit * TIMES, others, rounds);
        }
    });
}

fn compare(
    name: &str,
    address: SocketAddr,
    flood: &[Vec<u8>],
    rate: u32,
    others: &[Vec<u8>],
    rounds: usize,
) {
    let (mut quiet, mut loud) = (Vec::new(), Vec::new());
    let statuses = Statuses::default();
    // The first is for connections and caches.
    measure(address, others);
    for _ in 0..rounds {
        quiet.push(measure(address, others));
        let stop = AtomicBool::new(false);
        loud.push(std::thread::scope(|scope| {
            for number in 0..FLOOD {
                let (statuses, stop) = (&statuses, &stop);
                scope.spawn(move || send(address, flood, number, rate, statuses, stop));
            }
            // Until the burst is used up.
            std::thread::sleep(Duration::from_secs(2));
            let measured = measure(address, others);
            stop.store(true, Ordering::Relaxed);
            measured
        }));
    }
    let [quiet_p50, quiet_p99] = medians(&quiet);
    let [loud_p50, loud_p99] = medians(&loud);
    let counts: Vec<usize> = statuses.0.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    println!(
        "{name}: p50 of others {quiet_p50:.2} ms quiet, {loud_p50:.2} ms; p99 {quiet_p99:.2} ms quiet, \
         {loud_p99:.2} ms: {:.2} times. Of the flood {} passed, {} got 429, {} got 503.",
        loud_p99 / quiet_p99,
        counts[2],
        counts[4],
        counts[5]
    );
}

/// p50 and p99 of the others in milliseconds. All of their requests pass, or this panics.
fn measure(address: SocketAddr, requests: &[Vec<u8>]) -> [f64; 2] {
    let rate = OTHERS * requests.len() as f64 / 10.0;
    let load = Load {
        address,
        requests,
        connections: CONNECTIONS,
        rate: Some(rate),
        until: Until::After(ROUND),
    };
    let served = load.run();
    [served.quantile_ms(0.5), served.quantile_ms(0.99)]
}

/// One connection of a flood, which takes its turn at the rate of all of them.
fn send(
    address: SocketAddr,
    requests: &[Vec<u8>],
    number: usize,
    rate: u32,
    statuses: &Statuses,
    stop: &AtomicBool,
) {
    let mut connection = Connection::open(address).expect("a connection");
    let interval = Duration::from_secs(1) * u32::try_from(FLOOD).expect("few") / rate;
    let mut at = number;
    while !stop.load(Ordering::Relaxed) {
        let due = Instant::now() + interval;
        let status = connection.exchange(&requests[at % requests.len()]).expect("an answer");
        statuses.0[usize::from(status / 100).min(5)].fetch_add(1, Ordering::Relaxed);
        at += FLOOD;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

fn medians(measured: &[[f64; 2]]) -> [f64; 2] {
    [0, 1].map(|which| {
        let mut values: Vec<f64> = measured.iter().map(|one| one[which]).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    })
}
