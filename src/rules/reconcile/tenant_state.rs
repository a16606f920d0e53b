//! What the leader remembers of a tenant between two reconciles. It saves requests; losing it never
//! makes a reconcile wrong.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::quarantine::Quarantine;
use crate::mimir::ruler::RulerLimits;
use crate::rules::health::memory::Memory;
use crate::rules::status::statuses::{RuleStatus, RuleStatuses};
use crate::store::{AlertRuleRow, RowVersions, SyncRow};

#[derive(Debug, Default)]
pub(crate) struct TenantState {
    /// The statuses as they stand in the table; none before they are read.
    pub(crate) statuses: Option<RuleStatuses>,
    /// The table's version of the statuses when they were last read, and their digest.
    statuses_read: Option<(RowVersions, u64)>,
    /// The limits that Mimir reported, and when.
    reported: Option<(RulerLimits, Instant)>,
    /// The limits that refusals have shown: rules in a group, and groups.
    observed: [Option<ObservedLimit>; 2],
    /// The rows and the listing that agreed when they were last compared.
    pub(crate) in_sync: Option<InSync>,
    pub(crate) quarantine: Quarantine,
    /// How its rules are evaluated.
    pub(crate) memory: Memory,
    /// Rules whose groups are written although they are as they should be.
    pub(crate) written_again: HashSet<Uuid>,
    hasher: RandomState,
}

/// How long reported limits are used before Mimir is asked again.
const REPORTED_LIMITS: Duration = Duration::from_secs(240);

/// A limit that a refusal has shown. It counts besides what Mimir reports, because Mimir does not
/// report the limits of a single namespace, and without a runtime configuration reports none.
#[derive(Clone, Copy, Debug)]
struct ObservedLimit {
    limit: usize,
    /// From then on it may have been raised, and is tried.
    expires: Instant,
}

impl ObservedLimit {
    fn is_certain(&self) -> bool {
        Instant::now() < self.expires
    }
}

const OBSERVED_LIMIT: Duration = Duration::from_secs(3600);

/// Rows and a listing that agree, by their digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InSync {
    pub(crate) rows: u64,
    /// The versions of these rows; none if they are not known.
    pub(crate) versions: Option<RowVersions>,
    pub(crate) listing: [u8; 32],
}

/// What need not be read again if the database has these versions of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KnownVersions {
    pub(crate) rules: Option<RowVersions>,
    pub(crate) statuses: Option<RowVersions>,
}

impl TenantState {
    /// A new state that knows only the limits that an earlier leader wrote down.
    pub(crate) fn from_sync(sync: Option<&SyncRow>) -> Self {
        let mut state = Self::default();
        state.observe_limits(recorded_limits(sync));
        state
    }

    /// The limits that Mimir reported, unless that was too long ago: an operator may have changed them.
    pub(crate) fn reported_limits(&self) -> Option<RulerLimits> {
        self.reported.filter(|(_, at)| at.elapsed() < REPORTED_LIMITS).map(|(limits, _)| limits)
    }

    pub(crate) fn report_limits(&mut self, limits: RulerLimits) {
        self.reported = Some((limits, Instant::now()));
    }

    /// Observed limits that have not expired.
    pub(crate) fn observed_limits(&self) -> RulerLimits {
        self.observed_if(ObservedLimit::is_certain)
    }

    /// Observed limits that have expired, so that they may have been raised.
    pub(crate) fn expired_limits(&self) -> RulerLimits {
        self.observed_if(|observed| !observed.is_certain())
    }

    /// All observed limits, for the next leader.
    pub(crate) fn all_observed_limits(&self) -> RulerLimits {
        self.observed_if(|_| true)
    }

    fn observed_if(&self, counts: impl Fn(&ObservedLimit) -> bool) -> RulerLimits {
        let [rules_per_group, groups] = self.observed.map(|observed| {
            observed.filter(|observed| counts(observed)).map(|observed| observed.limit)
        });
        RulerLimits { rules_per_group, groups }
    }

    /// Mimir refused a group because of these limits.
    pub(crate) fn observe_limits(&mut self, limits: RulerLimits) {
        let expires = Instant::now() + OBSERVED_LIMIT;
        let limits = [limits.rules_per_group, limits.groups];
        for (observed, limit) in self.observed.iter_mut().zip(limits) {
            *observed = limit.map(|limit| ObservedLimit { limit, expires }).or(*observed);
        }
    }

