//! Mimir's Alertmanager: the client that reads and writes one tenant's configuration, posts an alert,
//! and reads what became of notifications.
//!
//! A configuration holds secrets: webhook addresses, tokens, keys. So its text goes in and out as
//! [`ConfigurationBody`], which shows itself nowhere, and what Mimir says about it goes through a
//! [`Redactor`] before it becomes an error: Mimir's refusals quote parts of what they refuse.
//!
//! Two readings are kept apart with care: *no configuration* and *a configuration that could not be
//! read*. Only a whole, well-formed answer is ever the first.

mod client;
mod configuration;
mod counters;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod readings;
mod redactor;

pub use client::{AlertmanagerClient, Checked, TestAlert};
pub use configuration::ConfigurationBody;
pub use counters::{Counters, config_hash};
pub use error::AlertmanagerError;
pub use redactor::{MASK, Redactor};
