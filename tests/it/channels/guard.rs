//! What would delete too much deletes nothing: foreign documents, truncated tables, readings that fail or
//! miss something, a restored backup, organisations that are gone.

use std::time::Duration;

use harness::{Mimir, Postgres, wait_until};
use http::Method;
use serde_json::Value;

use super::admin::settings;
use super::{ChannelsFixture, MARKER, SOON, channels_fixture, channels_fixture_on, confirmation};
use crate::support::identity::command_with;

const FOREIGN: &str = "route:\n  receiver: somebody\nreceivers:\n  - name: somebody\n";
/// Lists the organisations that are not in a table.
const LISTING: &str = "select id::text as organisation_id from organisation \
                       where id::text not in (select id from hidden)";

async fn guard_of(fixture: &ChannelsFixture, org: &str) -> Value {
    let mut guard = Value::Null;
    wait_until("something is held", SOON, async || {
        guard = fixture.list(org).await["sync"]["guard"].clone();
        !guard.is_null()
    })
    .await;
    guard
}

async fn confirm(fixture: &ChannelsFixture, org: &str, guard: &Value) -> Value {
    let path = format!("/admin/organisations/{org}/channels/guard/confirm");
    let answer = fixture.identity.service().post(&path, confirmation(guard)).await;
    assert!([200, 202].contains(&answer.status.as_u16()), "{answer:?}");
    answer.json()
}

async fn two_channels(fixture: &ChannelsFixture, org: &str) -> [String; 3] {
    let one = fixture.webhook(org, "https://hooks.example.com/one").await;
    let two = fixture.webhook(org, "https://hooks.example.com/two").await;
    let route = fixture.route(org, &one, &["severity=\"critical\""]).await;
    fixture.wait_channel(&two, "live").await;
    fixture.wait_route(&route, "live").await;
    [one, two, route]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_document_is_untouched_until_it_is_confirmed() {
    let fixture = channels_fixture(&[]).await;
    let org = fixture.identity.organisation().await;
    Mimir::shared().await.configure_alertmanager(&org, FOREIGN).await;
    let channel = fixture.webhook(&org, "https://hooks.example.com/one").await;
    fixture.wait_channel(&channel, "pending").await;
    let guard = guard_of(&fixture, &org).await;
    assert!(guard["reason"].as_str().unwrap().contains("did not write"), "{guard}");
    fixture.sync(&org).await;
    assert_eq!(fixture.document(&org).await, FOREIGN);
    // It may hold anything, so it is not shown.
    let path = format!("/admin/organisations/{org}/channels/diff");
    let diff = fixture.identity.service().get(&path).await.json();
    assert!(!diff.to_string().contains("somebody"), "{diff}");
    assert_eq!((&diff["foreign"], &diff["guard"]["id"]), (&true.into(), &guard["id"]));
    // It changed since it was shown: the confirmation is not for this one.
    Mimir::shared()
        .await
        .configure_alertmanager(&org, &FOREIGN.replace("somebody", "nobody"))
        .await;
    fixture.sync(&org).await;
    let path = format!("/admin/organisations/{org}/channels/guard/confirm");
    let stale = fixture.identity.service().post(&path, confirmation(&guard)).await;
    assert_eq!(stale.status, 409, "{stale:?}");
    let guard = guard_of(&fixture, &org).await;
    confirm(&fixture, &org, &guard).await;
    fixture.wait_channel(&channel, "live").await;
    assert!(fixture.document(&org).await.starts_with(MARKER));
    assert_eq!(fixture.list(&org).await["sync"]["guard"], Value::Null);
    let again = fixture.identity.service().post(&path, confirmation(&guard)).await;
    assert_eq!(again.status, 404, "{again:?}");
}

// A table that was emptied, rows that a fault took, a backup from before they were made: no tombstones.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_lost_delete_nothing_and_rows_that_are_deleted_do() {
    let fixture = channels_fixture(&[]).await;
    let org = fixture.identity.organisation().await;
    let [one, two, route] = two_channels(&fixture, &org).await;
    let before = fixture.document(&org).await;
    fixture
        .sql(
            "create table kept_channel as select * from notification_channel; \
                 create table kept_secret as select * from notification_channel_secret; \
                 create table kept_route as select * from notification_route",
        )
        .await;
    fixture
        .sql("truncate notification_channel, notification_channel_secret, notification_route")
        .await;
    let guard = guard_of(&fixture, &org).await;
    assert!(
        guard["reason"].as_str().unwrap().starts_with("2 of 2 channels and 1 of 1 routes"),
        "{guard}"
    );
    // A new channel waits, too: half a document is no document.
    let third = fixture.webhook(&org, "https://hooks.example.com/three").await;
    fixture.wait_channel(&third, "pending").await;
    fixture.sync(&org).await;
    assert_eq!(fixture.document(&org).await, before);
    // They come back, as from a backup.
    fixture
        .sql(
            "set session_replication_role = replica; \
                 insert into notification_channel select * from kept_channel; \
                 insert into notification_channel_secret select * from kept_secret; \
                 insert into notification_route select * from kept_route",
        )
        .await;
    fixture.sync(&org).await;
    fixture.wait_channel(&third, "live").await;
    assert_eq!(fixture.list(&org).await["sync"]["guard"], Value::Null);
    for id in [&one, &two, &route] {
        assert!(fixture.document(&org).await.contains(id.as_str()));
    }

    // One is lost, and an administrator says that this is right.
    fixture
        .sql(&format!(
            "set session_replication_role = replica; \
         delete from notification_route where id = '{route}'"
        ))
        .await;
    fixture.sync(&org).await;
    let guard = guard_of(&fixture, &org).await;
    assert!(fixture.document(&org).await.contains(&route));
    confirm(&fixture, &org, &guard).await;
    wait_until("the route is gone", SOON, async || !fixture.document(&org).await.contains(&route))
        .await;
    // Deleted on purpose, the others go at once.
    fixture.sql(&format!("delete from notification_channel where id = '{two}'")).await;
    wait_until("it is gone", SOON, async || !fixture.document(&org).await.contains(&two)).await;
    // Mimir may have been reading a file that it was writing.
    fixture.wait_document(&org, &one).await;
}

