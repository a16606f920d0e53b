//! A row's life: insert, edit, disable, delete; stored within a moment, loaded by Mimir, and a
//! notification at the end.

use std::time::{Duration, Instant};

use harness::{Mimir, Postgres, wait_until};
use serde_json::json;

use super::{Hook, MARKER, SOON, channels_fixture, channels_fixture_on};
use crate::rules::relay::{Fault, Relay};

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_rule_a_channel_and_a_route_become_a_notification() {
    let fixture = channels_fixture(&[]).await;
    let org = fixture.identity.organisation().await;
    let hook = Hook::start().await;
    let began = Instant::now();
    let channel = fixture.webhook(&org, &hook.url("for-critical")).await;
    let route = fixture.route(&org, &channel, &["severity=\"critical\""]).await;
    fixture.wait_channel(&channel, "live").await;
    fixture.wait_route(&route, "live").await;
    println!("stored after {:?}", began.elapsed());
    let document = fixture.document(&org).await;
    assert!(document.starts_with(MARKER), "{document}");
    assert!(document.contains(&channel) && document.contains(&route), "{document}");

    for severity in ["critical", "info"] {
        fixture
            .sql(&format!(
                "insert into alert_rule (organisation_id, name, expr, labels, evaluation_interval) \
                 values ('{org}', 'Hot{severity}', 'vector(1)', '{{\"severity\": \"{severity}\"}}', '1s')"
            ))
            .await;
    }
    wait_until("the notification has come", Duration::from_secs(120), async || {
        !hook.alerts().is_empty()
    })
    .await;
    println!("notified after {:?}", began.elapsed());
    let alert = &hook.alerts()[0];
    assert_eq!(
        (&alert["labels"]["alertname"], &alert["status"]),
        (&json!("Hotcritical"), &json!("firing"))
    );
    // What no route sends anywhere is sent nowhere.
    assert!(hook.alerts().iter().all(|alert| alert["labels"]["severity"] == "critical"));
    assert_eq!(hook.targets()[0], "/for-critical");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_a_row_is_in_the_document_at_once() {
    let fixture = channels_fixture(&[("channels.reconcile_interval", "\"1h\"")]).await;
    let org = fixture.identity.organisation().await;
    assert_eq!(fixture.document(&org).await, "");
    let channel = fixture.webhook(&org, "https://hooks.example.com/one").await;
    fixture.wait_document(&org, "https://hooks.example.com/one").await;
    let change = |sql: String| {
        let fixture = &fixture;
        let channel = channel.clone();
        async move {
            fixture
                .sql(&format!("update notification_channel set {sql} where id = '{channel}'"))
                .await;
        }
    };
    change("secrets = '{\"url\": \"https://hooks.example.com/two\"}'".to_owned()).await;
    fixture.wait_document(&org, "https://hooks.example.com/two").await;
    assert!(!fixture.document(&org).await.contains("hooks.example.com/one"));
    // Read back it is a mask, and written back it keeps the secret.
    change("secrets = '{\"url\": \"<secret>\"}', is_default = true".to_owned()).await;
    fixture.wait_document(&org, "continue: false").await;
    assert!(fixture.document(&org).await.contains("https://hooks.example.com/two"));
    change("enabled = false".to_owned()).await;
    fixture.wait_channel(&channel, "disabled").await;
    wait_until("the document is gone", SOON, async || fixture.document(&org).await.is_empty())
        .await;
    change("enabled = true".to_owned()).await;
    fixture.wait_channel(&channel, "live").await;
    let route = fixture.route(&org, &channel, &["severity=\"critical\""]).await;
    fixture.wait_document(&org, &route).await;
    fixture.sql(&format!("delete from notification_route where id = '{route}'")).await;
    wait_until("the route is gone", SOON, async || !fixture.document(&org).await.contains(&route))
        .await;
    fixture.sql(&format!("delete from notification_channel where id = '{channel}'")).await;
    wait_until("the document is gone", SOON, async || fixture.document(&org).await.is_empty())
        .await;
    wait_until("its status is gone", SOON, async || {
        fixture.channel_status(&channel).await.0.is_empty()
    })
    .await;
    // What is carried out needs no record.
    wait_until("no tombstone is left", SOON, async || {
        let sql = format!("select 1 from notification_tombstone where organisation_id = '{org}'");
        fixture.identity.database.query(&sql).await.is_empty()
    })
    .await;
}

// The issue: 100 channels of which 7 are broken in different ways: 93 live, 7 with reasons. Three of them
// and two routes only Mimir can refuse. The routes it really refuses; of channels we know nothing any more
// that passes our checks and not Mimir's, so a relay refuses them in its words.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_channels_seven_are_broken_and_ninety_three_live() {
    let mimir = Mimir::shared().await.url();
    let relay = Relay::start(&mimir).await;
    relay.set(Fault::Refuses(&["broken-1", "broken-2", "broken-3"]));
    let database = Postgres::shared().await.database("channels").await;
    let fixture = channels_fixture_on(database, &mimir, &relay.url(), &[]).await;
    let org = fixture.identity.organisation().await;
    fixture
        .sql(&format!(
            "insert into notification_channel (organisation_id, name, kind, secrets) \
             select '{org}', 'hook ' || n, 'webhook', \
             jsonb_build_object('url', 'https://hooks.example.com/' || n) from generate_series(1, 93) n"
        ))
        .await;
    let mut broken = Vec::new();
    for (kind, settings, secrets) in [
        ("pigeon", json!({}), json!({})),
        ("webhook", json!({}), json!({"url": "ftp://hooks.example.com/x"})),
        (
            "slack",
            json!({"channel": "{{ .GroupLabels }}"}),
            json!({"url": "https://hooks.slack.com/services/T0/B0/x"}),
        ),
        ("webhook", json!({}), json!({})),
        ("webhook", json!({}), json!({"url": "https://hooks.example.com/in/broken-1"})),
        ("discord", json!({}), json!({"url": "https://discord.com/api/webhooks/1/broken-2"})),
        (
            "slack",
            json!({"channel": "#alerts"}),
            json!({"url": "https://hooks.slack.com/services/T0/B0/broken-3"}),
        ),
    ] {
        broken.push(fixture.channel(&org, kind, &settings, &secrets).await);
    }
    // A route that only Mimir can refuse, and one to a broken channel.
    let sql = format!(
        "select id from notification_channel where organisation_id = '{org}' and name = 'hook 1'"
    );
    let good = fixture.identity.database.query(&sql).await[0][0].clone().unwrap();
    let routes = [
        fixture.route(&org, &good, &["severity=\"critical\""]).await,
        fixture.route(&org, &good, &["site=~\"(?R)b\""]).await,
        fixture.route(&org, &good, &["severity=\"night\""]).await,
        fixture.route(&org, &broken[0], &["severity=\"info\""]).await,
    ];
    fixture
        .sql(&format!(
            "update notification_route set mute_times = '[{{\"weekdays\": [\"sunday\"], \"location\": \"Mars/Olympus\"}}]' where id = '{}'",
            routes[2]
        ))
        .await;
    for channel in &broken {
        fixture.wait_channel(channel, "invalid").await;
        let (_, reason) = fixture.channel_status(channel).await;
        println!("{reason}");
        assert!(reason.len() > 10, "{reason}");
        assert!(!reason.contains("broken-"), "{reason}");
    }
    wait_until("93 are live", SOON, async || fixture.states(&org).await.get("live") == Some(&93))
        .await;
    assert_eq!(fixture.states(&org).await.get("invalid"), Some(&7));
    fixture.wait_route(&routes[0], "live").await;
    for route in &routes[1..] {
        fixture.wait_route(route, "invalid").await;
        println!("{}", fixture.route_status(route).await.1);
    }
    let document = fixture.document(&org).await;
    assert_eq!(document.matches("# channel ").count(), 93);
    for channel in &broken {
        assert!(!document.contains(channel.as_str()));
    }
    // It is settled: nothing is written again and again.
    fixture.sync(&org).await;
    let writes = fixture.writes().await;
    fixture.sync(&org).await;
    assert_eq!(fixture.writes().await, writes);
    // Mended, it is live.
    fixture
        .sql(&format!(
            "update notification_channel set secrets = '{{\"url\": \"https://hooks.example.com/mended\"}}' where id = '{}'",
            broken[4]
        ))
        .await;
    fixture.wait_channel(&broken[4], "live").await;
}

