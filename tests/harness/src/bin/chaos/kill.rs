//! Each of three Mimirs is killed in turn and started again, and one is frozen.

use std::time::Duration;

use crate::observation::{Observation, observe};
use crate::system::System;
use crate::traffic::{Kind, Rates, hub_settles};

pub async fn each_in_turn(system: &mut System, rates: Rates) {
    let mut observed = Vec::new();
    for number in 0..system.mimirs.len() {
        let name = format!("m{} is killed (SIGKILL) and started again", number + 1);
        let hold = Duration::from_secs(15);
        observed.push(
            observe(
                system,
                (&name, rates, hold),
                async |system| system.mimirs[number].kill(),
                async |system| {
                    system.mimirs[number].start_again();
                    system.wait_whole().await;
                },
            )
            .await,
        );
    }
    observed.push(frozen(system, rates).await);
    let (pushes, reads) = (sums(&observed, Kind::Push), sums(&observed, Kind::Read));
    println!("  pushes: {} of {} failed ({})", pushes.1, pushes.0, percent(pushes));
    println!("  reads: {} of {} failed ({})", reads.1, reads.0, percent(reads));
    let member = system.member(&system.urls()[0]);
    let of_hub = hub_settles(system, &member, Duration::from_secs(120)).await;
    println!("  hub: {of_hub} samples scraped and read back, none lost, none twice");
    let missing: usize = observed.iter().map(|one| one.found.missing).sum();
    let not_allowed: usize = observed.iter().map(Observation::not_allowed).sum();
    assert_eq!(
        (missing, not_allowed),
        (0, 0),
        "samples missing, answers outside 2xx, 429, 503, 504"
    );
}

pub async fn frozen(system: &mut System, rates: Rates) -> Observation {
    observe(
        system,
        ("m2 is frozen (SIGSTOP) and goes on (SIGCONT)", rates, Duration::from_secs(20)),
        async |system| system.mimirs[1].process().signal("STOP"),
        async |system| {
            system.mimirs[1].process().signal("CONT");
            system.wait_whole().await;
        },
    )
    .await
}

fn sums(observed: &[Observation], kind: Kind) -> (usize, usize) {
    let all = observed.iter().map(|one| one.of(kind).count()).sum();
    (all, observed.iter().map(|one| one.failed(kind)).sum())
}

fn percent((all, failed): (usize, usize)) -> String {
    format!("{:.2} %", failed as f64 * 100.0 / all.max(1) as f64)
}
