//! From a row to a phone: rules, channels and routes in Postgres, a real Mimir, and notifications that
//! arrive at a real SMTP server, at a webhook receiver and at stand-ins of the services.

use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use harness::{Client, Mimir, Receiver, Service, Smtp, part, wait_until};
use serde_json::{Value, json};

use crate::rules::{RulesFixture, SOON, rules_fixture};

/// The longest wait for a notification: Alertmanager loads a new document within its poll interval.
const TIMEOUT: Duration = Duration::from_secs(120);

/// One receiver of each kind.
struct Receivers {
    webhook: Receiver,
    slack: Receiver,
    pagerduty: Receiver,
    telegram: Receiver,
    opsgenie: Receiver,
    discord: Receiver,
    teams: Receiver,
    mail: Smtp,
}

impl Receivers {
    async fn start() -> Self {
        Self {
            webhook: Receiver::start(Service::Webhook).await,
            slack: Receiver::start(Service::Slack).await,
            pagerduty: Receiver::start(Service::PagerDuty).await,
            telegram: Receiver::start(Service::Telegram).await,
            opsgenie: Receiver::start(Service::Opsgenie).await,
            discord: Receiver::start(Service::Discord).await,
            teams: Receiver::start(Service::Teams).await,
            mail: Smtp::start().await,
        }
    }

    fn all(&self) -> [(&'static str, &Receiver); 7] {
        [
            ("webhook", &self.webhook),
            ("slack", &self.slack),
            ("pagerduty", &self.pagerduty),
            ("telegram", &self.telegram),
            ("opsgenie", &self.opsgenie),
            ("discord", &self.discord),
            ("msteams", &self.teams),
        ]
    }

    /// What the proxy is told of them.
    async fn fixture(&self) -> RulesFixture {
        let quoted = |text: &str| format!("{text:?}");
        let (smarthost, pagerduty) = (quoted(&self.mail.address()), quoted(&self.pagerduty.url()));
        let (telegram, opsgenie) = (quoted(&self.telegram.url()), quoted(&self.opsgenie.url()));
        rules_fixture(&[
            ("channels.enabled", "true"),
            ("channels.allow_private_targets", "true"),
            ("channels.min_group_interval", "\"1s\""),
            ("channels.dashboard_url", "\"https://app.example.com/{organisation_id}/alerts\""),
            ("channels.email_smarthost", &smarthost),
            ("channels.email_from", "\"alerts@example.com\""),
            ("channels.pagerduty_url", &pagerduty),
            ("channels.telegram_url", &telegram),
            ("channels.opsgenie_url", &opsgenie),
        ])
        .await
    }

    /// Settings and secrets of a channel of each kind.
    fn channels(&self) -> Vec<(&'static str, Value, Value)> {
        vec![
            ("webhook", json!({}), json!({"url": self.webhook.url()})),
            ("email", json!({"to": "on-call@example.test"}), json!({})),
            ("slack", json!({}), json!({"url": self.slack.url()})),
            ("pagerduty", json!({}), json!({"routing_key": self.pagerduty.secret()})),
            ("opsgenie", json!({}), json!({"api_key": self.opsgenie.secret()})),
            (
                "telegram",
                json!({"chat_id": -1_001_234}),
                json!({"bot_token": self.telegram.secret()}),
            ),
            ("discord", json!({}), json!({"url": self.discord.url()})),
            ("msteams", json!({}), json!({"url": self.teams.url()})),
        ]
    }
}

/// Adds a channel, and a route to it for the alerts that match.
async fn channel(
    fixture: &RulesFixture,
    organisation: &str,
    kind: &str,
    settings: &Value,
    secrets: &Value,
    matcher: &str,
) -> String {
    let matchers = json!([matcher]);
    let sql = format!(
        "with channel as (
             insert into notification_channel (organisation_id, name, kind, settings, secrets)
             values ('{organisation}', '{kind}', '{kind}', '{settings}', '{secrets}') returning id)
         insert into notification_route (organisation_id, channel_id, matchers, group_wait,
             group_interval, continue_matching)
         select '{organisation}', id, '{matchers}', '0s', '1s', true from channel returning channel_id"
    );
    fixture.identity.database.query(&sql).await[0][0].clone().unwrap()
}

