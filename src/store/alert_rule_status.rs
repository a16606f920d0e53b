//! The status of each alert rule. Only the leader writes it; the organisation's members read it.

use std::collections::{HashMap, HashSet};

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use strum::VariantArray as _;
use time::OffsetDateTime;
use uuid::Uuid;

use super::alert_rule_versions::{RowVersions, STATUS_HASH};
use super::{Store, StoreError, moment, statement, storable};
use crate::labels::RuleState;
use crate::tenancy::OrganisationId;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleStatusRow {
    pub rule: Uuid,
    pub organisation: OrganisationId,
    pub state: RuleState,
    /// Why it is not live, in words for its author.
    pub reason: String,
    /// The version that Mimir has, if it has any.
    pub rule_hash: Option<String>,
    /// Other versions that Mimir has, or may have: a move of the rule was broken off.
    pub other_hashes: Vec<String>,
    /// The hash of what Mimir has refused, if it is that.
    pub refused_hash: Option<String>,
    /// Since when Mimir has it. The database sets it.
    pub synced_at: Option<OffsetDateTime>,
    /// The last evaluation of this version that is known of, in whole seconds. It may be some minutes behind.
    pub evaluated_at: Option<OffsetDateTime>,
    /// Whether its alerts reach a notification channel; none if that is not known.
    pub notifies: Option<bool>,
}

/// Rows in one statement.
const BATCH: usize = 1000;
/// Bytes of texts in one statement, unless a single row has more: it has to pass within a query's time.
const MOST_BYTES: usize = 1 << 20;
/// Characters of a reason that are kept.
const MOST_REASON: usize = 4000;

/// Rows as they go into statements: each takes [`BATCH`] of them at most, and [`MOST_BYTES`] of texts unless a single
/// row has more.
pub(super) fn pieces<T>(rows: &[T], bytes_of: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let (mut pieces, mut left) = (Vec::new(), rows);
    while !left.is_empty() {
        let mut bytes = 0;
        let fit = left.iter().take(BATCH).take_while(|&row| {
            bytes += bytes_of(row);
            bytes <= MOST_BYTES
        });
        let (piece, rest) = left.split_at(fit.count().max(1));
        pieces.push(piece);
        left = rest;
    }
    pieces
}

/// What is kept of a reason.
fn kept(reason: &str) -> &str {
    let end = reason.char_indices().nth(MOST_REASON).map_or(reason.len(), |(at, _)| at);
    &reason[..end]
}

fn bytes_of(row: &RuleStatusRow) -> usize {
    let hashes = row.rule_hash.iter().chain(&row.refused_hash).chain(&row.other_hashes);
    kept(&row.reason).len() + hashes.map(String::len).sum::<usize>()
}

impl Store {
    /// The statuses of some organisations' rules.
    pub async fn rule_statuses_of(
        &self,
        organisations: Vec<OrganisationId>,
    ) -> Result<Vec<RuleStatusRow>, StoreError> {
        let rows = self.versioned_rule_statuses_of(organisations).await?;
        Ok(rows.into_iter().map(|(row, _)| row).collect())
    }

    /// The same, each with what it adds to its organisation's versions.
    pub async fn versioned_rule_statuses_of(
        &self,
        organisations: Vec<OrganisationId>,
    ) -> Result<Vec<(RuleStatusRow, RowVersions)>, StoreError> {
        let names: Vec<String> = organisations.iter().map(ToString::to_string).collect();
        let sql = format!(
            "select rule_id, organisation_id, state, reason, rule_hash, other_hashes, refused_hash, notifies, {}, {}, {STATUS_HASH} as version \
             from {} as status where organisation_id = any($1)",
            moment::select("synced_at"),
            moment::select("evaluated_at"),
            self.own("alert_rule_status")
        );
        self.fetch(statement(sql).bind(names), |rows| {
            let read = |row: &PgRow| {
                let version = RowVersions::of_row(row.try_get("version").ok()?);
                Some((read_status(row).ok().flatten()?, version))
            };
            Ok(rows.iter().filter_map(read).collect())
        })
        .await
    }

    /// Writes the statuses of rules, and forgets those of rules that are gone. Gives the organisations
    /// whose they were before, where that has changed: a rule may move.
    pub async fn write_rule_statuses(
        &self,
        written: Vec<RuleStatusRow>,
        gone: Vec<(OrganisationId, Uuid)>,
    ) -> Result<HashSet<OrganisationId>, StoreError> {
        let mut before = HashSet::new();
        for batch in pieces(&written, bytes_of) {
            before.extend(self.write_status_batch(batch).await?);
        }
        // A rule that moved is another organisation's by now.
        let sql = format!(
            "delete from {} using unnest($1::text[], $2::uuid[]) as gone(organisation, rule) \
             where organisation_id = organisation and rule_id = rule",
            self.own("alert_rule_status")
        );
        for batch in gone.chunks(BATCH) {
            let columns =
                batch.iter().map(|(organisation, rule)| (organisation.to_string(), *rule));
            let (organisations, rules): (Vec<String>, Vec<Uuid>) = columns.unzip();
            self.execute(statement(sql.clone()).bind(organisations).bind(rules)).await?;
        }
        Ok(before)
    }

