//! Now: a [`Grant`](crate::authz::Grant) and a request -> Mimir's response. Nothing else in the crate talks to Mimir
//! on behalf of a client, and nothing here can be called without a grant.
//!
//! Both bodies stream, piece by piece, with backpressure: what one side does not take the other
//! is not asked for. Each worker has a [`Forwarder`] of its own with connections of its own.

mod body;
mod exchange;
mod failure;
mod headers;
mod instances;
mod pool;
mod request_body;

pub use body::ResponseBody;
pub use exchange::{Forwarded, Forwarder};
pub use failure::{BodyFault, Failure, StreamFailure};
pub use instances::{Instances, resolve_forever};
pub use request_body::{BodyLimits, RequestBody};
