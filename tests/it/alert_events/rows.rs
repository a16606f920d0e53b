//! Who reads and writes events through Supabase's API.

use std::collections::HashSet;
use std::time::Duration;

use harness::{Postgres, wait_until};
use mimir_tenant_proxy::config::{DatabaseConfig, Environment, TablesRead};
use mimir_tenant_proxy::store::{AlertChanges, AlertKey, AskedAlert, LoadedAlerts, Store};
use mimir_tenant_proxy::tenancy::OrganisationId;
use uuid::Uuid;

use super::{Event, EventsFixture, SOON, alert, events_fixture, firing, now};
use crate::database::login;
use crate::support::identity::command;

/// A cluster of its own and a database as Supabase has it: its roles, and its publication for Realtime.
async fn supabase() -> (Postgres, harness::Database) {
    let postgres = Postgres::start().await;
    let database = postgres.database("events").await;
    let sql = "create role anon nologin; create role authenticated nologin;
               alter default privileges in schema public grant all on tables to anon, authenticated;
               create publication supabase_realtime";
    database.execute(sql).await;
    (postgres, database)
}

// Realtime and PostgREST obey the policies of `authenticated`.
#[tokio::test(flavor = "multi_thread")]
async fn members_read_their_organisations_events_and_nobody_writes_any() {
    let (_postgres, database) = supabase().await;
    let upstream = harness::Upstream::start(crate::support::responses::ok).await;
    let fixture = super::events_fixture_on(database, &upstream.url(), &[]).await;
    let (a, b) = (fixture.identity.organisation().await, fixture.identity.organisation().await);
    let mut people = Vec::new();
    for role in ["owner", "admin", "editor", "viewer"] {
        people.push(fixture.identity.member(&a, role).await.id);
    }
    let (stranger, nobody) = (fixture.identity.member(&b, "owner").await.id, Uuid::new_v4());
    for organisation in [&a, &b] {
        fixture.post(organisation, &[firing("Hot", organisation, now())]).await;
        let one = |events: &[Event]| events.len() == 1;
        fixture.wait_events("a row", organisation, SOON, one).await;
    }
    let sql = "select organisation_id from alert_event";
    for person in &people {
        assert_eq!(fixture.as_user(*person, sql).await, Ok(vec![a.clone()]));
    }
    assert_eq!(fixture.as_user(stranger, sql).await, Ok(vec![b.clone()]));
    assert_eq!(fixture.as_user(nobody, sql).await, Ok(vec![]));
    for sql in [
        "update alert_event set state = 'resolved', ended_at = now(), ended_because = 'resolved'",
        "delete from alert_event",
        "truncate alert_event",
        "insert into alert_event (organisation_id, kind, fingerprint, state, started_at) values ('x', 'alert', 'x', 'firing', now())",
        "select * from alert_event_start",
        "select * from alert_event_watch",
        "select * from alert_event_copy",
        "delete from alert_event_gap",
        "delete from alert_event_start",
        "update organisation set id = 'x'",
        "update organisation set name = 'x'",
    ] {
        let refused = fixture.as_user(people[0], sql).await.unwrap_err();
        assert!(refused.contains("permission denied"), "{sql}: {refused}");
    }

    // A duration is short: all of them are read again and again.
    let sql = "update organisation set device_silent_after = repeat('0s', 51)";
    let refused = fixture.as_user(people[0], sql).await.unwrap_err();
    assert!(refused.contains("organisation_device_silent_after_size"), "{refused}");

    // For how long a device may be silent is the administrators' to say.
    let sql = format!(
        "update organisation set device_silent_after = '15m' where id = '{a}' returning id"
    );
    for (person, may) in people.iter().zip([true, true, false, false]) {
        let changed = fixture.as_user(*person, &sql).await.unwrap();
        assert_eq!(changed.len(), usize::from(may));
    }
    assert_eq!(fixture.as_user(stranger, &sql).await, Ok(vec![]));
    let wrong = sql.replace("15m", "soon");
    assert!(fixture.as_user(people[0], &wrong).await.unwrap_err().contains("check constraint"));
}

