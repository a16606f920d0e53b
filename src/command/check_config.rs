//! `check-config`: validates the proxy's configuration, Mimir's, or both and whether they match.

mod connect;
mod report;

use std::path::{Path, PathBuf};

use clap::Args;

use super::{Said, on_a_runtime};
use crate::config::{Config, Effect, Environment, Setting, effect_of};
use crate::mimir_profile::{
    Assumptions, Finding, MimirVersion, Ours, Severity, Variables, examine, uncompared,
};
use connect::connect;

/// Arguments of `check-config`.
#[derive(Args)]
pub struct CheckConfig {
    /// Mimir's configuration (YAML), to be checked for known traps. The proxy's is then checked only if
    /// it is named or set in the environment.
    #[arg(long, value_name = "FILE")]
    mimir: Option<PathBuf>,
    /// The version of Mimir that will read it, such as 2.17.
    #[arg(long, value_name = "VERSION", default_value = "3.1")]
    mimir_version: MimirVersion,
    /// The number of Mimir instances; replication factors are then checked against it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    mimir_instances: Option<u32>,
    /// Expand environment variables in Mimir's file, as Mimir does with -config.expand-env; otherwise
    /// defaults apply and other variables are unknown.
    #[arg(long)]
    expand_env: bool,
    /// Treat warnings as errors.
    #[arg(long)]
    strict: bool,
    /// Connect to everything that the configuration names: key set, database, each Mimir instance.
    /// Nothing is written. Exit code 64 if something must be changed, 69 if something is unavailable.
    #[arg(long)]
    connect: bool,
    /// List every key with its value, where that is from, and whether a change takes effect by a reload or
    /// by a restart. Secrets are not shown.
    #[arg(long)]
    keys: bool,
}

/// `EX_USAGE` of sysexits.h: the configuration is at fault.
const EXIT_CONFIG: u8 = 64;

/// Reports all problems of what it is given.
pub fn check_config(file: Option<&Path>, environment: &Environment, args: &CheckConfig) -> Said {
    let is_ours_meant =
        args.mimir.is_none() || args.connect || file.is_some() || !environment.is_empty();
    let ours = is_ours_meant.then(|| Config::load(file, environment));
    let (mut answers, mut notes, mut code) = (Vec::new(), Vec::new(), 0);
    match &ours {
        Some(Ok(config)) => {
            notes.extend(config.warnings.iter().map(|warning| format!("warning: {warning}")));
            answers.push(match config.warnings.len() {
                0 => "the configuration is valid".to_owned(),
                1 => "the configuration is valid, with 1 warning".to_owned(),
                count => format!("the configuration is valid, with {count} warnings"),
            });
            if args.keys {
                answers.push(listed(&config.settings));
            }
            if args.strict && !config.warnings.is_empty() {
                code = EXIT_CONFIG;
            }
        }
        Some(Err(faults)) => {
            notes.push(faults.to_string());
            code = EXIT_CONFIG;
        }
        None => {}
    }
    let ours = ours.and_then(Result::ok);
    if let Some(path) = &args.mimir {
        let name = path.display();
        match std::fs::read_to_string(path) {
            Ok(text) => {
                let (variables, assumptions) = args.surroundings(ours.as_ref().map(Ours::from));
                let findings = examine(&text, &variables, assumptions);
                notes.extend(findings.iter().map(|finding| format!("{name}: {finding}")));
                let uncompared = uncompared(&text, &variables, assumptions);
                notes.extend(uncompared.map(|note| format!("{name}: {note}")));
                answers.push(format!("{name}: {}", counted(&findings)));
                if findings.iter().any(|finding| args.counts(finding)) {
                    code = EXIT_CONFIG;
                }
            }
            Err(error) => {
                notes.push(format!("{name}: cannot be read: {error}"));
                code = EXIT_CONFIG;
            }
        }
    }
    if args.connect {
        match ours.as_ref().map(|config| on_a_runtime(connect(config))) {
            None => notes.push("nothing was asked: the configuration is not valid".to_owned()),
            Some(Err(problem)) => {
                notes.push(problem);
                code = EXIT_CONFIG;
            }
            Some(Ok(report)) => {
                answers.push(report.to_string());
                code = if code == 0 { report.exit_code(args.strict) } else { code };
            }
        }
    }
    let note = (!notes.is_empty()).then(|| notes.join("\n"));
    Said { answer: answers.join("\n"), note, exit_code: code }
}

impl CheckConfig {
    fn surroundings(&self, ours: Option<Ours>) -> (Variables, Assumptions) {
        let variables = if self.expand_env {
            Variables::Known(Environment::everything())
        } else {
            Variables::Unknown
        };
        let (mimir, instances) = (self.mimir_version, self.mimir_instances);
        (variables, Assumptions { mimir, instances, ours })
    }

    fn counts(&self, finding: &Finding) -> bool {
        self.strict || finding.severity == Severity::Error
    }
}

/// A line for each key.
fn listed(settings: &[Setting]) -> String {
    let widest = settings.iter().map(|one| one.key.len()).max().unwrap_or_default();
    let line = |one: &Setting| {
        let effect = match effect_of(&one.key) {
            Effect::Reload => "reload",
            Effect::Restart => "restart",
        };
        let Setting { key, value, source, .. } = one;
        format!("{key:<widest$}  {effect:<7}  {source:<7}  {value}").trim_end().to_owned()
    };
    settings.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn counted(findings: &[Finding]) -> String {
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    match (errors, findings.len() - errors) {
        (0, 0) => "no known trap".to_owned(),
        (errors, warnings) => format!("{errors} errors, {warnings} warnings"),
    }
}
