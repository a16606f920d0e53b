//! Databases as operators have them: behind a pooler, behind TLS, without tables, with wrong
//! queries and privileges. An unavailable one is waited for. An unsuitable one is a fault of the
//! configuration (exit 64), because it would reject members and lose the data of devices.

use std::process::Command;
use std::time::Duration;

use harness::{Client, Database, PgBouncer, Postgres, Proxy, Upstream, wait_until};
use uuid::Uuid;

use crate::support::identity::{
    IdentityFixture, command, command_with, identity_fixture, identity_fixture_without_migration,
};
use crate::support::responses::ok;

const QUERY: &str = "/prometheus/api/v1/query?query=up";

/// Waits until notifications arrive.
pub(crate) async fn listening(identity: &IdentityFixture) {
    wait_until("notifications arrive", Duration::from_secs(10), async || {
        identity.proxy.metric("mimir_tenant_proxy_database_listening").await == 1.0
    })
    .await;
}

/// A removed member is rejected within a second.
pub(crate) async fn refused_within_a_second(
    identity: &IdentityFixture,
    change: &str,
    client: &Client,
    status: u16,
) {
    assert_eq!(client.get(QUERY).await.status, 200);
    identity.database.execute(change).await;
    wait_until(change, Duration::from_secs(1), async || client.get(QUERY).await.status == status)
        .await;
}

// 29 connections were possible where the documentation said 5. Locks block every statement until
// its timeout, so that all pools fill.
#[tokio::test(flavor = "multi_thread")]
async fn connections_stay_within_the_documented_number() {
    const LOOKUPS: i64 = 2;
    const BESIDE_WITH_RULES: i64 = 11;
    let upstream = Upstream::start(ok).await;
    let settings = [
        ("database.max_connections", "2"),
        ("rules.enabled", "true"),
        ("rules.reconcile_interval", "\"1s\""),
    ];
    let identity = identity_fixture(&upstream.url(), &settings).await;
    listening(&identity).await;
    wait_until("it leads", Duration::from_secs(10), async || {
        identity.proxy.metric("mimir_tenant_proxy_rules_leader").await == 1.0
    })
    .await;
    let org = identity.organisation().await;
    // Created before the locks, by a service whose organisation must be looked up.
    let device = identity.device(&org, &["metrics:read"]).await;
    let locks = identity.database.client().await;
    let lock = "begin; lock table membership, device_key, alert_rule, \
                alert_rule_status, alert_rule_sync in access exclusive mode";
    locks.batch_execute(lock).await.unwrap();
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let (member, service) = (identity.client(&identity.person()), identity.service());
        let admin = format!("/admin/organisations/{org}");
        let device = device.clone();
        asking.spawn(async move { drop(member.get(QUERY).await) });
        asking.spawn(async move { drop(device.get(QUERY).await) });
        for path in ["device-keys", "rules", "rules/diff"] {
            let (service, path) = (service.clone(), format!("{admin}/{path}"));
            asking.spawn(async move { drop(service.get(&path).await) });
        }
    }
    let count = format!(
        "select count(*) from pg_stat_activity where datname = '{}' \
         and application_name = 'mimir-tenant-proxy'",
        identity.database.name()
    );
    let mut most = 0;
    for _ in 0..40 {
        let rows = identity.database.query(&count).await;
        most = most.max(rows[0][0].as_ref().unwrap().parse::<i64>().unwrap());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    asking.abort_all();
    println!("{most} connections");
    assert!(most <= LOOKUPS + BESIDE_WITH_RULES, "{most}");
    // Every pool was in use: lookups, administration, both threads of the rules, the feed, the leader.
    assert!(most >= LOOKUPS + 6, "{most}");
}

