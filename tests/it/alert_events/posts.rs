//! Messages to the private port: forged, broken, too large, too many.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use harness::{ChaosProxy, Client, Postgres, Upstream, raw_exchange, wait_until};
use serde_json::{Value, json};

use super::{Event, PATH, SECRET, SOON, events_fixture, events_fixture_on, firing, now, service};
use crate::reload::edit;
use crate::support::responses::ok;

// Forged alerts: only who shows the secret is believed, and only on the private port.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_ruler_posts_alerts_and_only_to_the_private_port() {
    let (fixture, upstream) = events_fixture(&[]).await;
    let organisation = fixture.identity.organisation().await;
    let proxy = &fixture.identity.proxy;
    let body = json!([firing("Forged", "hub", now())]).to_string();
    let private = Client::new(&proxy.internal_url()).header("x-scope-orgid", &organisation);
    let basic = |pair: &str| format!("Basic {}", BASE64_STANDARD.encode(pair));
    for wrong in [
        String::new(),
        basic("mimir:"),
        basic("mimir:the-secret-of-the-rule"),
        basic(&format!("{SECRET}:")),
        basic(SECRET),
        format!("Bearer {SECRET}"),
        SECRET.to_owned(),
    ] {
        let client = private.clone().header("authorization", &wrong);
        let answer = client.post(PATH, body.clone()).await;
        assert_eq!(answer.status, 401, "{wrong}");
        assert!(!answer.text.contains(SECRET));
    }
    assert_eq!(private.post(PATH, body.clone()).await.status, 401);
    assert_eq!(fixture.metric("posts_total{outcome=\"unauthorised\"}").await, 8.0);

    // The public port has no such route, whoever asks and whatever they show.
    let editor = fixture.identity.member(&organisation, "editor").await;
    let public = proxy.client().header("x-scope-orgid", &organisation);
    let shown = public.clone().header("authorization", &basic(&format!("mimir:{SECRET}")));
    for client in [shown, fixture.identity.client(&editor), service(proxy)] {
        let answer = client.post(PATH, body.clone()).await;
        assert!([401, 404, 405].contains(&answer.status.as_u16()), "{answer:?}");
    }
    let forwarded =
        upstream.heads().into_iter().filter(|head| head.target.contains("alertmanager"));
    assert_eq!(forwarded.count(), 0, "nothing came to Mimir");

    // Other methods and paths of the API are not there.
    let ruler = fixture.ruler(&organisation);
    for (status, answer) in [
        (405, ruler.get(PATH).await),
        (404, ruler.post("/api/v1/alerts", body.clone()).await),
        (404, ruler.post("/alertmanager/api/v2/silences", body.clone()).await),
        (404, ruler.post(&format!("{PATH}/"), body.clone()).await),
    ] {
        assert_eq!(answer.status, status, "{answer:?}");
    }
    assert_eq!(fixture.events(&organisation).await, []);
    assert_eq!(ruler.post(PATH, body).await.status, 200);
    let one = |events: &[Event]| events.len() == 1;
    fixture.wait_events("the true one is a row", &organisation, SOON, one).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_secret_is_asked_for_once_it_is_in_the_file() {
    let watch = ("reload.watch_interval", "\"100ms\"");
    let (fixture, _upstream) = events_fixture(&[watch]).await;
    let organisation = fixture.identity.organisation().await;
    let proxy = &fixture.identity.proxy;
    let post = async |secret: &str| {
        let pair = BASE64_STANDARD.encode(format!("mimir:{secret}"));
        let client = Client::new(&proxy.internal_url()).header("x-scope-orgid", &organisation);
        let client = client.header("authorization", &format!("Basic {pair}"));
        client.post(PATH, json!([firing("Hot", "hub", now())]).to_string()).await.status.as_u16()
    };
    let other = "another-secret-of-the-ruler";
    assert_eq!((post(SECRET).await, post(other).await), (200, 401));
    edit(&proxy.config, &[("alert_events.secret", &format!("{other:?}"))]);
    wait_until("the secret is read", SOON, async || post(other).await == 200).await;
    assert_eq!(post(SECRET).await, 401);
}

