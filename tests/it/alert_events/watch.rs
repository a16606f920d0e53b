//! The leader's part: events that expire, silent devices, the deletion of old events.

use std::time::Duration;

use harness::{Client, Postgres, Upstream, wait_until};
use serde_json::{Value, json};

use super::{Event, EventsFixture, SOON, alert, events_fixture, events_fixture_on, firing, now};
use crate::support::responses::ok;

/// As if a leader had been watching for some seconds.
pub(super) async fn watching_for(fixture: &EventsFixture, seconds: u32) {
    let sql = format!(
        "update alert_event_watch set watching_since = now() - interval '{seconds} seconds', watched_at = now()"
    );
    fixture.database().execute(&sql).await;
}

pub(super) async fn is_leading(fixture: &EventsFixture) {
    let leads =
        async || fixture.identity.proxy.metric("mimir_tenant_proxy_rules_leader").await == 1.0;
    wait_until("it leads", SOON, leads).await;
}

/// How long the leader takes to see something: its interval, and what it adds for clocks.
pub(super) const SEEN: Duration = Duration::from_secs(40);

// Decision 30: what is not reported any more has expired, and is revived by the next report.
#[tokio::test(flavor = "multi_thread")]
async fn an_alert_that_is_not_reported_any_more_expires_and_is_revived() {
    let (fixture, _upstream) = events_fixture(&[]).await;
    let organisation = fixture.identity.organisation().await;
    is_leading(&fixture).await;
    let start = now();
    let until = start + 4000;
    assert_eq!(fixture.post(&organisation, &[alert("Hot", "hub", start, until)]).await.status, 200);
    assert_eq!(fixture.post(&organisation, &[firing("Hot", "other", start)]).await.status, 200);
    let expired =
        |events: &[Event]| events.iter().any(|event| event.because.as_deref() == Some("expired"));
    let events = fixture.wait_events("it expires", &organisation, SEEN, expired).await;
    assert_eq!(events.len(), 2);
    let event = events.iter().find(|event| event.ended.is_some()).unwrap();
    assert_eq!(event.ended.as_deref(), Some(&*super::time(until)));
    let open = "open{kind=\"alert\"}";
    wait_until("one is open", SEEN, async || fixture.metric(open).await == 1.0).await;
    assert_eq!(fixture.post(&organisation, &[firing("Hot", "hub", start)]).await.status, 200);
    let revived = |events: &[Event]| events.iter().all(|event| event.ended.is_none());
    let events = fixture.wait_events("it is revived", &organisation, SOON, revived).await;
    assert_eq!(events.len(), 2, "the same one");
}

// After an outage of ours no alert was reported, and that means nothing.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_expires_before_the_leader_has_watched_for_long_enough() {
    let upstream = Upstream::start(ok).await;
    let mut postgres = Postgres::start().await;
    let database = postgres.database("events").await;
    let fixture = events_fixture_on(database, &upstream.url(), &[]).await;
    let organisation = fixture.identity.organisation().await;
    is_leading(&fixture).await;
    let start = now();
    // It holds for a minute; all that is missing is the repetition.
    let body = [alert("Hot", "hub", start, start + 60_000)];
    assert_eq!(fixture.post(&organisation, &body).await.status, 200);
    let one = |events: &[Event]| events.len() == 1;
    fixture.wait_events("a row", &organisation, SOON, one).await;
    postgres.stop().await;
    tokio::time::sleep(Duration::from_secs(80)).await;
    // Its time has passed while we were blind. What is reported meanwhile is not yet written.
    assert_eq!(fixture.post(&organisation, &[firing("Hot", "other", start)]).await.status, 200);
    postgres.start_again().await;
    is_leading(&fixture).await;
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(40) {
        let events = fixture.events(&organisation).await;
        assert!(!events.is_empty(), "the row is there");
        assert!(events.iter().all(|event| event.ended.is_none()), "{events:?}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let expired = |events: &[Event]| {
        let because = events.iter().filter_map(|event| event.because.as_deref());
        events.len() == 2 && because.collect::<Vec<_>>() == ["expired"]
    };
    fixture.wait_events("it expires", &organisation, SOON, expired).await;
}

