//! From a real ruler to a row and its end, with outages on the way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use harness::{Client, Mimir, Postgres, ProxyOptions, samples, wait_until};
use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{
    Event, EventsFixture, SECRET, SOON, address_for_ruler, alert, events_fixture,
    events_fixture_on, firing, now, ruler_of, time,
};
use crate::support::identity::ADMIN_KEY;

/// A Mimir that repeats alerts every two seconds, so that its reports hold for ten.
async fn mimir() -> Mimir {
    Mimir::start_with(&["-ruler.resend-delay=2s"]).await
}

/// Sends an organisation's alerts to some Alertmanagers.
async fn send_alerts_to(mimir: &Mimir, organisation: &str, urls: &[String]) {
    let list = urls.join(",");
    let limits = format!("{{ruler_alertmanager_client_config: {{alertmanager_url: \"{list}\"}}}}");
    mimir.override_limits(organisation, &limits).await;
}

/// A rule on `hot`, evaluated each second, that knows its row.
async fn rule(fixture: &EventsFixture, organisation: &str) -> String {
    let sql = format!(
        "insert into alert_rule (organisation_id, name, expr, evaluation_interval, labels, annotations)
         values ('{organisation}', 'Hot', 'hot == 1', '1s', '{{\"severity\": \"critical\"}}',
                 '{{\"summary\": \"{{{{ $labels.device }}}} is hot\"}}') returning id"
    );
    let id = fixture.database().query(&sql).await[0][0].clone().unwrap();
    // In place of what the sync of rules adds.
    let sql = format!(
        "update alert_rule set annotations = annotations || jsonb_build_object('alert_rule_id', id) where id = '{id}'"
    );
    fixture.database().execute(&sql).await;
    wait_until("the rule is in Mimir", SOON, async || {
        let sql = format!("select state from alert_rule_status where rule_id = '{id}'");
        let rows = fixture.database().query(&sql).await;
        rows.first()
            .is_some_and(|row| ["live", "stored"].contains(&row[0].as_deref().unwrap_or("")))
    })
    .await;
    id
}

/// Says how hot a device of an organisation is.
async fn report(mimir: &Mimir, organisation: &str, device: &str, value: f64) {
    let client = Client::new(&mimir.url()).header("x-scope-orgid", organisation);
    let client = client.header("content-encoding", "snappy");
    let client = client.header("content-type", "application/x-protobuf");
    let body = samples::remote_write("hot", &[("device", device)], value);
    let answer = client.post("/api/v1/push", body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn device(event: &Event) -> &str {
    event.labels["device"].as_str().unwrap()
}

/// p50 and p99.
fn percentiles(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index"
        )]
        let index = ((values.len() - 1) as f64 * share).round() as usize;
        values[index]
    };
    (at(0.5), at(0.99))
}

/// Forwards connections to a port that can change.
struct Way {
    address: SocketAddr,
    port: Arc<AtomicU16>,
    _tasks: JoinSet<()>,
}

impl Way {
    async fn to(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let port = Arc::new(AtomicU16::new(port_of(url)));
        let mut tasks = JoinSet::new();
        let target = Arc::clone(&port);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut socket, _)) = listener.accept().await {
                let port = target.load(Ordering::SeqCst);
                connections.spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await {
                        let _ = copy_bidirectional(&mut socket, &mut server).await;
                    }
                });
            }
        });
        Self { address, port, _tasks: tasks }
    }

    fn lead_to(&self, url: &str) {
        self.port.store(port_of(url), Ordering::SeqCst);
    }
}

fn port_of(url: &str) -> u16 {
    url.rsplit(':').next().unwrap().parse().unwrap()
}

