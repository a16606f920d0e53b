//! The state of the sync for each organisation. Only the leader writes it; administrators read it.

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::alert_rule_guard::{GuardHeld, read_guard};
use super::alert_rule_status::pieces;
use super::organisations::spellings;
use super::{Store, StoreError, Tombstones, moment, queries, statement, storable};
use crate::tenancy::OrganisationId;

/// The state of one organisation's sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncRow {
    pub organisation: OrganisationId,
    pub tenant: String,
    /// Rules that Mimir has and has not been seen to evaluate.
    pub stored: usize,
    /// Rules that Mimir has and evaluates.
    pub live: usize,
    /// Rules that Mimir has and does not evaluate, or without success.
    pub failing: usize,
    /// Enabled rules that Mimir does not have.
    pub not_in_mimir: usize,
    /// The last write to Mimir.
    pub synced_at: Option<OffsetDateTime>,
    /// What is wrong; empty if nothing is.
    pub problem: String,
    pub problem_since: Option<OffsetDateTime>,
    /// Since when the organisation itself is gone.
    pub absent_since: Option<OffsetDateTime>,
    pub guard: Option<GuardHeld>,
    pub guard_since: Option<OffsetDateTime>,
    /// A limit that Mimir has shown by refusing something: it does not publish all of them.
    pub shown_rules_per_group: Option<usize>,
    /// The same, of groups.
    pub shown_groups: Option<usize>,
}

impl SyncRow {
    /// Of an organisation of which nothing is known yet.
    pub fn new(organisation: &OrganisationId) -> Self {
        Self {
            organisation: organisation.clone(),
            tenant: String::new(),
            stored: 0,
            live: 0,
            failing: 0,
            not_in_mimir: 0,
            synced_at: None,
            problem: String::new(),
            problem_since: None,
            absent_since: None,
            guard: None,
            guard_since: None,
            shown_rules_per_group: None,
            shown_groups: None,
        }
    }

    /// The number of rules that Mimir has as their rows say.
    pub fn in_mimir(&self) -> usize {
        self.stored + self.live + self.failing
    }
}

/// Rows that one statement reads: a problem or a hold of each has some thousand characters.
const MOST_READ: usize = 1000;
/// Rows that one statement deletes: a statement has `database.query_timeout`.
pub(super) const MOST_DELETED: usize = 2000;

impl Store {
    pub(super) fn own(&self, name: &str) -> String {
        queries::table(&self.0.config.schema, name)
    }

    /// Every organisation that ever had rules in Mimir.
    pub async fn rule_syncs(&self) -> Result<Vec<SyncRow>, StoreError> {
        self.read_syncs(None).await
    }

    pub async fn rule_sync_of(
        &self,
        organisation: OrganisationId,
    ) -> Result<Option<SyncRow>, StoreError> {
        Ok(self.read_syncs(Some(organisation)).await?.pop())
    }

    async fn read_syncs(&self, only: Option<OrganisationId>) -> Result<Vec<SyncRow>, StoreError> {
        let times = ["synced_at", "problem_since", "absent_since", "guard_since"];
        let sql = format!(
            "select organisation_id, tenant_id, stored, live, failing, not_live, problem, guard_id, guard_reason, \
             shown_rules_per_group, shown_groups, {} from {} as sync \
             where ($1::text is null or organisation_id = $1) and organisation_id > $2 \
             order by organisation_id limit {MOST_READ}",
            times.map(moment::select).join(", "),
            self.own("alert_rule_sync")
        );
        let only = only.map(|organisation| organisation.to_string());
        let (mut syncs, mut last) = (Vec::new(), String::new());
        loop {
            let query = statement(sql.clone()).bind(only.clone()).bind(last);
            let (piece, end) = self
                .fetch(query, |rows| {
                    let end: Option<String> =
                        rows.last().map(|row| row.try_get("organisation_id")).transpose()?;
                    let piece = rows.iter().filter_map(|row| read_sync(row).ok().flatten());
                    Ok((piece.collect::<Vec<SyncRow>>(), end.filter(|_| rows.len() == MOST_READ)))
                })
                .await?;
            syncs.extend(piece);
            match end {
                Some(end) => last = end,
                None => return Ok(syncs),
            }
        }
    }

    /// Writes the state of some organisations.
    pub async fn write_rule_syncs(&self, written: Vec<SyncRow>) -> Result<(), StoreError> {
        let bytes_of = |row: &SyncRow| {
            row.problem.len() + row.guard.as_ref().map_or(0, |held| held.reason.len())
        };
        for batch in pieces(&written, bytes_of) {
            self.write_sync_batch(batch).await?;
        }
        Ok(())
    }

