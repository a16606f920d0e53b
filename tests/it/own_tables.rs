//! Tables of the operator's own beside ours, with the SQL of docs/identity.md.

use std::time::Duration;

use harness::{Postgres, Upstream, wait_until};
use uuid::Uuid;

use crate::database::{listening, refused_within_a_second};
use crate::migrations::says;
use crate::support::identity::{IdentityFixture, command_with, identity_fixture_without_migration};
use crate::support::responses::ok;

const QUERY: &str = "/prometheus/api/v1/query?query=up";
const DOCUMENT: &str = include_str!("../../docs/identity.md");

/// The code block of the documentation that contains a text.
pub(crate) fn documented(text: &str) -> &'static str {
    let mut pieces = DOCUMENT.split("```").skip(1).step_by(2);
    let piece = pieces.find(|piece| piece.contains(text)).unwrap();
    // The first line is the language.
    piece.split_once('\n').unwrap().1
}

/// An operator's own tables, as in a Supabase project.
const OPERATORS_OWN: &str = "
    create type public.org_role as enum ('admin', 'member');
    create table public.organizations (id uuid primary key);
    create table public.organization_members (
        user_id uuid, organization_id uuid references public.organizations on delete cascade, role public.org_role);";

async fn beside_an_operators_own_tables(upstream: &str) -> IdentityFixture {
    let database = Postgres::shared().await.database("own").await;
    database.execute(OPERATORS_OWN).await;
    let schema = [("MTP__DATABASE__SCHEMA", "mimir")];
    let (code, text) = says(&command_with(&database, &schema, &["migrate"]));
    assert_eq!(code, Some(0), "{text}");
    database.execute(documented("after truncate on public.organization_members")).await;
    let query = documented("membership_query = ");
    let query = query.split("\"\"\"").nth(1).unwrap().trim().replace('\n', " ");
    let query = format!("{query:?}");
    let settings = [
        ("database.schema", "\"mimir\""),
        ("database.membership_query", &query),
        ("roles.member", "[\"metrics:read\"]"),
    ];
    let url = database.url();
    let identity = identity_fixture_without_migration(database, &url, upstream, &settings).await;
    listening(&identity).await;
    identity
}

// Operators with organisations of their own keep their tables: one query reads them, one trigger
// notifies us of changes, another one adds them to our table, which device keys refer to. The role
// that writes to them often has no privileges on our schema.
#[tokio::test(flavor = "multi_thread")]
async fn an_operators_own_tables_serve_as_ours_do() {
    let upstream = Upstream::start(ok).await;
    let identity = beside_an_operators_own_tables(&upstream.url()).await;
    let database = &identity.database;
    let (old, new) = (harness::fresh_organisation(), harness::fresh_organisation());
    database.execute(&format!("insert into public.organizations values ('{old}')")).await;
    database.execute(documented("function mimir.mirror_organizations")).await;
    let app = format!("app_{}", Uuid::new_v4().simple());
    database
        .execute(&format!(
            "create role {app}; grant all on public.organizations, public.organization_members to {app}"
        ))
        .await;
    let as_app = |sql: String| format!("set role {app}; {sql}");
    let person = identity.person();
    let client = identity.client(&person);
    assert_eq!(client.get(QUERY).await.status, 403);
    let (id, join) = (person.id, "insert into public.organization_members values");
    database
        .execute(&as_app(format!(
            "insert into public.organizations values ('{new}'); {join} ('{id}', '{new}', 'member')"
        )))
        .await;
    wait_until("the member is let in", Duration::from_secs(1), async || {
        client.get(QUERY).await.status == 200
    })
    .await;
    let mut devices = Vec::new();
    for organisation in [&old, &new] {
        let device = identity.device(organisation, &["metrics:read"]).await;
        assert_eq!(device.get(QUERY).await.status, 200);
        devices.push(device);
    }
    let removal = as_app(format!("delete from public.organization_members where user_id = '{id}'"));
    refused_within_a_second(&identity, &removal, &client, 403).await;
    let removal = as_app(format!("delete from public.organizations where id = '{new}'"));
    refused_within_a_second(&identity, &removal, &devices[1], 401).await;
    assert_eq!(devices[0].get(QUERY).await.status, 200);
    let truncation = as_app("truncate public.organization_members".to_owned());
    database.execute(&as_app(format!("{join} ('{id}', '{old}', 'member')"))).await;
    wait_until("the member is back", Duration::from_secs(1), async || {
        client.get(QUERY).await.status == 200
    })
    .await;
    refused_within_a_second(&identity, &truncation, &client, 403).await;
}