// Issue 13: the ruler sends to its Alertmanager and to us; both have the same alert, by the same
// fingerprint. How soon the row is there is measured from the ruler's own time of firing.
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_fires_is_a_row_until_it_is_resolved() {
    let mimir = mimir().await;
    let database = Postgres::shared().await.database("events").await;
    let fixture = events_fixture_on(database, &mimir.url(), &[]).await;
    let organisation = fixture.identity.organisation().await;
    let ours = address_for_ruler(&fixture.identity.proxy.internal_url());
    send_alerts_to(&mimir, &organisation, &[mimir.alertmanager_url(), ours]).await;
    let rule = rule(&fixture, &organisation).await;
    for number in 0..40 {
        report(&mimir, &organisation, &format!("hub-{number}"), 1.0).await;
        tokio::time::sleep(Duration::from_millis(137)).await;
    }
    let all_fire = |events: &[Event]| events.len() == 40;
    let events = fixture.wait_events("all fire", &organisation, SOON, all_fire).await;
    let first = events.iter().find(|event| device(event) == "hub-0").unwrap();
    assert_eq!((first.kind.as_str(), &first.ended, &first.because), ("alert", &None, &None));
    assert_eq!(first.rule.as_deref(), Some(rule.as_str()));
    assert_eq!(first.annotations, json!({"summary": "hub-0 is hot"}));
    let labels = json!({"alertname": "Hot", "device": "hub-0", "severity": "critical"});
    assert_eq!(first.labels, labels);

    // The Alertmanager has it, too.
    let client = Client::new(&mimir.url()).header("x-scope-orgid", &organisation);
    let mut theirs = Value::Null;
    wait_until("the Alertmanager has it", SOON, async || {
        let answer = client.get("/alertmanager/api/v2/alerts?filter=device%3D%22hub-0%22").await;
        theirs = serde_json::from_str(&answer.text).unwrap_or_default();
        theirs[0].is_object()
    })
    .await;
    assert_eq!(theirs[0]["fingerprint"], json!(first.fingerprint));
    assert_eq!(theirs[0]["startsAt"], json!(first.started));

    let sql = "select extract(epoch from created_at - started_at) from alert_event";
    let rows = fixture.database().query(sql).await;
    let lags = rows.iter().map(|row| row[0].as_ref().unwrap().parse().unwrap()).collect();
    let (p50, p99) = percentiles(lags);
    println!("from firing to the row: p50 {p50:.3}s, p99 {p99:.3}s, of {}", rows.len());
    assert!(p99 < 5.0, "{p99}");

    // It is repeated every two seconds, and its row is left alone.
    let sql = "select max(updated_at)::text from alert_event";
    let before = fixture.database().query(sql).await;
    let received = "received_total{state=\"firing\"}";
    let count = fixture.metric(received).await;
    wait_until("it is repeated", SOON, async || fixture.metric(received).await > count + 80.0)
        .await;
    assert_eq!(fixture.database().query(sql).await, before);

    for number in 0..40 {
        report(&mimir, &organisation, &format!("hub-{number}"), 0.0).await;
    }
    let all_end = |events: &[Event]| events.iter().all(|event| event.ended.is_some());
    let events = fixture.wait_events("all end", &organisation, SOON, all_end).await;
    assert_eq!(events.len(), 40);
    assert!(events.iter().all(|event| event.because.as_deref() == Some("resolved")), "{events:?}");

    // Again: another event.
    report(&mimir, &organisation, "hub-0", 1.0).await;
    let again = |events: &[Event]| {
        let of_hub = events.iter().filter(|event| device(event) == "hub-0");
        of_hub.map(|event| event.ended.is_some()).collect::<Vec<_>>() == [true, false]
    };
    fixture.wait_events("it fires again", &organisation, SOON, again).await;
    assert!(fixture.metric("posts_total{outcome=\"accepted\"}").await > 0.0);
    for reason in ["malformed", "unknown_organisation", "no_room", "over_limit", "refused"] {
        assert_eq!(fixture.dropped(reason).await, 0.0, "{reason}");
    }
    let log = fixture.identity.proxy.process.log();
    assert!(!log.contains(SECRET), "{log}");
}

