//! `migrate`: creates our tables step by step, and never touches tables that are not ours.
//!
//! A step that changes a table waits until nobody reads it, and who comes later waits behind the step. So
//! each wait is shorter than the time that a query of the proxy has, and a step that gets no lock is tried
//! again after a pause, in which the others get through.

use std::fmt;
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _, SqlSafeStr as _};
use tokio::time::sleep;

use super::{Store, StoreError, queries};
use crate::config::{DatabaseConfig, TablesRead};

/// The steps, in order. One that has been released is never changed.
const STEPS: [Step; 14] = [
    Step {
        version: 1,
        name: "identity",
        sql: include_str!("../../migrations/0001_identity.sql"),
        tables: &["organisation", "membership", "device_key", "revocation"],
    },
    Step {
        version: 2,
        name: "alert_rules",
        sql: include_str!("../../migrations/0002_alert_rules.sql"),
        tables: &[
            "alert_rule",
            "alert_rule_status",
            "alert_rule_tombstone",
            "alert_rule_sync",
            "alert_rule_leader",
            "alert_rule_sync_request",
        ],
    },
    Step {
        version: 3,
        name: "alert_rule_guard",
        sql: include_str!("../../migrations/0003_alert_rule_guard.sql"),
        tables: &["alert_rule_guard"],
    },
    Step {
        version: 4,
        name: "rule_health",
        sql: include_str!("../../migrations/0004_rule_health.sql"),
        tables: &[],
    },
    Step {
        version: 5,
        name: "notification",
        sql: include_str!("../../migrations/0005_notification.sql"),
        tables: &[
            "notification_channel",
            "notification_channel_secret",
            "notification_route",
            "notification_channel_status",
            "notification_route_status",
            "notification_tombstone",
            "notification_sync",
        ],
    },
    Step {
        version: 6,
        name: "alert_event",
        sql: include_str!("../../migrations/0006_alert_event.sql"),
        tables: &["alert_event", "alert_event_start", "alert_event_watch"],
    },
    Step {
        version: 7,
        name: "device_key_alerts",
        sql: include_str!("../../migrations/0007_device_key_alerts.sql"),
        tables: &[],
    },
    Step {
        version: 8,
        name: "trigger_rights",
        sql: include_str!("../../migrations/0008_trigger_rights.sql"),
        tables: &[],
    },
    Step {
        version: 9,
        name: "organisation_limit",
        sql: include_str!("../../migrations/0009_organisation_limit.sql"),
        tables: &["organisation_limit"],
    },
    Step {
        version: 10,
        name: "row_bounds",
        sql: include_str!("../../migrations/0010_row_bounds.sql"),
        tables: &[],
    },
    Step {
        version: 11,
        name: "masks_and_renames",
        sql: include_str!("../../migrations/0011_masks_and_renames.sql"),
        tables: &[],
    },
    Step {
        version: 12,
        name: "grants",
        sql: include_str!("../../migrations/0012_grants.sql"),
        tables: &[],
    },
    Step {
        version: 13,
        name: "indexes",
        sql: include_str!("../../migrations/0013_indexes.sql"),
        tables: &[],
    },
    Step {
        version: 14,
        name: "alert_event_copies",
        sql: include_str!("../../migrations/0014_alert_event_copies.sql"),
        tables: &["alert_event_copy", "alert_event_gap"],
    },
];

/// One step, and the tables that it makes.
struct Step {
    version: i64,
    name: &'static str,
    sql: &'static str,
    tables: &'static [&'static str],
}

/// Where it is noted which steps have been taken.
const NOTES: &str = "mimir_tenant_proxy_migration";

/// How often a step tries to lock its tables.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(2);
/// The longest wait for one lock.
const LONGEST_WAIT: Duration = Duration::from_secs(3);
/// `lock_not_available` and `deadlock_detected`: others use the tables in another order.
const LOCKED: [&str; 2] = ["55P03", "40P01"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Migrated {
    Steps(usize),
    /// Tables that were there already are like ours, and are ours from now on; so many steps were
    /// taken beside.
    Adopted(usize),
}

impl fmt::Display for Migrated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steps(0) => f.write_str("nothing to do: the tables are up to date"),
            Self::Steps(1) => f.write_str("1 step taken: the tables are up to date"),
            Self::Steps(steps) => write!(f, "{steps} steps taken: the tables are up to date"),
            Self::Adopted(0) => {
                f.write_str("the existing tables were adopted; nothing was changed")
            }
            Self::Adopted(steps) => {
                write!(f, "the existing tables were adopted as they are; {steps} more made")
            }
        }
    }
}

