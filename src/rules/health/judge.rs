//! From what the rulers say to the status of each rule. Pure.
//!
//! Times of evaluations are compared with the time at which Mimir answered, by its own clock: none was later. Waits
//! are measured by ours.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use super::memory::{KnownVersion, Memory, Remembered};
use super::words;
use crate::labels::RuleState;
use crate::mimir::ruler::{PromDuration, RuleHealth};
use crate::rules::status::statuses::{NOT_YET, RuleStatus, RuleStatuses};

/// What one reading of a tenant's evaluation showed.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// When Mimir answered, by its clock.
    pub(crate) at: OffsetDateTime,
    pub(crate) is_switched_off: bool,
    /// What is loaded, by the row that it names. During a move one rule may be in two groups.
    pub(crate) rules: HashMap<Uuid, Vec<SeenRule>>,
}

/// A rule that a ruler has loaded.
#[derive(Clone, Debug)]
pub(crate) struct SeenRule {
    pub(crate) interval: PromDuration,
    /// How long the last evaluation of its group took.
    pub(crate) took: PromDuration,
    /// The digest of what is shown.
    pub(crate) shown: String,
    pub(crate) version: Version,
    /// Those that each alert has with this value, `alertname` included. An empty one it does not have.
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) health: RuleHealth,
    pub(crate) last_error: String,
    pub(crate) last_evaluation: Option<OffsetDateTime>,
}

/// Which version of a rule is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// The one with this hash.
    Is(String),
    /// Another one than Mimir was given last.
    Other,
    /// It could not be found out this time.
    Unclear,
}

/// The result of a reading.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) statuses: RuleStatuses,
    /// Rules whose groups are to be written again, because no ruler has loaded them.
    pub(crate) write_again: Vec<Uuid>,
    /// Some rule waits for its first evaluation.
    pub(crate) is_waiting: bool,
}

/// Missed evaluations after which a rule counts as late.
const LATE_INTERVALS: u32 = 3;
/// Added to that: rulers learn of a change within 20 seconds by default.
const GRACE: Duration = Duration::from_secs(30);
/// While nothing else changes, the time of an evaluation is written this often: every rule is evaluated every
/// minute, and each write of a status is sent to every page that watches it.
const REFRESH: Duration = Duration::from_secs(600);
/// How long a group that did not help is left alone.
const WRITE_AGAIN: Duration = Duration::from_secs(3600);
/// A tenant's evaluation is unknown after this long without a reading, if enough attempts failed
/// ([`UNREAD_ATTEMPTS`]).
const UNREAD: Duration = Duration::from_secs(300);
/// A tenant's evaluation is unknown after at least this many failed attempts, if they took long enough
/// ([`UNREAD`]).
const UNREAD_ATTEMPTS: u32 = 3;

/// Judges each rule that Mimir has. `reach` says whether labels reach a channel.
pub(crate) fn judge(
    known: &RuleStatuses,
    memory: &mut Memory,
    seen: &Seen,
    now: Instant,
    reach: &dyn Fn(&BTreeMap<String, String>) -> Option<bool>,
) -> Judged {
    (memory.read_at, memory.failures) = (Some(now), 0);
    let mut judged = Judged { statuses: known.clone(), write_again: Vec::new(), is_waiting: false };
    for (rule, status) in &mut judged.statuses {
        let Some(hash) = status.rule_hash.clone().filter(|_| status.state.is_in_mimir()) else {
            continue;
        };
        let remembered = memory.rules.entry(*rule).or_default();
        remembered.begin(status, &hash, seen.at);
        let loaded = seen.rules.get(rule).map_or(&[][..], Vec::as_slice);
        let judge = Judge { status, remembered, seen, now };
        let (verdict, notifies) = judge.of(&hash, loaded, reach);
        let Verdict { state, reason, is_late_to_load } = verdict;
        if is_late_to_load
            && remembered.written_again.is_none_or(|at| now.duration_since(at) >= WRITE_AGAIN)
        {
            remembered.written_again = Some(now);
            judged.write_again.push(*rule);
        }
        judged.is_waiting |= state == RuleState::Stored || is_late_to_load;
        let is_same = (state, reason.as_str()) == (status.state, status.reason.as_str());
        // A later time was written while a clock was ahead.
        let is_fresh = |at: OffsetDateTime| {
            remembered.evaluated_at.is_none_or(|exact| at <= exact && exact - at < REFRESH)
        };
        if !is_same || !status.evaluated_at.is_some_and(is_fresh) {
            status.evaluated_at = remembered.evaluated_at.map(whole_seconds);
        }
        (status.state, status.reason) = (state, reason);
        status.notifies = notifies;
    }
    judged
}

