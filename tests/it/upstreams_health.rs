use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness::{Client, Issuer, ORG_A, Proxy, ProxyOptions, RawUpstream, raw_exchange, wait_until};
use http::Method;
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;

use crate::fake::{Fake, JSON, Mode, TEXT};
use crate::scene::{PUSH, QUERY};

struct Town {
    issuer: Issuer,
    proxy: Proxy,
}

/// A proxy that ejects soon and lets back soon, before some instances.
async fn before(fakes: &[&Fake], settings: &[(&str, &str)]) -> Town {
    let issuer = Issuer::start().await;
    let options = ProxyOptions::new(&issuer.url(), &fakes[0].url())
        .set("listen.workers", "2")
        .set("upstream.eject_min", "\"300ms\"")
        .set("upstream.eject_max", "\"600ms\"")
        .set("upstream.slow_start", "\"500ms\"");
    let options = fakes[1..].iter().fold(options, |options, fake| options.upstream(&fake.url()));
    let options = settings.iter().fold(options, |options, (key, value)| options.set(key, value));
    Town { proxy: options.start().await, issuer }
}

impl Town {
    fn client(&self) -> Client {
        self.proxy.client().bearer(&self.issuer.user_of(ORG_A))
    }

    async fn ejections(&self, reason: &str) -> f64 {
        let name = "mimir_tenant_proxy_upstream_ejections_total";
        self.proxy.metric(&format!("{name}{{reason=\"{reason}\"}}")).await
    }

    async fn all_ejections(&self) -> f64 {
        let mut sum = 0.0;
        for reason in
            ["unreachable", "timeout", "broken", "broken_body", "server_error", "not_ready"]
        {
            sum += self.ejections(reason).await;
        }
        sum
    }

    /// Sends reads and pushes, some at a time, and gives the statuses of what was not 200.
    async fn send(&self, count: usize, at_a_time: usize) -> Vec<u16> {
        let (client, sent) = (self.client(), Arc::new(AtomicUsize::new(0)));
        let mut senders = JoinSet::new();
        for _ in 0..at_a_time {
            let (client, sent) = (client.clone(), Arc::clone(&sent));
            senders.spawn(async move {
                let mut bad = Vec::new();
                loop {
                    let number = sent.fetch_add(1, Ordering::SeqCst);
                    if number >= count {
                        return bad;
                    }
                    let answer = if number % 2 == 0 {
                        client.get(QUERY).await
                    } else {
                        client.post(PUSH, vec![b'x'; 20_000]).await
                    };
                    if answer.status != 200 {
                        bad.push(answer.status.as_u16());
                    }
                }
            });
        }
        senders.join_all().await.into_iter().flatten().collect()
    }
}

fn counts(fakes: &[&Fake]) -> Vec<usize> {
    fakes.iter().map(|fake| fake.requests()).collect()
}

// Equally good instances get about the same; one that is slow has requests piling up, and so gets
// fewer.
#[tokio::test(flavor = "multi_thread")]
async fn the_less_loaded_instance_gets_more() {
    let (one, two, three) = (Fake::start().await, Fake::start().await, Fake::start().await);
    for fake in [&one, &two, &three] {
        fake.set(Mode::Slow(Duration::from_millis(5)));
    }
    let town = before(&[&one, &two, &three], &[]).await;
    assert!(town.send(600, 12).await.is_empty());
    let equal = counts(&[&one, &two, &three]);
    println!("equal: {equal:?}");
    assert!(equal.iter().all(|count| (120..300).contains(count)), "{equal:?}");
    three.set(Mode::Slow(Duration::from_millis(500)));
    assert!(town.send(600, 12).await.is_empty());
    let slow = three.requests() - equal[2];
    println!("slow: {slow} of 600");
    assert!(slow < 130, "{slow} of 600 went to the slow one");
    assert_eq!(town.all_ejections().await, 0.0, "slow is not broken");
}

