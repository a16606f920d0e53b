//! Mimir is unavailable, slow or wrong; the proxy is killed. Rules converge all the same, and no
//! tenant waits for another one's failures.

use std::time::Duration;

use harness::{ChaosProxy, Mimir, Postgres, wait_until};

use super::relay::{Fault, Relay};
use super::{RulesFixture, SOON, rules_fixture, rules_fixture_on, write_group};

async fn disturbed(settings: &[(&str, &str)]) -> (RulesFixture, Relay) {
    let mimir = Mimir::shared().await.url();
    let relay = Relay::start(&mimir).await;
    let database = Postgres::shared().await.database("rules").await;
    let fixture = rules_fixture_on(database, &mimir, &relay.url(), settings).await;
    (fixture, relay)
}

// 5xx and 429 are retried with growing delays; the author reads that it is not their fault.
#[tokio::test(flavor = "multi_thread")]
async fn temporary_failures_of_mimir_are_retried() {
    let (fixture, relay) = disturbed(&[]).await;
    for fault in [
        Fault::Status(500, None),
        Fault::Status(503, Some(1)),
        Fault::Status(429, Some(1)),
        Fault::Writes(500),
        Fault::Slow(Duration::from_millis(300)),
    ] {
        let org = fixture.identity.organisation().await;
        relay.set(fault.clone());
        let id = fixture.rule(&org, "Up", "up == 0").await;
        if !matches!(fault, Fault::Slow(_)) {
            fixture.wait_state(&id, "error").await;
            let (_, reason) = fixture.status(&id).await;
            assert!(reason.contains("retried automatically"), "{fault:?}: {reason}");
            assert!(fixture.groups(&org).await.is_empty(), "{fault:?}");
            relay.set(Fault::None);
        }
        fixture.wait_state(&id, "live").await;
        fixture.wait_groups(&org, &[("default", &["Up"])]).await;
        relay.set(Fault::None);
    }
}

// `Retry-After` is respected.
#[tokio::test(flavor = "multi_thread")]
async fn retry_after_of_mimir_is_respected() {
    let (fixture, relay) = disturbed(&[]).await;
    let org = fixture.identity.organisation().await;
    fixture.sync_all().await;
    relay.set(Fault::Status(429, Some(4)));
    let began = std::time::Instant::now();
    let id = fixture.rule(&org, "Up", "up == 0").await;
    fixture.wait_state(&id, "error").await;
    relay.set(Fault::None);
    fixture.wait_state(&id, "live").await;
    assert!(began.elapsed() >= Duration::from_secs(4), "{:?}", began.elapsed());
}

// One tenant's failure does not affect others (observatorium's syncer stops at the first error).
#[tokio::test(flavor = "multi_thread")]
async fn tenants_do_not_wait_for_one_another() {
    let (fixture, relay) = disturbed(&[("rules.concurrency", "2")]).await;
    let ill = fixture.identity.organisation().await;
    relay.set(Fault::Tenant(ill.clone(), 500));
    let stuck = fixture.rule(&ill, "Up", "up == 0").await;
    for _ in 0..5 {
        let org = fixture.identity.organisation().await;
        let id = fixture.rule(&org, "Up", "up == 0").await;
        fixture.wait_state(&id, "live").await;
    }
    fixture.wait_state(&stuck, "error").await;
    let status = fixture.rule_status().await;
    let first = &status["organisations"][0];
    assert_eq!(first["organisation"], ill, "what is wrong comes first: {status}");
    assert!(first["problem"].as_str().unwrap().contains("500"), "{first}");
    assert_eq!(
        fixture.identity.proxy.metric("mimir_tenant_proxy_rules_tenants_failing").await,
        1.0
    );
    relay.set(Fault::None);
    fixture.wait_state(&stuck, "live").await;
    assert_eq!(
        fixture.identity.proxy.metric("mimir_tenant_proxy_rules_tenants_failing").await,
        0.0
    );
}