/// A reading failed. After a while it is unknown whether any rule is evaluated.
pub(crate) fn unread(
    known: &RuleStatuses,
    memory: &mut Memory,
    now: Instant,
) -> Option<RuleStatuses> {
    let read_at = *memory.read_at.get_or_insert(now);
    memory.failures = memory.failures.saturating_add(1);
    if memory.failures < UNREAD_ATTEMPTS || now.duration_since(read_at) < UNREAD {
        return None;
    }
    let mut statuses = known.clone();
    for status in statuses.values_mut().filter(|status| status.state.is_in_mimir()) {
        (status.state, status.reason) = (RuleState::Stored, words::UNKNOWN.to_owned());
    }
    Some(statuses)
}

struct Judge<'a> {
    status: &'a RuleStatus,
    remembered: &'a mut Remembered,
    seen: &'a Seen,
    now: Instant,
}

struct Verdict {
    state: RuleState,
    reason: String,
    /// It should have been loaded by now.
    is_late_to_load: bool,
}

impl Remembered {
    /// What was remembered of another version counts no more. `at` is the present time, by Mimir's clock: what was
    /// evaluated was so by then, whatever the clock was before.
    fn begin(&mut self, status: &RuleStatus, hash: &str, at: OffsetDateTime) {
        if self.known.as_ref().is_some_and(|known| known.hash != hash) {
            (self.known, self.evaluated_at, self.ahead) = (None, None, None);
        }
        if self.waiting.as_ref().is_some_and(|(waiting, _)| waiting != hash) {
            (self.waiting, self.written_again) = (None, None);
        }
        let known = self.evaluated_at.max(status.evaluated_at);
        self.evaluated_at = known.map(|known| known.min(at));
    }

    /// A ruler names the time of its last evaluation. If its clock is ahead, that was just now. It counts once,
    /// however often it is shown: otherwise a rule that is not evaluated any more would be live until that time.
    fn note_evaluation(&mut self, last: Option<OffsetDateTime>, at: OffsetDateTime) {
        let ahead = last.filter(|last| *last > at);
        let is_known = ahead.is_some() && ahead == self.ahead;
        self.ahead = ahead;
        if !is_known {
            self.evaluated_at = self.evaluated_at.max(last.map(|last| last.min(at)));
        }
    }
}

