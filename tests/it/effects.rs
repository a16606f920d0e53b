//! How soon a change in the database takes effect, during a load of a thousand requests per second.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use harness::{Client, Upstream};
use http::Method;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::identity::identity_fixture;
use crate::support::responses::ok;

const QUERY: &str = "/prometheus/api/v1/query?query=up";
const RATE: u32 = 1000;
const ROUNDS: usize = 25;
/// The longest time from the commit of a change to its effect.
const WITHIN: Duration = Duration::from_secs(1);

/// A steady load and its results.
#[derive(Default)]
struct Load {
    sent: AtomicUsize,
    failed: AtomicUsize,
    /// The response of the first failed request.
    first_failure: OnceLock<String>,
}

fn start_load(clients: Vec<Client>, stop: &CancellationToken, tasks: &TaskTracker) -> Arc<Load> {
    let load = Arc::new(Load::default());
    let (counted, stop, requests) = (Arc::clone(&load), stop.clone(), tasks.clone());
    tasks.spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_secs(1) / (RATE / 10));
        let mut next = 0;
        while !stop.is_cancelled() {
            tick.tick().await;
            for _ in 0..10 {
                let (client, counted) =
                    (clients[next % clients.len()].clone(), Arc::clone(&counted));
                next += 1;
                requests.spawn(async move {
                    let answer = client.try_send(Method::GET, QUERY, "").await;
                    counted.sent.fetch_add(1, Ordering::Relaxed);
                    if !answer.as_ref().is_ok_and(|answer| answer.status == 200) {
                        counted.failed.fetch_add(1, Ordering::Relaxed);
                        counted.first_failure.get_or_init(|| format!("{answer:?}"));
                    }
                });
            }
        }
    });
    load
}

/// The time until a caller gets a status.
async fn until(client: &Client, status: u16) -> Duration {
    let began = Instant::now();
    while client.get(QUERY).await.status.as_u16() != status {
        assert!(began.elapsed() < 5 * WITHIN, "not {status} within {:?}", 5 * WITHIN);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    began.elapsed()
}

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[(times.len() * 99).div_ceil(100) - 1]
}

// Comparable products promise "the same minute"; here it is a second, and no other request fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_takes_effect_within_a_second_under_load() {
    let upstream = Upstream::start(ok).await;
    let identity = identity_fixture(&upstream.url(), &[("log.access", "false")]).await;
    let a = identity.organisation().await;
    let mut others = Vec::new();
    for _ in 0..20 {
        others.push(identity.client(&identity.member(&a, "viewer").await));
        others.push(identity.device(&a, &["metrics:read"]).await);
    }
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let load = start_load(others, &stop, &tasks);
    let began = Instant::now();
    let (mut joined, mut left, mut keys, mut sessions) = (vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        let person = identity.person();
        let client = identity.client(&person);
        assert_eq!(client.get(QUERY).await.status, 403);
        identity.join(&person, &a, "viewer").await;
        joined.push(until(&client, 200).await);
        identity.leave(&person, &a).await;
        left.push(until(&client, 403).await);

        let key = identity.device_key(&a, json!({"name": "hub", "scopes": ["metrics:read"]})).await;
        let device = identity.proxy.client().bearer(key["key"].as_str().unwrap());
        assert_eq!(device.get(QUERY).await.status, 200);
        let id = key["id"].as_str().unwrap();
        let sql = format!("update device_key set revoked_at = now() where id = '{id}'");
        identity.database.execute(&sql).await;
        keys.push(until(&device, 401).await);

        let person = identity.member(&a, "viewer").await;
        let client = identity.client(&person);
        assert_eq!(client.get(QUERY).await.status, 200);
        let session = person.session;
        let sql =
            format!("insert into revocation (kind, value) values ('session_id', '{session}')");
        identity.database.execute(&sql).await;
        sessions.push(until(&client, 401).await);
    }
    let lasted = began.elapsed();
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    let (sent, failed) = (load.sent.load(Ordering::Relaxed), load.failed.load(Ordering::Relaxed));
    println!("{sent} requests of others in {lasted:?}, {failed} failed");
    for (what, times) in
        [("joined", joined), ("left", left), ("key revoked", keys), ("session revoked", sessions)]
    {
        let mean = times.iter().sum::<Duration>() / u32::try_from(times.len()).unwrap();
        let p99 = p99(times);
        println!("{what}: mean {mean:?}, p99 {p99:?}");
        assert!(p99 < WITHIN, "{what}: {p99:?}");
    }
    assert_eq!(failed, 0, "{:?}", load.first_failure.get());
    // The load really ran.
    let rate = f64::from(u32::try_from(sent).unwrap()) / lasted.as_secs_f64();
    assert!(rate > 0.5 * f64::from(RATE), "{rate} requests a second");
}
