//! The state of the sync of channels for each organisation, with what waits for an administrator's
//! confirmation. Only the leader writes it; administrators read and confirm.

use std::collections::HashSet;

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;

use super::alert_rule_guard::GuardHeld;
use super::alert_rules::{organisation_of, organisations_in};
use super::organisations::spellings;
use super::queries::{Lookup, Queries};
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
    pub problem_since: Option<OffsetDateTime>,
    /// When a sync was requested that no leader has answered yet (Postgres' own text).
    pub requested: Option<String>,
    /// The request that was answered last.
    pub answered: Option<String>,
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

/// Organisations in one query.
const BATCH: usize = 5000;
/// A confirmation ends: the same deletion, months later, is not confirmed by it.
const IS_CONFIRMED: &str = "confirmed_at > now() - interval '15 minutes'";
/// A sync was requested, and no leader has answered since.
const IS_REQUESTED: &str = "requested_at > coalesce(answered_at, '-infinity')";

impl NotificationSyncRow {
    /// That of an organisation that was never looked at.
    pub fn new(organisation: &OrganisationId) -> Self {
        Self {
            organisation: organisation.clone(),
            tenant: String::new(),
            document_hash: None,
            state: String::new(),
            problem: String::new(),
            guard: None,
            guard_since: None,
            confirmed_guard: None,
            problem_since: None,
            requested: None,
            answered: None,
            absent_since: None,
            synced_at: None,
        }
    }

    /// Whether somebody waits for a sync.
    pub fn is_requested(&self) -> bool {
        self.requested.is_some()
    }

    /// The sync that was requested when this was read is done.
    pub fn answer(&mut self) {
        if let Some(requested) = self.requested.take() {
            self.answered = Some(requested);
        }
    }
}

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

    /// Every organisation with a channel, a route, a tombstone or a sync. Those without need not be looked
    /// after.
    pub async fn notification_organisations(&self) -> Result<HashSet<OrganisationId>, StoreError> {
        let mut organisations: Vec<OrganisationId> =
            self.organisations().await?.into_iter().collect();
        organisations.sort();
        let mut found = HashSet::new();
        for batch in organisations.chunks(BATCH) {
            let sql = |queries: &Queries| {
                format!(
                    "select organisation_id from ({}) as channels \
                     union select organisation_id from ({}) as routes",
                    queries.of(Lookup::NotificationChannel),
                    queries.of(Lookup::NotificationRoute)
                )
            };
            let names = spellings(batch);
            let read =
                self.look_up(sql, |query| query.bind(names), |rows| Ok(organisations_in(&rows)));
            found.extend(read.await?);
        }
        let sql = format!(
            "select organisation_id from {} union select organisation_id from {}",
            self.own("notification_tombstone"),
            self.own("notification_sync")
        );
        found.extend(self.fetch(statement(sql), |rows| Ok(organisations_in(&rows))).await?);
        Ok(found)
    }

    async fn read_notification_syncs(
        &self,
        only: Option<OrganisationId>,
    ) -> Result<Vec<NotificationSyncRow>, StoreError> {
        let times = ["guard_since", "problem_since", "absent_since", "synced_at"];
        let sql = format!(
            "select organisation_id, tenant_id, document_hash, state, problem, guard_id, guard_reason, \
             case when {IS_CONFIRMED} then confirmed_guard end as confirmed_guard, \
             case when {IS_REQUESTED} then requested_at::text end as requested, \
             answered_at::text as answered, {} from {} as sync \
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
             guard_reason, guard_since, absent_since, synced_at, problem_since, answered_at) \
             select id, tenant, hash, state, problem, guard, reason, held, absent, synced, wrong, answered::timestamptz \
             from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], \
             $7::text[], $8::timestamptz[], $9::timestamptz[], $10::timestamptz[], $11::timestamptz[], $12::text[]) \
             as new(id, tenant, hash, state, problem, guard, reason, held, absent, synced, wrong, answered) \
             on conflict (organisation_id) do update set tenant_id = excluded.tenant_id, \
             document_hash = excluded.document_hash, state = excluded.state, \
             problem = excluded.problem, guard_id = excluded.guard_id, \
             guard_reason = excluded.guard_reason, guard_since = excluded.guard_since, \
             absent_since = excluded.absent_since, synced_at = excluded.synced_at, \
             problem_since = excluded.problem_since, answered_at = excluded.answered_at",
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
            .bind(time(|row| row.synced_at))
            .bind(time(|row| row.problem_since))
            .bind(written.iter().map(|row| row.answered.clone()).collect::<Vec<_>>());
        self.execute(query).await
    }

    /// Requests a sync of one organisation, and tells every copy. Gives what
    /// [`Store::is_notification_sync_answered`] takes.
    pub async fn request_notification_sync(
        &self,
        organisation: OrganisationId,
        by: String,
    ) -> Result<String, StoreError> {
        let sql = format!(
            "insert into {} as sync (organisation_id, requested_at, requested_by) \
             values ($1, now(), $2) on conflict (organisation_id) do update \
             set requested_at = excluded.requested_at, requested_by = excluded.requested_by \
             returning requested_at::text as requested",
            self.own("notification_sync")
        );
        let query = statement(sql).bind(organisation.to_string()).bind(by);
        let requested = self.fetch(query, |rows| {
            let row = rows.first().ok_or(StoreError::Missing("organisation"))?;
            Ok(row.try_get("requested")?)
        });
        let requested = requested.await?;
        self.announce_notification_channels(Some(organisation)).await?;
        Ok(requested)
    }

    /// Whether a leader has answered a requested sync.
    pub async fn is_notification_sync_answered(
        &self,
        organisation: OrganisationId,
        requested: String,
    ) -> Result<bool, StoreError> {
        let sql = format!(
            "select answered_at >= $2::timestamptz as is_answered from {} where organisation_id = $1",
            self.own("notification_sync")
        );
        let query = statement(sql).bind(organisation.to_string()).bind(requested);
        self.fetch(query, |rows| {
            // The leader has forgotten an organisation that is gone: nothing is left to be done.
            let Some(row) = rows.first() else { return Ok(true) };
            let is_answered: Option<bool> = row.try_get("is_answered")?;
            Ok(is_answered.unwrap_or(false))
        })
        .await
    }

    /// Organisations whose requested sync waits for a leader.
    pub async fn requested_notification_syncs(&self) -> Result<Vec<OrganisationId>, StoreError> {
        let sql = format!(
            "select organisation_id from {} where {IS_REQUESTED} order by requested_at",
            self.own("notification_sync")
        );
        self.fetch(statement(sql), |rows| Ok(rows.iter().filter_map(organisation_of).collect()))
            .await
    }

    /// Ends a confirmation: it was carried out, or is not needed any more.
    pub async fn end_notification_confirmation(
        &self,
        organisation: OrganisationId,
    ) -> Result<(), StoreError> {
        let sql = format!(
            "update {} set confirmed_at = null where organisation_id = $1",
            self.own("notification_sync")
        );
        self.execute(statement(sql).bind(organisation.to_string())).await
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
            self.delete_in_parts(table, &organisation, "true").await?;
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
        problem_since: moment::shown(row.try_get("problem_since")?),
        requested: row.try_get("requested")?,
        answered: row.try_get("answered")?,
        absent_since: moment::shown(row.try_get("absent_since")?),
        synced_at: moment::shown(row.try_get("synced_at")?),
    }))
}
