//! What the leader remembers of a tenant between two looks. Losing it costs requests, never
//! correctness.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use tokio::time::Instant;

use super::plan::Quarantine;
use super::statuses::KeptStatuses;
use crate::mimir::ruler::RulerLimits;
use crate::store::AlertRuleRow;

/// One tenant's.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The statuses as they stand in the table; none before they were read.
    pub(super) kept: Option<KeptStatuses>,
    /// The limits that Mimir has told, and when.
    told: Option<(RulerLimits, Instant)>,
    /// Rules in a group, and groups.
    shown: [Option<Shown>; 2],
    /// Rows and listing that were seen to agree.
    pub(super) settled: Option<Settled>,
    /// Rules that Mimir will not take.
    pub(super) quarantine: Quarantine,
    hasher: RandomState,
}

/// How long limits are believed that were told.
const TOLD: Duration = Duration::from_secs(240);

/// A limit that a refusal has shown. It counts besides what Mimir tells: it does not tell those of a
/// single namespace, and without a runtime configuration none.
#[derive(Clone, Copy, Debug)]
struct Shown {
    limit: usize,
    /// From then on it may have been raised.
    doubtful_from: Instant,
}

impl Shown {
    fn is_certain(&self) -> bool {
        Instant::now() < self.doubtful_from
    }
}

const SHOWN: Duration = Duration::from_secs(3600);

/// Rows and a listing that agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) rows: u64,
    pub(super) listing: [u8; 32],
}

impl Memory {
    /// A memory of nothing but the limits that were shown to somebody before.
    pub(super) fn with_shown(limits: RulerLimits) -> Self {
        let mut memory = Self::default();
        memory.learn_shown(limits);
        memory
    }

    /// The limits, if they were told not long ago: an operator may have changed them.
    pub(super) fn told_limits(&self) -> Option<RulerLimits> {
        self.told.filter(|(_, at)| at.elapsed() < TOLD).map(|(limits, _)| limits)
    }

    pub(super) fn learn_told(&mut self, limits: RulerLimits) {
        self.told = Some((limits, Instant::now()));
    }

    /// Limits that a refusal has shown and that are not doubted.
    pub(super) fn shown_limits(&self) -> RulerLimits {
        self.shown_if(Shown::is_certain)
    }

    /// Those that may have been raised since.
    pub(super) fn doubtful_limits(&self) -> RulerLimits {
        self.shown_if(|shown| !shown.is_certain())
    }

    /// All that have been shown, doubted or not, for whoever comes after us.
    pub(super) fn all_shown(&self) -> RulerLimits {
        self.shown_if(|_| true)
    }

    fn shown_if(&self, counts: impl Fn(&Shown) -> bool) -> RulerLimits {
        let [rules_per_group, groups] =
            self.shown.map(|shown| shown.filter(|shown| counts(shown)).map(|shown| shown.limit));
        RulerLimits { rules_per_group, groups }
    }

    /// Mimir has refused what is over one of these.
    pub(super) fn learn_shown(&mut self, limits: RulerLimits) {
        let doubtful_from = Instant::now() + SHOWN;
        for (shown, limit) in self.shown.iter_mut().zip([limits.rules_per_group, limits.groups]) {
            *shown = limit.map(|limit| Shown { limit, doubtful_from }).or(*shown);
        }
    }

    /// Mimir has taken more than these.
    pub(super) fn refute(&mut self, limits: RulerLimits) {
        for (shown, limit) in self.shown.iter_mut().zip([limits.rules_per_group, limits.groups]) {
            shown.take_if(|shown| Some(shown.limit) == limit);
        }
    }

    /// Somebody asks for a sync, perhaps because limits have been raised or Mimir knows more: what it
    /// has refused is tried again.
    pub(super) fn doubt(&mut self) {
        self.told = None;
        if self.all_shown() != RulerLimits::default() || !self.quarantine.is_empty() {
            self.settled = None;
        }
        self.quarantine = Quarantine::default();
        for shown in self.shown.iter_mut().flatten() {
            shown.doubtful_from = Instant::now();
        }
    }

    /// The organisation is gone: its statuses may be somebody else's when it comes back.
    pub(super) fn forget_rows(&mut self) {
        (self.kept, self.settled) = (None, None);
    }

    /// A digest of rows, good within this process.
    pub(super) fn digest_of(&self, rows: &[AlertRuleRow]) -> u64 {
        // The order of rows is the database's and says nothing.
        let hashes = rows.iter().map(|row| self.hasher.hash_one(row));
        let sum = hashes.fold(0, u64::wrapping_add);
        self.hasher.hash_one((rows.len(), sum))
    }

    /// Whether these rows and this listing were seen to agree, and nothing waits to be tried again.
    pub(super) fn is_settled(&self, rows: u64, listing: [u8; 32]) -> bool {
        self.settled == Some(Settled { rows, listing }) && self.quarantine.is_fresh()
    }

    /// How many rules are live.
    pub(super) fn live(&self) -> usize {
        let kept = self.kept.iter().flat_map(HashMap::values);
        kept.filter(|status| status.live_hash.is_some()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(limit: usize) -> RulerLimits {
        RulerLimits { rules_per_group: Some(limit), groups: None }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_refusal_has_shown_counts_until_it_is_doubted_or_refuted() {
        let (none, groups) = (RulerLimits::default(), |groups| RulerLimits {
            rules_per_group: None,
            groups: Some(groups),
        });
        let mut memory = Memory::with_shown(rules(10));
        assert_eq!((memory.shown_limits(), memory.doubtful_limits()), (rules(10), none));
        memory.learn_shown(groups(3));
        let both = rules(10).within(groups(3));
        assert_eq!(memory.shown_limits(), both);
        tokio::time::advance(SHOWN).await;
        assert_eq!((memory.shown_limits(), memory.doubtful_limits()), (none, both));
        assert_eq!(memory.all_shown(), both, "whoever comes after us hears of it");
        // One of them still holds; the other is still doubted.
        memory.learn_shown(rules(12));
        assert_eq!((memory.shown_limits(), memory.doubtful_limits()), (rules(12), groups(3)));
        memory.refute(groups(3));
        assert_eq!((memory.shown_limits(), memory.doubtful_limits()), (rules(12), none));
        memory.doubt();
        assert_eq!((memory.shown_limits(), memory.doubtful_limits()), (none, rules(12)));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_has_what_was_refused_tried_again() {
        let settled = Some(Settled { rows: 1, listing: [0; 32] });
        let mut memory = Memory { settled, ..Memory::default() };
        memory.doubt();
        assert_eq!(memory.settled, settled, "where nothing was refused a look is a look");
        memory.quarantine.put("hash".to_owned(), "no");
        memory.doubt();
        assert!(memory.settled.is_none() && memory.quarantine.is_empty());
    }
}