// A 400 that names no rule is not the author's fault; a truncated listing is not an empty one.
#[tokio::test(flavor = "multi_thread")]
async fn an_unexpected_response_of_mimir_deletes_nothing() {
    let (fixture, relay) = disturbed(&[]).await;
    let org = fixture.identity.organisation().await;
    let ids = [fixture.rule(&org, "A", "up == 0").await, fixture.rule(&org, "B", "up == 1").await];
    for id in &ids {
        fixture.wait_state(id, "live").await;
    }
    relay.set(Fault::Writes(400));
    fixture.sql(&format!("update alert_rule set expr = 'up == 2' where id = '{}'", ids[0])).await;
    fixture.wait_state(&ids[0], "error").await;
    assert_eq!(fixture.groups(&org).await["default"].len(), 2);
    relay.set(Fault::HalfListing);
    fixture.sql(&format!("update alert_rule set expr = 'up == 3' where id = '{}'", ids[0])).await;
    fixture.sync(&org).await;
    assert_eq!(fixture.status(&ids[0]).await.0, "error");
    // A listing is empty by mistake: the rules are written again.
    relay.set(Fault::EmptyListing);
    fixture.sync(&org).await;
    assert_eq!(fixture.groups(&org).await["default"].len(), 2);
    relay.set(Fault::None);
    fixture.wait_state(&ids[0], "live").await;
    let text = fixture.ruler(&org).get("/prometheus/config/v1/rules").await.text;
    assert!(text.contains("up == 3"), "{text}");
}

// Killed between two groups: the next leader completes the write, and no other group is changed.
#[tokio::test(flavor = "multi_thread")]
async fn killed_between_two_groups_it_converges() {
    let (fixture, relay) = disturbed(&[]).await;
    let org = fixture.identity.organisation().await;
    write_group(&fixture.ruler(&org), "theirs", "theirs", "Theirs").await;
    fixture.sync_all().await;
    relay.set(Fault::WritesAfter(2, 500));
    let groups: Vec<String> =
        (0..6).map(|n| format!("('{org}', 'A{n}', 'up == {n}', 'g{n}')")).collect();
    fixture
        .sql(&format!(
            "insert into alert_rule (organisation_id, name, expr, rule_group) values {}",
            groups.join(", ")
        ))
        .await;
    wait_until("two groups are there", SOON, async || fixture.groups(&org).await.len() == 2).await;
    fixture.identity.proxy.process.signal("KILL");
    relay.set(Fault::None);
    // Another copy on the same database.
    let database = fixture.identity.database.clone();
    let mimir = Mimir::shared().await.url();
    let fixture = rules_fixture_on(database, &mimir, &relay.url(), &[]).await;
    wait_until("all are there", SOON, async || fixture.groups(&org).await.len() == 6).await;
    wait_until("and are told so", SOON, async || {
        fixture.states(&org).await.get("live") == Some(&6)
    })
    .await;
    let all = fixture.ruler(&org).get("/prometheus/config/v1/rules").await.text;
    assert!(all.contains("Theirs"), "{all}");
}

// The database is unavailable and recovers: nothing is deleted, and changes made meanwhile go live.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_database_nothing_changes_and_then_everything_does() {
    let mut postgres = Postgres::start().await;
    let mimir = Mimir::shared().await.url();
    let database = postgres.database("rules").await;
    let fixture =
        rules_fixture_on(database, &mimir, &mimir, &[("rules.reconcile_interval", "\"1s\"")]).await;
    let org = fixture.identity.organisation().await;
    let id = fixture.rule(&org, "Up", "up == 0").await;
    fixture.wait_state(&id, "live").await;
    postgres.stop().await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(fixture.groups(&org).await.len(), 1);
    postgres.start_again().await;
    let second = fixture.rule(&org, "Down", "up == 1").await;
    fixture.wait_state(&second, "live").await;
    fixture.wait_groups(&org, &[("default", &["Up", "Down"])]).await;
}

// Reading a locked table fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_table_deletes_nothing() {
    let mimir = Mimir::shared().await.url();
    let database = Postgres::shared().await.database("rules").await;
    let settings =
        [("rules.reconcile_interval", "\"1s\""), ("database.query_timeout", "\"500ms\"")];
    let fixture = rules_fixture_on(database, &mimir, &mimir, &settings).await;
    let org = fixture.identity.organisation().await;
    let id = fixture.rule(&org, "Up", "up == 0").await;
    fixture.wait_state(&id, "live").await;
    let locker = fixture.identity.database.client().await;
    locker.batch_execute("begin; lock table alert_rule in access exclusive mode").await.unwrap();
    wait_until("a reading failed", SOON, async || {
        fixture.identity.proxy.metric("mimir_tenant_proxy_rules_full_resync_failures_total").await
            > 0.0
    })
    .await;
    assert_eq!(fixture.groups(&org).await.len(), 1);
    locker.batch_execute("rollback").await.unwrap();
    let second = fixture.rule(&org, "Down", "up == 1").await;
    fixture.wait_state(&second, "live").await;
}