    async fn write_status_batch(
        &self,
        batch: &[RuleStatusRow],
    ) -> Result<Vec<OrganisationId>, StoreError> {
        // What Mimir has it has since then, until it has another version.
        let sql = format!(
            "with new as (select * from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::timestamptz[], $9::boolean[]) \
                  as new(rule, organisation, state, reason, hash, refused, others, evaluated, notifies)), \
             before as (select distinct status.organisation_id from {table} as status join new \
                  on new.rule = status.rule_id and new.organisation <> status.organisation_id), \
             written as (insert into {table} as kept (rule_id, organisation_id, state, reason, rule_hash, refused_hash, other_hashes, evaluated_at, notifies, synced_at) \
             select rule, organisation, state, reason, hash, refused, others, evaluated, new.notifies, \
                 case when hash is null then null else now() end \
             from new on conflict (rule_id) do update set \
                 organisation_id = excluded.organisation_id, state = excluded.state, \
                 reason = excluded.reason, rule_hash = excluded.rule_hash, \
                 refused_hash = excluded.refused_hash, \
                 other_hashes = excluded.other_hashes, evaluated_at = excluded.evaluated_at, \
                 notifies = excluded.notifies, updated_at = now(), \
                 synced_at = case when kept.rule_hash is not distinct from excluded.rule_hash \
                             then kept.synced_at else excluded.synced_at end) \
             select organisation_id from before",
            table = self.own("alert_rule_status")
        );
        let column =
            |of: fn(&RuleStatusRow) -> String| -> Vec<String> { batch.iter().map(of).collect() };
        let hashes: Vec<Option<String>> = batch.iter().map(|row| row.rule_hash.clone()).collect();
        let refused: Vec<Option<String>> =
            batch.iter().map(|row| row.refused_hash.clone()).collect();
        let others: Vec<String> = batch.iter().map(|row| row.other_hashes.join(" ")).collect();
        let query = statement(sql)
            .bind(batch.iter().map(|row| row.rule).collect::<Vec<Uuid>>())
            .bind(column(|row| row.organisation.to_string()))
            .bind(column(|row| row.state.name().to_owned()))
            .bind(column(|row| storable(kept(&row.reason))))
            .bind(hashes)
            .bind(refused)
            .bind(others)
            .bind(batch.iter().map(|row| row.evaluated_at).collect::<Vec<_>>())
            .bind(batch.iter().map(|row| row.notifies).collect::<Vec<_>>());
        self.fetch(query, |rows| {
            let names = rows.iter().filter_map(|row| row.try_get("organisation_id").ok());
            Ok(names.filter_map(|name| OrganisationId::parse(name).ok()).collect())
        })
        .await
    }

    /// The statuses of some organisations' rules, by rule.
    pub async fn rule_statuses_by_rule(
        &self,
        organisation: OrganisationId,
    ) -> Result<HashMap<Uuid, RuleStatusRow>, StoreError> {
        let rows = self.rule_statuses_of(vec![organisation]).await?;
        Ok(rows.into_iter().map(|row| (row.rule, row)).collect())
    }
}

fn read_status(row: &PgRow) -> Result<Option<RuleStatusRow>, sqlx::Error> {
    let organisation = OrganisationId::parse(row.try_get("organisation_id")?).ok();
    let name: &str = row.try_get("state")?;
    let state = RuleState::VARIANTS.iter().copied().find(|state| state.name() == name);
    let (Some(organisation), Some(state)) = (organisation, state) else { return Ok(None) };
    let others: &str = row.try_get("other_hashes")?;
    Ok(Some(RuleStatusRow {
        rule: row.try_get("rule_id")?,
        organisation,
        state,
        reason: row.try_get("reason")?,
        rule_hash: row.try_get("rule_hash")?,
        other_hashes: others.split_whitespace().map(str::to_owned).collect(),
        refused_hash: row.try_get("refused_hash")?,
        synced_at: moment::shown(row.try_get("synced_at")?),
        evaluated_at: moment::shown(row.try_get("evaluated_at")?),
        notifies: row.try_get("notifies")?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(rows: &[usize]) -> Vec<usize> {
        pieces(rows, |bytes| *bytes).into_iter().map(<[usize]>::len).collect()
    }

    // 1,000 reasons of 4,000 characters were one statement of many megabytes, which took longer than a query may.
    #[test]
    fn a_statement_has_so_many_rows_and_so_many_bytes() {
        let half = MOST_BYTES / 2;
        assert_eq!(sizes(&[]), [0; 0]);
        assert_eq!(sizes(&[0; 2 * BATCH + 1]), [BATCH, BATCH, 1]);
        assert_eq!(sizes(&[half, half, 1, half, half]), [2, 2, 1]);
        assert_eq!(sizes(&[1, MOST_BYTES + 1, 1]), [1, 1, 1]);
        let pieces = pieces(&[half, 3, half, half], |bytes| *bytes).concat();
        assert_eq!(pieces, [half, 3, half, half], "all of them, in their order");
    }

    #[test]
    fn of_a_reason_whole_characters_are_kept() {
        let long = "ß".repeat(MOST_REASON);
        for (reason, whole) in [("", ""), ("short", "short"), (&*long, &*long)] {
            assert_eq!(kept(reason), whole);
        }
        assert_eq!(kept(&format!("{long}x")), long);
    }
}
