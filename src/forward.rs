//! A [`Permit`](crate::limits::Permit) and a request -> Mimir's response. Nothing else in the crate
//! talks to Mimir on behalf of a client, and nothing here can be called without a permit.
//!
//! Both bodies stream, piece by piece, with backpressure: what one side does not take the other
//! is not asked for. Each worker has a [`Forwarder`] of its own with connections of its own; what
//! is known of instances ([`Instances`]) is shared by all.

mod body;
mod budget;
mod choice;
mod consul;
mod discovery;
mod exchange;
mod failure;
mod headers;
mod health;
mod instance;
mod instances;
mod journey;
mod pool;
mod probe;
mod repeat;
mod replay;
mod request_body;
mod verdict;

pub use body::ResponseBody;
pub use consul::read_catalogue;
pub use discovery::{resolve, resolve_forever};
pub use exchange::{Forwarded, Forwarder};
pub use failure::{BodyFault, Failure, StreamFailure};
pub use instances::{InstanceState, Instances};
pub use request_body::{BodyLimits, RequestBody};

/// Why instances are left alone, for the metrics.
pub const EJECTION_REASONS: [&str; 7] = health::Evidence::NAMES;
/// What is done with requests that failed, for the metrics.
pub const RETRY_REASONS: [&str; 4] = journey::RETRIES;
/// Why nothing is done, for the metrics.
pub const RETRY_REFUSALS: [&str; 4] = journey::REFUSALS;
