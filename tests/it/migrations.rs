//! `migrate`: tables created, adopted or refused, in a schema of their own, and behind Supabase's
//! API.

use std::collections::BTreeSet;
use std::process::Output;
use std::time::Duration;

use harness::{Database, Postgres, Upstream};
use serde_json::json;
use uuid::Uuid;

use crate::database::{listening, login, refused_within_a_second};
use crate::documents::root;
use crate::support::identity::{command, command_with, identity_fixture_without_migration};
use crate::support::responses::ok;

const QUERY: &str = "/prometheus/api/v1/query?query=up";
const IDENTITY: &str = include_str!("../../migrations/0001_identity.sql");
const GRANTS: &str = include_str!("../../migrations/0012_grants.sql");
const NOTES: &str = "mimir_tenant_proxy_migration";
const TABLES: [&str; 4] = ["organisation", "membership", "device_key", "revocation"];

/// A user in an organisation with a device, in our tables in the first schema of the search path.
const ROWS: &str = "
    insert into organisation (id, name) values ('acme', 'Acme');
    insert into membership (user_id, organisation_id) values ('11111111-1111-4111-8111-111111111111', 'acme');
    insert into device_key (organisation_id, name, key_hash) values ('acme', 'hub', sha256('key'));
    insert into revocation (kind, value) values ('jti', 'x');";

/// What Supabase gives the roles of its API on each new table and function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defaults {
    /// Everything, as in projects from before 30 May 2026.
    Everything,
    /// Nothing, as in later ones. And only its owner may execute a function, as Supabase advises.
    Nothing,
}

impl Defaults {
    pub(crate) const ALL: [Self; 2] = [Self::Everything, Self::Nothing];
}

/// A database of a Supabase project, with an empty schema `tenancy`. Roles belong to the cluster.
pub(crate) async fn supabase_project(defaults: Defaults) -> (Postgres, Database) {
    let cluster = Postgres::start().await;
    let database = cluster.database("supabase").await;
    database
        .execute(
            "create role anon nologin; create role authenticated nologin;
             create role service_role nologin bypassrls; create publication supabase_realtime;
             create schema tenancy; grant usage on schema public to anon, authenticated, service_role",
        )
        .await;
    let sql = match defaults {
        Defaults::Everything => {
            "grant usage on schema tenancy to anon, authenticated, service_role;
             alter default privileges in schema public, tenancy
                 grant all on tables to anon, authenticated, service_role;
             alter default privileges in schema public, tenancy
                 grant all on functions to anon, authenticated, service_role"
        }
        Defaults::Nothing => "alter default privileges revoke execute on functions from public",
    };
    database.execute(sql).await;
    (cluster, database)
}

/// The number of migrations.
pub(crate) fn steps() -> usize {
    std::fs::read_dir(root().join("migrations")).unwrap().count()
}

pub(crate) fn says(output: &Output) -> (Option<i32>, String) {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

/// All objects of a database, without rows.
async fn shape(database: &Database) -> Vec<String> {
    let sql = "
        with made as (select oid, nspname || '.' as schema from pg_namespace
                      where nspname !~ '^(pg_|information_schema)')
        select 'schema ' || schema from made
        union all select schema || relname || ' ' || relkind::text || relrowsecurity::text
            from pg_class join made on relnamespace = made.oid
        union all select schema || relname || '.' || attname || ' ' || atttypid::regtype::text
            from pg_attribute join pg_class on pg_class.oid = attrelid
            join made on relnamespace = made.oid where attnum > 0
        union all select schema || proname || '()' from pg_proc join made on pronamespace = made.oid
        union all select tgname || tgenabled::text from pg_trigger where not tgisinternal
        order by 1";
    database.query(sql).await.into_iter().flatten().flatten().collect()
}

/// The rows of our tables, as the first migration has them.
async fn rows(database: &Database) -> Vec<Vec<Option<String>>> {
    let each = TABLES
        .map(|name| format!("select (to_jsonb(t) - 'device_silent_after')::text from {name} as t"));
    database.query(&each.join(" union all ")).await
}

async fn count(database: &Database, table: &str) -> String {
    let rows = database.query(&format!("select count(*) from {table}")).await;
    rows[0][0].clone().unwrap()
}

// A release command runs `migrate` on every deployment, and every copy may run it.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_migration_has_nothing_to_do() {
    let database = Postgres::shared().await.database("empty").await;
    let (code, text) = says(&command(&database, &["migrate"]));
    assert_eq!(
        (code, text),
        (Some(0), format!("{} steps taken: the tables are up to date\n", steps()))
    );
    for table in TABLES.into_iter().chain([NOTES]) {
        count(&database, table).await;
    }
    let before = shape(&database).await;
    let (code, text) = says(&command(&database, &["migrate"]));
    assert_eq!((code, text.as_str()), (Some(0), "nothing to do: the tables are up to date\n"));
    assert_eq!(shape(&database).await, before);
}

