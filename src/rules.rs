//! Alert rules: rows of the database become rule groups of Mimir's ruler. Here are the decisions,
//! all pure.

pub mod alert_rule;
pub mod desired;
pub mod diff;
pub mod guard;
pub mod promql;
pub mod refusal;
