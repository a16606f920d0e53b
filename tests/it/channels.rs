//! Notification channels: from rows to a configuration in Mimir's Alertmanager and a notification. What
//! all these tests share.

/// `/admin` and the command line; a test of a channel.
mod admin;
/// Mimir is away, or without an Alertmanager; the leader changes.
mod faults;
/// What would delete too much deletes nothing.
mod guard;
/// A row's life, up to a notification.
mod life;
/// No secret gets out.
mod secrets;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use harness::{Client, Database, Mimir, Postgres, Upstream, wait_until};
use http::Response;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::support::identity::{IdentityFixture, identity_fixture_on};
use crate::support::responses::full;

/// Long enough for a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);
pub(crate) const MARKER: &str = "# mimir-tenant-proxy: this document is generated";

/// A proxy that syncs rules and channels to a Mimir.
pub(crate) struct ChannelsFixture {
    pub(crate) identity: IdentityFixture,
    mimir: String,
}

pub(crate) async fn channels_fixture(settings: &[(&str, &str)]) -> ChannelsFixture {
    let mimir = Mimir::shared().await.url();
    let database = Postgres::shared().await.database("channels").await;
    channels_fixture_on(database, &mimir, &mimir, settings).await
}

/// By another way to the same Mimir, and with a database of its own.
pub(crate) async fn channels_fixture_on(
    database: Database,
    mimir: &str,
    way: &str,
    settings: &[(&str, &str)],
) -> ChannelsFixture {
    let mut all = vec![
        ("rules.enabled", "true"),
        ("channels.enabled", "true"),
        ("channels.allow_private_targets", "true"),
        ("channels.min_group_interval", "\"1s\""),
    ];
    all.extend_from_slice(settings);
    let identity = identity_fixture_on(database, way, &all).await;
    ChannelsFixture { identity, mimir: mimir.to_owned() }
}

impl ChannelsFixture {
    pub(crate) async fn sql(&self, sql: &str) {
        self.identity.database.execute(sql).await;
    }

    /// A channel, enabled and not the default.
    pub(crate) async fn channel(
        &self,
        organisation: &str,
        kind: &str,
        settings: &Value,
        secrets: &Value,
    ) -> String {
        let quote = |value: &Value| value.to_string().replace('\'', "''");
        let sql = format!(
            "insert into notification_channel (organisation_id, name, kind, settings, secrets) \
             values ('{organisation}', 'a {kind}', '{kind}', '{}', '{}') returning id",
            quote(settings),
            quote(secrets)
        );
        self.identity.database.query(&sql).await[0][0].clone().unwrap()
    }

    pub(crate) async fn webhook(&self, organisation: &str, url: &str) -> String {
        self.channel(organisation, "webhook", &json!({}), &json!({ "url": url })).await
    }

    /// A route to a channel, for alerts that match all of these.
    pub(crate) async fn route(
        &self,
        organisation: &str,
        channel: &str,
        matchers: &[&str],
    ) -> String {
        let matchers = json!(matchers).to_string().replace('\'', "''");
        let sql = format!(
            "insert into notification_route (organisation_id, channel_id, matchers, group_wait) \
             values ('{organisation}', '{channel}', '{matchers}', '0s') returning id"
        );
        self.identity.database.query(&sql).await[0][0].clone().unwrap()
    }

    /// The state and reason of a channel.
    pub(crate) async fn channel_status(&self, channel: &str) -> (String, String) {
        self.status("channel", channel).await
    }

    pub(crate) async fn route_status(&self, route: &str) -> (String, String) {
        self.status("route", route).await
    }

    async fn status(&self, kind: &str, id: &str) -> (String, String) {
        let sql = format!(
            "select state, reason from notification_{kind}_status where {kind}_id = '{id}'"
        );
        let rows = self.identity.database.query(&sql).await;
        let text = |at: usize| rows.first().and_then(|row| row[at].clone()).unwrap_or_default();
        (text(0), text(1))
    }

    pub(crate) async fn wait_channel(&self, channel: &str, state: &str) {
        let mut last = (String::new(), String::new());
        wait_until(&format!("channel {channel} is {state}"), SOON, async || {
            let now = self.channel_status(channel).await;
            if now != last {
                println!("channel {channel}: {now:?}");
                last = now;
            }
            last.0 == state
        })
        .await;
    }

    pub(crate) async fn wait_route(&self, route: &str, state: &str) {
        wait_until(&format!("route {route} is {state}"), SOON, async || {
            self.route_status(route).await.0 == state
        })
        .await;
    }

