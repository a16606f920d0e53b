//! `rules check | diff | sync | guard`
//!
//! Exit codes, for pipelines: 0 all is well, 1 something is not (rules that cannot go live,
//! differences), 64 the configuration, the file or the organisation, 69 the database or Mimir gave no
//! answer. (Options that there are not end with 2, before anything of this is reached.)

mod check;
mod diff;
mod file;
mod guard;
mod sync;

use std::sync::Arc;

use clap::{Args, Subcommand};

use super::{EXIT_UNAVAILABLE, Outcome, Said, on_a_runtime, unavailable};
use crate::clock::Clock;
use crate::config::{RulesCommandConfig, TablesRead};
use crate::rules::{Engine, metric_names};
use crate::store::Store;
use crate::telemetry::RuleMetrics;
use crate::tenancy::OrganisationId;

/// What is to be done with alert rules.
#[derive(Subcommand)]
pub enum RulesCommand {
    /// Say which rules could not go live, and why: of a file, or of the database. With a Mimir
    /// (`upstream.urls`) expressions are judged by it, without one only by a parser of our own.
    Check(check::Check),
    /// Show what a sync would change in Mimir.
    Diff(diff::Diff),
    /// Bring the rules to Mimir now.
    Sync(Of),
    /// Deletions that wait for an administrator.
    #[command(subcommand)]
    Guard(guard::Guard),
}

/// Whose rules.
#[derive(Args)]
pub struct Of {
    /// One organisation; all if this is left out.
    #[arg(long, value_name = "ID")]
    organisation: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// `EX_USAGE` of sysexits.h.
const EXIT_USAGE: u8 = 64;

/// So many in a row of which Mimir says nothing: it is not they.
const MOST_UNANSWERED: usize = 3;

/// An organisation that was named and is not there.
fn no_such(organisation: &OrganisationId) -> String {
    format!("--organisation: there is no organisation {organisation}")
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
    // What stops them before they begin is what they were told.
    Ok(done.unwrap_or_else(wrongly_told))
}

fn wrongly_told(problem: String) -> Said {
    Said { answer: String::new(), note: Some(problem), exit_code: EXIT_USAGE }
}

fn organisation(name: Option<&str>) -> Result<Option<OrganisationId>, String> {
    let read =
        |name| OrganisationId::parse(name).map_err(|error| format!("--organisation: {error}"));
    name.map(read).transpose()
}

/// The engine, to be made on the runtime that it runs on.
fn engine(config: &RulesCommandConfig) -> Result<Arc<Engine>, String> {
    let database = config.database.as_ref();
    let database = database
        .ok_or("database.url is missing: postgres://user:password@host:5432/database".to_owned())?;
    if config.rules.urls.is_empty() {
        return Err("upstream.urls is missing: where is Mimir?".to_owned());
    }
    let store = Store::new(database, TablesRead { rules: true, ..TablesRead::default() })
        .map_err(|error| error.to_string())?;
    // Nobody reads these metrics: there is no recorder.
    let metrics = Arc::new(RuleMetrics::register(&metric_names()));
    let template = config.tenancy.template.clone();
    Ok(Arc::new(Engine::new(store, &config.rules, template, Clock::system(), metrics)?))
}
