//! Whether rules and their statuses have changed since they were read, without reading them again.
//!
//! Postgres identifies a version of a row by its table, its place and the transaction that wrote it
//! (`tableoid`, `ctid` and `xmin`,
//! <https://www.postgresql.org/docs/current/ddl-system-columns.html>). Every write of a row makes
//! another version of it. The names and defaults of columns can change without one, so the table's columns
//! count, too. Then an organisation whose versions come to the same sum has the same rows. No
//! value is looked at, however large. Only a plain table has versions: rules that a view, a foreign table or a
//! query of the operator's gives are read each time.
//!
//! Statuses are small, and are compared by a hash of what is read of them: the time of the last evaluation
//! does not count, which changes all the time.

use std::collections::HashMap;

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::alert_rules::organisation_of;
use super::organisations::spellings;
use super::queries::{Lookup, Queries};
use super::{Store, StoreError};
use crate::tenancy::OrganisationId;

/// What the versions of some rows come to: while it is the same, so are the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowVersions {
    rows: i64,
    /// Of a hash of each version.
    sum: i128,
}

/// The versions of what is kept of one organisation's rules, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleVersions {
    pub rules: RowVersions,
    /// Of what is read of the statuses, but for the time of the last evaluation, which changes all the time.
    pub statuses: RowVersions,
    /// Whether rules were deleted whose deletion has not been carried out.
    pub has_tombstones: bool,
}

impl RowVersions {
    /// Versions that stand for so many rows.
    #[cfg(test)]
    pub(crate) fn of(rows: i64) -> Self {
        Self { rows, sum: 0 }
    }

    /// A single row's.
    pub(super) fn of_row(hash: i64) -> Self {
        Self { rows: 1, sum: hash.into() }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.rows = self.rows.wrapping_add(other.rows);
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

impl Store {
    /// The versions of rules and statuses of those of some organisations that exist; none if the rules are
    /// not in a plain table of ours. An organisation that is missing is to be read.
    pub async fn rule_versions_of(
        &self,
        organisations: Vec<OrganisationId>,
    ) -> Result<Option<HashMap<OrganisationId, RuleVersions>>, StoreError> {
        let names = spellings(&organisations);
        let store = self.clone();
        self.run(async move {
            let Some(sql) = store.queries().await?.rule_versions() else { return Ok(None) };
            let query = super::statement(sql.to_owned()).bind(names);
            Ok(Some(versions_in(&store.rows(&store.0.lookups, query).await?)?))
        })
        .await
    }
}

/// The hash of a status: of all that is read of it, but for the time of its last evaluation.
pub(super) const STATUS_HASH: &str = "hash_record_extended(row(rule_id, state, reason, rule_hash, \
                                      other_hashes, refused_hash, notifies), 0)";

/// The statement, for our own tables of rules, statuses and tombstones. One statement sees one moment. A row
/// of another server, which a partition may have, has no transaction: it comes without a sum.
pub(super) fn rule_versions(
    queries: &Queries,
    rule: &str,
    status: &str,
    tombstone: &str,
) -> String {
    let organisation = queries.of(Lookup::Organisation);
    let columns = format!(
        "(select sum(hash_record_extended(row(attnum, attname, xmin), 0)) from pg_attribute \
             where attrelid = '{rule}'::regclass)"
    );
    let versions = |kind: &str, sum: &str, table: &str| {
        format!(
            "select '{kind}' as kind, organisation_id::text as organisation_id, count(*) as rows, \
                 ({sum})::text as sum \
             from {table} where organisation_id = any($1) group by organisation_id"
        )
    };
    let rules = format!(
        "case when bool_or(xmin = '0'::xid) then null \
             else sum(hash_record_extended(row(tableoid, ctid, xmin), 0)) + {columns} end"
    );
    let rules = versions("rule", &rules, rule);
    let statuses = versions("status", &format!("sum({STATUS_HASH})"), status);
    format!(
        "select 'organisation' as kind, organisation_id, 0::bigint as rows, '0' as sum \
             from ({organisation}) as known where organisation_id = any($1) \
         union all {rules} union all {statuses} \
         union all select distinct 'tombstone', organisation_id::text, 0, '0' \
             from {tombstone} where organisation_id = any($1)"
    )
}

/// Whether a relation is a table, with all its partitions, that is stored as Postgres stores tables.
pub(super) const IS_PLAIN_TABLE: &str = "with recursive tree as (select to_regclass($1)::oid as oid \
         union select inhrelid from pg_inherits join tree on inhparent = tree.oid) \
     select coalesce(bool_and(relkind = 'p' or (relkind = 'r' and amname = 'heap')), false) as is_plain \
         from tree join pg_class using (oid) left join pg_am on pg_am.oid = relam";

/// Those of organisations that do not exist, or that have a row without a version, are left out.
fn versions_in(rows: &[PgRow]) -> Result<HashMap<OrganisationId, RuleVersions>, StoreError> {
    let (known, others): (Vec<&PgRow>, Vec<&PgRow>) = rows
        .iter()
        .partition(|row| row.try_get("kind").is_ok_and(|kind: &str| kind == "organisation"));
    let known = known.into_iter().filter_map(organisation_of);
    let mut all: HashMap<OrganisationId, RuleVersions> =
        known.map(|organisation| (organisation, RuleVersions::default())).collect();
    for row in others {
        let Some(organisation) = organisation_of(row) else { continue };
        let Some(sum) = row.try_get::<Option<&str>, _>("sum")? else {
            all.remove(&organisation);
            continue;
        };
        let Some(versions) = all.get_mut(&organisation) else { continue };
        let sum = sum.parse().map_err(|_| StoreError::Unavailable(format!("no sum: {sum:?}")))?;
        let read = RowVersions { rows: row.try_get("rows")?, sum };
        match row.try_get("kind")? {
            "rule" => versions.rules.add(read),
            "status" => versions.statuses.add(read),
            _ => versions.has_tombstones = true,
        }
    }
    Ok(all)
}
