//! Invalid rows: each is skipped alone, and never causes an outage.

use std::time::Duration;

use harness::{Client, Upstream, wait_until};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::database::{listening, migrated};
use crate::support::identity::{
    IdentityFixture, Person, identity_fixture, identity_fixture_without_migration, push,
};
use crate::support::responses::ok;

const QUERY: &str = "/prometheus/api/v1/query?query=up";

/// The log lines with a message.
fn lines(identity: &IdentityFixture, message: &str) -> usize {
    let log = identity.proxy.process.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["message"] == message).count()
}

async fn logged(identity: &IdentityFixture, message: &str) {
    wait_until(message, Duration::from_secs(5), async || lines(identity, message) > 0).await;
}

// One invalid row is a mistake in one place and must not affect others.
#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_row_is_skipped_alone() {
    let upstream = Upstream::start(ok).await;
    let identity = identity_fixture(&upstream.url(), &[]).await;
    identity
        .database
        .execute(
            "alter table organisation drop constraint organisation_id_check;
             alter table organisation drop constraint organisation_id_check1;
             alter table revocation drop constraint revocation_kind_check;
             alter table device_key drop constraint device_key_scopes_check;
             insert into organisation (id) values ('a|b'), ('');
             insert into revocation (kind, value) values ('nonsense', 'x'), ('sub', 'no-uuid')",
        )
        .await;
    let organisation = identity.organisation().await;
    let (both, other) =
        (identity.member("a|b", "owner").await, identity.member(&organisation, "viewer").await);
    identity.join(&both, &organisation, "viewer").await;
    let nowhere = identity.member("", "owner").await;
    // Of the user's two organisations the valid one is left, and is the default.
    assert_eq!(identity.client(&both).get(QUERY).await.status, 200);
    assert_eq!(identity.client(&nowhere).get(QUERY).await.status, 403);
    assert_eq!(identity.client(&other).get(QUERY).await.status, 200);
    logged(&identity, "Invalid membership row skipped").await;
    logged(&identity, "Invalid revocation row skipped").await;
    logged(&identity, "Revocation ignored: its sub is not a UUID").await;
    let (good, bad) = (
        identity.device(&organisation, &["metrics:read"]).await,
        identity.device(&organisation, &["metrics:read"]).await,
    );
    let sql = "update device_key set organisation_id = 'a|b'
               where id = (select id from device_key order by created_at desc limit 1)";
    identity.database.execute(sql).await;
    let (good, bad) = futures_util::future::join(good.get(QUERY), bad.get(QUERY)).await;
    // An invalid row of ours is not the device's fault: it keeps its data.
    assert_eq!((good.status.as_u16(), bad.status.as_u16()), (200, 503));
    logged(&identity, "Invalid device key row skipped").await;
}

/// Times that Postgres' `timestamptz` has and a calendar with four-digit years does not; `infinity`
/// means "never".
/// <https://www.postgresql.org/docs/current/datatype-datetime.html#DATATYPE-DATETIME-SPECIAL-VALUES>
const STRANGE_TIMES: [&str; 3] = ["infinity", "-infinity", "20000-01-01"];

