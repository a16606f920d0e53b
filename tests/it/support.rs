//! What the chapters stand on: a proxy with what it needs, and servers that misbehave.

/// A proxy before instances that fail.
pub(crate) mod failover;
/// An instance of Mimir that can be broken and stopped.
pub(crate) mod fake_mimir;
/// A proxy with a database: organisations, users, devices.
pub(crate) mod identity;
/// A proxy before several instances, under load.
pub(crate) mod instances;
/// Responses for upstreams that only have to say something.
pub(crate) mod responses;
/// A proxy before one upstream of the test's own.
pub(crate) mod single;
