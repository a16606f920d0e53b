//! Channels and routes as they are read and their statuses as they are written, on a real Postgres.

use std::time::Duration;

use harness::{Database, Postgres, wait_until};
use mimir_tenant_proxy::config::{DatabaseConfig, Environment, TablesRead};
use mimir_tenant_proxy::store::{
    Excess, Feed, NotificationConfirmed, NotificationKind, NotificationRows, NotificationState,
    NotificationStatusRow, NotificationSyncRow, Store, TableChange,
};
use mimir_tenant_proxy::tenancy::OrganisationId;
use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::identity::command;

async fn migrated() -> Database {
    let database = Postgres::shared().await.database("notification").await;
    assert!(command(&database, &["migrate"]).status.success());
    database.execute("insert into organisation (id) values ('a'), ('b')").await;
    database
}

fn store_of(database: &Database, settings: &[(&str, &str)]) -> Store {
    let mut variables = vec![("MTP__DATABASE__URL".to_owned(), database.url())];
    variables
        .extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let config = DatabaseConfig::load(None, &Environment::from_vars(variables)).unwrap();
    let tables = TablesRead { channels: true, ..TablesRead::default() };
    Store::new(&config, tables).unwrap()
}

/// A table that refuses to lose more than 2,000 rows in one statement, whose time would grow with them.
pub(crate) fn few_at_once(table: &str) -> String {
    format!(
        "create function few_of_{table}() returns trigger language plpgsql as \
         'begin if (select count(*) from gone) > 2000 then raise ''too many at once''; end if; \
          return null; end'; \
         create trigger few_at_once after delete on {table} referencing old table as gone \
             for each statement execute function few_of_{table}();"
    )
}

fn organisation(name: &str) -> OrganisationId {
    OrganisationId::parse(name).unwrap()
}

