//! Whether an instance is to be used: a pure state machine fed with evidence.
//!
//! Evidence is only what an instance did by itself: a client that went away, a body that came
//! slowly and a tenant's 4xx are none and never get here (`VictoriaMetrics#10318`, `#11272`), and what
//! a tenant's own request can provoke needs others that show the same ([`Testimony`]). Several
//! failures in a row eject an instance for a time that doubles with each ejection; where instances
//! are probed, one must also be seen ready before it returns, and then it gets its share slowly.

use std::time::Duration;

use super::testimony::{Testimony, Witness};
use crate::backoff::{self, Jitter};
use crate::config::HealthConfig;

/// Milliseconds since the process began to look at instances.
pub(super) type Millis = u64;

/// What an instance did, or did not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// It could not be connected to.
    Unreachable,
    /// It did not begin an answer in time.
    Timeout,
    /// It broke off before the head of an answer.
    Broken,
    /// It broke off, or fell silent, in the middle of an answer.
    BrokenBody,
    /// It answered with a status that is its own fault.
    ServerError,
    /// It says that it is not ready.
    NotReady,
    /// It is new, and has not been seen ready yet.
    New,
}

impl Evidence {
    /// The names of all kinds.
    pub(super) const NAMES: [&'static str; 7] = [
        Self::Unreachable.name(),
        Self::Timeout.name(),
        Self::Broken.name(),
        Self::BrokenBody.name(),
        Self::ServerError.name(),
        Self::NotReady.name(),
        Self::New.name(),
    ];

    /// Whether a request can be such that every instance would do the same with it.
    fn can_be_provoked(self) -> bool {
        match self {
            Self::Timeout | Self::BrokenBody | Self::ServerError => true,
            Self::Unreachable | Self::Broken | Self::NotReady | Self::New => false,
        }
    }

    /// A label for metrics and logs.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::BrokenBody => "broken_body",
            Self::ServerError => "server_error",
            Self::NotReady => "not_ready",
            Self::New => "new",
        }
    }
}

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probed {
    Ready,
    NotReady,
    Unreachable,
}

/// What is worth telling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It is left alone for this long.
    Ejected(Evidence, Duration),
    /// It is used again.
    Returned,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Good,
    Ejected {
        until: Millis,
        why: Evidence,
        /// Whether it was connected to when that was last tried.
        reachable: bool,
        /// Whether a probe has found it ready since.
        vouched: bool,
    },
    Returning {
        since: Millis,
    },
}

/// Failed probes in a row that eject an instance.
const PROBES: u32 = 2;

/// What is known of one instance.
#[derive(Clone, Debug, Default)]
pub(super) struct Health {
    phase: Phase,
    /// Failures in a row without the head of an answer.
    silent: Testimony,
    /// Failures in a row after the head of an answer.
    faulty: Testimony,
    /// Failed probes in a row.
    unready: u32,
    /// Ejections of late, which double the next one.
    ejections: u32,
    returned: Millis,
}

impl Health {
    /// Of an instance that joins others: it is left alone until it has been seen ready.
    pub(super) fn of_newcomer(now: Millis, policy: &HealthConfig) -> Self {
        let phase = if policy.probes() {
            Phase::Ejected { until: now, why: Evidence::New, reachable: true, vouched: false }
        } else {
            Phase::Returning { since: now }
        };
        Self { phase, ..Self::default() }
    }

    /// A request of one organisation's failed. `shared` says that others fail the same way, so that a status proves
    /// nothing about this one; `jitter` is from 0 to 1.
    pub(super) fn failed(
        &mut self,
        evidence: Evidence,
        witness: Witness,
        shared: bool,
        now: Millis,
        policy: &HealthConfig,
        jitter: f64,
    ) -> Option<Change> {
        if let Phase::Ejected { reachable, .. } = &mut self.phase {
            // Requests that were on their way fail too; they say nothing new but this.
            *reachable &= evidence != Evidence::Unreachable;
            return None;
        }
        let streak = match evidence {
            Evidence::BrokenBody | Evidence::ServerError => &mut self.faulty,
            _ => &mut self.silent,
        };
        if evidence.can_be_provoked() {
            streak.add(witness);
        } else {
            streak.add_certain();
        }
        let enough = streak.suffices(policy.eject_after);
        let excused = shared && evidence == Evidence::ServerError;
        (enough && !excused).then(|| self.eject(evidence, now, policy, jitter))
    }

    fn eject(&mut self, why: Evidence, now: Millis, policy: &HealthConfig, jitter: f64) -> Change {
        if now.saturating_sub(self.returned) > millis(policy.eject_max) {
            self.ejections = 0;
        }
        let wait = back_off(self.ejections, policy, jitter);
        self.ejections = self.ejections.saturating_add(1);
        self.clear();
        let (until, reachable) = (now + millis(wait), why != Evidence::Unreachable);
        self.phase = Phase::Ejected { until, why, reachable, vouched: false };
        Change::Ejected(why, wait)
    }

    /// The head of an answer came: it can be reached.
    pub(super) fn answered(&mut self, now: Millis) -> Option<Change> {
        self.silent.clear();
        match self.phase {
            Phase::Ejected { reachable: false, .. } => Some(self.come_back(now)),
            _ => None,
        }
    }

    /// An exchange ended well.
    pub(super) fn completed(&mut self) {
        self.silent.clear();
        self.faulty.clear();
    }