// A roll-back: Fly runs `migrate` of the previous version before it starts its machines.
#[tokio::test(flavor = "multi_thread")]
async fn the_migrate_of_a_version_before_accepts_later_steps() {
    let database = Postgres::shared().await.database("rolled_back").await;
    assert_eq!(says(&command(&database, &["migrate"])).0, Some(0));
    database
        .execute(
            "insert into mimir_tenant_proxy_migration (version, description, success, checksum, execution_time)
             values (9999, 'of a later version', true, '\\x00', 1)",
        )
        .await;
    let (code, said) = says(&command(&database, &["migrate"]));
    assert_eq!(
        (code, said.trim()),
        (Some(0), "nothing to do: the tables are up to date"),
        "{said}"
    );
}

// Supabase Realtime brings what is in this publication to pages.
#[tokio::test(flavor = "multi_thread")]
async fn statuses_of_rules_are_published_where_supabase_publishes() {
    let database = Postgres::shared().await.database("published").await;
    database.execute("create publication supabase_realtime").await;
    let (code, text) = says(&command(&database, &["migrate"]));
    assert_eq!(code, Some(0), "{text}");
    let published = "pg_publication_tables where pubname = 'supabase_realtime' \
                     and schemaname = 'public' and tablename = 'alert_rule_status'";
    assert_eq!(count(&database, published).await, "1");
    // A publication of all tables, and one whose owner is another role, are left as they are.
    let all = Postgres::shared().await.database("published_all").await;
    all.execute("create publication supabase_realtime for all tables").await;
    let (code, text) = says(&command(&all, &["migrate"]));
    assert_eq!(code, Some(0), "{text}");
    let other = Postgres::shared().await.database("published_other").await;
    other.execute("create publication supabase_realtime").await;
    let (_, url) = login(&other, "grant all on schema public to $role").await;
    let (code, text) = says(&command_with(&other, &[("MTP__DATABASE__URL", &url)], &["migrate"]));
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(count(&other, published).await, "0");
}

// The second one waits, and accepts the tables of the first. Several rounds, because timing
// matters.
#[tokio::test(flavor = "multi_thread")]
async fn migrations_at_the_same_time_all_succeed() {
    for round in 0..8 {
        let schema = ["public", "mimir"][round % 2];
        let database = Postgres::shared().await.database("race").await;
        let runs = (0..6).map(|_| {
            let database = database.clone();
            tokio::task::spawn_blocking(move || {
                command_with(&database, &[("MTP__DATABASE__SCHEMA", schema)], &["migrate"])
            })
        });
        for run in futures_util::future::join_all(runs).await {
            let (code, text) = says(&run.unwrap());
            assert_eq!(code, Some(0), "{schema}, round {round}: {text}");
        }
        let noted = count(&database, &format!("{schema}.{NOTES}")).await;
        assert_eq!(noted, steps().to_string(), "{schema}");
        assert_eq!(count(&database, &format!("{schema}.revocation")).await, "0", "{schema}");
    }
}

// A role that may not create schemas can be given one.
#[tokio::test(flavor = "multi_thread")]
async fn an_existing_schema_is_used_by_a_role_that_may_create_tables_in_it() {
    let database = Postgres::shared().await.database("given").await;
    let rights = "create schema mimir; grant all on schema mimir to $role";
    let (_, url) = login(&database, rights).await;
    let env = [("MTP__DATABASE__URL", url.as_str()), ("MTP__DATABASE__SCHEMA", "mimir")];
    let (code, text) = says(&command_with(&database, &env, &["migrate"]));
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(count(&database, "mimir.membership").await, "0");
}

