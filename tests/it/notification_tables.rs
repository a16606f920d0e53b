//! The tables of channels and routes behind Supabase's API: secrets go in and nothing brings them out, and
//! no organisation touches another's.

use std::collections::BTreeSet;

use harness::{Database, Postgres};
use serde_json::json;
use uuid::Uuid;

use crate::migrations::{Defaults, supabase_project};
use crate::support::identity::command;

const DENIED: &str = "42501";
const REFUSED: &str = "23514";
const FOREIGN_KEY: &str = "23503";
const TOO_MANY: &str = "54000";

/// What no answer and no error may hold.
const SECRETS: [&str; 4] = ["hook-4711", "token-4712", "hook-4713", "hidden-4714"];

/// A project on Supabase with two organisations, and a user of each role.
struct Project {
    database: Database,
    _cluster: Postgres,
    editor: Uuid,
    viewer: Uuid,
    outsider: Uuid,
}

/// Where Supabase gives its roles nothing, as in every project from 30 October 2026.
async fn project() -> Project {
    project_with(Defaults::Nothing).await
}

async fn project_with(defaults: Defaults) -> Project {
    let (cluster, database) = supabase_project(defaults).await;
    assert!(command(&database, &["migrate"]).status.success());
    let [editor, viewer, outsider] = [(); 3].map(|()| Uuid::new_v4());
    database
        .execute(&format!(
            "insert into organisation (id) values ('a'), ('b');
             insert into membership (user_id, organisation_id, role) values
                 ('{editor}', 'a', 'editor'), ('{viewer}', 'a', 'viewer'), ('{outsider}', 'b', 'owner');"
        ))
        .await;
    Project { database, _cluster: cluster, editor, viewer, outsider }
}

/// What a statement gave, every row as a text, or the SQLSTATE of its error. In both, whatever a secret is.
struct Answer {
    rows: Vec<String>,
    code: Option<String>,
    /// Everything that came back: rows, the message, its detail, hint and context.
    text: String,
}

impl Project {
    async fn as_role(&self, role: &str, user: Uuid, sql: &str) -> Answer {
        let claims = json!({"sub": user.to_string()}).to_string();
        let session = format!("set role {role}; set request.jwt.claims = '{claims}'");
        match self.database.try_query(&session, sql).await {
            Ok(rows) => {
                let text = |row: Vec<Option<String>>| {
                    row.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>().join(" ")
                };
                let rows: Vec<String> = rows.into_iter().map(text).collect();
                Answer { text: rows.join("\n"), rows, code: None }
            }
            Err(refusal) => {
                Answer { rows: Vec::new(), code: Some(refusal.code), text: refusal.text }
            }
        }
    }

    /// As a member who comes through Supabase's API with a token.
    async fn ask(&self, user: Uuid, sql: &str) -> Answer {
        self.as_role("authenticated", user, sql).await
    }

    async fn done(&self, user: Uuid, sql: &str) -> Vec<String> {
        let answer = self.ask(user, sql).await;
        assert_eq!(answer.code, None, "{sql}: {}", answer.text);
        answer.rows
    }

    async fn refused(&self, user: Uuid, sql: &str, code: &str) -> Answer {
        let answer = self.ask(user, sql).await;
        assert_eq!(answer.code.as_deref(), Some(code), "{sql}: {}", answer.text);
        answer
    }

    /// A channel of organisation A with two secrets, as its editor writes it.
    async fn channel(&self) -> String {
        let sql = "insert into notification_channel (organisation_id, kind, secrets)
                   values ('a', 'webhook', '{\"url\": \"hook-4711\", \"token\": \"token-4712\"}') returning id";
        self.done(self.editor, sql).await.remove(0)
    }

    /// What is stored, as the owner of the tables sees it.
    async fn stored(&self, channel: &str) -> serde_json::Value {
        let sql = format!(
            "select secrets from notification_channel_secret where channel_id = '{channel}'"
        );
        let rows = self.database.query(&sql).await;
        rows.first()
            .map_or(json!(null), |row| serde_json::from_str(row[0].as_deref().unwrap()).unwrap())
    }

