//! Whether an instance is used: a pure state machine that is fed with evidence.
//!
//! Only an instance's own faults count: a disconnected client, a slow body and a tenant's 4xx never
//! get here (`VictoriaMetrics#10318`, `#11272`), and failures that a request can cause count only
//! together with those of others ([`Evidence`]). Several consecutive failures eject an instance for
//! a time that doubles with each ejection. If instances are probed, an ejected one must also be
//! ready before it returns; then its share grows slowly. An instance that appears among others
//! waits for its first probe in the same way, and is told from an ejected one ([`Share::New`]).

use std::time::Duration;

use super::evidence::{Evidence, Requester};
use crate::backoff::{self, Jitter};
use crate::config::HealthConfig;
use crate::labels::InstanceFault;

/// Milliseconds since the process began to watch instances.
pub(super) type Millis = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probed {
    Ready,
    NotReady,
    Unreachable,
}

/// A change that is logged and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It gets no requests for this long.
    Ejected(InstanceFault, Duration),
    /// It gets requests again.
    Returned,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Good,
    Ejected {
        until: Millis,
        why: InstanceFault,
        /// Whether the last connection attempt succeeded.
        reachable: bool,
        /// Whether a probe has found it ready since.
        vouched: bool,
    },
    Returning {
        since: Millis,
    },
}

/// Consecutive failed probes that eject an instance.
const PROBES: u32 = 2;

/// The state of one instance.
#[derive(Clone, Debug, Default)]
pub(super) struct Health {
    phase: Phase,
    /// Consecutive failures before the head of a response.
    silent: Evidence,
    /// Consecutive failures after the head of a response.
    faulty: Evidence,
    /// Consecutive failed probes.
    unready: u32,
    /// Recent ejections, each of which doubles the next one.
    ejections: u32,
    returned: Millis,
}

impl Health {
    /// A new instance: ejected as [`InstanceFault::New`] until a probe finds it ready.
    pub(super) fn of_newcomer(now: Millis, policy: &HealthConfig) -> Self {
        let phase = if policy.probes() {
            Phase::Ejected { until: now, why: InstanceFault::New, reachable: true, vouched: false }
        } else {
            Phase::Returning { since: now }
        };
        Self { phase, ..Self::default() }
    }

    /// A request of one organisation failed. `shared` says that other instances fail in the same
    /// way, so that a status is no evidence against this one; `jitter` is from 0 to 1.
    pub(super) fn failed(
        &mut self,
        fault: InstanceFault,
        requester: Requester,
        shared: bool,
        now: Millis,
        policy: &HealthConfig,
        jitter: f64,
    ) -> Option<Change> {
        if let Phase::Ejected { reachable, .. } = &mut self.phase {
            // Requests in flight fail, too. All that is new is whether it can be reached.
            *reachable &= fault != InstanceFault::Unreachable;
            return None;
        }
        let streak = match fault {
            InstanceFault::BrokenBody | InstanceFault::ServerError => &mut self.faulty,
            InstanceFault::Unreachable
            | InstanceFault::Timeout
            | InstanceFault::Broken
            | InstanceFault::NotReady
            | InstanceFault::New => &mut self.silent,
        };
        if can_be_provoked(fault) {
            streak.add(requester);
        } else {
            streak.add_certain();
        }
        let enough = streak.suffices(policy.eject_after);
        let excused = shared && fault == InstanceFault::ServerError;
        (enough && !excused).then(|| self.eject(fault, now, policy, jitter))
    }

    fn eject(
        &mut self,
        why: InstanceFault,
        now: Millis,
        policy: &HealthConfig,
        jitter: f64,
    ) -> Change {
        if now.saturating_sub(self.returned) > millis(policy.eject_max) {
            self.ejections = 0;
        }
        let wait = back_off(self.ejections, policy, jitter);
        self.ejections = self.ejections.saturating_add(1);
        self.clear();
        let (until, reachable) = (now + millis(wait), why != InstanceFault::Unreachable);
        self.phase = Phase::Ejected { until, why, reachable, vouched: false };
        Change::Ejected(why, wait)
    }

    /// The head of a response arrived: the instance is reachable.
    pub(super) fn answered(&mut self, now: Millis) -> Option<Change> {
        self.silent.clear();
        match self.phase {
            Phase::Ejected { reachable: false, .. } => Some(self.come_back(now)),
            _ => None,
        }
    }

    /// An exchange succeeded.
    pub(super) fn completed(&mut self) {
        self.silent.clear();
        self.faulty.clear();
    }

    fn clear(&mut self) {
        self.completed();
        self.unready = 0;
    }

