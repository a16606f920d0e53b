//! Makes Mimir's response from a [`Permit`](crate::limits::Permit) and a request. Nothing else in
//! the crate sends clients' requests to Mimir, and nothing here can be called without a permit.
//!
//! Both bodies stream with backpressure: a piece is read only when the other side can take it. Each
//! worker has a [`Forwarder`] and connections of its own; the state of instances ([`Instances`]) is
//! shared.
//!
//! From top to bottom: [`forwarder`], [`attempts`] (which instance, and what to do when one fails),
//! [`exchange`] (one request on one connection), [`pool`], [`wire`] (HTTP/1.1). The decisions are pure: [`choice`],
//! [`verdict`], [`health`], [`evidence`], [`repeat`], [`budget`]. In the background, [`discovery`]
//! finds instances and [`probe`] checks whether they are ready.

mod alertmanager;
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
mod headers;
mod health;
mod instance;
mod instances;
mod lookup;
mod pool;
mod probe;
mod repeat;
mod socket;
mod verdict;
mod wire;

pub use alertmanager::AlertmanagerState;
pub use body::ResponseBody;
pub use consul::read_catalogue;
pub use discovery::{FoundInstances, find, resolve, resolve_forever};
pub use error::{ForwardError, StreamError};
pub use forwarder::{ForwardFailure, Forwarded, Forwarder};
pub use instances::{InstanceReport, InstanceState, Instances};
pub use wire::WireFault;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use wire::fuzzing;
