//! Deletions of alert rules that the guard holds back: which rules would vanish, and what an
//! administrator has confirmed.
//!
//! A deletion is named after the rules that would vanish and nothing else, so that it keeps its
//! name whatever else changes, and another one has another. The rules are kept with it: a
//! confirmation also covers a deletion of some of them.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::{Store, StoreError, statement};
use crate::tenancy::OrganisationId;

/// A deletion that waits for an administrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardHeld {
    /// What is to be confirmed: another deletion has another one.
    pub id: String,
    /// What would be deleted, in words.
    pub reason: String,
}

/// A rule that would vanish from Mimir.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRule {
    /// What it is known by: its row's identifier, or a digest of what it says if no row is known.
    pub key: String,
    pub name: String,
    /// The group that it is in now.
    pub group: String,
    /// Why it would vanish, in words.
    pub why: String,
}

/// What would vanish of one organisation by a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardRow {
    pub id: String,
    pub organisation: OrganisationId,
    /// Whether it is a deletion in many organisations.
    pub is_overall: bool,
    pub rules: Vec<HeldRule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confirmed {
    Noted,
    /// There never was such a deletion, or it was long ago.
    Unknown,
    /// It was held back once; nothing waits any more.
    Ended,
    /// More would vanish by now than by the deletion that was named.
    Grown {
        current: GuardHeld,
        /// What it deletes beyond the one that was named.
        more: Vec<HeldRule>,
    },
}

/// A confirmation counts for a while: the same deletion, months later, is not confirmed by it.
const IS_CONFIRMED: &str = "confirmed_at > now() - interval '15 minutes'";

impl Store {
    /// Notes which rules some deletions are about. A confirmation that is there stays.
    pub async fn write_guards(&self, guards: Vec<GuardRow>) -> Result<(), StoreError> {
        let sql = format!(
            "insert into {} (id, organisation_id, overall, rules) \
             select id, organisation, overall, rules::jsonb \
             from unnest($1::text[], $2::text[], $3::boolean[], $4::text[]) \
                  as new(id, organisation, overall, rules) \
             on conflict (id, organisation_id) do update set rules = excluded.rules, \
             overall = excluded.overall, held_at = now()",
            self.own("alert_rule_guard")
        );
        let text = |of: fn(&GuardRow) -> String| guards.iter().map(of).collect::<Vec<String>>();
        let rules = |row: &GuardRow| {
            // Postgres takes no NUL, in JSON neither.
            serde_json::to_string(&row.rules).unwrap_or_default().replace("\\u0000", "\\ufffd")
        };
        let query = statement(sql)
            .bind(text(|row| row.id.clone()))
            .bind(text(|row| row.organisation.to_string()))
            .bind(guards.iter().map(|row| row.is_overall).collect::<Vec<bool>>())
            .bind(guards.iter().map(rules).collect::<Vec<String>>());
        self.execute(query).await
    }

    /// The rules of an organisation, by their keys, whose deletion is confirmed at the moment.
    pub async fn confirmed_deletions_of(
        &self,
        organisation: OrganisationId,
    ) -> Result<HashSet<String>, StoreError> {
        let mut all = self.read_confirmed(Some(organisation.clone())).await?;
        Ok(all.remove(&organisation).unwrap_or_default())
    }

    /// The same for every organisation of which anything is confirmed.
    pub async fn confirmed_deletions(
        &self,
    ) -> Result<HashMap<OrganisationId, HashSet<String>>, StoreError> {
        self.read_confirmed(None).await
    }

    async fn read_confirmed(
        &self,
        only: Option<OrganisationId>,
    ) -> Result<HashMap<OrganisationId, HashSet<String>>, StoreError> {
        let condition = format!("{IS_CONFIRMED} and ($1::text is null or organisation_id = $1)");
        let only = only.map(|organisation| organisation.to_string());
        let mut confirmed: HashMap<OrganisationId, HashSet<String>> = HashMap::new();
        for row in self.read_guards(condition, vec![only]).await? {
            let keys = row.rules.into_iter().map(|rule| rule.key);
            confirmed.entry(row.organisation).or_default().extend(keys);
        }
        Ok(confirmed)
    }

    /// What a deletion is about, of one organisation or of all.
    pub async fn guard_rows(
        &self,
        id: String,
        organisation: Option<OrganisationId>,
    ) -> Result<Vec<GuardRow>, StoreError> {
        let condition = "id = $1 and ($2::text is null or organisation_id = $2)".to_owned();
        let organisation = organisation.map(|organisation| organisation.to_string());
        self.read_guards(condition, vec![Some(id), organisation]).await
    }

