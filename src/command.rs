//! The commands beside `serve`: each gets a valid configuration and gives what is to be printed.

mod device_key;
mod explain_token;
mod healthcheck;
mod migrate;

pub use device_key::{DeviceKeyCommand, device_key};
pub use explain_token::{ExplainToken, explain_token};
pub use healthcheck::healthcheck;
pub use migrate::{Migrate, migrate};

use crate::config::{Config, DatabaseConfig};

/// What a command prints, or why it failed.
pub type Outcome = Result<String, String>;

fn database(config: &Config) -> Result<&DatabaseConfig, String> {
    config.database.as_ref().ok_or("this needs database.url".to_owned())
}

fn on_a_runtime<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(|error| error.to_string())?.block_on(work))
}