#[tokio::test(flavor = "multi_thread")]
async fn realtime_gets_the_rows_that_people_see() {
    let (_postgres, database) = supabase().await;
    for _ in 0..2 {
        let migrated = command(&database, &["migrate"]);
        assert!(migrated.status.success(), "{migrated:?}");
    }
    let sql = "select tablename from pg_publication_tables where pubname = 'supabase_realtime' order by 1";
    let tables: Vec<String> =
        database.query(sql).await.into_iter().filter_map(|row| row[0].clone()).collect();
    assert!(tables.contains(&"alert_event".to_owned()), "{tables:?}");
    assert!(tables.contains(&"alert_rule_status".to_owned()), "{tables:?}");
    assert!(!tables.iter().any(|table| table.starts_with("alert_event_")), "{tables:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organisation_that_is_deleted_takes_its_events_along() {
    let (fixture, _upstream) = events_fixture(&[]).await;
    let (a, b) = (fixture.identity.organisation().await, fixture.identity.organisation().await);
    for organisation in [&a, &b] {
        fixture.post(organisation, &[firing("Hot", "hub", now())]).await;
        let one = |events: &[Event]| events.len() == 1;
        fixture.wait_events("a row", organisation, SOON, one).await;
    }
    fixture.database().execute(&format!("delete from organisation where id = '{a}'")).await;
    assert_eq!(fixture.events(&a).await, []);
    assert_eq!(fixture.events(&b).await.len(), 1);
    let sql = "select count(*) from alert_event_start";
    assert_eq!(fixture.database().query(sql).await[0][0].as_deref(), Some("1"));
}

/// How many starts are stored of an organisation's alerts.
async fn starts_of(fixture: &EventsFixture, organisation: &str) -> String {
    let sql =
        format!("select count(*) from alert_event_start where organisation_id = '{organisation}'");
    fixture.database().query(&sql).await[0][0].clone().unwrap()
}

// Seen: the ruler goes on for a while, and a copy knows an organisation for a minute. What it wrote after the deletion
// stayed, and a later organisation of the same name read it.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_organisations_events_do_not_come_back() {
    let (fixture, _upstream) = events_fixture(&[]).await;
    let (a, b) = (fixture.identity.organisation().await, fixture.identity.organisation().await);
    let one = |events: &[Event]| events.len() == 1;
    let (old, new) = (firing("Hot", "old", now()), firing("Hot", "new", now()));
    for organisation in [&a, &b] {
        fixture.post(organisation, std::slice::from_ref(&old)).await;
        fixture.wait_events("a row", organisation, SOON, one).await;
    }
    let dropped = async || fixture.dropped("unknown_organisation").await;

    // Not even while the deletion is under way, which holds up nobody else.
    let client = fixture.database().client().await;
    let delete = format!("delete from organisation where id = '{a}'");
    client.batch_execute(&format!("begin; {delete}")).await.unwrap();
    assert_eq!(fixture.post(&a, &[old.clone(), new.clone()]).await.status, 200);
    assert_eq!(fixture.post(&b, std::slice::from_ref(&new)).await.status, 200);
    let two = |events: &[Event]| events.len() == 2;
    fixture.wait_events("the other's is a row", &b, Duration::from_secs(5), two).await;
    wait_until("they are dropped", SOON, async || dropped().await == 2.0).await;
    client.batch_execute("commit").await.unwrap();
    assert_eq!(fixture.events(&a).await, []);

    assert_eq!(fixture.post(&a, &[old, new.clone()]).await.status, 200);
    wait_until("they are dropped", SOON, async || dropped().await == 4.0).await;
    assert_eq!((fixture.events(&a).await, &*starts_of(&fixture, &a).await), (vec![], "0"));
    fixture.database().execute(&format!("insert into organisation (id) values ('{a}')")).await;
    assert_eq!(fixture.post(&a, &[new]).await.status, 200);
    fixture.wait_events("the new one's is a row", &a, SOON, one).await;
}