    async fn masks(&self, channel: &str) -> serde_json::Value {
        let sql = format!("select secrets from notification_channel where id = '{channel}'");
        serde_json::from_str(&self.done(self.viewer, &sql).await[0]).unwrap()
    }
}

// A mask keeps what the row has, a text replaces it, null or an empty text or nothing removes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_written_kept_replaced_and_removed() {
    let project = project().await;
    let channel = project.channel().await;
    let both = json!({"url": "hook-4711", "token": "token-4712"});
    assert_eq!(project.stored(&channel).await, both);
    assert_eq!(project.masks(&channel).await, json!({"url": "<secret>", "token": "<secret>"}));
    let update = async |secrets: &str| {
        let sql =
            format!("update notification_channel set secrets = {secrets} where id = '{channel}'");
        project.done(project.editor, &sql).await;
        project.stored(&channel).await
    };
    // What a page sends back that has read the row.
    assert_eq!(update("secrets").await, both);
    assert_eq!(update("'{\"url\": \"<secret>\", \"token\": \"<secret>\"}'").await, both);
    let sql = format!("update notification_channel set name = 'x' where id = '{channel}'");
    project.done(project.editor, &sql).await;
    assert_eq!(project.stored(&channel).await, both);
    let replaced = json!({"url": "hook-4711", "token": "new"});
    assert_eq!(update("secrets || '{\"token\": \"new\"}'").await, replaced);
    for removal in ["null", "\"\""] {
        update("'{\"url\": \"hook-4711\", \"token\": \"t\"}'").await;
        let left = update(&format!("'{{\"url\": \"<secret>\", \"token\": {removal}}}'")).await;
        assert_eq!(left, json!({"url": "hook-4711"}), "{removal}");
        assert_eq!(project.masks(&channel).await, json!({"url": "<secret>"}));
    }
    assert_eq!(update("'{\"token\": \"<secret>\"}'").await, json!(null), "nothing to keep");
    assert_eq!(project.masks(&channel).await, json!({}));
    update("'{\"url\": \"hook-4711\"}'").await;
    assert_eq!(update("null").await, json!(null));
    assert_eq!(project.masks(&channel).await, json!({}));
    update("'{\"url\": {\"nested\": [\"hidden-4714\"]}}'").await;
    assert_eq!(project.masks(&channel).await, json!({"url": "<secret>"}), "whatever its type");
    let sql = format!("delete from notification_channel where id = '{channel}'");
    project.done(project.editor, &sql).await;
    assert_eq!(project.stored(&channel).await, json!(null));
}

// Whoever may write a channel still cannot read its secrets: not by a statement, not by an error, not by
// having them sent to a server of their own.
#[tokio::test(flavor = "multi_thread")]
async fn no_way_brings_a_secret_back() {
    for defaults in Defaults::ALL {
        a_secret_stays_hidden(&project_with(defaults).await).await;
    }
}

