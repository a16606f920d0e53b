//! All tenants: which one is reconciled when, and what may be deleted from all of them together.

pub(crate) mod full_resync;
mod health;
pub(crate) mod job;
pub(crate) mod queue;
pub(crate) mod reader;
mod records;
pub(crate) mod requests;
pub(crate) mod scheduler;
pub(crate) mod triggers;
