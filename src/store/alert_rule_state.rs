//! What the proxy says of alert rules: each rule's status, each organisation's, the leader's. Only
//! the leader writes these, administrators read them and confirm what waits for their word.

use std::collections::{HashMap, HashSet};

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row as _};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, StoreError, moment, queries};
use crate::tenancy::OrganisationId;

/// What has become of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RuleState {
    /// It will be written to Mimir, but is not yet.
    Pending,
    /// Mimir evaluates it as it is.
    Live,
    /// It cannot be evaluated; its author has to change it.
    Invalid,
    /// The tenant's limits leave no room for it.
    OverLimit,
    /// It is switched off.
    Disabled,
    /// It could not be written, and that is not its author's fault.
    Error,
}

/// A rule's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleStatusRow {
    /// Which rule.
    pub rule: Uuid,
    /// Whose.
    pub organisation: OrganisationId,
    /// What has become of it.
    pub state: RuleState,
    /// Why it is not live, in words for its author.
    pub reason: String,
    /// What is live, if anything is.
    pub live_hash: Option<String>,
    /// Since when; not set by whoever writes it.
    pub synced_at: Option<OffsetDateTime>,
}

/// A deletion that waits for an administrator's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardHeld {
    /// What is to be confirmed: another deletion has another one.
    pub id: String,
    /// What would be deleted, in words.
    pub reason: String,
}

/// How it stands with an organisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncRow {
    /// Which.
    pub organisation: OrganisationId,
    /// Its tenant.
    pub tenant: String,
    /// Rules that are live.
    pub live: usize,
    /// Enabled rules that are not.
    pub not_live: usize,
    /// The last time that something was written to Mimir.
    pub synced_at: Option<OffsetDateTime>,
    /// What is wrong, if anything is.
    pub problem: String,
    /// Since when.
    pub problem_since: Option<OffsetDateTime>,
    /// Since when the organisation itself is gone.
    pub absent_since: Option<OffsetDateTime>,
    /// A deletion that waits.
    pub guard: Option<GuardHeld>,
    /// Since when.
    pub guard_since: Option<OffsetDateTime>,
    /// The deletion that an administrator has confirmed.
    pub confirmed: Option<String>,
}

/// What the leader says of itself.
#[derive(Clone, Debug, Default)]
pub struct LeaderRow {
    /// Who it is, or was.
    pub holder: String,
    /// Since when.
    pub since: Option<OffsetDateTime>,
    /// When everything was last looked at.
    pub reconciled_at: Option<OffsetDateTime>,
    /// What came of it.
    pub reconcile: String,
    /// A deletion in many organisations that waits.
    pub guard: Option<GuardHeld>,
    /// Since when.
    pub guard_since: Option<OffsetDateTime>,
    /// The deletion that an administrator has confirmed.
    pub confirmed: Option<String>,
}

/// Rules that are known to have been deleted.
pub type Tombstones = HashSet<Uuid>;

/// Rows in one statement.
const BATCH: usize = 1000;
/// A word counts for a while: the same deletion, months later, is not confirmed by it.
const CONFIRMED: &str = "case when confirmed_at > now() - interval '15 minutes' \
                         then confirmed_guard end as confirmed_guard";

impl RuleState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Live, Self::Invalid, Self::OverLimit, Self::Disabled, Self::Error];

    /// The name in the table and everywhere else.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Live => "live",
            Self::Invalid => "invalid",
            Self::OverLimit => "over_limit",
            Self::Disabled => "disabled",
            Self::Error => "error",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

impl Store {
    fn own(&self, name: &str) -> String {
        queries::table(&self.0.config.schema, name)
    }

    /// The statuses of some organisations' rules.
    pub async fn rule_statuses_of(
        &self,
        organisations: Vec<OrganisationId>,
    ) -> Result<Vec<RuleStatusRow>, StoreError> {
        let store = self.clone();
        self.run(async move {
            let names: Vec<String> = organisations.iter().map(ToString::to_string).collect();
            let query = format!(
                "select rule_id, organisation_id, state, reason, rule_hash, {} from {} as status \
                 where organisation_id = any($1)",
                moment::select("synced_at"),
                store.own("alert_rule_status")
            );
            let query = sqlx::query(AssertSqlSafe(query)).bind(names);
            let rows = store.rows(&store.0.rules_pool, query).await?;
            Ok(rows.iter().filter_map(|row| read_status(row).ok().flatten()).collect())
        })
        .await
    }