async fn rows_of(store: &Store, name: &str) -> NotificationRows {
    let snapshot = store.notification_channels_of(vec![organisation(name)]).await.unwrap();
    assert!(snapshot.existing.contains(&organisation(name)));
    snapshot.rows.get(&organisation(name)).cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_are_read_with_their_secrets_and_routes_with_every_column() {
    let database = migrated().await;
    let (channel, route) = (Uuid::new_v4(), Uuid::new_v4());
    database
        .execute(&format!(
            "insert into notification_channel (id, organisation_id, name, kind, settings, secrets, is_default)
             values ('{channel}', 'a', 'Ops', 'webhook', '{{\"max_alerts\": 3}}', '{{\"url\": \"https://x/n33dle\"}}', true);
             insert into notification_route (id, organisation_id, channel_id, position, matchers, group_by, group_wait,
                 group_interval, repeat_interval, mute_times, continue_matching, enabled)
             values ('{route}', 'a', '{channel}', 7, '[\"a=b\"]', '[\"c\"]', '1s', '2s', '3h', '[{{\"years\": [2026]}}]',
                 true, false);
             insert into notification_channel (organisation_id, kind) values ('b', 'email')"
        ))
        .await;
    let store = store_of(&database, &[]);
    let rows = rows_of(&store, "a").await;
    let [read] = rows.channels.as_slice() else { panic!("{rows:?}") };
    assert_eq!(
        (read.id, read.name.as_deref(), read.kind.as_deref()),
        (channel, Some("Ops"), Some("webhook"))
    );
    assert_eq!(read.settings.as_deref(), Some("{\"max_alerts\": 3}"));
    assert_eq!(read.secrets.as_ref().unwrap().expose(), br#"{"url": "https://x/n33dle"}"#);
    assert_eq!((read.enabled.as_deref(), read.is_default.as_deref()), (Some("true"), Some("true")));
    assert!(read.created_at_micros.is_some() && read.excess == Excess::None);
    assert!(!format!("{rows:?}").contains("n33dle"));
    let [read] = rows.routes.as_slice() else { panic!("{rows:?}") };
    let texts = [
        &read.position,
        &read.matchers,
        &read.group_by,
        &read.group_wait,
        &read.group_interval,
        &read.repeat_interval,
        &read.mute_times,
        &read.continue_matching,
        &read.enabled,
    ];
    let texts: Vec<&str> = texts.map(|text| text.as_deref().unwrap()).into();
    assert_eq!(
        texts,
        ["7", "[\"a=b\"]", "[\"c\"]", "1s", "2s", "3h", "[{\"years\": [2026]}]", "true", "false"]
    );
    assert_eq!((read.id, read.channel.clone()), (route, Some(channel.to_string())));
    assert!(rows.channel_tombstones.is_empty() && rows.route_tombstones.is_empty());
    database.execute(&format!("delete from notification_channel where id = '{channel}'")).await;
    let rows = rows_of(&store, "a").await;
    assert!(rows.channels.is_empty() && rows.routes.is_empty());
    assert_eq!(rows.channel_tombstones.keys().collect::<Vec<_>>(), [&channel]);
    assert_eq!(rows.route_tombstones.keys().collect::<Vec<_>>(), [&route]);
    let (channels, routes) = (rows.channel_tombstones, rows.route_tombstones);
    store.forget_notification_tombstones(organisation("a"), channels, routes).await.unwrap();
    assert_eq!(rows_of(&store, "a").await, NotificationRows::default());
    assert_eq!(rows_of(&store, "b").await.channels.len(), 1);
    let none = store.notification_channels_of(vec![organisation("c")]).await.unwrap();
    assert!(none.existing.is_empty() && none.rows.is_empty());
}

// What one organisation writes does not take memory and time from the others.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_too_large_come_without_their_texts() {
    let database = migrated().await;
    // Rows from before the table had sizes.
    database
        .execute(
            "alter table notification_channel drop constraint notification_channel_settings_size;
             insert into notification_channel (organisation_id, kind, settings, created_at)
             values ('a', 'webhook', jsonb_build_object('x', repeat('x', 70000)), 'infinity'),
                    ('a', 'email', '{}', '-infinity');
             insert into notification_channel (organisation_id, kind, settings, created_at)
             select 'b', 'webhook', jsonb_build_object('x', repeat('x', 60000)), now() + n * interval '1 s'
             from generate_series(1, 40) as n",
        )
        .await;
    let store = store_of(&database, &[]);
    let rows = rows_of(&store, "a").await;
    for row in &rows.channels {
        let is_email = row.kind.as_deref() == Some("email");
        assert_eq!(row.excess, if is_email { Excess::None } else { Excess::Row });
        assert!(is_email || row.settings.is_none());
    }
    assert_eq!(rows.channels.len(), 2);
    let mut rows = rows_of(&store, "b").await.channels;
    rows.sort_by_key(|row| row.created_at_micros);
    let read = rows.iter().take_while(|row| row.excess == Excess::None).count();
    assert!((30..40).contains(&read), "{read}");
    assert!(
        rows[read..].iter().all(|row| row.excess == Excess::Organisation && row.settings.is_none())
    );
}

// The attack: 100 rows of 3 MB, which took longer than a query may, so that no channel had a status.
#[tokio::test(flavor = "multi_thread")]
async fn huge_rows_are_told_from_others_in_time() {
    let database = migrated().await;
    database
        .execute(
            "alter table notification_channel drop constraint notification_channel_settings_size;
             alter table notification_route drop constraint notification_route_matchers_size;
             create table huge as select jsonb_build_object('x', repeat('x', 3000000)) as settings;
             insert into notification_channel (organisation_id, kind, settings)
             select 'a', 'webhook', settings from huge, generate_series(1, 100);
             insert into notification_channel (organisation_id, kind) values ('a', 'email');
             insert into notification_route (organisation_id, channel_id, matchers)
             select 'a', id, settings from notification_channel where kind = 'webhook' limit 10;
             create table own (id uuid default gen_random_uuid(), org text default 'a', settings text);
             insert into own (settings) select repeat('x', 3000000);
             insert into own (settings) select settings from own, generate_series(2, 300);
             insert into own (settings) values ('{}')",
        )
        .await;
    let own = "select id, org as organisation_id, 'webhook'::text as kind, settings, '{}'::text as secrets
               from own where org = any($1)";
    for (queries, huge) in
        [(vec![], 100), (vec![("MTP__DATABASE__NOTIFICATION_CHANNEL_QUERY", own)], 300)]
    {
        // `rows_of` fails if the query takes longer than `database.query_timeout`.
        let rows = rows_of(&store_of(&database, &queries), "a").await;
        let (read, too_large): (Vec<_>, Vec<_>) =
            rows.channels.iter().partition(|row| row.excess == Excess::None);
        assert_eq!((read.len(), too_large.len()), (1, huge));
        assert!(too_large.iter().all(|row| row.excess == Excess::Row && row.settings.is_none()));
        assert!(read[0].settings.is_some());
        assert_eq!(rows.routes.iter().filter(|row| row.excess == Excess::Row).count(), 10);
    }
}

// A secret that is lost is told from one that was never there.
#[tokio::test(flavor = "multi_thread")]
async fn a_mask_without_a_secret_is_read() {
    let database = migrated().await;
    let secrets_of = async |sql: &str| {
        database.execute(sql).await;
        let rows = rows_of(&store_of(&database, &[]), "a").await;
        let secrets = rows.channels[0].secrets.as_ref();
        secrets.map(|secrets| String::from_utf8(secrets.expose().to_vec()).unwrap())
    };
    let insert = "insert into notification_channel (organisation_id, kind, secrets)
                  values ('a', 'webhook', '{\"token\": \"t\", \"url\": \"u\"}')";
    assert_eq!(secrets_of(insert).await.unwrap(), r#"{"url": "u", "token": "t"}"#);
    let lose = "update notification_channel_secret set secrets = '{\"token\": \"t\"}'";
    assert_eq!(secrets_of(lose).await.unwrap(), r#"{"url": "<secret>", "token": "t"}"#);
    let lose = "truncate notification_channel_secret";
    assert_eq!(secrets_of(lose).await.unwrap(), r#"{"url": "<secret>", "token": "<secret>"}"#);
    let remove = "update notification_channel set secrets = '{}'";
    assert_eq!(secrets_of(remove).await, None);
    // What no trigger wrote: nothing of it but masks is read.
    for (column, read) in [
        ("'{\"url\": \"clear\", \"token\": \"<secret>\"}'", Some(r#"{"token": "<secret>"}"#)),
        ("'[\"<secret>\"]'", None),
        ("null", None),
    ] {
        let sql = format!(
            "set session_replication_role = replica; update notification_channel set secrets = {column}"
        );
        assert_eq!(secrets_of(&sql).await.as_deref(), read, "{column}");
    }
}

// An operator's own tables may hold anything, and NULL anywhere.
#[tokio::test(flavor = "multi_thread")]
async fn channels_and_routes_can_be_an_operators_own() {
    let database = migrated().await;
    let id = Uuid::new_v4();
    database
        .execute(&format!(
            "create table own (id text, org text, kind text, settings text, secrets text);
             insert into own values ('{id}', 'a', 'webhook', 'no json', '{{\"url\": \"https://x/n33dle\"}}'),
                 (null, 'a', null, null, null), ('no-uuid', 'a', 'x', 'y', 'z'), ('{id}', null, 'x', 'y', 'z'),
                 ('{}', 'a|b', 'x', 'y', 'z'), ('{}', 'a', null, null, null)",
            Uuid::new_v4(),
            Uuid::new_v4()
        ))
        .await;
    let channels =
        "select id, org as organisation_id, kind, settings, secrets from own where org = any($1)";
    let routes = "select id, org as organisation_id, 'x'::text as channel_id, settings as matchers, \
                  'first' as position from own where org = any($1)";
    let queries = [
        ("MTP__DATABASE__NOTIFICATION_CHANNEL_QUERY", channels),
        ("MTP__DATABASE__NOTIFICATION_ROUTE_QUERY", routes),
    ];
    let store = store_of(&database, &queries);
    let rows = rows_of(&store, "a").await;
    assert_eq!((rows.channels.len(), rows.routes.len()), (2, 2));
    let channel = rows.channels.iter().find(|row| row.id == id).unwrap();
    assert_eq!(channel.settings.as_deref(), Some("no json"));
    assert_eq!(channel.secrets.as_ref().unwrap().expose(), br#"{"url": "https://x/n33dle"}"#);
    let route = rows.routes.iter().find(|row| row.id == id).unwrap();
    assert_eq!((route.channel.as_deref(), route.position.as_deref()), (Some("x"), Some("first")));
    let lacking =
        [("MTP__DATABASE__NOTIFICATION_CHANNEL_QUERY", "select id from own where org = any($1)")];
    let problem = store_of(&database, &lacking).check().await.unwrap_err().to_string();
    assert!(
        problem.contains("notification_channel_query") && problem.contains("secrets"),
        "{problem}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_tables_it_is_said_what_to_do() {
    let database = Postgres::shared().await.database("bare").await;
    let problem = store_of(&database, &[]).check().await.unwrap_err().to_string();
    assert!(problem.contains("migrate"), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_are_written_kept_and_forgotten() {
    let database = migrated().await;
    let store = store_of(&database, &[]);
    let (id, at) = (Uuid::new_v4(), OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap());
    let row = |kind, state, reason: &str, synced_at| NotificationStatusRow {
        kind,
        id,
        organisation: organisation("a"),
        state,
        reason: reason.to_owned(),
        synced_at,
    };
    let (channel, route) = (NotificationKind::Channel, NotificationKind::Route);
    let (live, invalid) = (NotificationState::Live, NotificationState::Invalid);
    let write = async |rows: Vec<NotificationStatusRow>| {
        store.write_notification_statuses(rows, Vec::new()).await.unwrap();
        let mut all = store.notification_statuses_of(vec![organisation("a")]).await.unwrap();
        all.sort_by_key(|row| row.kind);
        all
    };
    let both = vec![row(channel, live, "", Some(at)), row(route, invalid, "why\0not", None)];
    let read = write(both).await;
    assert_eq!(
        read,
        [row(channel, live, "", Some(at)), row(route, invalid, "why\u{fffd}not", None)]
    );
    // It stays since when it is live, until it is not.
    assert_eq!(write(vec![row(channel, live, "", None)]).await[0].synced_at, Some(at));
    assert_eq!(write(vec![row(channel, invalid, "x", None)]).await[0].synced_at, None);
    assert_eq!(write(vec![row(channel, live, "", None)]).await[0].synced_at, None);
    let gone = vec![(channel, organisation("a"), id), (route, organisation("b"), id)];
    store.write_notification_statuses(Vec::new(), gone).await.unwrap();
    let left = store.notification_statuses_of(vec![organisation("a")]).await.unwrap();
    assert_eq!(left.iter().map(|row| row.kind).collect::<Vec<_>>(), [route]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmation_is_for_what_waits_and_ends() {
    let database = migrated().await;
    let store = store_of(&database, &[]);
    let held = |id: &str| mimir_tenant_proxy::store::GuardHeld {
        id: id.to_owned(),
        reason: "2 channels".to_owned(),
    };
    let row = |guard: Option<&str>| NotificationSyncRow {
        organisation: organisation("a"),
        tenant: "a".to_owned(),
        document_hash: Some("d".to_owned()),
        state: "held".to_owned(),
        problem: String::new(),
        guard: guard.map(held),
        guard_since: None,
        confirmed_guard: None,
        absent_since: None,
        synced_at: Some(OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap()),
        problem_since: None,
        requested: None,
        answered: None,
    };
    let confirm = async |id: &str| {
        let (id, by) = (id.to_owned(), "admin".to_owned());
        store.confirm_notification_guard(organisation("a"), id, by).await.unwrap()
    };
    assert_eq!(confirm("one").await, NotificationConfirmed::Nothing);
    store.write_notification_syncs(vec![row(None)]).await.unwrap();
    assert_eq!(confirm("one").await, NotificationConfirmed::Nothing);
    store.write_notification_syncs(vec![row(Some("one"))]).await.unwrap();
    assert_eq!(confirm("two").await, NotificationConfirmed::Other(held("one")));
    assert_eq!(confirm("one").await, NotificationConfirmed::Noted);
    store.write_notification_syncs(vec![row(Some("one"))]).await.unwrap();
    let read = store.notification_sync_of(organisation("a")).await.unwrap().unwrap();
    assert_eq!(
        read,
        NotificationSyncRow { confirmed_guard: Some("one".to_owned()), ..row(Some("one")) }
    );
    database
        .execute("update notification_sync set confirmed_at = now() - interval '16 minutes'")
        .await;
    assert_eq!(store.notification_syncs().await.unwrap(), [row(Some("one"))]);
    store.forget_notification_sync(organisation("a")).await.unwrap();
    assert!(store.notification_syncs().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_a_row_is_announced_with_its_organisation() {
    let database = migrated().await;
    let store = store_of(&database, &[]);
    let changes: &'static Mutex<Vec<TableChange>> = Box::leak(Box::default());
    let feed: &'static Feed = Box::leak(Box::default());
    tokio::spawn(feed.run(
        store.clone(),
        |change| changes.lock().push(change),
        CancellationToken::default(),
    ));
    wait_until("it listens", Duration::from_secs(10), async || feed.is_connected()).await;
    let announced = async |sql: &str, wanted: TableChange| {
        changes.lock().clear();
        database.execute(sql).await;
        wait_until(sql, Duration::from_secs(5), async || changes.lock().contains(&wanted)).await;
    };
    let a = || TableChange::Channels(organisation("a"));
    announced(
        "insert into notification_channel (organisation_id, kind) values ('a', 'email')",
        a(),
    )
    .await;
    announced("update notification_channel set secrets = '{\"url\": \"x\"}'", a()).await;
    let route = "insert into notification_route (organisation_id, channel_id)
                 select 'a', id from notification_channel";
    announced(route, a()).await;
    announced("update notification_route set position = 3", a()).await;
    announced("delete from notification_channel", a()).await;
    announced("truncate notification_channel cascade", TableChange::AllChannels).await;
    announced("truncate notification_route", TableChange::AllChannels).await;
    store.announce_notification_channels(Some(organisation("a"))).await.unwrap();
    wait_until("it is announced", Duration::from_secs(5), async || changes.lock().contains(&a()))
        .await;
}

// An organisation that makes and deletes channels all day: all of its tombstones were read in each reconcile, and none
// went before all of them could be deleted in one statement.
#[tokio::test(flavor = "multi_thread")]
async fn however_many_channels_an_organisation_deletes_it_is_read_and_forgotten_in_parts() {
    let database = migrated().await;
    let last = Uuid::from_u128(u128::MAX);
    let tombstones = |kind: &str, count: u32, age: &str| {
        format!(
            "insert into notification_tombstone (kind, id, organisation_id, deleted_at) \
             select '{kind}', lpad(to_hex(n), 32, '0')::uuid, 'a', now() - interval '{age}' \
             from generate_series(1, {count}) as n;"
        )
    };
    database
        .execute(&format!(
            "{} {} {} insert into notification_tombstone (kind, id, organisation_id, deleted_at)
                 values ('route', '{last}', 'a', now()), ('route', '{last}', 'b', now() - interval '2 days');
             insert into notification_route_status (route_id, organisation_id, state) values ('{last}', 'a', 'error')",
            few_at_once("notification_tombstone"),
            tombstones("channel", 10_000, "1 hour"),
            tombstones("route", 9000, "2 days")
        ))
        .await;
    let store = store_of(&database, &[]);
    let forget = async |rows: NotificationRows| {
        let (channels, routes) = (rows.channel_tombstones, rows.route_tombstones);
        store.forget_notification_tombstones(organisation("a"), channels, routes).await.unwrap();
    };
    let rows = rows_of(&store, "a").await;
    // What may be in Mimir is explained at once. If it had to wait for the others it would be held, and they with it.
    assert_eq!(rows.route_tombstones.keys().collect::<Vec<_>>(), [&last]);
    assert_eq!(rows.channel_tombstones.len(), 6000);
    forget(rows).await;
    // Old ones that were not read are carried out, too. Of the others nobody knows.
    let rows = rows_of(&store, "a").await;
    assert_eq!((rows.channel_tombstones.len(), rows.route_tombstones.len()), (4000, 0));
    // All of them were read, so an old one has come since.
    database.execute(&tombstones("route", 1, "2 days")).await;
    forget(rows).await;
    let rows = rows_of(&store, "a").await;
    assert_eq!((rows.channel_tombstones.len(), rows.route_tombstones.len()), (0, 1));
    assert_eq!(rows_of(&store, "b").await.route_tombstones.len(), 1);

    database.execute(&tombstones("channel", 5000, "1 hour")).await;
    store.forget_notification_sync(organisation("a")).await.unwrap();
    assert_eq!(rows_of(&store, "a").await, NotificationRows::default());
}
