//! `rules guard list | confirm`

use std::fmt::Write as _;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::sync::{BY, said, sync_finished};
use super::{EXIT_UNAVAILABLE, Of, Outcome, Said, engine, no_such, organisation, unavailable};
use crate::config::RulesCommandConfig;
use crate::rules::{Engine, stale_in_words};
use crate::store::{Confirmed, GuardHeld, GuardRow, StoreError};
use crate::tenancy::OrganisationId;

/// Deletions that wait.
#[derive(Subcommand)]
pub enum Guard {
    /// List them, each with its identifier and the rules that would vanish. The exit code is 1 if there
    /// is any.
    List(Of),
    /// Let one pass, and wait until it is carried out.
    Confirm(Confirm),
}

/// Which one.
#[derive(Args)]
pub struct Confirm {
    /// Its identifier, as `rules guard list` shows it.
    id: String,
    #[command(flatten)]
    of: Of,
}

/// Rules that are named of each, at most.
const MOST_NAMED: usize = 20;

pub(super) async fn guard(config: &RulesCommandConfig, guard: Guard) -> Outcome {
    let engine = engine(config)?;
    match guard {
        Guard::List(of) => {
            let only = organisation(of.organisation.as_deref())?;
            if let Some(one) = &only {
                match engine.store().existing_organisations(vec![one.clone()]).await {
                    Ok(existing) if existing.contains(one) => {}
                    Ok(_) => return Err(no_such(one)),
                    Err(error) => return Ok(unavailable(error)),
                }
            }
            match waiting(&engine, only.as_ref()).await {
                Ok(waiting) => Ok(list(&waiting, of.json)),
                Err(error) => Ok(unavailable(error)),
            }
        }
        Guard::Confirm(args) => confirm(&engine, args).await,
    }
}

/// A deletion that waits, of one organisation or of many.
struct Waiting {
    organisation: Option<OrganisationId>,
    held: GuardHeld,
    rows: Vec<GuardRow>,
}

async fn waiting(
    engine: &Engine,
    only: Option<&OrganisationId>,
) -> Result<Vec<Waiting>, StoreError> {
    let store = engine.store();
    let mut all = Vec::new();
    if only.is_none()
        && let Some(held) = store.rule_leader().await?.guard
    {
        let rows = store.guard_rows(held.id.clone(), None).await?;
        all.push(Waiting { organisation: None, held, rows });
    }
    let mut rows = store.waiting_guards().await?;
    for sync in store.rule_syncs().await? {
        let Some(held) = sync.guard else { continue };
        if only.is_some_and(|only| *only != sync.organisation) {
            continue;
        }
        let of = |row: &mut GuardRow| row.organisation == sync.organisation && row.id == held.id;
        let rows = rows.extract_if(.., of).collect();
        all.push(Waiting { organisation: Some(sync.organisation), held, rows });
    }
    Ok(all)
}

fn list(waiting: &[Waiting], as_json: bool) -> Said {
    let exit_code = u8::from(!waiting.is_empty());
    if as_json {
        let views: Vec<Value> = waiting.iter().map(view).collect();
        let answer = json!({ "guards": views }).to_string();
        return Said { answer, note: None, exit_code };
    }
    let mut answer = String::new();
    for Waiting { organisation, held, rows } in waiting {
        let whose = match organisation {
            Some(organisation) => format!("organisation {organisation}"),
            None => "many organisations".to_owned(),
        };
        let _ = writeln!(answer, "{}  {whose}: {}", held.id, held.reason);
        let rules = rows.iter().flat_map(|row| row.rules.iter().map(move |rule| (row, rule)));
        for (row, rule) in rules.clone().take(MOST_NAMED) {
            let of = match organisation {
                Some(_) => String::new(),
                None => format!("{}: ", row.organisation),
            };
            // Names are their authors' and may hold anything.
            let name = rule.name.escape_debug();
            let _ = writeln!(answer, "  {of}{name} ({}): {}", rule.group.escape_debug(), rule.why);
        }
        let more = rules.count().saturating_sub(MOST_NAMED);
        if more > 0 {
            let _ = writeln!(answer, "  and {more} more");
        }
    }
    let answer = answer.trim_end().to_owned();
    let note = match waiting.len() {
        0 => "no deletion waits".to_owned(),
        1 => "1 deletion waits; let it pass with rules guard confirm ID".to_owned(),
        many => format!("{many} deletions wait; let one pass with rules guard confirm ID"),
    };
    Said { answer, note: Some(note), exit_code }
}

fn view(Waiting { organisation, held, rows }: &Waiting) -> Value {
    let organisations: Vec<Value> = rows
        .iter()
        .map(|row| json!({ "organisation": row.organisation.as_str(), "rules": row.rules }))
        .collect();
    json!({
        "id": held.id,
        "organisation": organisation.as_ref().map(OrganisationId::as_str),
        "reason": held.reason,
        "vanishing": organisations,
    })
}

