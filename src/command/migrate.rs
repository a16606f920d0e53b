//! `migrate`

use clap::Args;

use super::{Outcome, database_failed, on_a_runtime};
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
    let migrated = on_a_runtime(store::migrate(database, args.adopt))?;
    match migrated {
        Ok(migrated) => Ok(migrated.to_string().into()),
        Err(error) => database_failed(&error),
    }
}