async fn wait_channels_live(fixture: &RulesFixture, organisation: &str, count: usize) {
    let sql = format!(
        "select state, reason from notification_channel_status where organisation_id = '{organisation}'"
    );
    let deadline = Instant::now() + SOON;
    loop {
        let rows = fixture.identity.database.query(&sql).await;
        if rows.iter().filter(|row| row[0].as_deref() == Some("live")).count() == count {
            return;
        }
        assert!(Instant::now() < deadline, "{count} channels are not live: {rows:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the Alertmanager uses the document that has these channels.
async fn wait_loaded(organisation: &str, channels: &[String]) {
    let mimir = Mimir::shared().await;
    wait_until("the Alertmanager has loaded the channels", SOON, async || {
        let answer = mimir.as_tenant(organisation).get("/alertmanager/api/v2/receivers").await;
        channels.iter().all(|channel| answer.text.contains(channel.as_str()))
    })
    .await;
}

// The issue: rows of a rule, a channel and a route, and a firing alert arrives at a webhook receiver, an SMTP
// server and stand-ins of the services; when it is resolved they are told. A timed test would fail on a busy
// machine, so this one prints what it measured.
#[tokio::test(flavor = "multi_thread")]
async fn an_alert_reaches_every_kind_of_channel_and_so_does_its_end() {
    let receivers = Receivers::start().await;
    let fixture = receivers.fixture().await;
    let org = fixture.identity.organisation().await;
    let mut channels = Vec::new();
    for (kind, settings, secrets) in receivers.channels() {
        channels.push(channel(&fixture, &org, kind, &settings, &secrets, "team=\"field\"").await);
    }
    wait_channels_live(&fixture, &org, channels.len()).await;
    wait_loaded(&org, &channels).await;

    let rounds: usize =
        std::env::var_os("MTP_ROUNDS").map_or(1, |n| n.to_str().unwrap().parse().unwrap());
    let (mut arrived, mut since_firing, mut resolved) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let name = format!("PumpStopped{round}");
        let more = "evaluation_interval = '1s', labels = '{\"team\": \"field\"}', \
                    annotations = '{\"summary\": \"the pump <3> has stopped: see #7\"}'";
        let rule = fixture.rule_with(&org, &name, "vector(1) > 0", more).await;
        let written = Instant::now();
        for (kind, receiver) in receivers.all() {
            let notice =
                receiver.notice(TIMEOUT, |notice| notice.is_firing() && notice.holds(&name)).await;
            arrived.push(notice.at.duration_since(written));
            if kind == "webhook" {
                since_firing.push(since_firing_of(&notice));
            }
        }
        let mail = receivers
            .mail
            .mail(TIMEOUT, |mail| {
                mail.header("Subject").contains("FIRING") && mail.raw.contains(&name)
            })
            .await;
        assert_eq!(mail.to, "on-call@example.test");

        fixture
            .sql(&format!("update alert_rule set expr = 'vector(1) > 1' where id = '{rule}'"))
            .await;
        let ended = Instant::now();
        for (kind, receiver) in receivers.all() {
            // Opsgenie is told the alias of the alert that ended, and not its name.
            let is_it = |notice: &harness::Notice| {
                let is_named = kind == "opsgenie" || notice.holds(&name);
                notice.is_resolved() && notice.at > ended && is_named
            };
            let notice = receiver.notice(TIMEOUT, is_it).await;
            resolved.push(notice.at.duration_since(ended));
        }
        receivers
            .mail
            .mail(TIMEOUT, |mail| {
                mail.header("Subject").contains("RESOLVED") && mail.raw.contains(&name)
            })
            .await;
    }

    // A link leads to the dashboard, never to the query page of Mimir that a browser cannot reach; and the
    // annotation that carries the rule's ID is for programs.
    let slack = receivers.slack.notices();
    let dashboard = format!("https://app.example.com/{org}/alerts");
    assert!(slack.iter().all(|notice| notice.holds(&dashboard)), "{slack:#?}");
    for (kind, receiver) in receivers.all() {
        assert!(receiver.refusals().is_empty(), "{kind}: {:?}", receiver.refusals());
        let is_webhook = kind == "webhook";
        for notice in receiver.notices() {
            assert!(is_webhook || !notice.holds("g0.expr"), "{kind}: {notice:#?}");
            assert!(is_webhook || !notice.holds("alert_rule_id"), "{kind}: {notice:#?}");
        }
    }
    // Alertmanager reads details that are valid YAML as such, where `#` begins a comment.
    for notice in receivers.pagerduty.notices() {
        let firing = &notice.json["payload"]["custom_details"]["firing"];
        let is_whole = firing.as_str().is_some_and(|text| text.contains("has stopped: see #7\n"));
        assert!(!notice.is_firing() || is_whole, "{firing}");
    }
    for mail in receivers.mail.mails() {
        assert!(
            !mail.raw.contains("g0.expr") && !mail.raw.contains("alert_rule_id"),
            "{}",
            mail.raw
        );
    }
    for (what, mut taken) in [
        ("row to notification", arrived),
        ("firing to notification", since_firing),
        ("row of the end to notification", resolved),
    ] {
        taken.sort();
        let at = |share: usize| taken[(taken.len() - 1) * share / 100];
        println!("{what}, {} notifications: p50 {:?}, p99 {:?}", taken.len(), at(50), at(99));
    }
}

/// How long after an alert began to fire its notification arrived: the webhook's message has the time.
fn since_firing_of(notice: &harness::Notice) -> Duration {
    let starts_at = notice.json["alerts"][0]["startsAt"].as_str().unwrap();
    let format = &time::format_description::well_known::Rfc3339;
    let starts_at = time::OffsetDateTime::parse(starts_at, format).unwrap();
    let arrived_at = SystemTime::now() - notice.at.elapsed();
    arrived_at.duration_since(starts_at.into()).unwrap_or_default()
}

/// amtool with its configuration file, as docs/operations/alerts.md says.
fn amtool(url: &str, token: &str, args: &[&str]) -> (bool, String) {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join(".config/amtool");
    std::fs::create_dir_all(&directory).unwrap();
    let http = home.path().join("http.yml");
    std::fs::write(&http, format!("authorization: {{type: Bearer, credentials: {token}}}\n"))
        .unwrap();
    let config = format!("alertmanager.url: {url}\nhttp.config.file: {}\n", http.display());
    std::fs::write(directory.join("config.yml"), config).unwrap();
    let mut command = Command::new(part("amtool"));
    let output = command.env("HOME", home.path()).args(args).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn silence(name: &str) -> Value {
    json!({
        "matchers": [{"name": "alertname", "value": name, "isRegex": false, "isEqual": true}],
        "startsAt": "2026-01-01T00:00:00Z", "endsAt": "2100-01-01T00:00:00Z",
        "createdBy": "somebody else", "comment": "maintenance",
    })
}

async fn post_silence(client: &Client, silence: &Value) -> String {
    let client = client.clone().header("content-type", "application/json");
    let made = client.post("/alertmanager/api/v2/silences", silence.to_string()).await;
    assert_eq!(made.status, 200, "{made:?}");
    made.json()["silenceID"].as_str().unwrap().to_owned()
}

// A silence by a page's call: amtool sees it under the caller's own name, the notification stays away, and when
// the silence is expired the notification comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_silence_keeps_a_notification_away_until_it_is_expired() {
    let receivers = Receivers::start().await;
    let fixture = receivers.fixture().await;
    let org = fixture.identity.organisation().await;
    let editor = fixture.identity.member(&org, "editor").await;
    let page = fixture.identity.client(&editor);
    let (settings, secrets) = (json!({}), json!({"url": receivers.webhook.url()}));
    let id = channel(&fixture, &org, "webhook", &settings, &secrets, "team=\"field\"").await;
    wait_channels_live(&fixture, &org, 1).await;
    wait_loaded(&org, &[id]).await;

    let silence_id = post_silence(&page, &silence("Silenced")).await;
    let url = format!("{}/alertmanager", fixture.identity.proxy.url());
    let (is_ok, seen) = amtool(&url, &editor.token, &["silence", "query", "--output", "extended"]);
    assert!(is_ok && seen.contains(&silence_id), "{seen}");
    assert!(!seen.contains("somebody else"), "createdBy is the caller's own identity: {seen}");

    // Of a refusal amtool shows the status alone.
    let viewer = fixture.identity.member(&org, "viewer").await;
    let add = ["silence", "add", "alertname=HubOff", "--duration=2h", "--comment=being repaired"];
    let (is_ok, refused) = amtool(&url, &viewer.token, &add);
    assert!(!is_ok && refused.contains("(status 403)"), "{refused}");
    let (is_ok, alerts) = amtool(&url, &viewer.token, &["alert", "query"]);
    assert!(is_ok, "{alerts}");

    let more = "evaluation_interval = '1s', labels = '{\"team\": \"field\"}'";
    fixture.rule_with(&org, "Silenced", "vector(1) > 0", more).await;
    fixture.rule_with(&org, "Heard", "vector(1) > 0", more).await;
    // The other alert is evaluated with it and is notified.
    receivers.webhook.notice(TIMEOUT, |notice| notice.holds("\"Heard\"")).await;
    wait_until("the alert is suppressed", SOON, async || {
        let alerts = page.get("/alertmanager/api/v2/alerts").await.json();
        let alerts = alerts.as_array().cloned().unwrap_or_default();
        alerts.iter().any(|alert| {
            alert["labels"]["alertname"] == "Silenced" && alert["status"]["state"] == "suppressed"
        })
    })
    .await;
    let is_silenced = |notice: &harness::Notice| notice.holds("\"Silenced\"");
    assert!(!receivers.webhook.notices().iter().any(is_silenced));

    let (is_ok, text) = amtool(&url, &editor.token, &["silence", "expire", &silence_id]);
    assert!(is_ok, "{text}");
    receivers.webhook.notice(TIMEOUT, is_silenced).await;
}
