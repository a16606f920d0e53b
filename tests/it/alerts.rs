//! The Alertmanager through the proxy: alerts and silences of one organisation, on a real Mimir. This
//! file has the common fixture.

mod clients;
mod silences;
mod states;

use harness::{Answer, Client, Mimir, wait_until};
use serde_json::{Value, json};
use std::time::Duration;

use crate::support::identity::{IdentityFixture, Person, identity_fixture};

const SILENCES: &str = "/alertmanager/api/v2/silences";
const ALERTS: &str = "/alertmanager/api/v2/alerts";
const STATUS: &str = "/alertmanager/api/v2/status";

/// Two organisations before the shared Mimir.
struct AlertsFixture {
    identity: IdentityFixture,
    mimir: &'static Mimir,
    a: String,
    b: String,
}

async fn alerts_fixture(settings: &[(&str, &str)]) -> AlertsFixture {
    let mimir = Mimir::shared().await;
    let identity = identity_fixture(&mimir.url(), settings).await;
    let (a, b) = (identity.organisation().await, identity.organisation().await);
    AlertsFixture { identity, mimir, a, b }
}

impl AlertsFixture {
    /// A client of a new member of A.
    async fn of_a(&self, role: &str) -> Client {
        self.identity.client(&self.identity.member(&self.a, role).await)
    }

    async fn of_b(&self, role: &str) -> Client {
        self.identity.client(&self.identity.member(&self.b, role).await)
    }

    /// A client of a person whose token names an e-mail address.
    fn with_email(&self, person: &Person, email: &str) -> Client {
        let token = self.identity.issuer.token().claim("sub", json!(person.id.to_string()));
        let token = token.claim("session_id", json!(person.session.to_string()));
        self.identity.proxy.client().bearer(&token.claim("email", json!(email)).sign())
    }

    /// A's Alertmanager sees to its alerts every second. (Only then does an alert's status change.)
    async fn hasten(&self) {
        let configuration = "
route: {receiver: none, group_wait: 1s, group_interval: 1s}
receivers: [{name: none, webhook_configs: [{url: \"http://127.0.0.1:1/\"}]}]
";
        self.mimir.configure_alertmanager(&self.a, configuration).await;
    }

    /// An alert of A's fires, as its ruler would say, and is there to be read.
    async fn fire(&self, name: &str) {
        let direct = self.mimir.as_tenant(&self.a);
        let alerts = json!([{
            "labels": {"alertname": name, "severity": "critical"},
            "annotations": {"summary": "a test"},
        }]);
        let sent = json(&direct).post(ALERTS, alerts.to_string()).await;
        assert_eq!(sent.status, 200, "{sent:?}");
        wait_until("the alert is there", Duration::from_secs(10), async || {
            direct.get(ALERTS).await.text.contains(name)
        })
        .await;
    }
}

/// The same client, which sends JSON.
fn json(client: &Client) -> Client {
    client.clone().header("content-type", "application/json")
}

/// A silence of an alert for an hour.
fn silence(name: &str) -> Value {
    let at = |seconds| rfc3339(harness::samples::now_ms() / 1000 + seconds);
    json!({
        "matchers": [{"name": "alertname", "value": name, "isRegex": false, "isEqual": true}],
        "startsAt": at(-60), "endsAt": at(3600),
        "comment": "on purpose", "createdBy": "the boss",
    })
}

fn rfc3339(seconds: i64) -> String {
    let time = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap();
    time.format(&time::format_description::well_known::Rfc3339).unwrap()
}

/// Silences an alert, and gives the silence's id.
async fn make(client: &Client, name: &str) -> String {
    let made = json(client).post(SILENCES, silence(name).to_string()).await;
    assert_eq!(made.status, 200, "{made:?}");
    made.json()["silenceID"].as_str().unwrap().to_owned()
}

fn path_of(id: &str) -> String {
    format!("/alertmanager/api/v2/silence/{id}")
}

/// The words of an answer of ours: a 400 is a text, as in Alertmanager's API.
fn error(answer: &Answer) -> String {
    let answer = answer.json();
    let words = answer.as_str().or_else(|| answer["error"].as_str());
    words.unwrap_or_default().to_owned()
}