    /// Mimir accepted more than these limits: they are no longer true.
    pub(crate) fn refute_limits(&mut self, limits: RulerLimits) {
        let limits = [limits.rules_per_group, limits.groups];
        for (observed, limit) in self.observed.iter_mut().zip(limits) {
            observed.take_if(|observed| Some(observed.limit) == limit);
        }
    }

    /// A sync was requested, perhaps because limits were raised or Mimir was upgraded: everything that
    /// Mimir refused is tried again.
    pub(crate) fn expire(&mut self) {
        self.reported = None;
        if self.all_observed_limits() != RulerLimits::default() || !self.quarantine.is_empty() {
            self.in_sync = None;
        }
        self.quarantine = Quarantine::default();
        for observed in self.observed.iter_mut().flatten() {
            observed.expires = Instant::now();
        }
    }

    /// Writes the groups of these rules in the next reconcile, even if they are as they should be.
    pub(crate) fn write_again(&mut self, rules: Vec<Uuid>) {
        self.written_again.extend(rules);
        self.in_sync = None;
    }

    /// Statuses are read again before the next reconcile: another organisation may have taken over
    /// rules, and their statuses with them.
    pub(crate) fn forget_statuses(&mut self) {
        (self.statuses, self.statuses_read, self.in_sync) = (None, None, None);
    }

    /// A digest of rows, comparable within this process.
    pub(crate) fn digest_of(&self, rows: &[AlertRuleRow]) -> u64 {
        // Postgres returns rows in any order, so the sum must not depend on it.
        let hashes = rows.iter().map(|row| self.hasher.hash_one(row));
        let sum = hashes.fold(0, u64::wrapping_add);
        self.hasher.hash_one((rows.len(), sum))
    }

    /// Whether these rows and this listing agreed before, and nothing is due to be tried again.
    pub(crate) fn is_in_sync(&self, rows: u64, listing: [u8; 32]) -> bool {
        self.in_sync.is_some_and(|in_sync| in_sync.rows == rows && in_sync.listing == listing)
            && self.quarantine.is_fresh()
    }

    /// The same for rows that have not changed since then.
    pub(crate) fn is_in_sync_with(&self, listing: [u8; 32]) -> bool {
        self.in_sync.is_some_and(|in_sync| self.is_in_sync(in_sync.rows, listing))
    }

    /// Rows of these versions were seen to be in sync.
    pub(crate) fn note_versions(&mut self, versions: Option<RowVersions>) {
        if let (Some(in_sync), Some(_)) = (&mut self.in_sync, versions) {
            in_sync.versions = versions;
        }
    }

    /// Takes over the statuses that were read from the table. If they differ from what was written, another
    /// session changed the table: the tenant is compared in full.
    pub(crate) fn learn_statuses(&mut self, read: RuleStatuses, versions: RowVersions) {
        self.statuses_read = Some((versions, self.digest_of_statuses(&read)));
        if self.statuses.as_ref() != Some(&read) {
            self.statuses = Some(read);
            self.in_sync = None;
        }
    }

    /// What need not be read again: statuses if they are still those that were read, rules if they are in sync.
    pub(crate) fn known_versions(&self) -> KnownVersions {
        let is_as_read = |digest: u64| {
            self.statuses.as_ref().is_some_and(|now| self.digest_of_statuses(now) == digest)
        };
        let statuses = self.statuses_read.filter(|(_, digest)| is_as_read(*digest));
        KnownVersions {
            rules: self.in_sync.and_then(|in_sync| in_sync.versions),
            // If a write was lost, the table is still as it was read, and the statuses are not.
            statuses: statuses.map(|(versions, _)| versions),
        }
    }

    /// A digest of what the versions of statuses are made of.
    fn digest_of_statuses(&self, statuses: &RuleStatuses) -> u64 {
        let hashes = statuses.iter().map(|(rule, status)| {
            let RuleStatus { state, reason, rule_hash, other_hashes, .. } = status;
            let RuleStatus { refused_hash, notifies, evaluated_at: _, .. } = status;
            let state = *state as usize;
            self.hasher.hash_one((
                rule,
                state,
                reason,
                rule_hash,
                other_hashes,
                refused_hash,
                notifies,
            ))
        });
        let sum = hashes.fold(0, u64::wrapping_add);
        self.hasher.hash_one((statuses.len(), sum))
    }

    /// The number of rules that Mimir has, in any version.
    pub(crate) fn in_mimir(&self) -> usize {
        let statuses = self.statuses.iter().flat_map(HashMap::values);
        statuses.filter(|status| status.rule_hash.is_some()).count()
    }
}

