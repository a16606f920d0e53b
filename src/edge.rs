//! What surrounds every request and knows no tenant: its identifier, its body, the record of what
//! became of it, and the line and the metrics that the record turns into.

mod access_log;
mod cors;
mod observed_body;
mod record;
mod request_id;
mod upload;

pub use access_log::AccessLog;
pub use cors::{Cors, Page};
pub use observed_body::{FailureReason, ObservedBody};
pub use record::{Outcome, Record};
pub use request_id::{REQUEST_ID, RequestId};
pub use upload::{UntilBodyEnds, Upload, WatchUpload};
