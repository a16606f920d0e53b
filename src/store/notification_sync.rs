//! The state of the sync of channels for each organisation, with what waits for an administrator's
//! confirmation. Only the leader writes it; administrators read and confirm.

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;

use super::alert_rule_guard::GuardHeld;
use super::{Store, StoreError, moment, statement};
use crate::tenancy::OrganisationId;

/// The state of one organisation's document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotificationSyncRow {
    pub organisation: OrganisationId,
    pub tenant: String,
    /// A digest of the document without its secrets, to see whether two copies mean the same.
    pub document_hash: Option<String>,
    /// Of the document as a whole, a word of the engine's: `live`, `held` and so on.
    pub state: String,
    /// What is wrong; empty if nothing is.
    pub problem: String,
    /// What waits for a confirmation.
    pub guard: Option<GuardHeld>,
    pub guard_since: Option<OffsetDateTime>,
    /// What an administrator has confirmed within the last 15 minutes. Read, never written here.
    pub confirmed_guard: Option<String>,
    /// Since when the organisation itself is gone.
    pub absent_since: Option<OffsetDateTime>,
    /// The last write to Mimir.
    pub synced_at: Option<OffsetDateTime>,
}

/// What became of a confirmation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotificationConfirmed {
    Noted,
    /// Nothing waits for a confirmation.
    Nothing,
    /// Something else waits by now.
    Other(GuardHeld),
}

/// A confirmation ends: the same deletion, months later, is not confirmed by it.
const IS_CONFIRMED: &str = "confirmed_at > now() - interval '15 minutes'";

impl Store {
    /// Every organisation whose document was ever looked after.
    pub async fn notification_syncs(&self) -> Result<Vec<NotificationSyncRow>, StoreError> {
        self.read_notification_syncs(None).await
    }

    pub async fn notification_sync_of(
        &self,
        organisation: OrganisationId,
    ) -> Result<Option<NotificationSyncRow>, StoreError> {
        Ok(self.read_notification_syncs(Some(organisation)).await?.pop())
    }

    async fn read_notification_syncs(
        &self,
        only: Option<OrganisationId>,
    ) -> Result<Vec<NotificationSyncRow>, StoreError> {
        let times = ["guard_since", "absent_since", "synced_at"];
        let sql = format!(
            "select organisation_id, tenant_id, document_hash, state, problem, guard_id, guard_reason, \
             case when {IS_CONFIRMED} then confirmed_guard end as confirmed_guard, {} from {} as sync \
             where $1::text is null or organisation_id = $1 order by organisation_id",
            times.map(moment::select).join(", "),
            self.own("notification_sync")
        );
        let only = only.map(|organisation| organisation.to_string());
        self.fetch(statement(sql).bind(only), |rows| {
            Ok(rows.iter().filter_map(|row| read_sync(row).ok().flatten()).collect())
        })
        .await
    }

    /// Writes the state of some organisations. Confirmations stay.
    pub async fn write_notification_syncs(
        &self,
        written: Vec<NotificationSyncRow>,
    ) -> Result<(), StoreError> {
        let sql = format!(
            "insert into {} (organisation_id, tenant_id, document_hash, state, problem, guard_id, \
             guard_reason, guard_since, absent_since, synced_at) \
             select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], \
             $7::text[], $8::timestamptz[], $9::timestamptz[], $10::timestamptz[]) \
             on conflict (organisation_id) do update set tenant_id = excluded.tenant_id, \
             document_hash = excluded.document_hash, state = excluded.state, \
             problem = excluded.problem, guard_id = excluded.guard_id, \
             guard_reason = excluded.guard_reason, guard_since = excluded.guard_since, \
             absent_since = excluded.absent_since, synced_at = excluded.synced_at",
            self.own("notification_sync")
        );
        let text = |of: fn(&NotificationSyncRow) -> String| {
            written.iter().map(of).map(|text| text.replace('\0', "\u{fffd}")).collect::<Vec<_>>()
        };
        let time = |of: fn(&NotificationSyncRow) -> Option<OffsetDateTime>| {
            written.iter().map(of).collect::<Vec<_>>()
        };
        let hashes: Vec<Option<String>> =
            written.iter().map(|row| row.document_hash.clone()).collect();
        let guards: Vec<Option<String>> =
            written.iter().map(|row| row.guard.as_ref().map(|held| held.id.clone())).collect();
        let query = statement(sql)
            .bind(text(|row| row.organisation.to_string()))
            .bind(text(|row| row.tenant.clone()))
            .bind(hashes)
            .bind(text(|row| row.state.clone()))
            .bind(text(|row| row.problem.clone()))
            .bind(guards)
            .bind(text(|row| row.guard.as_ref().map_or_else(String::new, |g| g.reason.clone())))
            .bind(time(|row| row.guard_since))
            .bind(time(|row| row.absent_since))
            .bind(time(|row| row.synced_at));
        self.execute(query).await
    }

    /// Notes that an administrator has confirmed what waits under this id.
    pub async fn confirm_notification_guard(
        &self,
        organisation: OrganisationId,
        guard: String,
        by: String,
    ) -> Result<NotificationConfirmed, StoreError> {
        let table = self.own("notification_sync");
        let sql = format!(
            "with noted as (update {table} set confirmed_guard = $2, confirmed_by = $3, confirmed_at = now() \
             where organisation_id = $1 and guard_id = $2 returning organisation_id) \
             select guard_id, guard_reason, exists (select from noted) as is_noted from {table} \
             where organisation_id = $1 and guard_id is not null"
        );
        let query = statement(sql).bind(organisation.to_string()).bind(guard).bind(by);
        self.fetch(query, |rows| {
            let Some(row) = rows.first() else { return Ok(NotificationConfirmed::Nothing) };
            if row.try_get("is_noted")? {
                return Ok(NotificationConfirmed::Noted);
            }
            let (id, reason) = (row.try_get("guard_id")?, row.try_get("guard_reason")?);
            Ok(NotificationConfirmed::Other(GuardHeld { id, reason }))
        })
        .await
    }

    /// Deletes all notes on an organisation whose document is gone.
    pub async fn forget_notification_sync(
        &self,
        organisation: OrganisationId,
    ) -> Result<(), StoreError> {
        for table in [
            "notification_channel_status",
            "notification_route_status",
            "notification_tombstone",
            "notification_sync",
        ] {
            let sql = format!("delete from {} where organisation_id = $1", self.own(table));
            self.execute(statement(sql).bind(organisation.to_string())).await?;
        }
        Ok(())
    }
}

fn read_sync(row: &PgRow) -> Result<Option<NotificationSyncRow>, sqlx::Error> {
    let Ok(organisation) = OrganisationId::parse(row.try_get("organisation_id")?) else {
        return Ok(None);
    };
    let id: Option<String> = row.try_get("guard_id")?;
    let reason: String = row.try_get("guard_reason")?;
    Ok(Some(NotificationSyncRow {
        organisation,
        tenant: row.try_get("tenant_id")?,
        document_hash: row.try_get("document_hash")?,
        state: row.try_get("state")?,
        problem: row.try_get("problem")?,
        guard: id.map(|id| GuardHeld { id, reason }),
        guard_since: moment::shown(row.try_get("guard_since")?),
        confirmed_guard: row.try_get("confirmed_guard")?,
        absent_since: moment::shown(row.try_get("absent_since")?),
        synced_at: moment::shown(row.try_get("synced_at")?),
    }))
}