    /// Writes the statuses of rules, and forgets those of rules that are gone.
    pub async fn write_rule_statuses(
        &self,
        written: Vec<RuleStatusRow>,
        gone: Vec<Uuid>,
    ) -> Result<(), StoreError> {
        for batch in written.chunks(BATCH) {
            self.write_status_batch(batch.to_vec()).await?;
        }
        if gone.is_empty() {
            return Ok(());
        }
        let store = self.clone();
        self.run(async move {
            let table = store.own("alert_rule_status");
            let query = format!("delete from {table} where rule_id = any($1)");
            let query = sqlx::query(AssertSqlSafe(query)).bind(gone);
            store.rows(&store.0.rules_pool, query).await.map(drop)
        })
        .await
    }

    async fn write_status_batch(&self, batch: Vec<RuleStatusRow>) -> Result<(), StoreError> {
        let store = self.clone();
        self.run(async move {
            // What is live stays since when it is unless something else is.
            let query = format!(
                "insert into {table} as kept (rule_id, organisation_id, state, reason, rule_hash, synced_at) \
                 select rule, organisation, state, left(reason, 4000), hash, case when hash is null then null else now() end \
                 from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[]) \
                      as new(rule, organisation, state, reason, hash) \
                 on conflict (rule_id) do update set \
                     organisation_id = excluded.organisation_id, state = excluded.state, \
                     reason = excluded.reason, rule_hash = excluded.rule_hash, updated_at = now(), \
                     synced_at = case when kept.rule_hash is not distinct from excluded.rule_hash \
                                 then kept.synced_at else excluded.synced_at end",
                table = store.own("alert_rule_status")
            );
            let column = |of: fn(&RuleStatusRow) -> String| -> Vec<String> {
                batch.iter().map(of).collect()
            };
            let hashes: Vec<Option<String>> =
                batch.iter().map(|row| row.live_hash.clone()).collect();
            let query = sqlx::query(AssertSqlSafe(query))
                .bind(batch.iter().map(|row| row.rule).collect::<Vec<Uuid>>())
                .bind(column(|row| row.organisation.to_string()))
                .bind(column(|row| row.state.name().to_owned()))
                // Postgres takes no NUL in a text.
                .bind(column(|row| row.reason.replace('\0', "\u{fffd}")))
                .bind(hashes);
            store.rows(&store.0.rules_pool, query).await.map(drop)
        })
        .await
    }

    /// How it stands with every organisation that ever had rules in Mimir.
    pub async fn rule_syncs(&self) -> Result<Vec<SyncRow>, StoreError> {
        self.read_syncs(None).await
    }

    /// How it stands with one.
    pub async fn rule_sync_of(
        &self,
        organisation: OrganisationId,
    ) -> Result<Option<SyncRow>, StoreError> {
        Ok(self.read_syncs(Some(organisation)).await?.pop())
    }

    async fn read_syncs(&self, only: Option<OrganisationId>) -> Result<Vec<SyncRow>, StoreError> {
        let store = self.clone();
        self.run(async move {
            let times = ["synced_at", "problem_since", "absent_since", "guard_since"];
            let query = format!(
                "select organisation_id, tenant_id, live, not_live, problem, guard_id, guard_reason, \
                 {CONFIRMED}, {} from {} as sync where $1::text is null or organisation_id = $1 \
                 order by organisation_id",
                times.map(moment::select).join(", "),
                store.own("alert_rule_sync")
            );
            let only = only.map(|organisation| organisation.to_string());
            let query = sqlx::query(AssertSqlSafe(query)).bind(only);
            let rows = store.rows(&store.0.rules_pool, query).await?;
            Ok(rows.iter().filter_map(|row| read_sync(row).ok().flatten()).collect())
        })
        .await
    }