// With a wrong secret no report arrives: that an alert was not reported means nothing then.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_expires_while_all_posts_are_refused() {
    let (fixture, _upstream) = events_fixture(&[]).await;
    let organisation = fixture.identity.organisation().await;
    is_leading(&fixture).await;
    watching_for(&fixture, 3600).await;
    let refused = Client::new(&fixture.identity.proxy.internal_url())
        .header("x-scope-orgid", &organisation)
        .header("content-type", "application/json")
        .post(super::PATH, json!([firing("Hot", "hub", now())]).to_string())
        .await;
    assert_eq!(refused.status, 401);
    overdue(&fixture, &organisation, 4).await;
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(20) {
        let events = fixture.events(&organisation).await;
        assert!(events.len() == 1 && events[0].ended.is_none(), "{events:?}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // One accepted post, and it counts again.
    assert_eq!(fixture.post(&organisation, &[]).await.status, 200);
    let expired =
        |events: &[Event]| events.iter().any(|event| event.because.as_deref() == Some("expired"));
    fixture.wait_events("it expires", &organisation, SEEN, expired).await;
}

// Seen: one tenant whose alerts were too long kept the events of all organisations open.
#[tokio::test(flavor = "multi_thread")]
async fn posts_of_which_nothing_is_taken_keep_only_the_events_of_their_organisation_open() {
    let (fixture, _upstream) = events_fixture(&[]).await;
    let (a, b) = (fixture.identity.organisation().await, fixture.identity.organisation().await);
    is_leading(&fixture).await;
    watching_for(&fixture, 3600).await;
    let mut long = firing("Long", "hub", now());
    long["annotations"]["summary"] = json!("x".repeat(70_000));
    assert_eq!(fixture.post(&a, &[long]).await.status, 400);
    for organisation in [&a, &b] {
        overdue(&fixture, organisation, 4).await;
    }
    let expired =
        |events: &[Event]| events.iter().any(|event| event.because.as_deref() == Some("expired"));
    fixture.wait_events("the other's expires", &b, SEEN, expired).await;
    let events = fixture.events(&a).await;
    assert!(events.len() == 1 && events[0].ended.is_none(), "{events:?}");
    // One accepted post, and it counts again.
    assert_eq!(fixture.post(&a, &[]).await.status, 200);
    fixture.wait_events("it expires", &a, SEEN, expired).await;
}

/// An open event whose time is over by more than what is added for clocks. Its report was to hold for so many seconds.
pub(super) async fn overdue(fixture: &EventsFixture, organisation: &str, holds: u32) {
    let sql = format!(
        "with event as (insert into alert_event (organisation_id, kind, fingerprint, labels, state, started_at) \
             values ('{organisation}', 'alert', '0123456789abcdef', '{{}}', 'firing', now() - interval '60 seconds') returning *) \
         insert into alert_event_start (organisation_id, fingerprint, started_at, event_id, valid_until, firing_seen_at) \
         select organisation_id, fingerprint, started_at, id, now() - interval '50 seconds', now() - interval '50 seconds' - interval '{holds} seconds' from event"
    );
    fixture.database().execute(&sql).await;
}

pub(super) struct Device {
    id: String,
    client: Client,
}

impl Device {
    pub(super) async fn new(fixture: &EventsFixture, organisation: &str, name: &str) -> Self {
        let body = json!({"name": name, "scopes": ["metrics:read"]});
        let key: Value = fixture.identity.device_key(organisation, body).await;
        let client = fixture.identity.proxy.client().bearer(key["key"].as_str().unwrap());
        Self { id: key["id"].as_str().unwrap().to_owned(), client }
    }

    pub(super) async fn report(&self) {
        assert_eq!(self.client.get("/prometheus/api/v1/query?query=up").await.status, 200);
    }

    /// As if it had reported that many minutes ago for the last time.
    pub(super) async fn last_used(&self, fixture: &EventsFixture, minutes: u32) {
        let id = &self.id;
        let sql = format!(
            "update device_key set last_used_at = now() - interval '{minutes} minutes' where id = '{id}'"
        );
        fixture.database().execute(&sql).await;
    }
}

pub(super) async fn silent_after(fixture: &EventsFixture, organisation: &str, after: Option<&str>) {
    let after = after.map_or("null".to_owned(), |after| format!("'{after}'"));
    let sql = format!(
        "update organisation set device_silent_after = {after} where id = '{organisation}'"
    );
    fixture.database().execute(&sql).await;
}

/// Name of the device, and why the event ended.
fn shown(events: &[Event]) -> Vec<(String, Option<String>)> {
    let show = |event: &Event| {
        assert_eq!(event.kind, "device_silent");
        (event.labels["device"].as_str().unwrap().to_owned(), event.because.clone())
    };
    let mut shown: Vec<_> = events.iter().map(show).collect();
    shown.sort();
    shown
}

fn pairs(wanted: &[(&str, Option<&str>)]) -> Vec<(String, Option<String>)> {
    let pair =
        |(name, because): &(&str, Option<&str>)| ((*name).to_owned(), because.map(str::to_owned));
    wanted.iter().map(pair).collect()
}

// Issue 13: a hub that went silent is an event until it reports again, its key is revoked, or
// nobody watches it any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_silent_is_an_event_until_it_reports_again() {
    let (fixture, _upstream) = events_fixture(&[]).await;
    let (a, b) = (fixture.identity.organisation().await, fixture.identity.organisation().await);
    is_leading(&fixture).await;
    watching_for(&fixture, 3600).await;
    let names = ["back", "fresh", "lost", "revoked"];
    let mut devices = Vec::new();
    for name in names {
        devices.push(Device::new(&fixture, &a, name).await);
    }
    let unused = Device::new(&fixture, &a, "unused").await;
    let other = Device::new(&fixture, &b, "other").await;
    for (device, minutes) in devices.iter().zip([20, 10, 20, 20]) {
        device.last_used(&fixture, minutes).await;
    }
    other.last_used(&fixture, 60).await;
    silent_after(&fixture, &a, Some("10m")).await;
    let wanted = pairs(&[("back", None), ("lost", None), ("revoked", None)]);
    let is =
        |wanted: Vec<(String, Option<String>)>| move |events: &[Event]| shown(events) == wanted;
    // The use may have been written late, so ten minutes are not yet ten.
    let events = fixture.wait_events("three are silent", &a, SEEN, is(wanted)).await;
    // Counted right after the rows are written.
    wait_until("they are counted", Duration::from_secs(5), async || {
        fixture.metric("open{kind=\"device_silent\"}").await == 3.0
    })
    .await;
    let sql = format!(
        "select device_key_id, started_at = last_used_at from alert_event join device_key k on k.id = device_key_id
         where alert_event.organisation_id = '{a}'"
    );
    for row in fixture.database().query(&sql).await {
        assert!(devices.iter().any(|device| row[0].as_deref() == Some(&device.id)));
        assert_eq!(row[1].as_deref(), Some("t"));
    }
    assert!(events.iter().all(|event| event.rule.is_none()));

    devices[0].report().await;
    devices[1].report().await;
    let path = format!("/admin/organisations/{a}/device-keys/{}", devices[3].id);
    let revoked = fixture.identity.service().send(http::Method::DELETE, &path, "").await;
    assert!(revoked.status.is_success(), "{revoked:?}");
    let wanted =
        pairs(&[("back", Some("reported")), ("lost", None), ("revoked", Some("withdrawn"))]);
    fixture.wait_events("two are over", &a, SEEN, is(wanted)).await;
    devices[0].last_used(&fixture, 20).await;
    let wanted = pairs(&[
        ("back", None),
        ("back", Some("reported")),
        ("lost", None),
        ("revoked", Some("withdrawn")),
    ]);
    fixture.wait_events("it is silent again", &a, SEEN, is(wanted)).await;
    silent_after(&fixture, &a, None).await;
    let wanted = pairs(&[
        ("back", Some("reported")),
        ("back", Some("withdrawn")),
        ("lost", Some("withdrawn")),
        ("revoked", Some("withdrawn")),
    ]);
    fixture.wait_events("nobody watches", &a, SEEN, is(wanted)).await;
    assert_eq!(fixture.events(&b).await, [], "it has no such setting");
    drop(unused);
}

