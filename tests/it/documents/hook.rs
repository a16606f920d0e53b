//! The SQL of docs/operations/supabase.md, run on a database and used.

use harness::{Database, Issuer, ProxyOptions, Upstream};
use serde_json::{Value, json};

use super::{root, run_sql_of, supabase};
use crate::support::responses::ok;

const QUERY: &str = "/prometheus/api/v1/query?query=up";
const ALICE: &str = "11111111-2222-4333-8444-555555555555";
const BOB: &str = "22222222-2222-4333-8444-555555555555";

async fn documented() -> (harness::Postgres, Database) {
    let (cluster, database) = supabase().await;
    let users = format!(
        "insert into auth.users values ('{ALICE}', 'alice@example.com'), ('{BOB}', 'bob@example.com')"
    );
    database.execute(&users).await;
    run_sql_of(&root().join("docs/operations/supabase.md"), &database).await;
    (cluster, database)
}

/// The hook's input from Supabase, in the form of real tokens.
fn event(user: &str, issuer: &str) -> Value {
    let now = harness::samples::now_ms() / 1000;
    json!({
        "user_id": user,
        "authentication_method": "password",
        "claims": {
            "aal": "aal1", "amr": [{"method": "password", "timestamp": now}],
            "app_metadata": {"provider": "email", "providers": ["email"], "org_id": "what it said before"},
            "aud": "authenticated", "email": "a@example.com", "exp": now + 3600, "iat": now,
            "is_anonymous": false, "iss": issuer, "phone": "", "role": "authenticated",
            "session_id": "33333333-2222-4333-8444-555555555555", "sub": user,
            "user_metadata": {"org_id": "what the user says"},
        },
    })
}

async fn hooked(database: &Database, event: &Value) -> Value {
    let sql = format!(
        "begin; set local role supabase_auth_admin; select public.organisations_into_token('{event}')"
    );
    let answer = database.query(&sql).await;
    serde_json::from_str(answer[0][0].as_ref().unwrap()).unwrap()
}

// As the role with which Supabase calls it, through row-level security. The claims are returned
// complete, with the audience as a list, as Supabase sends it once a hook is enabled. The member
// gets access, and nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn the_hook_puts_organisations_into_accepted_tokens() {
    let (_cluster, database) = documented().await;
    let (issuer, upstream) = (Issuer::start().await, Upstream::start(ok).await);
    let proxy = ProxyOptions::new(&issuer.url(), &upstream.url()).start().await;
    let mut statuses = Vec::new();
    for user in [ALICE, BOB] {
        let event = event(user, &issuer.url());
        let answer = hooked(&database, &event).await;
        let mut wanted = event["claims"].clone();
        let app_metadata = wanted["app_metadata"].as_object_mut().unwrap();
        app_metadata.remove("org_id");
        if user == ALICE {
            app_metadata.insert("org_id".to_owned(), json!(["acme"]));
        }
        assert_eq!(answer, json!({"claims": wanted}));
        let claims = answer["claims"].as_object().unwrap();
        let token = claims
            .iter()
            .fold(issuer.token(), |token, (name, value)| token.claim(name, value.clone()));
        let token = token.claim("aud", json!(["authenticated"])).sign();
        statuses.push(proxy.client().bearer(&token).get(QUERY).await.status.as_u16());
    }
    assert_eq!(statuses, [200, 403]);
    assert_eq!(upstream.heads().len(), 1);
    assert_eq!(upstream.heads()[0].headers["x-scope-orgid"], "acme");
}

// Otherwise anybody could query memberships.
#[tokio::test(flavor = "multi_thread")]
async fn only_supabase_may_call_the_hook() {
    let (_cluster, database) = documented().await;
    for role in ["authenticated", "anon"] {
        let sql = format!("set role {role}; select public.organisations_into_token('{{}}')");
        let refused = database.client().await.simple_query(&sql).await.unwrap_err();
        assert!(format!("{refused:?}").contains("permission denied"), "{role}: {refused:?}");
    }
}

