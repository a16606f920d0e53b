//! Mimir's ruler: what a rule group is on the wire, and the client that reads and writes groups of
//! one tenant.

mod duration;
mod model;

pub use duration::PromDuration;
pub use model::{AlertingRule, RuleGroup, StoredGroup, StoredRule};