// Issue 13: it works where no Alertmanager runs.
#[tokio::test(flavor = "multi_thread")]
async fn rows_need_no_alertmanager() {
    let mimir = Mimir::start_with(&["-target=all", "-ruler.resend-delay=2s"]).await;
    let database = Postgres::shared().await.database("events").await;
    let template = [("tenancy.tenant_template", "\"prod-{organisation_id}\"")];
    let fixture = events_fixture_on(database, &mimir.url(), &template).await;
    let organisation = fixture.identity.organisation().await;
    let tenant = format!("prod-{organisation}");
    let ours = address_for_ruler(&fixture.identity.proxy.internal_url());
    send_alerts_to(&mimir, &tenant, &[ours]).await;
    rule(&fixture, &organisation).await;
    report(&mimir, &tenant, "hub", 1.0).await;
    let fires = |events: &[Event]| events.len() == 1 && events[0].ended.is_none();
    fixture.wait_events("it fires", &organisation, SOON, fires).await;
    report(&mimir, &tenant, "hub", 0.0).await;
    let ends = |events: &[Event]| events.len() == 1 && events[0].ended.is_some();
    fixture.wait_events("it ends", &organisation, SOON, ends).await;
}

// Issue 13: Postgres away for minutes, and nothing of alert events is lost. What fires and ends meanwhile
// waits in the copy's memory, with the ruler's own times.
#[tokio::test(flavor = "multi_thread")]
async fn what_fires_and_ends_while_postgres_is_away_is_there_when_it_is_back() {
    let mimir = Mimir::start_with(&["-ruler.resend-delay=5s"]).await;
    let mut postgres = Postgres::start().await;
    let database = postgres.database("events").await;
    let fixture = events_fixture_on(database, &mimir.url(), &[]).await;
    let organisation = fixture.identity.organisation().await;
    let ours = address_for_ruler(&fixture.identity.proxy.internal_url());
    send_alerts_to(&mimir, &organisation, &[ours]).await;
    rule(&fixture, &organisation).await;
    report(&mimir, &organisation, "before", 1.0).await;
    let fires = |events: &[Event]| events.len() == 1;
    fixture.wait_events("one fires", &organisation, SOON, fires).await;

    postgres.stop().await;
    let gone = now();
    report(&mimir, &organisation, "before", 0.0).await;
    report(&mimir, &organisation, "short", 1.0).await;
    report(&mimir, &organisation, "stays", 1.0).await;
    let pending = "pending";
    wait_until("they wait", SOON, async || fixture.metric(pending).await >= 3.0).await;
    report(&mimir, &organisation, "short", 0.0).await;
    // Twice in the outage: two events.
    let resolved = "received_total{state=\"resolved\"}";
    let count = fixture.metric(resolved).await;
    wait_until("it ended", SOON, async || fixture.metric(resolved).await > count + 1.0).await;
    report(&mimir, &organisation, "short", 1.0).await;
    tokio::time::sleep(
        Duration::from_secs(120)
            .saturating_sub(Duration::from_millis(u64::try_from(now() - gone).unwrap())),
    )
    .await;
    report(&mimir, &organisation, "short", 0.0).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(fixture.dropped("no_room").await, 0.0);
    let refused = fixture.metric("posts_total{outcome=\"no_room\"}").await;
    assert_eq!(refused, 0.0, "all were taken in");
    let back = now();
    postgres.start_again().await;

    let all = |events: &[Event]| {
        events.len() == 4 && events.iter().filter(|event| event.ended.is_none()).count() == 1
    };
    let events = fixture.wait_events("all are there", &organisation, SOON, all).await;
    for event in &events {
        let (started, ended) = (&event.started, event.ended.as_ref());
        assert_eq!(ended.is_none(), device(event) == "stays", "{event:?}");
        assert!(*started <= time(back), "{event:?}");
        assert!(
            ended.is_none_or(|ended| *ended >= time(gone) && *ended <= time(back)),
            "{event:?}"
        );
        assert!(event.because.as_deref().is_none_or(|because| because == "resolved"), "{event:?}");
    }
    let devices: Vec<&str> = events.iter().map(device).collect();
    assert_eq!(devices.iter().filter(|device| **device == "short").count(), 2, "{devices:?}");
    // One line at its beginning, one at its end.
    let log = fixture.identity.proxy.process.log();
    assert_eq!(log.matches("Alert events cannot be written and are kept in memory").count(), 1);
    assert_eq!(log.matches("Alert events are written again").count(), 1);
}

