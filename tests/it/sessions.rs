//! Sessions whose rows tell more than the token does, and roles that do not see the rows.

use std::time::Duration;

use harness::{Client, Database, Postgres, Upstream, wait_until};
use serde_json::json;
use uuid::Uuid;

use crate::database::{login, migrated};
use crate::support::identity::{
    IdentityFixture, Person, command_with, identity_fixture_on, identity_fixture_without_migration,
};
use crate::support::responses::ok;

const QUERY: &str = "/prometheus/api/v1/query?query=up";
const CHECKED: [(&str, &str); 2] =
    [("auth.check_sessions", "true"), ("database.session_ttl", "\"200ms\"")];

/// As Supabase Auth has had them since the autumn of 2025.
const SUPABASE_AUTH: &str = "
    create schema auth;
    create table auth.users (id uuid primary key, banned_until timestamptz);
    create table auth.sessions (
        id uuid primary key, user_id uuid not null, not_after timestamptz, oauth_client_id uuid)";

async fn status(client: &Client) -> u16 {
    client.get(QUERY).await.status.as_u16()
}

async fn sign_in(identity: &IdentityFixture, person: &Person, client: Option<Uuid>) {
    let (session, user) = (person.session, person.id);
    let client = client.map_or("null".to_owned(), |client| format!("'{client}'"));
    let sql = format!(
        "insert into auth.users (id) values ('{user}');
         insert into auth.sessions (id, user_id, oauth_client_id) values ('{session}', '{user}', {client})"
    );
    identity.database.execute(&sql).await;
}

/// What `check-config --connect` says of the database, where sessions are checked.
fn check_config(database: &Database, url: &str, query: &str) -> String {
    let mut environment = vec![("MTP__DATABASE__URL", url), ("MTP__AUTH__CHECK_SESSIONS", "true")];
    if !query.is_empty() {
        environment.push(("MTP__DATABASE__SESSION_QUERY", query));
    }
    let output = command_with(database, &environment, &["check-config", "--connect"]);
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

// A custom access token hook decides on the claims. A third party's token without `client_id` passed as the user's own.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_an_oauth_client_is_refused_whatever_its_claims_say() {
    let upstream = Upstream::start(ok).await;
    let database = Postgres::shared().await.database("oauth").await;
    database.execute(SUPABASE_AUTH).await;
    let listed = Uuid::new_v4();
    let clients = format!("[\"{listed}\"]");
    let settings = [CHECKED[0], CHECKED[1], ("auth.oauth_clients", &clients)];
    let identity = identity_fixture_on(database, &upstream.url(), &settings).await;
    let a = identity.organisation().await;
    for (client, wanted) in [(None, 200), (Some(listed), 200), (Some(Uuid::new_v4()), 401)] {
        let person = identity.member(&a, "viewer").await;
        sign_in(&identity, &person, client).await;
        for _ in ["read", "cached"] {
            assert_eq!(status(&identity.client(&person)).await, wanted, "{client:?}");
        }
        if wanted == 200 {
            continue;
        }
        let answer = identity.client(&person).get(QUERY).await;
        assert!(answer.text.contains("OAuth client"), "{answer:?}");
        // One that names another client than its session has.
        let token = identity.issuer.token().claim("sub", json!(person.id.to_string()));
        let token = token.claim("session_id", json!(person.session.to_string()));
        let token = token.claim("client_id", json!(listed.to_string())).sign();
        assert_eq!(status(&identity.proxy.client().bearer(&token)).await, 401);
    }
}

/// The SQL and the query that docs/operations/supabase.md has for roles without rights on the schema auth.
fn documented_function() -> (&'static str, &'static str) {
    let page = include_str!("../../docs/operations/supabase.md");
    let (_, section) = page.split_once("### Sessions by a function\n").unwrap();
    let (_, sql) = section.split_once("```sql\n").unwrap();
    let (sql, rest) = sql.split_once("```").unwrap();
    let (_, query) = rest.split_once("session_query = \"").unwrap();
    (sql, query.split_once('"').unwrap().0)
}

const RIGHTS: &str = "\
    alter role $role bypassrls; grant usage on schema public to $role; \
    grant select on organisation, membership to $role; \
    grant select, insert, update on device_key to $role; \
    grant select, insert, delete on revocation to $role";

