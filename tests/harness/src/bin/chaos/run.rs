//! Faults one after the other, and what must hold over each of them.

use std::time::Duration;

use crate::fault::Fault;
use crate::observation::{Observation, observe};
use crate::system::System;
use crate::traffic::{Kind, Rates, hub_settles};

/// Runs faults one after the other, and checks what must hold over each of them.
pub async fn run(system: &mut System, faults: &[Fault], rates: Rates) -> Vec<Observation> {
    let mut observed = Vec::new();
    for fault in faults {
        observed.push(observe(system, *fault, rates).await);
    }
    for (name, kind) in [("pushes", Kind::Push), ("reads", Kind::Read)] {
        let all: usize = observed.iter().map(|one| one.of(kind).count()).sum();
        let failed: usize = observed.iter().map(|one| one.failed(kind)).sum();
        let percent = failed as f64 * 100.0 / all.max(1) as f64;
        println!("  all {name}: {all}, of which {failed} failed ({percent:.2} %)");
    }
    let of_hub = hub_settles(system, &system.member(), Duration::from_secs(120)).await;
    println!("  hub: {of_hub} samples scraped and read back, none lost, none twice");
    let missing: usize = observed.iter().map(|one| one.found.missing).sum();
    let not_allowed: usize = observed.iter().map(Observation::not_allowed).sum();
    assert_eq!(missing, 0, "acknowledged samples that are not found");
    assert_eq!(not_allowed, 0, "answers other than 2xx, 429, 503 and 504");
    observed
}
