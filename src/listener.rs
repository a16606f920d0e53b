//! Sockets: one thread accepts, one runtime per core serves.
//!
//! A connection stays on one worker while it is busy, so that requests share nothing between cores but
//! counters and caches. One without a request is little more than its socket, and may be served by
//! another worker when it wakes.

mod acceptor;
mod activity;
mod connection;
mod eviction;
mod exchange;
mod framing;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod handshakes;
mod inherited;
mod linger;
mod load;
mod outbox;
mod phase;
mod proxy_header;
mod resting;
mod socket;
mod tls;
mod watch;
mod workers;

pub use acceptor::{PublicSocket, accept, listen};
pub use inherited::Inherited;
pub use workers::Workers;