// Seen in reports of operators: there `grant usage on schema auth` only warns. The rights are those of a dump of such a
// project: `postgres` has USAGE of the schema without the option to grant it, and SELECT on the tables with it; row-level
// security is on, without a policy (supabase/auth, migration 20240612123726).
#[tokio::test(flavor = "multi_thread")]
async fn a_role_of_supabases_platform_reads_sessions_by_the_documented_function() {
    let upstream = Upstream::start(ok).await;
    let database = migrated("platform").await;
    let (owner, _) = login(&database, "alter role $role bypassrls").await;
    let (postgres, _) = login(&database, "alter role $role bypassrls createrole").await;
    let (role, url) = login(&database, RIGHTS).await;
    let platform = format!(
        "{SUPABASE_AUTH}; alter schema auth owner to {owner}; \
         alter table auth.users owner to {owner}; alter table auth.users enable row level security; \
         alter table auth.sessions owner to {owner}; alter table auth.sessions enable row level security; \
         set role {owner}; grant usage on schema auth to {postgres}; \
         grant select on auth.users, auth.sessions to {postgres} with grant option; reset role; \
         do $$ begin execute format('grant create on database %I to {postgres}', current_database()); end $$"
    );
    database.execute(&platform).await;
    let as_postgres = |sql: &str| format!("set role {postgres}; {sql}; reset role");
    let grants = format!(
        "grant usage on schema auth to {role}; \
         grant select on auth.sessions, auth.users to {role}"
    );
    database.execute(&as_postgres(&grants)).await;
    let said = check_config(&database, &url, "");
    for words in
        ["WRONG   database", "schema auth", "auth.check_sessions", "Sessions by a function"]
    {
        assert!(said.contains(words), "{words}: {said}");
    }

    let (sql, query) = documented_function();
    database.execute(&as_postgres(&sql.replace("to proxy", &format!("to {role}")))).await;
    let said = check_config(&database, &url, query);
    assert!(said.contains("ok      database") && !said.contains("WARNING sessions"), "{said}");
    // It is for the proxy alone.
    let (_, other) = login(&database, RIGHTS).await;
    let said = check_config(&database, &other, query);
    assert!(said.contains("permission denied for schema mimir_private"), "{said}");

    let settings = [CHECKED[0], CHECKED[1], ("database.session_query", &format!("{query:?}"))];
    let identity =
        identity_fixture_without_migration(database, &url, &upstream.url(), &settings).await;
    let a = identity.organisation().await;
    let sign_in = async |client| {
        let person = identity.member(&a, "viewer").await;
        sign_in(&identity, &person, client).await;
        person
    };
    let (leaves, banned, stays) = (sign_in(None).await, sign_in(None).await, sign_in(None).await);
    for person in [&leaves, &banned, &stays] {
        assert_eq!(status(&identity.client(person)).await, 200);
    }
    let other = sign_in(Some(Uuid::new_v4())).await;
    assert_eq!(status(&identity.client(&other)).await, 401);
    let sql = format!(
        "delete from auth.sessions where id = '{}'; \
         update auth.users set banned_until = now() + interval '1 hour' where id = '{}'",
        leaves.session, banned.id
    );
    identity.database.execute(&sql).await;
    for person in [&leaves, &banned] {
        wait_until("the token has ended", Duration::from_secs(2), async || {
            status(&identity.client(person)).await == 401
        })
        .await;
    }
    assert_eq!(status(&identity.client(&stays)).await, 200);
}

// The role owns our tables, so that it needs no `bypassrls` for them.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_row_level_security_is_on_for_is_told_what_it_needs() {
    let database = Postgres::shared().await.database("hidden").await;
    database.execute(SUPABASE_AUTH).await;
    let rights = "grant create on schema public to $role; grant usage on schema auth to $role; \
                  grant select on auth.sessions, auth.users to $role";
    let (role, url) = login(&database, rights).await;
    let migrated = command_with(&database, &[("MTP__DATABASE__URL", &url)], &["migrate"]);
    assert!(migrated.status.success(), "{migrated:?}");
    let said = check_config(&database, &url, "");
    assert!(said.contains("ok      database") && !said.contains("WARNING sessions"), "{said}");
    let remedy = format!("alter role {role} bypassrls");

    database.execute("alter table auth.users enable row level security").await;
    let said = check_config(&database, &url, "");
    assert!(said.contains("ok      database"), "{said}");
    assert!(said.contains("WARNING sessions") && said.contains(&remedy), "{said}");

    database.execute("alter table auth.sessions enable row level security").await;
    let said = check_config(&database, &url, "");
    for words in
        ["WRONG   database", "row-level security", "auth.check_sessions", "bypassrls", "function"]
    {
        assert!(said.contains(words), "{words}: {said}");
    }
    database.execute(&remedy).await;
    let said = check_config(&database, &url, "");
    assert!(said.contains("ok      database") && !said.contains("WARNING sessions"), "{said}");

    let columns = format!(
        "revoke select on auth.sessions from {role}; \
         grant select (id, user_id, not_after) on auth.sessions to {role}"
    );
    database.execute(&columns).await;
    let said = check_config(&database, &url, "");
    let grant = format!("run: grant select (oauth_client_id) on auth.sessions to {role}");
    assert!(said.contains("WARNING sessions") && said.contains(&grant), "{said}");
}