// A proxy that was killed has lost what it had not written. The ruler repeats what fires, and what is
// over for another 15 minutes.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_copy_had_not_written_heals_by_repetition() {
    let mimir = mimir().await;
    let database = Postgres::shared().await.database("events").await;
    let fixture = events_fixture_on(database, &mimir.url(), &[]).await;
    let organisation = fixture.identity.organisation().await;
    let way = Way::to(&fixture.identity.proxy.internal_url()).await;
    let ours = address_for_ruler(&format!("http://{}", way.address));
    send_alerts_to(&mimir, &organisation, &[ours]).await;
    rule(&fixture, &organisation).await;
    report(&mimir, &organisation, "ends", 1.0).await;
    let fires = |events: &[Event]| events.len() == 1;
    fixture.wait_events("one fires", &organisation, SOON, fires).await;

    let EventsFixture { identity } = fixture;
    identity.proxy.process.signal("KILL");
    report(&mimir, &organisation, "ends", 0.0).await;
    report(&mimir, &organisation, "begins", 1.0).await;
    report(&mimir, &organisation, "missed", 1.0).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    report(&mimir, &organisation, "missed", 0.0).await;
    tokio::time::sleep(Duration::from_secs(4)).await;

    let secret = format!("{SECRET:?}");
    let proxy = ProxyOptions::new(&identity.issuer.url(), &mimir.url())
        .set("database.url", &format!("{:?}", identity.database.url()))
        .set("auth.admin_key", &format!("{ADMIN_KEY:?}"))
        .set("rules.enabled", "true")
        .set("alert_events.enabled", "true")
        .set("alert_events.secret", &secret)
        .start()
        .await;
    way.lead_to(&proxy.internal_url());
    wait_until("it is as it would have been", SOON, async || {
        let events = super::events_of(&identity.database, &organisation).await;
        let of = |name: &str| {
            let ended = |event: &Event| event.because.clone().unwrap_or_default();
            let of: Vec<_> =
                events.iter().filter(|event| device(event) == name).map(ended).collect();
            of.join(" ")
        };
        events.len() == 3
            && (of("ends"), of("begins"), of("missed"))
                == ("resolved".into(), String::new(), "resolved".into())
    })
    .await;
}

// A restart: what the copy holds is written before the process ends, as long as that takes no longer than two
// seconds.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_stopped_writes_what_it_holds() {
    let (mut fixture, _upstream) = events_fixture(&[]).await;
    let organisation = fixture.identity.organisation().await;
    let lock = fixture.database().client().await;
    lock.batch_execute("begin; lock table alert_event in access exclusive mode").await.unwrap();
    // The first waits in the database for the lock, the others in the buffer behind it.
    assert_eq!(fixture.post(&organisation, &[firing("Hot", "hub-0", now())]).await.status, 200);
    let waits =
        "select count(*) from pg_locks where relation = 'alert_event'::regclass and not granted";
    wait_until("the first batch waits", SOON, async || {
        let waiting: i64 = lock.query_one(waits, &[]).await.unwrap().get(0);
        waiting > 0
    })
    .await;
    let others: Vec<Value> =
        (1..20).map(|number| firing("Hot", &format!("hub-{number}"), now())).collect();
    assert_eq!(fixture.post(&organisation, &others).await.status, 200);

    let process = &mut fixture.identity.proxy.process;
    process.signal("TERM");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(process.is_running(), "{}", process.log());
    lock.batch_execute("commit").await.unwrap();
    let status = process.wait(SOON).expect("it ends");
    assert!(status.success(), "{status}: {}", process.log());
    assert_eq!(fixture.events(&organisation).await.len(), 20);
}