    /// How many channels of an organisation are in each state.
    pub(crate) async fn states(&self, organisation: &str) -> BTreeMap<String, usize> {
        let sql = format!(
            "select state, count(*) from notification_channel_status \
             where organisation_id = '{organisation}' group by 1"
        );
        let rows = self.identity.database.query(&sql).await;
        rows.into_iter()
            .map(|row| (row[0].clone().unwrap(), row[1].clone().unwrap().parse().unwrap()))
            .collect()
    }

    /// Mimir itself, as an organisation's tenant.
    pub(crate) fn tenant(&self, organisation: &str) -> Client {
        Client::new(&self.mimir).header("x-scope-orgid", organisation)
    }

    /// What Mimir has stored; empty if nothing.
    pub(crate) async fn document(&self, organisation: &str) -> String {
        document_of(&self.mimir, organisation).await
    }

    pub(crate) async fn wait_document(&self, organisation: &str, holds: &str) {
        wait_until(&format!("{organisation}'s document holds {holds}"), SOON, async || {
            self.document(organisation).await.contains(holds)
        })
        .await;
    }

    /// Somebody writes a configuration into Mimir by hand.
    pub(crate) async fn write_by_hand(&self, organisation: &str, configuration: &str) {
        let body = json!({ "alertmanager_config": configuration }).to_string();
        let answer = self.tenant(organisation).post("/api/v1/alerts", body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
    }

    /// An administrator syncs the channels and waits for the end.
    pub(crate) async fn sync(&self, organisation: &str) -> Value {
        let path = format!("/admin/organisations/{organisation}/channels/sync");
        let mut answer = self.identity.service().post(&path, "").await;
        let until = Instant::now() + SOON;
        while answer.status == 202 && Instant::now() < until {
            answer = self.identity.service().post(&path, "").await;
        }
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    pub(crate) async fn list(&self, organisation: &str) -> Value {
        let path = format!("/admin/organisations/{organisation}/channels");
        let answer = self.identity.service().get(&path).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    pub(crate) async fn test(&self, organisation: &str, channel: &str) -> Value {
        let path = format!("/admin/organisations/{organisation}/channels/{channel}/test");
        let answer = self.identity.service().post(&path, "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// How often a document was written or deleted so far.
    pub(crate) async fn writes(&self) -> f64 {
        self.identity.proxy.metric("mimir_tenant_proxy_channels_writes_total").await
    }
}

/// What a Mimir has stored for a tenant's Alertmanager; empty if nothing.
pub(crate) async fn document_of(mimir: &str, tenant: &str) -> String {
    let client = Client::new(mimir).header("x-scope-orgid", tenant);
    let answer = client.get("/api/v1/alerts").await;
    if answer.status == 404 {
        return String::new();
    }
    assert_eq!(answer.status, 200, "{answer:?}");
    let document: Value = serde_saphyr::from_str(&answer.text).unwrap();
    document["alertmanager_config"].as_str().unwrap_or_default().to_owned()
}

/// A webhook's receiver, which keeps what it gets.
pub(crate) struct Hook {
    upstream: Upstream,
    got: Arc<Mutex<Vec<Value>>>,
    status: Arc<Mutex<u16>>,
}

impl Hook {
    pub(crate) async fn start() -> Self {
        let got: Arc<Mutex<Vec<Value>>> = Arc::default();
        let status = Arc::new(Mutex::new(200));
        let (kept, answers) = (Arc::clone(&got), Arc::clone(&status));
        let upstream = Upstream::start(move |request| {
            let (kept, answers) = (Arc::clone(&kept), Arc::clone(&answers));
            async move {
                let body = request.body.unwrap().collect().await.unwrap().to_bytes();
                let status = *answers.lock().unwrap();
                if status == 200 {
                    kept.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
                }
                Response::builder().status(status).body(full("")).unwrap()
            }
        })
        .await;
        Self { upstream, got, status }
    }

    /// An address of it.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.upstream.url())
    }

    pub(crate) fn answer_with(&self, status: u16) {
        *self.status.lock().unwrap() = status;
    }

    /// The alerts of all notifications so far.
    pub(crate) fn alerts(&self) -> Vec<Value> {
        let got = self.got.lock().unwrap();
        got.iter().flat_map(|one| one["alerts"].as_array().unwrap().clone()).collect()
    }

    /// The targets that were asked for.
    pub(crate) fn targets(&self) -> Vec<String> {
        self.upstream.heads().into_iter().map(|head| head.target).collect()
    }
}

/// JSON for a confirmation.
pub(crate) fn confirmation(guard: &Value) -> String {
    json!({ "guard": guard["id"] }).to_string()
}
