//! `rules guard list | confirm`

use std::fmt::Write as _;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::sync::{BY, sync_now};
use super::{Of, Outcome, Said, engine, no_such, organisation, unavailable};
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
    let store = engine.store();
    let named = organisation(of.organisation.as_deref())?;
    let rows = match store.guard_rows(id.clone(), named.clone()).await {
        Ok(rows) => rows,
        Err(error) => return Ok(unavailable(error)),
    };
    let Some(first) = rows.first() else {
        return Err(format!("there is no deletion {id:?}; rules guard list shows those that wait"));
    };
    let organisation = match named {
        Some(organisation) => Some(organisation),
        None if first.is_overall => None,
        None if rows.len() == 1 => Some(first.organisation.clone()),
        // Rules have one identifier in all organisations; a digest of what one says may be shared.
        None => return Err(format!("several organisations have a deletion {id}: --organisation")),
    };
    match store.confirm_guard(organisation.clone(), id.clone(), BY.to_owned()).await {
        Ok(Confirmed::Noted) => Ok(sync_now(engine, organisation, of.json).await),
        Ok(stale) => {
            let note = Some(stale_in_words(&id, &stale));
            Ok(Said { answer: String::new(), note, exit_code: 1 })
        }
        Err(error) => Ok(unavailable(error)),
    }
}