#[tokio::test(flavor = "multi_thread")]
async fn a_device_key_with_an_invalid_expiry_affects_no_other() {
    let upstream = Upstream::start(ok).await;
    let identity = identity_fixture(&upstream.url(), &[]).await;
    let organisation = identity.organisation().await;
    let mut harmed = Vec::new();
    for (time, status) in STRANGE_TIMES.into_iter().zip([200, 401, 200]) {
        let good = identity.device(&organisation, &["metrics:read"]).await;
        let strange = identity.device(&organisation, &["metrics:read"]).await;
        let sql = format!(
            "update device_key set expires_at = '{time}'
             where id = (select id from device_key order by created_at desc limit 1)"
        );
        identity.database.execute(&sql).await;
        // In one query with the invalid one, the valid one works.
        let (good, strange) = futures_util::future::join(good.get(QUERY), strange.get(QUERY)).await;
        if (good.status.as_u16(), strange.status.as_u16()) != (200, status) {
            harmed.push(format!("{time}: {} beside {}", good.status, strange.status));
        }
    }
    let list = format!("/admin/organisations/{organisation}/device-keys");
    assert_eq!(identity.service().get(&list).await.status, 200, "the list, and {harmed:#?}");
    assert!(harmed.is_empty(), "{harmed:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_with_an_invalid_time_affects_no_other() {
    let upstream = Upstream::start(ok).await;
    let mut harmed = Vec::new();
    // Tokens until `infinity` are all tokens.
    for (time, status) in STRANGE_TIMES.into_iter().zip([401, 200, 401]) {
        let database = migrated("strange").await;
        let meant = Uuid::new_v4();
        let sql = format!(
            "insert into revocation (kind, value, issued_before) values ('sub', '{meant}', '{time}')"
        );
        database.execute(&sql).await;
        let url = database.url();
        let identity =
            identity_fixture_without_migration(database, &url, &upstream.url(), &[]).await;
        listening(&identity).await;
        let organisation = identity.organisation().await;
        let person = identity.member(&organisation, "viewer").await;
        let token = identity.token_of(meant, Uuid::new_v4());
        let revoked = Person { id: meant, session: meant, token };
        identity.join(&revoked, &organisation, "viewer").await;
        let (good, strange) = (identity.client(&person), identity.client(&revoked));
        let (good, strange) = (good.get(QUERY).await, strange.get(QUERY).await);
        if (good.status.as_u16(), strange.status.as_u16()) != (200, status) {
            harmed.push(format!("{time}: {} beside {}", good.status, strange.status));
        }
        let list = identity.service().get("/admin/revocations").await;
        if list.status != 200 {
            harmed.push(format!("{time}: {} for the list", list.status));
        }
    }
    assert!(harmed.is_empty(), "{harmed:#?}");
}

// Any column of an operator's own query may be NULL, or a text that is invalid for us.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_an_operator_with_a_null_is_skipped_alone() {
    let upstream = Upstream::start(ok).await;
    let query = "select user_id, organisation_id, role from own where user_id = any($1)
                 union all select null, 'a', 'owner' union all select gen_random_uuid(), null, null";
    let keys =
        "select key_hash, id, organisation_id, name, scopes, expires_at, grace_seconds, revoked_at
                from device_key where key_hash = any($1)
                union all select null, null, null, null, null, null, null, null
                union all select '\\x00', gen_random_uuid(), 'a', 'x', '{admin,x}', null, null, null
                union all select sha256('x'), gen_random_uuid(), 'a', null, null, null, null, null";
    let revocations = "select kind, value, issued_before from revocation
                       union all select null, null, null union all select 'sub', null, null";
    let sessions = "select id from unnest($1::uuid[]) as id union all select null";
    let database = migrated("nulls").await;
    database.execute("create table own (user_id uuid, organisation_id text, role text)").await;
    let quoted = |query: &str| format!("{query:?}");
    let (query, keys) = (quoted(query), quoted(keys));
    let (revocations, sessions) = (quoted(revocations), quoted(sessions));
    let settings = [
        ("database.membership_query", query.as_str()),
        ("database.device_key_query", keys.as_str()),
        ("database.revocation_query", revocations.as_str()),
        ("database.session_query", sessions.as_str()),
        ("auth.check_sessions", "true"),
    ];
    let url = database.url();
    let identity =
        identity_fixture_without_migration(database, &url, &upstream.url(), &settings).await;
    let organisation = identity.organisation().await;
    let (person, without) = (identity.person(), identity.person());
    identity.database
        .execute(&format!(
            "insert into own values ('{}', '{organisation}', 'viewer'), ('{}', '{organisation}', null)",
            person.id, without.id
        ))
        .await;
    let (ask, ask_without) = (identity.client(&person), identity.client(&without));
    let (served, refused) =
        futures_util::future::join(ask.get(QUERY), ask_without.get(QUERY)).await;
    assert_eq!((served.status.as_u16(), refused.status.as_u16()), (200, 403), "{served:?}");
    // Where a query of the operator's is read, the operator's table is written: ours would have no
    // effect.
    let path = format!("/admin/organisations/{organisation}/device-keys");
    let made = identity.service().post(&path, r#"{"name": "hub"}"#).await;
    assert_eq!(made.status, 409, "{made:?}");
    assert!(made.text.contains("database.device_key_query"), "{made:?}");
    let revoked = json!({"kind": "jti", "value": "x"}).to_string();
    let revoked = identity.service().post("/admin/revocations", revoked).await;
    assert_eq!(revoked.status, 409, "{revoked:?}");
    let key = mimir_tenant_proxy::authn::NewKey::generate().unwrap();
    let sql = format!(
        "insert into device_key (organisation_id, name, key_hash, scopes)
         values ('{organisation}', 'hub', sha256('{}'), '{{metrics:read}}')",
        key.expose()
    );
    identity.database.execute(&sql).await;
    let device = identity.proxy.client().bearer(key.expose());
    assert_eq!(device.get(QUERY).await.status, 200);
    for message in [
        "Invalid membership row skipped",
        "Invalid device key row skipped",
        "Invalid revocation row skipped",
    ] {
        logged(&identity, message).await;
    }
}

/// A client with a new key in a table of the operator's: `own_key`, of texts.
async fn own_key(identity: &IdentityFixture, organisation: &str, rest: [&str; 3]) -> Client {
    let key = mimir_tenant_proxy::authn::NewKey::generate().unwrap();
    let [id, grace, expires] = rest;
    let sql = format!(
        "insert into own_key values (sha256('{}'), '{organisation}', '{id}', '{grace}', '{expires}')",
        key.expose()
    );
    identity.database.execute(&sql).await;
    identity.proxy.client().bearer(key.expose())
}

// docs/decisions/0006: a row that cannot be read is left out alone, also if Postgres cannot cast it to
// what is read. Seen: it failed the query of every key that was asked for with it, and everybody who was
// not remembered got 503 for as long as its key was repeated.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_an_operator_that_cannot_be_cast_is_skipped_alone() {
    let upstream = Upstream::start(ok).await;
    let database = migrated("casts").await;
    database
        .execute(
            "create table own_key (key_hash bytea, organisation_id text, id text, grace text, expires text);
             create table own (user_id uuid, organisation_id text, role text, is_default text)",
        )
        .await;
    let keys = "select key_hash, id, organisation_id, null as name, '{metrics:read}' as scopes,
                expires as expires_at, grace as grace_seconds, null as revoked_at
                from own_key where key_hash = any($1)";
    let members = "select * from own where user_id = any($1)";
    let (keys, members) = (format!("{keys:?}"), format!("{members:?}"));
    let settings = [
        ("database.device_key_query", keys.as_str()),
        ("database.membership_query", members.as_str()),
    ];
    let url = database.url();
    let identity =
        identity_fixture_without_migration(database, &url, &upstream.url(), &settings).await;
    listening(&identity).await;
    let organisation = identity.organisation().await;
    let id = Uuid::new_v4().to_string();
    let rest = [&*id, "60", "2100-01-01"];
    for bad in
        [["hub-17", "60", "2100-01-01"], [&*id, "9999999999", "2100-01-01"], [&*id, "60", "soon"]]
    {
        let good = own_key(&identity, &organisation, rest).await;
        let bad = own_key(&identity, &organisation, bad).await;
        let (first, second) = futures_util::future::join(good.get(QUERY), bad.get(QUERY)).await;
        assert_eq!((first.status.as_u16(), second.status.as_u16()), (200, 503), "{first:?}");
        assert!(!second.header("retry-after").is_empty(), "{second:?}");
        for round in 0..100 {
            let (one, other) = futures_util::future::join(good.get(QUERY), bad.get(QUERY)).await;
            assert_eq!((one.status.as_u16(), other.status.as_u16()), (200, 503), "{round}");
        }
        let cold = own_key(&identity, &organisation, rest).await;
        let (cold, bad) = futures_util::future::join(cold.get(QUERY), bad.get(QUERY)).await;
        assert_eq!((cold.status.as_u16(), bad.status.as_u16()), (200, 503), "{cold:?}");
    }
    logged(&identity, "Invalid row skipped").await;

    let (good, bad) = (identity.person(), identity.person());
    let sql = format!(
        "insert into own values ('{}', '{organisation}', 'viewer', 'yes'),
         ('{}', '{organisation}', 'viewer', 'perhaps')",
        good.id, bad.id
    );
    identity.database.execute(&sql).await;
    let (good, bad) = (identity.client(&good), identity.client(&bad));
    let (good, bad) = futures_util::future::join(good.get(QUERY), bad.get(QUERY)).await;
    assert_eq!((good.status.as_u16(), bad.status.as_u16()), (200, 503), "{good:?}");
    logged(&identity, "Invalid row skipped").await;
    assert_eq!(lines(&identity, "Database look-ups fail; using what is cached"), 0);
}

