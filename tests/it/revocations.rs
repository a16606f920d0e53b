//! Tokens that are revoked before they expire, cached ones too.

use std::time::Duration;

use harness::{Client, Mimir, wait_until};
use http::Method;
use serde_json::json;
use uuid::Uuid;

use crate::database::{login, migrated};
use crate::support::identity::{
    IdentityFixture, Person, command_with, identity_fixture, identity_fixture_on,
    identity_fixture_without_migration,
};

const QUERY: &str = "/prometheus/api/v1/query?query=up";
const REVOCATIONS: &str = "/admin/revocations";

async fn status(client: &Client) -> u16 {
    client.get(QUERY).await.status.as_u16()
}

async fn revoke(identity: &IdentityFixture, body: serde_json::Value) -> String {
    let answer = identity.service().post(REVOCATIONS, body.to_string()).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["id"].as_str().unwrap().to_owned()
}

// A revoked token must not live on in the cache.
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_ends_cached_tokens_and_no_others() {
    let mimir = Mimir::shared().await;
    let identity = identity_fixture(&mimir.url(), &[]).await;
    let a = identity.organisation().await;
    let bystander = identity.client(&identity.member(&a, "viewer").await);
    for kind in ["sub", "session_id", "jti"] {
        let person = identity.member(&a, "viewer").await;
        // Another session of the same user.
        let elsewhere =
            identity.proxy.client().bearer(&identity.token_of(person.id, Uuid::new_v4()));
        let token_id = Uuid::new_v4().to_string();
        let token = identity.issuer.token().claim("sub", json!(person.id.to_string()));
        let token = token.claim("session_id", json!(person.session.to_string()));
        let client = identity.proxy.client().bearer(&token.claim("jti", json!(token_id)).sign());
        for client in [&client, &elsewhere, &client] {
            assert_eq!(status(client).await, 200);
        }
        let value = match kind {
            "sub" => person.id.to_string(),
            "session_id" => person.session.to_string(),
            _ => token_id,
        };
        let id = revoke(&identity, json!({"kind": kind, "value": value, "reason": "stolen"})).await;
        wait_until("it strikes", Duration::from_secs(1), async || status(&client).await == 401)
            .await;
        let answer = client.get(QUERY).await;
        assert!(answer.text.contains("revoked"), "{answer:?}");
        assert_eq!(status(&elsewhere).await, if kind == "sub" { 401 } else { 200 }, "{kind}");
        assert_eq!(status(&bystander).await, 200);
        // When the revocation is deleted, the token is valid again.
        let path = format!("{REVOCATIONS}/{id}");
        assert_eq!(identity.service().send(Method::DELETE, &path, "").await.status, 200);
        wait_until("it is good again", Duration::from_secs(1), async || {
            status(&client).await == 200
        })
        .await;
        assert_eq!(identity.service().send(Method::DELETE, &path, "").await.status, 404);
    }
}

// Seen: a row that was pasted into the SQL editor with a line break left the user the access that it was to
// end.
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_with_a_stray_line_break_strikes() {
    let mimir = Mimir::shared().await;
    let identity = identity_fixture(&mimir.url(), &[]).await;
    let a = identity.organisation().await;
    for kind in ["sub", "session_id", "jti"] {
        let person = identity.member(&a, "viewer").await;
        let token_id = Uuid::new_v4().to_string();
        let token = identity.issuer.token().claim("sub", json!(person.id.to_string()));
        let token = token.claim("session_id", json!(person.session.to_string()));
        let client = identity.proxy.client().bearer(&token.claim("jti", json!(token_id)).sign());
        assert_eq!(status(&client).await, 200, "{kind}");
        let value = match kind {
            "sub" => person.id.to_string(),
            "session_id" => person.session.to_string(),
            _ => token_id,
        };
        let sql = format!("insert into revocation (kind, value) values ('{kind}', E'{value} \\n')");
        identity.database.execute(&sql).await;
        wait_until(kind, Duration::from_secs(1), async || status(&client).await == 401).await;
    }
}

