//! The sockets of the data path: the kernel's, or with the feature `simulation` those of a test
//! (`tests/simulation`), which has a network of its own and decides what becomes of every byte.
//!
//! Whatever the data path asks of a socket beside reading and writing stands here, so that nothing else
//! knows which of the two it has. Without the feature, all of it is the kernel's at no cost.

#[cfg(not(feature = "simulation"))]
mod kernel;
#[cfg(feature = "simulation")]
pub mod simulated;

#[cfg(not(feature = "simulation"))]
pub use kernel::{Detached, TcpListener, TcpStream};
#[cfg(not(feature = "simulation"))]
pub(crate) use kernel::{keep_alive, limit_unsent, peek, shut_down, time_out_unacknowledged};
#[cfg(feature = "simulation")]
pub use simulated::{Detached, TcpListener, TcpStream};
#[cfg(feature = "simulation")]
pub(crate) use simulated::{keep_alive, limit_unsent, peek, shut_down, time_out_unacknowledged};
