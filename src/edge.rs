//! What surrounds every request before anything is known of it: its identifier, its body, and the
//! page that it comes from.

mod client_body;
mod cors;
mod request_id;

pub use client_body::{ClientBody, NextPiece, UntilBodyEnds, WatchBody};
pub use cors::{Cors, Page};
pub use request_id::{REQUEST_ID, RequestId};

/// The most fields of a request's head.
pub const MAX_HEADERS: usize = 100;
