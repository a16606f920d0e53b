//! `migrate`

mod notices;

use clap::Args;

use super::{Outcome, Said, database_failed, on_a_runtime};
use crate::config::DatabaseConfig;
use crate::store;

/// What `migrate` is told.
#[derive(Args)]
pub struct Migrate {
    /// Take tables of our names that were made by other means for ours, if they have all that ours
    /// have.
    #[arg(long)]
    adopt: bool,
}

/// Brings the database's tables up to date.
pub fn migrate(database: &DatabaseConfig, args: &Migrate) -> Outcome {
    let (migrated, notices) = notices::heard(|| on_a_runtime(store::migrate(database, args.adopt)));
    match migrated? {
        Ok(migrated) => Ok(Said {
            note: (!notices.is_empty()).then(|| notices.join("\n")),
            ..Said::from(migrated.to_string())
        }),
        Err(error) => database_failed(&error),
    }
}
