//! Requested syncs: written by the copy that was asked, carried out by the leader, and read by the
//! client that waits.

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::alert_rule_sync::MOST_DELETED;
use super::{Store, StoreError, moment, statement};
use crate::tenancy::OrganisationId;

/// A sync to be asked for.
#[derive(Clone, Debug)]
pub struct NewSyncRequest {
    /// Whose rules; everybody's if none.
    pub organisation: Option<OrganisationId>,
    pub requested_by: String,
}

/// A sync that was asked for.
#[derive(Clone, Debug)]
pub struct SyncRequest {
    pub id: Uuid,
    /// Whose rules; everybody's if none.
    pub organisation: Option<OrganisationId>,
    pub requested_at: Option<OffsetDateTime>,
    pub started_at: Option<OffsetDateTime>,
    pub finished_at: Option<OffsetDateTime>,
    pub done: usize,
    pub total: usize,
    /// What came of it (JSON).
    pub outcome: String,
}

/// Statements that delete old rows of one table, in one call.
const DELETIONS: usize = 50;

/// Holds that one of them deletes.
const MOST_HOLDS_DELETED: usize = 200;

/// A row of the table.
enum Row {
    Request(SyncRequest),
    /// It names what cannot be an organisation: it is for nobody, and not for everybody.
    Invalid(Uuid),
}

/// The most that are taken up together. At most one waits for each organisation.
const MOST_WAITING: usize = 10_000;

const COLUMNS: &str = "id, organisation_id, done, total, outcome::text as outcome";

impl Store {
    /// Asks for a sync, and gives the identifier by which to follow it.
    pub async fn request_sync(&self, new: NewSyncRequest) -> Result<Uuid, StoreError> {
        let sql = format!(
            "insert into {} (organisation_id, requested_by) values ($1, $2) \
             on conflict ((coalesce(organisation_id, ''))) where started_at is null \
             do update set requested_by = excluded.requested_by returning id",
            self.requests()
        );
        let organisation = new.organisation.map(|organisation| organisation.to_string());
        let query = statement(sql).bind(organisation).bind(new.requested_by);
        self.fetch(query, |rows| {
            let row = rows.first().ok_or(StoreError::Missing("sync"))?;
            Ok(row.try_get("id")?)
        })
        .await
    }

    /// One sync that was asked for.
    pub async fn sync_request(&self, id: Uuid) -> Result<Option<SyncRequest>, StoreError> {
        let found = self.sync_requests("id = $1", Some(id)).await?.pop();
        Ok(found.and_then(|row| match row {
            Row::Request(request) => Some(request),
            Row::Invalid(_) => None,
        }))
    }

    /// Takes up all that are not done. A later request, perhaps for a change that has not been seen,
    /// is a new one.
    pub async fn take_sync_requests(&self) -> Result<Vec<SyncRequest>, StoreError> {
        let take = format!(
            "update {} set started_at = now() where started_at is null and finished_at is null",
            self.requests()
        );
        self.execute(statement(take)).await?;
        let unfinished = "started_at is not null and finished_at is null and $1::uuid is null";
        let mut requests = Vec::new();
        for row in self.sync_requests(unfinished, None).await? {
            match row {
                Row::Request(request) => requests.push(request),
                Row::Invalid(id) => {
                    tracing::warn!("Requested sync skipped: its organisation_id is invalid");
                    let outcome = r#"{"problem": "organisation_id is invalid"}"#.to_owned();
                    self.note_sync_progress(id, 0, 0, Some(outcome)).await?;
                }
            }
        }
        Ok(requests)
    }

    /// Deletes old notes: syncs that are done or were asked for yesterday, tombstones that were carried out or had nothing live, and holds that are
    /// over.
    pub async fn forget_old_rule_notes(&self) -> Result<(), StoreError> {
        self.forget_old_holds().await?;
        self.forget_old_requests().await?;
        self.forget_old_tombstones().await
    }

    /// Few at a time: each may have all rules of an organisation.
    async fn forget_old_holds(&self) -> Result<(), StoreError> {
        let holds = self.own("alert_rule_guard");
        let (syncs, leader) = (self.own("alert_rule_sync"), self.own("alert_rule_leader"));
        let sql = format!(
            "delete from {holds} where ctid = any(array(select ctid from {holds} as held \
             where held_at < now() - interval '1 day' \
             and not exists (select from {syncs} as sync where sync.guard_id = held.id) \
             and not exists (select from {leader} as leader where leader.guard_id = held.id) \
             limit {MOST_HOLDS_DELETED})) returning 1 as one"
        );
        self.delete_some(sql, MOST_HOLDS_DELETED).await
    }

