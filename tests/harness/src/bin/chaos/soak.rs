//! Faults at random, one after the other, for as long as one likes: what the process holds stays flat, and every error
//! belongs to a fault.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::fault::Fault;
use crate::say;
use crate::system::System;
use crate::traffic::{Kind, Outcome, Rates, Traffic, hub_settles};

/// Between two looks at the process.
const LOOK: Duration = Duration::from_secs(10);
/// Until caches, connections and buffers have the size that this load needs.
const WARM_UP: Duration = Duration::from_secs(60);
/// An error so long after the end of a fault still belongs to it.
const AFTERMATH: Duration = Duration::from_secs(15);
/// The last third may have so much more memory than the first: a tenth and 4 MiB. After the load there may be so many
/// more descriptors than before it.
const MORE_MEMORY: (f64, f64) = (1.1, 4.0 * 1024.0 * 1024.0);
const MORE_DESCRIPTORS: f64 = 20.0;
/// Until connections that were kept have ended: the proxy keeps those to Mimir for a minute, idle clients for two.
const SETTLED: Duration = Duration::from_secs(180);
/// What is left to chance. A disk that fills up needs a special start, and Consul's absence makes Mimir slow for long.
const FAULTS: [Fault; 11] = [
    Fault::Killed(0),
    Fault::Killed(1),
    Fault::Killed(2),
    Fault::Frozen(0),
    Fault::Frozen(2),
    Fault::Far,
    Fault::HalfOpen(1),
    Fault::Reset(0),
    Fault::Cut(2),
    Fault::AllCut,
    Fault::Database,
];

/// What the proxy holds at a moment.
#[derive(Clone, Copy)]
struct Held {
    memory: f64,
    descriptors: f64,
    threads: f64,
}

