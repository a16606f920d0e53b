//! The database becomes unavailable and recovers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use harness::{ChaosProxy, Client, Postgres, Upstream, wait_until};
use http::Method;
use mimir_tenant_proxy::authn::NewKey;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::support::identity::{
    IdentityFixture, identity_fixture_on, identity_fixture_without_migration,
};
use crate::support::responses::ok;

const QUERY: &str = "/prometheus/api/v1/query?query=up";

async fn status(client: &Client) -> u16 {
    client.get(QUERY).await.status.as_u16()
}

/// A load of several callers, each with its statuses.
struct Load {
    stop: CancellationToken,
    callers: Vec<tokio::task::JoinHandle<BTreeMap<u16, usize>>>,
}

impl Load {
    fn start(clients: &[Client]) -> Self {
        let stop = CancellationToken::new();
        let callers = clients.iter().cloned().map(|client| {
            let stop = stop.clone();
            tokio::spawn(async move {
                let mut statuses = BTreeMap::new();
                while !stop.is_cancelled() {
                    *statuses.entry(status(&client).await).or_default() += 1;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                statuses
            })
        });
        let callers = callers.collect();
        Self { stop, callers }
    }

    async fn finish(self) -> BTreeMap<u16, usize> {
        self.stop.cancel();
        let mut all = BTreeMap::new();
        for caller in self.callers {
            for (status, count) in caller.await.unwrap() {
                *all.entry(status).or_default() += count;
            }
        }
        all
    }
}

/// Waits until a member is cached. The notification of the membership may arrive after the first
/// lookup, and an entry that is known to be outdated is not used while the database is unavailable.
async fn remembered(client: &Client) {
    wait_until("the member is remembered", Duration::from_secs(5), async || {
        let answer = client.get("/admin/whoami").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let again = client.get("/admin/whoami").await;
        [answer, again].iter().all(|answer| {
            answer.json()["memberships"].as_str().is_some_and(|text| text.starts_with("cached"))
        })
    })
    .await;
}

async fn upstream() -> Upstream {
    Upstream::start(ok).await
}

// Cached members and devices continue; unknown callers get 503, and no caller gets a 401: senders
// drop their data on it.
#[tokio::test(flavor = "multi_thread")]
async fn a_minute_without_the_database_does_not_affect_cached_callers() {
    let mut postgres = Postgres::start().await;
    let upstream = upstream().await;
    let database = postgres.database("outage").await;
    let identity = identity_fixture_on(database, &upstream.url(), &[]).await;
    let a = identity.organisation().await;
    let mut known = Vec::new();
    for _ in 0..4 {
        known.push(identity.client(&identity.member(&a, "viewer").await));
        known.push(identity.device(&a, &["metrics:read"]).await);
    }
    for client in &known {
        assert_eq!(status(client).await, 200);
    }
    let stranger = identity.member(&a, "viewer").await;
    let unknown_key = NewKey::generate().unwrap();
    let strangers =
        [identity.client(&stranger), identity.proxy.client().bearer(unknown_key.expose())];
    let load = Load::start(&known);
    tokio::time::sleep(Duration::from_secs(2)).await;
    postgres.stop().await;
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    while began.elapsed() < OUTAGE {
        for client in &strangers {
            let asked = Instant::now();
            let answer = client.get(QUERY).await;
            slowest = slowest.max(asked.elapsed());
            assert_eq!(answer.status, 503, "{answer:?}");
            assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
        }
        let admin = identity.service().get(&format!("/admin/organisations/{a}/device-keys")).await;
        assert_eq!(admin.status, 503, "{admin:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // No failing request waits.
    println!("slowest refusal: {slowest:?}");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    let stale = "mimir_tenant_proxy_directory_lookups_total{kind=\"membership\",outcome=\"stale\"}";
    assert!(identity.proxy.metric(stale).await > 0.0);
    assert_eq!(identity.proxy.metric("mimir_tenant_proxy_database_listening").await, 0.0);
    postgres.start_again().await;
    wait_until("a stranger is let in", Duration::from_secs(10), async || {
        status(&strangers[0]).await == 200
    })
    .await;
    wait_until("an unknown key is refused", Duration::from_secs(10), async || {
        status(&strangers[1]).await == 401
    })
    .await;
    wait_until("notifications arrive", Duration::from_secs(10), async || {
        identity.proxy.metric("mimir_tenant_proxy_database_listening").await == 1.0
    })
    .await;
    let statuses = load.finish().await;
    println!("requests of those who are known, by status: {statuses:?}");
    assert_eq!(statuses.keys().collect::<Vec<_>>(), [&200], "{statuses:?}");
    assert!(statuses[&200] > 10_000, "{statuses:?}");
    let stale = "mimir_tenant_proxy_directory_lookups_total{kind=\"device_key\",outcome=\"stale\"}";
    assert!(identity.proxy.metric(stale).await > 0.0);
    let log = identity.proxy.process.log();
    assert!(log.contains("using what is cached") && log.contains("recovered"), "{log}");
    known_again(&identity, &a).await;
}

const OUTAGE: Duration = Duration::from_secs(60);

/// Changes take effect as before.
async fn known_again(identity: &IdentityFixture, organisation: &str) {
    let person = identity.member(organisation, "viewer").await;
    let client = identity.client(&person);
    assert_eq!(status(&client).await, 200);
    identity.leave(&person, organisation).await;
    wait_until("they have left", Duration::from_secs(1), async || status(&client).await == 403)
        .await;
}

// Not even the first request of an outage waits, cached or not, whatever is looked up; and the log
// names the real cause.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_request_of_an_outage_does_not_wait() {
    let mut postgres = Postgres::start().await;
    let upstream = upstream().await;
    let database = postgres.database("first").await;
    let settings = [
        ("auth.check_sessions", "true"),
        ("database.session_query", "\"select unnest($1::uuid[]) as id\""),
        ("database.session_ttl", "\"1s\""),
    ];
    let identity = identity_fixture_on(database, &upstream.url(), &settings).await;
    let a = identity.organisation().await;
    let mut known = Vec::new();
    for _ in 0..3 {
        known.push(identity.client(&identity.member(&a, "viewer").await));
    }
    known.push(identity.device(&a, &["metrics:read"]).await);
    for client in &known {
        assert_eq!(status(client).await, 200);
    }
    remembered(&known[0]).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    postgres.stop().await;
    let unknown_key = NewKey::generate().unwrap();
    let strangers =
        [identity.client(&identity.person()), identity.proxy.client().bearer(unknown_key.expose())];
    // Logged at once, and again when the database has been unavailable for a while.
    for round in 0..2 {
        for (client, wanted) in
            known.iter().map(|known| (known, 200)).chain(strangers.iter().map(|one| (one, 503)))
        {
            let asked = Instant::now();
            assert_eq!(status(client).await, wanted, "{round}");
            let took = asked.elapsed();
            println!("round {round}: {wanted} after {took:?}");
            assert!(took < Duration::from_millis(1500), "{wanted}: {took:?}");
        }
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
    let log = identity.proxy.process.log();
    assert!(log.contains("refused") && log.contains("127.0.0.1:"), "{log}");
    assert!(!log.contains("pool timed out") && !log.contains("at line"), "{log}");
}

// A change without a notification is read after reconnecting.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_while_the_connection_is_lost_is_found_afterwards() {
    let postgres = Postgres::start().await;
    let upstream = upstream().await;
    let identity = identity_fixture_on(postgres.database("lost").await, &upstream.url(), &[]).await;
    let a = identity.organisation().await;
    for _ in 0..5 {
        let person = identity.member(&a, "viewer").await;
        let client = identity.client(&person);
        assert_eq!(status(&client).await, 200);
        let killed = postgres.kill_connections_of(&identity.database).await;
        assert!(killed > 0);
        identity.leave(&person, &a).await;
        let began = Instant::now();
        wait_until("they have left", Duration::from_secs(2), async || status(&client).await == 403)
            .await;
        println!("{:?} after the change", began.elapsed());
    }
}

// The worst case: the network drops everything, and silence looks like "no changes".
#[tokio::test(flavor = "multi_thread")]
async fn a_silently_broken_database_connection_is_noticed() {
    let postgres = Postgres::start().await;
    let upstream = upstream().await;
    let database = postgres.database("silent").await;
    assert!(crate::support::identity::command(&database, &["migrate"]).status.success());
    let chaos = ChaosProxy::start(postgres.address()).await;
    let url = database.url_through(chaos.address());
    let settings =
        [("database.connect_timeout", "\"500ms\""), ("database.query_timeout", "\"500ms\"")];
    let identity =
        identity_fixture_without_migration(database, &url, &upstream.url(), &settings).await;
    let a = identity.organisation().await;
    let person = identity.member(&a, "viewer").await;
    let client = identity.client(&person);
    assert_eq!(status(&client).await, 200);
    remembered(&client).await;
    chaos.stall();
    wait_until("the silence is noticed", Duration::from_secs(6), async || {
        identity.proxy.metric("mimir_tenant_proxy_database_listening").await == 0.0
    })
    .await;
    // Cached users continue meanwhile.
    assert_eq!(status(&client).await, 200);
    identity.leave(&person, &a).await;
    chaos.calm();
    wait_until("they have left", Duration::from_secs(10), async || status(&client).await == 403)
        .await;
}

// From another continent the first preparation of the queries takes seconds. If it were given up
// each time, it would never succeed.
#[tokio::test(flavor = "multi_thread")]
async fn a_distant_database_works() {
    let postgres = Postgres::start().await;
    let upstream = upstream().await;
    let database = postgres.database("far").await;
    assert!(crate::support::identity::command(&database, &["migrate"]).status.success());
    let chaos = ChaosProxy::start(postgres.address()).await;
    chaos.move_away(Duration::from_millis(150));
    let url = database.url_through(chaos.address());
    let identity = identity_fixture_without_migration(database, &url, &upstream.url(), &[]).await;
    let a = identity.organisation().await;
    let person = identity.member(&a, "viewer").await;
    let client = identity.client(&person);
    wait_until("they are let in", Duration::from_secs(20), async || status(&client).await == 200)
        .await;
    identity.leave(&person, &a).await;
    wait_until("they have left", Duration::from_secs(3), async || status(&client).await == 403)
        .await;
}

// A locked table is an unavailable database: cached callers continue.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_table_delays_no_cached_caller() {
    let postgres = Postgres::start().await;
    let upstream = upstream().await;
    let settings = [
        ("database.cache_ttl", "\"1s\""),
        ("database.query_timeout", "\"500ms\""),
        ("database.connect_timeout", "\"500ms\""),
    ];
    let identity =
        identity_fixture_on(postgres.database("locked").await, &upstream.url(), &settings).await;
    let a = identity.organisation().await;
    let client = identity.client(&identity.member(&a, "viewer").await);
    assert_eq!(status(&client).await, 200);
    remembered(&client).await;
    let locker = identity.database.client().await;
    locker.batch_execute("begin; lock table membership in access exclusive mode").await.unwrap();
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    while began.elapsed() < Duration::from_secs(5) {
        let asked = Instant::now();
        assert_eq!(status(&client).await, 200);
        slowest = slowest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("slowest: {slowest:?}");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    let stranger = identity.person();
    assert_eq!(status(&identity.client(&stranger)).await, 503);
    locker.batch_execute("rollback").await.unwrap();
    wait_until("it is read again", Duration::from_secs(5), async || {
        status(&identity.client(&stranger)).await == 403
    })
    .await;
}

// The database cancels long statements, so that a lock on one table does not use up the connections
// for the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_table_delays_no_lookup_of_another() {
    let postgres = Postgres::start().await;
    let upstream = upstream().await;
    let identity =
        identity_fixture_on(postgres.database("locked").await, &upstream.url(), &[]).await;
    let a = identity.organisation().await;
    let known = identity.client(&identity.member(&a, "viewer").await);
    assert_eq!(status(&known).await, 200);
    remembered(&known).await;
    let locker = identity.database.client().await;
    locker.batch_execute("begin; lock table membership in access exclusive mode").await.unwrap();
    // Unknown callers keep the lookup of the table busy all the time.
    let stop = CancellationToken::new();
    let strangers = (0..8).map(|_| {
        let (client, stop) = (identity.client(&identity.person()), stop.clone());
        tokio::spawn(async move {
            while !stop.is_cancelled() {
                assert_eq!(status(&client).await, 503);
            }
        })
    });
    let strangers: Vec<_> = strangers.collect();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(15) {
        let device = identity.device(&a, &["metrics:read"]).await;
        let asked = Instant::now();
        assert_eq!(status(&device).await, 200);
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        assert_eq!(status(&known).await, 200);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    stop.cancel();
    for stranger in strangers {
        stranger.await.unwrap();
    }
    locker.batch_execute("rollback").await.unwrap();
}

// Notifications do not arrive, because the role has reached its connection limit; reads still work.
// A revocation must not wait for the next minute.
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_takes_effect_soon_without_notifications() {
    let postgres = Postgres::start().await;
    let upstream = upstream().await;
    let database = postgres.database("unheard").await;
    assert!(crate::support::identity::command(&database, &["migrate"]).status.success());
    database
        .execute(
            "create role limited login bypassrls; grant all on all tables in schema public to limited;
             grant usage on schema public to limited",
        )
        .await;
    let url = database.url().replace("postgres@", "limited@");
    let identity = identity_fixture_without_migration(database, &url, &upstream.url(), &[]).await;
    let a = identity.organisation().await;
    let person = identity.member(&a, "viewer").await;
    let client = identity.client(&person);
    assert_eq!(status(&client).await, 200);
    let ours = "from pg_stat_activity where usename = 'limited'";
    let count = identity.database.query(&format!("select count(*) - 1 {ours}")).await;
    let limit = count[0][0].clone().unwrap();
    identity.database.execute(&format!("alter role limited connection limit {limit}")).await;
    // The listening connection only sends keep-alive queries.
    let killed = identity
        .database
        .query(&format!(
            "select pg_terminate_backend(pid) {ours} and query ilike any('{{listen%,%pg_listening_channels%}}')"
        ))
        .await;
    assert_eq!(killed.len(), 1);
    wait_until("nobody listens", Duration::from_secs(3), async || {
        identity.proxy.metric("mimir_tenant_proxy_database_listening").await == 0.0
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let sql = format!("insert into revocation (kind, value) values ('sub', '{}')", person.id);
    identity.database.execute(&sql).await;
    wait_until("it strikes", Duration::from_secs(2), async || status(&client).await == 401).await;
    assert_eq!(identity.proxy.metric("mimir_tenant_proxy_database_listening").await, 0.0);
    // The only connection for look-ups may be in use by the reading of revocations.
    let other = identity.client(&identity.member(&a, "viewer").await);
    wait_until("others are served", Duration::from_secs(10), async || status(&other).await == 200)
        .await;
}

// A proxy that starts without its database answers 503, and recovers.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_starts_without_its_database_heals_by_itself() {
    let mut postgres = Postgres::start().await;
    let upstream = upstream().await;
    let database = postgres.database("late").await;
    let first = identity_fixture_on(database.clone(), &upstream.url(), &[]).await;
    let a = first.organisation().await;
    let person = first.member(&a, "viewer").await;
    let key = first.device_key(&a, json!({"name": "hub", "scopes": ["metrics:read"]})).await;
    drop(first.proxy);
    postgres.stop().await;
    let url = database.url();
    let identity = identity_fixture_without_migration(database, &url, &upstream.url(), &[]).await;
    let token = identity.token_of(person.id, person.session);
    let user = identity.proxy.client().bearer(&token);
    let device = identity.proxy.client().bearer(key["key"].as_str().unwrap());
    for client in [&user, &device] {
        assert_eq!(status(client).await, 503);
    }
    // A mistyped name would create a new tenant, and whether it exists is unknown.
    let service = identity.service().header("x-scope-orgid", &a);
    assert_eq!(status(&service).await, 503);
    postgres.start_again().await;
    for client in [&user, &device, &service] {
        wait_until("they are let in", Duration::from_secs(15), async || {
            status(client).await == 200
        })
        .await;
    }
    let path = format!("/admin/organisations/{a}/device-keys");
    assert_eq!(identity.service().send(Method::GET, &path, "").await.status, 200);
}
