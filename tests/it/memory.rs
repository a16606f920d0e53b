//! The memory of requests that wait, and of those of unknown callers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness::{Client, ORG_A, RawUpstream, Upstream, wait_until};
use http::Method;
use tokio::task::JoinSet;

use crate::support::identity::identity_fixture;
use crate::support::single::{self, PUSH, ProxyFixture, pieces, proxy_fixture};

/// Streams of one connection: nearly as many as permitted.
const STREAMS: usize = 120;
const MIB: u64 = 1 << 20;

/// Sends pushes over some HTTP/2 connections for a while, each with as many streams as permitted,
/// and as much of each body as is accepted.
async fn flood(clients: Vec<Client>, time: Duration) {
    let until = Instant::now() + time;
    let mut senders = JoinSet::new();
    for client in clients {
        for _ in 0..STREAMS {
            let client = client.clone();
            senders.spawn(async move {
                while Instant::now() < until {
                    // At the end all are cancelled, which the proxy may take for an attack.
                    let sending = client.try_send(Method::POST, PUSH, vec![b'x'; 256 << 10]);
                    let _ = tokio::time::timeout_at(until.into(), sending).await;
                }
            });
        }
    }
    senders.join_all().await;
}

// Rejections of unknown device keys are delayed, and each waiting stream keeps what it has sent:
// with 128 KiB per stream, 7 connections of one address took 121 MiB.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_callers_take_little_memory() {
    let upstream = Upstream::start(crate::support::responses::ok).await;
    let settings = [("listen.client_ip_header", "\"fly-client-ip\"")];
    let identity = identity_fixture(&upstream.url(), &settings).await;
    // A key of the right form that the database does not have.
    let elsewhere = identity_fixture(&upstream.url(), &[]).await;
    let organisation = identity.organisation().await;
    identity.device(&organisation, &["metrics:write"]).await;
    let organisation = elsewhere.organisation().await;
    let key = elsewhere.device_key(&organisation, serde_json::json!({"name": "x"})).await;
    let key = key["key"].as_str().unwrap();
    let client = |address: &str| {
        Client::h2c(&identity.proxy.url()).bearer(key).header("fly-client-ip", address)
    };
    // Warm up: one round of everything.
    flood(vec![client("10.0.0.1")], Duration::from_secs(1)).await;
    for addresses in [1, 3] {
        let before = identity.proxy.process.peak_memory();
        let clients = (0..addresses * 7).map(|at| client(&format!("10.0.0.{}", at % addresses)));
        flood(clients.collect(), Duration::from_secs(4)).await;
        let grown = (identity.proxy.process.peak_memory() - before) / MIB;
        println!("{addresses} addresses, {} connections: {grown} MiB more", addresses * 7);
        assert!(grown < 48, "{grown} MiB");
    }
    let backoffs = identity.proxy.metric("mimir_tenant_proxy_device_key_backoffs_total").await;
    assert!(backoffs > 1000.0, "{backoffs}");
}

fn of(fixture: &ProxyFixture) -> Client {
    Client::h2c(&fixture.proxy.url()).bearer(&fixture.issuer.user_of(ORG_A))
}

// The same with valid tokens that wait for a slot: 285 MiB.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_wait_for_a_slot_take_little_memory() {
    let upstream = Upstream::start(|_| std::future::pending()).await;
    let fixture = proxy_fixture(&upstream.url(), &[("limits.max_wait", "\"60s\"")]).await;
    flood(vec![of(&fixture)], Duration::from_secs(1)).await;
    let before = fixture.proxy.process.peak_memory();
    flood((0..20).map(|_| of(&fixture)).collect(), Duration::from_secs(15)).await;
    let grown = (fixture.proxy.process.peak_memory() - before) / MIB;
    println!("20 connections: {grown} MiB more");
    assert!(grown < 160, "{grown} MiB");
}

// hyper reads a piece of a body ahead. With two of 128 KiB of each stream it was 330 KiB, with one 216, all
// included.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_body_that_mimir_does_not_take_one_piece_is_in_memory() {
    const BODIES: usize = 64;
    let begun = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&begun);
    let upstream = RawUpstream::start(move |socket| {
        counter.fetch_add(1, Ordering::Relaxed);
        async move {
            std::future::pending::<()>().await;
            drop(socket);
        }
    })
    .await;
    let set = [("limits.push_body_bytes", "\"1GiB\"")];
    let fixture = proxy_fixture(&upstream.url(), &set).await;
    assert_eq!(fixture.client().get("/no/such/path").await.status, 404); // warm
    let before = fixture.proxy.process.peak_memory();
    let mut sending = JoinSet::new();
    for _ in 0..BODIES {
        let client = fixture.client();
        let body = reqwest::Body::wrap_stream(pieces(512, single::MIB));
        sending.spawn(async move { client.try_send(Method::POST, PUSH, body).await });
    }
    let all = "Mimir has all requests";
    wait_until(all, Duration::from_secs(20), async || begun.load(Ordering::Relaxed) >= BODIES)
        .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let grown = (fixture.proxy.process.peak_memory() - before) / 1024 / BODIES as u64;
    println!("{grown} KiB a stream");
    assert!(grown < 270, "{grown} KiB a stream");
}