// Seen: a failure to end overdue events kept back silent devices, and the deletion of old events, for everybody.
#[tokio::test(flavor = "multi_thread")]
async fn events_that_cannot_be_ended_keep_back_no_silent_device() {
    let (fixture, _upstream) = events_fixture(&[]).await;
    let organisation = fixture.identity.organisation().await;
    is_leading(&fixture).await;
    watching_for(&fixture, 3600).await;
    let sql = "alter table alert_event add check (ended_because <> 'expired')";
    fixture.database().execute(sql).await;
    let start = now();
    let stuck = alert("Hot", "hub", start, start + 3000);
    assert_eq!(fixture.post(&organisation, &[stuck]).await.status, 200);
    // Its time, the leader's grace and its interval.
    tokio::time::sleep(Duration::from_secs(25)).await;
    let device = Device::new(&fixture, &organisation, "lost").await;
    device.last_used(&fixture, 20).await;
    silent_after(&fixture, &organisation, Some("10m")).await;
    let is_silent = |events: &[Event]| events.iter().any(|event| event.kind == "device_silent");
    let events = fixture.wait_events("it is silent", &organisation, SEEN, is_silent).await;
    let is_open = |event: &&Event| event.ended.is_none();
    assert_eq!(events.iter().filter(is_open).count(), 2, "the alert is stuck: {events:?}");
}