pub async fn run(system: &mut System, minutes: u64, rates: Rates, seed: u64) {
    println!("  seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let process = system.proxies[0].process.id();
    let before = look(process);
    let traffic = Traffic::start(0, system.devices(), system.readers(), rates);
    let watch = watch(process);
    let end = Instant::now() + Duration::from_secs(minutes * 60);
    let mut faults = Vec::new();
    sleep_until(Instant::now() + Duration::from_secs(10)).await;
    while Instant::now() + Duration::from_secs(75) < end {
        let fault = FAULTS[random.usize(..FAULTS.len())];
        say(&fault.to_string());
        let began = Instant::now();
        fault.begin(system).await;
        sleep_until(began + fault.lasts()).await;
        fault.end(system).await;
        faults.push((fault, began, Instant::now()));
        sleep_until(Instant::now() + Duration::from_secs(random.u64(5..15))).await;
    }
    sleep_until(end).await;
    let looks = watch.stop().await;
    let sent = traffic.stop().await;
    let found = sent.found(&system.member(), Duration::from_secs(120)).await;
    let of_hub = hub_settles(system, &system.member(), Duration::from_secs(120)).await;

    let mut counts: BTreeMap<Fault, usize> = BTreeMap::new();
    for (fault, ..) in &faults {
        *counts.entry(*fault).or_default() += 1;
    }
    for (fault, count) in counts {
        println!("  {count} x {fault}");
    }
    for (name, kind) in [("pushes", Kind::Push), ("reads", Kind::Read)] {
        let of_kind = || sent.outcomes.iter().filter(|one| one.kind == kind);
        let failed = of_kind().filter(|one| !one.is_good()).count();
        println!("  {name}: {}, of which {failed} failed", of_kind().count());
    }
    println!("  hub: {of_hub} samples scraped and read back");
    println!(
        "  samples: {} acknowledged, {} missing, {} stored that were not acknowledged",
        found.acknowledged, found.missing, found.unacknowledged
    );
    let is_explained = |one: &Outcome| {
        let is_within = |(_, began, ended): &(Fault, Instant, Instant)| {
            // A request that began before a fault can meet it.
            one.at + one.took >= *began && one.at <= *ended + AFTERMATH
        };
        let breaks = |(fault, ..): &(Fault, Instant, Instant)| {
            fault.breaks_answers() && one.kind == Kind::Read && one.status.is_none()
        };
        let mut near = faults.iter().filter(|fault| is_within(fault));
        near.any(|fault| one.is_allowed() || breaks(fault))
    };
    let unexplained: Vec<&Outcome> =
        sent.outcomes.iter().filter(|one| !one.is_good() && !is_explained(one)).collect();
    for outcome in unexplained.iter().take(10) {
        if let Some(failure) = &outcome.failure {
            println!("  unexplained: {} {:?} {}", failure.target, outcome.status, failure.text);
        }
    }
    assert_eq!(found.missing, 0, "acknowledged samples that are not found");
    assert!(unexplained.is_empty(), "{} errors belong to no fault", unexplained.len());
    settles(process, before).await;
    is_flat(&looks);
}

/// Looks at a process until it is stopped.
fn watch(process: u32) -> Watch {
    let stop = tokio::sync::watch::Sender::new(false);
    let mut stopped = stop.subscribe();
    let task = tokio::spawn(async move {
        let (began, mut looks) = (Instant::now() + WARM_UP, Vec::new());
        for number in 0.. {
            tokio::select! {
                () = sleep_until(began + LOOK * number) => looks.push(look(process)),
                _ = stopped.changed() => break,
            }
        }
        looks
    });
    Watch { stop, task }
}

struct Watch {
    stop: tokio::sync::watch::Sender<bool>,
    task: tokio::task::JoinHandle<Vec<Held>>,
}

impl Watch {
    async fn stop(self) -> Vec<Held> {
        self.stop.send_replace(true);
        self.task.await.expect("the watch")
    }
}

fn look(process: u32) -> Held {
    let count = |of: &str| {
        std::fs::read_dir(format!("/proc/{process}/{of}")).map_or(0, Iterator::count) as f64
    };
    let memory = harness::Memory::of(process).resident as f64;
    Held { memory, descriptors: count("fd"), threads: count("task") }
}

/// After the load the process has as many descriptors as before it.
async fn settles(process: u32, before: Held) {
    let until = Instant::now() + SETTLED;
    let mut after = look(process);
    while after.descriptors > before.descriptors + MORE_DESCRIPTORS && Instant::now() < until {
        sleep_until(Instant::now() + Duration::from_secs(1)).await;
        after = look(process);
    }
    println!(
        "  {} descriptors before the load, {} after it",
        before.descriptors, after.descriptors
    );
    assert!(
        after.descriptors <= before.descriptors + MORE_DESCRIPTORS,
        "descriptors are left from the load"
    );
}

/// Compares the first third with the last, each by its lower quartile: while a fault lasts, requests wait and there
/// are more connections, and which faults a third has is chance.
fn is_flat(looks: &[Held]) {
    let third = looks.len() / 3;
    assert!(third >= 2, "{} looks are too few: soak for longer", looks.len());
    let usual = |part: &[Held], value: fn(&Held) -> f64| {
        let mut values: Vec<f64> = part.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 4]
    };
    let (first, last) = (&looks[..third], &looks[looks.len() - third..]);
    let both = |value: fn(&Held) -> f64| (usual(first, value), usual(last, value));
    let (memory, descriptors) = (both(|held| held.memory), both(|held| held.descriptors));
    let threads = both(|held| held.threads);
    let mebibytes = f64::from(1 << 20);
    println!(
        "  {} looks, first third and last: {:.1} and {:.1} MiB resident, {:.0} and {:.0} descriptors, {:.0} and {:.0} \
         threads",
        looks.len(),
        memory.0 / mebibytes,
        memory.1 / mebibytes,
        descriptors.0,
        descriptors.1,
        threads.0,
        threads.1
    );
    assert!(memory.1 <= memory.0 * MORE_MEMORY.0 + MORE_MEMORY.1, "memory grows");
    // Not compared by thirds: clients keep the connections that they open while requests wait, for longer than
    // the pause between two faults.
    assert!(threads.1 <= threads.0, "threads grow");
}