// Seen: an organisation that could not be read was alone in the last batch, was taken for a database that is
// away, and no full resync ended well.
#[tokio::test(flavor = "multi_thread")]
async fn one_organisation_that_cannot_be_read_fails_no_full_resync() {
    let fixture = rules_fixture(&[]).await;
    let org = fixture.identity.organisation().await;
    let id = fixture.rule(&org, "Up", "up == 0").await;
    fixture.wait_state(&id, "live").await;
    fixture
        .sql(
            "create function unreadable() returns boolean language plpgsql cost 1000000 as \
             'begin raise exception ''too much''; end'; \
             alter table alert_rule rename to hidden; \
             create view alert_rule as select * from hidden where unreadable()",
        )
        .await;
    let done = fixture.sync_all().await;
    assert_eq!(done["outcome"]["outcomes"]["failed"], 1, "{done}");
    assert!(done["outcome"]["problem"].is_null(), "{done}");
    assert_eq!(fixture.groups(&org).await.len(), 1, "nothing is deleted");
}

// A change that could not be written and is reverted leaves the previous state and status.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_reverted_before_it_was_written_leaves_no_error() {
    let (fixture, relay) = disturbed(&[]).await;
    let org = fixture.identity.organisation().await;
    let id = fixture.rule(&org, "Up", "up == 0").await;
    fixture.wait_state(&id, "live").await;
    fixture.sync(&org).await;
    relay.set(Fault::Writes(500));
    fixture.sql(&format!("update alert_rule set expr = 'up == 1' where id = '{id}'")).await;
    fixture.wait_state(&id, "error").await;
    let reason = fixture.status(&id).await.1;
    // Members read this: no internals.
    assert!(!reason.contains("500") && !reason.contains("relay"), "{reason}");
    fixture.sql(&format!("update alert_rule set expr = 'up == 0' where id = '{id}'")).await;
    relay.set(Fault::None);
    fixture.wait_state(&id, "live").await;
}

// A rule that Mimir named before it became unavailable is its author's to fix, whatever happened to
// the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_rule_is_invalid_even_if_mimir_then_becomes_unavailable() {
    let (fixture, relay) = disturbed(&[]).await;
    let org = fixture.identity.organisation().await;
    fixture.sync_all().await;
    relay.set(Fault::WritesAfter(1, 500));
    fixture
        .sql(&format!(
            "insert into alert_rule (organisation_id, name, expr) \
             values ('{org}', 'Good', 'up == 0'), ('{org}', 'Bad', 'sum((')"
        ))
        .await;
    wait_until("one is refused and one waits", SOON, async || {
        let states = fixture.states(&org).await;
        states.get("invalid") == Some(&1) && states.get("error") == Some(&1)
    })
    .await;
    relay.set(Fault::None);
    fixture.wait_groups(&org, &[("default", &["Good"])]).await;
}

// Mimir is unreachable, and then the network drops everything: changes made meanwhile go live when
// Mimir is back, and the proxy starts without it.
#[tokio::test(flavor = "multi_thread")]
async fn while_mimir_is_down_nothing_is_lost() {
    let mimir = Mimir::shared().await;
    let chaos = ChaosProxy::start(([127, 0, 0, 1], mimir.port()).into()).await;
    chaos.cut();
    let database = Postgres::shared().await.database("rules").await;
    let settings = [("rules.request_timeout", "\"1s\"")];
    let fixture = rules_fixture_on(database, &mimir.url(), &chaos.url(), &settings).await;
    let org = fixture.identity.organisation().await;
    let id = fixture.rule(&org, "Up", "up == 0").await;
    fixture.wait_state(&id, "error").await;
    chaos.calm();
    fixture.wait_state(&id, "live").await;
    chaos.stall();
    fixture.sql(&format!("update alert_rule set name = 'Down' where id = '{id}'")).await;
    fixture.wait_state(&id, "error").await;
    chaos.calm();
    fixture.wait_groups(&org, &[("default", &["Down"])]).await;
    fixture.wait_state(&id, "live").await;
}

// A requested sync of all organisations includes those that wait for a retry, and reports all
// failures.
#[tokio::test(flavor = "multi_thread")]
async fn a_sync_of_all_includes_organisations_that_wait_for_a_retry() {
    let (fixture, relay) = disturbed(&[("rules.reconcile_interval", "\"1h\"")]).await;
    let mut ids = Vec::new();
    relay.set(Fault::Status(500, None));
    for _ in 0..3 {
        let org = fixture.identity.organisation().await;
        ids.push(fixture.rule(&org, "Up", "up == 0").await);
    }
    for id in &ids {
        fixture.wait_state(id, "error").await;
    }
    // The delays between attempts grow.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let failing = fixture.sync_all().await;
    assert_eq!(failing["outcome"]["outcomes"]["failed"], 3, "{failing}");
    relay.set(Fault::None);
    let done = fixture.sync_all().await;
    assert_eq!(done["outcome"]["outcomes"]["failed"].as_u64().unwrap_or(0), 0, "{done}");
    for id in &ids {
        assert_eq!(fixture.status(id).await.0, "live", "{done}");
    }
}