/// Brings the tables up to date. Tables of our names that are not ours are left alone: they are
/// adopted if that is wished and they have all that ours have, else nothing is done.
pub async fn migrate(config: &DatabaseConfig, adopt: bool) -> Result<Migrated, StoreError> {
    // A transaction pooler would lose our locks as it loses notifications.
    let store = Store::new(config, TablesRead::default())?;
    store.check_notifications().await?;
    let mut connection = store.0.server.connect().await?;
    // Several may run at once: the second looks when the first is done. Ends with the connection.
    run(&mut connection, format!("select pg_advisory_lock(hashtext('{NOTES}'))")).await?;
    // After that, which others may hold for long.
    let wait = (config.query_timeout * 3 / 4).min(LONGEST_WAIT);
    run(&mut connection, format!("set lock_timeout = {}", wait.as_millis())).await?;
    let migrated = migrate_alone(&mut connection, &config.schema, adopt, wait).await;
    connection.close().await?;
    migrated
}

async fn migrate_alone(
    connection: &mut PgConnection,
    schema: &str,
    adopt: bool,
    wait: Duration,
) -> Result<Migrated, StoreError> {
    // Who may not make a schema can still use one that is there.
    let query = sqlx::query("select to_regnamespace($1) is not null as is_there").bind(schema);
    if !query.fetch_one(&mut *connection).await?.try_get::<bool, _>("is_there")? {
        run(connection, format!("create schema \"{schema}\"")).await?;
    }
    run(connection, format!("set search_path to \"{schema}\"")).await?;
    let before = applied(connection, schema).await?;
    let pending = &STEPS[before.min(STEPS.len())..];
    let mut foreign = Vec::new();
    let mut adopted = 0;
    for (at, step) in pending.iter().enumerate() {
        let there = existing(connection, schema, step.tables).await?;
        if !there.is_empty() {
            adopted = at + 1;
            foreign.extend(there);
        }
    }
    // Steps whose tables are there already; what comes after them is made as usual.
    let (theirs, _) = pending.split_at(adopted);
    if let Some(last) = theirs.last() {
        may_adopt(connection, schema, theirs, &foreign, adopt).await?;
        let noted = migrator().run_direct(Some(last.version), connection, true).await;
        noted.map_err(failed)?;
    }
    let mut attempt = 1;
    loop {
        let taken = migrator().run_direct(None, connection, false).await;
        let Err(error) = taken else { break };
        if !is_locked(&error) {
            return Err(failed(error));
        }
        if attempt == ATTEMPTS {
            return Err(in_use(connection, schema, &error, wait).await);
        }
        attempt += 1;
        sleep(PAUSE).await;
    }
    run(connection, PROTECT_NOTES.replace("{NOTES}", NOTES)).await?;
    let steps = applied(connection, schema).await?.saturating_sub(before + adopted);
    Ok(if adopted > 0 { Migrated::Adopted(steps) } else { Migrated::Steps(steps) })
}

/// Our notes are nothing for Supabase's API. They are not locked if there is nothing to do: a backup may
/// read them.
const PROTECT_NOTES: &str = "
    do $$ declare api_role text; begin
        if not (select relrowsecurity from pg_class where oid = '{NOTES}'::regclass) then
            alter table {NOTES} enable row level security;
        end if;
        foreach api_role in array array['anon', 'authenticated'] loop
            if exists (select from pg_roles where rolname = api_role) then
                execute format('revoke all on {NOTES} from %I', api_role);
            end if;
        end loop;
    end $$";

