//! The commands beside `serve`: each gets what it needs of the configuration and gives what is to be
//! printed.

mod check_config;
mod device_key;
mod explain;
mod explain_token;
mod healthcheck;
mod migrate;

use time::OffsetDateTime;

use crate::clock::Clock;

pub use check_config::{CheckConfig, check_config};
pub use device_key::{DeviceKeyCommand, device_key};
pub use explain_token::{ExplainToken, explain_token};
pub use healthcheck::healthcheck;
pub use migrate::{Migrate, migrate};

/// What a command has to say.
pub struct Said {
    /// The answer, which another program may read.
    pub answer: String,
    /// What is only for people, on standard error.
    pub note: Option<String>,
    /// Whether the answer is a good one, for the exit code.
    pub is_good: bool,
}

/// What a command says, or why it failed.
pub type Outcome = Result<Said, String>;

impl From<String> for Said {
    fn from(answer: String) -> Self {
        Self { answer, note: None, is_good: true }
    }
}

fn on_a_runtime<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(|error| error.to_string())?.block_on(work))
}

fn now() -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Clock::system().now()
}
