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
    /// The limits that Mimir has told or shown, and when.
    limits: Option<(RulerLimits, Instant)>,
    /// Rows and listing that were seen to agree.
    pub(super) settled: Option<Settled>,
    /// Rules that Mimir will not take.
    pub(super) quarantine: Quarantine,
    hasher: RandomState,
}

/// How long limits are believed.
const LIMITS: Duration = Duration::from_secs(240);

/// Rows and a listing that agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) rows: u64,
    pub(super) listing: [u8; 32],
}

impl Memory {
    /// The limits, if they were told not long ago: an operator may have changed them.
    pub(super) fn known_limits(&self) -> Option<RulerLimits> {
        self.limits.filter(|(_, at)| at.elapsed() < LIMITS).map(|(limits, _)| limits)
    }

    pub(super) fn forget_limits(&mut self) {
        self.limits = None;
    }

    pub(super) fn learn_limits(&mut self, limits: RulerLimits) {
        self.limits = Some((limits, Instant::now()));
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