// An event that the database refused to end kept back all others that had to end, of every organisation; later, one
// whose trigger failed in another way than by a constraint.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_ended_keeps_back_no_other() {
    let (fixture, _upstream) = events_fixture(&[]).await;
    let organisation = fixture.identity.organisation().await;
    is_leading(&fixture).await;
    watching_for(&fixture, 3600).await;
    let sql = "alter table alert_event add check (ended_because <> 'expired' or labels ->> 'device' <> 'hub-1');
               create function refuse() returns trigger language plpgsql as $$ begin
                   if new.labels ->> 'device' = 'hub-3' then
                       raise exception 'no';
                   elsif new.labels ->> 'device' = 'hub-5' then
                       execute 'select from a_table_that_is_not_there';
                   end if;
                   return new;
               end $$;
               create trigger refuse before update on alert_event for each row execute function refuse()";
    fixture.database().execute(sql).await;
    let start = now();
    let alerts: Vec<Value> =
        (0..8).map(|hub| alert("Hot", &format!("hub-{hub}"), start, start + 3000)).collect();
    assert_eq!(fixture.post(&organisation, &alerts).await.status, 200);
    let are_over = |events: &[Event]| {
        events.iter().filter(|event| event.because.as_deref() == Some("expired")).count() == 5
    };
    let wait = Duration::from_secs(120);
    let events = fixture.wait_events("the others are over", &organisation, wait, are_over).await;
    let open = events.iter().filter(|event| event.ended.is_none());
    let mut open: Vec<_> = open.filter_map(|event| event.labels["device"].as_str()).collect();
    open.sort_unstable();
    assert_eq!(open, ["hub-1", "hub-3", "hub-5"], "{events:?}");
    assert!(fixture.metric("write_failures_total").await >= 3.0);
    wait_until("it is told", wait, async || {
        fixture.identity.proxy.process.log().contains("Alert event not ended")
    })
    .await;
}

// Seen: a trigger that refuses one device, by a name that a tenant gave it, kept back the silent devices of everybody.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_device_that_is_refused_keeps_back_no_other_organisation() {
    let (fixture, _upstream) = events_fixture(&[]).await;
    let (a, b) = (fixture.identity.organisation().await, fixture.identity.organisation().await);
    is_leading(&fixture).await;
    watching_for(&fixture, 3600).await;
    let sql = "create function refuse() returns trigger language plpgsql as $$ begin
                   if new.labels ->> 'device' = tg_argv[0] then
                       raise exception 'no';
                   end if;
                   return new;
               end $$;
               create trigger begins before insert on alert_event for each row execute function refuse('evil');
               create trigger ends before update on alert_event for each row execute function refuse('stuck')";
    fixture.database().execute(sql).await;
    let (evil, lost) =
        (Device::new(&fixture, &a, "evil").await, Device::new(&fixture, &b, "lost").await);
    for (device, organisation) in [(&evil, &a), (&lost, &b)] {
        device.last_used(&fixture, 20).await;
        silent_after(&fixture, organisation, Some("10m")).await;
    }
    let one = |events: &[Event]| events.len() == 1;
    fixture.wait_events("the other's is silent", &b, SEEN, one).await;
    assert_eq!(fixture.events(&a).await, []);
    wait_until("it is counted", SEEN, async || fixture.dropped("refused").await >= 1.0).await;
    let log = fixture.identity.proxy.process.log();
    assert_eq!(log.matches("Silent devices not written: the database refuses one").count(), 1);

    // An end that is refused is no different.
    evil.last_used(&fixture, 1).await;
    let stuck = Device::new(&fixture, &a, "stuck").await;
    stuck.last_used(&fixture, 20).await;
    fixture.wait_events("it is silent", &a, SEEN, one).await;
    stuck.report().await;
    lost.report().await;
    let reported =
        |events: &[Event]| events.iter().all(|event| event.because.as_deref() == Some("reported"));
    fixture.wait_events("the other's is over", &b, SEEN, reported).await;
    assert!(fixture.events(&a).await[0].ended.is_none(), "it is stuck");
}

