//! Alert events: an alert that fires in Mimir's ruler, or a silent device, is a row. This file has the
//! common fixture.

mod copies;
mod life;
mod posts;
mod rows;
mod watch;

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use harness::{Answer, Client, Database, Postgres, Proxy, Upstream, wait_until};
use serde_json::{Value, json};

use crate::support::identity::{ADMIN_KEY, IdentityFixture, identity_fixture_on};
use crate::support::responses::ok;

/// Long enough for a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// What Mimir's ruler shows.
pub(crate) const SECRET: &str = "the-secret-of-the-ruler";
const PATH: &str = "/alertmanager/api/v2/alerts";

pub(crate) struct EventsFixture {
    pub(crate) identity: IdentityFixture,
}

/// A proxy that takes alerts, before a Mimir, or before something that stands for one.
pub(crate) async fn events_fixture_on(
    database: Database,
    mimir: &str,
    settings: &[(&str, &str)],
) -> EventsFixture {
    let secret = format!("{SECRET:?}");
    let mut all = vec![
        ("rules.enabled", "true"),
        ("alert_events.enabled", "true"),
        ("alert_events.secret", &*secret),
        ("database.last_used_interval", "\"1s\""),
    ];
    all.extend_from_slice(settings);
    EventsFixture { identity: identity_fixture_on(database, mimir, &all).await }
}

/// A proxy before an upstream that says yes to everything.
pub(crate) async fn events_fixture(settings: &[(&str, &str)]) -> (EventsFixture, Upstream) {
    let upstream = Upstream::start(ok).await;
    let database = Postgres::shared().await.database("events").await;
    (events_fixture_on(database, &upstream.url(), settings).await, upstream)
}

/// An event as a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) kind: String,
    pub(crate) fingerprint: String,
    pub(crate) labels: Value,
    pub(crate) annotations: Value,
    pub(crate) rule: Option<String>,
    pub(crate) started: String,
    pub(crate) ended: Option<String>,
    pub(crate) because: Option<String>,
}

impl EventsFixture {
    pub(crate) fn database(&self) -> &Database {
        &self.identity.database
    }

    /// The events of an organisation, the earliest first.
    pub(crate) async fn events(&self, organisation: &str) -> Vec<Event> {
        events_of(self.database(), organisation).await
    }

    /// Waits until an organisation's events are such.
    pub(crate) async fn wait_events(
        &self,
        about: &str,
        organisation: &str,
        patience: Duration,
        is_so: impl Fn(&[Event]) -> bool,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        wait_until(about, patience, async || {
            events = self.events(organisation).await;
            is_so(&events)
        })
        .await;
        events
    }

    /// A client of the private port, as the ruler is one.
    pub(crate) fn ruler(&self, tenant: &str) -> Client {
        ruler_of(&self.identity.proxy, tenant)
    }

    /// Posts alerts of an organisation.
    pub(crate) async fn post(&self, tenant: &str, alerts: &[Value]) -> Answer {
        self.ruler(tenant).post(PATH, json!(alerts).to_string()).await
    }

    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let name = format!("mimir_tenant_proxy_alert_events_{series}");
        self.identity.proxy.metric(&name).await
    }

    pub(crate) async fn dropped(&self, reason: &str) -> f64 {
        self.metric(&format!("dropped_total{{reason=\"{reason}\"}}")).await
    }

    /// Runs SQL as a page does, with a user's token: an error, or the first column.
    pub(crate) async fn as_user(&self, user: uuid::Uuid, sql: &str) -> Result<Vec<String>, String> {
        let client = self.database().client().await;
        client.batch_execute("begin; set local role authenticated").await.unwrap();
        let claims =
            format!("select set_config('request.jwt.claims', '{{\"sub\": \"{user}\"}}', true)");
        client.batch_execute(&claims).await.unwrap();
        let rows = client.query(sql, &[]).await.map_err(|error| {
            error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned())
        })?;
        let rows = rows.iter().map(|row| row.get::<_, String>(0)).collect();
        client.batch_execute("commit").await.unwrap();
        Ok(rows)
    }
}

pub(crate) fn ruler_of(proxy: &Proxy, tenant: &str) -> Client {
    let pair = BASE64_STANDARD.encode(format!("mimir:{SECRET}"));
    let client =
        Client::new(&proxy.internal_url()).header("authorization", &format!("Basic {pair}"));
    client.header("x-scope-orgid", tenant).header("content-type", "application/json")
}

/// Where a tenant's ruler finds a private port.
pub(crate) fn address_for_ruler(internal_url: &str) -> String {
    let host = internal_url.strip_prefix("http://").unwrap();
    format!("http://proxy:{SECRET}@{host}/alertmanager")
}

pub(crate) async fn events_of(database: &Database, organisation: &str) -> Vec<Event> {
    let time = |column: &str| {
        format!("to_char({column} at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')")
    };
    let sql = format!(
        "select kind, fingerprint, labels, annotations, rule_id, {}, {}, ended_because from alert_event
         where organisation_id = '{organisation}' order by started_at, fingerprint",
        time("started_at"),
        time("ended_at")
    );
    let json = |text: &Option<String>| serde_json::from_str(text.as_ref().unwrap()).unwrap();
    let rows = database.query(&sql).await;
    let event = |row: Vec<Option<String>>| Event {
        kind: row[0].clone().unwrap(),
        fingerprint: row[1].clone().unwrap(),
        labels: json(&row[2]),
        annotations: json(&row[3]),
        rule: row[4].clone(),
        started: row[5].clone().unwrap(),
        ended: row[6].clone(),
        because: row[7].clone(),
    };
    rows.into_iter().map(event).collect()
}

/// Milliseconds since the epoch.
pub(crate) fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

/// A time as the ruler writes it.
pub(crate) fn time(millis: i64) -> String {
    let time =
        time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).unwrap();
    let (date, clock) = (time.date(), time.time());
    format!(
        "{}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second(),
        clock.millisecond()
    )
}

/// An alert as the ruler posts it.
pub(crate) fn alert(name: &str, device: &str, start: i64, end: i64) -> Value {
    json!({
        "labels": {"alertname": name, "device": device},
        "annotations": {"summary": format!("{device} is hot")},
        "startsAt": time(start), "endsAt": time(end), "generatorURL": "http://localhost/graph"
    })
}

/// An alert that fires for five minutes more.
pub(crate) fn firing(name: &str, device: &str, start: i64) -> Value {
    alert(name, device, start, now() + 300_000)
}

pub(crate) fn service(proxy: &Proxy) -> Client {
    proxy.client().bearer(ADMIN_KEY)
}