async fn confirm(engine: &Arc<Engine>, args: Confirm) -> Outcome {
    let Confirm { id, of } = args;
    let named = organisation(of.organisation.as_deref())?;
    let rows = match find(engine, &id, named.as_ref()).await {
        Ok(rows) => rows,
        Err(failed) => return failed,
    };
    let Some(first) = rows.first() else { return Err(not_there(&id, named.as_ref())) };
    let organisation = match named {
        Some(organisation) => Some(organisation),
        None if first.is_overall => None,
        None if rows.len() == 1 => Some(first.organisation.clone()),
        // Rules have one identifier in all organisations; a digest of what one says may be shared.
        None => return Err(format!("several organisations have a deletion {id}: --organisation")),
    };
    match engine.store().confirm_guard(organisation.clone(), id.clone(), BY.to_owned()).await {
        Ok(Confirmed::Noted) => Ok(match sync_finished(engine, organisation).await {
            Ok(done) => {
                let exit_code = exit_code(&done.outcome);
                Said { exit_code, ..said(&done, of.json) }
            }
            Err(failed) => failed,
        }),
        Ok(stale) => {
            let note = Some(stale_in_words(&id, &stale));
            Ok(Said { answer: String::new(), note, exit_code: 1 })
        }
        Err(error) => Ok(unavailable(error)),
    }
}

/// What is known of a deletion. One that `diff` has just shown is held back, and gets its name in the
/// database, by the next sync of its organisation: so that is asked for first.
async fn find(
    engine: &Arc<Engine>,
    id: &str,
    named: Option<&OrganisationId>,
) -> Result<Vec<GuardRow>, Outcome> {
    let store = engine.store();
    let failed = |error: StoreError| Ok(unavailable(error));
    let rows = store.guard_rows(id.to_owned(), named.cloned()).await.map_err(failed)?;
    let Some(one) = named.filter(|_| rows.is_empty()) else { return Ok(rows) };
    if let Some(other) = store.guard_rows(id.to_owned(), None).await.map_err(failed)?.first() {
        let whose = if other.is_overall {
            "is about many organisations: leave out --organisation".to_owned()
        } else {
            format!("is of organisation {}, not of {one}", other.organisation)
        };
        return Err(Err(format!("the deletion {id} {whose}")));
    }
    if !store.existing_organisations(vec![one.clone()]).await.map_err(failed)?.contains(one) {
        return Err(Err(no_such(one)));
    }
    sync_finished(engine, Some(one.clone())).await.map_err(Ok)?;
    store.guard_rows(id.to_owned(), named.cloned()).await.map_err(failed)
}

fn not_there(id: &str, named: Option<&OrganisationId>) -> String {
    let next = match named {
        Some(_) => "rules guard list shows those that wait",
        None => {
            "rules guard list shows those that wait; one that rules diff has just shown needs \
             --organisation ID"
        }
    };
    format!("there is no deletion {id:?}; {next}")
}

/// What a sync after a confirmation means to a script: whether the deletion was carried out. Rules that
/// are invalid are none of its business.
fn exit_code(outcome: &str) -> u8 {
    let outcome: Value = serde_json::from_str(outcome).unwrap_or_default();
    let count = |label: &str| outcome["outcomes"][label].as_u64().unwrap_or(0);
    if !outcome["guard"].is_null() || count("held") > 0 {
        // More is to vanish by now.
        1
    } else if count("failed") > 0 || !outcome["problem"].is_null() {
        EXIT_UNAVAILABLE
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Seen: 1, which is "it has grown", since any other rule of the organisation was invalid.
    #[test]
    fn the_exit_code_of_a_confirmation_is_about_the_deletion_alone() {
        for (outcome, code) in [
            (r#"{"outcomes":{"applied":1},"rules":{"synced":3,"invalid":1},"guard":null}"#, 0),
            (r#"{"outcomes":{"unchanged":1},"rules":{"pending":1}}"#, 0),
            (r#"{"outcomes":{"held":1},"guard":{"id":"a","reason":"b"}}"#, 1),
            (r#"{"outcomes":{"held":1}}"#, 1),
            (r#"{"outcomes":{"failed":1}}"#, 69),
            (r#"{"outcomes":{},"problem":"mimir is away"}"#, 69),
        ] {
            assert_eq!(exit_code(outcome), code, "{outcome}");
        }
    }

    #[test]
    fn a_deletion_that_is_not_there_yet_is_told_with_what_to_do() {
        assert!(not_there("a1", None).contains("--organisation ID"));
        let acme = OrganisationId::parse("acme").unwrap();
        assert!(!not_there("a1", Some(&acme)).contains("--organisation"));
    }
}
