//! No instance is reachable, or none has room.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use harness::{Issuer, ORG_A, ProxyOptions, RawUpstream, wait_until};
use tokio::task::JoinSet;

use crate::support::fake_mimir::{FakeMimir, Mode};
use crate::support::instances::{before, counts};
use crate::support::single::{PUSH, QUERY};

// All instances are unreachable: 503 for all, with a spread Retry-After; it recovers by itself.
#[tokio::test(flavor = "multi_thread")]
async fn all_dead_is_a_503_that_spreads_and_all_comes_back() {
    let mut fakes = [FakeMimir::start().await, FakeMimir::start().await];
    let identity = before(&[&fakes[0], &fakes[1]], &[]).await;
    for fake in &mut fakes {
        fake.stop().await;
    }
    let mut seconds = std::collections::BTreeSet::new();
    for _ in 0..60 {
        let answer = identity.client().get(QUERY).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        seconds.insert(answer.header("retry-after").parse::<u64>().unwrap());
    }
    println!("Retry-After: {seconds:?}");
    assert!(seconds.len() >= 5 && seconds.iter().all(|s| (5..=15).contains(s)), "{seconds:?}");
    for fake in &mut fakes {
        fake.resume().await;
    }
    wait_until("all is well", Duration::from_secs(5), async || {
        identity.client().get(QUERY).await.status == 200
    })
    .await;
    wait_until("both are used", Duration::from_secs(10), async || {
        assert!(identity.send(20, 4).await.is_empty());
        counts(&[&fakes[0], &fakes[1]]).iter().all(|count| *count > 0)
    })
    .await;
}

// A machine that disappears is silent, like one that does not read: TCP gives up, the request goes
// elsewhere, and no client waits until the response would be due.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_does_not_read_is_given_up_before_its_timeout() {
    let silent = RawUpstream::start(|socket| async move {
        let _held = socket;
        std::future::pending::<()>().await;
    })
    .await;
    let good = FakeMimir::start().await;
    let issuer = Issuer::start().await;
    let proxy = ProxyOptions::new(&issuer.url(), &silent.url())
        .upstream(&good.url())
        .set("upstream.ack_timeout", "\"1s\"")
        .set("upstream.replay_buffer_bytes", "\"16MiB\"")
        .start()
        .await;
    let client = proxy.client().bearer(&issuer.user_of(ORG_A));
    let moved = "mimir_tenant_proxy_upstream_retries_total{reason=\"broken\"}";
    // The instance of a request is drawn by lot, so the number of requests before one meets the silent
    // instance has no bound.
    for attempt in 1.. {
        let began = Instant::now();
        // More than the buffers of both sides.
        let answer = client.post(PUSH, vec![b'x'; 12 << 20]).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
        if proxy.metric(moved).await >= 1.0 {
            println!("request {attempt} met the silent instance, and took {:?}", began.elapsed());
            break;
        }
        assert!(attempt < 60, "none met the silent instance");
    }
}

/// An address at which connecting hangs: its accept queue is full.
async fn black_hole() -> (SocketAddr, Vec<tokio::task::JoinHandle<()>>, tokio::net::TcpListener) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let filling = (0..8).map(|_| {
        tokio::spawn(async move {
            let _held = tokio::net::TcpStream::connect(address).await;
            std::future::pending::<()>().await;
        })
    });
    let filling = filling.collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    (address, filling, listener)
}

// Connecting hangs: one request at a time waits for it, the others fail immediately.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_circuit_answers_at_once() {
    let (address, filling, _listener) = black_hole().await;
    let issuer = Issuer::start().await;
    let proxy = ProxyOptions::new(&issuer.url(), &format!("http://{address}"))
        .set("upstream.connect_timeout", "\"1s\"")
        .set("upstream.eject_after", "1")
        .start()
        .await;
    let client = proxy.client().bearer(&issuer.user_of(ORG_A));
    assert_eq!(client.get(QUERY).await.status, 503);
    let mut asking = JoinSet::new();
    for _ in 0..20 {
        let client = client.clone();
        asking.spawn(async move {
            let began = Instant::now();
            assert_eq!(client.get(QUERY).await.status, 503);
            began.elapsed()
        });
    }
    let took = asking.join_all().await;
    let waited = took.iter().filter(|took| **took > Duration::from_millis(700)).count();
    println!("{waited} of 20 waited");
    assert!(waited <= 2, "{took:?}");
    let open = "mimir_tenant_proxy_requests_total{surface=\"query\",outcome=\"failed\",reason=\"upstream_circuit_open\"}";
    assert!(proxy.metric(open).await >= 15.0);
    filling.iter().for_each(tokio::task::JoinHandle::abort);
}

// Requests in flight at an instance are bounded: the rest get 503.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_gets_no_more_than_it_may_have() {
    let fake = FakeMimir::start_in(Mode::Slow(Duration::from_millis(700))).await;
    let settings = [
        ("upstream.max_in_flight", "5"),
        ("limits.organisation_percent", "100"),
        ("limits.max_wait", "\"0ms\""),
    ];
    let identity = before(&[&fake], &settings).await;
    let bad = identity.send(20, 20).await;
    assert!(bad.len() >= 14 && bad.iter().all(|status| *status == 503), "{bad:?}");
    assert!(fake.requests() <= 6, "{}", fake.requests());
    let full = "mimir_tenant_proxy_requests_total{surface=\"query\",outcome=\"rejected\",reason=\"overloaded\"}";
    assert!(identity.proxy.metric(full).await >= 5.0);
    assert_eq!(identity.all_ejections().await, 0.0);
    assert!(identity.send(4, 2).await.is_empty());
}
