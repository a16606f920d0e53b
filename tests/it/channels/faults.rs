//! Mimir is away, slow, or runs no Alertmanager; the proxy is killed and another one leads. Whatever
//! happens, it converges, and nothing is deleted on the way.

use std::time::Duration;

use harness::{Issuer, Mimir, Postgres, ProxyOptions, wait_until};

use super::{ChannelsFixture, SOON, channels_fixture, channels_fixture_on};
use crate::rules::relay::{Fault, Relay};

async fn disturbed(settings: &[(&str, &str)]) -> (ChannelsFixture, Relay) {
    let mimir = Mimir::shared().await.url();
    let relay = Relay::start(&mimir).await;
    let database = Postgres::shared().await.database("channels").await;
    let fixture = channels_fixture_on(database, &mimir, &relay.url(), settings).await;
    (fixture, relay)
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_alertmanager_is_away_states_say_so_and_then_it_heals() {
    let (fixture, relay) = disturbed(&[]).await;
    let org = fixture.identity.organisation().await;
    let one = fixture.webhook(&org, "https://hooks.example.com/one").await;
    fixture.wait_channel(&one, "live").await;
    for fault in [
        Fault::Status(500, None),
        Fault::Status(503, Some(1)),
        Fault::Status(429, Some(1)),
        Fault::Writes(500),
        Fault::HalfListing,
    ] {
        let before = fixture.document(&org).await;
        relay.set(fault.clone());
        let two = fixture.webhook(&org, "https://hooks.example.com/two").await;
        fixture.wait_channel(&two, "error").await;
        let (_, reason) = fixture.channel_status(&two).await;
        assert!(reason.contains("retried automatically"), "{fault:?}: {reason}");
        // What Mimir has it still has.
        assert_eq!(fixture.channel_status(&one).await.0, "live", "{fault:?}");
        assert_eq!(fixture.document(&org).await, before, "{fault:?}");
        let problem = fixture.identity.service().get("/admin/channels/status").await.json();
        assert!(problem["organisations"][0]["problem"].as_str().unwrap().len() > 5, "{problem}");
        relay.set(Fault::None);
        fixture.wait_channel(&two, "live").await;
        fixture.sql(&format!("delete from notification_channel where id = '{two}'")).await;
        wait_until("it is gone", SOON, async || !fixture.document(&org).await.contains(&two)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mimir_without_an_alertmanager_is_told_in_clear_words() {
    // A way on which the Alertmanager's paths are not there.
    let mimir = Mimir::shared().await.url();
    let relay = Relay::start(&mimir).await;
    let database = Postgres::shared().await.database("channels").await;
    let fixture = channels_fixture_on(database, &mimir, &relay.url(), &[]).await;
    let org = fixture.identity.organisation().await;
    relay.set(Fault::Status(404, None));
    let channel = fixture.webhook(&org, "https://hooks.example.com/one").await;
    fixture.wait_channel(&channel, "error").await;
    let (_, reason) = fixture.channel_status(&channel).await;
    assert!(reason.contains("operator has to switch on Mimir's Alertmanager"), "{reason}");
    let status = fixture.identity.service().get("/admin/channels/status").await.json();
    assert!(status.to_string().contains("runs no Alertmanager"), "{status}");
    let path = format!("/admin/organisations/{org}/channels/diff");
    let diff = fixture.identity.service().get(&path).await;
    assert!(diff.status == 404 && diff.text.contains("Mimir runs no Alertmanager"), "{diff:?}");
    // Switched on, it heals with the next sync.
    relay.set(Fault::None);
    fixture.sync(&org).await;
    fixture.wait_channel(&channel, "live").await;
}

// A leader that dies in the middle: another copy brings it to the same end, and deletes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_leader_loses_nothing() {
    let mimir = Mimir::shared().await.url();
    let relay = Relay::start(&mimir).await;
    let database = Postgres::shared().await.database("channels").await;
    let url = database.url();
    let fixture = channels_fixture_on(database, &mimir, &relay.url(), &[]).await;
    let org = fixture.identity.organisation().await;
    let one = fixture.webhook(&org, "https://hooks.example.com/one").await;
    fixture.wait_channel(&one, "live").await;
    let issuer = Issuer::start().await;
    let second = ProxyOptions::new(&issuer.url(), &mimir)
        .set("database.url", &format!("{url:?}"))
        .set("rules.enabled", "true")
        .set("channels.enabled", "true")
        .set("channels.allow_private_targets", "true")
        .start()
        .await;
    // Its writes hang while it is killed.
    relay.set(Fault::Slow(Duration::from_secs(3)));
    let two = fixture.webhook(&org, "https://hooks.example.com/two").await;
    let lost = fixture.webhook(&org, "https://hooks.example.com/lost").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    fixture.identity.proxy.process.signal("KILL");
    fixture
        .sql(&format!(
            "set session_replication_role = replica; delete from notification_channel where id = '{lost}'"
        ))
        .await;
    fixture.wait_channel(&two, "live").await;
    let document = fixture.document(&org).await;
    assert!(document.contains(&one) && document.contains(&two), "{document}");
    let leads = second.metric("mimir_tenant_proxy_rules_leader").await;
    assert_eq!(leads, 1.0);
}

// One organisation's broken channels do not delay the others.
#[tokio::test(flavor = "multi_thread")]
async fn one_organisations_trouble_is_not_anothers() {
    let (fixture, relay) = disturbed(&[]).await;
    let (wrong, well) =
        (fixture.identity.organisation().await, fixture.identity.organisation().await);
    relay.set(Fault::Tenant(wrong.clone(), 500));
    let broken = fixture.webhook(&wrong, "https://hooks.example.com/one").await;
    fixture.wait_channel(&broken, "error").await;
    let good = fixture.webhook(&well, "https://hooks.example.com/one").await;
    fixture.wait_channel(&good, "live").await;
    assert_eq!(fixture.identity.proxy.metric("mimir_tenant_proxy_channels_failing").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_channels_nothing_is_asked_of_mimir() {
    let (fixture, relay) = {
        let mimir = Mimir::shared().await.url();
        let relay = Relay::start(&mimir).await;
        let database = Postgres::shared().await.database("channels").await;
        let settings = [("channels.reconcile_interval", "\"1s\"")];
        (channels_fixture_on(database, &mimir, &relay.url(), &settings).await, relay)
    };
    fixture.identity.organisation().await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(relay.asked_for("/api/v1/alerts"), 0);
    let switched_off = channels_fixture(&[("channels.enabled", "false")]).await;
    let org = switched_off.identity.organisation().await;
    let path = format!("/admin/organisations/{org}/channels");
    let answer = switched_off.identity.service().get(&path).await;
    assert!(answer.status == 404 && answer.text.contains("channels.enabled"), "{answer:?}");
}