#[expect(clippy::too_many_lines, reason = "a list of ways")]
async fn a_secret_stays_hidden(project: &Project) {
    let channel = project.channel().await;
    let other = "insert into notification_channel (organisation_id, kind, secrets)
                 values ('a', 'webhook', '{\"url\": \"hook-4713\"}') returning id";
    let other = project.done(project.editor, other).await.remove(0);
    let secret_in_a_key = "insert into notification_channel (organisation_id, kind, secrets)
                           values ('a', 'webhook', '{\"https://x/hidden-4714\": \"\"}')";
    let mut told = Vec::new();
    let mut tried = BTreeSet::new();
    for sql in [
        "select * from notification_channel",
        "select to_jsonb(c) from notification_channel as c",
        "select * from notification_channel_secret",
        "select secrets from notification_channel_secret",
        "select count(*) from notification_channel_secret",
        "select * from notification_channel natural join notification_channel_secret",
        "table notification_sync",
        "table notification_tombstone",
        "copy notification_channel_secret to stdout",
        "copy (select * from notification_channel_secret) to stdout",
        "update notification_channel_secret set secrets = '{}'",
        "delete from notification_channel_secret",
        "truncate notification_channel_secret",
        "lock table notification_channel_secret",
        "analyze notification_channel_secret",
        "select * from pg_stats where tablename = 'notification_channel_secret'",
        "update notification_channel set name = name returning *",
        "update notification_channel set secrets = secrets returning secrets",
        "update notification_channel set name = secrets::text returning name",
        "update notification_channel set settings = secrets returning settings",
        "delete from notification_channel where false returning *",
        // Errors that show the row, or a value.
        "update notification_channel set kind = null",
        "update notification_channel set name = (secrets ->> 'url')::integer::text",
        "update notification_channel set enabled = (secrets ->> 'url')::boolean",
        "update notification_channel set secrets = '\"hidden-4714\"'",
        "update notification_channel set secrets = '[\"hidden-4714\"]'",
        "update notification_channel set secrets = '{\"hidden-4714\": \"x\"}'",
        secret_in_a_key,
        // Functions and triggers that run as the owner.
        "select mimir_tenant_proxy_keep_secrets()",
        "select public.mimir_tenant_proxy_bury_notification()",
        "create temporary table mine (id uuid, organisation_id text, kind text, secrets jsonb);
         create trigger t before insert on mine for each row execute function public.mimir_tenant_proxy_keep_secrets()",
        "create temporary table mine (id uuid, organisation_id text);
         create trigger t after insert on mine for each row
             execute function public.mimir_tenant_proxy_bury_notification('channel', 'id', 'organisation_id')",
        "create temporary table mine (organisation_id text);
         create trigger t after insert on mine referencing new table as new_rows for each statement
             execute function public.mimir_tenant_proxy_at_most('1', 'x')",
        "create trigger t before update on notification_channel for each row execute function mimir_tenant_proxy_touch()",
        "create rule r as on update to notification_channel do also select * from notification_channel_secret",
        "create temporary view v as select * from notification_channel_secret; select * from v",
        "alter table notification_channel disable trigger all",
        "set session_replication_role = replica",
    ] {
        let answer = project.ask(project.editor, sql).await;
        tried.insert(answer.code.clone().unwrap_or_default());
        if SECRETS.iter().any(|secret| answer.text.contains(secret)) {
            told.push(format!("{sql}: {}", answer.text));
        }
    }
    assert!(told.is_empty(), "{told:#?}");
    assert!(tried.contains(DENIED) && tried.contains(REFUSED), "{tried:?}");
    for role in ["anon", "service_role"] {
        let sql = "select * from notification_channel_secret";
        let answer = project.as_role(role, project.editor, sql).await;
        assert_eq!(answer.code.as_deref(), Some(DENIED), "{role}");
    }
    // A mask in another row is nothing: neither in a new one, nor in one that has no such secret.
    let copy = "insert into notification_channel (organisation_id, kind, secrets)
                select organisation_id, kind, secrets from notification_channel returning id";
    for copied in project.done(project.editor, copy).await {
        assert_eq!(project.stored(&copied).await, json!(null));
        let sql = format!("update notification_channel set name = 'copied' where id = '{copied}'");
        project.done(project.editor, &sql).await;
        assert_eq!(project.stored(&copied).await, json!(null));
        // What is missing stays visible, until its author writes or removes it.
        assert_ne!(project.masks(&copied).await, json!({}));
        let sql = format!("update notification_channel set secrets = '{{}}' where id = '{copied}'");
        project.done(project.editor, &sql).await;
        assert_eq!(project.masks(&copied).await, json!({}));
    }
    let sql = format!(
        "update notification_channel set secrets = (select secrets from notification_channel where id = '{channel}')
         where id = '{other}'"
    );
    project.done(project.editor, &sql).await;
    assert_eq!(project.stored(&other).await, json!({"url": "hook-4713"}));
    // The address of a server of one's own, and what is kept would be sent to it.
    for exfiltration in [
        "secrets = '{\"url\": \"https://mine\", \"token\": \"<secret>\"}'",
        "secrets = secrets || '{\"url\": \"https://mine\"}'",
        "kind = 'slack'",
        "kind = 'slack', secrets = '{\"token\": \"<secret>\"}'",
    ] {
        let sql = format!("update notification_channel set {exfiltration} where id = '{channel}'");
        project.refused(project.editor, &sql, REFUSED).await;
    }
    // In two steps.
    let sql = format!(
        "update notification_channel set secrets = '{{\"token\": \"<secret>\"}}' where id = '{channel}'"
    );
    project.done(project.editor, &sql).await;
    let sql = format!(
        "update notification_channel set secrets = '{{\"url\": \"https://mine\", \"token\": \"<secret>\"}}'
         where id = '{channel}'"
    );
    project.refused(project.editor, &sql, REFUSED).await;
    // All of them again, and it is a channel of the same row with other secrets.
    let sql = format!(
        "update notification_channel set kind = 'slack', secrets = '{{\"url\": \"https://mine\"}}' where id = '{channel}'"
    );
    project.done(project.editor, &sql).await;
    assert_eq!(project.stored(&channel).await, json!({"url": "https://mine"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn organisations_do_not_touch_each_others_channels_and_viewers_write_none() {
    for defaults in Defaults::ALL {
        channels_are_their_organisations(&project_with(defaults).await).await;
    }
}

async fn channels_are_their_organisations(project: &Project) {
    let channel = project.channel().await;
    let route = format!(
        "insert into notification_route (organisation_id, channel_id) values ('a', '{channel}') returning id"
    );
    let route = project.done(project.editor, &route).await.remove(0);
    project
        .database
        .execute(&format!(
            "insert into notification_channel_status (channel_id, organisation_id, state) values ('{channel}', 'a', 'live');
             insert into notification_route_status (route_id, organisation_id, state) values ('{route}', 'a', 'live')"
        ))
        .await;
    let tables = [
        "notification_channel",
        "notification_route",
        "notification_channel_status",
        "notification_route_status",
    ];
    for table in tables {
        let sql = format!("select organisation_id from {table}");
        assert_eq!(project.done(project.viewer, &sql).await, ["a"], "{table}");
        assert!(project.done(project.outsider, &sql).await.is_empty(), "{table}");
        assert_eq!(
            project.as_role("anon", project.editor, &sql).await.code.as_deref(),
            Some(DENIED)
        );
    }
    // A row that one may not write is one that is not there.
    for user in [project.viewer, project.outsider] {
        for sql in [
            "update notification_channel set name = 'x' returning id",
            "update notification_channel set secrets = '{\"url\": \"https://mine\"}' returning id",
            "update notification_route set enabled = false returning id",
            "delete from notification_route returning id",
            "delete from notification_channel returning id",
        ] {
            assert!(project.done(user, sql).await.is_empty(), "{sql}");
        }
        let insert = "insert into notification_channel (organisation_id, kind, secrets)
                      values ('a', 'webhook', '{\"url\": \"x\"}')";
        project.refused(user, insert, DENIED).await;
        let insert = format!(
            "insert into notification_route (organisation_id, channel_id) values ('a', '{channel}')"
        );
        project.refused(user, &insert, DENIED).await;
    }
    for sql in [
        "update notification_channel set organisation_id = 'b'",
        "update notification_channel set id = gen_random_uuid()",
        "update notification_route set organisation_id = 'b'",
        "insert into notification_channel (id, organisation_id, kind) values (gen_random_uuid(), 'a', 'webhook')",
        "insert into notification_channel_status (channel_id, organisation_id, state)
         values (gen_random_uuid(), 'a', 'live')",
        "update notification_channel_status set state = 'live'",
        "delete from notification_route_status",
        "truncate notification_channel cascade",
        "truncate notification_route",
    ] {
        project.refused(project.editor, sql, DENIED).await;
    }
    // Another organisation's channel is as little there as one that does not exist.
    for id in [channel.clone(), Uuid::new_v4().to_string()] {
        let sql = format!(
            "insert into notification_route (organisation_id, channel_id) values ('b', '{id}')"
        );
        project.refused(project.outsider, &sql, FOREIGN_KEY).await;
    }
    let own = "insert into notification_channel (organisation_id, kind) values ('b', 'webhook') returning id";
    let own = project.done(project.outsider, own).await.remove(0);
    let sql = format!(
        "insert into notification_route (organisation_id, channel_id) values ('b', '{own}')"
    );
    project.done(project.outsider, &sql).await;
    let sql = format!("update notification_route set channel_id = '{channel}'");
    project.refused(project.outsider, &sql, FOREIGN_KEY).await;
    assert_eq!(project.stored(&channel).await["token"], "token-4712");
}

// An operator's own tool may give IDs. That of another organisation's channel changes nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn an_upsert_of_another_organisations_id_leaves_its_secrets() {
    let project = project().await;
    let channel = project.channel().await;
    let insert = format!(
        "insert into notification_channel (id, organisation_id, kind, secrets)
         values ('{channel}', 'b', 'webhook', '{{\"url\": \"https://mine\"}}')"
    );
    let service = async |sql: &str| project.as_role("service_role", project.editor, sql).await;
    assert_eq!(service(&insert).await.code.as_deref(), Some("23505"));
    assert_eq!(service(&format!("{insert} on conflict do nothing")).await.code, None);
    assert_eq!(project.stored(&channel).await["url"], "hook-4711");
    // Of its own organisation it is an update as any.
    let upsert = format!(
        "insert into notification_channel (id, organisation_id, kind, secrets)
         values ('{channel}', 'a', 'webhook', '{{\"url\": \"hook-4713\"}}')
         on conflict (id) do update set secrets = excluded.secrets"
    );
    let upserted = service(&upsert).await;
    assert_eq!(upserted.code, None, "{}", upserted.text);
    assert_eq!(project.stored(&channel).await, json!({"url": "hook-4713"}));
    let id = Uuid::new_v4();
    let sql = format!("update notification_channel set id = '{id}' where id = '{channel}'");
    assert_eq!(service(&sql).await.code, None);
    assert_eq!(project.stored(&id.to_string()).await, json!({"url": "hook-4713"}));
    // The organisation's own name goes through to everything.
    project.database.execute("update organisation set id = 'c' where id = 'a'").await;
    assert_eq!(project.stored(&id.to_string()).await, json!({"url": "hook-4713"}));
    project.database.execute("delete from organisation where id = 'c'").await;
    assert_eq!(project.stored(&id.to_string()).await, json!(null));
}

// A seed that runs at each deployment put back the secrets of its file over those of the author, and no change was told.
#[tokio::test(flavor = "multi_thread")]
async fn an_insert_that_leaves_a_channel_as_it_is_leaves_its_secrets() {
    let project = project().await;
    let (channel, bare) = (project.channel().await, Uuid::new_v4());
    let service = async |sql: &str| project.as_role("service_role", project.editor, sql).await;
    let insert = |id: &str| {
        format!(
            "insert into notification_channel (id, organisation_id, kind, name, secrets)
             values ('{id}', 'a', 'webhook', 'seed', '{{\"url\": \"from-the-seed\"}}')"
        )
    };
    let aside = "select count(aside)::text || ' ' || count(aside_by) || ' ' || count(*)
                 from notification_channel_secret";
    let masks = format!("select secrets::text from notification_channel where id = '{channel}'");
    let given = project.stored(&channel).await;
    for conflict in [
        "on conflict do nothing",
        "on conflict (id) do nothing",
        "on conflict (id) do update set name = excluded.name",
        "on conflict (id) do update set settings = excluded.settings where false",
    ] {
        let done = service(&format!("{} {conflict}", insert(&channel))).await;
        assert_eq!(done.code, None, "{conflict}: {}", done.text);
        assert_eq!(project.stored(&channel).await, given, "{conflict}");
        assert_eq!(project.database.query(aside).await, [[Some("0 0 1".to_owned())]]);
        let masks = project.database.query(&masks).await;
        assert_eq!(masks, [[Some(r#"{"url": "<secret>", "token": "<secret>"}"#.to_owned())]]);
    }
    // What asks for them gets them, and a new address gets no old token.
    let upsert = |secrets: &str| {
        format!(
            "insert into notification_channel (id, organisation_id, kind, secrets)
             values ('{channel}', 'a', 'webhook', '{secrets}')
             on conflict (id) do update set secrets = excluded.secrets"
        )
    };
    let refused = service(&upsert(r#"{"url": "other", "token": "<secret>"}"#)).await;
    assert!(refused.text.contains("given again"), "{}", refused.text);
    let done = service(&upsert(r#"{"url": "new", "token": "new-token"}"#)).await;
    assert_eq!(done.code, None, "{}", done.text);
    assert_eq!(project.stored(&channel).await, json!({"url": "new", "token": "new-token"}));
    // A channel without secrets stays without.
    let bare = bare.to_string();
    let without = insert(&bare).replace(r#"{"url": "from-the-seed"}"#, "{}");
    assert_eq!(service(&without).await.code, None);
    assert_eq!(service(&format!("{} on conflict do nothing", insert(&bare))).await.code, None);
    assert_eq!(project.stored(&bare).await, json!(null));
    assert_eq!(project.database.query(aside).await, [[Some("0 0 1".to_owned())]]);
}

// Two that make one channel at the same time: the second sees the first's row only when that is there.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_inserts_at_the_same_time_the_first_gives_the_secrets() {
    let project = project().await;
    for (organisation, conflict) in [
        ("a", "on conflict do nothing"),
        ("b", "on conflict do nothing"),
        ("a", "on conflict (id) do update set name = 'x'"),
    ] {
        let id = Uuid::new_v4();
        let insert = |organisation: &str, url: &str| {
            format!(
                "insert into notification_channel (id, organisation_id, kind, secrets)
                 values ('{id}', '{organisation}', 'webhook', '{{\"url\": \"{url}\"}}')"
            )
        };
        let (first, second) = (project.database.client().await, project.database.client().await);
        first.batch_execute(&format!("begin; {}", insert("a", "first"))).await.unwrap();
        let later = format!("{} {conflict}", insert(organisation, "second"));
        let (done, ()) = tokio::join!(second.batch_execute(&later), async {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            first.batch_execute("commit").await.unwrap();
        });
        done.unwrap();
        assert_eq!(project.stored(&id.to_string()).await, json!({"url": "first"}), "{conflict}");
    }
}

// A deletion is known as one, whichever way it came; a truncation is none.
#[tokio::test(flavor = "multi_thread")]
async fn deletions_leave_tombstones_and_truncations_do_not() {
    let project = project().await;
    let tombstones = async || {
        let sql = "select kind || ' ' || organisation_id || ' ' || id from notification_tombstone order by kind, id";
        project.database.query(sql).await.into_iter().flatten().flatten().collect::<Vec<_>>()
    };
    let channel = project.channel().await;
    let route = format!(
        "insert into notification_route (organisation_id, channel_id) values ('a', '{channel}') returning id"
    );
    let route = project.done(project.editor, &route).await.remove(0);
    project.done(project.editor, "update notification_channel set name = 'y'").await;
    assert!(tombstones().await.is_empty());
    // The route goes with its channel.
    project.done(project.editor, "delete from notification_channel").await;
    assert_eq!(tombstones().await, [format!("channel a {channel}"), format!("route a {route}")]);
    let again = format!(
        "insert into notification_channel (id, organisation_id, kind) values ('{channel}', 'a', 'email')"
    );
    project.database.execute(&again).await;
    assert_eq!(tombstones().await, [format!("route a {route}")]);
    project.database.execute("truncate notification_channel cascade").await;
    assert_eq!(tombstones().await, [format!("route a {route}")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_organisation_cannot_take_the_room_of_others() {
    let project = project().await;
    let sql = "insert into notification_channel (organisation_id, kind)
               select 'a', 'webhook' from generate_series(1, 1000) returning id";
    let channel = project.done(project.editor, sql).await.remove(0);
    let sql = "insert into notification_channel (organisation_id, kind) values ('a', 'webhook')";
    let refused = project.refused(project.editor, sql, TOO_MANY).await;
    assert!(refused.text.contains("1000 notification channels"), "{}", refused.text);
    let routes = |count: usize| {
        format!(
            "insert into notification_route (organisation_id, channel_id)
             select 'a', '{channel}' from generate_series(1, {count})"
        )
    };
    project.refused(project.editor, &routes(2001), TOO_MANY).await;
    project.done(project.editor, &routes(2000)).await;
    let large = format!(
        "insert into notification_channel (organisation_id, kind, secrets)
         values ('b', 'webhook', jsonb_build_object('url', repeat('x', {})))",
        64 << 10
    );
    project.refused(project.outsider, &large, TOO_MANY).await;
    // Each column that is read with all others of the organisation.
    let text = format!("repeat('x', {})", (64 << 10) + 1);
    for (column, value) in [
        ("name", text.clone()),
        ("kind", text.clone()),
        ("settings", format!("jsonb_build_object('x', {text})")),
    ] {
        let sql =
            format!("update notification_channel set {column} = {value} where id = '{channel}'");
        let refused = project.refused(project.editor, &sql, REFUSED).await;
        assert!(refused.text.contains(&format!("notification_channel_{column}_size")), "{column}");
    }
    for (column, value) in [
        ("group_wait", text.clone()),
        ("group_interval", text.clone()),
        ("repeat_interval", text.clone()),
        ("matchers", format!("jsonb_build_array({text})")),
        ("group_by", format!("jsonb_build_array({text})")),
        ("mute_times", format!("jsonb_build_array({text})")),
    ] {
        let sql = format!("update notification_route set {column} = {value}");
        let refused = project.refused(project.editor, &sql, REFUSED).await;
        assert!(refused.text.contains(&format!("notification_route_{column}_size")), "{column}");
    }
}

// The secrets are lost, and a page that renames the channel sends the mask back.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_secret_stays_one_until_its_author_writes_it() {
    let project = project().await;
    let channel = project.channel().await;
    project.database.execute("truncate notification_channel_secret").await;
    let both = json!({"url": "<secret>", "token": "<secret>"});
    let update = async |assignments: &str| {
        let sql = format!("update notification_channel set {assignments} where id = '{channel}'");
        project.done(project.editor, &sql).await;
        (project.masks(&channel).await, project.stored(&channel).await)
    };
    assert_eq!(update("name = 'y'").await, (both.clone(), json!(null)));
    assert_eq!(update("secrets = secrets").await, (both, json!(null)));
    let one = json!({"url": "<secret>"});
    assert_eq!(update("secrets = secrets - 'token'").await, (one.clone(), json!(null)));
    // A mask of what the row never had is none.
    assert_eq!(
        update("secrets = secrets || '{\"token\": \"<secret>\"}'").await,
        (one.clone(), json!(null))
    );
    let written = update("secrets = '{\"url\": \"hook-4713\"}'").await;
    assert_eq!(written, (one, json!({"url": "hook-4713"})));
    project.database.execute("truncate notification_channel_secret").await;
    assert_eq!(update("kind = 'slack'").await, (json!({}), json!(null)), "of another service");
}

// Pages hear of statuses by Supabase Realtime, and of nothing that could hold a secret.
#[tokio::test(flavor = "multi_thread")]
async fn realtime_tells_of_statuses_only() {
    let project = project().await;
    let sql = "select tablename from pg_publication_tables where pubname = 'supabase_realtime'";
    let told: BTreeSet<String> =
        project.database.query(sql).await.into_iter().flatten().flatten().collect();
    for table in ["alert_rule_status", "notification_channel_status", "notification_route_status"] {
        assert!(told.contains(table), "{told:?}");
    }
    for table in ["notification_channel", "notification_channel_secret", "notification_sync"] {
        assert!(!told.contains(table), "{told:?}");
    }
}
