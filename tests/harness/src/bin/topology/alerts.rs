//! From rows to people: channels and routes reach every kind of receiver, alerts become rows, and a
//! silence that a page makes is seen by amtool and keeps a notification away.

use std::process::Command;
use std::time::Duration;

use harness::{Client, Notice, ORG_A, ORG_B, Receiver, Service, Smtp, part, wait_until};
use serde_json::json;
use tokio::time::Instant;

use crate::system::System;
use crate::{chapter, fact};

const PATIENCE: Duration = Duration::from_secs(120);

/// Where the notifications of organisation A arrive.
pub struct People {
    pub webhook: Receiver,
    pub slack: Receiver,
    pub pagerduty: Receiver,
    pub telegram: Receiver,
    pub mail: Smtp,
}

impl People {
    pub async fn start() -> Self {
        Self {
            webhook: Receiver::start(Service::Webhook).await,
            slack: Receiver::start(Service::Slack).await,
            pagerduty: Receiver::start(Service::PagerDuty).await,
            telegram: Receiver::start(Service::Telegram).await,
            mail: Smtp::start().await,
        }
    }

    fn receivers(&self) -> [(&'static str, &Receiver); 4] {
        [
            ("webhook", &self.webhook),
            ("Slack", &self.slack),
            ("PagerDuty", &self.pagerduty),
            ("Telegram", &self.telegram),
        ]
    }

    /// The rows of A's channels: name, kind, settings, secrets.
    fn channels(&self) -> Vec<(&'static str, serde_json::Value, serde_json::Value)> {
        vec![
            ("webhook", json!({}), json!({"url": self.webhook.url()})),
            ("slack", json!({}), json!({"url": self.slack.url()})),
            ("pagerduty", json!({}), json!({"routing_key": self.pagerduty.secret()})),
            (
                "telegram",
                json!({"chat_id": -1_001_234}),
                json!({"bot_token": self.telegram.secret()}),
            ),
            ("email", json!({"to": "on-call@example.test"}), json!({})),
        ]
    }
}

pub async fn reach_people(system: &System) {
    chapter("From a row to a phone, with the Alertmanager of three Mimirs");
    let people = &system.people;
    let written = Instant::now();
    for (kind, settings, secrets) in people.channels() {
        system
            .database
            .execute(&format!(
                "with channel as (
                     insert into notification_channel (organisation_id, name, kind, settings, secrets)
                     values ('{ORG_A}', '{kind}', '{kind}', '{settings}', '{secrets}') returning id)
                 insert into notification_route (organisation_id, channel_id, position, matchers,
                     group_wait, group_interval, continue_matching)
                 select '{ORG_A}', id, 1, '[\"topology=\\\"alerts\\\"\"]', '0s', '1s', true from channel"
            ))
            .await;
    }
    wait_until("five channels are live", PATIENCE, async || {
        states(system, "notification_channel_status", "live").await == 5
            && states(system, "notification_route_status", "live").await == 5
    })
    .await;
    fact(format!(
        "five channels and their routes, live {:.1?} after their rows",
        written.elapsed()
    ));
    // Until the instances have loaded it, the fallback holds, and an alert would notify no one.
    let member = system.member(&system.organisations[0], 0);
    wait_until("each Mimir has loaded them", PATIENCE, async || {
        let mut loaded = 0;
        for mimir in &system.mimirs {
            // Until then 406, or what the fallback has.
            let answer = mimir.as_tenant(ORG_A).get("/alertmanager/api/v2/receivers").await;
            let is_loaded =
                answer.status == 200 && answer.json().as_array().is_some_and(|all| all.len() == 6);
            loaded += usize::from(is_loaded);
        }
        loaded == system.mimirs.len()
    })
    .await;
    let (status, text) = (member.get("/alertmanager/api/v2/status").await.status, people.secrets());
    assert_eq!(status, 200);

    let began = Instant::now();
    let id = rule(system, "HubOff").await;
    let event =
        format!("select state from alert_event where rule_id = '{id}' and state = 'firing'");
    wait_until("the alert is a row", PATIENCE, async || {
        !system.database.query(&event).await.is_empty()
    })
    .await;
    fact(format!(
        "the alert is a row of alert_event at most {:.1?} after its rule's",
        began.elapsed()
    ));
    for (name, receiver) in people.receivers() {
        let is_it = |notice: &Notice| is_about(notice, "HubOff") && notice.is_firing();
        let notice = receiver.notice(PATIENCE, is_it).await;
        fact(format!(
            "{name} was notified {:.1?} after the rule's row",
            notice.at - began.into_std()
        ));
    }
    let mail = people.mail.mail(PATIENCE, |mail| mail.raw.contains("HubOff")).await;
    fact(format!("mail to {}: {}", mail.to, mail.header("subject")));

    silences_are_shared(system, &member).await;