    fn clear(&mut self) {
        self.completed();
        self.unready = 0;
    }

    /// A probe came back.
    pub(super) fn probed(
        &mut self,
        found: Probed,
        now: Millis,
        policy: &HealthConfig,
        jitter: f64,
    ) -> Option<Change> {
        let Phase::Ejected { until, reachable, vouched, .. } = &mut self.phase else {
            let why = match found {
                Probed::Ready => {
                    self.unready = 0;
                    return None;
                }
                Probed::NotReady => Evidence::NotReady,
                Probed::Unreachable => Evidence::Unreachable,
            };
            self.unready += 1;
            return (self.unready >= PROBES).then(|| self.eject(why, now, policy, jitter));
        };
        *reachable = found != Probed::Unreachable;
        *vouched = found == Probed::Ready;
        let is_due = *vouched && *until <= now;
        is_due.then(|| self.come_back(now))
    }

    /// What time alone changes.
    pub(super) fn settle(&mut self, now: Millis, policy: &HealthConfig) -> Option<Change> {
        match self.phase {
            Phase::Ejected { until, vouched, .. }
                if until <= now && (vouched || !policy.probes()) =>
            {
                Some(self.come_back(now))
            }
            Phase::Returning { since }
                if now.saturating_sub(since) >= millis(policy.slow_start) =>
            {
                self.phase = Phase::Good;
                None
            }
            _ => None,
        }
    }

    fn come_back(&mut self, now: Millis) -> Change {
        self.clear();
        self.phase = Phase::Returning { since: now };
        self.returned = now;
        Change::Returned
    }

    /// Why it is ejected, if it is.
    pub(super) fn ejected(&self) -> Option<Evidence> {
        match self.phase {
            Phase::Ejected { why, .. } => Some(why),
            Phase::Good | Phase::Returning { .. } => None,
        }
    }

    /// All that a request needs to know, in one word.
    pub(super) fn standing(&self, policy: &HealthConfig) -> Standing {
        let streaks = if !self.faulty.is_empty() {
            Standing::FAULTY | Standing::TROUBLED
        } else if !self.silent.is_empty() {
            Standing::TROUBLED
        } else {
            0
        };
        let phase = match self.phase {
            Phase::Good => 0,
            Phase::Returning { since } => Standing::RETURNING | (since & Standing::TIME),
            Phase::Ejected { until, reachable, vouched, .. } => {
                let kind = if reachable { Standing::EJECTED } else { Standing::UNREACHABLE };
                let due = vouched || !policy.probes();
                kind | if due { until & Standing::TIME } else { Standing::TIME }
            }
        };
        Standing(phase | streaks)
    }
}

/// How long an ejection lasts: doubling, bounded, and spread so that instances that went away
/// together do not come back together.
fn back_off(ejections: u32, policy: &HealthConfig, jitter: f64) -> Duration {
    let wait = backoff::ceiling(policy.eject_min, policy.eject_max, ejections);
    Jitter::Spread.apply(wait, jitter)
}

pub(super) fn millis(duration: Duration) -> Millis {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A [`Health`] in one word, which a request reads without a lock: 0 is an instance without a
/// fault, as nearly all are nearly always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing(pub(super) u64);

/// What a [`Standing`] means at some time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Share {
    /// All of its share.
    Whole,
    /// A part of it, from 0 to 1: it has just returned.
    Part(f64),
    /// None.
    Ejected,
    /// None, and nothing would come of it: it cannot be connected to.
    Unreachable,
    /// Time has changed what is written here: [`Health::settle`] is to be called.
    Due,
}

/// The part of its share that an instance begins with.
const FIRST_PART: f64 = 0.1;

impl Standing {
    const RETURNING: u64 = 1 << 62;
    const EJECTED: u64 = 2 << 62;
    const UNREACHABLE: u64 = 3 << 62;
    const PHASE: u64 = 3 << 62;
    const FAULTY: u64 = 1 << 61;
    const TROUBLED: u64 = 1 << 60;
    const TIME: u64 = (1 << 60) - 1;

    /// What it means now.
    pub(super) fn share(self, now: Millis, policy: &HealthConfig) -> Share {
        let time = self.0 & Self::TIME;
        match self.0 & Self::PHASE {
            0 => Share::Whole,
            Self::RETURNING => {
                let (age, all) = (now.saturating_sub(time), millis(policy.slow_start));
                if age >= all { Share::Due } else { Share::Part(part(age, all).max(FIRST_PART)) }
            }
            _ if time != Self::TIME && time <= now => Share::Due,
            Self::EJECTED => Share::Ejected,
            _ => Share::Unreachable,
        }
    }

    /// Whether there is nothing to say about it.
    pub(super) fn is_plain(self) -> bool {
        self.0 == 0
    }

    /// Whether a success has something to clear.
    pub(super) fn is_troubled(self) -> bool {
        self.0 & Self::TROUBLED != 0
    }

    /// Whether its last answers were bad.
    pub(super) fn is_faulty(self) -> bool {
        self.0 & Self::FAULTY != 0
    }

    /// Whether it is left alone because nobody is there.
    pub(super) fn is_unreachable(self) -> bool {
        self.0 & Self::PHASE == Self::UNREACHABLE
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
fn part(age: Millis, all: Millis) -> f64 {
    age as f64 / all as f64
}

#[cfg(test)]
mod tests;
