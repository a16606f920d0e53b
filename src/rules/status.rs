//! What became of each rule and of each sync, and how it gets into the database.

pub(crate) mod outcome;
pub(crate) mod statuses;
pub(crate) mod writer;