// A name such as `membership` may be taken: someone else's table is never changed.
#[tokio::test(flavor = "multi_thread")]
async fn another_table_with_our_name_is_reported_and_not_changed() {
    let database = Postgres::shared().await.database("stranger").await;
    let sql =
        "create table membership (card text, colour int); insert into membership values ('a', 1)";
    database.execute(sql).await;
    let before = shape(&database).await;
    let (code, text) = says(&command(&database, &["migrate"]));
    assert_eq!(code, Some(1), "{text}");
    for part in
        ["membership", "nothing was changed", "database.schema", "database.membership_query"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("revocation"), "only what is there is named: {text}");
    let (code, text) = says(&command(&database, &["migrate", "--adopt"]));
    assert_eq!(code, Some(1), "{text}");
    for part in ["membership.user_id", "revocation.kind", "nothing was changed"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(shape(&database).await, before);
    assert_eq!(count(&database, "membership where card = 'a' and colour = 1").await, "1");
}

// Supabase's own tool may have run our file; then only the record of it is missing.
#[tokio::test(flavor = "multi_thread")]
async fn tables_created_by_other_tools_are_adopted_on_request_only() {
    let database = Postgres::shared().await.database("adopted").await;
    database.execute(IDENTITY).await;
    database.execute(ROWS).await;
    let (before, rows_before) = (shape(&database).await, rows(&database).await);
    let (code, text) = says(&command(&database, &["migrate"]));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("migrate --adopt"), "{text}");
    assert!(TABLES.iter().all(|table| text.contains(table)), "{text}");
    assert_eq!(shape(&database).await, before);
    let (code, text) = says(&command(&database, &["migrate", "--adopt"]));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("adopted"), "{text}");
    assert_eq!(rows(&database).await, rows_before);
    // The same as if `migrate` had created them, the record included.
    let ours = Postgres::shared().await.database("ours").await;
    assert!(command(&ours, &["migrate"]).status.success());
    assert_eq!(shape(&database).await, shape(&ours).await);
    for args in [&["migrate"] as &[&str], &["migrate", "--adopt"]] {
        let (code, text) = says(&command(&database, args));
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("nothing to do"), "{text}");
    }
}

// All of our files, by another tool.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_another_tool_made_of_all_our_files_are_adopted() {
    let database = Postgres::shared().await.database("adopted").await;
    let mut files: Vec<_> = std::fs::read_dir(root().join("migrations"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    for file in files {
        database.execute(&std::fs::read_to_string(file).unwrap()).await;
    }
    let (code, text) = says(&command(&database, &["migrate", "--adopt"]));
    assert_eq!(code, Some(0), "{text}");
    let ours = Postgres::shared().await.database("ours").await;
    assert!(command(&ours, &["migrate"]).status.success());
    assert_eq!(shape(&database).await, shape(&ours).await);
    let (code, text) = says(&command(&database, &["migrate"]));
    assert_eq!((code, text.trim()), (Some(0), "nothing to do: the tables are up to date"));
}

// Adopted tables are trusted from then on: without a trigger, changes would not be notified;
// without row-level security, Supabase's API would show every row to everyone.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_lack_something_are_not_adopted() {
    let mut accepted = Vec::new();
    for (damage, lacking) in [
        ("alter table device_key drop column last_used_at", "device_key.last_used_at"),
        ("alter table membership alter role drop not null", "membership.role"),
        ("alter table membership alter role type varchar", "membership.role"),
        ("drop table revocation", "revocation.kind"),
        ("drop trigger membership_changed on membership", "trigger membership_changed"),
        ("drop trigger membership_truncated on membership", "trigger membership_truncated"),
        ("drop trigger revocation_changed on revocation", "trigger revocation_changed"),
        ("alter table device_key disable trigger device_key_changed", "trigger device_key_changed"),
        ("alter table device_key disable row level security", "row-level security on device_key"),
        ("alter table device_key drop constraint device_key_key_hash_key", "lacks"),
        ("alter table membership drop constraint membership_pkey", "lacks"),
    ] {
        let database = Postgres::shared().await.database("lacking").await;
        database.execute(IDENTITY).await;
        database.execute(damage).await;
        let before = shape(&database).await;
        let (code, text) = says(&command(&database, &["migrate", "--adopt"]));
        if code != Some(1) || !text.contains(lacking) || !text.contains("nothing was changed") {
            accepted.push(format!("{damage}: {code:?} {text}"));
        } else {
            assert_eq!(shape(&database).await, before, "{damage}");
        }
    }
    assert!(accepted.is_empty(), "{accepted:#?}");
}