// The ruler drops what is answered with anything but 2xx: an unknown tenant is no reason to alarm.
#[tokio::test(flavor = "multi_thread")]
async fn alerts_of_no_organisation_are_counted_and_become_no_row() {
    let template = ("tenancy.tenant_template", "\"prod-{organisation_id}\"");
    let (fixture, _upstream) = events_fixture(&[template]).await;
    let organisation = fixture.identity.organisation().await;
    let alerts = [firing("Hot", "hub", now())];
    let unknown = harness::fresh_organisation();
    for tenant in [organisation.clone(), "dev-a".to_owned(), format!("prod-{unknown}")] {
        for _ in 0..3 {
            assert_eq!(fixture.post(&tenant, &alerts).await.status, 200);
        }
    }
    wait_until("they are dropped", SOON, async || {
        fixture.dropped("unknown_organisation").await >= 7.0
    })
    .await;
    assert_eq!(fixture.post(&format!("prod-{organisation}"), &alerts).await.status, 200);
    let one = |events: &[Event]| events.len() == 1;
    fixture.wait_events("the organisation's is a row", &organisation, SOON, one).await;
    let sql = "select count(*) from alert_event";
    assert_eq!(fixture.database().query(sql).await[0][0].as_deref(), Some("1"));
    let log = fixture.identity.proxy.process.log();
    let lines = log.matches("Alerts of a tenant without an organisation dropped").count();
    assert_eq!(lines, 2, "once for each tenant");
    assert_eq!(log.matches("Alerts of an unknown organisation dropped").count(), 1);

    // No tenant, two, several in one.
    let ruler = Client::new(&fixture.identity.proxy.internal_url());
    let pair = BASE64_STANDARD.encode(format!("mimir:{SECRET}"));
    let ruler = ruler.header("authorization", &format!("Basic {pair}"));
    let two = ruler.clone().header("x-scope-orgid", "prod-a").header("x-scope-orgid", "prod-b");
    let several = ruler.clone().header("x-scope-orgid", &format!("prod-{organisation}|prod-b"));
    for client in [ruler, two, several] {
        assert_eq!(client.post(PATH, json!(alerts).to_string()).await.status, 400);
    }
}