    // Not by deleting it: the ruler says nothing of rules that are gone, and the alert expires after minutes.
    let ends = format!("update alert_rule set expr = 'vector(1) > 1' where id = '{id}'");
    system.database.execute(&ends).await;
    for (_, receiver) in people.receivers() {
        receiver
            .notice(PATIENCE, |notice| is_about(notice, "HubOff") && notice.is_resolved())
            .await;
    }
    let ended = format!("select from alert_event where rule_id = '{id}' and state = 'resolved'");
    wait_until("the end is in the row", PATIENCE, async || {
        !system.database.query(&ended).await.is_empty()
    })
    .await;
    fact("all were told of the end, and the row has it");

    let of_b = format!(
        "select from alert_event where organisation_id = '{ORG_B}' and labels ? 'topology'"
    );
    assert!(system.database.query(&of_b).await.is_empty(), "B has an event of A");
    for (name, receiver) in people.receivers() {
        assert_eq!(receiver.refusals(), Vec::<String>::new(), "{name}");
        assert!(receiver.notices().iter().all(|notice| !notice.holds(ORG_B)), "{name}");
    }
    for proxy in &system.proxies {
        let log = proxy.process.log();
        for secret in &text {
            assert!(!log.contains(secret.as_str()), "a secret is in a log");
        }
    }
    fact("no secret of a channel is in a log of the proxies; B has none of it");
}

impl People {
    fn secrets(&self) -> Vec<String> {
        self.receivers().iter().map(|(_, receiver)| receiver.secret().to_owned()).collect()
    }
}

/// A silence by the call of a page, and amtool, both through a proxy.
async fn silences_are_shared(system: &System, member: &Client) {
    let silence = json!({
        "matchers": [{"name": "alertname", "value": "HubHot", "isRegex": false, "isEqual": true}],
        "startsAt": "2026-01-01T00:00:00Z", "endsAt": "2100-01-01T00:00:00Z",
        "createdBy": "someone else", "comment": "being repaired",
    });
    let page = member.clone().header("content-type", "application/json");
    let made = page.post("/alertmanager/api/v2/silences", silence.to_string()).await;
    assert_eq!(made.status, 200, "{}", made.text);
    let id = made.json()["silenceID"].as_str().expect("an ID").to_owned();
    // By the other proxy.
    let seen = amtool(system, 1, &["silence", "query"]);
    assert!(seen.contains(&id) && !seen.contains("someone else"), "{seen}");
    for mimir in &system.mimirs {
        wait_until("each Mimir has the silence", PATIENCE, async || {
            let silences = mimir.as_tenant(ORG_A).get("/alertmanager/api/v2/silences").await;
            silences.text.contains(&id)
        })
        .await;
    }
    let webhook = &system.people.webhook;
    let rule = rule(system, "HubHot").await;
    let alerts = "/alertmanager/api/v2/alerts?filter=alertname%3DHubHot";
    wait_until("the alert is suppressed", PATIENCE, async || {
        member.get(alerts).await.text.contains("suppressed")
    })
    .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let about = |notice: &Notice| is_about(notice, "HubHot");
    assert!(!webhook.notices().iter().any(about), "a silenced alert was notified");
    amtool(system, 0, &["silence", "expire", &id]);
    let ended = Instant::now();
    webhook.notice(PATIENCE, about).await;
    fact(format!(
        "a silence by a page's call, seen by amtool through the other proxy, keeps a notification away; it comes {:.1?} after amtool ended it",
        ended.elapsed()
    ));
    system.database.execute(&format!("delete from alert_rule where id = '{rule}'")).await;
}

fn amtool(system: &System, proxy: usize, arguments: &[&str]) -> String {
    let directory = tempfile::tempdir().expect("directory");
    let config = directory.path().join("http.yaml");
    let token = &system.organisations[0].token;
    std::fs::write(&config, format!("authorization: {{credentials: {token}}}\n")).expect("config");
    let output = Command::new(part("amtool"))
        .arg(format!("--alertmanager.url={}/alertmanager", system.proxies[proxy].url()))
        .arg(format!("--http.config.file={}", config.display()))
        .args(arguments)
        .output()
        .expect("amtool");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "amtool {arguments:?}: {said}");
    said
}

/// A rule of A's that always fires, live.
async fn rule(system: &System, name: &str) -> String {
    let rows = system
        .database
        .query(&format!(
            "insert into alert_rule (organisation_id, name, expr, rule_group, evaluation_interval, labels)
             values ('{ORG_A}', '{name}', 'vector(1)', 'alerts', '1s', '{{\"topology\": \"alerts\"}}')
             returning id"
        ))
        .await;
    let id = rows[0][0].clone().expect("an ID");
    let live = format!("select from alert_rule_status where rule_id = '{id}' and state = 'live'");
    wait_until("the rule is evaluated", Duration::from_secs(120), async || {
        !system.database.query(&live).await.is_empty()
    })
    .await;
    id
}

fn is_about(notice: &Notice, alert: &str) -> bool {
    notice.holds(alert)
}

async fn states(system: &System, table: &str, state: &str) -> usize {
    let sql =
        format!("select from {table} where organisation_id = '{ORG_A}' and state = '{state}'");
    system.database.query(&sql).await.len()
}
