//! `rules check`

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::file::{self, FileRow};
use super::{
    EXIT_UNAVAILABLE, MOST_UNANSWERED, Outcome, Said, database_failed, no_such, organisation,
    store, unavailable,
};
use crate::config::RulesCommandConfig;
use crate::mimir::ruler::{RulerClient, RulerError};
use crate::rules::{Parsed, RuleDefaults, excess_reason, expression_fault, parse, promql_warning};
use crate::store::{Excess, Store, StoreError};
use crate::tenancy::OrganisationId;

/// Check the rules of a file or of the database.
#[derive(Args)]
#[command(group(clap::ArgGroup::new("what").required(true)))]
pub struct Check {
    /// A file: a list of rows (`organisation_id`, name, expr, …), or Prometheus' groups, in YAML or JSON; - for standard
    /// input.
    #[arg(group = "what", value_name = "FILE")]
    file: Option<PathBuf>,
    /// Check the rows of the database.
    #[arg(long, group = "what")]
    database: bool,
    /// One organisation's rows only; for a file, whose rules it holds.
    #[arg(long, value_name = "ID")]
    organisation: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

struct Finding {
    /// 0 if it belongs to no line.
    line: u64,
    /// The index of the rule in the report; none for the file itself.
    rule: Option<usize>,
    /// It is about the whole group, and is repeated for each of its rules.
    of_group: bool,
    problem: String,
    is_warning: bool,
}

struct Checked {
    place: String,
    name: String,
}

#[derive(Default)]
struct Report {
    rules: Vec<Checked>,
    findings: Vec<Finding>,
    /// The number of rules about which Mimir gave no answer.
    unanswered: usize,
}

/// Organisations in one query.
const BATCH: usize = 100;

pub(super) async fn check(config: &RulesCommandConfig, args: Check) -> Outcome {
    let only = organisation(args.organisation.as_deref())?;
    let read = if let Some(path) = &args.file {
        of_file(path, only.as_ref())?
    } else {
        match of_database(&store(config)?, only.clone()).await {
            Ok(Some(rows)) => file::Read { rows, faults: Vec::new() },
            Ok(None) => return Err(only.as_ref().map_or_else(String::new, no_such)),
            Err(error) => return database_failed(&error),
        }
    };
    let client = if config.rules.urls.is_empty() { None } else { Some(client(config)?) };
    let report = match report(config, client.as_ref(), read).await {
        Ok(report) => report,
        Err(error) => return Ok(unavailable(error)),
    };
    let mut said = said(&report, client.is_some(), args.json);
    if report.unanswered > 0 {
        // An unchecked rule is not a valid rule.
        said.exit_code = EXIT_UNAVAILABLE;
    }
    Ok(said)
}

/// Checks every rule. An error if Mimir is unavailable.
async fn report(
    config: &RulesCommandConfig,
    client: Option<&RulerClient>,
    read: file::Read,
) -> Result<Report, RulerError> {
    let defaults = RuleDefaults::new(config.rules.evaluation_interval, config.rules.expressions);
    let mut report = Report::default();
    for fault in read.faults {
        report.fault(None, fault.line, fault.problem);
    }
    let mut in_a_row = 0;
    for row in read.rows {
        let rule = Some(report.rules.len());
        let name = row.row.name.clone().unwrap_or_default();
        report.rules.push(Checked { place: row.place.clone(), name });
        for fault in &row.faults {
            report.fault(rule, fault.line, fault.problem.clone());
        }
        let parsed = if row.is_other { Ok(Parsed::Disabled) } else { parse(&row.row, &defaults) };
        let expr = match parsed {
            Ok(Parsed::Enabled(parsed)) => Some(parsed.rule.expr),
            Ok(Parsed::Disabled) => None,
            Err(refusals) => {
                // All faults in one run: the expression is checked too, unless it is refused already.
                let is_refused = refusals.0.iter().any(|refusal| refusal.column == "expr");
                for refusal in refusals.0 {
                    report.findings.push(Finding {
                        line: row.line_of(refusal.column),
                        rule,
                        of_group: refusal.column == "evaluation_interval",
                        problem: refusal.named(row.name_of(refusal.column)),
                        is_warning: false,
                    });
                }
                row.row.expr.as_deref().filter(|_| !is_refused).map(str::to_owned)
            }
        };
        let Some(expr) = expr else { continue };
        let line = row.line_of("expr");
        let Some(client) = client else {
            if let Some(warning) = promql_warning(&expr) {
                report.warning(rule, line, warning);
            }
            continue;
        };
        let tenant = config.tenancy.template.tenant_of(&row.row.organisation);
        let asked = match &tenant {
            Ok(tenant) => expression_fault(client, tenant, &expr).await,
            Err(error) => Ok(Some(format!("the organisation has no tenant: {error}"))),
        };
        in_a_row = if asked.is_ok() { 0 } else { in_a_row + 1 };
        report.unanswered += usize::from(asked.is_err());
        match asked {
            Ok(None) => {}
            Ok(Some(fault)) => report.fault(rule, line, fault),
            Err(error) if in_a_row >= MOST_UNANSWERED => return Err(error),
            Err(error) => report.warning(rule, line, format!("not checked: {error}")),
        }
    }
    report.findings.sort_by_key(|finding| finding.line);
    Ok(report)
}

impl Report {
    fn fault(&mut self, rule: Option<usize>, line: u64, problem: String) {
        self.findings.push(Finding { line, rule, of_group: false, problem, is_warning: false });
    }