// If expressions cannot be checked, it takes longer and has no other effect.
#[tokio::test(flavor = "multi_thread")]
async fn without_format_query_invalid_rules_delay_no_other() {
    let (fixture, relay) = disturbed(&[]).await;
    let org = fixture.identity.organisation().await;
    relay.set(Fault::NoFormats);
    let sql = format!(
        "insert into alert_rule (organisation_id, name, expr, created_at) values \
         ('{org}', 'Good', 'up == 0', now()), ('{org}', 'Bad', 'sum((', now() + interval '1 s'), \
         ('{org}', 'Worse', 'nosuch(up)', now() + interval '2 s'), \
         ('{org}', 'Fine', 'up == 1', now() + interval '3 s')"
    );
    fixture.sql(&sql).await;
    fixture.wait_groups(&org, &[("default", &["Good", "Fine"])]).await;
    let wanted = [("invalid", 2), ("live", 2)].map(|(state, count)| (state.to_owned(), count));
    wait_until("all are told", SOON, async || fixture.states(&org).await == wanted.clone().into())
        .await;
    let failed = "mimir_tenant_proxy_rules_reconciles_total{outcome=\"failed\"}";
    assert_eq!(fixture.identity.proxy.metric(failed).await, 0.0);
}

// One row that the database refuses must not keep the statuses of all organisations waiting for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_the_database_refuses_holds_up_no_other() {
    let (fixture, _relay) = disturbed(&[]).await;
    let (bad, good) =
        (fixture.identity.organisation().await, fixture.identity.organisation().await);
    for table in ["alert_rule_status", "alert_rule_sync"] {
        let check = format!("add constraint not_this_one check (organisation_id <> '{bad}')");
        fixture.sql(&format!("alter table {table} {check}")).await;
    }
    let refused = fixture.rule(&bad, "Bad", "up == 0").await;
    fixture.wait_groups(&bad, &[("default", &["Bad"])]).await;
    let id = fixture.rule(&good, "Good", "up == 0").await;
    fixture.wait_state(&id, "live").await;
    assert_eq!(fixture.status(&refused).await.0, "");
    let log = fixture.identity.proxy.process.log();
    assert!(log.contains("Status of alert rules dropped"), "{log}");
}

// A right or a column that is missing, or a database that takes no writes: sessions stay, and no status can be written.
// What comes meanwhile is gathered, and the last of it is what is written.
#[tokio::test(flavor = "multi_thread")]
async fn statuses_that_could_not_be_written_for_a_while_are_right_afterwards() {
    let fixture = rules_fixture(&[("rules.reconcile_interval", "\"1h\"")]).await;
    let org = fixture.identity.organisation().await;
    let mut ids = Vec::new();
    for name in ["Stays", "Edited", "Goes"] {
        ids.push(fixture.rule(&org, name, "up == 0").await);
    }
    for id in &ids {
        fixture.wait_state(id, "live").await;
    }
    fixture.sql("alter table alert_rule_status rename column updated_at to hidden").await;
    for n in 1..=3 {
        let (name, id) = (format!("Edited{n}"), &ids[1]);
        let sql = format!("update alert_rule set name = '{name}' where id = '{id}'");
        fixture.sql(&sql).await;
        fixture.wait_groups(&org, &[("default", &["Stays", &name, "Goes"])]).await;
    }
    fixture.sql(&format!("delete from alert_rule where id = '{}'", ids[2])).await;
    fixture.wait_groups(&org, &[("default", &["Stays", "Edited3"])]).await;
    let broken = fixture.rule(&org, "Broken", "sum((").await;
    let failures = "mimir_tenant_proxy_rules_status_write_failures_total";
    wait_until("it was tried more than once", SOON, async || {
        fixture.identity.proxy.metric(failures).await > 2.0
    })
    .await;
    assert_eq!(fixture.status(&broken).await.0, "");

    fixture.sql("alter table alert_rule_status rename column hidden to updated_at").await;
    fixture.wait_state(&broken, "invalid").await;
    let wanted = [("invalid", 1), ("live", 2)].map(|(state, count)| (state.to_owned(), count));
    wait_until("all are told", SOON, async || fixture.states(&org).await == wanted.clone().into())
        .await;
    let left = format!("select 1 from alert_rule_tombstone where organisation_id = '{org}'");
    wait_until("no tombstone is left", SOON, async || {
        fixture.identity.database.query(&left).await.is_empty()
    })
    .await;
}
