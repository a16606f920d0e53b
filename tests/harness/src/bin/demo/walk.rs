//! `--once`: the main job, end to end on real parts, told step by step.

use std::time::Duration;

use harness::showcase::{ALICE, BOB, command, two_organisations};
use harness::{
    Answer, Client, Issuer, Mimir, NodeExporter, ORG_A, Postgres, Prometheus, ProxyOptions,
    Receiver, RemoteWrite, Service, free_port, wait_until,
};
use serde_json::json;
use tokio::time::Instant;

use crate::with_alerts;

const QUERY: &str = "/prometheus/api/v1/query?query=node_load1";
const ALERTS: &str = "/prometheus/api/v1/alerts";

/// Shows it and ends.
pub(crate) async fn once() {
    say("starting Mimir, Postgres, an issuer of Supabase-shaped tokens, the proxy");
    let mimir = Mimir::start().await;
    // Rulers send each alert to Mimir's own Alertmanager, and to the proxy's private port.
    let (private, secret) = (free_port(), "0123456789abcdef");
    let receivers = format!(
        "{},http://mimir:{secret}@127.0.0.1:{private}/alertmanager",
        mimir.alertmanager_url()
    );
    let limits =
        format!("{{ruler_alertmanager_client_config: {{alertmanager_url: \"{receivers}\"}}}}");
    mimir.override_limits(ORG_A, &limits).await;
    let postgres = Postgres::start().await;
    let database = postgres.database("demo").await;
    two_organisations(&database).await;
    let issuer = Issuer::start().await;
    let options = ProxyOptions::new(&issuer.url(), &mimir.url())
        .set("database.url", &format!("{:?}", database.url()))
        .internal_port(private);
    let proxy = with_alerts(options, secret).start().await;
    let token = |user: &str| issuer.token().claim("sub", json!(user)).sign();
    let (token_a, token_b) = (token(ALICE), token(BOB));

    say("a device key for A's hub, and a stock Prometheus that writes with it as its password");
    let name = ["--organisation", ORG_A, "--name", "hub"];
    let key = command(&database, &[&["device-key", "create"], &name[..]].concat());
    let exporter = NodeExporter::start().await;
    let hub = RemoteWrite::V1;
    let _sender =
        Prometheus::start_with_password(hub, &exporter, &proxy.url(), "hub", key.trim()).await;
    let alice = proxy.client().bearer(&token_a);
    wait_until("A's series arrive", Duration::from_secs(60), async || {
        !series(&alice.get(QUERY).await).is_empty()
    })
    .await;

    let of_alice = show("Alice, a member of A,", &alice).await;
    let bob = proxy.client().bearer(&token_b);
    let of_bob = show("Bob, a member of B,", &bob).await;
    let posing = bob.clone().header("x-scope-orgid", ORG_A);
    let of_posing = show("Bob, with X-Scope-OrgID: A,", &posing).await;
    let of_unknown = show("An unknown caller", &proxy.client().bearer("not.a.token")).await;
    assert_eq!(series(&of_alice).len(), 1, "Alice sees what A's hub wrote");
    assert_eq!((of_bob.status.as_u16(), series(&of_bob).len()), (200, 0), "Bob sees nothing");
    assert_eq!(of_posing.status, 403, "Bob is no member of A");
    assert_eq!(of_unknown.status, 401, "a bad token is refused");

    say("a channel of A's, as a row, with a route to it");
    let hook = Receiver::start(Service::Webhook).await;
    database
        .execute(&format!(
            "with channel as (
                 insert into notification_channel (organisation_id, name, kind, secrets)
                 values ('{ORG_A}', 'on call', 'webhook', '{{\"url\": \"{}\"}}') returning id)
             insert into notification_route (organisation_id, channel_id, matchers, group_wait, group_interval)
             select '{ORG_A}', id, '[\"severity=\\\"page\\\"\"]', '0s', '1s' from channel",
            hook.url()
        ))
        .await;
    wait_until("the channel is live", Duration::from_secs(30), async || {
        let live = "select from notification_channel_status where state = 'live'";
        database.query(live).await.len() == 1
    })
    .await;
    wait_until("Mimir has loaded it", Duration::from_secs(30), async || {
        let receivers = mimir.as_tenant(ORG_A).get("/alertmanager/api/v2/receivers").await;
        receivers.status == 200 && receivers.json().as_array().is_some_and(|all| all.len() == 2)
    })
    .await;

    say("an alert rule of A's, as a row: on its hub's load");
    let written = Instant::now();
    database.execute(&format!(
        "insert into alert_rule (organisation_id, name, expr, evaluation_interval, labels, annotations)
         values ('{ORG_A}', 'HubAtWork', 'node_load1 >= 0', '1s', '{{\"severity\": \"page\"}}',
                 '{{\"summary\": \"the load is {{{{ $value }}}}\"}}'),
                ('{ORG_A}', 'Mistyped', 'sum((node_load1)', null, null, null)"
    ))
    .await;
    wait_until("the rule is in Mimir", Duration::from_secs(30), async || {
        let live = "select from alert_rule_status where state in ('stored', 'live')";
        database.query(live).await.len() == 1
    })
    .await;
    let stored_after = written.elapsed();
    wait_until("Alice sees it firing", Duration::from_secs(120), async || {
        alice.get(ALERTS).await.text.contains("\"state\":\"firing\"")
    })
    .await;
    let alert = alice.get(ALERTS).await.json()["data"]["alerts"][0].clone();
    println!("\nAn alert rule of A's, in Mimir {stored_after:?} after its row, fires for Alice:");
    println!("  {} {}", alert["labels"], alert["annotations"]);
    let notice = hook.notice(Duration::from_secs(120), |notice| notice.is_firing()).await;
    println!(
        "\nA's channel is notified {:?} after the rule's row:",
        notice.at - written.into_std()
    );
    println!("  {} {}", notice.json["status"], notice.json["alerts"][0]["annotations"]);
    let event = "select state, labels ->> 'alertname', started_at from alert_event";
    wait_until("the alert is a row", Duration::from_secs(30), async || {
        !database.query(event).await.is_empty()
    })
    .await;
    let row: Vec<String> = database.query(event).await.remove(0).into_iter().flatten().collect();
    println!("and the alert is a row of alert_event:\n  {}", row.join("  "));
    silenced(&alice, &bob).await;
    let of_bob = bob.get(ALERTS).await.json();
    assert_eq!(of_bob["data"]["alerts"].as_array().map(Vec::len), Some(0), "Bob sees no alert");
    wait_until("the other is told", Duration::from_secs(10), async || {
        let invalid = "select reason from alert_rule_status where state = 'invalid'";
        let rows = database.query(invalid).await;
        rows.first().and_then(|row| row[0].clone()).is_some_and(|reason| {
            println!("and a mistyped one does not block it; its status says why:\n  {reason}");
            true
        })
    })
    .await;

    database.execute(&format!("delete from membership where user_id = '{ALICE}'")).await;
    let left = Instant::now();
    wait_until("Alice is out", Duration::from_secs(1), async || {
        alice.get(QUERY).await.status == 403
    })
    .await;
    let took = left.elapsed();
    show("Alice, removed from A,", &alice).await;
    println!(
        "\nA reads what its hub wrote, B and the unknown caller see nothing of it, and Alice lost access within {took:?}."
    );
}