/// Breaks one of three instances in some way, sees the load move away and, once it works again,
/// come back.
async fn moves_away_and_comes_back(mode: Mode, reason: &str, settings: &[(&str, &str)]) {
    let (bad, good, other) = (Fake::start().await, Fake::start().await, Fake::start().await);
    let town = before(&[&bad, &good, &other], settings).await;
    assert!(town.send(60, 4).await.is_empty());
    assert!(bad.requests() > 0);
    bad.set(mode);
    let first = town.send(100, 8).await;
    println!("{mode:?}: {} of the first 100 failed", first.len());
    assert!(first.len() < 30, "{first:?}");
    assert!(town.ejections(reason).await >= 1.0, "{reason}");
    // Now and then it is tried again.
    let (before, began) = (bad.requests(), Instant::now());
    let later = town.send(400, 8).await;
    let tried = bad.requests() - before;
    println!("{mode:?}: {tried} of 400 in {:?}, {} failed", began.elapsed(), later.len());
    assert!(tried < 60, "{tried} of 400");
    assert!(later.len() <= tried, "{later:?}");
    bad.set(Mode::Fine);
    wait_until("it has its share again", Duration::from_secs(20), async || {
        let before = bad.requests();
        assert!(town.send(60, 4).await.len() <= 1);
        bad.requests() - before > 10
    })
    .await;
    assert!(town.proxy.metric("mimir_tenant_proxy_upstream_returns_total").await >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn load_moves_away_from_an_instance_that_answers_500() {
    moves_away_and_comes_back(Mode::Status(500, TEXT), "server_error", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn load_moves_away_from_an_instance_that_breaks_off() {
    moves_away_and_comes_back(Mode::Break, "broken", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn load_moves_away_from_an_instance_that_hangs() {
    let timeout = ("upstream.response_timeout", "\"400ms\"");
    moves_away_and_comes_back(Mode::Hang, "timeout", &[timeout]).await;
}

// Killed, and started again later: no request fails, before, meanwhile or after.
#[tokio::test(flavor = "multi_thread")]
async fn restarts_under_load_fail_no_request() {
    let mut fakes = [Fake::start().await, Fake::start().await, Fake::start().await];
    for fake in &fakes {
        fake.set(Mode::Slow(Duration::from_millis(3)));
    }
    let town = before(
        &[&fakes[0], &fakes[1], &fakes[2]],
        &[("upstream.ready_interval", "\"500ms\""), ("upstream.retry_reserve", "50")],
    )
    .await;
    let (over, client) = (Arc::new(AtomicBool::new(false)), town.client());
    let mut senders = JoinSet::new();
    for sender in 0..12 {
        let (over, client) = (Arc::clone(&over), client.clone());
        senders.spawn(async move {
            let (mut sent, mut bad) = (0, Vec::new());
            while !over.load(Ordering::SeqCst) {
                let answer = match sender % 3 {
                    0 => client.get(QUERY).await,
                    1 => client.post(PUSH, vec![b'x'; 60_000]).await,
                    _ => client.post_form("/prometheus/api/v1/query", "query=up").await,
                };
                sent += 1;
                if answer.status != 200 {
                    bad.push(format!("{} {}", answer.status, answer.text));
                }
            }
            (sent, bad)
        });
    }
    for round in 0..6 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let fake = &mut fakes[round % 3];
        fake.stop().await;
        tokio::time::sleep(Duration::from_millis(if round < 3 { 300 } else { 20 })).await;
        fake.resume().await;
        let before = fake.requests();
        let fake = &*fake;
        wait_until("it is used again", Duration::from_secs(10), async || {
            fake.requests() > before + 5
        })
        .await;
    }
    over.store(true, Ordering::SeqCst);
    let (mut sent, mut bad) = (0, Vec::new());
    for (count, failed) in senders.join_all().await {
        sent += count;
        bad.extend(failed);
    }
    let retries =
        |reason| format!("mimir_tenant_proxy_upstream_retries_total{{reason=\"{reason}\"}}");
    for reason in ["unreachable", "stale", "broken"] {
        println!("{reason}: {}", town.proxy.metric(&retries(reason)).await);
    }
    println!("{sent} requests, {} failed", bad.len());
    assert!(sent > 200 && bad.is_empty(), "{} of {sent}: {bad:?}", bad.len());
}

// Nobody is there: 503 for everybody, spread; and all works again by itself.
#[tokio::test(flavor = "multi_thread")]
async fn all_dead_is_a_503_that_spreads_and_all_comes_back() {
    let mut fakes = [Fake::start().await, Fake::start().await];
    let town = before(&[&fakes[0], &fakes[1]], &[]).await;
    for fake in &mut fakes {
        fake.stop().await;
    }
    let mut seconds = std::collections::BTreeSet::new();
    for _ in 0..60 {
        let answer = town.client().get(QUERY).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        seconds.insert(answer.header("retry-after").parse::<u64>().unwrap());
    }
    println!("Retry-After: {seconds:?}");
    assert!(seconds.len() >= 5 && seconds.iter().all(|s| (5..=15).contains(s)), "{seconds:?}");
    for fake in &mut fakes {
        fake.resume().await;
    }
    wait_until("all is well", Duration::from_secs(5), async || {
        town.client().get(QUERY).await.status == 200
    })
    .await;
    wait_until("both are used", Duration::from_secs(10), async || {
        assert!(town.send(20, 4).await.is_empty());
        counts(&[&fakes[0], &fakes[1]]).iter().all(|count| *count > 0)
    })
    .await;
}

// A machine that vanishes says nothing, like one that takes nothing of what it is sent: TCP gives
// up, the request goes elsewhere, and nobody waits until the answer would be due.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_takes_nothing_is_given_up_before_its_answer_is_due() {
    let silent = RawUpstream::start(|socket| async move {
        let _held = socket;
        std::future::pending::<()>().await;
    })
    .await;
    let good = Fake::start().await;
    let issuer = Issuer::start().await;
    let proxy = ProxyOptions::new(&issuer.url(), &silent.url())
        .upstream(&good.url())
        .set("upstream.ack_timeout", "\"1s\"")
        .set("upstream.replay_buffer_bytes", "\"16MiB\"")
        .start()
        .await;
    let client = proxy.client().bearer(&issuer.user_of(ORG_A));
    let began = Instant::now();
    for _ in 0..6 {
        // More than the buffers of both sides hold.
        let answer = client.post(PUSH, vec![b'x'; 12 << 20]).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    println!("six in {:?}", began.elapsed());
    let moved = "mimir_tenant_proxy_upstream_retries_total{reason=\"broken\"}";
    assert!(proxy.metric(moved).await >= 1.0, "none met the silent one");
    assert!(began.elapsed() < Duration::from_secs(60));
}

/// An address at which connecting takes for ever: its queue is full and nobody takes from it.
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

// Connecting hangs: one request at a time waits for it, the others are told at once.
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

// VictoriaMetrics#10318, #11272: what a client or a tenant does is not an instance's fault.
#[tokio::test(flavor = "multi_thread")]
async fn clients_and_tenants_never_eject_an_instance() {
    let (one, two) = (Fake::start().await, Fake::start().await);
    let town = before(
        &[&one, &two],
        &[("upstream.eject_after", "1"), ("limits.body_idle_timeout", "\"300ms\"")],
    )
    .await;
    for fake in [&one, &two] {
        fake.set(Mode::Hang);
    }
    // Cancelled.
    let mut waiting = JoinSet::new();
    for _ in 0..20 {
        let client = town.client();
        waiting.spawn(async move { client.try_send(Method::GET, QUERY, "").await.is_ok() });
    }
    wait_until("all wait", Duration::from_secs(5), async || one.requests() + two.requests() == 20)
        .await;
    waiting.shutdown().await;
    // Too slow, and broken off in the middle.
    let head = format!(
        "POST /api/v1/push HTTP/1.1\r\nHost: proxy\r\nAuthorization: Bearer {}\r\nContent-Length: 1000\r\n\r\nhalf",
        town.issuer.user_of(ORG_A)
    );
    for _ in 0..6 {
        let slow = raw_exchange(&town.proxy.url(), head.as_bytes()).await;
        assert!(slow.starts_with("HTTP/1.1 408 "), "{slow}");
        let address = town.proxy.url().replace("http://", "");
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Refused, and queries that fail.
    for (status, content_type) in
        [(400, TEXT), (422, JSON), (429, TEXT), (503, JSON), (500, JSON), (501, TEXT), (504, TEXT)]
    {
        for fake in [&one, &two] {
            fake.set(Mode::Status(status, content_type));
        }
        for _ in 0..6 {
            assert_eq!(town.client().get(QUERY).await.status.as_u16(), status);
        }
    }
    assert_eq!(town.all_ejections().await, 0.0);
    let retried = "mimir_tenant_proxy_upstream_retries_total";
    for reason in ["broken", "unwilling"] {
        assert_eq!(town.proxy.metric(&format!("{retried}{{reason=\"{reason}\"}}")).await, 0.0);
    }
}

// A Mimir whose ring is broken answers 500 everywhere: its own answers pass, and nobody is ejected.
#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_all_instances_give_ejects_none() {
    let fakes = [Fake::start().await, Fake::start().await, Fake::start().await];
    let town = before(&[&fakes[0], &fakes[1], &fakes[2]], &[]).await;
    for fake in &fakes {
        fake.set(Mode::Status(500, TEXT));
    }
    let bad = town.send(200, 6).await;
    assert_eq!(bad, vec![500; 200]);
    // The first to fail may be ejected before the others have failed.
    assert!(town.ejections("server_error").await <= 1.0);
    wait_until("all are used", Duration::from_secs(10), async || {
        let before: Vec<_> = fakes.iter().map(Fake::requests).collect();
        town.send(60, 6).await;
        fakes.iter().zip(before).all(|(fake, before)| fake.requests() > before + 5)
    })
    .await;
    town.send(200, 6).await;
    assert!(town.ejections("server_error").await <= 1.0);
}

// Mimir's /ready fails from the moment that it is told to stop: no request has to fail first.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_not_ready_gets_nothing_until_it_is() {
    let (one, two) = (Fake::start().await, Fake::start().await);
    let town = before(&[&one, &two], &[("upstream.ready_interval", "\"200ms\"")]).await;
    wait_until("both are probed", Duration::from_secs(5), async || {
        one.probes() > 0 && two.probes() > 0
    })
    .await;
    one.set_ready(503);
    wait_until("it is ejected", Duration::from_secs(5), async || {
        town.ejections("not_ready").await == 1.0
    })
    .await;
    let before = one.requests();
    assert!(town.send(50, 4).await.is_empty());
    assert_eq!(one.requests(), before);
    let ready = Client::new(&town.proxy.internal_url()).get("/ready").await;
    assert!(ready.status == 200 && ready.text.contains("2 instances"), "{ready:?}");
    assert!(ready.text.contains(&format!("{} left alone: not_ready", one.address())), "{ready:?}");
    assert_eq!(town.proxy.metric("mimir_tenant_proxy_upstream_instances_ejected").await, 1.0);
    one.set_ready(200);
    wait_until("it is used again", Duration::from_secs(5), async || {
        assert!(town.send(10, 2).await.is_empty());
        one.requests() > before
    })
    .await;
    let log = town.proxy.process.log();
    assert!(
        log.contains("Upstream instance ejected") && log.contains("Upstream instance returned")
    );
}

// What an instance may have in flight is bounded: the rest is told to come again.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_gets_no_more_than_it_may_have() {
    let fake = Fake::start_in(Mode::Slow(Duration::from_millis(700))).await;
    let town = before(&[&fake], &[("upstream.max_in_flight", "5")]).await;
    let bad = town.send(20, 20).await;
    assert!(bad.len() >= 14 && bad.iter().all(|status| *status == 503), "{bad:?}");
    assert!(fake.requests() <= 6, "{}", fake.requests());
    let saturated = "mimir_tenant_proxy_requests_total{surface=\"query\",outcome=\"failed\",reason=\"upstream_saturated\"}";
    assert!(town.proxy.metric(saturated).await >= 5.0);
    assert_eq!(town.all_ejections().await, 0.0);
    assert!(town.send(4, 2).await.is_empty());
}