    fn warning(&mut self, rule: Option<usize>, line: u64, problem: String) {
        self.findings.push(Finding { line, rule, of_group: false, problem, is_warning: true });
    }

    fn of(&self, rule: Option<usize>, is_warning: bool) -> impl Iterator<Item = &Finding> {
        let is_meant = move |found: &&Finding| found.rule == rule && found.is_warning == is_warning;
        self.findings.iter().filter(is_meant)
    }

    fn invalid(&self) -> usize {
        let rules = 0..self.rules.len();
        rules.filter(|rule| self.of(Some(*rule), false).next().is_some()).count()
    }

    /// One line for each finding; a finding about a group only once.
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::with_capacity(self.findings.len());
        let mut last_of_group: Option<&Finding> = None;
        for found in &self.findings {
            let is_told = |told: &Finding| told.line == found.line && told.problem == found.problem;
            if found.of_group && found.line > 0 {
                if last_of_group.is_some_and(is_told) {
                    continue;
                }
                last_of_group = Some(found);
            }
            let line =
                if found.line > 0 { format!("line {}: ", found.line) } else { String::new() };
            let rule = found.rule.and_then(|rule| self.rules.get(rule));
            let rule =
                rule.map_or(String::new(), |rule| format!("{} ({}): ", rule.place, rule.name));
            let warning = if found.is_warning { "warning: " } else { "" };
            lines.push(format!("{line}{rule}{warning}{}", found.problem));
        }
        lines
    }
}

fn of_file(path: &Path, only: Option<&OrganisationId>) -> Result<file::Read, String> {
    let text = if path.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(path)
    };
    let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
    file::read(&text, only).map_err(|fault| match fault.line {
        0 => format!("{}: {}", path.display(), fault.problem),
        line => format!("{}: line {line}: {}", path.display(), fault.problem),
    })
}

/// None if the named organisation does not exist.
async fn of_database(
    store: &Store,
    only: Option<OrganisationId>,
) -> Result<Option<Vec<FileRow>>, StoreError> {
    let is_one = only.is_some();
    let mut organisations: Vec<OrganisationId> = match only {
        Some(one) => vec![one],
        None => store.organisations().await?.into_iter().collect(),
    };
    organisations.sort();
    let mut rows = Vec::new();
    for batch in organisations.chunks(BATCH) {
        let mut snapshot = store.alert_rules_of(batch.to_vec()).await?;
        if is_one && snapshot.existing.is_empty() {
            return Ok(None);
        }
        for organisation in batch {
            let of = snapshot.rows.remove(organisation).unwrap_or_default();
            rows.extend(of.into_iter().map(|row| {
                FileRow {
                    place: format!("organisation {organisation}, rule {}", row.id),
                    line: None,
                    columns: Vec::new(),
                    names: &[],
                    // Its columns were not read.
                    is_other: row.excess != Excess::None,
                    faults: excess_reason(&row)
                        .map(|problem| file::Fault { line: 0, problem })
                        .into_iter()
                        .collect(),
                    row,
                }
            }));
        }
    }
    Ok(Some(rows))
}

fn client(config: &RulesCommandConfig) -> Result<RulerClient, String> {
    RulerClient::new(&config.rules.mimir(), &config.rules.namespace)
}

fn said(report: &Report, by_mimir: bool, as_json: bool) -> Said {
    let has_faults = report.findings.iter().any(|found| !found.is_warning);
    let exit_code = u8::from(has_faults);
    let invalid = report.invalid();
    if as_json {
        return Said { answer: to_json(report, invalid, by_mimir), note: None, exit_code };
    }
    let judge = if report.unanswered > 0 {
        "Mimir did not answer"
    } else if by_mimir {
        "expressions were checked by Mimir; Mimir parses templates only at the sync"
    } else {
        "expressions were checked by a local parser, which only warns; set upstream.urls to check them with Mimir"
    };
    let of_file = report.of(None, false).count();
    let of_file =
        if of_file > 0 { format!(", {of_file} faults outside of rules") } else { String::new() };
    let unchecked = match report.unanswered {
        0 => String::new(),
        count => format!(", {count} not checked"),
    };
    let note =
        format!("{} rules, {invalid} invalid{unchecked}{of_file}; {judge}", report.rules.len());
    Said { answer: report.lines().join("\n"), note: Some(note), exit_code }
}

fn to_json(report: &Report, invalid: usize, by_mimir: bool) -> String {
    let list = |rule, is_warning| -> Vec<_> {
        let shown = |found: &Finding| json!({ "line": found.line, "problem": found.problem });
        report.of(rule, is_warning).map(shown).collect()
    };
    let joined = |rule, is_warning| {
        let problems: Vec<_> = report.of(rule, is_warning).map(|found| &*found.problem).collect();
        (!problems.is_empty()).then(|| problems.join("; "))
    };
    let rules: Vec<_> = report
        .rules
        .iter()
        .enumerate()
        .map(|(at, rule)| {
            let at = Some(at);
            json!({
                "place": rule.place, "name": rule.name, "fault": joined(at, false),
                "warning": joined(at, true), "faults": list(at, false),
            })
        })
        .collect();
    let answer = json!({
        "rules": rules, "file_faults": list(None, false), "invalid": invalid,
        "judged_by_mimir": by_mimir,
    });
    answer.to_string()
}
