//! One fault: traffic before, during and after it, and what clients saw of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use harness::report::median;
use tokio::time::{Instant, sleep};

use crate::fault::Fault;
use crate::say;
use crate::system::System;
use crate::traffic::{Found, Kind, Outcome, Rates, Traffic};

/// From when on everything is as before: no request fails or takes longer.
const SLOW: Duration = Duration::from_secs(2);
/// Peace before and after a fault.
const BEFORE: Duration = Duration::from_secs(5);
const AFTER: Duration = Duration::from_secs(10);

/// What a fault did.
pub struct Observation {
    fault: Fault,
    outcomes: Vec<Outcome>,
    pub found: Found,
    /// From the beginning of the fault, and from its end, to the last request that failed or was slow.
    until_normal: (Duration, Duration),
    lasted: Duration,
}

/// Runs traffic while a fault begins, lasts and ends.
pub async fn observe(system: &mut System, fault: Fault, rates: Rates) -> Observation {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static RUN: AtomicUsize = AtomicUsize::new(0);

    say(&fault.to_string());
    let run = RUN.fetch_add(1, Ordering::Relaxed);
    let traffic = Traffic::start(run, system.devices(), system.readers(), rates);
    sleep(BEFORE).await;
    let began = Instant::now();
    fault.begin(system).await;
    sleep(fault.lasts()).await;
    let lasted = began.elapsed();
    fault.end(system).await;
    let ended = Instant::now();
    sleep(AFTER).await;
    let sent = traffic.stop().await;
    let found = sent.found(&system.member(), Duration::from_secs(60)).await;
    let is_normal = |outcome: &&Outcome| outcome.is_good() && outcome.took < SLOW;
    let last = sent.outcomes.iter().filter(|one| !is_normal(one)).map(|one| one.at).max();
    let last = last.unwrap_or(began);
    let until_normal =
        (last.saturating_duration_since(began), last.saturating_duration_since(ended));
    let observation = Observation { fault, outcomes: sent.outcomes, found, until_normal, lasted };
    observation.explain(system);
    println!("{observation}");
    observation
}

impl Observation {
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(move |outcome| outcome.kind == kind)
    }

    /// Answers that no client should get, and connections that broke.
    pub fn not_allowed(&self) -> usize {
        let is_broken_answer = |outcome: &Outcome| {
            self.fault.breaks_answers() && outcome.kind == Kind::Read && outcome.status.is_none()
        };
        let wrong = |outcome: &&Outcome| !outcome.is_allowed() && !is_broken_answer(outcome);
        self.outcomes.iter().filter(wrong).count()
    }

    pub fn failed(&self, kind: Kind) -> usize {
        self.of(kind).filter(|outcome| !outcome.is_good()).count()
    }

    /// Prints each kind of failure with its number and what the proxy logged of one.
    fn explain(&self, system: &System) {
        let mut kinds: BTreeMap<String, (usize, String, String)> = BTreeMap::new();
        for outcome in &self.outcomes {
            let Some(failure) = &outcome.failure else { continue };
            // Addresses and the like differ from one to the next.
            let text = failure.text.replace(|c: char| c.is_ascii_digit(), "#");
            let path = failure.target.split('?').next().unwrap_or_default();
            let status = outcome.status.map_or("broken".to_owned(), |status| status.to_string());
            let kind = kinds.entry(format!("{path} {status} {text}"));
            let (count, ..) = kind.or_insert((0, outcome.id.clone(), failure.text.clone()));
            *count += 1;
        }
        if kinds.is_empty() && self.outcomes.iter().all(|outcome| outcome.took < SLOW) {
            return;
        }
        let log = system.log();
        let line_about = |id: &str| log.lines().find(|line| !id.is_empty() && line.contains(id));
        for (kind, (count, id, text)) in kinds {
            println!("    {count} x {}", kind.split(' ').take(2).collect::<Vec<_>>().join(" "));
            println!("      said: {text}");
            println!("      log:  {}", line_about(&id).unwrap_or("nothing"));
        }
        // Where the slow ones were: at an instance that does not answer, or at others that wait for it.
        let mut slow: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for outcome in self.outcomes.iter().filter(|outcome| outcome.took >= SLOW) {
            let line = line_about(&outcome.id).unwrap_or_default();
            let line: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
            let instance = line["upstream.address"].as_str().unwrap_or("no instance").to_owned();
            slow.entry(instance).or_default().push(outcome.took.as_secs_f64());
        }
        for (instance, mut took) in slow {
            took.sort_by(f64::total_cmp);
            println!(
                "    {} slow at {instance}: median {:.1} s, longest {:.1} s",
                took.len(),
                median(took.iter().copied()),
                took[took.len() - 1]
            );
        }
    }

    fn counts(&self, kind: Kind) -> String {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for outcome in self.of(kind) {
            let name = match outcome.status {
                Some(status) if outcome.is_good() => format!("{}xx", status / 100),
                Some(status) => status.to_string(),
                None => "broken".to_owned(),
            };
            *counts.entry(name).or_default() += 1;
        }
        let counts: Vec<String> =
            counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
        let slowest = self.of(kind).map(|one| one.took).max().unwrap_or_default();
        let slow = self.of(kind).filter(|one| one.took >= SLOW).count();
        format!("{}; {slow} took {SLOW:?} and more, the slowest {slowest:.1?}", counts.join(", "))
    }
}

impl fmt::Display for Observation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "  {} ({:.0?})\n    pushes: {}\n    reads:  {}\n    samples: {} acknowledged, {} missing, {} stored that \
             were not acknowledged\n    normal {:.1?} after it began, {:.1?} after its end",
            self.fault,
            self.lasted,
            self.counts(Kind::Push),
            self.counts(Kind::Read),
            self.found.acknowledged,
            self.found.missing,
            self.found.unacknowledged,
            self.until_normal.0,
            self.until_normal.1,
        )
    }
}