    /// Whoever waits for a sync asks for ten minutes at most.
    async fn forget_old_requests(&self) -> Result<(), StoreError> {
        let table = self.requests();
        self.delete_some(format!(
            "delete from {table} where ctid = any(array(select ctid from {table} \
             where requested_at < now() - interval '1 day' or finished_at < now() - interval '1 hour' \
             limit {MOST_DELETED})) returning 1 as one"
        ), MOST_DELETED)
        .await
    }

    /// A trigger that writes a tombstone spells the organisation as the row's table does.
    async fn forget_old_tombstones(&self) -> Result<(), StoreError> {
        let (graves, statuses) = (self.own("alert_rule_tombstone"), self.own("alert_rule_status"));
        self.delete_some(format!(
            "delete from {graves} where deleted_at < now() - interval '1 day' and ctid = any(array( \
                 select grave.ctid from {graves} as grave where deleted_at < now() - interval '1 day' and not exists \
                 (select from {statuses} as status where status.rule_id = grave.rule_id and status.organisation_id \
                      in (grave.organisation_id, lower(grave.organisation_id)) and status.rule_hash is not null) \
                 limit {MOST_DELETED})) returning 1 as one"
        ), MOST_DELETED)
        .await
    }

    /// Deletes some rows at a time, by a statement that returns them: there may be any number. What is left is for the
    /// next call.
    async fn delete_some(&self, sql: String, most: usize) -> Result<(), StoreError> {
        for _ in 0..DELETIONS {
            let query = statement(sql.clone());
            if self.fetch(query, |rows| Ok(rows.len())).await? < most {
                break;
            }
        }
        Ok(())
    }

    async fn sync_requests(
        &self,
        condition: &'static str,
        id: Option<Uuid>,
    ) -> Result<Vec<Row>, StoreError> {
        let times = ["requested_at", "started_at", "finished_at"].map(moment::select);
        let sql = format!(
            "select {COLUMNS}, {} from {} as request where {condition} \
             order by request.requested_at limit {MOST_WAITING}",
            times.join(", "),
            self.requests()
        );
        self.fetch(statement(sql).bind(id), |rows| {
            rows.iter().map(|row| read(row).map_err(StoreError::from)).collect()
        })
        .await
    }

    /// Notes how far a sync has come; it is done when it has an outcome.
    pub async fn note_sync_progress(
        &self,
        id: Uuid,
        done: usize,
        total: usize,
        outcome: Option<String>,
    ) -> Result<(), StoreError> {
        let sql = format!(
            "update {} set done = $2, total = $3, started_at = coalesce(started_at, now()), \
             outcome = coalesce($4::jsonb, outcome), \
             finished_at = case when $4::text is null then finished_at else now() end where id = $1",
            self.requests()
        );
        let whole = |number| i32::try_from(number).unwrap_or(i32::MAX);
        let query = statement(sql).bind(id).bind(whole(done)).bind(whole(total)).bind(outcome);
        self.execute(query).await
    }

    fn requests(&self) -> String {
        self.own("alert_rule_sync_request")
    }
}

fn read(row: &PgRow) -> Result<Row, sqlx::Error> {
    let id = row.try_get("id")?;
    // An empty one is as none, also for the index by which one request waits.
    let organisation: Option<&str> = row.try_get("organisation_id")?;
    let organisation = organisation.filter(|name| !name.is_empty());
    let Ok(organisation) = organisation.map(OrganisationId::parse).transpose() else {
        return Ok(Row::Invalid(id));
    };
    let number = |column: &str| -> Result<usize, sqlx::Error> {
        Ok(usize::try_from(row.try_get::<i32, _>(column)?).unwrap_or(0))
    };
    Ok(Row::Request(SyncRequest {
        id,
        organisation,
        requested_at: moment::shown(row.try_get("requested_at")?),
        started_at: moment::shown(row.try_get("started_at")?),
        finished_at: moment::shown(row.try_get("finished_at")?),
        done: number("done")?,
        total: number("total")?,
        outcome: row.try_get("outcome")?,
    }))
}