// ALTER TABLE waits for every reader, and later readers wait behind it. Before, a forgotten transaction or
// a backup stopped all look-ups of device keys for as long as `migrate` waited.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_in_use_stops_migrate_and_not_the_look_ups() {
    let database = Postgres::shared().await.database("in_use").await;
    database.execute(IDENTITY).await;
    database.execute(ROWS).await;
    let holder = database.client().await;
    holder.batch_execute("begin; lock table device_key in access share mode").await.unwrap();
    let row = holder.query_one("select pg_backend_pid()", &[]).await.unwrap();
    let pid = format!("pid {}", row.get::<_, i32>(0));
    let migrating = {
        let database = database.clone();
        tokio::task::spawn_blocking(move || command(&database, &["migrate", "--adopt"]))
    };
    while !migrating.is_finished() {
        // As a look-up has it, by default.
        let session = "set statement_timeout = '2s'";
        let found = database.try_query(session, "select name from device_key").await;
        assert!(found.is_ok(), "{found:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (code, text) = says(&migrating.await.unwrap());
    assert_eq!(code, Some(69), "{text}");
    for part in ["migration 7 changed nothing", pid.as_str(), "run `migrate` again"] {
        assert!(text.contains(part), "{part}: {text}");
    }

    holder.batch_execute("rollback").await.unwrap();
    let (code, text) = says(&command(&database, &["migrate"]));
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(count(&database, NOTES).await, steps().to_string());
    assert_eq!(count(&database, "device_key where name = 'hub'").await, "1");

    // A backup reads everything; who has nothing to change does not wait for it.
    let all = TABLES.into_iter().chain([NOTES]).collect::<Vec<_>>().join(", ");
    let lock = format!("begin; lock table {all} in access share mode");
    holder.batch_execute(&lock).await.unwrap();
    let (code, text) = says(&command(&database, &["migrate"]));
    assert_eq!((code, text.as_str()), (Some(0), "nothing to do: the tables are up to date\n"));
}

// If the names are taken, ours get a schema of their own.
#[tokio::test(flavor = "multi_thread")]
async fn the_tables_can_have_a_schema_of_their_own() {
    let database = Postgres::shared().await.database("schema").await;
    let sql = "create table membership (card text); insert into membership values ('a');
               create table organisation (title text); create view device_key as select 1 as one";
    database.execute(sql).await;
    let schema = [("MTP__DATABASE__SCHEMA", "mimir")];
    let (code, text) = says(&command_with(&database, &schema, &["migrate"]));
    assert_eq!(code, Some(0), "{text}");
    let in_public = "select table_name from information_schema.tables
                     where table_schema = 'public' order by 1";
    let names: Vec<_> = database.query(in_public).await.into_iter().flatten().flatten().collect();
    assert_eq!(names, ["device_key", "membership", "organisation"]);
    assert_eq!(count(&database, "public.membership where card = 'a'").await, "1");
    let upstream = Upstream::start(ok).await;
    let url = database.url();
    let settings = [("database.schema", "\"mimir\"")];
    let identity =
        identity_fixture_without_migration(database, &url, &upstream.url(), &settings).await;
    listening(&identity).await;
    let person = identity.person();
    let id = person.id;
    identity
        .database
        .execute(&format!(
            "insert into mimir.organisation (id) values ('acme'), ('other');
             insert into mimir.membership (user_id, organisation_id) values ('{id}', 'acme')"
        ))
        .await;
    assert_eq!(identity.client(&person).get(QUERY).await.status, 200);
    let device = identity.device("acme", &["metrics:read"]).await;
    assert_eq!(device.get(QUERY).await.status, 200);
    let removal = format!("delete from mimir.membership where user_id = '{id}'");
    refused_within_a_second(&identity, &removal, &identity.client(&person), 403).await;
    // Where no key is left, none is refused.
    identity.device("other", &["metrics:read"]).await;
    let removal = "delete from mimir.organisation where id = 'acme'";
    refused_within_a_second(&identity, removal, &device, 401).await;
}

/// The first column that a role sees through Supabase's API with a token, or the SQLSTATE of the
/// error.
async fn seen(
    database: &Database,
    role: &str,
    claims: &str,
    sql: &str,
) -> Result<Vec<String>, String> {
    let client = database.client().await;
    let session = format!("set role {role}; set request.jwt.claims = '{claims}'");
    client.batch_execute(&session).await.unwrap();
    let rows = client.query(sql, &[]).await.map_err(|e| e.code().unwrap().code().to_owned())?;
    let mut seen: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    seen.sort();
    Ok(seen)
}

// Where Supabase grants its API roles all privileges on new tables of `public`, only row-level security
// and our revocations protect the rows; where it grants nothing, only our grants let anybody read.
// https://supabase.com/docs/guides/database/postgres/row-level-security
#[tokio::test(flavor = "multi_thread")]
async fn through_supabases_api_users_read_their_own_rows_and_write_none() {
    for defaults in Defaults::ALL {
        users_read_their_own_rows_and_write_none(defaults).await;
    }
}

async fn users_read_their_own_rows_and_write_none(defaults: Defaults) {
    const DENIED: &str = "42501";
    let (_cluster, database) = supabase_project(defaults).await;
    assert!(command(&database, &["migrate"]).status.success());
    let upstream = Upstream::start(ok).await;
    let url = database.url();
    let identity = identity_fixture_without_migration(database, &url, &upstream.url(), &[]).await;
    let (a, b) = (identity.organisation().await, identity.organisation().await);
    let (admin, viewer) = (identity.member(&a, "admin").await, identity.member(&a, "viewer").await);
    let stranger = identity.member(&b, "owner").await;
    identity.join(&stranger, &a, "viewer").await;
    identity.device_key(&a, json!({"name": "hub of A"})).await;
    identity.device_key(&b, json!({"name": "hub of B"})).await;
    identity.database.execute("insert into revocation (kind, value) values ('jti', 'x')").await;
    let database = &identity.database;
    let as_user = async |id: Uuid, sql: &str| {
        seen(database, "authenticated", &json!({"sub": id.to_string()}).to_string(), sql).await
    };
    let organisations = "select id from organisation";
    let memberships = "select user_id::text || organisation_id from membership";
    let keys = "select name from device_key";
    for (person, own, own_keys) in [
        (&admin, vec![&a], vec!["hub of A"]),
        (&viewer, vec![&a], vec![]),
        (&stranger, vec![&a, &b], vec!["hub of B"]),
        (&identity.person(), vec![], vec![]),
    ] {
        let mut own: Vec<String> = own.into_iter().cloned().collect();
        own.sort();
        assert_eq!(as_user(person.id, organisations).await, Ok(own.clone()));
        let own = own.iter().map(|organisation| format!("{}{organisation}", person.id)).collect();
        assert_eq!(as_user(person.id, memberships).await, Ok(own));
        assert_eq!(
            as_user(person.id, keys).await,
            Ok(own_keys.into_iter().map(str::to_owned).collect())
        );
    }
    for hash in
        ["select key_hash::text from device_key", "select to_jsonb(d)::text from device_key as d"]
    {
        assert_eq!(as_user(admin.id, hash).await, Err(DENIED.to_owned()), "{hash}");
    }
    let mine = json!({"sub": admin.id.to_string()}).to_string();
    let mut allowed = Vec::new();
    for (role, claims) in [
        ("authenticated", mine.as_str()),
        ("authenticated", ""),
        ("anon", mine.as_str()),
        ("anon", ""),
    ] {
        for (table, column) in
            TABLES.map(|table| (table, "created_at")).into_iter().chain([(NOTES, "installed_on")])
        {
            for sql in [
                format!("insert into {table} default values"),
                format!("update {table} set {column} = now()"),
                format!("delete from {table}"),
                format!("truncate {table} cascade"),
            ] {
                if seen(database, role, claims, &sql).await != Err(DENIED.to_owned()) {
                    allowed.push(format!("{role}: {sql}"));
                }
            }
            let is_open = role == "authenticated" && !claims.is_empty();
            let is_hidden = !is_open || ["revocation", NOTES].contains(&table);
            let sql = format!("select {column}::text from {table}");
            let rows = seen(database, role, claims, &sql).await.unwrap_or_default();
            if is_hidden && !rows.is_empty() {
                allowed.push(format!("{role} sees {table}"));
            }
        }
    }
    assert!(allowed.is_empty(), "{defaults:?}: {allowed:#?}");
    // The owner, the proxy's role, is not subject to it.
    assert_eq!(identity.client(&admin).get(QUERY).await.status, 200);
    assert_eq!(count(database, "device_key").await, "2");
}

/// What the roles of Supabase's API may do with a schema, its tables and functions.
const RIGHTS: &str = "
    with roles as (select oid, rolname::text as who from pg_roles
                   where rolname in ('anon', 'authenticated', 'service_role')
                   union all select 0::oid, 'public'),
    tables as (select oid, relname, relacl from pg_class where relnamespace = '$schema'::regnamespace)
    select who || ': ' || string_agg(lower(privilege_type), ', ' order by privilege_type) || ' on ' || relname
        from tables, aclexplode(relacl) join roles on roles.oid = grantee group by who, relname
    union all select who || ': ' || lower(privilege_type)
            || ' (' || string_agg(attname, ', ' order by attnum) || ') on ' || relname
        from tables join pg_attribute on attrelid = tables.oid,
            aclexplode(attacl) join roles on roles.oid = grantee
        group by who, privilege_type, relname
    union all select who || ': ' || lower(privilege_type) || ' ' || proname || '()'
        from pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner))) join roles on roles.oid = grantee
        where pronamespace = '$schema'::regnamespace
    union all select who || ': ' || lower(privilege_type) || ' of the schema'
        from pg_namespace, aclexplode(nspacl) join roles on roles.oid = grantee where nspname = '$schema'";