/// The output of `serve` and its exit code; 124 if it serves and has to be stopped.
fn serve(url: &str, env: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = Command::new("timeout")
        .arg("12")
        .arg(Proxy::binary())
        .arg("serve")
        .env("MTP__DATABASE__URL", url)
        .env("MTP__AUTH__ISSUER", "http://127.0.0.1:1/auth/v1")
        .env("MTP__UPSTREAM__URLS", "http://127.0.0.1:1")
        .env("MTP__LISTEN__ADDRESS", "127.0.0.1:0")
        .env("MTP__LISTEN__INTERNAL_ADDRESS", "127.0.0.1:0")
        .env("MTP__SHUTDOWN__DRAIN_DELAY", "0s")
        .envs(env.iter().copied())
        .output()
        .unwrap();
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

pub(crate) async fn migrated(name: &str) -> Database {
    let database = Postgres::shared().await.database(name).await;
    assert!(command(&database, &["migrate"]).status.success());
    database
}

/// A login role of the test, and the database's URL for it.
pub(crate) async fn login(database: &Database, rights: &str) -> (String, String) {
    let role = format!("proxy_{}", Uuid::new_v4().simple());
    database
        .execute(&format!("create role {role} login; {}", rights.replace("$role", &role)))
        .await;
    let url = database.url().replace("//postgres@", &format!("//{role}@"));
    (role, url)
}

// A transaction pooler accepts LISTEN and delivers nothing: a removed member would keep access for
// as long as memberships are cached. https://www.pgbouncer.org/features.html
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_pooler_is_refused_at_the_start() {
    let database = migrated("pooled").await;
    let bouncer = PgBouncer::transaction(Postgres::shared().await).await;
    let (code, text) = serve(&bouncer.url(&database), &[]);
    assert_eq!(code, Some(64), "{text}");
    assert!(text.contains("transaction pooler") && text.contains("LISTEN"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_arrive_through_a_session_pooler() {
    let database = migrated("pooled").await;
    let bouncer = PgBouncer::session(Postgres::shared().await).await;
    let (url, upstream) = (bouncer.url(&database), Upstream::start(ok).await);
    let identity = identity_fixture_without_migration(database, &url, &upstream.url(), &[]).await;
    listening(&identity).await;
    let organisation = identity.organisation().await;
    let person = identity.member(&organisation, "viewer").await;
    let removal = format!("delete from membership where user_id = '{}'", person.id);
    refused_within_a_second(&identity, &removal, &identity.client(&person), 403).await;
}

// Privileges and hashes of keys come from the database, so it must be authenticated. A database
// with a wrong certificate counts as unavailable: callers get 503.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_database_with_the_right_certificate_is_read() {
    let postgres = Postgres::start_with_tls().await;
    let upstream = Upstream::start(ok).await;
    let ca = |file: &std::path::Path| file.to_str().unwrap().to_owned();
    let (right, other) = (ca(postgres.ca_file()), ca(postgres.other_ca_file()));
    let database = postgres.database("encrypted").await;
    let env = [("MTP__DATABASE__TLS", "verify-full"), ("MTP__DATABASE__CA_FILE", &right)];
    let output = command_with(&database, &env, &["migrate"]);
    assert!(output.status.success(), "{output:?}");
    let quoted = |text: &str| format!("{text:?}");
    let full = quoted("verify-full");
    // A database that denies access is the operator's to fix.
    let (code, text) = serve(&database.url(), &[("MTP__DATABASE__TLS", "off")]);
    assert_eq!(code, Some(64), "{text}");
    assert!(text.contains("no encryption"), "{text}");
    let (right, other) = (quoted(&right), quoted(&other));
    for (settings, status, reason) in [
        (vec![("database.tls", &full), ("database.ca_file", &right)], 200, ""),
        (vec![("database.tls", &full), ("database.ca_file", &other)], 503, "certificate"),
        (vec![("database.tls", &full)], 503, "certificate"),
    ] {
        let settings: Vec<_> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let url = database.url();
        let identity =
            identity_fixture_without_migration(database.clone(), &url, &upstream.url(), &settings)
                .await;
        if status == 200 {
            listening(&identity).await;
        }
        let person = identity.member(&identity.organisation().await, "viewer").await;
        let key = mimir_tenant_proxy::authn::NewKey::generate().unwrap();
        let answer = identity.client(&person).get(QUERY).await;
        assert_eq!(
            answer.status,
            status,
            "{settings:?}: {answer:?} {}",
            identity.proxy.process.log()
        );
        if status == 503 {
            assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
            let answer = identity.proxy.client().bearer(key.expose()).get(QUERY).await;
            assert_eq!(answer.status, 503, "{settings:?}: {answer:?}");
            wait_until("the log says why", Duration::from_secs(5), async || {
                identity.proxy.process.log().contains(reason)
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tables_the_start_is_refused_and_migrate_is_named() {
    let database = Postgres::shared().await.database("bare").await;
    let (code, text) = serve(&database.url(), &[]);
    assert_eq!(code, Some(64), "{text}");
    assert!(text.contains("migrate") && text.contains("membership"), "{text}");
    // Tables in another schema do not count.
    assert!(command(&database, &["migrate"]).status.success());
    let (code, text) = serve(&database.url(), &[("MTP__DATABASE__SCHEMA", "elsewhere")]);
    assert_eq!(code, Some(64), "{text}");
    assert!(text.contains("migrate") && text.contains("elsewhere"), "{text}");
}

// Row-level security makes every table look empty to such a role: all members would be rejected,
// and devices would get 401 and drop their data.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_rows_are_hidden_from_is_refused_at_the_start() {
    let database = migrated("hidden").await;
    let (role, url) = login(&database, "grant all on all tables in schema public to $role").await;
    let (code, text) = serve(&url, &[]);
    assert_eq!(code, Some(64), "{text}");
    assert!(text.contains("row-level security") && text.contains(&role), "{text}");
    let remedy = format!("alter role {role} bypassrls");
    assert!(text.contains(&remedy), "{text}");
    database.execute(&remedy).await;
    let upstream = Upstream::start(ok).await;
    let identity = identity_fixture_without_migration(database, &url, &upstream.url(), &[]).await;
    let organisation = identity.organisation().await;
    let person = identity.member(&organisation, "viewer").await;
    assert_eq!(identity.client(&person).get(QUERY).await.status, 200);
    let device = identity.device(&organisation, &["metrics:read"]).await;
    assert_eq!(device.get(QUERY).await.status, 200);
}

// Postgres checks privileges when a query runs, not when it is prepared.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_read_the_tables_is_refused_at_the_start() {
    let database = migrated("denied").await;
    let rights = "alter role $role bypassrls; grant select on device_key, revocation to $role";
    let (_, url) = login(&database, rights).await;
    let (code, text) = serve(&url, &[]);
    assert_eq!(code, Some(64), "{text}");
    assert!(text.contains("permission denied for table"), "{text}");
}

// The operator's queries are tried at the start, and the error says which one is wrong and what is
// missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_does_not_fit_is_refused_at_the_start() {
    let database = migrated("queries").await;
    let (member, device, revocation) = (
        ("MTP__DATABASE__MEMBERSHIP_QUERY", "database.membership_query"),
        ("MTP__DATABASE__DEVICE_KEY_QUERY", "database.device_key_query"),
        ("MTP__DATABASE__REVOCATION_QUERY", "database.revocation_query"),
    );
    let members = "select user_id, organisation_id, role from membership";
    let mut accepted = Vec::new();
    for ((variable, key), query, complaint) in [
        (member, "select user_id, role from membership where user_id = any($1)", "organisation_id"),
        (member, "select user_id, org_id, role from membership where user_id = any($1)", "org_id"),
        (member, "selec user_id", "syntax error"),
        (member, "MEMBERS", "$1, a uuid[]"),
        (member, "MEMBERS where user_id = any($1) and role = $2", "has 2 parameters"),
        (member, "MEMBERS where user_id = any($1); select 1", "multiple commands"),
        (
            member,
            "select 1 as user_id, 'a' as organisation_id, 'b' as role where $1 = '{}'",
            "uuid",
        ),
        // One user instead of several, and texts instead of UUIDs.
        (member, "MEMBERS where user_id = $1", "uuid[]"),
        (member, "MEMBERS where user_id::text = any($1)", "uuid"),
        (device, "select id, organisation_id from device_key where key_hash = any($1)", "key_hash"),
        (device, "select * from device_key where key_hash = $1", "bytea[]"),
        (revocation, "select kind, value from revocation", "issued_before"),
        (revocation, "select * from revocation where value = $1", "must have none"),
    ] {
        let query = query.replace("MEMBERS", members);
        let (code, text) = serve(&database.url(), &[(variable, &query)]);
        if code != Some(64) || !text.contains(key) || !text.contains(complaint) {
            let line = text.lines().last().unwrap_or_default();
            accepted.push(format!("{query}: {code:?}, not {complaint:?}: {line}"));
        }
    }
    assert!(accepted.is_empty(), "{accepted:#?}");
}

// As copied from an editor: with comments, a semicolon, extra columns, in any order.
#[tokio::test(flavor = "multi_thread")]
async fn a_query_may_have_what_queries_usually_have() {
    let upstream = Upstream::start(ok).await;
    let select = "select m.*, now() from membership m where user_id = any($1)";
    for query in [
        format!("{select};\n"),
        format!("-- ours\n{select} -- all of them"),
        format!("with m as ({select}) select role, organisation_id, user_id from m order by 2;"),
    ] {
        let quoted = format!("{query:?}");
        let identity =
            identity_fixture(&upstream.url(), &[("database.membership_query", &quoted)]).await;
        let person = identity.member(&identity.organisation().await, "viewer").await;
        assert_eq!(identity.client(&person).get(QUERY).await.status, 200, "{query}");
    }
}

// Rows that are hidden from us would lock members out, also those of the operator's own tables.
#[tokio::test(flavor = "multi_thread")]
async fn an_operators_table_whose_rows_are_hidden_is_refused_at_the_start() {
    let database = migrated("hidden_own").await;
    database
        .execute(
            "create table own (user_id uuid, organisation_id text, role text);
             alter table own enable row level security",
        )
        .await;
    let query = "select * from own where user_id = any($1)";
    let env = [("MTP__DATABASE__MEMBERSHIP_QUERY", query)];
    let (role, hidden) = login(&database, "grant select on own to $role").await;
    let sql = format!(
        "grant all on device_key, revocation to \"{role}\"; alter table device_key disable row level security;
         alter table revocation disable row level security"
    );
    database.execute(&sql).await;
    let (code, text) = serve(&hidden, &env);
    assert_eq!(code, Some(64), "{text}");
    assert!(text.contains("membership_query") && text.contains("row-level security"), "{text}");
}
