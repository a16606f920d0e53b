//! Instances that fail: the load moves away and returns.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use harness::{Client, ORG_A, ORG_B, RawUpstream, raw_exchange, wait_until};
use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

use crate::support::fake_mimir::{FakeMimir, JSON, Mode, TEXT};
use crate::support::instances::{before, counts};
use crate::support::single::{PUSH, QUERY, proxy_fixture};

// Equal instances get about the same load; a slow one has more requests in flight, and so gets
// fewer.
#[tokio::test(flavor = "multi_thread")]
async fn the_less_loaded_instance_gets_more() {
    let (one, two, three) =
        (FakeMimir::start().await, FakeMimir::start().await, FakeMimir::start().await);
    for fake in [&one, &two, &three] {
        fake.set(Mode::Slow(Duration::from_millis(5)));
    }
    let identity = before(&[&one, &two, &three], &[]).await;
    assert!(identity.send(600, 12).await.is_empty());
    let equal = counts(&[&one, &two, &three]);
    println!("equal: {equal:?}");
    assert!(equal.iter().all(|count| (120..300).contains(count)), "{equal:?}");
    three.set(Mode::Slow(Duration::from_millis(500)));
    assert!(identity.send(600, 12).await.is_empty());
    let slow = three.requests() - equal[2];
    println!("slow: {slow} of 600");
    assert!(slow < 130, "{slow} of 600 went to the slow one");
    assert_eq!(identity.all_ejections().await, 0.0, "slow is not broken");
}

