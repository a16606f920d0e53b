//! The deletion guard of one tenant: decides whether a deletion of rules is believable.
//!
//! A deleted row and a failed reading look alike: an empty table, the wrong database, a query that
//! returns half of its rows. So the rules that would be deleted are counted first. If they are many, or
//! the database has no record of their deletion, the deletion is held until an administrator confirms it.

use std::cmp::Ordering;
use std::fmt;

use crate::config::GuardConfig;

/// What Mimir would lose of one tenant, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// Rules in our namespace now.
    pub observed: usize,
    /// Rules that stay.
    pub remaining: usize,
    /// Rules that the database explains: deleted with a tombstone, disabled, or invalid.
    pub explained: usize,
    /// Live rules whose row is gone without a tombstone.
    pub missing: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    Pass,
    Hold(HoldReason),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HoldReason {
    /// Rows of a tenant are gone without tombstones.
    Missing { unexplained: usize, observed: usize },
    /// A large part of one tenant's rules would be deleted.
    Tenant { vanished: usize, observed: usize },
    /// A large part of all tenants' rules would be deleted.
    Overall { vanished: usize, observed: usize },
    /// No tenant would have any rule left, without tombstones.
    Everything { observed: usize },
}

impl Removal {
    pub fn vanished(&self) -> usize {
        self.observed.saturating_sub(self.remaining)
    }

    /// Whether it is an everyday change: fully explained, and a single rule or less than the share that
    /// the tenant's guard looks for.
    pub fn is_small(&self, config: &GuardConfig) -> bool {
        let vanished = self.vanished();
        let is_part = precise(vanished) < precise(self.observed) * config.tenant_share;
        self.unexplained() == 0 && (vanished <= 1 || is_part)
    }

    /// The number of rules that would be deleted without an explanation.
    pub fn unexplained(&self) -> usize {
        self.missing.max(self.vanished().saturating_sub(self.explained))
    }
}

/// Judges one tenant by itself.
pub fn judge(removal: &Removal, config: &GuardConfig) -> Verdict {
    let Removal { observed, .. } = *removal;
    let (vanished, unexplained) = (removal.vanished(), removal.unexplained());
    if is_much(unexplained, observed, config.missing_count, config.missing_share) {
        return Verdict::Hold(HoldReason::Missing { unexplained, observed });
    }
    if is_much(vanished, observed, config.tenant_count, config.tenant_share) {
        return Verdict::Hold(HoldReason::Tenant { vanished, observed });
    }
    Verdict::Pass
}

/// Judges all tenants together: a fault that takes a little from each shows only here.
pub fn judge_overall(removals: &[Removal], config: &GuardConfig) -> Verdict {
    let sum =
        |count: fn(&Removal) -> usize| removals.iter().map(count).fold(0, usize::saturating_add);
    let observed = sum(|removal| removal.observed);
    if observed > 0 && sum(|removal| removal.unexplained().min(removal.observed)) == observed {
        return Verdict::Hold(HoldReason::Everything { observed });
    }
    // Rows that were replaced by as many others are gone all the same.
    let vanished = sum(|removal| removal.vanished().max(removal.unexplained()));
    if is_much(vanished, observed, config.overall_count, config.overall_share) {
        return Verdict::Hold(HoldReason::Overall { vanished, observed });
    }
    Verdict::Pass
}

/// Whether both the count and the share are reached. A share that is NaN counts as reached: the guard
/// errs on the side of holding.
pub(crate) fn is_much(gone: usize, observed: usize, count: usize, share: f64) -> bool {
    if gone == 0 || observed == 0 {
        return false;
    }
    let reached = |part: f64| part.partial_cmp(&share) != Some(Ordering::Less);
    gone >= count && reached(precise(gone) / precise(observed))
}

#[expect(clippy::cast_precision_loss, reason = "rules are far fewer than 2^53")]
fn precise(count: usize) -> f64 {
    count as f64
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { unexplained, observed } => write!(
                f,
                "{unexplained} of {observed} rules would be deleted, and the database has no record of their deletion"
            ),
            Self::Tenant { vanished, observed } => {
                write!(f, "{vanished} of {observed} rules would be deleted at once")
            }
            Self::Overall { vanished, observed } => {
                write!(
                    f,
                    "{vanished} of the {observed} rules of all organisations would be deleted at once"
                )
            }
            Self::Everything { observed } => write!(
                f,
                "all {observed} rules of all organisations would be deleted, and the database has no record of their deletion"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
