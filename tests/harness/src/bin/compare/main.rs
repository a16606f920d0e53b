//! `loadtest/compare`: nginx without authentication, haproxy verifying JWTs, vmauth with a static
//! token and this proxy, before one upstream, under one load, in one run.
//!
//! What counts is the processor time of a request and its ratio to nginx's: absolute times mean
//! nothing on a shared machine. Rounds go through all candidates in turn, and medians are shown.

mod candidates;
mod load;

use std::collections::BTreeMap;

use candidates::{Candidate, Scene};
use harness::{ORG_A, Upstream};
use load::{Measured, Workload};

struct Options {
    /// Print what is running and wait, for a profiler.
    hold: bool,
    seconds: u64,
    rounds: usize,
    only: Vec<String>,
}

#[tokio::main]
async fn main() {
    let options = options();
    let scene = Scene::start().await;
    let candidates = scene.candidates().await;
    if options.hold {
        for candidate in &candidates {
            println!(
                "{}: process {}, port {}\n{}",
                candidate.name,
                candidate.process.id(),
                candidate.port,
                candidate.token
            );
        }
        std::future::pending::<()>().await;
    }
    println!(
        "{} rounds of {} s each; CPU is that of the proxy alone, ratios are to nginx (no authentication)\n",
        options.rounds, options.seconds
    );
    for workload in Workload::ALL {
        let mut results: BTreeMap<usize, Vec<Measured>> = BTreeMap::new();
        for _ in 0..options.rounds {
            for (number, candidate) in candidates.iter().enumerate() {
                if options.only.is_empty()
                    || number == 0
                    || options.only.iter().any(|only| candidate.name.contains(only))
                {
                    let measured = load::run(&scene, candidate, workload, options.seconds);
                    results.entry(number).or_default().push(measured);
                }
            }
        }
        print(workload, &candidates, &results);
    }
    assert_tenant(&scene).await;
}

/// The candidates must have done the same work: the tenant header arrived.
async fn assert_tenant(scene: &Scene) {
    let witness = Upstream::start(|_| async { load::empty_answer() }).await;
    let proxy = scene.proxy(&witness.url()).await;
    let answer = proxy.client().bearer(&scene.es256).get(load::QUERY).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(witness.heads()[0].headers["x-scope-orgid"], ORG_A);
}

fn print(workload: Workload, candidates: &[Candidate], results: &BTreeMap<usize, Vec<Measured>>) {
    println!("{}", workload.title());
    println!(
        "{:<28} {:>9} {:>9} {:>9} {:>12} {:>7} {:>9}",
        "", "req/s", "p50 ms", "p99 ms", "CPU us/req", "ratio", "peak MiB"
    );
    let cpu = |runs: &[Measured]| median(runs.iter().map(|run| run.cpu_us_per_request));
    for (number, runs) in results {
        // Ratios within a round cancel the machine's mood; their median is the figure.
        let ratio = median(
            runs.iter()
                .zip(&results[&0])
                .map(|(run, nginx)| run.cpu_us_per_request / nginx.cpu_us_per_request),
        );
        println!(
            "{:<28} {:>9.0} {:>9.2} {:>9.2} {:>12.1} {:>6.2}x {:>9.1}",
            candidates[*number].name,
            median(runs.iter().map(|run| run.requests_per_second)),
            median(runs.iter().map(|run| run.p50_ms)),
            median(runs.iter().map(|run| run.p99_ms)),
            cpu(runs),
            ratio,
            median(runs.iter().map(|run| run.peak_mib)),
        );
    }
    println!();
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn options() -> Options {
    let mut options = Options { hold: false, seconds: 4, rounds: 3, only: Vec::new() };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
        match argument.as_str() {
            "--hold" => options.hold = true,
            "--seconds" => options.seconds = value().parse().expect("seconds"),
            "--rounds" => options.rounds = value().parse().expect("rounds"),
            "--only" => options.only.push(value()),
            other => {
                panic!(
                    "unknown option {other}; there are --seconds N, --rounds N, --only NAME, --hold"
                )
            }
        }
    }
    options
}