/// Whoever comes with a user's token.
const OF_USERS: [&str; 19] = [
    "select on organisation",
    "update (device_silent_after) on organisation",
    "select on membership",
    "select (id, organisation_id, name, key_hint, scopes, expires_at, grace_seconds, revoked_at, \
     last_used_at, created_at, created_by) on device_key",
    "delete, select on alert_rule",
    "insert (organisation_id, name, expr, for_duration, keep_firing_for, rule_group, \
     evaluation_interval, labels, annotations, enabled) on alert_rule",
    "update (name, expr, for_duration, keep_firing_for, rule_group, evaluation_interval, labels, \
     annotations, enabled) on alert_rule",
    "select on alert_rule_status",
    "delete, select on notification_channel",
    "insert (organisation_id, name, kind, settings, secrets, enabled, is_default) \
     on notification_channel",
    "update (name, kind, settings, secrets, enabled, is_default) on notification_channel",
    "delete, select on notification_route",
    "insert (organisation_id, channel_id, position, matchers, group_by, group_wait, \
     group_interval, repeat_interval, mute_times, continue_matching, enabled) \
     on notification_route",
    "update (channel_id, position, matchers, group_by, group_wait, group_interval, \
     repeat_interval, mute_times, continue_matching, enabled) on notification_route",
    "select on notification_channel_status",
    "select on notification_route_status",
    "select on alert_event",
    "execute mimir_tenant_proxy_user()",
    "usage of the schema",
];

