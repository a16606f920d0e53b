//! `rules diff`

use clap::Args;
use serde_json::{Value, json};

use super::{Of, Outcome, database_failed, no_such, organisation, reconciler};
use crate::command::comparison::Comparison;
use crate::config::RulesCommandConfig;
use crate::labels::RuleState;
use crate::rules::{GroupChange, NotEvaluated, Preview, PreviewError};

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
            Err(error) => return database_failed(&error),
        },
    };
    organisations.sort();
    let is_one = args.of.organisation.is_some();
    let mut comparison = Comparison::of(organisations.len(), args.of.json);
    let mut not_evaluated = 0;
    for organisation in organisations {
        let preview = match reconciler.preview(&organisation).await {
            Ok(preview) => preview,
            // One of all organisations may be gone since they were listed.
            Err(PreviewError::Missing) if is_one => return Err(no_such(&organisation)),
            Err(PreviewError::Missing) => continue,
            // It can have no rules in Mimir.
            Err(error @ PreviewError::Tenant(_)) => {
                comparison.note(&organisation, error);
                continue;
            }
            Err(PreviewError::Store(error)) => {
                return comparison.database_failed(&organisation, &error);
            }
            Err(error) => match comparison.unanswered(&organisation, error) {
                Ok(()) => continue,
                Err(said) => return Ok(said),
            },
        };
        comparison.answered(preview.is_in_sync());
        let is_failing = |rule: &&NotEvaluated| rule.state == RuleState::Failing;
        let failing: Vec<&NotEvaluated> = preview.not_evaluated.iter().filter(is_failing).collect();
        not_evaluated += failing.len();
        if preview.is_in_sync() && failing.is_empty() {
            continue;
        }
        let fields = fields(&preview, &failing);
        let held = preview.guard.as_ref();
        comparison.begin(&organisation, &preview.tenant, held, "rules guard confirm", fields);
        for rule in failing {
            let reason = one_line(&rule.reason);
            comparison.add(&format!("# failing: {} ({}): {reason}\n", rule.name, rule.id));
        }
        comparison.add(&preview.diff());
    }
    let failing = match not_evaluated {
        0 => String::new(),
        count => format!("; rules failing in Mimir: {count}"),
    };
    Ok(comparison.finish(&failing))
}

fn fields(preview: &Preview, failing: &[&NotEvaluated]) -> Value {
    let change = |change: &GroupChange| json!({ "group": change.name, "action": change.action.name(), "diff": change.diff });
    let rule =
        |rule: &&NotEvaluated| json!({ "id": rule.id, "name": rule.name, "reason": rule.reason });
    json!({
        "changes": preview.changes().iter().map(change).collect::<Vec<Value>>(),
        "vanishing": preview.vanishing,
        "failing": failing.iter().map(rule).collect::<Vec<Value>>(),
    })
}

/// A reason may hold what a query printed; the output is a diff, line by line.
fn one_line(reason: &str) -> String {
    reason.replace(|c: char| c.is_control(), " ")
}
