//! Whether rules and their statuses have changed since they were read, without reading them again.
//!
//! Postgres identifies a version of a row by its table, its place and the transaction that wrote it
//! (`tableoid`, `ctid` and `xmin`,
//! <https://www.postgresql.org/docs/current/ddl-system-columns.html>). A change of a row is a version of
//! its own, so an organisation whose versions come to the same sum has the same rows. No value is looked
//! at, however large. Only a table has versions: rules that a view or a query of the operator's gives are
//! read each time.

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

    /// Rows of an organisation may be under more than one spelling of its name.
    fn add(&mut self, other: Self) {
        self.rows = self.rows.wrapping_add(other.rows);
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

impl Store {
    /// The versions of rules and statuses of those of some organisations that exist; none if the rules are
    /// not in a table of ours.
    pub async fn rule_versions_of(
        &self,
        organisations: Vec<OrganisationId>,
    ) -> Result<Option<HashMap<OrganisationId, RuleVersions>>, StoreError> {
        let names = spellings(&organisations);
        let store = self.clone();
        self.run(async move {
            let Some(sql) = store.queries().await?.rule_versions() else { return Ok(None) };
            let query = super::statement(sql.to_owned()).bind(names);
            match store.rows(&store.0.lookups, query).await {
                Ok(rows) => Ok(Some(versions_in(&rows)?)),
                // The table has become a view since the start, or its rights have changed. The rules are read
                // all the same, and that tells what is wrong.
                Err(StoreError::Unfit(problem) | StoreError::Refused(problem)) => {
                    tracing::debug!(problem, "Versions of alert rules not read");
                    Ok(None)
                }
                Err(error) => Err(error),
            }
        })
        .await
    }
}

/// The statement, for our own tables of rules, statuses and tombstones. One statement sees one moment.
pub(super) fn rule_versions(
    queries: &Queries,
    rule: &str,
    status: &str,
    tombstone: &str,
) -> String {
    let organisation = queries.of(Lookup::Organisation);
    let versions = |kind: &str, version: &str, table: &str| {
        format!(
            "select '{kind}' as kind, organisation_id::text as organisation_id, count(*) as rows, \
                 sum(hash_record_extended(row({version}), 0))::text as sum \
             from {table} where organisation_id = any($1) group by organisation_id"
        )
    };
    let rules = versions("rule", "tableoid, ctid, xmin", rule);
    let statuses = versions(
        "status",
        "rule_id, state, reason, rule_hash, other_hashes, refused_hash, notifies",
        status,
    );
    format!(
        "select 'organisation' as kind, organisation_id, 0::bigint as rows, '0' as sum \
             from ({organisation}) as known where organisation_id = any($1) \
         union all {rules} union all {statuses} \
         union all select distinct 'tombstone', organisation_id::text, 0, '0' \
             from {tombstone} where organisation_id = any($1)"
    )
}

/// Rows of organisations that do not exist are left out.
fn versions_in(rows: &[PgRow]) -> Result<HashMap<OrganisationId, RuleVersions>, StoreError> {
    let (known, others): (Vec<&PgRow>, Vec<&PgRow>) = rows
        .iter()
        .partition(|row| row.try_get("kind").is_ok_and(|kind: &str| kind == "organisation"));
    let known = known.into_iter().filter_map(organisation_of);
    let mut all: HashMap<OrganisationId, RuleVersions> =
        known.map(|organisation| (organisation, RuleVersions::default())).collect();
    for row in others {
        let versions = organisation_of(row).and_then(|organisation| all.get_mut(&organisation));
        let Some(versions) = versions else { continue };
        let sum: &str = row.try_get("sum")?;
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
