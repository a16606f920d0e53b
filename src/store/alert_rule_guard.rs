//! Holds of the deletion guard: which rules would be deleted, and what an administrator has
//! confirmed.
//!
//! A hold's id is derived from the rules that would be deleted and nothing else, so that it stays the
//! same whatever else changes. The rules are stored with it: a confirmation also covers a deletion of
//! only some of them.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::{Store, StoreError, statement};
use crate::tenancy::OrganisationId;

/// A hold that waits for an administrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardHeld {
    /// What is to be confirmed.
    pub id: String,
    /// What would be deleted, in words.
    pub reason: String,
}

/// A rule that would be deleted from Mimir.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRule {
    /// Its row's identifier, or a digest of its content if no row is known.
    pub key: String,
    pub name: String,
    /// The group that it is in now.
    pub group: String,
    /// Why it would be deleted, in words.
    pub why: String,
}

/// What a hold would delete of one organisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardRow {
    pub id: String,
    pub organisation: OrganisationId,
    /// Whether the hold spans organisations.
    pub is_overall: bool,
    pub rules: Vec<HeldRule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confirmed {
    Noted,
    /// There is no such hold, or it was long ago.
    Unknown,
    /// The hold is over.
    Ended,
    /// More would be deleted by now than the named hold would.
    Grown {
        current: GuardHeld,
        /// What it deletes beyond the named one.
        more: Vec<HeldRule>,
    },
}

/// A row as it is written.
struct GuardText {
    id: String,
    organisation: OrganisationId,
    is_overall: bool,
    /// JSON.
    rules: String,
}

impl GuardText {
    fn of(row: GuardRow) -> Self {
        let GuardRow { id, organisation, is_overall, rules } = row;
        // Postgres accepts no NUL, not in JSON either.
        let rules = serde_json::to_string(&rules).unwrap_or_default().replace("\\u0000", "\\ufffd");
        Self { id, organisation, is_overall, rules }
    }
}

/// Bytes of rules in one statement, unless a single row has more. A hold of all rules may have a hundred megabytes,
/// and a statement has to pass within a query's time.
const MOST_BYTES: usize = 1 << 20;

/// How many of these rows, from the first, go into one statement.
fn fitting(rows: &[GuardText]) -> usize {
    let mut bytes = 0;
    let fit = rows.iter().take_while(|row| {
        bytes += row.rules.len();
        bytes <= MOST_BYTES
    });
    fit.count().max(1)
}

/// Rows that one statement reads or confirms, of which it reads at least one and else [`MOST_READ`].
const PIECE: usize = 500;
/// Bytes as they are stored, which may be compressed.
const MOST_READ: usize = 1 << 19;

/// A confirmation ends: the same deletion, months later, is not confirmed by it.
const IS_CONFIRMED: &str = "confirmed_at > now() - interval '15 minutes'";

impl Store {
    /// Writes holds. An existing confirmation stays.
    pub async fn write_guards(&self, guards: Vec<GuardRow>) -> Result<(), StoreError> {
        let mut left: Vec<GuardText> = guards.into_iter().map(GuardText::of).collect();
        while !left.is_empty() {
            let after = left.split_off(fitting(&left));
            self.write_guard_batch(std::mem::replace(&mut left, after)).await?;
        }
        Ok(())
    }

    async fn write_guard_batch(&self, guards: Vec<GuardText>) -> Result<(), StoreError> {
        let sql = format!(
            "insert into {} (id, organisation_id, overall, rules) \
             select id, organisation, overall, rules::jsonb \
             from unnest($1::text[], $2::text[], $3::boolean[], $4::text[]) \
                  as new(id, organisation, overall, rules) \
             on conflict (id, organisation_id) do update set rules = excluded.rules, \
             overall = excluded.overall, held_at = now()",
            self.own("alert_rule_guard")
        );
        let (mut ids, mut organisations) = (Vec::new(), Vec::new());
        let (mut are_overall, mut rules) = (Vec::new(), Vec::new());
        for guard in guards {
            ids.push(guard.id);
            organisations.push(guard.organisation.to_string());
            are_overall.push(guard.is_overall);
            rules.push(guard.rules);
        }
        let query = statement(sql).bind(ids).bind(organisations).bind(are_overall).bind(rules);
        self.execute(query).await
    }

    /// The keys of an organisation's rules whose deletion is confirmed now.
    pub async fn confirmed_deletions_of(
        &self,
        organisation: OrganisationId,
    ) -> Result<HashSet<String>, StoreError> {
        let mut all = self.read_confirmed(Some(organisation.clone())).await?;
        Ok(all.remove(&organisation).unwrap_or_default())
    }