/// Breaks one of three instances in some way, and checks that the load moves away and returns once
/// it works again.
async fn moves_away_and_comes_back(mode: Mode, reason: &str, settings: &[(&str, &str)]) {
    let (bad, good, other) =
        (FakeMimir::start().await, FakeMimir::start().await, FakeMimir::start().await);
    let identity = before(&[&bad, &good, &other], settings).await;
    assert!(identity.send(60, 4).await.is_empty());
    assert!(bad.requests() > 0);
    bad.set(mode);
    let first = identity.send(100, 8).await;
    println!("{mode:?}: {} of the first 100 failed", first.len());
    assert!(first.len() < 30, "{first:?}");
    // Requests of both organisations must have failed.
    wait_until("it is ejected", Duration::from_secs(20), async || {
        identity.ejections(reason).await >= 1.0 || identity.send(50, 8).await.len() > 50
    })
    .await;
    // It is tried again now and then.
    let (before, began) = (bad.requests(), Instant::now());
    let later = identity.send(400, 8).await;
    let tried = bad.requests() - before;
    println!("{mode:?}: {tried} of 400 in {:?}, {} failed", began.elapsed(), later.len());
    assert!(tried < 60, "{tried} of 400");
    assert!(later.len() <= tried, "{later:?}");
    bad.set(Mode::Fine);
    wait_until("it has its share again", Duration::from_secs(20), async || {
        let before = bad.requests();
        assert!(identity.send(60, 4).await.len() <= 1);
        bad.requests() - before > 10
    })
    .await;
    assert!(identity.proxy.metric("mimir_tenant_proxy_upstream_returns_total").await >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn load_moves_away_from_an_instance_that_answers_500() {
    moves_away_and_comes_back(Mode::Status(500, TEXT), "server_error", &[]).await;
}

// A tenant's own remote read that Mimir answers with 500: 12 concurrent ones had one of three
// instances ejected. Its truncated responses and its query timeouts are similar.
#[tokio::test(flavor = "multi_thread")]
async fn failures_of_one_organisation_eject_no_instance() {
    let fakes = [FakeMimir::start().await, FakeMimir::start().await, FakeMimir::start().await];
    let settings = [("upstream.response_timeout", "\"300ms\""), ("upstream.eject_after", "1")];
    let identity = before(&[&fakes[0], &fakes[1], &fakes[2]], &settings).await;
    for mode in [Mode::Status(500, TEXT), Mode::Status(503, TEXT), Mode::Hang] {
        // Only one is affected by the query: if all three were, none would be ejected anyway.
        fakes[0].set(mode);
        let mut senders = JoinSet::new();
        for _ in 0..12 {
            let client = identity.client_of(ORG_A);
            senders.spawn(async move {
                for _ in 0..5 {
                    let read = harness::samples::remote_read("up");
                    client.post("/prometheus/api/v1/read", read).await;
                }
            });
        }
        senders.join_all().await;
        assert_eq!(identity.all_ejections().await, 0.0, "{mode:?}");
        fakes[0].set(Mode::Fine);
    }
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
    let mut fakes = [FakeMimir::start().await, FakeMimir::start().await, FakeMimir::start().await];
    for fake in &fakes {
        fake.set(Mode::Slow(Duration::from_millis(3)));
    }
    let identity = before(
        &[&fakes[0], &fakes[1], &fakes[2]],
        &[("upstream.ready_interval", "\"500ms\""), ("upstream.retry_reserve", "50")],
    )
    .await;
    let (over, client) = (Arc::new(AtomicBool::new(false)), identity.client());
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
        println!("{reason}: {}", identity.proxy.metric(&retries(reason)).await);
    }
    println!("{sent} requests, {} failed", bad.len());
    assert!(sent > 200 && bad.is_empty(), "{} of {sent}: {bad:?}", bad.len());
}

// VictoriaMetrics#10318, #11272: faults of a client or a tenant are not an instance's.
#[tokio::test(flavor = "multi_thread")]
async fn clients_and_tenants_never_eject_an_instance() {
    let (one, two) = (FakeMimir::start().await, FakeMimir::start().await);
    let identity = before(
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
        let client = identity.client();
        waiting.spawn(async move { client.try_send(Method::GET, QUERY, "").await.is_ok() });
    }
    wait_until("all wait", Duration::from_secs(5), async || one.requests() + two.requests() == 20)
        .await;
    waiting.shutdown().await;
    // Too slow, and broken off in the middle.
    let head = format!(
        "POST /api/v1/push HTTP/1.1\r\nHost: proxy\r\nAuthorization: Bearer {}\r\nContent-Length: 1000\r\n\r\nhalf",
        identity.issuer.user_of(ORG_A)
    );
    for _ in 0..6 {
        let slow = raw_exchange(&identity.proxy.url(), head.as_bytes()).await;
        assert!(slow.starts_with("HTTP/1.1 503 "), "{slow}");
        let address = identity.proxy.url().replace("http://", "");
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Rejected, and queries that fail.
    for (status, content_type) in
        [(400, TEXT), (422, JSON), (429, TEXT), (503, JSON), (500, JSON), (501, TEXT), (504, TEXT)]
    {
        for fake in [&one, &two] {
            fake.set(Mode::Status(status, content_type));
        }
        for _ in 0..6 {
            assert_eq!(identity.client().get(QUERY).await.status.as_u16(), status);
        }
    }
    // A remote read with a faulty matcher, at one instance: what all give ejects none anyway.
    two.set(Mode::Fine);
    one.set(Mode::Says(500, TEXT, "failed to parse request params for activity tracking\n"));
    for number in 0..40 {
        let client = identity.client_of(if number % 2 == 0 { ORG_A } else { ORG_B });
        let read = harness::samples::remote_read_of_patterns(&["("]);
        client.post("/prometheus/api/v1/read", read).await;
    }
    assert_eq!(identity.all_ejections().await, 0.0);
    let retried = "mimir_tenant_proxy_upstream_retries_total";
    for reason in ["broken", "unavailable"] {
        assert_eq!(identity.proxy.metric(&format!("{retried}{{reason=\"{reason}\"}}")).await, 0.0);
    }
}

// A Mimir with a broken ring answers 500 everywhere: its responses are forwarded, and no instance
// is ejected.
#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_all_instances_give_ejects_none() {
    let fakes = [FakeMimir::start().await, FakeMimir::start().await, FakeMimir::start().await];
    let identity = before(&[&fakes[0], &fakes[1], &fakes[2]], &[]).await;
    for fake in &fakes {
        fake.set(Mode::Status(500, TEXT));
    }
    let bad = identity.send(200, 6).await;
    assert_eq!(bad, vec![500; 200]);
    // The first to fail may be ejected before the others have failed.
    assert!(identity.ejections("server_error").await <= 1.0);
    wait_until("all are used", Duration::from_secs(10), async || {
        let before: Vec<_> = fakes.iter().map(FakeMimir::requests).collect();
        identity.send(60, 6).await;
        fakes.iter().zip(before).all(|(fake, before)| fake.requests() > before + 5)
    })
    .await;
    identity.send(200, 6).await;
    assert!(identity.ejections("server_error").await <= 1.0);
}

// Mimir's /ready fails from the moment that it is told to stop: no request has to fail first.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_not_ready_gets_nothing_until_it_is() {
    let (one, two) = (FakeMimir::start().await, FakeMimir::start().await);
    let identity = before(&[&one, &two], &[("upstream.ready_interval", "\"200ms\"")]).await;
    wait_until("both are probed", Duration::from_secs(5), async || {
        one.probes() > 0 && two.probes() > 0
    })
    .await;
    one.set_ready(503);
    wait_until("it is ejected", Duration::from_secs(5), async || {
        identity.ejections("not_ready").await == 1.0
    })
    .await;
    let before = one.requests();
    assert!(identity.send(50, 4).await.is_empty());
    assert_eq!(one.requests(), before);
    let ready = Client::new(&identity.proxy.internal_url()).get("/ready").await;
    assert!(ready.status == 200 && ready.text.contains("2 instances"), "{ready:?}");
    assert!(ready.text.contains(&format!("{} ejected: not_ready", one.address())), "{ready:?}");
    assert_eq!(identity.proxy.metric("mimir_tenant_proxy_upstream_instances_ejected").await, 1.0);
    one.set_ready(200);
    wait_until("it is used again", Duration::from_secs(5), async || {
        assert!(identity.send(10, 2).await.is_empty());
        one.requests() > before
    })
    .await;
    let log = identity.proxy.process.log();
    assert!(
        log.contains("Upstream instance ejected") && log.contains("Upstream instance returned")
    );
}

