//! `rules diff`

use std::fmt::Write as _;

use clap::Args;
use serde_json::{Value, json};

use super::{
    EXIT_UNAVAILABLE, MOST_UNANSWERED, Of, Outcome, Said, no_such, organisation, reconciler,
    unavailable,
};
use crate::config::RulesCommandConfig;
use crate::labels::RuleState;
use crate::rules::{NotEvaluated, PreviewError};

/// Show what a sync would change in Mimir, and which rules Mimir has and does not evaluate.
#[derive(Args)]
pub struct Diff {
    #[command(flatten)]
    of: Of,
}

/// The exit code is 1 if a sync would change anything. Rules that fail do not count: no sync helps them.
pub(super) async fn diff(config: &RulesCommandConfig, args: Diff) -> Outcome {
    let reconciler = reconciler(config)?;
    let mut organisations = match organisation(args.of.organisation.as_deref())? {
        Some(one) => vec![one],
        None => match reconciler.store().organisations().await {
            Ok(all) => all.into_iter().collect(),
            Err(error) => return Ok(unavailable(error)),
        },
    };
    organisations.sort();
    let (mut answer, mut views, mut differing) = (String::new(), Vec::<Value>::new(), 0);
    let (mut notes, mut unanswered, mut in_a_row) = (Vec::new(), 0, 0);
    let mut not_evaluated = 0;
    let (compared, is_one) = (organisations.len(), args.of.organisation.is_some());
    for organisation in organisations {
        let preview = match reconciler.preview(&organisation).await {
            Ok(preview) => preview,
            // One of all organisations may be gone since they were listed.
            Err(PreviewError::Missing) if is_one => return Err(no_such(&organisation)),
            Err(PreviewError::Missing) => continue,
            // It can have no rules in Mimir.
            Err(error @ PreviewError::Tenant(_)) => {
                notes.push(format!("{organisation}: {error}"));
                continue;
            }
            Err(error) => {
                (unanswered, in_a_row) = (unanswered + 1, in_a_row + 1);
                notes.push(format!("{organisation}: {error}"));
                // One tenant may be too much for Mimir. If several fail, the fault is Mimir's.
                if in_a_row >= MOST_UNANSWERED || matches!(error, PreviewError::Store(_)) {
                    return Ok(unavailable(notes.join("\n")));
                }
                continue;
            }
        };
        in_a_row = 0;
        let is_failing = |rule: &&NotEvaluated| rule.state == RuleState::Failing;
        let failing: Vec<&NotEvaluated> = preview.not_evaluated.iter().filter(is_failing).collect();
        not_evaluated += failing.len();
        if preview.is_in_sync() && failing.is_empty() {
            continue;
        }
        differing += usize::from(!preview.is_in_sync());
        let held = preview.guard.as_ref();
        if args.of.json {
            let changes: Vec<Value> = preview
                .changes()
                .iter()
                .map(|change| json!({ "group": change.name, "action": change.action.name(), "diff": change.diff }))
                .collect();
            views.push(json!({
                "organisation": organisation.as_str(), "tenant": preview.tenant.as_str(),
                "changes": changes,
                "guard": held.map(|held| &held.reason),
                "guard_id": held.map(|held| &held.id),
                "vanishing": preview.vanishing,
                "failing": failing
                    .iter()
                    .map(|rule| json!({ "id": rule.id, "name": rule.name, "reason": rule.reason }))
                    .collect::<Vec<Value>>(),
            }));
            continue;
        }
        let _ =
            writeln!(answer, "# organisation {organisation}, tenant {}", preview.tenant.as_str());
        if let Some(held) = held {
            let _ = writeln!(
                answer,
                "# held until it is confirmed: {}; rules guard confirm {} --organisation {organisation}",
                held.reason, held.id
            );
        }
        for rule in failing {
            let _ = writeln!(
                answer,
                "# failing: {} ({}): {}",
                rule.name,
                rule.id,
                one_line(&rule.reason)
            );
        }
        answer.push_str(&preview.diff());
    }
    if args.of.json {
        answer = json!({ "organisations": views }).to_string();
    }
    let unknown = if unanswered > 0 { format!(", {unanswered} unknown") } else { String::new() };
    let failing = if not_evaluated > 0 {
        format!("; rules failing in Mimir: {not_evaluated}")
    } else {
        String::new()
    };
    notes.push(format!(
        "{compared} organisations, {differing} of them not in sync{unknown}{failing}"
    ));
    let exit_code = if unanswered > 0 { EXIT_UNAVAILABLE } else { u8::from(differing > 0) };
    let answer = answer.trim_end().to_owned();
    Ok(Said { answer, note: Some(notes.join("\n")), exit_code })
}

/// A reason may hold what a query printed; the output is a diff, line by line.
fn one_line(reason: &str) -> String {
    reason.replace(|c: char| c.is_control(), " ")
}
