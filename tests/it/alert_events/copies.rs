//! What the leader must not conclude from silence, because another copy may know better.

use std::time::{Duration, Instant};

use harness::{ChaosProxy, Postgres, ProxyOptions, Upstream, wait_until};

use super::watch::{Device, SEEN, is_leading, overdue, silent_after, watching_for};
use super::{
    Event, EventsFixture, SECRET, SOON, alert, events_fixture, events_fixture_on, now, ruler_of,
};
use crate::support::responses::ok;

/// A further copy, whose database is at an address.
async fn second_copy(
    fixture: &EventsFixture,
    upstream: &Upstream,
    database: &str,
) -> harness::Proxy {
    ProxyOptions::new(&fixture.identity.issuer.url(), &upstream.url())
        .set("database.url", &format!("{database:?}"))
        .set("rules.enabled", "true")
        .set("alert_events.enabled", "true")
        .set("alert_events.secret", &format!("{SECRET:?}"))
        .start()
        .await
}

/// Sees for some seconds that no event of the organisation ends.
async fn none_ends(fixture: &EventsFixture, organisation: &str, seconds: u64) {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds) {
        let events = fixture.events(organisation).await;
        assert!(events.len() == 1 && events[0].ended.is_none(), "{events:?}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn is_expired(events: &[Event]) -> bool {
    events.iter().any(|event| event.because.as_deref() == Some("expired"))
}

// The leader ended what another copy was told of and could not write.
#[tokio::test(flavor = "multi_thread")]
async fn no_alert_expires_while_a_copy_that_is_told_of_it_cannot_write() {
    let upstream = Upstream::start(ok).await;
    let postgres = Postgres::shared().await;
    let database = postgres.database("events").await;
    let fixture = events_fixture_on(database, &upstream.url(), &[]).await;
    let organisation = fixture.identity.organisation().await;
    is_leading(&fixture).await;
    let network = ChaosProxy::start(postgres.address()).await;
    let url = fixture.database().url_through(network.address());
    let second = second_copy(&fixture, &upstream, &url).await;
    watching_for(&fixture, 3600).await;
    let ruler = ruler_of(&second, &organisation);
    let start = now();
    let post = async || {
        let body = serde_json::json!([alert("Hot", "hub", start, now() + 75_000)]);
        assert_eq!(ruler.post(super::PATH, body.to_string()).await.status, 200);
    };
    post().await;
    let one = |events: &[Event]| events.len() == 1;
    fixture.wait_events("a row", &organisation, SOON, one).await;
    network.cut();
    // The time of the report that was written, the leader's grace, and more.
    for _ in 0..12 {
        post().await;
        none_ends(&fixture, &organisation, 10).await;
    }
    network.calm();
    let written = async || second.metric("mimir_tenant_proxy_alert_events_pending").await == 0.0;
    wait_until("it writes again", SOON, written).await;
    none_ends(&fixture, &organisation, 10).await;
}

// Deployments: a report that was sent while no copy ran, or to one that is not there any more, is lost.
#[tokio::test(flavor = "multi_thread")]
async fn no_alert_expires_because_a_copy_has_just_started_or_stopped() {
    let (fixture, upstream) = events_fixture(&[]).await;
    let organisation = fixture.identity.organisation().await;
    is_leading(&fixture).await;
    watching_for(&fixture, 7200).await;
    // It was to hold for an hour.
    overdue(&fixture, &organisation, 3600).await;
    none_ends(&fixture, &organisation, 20).await;

    let mut second = second_copy(&fixture, &upstream, &fixture.database().url()).await;
    let copies = "select count(*) from alert_event_copy";
    let count = async || fixture.database().query(copies).await[0][0].clone().unwrap();
    wait_until("both say so", SOON, async || count().await == "2").await;
    second.process.signal("TERM");
    assert!(second.process.wait(SOON).expect("it ends").success());
    let stopped = "select count(*) from alert_event_copy where uses_at = 'infinity'";
    assert_eq!(fixture.database().query(stopped).await[0][0].as_deref(), Some("1"));
    // It was there an hour ago, and has been silent for longer than a minute, or for longer than ten.
    let past = async |minutes: u32| {
        let sql = format!(
            "update alert_event_copy set seen_at = now() - interval '{minutes} minutes' where uses_at = 'infinity';
             update alert_event_gap set ended_at = now() - interval '2 hours'"
        );
        fixture.database().execute(&sql).await;
    };
    past(2).await;
    none_ends(&fixture, &organisation, 15).await;
    let log = fixture.identity.proxy.process.log();
    assert!(log.contains("Copies have stopped or are not heard"), "{log}");
    past(11).await;
    wait_until("it is forgotten", SEEN, async || count().await == "1").await;
    none_ends(&fixture, &organisation, 15).await;
    fixture
        .database()
        .execute("update alert_event_gap set ended_at = now() - interval '2 hours'")
        .await;
    fixture.wait_events("it expires", &organisation, SEEN, is_expired).await;
    // It had written all uses of device keys.
    let sql = "select watching_since < now() - interval '1 hour' from alert_event_watch";
    assert_eq!(fixture.database().query(sql).await[0][0].as_deref(), Some("t"));
}

// Refused writes of the last uses alone had every device seem silent.
#[tokio::test(flavor = "multi_thread")]
async fn no_device_is_silent_while_its_uses_cannot_be_written() {
    let (fixture, _upstream) = events_fixture(&[]).await;
    let organisation = fixture.identity.organisation().await;
    is_leading(&fixture).await;
    watching_for(&fixture, 3600).await;
    let device = Device::new(&fixture, &organisation, "hub").await;
    device.report().await;
    let used = "select 1 from device_key where last_used_at is not null";
    wait_until("its use is written", SOON, async || {
        fixture.database().query(used).await.len() == 1
    })
    .await;
    silent_after(&fixture, &organisation, Some("5s")).await;
    let sql = "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$;
               create trigger refuse before update of last_used_at on device_key for each row execute function refuse()";
    fixture.database().execute(sql).await;
    // What a use may be late by, and more.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(100) {
        device.report().await;
        assert_eq!(fixture.events(&organisation).await, []);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    fixture.database().execute("drop trigger refuse on device_key").await;
    // It is silent from now on, and that is seen.
    let one = |events: &[Event]| events.len() == 1;
    let late = Duration::from_secs(66);
    fixture.wait_events("it is silent", &organisation, late + SEEN, one).await;
}

// A copy that was killed took uses with it that it had not written.
#[tokio::test(flavor = "multi_thread")]
async fn no_device_is_silent_because_a_copy_was_killed() {
    let (fixture, _upstream) = events_fixture(&[]).await;
    let organisation = fixture.identity.organisation().await;
    is_leading(&fixture).await;
    watching_for(&fixture, 3600).await;
    let killed = async |minutes: u32| {
        let sql = format!(
            "insert into alert_event_copy values ('00000000-0000-4000-8000-000000000001', now() - interval '{minutes} minutes', now() - interval '{minutes} minutes')
             on conflict (id) do update set seen_at = excluded.seen_at, uses_at = excluded.uses_at"
        );
        fixture.database().execute(&sql).await;
    };
    killed(3).await;
    let device = Device::new(&fixture, &organisation, "hub").await;
    device.last_used(&fixture, 20).await;
    silent_after(&fixture, &organisation, Some("10m")).await;
    let none = async |seconds: u64| {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(seconds) {
            assert_eq!(fixture.events(&organisation).await, []);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    none(25).await;
    killed(11).await;
    none(25).await;
    let sql = "select count(*) from alert_event_copy";
    assert_eq!(fixture.database().query(sql).await[0][0].as_deref(), Some("1"));
    watching_for(&fixture, 3600).await;
    let one = |events: &[Event]| events.len() == 1;
    fixture.wait_events("it is silent", &organisation, SEEN, one).await;
}
