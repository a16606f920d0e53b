//! `rules diff`

use std::fmt::Write as _;

use clap::Args;
use serde_json::{Value, json};

use super::{Of, Outcome, Said, engine, organisation, unavailable};
use crate::config::RulesCommandConfig;
use crate::rules::Verdict;

/// Whose.
#[derive(Args)]
pub struct Diff {
    #[command(flatten)]
    of: Of,
}

/// Shows what a sync would change, as a unified diff of YAML; the exit code is 1 if there is anything.
pub(super) async fn diff(config: &RulesCommandConfig, args: Diff) -> Outcome {
    let engine = engine(config)?;
    let mut organisations = match organisation(args.of.organisation.as_deref())? {
        Some(one) => vec![one],
        None => match engine.store().organisations().await {
            Ok(all) => all.into_iter().collect(),
            Err(error) => return Ok(unavailable(error)),
        },
    };
    organisations.sort();
    let (mut answer, mut views, mut differing) = (String::new(), Vec::<Value>::new(), 0);
    let looked_at = organisations.len();
    for organisation in organisations {
        let preview = match engine.preview(&organisation).await {
            Ok(preview) => preview,
            Err(error) => return Ok(unavailable(format!("{organisation}: {error}"))),
        };
        if preview.is_in_sync() {
            continue;
        }
        differing += 1;
        let held = match &preview.verdict {
            Verdict::Pass => None,
            Verdict::Hold(reason) => Some(reason.to_string()),
        };
        if args.of.json {
            let changes: Vec<Value> = preview
                .changes()
                .iter()
                .map(|change| json!({ "group": change.name, "action": change.action.name(), "diff": change.diff }))
                .collect();
            views.push(json!({
                "organisation": organisation.as_str(), "tenant": preview.tenant.as_str(),
                "changes": changes, "guard": held,
            }));
            continue;
        }
        let _ =
            writeln!(answer, "# organisation {organisation}, tenant {}", preview.tenant.as_str());
        if let Some(held) = held {
            let _ = writeln!(answer, "# held until it is confirmed: {held}");
        }
        answer.push_str(&preview.diff());
    }
    if args.of.json {
        answer = json!({ "organisations": views }).to_string();
    }
    let note = format!("{looked_at} organisations, {differing} of them not in sync");
    let answer = answer.trim_end().to_owned();
    Ok(Said { answer, note: Some(note), exit_code: u8::from(differing > 0) })
}
