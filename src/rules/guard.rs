//! Whether a deletion of rules is believable.
//!
//! A row that is gone and a read that went wrong look alike: an empty table, a wrong database, a
//! query that lost its half. So what would vanish from Mimir is counted first; where it is much, or
//! nothing in the database tells of its deletion, it is held until somebody confirms it.

use std::cmp::Ordering;
use std::fmt;

use crate::config::GuardConfig;

/// What would vanish from Mimir for one tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// Rules that are in our namespace now.
    pub observed: usize,
    /// Rules that stay or are new.
    pub remaining: usize,
    /// Rules that the database says were deleted, disabled or refused.
    pub explained: usize,
    /// Live rules whose row is not there any more, with no trace of a deletion.
    pub missing: usize,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// Go on.
    Pass,
    /// Delete nothing until it is confirmed.
    Hold(HoldReason),
}

/// Why not, with the numbers that say it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HoldReason {
    /// Rows of a tenant are gone, and nothing says that they were deleted.
    Missing {
        /// So many.
        unexplained: usize,
        /// Of so many that Mimir has.
        observed: usize,
    },
    /// A large part of a tenant's rules would vanish.
    Tenant {
        /// So many.
        vanished: usize,
        /// Of so many that Mimir has.
        observed: usize,
    },
    /// A large part of all tenants' rules would vanish.
    Overall {
        /// So many.
        vanished: usize,
        /// Of so many that Mimir has.
        observed: usize,
    },
    /// Nothing would be left of any tenant's rules, and nothing says that they were deleted.
    Everything {
        /// So many.
        observed: usize,
    },
}

impl Removal {
    /// By how many rules there would be less.
    pub fn vanished(&self) -> usize {
        self.observed.saturating_sub(self.remaining)
    }

    /// Whether it is what somebody does every day: all of it is explained, and it is a single rule or
    /// less than the share of the tenant's that is watched for.
    pub fn is_small(&self, config: &GuardConfig) -> bool {
        let vanished = self.vanished();
        let is_part = precise(vanished) < precise(self.observed) * config.tenant_share;
        self.unexplained() == 0 && (vanished <= 1 || is_part)
    }

    /// How many would vanish without the database saying so.
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

/// Judges all tenants of one pass together: a fault that takes little from each is seen only here.
pub fn judge_overall(removals: &[Removal], config: &GuardConfig) -> Verdict {
    let sum =
        |count: fn(&Removal) -> usize| removals.iter().map(count).fold(0, usize::saturating_add);
    let observed = sum(|removal| removal.observed);
    if observed > 0 && sum(|removal| removal.unexplained().min(removal.observed)) == observed {
        return Verdict::Hold(HoldReason::Everything { observed });
    }
    // Rows that were swapped for as many others are gone all the same.
    let vanished = sum(|removal| removal.vanished().max(removal.unexplained()));
    if is_much(vanished, observed, config.overall_count, config.overall_share) {
        return Verdict::Hold(HoldReason::Overall { vanished, observed });
    }
    Verdict::Pass
}

/// Whether both the count and the share are reached. A share that is no number is always reached: a
/// guard errs by holding.
fn is_much(gone: usize, observed: usize, count: usize, share: f64) -> bool {
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
                "{unexplained} of {observed} rules would vanish, and nothing in the database says that they were deleted"
            ),
            Self::Tenant { vanished, observed } => {
                write!(f, "{vanished} of {observed} rules would vanish at once")
            }
            Self::Overall { vanished, observed } => {
                write!(
                    f,
                    "{vanished} of the {observed} rules of all organisations would vanish at once"
                )
            }
            Self::Everything { observed } => write!(
                f,
                "all {observed} rules of all organisations would vanish, and nothing in the database says that they were deleted"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
