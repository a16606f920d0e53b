//! Sockets: one thread accepts, one runtime per core serves.
//!
//! A connection stays on one worker, the one with the fewest connections when it was accepted, so
//! that requests share nothing between cores but counters and caches.

mod acceptor;
mod activity;
mod connection;
mod exchange;
mod framing;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod phase;
mod socket;
mod watch;
mod workers;

pub use acceptor::{accept, bind};
pub use workers::Workers;