    /// The deletions of single organisations that wait, with their rules.
    pub async fn waiting_guards(&self) -> Result<Vec<GuardRow>, StoreError> {
        let condition = format!(
            "exists (select from {} as sync where sync.guard_id = held.id \
             and sync.organisation_id = held.organisation_id)",
            self.own("alert_rule_sync")
        );
        self.read_guards(condition, Vec::new()).await
    }

    async fn read_guards(
        &self,
        condition: String,
        values: Vec<Option<String>>,
    ) -> Result<Vec<GuardRow>, StoreError> {
        let sql = format!(
            "select id, organisation_id, overall, rules::text as rules from {} as held \
             where {condition} order by organisation_id, id",
            self.own("alert_rule_guard")
        );
        let query = values.into_iter().fold(statement(sql), |query, value| query.bind(value));
        self.fetch(query, |rows| {
            rows.iter().map(|row| read_row(row).map_err(StoreError::from)).collect()
        })
        .await
    }

    /// What was confirmed of an organisation has been carried out, or there is no need to any more.
    pub async fn end_confirmations(&self, organisation: OrganisationId) -> Result<(), StoreError> {
        let sql = format!(
            "update {} set confirmed_at = null where organisation_id = $1 and confirmed_at is not null",
            self.own("alert_rule_guard")
        );
        let query = statement(sql).bind(organisation.to_string());
        self.execute(query).await
    }

    /// Notes that an administrator confirms a deletion, of one organisation or of many, unless more
    /// would vanish by now.
    pub async fn confirm_guard(
        &self,
        organisation: Option<OrganisationId>,
        id: String,
        by: String,
    ) -> Result<Confirmed, StoreError> {
        let mut named = self.guard_rows(id.clone(), organisation.clone()).await?;
        if organisation.is_none() {
            named.retain(|row| row.is_overall);
        }
        if named.is_empty() {
            return Ok(Confirmed::Unknown);
        }
        let current = match &organisation {
            Some(one) => self.rule_sync_of(one.clone()).await?.and_then(|sync| sync.guard),
            None => self.rule_leader().await?.guard,
        };
        let Some(current) = current else { return Ok(Confirmed::Ended) };
        if current.id != id {
            let waiting = self.guard_rows(current.id.clone(), organisation.clone()).await?;
            let more = beyond(waiting, &named);
            if !more.is_empty() {
                return Ok(Confirmed::Grown { current, more });
            }
        }
        let sql = format!(
            "update {} set confirmed_by = $2, confirmed_at = now() \
             where id = $1 and ($3::text is null or organisation_id = $3)",
            self.own("alert_rule_guard")
        );
        let query = statement(sql)
            .bind(id)
            .bind(by)
            .bind(organisation.map(|organisation| organisation.to_string()));
        self.execute(query).await?;
        Ok(Confirmed::Noted)
    }
}

/// The rules of a deletion that are not among those of another.
fn beyond(waiting: Vec<GuardRow>, named: &[GuardRow]) -> Vec<HeldRule> {
    let keys = |row: &GuardRow| {
        let organisation = row.organisation.clone();
        let keys: Vec<_> = row.rules.iter().map(|rule| rule.key.clone()).collect();
        keys.into_iter().map(move |key| (organisation.clone(), key))
    };
    let named: HashSet<(OrganisationId, String)> = named.iter().flat_map(keys).collect();
    let waiting = waiting.into_iter().flat_map(|row| {
        let organisation = row.organisation;
        row.rules.into_iter().map(move |rule| (organisation.clone(), rule))
    });
    let more = waiting
        .filter(|(organisation, rule)| !named.contains(&(organisation.clone(), rule.key.clone())));
    more.map(|(_, rule)| rule).collect()
}

fn read_row(row: &PgRow) -> Result<GuardRow, sqlx::Error> {
    let wrong = |error: String| sqlx::Error::Decode(error.into());
    let organisation: &str = row.try_get("organisation_id")?;
    let rules: &str = row.try_get("rules")?;
    Ok(GuardRow {
        id: row.try_get("id")?,
        organisation: OrganisationId::parse(organisation)
            .map_err(|error| wrong(error.to_string()))?,
        is_overall: row.try_get("overall")?,
        rules: serde_json::from_str(rules).map_err(|error| wrong(error.to_string()))?,
    })
}

pub(super) fn read_guard(row: &PgRow) -> Result<Option<GuardHeld>, sqlx::Error> {
    let id: Option<String> = row.try_get("guard_id")?;
    let reason = row.try_get("guard_reason")?;
    Ok(id.map(|id| GuardHeld { id, reason }))
}