/// What an operator's backend writes, in an order in which it can.
const WRITTEN_BY_BACKENDS: [&str; 8] = [
    "organisation",
    "membership",
    "device_key",
    "revocation",
    "organisation_limit",
    "alert_rule",
    "notification_channel",
    "notification_route",
];
const READ_BY_BACKENDS: [&str; 5] = [
    "alert_rule_status",
    "alert_rule_sync",
    "notification_channel_status",
    "notification_route_status",
    "notification_sync",
];

// Where Supabase gives nothing, these are all rights that there are: whoever adds a table decides whose it is.
#[tokio::test(flavor = "multi_thread")]
async fn the_roles_of_supabases_api_have_the_rights_that_they_need_and_no_others() {
    let written =
        WRITTEN_BY_BACKENDS.map(|table| format!("delete, insert, select, update on {table}"));
    let read = READ_BY_BACKENDS.map(|table| format!("select on {table}"));
    let others = [
        "delete, select on alert_event",
        "execute mimir_tenant_proxy_user()",
        "usage of the schema",
    ]
    .map(str::to_owned);
    let of_backends = written.into_iter().chain(read).chain(others);
    let documented: BTreeSet<String> = of_backends
        .map(|right| format!("service_role: {right}"))
        .chain(OF_USERS.iter().map(|right| format!("authenticated: {right}")))
        .collect();
    for defaults in Defaults::ALL {
        let (_cluster, database) = supabase_project(defaults).await;
        for schema in ["public", "tenancy"] {
            let env = [("MTP__DATABASE__SCHEMA", schema)];
            assert!(command_with(&database, &env, &["migrate"]).status.success());
            // What else there is comes from Supabase: whatever `service_role` has where it gives everything, and the
            // use of `public`.
            let is_ours = |right: &String| match defaults {
                Defaults::Everything => {
                    right.contains(" on ") && !right.starts_with("service_role")
                }
                Defaults::Nothing => schema != "public" || !right.ends_with(" of the schema"),
            };
            let rights = database.query(&RIGHTS.replace("$schema", schema)).await;
            let rights: BTreeSet<String> =
                rights.into_iter().flatten().flatten().filter(is_ours).collect();
            let wanted: BTreeSet<String> =
                documented.iter().filter(|right| is_ours(right)).cloned().collect();
            let wrong: Vec<_> = rights.symmetric_difference(&wanted).collect();
            assert!(wrong.is_empty(), "{defaults:?}, {schema}: {wrong:#?}");
        }
    }
}