// Revocations are read whole. One whose time cannot be read must not hide the others, and still says
// whose tokens are meant: all of them are refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_of_an_operator_whose_time_is_none_hides_no_other() {
    let upstream = Upstream::start(ok).await;
    let database = migrated("times").await;
    let cases = [
        ("null", 401),
        ("'soon'", 401),
        ("'2000-01-01 00:00:00+00'", 200),
        ("'2100-01-01T00:00:00Z'", 401),
    ];
    let people = cases.map(|_| Uuid::new_v4());
    let table = "create table own_revocation (kind text, value text, issued_before text)";
    database.execute(table).await;
    for (id, (time, _)) in people.iter().zip(cases) {
        let sql = format!("insert into own_revocation values ('sub', '{id}', {time})");
        database.execute(&sql).await;
    }
    let query = "\"select * from own_revocation\"";
    let settings = [("database.revocation_query", query)];
    let url = database.url();
    let identity =
        identity_fixture_without_migration(database, &url, &upstream.url(), &settings).await;
    listening(&identity).await;
    let organisation = identity.organisation().await;
    let other = identity.member(&organisation, "viewer").await;
    assert_eq!(identity.client(&other).get(QUERY).await.status, 200);
    for (id, (time, status)) in people.into_iter().zip(cases) {
        let token = identity.token_of(id, Uuid::new_v4());
        let person = Person { id, session: id, token };
        identity.join(&person, &organisation, "viewer").await;
        let answer = identity.client(&person).get(QUERY).await;
        assert_eq!(answer.status, status, "{time}: {answer:?}");
    }
    logged(&identity, "Revocation counts for all tokens: its time cannot be read").await;
}