// "Sign out everywhere": earlier tokens are revoked, a new session is not.
#[tokio::test(flavor = "multi_thread")]
async fn only_tokens_issued_before_may_be_meant() {
    let mimir = Mimir::shared().await;
    let identity = identity_fixture(&mimir.url(), &[]).await;
    let a = identity.organisation().await;
    let person = identity.member(&a, "viewer").await;
    let now = harness::samples::now_ms() / 1000;
    let issued = |at: i64| {
        let token = identity.issuer.token().claim("sub", json!(person.id.to_string()));
        identity.proxy.client().bearer(&token.claim("iat", json!(at)).sign())
    };
    let (old, new) = (issued(now - 100), issued(now));
    let sql = format!(
        "insert into revocation (kind, value, issued_before) values ('sub', '{}', to_timestamp({}))",
        person.id,
        now - 50
    );
    identity.database.execute(&sql).await;
    wait_until("it strikes", Duration::from_secs(1), async || status(&old).await == 401).await;
    assert_eq!(status(&new).await, 200);
}

// Seen: a time within a second was rounded up, and "sign out everywhere, then sign in at once" met 401 with
// the token of the new session. A token's `iat` has whole seconds, so of the same second it cannot be told
// which came first: those stay refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_next_second_is_not_meant() {
    let mimir = Mimir::shared().await;
    let identity = identity_fixture(&mimir.url(), &[]).await;
    let a = identity.organisation().await;
    let person = identity.member(&a, "viewer").await;
    let then = harness::samples::now_ms() / 1000 - 50;
    let issued = |at: i64| {
        let token = identity.issuer.token().claim("sub", json!(person.id.to_string()));
        identity.proxy.client().bearer(&token.claim("iat", json!(at)).sign())
    };
    let (same, next) = (issued(then), issued(then + 1));
    let sql = format!(
        "insert into revocation (kind, value, issued_before) values ('sub', '{}', to_timestamp({then}.25))",
        person.id
    );
    identity.database.execute(&sql).await;
    wait_until("it strikes", Duration::from_secs(1), async || status(&same).await == 401).await;
    assert_eq!(status(&next).await, 200);
}

