//! A [`Permit`](crate::limits::Permit) and a request -> Mimir's response. Nothing else in the crate
//! talks to Mimir on behalf of a client, and nothing here can be called without a permit.
//!
//! Both bodies stream, piece by piece, with backpressure: what one side does not take the other
//! is not asked for. Each worker has a [`Forwarder`] of its own with connections of its own; what
//! is known of instances ([`Instances`]) is shared by all.
//!
//! Top to bottom: [`forwarder`] -> [`attempts`] (which instance, and what when one fails) ->
//! [`exchange`] (one request on one connection) -> [`pool`]. The decisions are pure: [`choice`],
//! [`verdict`], [`health`], [`evidence`], [`repeat`], [`budget`]. Beside the requests,
//! [`discovery`] finds instances and [`probe`] asks them whether they are ready.

mod attempts;
mod body;
mod budget;
mod choice;
mod consul;
mod discovery;
mod error;
mod evidence;
mod exchange;
mod forwarder;
mod guarded_io;
mod headers;
mod health;
mod instance;
mod instances;
mod lookup;
mod pool;
mod probe;
mod repeat;
mod verdict;

pub use body::ResponseBody;
pub use consul::read_catalogue;
pub use discovery::{resolve, resolve_forever};
pub use error::{ForwardError, StreamError};
pub use forwarder::{Forwarded, Forwarder};
pub use instances::{InstanceState, Instances};