// The deletion waits for what is being written, and takes it along.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_written_during_the_deletion_goes_with_its_organisation() {
    let (fixture, _upstream) = events_fixture(&[("database.query_timeout", "\"20s\"")]).await;
    let organisation = fixture.identity.organisation().await;
    let sql = "create function slow() returns trigger language plpgsql as $$ begin
                   perform pg_sleep(3);
                   return null;
               end $$;
               create trigger slow after insert on alert_event for each row execute function slow()";
    fixture.database().execute(sql).await;
    assert_eq!(fixture.post(&organisation, &[firing("Hot", "hub", now())]).await.status, 200);
    let sql = "select 1 from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'";
    wait_until("it is being written", SOON, async || {
        !fixture.database().query(sql).await.is_empty()
    })
    .await;
    let sql = format!("delete from organisation where id = '{organisation}'");
    fixture.database().execute(&sql).await;
    wait_until("it is written", SOON, async || fixture.metric("pending").await == 0.0).await;
    assert_eq!(fixture.events(&organisation).await, []);
    assert_eq!(starts_of(&fixture, &organisation).await, "0");
}

// What was one alert to us, or one silent device of a statement for all, was never written if it was too much for the
// time that a statement has.
#[tokio::test(flavor = "multi_thread")]
async fn an_alert_that_began_too_often_for_one_statement_is_written_in_parts() {
    let (fixture, _upstream) = events_fixture(&[("database.query_timeout", "\"2s\"")]).await;
    let organisation = fixture.identity.organisation().await;
    let sql = "create function slow() returns trigger language plpgsql as $$ begin
                   perform pg_sleep(0.1);
                   return null;
               end $$;
               create trigger slow after insert on alert_event for each row execute function slow()";
    fixture.database().execute(sql).await;
    let begin = now() - 36_000_000;
    let minutes = |count: i64| begin + count * 60_000;
    let mut alerts: Vec<_> =
        (0..60).map(|n| alert("Hot", "often", minutes(3 * n), minutes(3 * n + 1))).collect();
    alerts.push(firing("Hot", "other", now()));
    assert_eq!(fixture.post(&organisation, &alerts).await.status, 200);
    let all = |events: &[Event]| events.len() == 61;
    fixture.wait_events("all are rows", &organisation, Duration::from_secs(90), all).await;
    assert_eq!(fixture.dropped("refused").await, 0.0);
}

// An empty table says nothing: it was emptied by mistake, or is still to be filled.
#[tokio::test(flavor = "multi_thread")]
async fn alerts_are_kept_while_there_is_no_organisation_at_all() {
    let (fixture, _upstream) = events_fixture(&[]).await;
    let (known, new) =
        (fixture.identity.organisation().await, fixture.identity.organisation().await);
    let one = |events: &[Event]| events.len() == 1;
    fixture.post(&known, &[firing("Hot", "hub", now())]).await;
    fixture.wait_events("a row", &known, SOON, one).await;
    // Without its triggers, as `truncate` would do it.
    let empty = "set session_replication_role = replica; delete from organisation";
    fixture.database().execute(empty).await;
    for organisation in [&known, &new] {
        let other = firing("Hot", "other", now());
        assert_eq!(fixture.post(organisation, &[other]).await.status, 200);
    }
    let failures = async || fixture.metric("write_failures_total").await;
    wait_until("they cannot be written", SOON, async || failures().await >= 3.0).await;
    assert_eq!(fixture.dropped("unknown_organisation").await, 0.0);
    let fill = format!("insert into organisation (id) values ('{known}'), ('{new}')");
    fixture.database().execute(&fill).await;
    let two = |events: &[Event]| events.len() == 2;
    fixture.wait_events("a second row", &known, SOON, two).await;
    fixture.wait_events("a row", &new, SOON, one).await;
}

