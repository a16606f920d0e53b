//! Every stand-in takes what a real Alertmanager sends, and refuses what its service would refuse.

use serde_json::json;

use super::*;
use crate::client::Client;
use crate::mimir::Mimir;
use crate::process::wait_until;
use crate::smtp::Smtp;

const SERVICES: [Service; 7] = [
    Service::Webhook,
    Service::Slack,
    Service::PagerDuty,
    Service::Telegram,
    Service::Opsgenie,
    Service::Discord,
    Service::Teams,
];

fn configuration(receivers: &[Receiver], smtp: &Smtp) -> String {
    let of = |service: Service| receivers.iter().find(|one| one.service == service).expect("one");
    let (pagerduty, telegram) = (of(Service::PagerDuty), of(Service::Telegram));
    let (opsgenie, teams) = (of(Service::Opsgenie), of(Service::Teams));
    format!(
        "
route: {{receiver: all, group_wait: 0s, group_interval: 1s, group_by: [alertname]}}
receivers:
- name: all
  webhook_configs: [{{url: '{}'}}]
  slack_configs: [{{api_url: '{}', channel: '#hubs'}}]
  pagerduty_configs: [{{routing_key: '{}', url: '{}'}}]
  telegram_configs: [{{bot_token: '{}', api_url: '{}', chat_id: -1001234, parse_mode: HTML}}]
  opsgenie_configs: [{{api_key: '{}', api_url: '{}'}}]
  discord_configs: [{{webhook_url: '{}'}}]
  msteams_configs: [{{webhook_url: '{}'}}]
  msteamsv2_configs: [{{webhook_url: '{}'}}]
  email_configs:
  - {{to: on-call@b.test, from: alerts@a.test, smarthost: '{}', require_tls: false, send_resolved: true}}
",
        of(Service::Webhook).url(),
        of(Service::Slack).url(),
        pagerduty.secret(),
        pagerduty.url(),
        telegram.secret(),
        telegram.url(),
        opsgenie.secret(),
        opsgenie.url(),
        of(Service::Discord).url(),
        teams.connector_url(),
        teams.url(),
        smtp.address(),
    )
    // Not every integration tells of the end by default.
    .replace("}]\n", ", send_resolved: true}]\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_alertmanager_reaches_all_of_them() {
    let mimir = Mimir::start_with(&[
        "-target=all,alertmanager",
        "-alertmanager.configs.poll-interval=1s",
        "-alertmanager.sharding-ring.replication-factor=1",
    ])
    .await;
    let (mut receivers, smtp) = (Vec::new(), Smtp::start().await);
    for service in SERVICES {
        receivers.push(Receiver::start(service).await);
    }
    let tenant = Client::new(&mimir.url()).header("x-scope-orgid", "receivers");
    let text = configuration(&receivers, &smtp).replace('\n', "\n  ");
    let answer = tenant.post("/api/v1/alerts", format!("alertmanager_config: |\n  {text}")).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let alert = |name: &str, ends: &str| {
        let ends = if ends.is_empty() { json!(null) } else { json!(ends) };
        json!([{"labels": {"alertname": name, "severity": "page"}, "endsAt": ends,
                "startsAt": "2026-01-01T00:00:00Z", "annotations": {"summary": "a <hub> is off"}}])
        .to_string()
        .replace(",\"endsAt\":null", "")
        .replace("\"endsAt\":null,", "")
    };
    let json_client = tenant.clone().header("content-type", "application/json");
    wait_until("the alert is taken", Duration::from_secs(60), async || {
        let body = alert("HubOff", "");
        json_client.post("/alertmanager/api/v2/alerts", body).await.status == 200
    })
    .await;
    let patience = Duration::from_secs(30);
    for receiver in &receivers {
        let notice = receiver.notice(patience, |notice| notice.is_firing()).await;
        assert!(notice.holds("HubOff") || receiver.service == Service::Webhook, "{notice:?}");
        assert!(!notice.target.contains(receiver.secret()), "{}", notice.target);
    }
    let mail = smtp.mail(patience, |mail| mail.header("subject").contains("FIRING")).await;
    assert!(mail.text.contains("HubOff") && mail.to == "on-call@b.test", "{mail:?}");

    let body = alert("HubOff", "2026-01-01T00:01:00Z");
    assert_eq!(json_client.post("/alertmanager/api/v2/alerts", body).await.status, 200);
    for receiver in &receivers {
        receiver.notice(patience, |notice| notice.is_resolved()).await;
        assert_eq!(receiver.refusals(), Vec::<String>::new(), "{:?}", receiver.service);
    }
    smtp.mail(patience, |mail| mail.header("subject").contains("RESOLVED")).await;
    // Both kinds of Teams, both states.
    assert_eq!(receivers[6].notices().len(), 4);

    // Each refuses in its own words, and Mimir counts a failure.
    for receiver in &receivers {
        receiver.set_trouble(Some(Trouble::Revoked));
    }
    let body = alert("HubHot", "");
    assert_eq!(json_client.post("/alertmanager/api/v2/alerts", body).await.status, 200);
    wait_until("all are refused", patience, async || {
        receivers.iter().all(|receiver| !receiver.refusals().is_empty())
    })
    .await;
    let metrics = Client::new(&mimir.url());
    wait_until("Mimir counts", patience, async || {
        let text = metrics.get("/metrics").await.text;
        let failed = |line: &&str| {
            line.starts_with("cortex_alertmanager_notifications_failed_total{")
                && line.contains("user=\"receivers\"")
        };
        text.lines().filter(failed).count() >= 7
    })
    .await;
    for line in metrics.get("/metrics").await.text.lines() {
        if line.starts_with("cortex_alertmanager_notifications_failed_total{") {
            println!("{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_service_would_refuse_is_refused() {
    let slack = Receiver::start(Service::Slack).await;
    let client = Client::new("").header("content-type", "application/json");
    let answer = client.post(&slack.url(), "{}").await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (400, "invalid_payload"));
    let wrong = slack.url().replace(slack.secret(), "x");
    assert_eq!(client.post(&wrong, "{\"text\": \"a\"}").await.text, "invalid_token");
    slack.set_trouble(Some(Trouble::TooMany));
    let answer = client.post(&slack.url(), "{\"text\": \"a\"}").await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, "1"));
    slack.set_trouble(None);
    assert_eq!(client.post(&slack.url(), "{\"text\": \"a\"}").await.text, "ok");
    assert_eq!((slack.notices().len(), slack.refusals().len()), (1, 3));

    let pagerduty = Receiver::start(Service::PagerDuty).await;
    let body = json!({"routing_key": "short", "event_action": "trigger"}).to_string();
    let answer = client.post(&pagerduty.url(), body).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["status"], "invalid event");
    let body = json!({"routing_key": pagerduty.secret(), "event_action": "trigger", "payload": {
        "summary": "a", "source": "b", "severity": "page"}});
    assert!(client.post(&pagerduty.url(), body.to_string()).await.text.contains("severity"));

    let telegram = Receiver::start(Service::Telegram).await;
    let target = format!("{}/bot{}/sendMessage", telegram.url(), telegram.secret());
    let html = |text: &str| json!({"chat_id": "7", "text": text, "parse_mode": "HTML"}).to_string();
    assert_eq!(client.post(&target, html("<b>Firing</b>")).await.status, 200);
    assert!(client.post(&target, html("a <hub>")).await.text.contains("can't parse entities"));
    let opsgenie = Receiver::start(Service::Opsgenie).await;
    let target = format!("{}v2/alerts", opsgenie.url());
    assert_eq!(client.post(&target, "{\"message\": \"a\"}").await.status, 401);
}
