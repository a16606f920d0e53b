//! Whether Mimir evaluates what it has: `stored`, `live`, `failing`, and what their authors read.

use std::time::Duration;

use harness::{Database, Memcached, Mimir, Postgres, wait_until};
use serde_json::Value;

use super::commands::run;
use super::relay::{Fault, Relay};
use super::{RulesFixture, SOON, rules_fixture, rules_fixture_on};

/// Evaluation is read all the time.
const OFTEN: (&str, &str) = ("rules.health_interval", "\"1s\"");
/// A rule that is evaluated every second is late after this.
const LATE: Duration = Duration::from_secs(90);

/// A rule that is evaluated every second.
async fn quick(fixture: &RulesFixture, org: &str, name: &str, expr: &str) -> String {
    fixture.rule_with(org, name, expr, "evaluation_interval = '1s'").await
}

async fn wait_health(fixture: &RulesFixture, rule: &str, state: &str, reason: &str) {
    wait_until(&format!("{rule} is {state}: {reason}"), LATE, async || {
        let (is, why) = fixture.health(rule).await;
        is == state && why.contains(reason)
    })
    .await;
}

/// Columns of a status, as texts.
async fn column(fixture: &RulesFixture, rule: &str, what: &str) -> Option<String> {
    let sql = format!("select ({what})::text from alert_rule_status where rule_id = '{rule}'");
    fixture.identity.database.query(&sql).await[0][0].clone()
}

/// What Mimir evaluates of a rule.
async fn loaded(fixture: &RulesFixture, org: &str) -> Vec<Value> {
    let answer = fixture.ruler(org).get("/prometheus/api/v1/rules?type=alert").await;
    let groups = answer.json()["data"]["groups"].as_array().cloned().unwrap_or_default();
    groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect()
}