// All else of an organisation has a foreign key, which cascades.
#[tokio::test(flavor = "multi_thread")]
async fn an_organisation_that_is_renamed_takes_its_events_along() {
    let (fixture, _upstream) = events_fixture(&[]).await;
    let (old, new) = (fixture.identity.organisation().await, harness::fresh_organisation());
    let both = [firing("Hot", "hub", now()), firing("Hot", "other", now())];
    fixture.post(&old, &both).await;
    let two = |events: &[Event]| events.len() == 2;
    let events = fixture.wait_events("two rows", &old, SOON, two).await;
    // What one that had the new identifier once has left, of the same alert.
    let sql = format!(
        "insert into alert_event (organisation_id, kind, fingerprint, state, started_at)
             select '{new}', kind, fingerprint, state, started_at from alert_event;
         update organisation set id = '{new}' where id = '{old}';
         insert into organisation (id) values ('{old}')"
    );
    fixture.database().execute(&sql).await;
    assert_eq!((fixture.events(&old).await, &*starts_of(&fixture, &old).await), (vec![], "0"));
    assert_eq!((fixture.events(&new).await, &*starts_of(&fixture, &new).await), (events, "2"));
    // They go on.
    fixture.post(&new, &both).await;
    wait_until("it is written", SOON, async || fixture.metric("written_total").await >= 4.0).await;
    assert_eq!(fixture.events(&new).await.len(), 2);
}

// An alert of somebody's who writes another organisation's rule into an annotation.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_names_only_a_rule_of_its_organisation() {
    let (fixture, _upstream) = events_fixture(&[]).await;
    let (a, b) = (fixture.identity.organisation().await, fixture.identity.organisation().await);
    let sql = format!(
        "insert into alert_rule (organisation_id, name, expr) values ('{a}', 'Hot', 'hot') returning id"
    );
    let rule = fixture.database().query(&sql).await[0][0].clone().unwrap();
    let mut alert = firing("Hot", "hub", now());
    alert["annotations"]["alert_rule_id"] = serde_json::json!(rule);
    for (organisation, known) in [(&a, Some(rule.clone())), (&b, None)] {
        assert_eq!(fixture.post(organisation, &[alert.clone()]).await.status, 200);
        let one = |events: &[Event]| events.len() == 1;
        let events = fixture.wait_events("a row", organisation, SOON, one).await;
        assert_eq!(events[0].rule, known);
        assert_eq!(events[0].annotations.as_object().unwrap().len(), 1);
    }
}

/// How often a database's tables of rules and of their statuses were read whole, and how often by an index.
async fn scans(database: &harness::Database) -> (i64, i64) {
    let sql = "select coalesce(sum(seq_scan), 0), coalesce(sum(idx_scan), 0) from pg_stat_user_tables \
               where relname in ('alert_rule', 'alert_rule_status')";
    let rows = database.query(sql).await;
    let number = |at: usize| rows[0][at].as_deref().unwrap().parse::<i64>().unwrap();
    (number(0), number(1))
}

// Before, each batch of alerts read both tables from end to end, whatever it was about.
#[tokio::test(flavor = "multi_thread")]
async fn rules_of_alerts_are_looked_up_by_their_keys() {
    let database = Postgres::shared().await.database("keys").await;
    assert!(command(&database, &["migrate"]).status.success());
    let sql = "set session_replication_role = replica;
               insert into organisation (id) values ('a'), ('b');
               insert into alert_rule (organisation_id, name, expr)
                   select 'b', 'A' || n, 'up' from generate_series(1, 20000) as n;
               insert into alert_rule_status (rule_id, organisation_id, state)
                   select gen_random_uuid(), 'b', 'live' from generate_series(1, 50000);
               analyze alert_rule, alert_rule_status";
    database.execute(sql).await;
    let [with_row, with_status, of_another, unknown] = [(); 4].map(|()| Uuid::new_v4());
    let sql = format!(
        "set session_replication_role = replica;
         insert into alert_rule (id, organisation_id, name, expr) values ('{with_row}', 'a', 'A', 'up');
         insert into alert_rule_status (rule_id, organisation_id, state)
             values ('{with_row}', 'a', 'live'), ('{with_status}', 'a', 'live'), ('{of_another}', 'b', 'live')"
    );
    database.execute(&sql).await;
    let before = scans(&database).await;

    let variables = vec![("MTP__DATABASE__URL".to_owned(), database.url())];
    let config = DatabaseConfig::load(None, &Environment::from_vars(variables)).unwrap();
    let store = Store::new(&config, TablesRead::default()).unwrap();
    let organisation = OrganisationId::parse("a").unwrap();
    // As many as a batch may have, so that a plan for few is not enough.
    let many = (0..500).map(|_| Uuid::new_v4());
    let rules = [with_row, with_status, of_another, unknown].into_iter().chain(many).collect();
    let key = AlertKey { organisation: organisation.clone(), fingerprint: "f".to_owned() };
    let asked = vec![AskedAlert { key, since: 0, rules }];
    let nothing = |loaded: LoadedAlerts| (AlertChanges::default(), loaded);
    let loaded = store.update_alert_events(asked, nothing).await.unwrap();
    let known = [with_row, with_status].map(|rule| (organisation.clone(), rule));
    assert_eq!(loaded.rules, HashSet::from(known));
    drop(store);

    // The server tells its counts some time after the transaction.
    wait_until("the look-ups are counted", SOON, async || {
        scans(&database).await.1 >= before.1 + 500
    })
    .await;
    assert_eq!(scans(&database).await.0, before.0, "a table was read whole");
}

