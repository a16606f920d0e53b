//! `loadtest/neighbours`: what others notice of one device and of one organisation at ten times its limit, of
//! thousands of slow bodies, and of a flood of TLS handshakes.
//!
//! All sending is open-loop: each request has its time, whatever became of those before it, and its latency is
//! counted from that time. So neither a slow answer nor a quick refusal changes what is sent. Rates are low:
//! generator, proxy and upstream share the machine, and it must stay idle for the most part, or what is
//! measured is the queue for its processor. Each round has every phase, so that what else the machine does is
//! in all of them; what is compared is within a round.

mod flood;
mod handshakes;
mod slow;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Parser;
use harness::load::{Load, Until, address, request};
use harness::report::{circumstances, median};
use harness::{Cpu, Issuer, Memory, ORG_A, Proxy, ProxyOptions, Upstream};
use serde_json::json;
use tokio::time::Instant;

use crate::flood::{Flood, Outcome};
use crate::slow::Slow;

const PUSH: &str = "/api/v1/push";
/// Requests a second of one device, and of one organisation.
const DEVICE_LIMIT: u32 = 20;
const ORGANISATION_LIMIT: u32 = 50;
/// How far above its limit the flood is.
const TIMES: u32 = 10;
/// Requests a second of each that is measured, and how many those are.
const EACH: f64 = 10.0;
const OWN: u32 = 2;
const FOREIGN: u32 = 10;
/// Slow clients, their organisations, the length of a body, and how long it takes.
const SLOW_CLIENTS: u32 = 2_000;
const SLOW_ORGANISATIONS: u32 = 20;
const SLOW_BODY: usize = 20_000;
const SLOW_TIME: Duration = Duration::from_secs(5);
const ROUND: Duration = Duration::from_secs(8);

/// What is sent beside those who are measured.
enum Crowd {
    Nobody,
    Flood(Flood),
    Slow(Slow),
}

/// A phase of every round, with its name.
type Phase = (&'static str, Crowd);

struct Case {
    name: &'static str,
    /// Part of the case's title: who is measured.
    others: Vec<Vec<u8>>,
    phases: Vec<Phase>,
}

/// What was measured in one phase of one round.
struct Measured {
    p50: f64,
    p99: f64,
    max: f64,
    /// Processor time of the proxy, as a part of one core.
    cores: f64,
    memory: u64,
    connections: usize,
    crowd: Outcome,
}

/// Measures what others notice of a flood.
#[derive(Parser)]
struct Options {
    /// Rounds, each of which has every phase
    #[arg(default_value = "5")]
    rounds: NonZeroUsize,
    /// A part of a case's name; without it, all
    case: Option<String>,
}

#[tokio::main]
async fn main() {
    let Options { rounds, case: only } = Options::parse();
    let rounds = rounds.get();
    let (issuer, upstream) = (Issuer::start().await, Upstream::plain().await);
    println!("{}, rounds: {rounds} of {} s a phase.\n", circumstances(), ROUND.as_secs());
    let is_chosen = |name: &str| only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    for case in cases(&issuer) {
        if !is_chosen(case.name) {
            continue;
        }
        // Each case has a proxy of its own, so that none inherits another's memory.
        let proxy = ProxyOptions::new(&issuer.url(), &upstream.url())
            .set("limits.device_push_requests_per_second", &DEVICE_LIMIT.to_string())
            .set("limits.push_requests_per_second", &ORGANISATION_LIMIT.to_string())
            .set("limits.burst", "\"1s\"")
            .start()
            .await;
        tokio::task::block_in_place(|| run(&case, &proxy, &upstream, rounds));
    }
    if is_chosen(handshakes::NAME) {
        handshakes::run(&issuer, &upstream, rounds).await;
    }
}

fn cases(issuer: &Issuer) -> Vec<Case> {
    let push = |organisation: &str, number: u32, length: usize| {
        let id = format!("00000000-0000-4000-8000-{number:012}");
        let token = issuer.token().claim("sub", json!(id));
        let token = token.organisation(&json!(organisation)).sign();
        request("POST", PUSH, &format!("Bearer {token}"), &vec![b'x'; length])
    };
    let foreign = || -> Vec<Vec<u8>> {
        (0..FOREIGN).map(|number| push(&format!("other-{number}"), 10 + number, 1000)).collect()
    };
    // Within its organisation's limit together with what passes of the device's flood.
    let own = (1..=OWN).map(|number| push(ORG_A, number, 500));
    let per_second = f64::from(SLOW_CLIENTS) / SLOW_TIME.as_secs_f64();
    let slow: Vec<_> = (0..SLOW_CLIENTS)
        .map(|number| {
            let organisation = format!("slow-{}", number % SLOW_ORGANISATIONS);
            push(&organisation, 1000 + number, SLOW_BODY)
        })
        .collect();
    vec![
        Case {
            name: "one device at 10x its limit",
            others: own.chain(foreign()).collect(),
            phases: vec![
                ("quiet", Crowd::Nobody),
                (
                    "flood",
                    Crowd::Flood(Flood {
                        requests: vec![push(ORG_A, 0, 1000)],
                        rate: f64::from(DEVICE_LIMIT * TIMES),
                    }),
                ),
            ],
        },
        Case {
            name: "one organisation at 10x its limit",
            others: foreign(),
            phases: vec![
                ("quiet", Crowd::Nobody),
                (
                    "flood",
                    Crowd::Flood(Flood {
                        // Each device of it is within its own limit.
                        requests: (100..200).map(|number| push("crowded", number, 1000)).collect(),
                        rate: f64::from(ORGANISATION_LIMIT * TIMES),
                    }),
                ),
            ],
        },
        Case {
            name: "2,000 slow bodies",
            others: foreign(),
            phases: vec![
                ("quiet", Crowd::Nobody),
                // What the same requests cost when nothing about them is slow.
                (
                    "the same at once",
                    Crowd::Flood(Flood { requests: slow.clone(), rate: per_second }),
                ),
                ("slow", Crowd::Slow(Slow { requests: slow, time: SLOW_TIME })),
            ],
        },
    ]
}

fn run(case: &Case, proxy: &Proxy, upstream: &Upstream, rounds: usize) {
    println!("{}", case.name);
    let target = address(&proxy.url());
    // The first is for connections and caches.
    send_and_measure(target, &case.others, Duration::from_secs(3));
    let mut measured: Vec<Vec<Measured>> = case.phases.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        // In turn forwards and backwards, against what changes steadily.
        let mut order: Vec<usize> = (0..case.phases.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            measured[at].push(phase(&case.phases[at].1, case, proxy, upstream));
        }
    }
    let (quiet, loaded) = measured.split_first().expect("a quiet phase");
    describe(case.phases[0].0, quiet);
    for ((name, _), loaded) in case.phases[1..].iter().zip(loaded) {
        describe(name, loaded);
        let ratios: Vec<f64> =
            quiet.iter().zip(loaded).map(|(quiet, loaded)| loaded.p99 / quiet.p99).collect();
        let listed: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
        let crowd = loaded.iter().fold(Outcome::default(), |sum, one| sum.plus(&one.crowd));
        println!(
            "    p99 of others, times quiet, by rounds: {}; median {:.2}",
            listed.join(" "),
            median(ratios)
        );
        println!("    sent beside them: {crowd}");
    }
    println!();
}