// Seen: nothing ever deleted a row, all are read on every change, and a table that takes longer than
// `database.query_timeout` locks every user out.
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_has_ended_is_deleted_and_one_without_an_end_stays() {
    let mimir = Mimir::shared().await;
    let database = migrated("ended").await;
    database
        .execute(
            "insert into revocation (kind, value, expires_at) values
             ('jti', 'long ended', now() - interval '2 days'),
             ('jti', 'always ended', '-infinity'),
             ('jti', 'just ended', now() - interval '1 minute'),
             ('jti', 'to come', now() + interval '1 hour'),
             ('jti', 'never', 'infinity'),
             ('jti', 'without', null);
             insert into revocation (kind, value, expires_at)
             select 'jti', 'many ' || n, now() - interval '30 days' from generate_series(1, 4100) as n",
        )
        .await;
    let url = database.url();
    let identity = identity_fixture_without_migration(database, &url, &mimir.url(), &[]).await;
    let left = async || {
        let rows = identity.database.query("select value from revocation order by value").await;
        rows.into_iter().filter_map(|mut row| row.remove(0)).collect::<Vec<_>>()
    };
    wait_until("what has ended is gone", Duration::from_secs(20), async || left().await.len() <= 4)
        .await;
    assert_eq!(left().await, ["just ended", "never", "to come", "without"]);
    // What is in force is what it was.
    wait_until("they are read", Duration::from_secs(5), async || {
        identity.proxy.metric("mimir_tenant_proxy_revocations").await == 3.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_a_revocation_says_what_is_wrong_and_the_list_shows_them() {
    let mimir = Mimir::shared().await;
    let identity = identity_fixture(&mimir.url(), &[]).await;
    for (body, text) in [
        (json!({"kind": "email", "value": "x"}), "kind"),
        (json!({"kind": "sub", "value": "x"}), "UUID"),
        (json!({"kind": "jti", "value": ""}), "value"),
        (json!({"kind": "jti", "value": "x", "expires_at": "soon"}), "expires_at"),
        (json!({"kind": "jti"}), "value"),
    ] {
        let answer = identity.service().post(REVOCATIONS, body.to_string()).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.text.contains(text), "{answer:?}");
    }
    let id = revoke(&identity, json!({"kind": "jti", "value": "token-9", "reason": "a test", "expires_at": "2099-01-01T00:00:00Z"})).await;
    let listed = identity.service().get(REVOCATIONS).await.json();
    let one = &listed["revocations"][0];
    assert_eq!(
        (&one["id"], &one["value"], &one["reason"]),
        (&json!(id), &json!("token-9"), &json!("a test"))
    );
    assert_eq!(one["created_by"], "service admin_key");
    wait_until("it is in the audit", Duration::from_secs(2), async || {
        let names_it = |line: &serde_json::Value| {
            line["target.id"].as_str().is_some_and(|id| id.contains("token-9"))
        };
        identity.audit().iter().any(names_it)
    })
    .await;
}

// Supabase deletes the session at sign-out; the token would be valid for up to an hour.
#[tokio::test(flavor = "multi_thread")]
async fn where_sessions_are_checked_a_sign_out_ends_the_token() {
    let mimir = Mimir::shared().await;
    let database = harness::Postgres::shared().await.database("sessions").await;
    // As Supabase Auth has it.
    database
        .execute("create schema auth; create table auth.sessions (id uuid primary key, user_id uuid not null, not_after timestamptz)")
        .await;
    let settings = [("auth.check_sessions", "true"), ("database.session_ttl", "\"200ms\"")];
    let identity = identity_fixture_on(database, &mimir.url(), &settings).await;
    let a = identity.organisation().await;
    let sign_in = async |person: &Person| {
        let (session, user) = (person.session, person.id);
        let sql = format!("insert into auth.sessions (id, user_id) values ('{session}', '{user}')");
        identity.database.execute(&sql).await;
    };
    let (person, other) =
        (identity.member(&a, "viewer").await, identity.member(&a, "viewer").await);
    let without = identity.member(&a, "viewer").await;
    sign_in(&person).await;
    sign_in(&other).await;
    assert_eq!(status(&identity.client(&person)).await, 200);
    let refused = identity.client(&without).get(QUERY).await;
    assert_eq!(refused.status, 401);
    assert!(refused.text.contains("session has ended"), "{refused:?}");
    let token = identity.issuer.token().claim("sub", json!(person.id.to_string()));
    let token = token.without("session_id").sign();
    assert_eq!(status(&identity.proxy.client().bearer(&token)).await, 401);
    let sql = format!("delete from auth.sessions where id = '{}'", person.session);
    identity.database.execute(&sql).await;
    wait_until("the token has ended", Duration::from_secs(1), async || {
        status(&identity.client(&person)).await == 401
    })
    .await;
    assert_eq!(status(&identity.client(&other)).await, 200);
    // Devices and services have no session.
    let device = identity.device(&a, &["metrics:read"]).await;
    assert_eq!(status(&device).await, 200);
}

// With a trigger of the operator's on auth.sessions, a sign-out does not wait for the cache to
// expire.
#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_on_sessions_makes_a_sign_out_effective_immediately() {
    let mimir = Mimir::shared().await;
    let database = harness::Postgres::shared().await.database("sessions").await;
    database
        .execute("create schema auth; create table auth.sessions (id uuid primary key, user_id uuid not null, not_after timestamptz)")
        .await;
    let settings = [("auth.check_sessions", "true"), ("database.session_ttl", "\"1h\"")];
    let identity = identity_fixture_on(database, &mimir.url(), &settings).await;
    identity.database.execute(crate::own_tables::documented("on auth.sessions")).await;
    let a = identity.organisation().await;
    let person = identity.member(&a, "viewer").await;
    let (session, user) = (person.session, person.id);
    let sql = format!("insert into auth.sessions (id, user_id) values ('{session}', '{user}')");
    identity.database.execute(&sql).await;
    assert_eq!(status(&identity.client(&person)).await, 200);
    identity.database.execute(&format!("delete from auth.sessions where id = '{session}'")).await;
    wait_until("the token has ended", Duration::from_secs(1), async || {
        status(&identity.client(&person)).await == 401
    })
    .await;
}

/// As Supabase Auth has them.
pub(crate) const SUPABASE_AUTH: &str = "
    create schema auth;
    create table auth.users (id uuid primary key, banned_until timestamptz);
    create table auth.sessions (id uuid primary key, user_id uuid not null, not_after timestamptz)";

/// Signs a user in who is, or was, banned.
async fn sign_in(identity: &IdentityFixture, person: &Person, banned_until: &str) {
    let (session, user) = (person.session, person.id);
    let sql = format!(
        "insert into auth.users values ('{user}', {banned_until});
         insert into auth.sessions (id, user_id) values ('{session}', '{user}')"
    );
    identity.database.execute(&sql).await;
}

async fn ban(identity: &IdentityFixture, person: &Person) {
    let sql = "update auth.users set banned_until = now() + interval '1 hour' where id =";
    identity.database.execute(&format!("{sql} '{}'", person.id)).await;
}

// Supabase keeps the sessions of a banned user, and refuses only to renew their tokens.
// <https://github.com/supabase/auth/blob/master/internal/models/user.go> (`IsBanned`)
#[tokio::test(flavor = "multi_thread")]
async fn where_sessions_are_checked_a_ban_ends_the_token() {
    let mimir = Mimir::shared().await;
    let database = harness::Postgres::shared().await.database("bans").await;
    database.execute(SUPABASE_AUTH).await;
    let settings = [("auth.check_sessions", "true"), ("database.session_ttl", "\"200ms\"")];
    let identity = identity_fixture_on(database, &mimir.url(), &settings).await;
    let a = identity.organisation().await;
    let (person, other) =
        (identity.member(&a, "viewer").await, identity.member(&a, "viewer").await);
    let banned = identity.member(&a, "viewer").await;
    sign_in(&identity, &person, "null").await;
    sign_in(&identity, &other, "now() - interval '1 second'").await;
    sign_in(&identity, &banned, "'infinity'").await;
    for (person, wanted) in [(&person, 200), (&other, 200), (&banned, 401)] {
        assert_eq!(status(&identity.client(person)).await, wanted);
    }
    ban(&identity, &person).await;
    wait_until("the token has ended", Duration::from_secs(2), async || {
        status(&identity.client(&person)).await == 401
    })
    .await;
    assert_eq!(status(&identity.client(&other)).await, 200);
    assert!(!identity.proxy.process.log().contains("Bans are not seen"));
}

/// What a role needs that may not see bans.
pub(crate) const RIGHTS_WITHOUT_BANS: &str = "\
    alter role $role bypassrls; grant usage on schema public, auth to $role; \
    grant select on organisation, membership, auth.sessions to $role; \
    grant select, insert, update on device_key to $role; \
    grant select, insert, delete on revocation to $role";

pub(crate) fn grant_for_bans(role: &str) -> String {
    format!("grant select (id, banned_until) on auth.users to {role}")
}

fn lines_of_bans(identity: &IdentityFixture) -> Vec<String> {
    let log = identity.proxy.process.log();
    log.lines().filter(|line| line.contains("Bans are not seen")).map(str::to_owned).collect()
}

/// What `check-config --connect` says of a database whose sessions are checked.
fn check_config(identity: &IdentityFixture, url: &str) -> String {
    let environment = [("MTP__DATABASE__URL", url), ("MTP__AUTH__CHECK_SESSIONS", "true")];
    let output = command_with(&identity.database, &environment, &["check-config", "--connect"]);
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

// Roles that were set up by older documents may read the sessions and not the users: they go on, and are told what
// is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_see_bans_checks_sessions_and_is_told_the_grant() {
    let mimir = Mimir::shared().await;
    let database = migrated("bans").await;
    database.execute(SUPABASE_AUTH).await;
    let (role, url) = login(&database, RIGHTS_WITHOUT_BANS).await;
    let settings = [("auth.check_sessions", "true"), ("database.session_ttl", "\"200ms\"")];
    let identity =
        identity_fixture_without_migration(database, &url, &mimir.url(), &settings).await;
    let a = identity.organisation().await;
    let person = identity.member(&a, "viewer").await;
    sign_in(&identity, &person, "null").await;
    assert_eq!(status(&identity.client(&person)).await, 200);
    ban(&identity, &person).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(status(&identity.client(&person)).await, 200);
    let sql = format!("delete from auth.sessions where id = '{}'", person.session);
    identity.database.execute(&sql).await;
    wait_until("the token has ended", Duration::from_secs(2), async || {
        status(&identity.client(&person)).await == 401
    })
    .await;
    let grant = grant_for_bans(&role);
    let lines = lines_of_bans(&identity);
    assert!(lines.len() == 1 && lines[0].contains(&grant), "{lines:?}");
    let said = check_config(&identity, &url);
    assert!(said.contains("WARNING sessions") && said.contains(&grant), "{said}");
    identity.database.execute(&grant).await;
    let said = check_config(&identity, &url);
    assert!(said.contains("ok      database") && !said.contains("WARNING sessions"), "{said}");
}

// Every user would get 503 until a restart, and not only those who are banned.
#[tokio::test(flavor = "multi_thread")]
async fn where_the_right_to_see_bans_is_taken_away_sessions_are_checked_without() {
    let mimir = Mimir::shared().await;
    let database = migrated("bans").await;
    database.execute(SUPABASE_AUTH).await;
    let rights = format!("{RIGHTS_WITHOUT_BANS}; {}", grant_for_bans("$role"));
    let (role, url) = login(&database, &rights).await;
    let settings = [("auth.check_sessions", "true"), ("database.session_ttl", "\"200ms\"")];
    let identity =
        identity_fixture_without_migration(database, &url, &mimir.url(), &settings).await;
    let a = identity.organisation().await;
    let (before, after) =
        (identity.member(&a, "viewer").await, identity.member(&a, "viewer").await);
    let banned = identity.member(&a, "viewer").await;
    sign_in(&identity, &before, "null").await;
    sign_in(&identity, &after, "null").await;
    sign_in(&identity, &banned, "'infinity'").await;
    for (person, wanted) in [(&before, 200), (&banned, 401)] {
        assert_eq!(status(&identity.client(person)).await, wanted);
    }
    let revoke = format!("revoke select (id, banned_until) on auth.users from {role}");
    identity.database.execute(&revoke).await;
    for person in [&after, &before] {
        wait_until("sessions are read again", Duration::from_secs(10), async || {
            status(&identity.client(person)).await == 200
        })
        .await;
    }
    let sql = format!("delete from auth.sessions where id = '{}'", after.session);
    identity.database.execute(&sql).await;
    wait_until("the token has ended", Duration::from_secs(2), async || {
        status(&identity.client(&after)).await == 401
    })
    .await;
    let lines = lines_of_bans(&identity);
    assert!(lines.len() == 1 && lines[0].contains(&grant_for_bans(&role)), "{lines:?}");
}

// There is nothing to be granted, and `--strict` would fail a configuration that is right.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_bans_is_told_of_none() {
    let mimir = Mimir::shared().await;
    let database = harness::Postgres::shared().await.database("bans").await;
    let own = "create schema auth; \
               create table auth.sessions (id uuid primary key, not_after timestamptz)";
    database.execute(own).await;
    let settings = [("auth.check_sessions", "true"), ("database.session_ttl", "\"200ms\"")];
    let identity = identity_fixture_on(database, &mimir.url(), &settings).await;
    let person = identity.member(&identity.organisation().await, "viewer").await;
    let sql = format!("insert into auth.sessions (id) values ('{}')", person.session);
    identity.database.execute(&sql).await;
    assert_eq!(status(&identity.client(&person)).await, 200);
    assert_eq!(lines_of_bans(&identity), [""; 0]);
    let url = identity.database.url();
    for change in [
        "select",
        "alter table auth.sessions add user_id uuid",
        "create table auth.users (id uuid primary key)",
        "alter table auth.users add banned_until timestamptz, alter id type text",
    ] {
        identity.database.execute(change).await;
        let said = check_config(&identity, &url);
        assert!(said.contains("ok      database"), "{change}: {said}");
        assert!(!said.contains("WARNING sessions"), "{change}: {said}");
    }
}

