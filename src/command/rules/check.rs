//! `rules check`

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::file::{self, FileRow};
use super::{
    EXIT_UNAVAILABLE, MOST_UNANSWERED, Outcome, Said, engine, no_such, organisation, unavailable,
};
use crate::config::RulesCommandConfig;
use crate::mimir::ruler::{RulerClient, RulerConfig};
use crate::rules::{Engine, Parsed, RuleDefaults, expression_fault, parse, promql_warning};
use crate::tenancy::OrganisationId;

/// What is to be checked.
#[derive(Args)]
#[command(group(clap::ArgGroup::new("what").required(true)))]
pub struct Check {
    /// A file: a list of rows (name, expr, …), or Prometheus' groups, in YAML or JSON; - for standard
    /// input.
    #[arg(group = "what", value_name = "FILE")]
    file: Option<PathBuf>,
    /// The rows of the database.
    #[arg(long, group = "what")]
    database: bool,
    /// One organisation's rows only; for a file, whose tenant Mimir is asked for.
    #[arg(long, value_name = "ID")]
    organisation: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What is wrong with a rule, or may be.
struct Finding {
    place: String,
    name: String,
    fault: Option<String>,
    warning: Option<String>,
}

/// Organisations that are read at once.
const BATCH: usize = 100;

pub(super) async fn check(config: &RulesCommandConfig, args: Check) -> Outcome {
    let only = organisation(args.organisation.as_deref())?;
    let rows = if let Some(path) = &args.file {
        of_file(path, only.as_ref())?
    } else {
        let engine = engine_without_mimir(config)?;
        match of_database(&engine, only.clone()).await {
            Ok(Some(rows)) => rows,
            Ok(None) => return Err(only.as_ref().map_or_else(String::new, no_such)),
            Err(problem) => return Ok(unavailable(problem)),
        }
    };
    let client = if config.rules.urls.is_empty() { None } else { Some(client(config)?) };
    let defaults =
        RuleDefaults { interval: config.rules.evaluation_interval, group: "default".to_owned() };
    let mut findings = Vec::with_capacity(rows.len());
    let (mut unanswered, mut in_a_row) = (0, 0);
    for FileRow { place, row } in rows {
        let name = row.name.clone().unwrap_or_default();
        let (fault, warning) = match parse(&row, &defaults) {
            Err(refusals) => (Some(refusals.to_string()), None),
            Ok(Parsed::Disabled) => (None, None),
            Ok(Parsed::Enabled(rule)) => match &client {
                None => (None, promql_warning(&rule.rule.expr)),
                Some(client) => {
                    let tenant = config.tenancy.template.tenant_of(&row.organisation);
                    let asked = match &tenant {
                        Ok(tenant) => expression_fault(client, tenant, &rule.rule.expr).await,
                        Err(error) => Ok(Some(format!("its organisation has no tenant: {error}"))),
                    };
                    in_a_row = if asked.is_ok() { 0 } else { in_a_row + 1 };
                    unanswered += usize::from(asked.is_err());
                    match asked {
                        Ok(fault) => (fault, None),
                        Err(error) if in_a_row >= MOST_UNANSWERED => {
                            return Ok(unavailable(error));
                        }
                        Err(error) => (None, Some(format!("not judged: {error}"))),
                    }
                }
            },
        };
        findings.push(Finding { place, name, fault, warning });
    }
    let mut said = said(&findings, client.is_some(), args.json);
    if unanswered > 0 {
        // What was not judged is not good.
        said.exit_code = EXIT_UNAVAILABLE;
    }
    Ok(said)
}

fn of_file(path: &Path, only: Option<&OrganisationId>) -> Result<Vec<FileRow>, String> {
    let text = if path.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(path)
    };
    let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
    let whose = only.cloned().or_else(|| OrganisationId::parse("rules-check").ok());
    let whose = whose.ok_or("no organisation")?;
    file::read(&text, &whose).map_err(|fault| format!("{}: {fault}", path.display()))
}

/// The database is asked, Mimir need not be there.
fn engine_without_mimir(config: &RulesCommandConfig) -> Result<Arc<Engine>, String> {
    let mut config = config.clone();
    if config.rules.urls.is_empty() {
        config.rules.urls.extend(url::Url::parse("http://localhost").ok());
    }
    engine(&config)
}

/// The rows; none if the only organisation that was asked for is not there.
async fn of_database(
    engine: &Engine,
    only: Option<OrganisationId>,
) -> Result<Option<Vec<FileRow>>, String> {
    let store = engine.store();
    let read = |error: crate::store::StoreError| error.to_string();
    let is_one = only.is_some();
    let mut organisations: Vec<OrganisationId> = match only {
        Some(one) => vec![one],
        None => store.organisations().await.map_err(read)?.into_iter().collect(),
    };
    organisations.sort();
    let mut rows = Vec::new();
    for batch in organisations.chunks(BATCH) {
        let mut snapshot = store.alert_rules_of(batch.to_vec()).await.map_err(read)?;
        if is_one && snapshot.existing.is_empty() {
            return Ok(None);
        }
        for organisation in batch {
            let of = snapshot.rows.remove(organisation).unwrap_or_default();
            rows.extend(of.into_iter().map(|row| FileRow {
                place: format!("organisation {organisation}, rule {}", row.id),
                row,
            }));
        }
    }
    Ok(Some(rows))
}

fn client(config: &RulesCommandConfig) -> Result<RulerClient, String> {
    RulerClient::new(&RulerConfig {
        urls: config.rules.urls.clone(),
        namespace: config.rules.namespace.clone(),
        request_timeout: config.rules.request_timeout,
        connect_timeout: config.rules.connect_timeout,
    })
}

fn said(findings: &[Finding], by_mimir: bool, as_json: bool) -> Said {
    let faults = findings.iter().filter(|finding| finding.fault.is_some()).count();
    let exit_code = u8::from(faults > 0);
    if as_json {
        let list: Vec<_> = findings
            .iter()
            .map(|finding| {
                json!({
                    "place": finding.place, "name": finding.name,
                    "fault": finding.fault, "warning": finding.warning,
                })
            })
            .collect();
        let answer = json!({ "rules": list, "invalid": faults, "judged_by_mimir": by_mimir });
        return Said { answer: answer.to_string(), note: None, exit_code };
    }
    let mut lines = Vec::new();
    for finding in findings {
        let Finding { place, name, fault, warning } = finding;
        if let Some(fault) = fault {
            lines.push(format!("{place} ({name}): {fault}"));
        } else if let Some(warning) = warning {
            lines.push(format!("{place} ({name}): warning: {warning}"));
        }
    }
    let judge = if by_mimir {
        "expressions judged by Mimir; templates are, when they are synced"
    } else {
        "expressions seen by a parser of our own only, which only warns; set upstream.urls for Mimir's word"
    };
    let note = Some(format!("{} rules, {faults} invalid; {judge}", findings.len()));
    Said { answer: lines.join("\n"), note, exit_code }
}