    /// Writes how it stands with some organisations. What an administrator confirmed is not touched.
    pub async fn write_rule_syncs(&self, written: Vec<SyncRow>) -> Result<(), StoreError> {
        let store = self.clone();
        self.run(async move {
            let query = format!(
                "insert into {} (organisation_id, tenant_id, live, not_live, synced_at, problem, \
                 problem_since, absent_since, guard_id, guard_reason, guard_since) \
                 select * from unnest($1::text[], $2::text[], $3::integer[], $4::integer[], $5::timestamptz[], \
                 $6::text[], $7::timestamptz[], $8::timestamptz[], $9::text[], $10::text[], $11::timestamptz[]) \
                 on conflict (organisation_id) do update set tenant_id = excluded.tenant_id, \
                 live = excluded.live, not_live = excluded.not_live, synced_at = excluded.synced_at, \
                 problem = excluded.problem, problem_since = excluded.problem_since, \
                 absent_since = excluded.absent_since, guard_id = excluded.guard_id, \
                 guard_reason = excluded.guard_reason, guard_since = excluded.guard_since",
                store.own("alert_rule_sync")
            );
            let text = |of: fn(&SyncRow) -> String| written.iter().map(of).collect::<Vec<String>>();
            let time = |of: fn(&SyncRow) -> Option<OffsetDateTime>| {
                written.iter().map(of).collect::<Vec<_>>()
            };
            let number = |of: fn(&SyncRow) -> usize| {
                let whole = |row| i32::try_from(of(row)).unwrap_or(i32::MAX);
                written.iter().map(whole).collect::<Vec<i32>>()
            };
            let guards: Vec<Option<String>> =
                written.iter().map(|row| row.guard.as_ref().map(|held| held.id.clone())).collect();
            let query = sqlx::query(AssertSqlSafe(query))
                .bind(text(|row| row.organisation.to_string()))
                .bind(text(|row| row.tenant.clone()))
                .bind(number(|row| row.live))
                .bind(number(|row| row.not_live))
                .bind(time(|row| row.synced_at))
                .bind(text(|row| row.problem.replace('\0', "\u{fffd}")))
                .bind(time(|row| row.problem_since))
                .bind(time(|row| row.absent_since))
                .bind(guards)
                .bind(text(|row| row.guard.as_ref().map_or_else(String::new, |g| g.reason.clone())))
                .bind(time(|row| row.guard_since));
            store.rows(&store.0.rules_pool, query).await.map(drop)
        })
        .await
    }

    /// Forgets an organisation whose namespace is gone.
    pub async fn forget_rule_sync(&self, organisation: OrganisationId) -> Result<(), StoreError> {
        let store = self.clone();
        self.run(async move {
            for table in ["alert_rule_status", "alert_rule_tombstone", "alert_rule_sync"] {
                let query = format!("delete from {} where organisation_id = $1", store.own(table));
                let query = sqlx::query(AssertSqlSafe(query)).bind(organisation.to_string());
                store.rows(&store.0.rules_pool, query).await?;
            }
            Ok(())
        })
        .await
    }

    /// Rules of an organisation that are known to have been deleted, and whose deletion has not been
    /// carried out.
    pub async fn tombstones(&self, organisation: OrganisationId) -> Result<Tombstones, StoreError> {
        let store = self.clone();
        self.run(async move {
            let query = format!(
                "select rule_id from {} where organisation_id = $1",
                store.own("alert_rule_tombstone")
            );
            let query = sqlx::query(AssertSqlSafe(query)).bind(organisation.to_string());
            let rows = store.rows(&store.0.rules_pool, query).await?;
            rows.iter().map(|row| row.try_get("rule_id").map_err(StoreError::from)).collect()
        })
        .await
    }

    /// Forgets deletions that have been carried out.
    pub async fn forget_tombstones(
        &self,
        organisation: OrganisationId,
        rules: Vec<Uuid>,
    ) -> Result<(), StoreError> {
        let store = self.clone();
        self.run(async move {
            let query = format!(
                "delete from {} where organisation_id = $1 and rule_id = any($2)",
                store.own("alert_rule_tombstone")
            );
            let query =
                sqlx::query(AssertSqlSafe(query)).bind(organisation.to_string()).bind(rules);
            store.rows(&store.0.rules_pool, query).await.map(drop)
        })
        .await
    }

    /// What the leader last said of itself.
    pub async fn rule_leader(&self) -> Result<LeaderRow, StoreError> {
        let store = self.clone();
        self.run(async move {
            let times = ["since", "reconciled_at", "guard_since"].map(moment::select).join(", ");
            let query = format!(
                "select holder, reconcile::text as reconcile, guard_id, guard_reason, {CONFIRMED}, \
                 {times} from {} as leader",
                store.own("alert_rule_leader")
            );
            let rows = store.rows(&store.0.rules_pool, sqlx::query(AssertSqlSafe(query))).await?;
            Ok(rows.first().map(read_leader).transpose()?.unwrap_or_default())
        })
        .await
    }