// The table of secrets was emptied: the row is there with its mask, and the channel would be invalid.
#[tokio::test(flavor = "multi_thread")]
async fn channels_whose_secrets_are_lost_stay() {
    let fixture = channels_fixture(&[("channels.reconcile_interval", "\"1s\"")]).await;
    let org = fixture.identity.organisation().await;
    let [one, two, _] = two_channels(&fixture, &org).await;
    let before = fixture.document(&org).await;
    fixture
        .sql(
            "create table kept_secret as select * from notification_channel_secret; \
             truncate notification_channel_secret",
        )
        .await;
    let guard = guard_of(&fixture, &org).await;
    assert!(
        guard["reason"].as_str().unwrap().contains("their secrets are not stored any more"),
        "{guard}"
    );
    // Not when somebody renames it, either.
    fixture.sql(&format!("update notification_channel set name = 'x' where id = '{one}'")).await;
    fixture.sync(&org).await;
    assert_eq!(fixture.document(&org).await, before);
    let (state, reason) = fixture.channel_status(&one).await;
    assert_eq!(state, "invalid");
    assert!(reason.contains("write the secret again"), "{reason}");
    // They come back.
    fixture.sql("insert into notification_channel_secret select * from kept_secret").await;
    fixture.sync(&org).await;
    assert_eq!(fixture.list(&org).await["sync"]["guard"], Value::Null);
    fixture.wait_channel(&one, "live").await;
    assert_eq!(fixture.document(&org).await, before);
    // One is lost again, and an administrator says that this is right.
    fixture
        .sql(&format!("delete from notification_channel_secret where channel_id = '{two}'"))
        .await;
    let guard = guard_of(&fixture, &org).await;
    assert!(guard["reason"].as_str().unwrap().starts_with("1 of 2 channels"), "{guard}");
    confirm(&fixture, &org, &guard).await;
    wait_until("it is gone", SOON, async || !fixture.document(&org).await.contains(&two)).await;
    fixture.wait_document(&org, &one).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_that_fails_or_misses_rows_changes_nothing() {
    let fixture = channels_fixture(&[("channels.reconcile_interval", "\"1s\"")]).await;
    let org = fixture.identity.organisation().await;
    let [one, ..] = two_channels(&fixture, &org).await;
    let before = fixture.document(&org).await;
    // The query fails.
    fixture.sql("alter table notification_channel rename to hidden").await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(fixture.document(&org).await, before);
    fixture.sql("alter table hidden rename to notification_channel").await;
    // It gives fewer rows than there are.
    fixture
        .sql(
            "alter table notification_channel rename to hidden; \
                 create view notification_channel as select * from hidden where false",
        )
        .await;
    guard_of(&fixture, &org).await;
    assert_eq!(fixture.document(&org).await, before);
    fixture
        .sql("drop view notification_channel; alter table hidden rename to notification_channel")
        .await;
    wait_until("nothing is held any more", SOON, async || {
        fixture.list(&org).await["sync"]["guard"].is_null()
    })
    .await;
    fixture.wait_channel(&one, "live").await;
    assert_eq!(fixture.document(&org).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organisation_that_is_gone_keeps_its_document_for_the_grace_period() {
    let settings =
        [("channels.reconcile_interval", "\"1s\""), ("rules.organisation_grace", "\"4s\"")];
    let fixture = channels_fixture(&settings).await;
    let (gone, lost, back) = (
        fixture.identity.organisation().await,
        fixture.identity.organisation().await,
        fixture.identity.organisation().await,
    );
    for org in [&gone, &lost, &back] {
        two_channels(&fixture, org).await;
    }
    let kept = fixture.document(&back).await;
    // Deleted with all that it has; lost without a trace; deleted by mistake and made again.
    fixture.sql(&format!("delete from organisation where id = '{gone}'")).await;
    fixture
        .sql(&format!(
            "set session_replication_role = replica; delete from organisation where id = '{lost}'; \
         delete from notification_route where organisation_id = '{lost}'; \
         delete from notification_channel where organisation_id = '{lost}'"
        ))
        .await;
    assert!(!fixture.document(&gone).await.is_empty());
    wait_until("the document is gone", SOON, async || fixture.document(&gone).await.is_empty())
        .await;
    wait_until("it is forgotten", SOON, async || {
        let sql = format!("select 1 from notification_sync where organisation_id = '{gone}'");
        fixture.identity.database.query(&sql).await.is_empty()
    })
    .await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(!fixture.document(&lost).await.is_empty(), "its deletion has no explanation");
    let status = fixture.identity.service().get("/admin/channels/status").await.json();
    let held =
        status["organisations"].as_array().unwrap().iter().find(|one| one["organisation"] == lost);
    assert!(
        held.unwrap()["guard"]["reason"].as_str().unwrap().contains("2 of 2 channels"),
        "{status}"
    );
    assert_eq!(fixture.document(&back).await, kept);
}

/// What is held of an organisation that is not listed.
async fn guard_of_gone(fixture: &ChannelsFixture, org: &str) -> Value {
    let status = fixture.identity.service().get("/admin/channels/status").await.json();
    let all = status["organisations"].as_array().unwrap();
    all.iter()
        .find(|one| one["organisation"] == org)
        .map_or(Value::Null, |one| one["guard"].clone())
}

async fn wait_held(fixture: &ChannelsFixture, org: &str, because: &str) {
    wait_until(&format!("{org} is held: {because}"), SOON, async || {
        let guard = guard_of_gone(fixture, org).await;
        guard["reason"].as_str().is_some_and(|reason| reason.contains(because))
    })
    .await;
}

async fn wait_released(fixture: &ChannelsFixture, org: &str) {
    wait_until(&format!("nothing is held of {org}"), SOON, async || {
        guard_of_gone(fixture, org).await.is_null()
    })
    .await;
}

/// Three organisations with channels, and a query of the operator's own that does not list those in `hidden`.
async fn three_listed(settings: &[(&str, &str)]) -> (ChannelsFixture, [String; 3]) {
    let database = Postgres::shared().await.database("channels").await;
    database.execute("create table hidden (id text not null)").await;
    let mimir = Mimir::shared().await.url();
    let query = format!("{LISTING:?}");
    let mut all = vec![
        ("database.organisation_query", query.as_str()),
        ("channels.reconcile_interval", "\"1s\""),
        ("rules.organisation_grace", "\"2s\""),
    ];
    all.extend_from_slice(settings);
    let fixture = channels_fixture_on(database, &mimir, &mimir, &all).await;
    let organisations = [
        fixture.identity.organisation().await,
        fixture.identity.organisation().await,
        fixture.identity.organisation().await,
    ];
    for org in &organisations {
        two_channels(&fixture, org).await;
    }
    (fixture, organisations)
}

// Seen: all rows were there, so nothing was missing, and every document was deleted after the grace period.
#[tokio::test(flavor = "multi_thread")]
async fn organisations_of_which_none_is_listed_any_more_keep_their_documents() {
    let (fixture, organisations) = three_listed(&[]).await;
    let mut before = Vec::new();
    for org in &organisations {
        before.push(fixture.document(org).await);
    }
    fixture.sql("insert into hidden select id::text from organisation").await;
    for org in &organisations {
        wait_held(&fixture, org, "lists no organisation at all").await;
    }
    wait_until("the metric says so", SOON, async || {
        fixture.identity.proxy.metric("mimir_tenant_proxy_channels_held").await > 2.5
    })
    .await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    for (org, before) in organisations.iter().zip(&before) {
        assert_eq!(&fixture.document(org).await, before);
    }
    // The query is mended, and the hold ends by itself.
    fixture.sql("delete from hidden").await;
    for (org, before) in organisations.iter().zip(&before) {
        wait_released(&fixture, org).await;
        assert_eq!(&fixture.document(org).await, before);
    }
    // One alone is gone, with all its rows, and that is an everyday change.
    let [one, two, _] = &organisations;
    fixture.sql(&format!("insert into hidden values ('{one}')")).await;
    wait_until("its document is gone", SOON, async || fixture.document(one).await.is_empty()).await;
    assert!(!fixture.document(two).await.is_empty());
}

// A part is listed: as much as the guard of all rules together holds, for which it has the keys.
#[tokio::test(flavor = "multi_thread")]
async fn many_organisations_that_are_gone_at_once_wait_for_a_confirmation_each() {
    let (fixture, organisations) = three_listed(&[("rules.guard_overall_count", "4")]).await;
    let [one, two, stays] = &organisations;
    fixture.sql(&format!("insert into hidden values ('{one}'), ('{two}')")).await;
    for org in [one, two] {
        wait_held(&fixture, org, "6 of the 9 channels and routes").await;
    }
    // Rows that are lost as well need no confirmation of their own.
    fixture
        .sql(&format!(
            "set session_replication_role = replica; \
             delete from notification_route where organisation_id = '{one}'"
        ))
        .await;
    let guard = guard_of_gone(&fixture, one).await;
    let of_command = settings(&fixture);
    let mut environment: Vec<(&str, &str)> =
        of_command.iter().map(|(key, value)| (*key, value.as_str())).collect();
    environment.push(("MTP__DATABASE__ORGANISATION_QUERY", LISTING));
    let id = guard["id"].as_str().unwrap();
    let words = ["channels", "confirm", id, "--organisation", one.as_str()];
    let output = command_with(&fixture.identity.database, &environment, &words);
    assert!(output.status.success(), "{output:?}");
    wait_until("its document is gone", SOON, async || fixture.document(one).await.is_empty()).await;
    // What is left is too little to be held, and was held before.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(!fixture.document(two).await.is_empty());
    assert!(!guard_of_gone(&fixture, two).await.is_null());
    assert!(!fixture.document(stays).await.is_empty());
    fixture.sql("delete from hidden").await;
    wait_released(&fixture, two).await;
    assert!(!fixture.document(two).await.is_empty());
}

// Edits by hand are repaired, and a document that was deleted by hand is written again.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_by_hand_is_repaired() {
    let fixture = channels_fixture(&[("channels.reconcile_interval", "\"2s\"")]).await;
    let org = fixture.identity.organisation().await;
    two_channels(&fixture, &org).await;
    let right = fixture.document(&org).await;
    let edited = right.replace("hooks.example.com/one", "elsewhere.example.com/one");
    fixture.write_by_hand(&org, &edited).await;
    wait_until("it is repaired", SOON, async || fixture.document(&org).await == right).await;
    let deleted = fixture.tenant(&org).send(Method::DELETE, "/api/v1/alerts", "").await;
    assert_eq!(deleted.status, 200, "{deleted:?}");
    wait_until("it is written again", SOON, async || fixture.document(&org).await == right).await;
}

// Two databases with different rows: the guard of the first one's document holds the second one.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_deletes_nothing() {
    let mimir = Mimir::shared().await.url();
    let first = channels_fixture(&[]).await;
    let org = first.identity.organisation().await;
    let [one, two, _] = two_channels(&first, &org).await;
    let before = first.document(&org).await;
    // A database from before there were channels, with the organisation alone.
    let old = Postgres::shared().await.database("channels").await;
    let second = channels_fixture_on(old, &mimir, &mimir, &[]).await;
    second.sql(&format!("insert into organisation (id) values ('{org}')")).await;
    let channel = second.webhook(&org, "https://hooks.example.com/after").await;
    second.wait_channel(&channel, "pending").await;
    guard_of(&second, &org).await;
    assert_eq!(second.document(&org).await, before);
    assert!(before.contains(&one) && before.contains(&two));
}