// Seen: a site that lost its uplink had a silent device for each of its keys, and no room for alerts.
#[tokio::test(flavor = "multi_thread")]
async fn silent_devices_and_alerts_do_not_take_each_others_room() {
    let (fixture, _upstream) = events_fixture(&[("alert_events.max_open", "2")]).await;
    let organisation = fixture.identity.organisation().await;
    is_leading(&fixture).await;
    watching_for(&fixture, 3600).await;
    let count = |events: &[Event], kind: &str| events.iter().filter(|e| e.kind == kind).count();
    for name in ["one", "two", "three"] {
        Device::new(&fixture, &organisation, name).await.last_used(&fixture, 20).await;
    }
    silent_after(&fixture, &organisation, Some("10m")).await;
    let are_silent = |events: &[Event]| count(events, "device_silent") == 2;
    fixture.wait_events("two are silent", &organisation, SEEN, are_silent).await;
    let alerts = ["one", "two", "three"].map(|hub| firing("Hot", hub, now()));
    assert_eq!(fixture.post(&organisation, &alerts).await.status, 200);
    let are_open = |events: &[Event]| count(events, "alert") == 2;
    fixture.wait_events("two alerts are open", &organisation, SOON, are_open).await;
    wait_until("the third is dropped", SOON, async || fixture.dropped("over_limit").await == 1.0)
        .await;

    // Nor the other way round.
    silent_after(&fixture, &organisation, None).await;
    let none = |events: &[Event]| {
        let open = events.iter().filter(|event| event.ended.is_none());
        open.filter(|event| event.kind == "device_silent").count() == 0
    };
    fixture.wait_events("nobody watches", &organisation, SEEN, none).await;
    silent_after(&fixture, &organisation, Some("10m")).await;
    let again = |events: &[Event]| {
        let open = events.iter().filter(|event| event.ended.is_none());
        open.filter(|event| event.kind == "device_silent").count() == 2
    };
    fixture.wait_events("two are silent again", &organisation, SEEN, again).await;
}

// Seen: with `alert_event_start` emptied, or not restored, an open event never ended, and its alert was dropped at each
// report.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_starts_are_lost_goes_on_and_ends() {
    let (fixture, _upstream) = events_fixture(&[]).await;
    let organisation = fixture.identity.organisation().await;
    is_leading(&fixture).await;
    watching_for(&fixture, 3600).await;
    let start = now() - 3_600_000;
    let alerts = [firing("Hot", "reported", start), firing("Hot", "silent", start)];
    assert_eq!(fixture.post(&organisation, &alerts).await.status, 200);
    let two = |events: &[Event]| events.len() == 2;
    fixture.wait_events("two rows", &organisation, SOON, two).await;
    // As if they had not changed for an hour.
    let lose = "update alert_event set updated_at = started_at; delete from alert_event_start";
    fixture.database().execute(lose).await;
    let end = [alert("Hot", "reported", start, now())];
    assert_eq!(fixture.post(&organisation, &end).await.status, 200);
    let over = |events: &[Event]| events.iter().any(|event| event.ended.is_some());
    let events = fixture.wait_events("it ends", &organisation, SOON, over).await;
    assert_eq!(events.len(), 2, "{events:?}");
    // Of the other nothing is said. It is given time.
    let noted = "select valid_until - firing_seen_at > interval '10 minutes' and valid_until > now() \
                 from alert_event_start natural join (select id as event_id from alert_event \
                 where labels ->> 'device' = 'silent') as event";
    wait_until("it is noted", SEEN, async || {
        let rows = fixture.database().query(noted).await;
        rows.len() == 1 && rows[0][0].as_deref() == Some("t")
    })
    .await;
    let pass = "update alert_event_start set firing_seen_at = now() - interval '20 minutes',
                    valid_until = now() - interval '1 minute' where resolved_at is null;
                update alert_event_gap set ended_at = now() - interval '1 hour'";
    fixture.database().execute(pass).await;
    let both = |events: &[Event]| {
        let because = events.iter().filter_map(|event| event.because.as_deref());
        let mut because: Vec<_> = because.collect();
        because.sort_unstable();
        because == ["expired", "resolved"]
    };
    fixture.wait_events("it expires", &organisation, SEEN, both).await;
    assert_eq!(fixture.dropped("refused").await, 0.0);
}