impl Judge<'_> {
    /// The verdict, and whether the rule's alerts reach a channel: as before, where no ruler has loaded it.
    fn of(
        mut self,
        hash: &str,
        loaded: &[SeenRule],
        reach: &dyn Fn(&BTreeMap<String, String>) -> Option<bool>,
    ) -> (Verdict, Option<bool>) {
        let before = self.status.notifies;
        if self.seen.is_switched_off {
            self.remembered.waiting = None;
            return (failing(words::SWITCHED_OFF), before);
        }
        let is_current = |rule: &&SeenRule| rule.version == Version::Is(hash.to_owned());
        let Some(rule) = loaded.iter().find(is_current) else {
            if loaded.iter().any(|rule| rule.version == Version::Unclear) {
                return (stored(NOT_YET), before);
            }
            return (self.not_loaded(hash, !loaded.is_empty()), before);
        };
        self.remembered.interval = rule.interval;
        let shown = rule.shown.clone();
        self.remembered.known = Some(KnownVersion { hash: hash.to_owned(), shown });
        self.remembered.note_evaluation(rule.last_evaluation, self.seen.at);
        let notifies = reach(&rule.labels);
        (self.loaded(hash, rule, notifies), notifies)
    }

    fn loaded(&mut self, hash: &str, rule: &SeenRule, notifies: Option<bool>) -> Verdict {
        if rule.health == RuleHealth::Bad {
            self.remembered.waiting = None;
            return failing(words::failed(&rule.last_error));
        }
        let Some(at) = self.remembered.evaluated_at else {
            // A new version is evaluated within its interval.
            let is_late = self.has_waited(hash);
            let text = || words::loaded_only(rule.interval);
            return if is_late { failing(text()) } else { stored(NOT_YET) };
        };
        self.remembered.waiting = None;
        if self.is_late(at, rule.took) {
            return failing(words::not_since(at, rule.interval));
        }
        // A ruler that has just loaded it knows nothing of its last evaluation.
        if rule.health == RuleHealth::Unknown && self.status.state != RuleState::Live {
            return stored(NOT_YET);
        }
        live(notifies)
    }

    /// No ruler has loaded this version.
    fn not_loaded(&mut self, hash: &str, is_other_loaded: bool) -> Verdict {
        if let Some(at) = self.remembered.evaluated_at {
            if self.is_late(at, PromDuration::ZERO) {
                let text = words::not_since(at, self.remembered.interval);
                return Verdict { is_late_to_load: true, ..failing(text) };
            }
            // Another ruler takes over, or it restarts.
            return match self.status.state {
                RuleState::Live | RuleState::Failing => {
                    let (state, reason) = (self.status.state, self.status.reason.clone());
                    Verdict { state, reason, is_late_to_load: false }
                }
                _ => stored(NOT_YET),
            };
        }
        let is_late = self.has_waited(hash);
        match (is_late, is_other_loaded) {
            (false, false) => stored(NOT_YET),
            (false, true) => stored(words::EARLIER_VERSION),
            (true, false) => Verdict { is_late_to_load: true, ..failing(words::NEVER_LOADED) },
            (true, true) => {
                Verdict { is_late_to_load: true, ..failing(words::NEVER_LOADED_VERSION) }
            }
        }
    }

    /// Whether this version has waited for its first evaluation for too long. Counts from the first reading.
    fn has_waited(&mut self, hash: &str) -> bool {
        let (_, since) = self.remembered.waiting.get_or_insert((hash.to_owned(), self.now));
        self.now.duration_since(*since) > allowance(self.remembered.interval)
    }

    fn is_late(&self, evaluated_at: OffsetDateTime, took: PromDuration) -> bool {
        // A group that takes longer than its interval skips evaluations.
        let took = Duration::from_millis(took.as_millis()) * 2;
        self.seen.at - evaluated_at > allowance(self.remembered.interval).saturating_add(took)
    }
}

fn allowance(interval: PromDuration) -> Duration {
    Duration::from_millis(interval.as_millis()).saturating_mul(LATE_INTERVALS) + GRACE
}

fn whole_seconds(time: OffsetDateTime) -> OffsetDateTime {
    time.replace_nanosecond(0).unwrap_or(time)
}

fn stored(reason: &str) -> Verdict {
    let (state, reason) = (RuleState::Stored, reason.to_owned());
    Verdict { state, reason, is_late_to_load: false }
}

fn failing(reason: impl Into<String>) -> Verdict {
    let (state, reason) = (RuleState::Failing, reason.into());
    Verdict { state, reason, is_late_to_load: false }
}

fn live(notifies: Option<bool>) -> Verdict {
    let reason = if notifies == Some(false) { words::NOTIFIES_NOBODY } else { "" };
    let (state, reason) = (RuleState::Live, reason.to_owned());
    Verdict { state, reason, is_late_to_load: false }
}

#[cfg(test)]
mod tests;
