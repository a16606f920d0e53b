//! No secret of a channel gets out: not into a log line, a diff, a status, an error, an answer of
//! `/admin`, a metric or an audit line, and not in what Mimir says when it refuses a document.

use harness::{Client, Mimir, Postgres, wait_until};
use serde_json::{Value, json};

use super::{SOON, channels_fixture_on};
use crate::rules::relay::{Fault, Relay};
use crate::support::identity::command_with;

/// Every secret has this in it, so that parts of one are found, too.
const SECRET: &str = "s3cr3t-z9k2";

/// Channels of every kind with every secret that it may have; and again with what Mimir refuses.
fn channels() -> Vec<(&'static str, Value, Value)> {
    let url = |host: &str, path: &str| format!("https://{host}/{path}/{SECRET}");
    let mut all = vec![
        ("webhook", json!({}), json!({"url": url("hooks.example.com", "in")})),
        (
            "webhook",
            json!({}),
            json!({"url": url("hooks.example.com", "in"), "token": format!("{SECRET}-bearer")}),
        ),
        (
            "webhook",
            json!({"username": "me"}),
            json!({"url": url("hooks.example.com", "in"), "password": format!("{SECRET}-password")}),
        ),
        ("email", json!({"to": "a@example.com"}), json!({})),
        (
            "slack",
            json!({"channel": "#alerts"}),
            json!({"url": url("hooks.slack.com", "services/T0/B0")}),
        ),
        ("slack", json!({"channel": "#alerts"}), json!({"token": format!("xoxb-{SECRET}")})),
        ("pagerduty", json!({}), json!({"routing_key": "s3cr3tz9k2ABCDEFabcdef0123456789"})),
        ("opsgenie", json!({}), json!({"api_key": format!("{SECRET}-api-key")})),
        (
            "telegram",
            json!({"chat_id": -100_123}),
            json!({"bot_token": format!("123456:{SECRET}-bot-0123456789")}),
        ),
        ("discord", json!({}), json!({"url": url("discord.com", "api/webhooks/1")})),
        ("msteams", json!({}), json!({"url": url("example.webhook.office.com", "webhookb2")})),
    ];
    // Mimir quotes what it refuses (here the relay, in its words), and our own checks must not.
    for (kind, host) in [
        ("webhook", "hooks.example.com"),
        ("slack", "hooks.slack.com"),
        ("discord", "discord.com"),
        ("msteams", "example.webhook.office.com"),
    ] {
        let settings = if kind == "slack" { json!({"channel": "#alerts"}) } else { json!({}) };
        for broken in ["refused-by-mimir", "%zz"] {
            let url = format!("https://{host}/{broken}/{SECRET}");
            all.push((kind, settings.clone(), json!({ "url": url })));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_any_log_diff_status_error_answer_metric_or_audit_line() {
    let mimir = Mimir::shared().await.url();
    let relay = Relay::start(&mimir).await;
    let database = Postgres::shared().await.database("channels").await;
    let settings = [
        ("channels.email_smarthost", "\"smtp.example.com:25\""),
        ("channels.email_from", "\"alerts@example.com\""),
        ("log.filter", "\"trace\""),
        ("rules.reconcile_interval", "\"1h\""),
    ];
    let fixture = channels_fixture_on(database, &mimir, &relay.url(), &settings).await;
    let refusing = Fault::Refuses(&["refused-by-mimir"]);
    relay.set(refusing.clone());
    let org = fixture.identity.organisation().await;
    let mut ids = Vec::new();
    for (kind, settings, secrets) in channels() {
        ids.push((kind, fixture.channel(&org, kind, &settings, &secrets).await));
    }
    wait_until("every channel has a state", SOON, async || {
        let states = fixture.states(&org).await;
        states.values().sum::<usize>() == ids.len() && states.contains_key("live")
    })
    .await;
    for (kind, id) in &ids {
        println!("{kind}: {:?}", fixture.channel_status(id).await);
    }
    // Of each kind at least one is live, so its secret is in the document.
    let stored = fixture.document(&org).await;
    assert!(stored.matches(SECRET).count() >= 9, "{}", stored.replace(SECRET, "…"));
    let states = fixture.states(&org).await;
    assert_eq!(states.get("invalid"), Some(&8), "{states:?}");

    let mut seen: Vec<(String, String)> = Vec::new();
    let service = fixture.identity.service();
    let all = format!("/admin/organisations/{org}/channels");
    let see = async |what: &str, seen: &mut Vec<(String, String)>| {
        for path in [all.clone(), format!("{all}/diff"), "/admin/channels/status".to_owned()] {
            seen.push((format!("{what}: {path}"), service.get(&path).await.text));
        }
        let sync = service.post(&format!("{all}/sync"), "").await;
        seen.push((format!("{what}: sync"), sync.text));
        for (kind, id) in [&ids[0], &ids[11]] {
            let test = service.post(&format!("{all}/{id}/test"), "").await;
            seen.push((format!("{what}: test of {kind}"), test.text));
        }
    };
    see("well", &mut seen).await;
    // The document was changed by hand; secrets were changed.
    let edited = stored.replace(SECRET, "s3cr3t-z9k2-by-hand");
    fixture.write_by_hand(&org, &edited).await;
    seen.push(("edited".to_owned(), service.get(&format!("{all}/diff")).await.text));
    see("edited", &mut seen).await;
    // Something between us and Mimir repeats what it was sent.
    for fault in [Fault::Status(500, None), Fault::Echo(400), Fault::Echo(502), Fault::Echo(403)] {
        relay.set(fault.clone());
        fixture.webhook(&org, &format!("https://hooks.example.com/{SECRET}/{}", seen.len())).await;
        seen.push((format!("{fault:?}"), service.get(&format!("{all}/diff")).await.text));
        let sync = service.post(&format!("{all}/sync"), "").await;
        seen.push((format!("{fault:?}: sync"), sync.text));
        let status = service.get("/admin/channels/status").await;
        seen.push((format!("{fault:?}: status"), status.text));
    }
    relay.set(refusing);
    fixture.sync(&org).await;

    // The command line.
    let environment = [
        ("MTP__UPSTREAM__URLS", mimir.as_str()),
        ("MTP__CHANNELS__ENABLED", "true"),
        ("MTP__RULES__ENABLED", "true"),
        ("MTP__DATABASE__CONNECT_TIMEOUT", "5s"),
    ];
    for words in
        [["channels", "diff", "--json"].as_slice(), &["channels", "diff"], &["channels", "sync"]]
    {
        let output = command_with(&fixture.identity.database, &environment, words);
        assert!(output.status.code().is_some_and(|code| code < 2), "{output:?}");
        seen.push((format!("{words:?}"), format!("{output:?}")));
    }
    // What the database shows its members and administrators, and what it records.
    for table in [
        "notification_channel",
        "notification_channel_status",
        "notification_route_status",
        "notification_sync",
        "notification_tombstone",
    ] {
        let rows =
            fixture.identity.database.query(&format!("select t::text from {table} as t")).await;
        seen.push((table.to_owned(), format!("{rows:?}")));
    }
    let metrics = Client::new(&fixture.identity.proxy.internal_url()).get("/metrics").await.text;
    seen.push(("metrics".to_owned(), metrics));
    let log = fixture.identity.proxy.process.log();
    assert!(log.contains("Channels synced") && log.contains("Admin action"), "{log}");
    seen.push(("log".to_owned(), log));

    // Six characters in a row are too many; a mask stands in their place.
    for (what, text) in &seen {
        for start in 0..=SECRET.len() - 6 {
            let part = &SECRET[start..start + 6];
            if let Some(at) = text.find(part) {
                let from = text[..at].char_indices().rev().nth(200).map_or(0, |(at, _)| at);
                panic!("{what} shows {part}: {}", &text[from..(at + 20).min(text.len())]);
            }
        }
    }
    assert!(seen.iter().any(|(_, text)| text.contains("<secret>")));
}