// Decision 30: whichever copies get what, in whatever order and however often.
#[tokio::test(flavor = "multi_thread")]
async fn copies_that_get_the_same_alerts_in_any_order_write_the_same_rows() {
    let (fixture, upstream) = events_fixture(&[]).await;
    let secret = format!("{SECRET:?}");
    let second = ProxyOptions::new(&fixture.identity.issuer.url(), &upstream.url())
        .set("database.url", &format!("{:?}", fixture.database().url()))
        .set("rules.enabled", "true")
        .set("alert_events.enabled", "true")
        .set("alert_events.secret", &secret)
        .start()
        .await;
    let organisation = fixture.identity.organisation().await;
    let clients = [fixture.ruler(&organisation), ruler_of(&second, &organisation)];
    let begin = now() - 3_600_000;
    let minutes = |count: i64| begin + count * 60_000;
    let mut alerts = Vec::new();
    for number in 0..60 {
        let device = format!("hub-{number}");
        // It fires, is over, fires again, and a ruler that begins again goes on with that.
        alerts.push(alert("Hot", &device, minutes(0), minutes(3)));
        alerts.push(firing("Hot", &device, minutes(10)));
        alerts.push(alert("Hot", &device, minutes(10), minutes(20)));
        alerts.push(firing("Hot", &device, minutes(50)));
        alerts.push(firing("Hot", &device, minutes(51)));
    }
    let mut posts = JoinSet::new();
    for round in 0..6 {
        let mut some = alerts.clone();
        fastrand::shuffle(&mut some);
        for (at, chunk) in some.chunks(7).enumerate() {
            let client = clients[(at + round) % 2].clone();
            let body = json!(chunk).to_string();
            posts.spawn(async move { client.post(super::PATH, body).await.status });
        }
    }
    while let Some(status) = posts.join_next().await {
        let status = status.unwrap();
        assert!(status == 200 || status == 503, "{status}");
    }
    // What there was no room for while all came at once.
    for chunk in alerts.chunks(50) {
        let answer = clients[0].post(super::PATH, json!(chunk).to_string()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let is_right = |events: &[Event]| {
        let mut spans: Vec<_> = events
            .iter()
            .map(|event| (device(event), event.started.clone(), event.ended.clone()))
            .collect();
        spans.sort();
        let mut wanted = Vec::new();
        let names: Vec<String> = (0..60).map(|number| format!("hub-{number}")).collect();
        for name in &names {
            wanted.push((name.as_str(), time(minutes(0)), Some(time(minutes(3)))));
            wanted.push((name.as_str(), time(minutes(10)), Some(time(minutes(20)))));
            wanted.push((name.as_str(), time(minutes(50)), None));
        }
        wanted.sort();
        spans == wanted
    };
    let began = Instant::now();
    fixture.wait_events("the rows are right", &organisation, SOON, is_right).await;
    println!("after {:?}", began.elapsed());
    let failures = fixture.metric("write_failures_total").await;
    assert_eq!(failures, 0.0, "copies wait for each other and do not fail");
}

// Rows that two copies made of what turns out to be one event, and a ruler that starts again and again.
#[tokio::test(flavor = "multi_thread")]
async fn events_that_meet_become_one_and_restarts_leave_no_trail() {
    let (fixture, _upstream) = events_fixture(&[]).await;
    let organisation = fixture.identity.organisation().await;
    let begin = now();
    let (first, second) = (begin - 600_000, begin + 20_000);
    for alert in [alert("Hot", "hub", first, begin + 8000), firing("Hot", "hub", second)] {
        assert_eq!(fixture.post(&organisation, &[alert]).await.status, 200);
    }
    let two = |events: &[Event]| {
        let because = events.iter().map(|event| event.because.as_deref());
        because.collect::<Vec<_>>() == [Some("expired"), None]
    };
    let before = fixture.wait_events("two events", &organisation, SOON, two).await;
    assert_eq!(before[0].ended, Some(time(begin + 8000)));
    assert_eq!(fixture.post(&organisation, &[firing("Hot", "hub", first)]).await.status, 200);
    let one = |events: &[Event]| {
        events.len() == 1 && events[0].ended.is_none() && events[0].started == time(first)
    };
    fixture.wait_events("one event", &organisation, SOON, one).await;

    let other = fixture.identity.organisation().await;
    let restarts: Vec<Value> =
        (0..70).map(|minute| firing("Hot", "hub", begin - 4_200_000 + minute * 60_000)).collect();
    for some in restarts.chunks(10) {
        assert_eq!(fixture.post(&other, some).await.status, 200);
    }
    let one = |events: &[Event]| events.len() == 1 && events[0].ended.is_none();
    fixture.wait_events("one event", &other, SOON, one).await;
    let sql = format!("select count(*) from alert_event_start where organisation_id = '{other}'");
    wait_until("all is written", SOON, async || fixture.metric("pending").await == 0.0).await;
    assert_eq!(fixture.database().query(&sql).await[0][0].as_deref(), Some("50"));
    assert_eq!(fixture.events(&other).await[0].started, time(begin - 4_200_000));
}