// A ruler that is broken, or somebody who has the secret.
#[tokio::test(flavor = "multi_thread")]
async fn broken_and_huge_messages_harm_nobody() {
    let (fixture, _upstream) = events_fixture(&[]).await;
    let organisation = fixture.identity.organisation().await;
    let ruler = fixture.ruler(&organisation);
    for wrong in ["", "{}", "null", "[", "[{]", "\"x\"", "[[[[[[", "\u{0}"] {
        assert_eq!(ruler.post(PATH, wrong).await.status, 400, "{wrong}");
    }
    let deep = "[".repeat(1 << 20);
    assert_eq!(ruler.post(PATH, deep).await.status, 400);
    let huge = format!("[{}]", " ".repeat(9 << 20));
    assert_eq!(ruler.post(PATH, huge).await.status, 413);
    let many = format!("[{}1]", "1,".repeat(3_000_000));
    assert_eq!(ruler.post(PATH, many).await.status, 400);
    // One that is none does not take the others with it.
    let mixed = json!([{"labels": {}}, firing("Hot", "hub", now()), 7, {"startsAt": "x", "labels": {"alertname": "A"}}]);
    let answer = ruler.post(PATH, mixed.to_string()).await;
    assert_eq!(answer.status, 400);
    let one = |events: &[Event]| events.len() == 1;
    fixture.wait_events("the good one is a row", &organisation, SOON, one).await;
    assert_eq!(fixture.dropped("malformed").await, 3.0);
    // A body that does not end holds up nobody.
    let pair = BASE64_STANDARD.encode(format!("mimir:{SECRET}"));
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Basic {pair}\r\nx-scope-orgid: {organisation}\r\n\
         content-length: 1000\r\n\r\n["
    );
    let base = fixture.identity.proxy.internal_url();
    let slow: Vec<_> = (0..20)
        .map(|_| {
            let (base, head) = (base.clone(), head.clone());
            tokio::spawn(async move { raw_exchange(&base, head.as_bytes()).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let other = fixture.identity.organisation().await;
    assert_eq!(fixture.post(&other, &[firing("Hot", "hub", now())]).await.status, 200);
    for one in slow {
        one.await.unwrap();
    }
}

// What Postgres' types cannot hold, and what SQL could be made of.
#[tokio::test(flavor = "multi_thread")]
async fn strange_texts_and_times_become_rows() {
    let (fixture, _upstream) = events_fixture(&[]).await;
    let organisation = fixture.identity.organisation().await;
    let texts = [
        "\u{0}",
        "'; drop table alert_event; --",
        "\\u0000",
        "\u{1f525}\u{202e}",
        "{}",
        "\"",
        "a\nb",
        "\u{ffff}",
    ];
    let alerts: Vec<Value> = texts
        .iter()
        .map(|text| {
            let mut alert = firing("Strange", text, now());
            alert["annotations"] = json!({ *text: *text, "alert_rule_id": *text });
            alert
        })
        .collect();
    assert_eq!(fixture.post(&organisation, &alerts).await.status, 200);
    let mut old = firing("Old", "hub", 946_684_800_001);
    old["endsAt"] = json!("9999-12-31T23:59:59.999Z");
    assert_eq!(fixture.post(&organisation, &[old]).await.status, 200);
    let all = |events: &[Event]| events.len() == texts.len() + 1;
    let events = fixture.wait_events("all are rows", &organisation, SOON, all).await;
    assert_eq!(events[0].started, "2000-01-01T00:00:00.001Z");
    assert!(
        events
            .iter()
            .all(|event| event.rule.is_none() && event.annotations.get("alert_rule_id").is_none())
    );
    assert_eq!(fixture.dropped("refused").await, 0.0);
}

// One organisation that floods: others have their rows as soon as ever, its own are bounded, and what is
// dropped is counted.
#[tokio::test(flavor = "multi_thread")]
async fn an_organisation_that_floods_harms_no_other() {
    let (fixture, _upstream) = events_fixture(&[("alert_events.max_open", "100")]).await;
    let (flood, other) =
        (fixture.identity.organisation().await, fixture.identity.organisation().await);
    let alerts = |from: usize| -> Vec<Value> {
        (from..from + 2000).map(|number| firing("Flood", &format!("hub-{number}"), now())).collect()
    };
    let mut statuses = std::collections::BTreeMap::new();
    let mut lags = Vec::new();
    for round in 0..5_usize {
        let status = fixture.post(&flood, &alerts(round * 2000)).await.status.as_u16();
        *statuses.entry(status).or_insert(0) += 1;
        let began = std::time::Instant::now();
        let name = format!("hub-{round}");
        assert_eq!(fixture.post(&other, &[firing("Hot", &name, now())]).await.status, 200);
        let there = |events: &[Event]| events.len() == round + 1;
        fixture.wait_events("the other's is a row", &other, SOON, there).await;
        lags.push(began.elapsed());
    }
    println!("10000 alerts: {statuses:?}; the other's rows after {lags:?}");
    assert!(lags.iter().all(|lag| *lag < Duration::from_secs(5)), "{lags:?}");
    let is_written = async || fixture.metric("pending").await == 0.0;
    wait_until("all is written", SOON, is_written).await;
    assert_eq!(fixture.events(&flood).await.len(), 100);
    let dropped = fixture.dropped("over_limit").await + fixture.dropped("no_room").await;
    assert_eq!(dropped, 9900.0);
    // What is open goes on, and what ends makes room.
    let end = alerts(0).into_iter().map(|mut alert| {
        alert["endsAt"] = alert["startsAt"].clone();
        alert
    });
    let end: Vec<Value> = end.take(200).collect();
    assert_eq!(fixture.post(&flood, &end).await.status, 200);
    let ended =
        |events: &[Event]| events.iter().filter(|event| event.ended.is_some()).count() >= 100;
    fixture.wait_events("they end", &flood, SOON, ended).await;
    assert_eq!(fixture.post(&flood, &[firing("Hot", "new", now())]).await.status, 200);
    let is_new = |events: &[Event]| events.iter().any(|event| event.labels["device"] == "new");
    fixture.wait_events("there is room", &flood, SOON, is_new).await;
}

// Seen: a batch was so many alerts whatever they were long. One organisation's long ones did not pass a slow
// link to Postgres within a query's time, and were tried again for ever, before everybody else's.
#[tokio::test(flavor = "multi_thread")]
async fn long_alerts_on_a_slow_link_to_postgres_harm_no_other_organisation() {
    let upstream = Upstream::start(ok).await;
    let postgres = Postgres::shared().await;
    let database = postgres.database("events").await;
    let link = ChaosProxy::start(postgres.address()).await;
    let url = format!("{:?}", database.url_through(link.address()));
    let settings = [("database.url", &*url), ("database.query_timeout", "\"2s\"")];
    let fixture = events_fixture_on(database, &upstream.url(), &settings).await;
    let (long, other) =
        (fixture.identity.organisation().await, fixture.identity.organisation().await);
    link.narrow(300_000);
    let alerts = |from: usize| -> Vec<Value> {
        let one = |number: usize| {
            let mut alert = firing("Long", &format!("hub-{number}"), now());
            alert["annotations"]["text"] = json!("x".repeat(20_000));
            alert
        };
        (from..from + 200).map(one).collect()
    };
    for from in [0, 200] {
        assert_eq!(fixture.post(&long, &alerts(from)).await.status, 200);
    }
    assert_eq!(fixture.post(&other, &[firing("Hot", "hub", now())]).await.status, 200);
    let there = |events: &[Event]| events.len() == 1;
    fixture.wait_events("the other's is a row", &other, Duration::from_secs(20), there).await;
    let all = |events: &[Event]| events.len() == 400;
    fixture.wait_events("the long ones are rows, too", &long, SOON * 2, all).await;
}

// What an operator adds to the table may refuse a text that a tenant chooses: by a constraint, or by a trigger with any
// error. Seen: with an exception of a trigger's own the alert was tried again for ever, and no alert of its organisation
// with a larger fingerprint was ever written.
#[tokio::test(flavor = "multi_thread")]
async fn an_alert_that_the_database_refuses_is_dropped_alone() {
    let (fixture, _upstream) = events_fixture(&[]).await;
    let organisation = fixture.identity.organisation().await;
    let sql = "alter table alert_event add check (labels ->> 'device' <> 'hub-10');
               create function refuse() returns trigger language plpgsql as $$
               declare
                   found integer;
               begin
                   case new.labels ->> 'device'
                       when 'hub-11' then raise exception 'no';
                       when 'hub-12' then raise exception 'no' using errcode = 'insufficient_privilege';
                       when 'hub-13' then select 1 into strict found where false;
                       when 'hub-14' then perform (select n from generate_series(1, 2) as n);
                       when 'hub-15' then raise program_limit_exceeded;
                       when 'hub-16' then case 1 when 2 then null; end case;
                       else null;
                   end case;
                   return new;
               end $$;
               create trigger refuse before insert or update on alert_event for each row execute function refuse()";
    fixture.database().execute(sql).await;
    let alerts: Vec<Value> =
        (0..50).map(|number| firing("Hot", &format!("hub-{number}"), now())).collect();
    assert_eq!(fixture.post(&organisation, &alerts).await.status, 200);
    let all = |events: &[Event]| events.len() == 43;
    fixture.wait_events("all others are rows", &organisation, SOON, all).await;
    wait_until("seven are dropped", SOON, async || fixture.dropped("refused").await == 7.0).await;
    let log = fixture.identity.proxy.process.log();
    assert_eq!(log.matches("Alert event dropped: the database refuses it").count(), 1);
}

// Seen: once 16 were dropped, the next one that was refused kept back all others of its organisation, as long as its
// rule fired.
#[tokio::test(flavor = "multi_thread")]
async fn many_refused_alerts_keep_back_no_other_of_their_organisation() {
    let (fixture, _upstream) = events_fixture(&[]).await;
    let organisation = fixture.identity.organisation().await;
    let sql = "alter table alert_event add check (labels ->> 'alertname' <> 'Bad')";
    fixture.database().execute(sql).await;
    let some = |name: &str, number: usize| -> Vec<Value> {
        (0..number).map(|hub| firing(name, &format!("hub-{hub}"), now())).collect()
    };
    assert_eq!(fixture.post(&organisation, &some("Bad", 40)).await.status, 200);
    wait_until("it is an outage", SOON, async || {
        fixture.metric("write_failures_total").await >= 1.0
    })
    .await;
    assert_eq!(fixture.dropped("refused").await, 16.0);
    assert_eq!(fixture.post(&organisation, &some("Good", 3)).await.status, 200);
    let three = |events: &[Event]| events.len() == 3;
    fixture.wait_events("the good ones are rows", &organisation, SOON, three).await;
}

// A trigger with a mistake refuses every row. That is no reason to drop every alert.
#[tokio::test(flavor = "multi_thread")]
async fn alerts_are_kept_while_the_database_refuses_all_of_them() {
    let (fixture, _upstream) = events_fixture(&[]).await;
    let (a, b) = (fixture.identity.organisation().await, fixture.identity.organisation().await);
    let sql = "create function refuse() returns trigger language plpgsql as $$ begin
                   raise exception 'a mistake';
               end $$;
               create trigger refuse before insert on alert_event for each row execute function refuse()";
    fixture.database().execute(sql).await;
    let alerts: Vec<Value> =
        (0..30).map(|number| firing("Hot", &format!("hub-{number}"), now())).collect();
    for organisation in [&a, &b] {
        assert_eq!(fixture.post(organisation, &alerts).await.status, 200);
    }
    wait_until("it is an outage", SOON, async || {
        fixture.metric("write_failures_total").await >= 2.0
    })
    .await;
    assert_eq!(fixture.dropped("refused").await, 16.0);
    let log = fixture.identity.proxy.process.log();
    assert_eq!(log.matches("Alert events cannot be written and are kept in memory").count(), 1);
    fixture.database().execute("drop trigger refuse on alert_event").await;
    let count = async || fixture.events(&a).await.len() + fixture.events(&b).await.len();
    wait_until("the others are rows", SOON, async || count().await == 44).await;
    // As the ruler repeats them.
    for organisation in [&a, &b] {
        assert_eq!(fixture.post(organisation, &alerts).await.status, 200);
    }
    wait_until("all are rows", SOON, async || count().await == 60).await;
}