// The operator's limit on the size of a configuration is nobody's fault alone: older channels come first.
#[tokio::test(flavor = "multi_thread")]
async fn mimirs_limit_on_the_size_leaves_out_the_youngest() {
    let fixture = channels_fixture(&[]).await;
    let org = fixture.identity.organisation().await;
    let limit = "{alertmanager_max_config_size_bytes: 12000}";
    Mimir::shared().await.override_limits(&org, limit).await;
    let mut channels = Vec::new();
    for number in 0..30 {
        channels.push(fixture.webhook(&org, &format!("https://hooks.example.com/{number}")).await);
    }
    fixture.wait_channel(&channels[29], "over_limit").await;
    let (_, reason) = fixture.channel_status(&channels[29]).await;
    assert!(reason.contains("12000 bytes"), "{reason}");
    fixture.wait_channel(&channels[0], "live").await;
    let live = fixture.states(&org).await["live"];
    assert!(live > 2, "{live}");
    assert_eq!(fixture.document(&org).await.matches("# channel ").count(), live);
}

// The issue: a rule says so when it is evaluated but notifies nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_says_whether_it_notifies_anybody() {
    let fixture = channels_fixture(&[("rules.health_interval", "\"1s\"")]).await;
    let org = fixture.identity.organisation().await;
    fixture
        .sql(&format!(
            "insert into alert_rule (organisation_id, name, expr, labels, evaluation_interval) \
             values ('{org}', 'Hot', 'vector(1)', '{{\"severity\": \"critical\"}}', '1s')"
        ))
        .await;
    let wait = async |wanted: &str| {
        let mut last = String::new();
        wait_until(&format!("notifies is {wanted}"), Duration::from_secs(120), async || {
            let sql = format!(
                "select coalesce(notifies::text, 'null'), state, reason from alert_rule_status \
                 where organisation_id = '{org}'"
            );
            let rows = fixture.identity.database.query(&sql).await;
            let now = rows.first().map(|row| format!("{row:?}")).unwrap_or_default();
            if now != last {
                println!("{now}");
                last = now;
            }
            // A version that has just been written is not known yet.
            let wanted = [Some(wanted), Some("live")];
            rows.first().is_some_and(|row| [row[0].as_deref(), row[1].as_deref()] == wanted)
        })
        .await;
    };
    // Without channels Mimir is asked whether there is a document of somebody else's.
    wait("false").await;
    let channel = fixture.webhook(&org, "https://hooks.example.com/one").await;
    let route = fixture.route(&org, &channel, &["severity=\"critical\""]).await;
    fixture.wait_route(&route, "live").await;
    wait("true").await;
    fixture
        .sql(&format!(
            "update notification_route set matchers = '[\"severity=\\\"info\\\"\"]' where id = '{route}'"
        ))
        .await;
    wait("false").await;
    // What a template becomes is seen when an alert fires: this one matches.
    fixture
        .sql(&format!(
            "update alert_rule set labels = jsonb_build_object('severity', \
             '{{{{ if gt $value 90.0 }}}}critical{{{{ else }}}}info{{{{ end }}}}') where organisation_id = '{org}'"
        ))
        .await;
    wait("null").await;
    fixture
        .sql(&format!("update notification_channel set is_default = true where id = '{channel}'"))
        .await;
    wait("true").await;
}