    async fn write_sync_batch(&self, written: &[SyncRow]) -> Result<(), StoreError> {
        let sql = format!(
            "insert into {} (organisation_id, tenant_id, live, not_live, synced_at, problem, \
             problem_since, absent_since, guard_id, guard_reason, guard_since, \
             shown_rules_per_group, shown_groups, stored, failing) \
             select * from unnest($1::text[], $2::text[], $3::integer[], $4::integer[], $5::timestamptz[], \
             $6::text[], $7::timestamptz[], $8::timestamptz[], $9::text[], $10::text[], $11::timestamptz[], \
             $12::integer[], $13::integer[], $14::integer[], $15::integer[]) \
             on conflict (organisation_id) do update set tenant_id = excluded.tenant_id, \
             stored = excluded.stored, live = excluded.live, failing = excluded.failing, not_live = excluded.not_live, synced_at = excluded.synced_at, \
             problem = excluded.problem, problem_since = excluded.problem_since, \
             absent_since = excluded.absent_since, guard_id = excluded.guard_id, \
             guard_reason = excluded.guard_reason, guard_since = excluded.guard_since, \
             shown_rules_per_group = excluded.shown_rules_per_group, \
             shown_groups = excluded.shown_groups",
            self.own("alert_rule_sync")
        );
        let text = |of: fn(&SyncRow) -> String| written.iter().map(of).collect::<Vec<String>>();
        let time =
            |of: fn(&SyncRow) -> Option<OffsetDateTime>| written.iter().map(of).collect::<Vec<_>>();
        let number = |of: fn(&SyncRow) -> usize| {
            let whole = |row| i32::try_from(of(row)).unwrap_or(i32::MAX);
            written.iter().map(whole).collect::<Vec<i32>>()
        };
        let limit = |of: fn(&SyncRow) -> Option<usize>| {
            let whole = |row| of(row).map(|limit| i32::try_from(limit).unwrap_or(i32::MAX));
            written.iter().map(whole).collect::<Vec<Option<i32>>>()
        };
        let guards: Vec<Option<String>> =
            written.iter().map(|row| row.guard.as_ref().map(|held| held.id.clone())).collect();
        let query = statement(sql)
            .bind(text(|row| row.organisation.to_string()))
            .bind(text(|row| row.tenant.clone()))
            .bind(number(|row| row.live))
            .bind(number(|row| row.not_in_mimir))
            .bind(time(|row| row.synced_at))
            .bind(text(|row| storable(&row.problem)))
            .bind(time(|row| row.problem_since))
            .bind(time(|row| row.absent_since))
            .bind(guards)
            .bind(text(|row| row.guard.as_ref().map_or_else(String::new, |g| storable(&g.reason))))
            .bind(time(|row| row.guard_since))
            .bind(limit(|row| row.shown_rules_per_group))
            .bind(limit(|row| row.shown_groups))
            .bind(number(|row| row.stored))
            .bind(number(|row| row.failing));
        self.execute(query).await
    }

    /// Deletes all notes on an organisation whose namespace is gone.
    pub async fn forget_rule_sync(&self, organisation: OrganisationId) -> Result<(), StoreError> {
        for table in
            ["alert_rule_status", "alert_rule_tombstone", "alert_rule_sync", "alert_rule_guard"]
        {
            self.delete_in_parts(table, &organisation, "true").await?;
        }
        Ok(())
    }

    /// Deletes the rows of an organisation for which a condition holds, some at a time: there may be any number of
    /// tombstones. What comes meanwhile may stay.
    pub(super) async fn delete_in_parts(
        &self,
        table: &str,
        organisation: &OrganisationId,
        condition: &str,
    ) -> Result<(), StoreError> {
        let table = self.own(table);
        let sql = format!(
            "delete from {table} where organisation_id = any($1) and ctid = any(array(select ctid from {table} \
             where organisation_id = any($1) and {condition} limit {MOST_DELETED})) returning 1 as one"
        );
        // A trigger that writes a tombstone spells the organisation as the row's table does.
        let names = spellings(std::slice::from_ref(organisation));
        loop {
            let query = statement(sql.clone()).bind(names.clone());
            if self.fetch(query, |rows| Ok(rows.len())).await? < MOST_DELETED {
                return Ok(());
            }
        }
    }

    /// Deletes tombstones that were carried out, unless the rules were deleted again since.
    pub async fn forget_tombstones(
        &self,
        organisation: OrganisationId,
        carried_out: Tombstones,
    ) -> Result<(), StoreError> {
        let sql = format!(
            "delete from {} using unnest($2::uuid[], $3::text[]) as done(rule, at) \
             where organisation_id = any($1) and rule_id = rule and deleted_at <= at::timestamptz",
            self.own("alert_rule_tombstone")
        );
        let names = spellings(std::slice::from_ref(&organisation));
        let carried_out: Vec<(Uuid, String)> = carried_out.into_iter().collect();
        for batch in carried_out.chunks(MOST_DELETED) {
            let (rules, times): (Vec<Uuid>, Vec<String>) = batch.iter().cloned().unzip();
            let query = statement(sql.clone()).bind(names.clone()).bind(rules).bind(times);
            self.execute(query).await?;
        }
        Ok(())
    }
}

fn read_sync(row: &PgRow) -> Result<Option<SyncRow>, sqlx::Error> {
    let Ok(organisation) = OrganisationId::parse(row.try_get("organisation_id")?) else {
        return Ok(None);
    };
    let number = |column: &str| -> Result<usize, sqlx::Error> {
        Ok(usize::try_from(row.try_get::<i32, _>(column)?).unwrap_or(0))
    };
    let limit = |column: &str| -> Result<Option<usize>, sqlx::Error> {
        Ok(row.try_get::<Option<i32>, _>(column)?.and_then(|limit| usize::try_from(limit).ok()))
    };
    Ok(Some(SyncRow {
        organisation,
        tenant: row.try_get("tenant_id")?,
        stored: number("stored")?,
        live: number("live")?,
        failing: number("failing")?,
        not_in_mimir: number("not_live")?,
        synced_at: moment::shown(row.try_get("synced_at")?),
        problem: row.try_get("problem")?,
        problem_since: moment::shown(row.try_get("problem_since")?),
        absent_since: moment::shown(row.try_get("absent_since")?),
        guard: read_guard(row)?,
        guard_since: moment::shown(row.try_get("guard_since")?),
        shown_rules_per_group: limit("shown_rules_per_group")?,
        shown_groups: limit("shown_groups")?,
    }))
}
