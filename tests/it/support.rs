//! Fixtures: a proxy with what it needs, and servers that misbehave.

pub(crate) mod failover;
pub(crate) mod fake_mimir;
pub(crate) mod identity;
pub(crate) mod instances;
pub(crate) mod responses;
pub(crate) mod single;