// A sender drops its samples on a 403, and the row is ours.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_key_of_whose_scopes_there_is_none_is_not_the_devices_fault() {
    let upstream = Upstream::start(ok).await;
    let identity = identity_fixture(&upstream.url(), &[]).await;
    let sql = "alter table device_key drop constraint device_key_scopes_check";
    identity.database.execute(sql).await;
    let organisation = identity.organisation().await;
    for (scopes, status) in [
        ("{write}", 503),
        ("{\"metrics:write \"}", 503),
        ("{write,metrics:write}", 200),
        // It says that it may do nothing here.
        ("{metrics:read}", 403),
        ("{}", 403),
    ] {
        let device = identity.device(&organisation, &["metrics:write"]).await;
        let sql = format!(
            "update device_key set scopes = '{scopes}'
             where id = (select id from device_key order by created_at desc limit 1)"
        );
        identity.database.execute(&sql).await;
        let answer = push(&device, "up").await;
        assert_eq!(answer.status, status, "{scopes}: {answer:?}");
        assert_eq!(answer.header("retry-after").is_empty(), status != 503, "{answer:?}");
    }
    logged(&identity, "Invalid device key row skipped").await;
}

// Our table takes identifiers that Mimir refuses, alone or with the template around them.
#[tokio::test(flavor = "multi_thread")]
async fn an_organisation_without_a_tenant_is_not_the_devices_fault() {
    let upstream = Upstream::start(ok).await;
    let long = "x".repeat(150);
    for (template, organisation) in
        [("\"{organisation_id}\"", "__mimir_cluster"), ("\"prod-{organisation_id}\"", &*long)]
    {
        let settings = [("tenancy.tenant_template", template)];
        let identity = identity_fixture(&upstream.url(), &settings).await;
        let sql = format!("insert into organisation (id) values ('{organisation}')");
        identity.database.execute(&sql).await;
        let device = identity.device(organisation, &["metrics:write"]).await;
        let answer = push(&device, "up").await;
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
        let lines = identity.log_of("/api/v1/push").await;
        assert_eq!(lines[0]["reason"], "no_tenant", "{lines:?}");
    }
    assert!(upstream.heads().is_empty());
}