// `service_role` bypasses row-level security, but no grants. Before, a project that gives nothing by default refused it
// everything.
#[tokio::test(flavor = "multi_thread")]
async fn a_backend_with_the_secret_key_writes_rows_reads_statuses_and_sees_no_secrets() {
    const DENIED: &str = "42501";
    let user = Uuid::new_v4();
    let of_user = json!({"sub": user.to_string()});
    for (defaults, schema) in [
        (Defaults::Everything, "public"),
        (Defaults::Nothing, "public"),
        (Defaults::Nothing, "tenancy"),
    ] {
        let (_cluster, database) = supabase_project(defaults).await;
        let env = [("MTP__DATABASE__SCHEMA", schema)];
        assert!(command_with(&database, &env, &["migrate"]).status.success());
        let role = async |role: &str, sql: &str| {
            let session = format!(
                "set role {role}; set search_path to {schema}; set request.jwt.claims = '{of_user}'"
            );
            let answer = database.try_query(&session, sql).await;
            answer.map(|rows| rows.into_iter().flatten().flatten().collect::<Vec<_>>())
        };
        let done = async |sql: &str| {
            let rows = role("service_role", sql).await;
            rows.unwrap_or_else(|refusal| panic!("{defaults:?}, {schema}: {sql}: {refusal:?}"))
        };
        for sql in [
            "insert into organisation (id) values ('a') returning id",
            &format!(
                "insert into membership (user_id, organisation_id) values ('{user}', 'a') returning role"
            ),
            "insert into device_key (organisation_id, name, key_hash)
             values ('a', 'hub', sha256('key')) returning name",
            "insert into revocation (kind, value) values ('jti', 'x') returning kind",
            "insert into organisation_limit (organisation_id, name, value)
             values ('a', 'push_requests_per_second', '1000') returning name",
            "insert into alert_rule (organisation_id, name, expr)
             values ('a', 'Down', 'up == 0') returning name",
            "insert into notification_channel (organisation_id, kind, secrets)
             values ('a', 'webhook', '{\"url\": \"https://example.com/n33dle\"}') returning kind",
            "insert into notification_route (organisation_id, channel_id)
             select organisation_id, id from notification_channel returning position",
        ] {
            assert_eq!(done(sql).await.len(), 1, "{sql}");
        }
        for table in WRITTEN_BY_BACKENDS {
            let sql = format!("update {table} set created_at = now() returning created_at");
            assert_eq!(done(&sql).await.len(), 1, "{sql}");
        }
        // What the proxy writes.
        let written = "
            insert into alert_rule_status (rule_id, organisation_id, state)
                values (gen_random_uuid(), 'a', 'live');
            insert into alert_rule_sync (organisation_id, tenant_id) values ('a', 'a');
            insert into notification_channel_status (channel_id, organisation_id, state)
                values (gen_random_uuid(), 'a', 'live');
            insert into notification_route_status (route_id, organisation_id, state)
                values (gen_random_uuid(), 'a', 'live');
            insert into notification_sync (organisation_id) values ('a');
            insert into alert_event (organisation_id, kind, fingerprint, state, started_at)
                values ('a', 'alert', 'x', 'firing', now())";
        role("postgres", written).await.unwrap();
        for table in READ_BY_BACKENDS {
            let sql = format!("select organisation_id from {table}");
            assert_eq!(done(&sql).await, ["a"], "{sql}");
        }
        // A member reads the same through policies that call a function of ours.
        for sql in ["select name from alert_rule", "select organisation_id from alert_event"] {
            assert_eq!(role("authenticated", sql).await.unwrap().len(), 1, "{defaults:?}: {sql}");
        }
        assert_eq!(done("delete from alert_event returning state").await, ["firing"]);
        assert_eq!(done("select secrets ->> 'url' from notification_channel").await, ["<secret>"]);
        for sql in [
            "select secrets from notification_channel_secret",
            "update notification_channel_secret set secrets = '{}'",
            "delete from notification_channel_secret",
            "truncate notification_channel_secret",
        ] {
            let refused = role("service_role", sql).await.unwrap_err();
            assert_eq!(refused.code, DENIED, "{defaults:?}: {sql}: {}", refused.text);
        }
        for table in WRITTEN_BY_BACKENDS.iter().rev() {
            let sql = format!("delete from {table} returning created_at");
            assert_eq!(done(&sql).await.len(), 1, "{sql}");
        }
    }
}