async fn database() -> Database {
    Postgres::shared().await.database("rules").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_is_live_once_mimir_has_evaluated_this_version() {
    let fixture = rules_fixture(&[OFTEN]).await;
    let org = fixture.identity.organisation().await;
    let id = quick(&fixture, &org, "Hot", "sum(temperature) by (hub)>50").await;
    fixture.wait_state(&id, "live").await;
    let (state, reason) = fixture.health(&id).await;
    if state == "stored" {
        assert_eq!(reason, "Mimir has the rule and has not evaluated it yet");
        assert_eq!(column(&fixture, &id, "evaluated_at").await, None);
    }
    wait_health(&fixture, &id, "live", "").await;
    assert_eq!(
        column(&fixture, &id, "evaluated_at >= synced_at - interval '1s'").await.as_deref(),
        Some("true")
    );
    // The rule names its row, and the author's own annotation of that name does not count.
    let evaluated = loaded(&fixture, &org).await;
    assert_eq!(evaluated[0]["annotations"]["alert_rule_id"], id, "{evaluated:?}");
    let forged = "annotations = '{\"alert_rule_id\": \"0a0a0a0a-0a0a-4a0a-8a0a-0a0a0a0a0a0a\"}'";
    fixture.sql(&format!("update alert_rule set {forged} where id = '{id}'")).await;
    fixture.sync(&org).await;
    let evaluated = loaded(&fixture, &org).await;
    assert_eq!(evaluated[0]["annotations"]["alert_rule_id"], id, "{evaluated:?}");

    let service = fixture.identity.service();
    let list = service.get(&format!("/admin/organisations/{org}/rules")).await.json();
    let rule = &list["rules"][0];
    assert_eq!(rule["state"], "live", "{list}");
    assert!(rule["stored_since"].is_string() && rule["evaluated_at"].is_string(), "{list}");
    assert!(rule["notifies"].is_null(), "{list}");
    wait_until("the counts are told", SOON, async || fixture.rule_status().await["live"] == 1)
        .await;
    let metric = fixture.identity.proxy.metric("mimir_tenant_proxy_rules_rules{state=\"live\"}");
    assert!((metric.await - 1.0).abs() < f64::EPSILON);
    let reads = "mimir_tenant_proxy_rules_health_reads_total{outcome=\"read\"}";
    assert!(fixture.identity.proxy.metric(reads).await >= 1.0);

    // A new version begins anew.
    fixture
        .sql(&format!("update alert_rule set expr = 'temperature > 60' where id = '{id}'"))
        .await;
    wait_until("the edit is known", SOON, async || {
        column(&fixture, &id, "evaluated_at is null").await.as_deref() == Some("true")
    })
    .await;
    wait_health(&fixture, &id, "live", "").await;
    assert_eq!(loaded(&fixture, &org).await[0]["query"], "temperature > 60");
}

// Two results of one alert: Prometheus drops the whole evaluation, so the alert never fires.
#[tokio::test(flavor = "multi_thread")]
async fn a_label_that_makes_two_results_the_same_is_told_to_the_author() {
    let fixture = rules_fixture(&[OFTEN]).await;
    let org = fixture.identity.organisation().await;
    let two = "label_replace(vector(1), \"hub\", \"a\", \"\", \"\") or label_replace(vector(1), \"hub\", \"b\", \"\", \"\")";
    let id = quick(&fixture, &org, "Same", two).await;
    fixture
        .sql(&format!("update alert_rule set labels = '{{\"hub\": \"all\"}}' where id = '{id}'"))
        .await;
    let good = quick(&fixture, &org, "Good", "vector(1) > 2").await;
    let words = "two results of the expression are the same alert: the rule's labels replace those by which \
                 they differ. Rename such a label, or aggregate the expression (vector contains metrics with \
                 the same labelset after applying alert labels)";
    wait_health(&fixture, &id, "failing", words).await;
    wait_health(&fixture, &good, "live", "").await;

    let service = fixture.identity.service();
    let diff = service.get(&format!("/admin/organisations/{org}/rules/diff")).await.json();
    assert_eq!(diff["in_sync"], true, "{diff}");
    let failing = &diff["not_evaluated"][0];
    assert_eq!((failing["id"].as_str(), failing["state"].as_str()), (Some(&*id), Some("failing")));
    let (code, said, note) = run(&fixture, &["rules", "diff", "--organisation", &org]);
    assert_eq!(code, 0, "{said} {note}");
    assert!(said.contains(&format!("# failing: Same ({id}): two results")), "{said}");
    assert!(note.contains("rules failing in Mimir: 1"), "{note}");
    wait_until("it is counted", SOON, async || fixture.rule_status().await["failing"] == 1).await;

    fixture
        .sql(&format!("update alert_rule set labels = '{{\"of\": \"all\"}}' where id = '{id}'"))
        .await;
    wait_health(&fixture, &id, "live", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn evaluation_that_is_switched_off_for_a_tenant_is_told() {
    let mimir = Mimir::start_with(&["-ruler.poll-interval=2s"]).await;
    let fixture = rules_fixture_on(database().await, &mimir.url(), &mimir.url(), &[OFTEN]).await;
    let org = fixture.identity.organisation().await;
    let id = quick(&fixture, &org, "Hot", "vector(1) > 2").await;
    wait_health(&fixture, &id, "live", "").await;
    let words = "evaluation is switched off in Mimir; ask the operator";
    for off in [
        "{ruler_alerting_rules_evaluation_enabled: false}",
        "{ruler_alerting_rules_evaluation_enabled: false, ruler_recording_rules_evaluation_enabled: false}",
    ] {
        mimir.override_limits(&org, off).await;
        wait_health(&fixture, &id, "failing", words).await;
        mimir.override_limits(&org, "{}").await;
        wait_health(&fixture, &id, "live", "").await;
    }
}

// Mimir loads all rules of a tenant or none. After an upgrade that cannot parse one of them, none is
// evaluated; the stored text is unchanged, so a comparison of texts sees nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_an_upgraded_mimir_refuses_does_not_stop_the_others() {
    let mut mimir = Mimir::start().await;
    let fixture = rules_fixture_on(database().await, &mimir.url(), &mimir.url(), &[OFTEN]).await;
    let org = fixture.identity.organisation().await;
    let good = quick(&fixture, &org, "Good", "vector(1) > 2").await;
    let apart = fixture
        .rule_with(
            &org,
            "Apart",
            "vector(1) > 3",
            "evaluation_interval = '1s', rule_group = 'apart'",
        )
        .await;
    let bad = quick(&fixture, &org, "Bad", "last_over_time(up[5m]) > 4").await;
    for id in [&good, &apart, &bad] {
        wait_health(&fixture, id, "live", "").await;
    }
    // As if an earlier version of Mimir had known `lost_over_time` and taken the rule.
    mimir.stop();
    assert_eq!(mimir.replace_in_stored_rules("last_over_time", "lost_over_time"), 1);
    fixture
        .sql(&format!(
            "update alert_rule set expr = 'lost_over_time(up[5m]) > 4' where id = '{bad}'"
        ))
        .await;
    mimir.start_again().await;
    assert!(loaded(&fixture, &org).await.is_empty(), "no rule of the tenant is loaded");

    wait_health(&fixture, &bad, "invalid", "Mimir took the rule before and refuses it now").await;
    let (_, reason) = fixture.health(&bad).await;
    assert!(reason.contains("unknown function with name \"lost_over_time\""), "{reason}");
    for id in [&good, &apart] {
        wait_health(&fixture, id, "live", "").await;
    }
    let evaluated = loaded(&fixture, &org).await;
    assert_eq!(evaluated.len(), 2, "{evaluated:?}");
}

// A ruler that reads its storage by a cached listing does not see a new group for a while.
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_the_rulers_cached_listing_hides_is_stored() {
    let memcached = Memcached::start(&[]).await;
    let mimir = Mimir::start_with(&[
        "-ruler-storage.cache.backend=memcached",
        &format!("-ruler-storage.cache.memcached.addresses={}", memcached.address()),
        // It is told of no change, and finds them by itself.
        "-ruler.outbound-sync-queue-poll-interval=1h",
        "-ruler.poll-interval=10s",
    ])
    .await;
    let fixture = rules_fixture_on(database().await, &mimir.url(), &mimir.url(), &[OFTEN]).await;
    let org = fixture.identity.organisation().await;
    let first = quick(&fixture, &org, "First", "vector(1) > 2").await;
    wait_health(&fixture, &first, "live", "").await;
    let new = fixture
        .rule_with(&org, "New", "vector(1) > 3", "evaluation_interval = '1s', rule_group = 'new'")
        .await;
    fixture.wait_groups(&org, &[("default", &["First"]), ("new", &["New"])]).await;
    wait_health(&fixture, &new, "stored", "Mimir has the rule and has not evaluated it yet").await;
    assert_eq!(loaded(&fixture, &org).await.len(), 1, "Mimir evaluates what it had");
    wait_health(&fixture, &new, "live", "").await;
    // An edit: the version before it is evaluated for a while.
    fixture.sql(&format!("update alert_rule set expr = 'vector(1) > 4' where id = '{new}'")).await;
    wait_health(&fixture, &new, "stored", "still evaluates the version before the last change")
        .await;
    wait_health(&fixture, &new, "live", "").await;
}

// Somebody's own rules in the same tenant can stop ours: Mimir loads all or none.
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_mimir_does_not_load_is_written_again_and_failing() {
    let mut mimir = Mimir::start().await;
    let fixture = rules_fixture_on(database().await, &mimir.url(), &mimir.url(), &[OFTEN]).await;
    let org = fixture.identity.organisation().await;
    let id = quick(&fixture, &org, "Hot", "vector(1) > 2").await;
    wait_health(&fixture, &id, "live", "").await;
    let ruler = fixture.ruler(&org);
    let theirs = "name: g\nrules:\n- alert: Theirs\n  expr: last_over_time(up[5m])\n";
    let path = "/prometheus/config/v1/rules/theirs";
    let answer = ruler.clone().header("content-type", "application/yaml").post(path, theirs).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    mimir.stop();
    assert_eq!(mimir.replace_in_stored_rules("last_over_time", "lost_over_time"), 1);
    let writes = fixture.writes().await;
    mimir.start_again().await;
    wait_health(&fixture, &id, "failing", "Mimir has not evaluated it since").await;
    wait_until("it is written again", SOON, async || fixture.writes().await > writes).await;
    assert!((fixture.writes().await - writes - 1.0).abs() < f64::EPSILON, "once");
    fixture.wait_groups(&org, &[("default", &["Hot"])]).await;
    let deleted = ruler.send(http::Method::DELETE, path, Vec::new()).await;
    assert_eq!(deleted.status, 202, "{deleted:?}");
    wait_health(&fixture, &id, "live", "").await;
}

// What we cannot read is no evidence.
#[tokio::test(flavor = "multi_thread")]
async fn a_ruler_that_does_not_answer_makes_no_rule_failing() {
    let mimir = Mimir::shared().await.url();
    let relay = Relay::start(&mimir).await;
    let fixture = rules_fixture_on(database().await, &mimir, &relay.url(), &[OFTEN]).await;
    let org = fixture.identity.organisation().await;
    let id = quick(&fixture, &org, "Hot", "vector(1) > 2").await;
    wait_health(&fixture, &id, "live", "").await;
    for fault in [Fault::Status(500, None), Fault::Status(404, None)] {
        relay.set(fault);
        let failed = "mimir_tenant_proxy_rules_health_reads_total{outcome=\"failed\"}";
        let before = fixture.identity.proxy.metric(failed).await;
        wait_until("it is asked in vain", SOON, async || {
            fixture.identity.proxy.metric(failed).await >= before + 5.0
        })
        .await;
        assert_eq!(fixture.health(&id).await, ("live".to_owned(), String::new()));
        relay.set(Fault::None);
    }
}
