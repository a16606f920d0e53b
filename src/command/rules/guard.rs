//! `rules guard list | confirm`

use std::fmt::Write as _;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::sync::{BY, said, sync_finished};
use super::{
    EXIT_UNAVAILABLE, Of, Outcome, Said, database_failed, no_such, organisation, reconciler,
};
use crate::config::RulesCommandConfig;
use crate::rules::{OutcomeKind, Reconciler, SyncOutcome, confirmation_text};
use crate::store::{Confirmed, GuardHeld, GuardRow, StoreError};
use crate::tenancy::OrganisationId;

/// List and confirm deletions that are held.
#[derive(Subcommand)]
pub enum Guard {
    /// List held deletions, with their IDs and the rules that would be deleted. The exit code is 1 if there
    /// are any.
    List(Of),
    /// Confirm a held deletion, and wait until it is done.
    Confirm(Confirm),
}

/// Confirm a held deletion, and wait until it is done.
#[derive(Args)]
pub struct Confirm {
    /// Its ID, as `rules guard list` shows it.
    id: String,
    #[command(flatten)]
    of: Of,
}

/// The number of rules that are named for each deletion.
const MOST_NAMED: usize = 20;

pub(super) async fn guard(config: &RulesCommandConfig, guard: Guard) -> Outcome {
    let reconciler = reconciler(config)?;
    match guard {
        Guard::List(of) => {
            let only = organisation(of.organisation.as_deref())?;
            if let Some(one) = &only {
                match reconciler.store().existing_organisations(vec![one.clone()]).await {
                    Ok(existing) if existing.contains(one) => {}
                    Ok(_) => return Err(no_such(one)),
                    Err(error) => return database_failed(&error),
                }
            }
            match waiting(&reconciler, only.as_ref()).await {
                Ok(waiting) => Ok(list(&waiting, of.json)),
                Err(error) => database_failed(&error),
            }
        }
        Guard::Confirm(args) => confirm(&reconciler, args).await,
    }
}

/// A held deletion, of one organisation or of many.
struct Waiting {
    organisation: Option<OrganisationId>,
    held: GuardHeld,
    rows: Vec<GuardRow>,
}

async fn waiting(
    reconciler: &Reconciler,
    only: Option<&OrganisationId>,
) -> Result<Vec<Waiting>, StoreError> {
    let store = reconciler.store();
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
            // Authors choose names, which may contain anything.
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
        0 => "no deletion is held".to_owned(),
        1 => "1 deletion is held; confirm it with rules guard confirm ID".to_owned(),
        many => format!("{many} deletions are held; confirm one with rules guard confirm ID"),
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

async fn confirm(reconciler: &Arc<Reconciler>, args: Confirm) -> Outcome {
    let Confirm { id, of } = args;
    let named = organisation(of.organisation.as_deref())?;
    let rows = match find(reconciler, &id, named.as_ref()).await {
        Ok(rows) => rows,
        Err(failed) => return failed,
    };
    let Some(first) = rows.first() else { return Err(not_there(&id, named.as_ref())) };
    let organisation = match named {
        Some(organisation) => Some(organisation),
        None if first.is_overall => None,
        None if rows.len() == 1 => Some(first.organisation.clone()),
        // A row's ID is unique, but the digest of an unknown rule may occur in several organisations.
        None => {
            return Err(format!("several organisations have a deletion {id}: give --organisation"));
        }
    };
    match reconciler.store().confirm_guard(organisation.clone(), id.clone(), BY.to_owned()).await {
        Ok(Confirmed::Noted) => match sync_finished(reconciler, organisation).await {
            Ok(done) => {
                let outcome = SyncOutcome::from_json(&done.outcome).unwrap_or_default();
                let exit_code = exit_code(&outcome);
                Ok(Said { exit_code, ..said(&done, of.json) })
            }
            Err(failed) => failed,
        },
        Ok(stale) => {
            let note = Some(confirmation_text(&id, &stale));
            Ok(Said { answer: String::new(), note, exit_code: 1 })
        }
        Err(error) => database_failed(&error),
    }
}

/// Finds a deletion by its ID. One that `rules diff` has just shown is recorded by the next sync of its
/// organisation, so that sync is requested first.
async fn find(
    reconciler: &Arc<Reconciler>,
    id: &str,
    named: Option<&OrganisationId>,
) -> Result<Vec<GuardRow>, Outcome> {
    let store = reconciler.store();
    let failed = |error: StoreError| database_failed(&error);
    let rows = store.guard_rows(id.to_owned(), named.cloned()).await.map_err(failed)?;
    let Some(one) = named.filter(|_| rows.is_empty()) else { return Ok(rows) };
    if let Some(other) = store.guard_rows(id.to_owned(), None).await.map_err(failed)?.first() {
        let whose = if other.is_overall {
            "belongs to many organisations: leave out --organisation".to_owned()
        } else {
            format!("belongs to organisation {}, not to {one}", other.organisation)
        };
        return Err(Err(format!("the deletion {id} {whose}")));
    }
    if !store.existing_organisations(vec![one.clone()]).await.map_err(failed)?.contains(one) {
        return Err(Err(no_such(one)));
    }
    sync_finished(reconciler, Some(one.clone())).await?;
    store.guard_rows(id.to_owned(), named.cloned()).await.map_err(failed)
}

fn not_there(id: &str, named: Option<&OrganisationId>) -> String {
    let next = match named {
        Some(_) => "rules guard list shows held deletions",
        None => {
            "rules guard list shows held deletions; one that only rules diff has shown needs \
             --organisation ID"
        }
    };
    format!("deletion {id:?} not found; {next}")
}

/// The exit code of a confirmation: whether the deletion was done. Invalid rules do not matter here.
fn exit_code(outcome: &SyncOutcome) -> u8 {
    if outcome.guard.is_some() || outcome.count(OutcomeKind::Held) > 0 {
        // More rules would be deleted by now.
        1
    } else if outcome.count(OutcomeKind::Failed) > 0 || outcome.problem.is_some() {
        EXIT_UNAVAILABLE
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Seen: 1, which means that the deletion has grown, because another rule was invalid.
    #[test]
    fn the_exit_code_of_a_confirmation_is_about_the_deletion_alone() {
        for (outcome, code) in [
            (r#"{"outcomes":{"applied":1},"rules":{"live":3,"invalid":1},"guard":null}"#, 0),
            (r#"{"outcomes":{"unchanged":1},"rules":{"pending":1}}"#, 0),
            (r#"{"outcomes":{"held":1},"guard":{"id":"a","reason":"b"}}"#, 1),
            (r#"{"outcomes":{"held":1}}"#, 1),
            (r#"{"outcomes":{"failed":1}}"#, 69),
            (r#"{"outcomes":{},"problem":"mimir is away"}"#, 69),
        ] {
            let read = SyncOutcome::from_json(outcome).unwrap();
            assert_eq!(exit_code(&read), code, "{outcome}");
        }
    }

    #[test]
    fn an_unknown_deletion_is_answered_with_what_to_do() {
        assert!(not_there("a1", None).contains("--organisation ID"));
        let acme = OrganisationId::parse("acme").unwrap();
        assert!(!not_there("a1", Some(&acme)).contains("--organisation"));
    }
}
