//! `scripts/chaos`: faults on real parts, under a load whose every request and sample is accounted for.

mod fault;
mod observation;
mod run;
mod soak;
mod system;
mod traffic;

use tokio::time::Instant;

use crate::fault::Fault;
use crate::system::{Disk, System};
use crate::traffic::{Kind, Rates};

const USAGE: &str = "scripts/chaos kill | restart | faults [PART_OF_A_FAULT] | soak MINUTES [--pushes N] [--reads N] [--seed N]";

/// What the command line says.
struct Arguments {
    what: String,
    minutes: Option<u64>,
    /// Part of what a fault is called.
    only: Option<String>,
    rates: Rates,
    seed: u64,
}

#[tokio::main]
async fn main() {
    let Some(arguments) = arguments() else {
        eprintln!("usage: {USAGE}");
        std::process::exit(64);
    };
    let (began, rates) = (Instant::now(), arguments.rates);
    println!(
        "{}, {} pushes and {} reads a second.\n",
        harness::report::circumstances(),
        rates.pushes,
        rates.reads
    );
    match (arguments.what.as_str(), arguments.minutes) {
        ("kill", _) => {
            use Fault::{Frozen, Killed, Replaced};
            let mut system = System::start(1, Disk::OfTheMachine).await;
            let faults = [Killed(0), Killed(1), Killed(2), Frozen(1), Replaced(1)];
            run::run(&mut system, &faults, rates).await;
        }
        ("restart", _) => {
            let mut system = System::start(2, Disk::OfTheMachine).await;
            let observed = run::run(&mut system, &[Fault::Rolling], rates).await;
            let failed = observed[0].failed(Kind::Push) + observed[0].failed(Kind::Read);
            assert_eq!(failed, 0, "requests that failed during a rolling restart");
        }
        ("faults", _) => {
            let mut system = System::start(1, Disk::Small).await;
            let is_meant = |fault: &Fault| {
                arguments.only.as_ref().is_none_or(|only| fault.to_string().contains(only))
            };
            let faults: Vec<Fault> = Fault::ALL.into_iter().filter(is_meant).collect();
            run::run(&mut system, &faults, rates).await;
        }
        ("soak", Some(minutes)) => {
            let mut system = System::start(1, Disk::OfTheMachine).await;
            soak::run(&mut system, minutes, rates, arguments.seed).await;
        }
        _ => {
            eprintln!("usage: {USAGE}");
            std::process::exit(64);
        }
    }
    println!("\nall of it holds, shown in {:.0?}", began.elapsed());
}

/// What takes its value from the next argument has two dashes.
fn arguments() -> Option<Arguments> {
    let mut given = std::env::args().skip(1);
    let mut arguments = Arguments {
        what: given.next()?,
        minutes: None,
        only: None,
        rates: Rates { pushes: 100.0, reads: 20.0 },
        seed: fastrand::u64(..10_000),
    };
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--pushes" => arguments.rates.pushes = given.next()?.parse().ok()?,
            "--reads" => arguments.rates.reads = given.next()?.parse().ok()?,
            "--seed" => arguments.seed = given.next()?.parse().ok()?,
            other => match other.parse() {
                Ok(minutes) => arguments.minutes = Some(minutes),
                Err(_) => arguments.only = Some(other.to_owned()),
            },
        }
    }
    Some(arguments)
}

/// Tells on standard error what takes its time.
fn say(text: &str) {
    eprintln!("chaos: {text}");
}