// A device that could not reach us, or whose use we could not write, is not silent.
#[tokio::test(flavor = "multi_thread")]
async fn no_device_is_silent_because_the_database_was_away_or_nobody_led() {
    let upstream = Upstream::start(ok).await;
    let mut postgres = Postgres::start().await;
    let database = postgres.database("events").await;
    let fixture = events_fixture_on(database, &upstream.url(), &[]).await;
    let organisation = fixture.identity.organisation().await;
    let device = Device::new(&fixture, &organisation, "hub").await;
    is_leading(&fixture).await;
    // Nobody has watched before.
    device.last_used(&fixture, 600).await;
    silent_after(&fixture, &organisation, Some("5s")).await;
    let stays_quiet = async |seconds: u64| {
        let began = std::time::Instant::now();
        while began.elapsed() < Duration::from_secs(seconds) {
            assert_eq!(fixture.events(&organisation).await, []);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    stays_quiet(30).await;
    // It reports while the database is away; that is written after it.
    device.report().await;
    watching_for(&fixture, 3600).await;
    postgres.stop().await;
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(75) {
        device.report().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    postgres.start_again().await;
    is_leading(&fixture).await;
    stays_quiet(30).await;
    let sql = "select watching_since > now() - interval '2 minutes' from alert_event_watch";
    assert_eq!(fixture.database().query(sql).await[0][0].as_deref(), Some("t"));
}

#[tokio::test(flavor = "multi_thread")]
async fn old_events_and_those_beyond_the_bound_are_deleted() {
    let settings = [("alert_events.max_open", "1"), ("alert_events.retention", "\"1h\"")];
    let (fixture, upstream) = events_fixture(&settings).await;
    let organisation = fixture.identity.organisation().await;
    drop(fixture.identity.proxy);
    let database = fixture.identity.database;
    let sql = format!(
        "insert into alert_event (organisation_id, kind, fingerprint, state, started_at, ended_at, ended_because)
             select '{organisation}', 'alert', 'old' || n, 'resolved', now() - interval '1 day', now() - interval '2 hours', 'resolved'
             from generate_series(1, 5000) as n;
         insert into alert_event (organisation_id, kind, fingerprint, state, started_at, ended_at, ended_because)
             select '{organisation}', 'alert', 'many' || n, 'resolved', now() - interval '1 day', now() - n * interval '1 second', 'resolved'
             from generate_series(1, 150) as n;
         insert into alert_event (organisation_id, kind, fingerprint, state, started_at)
             values ('{organisation}', 'alert', 'open', 'firing', now() - interval '1 year')"
    );
    database.execute(&sql).await;
    let fixture = events_fixture_on(database, &upstream.url(), &settings).await;
    let sql = "select count(*), count(*) filter (where fingerprint like 'many%'), max(fingerprint) filter (where state = 'firing') from alert_event";
    wait_until("they are deleted", SOON, async || {
        fixture.database().query(sql).await[0][0].as_deref() == Some("101")
    })
    .await;
    let row = &fixture.database().query(sql).await[0];
    assert_eq!((row[1].as_deref(), row[2].as_deref()), (Some("100"), Some("open")));
    let sql = "select 1 from alert_event where fingerprint = 'many1'";
    assert_eq!(fixture.database().query(sql).await.len(), 1, "the last ones stay");
}
