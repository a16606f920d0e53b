//! `rules check | diff | sync | guard`
//!
//! Exit codes, for pipelines: 0 success, 1 rules that cannot go live or differences, 64 a fault in the
//! configuration, the file or the organisation, or a database that refuses (a wrong password, a missing
//! table), 69 the database or Mimir gave no answer. (Clap ends with 2 on unknown options.)

mod check;
mod diff;
mod file;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod guard;
pub(super) mod sync;

use std::sync::Arc;

use clap::{Args, Subcommand};

use super::{EXIT_UNAVAILABLE, Outcome, Said, database_failed, on_a_runtime, unavailable};
use crate::config::{RulesCommandConfig, TablesRead};
use crate::rules::Reconciler;
use crate::store::Store;
use crate::tenancy::OrganisationId;

/// Check, compare and sync alert rules.
#[derive(Subcommand)]
pub enum RulesCommand {
    /// Check the rules of a file or of the database. With `upstream.urls`, Mimir checks the expressions;
    /// without, a local parser only warns.
    Check(check::Check),
    /// Show what a sync would change in Mimir, and which rules Mimir has and does not evaluate.
    Diff(diff::Diff),
    /// Sync the rules to Mimir now.
    Sync(Of),
    /// List and confirm deletions that are held for a confirmation.
    #[command(subcommand)]
    Guard(guard::Guard),
}

/// Which rules.
#[derive(Args)]
pub struct Of {
    /// Only this organisation; all by default.
    #[arg(long, value_name = "ID")]
    organisation: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// `EX_USAGE` of sysexits.h.
pub(super) const EXIT_USAGE: u8 = 64;

/// After this many failures in a row assume that Mimir is down, and not that the rules are at fault.
pub(super) const MOST_UNANSWERED: usize = 3;

pub(super) fn no_such(organisation: &OrganisationId) -> String {
    format!("--organisation: organisation {organisation} not found")
}

/// Runs one of the commands.
pub fn rules(config: &RulesCommandConfig, command: RulesCommand) -> Outcome {
    let done = on_a_runtime(async {
        match command {
            RulesCommand::Check(args) => check::check(config, args).await,
            RulesCommand::Diff(args) => diff::diff(config, args).await,
            RulesCommand::Sync(of) => sync::sync(config, of).await,
            RulesCommand::Guard(guard) => guard::guard(config, guard).await,
        }
    })?;
    // An error is a fault in the arguments or the configuration, such as a database that refuses the login. 1 says
    // something of the rules.
    Ok(done.unwrap_or_else(usage_error))
}

pub(super) fn usage_error(problem: String) -> Said {
    Said { answer: String::new(), note: Some(problem), exit_code: EXIT_USAGE }
}

pub(super) fn organisation(name: Option<&str>) -> Result<Option<OrganisationId>, String> {
    let read =
        |name| OrganisationId::parse(name).map_err(|error| format!("--organisation: {error}"));
    name.map(read).transpose()
}

/// Must be called on the runtime that uses it.
fn store(config: &RulesCommandConfig) -> Result<Store, String> {
    let database = config.database.as_ref();
    let database = database
        .ok_or("database.url is missing: postgres://user:password@host:5432/database".to_owned())?;
    let channels = config.channels.enabled;
    Store::new(database, TablesRead { rules: true, channels, ..TablesRead::default() })
        .map_err(|error| error.to_string())
}

pub(super) fn reconciler(config: &RulesCommandConfig) -> Result<Arc<Reconciler>, String> {
    let store = store(config)?;
    if config.rules.urls.is_empty() {
        return Err("upstream.urls is missing: give the address of Mimir".to_owned());
    }
    let template = config.tenancy.template.clone();
    Ok(Arc::new(Reconciler::new(store, &config.rules, template)?))
}
