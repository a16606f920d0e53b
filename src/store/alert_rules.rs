//! Alert rules as organisations wrote them, and the organisations that there are.
//!
//! What is read here decides what is deleted in Mimir, so a reading is whole or it fails: one
//! statement sees organisations, rules and tombstones at one moment, and every value comes as a
//! text, so that none can make its row fail.

use std::collections::{HashMap, HashSet};

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::organisations::spellings;
use super::queries::{Lookup, Queries, RULE_TEXTS, measure_of};
use super::{Store, StoreError};
use crate::tenancy::OrganisationId;

/// A row of `alert_rule`. What it means is for `rules` to say.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AlertRuleRow {
    pub id: Uuid,
    pub organisation: OrganisationId,
    pub name: Option<String>,
    pub expr: Option<String>,
    /// A duration, as Prometheus writes it.
    pub for_duration: Option<String>,
    /// A duration, as Prometheus writes it.
    pub keep_firing_for: Option<String>,
    /// The group that it belongs to.
    pub rule_group: Option<String>,
    /// A duration, as Prometheus writes it.
    pub evaluation_interval: Option<String>,
    /// JSON.
    pub labels: Option<String>,
    /// JSON.
    pub annotations: Option<String>,
    /// Whether it counts; yes if it does not say.
    pub enabled: Option<String>,
    /// When it was made, in microseconds since the epoch.
    pub created_at_micros: Option<i64>,
    /// Whether it was too large to be read; then there are no texts.
    pub excess: Excess,
}

/// Whether a row was too large to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Excess {
    #[default]
    None,
    Row,
    /// Its organisation's rows are larger than [`MOST_ORGANISATION_BYTES`] together, or more than
    /// [`MOST_ROWS`], and older ones were read.
    Organisation,
}

/// The texts of one row. A rule may have 64 KiB of expression and as much of labels and annotations.
pub const MOST_ROW_BYTES: usize = 256 << 10;
/// The texts of all rows of an organisation. One that writes more must not take memory and time
/// from the others; Mimir's listing of this much can still be read.
pub const MOST_ORGANISATION_BYTES: usize = 4 << 20;
/// Rows of an organisation that are read. Ours cannot have more.
pub const MOST_ROWS: usize = 5000;
/// Tombstones of an organisation that are read at once. Its members can make any number of them, and those of one
/// must not take memory and time from the others. All its rules can be replaced twice before that shows.
const MOST_TOMBSTONES: usize = 2 * MOST_ROWS;

/// Some organisations and their rules, at one moment.
#[derive(Clone, Debug, Default)]
pub struct RulesSnapshot {
    /// Those of the organisations asked for that exist.
    pub existing: HashSet<OrganisationId>,
    /// Their rules; an organisation without any is not here.
    pub rows: HashMap<OrganisationId, Vec<AlertRuleRow>>,
    /// Their rules that were deleted, and when (Postgres' own text). There may be more of them, which are read when
    /// these are carried out.
    pub tombstones: HashMap<OrganisationId, Tombstones>,
}

/// Rules that were deleted and whose deletion has not been carried out, and when they were.
pub type Tombstones = HashMap<Uuid, String>;

impl Store {
    pub async fn organisations(&self) -> Result<HashSet<OrganisationId>, StoreError> {
        let sql = |queries: &Queries| {
            format!("select organisation_id from ({}) as known", queries.of(Lookup::Organisation))
        };
        self.look_up(sql, |query| query, |rows| Ok(organisations_in(&rows))).await
    }

    /// Those of some organisations that exist.
    pub async fn existing_organisations(
        &self,
        asked: Vec<OrganisationId>,
    ) -> Result<HashSet<OrganisationId>, StoreError> {
        let sql = |queries: &Queries| {
            format!(
                "select organisation_id from ({}) as known where organisation_id = any($1)",
                queries.of(Lookup::Organisation)
            )
        };
        let names = spellings(&asked);
        self.look_up(sql, |query| query.bind(names), |rows| Ok(organisations_in(&rows))).await
    }

    pub async fn alert_rules_of(
        &self,
        organisations: Vec<OrganisationId>,
    ) -> Result<RulesSnapshot, StoreError> {
        let names = spellings(&organisations);
        let (tombstones, statuses) =
            (self.own("alert_rule_tombstone"), self.own("alert_rule_status"));
        // One statement sees one moment.
        let sql = move |queries: &Queries| snapshot(queries, &tombstones, &statuses);
        self.look_up(
            sql,
            |query| query.bind(names),
            |rows| {
                let mut snapshot = RulesSnapshot::default();
                for row in &rows {
                    if let Err(problem) = snapshot.add(row) {
                        tracing::warn!(problem, "Invalid alert rule row skipped");
                    }
                }
                Ok(snapshot)
            },
        )
        .await
    }

    /// Tells every copy that an organisation's rules may have changed; anybody's if none is named.
    pub async fn announce_alert_rules(
        &self,
        organisation: Option<OrganisationId>,
    ) -> Result<(), StoreError> {
        let payload = match organisation {
            Some(organisation) => format!("alert_rule {organisation}"),
            None => "alert_rule".to_owned(),
        };
        let query = sqlx::query("select pg_notify($1, $2)").bind(super::feed::CHANNEL);
        self.execute(query.bind(payload)).await
    }
}