// Mimir gives up on a client that does not read (its write timeout). That truncates the response
// and is no evidence against the instance; a truncated response to a client that reads is.
#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_its_client_delayed_is_no_evidence() {
    let is_first = Arc::new(AtomicBool::new(true));
    let upstream = RawUpstream::start(move |mut socket| {
        let is_first = Arc::clone(&is_first);
        async move {
            let mut head = [0; 4096];
            let _ = socket.read(&mut head).await;
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n").await;
            let patience = Duration::from_millis(1500);
            let piece = vec![b'x'; 1 << 20];
            if is_first.swap(false, Ordering::SeqCst) {
                // As long as it is read, and then no longer.
                while let Ok(Ok(())) =
                    tokio::time::timeout(patience, socket.write_all(&piece)).await
                {}
            } else {
                let _ = socket.write_all(&piece).await;
            }
        }
    })
    .await;
    let fixture = proxy_fixture(&upstream.url(), &[("upstream.eject_after", "1")]).await;
    let address = fixture.proxy.url().replace("http://", "");
    let ejections = async || {
        let text = Client::new(&fixture.proxy.internal_url()).get("/metrics").await.text;
        let lines = text
            .lines()
            .filter(|line| line.starts_with("mimir_tenant_proxy_upstream_ejections_total"));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum::<f64>()
    };
    let head_of = |organisation: &str| {
        let token = fixture.issuer.user_of(organisation);
        format!("GET {QUERY} HTTP/1.1\r\nHost: proxy\r\nAuthorization: Bearer {token}\r\n\r\n")
    };
    let (held_up, none) = (Duration::from_millis(2500), Duration::ZERO);
    // One organisation could have caused the truncation; with a second one it is evidence.
    for (organisation, pause, evidence) in
        [(ORG_A, held_up, false), (ORG_A, none, false), (ORG_A, none, false), (ORG_B, none, true)]
    {
        let head = head_of(organisation);
        let mut socket = tokio::net::TcpStream::connect(&address).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        tokio::time::sleep(pause).await;
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest).await;
        // Begun and truncated, and the delayed one only after all buffers were full.
        // Of the other, what was in flight may be lost.
        let length = rest.len();
        assert!(rest.starts_with(b"HTTP/1.1 200 ") && length < 99_999_999, "{length}");
        assert!(pause.is_zero() || length > 1 << 20, "{length}");
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(ejections().await > 0.0, evidence, "{pause:?}");
    }
}