    /// A probe ended.
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
                Probed::NotReady => InstanceFault::NotReady,
                Probed::Unreachable => InstanceFault::Unreachable,
            };
            self.unready += 1;
            return (self.unready >= PROBES).then(|| self.eject(why, now, policy, jitter));
        };
        *reachable = found != Probed::Unreachable;
        *vouched = found == Probed::Ready;
        let is_due = *vouched && *until <= now;
        is_due.then(|| self.come_back(now))
    }

    /// Applies changes that depend on time only.
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
    pub(super) fn ejected(&self) -> Option<InstanceFault> {
        match self.phase {
            Phase::Ejected { why, .. } => Some(why),
            Phase::Good | Phase::Returning { .. } => None,
        }
    }

    /// All that a request needs to know, in one word.
    pub(super) fn word(&self, policy: &HealthConfig) -> HealthWord {
        let streaks = if !self.faulty.is_empty() {
            HealthWord::FAULTY | HealthWord::TROUBLED
        } else if !self.silent.is_empty() {
            HealthWord::TROUBLED
        } else {
            0
        };
        let phase = match self.phase {
            Phase::Good => 0,
            Phase::Returning { since } => HealthWord::RETURNING | (since & HealthWord::TIME),
            Phase::Ejected { until, why, reachable, vouched } => {
                let kind = if reachable { HealthWord::EJECTED } else { HealthWord::UNREACHABLE };
                let new = if why == InstanceFault::New { HealthWord::NEW } else { 0 };
                let due = vouched || !policy.probes();
                kind | new | if due { until & HealthWord::TIME } else { HealthWord::TIME }
            }
        };
        HealthWord(phase | streaks)
    }
}

/// Whether a request can cause this failure at every instance.
fn can_be_provoked(fault: InstanceFault) -> bool {
    match fault {
        InstanceFault::Timeout | InstanceFault::BrokenBody | InstanceFault::ServerError => true,
        InstanceFault::Unreachable
        | InstanceFault::Broken
        | InstanceFault::NotReady
        | InstanceFault::New => false,
    }
}

/// The duration of an ejection: doubling, bounded, and jittered, so that instances that failed
/// together do not return together.
fn back_off(ejections: u32, policy: &HealthConfig, jitter: f64) -> Duration {
    let wait = backoff::ceiling(policy.eject_min, policy.eject_max, ejections);
    Jitter::Spread.apply(wait, jitter)
}

pub(super) fn millis(duration: Duration) -> Millis {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A [`Health`] in one word, which a request reads without a lock. 0 is an instance without a
/// fault, as nearly all are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HealthWord(pub(super) u64);

/// What a [`HealthWord`] means at some time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Share {
    /// All of its share.
    Whole,
    /// A part of it, from 0 to 1: it has just returned.
    Part(f64),
    /// None.
    Ejected,
    /// None, and a request would fail: it is unreachable.
    Unreachable,
    /// None: it is new, and no probe has found it ready yet.
    New {
        /// Whether the last connection attempt succeeded, or there was none.
        reachable: bool,
    },
    /// The word is outdated: call [`Health::settle`].
    Due,
}

impl Share {
    /// Whether it gets requests while there are enough instances that do.
    pub(super) fn is_used(self) -> bool {
        matches!(self, Self::Whole | Self::Part(_))
    }

    pub(super) fn is_new(self) -> bool {
        matches!(self, Self::New { .. })
    }
}

/// The part of its share that a returning instance begins with.
const FIRST_PART: f64 = 0.1;

impl HealthWord {
    const RETURNING: u64 = 1 << 62;
    const EJECTED: u64 = 2 << 62;
    const UNREACHABLE: u64 = 3 << 62;
    const PHASE: u64 = 3 << 62;
    const FAULTY: u64 = 1 << 61;
    const TROUBLED: u64 = 1 << 60;
    const NEW: u64 = 1 << 59;
    const TIME: u64 = (1 << 59) - 1;

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
            phase if self.0 & Self::NEW != 0 => Share::New { reachable: phase == Self::EJECTED },
            Self::EJECTED => Share::Ejected,
            _ => Share::Unreachable,
        }
    }

    /// Whether there is no fault.
    pub(super) fn is_plain(self) -> bool {
        self.0 == 0
    }

    /// Whether a success has something to reset.
    pub(super) fn is_troubled(self) -> bool {
        self.0 & Self::TROUBLED != 0
    }

    /// Whether its last responses were failures.
    pub(super) fn is_faulty(self) -> bool {
        self.0 & Self::FAULTY != 0
    }

    /// Whether it is ejected as unreachable.
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
