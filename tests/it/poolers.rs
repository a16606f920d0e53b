//! A pooler between the proxy and its database that becomes a transaction pooler while the proxy runs: it accepts
//! `LISTEN`, advisory locks and heartbeats, and keeps none of them for the connection that asked.
//! <https://www.pgbouncer.org/features.html>

use std::time::Duration;

use harness::{Issuer, PgBouncer, Postgres, Proxy, ProxyOptions, Upstream, wait_until};

use crate::database::{listening, migrated};
use crate::support::identity::{IdentityFixture, identity_fixture_without_migration};
use crate::support::responses::ok;

const LEADER: &str = "mimir_tenant_proxy_rules_leader";
const LISTENING: &str = "mimir_tenant_proxy_database_listening";
/// A notification of its own is due every 5 s and may take 3.
const NOTICED: Duration = Duration::from_secs(15);
const SOON: Duration = Duration::from_secs(20);

/// A copy that leads by way of a session pooler.
async fn leading(bouncer: &PgBouncer, upstream: &Upstream) -> IdentityFixture {
    let database = migrated("pooled").await;
    let (url, settings) = (bouncer.url(&database), [("rules.enabled", "true")]);
    let identity =
        identity_fixture_without_migration(database, &url, &upstream.url(), &settings).await;
    listening(&identity).await;
    wait_until("it leads", SOON, async || identity.proxy.metric(LEADER).await == 1.0).await;
    identity
}

/// Another copy on the same database.
async fn another(
    identity: &IdentityFixture,
    bouncer: &PgBouncer,
    upstream: &Upstream,
) -> (Proxy, Issuer) {
    let issuer = Issuer::start().await;
    let options = ProxyOptions::new(&issuer.url(), &upstream.url())
        .set("database.url", &format!("{:?}", bouncer.url(&identity.database)))
        .set("rules.enabled", "true");
    (options.start().await, issuer)
}

// The heartbeats were answered by any session, so a leader stayed one without its lock, and silence looked like a
// database without changes: a removed member kept access for as long as memberships are cached.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_pooler_that_becomes_a_transaction_pooler_is_noticed() {
    let upstream = Upstream::start(ok).await;
    let bouncer = PgBouncer::session(Postgres::shared().await).await;
    let identity = leading(&bouncer, &upstream).await;
    let proxy = &identity.proxy;
    // Longer than the time between two notifications of its own: all is well.
    tokio::time::sleep(Duration::from_secs(9)).await;
    let log = proxy.process.log();
    assert!(
        !log.contains("LISTEN connection lost") && !log.contains("Leadership of alert rules lost"),
        "{log}"
    );

    bouncer.become_transaction().await;
    wait_until("no change is relied on", NOTICED, async || proxy.metric(LISTENING).await == 0.0)
        .await;
    wait_until("it leads no more", SOON, async || proxy.metric(LEADER).await == 0.0).await;
    wait_until("the log says why", SOON, async || {
        let log = proxy.process.log();
        let line = |message: &str| {
            log.lines().any(|line| line.contains(message) && line.contains("transaction pooler"))
        };
        line("LISTEN connection lost") && line("Leadership of alert rules lost")
    })
    .await;

    bouncer.become_session().await;
    wait_until("notifications arrive", SOON, async || proxy.metric(LISTENING).await == 1.0).await;
    wait_until("it leads again", SOON, async || proxy.metric(LEADER).await == 1.0).await;
}

// A session may take its own lock again, and behind a transaction pooler several copies share one.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_leads_behind_a_transaction_pooler() {
    let upstream = Upstream::start(ok).await;
    let bouncer = PgBouncer::session(Postgres::shared().await).await;
    let identity = leading(&bouncer, &upstream).await;
    let (second, _issuer) = another(&identity, &bouncer, &upstream).await;
    let leaders = async || identity.proxy.metric(LEADER).await + second.metric(LEADER).await;
    bouncer.become_transaction().await;
    wait_until("nobody leads", NOTICED, async || {
        let leaders = leaders().await;
        assert!(leaders <= 1.0, "{leaders} copies lead");
        let listening = identity.proxy.metric(LISTENING).await + second.metric(LISTENING).await;
        leaders == 0.0 && listening == 0.0
    })
    .await;
    // A copy competes every half a second; all sessions of before may end.
    Postgres::shared().await.kill_connections_of(&identity.database).await;
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(leaders().await, 0.0);
    }
    let why = "Cannot compete for the leadership of alert rules";
    let says_why = |log: String| {
        log.lines().any(|line| line.contains(why) && line.contains("transaction pooler"))
    };
    wait_until("both say why", SOON, async || {
        says_why(identity.proxy.process.log()) && says_why(second.process.log())
    })
    .await;

    bouncer.become_session().await;
    wait_until("one leads", SOON, async || leaders().await == 1.0).await;
}