/// The limits that refusals have shown, as they are recorded in the database.
pub(crate) fn recorded_limits(sync: Option<&SyncRow>) -> RulerLimits {
    sync.map_or_else(RulerLimits::default, |sync| RulerLimits {
        rules_per_group: sync.shown_rules_per_group,
        groups: sync.shown_groups,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::RuleState;

    fn rules(limit: usize) -> RulerLimits {
        RulerLimits { rules_per_group: Some(limit), groups: None }
    }

    #[tokio::test(start_paused = true)]
    async fn an_observed_limit_counts_until_it_expires_or_is_refuted() {
        let (none, groups) = (RulerLimits::default(), |groups| RulerLimits {
            rules_per_group: None,
            groups: Some(groups),
        });
        let mut state = TenantState::default();
        state.observe_limits(rules(10));
        assert_eq!((state.observed_limits(), state.expired_limits()), (rules(10), none));
        state.observe_limits(groups(3));
        let both = rules(10).within(groups(3));
        assert_eq!(state.observed_limits(), both);
        tokio::time::advance(OBSERVED_LIMIT).await;
        assert_eq!((state.observed_limits(), state.expired_limits()), (none, both));
        assert_eq!(state.all_observed_limits(), both, "the next leader learns it");
        // One of them is observed again; the other one stays expired.
        state.observe_limits(rules(12));
        assert_eq!((state.observed_limits(), state.expired_limits()), (rules(12), groups(3)));
        state.refute_limits(groups(3));
        assert_eq!((state.observed_limits(), state.expired_limits()), (rules(12), none));
        state.expire();
        assert_eq!((state.observed_limits(), state.expired_limits()), (none, rules(12)));
    }

    fn status(state: RuleState) -> RuleStatuses {
        RuleStatuses::from([(Uuid::nil(), RuleStatus::new(state, "", None))])
    }

    #[test]
    fn statuses_are_read_again_unless_they_are_those_that_were_read() {
        let (old, new) = (RowVersions::of(1), RowVersions::of(2));
        let mut state = TenantState::default();
        assert_eq!(state.known_versions().statuses, None);
        state.learn_statuses(status(RuleState::Stored), old);
        assert_eq!(state.known_versions().statuses, Some(old));
        // One was written: the table may have it or not.
        state.statuses = Some(status(RuleState::Error));
        assert_eq!(state.known_versions().statuses, None);
        state.statuses = Some(status(RuleState::Stored));
        state.statuses.as_mut().unwrap().get_mut(&Uuid::nil()).unwrap().evaluated_at =
            Some(time::OffsetDateTime::UNIX_EPOCH);
        assert_eq!(
            state.known_versions().statuses,
            Some(old),
            "the time of an evaluation does not count"
        );
        state.learn_statuses(status(RuleState::Live), new);
        assert_eq!(state.known_versions().statuses, Some(new));
        state.forget_statuses();
        assert_eq!(state.known_versions().statuses, None);
    }

    #[test]
    fn rows_have_known_versions_only_while_they_are_in_sync() {
        let (old, new) = (Some(RowVersions::of(1)), Some(RowVersions::of(2)));
        let mut state = TenantState::default();
        state.note_versions(old);
        assert_eq!(state.known_versions().rules, None, "they are in sync with nothing");
        state.in_sync = Some(InSync { rows: 1, versions: None, listing: [0; 32] });
        state.note_versions(old);
        assert_eq!(state.known_versions().rules, old);
        state.note_versions(None);
        assert_eq!(state.known_versions().rules, old, "older versions only lead to a reading");
        state.note_versions(new);
        assert_eq!(state.known_versions().rules, new);
        assert!(state.is_in_sync_with([0; 32]) && !state.is_in_sync_with([1; 32]));
        state.write_again(vec![Uuid::nil()]);
        assert_eq!(state.known_versions().rules, None);
        assert!(!state.is_in_sync_with([0; 32]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_requested_sync_tries_again_what_was_refused() {
        let in_sync = Some(InSync { rows: 1, versions: None, listing: [0; 32] });
        let mut state = TenantState { in_sync, ..TenantState::default() };
        state.expire();
        assert_eq!(state.in_sync, in_sync, "nothing was refused, so nothing has to be tried");
        state.quarantine.put("hash".to_owned(), "no");
        state.expire();
        assert!(state.in_sync.is_none() && state.quarantine.is_empty());
    }
}