    /// Writes what the leader says of itself. What an administrator confirmed is not touched.
    pub async fn write_rule_leader(&self, leader: LeaderRow) -> Result<(), StoreError> {
        let store = self.clone();
        self.run(async move {
            let query = format!(
                "insert into {} (holder, since, reconciled_at, reconcile, guard_id, guard_reason, guard_since) \
                 values ($1, $2, $3, $4::jsonb, $5, $6, $7) on conflict (only_one) do update set \
                 holder = excluded.holder, since = excluded.since, reconciled_at = excluded.reconciled_at, \
                 reconcile = excluded.reconcile, guard_id = excluded.guard_id, \
                 guard_reason = excluded.guard_reason, guard_since = excluded.guard_since",
                store.own("alert_rule_leader")
            );
            let (guard, reason) = match leader.guard {
                Some(GuardHeld { id, reason }) => (Some(id), reason),
                None => (None, String::new()),
            };
            let query = sqlx::query(AssertSqlSafe(query))
                .bind(leader.holder)
                .bind(leader.since)
                .bind(leader.reconciled_at)
                .bind(if leader.reconcile.is_empty() { "{}".to_owned() } else { leader.reconcile })
                .bind(guard)
                .bind(reason)
                .bind(leader.guard_since);
            store.rows(&store.0.rules_pool, query).await.map(drop)
        })
        .await
    }

    /// Notes that an administrator confirms a deletion, of one organisation or of many. Says whether
    /// it is the one that waits.
    pub async fn confirm_guard(
        &self,
        organisation: Option<OrganisationId>,
        guard: String,
        by: String,
    ) -> Result<bool, StoreError> {
        let store = self.clone();
        self.run(async move {
            let (table, condition) = match &organisation {
                Some(_) => (store.own("alert_rule_sync"), "organisation_id = $3"),
                None => (store.own("alert_rule_leader"), "$3::text is null"),
            };
            let query = format!(
                "update {table} set confirmed_guard = $1, confirmed_by = $2, confirmed_at = now() \
                 where guard_id = $1 and {condition} returning guard_id"
            );
            let query = sqlx::query(AssertSqlSafe(query))
                .bind(guard)
                .bind(by)
                .bind(organisation.map(|organisation| organisation.to_string()));
            Ok(!store.rows(&store.0.side_pool, query).await?.is_empty())
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
    let state = RuleState::parse(row.try_get("state")?);
    let (Some(organisation), Some(state)) = (organisation, state) else { return Ok(None) };
    Ok(Some(RuleStatusRow {
        rule: row.try_get("rule_id")?,
        organisation,
        state,
        reason: row.try_get("reason")?,
        live_hash: row.try_get("rule_hash")?,
        synced_at: moment::shown(row.try_get("synced_at")?),
    }))
}

fn read_sync(row: &PgRow) -> Result<Option<SyncRow>, sqlx::Error> {
    let Ok(organisation) = OrganisationId::parse(row.try_get("organisation_id")?) else {
        return Ok(None);
    };
    let number = |column: &str| -> Result<usize, sqlx::Error> {
        Ok(usize::try_from(row.try_get::<i32, _>(column)?).unwrap_or(0))
    };
    Ok(Some(SyncRow {
        organisation,
        tenant: row.try_get("tenant_id")?,
        live: number("live")?,
        not_live: number("not_live")?,
        synced_at: moment::shown(row.try_get("synced_at")?),
        problem: row.try_get("problem")?,
        problem_since: moment::shown(row.try_get("problem_since")?),
        absent_since: moment::shown(row.try_get("absent_since")?),
        guard: read_guard(row)?,
        guard_since: moment::shown(row.try_get("guard_since")?),
        confirmed: row.try_get("confirmed_guard")?,
    }))
}

fn read_leader(row: &PgRow) -> Result<LeaderRow, sqlx::Error> {
    Ok(LeaderRow {
        holder: row.try_get("holder")?,
        since: moment::shown(row.try_get("since")?),
        reconciled_at: moment::shown(row.try_get("reconciled_at")?),
        reconcile: row.try_get("reconcile")?,
        guard: read_guard(row)?,
        guard_since: moment::shown(row.try_get("guard_since")?),
        confirmed: row.try_get("confirmed_guard")?,
    })
}

fn read_guard(row: &PgRow) -> Result<Option<GuardHeld>, sqlx::Error> {
    let id: Option<String> = row.try_get("guard_id")?;
    let reason = row.try_get("guard_reason")?;
    Ok(id.map(|id| GuardHeld { id, reason }))
}
