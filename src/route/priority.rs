//! What comes first.

use strum::{EnumCount, VariantArray};

/// What is served first when not everything can be: a sender's buffer is bounded, and a list can be
/// asked for again.
#[derive(Clone, Copy, Debug, EnumCount, Eq, PartialEq, PartialOrd, Ord, VariantArray)]
pub enum Priority {
    /// Writes, and what is not forwarded at all.
    Write,
    /// Queries, alerts and rules.
    Read,
    /// Labels, series and statistics, which Mimir looks through all series for.
    List,
}

impl Priority {
    /// Every priority, the first first.
    pub const ALL: &[Self] = <Self as VariantArray>::VARIANTS;
}