// The page's policies: an administrator of an organisation changes its members, and no other's.
#[tokio::test(flavor = "multi_thread")]
async fn admins_manage_members_of_their_own_organisation_only() {
    let (_cluster, database) = documented().await;
    database.execute("insert into public.organisation (id) values ('other')").await;
    let tries = async |user: &str, statement: &str| {
        let client = database.client().await;
        let claims = json!({"sub": user}).to_string();
        let sql = format!(
            "set role authenticated; select set_config('request.jwt.claims', '{claims}', false); {statement}"
        );
        client.simple_query(&sql).await.map(|messages| messages.len())
    };
    let join = |user: &str, organisation: &str| {
        format!(
            "insert into public.membership (user_id, organisation_id, role) values ('{user}', '{organisation}', 'viewer')"
        )
    };
    tries(BOB, &join(BOB, "acme")).await.unwrap_err();
    tries(ALICE, &join(ALICE, "other")).await.unwrap_err();
    // Not even an administrator makes somebody a member who has not accepted: a second membership, or a default one,
    // would redirect the requests of its user.
    tries(ALICE, &join(BOB, "acme")).await.unwrap_err();
    let invite = |organisation: &str| {
        format!(
            "insert into public.invitation (organisation_id, user_id) values ('{organisation}', '{BOB}')"
        )
    };
    tries(BOB, &invite("acme")).await.unwrap_err();
    tries(ALICE, &invite("other")).await.unwrap_err();
    tries(ALICE, &invite("acme")).await.unwrap();
    let members = "select count(*)::text from public.membership";
    let accept = "select public.accept_invitation('acme')";
    for (user, count) in [(ALICE, "1"), (BOB, "2"), (BOB, "2")] {
        tries(user, accept).await.unwrap();
        assert_eq!(database.query(members).await, [[Some(count.to_owned())]], "{user}");
    }
    let by_default = "update public.membership set is_default = true";
    tries(ALICE, by_default).await.unwrap_err();
    let promotion = "update public.membership set role = 'owner'";
    tries(BOB, promotion).await.unwrap();
    let away = "update public.membership set organisation_id = 'other' where role = 'viewer'";
    tries(ALICE, away).await.unwrap_err();
    let roles = "select user_id::text, organisation_id, role from public.membership order by 1";
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        database.query(roles).await,
        [[text(ALICE), text("acme"), text("owner")], [text(BOB), text("acme"), text("viewer")]],
        "a member changes nothing"
    );
    // An administrator manages editors and viewers only, and invites nobody to more than that.
    const CAROL: &str = "55555555-2222-4333-8444-555555555555";
    let promote = format!("update public.membership set role = 'admin' where user_id = '{BOB}'");
    tries(ALICE, &promote).await.unwrap();
    let invite = |user: &str, role: &str| {
        format!(
            "insert into public.invitation (organisation_id, user_id, role) values ('acme', '{user}', '{role}')"
        )
    };
    tries(BOB, &invite(BOB, "viewer")).await.unwrap_err();
    tries(BOB, &invite(CAROL, "admin")).await.unwrap_err();
    tries(BOB, &invite(CAROL, "viewer")).await.unwrap();
    tries(BOB, "delete from public.membership where role = 'owner'").await.unwrap();
    tries(BOB, "update public.membership set role = 'viewer'").await.unwrap();
    let owners = "select user_id::text from public.membership where role = 'owner'";
    assert_eq!(database.query(owners).await, [[text(ALICE)]]);
    assert_eq!(database.query(members).await, [[Some("2".to_owned())]]);
    // Who was removed does not come back, and nor do those that they have invited.
    let remove = format!("delete from public.membership where user_id = '{BOB}'");
    tries(ALICE, &remove).await.unwrap();
    for user in [BOB, CAROL] {
        tries(user, accept).await.unwrap();
        assert_eq!(database.query(members).await, [[Some("1".to_owned())]], "{user}");
    }
    // The page can be used again, also after what it said before.
    database
        .execute(
            "create function public.administers(wanted text) returns boolean language sql as 'select true';
             grant insert, update, delete on public.membership to authenticated;
             create policy admins_add on public.membership for insert to authenticated
                 with check (public.administers(organisation_id))",
        )
        .await;
    let page = std::fs::read_to_string(root().join("docs/operations/supabase.md")).unwrap();
    let sql = |begins: &str| {
        let from = page.find(begins).unwrap();
        page[from..].split_once("```").unwrap().0.to_owned()
    };
    database.execute(&sql("revoke insert, update on public.membership")).await;
    database.execute(&sql("create or replace function public.role_in")).await;
    tries(ALICE, &join(BOB, "acme")).await.unwrap_err();
}