/// Alice silences the alert, and no one of B sees it.
async fn silenced(alice: &Client, bob: &Client) {
    let silence = json!({
        "matchers": [{"name": "alertname", "value": "HubAtWork", "isRegex": false}],
        "startsAt": "2026-01-01T00:00:00Z", "endsAt": "2100-01-01T00:00:00Z",
        "createdBy": "", "comment": "we know",
    });
    let writer = alice.clone().header("content-type", "application/json");
    let made = writer.post("/alertmanager/api/v2/silences", silence.to_string()).await;
    println!(
        "\nAlice silences it:\n  POST /alertmanager/api/v2/silences\n  {} {}",
        made.status, made.text
    );
    let alerts = "/alertmanager/api/v2/alerts";
    wait_until("it is suppressed", Duration::from_secs(30), async || {
        alice.get(alerts).await.text.contains("\"suppressed\"")
    })
    .await;
    let of_bob = bob.get("/alertmanager/api/v2/silences").await;
    assert_eq!(of_bob.json().as_array().map(Vec::len), Some(0), "Bob sees no silence");
}

fn say(text: &str) {
    eprintln!("demo: {text}");
}

async fn show(who: &str, client: &Client) -> Answer {
    let answer = client.get(QUERY).await;
    println!("\n{who} asks:\n  GET {QUERY}\n  {} {}", answer.status, answer.text.trim_end());
    answer
}

fn series(answer: &Answer) -> Vec<serde_json::Value> {
    let json: serde_json::Value = serde_json::from_str(&answer.text).unwrap_or_default();
    json["data"]["result"].as_array().cloned().unwrap_or_default()
}