/// Says whether tables that are there may be taken for ours.
async fn may_adopt(
    connection: &mut PgConnection,
    schema: &str,
    theirs: &[Step],
    foreign: &[String],
    adopt: bool,
) -> Result<(), StoreError> {
    let named = foreign.join(", ");
    if !adopt {
        return Err(StoreError::Unfit(format!(
            "the schema {schema} already has the tables {named}, which `migrate` did not make, and \
             nothing was changed; set database.schema to another schema for ours (tables that ours made \
             earlier do not move with the setting: docs/operations/rules.md), or set \
             database.membership_query, database.alert_rule_query (and others) to read your own, or, if they were made from our \
             migrations by other means, run `migrate --adopt`"
        )));
    }
    let differences = differences(connection, schema, theirs).await?;
    if differences.is_empty() {
        return Ok(());
    }
    Err(StoreError::Unfit(format!(
        "the tables {named} are not like ours, and nothing was changed: {}",
        differences.join("; ")
    )))
}

fn migrator() -> Migrator {
    let steps = STEPS.iter().map(|step| {
        let (name, sql) = (step.name.into(), step.sql.into_sql_str());
        Migration::new(step.version, name, MigrationType::Simple, sql, false)
    });
    let mut migrator = Migrator::with_migrations(steps.collect());
    migrator.dangerous_set_table_name(NOTES);
    // Of a later version, which was rolled back: this one can read its tables.
    migrator.set_ignore_missing(true);
    migrator
}

fn failed(error: MigrateError) -> StoreError {
    match &error {
        // The connection broke, which is nothing of the tables'.
        MigrateError::Execute(inner) | MigrateError::ExecuteMigration(inner, _)
            if inner.as_database_error().is_none() =>
        {
            StoreError::Unavailable(super::describe(inner))
        }
        MigrateError::Execute(inner) => StoreError::Unfit(super::describe(inner)),
        MigrateError::ExecuteMigration(inner, version) => {
            StoreError::Unfit(format!("migration {version}: {}", super::describe(inner)))
        }
        error => StoreError::Unfit(error.to_string()),
    }
}

/// Whether a step did not get a lock in time.
fn is_locked(error: &MigrateError) -> bool {
    match error {
        MigrateError::Execute(inner) | MigrateError::ExecuteMigration(inner, _) => {
            let code = inner.as_database_error().and_then(DatabaseError::code);
            code.is_some_and(|code| LOCKED.contains(&&*code))
        }
        _ => false,
    }
}

/// Why a step did not get a lock: the sessions that have used our tables for longer than it has waited.
async fn in_use(
    connection: &mut PgConnection,
    schema: &str,
    error: &MigrateError,
    wait: Duration,
) -> StoreError {
    let step = match error {
        MigrateError::ExecuteMigration(_, version) => format!("migration {version}"),
        _ => "the next migration".to_owned(),
    };
    let sessions = match sessions_on(connection, schema, wait).await {
        Ok(sessions) if !sessions.is_empty() => sessions.join(", "),
        Ok(_) | Err(_) => "sessions that have ended, or that this role may not see".to_owned(),
    };
    StoreError::Unavailable(format!(
        "{step} changed nothing (steps before it stay): its tables were in use at each of {ATTEMPTS} \
         attempts of {wait:?}, by {sessions}; run `migrate` again when these have ended \
         (pg_terminate_backend ends one)"
    ))
}

/// Sessions whose transaction is older than a wait and has locked a table of ours. Of other roles' sessions
/// the server may tell the number alone.
async fn sessions_on(
    connection: &mut PgConnection,
    schema: &str,
    wait: Duration,
) -> Result<Vec<String>, StoreError> {
    let query = "select format('pid %s (%s, query begun %s)', session.pid, \
                     coalesce(nullif(session.application_name, ''), 'no application_name'), \
                     coalesce(session.query_start::text, 'at an unknown time')) as session \
                 from pg_stat_activity as session where session.pid <> pg_backend_pid() \
                 and coalesce(session.xact_start < now() - make_interval(secs => $3), true) \
                 and exists (select from pg_locks as held join pg_class as c on c.oid = held.relation \
                     join pg_namespace as n on n.oid = c.relnamespace \
                     where held.pid = session.pid and held.granted \
                     and held.database = (select oid from pg_database where datname = current_database()) \
                     and n.nspname = $1 and c.relname = any($2)) \
                 order by session.xact_start, session.pid limit 10";
    let tables = STEPS.iter().flat_map(|step| step.tables).chain([&NOTES]);
    let tables: Vec<String> = tables.map(|name| (*name).to_owned()).collect();
    let query = sqlx::query(query).bind(schema).bind(tables).bind(wait.as_secs_f64());
    let rows = query.fetch_all(connection).await?;
    rows.iter().map(|row| row.try_get("session").map_err(StoreError::from)).collect()
}

