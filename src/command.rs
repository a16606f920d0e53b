//! The commands beside `serve`: each gets what it needs of the configuration and gives what is to be
//! printed.

mod check_config;
mod device_key;
mod explain;
mod explain_token;
mod healthcheck;
mod migrate;
mod rules;

use time::OffsetDateTime;

use crate::clock::Clock;

pub use check_config::{CheckConfig, check_config};
pub use device_key::{DeviceKeyCommand, device_key};
pub use explain_token::{ExplainToken, explain_token};
pub use healthcheck::healthcheck;
pub use migrate::{Migrate, migrate};
pub use rules::{RulesCommand, rules};

/// What a command has to say.
pub struct Said {
    /// The answer, which another program may read.
    pub answer: String,
    /// What is only for people, on standard error.
    pub note: Option<String>,
    /// What the answer means to a script: 0 if it is a good one.
    pub exit_code: u8,
}

/// What a command says, or why it failed.
pub type Outcome = Result<Said, String>;

impl From<String> for Said {
    fn from(answer: String) -> Self {
        Self { answer, note: None, exit_code: 0 }
    }
}

fn on_a_runtime<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(|error| error.to_string())?.block_on(work))
}

fn now() -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Clock::system().now()
}