// To lock rows Postgres wants a right to update them, which the documented role has not.
#[tokio::test(flavor = "multi_thread")]
async fn organisations_that_are_not_there_are_known_with_and_without_the_right_to_lock_them() {
    let database = Postgres::shared().await.database("events").await;
    assert!(command(&database, &["migrate"]).status.success());
    database.execute("insert into organisation (id) values ('a'), ('b')").await;
    let rights = "grant select on organisation, alert_rule, alert_rule_status to $role;
                  grant select, insert, update, delete on alert_event, alert_event_start to $role;
                  alter role $role bypassrls";
    let (_, url) = login(&database, rights).await;
    for (url, may_lock) in [(database.url(), true), (url, false)] {
        let variables = vec![("MTP__DATABASE__URL".to_owned(), url)];
        let config = DatabaseConfig::load(None, &Environment::from_vars(variables)).unwrap();
        let store = Store::new(&config, TablesRead::default()).unwrap();
        let [a, b, gone] = ["a", "b", "gone"].map(|name| OrganisationId::parse(name).unwrap());
        let asked = [&a, &b, &gone].map(|organisation| {
            let key = AlertKey { organisation: organisation.clone(), fingerprint: "f".to_owned() };
            AskedAlert { key, since: 0, rules: Vec::new() }
        });
        let client = database.client().await;
        client.batch_execute("begin; delete from organisation where id = 'b'").await.unwrap();
        let nothing = |loaded: LoadedAlerts| (AlertChanges::default(), loaded);
        let loaded = store.update_alert_events(asked.to_vec(), nothing).await.unwrap();
        assert_eq!(loaded.absent, HashSet::from([gone]));
        let leaving = if may_lock { HashSet::from([b]) } else { HashSet::new() };
        assert_eq!(loaded.leaving, leaving);
        client.batch_execute("rollback").await.unwrap();
    }
}

// A table of the operator's own may have no such bound.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_long_text_only_the_beginning_is_read() {
    let database = Postgres::shared().await.database("events").await;
    assert!(command(&database, &["migrate"]).status.success());
    let query = "select 'a' as organisation_id, repeat('1m', 20000000) as device_silent_after
                 union all select 'b', '15m'";
    let variables = [
        ("MTP__DATABASE__URL".to_owned(), database.url()),
        ("MTP__DATABASE__ORGANISATION_QUERY".to_owned(), query.to_owned()),
    ];
    let config = DatabaseConfig::load(None, &Environment::from_vars(variables)).unwrap();
    let tables = TablesRead { organisations: true, events: true, ..TablesRead::default() };
    let store = Store::new(&config, tables).unwrap();
    let limits = store.silence_limits().await.unwrap();
    assert!(limits[0].1.len() < 110 && limits[0].1.ends_with('…'), "{limits:?}");
    assert_eq!(limits[1].1, "15m");
    assert_eq!(store.organisations().await.unwrap().len(), 2);
}