// A role that makes tables in another role's schema cannot grant the use of it. The rest is granted, and a warning says so.
#[tokio::test(flavor = "multi_thread")]
async fn the_use_of_another_roles_schema_is_for_its_owner_to_grant() {
    let (_cluster, database) = supabase_project(Defaults::Nothing).await;
    let (_, url) = login(&database, "grant all on schema tenancy to $role").await;
    let env = [("MTP__DATABASE__URL", url.as_str()), ("MTP__DATABASE__SCHEMA", "tenancy")];
    let (code, told) = says(&command_with(&database, &env, &["migrate"]));
    assert_eq!(code, Some(0), "{told}");
    for role in ["authenticated", "service_role"] {
        let warning = format!("the role {role} may not use the schema tenancy");
        assert!(told.contains(&warning), "{told}");
    }
    let (session, insert) = (
        "set role service_role",
        "insert into tenancy.organisation (id) values ('a') returning id",
    );
    let refused = database.try_query(session, insert).await.unwrap_err();
    assert!(refused.text.contains("permission denied for schema"), "{}", refused.text);
    database.execute("grant usage on schema tenancy to service_role").await;
    assert_eq!(database.try_query(session, insert).await.unwrap().len(), 1);
}

// Of another role PostgreSQL only warns that nothing was granted: the step would count as taken, and the owner would find
// nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_owner_takes_the_step_that_grants() {
    let (_cluster, database) = supabase_project(Defaults::Nothing).await;
    assert!(command(&database, &["migrate"]).status.success());
    let rights = "grant all on all tables in schema public to $role;
                  grant execute on all functions in schema public to $role";
    let (role, _) = login(&database, rights).await;
    let refused = database.try_query(&format!("set role {role}"), GRANTS).await.unwrap_err();
    assert_eq!(refused.code, "42501", "{}", refused.text);
    assert!(refused.text.contains("only the owner"), "{}", refused.text);
    database.execute(GRANTS).await;
}

// A publication of another role is left as it is, and who runs `migrate` is told what to do.
#[tokio::test(flavor = "multi_thread")]
async fn what_postgres_warns_of_is_told() {
    let database = Postgres::shared().await.database("warned").await;
    let rights = "create publication supabase_realtime; grant create on schema public to $role";
    let (_, url) = login(&database, rights).await;
    let output = command_with(&database, &[("MTP__DATABASE__URL", &url)], &["migrate"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    let warnings: Vec<&str> = told.lines().collect();
    for table in ["alert_event", "alert_rule_status", "tables of statuses"] {
        let is_told = |line: &&str| {
            line.starts_with("warning: ")
                && line.contains(table)
                && line.contains("supabase_realtime")
        };
        assert!(warnings.iter().any(is_told), "{table}: {told}");
    }
    // Nothing else that Postgres remarks.
    assert!(warnings.iter().all(|line| line.contains("supabase_realtime")), "{told}");
}
