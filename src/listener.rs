//! Sockets: one thread accepts, a runtime per core serves.
//!
//! A connection stays on the worker that it was given to, the one with the fewest at that time,
//! so nothing on a request's way is shared between cores but counters and caches.

mod acceptor;
mod activity;
mod connection;
mod exchange;
mod framing;
mod phase;
mod socket;
mod watch;
mod workers;

pub use acceptor::{accept, bind};
pub use workers::Workers;
