//! The leader's own state: who it is, the last full resync, a global hold.

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;

use super::alert_rule_guard::{GuardHeld, read_guard};
use super::{Store, StoreError, moment, statement, storable};

/// What the leader says of itself.
#[derive(Clone, Debug, Default)]
pub struct LeaderRow {
    pub holder: String,
    pub since: Option<OffsetDateTime>,
    /// When the last full resync ended. Its column is `reconciled_at`.
    pub resynced_at: Option<OffsetDateTime>,
    /// The outcome of the last full resync, as JSON. Its column is `reconcile`.
    pub resync: String,
    /// A deletion in many organisations that waits.
    pub guard: Option<GuardHeld>,
    pub guard_since: Option<OffsetDateTime>,
}

impl Store {
    /// What the leader last said of itself.
    pub async fn rule_leader(&self) -> Result<LeaderRow, StoreError> {
        let times = ["since", "reconciled_at", "guard_since"].map(moment::select).join(", ");
        let sql = format!(
            "select holder, reconcile::text as reconcile, guard_id, guard_reason, \
             {times} from {} as leader",
            self.own("alert_rule_leader")
        );
        self.fetch(statement(sql), |rows| {
            Ok(rows.first().map(read_leader).transpose()?.unwrap_or_default())
        })
        .await
    }

    /// Writes what the leader says of itself.
    pub async fn write_rule_leader(&self, leader: LeaderRow) -> Result<(), StoreError> {
        let sql = format!(
            "insert into {} (holder, since, reconciled_at, reconcile, guard_id, guard_reason, guard_since) \
             values ($1, $2, $3, $4::jsonb, $5, $6, $7) on conflict (only_one) do update set \
             holder = excluded.holder, since = excluded.since, reconciled_at = excluded.reconciled_at, \
             reconcile = excluded.reconcile, guard_id = excluded.guard_id, \
             guard_reason = excluded.guard_reason, guard_since = excluded.guard_since",
            self.own("alert_rule_leader")
        );
        let (guard, reason) = match leader.guard {
            Some(GuardHeld { id, reason }) => (Some(id), storable(&reason)),
            None => (None, String::new()),
        };
        let query = statement(sql)
            .bind(leader.holder)
            .bind(leader.since)
            .bind(leader.resynced_at)
            .bind(if leader.resync.is_empty() { "{}".to_owned() } else { leader.resync })
            .bind(guard)
            .bind(reason)
            .bind(leader.guard_since);
        self.execute(query).await
    }
}

fn read_leader(row: &PgRow) -> Result<LeaderRow, sqlx::Error> {
    Ok(LeaderRow {
        holder: row.try_get("holder")?,
        since: moment::shown(row.try_get("since")?),
        resynced_at: moment::shown(row.try_get("reconciled_at")?),
        resync: row.try_get("reconcile")?,
        guard: read_guard(row)?,
        guard_since: moment::shown(row.try_get("guard_since")?),
    })
}
