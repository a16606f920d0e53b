//! Mimir's ruler: the wire format of rule groups, and the client that reads and writes the groups
//! of one tenant.
//!
//! Each call of [`RulerClient`] is one exchange without retries: a [`RulerError`] says what may
//! help, [`next_delay`] how long to wait. *No rules* and *rules that could not be read* are never
//! confused: only a complete, well-formed answer means that there are no rules, and deletions rely
//! on it.
//!
//! Groups that we write have one exact form ([`write_group`]). Others may have written the groups
//! that Mimir has, so reading is tolerant ([`RawListing`]): what we do not know is marked, never
//! dropped.

mod client;
mod error;
mod evaluation;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod limits;
mod line_breaks;
mod listing;
mod model;
mod node;
mod path;
mod quoting;
mod refusal;
mod tenant_splitter;
mod write;

#[cfg(test)]
mod tests;

pub use super::retry::{MAX_DELAY, next_delay};
pub use crate::prom_duration::PromDuration;
pub use client::{Deleted, RulerClient};
pub use error::RulerError;
pub use evaluation::{EvaluatedGroup, EvaluatedRule, Evaluation, RuleHealth};
pub use limits::RulerLimits;
pub use listing::{Listed, RawListing};
pub use model::{AlertingRule, RuleGroup, StoredGroup, StoredRule};
pub use path::{MAX_NAME_BYTES, is_addressable};
pub use refusal::{GroupRefusal, read_refusal};
pub use write::write_group;
