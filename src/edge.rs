//! What surrounds every request and knows no tenant: its identifier, the record of what became of
//! it, and the line and the metrics that the record turns into.

mod access_log;
mod lingering;
mod observed_body;
mod record;
mod request_id;

pub use access_log::AccessLog;
pub use lingering::{UntilBodyEnds, take_the_rest};
pub use observed_body::{FailureReason, ObservedBody};
pub use record::{Outcome, Record};
pub use request_id::{REQUEST_ID, RequestId};
