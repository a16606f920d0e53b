//! `check-config`: our own configuration, Mimir's, or both and whether they fit together.

use std::path::{Path, PathBuf};

use clap::Args;

use super::Said;
use crate::config::{Config, Environment};
use crate::mimir_profile::{
    Assumptions, Federation, Finding, MimirVersion, Severity, Variables, examine,
};

/// What `check-config` is told.
#[derive(Args)]
pub struct CheckConfig {
    /// Mimir's own configuration (YAML), to be looked through for known traps. Then ours is checked
    /// only if it is named or set in the environment.
    #[arg(long, value_name = "FILE")]
    mimir: Option<PathBuf>,
    /// The Mimir that will read it, such as 2.17.
    #[arg(long, value_name = "VERSION", default_value = "3.1")]
    mimir_version: MimirVersion,
    /// How many Mimirs there will be; then copies are checked against it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    mimir_instances: Option<u32>,
    /// Put this process' environment into Mimir's file, as Mimir does with -config.expand-env; else
    /// defaults hold and the rest is unknown.
    #[arg(long)]
    expand_env: bool,
    /// Let warnings count as errors.
    #[arg(long)]
    strict: bool,
}

/// Says everything that is wrong with what it is given.
pub fn check_config(file: Option<&Path>, environment: &Environment, args: &CheckConfig) -> Said {
    let is_ours_meant = args.mimir.is_none() || file.is_some() || !environment.is_empty();
    let ours = is_ours_meant.then(|| Config::load(file, environment));
    let (mut answers, mut notes, mut is_good) = (Vec::new(), Vec::new(), true);
    match &ours {
        Some(Ok(_)) => answers.push("the configuration is valid".to_owned()),
        Some(Err(faults)) => {
            notes.push(faults.to_string());
            is_good = false;
        }
        None => {}
    }
    if let Some(path) = &args.mimir {
        let federation = ours.and_then(Result::ok).map(|config| config.tenancy.federation);
        let federation = federation.map(|most| Federation(most.unwrap_or(1)));
        let name = path.display();
        match std::fs::read_to_string(path) {
            Ok(text) => {
                let findings = args.examine(&text, federation);
                notes.extend(findings.iter().map(|finding| format!("{name}: {finding}")));
                answers.push(format!("{name}: {}", counted(&findings)));
                is_good &= !findings.iter().any(|finding| args.counts(finding));
            }
            Err(error) => {
                notes.push(format!("{name}: cannot be read: {error}"));
                is_good = false;
            }
        }
    }
    let note = (!notes.is_empty()).then(|| notes.join("\n"));
    Said { answer: answers.join("\n"), note, exit_code: u8::from(!is_good) }
}

impl CheckConfig {
    fn examine(&self, text: &str, federation: Option<Federation>) -> Vec<Finding> {
        let variables = if self.expand_env {
            Variables::Known(Environment::everything())
        } else {
            Variables::Unknown
        };
        let (mimir, instances) = (self.mimir_version, self.mimir_instances);
        examine(text, &variables, Assumptions { mimir, instances, federation })
    }

    fn counts(&self, finding: &Finding) -> bool {
        self.strict || finding.severity == Severity::Error
    }
}

fn counted(findings: &[Finding]) -> String {
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    match (errors, findings.len() - errors) {
        (0, 0) => "no known trap".to_owned(),
        (errors, warnings) => format!("{errors} errors, {warnings} warnings"),
    }
}
