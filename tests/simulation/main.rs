//! The data path under seeded simulation: one copy of the proxy with two workers, some instances and some clients,
//! on a network in memory and a clock that jumps. Everything that happens follows from a seed.
//!
//! ```text
//! cargo test --features simulation --test simulation                 some hundred seeds
//! SEEDS=10000 cargo test --features simulation --test simulation     ten thousand
//! SEED=4711 cargo test --features simulation --test simulation       one of them, with what happened
//! ```
//! [`world`] runs one seed, [`mimir`] and [`clients`] are its two sides, [`courses`] says what the network does, and
//! [`journal`] has what happened and what must hold of it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test that fails should fail where it stands"
)]

mod clients;
mod courses;
mod journal;
mod mimir;
mod world;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Without `SEEDS`.
const FEW: u64 = 400;

fn from_environment(name: &str) -> Option<u64> {
    let given = std::env::var_os(name)?;
    Some(given.to_str().and_then(|text| text.parse().ok()).expect("a whole number"))
}

/// How a failed seed is run again.
fn command(seed: u64) -> String {
    format!("SEED={seed} cargo test --features simulation --test simulation no_seed")
}

#[test]
fn no_seed_breaks_a_promise() {
    if let Some(seed) = from_environment("SEED") {
        let ran = world::run(seed);
        println!("{}", ran.story);
        assert!(ran.broken.is_empty(), "seed {seed}:\n{}", ran.broken.join("\n"));
        return;
    }
    let first = from_environment("FIRST_SEED").unwrap_or(0);
    let last = first + from_environment("SEEDS").unwrap_or(FEW);
    let (next, failed, sums) =
        (AtomicU64::new(first), Mutex::new(Vec::new()), Mutex::new(BTreeMap::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= last || failed.lock().unwrap().len() >= 5 {
                        return;
                    }
                    let ran = world::run(seed);
                    for (name, count) in ran.counts {
                        *sums.lock().unwrap().entry(name).or_insert(0) += count;
                    }
                    if !ran.broken.is_empty() {
                        failed.lock().unwrap().push((seed, ran.broken));
                    }
                }
            });
        }
    });
    let sums = sums.into_inner().unwrap();
    println!("{} seeds: {sums:?}", last - first);
    let mut failed = failed.into_inner().unwrap();
    failed.sort();
    let texts = failed.iter().map(|(seed, broken)| {
        format!("seed {seed}:\n  {}\n  again: {}", broken.join("\n  "), command(*seed))
    });
    let texts: Vec<String> = texts.collect();
    assert!(texts.is_empty(), "after {} seeds:\n{}", next.into_inner() - first, texts.join("\n"));
    // What never happens is not simulated.
    for wanted in journal::WANTED {
        assert!(sums.get(wanted).is_some_and(|count| *count > 0), "no seed had: {wanted}");
    }
}

/// Without this no failed seed could be looked at.
#[test]
fn a_seed_repeats_itself() {
    for seed in 0..10 {
        let (one, two) = (world::run(seed).story, world::run(seed).story);
        assert!(one == two, "seed {seed}:\n{one}\nand then:\n{two}");
    }
}