async fn run(connection: &mut PgConnection, sql: String) -> Result<(), StoreError> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(())
}

/// How many steps have been taken.
async fn applied(connection: &mut PgConnection, schema: &str) -> Result<usize, StoreError> {
    let notes = queries::table(schema, NOTES);
    let query = sqlx::query("select to_regclass($1) is not null as is_there").bind(&notes);
    if !query.fetch_one(&mut *connection).await?.try_get::<bool, _>("is_there")? {
        return Ok(0);
    }
    let query = AssertSqlSafe(format!("select count(*) as steps from {notes} where success"));
    let row = sqlx::query(query).fetch_one(connection).await?;
    Ok(usize::try_from(row.try_get::<i64, _>("steps")?).unwrap_or(0))
}

/// Tables, or anything else, that already have a name of ours.
async fn existing(
    connection: &mut PgConnection,
    schema: &str,
    tables: &[&str],
) -> Result<Vec<String>, StoreError> {
    let query = "select c.relname::text as name from pg_class c \
                 join pg_namespace n on n.oid = c.relnamespace \
                 where n.nspname = $1 and c.relname = any($2) order by 1";
    let tables: Vec<String> = tables.iter().map(|name| (*name).to_owned()).collect();
    let query = sqlx::query(query).bind(schema).bind(tables);
    let rows = query.fetch_all(connection).await?;
    rows.iter().map(|row| row.try_get("name").map_err(StoreError::from)).collect()
}

/// What makes our tables ours, each a query of a schema `$1` that gives lines of text.
const PROPERTIES: [&str; 5] = [
    "select table_name || '.' || column_name || ' ' || data_type ||
     case is_nullable when 'NO' then ' not null' else '' end as what
     from information_schema.columns where table_schema = $1",
    // Not information_schema: it leaves out TRUNCATE, and says nothing of those that are disabled.
    "select 'trigger ' || t.tgname || ' on ' || c.relname as what
     from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = $1 and not t.tgisinternal and t.tgenabled in ('O', 'A')",
    "select 'row-level security on ' || c.relname as what
     from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = $1 and c.relrowsecurity",
    "select 'policy ' || policyname || ' on ' || tablename as what from pg_policies where schemaname = $1",
    "select case contype when 'f' then 'foreign key ' || conname else pg_get_constraintdef(t.oid) end
     || ' on ' || c.relname as what
     from pg_constraint t join pg_class c on c.oid = t.conrelid join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = $1 and t.contype in ('p', 'u', 'f')",
];

/// What existing tables lack of ours. Ours are made for a moment in a schema of their own, compared,
/// and taken back.
async fn differences(
    connection: &mut PgConnection,
    schema: &str,
    theirs: &[Step],
) -> Result<Vec<String>, StoreError> {
    const SAMPLE: &str = "mimir_tenant_proxy_sample";
    let mut transaction = connection.begin().await?;
    run(&mut transaction, format!("create schema {SAMPLE}; set local search_path to {SAMPLE}"))
        .await?;
    // What the steps before these made is there by its own notes.
    let last = theirs.last().map_or(0, |step| step.version);
    for step in STEPS.iter().filter(|step| step.version <= last) {
        run(&mut transaction, step.sql.to_owned()).await?;
    }
    let mut lacking = Vec::new();
    for query in PROPERTIES {
        let query = AssertSqlSafe(format!("({query}) except ({})", query.replace("$1", "$2")));
        let query = sqlx::query(query).bind(SAMPLE).bind(schema);
        for row in &query.fetch_all(&mut *transaction).await? {
            lacking.push(format!("lacks {}", row.try_get::<String, _>("what")?));
        }
    }
    transaction.rollback().await?;
    run(connection, format!("set search_path to \"{schema}\"")).await?;
    Ok(lacking)
}