    /// The same for every organisation with a confirmation.
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
        self.read_keys(condition, vec![only]).await
    }

    /// The keys of all rules of a hold, by organisation.
    pub async fn held_keys(
        &self,
        id: String,
    ) -> Result<HashMap<OrganisationId, HashSet<String>>, StoreError> {
        self.read_keys("id = $1".to_owned(), vec![Some(id)]).await
    }

    async fn read_keys(
        &self,
        condition: String,
        values: Vec<Option<String>>,
    ) -> Result<HashMap<OrganisationId, HashSet<String>>, StoreError> {
        let mut all: HashMap<OrganisationId, HashSet<String>> = HashMap::new();
        let keep = |row: GuardRow| {
            let keys = row.rules.into_iter().map(|rule| rule.key);
            all.entry(row.organisation).or_default().extend(keys);
        };
        self.read_guards(condition, values, keep).await?;
        Ok(all)
    }

    /// The rows of a hold, of one organisation or of all.
    pub async fn guard_rows(
        &self,
        id: String,
        organisation: Option<OrganisationId>,
    ) -> Result<Vec<GuardRow>, StoreError> {
        let condition = "id = $1 and ($2::text is null or organisation_id = $2)".to_owned();
        let organisation = organisation.map(|organisation| organisation.to_string());
        let mut rows = Vec::new();
        self.read_guards(condition, vec![Some(id), organisation], |row| rows.push(row)).await?;
        Ok(rows)
    }

    /// The holds of single organisations, with their rules.
    pub async fn waiting_guards(&self) -> Result<Vec<GuardRow>, StoreError> {
        let condition = format!(
            "exists (select from {} as sync where sync.guard_id = held.id \
             and sync.organisation_id = held.organisation_id)",
            self.own("alert_rule_sync")
        );
        let mut rows = Vec::new();
        self.read_guards(condition, Vec::new(), |row| rows.push(row)).await?;
        Ok(rows)
    }

    /// Reads holds in pieces: one of all organisations may have a hundred megabytes, which no statement reads in the
    /// time of a query.
    async fn read_guards(
        &self,
        condition: String,
        values: Vec<Option<String>>,
        mut each: impl FnMut(GuardRow),
    ) -> Result<(), StoreError> {
        // What is stored outside its row is not fetched to know its size.
        let (organisation, id) = (values.len() + 1, values.len() + 2);
        let sql = format!(
            "select id, organisation_id, overall, rules::text as rules from \
             (select *, sum(size) over (order by organisation_id, id) - size as before from \
             (select id, organisation_id, overall, rules, pg_column_size(rules) as size from {} as held \
             where {condition} and (organisation_id, id) > (${organisation}, ${id}) \
             order by organisation_id, id limit {PIECE}) as next) as piece \
             where before < {MOST_READ} order by organisation_id, id",
            self.own("alert_rule_guard")
        );
        let mut last = (String::new(), String::new());
        loop {
            let query =
                values.iter().cloned().fold(statement(sql.clone()), sqlx::query::Query::bind);
            let query = query.bind(last.0).bind(last.1);
            let piece: Vec<GuardRow> = self
                .fetch(query, |rows| {
                    rows.iter().map(|row| read_row(row).map_err(StoreError::from)).collect()
                })
                .await?;
            let Some(end) = piece.last() else { return Ok(()) };
            last = (end.organisation.to_string(), end.id.clone());
            piece.into_iter().for_each(&mut each);
        }
    }

    /// Ends an organisation's confirmations: they were carried out, or are no longer needed.
    pub async fn end_confirmations(&self, organisation: OrganisationId) -> Result<(), StoreError> {
        let sql = format!(
            "update {} set confirmed_at = null where organisation_id = $1 and confirmed_at is not null",
            self.own("alert_rule_guard")
        );
        let query = statement(sql).bind(organisation.to_string());
        self.execute(query).await
    }

    /// Confirms a hold, of one organisation or of many, unless more would be deleted by now.
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
            "update {} set confirmed_by = $2, confirmed_at = now() where id = $1 and organisation_id = any($3)",
            self.own("alert_rule_guard")
        );
        let whose: Vec<String> = named.iter().map(|row| row.organisation.to_string()).collect();
        for some in whose.chunks(PIECE) {
            let query = statement(sql.clone()).bind(id.clone()).bind(by.clone());
            self.execute(query.bind(some.to_vec())).await?;
        }
        Ok(Confirmed::Noted)
    }
}

/// The rules of a hold that are not in another.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_hold_is_written_in_parts_and_a_large_row_alone() {
        let row = |bytes: usize| GuardText {
            id: "hold".to_owned(),
            organisation: OrganisationId::parse("acme").unwrap(),
            is_overall: true,
            rules: "x".repeat(bytes),
        };
        let half = MOST_BYTES / 2;
        assert_eq!(fitting(&[row(half), row(half), row(1)]), 2);
        assert_eq!(fitting(&[row(MOST_BYTES + 1), row(1)]), 1);
        assert_eq!(fitting(&[row(1), row(MOST_BYTES), row(1)]), 1);
    }
}