/// Organisations, their rules and their tombstones. Of the rules nothing is so large that it harms:
/// what is too much comes without its texts, youngest first. What is too large is never made a text, and is
/// not in memory while rows are sorted and summed. `offset 0` keeps Postgres from measuring twice.
///
/// A deletion whose tombstone is not read looks like a lost row, with which the guard is stricter: it may hold it. What
/// is held is never done, and the tombstones of what is not done stay, so that the same ones would be read for ever. So
/// those of rules that Mimir has by their statuses are read in any case; there are as many as rules at most. The
/// others explain nothing, but for a rule whose status is lost or went with it to another organisation. They are read
/// in the order of the index: by their age, all of them would be read and sorted each time.
fn snapshot(queries: &Queries, tombstone: &str, status: &str) -> String {
    let organisation = queries.of(Lookup::Organisation);
    let alert_rule = queries.of(Lookup::AlertRule);
    let sizes = RULE_TEXTS.map(measure_of).join(" + ");
    let made =
        RULE_TEXTS.map(|text| format!("case when excess = 0 then {text}::text end as {text}"));
    let none = RULE_TEXTS.map(|_| "null").join(", ");
    // As arrays, so that Postgres expects few of them and looks each one up.
    let crowded = format!(
        "array(select organisation_id from first_tombstones group by organisation_id having count(*) >= {MOST_TOMBSTONES})"
    );
    let in_mimir = format!(
        "array(select rule_id from {status} where organisation_id = any(array[crowded.name, lower(crowded.name)]) \
         and (rule_hash is not null or other_hashes <> '') limit {MOST_TOMBSTONES})"
    );
    format!(
        "with sized as (select id, organisation_id, created_at, enabled, {}, {sizes} as bytes \
             from ({alert_rule}) as measured offset 0), \
         summed as (select *, row_number() over w as number, \
             sum(case when bytes > {MOST_ROW_BYTES} then 0 else bytes end) over w as total from sized \
             window w as (partition by organisation_id order by created_at nulls first, id)), \
         judged as (select *, case when bytes > {MOST_ROW_BYTES} then 1 \
             when total > {MOST_ORGANISATION_BYTES} or number > {MOST_ROWS} then 2 else 0 end as excess \
             from summed), \
         first_tombstones as (select graves.* from unnest($1::text[]) as asked (name) cross join lateral \
             (select rule_id, organisation_id, deleted_at from {tombstone} where organisation_id = asked.name \
              order by rule_id limit {MOST_TOMBSTONES}) as graves) \
         select 'rule' as kind, id, organisation_id, created_at, null::text as deleted_at, enabled, excess, {} \
             from judged \
         union all select 'organisation', null, organisation_id, null, null, null, 0, {none} \
             from ({organisation}) as known where organisation_id = any($1) \
         union all select 'tombstone', rule_id::text, organisation_id, null, deleted_at::text, null, 0, {none} \
             from first_tombstones \
         union all select 'tombstone', rule_id::text, organisation_id, null, deleted_at::text, null, 0, {none} \
             from unnest({crowded}) as crowded (name) \
             cross join lateral unnest({in_mimir}) as in_mimir (rule) \
             join {tombstone} as grave on grave.organisation_id = crowded.name and grave.rule_id = in_mimir.rule",
        RULE_TEXTS.join(", "),
        made.join(", ")
    )
}

impl RulesSnapshot {
    fn add(&mut self, row: &PgRow) -> Result<(), String> {
        let wrong = |error: sqlx::Error| error.to_string();
        match row.try_get("kind").map_err(wrong)? {
            "organisation" => self.existing.extend(organisation_of(row)),
            "tombstone" => {
                let id: &str = row.try_get("id").map_err(wrong)?;
                let id = Uuid::try_parse(id).map_err(|error| error.to_string())?;
                let organisation =
                    organisation_of(row).ok_or("a tombstone without an organisation")?;
                let at = row.try_get("deleted_at").map_err(wrong)?;
                self.tombstones.entry(organisation).or_default().insert(id, at);
            }
            _ => {
                let rule = read(row)?;
                self.rows.entry(rule.organisation.clone()).or_default().push(rule);
            }
        }
        Ok(())
    }
}

pub(super) fn organisations_in(rows: &[PgRow]) -> HashSet<OrganisationId> {
    rows.iter().filter_map(organisation_of).collect()
}

pub(super) fn excess_of(row: &PgRow) -> Result<Excess, String> {
    Ok(match row.try_get::<i32, _>("excess").map_err(|error| error.to_string())? {
        0 => Excess::None,
        1 => Excess::Row,
        _ => Excess::Organisation,
    })
}

/// An identifier that no tenant can have is ignored.
pub(super) fn organisation_of(row: &PgRow) -> Option<OrganisationId> {
    let name: Option<&str> = row.try_get("organisation_id").ok()?;
    OrganisationId::parse(name?).ok()
}

fn read(row: &PgRow) -> Result<AlertRuleRow, String> {
    let text = |column: &str| -> Result<Option<String>, String> {
        row.try_get(column).map_err(|error| error.to_string())
    };
    let id = text("id")?.unwrap_or_default();
    let id = Uuid::try_parse(&id).map_err(|_| format!("its id is not a UUID: {id:?}"))?;
    let organisation = text("organisation_id")?.unwrap_or_default();
    let organisation =
        OrganisationId::parse(&organisation).map_err(|error| format!("rule {id}: {error}"))?;
    let created: Option<f64> = row.try_get("created_at").map_err(|error| error.to_string())?;
    let excess = excess_of(row)?;
    #[expect(clippy::cast_possible_truncation, reason = "saturates, which keeps the order")]
    let created_at_micros = created.map(|seconds| (seconds * 1e6) as i64);
    Ok(AlertRuleRow {
        id,
        organisation,
        name: text("name")?,
        expr: text("expr")?,
        for_duration: text("for_duration")?,
        keep_firing_for: text("keep_firing_for")?,
        rule_group: text("rule_group")?,
        evaluation_interval: text("evaluation_interval")?,
        labels: text("labels")?,
        annotations: text("annotations")?,
        enabled: text("enabled")?,
        created_at_micros,
        excess,
    })
}
