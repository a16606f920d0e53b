//! Mimir's ruler: what a rule group is on the wire, and the client that reads and writes groups of
//! one tenant.
//!
//! [`RulerClient`] does one exchange a call and retries nothing: a [`RulerError`] says what may help,
//! [`next_delay`] how long to wait. Two readings are kept apart with care: *no rules* and *rules that
//! could not be read*. Only a whole, well-formed answer is ever the first; deletions
//! may rely on it.
//!
//! What we write, we write exactly ([`write_group`]); what Mimir has, others may have written, so it
//! is read with tolerance ([`RawListing`]): what we do not understand is marked, never dropped.

mod client;
mod error;
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
pub use client::{Deleted, RulerClient, RulerConfig};
pub use error::RulerError;
pub use limits::RulerLimits;
pub use listing::{Listed, RawListing};
pub use model::{AlertingRule, RuleGroup, StoredGroup, StoredRule};
pub use path::{MAX_NAME_BYTES, is_addressable};
pub use refusal::{GroupRefusal, read_refusal};
pub use write::write_group;
