//! The commands beside `serve`: each gets what it needs of the configuration and gives what is to be
//! printed.

mod channels;
mod check_config;
mod comparison;
mod device_key;
mod explain;
mod explain_token;
mod healthcheck;
mod manual;
mod migrate;
mod rules;

use time::OffsetDateTime;

use crate::clock::Clock;
use crate::store::StoreError;

pub use channels::{ChannelsCommand, channels};
pub use check_config::{CheckConfig, check_config};
pub use device_key::{DeviceKeyCommand, device_key};
pub use explain_token::{ExplainToken, explain_token};
pub use healthcheck::healthcheck;
pub use manual::{Completions, Man, completions, man};
pub use migrate::{Migrate, migrate};
#[cfg(any(test, feature = "fuzzing"))]
pub use rules::fuzzing;
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

/// `EX_UNAVAILABLE` of sysexits.h: nothing has to be changed, and something is not there.
const EXIT_UNAVAILABLE: u8 = 69;

/// There was no answer, so that the same command may succeed later.
fn unavailable(problem: impl ToString) -> Said {
    let note = Some(problem.to_string());
    Said { answer: String::new(), note, exit_code: EXIT_UNAVAILABLE }
}

/// Why the database did not do what was wanted of it. What it refuses it would refuse again.
fn database_failed(error: &StoreError) -> Outcome {
    match error {
        StoreError::Unreachable(_) | StoreError::Unavailable(_) => Ok(unavailable(error)),
        other => Err(other.to_string()),
    }
}

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
    Clock::system().utc()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::{DatabaseConfig, Environment, RulesCommandConfig};

    #[derive(Parser)]
    enum Command {
        #[command(subcommand)]
        DeviceKey(DeviceKeyCommand),
        Migrate(Migrate),
        #[command(subcommand)]
        Rules(RulesCommand),
        #[command(subcommand)]
        Channels(ChannelsCommand),
    }

    // Seen: 1, as for a key that there is not; `rules` always said 69.
    #[test]
    fn a_database_that_is_away_is_69_for_every_command() {
        // A port that was free a moment ago refuses connections.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let url = format!("postgres://nobody@{free}/none");
        let environment = [
            ("MTP__DATABASE__URL", url.as_str()),
            ("MTP__UPSTREAM__URLS", "http://127.0.0.1:1"),
            ("MTP__CHANNELS__ENABLED", "true"),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let environment = Environment::from_vars(environment);
        let database = DatabaseConfig::load(None, &environment).unwrap();
        let config = RulesCommandConfig::load(None, &environment).unwrap();
        for line in [
            "x migrate",
            "x device-key list --organisation acme",
            "x device-key create --organisation acme --name a",
            "x device-key revoke --organisation acme 6a1a9a3e-5f1c-4d0b-9c58-2f5a0f9b7c11",
            "x rules check --database",
            "x rules diff",
            "x rules sync",
            "x rules guard list",
            "x rules guard confirm a1",
            "x channels diff",
            "x channels sync",
            "x channels test --organisation acme 6a1a9a3e-5f1c-4d0b-9c58-2f5a0f9b7c11",
            "x channels confirm --organisation acme a1",
        ] {
            let outcome = match Command::parse_from(line.split(' ')) {
                Command::DeviceKey(command) => device_key(&database, command),
                Command::Migrate(args) => migrate(&database, &args),
                Command::Rules(command) => rules(&config, command),
                Command::Channels(command) => channels(&config, command),
            };
            let said = outcome.unwrap_or_else(|problem| panic!("{line}: {problem}"));
            assert_eq!(said.exit_code, EXIT_UNAVAILABLE, "{line}");
            assert!(said.note.unwrap().contains("cannot be reached"), "{line}");
        }
    }
}
