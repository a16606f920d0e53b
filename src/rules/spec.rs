//! From a row of `alert_rule` to a rule, without Mimir: what is wrong with a row is found here as far
//! as that is possible, and named for its author.

pub mod alert_rule;
pub mod promql;
pub mod refusal;
pub mod rows;
pub mod template;
