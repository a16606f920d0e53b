//! Who may write: the leader, and the lease that every write asks for.
//!
//! One copy of the proxy writes to Mimir at a time ([`leader`]). It writes only while it holds its lease
//! ([`lease`]). Whatever only the leader may do is a [`LeaderTask`].

pub(crate) mod leader;
pub(crate) mod lease;
#[cfg(test)]
mod tests;

use futures_util::future::BoxFuture;

pub use lease::Lease;

/// Work that the leader does beside the sync of alert rules.
pub trait LeaderTask: Send + Sync {
    /// Runs for one leadership. It is dropped when the lease ends, at any await point; a write that must not
    /// outlive the lease goes through [`Lease::during`].
    fn run(&self, lease: Lease) -> BoxFuture<'_, ()>;
}