// A right to another table helps nobody.
#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_bans_from_being_read_is_named() {
    let mimir = Mimir::shared().await;
    let database = migrated("bans").await;
    database.execute(SUPABASE_AUTH).await;
    let (role, url) = login(&database, RIGHTS_WITHOUT_BANS).await;
    let owner = database.url();
    let identity = identity_fixture_without_migration(database, &owner, &mimir.url(), &[]).await;
    let columns = format!(
        "{}; revoke select on auth.sessions from {role}; \
         grant select (id, not_after) on auth.sessions to {role}",
        grant_for_bans(&role)
    );
    identity.database.execute(&columns).await;
    let said = check_config(&identity, &url);
    let grant = format!("; run: grant select (user_id) on auth.sessions to {role}\n");
    assert!(said.contains("WARNING sessions") && said.contains(&grant), "{said}");
    // A view, whose owner may not read what it shows.
    let (other, _) = login(&identity.database, "").await;
    let view = format!(
        "grant select on auth.sessions to {role}; grant create on schema auth to {other}; \
         alter table auth.users rename to people; \
         create view auth.users as select * from auth.people; \
         alter view auth.users owner to {other}; grant select on auth.users to {role}"
    );
    identity.database.execute(&view).await;
    let said = check_config(&identity, &url);
    assert!(said.contains("WARNING sessions") && said.contains("table people"), "{said}");
    assert!(!said.contains("run: grant"), "{said}");
}
