//! Listing, comparing, syncing and testing channels: `/admin` and the command line, whose exit codes
//! pipelines read.

use harness::{Mimir, Upstream, wait_until};
use http::{Method, Response};
use serde_json::{Value, json};

use super::{ChannelsFixture, Hook, SOON, channels_fixture};
use crate::support::identity::command_with;
use crate::support::responses::full;

fn path(org: &str, rest: &str) -> String {
    format!("/admin/organisations/{org}/channels{rest}")
}

// Administrators of the organisation and the operator, and nobody else; another organisation's is not there.
#[tokio::test(flavor = "multi_thread")]
async fn who_may_see_and_sync_channels() {
    let fixture = channels_fixture(&[]).await;
    let org = fixture.identity.organisation().await;
    let other = fixture.identity.organisation().await;
    let channel = fixture.webhook(&org, "https://hooks.example.com/one").await;
    fixture.wait_channel(&channel, "live").await;
    let admin = fixture.identity.client(&fixture.identity.member(&org, "admin").await);
    let list = admin.get(&path(&org, "")).await.json();
    assert_eq!(list["channels"][0]["state"], "live", "{list}");
    assert_eq!(list["sync"]["state"], "live", "{list}");
    assert_eq!(admin.post(&path(&org, "/sync"), "").await.status, 200);
    let test = format!("/{channel}/test");
    for (method, rest) in [
        (Method::GET, ""),
        (Method::GET, "/diff"),
        (Method::POST, "/sync"),
        (Method::POST, test.as_str()),
    ] {
        let answer = admin.send(method.clone(), &path(&other, rest), Vec::new()).await;
        assert_eq!(answer.status, 403, "{answer:?}");
        for role in ["viewer", "editor"] {
            let member = fixture.identity.client(&fixture.identity.member(&org, role).await);
            let answer = member.send(method.clone(), &path(&org, rest), Vec::new()).await;
            assert_eq!(answer.status, 403, "{role}: {answer:?}");
        }
    }
    assert_eq!(admin.get("/admin/channels/status").await.status, 403);
    // A channel of another organisation is none.
    let service = fixture.identity.service();
    assert_eq!(service.post(&path(&other, &test), "").await.status, 404);
    assert_eq!(service.get(&path("nosuch", "")).await.status, 404);
    assert_eq!(service.post(&path("nosuch", "/sync"), "").await.status, 404);
    assert_eq!(service.get(&path("nosuch", "/diff")).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diff_says_what_a_sync_then_does() {
    let fixture = channels_fixture(&[("channels.reconcile_interval", "\"1h\"")]).await;
    let org = fixture.identity.organisation().await;
    let one = fixture.webhook(&org, "https://hooks.example.com/one").await;
    fixture.wait_channel(&one, "live").await;
    let diff = fixture.identity.service().get(&path(&org, "/diff")).await.json();
    assert_eq!((&diff["in_sync"], &diff["diff"]), (&json!(true), &json!("")), "{diff}");
    let before = fixture.document(&org).await;
    // Nobody is told of this.
    fixture
        .sql(
            "alter table notification_channel disable trigger notification_channel_changed; \
             alter table notification_route disable trigger notification_route_changed",
        )
        .await;
    let two = fixture.webhook(&org, "https://hooks.example.com/two").await;
    let broken = fixture.webhook(&org, "https://hooks.example.com/three").await;
    let other = fixture.route(&org, &broken, &["site=~\"(?R)b\""]).await;
    let diff = fixture.identity.service().get(&path(&org, "/diff")).await.json();
    assert_eq!(diff["in_sync"], false);
    let text = diff["diff"].as_str().unwrap();
    assert!(text.contains(&format!("+# channel {two}")), "{text}");
    assert!(!text.contains("hooks.example.com/two"), "{text}");
    assert_eq!(diff["not_live"][0]["id"], other, "{diff}");
    // Nothing was changed by looking.
    assert_eq!(fixture.document(&org).await, before);
    let done = fixture.sync(&org).await;
    assert_eq!(
        (&done["channels"]["live"], &done["routes"]["invalid"]),
        (&json!(3), &json!(1)),
        "{done}"
    );
    assert!(fixture.document(&org).await.contains(&two));
    let diff = fixture.identity.service().get(&path(&org, "/diff")).await.json();
    assert_eq!(diff["in_sync"], true, "{diff}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_says_what_became_of_it() {
    let fixture = channels_fixture(&[]).await;
    let org = fixture.identity.organisation().await;
    let (hook, others) = (Hook::start().await, Hook::start().await);
    let default = fixture.webhook(&org, &others.url("default")).await;
    fixture
        .sql(&format!("update notification_channel set is_default = true where id = '{default}'"))
        .await;
    let channel = fixture.webhook(&org, &hook.url("tested")).await;
    fixture.wait_channel(&channel, "live").await;
    fixture.wait_channel(&default, "live").await;

    let report = fixture.test(&org, &channel).await;
    assert_eq!(report["outcome"], "delivered", "{report}");
    let alert = &hook.alerts()[0];
    assert_eq!(alert["labels"]["mimir_tenant_proxy_test"], channel);
    assert_eq!(alert["labels"]["mimir_tenant_proxy_test_id"], report["test"]);
    // It goes to the channel that it names and to no other.
    assert!(others.alerts().is_empty());
    // The next one does not wait for the first one's interval.
    assert_eq!(fixture.test(&org, &channel).await["outcome"], "delivered");

    hook.answer_with(404);
    let report = fixture.test(&org, &channel).await;
    assert_eq!(report["outcome"], "failed", "{report}");
    assert!(report["reason"].as_str().unwrap().contains("4xx"), "{report}");
    hook.answer_with(500);
    let report = fixture.test(&org, &channel).await;
    assert_eq!(report["outcome"], "failed", "{report}");
    assert!(report["reason"].as_str().unwrap().contains("attempts failed"), "{report}");
    hook.answer_with(200);

    // One that is not live says so at once.
    fixture
        .sql(&format!("update notification_channel set enabled = false where id = '{channel}'"))
        .await;
    fixture.wait_channel(&channel, "disabled").await;
    let report = fixture.test(&org, &channel).await;
    assert_eq!(
        (&report["outcome"], &report["test"]),
        (&json!("not_live"), &Value::Null),
        "{report}"
    );
    assert!(report["took_ms"].as_u64().unwrap() < 5000, "{report}");
    let missing = uuid::Uuid::new_v4();
    let answer =
        fixture.identity.service().post(&path(&org, &format!("/{missing}/test")), "").await;
    assert_eq!(answer.status, 404, "{answer:?}");
    let metric =
        |outcome| format!("mimir_tenant_proxy_channels_tests_total{{outcome=\"{outcome}\"}}");
    assert_eq!(fixture.identity.proxy.metric(&metric("delivered")).await, 2.0);
}

// Each instance counts for itself: one that does not serve the tenant has nothing to say, and one that is
// away does not spoil the answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_test_reads_the_counters_of_every_instance() {
    let mimir = Mimir::shared().await.url();
    let idle = Upstream::start(|_| async {
        Response::new(full("cortex_alertmanager_config_hash{user=\"somebody\"} 1\n"))
    });
    let idle = idle.await;
    let dead = harness::free_port();
    let urls = format!("[{mimir:?}, {:?}, \"http://127.0.0.1:{dead}\"]", idle.url());
    let fixture = channels_fixture(&[("channels.urls", &urls)]).await;
    let org = fixture.identity.organisation().await;
    let hook = Hook::start().await;
    let channel = fixture.webhook(&org, &hook.url("tested")).await;
    fixture.wait_channel(&channel, "live").await;
    let report = fixture.test(&org, &channel).await;
    assert_eq!(report["outcome"], "delivered", "{report}");
    assert!(idle.heads().iter().any(|head| head.target == "/metrics"));
}

pub(super) fn settings(fixture: &ChannelsFixture) -> [(&'static str, String); 6] {
    let mimir = fixture.mimir.clone();
    [
        ("MTP__UPSTREAM__URLS", mimir),
        ("MTP__CHANNELS__ENABLED", "true".to_owned()),
        ("MTP__RULES__ENABLED", "true".to_owned()),
        ("MTP__CHANNELS__ALLOW_PRIVATE_TARGETS", "true".to_owned()),
        ("MTP__DATABASE__CONNECT_TIMEOUT", "5s".to_owned()),
        ("MTP__RULES__RECONCILE_INTERVAL", "1h".to_owned()),
    ]
}

// The exit codes are those of `rules`.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_compares_syncs_tests_and_confirms() {
    let fixture = channels_fixture(&[]).await;
    let org = fixture.identity.organisation().await;
    let hook = Hook::start().await;
    let channel = fixture.webhook(&org, &hook.url("tested")).await;
    fixture.wait_channel(&channel, "live").await;
    let environment = settings(&fixture);
    let run = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let environment: Vec<(&str, &str)> =
            environment.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let output = command_with(&fixture.identity.database, &environment, &words);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        println!(
            "{line}: {:?} {} {}",
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr)
        );
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };
    let (code, _, note) = run(&format!("channels diff --organisation {org}"));
    assert_eq!((code, note.contains("0 of them not in sync")), (0, true));
    let (code, answer, _) = run(&format!("channels test {channel} --organisation {org}"));
    assert_eq!((code, answer.starts_with("delivered: ")), (0, true));
    let (code, answer, _) = run(&format!("channels sync --organisation {org} --json"));
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((code, &answer["channels"]["live"]), (0, &json!(1)));
    assert_eq!(run("channels sync --organisation nosuch").0, 64);
    assert_eq!(run("channels diff --organisation nosuch").0, 64);
    assert_eq!(run(&format!("channels confirm 0123456789abcdef --organisation {org}")).0, 64);

    // Somebody else's document: a difference, held, and confirmed.
    let foreign = "route:\n  receiver: somebody\nreceivers:\n  - name: somebody\n";
    Mimir::shared().await.configure_alertmanager(&org, foreign).await;
    let (code, answer, _) = run(&format!("channels diff --organisation {org}"));
    assert_eq!((code, answer.contains("channels confirm ")), (1, true));
    let (code, _, note) = run(&format!("channels sync --organisation {org}"));
    assert_eq!((code, note.contains("channels confirm ")), (1, true));
    let id = note.split("channels confirm ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let (code, ..) = run(&format!("channels confirm {id} --organisation {org}"));
    assert_eq!(code, 0);
    assert!(fixture.document(&org).await.contains(&channel));
    let broken = fixture.channel(&org, "pigeon", &json!({}), &json!({})).await;
    fixture.wait_channel(&broken, "invalid").await;
    assert_eq!(run(&format!("channels sync --organisation {org}")).0, 1);
    assert_eq!(run(&format!("channels test {broken} --organisation {org}")).0, 1);
}

// Without any copy of the proxy the command leads itself.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_syncs_while_no_copy_runs() {
    let fixture = channels_fixture(&[]).await;
    let org = fixture.identity.organisation().await;
    fixture.identity.proxy.process.signal("KILL");
    let channel = fixture.webhook(&org, "https://hooks.example.com/one").await;
    let environment = settings(&fixture);
    let mut code = None;
    wait_until("the sync is done", SOON, async || {
        let environment: Vec<(&str, &str)> =
            environment.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let words = ["channels", "sync"];
        let output = command_with(&fixture.identity.database, &environment, &words);
        println!("{output:?}");
        code = output.status.code();
        code == Some(0)
    })
    .await;
    assert!(fixture.document(&org).await.contains(&channel));
    assert_eq!(fixture.channel_status(&channel).await.0, "live");
}
