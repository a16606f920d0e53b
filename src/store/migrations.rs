//! `migrate`: our tables, made step by step, and never over somebody else's.

use std::fmt;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _, SqlSafeStr as _};

use super::{StoreError, connect, queries};
use crate::config::DatabaseConfig;

/// The steps, in order. One that has been released is never changed.
const STEPS: [(i64, &str, &str); 1] =
    [(1, "identity", include_str!("../../migrations/0001_identity.sql"))];

/// Where it is noted which steps have been taken.
const NOTES: &str = "mimir_tenant_proxy_migration";

/// What the steps make.
const TABLES: [&str; 4] = ["organisation", "membership", "device_key", "revocation"];

/// What `migrate` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Migrated {
    /// So many steps were taken.
    Steps(usize),
    /// Tables that were there already are like ours, and are ours from now on.
    Adopted,
}

impl fmt::Display for Migrated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steps(0) => f.write_str("nothing to do: the tables are up to date"),
            Self::Steps(1) => f.write_str("1 step taken: the tables are up to date"),
            Self::Steps(steps) => write!(f, "{steps} steps taken: the tables are up to date"),
            Self::Adopted => f.write_str("the existing tables were adopted; nothing was changed"),
        }
    }
}

/// Brings the tables up to date. Tables of our names that are not ours are left alone: they are
/// adopted if that is wished and they have all that ours have, else nothing is done.
pub async fn migrate(config: &DatabaseConfig, adopt: bool) -> Result<Migrated, StoreError> {
    let options = connect::options_of(config)?;
    let mut connection = PgConnection::connect_with(&options).await?;
    let schema = &config.schema;
    run(&mut connection, format!("create schema if not exists \"{schema}\"")).await.or_else(
        |error| {
            // Who may not make a schema can still use one that is there.
            if schema == "public" { Ok(()) } else { Err(error) }
        },
    )?;
    run(&mut connection, format!("set search_path to \"{schema}\"")).await?;
    let before = applied(&mut connection, schema).await?;
    let strangers = if before == 0 { existing(&mut connection, schema).await? } else { Vec::new() };
    let migrator = migrator();
    let adopts = !strangers.is_empty();
    if adopts {
        let named = strangers.join(", ");
        if !adopt {
            return Err(StoreError::Unfit(format!(
                "the schema {schema} already has the tables {named}, which `migrate` did not make, \
                 and nothing was changed; set database.schema to another schema for ours, or set \
                 database.membership_query (and others) to read your own, or, if they were made from \
                 our migrations by other means, run `migrate --adopt`"
            )));
        }
        let differences = differences(&mut connection, schema).await?;
        if !differences.is_empty() {
            return Err(StoreError::Unfit(format!(
                "the tables {named} are not like ours, and nothing was changed: {}",
                differences.join("; ")
            )));
        }
        migrator.skip(&mut connection, None).await.map_err(failed)?;
        return Ok(Migrated::Adopted);
    }
    migrator.run_direct(None, &mut connection, false).await.map_err(failed)?;
    run(&mut connection, format!("alter table {NOTES} enable row level security")).await?;
    let after = applied(&mut connection, schema).await?;
    connection.close().await?;
    Ok(Migrated::Steps(after.saturating_sub(before)))
}

fn migrator() -> Migrator {
    let steps = STEPS.map(|(version, name, sql)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    let mut migrator = Migrator::with_migrations(steps.into());
    migrator.dangerous_set_table_name(NOTES);
    migrator
}

fn failed(error: sqlx::migrate::MigrateError) -> StoreError {
    StoreError::Unfit(error.to_string())
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
async fn existing(connection: &mut PgConnection, schema: &str) -> Result<Vec<String>, StoreError> {
    let query = "select c.relname::text as name from pg_class c \
                 join pg_namespace n on n.oid = c.relnamespace \
                 where n.nspname = $1 and c.relname = any($2) order by 1";
    let query = sqlx::query(query).bind(schema).bind(TABLES.map(str::to_owned).to_vec());
    let rows = query.fetch_all(connection).await?;
    rows.iter().map(|row| row.try_get("name").map_err(StoreError::from)).collect()
}

/// What existing tables lack of ours. Ours are made for a moment in a schema of their own, compared,
/// and taken back.
async fn differences(
    connection: &mut PgConnection,
    schema: &str,
) -> Result<Vec<String>, StoreError> {
    const SAMPLE: &str = "mimir_tenant_proxy_sample";
    let mut transaction = connection.begin().await?;
    run(&mut transaction, format!("create schema {SAMPLE}; set local search_path to {SAMPLE}"))
        .await?;
    for (_, _, sql) in STEPS {
        run(&mut transaction, sql.to_owned()).await?;
    }
    let columns = "select table_name || '.' || column_name || ' ' || data_type || \
                   case is_nullable when 'NO' then ' not null' else '' end as what \
                   from information_schema.columns where table_schema = $1";
    let triggers = "select distinct 'trigger ' || trigger_name || ' on ' || event_object_table as what \
                    from information_schema.triggers where trigger_schema = $1 \
                    union select 'row-level security on ' || c.relname from pg_class c \
                    join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relrowsecurity";
    let mut lacking = Vec::new();
    for query in [columns, triggers] {
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
