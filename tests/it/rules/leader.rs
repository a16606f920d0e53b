//! Two copies on one database: one writes at any time, and the other takes over within seconds.

use std::time::{Duration, Instant};

use harness::{Issuer, Mimir, Postgres, Proxy, ProxyOptions, wait_until};

use super::relay::Relay;
use super::{RulesFixture, SOON, groups_of, rules_fixture_on};

/// An upper bound: 4 s until Postgres ends a silent session, 0.5 s between attempts, 3 s before the new leader writes.
const TAKE_OVER: Duration = Duration::from_secs(10);
const LEADER: &str = "mimir_tenant_proxy_rules_leader";

/// The same for a leader that stops, until the other one leads: it releases the lock after its drain, and the other
/// one has it 0.5 s later. The test machine is slow. Without a release Postgres ends the session only after 4 s.
const HAND_OVER: Duration = Duration::from_secs(3);

/// Two copies, each with its own connection to Mimir; the first leads.
struct Two {
    first: RulesFixture,
    first_way: Relay,
    second: Proxy,
    second_way: Relay,
    mimir: String,
    _issuer: Issuer,
}

async fn two() -> Two {
    let mimir = Mimir::shared().await.url();
    let (first_way, second_way) = (Relay::start(&mimir).await, Relay::start(&mimir).await);
    let database = Postgres::shared().await.database("rules").await;
    let url = database.url();
    let first = rules_fixture_on(database, &mimir, &first_way.url(), &[]).await;
    wait_until("the first leads", SOON, async || first.identity.proxy.metric(LEADER).await == 1.0)
        .await;
    let issuer = Issuer::start().await;
    let second = ProxyOptions::new(&issuer.url(), &second_way.url())
        .set("database.url", &format!("{url:?}"))
        .set("rules.enabled", "true")
        .start()
        .await;
    Two { first, first_way, second, second_way, mimir, _issuer: issuer }
}

async fn second_takes_over(two: &Two, org: &str) {
    let began = Instant::now();
    let id = two.first.rule(org, "Later", "up == 1").await;
    wait_until("the second writes", TAKE_OVER, async || {
        groups_of(&two.mimir, org, "alert_rule")
            .await
            .values()
            .any(|all| all.contains(&"Later".to_owned()))
    })
    .await;
    println!("taken over after {:?}", began.elapsed());
    assert!(!two.second_way.written().is_empty());
    two.first.wait_state(&id, "live").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_both_are_well_only_one_writes() {
    let two = two().await;
    let org = two.first.identity.organisation().await;
    for n in 0..10 {
        let id = two.first.rule(&org, &format!("A{n}"), "up == 0").await;
        two.first.wait_state(&id, "live").await;
    }
    assert!(!two.first_way.written().is_empty());
    assert_eq!(two.second_way.written(), []);
    assert_eq!(two.second.metric(LEADER).await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_killed_is_replaced() {
    let two = two().await;
    let org = two.first.identity.organisation().await;
    let id = two.first.rule(&org, "First", "up == 0").await;
    two.first.wait_state(&id, "live").await;
    two.first.identity.proxy.process.signal("KILL");
    second_takes_over(&two, &org).await;
}

// On SIGTERM the lock is released after the drain.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stops_hands_over_immediately() {
    let two = two().await;
    let org = two.first.identity.organisation().await;
    let id = two.first.rule(&org, "First", "up == 0").await;
    two.first.wait_state(&id, "live").await;
    let began = Instant::now();
    two.first.identity.proxy.process.signal("TERM");
    wait_until("the second leads", TAKE_OVER, async || two.second.metric(LEADER).await == 1.0)
        .await;
    let handed_over = began.elapsed();
    assert!(handed_over < HAND_OVER, "handed over after {handed_over:?}");
    second_takes_over(&two, &org).await;
}

// A frozen process keeps its connections: the kernel acknowledges for it. The server ends its
// silent session, and after thawing, the process finds its lease expired before it writes.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_frozen_is_replaced_and_writes_nothing_when_it_thaws() {
    let two = two().await;
    let org = two.first.identity.organisation().await;
    let id = two.first.rule(&org, "First", "up == 0").await;
    two.first.wait_state(&id, "live").await;
    two.first.identity.proxy.process.signal("STOP");
    second_takes_over(&two, &org).await;
    let written = two.first_way.written();
    // The frozen copy's notifications are outdated.
    two.first.identity.proxy.process.signal("CONT");
    for n in 0..5 {
        let id = two.first.rule(&org, &format!("Thawed{n}"), "up == 0").await;
        two.first.wait_state(&id, "live").await;
    }
    wait_until("it knows that it does not lead", SOON, async || {
        two.first.identity.proxy.metric(LEADER).await == 0.0
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(two.first_way.written(), written, "a stale leader wrote");
    assert_eq!(two.second.metric(LEADER).await, 1.0);
}

// A leader that is cut off from the database stops writing before another copy may start.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_session_ends_stops_and_competes_again() {
    let two = two().await;
    let org = two.first.identity.organisation().await;
    let id = two.first.rule(&org, "First", "up == 0").await;
    two.first.wait_state(&id, "live").await;
    Postgres::shared().await.kill_connections_of(&two.first.identity.database).await;
    let id = two.first.rule(&org, "Second", "up == 0").await;
    two.first.wait_state(&id, "live").await;
    // The gauge of the one whose session ended follows with its next beat; it writes nothing without its lease.
    wait_until("one leads", SOON, async || {
        two.first.identity.proxy.metric(LEADER).await + two.second.metric(LEADER).await == 1.0
    })
    .await;
    let status = two.first.rule_status().await;
    assert_eq!(status["leader"]["is_leading"], true, "{status}");
}

// "Advisory locks relate only to the server on which they are acquired" (PostgreSQL, Hot Standby): a copy
// whose name of the database leads to a standby would get a lock of its own, and write old rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_database_is_a_standby_leads_only_once_it_is_promoted() {
    let mut primary = Postgres::start().await;
    let mimir = Mimir::shared().await.url();
    let (first_way, second_way) = (Relay::start(&mimir).await, Relay::start(&mimir).await);
    let database = primary.database("rules").await;
    let first = rules_fixture_on(database, &mimir, &first_way.url(), &[]).await;
    let org = first.identity.organisation().await;
    let id = first.rule(&org, "First", "up == 0").await;
    first.wait_state(&id, "live").await;
    let standby = primary.standby().await;
    let copy = standby.copy_of(&first.identity.database);
    let issuer = Issuer::start().await;
    let second = ProxyOptions::new(&issuer.url(), &second_way.url())
        .set("database.url", &format!("{:?}", copy.url()))
        .set("rules.enabled", "true")
        .start()
        .await;
    let why = "on which no copy can lead";
    wait_until("it says why", SOON, async || second.process.log().contains(why)).await;
    // Several attempts, and the time for which a new leader waits before it writes.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(second.metric(LEADER).await, 0.0);
    assert_eq!(second_way.written(), []);
    assert_eq!(second.process.log().matches(why).count(), 1, "it says so once");
    assert_eq!(first.identity.proxy.metric(LEADER).await, 1.0);

    // A failover: it is the primary now.
    primary.stop().await;
    copy.execute("select pg_promote()").await;
    wait_until("it leads", SOON, async || second.metric(LEADER).await == 1.0).await;
}