/// The others beside a crowd, from when it has gone on for as long as bursts and bodies last.
fn phase(crowd: &Crowd, case: &Case, proxy: &Proxy, upstream: &Upstream) -> Measured {
    let target = address(&proxy.url());
    let others = || {
        upstream.forget_most_connections();
        Memory::forget_peak(proxy.process.id());
        let (before, began) = (Cpu::of(proxy.process.id()), Instant::now());
        let [p50, p99, max] = send_and_measure(target, &case.others, ROUND);
        let used = (Cpu::of(proxy.process.id()) - before).total / 1e6;
        Measured {
            p50,
            p99,
            max,
            cores: used / began.elapsed().as_secs_f64(),
            memory: proxy.process.peak_memory(),
            connections: upstream.most_connections(),
            crowd: Outcome::default(),
        }
    };
    match crowd {
        Crowd::Nobody => {
            // What is left of a crowd before has ended, and its kept connections are idle.
            std::thread::sleep(Duration::from_secs(2));
            others()
        }
        Crowd::Flood(flood) => {
            let (crowd, measured) = flood.beside(target, Duration::from_secs(3), others);
            Measured { crowd, ..measured }
        }
        Crowd::Slow(slow) => {
            let begins = slow.time + Duration::from_secs(1);
            let (crowd, measured) = slow.beside(target, begins, others);
            Measured { crowd, ..measured }
        }
    }
}

/// p50, p99 and the longest of the others in milliseconds. All of their requests pass, or this panics.
fn send_and_measure(address: SocketAddr, requests: &[Vec<u8>], time: Duration) -> [f64; 3] {
    let load = Load {
        address,
        requests,
        connections: requests.len(),
        rate: Some(EACH * requests.len() as f64),
        until: Until::After(time),
    };
    let served = load.run();
    [0.5, 0.99, 1.0].map(|quantile| served.quantile_ms(quantile))
}

fn describe(name: &str, measured: &[Measured]) {
    let of = |value: fn(&Measured) -> f64| median(measured.iter().map(value));
    let most = measured.iter().map(|one| one.max).fold(0.0, f64::max);
    println!(
        "  {name:<17} p50 {:6.2} ms   p99 {:6.2} ms   max {most:6.1} ms   {:.2} cores   {:4.0} MiB at most   {} \
         upstream connections at most",
        of(|one| one.p50),
        of(|one| one.p99),
        of(|one| one.cores),
        measured.iter().map(|one| one.memory).max().unwrap_or(0) as f64 / f64::from(1 << 20),
        measured.iter().map(|one| one.connections).max().unwrap_or(0),
    );
}
