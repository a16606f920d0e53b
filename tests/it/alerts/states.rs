//! What Mimir's Alertmanager answers when it is unavailable, and what that says about the instance.

use std::time::Instant;

use harness::{Issuer, Proxy, ProxyOptions, Received, Upstream, fresh_organisation};
use http::{Method, Response};
use http_body_util::BodyExt as _;
use tokio::task::JoinSet;

use super::*;
use crate::support::fake_mimir::{FakeMimir, Mode};
use crate::support::responses::{Body, full};
use crate::support::single::{QUERY, proxy_fixture};

/// An upstream that answers every request with this, as Mimir would.
async fn saying(status: u16, content_type: &'static str, text: &'static str) -> Upstream {
    Upstream::start(move |request: Received| async move {
        if let Some(body) = request.body {
            let _ = body.collect().await;
        }
        let mut answer = Response::builder().status(status);
        if !content_type.is_empty() {
            answer = answer.header("content-type", content_type);
        }
        let answer: Response<Body> = answer.body(full(text)).unwrap();
        answer
    })
    .await
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

// Words for a page, with Mimir's status; what Mimir says of a request passes as it is.
#[tokio::test(flavor = "multi_thread")]
async fn what_mimir_says_of_the_alertmanager_becomes_words() {
    for (status, text, reason, words) in [
        (406, "Not initializing the Alertmanager\n", "alertmanager_loading", "being set up"),
        (412, "the Alertmanager is not configured\n", "alertmanager_unconfigured", "no channels"),
        (404, "404 page not found\n", "alertmanager_absent", "no Alertmanager"),
        (
            503,
            "Limit of concurrent GET requests reached (8), try again later.\n\n",
            "alertmanager_busy",
            "at the same time",
        ),
    ] {
        let upstream = saying(status, TEXT, text).await;
        let fixture = proxy_fixture(&upstream.url(), &[]).await;
        for (method, target) in
            [(Method::GET, SILENCES), (Method::GET, STATUS), (Method::DELETE, &path_of(ID))]
        {
            let answer = fixture.client().send(method, target, "").await;
            assert_eq!(answer.status, status, "{answer:?}");
            assert!(error(&answer).contains(words), "{answer:?}");
            assert_eq!(status == 503, !answer.header("retry-after").is_empty(), "{answer:?}");
        }
        let line = "mimir_tenant_proxy_requests_total{surface=\"alerts\",outcome=\"rejected\"";
        let counted = fixture.proxy.metric(&format!("{line},reason=\"{reason}\"}}")).await;
        assert_eq!(counted, 3.0, "{reason}");
        // The same status on another surface is none of this.
        assert_ne!(fixture.client().get(QUERY).await.text, text.trim());
    }
    for (status, content_type, text) in [
        (404, "", ""),
        (404, JSON, "\"silence not found\"\n"),
        (406, JSON, "{\"code\":406,\"message\":\"x\"}"),
        (400, JSON, "\"bad matcher format: {foo\"\n"),
        (422, JSON, "{\"code\":602,\"message\":\"comment in body is required\"}"),
        (500, JSON, "\"silence 1 already expired\"\n"),
        (500, TEXT, "Failed to process the request to the alertmanager\n"),
        (503, TEXT, "Alertmanager not ready\n"),
        (410, JSON, "{\"status\":\"deprecated\"}"),
    ] {
        let upstream = saying(status, content_type, text).await;
        let fixture = proxy_fixture(&upstream.url(), &[]).await;
        let answer = fixture.client().get(&path_of(ID)).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (status, text));
        assert_eq!(answer.header("content-type"), content_type);
    }
}

const ID: &str = "00000000-0000-4000-8000-000000000000";

// A status that cannot be rewritten is not passed on.
#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_cannot_be_read_is_not_shown() {
    let large: &'static str =
        Box::leak(format!("{{\"uptime\": \"{}\"}}", "x".repeat(1 << 20)).into_boxed_str());
    for text in ["<html>hunter2</html>", "[\"hunter2\"]", "", "{\"config\": \"hunter2", large] {
        let upstream = saying(200, JSON, text).await;
        let fixture = proxy_fixture(&upstream.url(), &[]).await;
        let answer = fixture.client().get(STATUS).await;
        assert_eq!(answer.status, 502, "{answer:?}");
        assert!(!answer.text.contains("hunter2") && answer.text.len() < 1000, "{answer:?}");
        assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
    }
    // Mimir is asked for what can be read, whatever the client could read.
    let upstream = saying(200, JSON, "{}").await;
    let fixture = proxy_fixture(&upstream.url(), &[]).await;
    let client = fixture.client().header("accept-encoding", "gzip, br");
    assert_eq!(client.get(STATUS).await.json()["cluster"]["status"], "disabled");
    assert_eq!(client.get(ALERTS).await.status, 200);
    let heads = upstream.heads();
    assert!(!heads[0].headers.contains_key("accept-encoding"), "{heads:?}");
    assert_eq!(heads[1].headers["accept-encoding"], "gzip, br");
}

/// A proxy before two upstreams that ejects at the first reason.
async fn before(issuer: &Issuer, upstreams: [&str; 2]) -> Proxy {
    let options = ProxyOptions::new(&issuer.url(), upstreams[0]).upstream(upstreams[1]);
    options.set("listen.workers", "1").set("upstream.eject_after", "2").start().await
}

async fn ejections(proxy: &Proxy) -> f64 {
    let mut sum = 0.0;
    for reason in ["server_error", "broken", "timeout", "broken_body", "unreachable"] {
        let name = "mimir_tenant_proxy_upstream_ejections_total";
        sum += proxy.metric(&format!("{name}{{reason=\"{reason}\"}}")).await;
    }
    sum
}

async fn resends(proxy: &Proxy) -> f64 {
    proxy.metric("mimir_tenant_proxy_upstream_retries_total{reason=\"unavailable\"}").await
}

// It is about the tenant's own reads, and would be the same at every other instance.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_own_reads_is_no_evidence_and_is_asked_once() {
    let issuer = Issuer::start().await;
    let busy = "Limit of concurrent GET requests reached (1), try again later.\n";
    let (one, two) = (saying(503, TEXT, busy).await, saying(503, TEXT, busy).await);
    let proxy = before(&issuer, [&one.url(), &two.url()]).await;
    let mut sent = 0;
    for round in 0..30 {
        let client = proxy.client().bearer(&issuer.user_of(&format!("org-{}", round % 3)));
        let answer = client.get(ALERTS).await;
        assert_eq!((answer.status.as_u16(), error(&answer).contains("try again")), (503, true));
        sent += 1;
    }
    assert_eq!(one.heads().len() + two.heads().len(), sent);
    assert_eq!((ejections(&proxy).await, resends(&proxy).await), (0.0, 0.0));
    // What looks the same and is the instance's goes to another, and counts.
    let starting = saying(503, TEXT, "Alertmanager not ready\n").await;
    let fine = saying(200, JSON, "[]\n").await;
    let proxy = before(&issuer, [&starting.url(), &fine.url()]).await;
    for round in 0..30 {
        let client = proxy.client().bearer(&issuer.user_of(&format!("org-{}", round % 3)));
        assert_eq!(client.get(ALERTS).await.status, 200);
    }
    assert!(ejections(&proxy).await >= 1.0 && resends(&proxy).await >= 1.0);
}

// On Mimir itself: organisations that read more at a time than they may harm nobody.
#[tokio::test(flavor = "multi_thread")]
async fn tenants_that_poll_eject_no_instance_and_harm_no_other() {
    let mimir =
        Mimir::start_with(&["-alertmanager.max-concurrent-get-requests-per-tenant=1"]).await;
    let issuer = Issuer::start().await;
    let proxy = ProxyOptions::new(&issuer.url(), &mimir.url())
        .set("upstream.eject_after", "1")
        .set("limits.alerts_in_flight", "64")
        .start()
        .await;
    let polling = [fresh_organisation(), fresh_organisation(), fresh_organisation()];
    for organisation in &polling {
        // An answer that takes a moment to make.
        let alerts: Vec<Value> = (0..1500)
            .map(|number| json!({"labels": {"alertname": "Hot", "hub": format!("hub {number}")}}))
            .collect();
        let sent =
            json(&mimir.as_tenant(organisation)).post(ALERTS, json!(alerts).to_string()).await;
        assert_eq!(sent.status, 200, "{sent:?}");
    }
    let end = Instant::now() + Duration::from_secs(5);
    let mut pollers = JoinSet::new();
    for poller in 0..24 {
        let client = proxy.client().bearer(&issuer.user_of(&polling[poller % 3]));
        let client = client.header("accept-encoding", "gzip");
        pollers.spawn(async move {
            let (mut fine, mut busy) = (0, 0);
            while Instant::now() < end {
                let answer = client.get(ALERTS).await;
                match answer.status.as_u16() {
                    200 => fine += 1,
                    503 => {
                        assert!(error(&answer).contains("at the same time"), "{answer:?}");
                        busy += 1;
                    }
                    // Mimir itself gives up on some when the machine is busy.
                    500 => {}
                    _ => panic!("{answer:?}"),
                }
            }
            (fine, busy)
        });
    }
    let other = proxy.client().bearer(&issuer.user_of(&fresh_organisation()));
    let mut asked = 0;
    while Instant::now() < end {
        for target in [QUERY, SILENCES, ALERTS] {
            let answer = other.get(target).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            asked += 1;
        }
    }
    let polled = pollers.join_all().await;
    let (fine, busy) = polled.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    println!("{fine} answers, {busy} refusals, {asked} of another organisation");
    assert!(fine > 0 && busy > 20, "{fine} {busy}");
    assert_eq!((ejections(&proxy).await, resends(&proxy).await), (0.0, 0.0));
}

// A silence that is posted twice is two.
#[tokio::test(flavor = "multi_thread")]
async fn a_silence_is_posted_once_whatever_becomes_of_it() {
    let issuer = Issuer::start().await;
    let (one, two) = (FakeMimir::start().await, FakeMimir::start().await);
    let proxy = before(&issuer, [&one.url(), &two.url()]).await;
    let client = json(&proxy.client().bearer(&issuer.user_of("org-a")));
    let requests = || one.requests() + two.requests();
    for (mode, status) in [
        (Mode::Break, 503),
        (Mode::Status(503, TEXT), 503),
        (Mode::Status(500, TEXT), 500),
        (Mode::Status(502, TEXT), 502),
    ] {
        one.set(mode);
        two.set(mode);
        for _ in 0..3 {
            let before = requests();
            let answer = client.post(SILENCES, silence("Hot").to_string()).await;
            assert_eq!(answer.status, status, "{mode:?}: {answer:?}");
            assert_eq!(requests() - before, 1, "{mode:?}");
        }
    }
    // To end one twice is to end it: that is asked elsewhere.
    one.set(Mode::Break);
    two.set(Mode::Break);
    let before = requests();
    let answer = client.send(Method::DELETE, &path_of(ID), "").await;
    // A kept connection that breaks is tried again by a new one.
    assert!(answer.status == 503 && [2, 3].contains(&(requests() - before)), "{answer:?}");
}

// A kept connection that the other side has closed since is not used for what cannot be repeated.
#[tokio::test(flavor = "multi_thread")]
async fn a_silence_takes_no_stale_connection() {
    let issuer = Issuer::start().await;
    let mut fake = FakeMimir::start().await;
    let proxy =
        ProxyOptions::new(&issuer.url(), &fake.url()).set("listen.workers", "1").start().await;
    let client = json(&proxy.client().bearer(&issuer.user_of("org-a")));
    for _ in 0..10 {
        assert_eq!(client.get(ALERTS).await.status, 200);
        tokio::time::sleep(Duration::from_millis(1100)).await;
        fake.stop().await;
        fake.resume().await;
        let before = fake.requests();
        let made = client.post(SILENCES, silence("Hot").to_string()).await;
        assert_eq!((made.status.as_u16(), fake.requests() - before), (200, 1), "{made:?}");
    }
}

// Mimir without an Alertmanager, as our profiles were until now, and one that loads a configuration.
#[tokio::test(flavor = "multi_thread")]
async fn a_mimir_without_alertmanager_and_one_that_is_loading_say_so() {
    let without = Mimir::start_with(&["-target=all"]).await;
    let fixture = proxy_fixture(&without.url(), &[]).await;
    for target in [ALERTS, SILENCES, STATUS] {
        let answer = fixture.client().get(target).await;
        assert_eq!(answer.status, 404, "{answer:?}");
        assert!(error(&answer).contains("no Alertmanager"), "{answer:?}");
    }
    let posted = json(&fixture.client()).post(SILENCES, silence("Hot").to_string()).await;
    assert_eq!(posted.status, 404, "{posted:?}");
    drop(without);

    // Between a new configuration and the next time that Mimir reads it.
    let slow = Mimir::start_with(&["-alertmanager.configs.poll-interval=1h"]).await;
    let issuer = Issuer::start().await;
    let proxy = ProxyOptions::new(&issuer.url(), &slow.url()).start().await;
    let organisation = fresh_organisation();
    let document = json!({"alertmanager_config": "route: {receiver: x}\nreceivers: [{name: x}]\n"});
    let stored = slow.as_tenant(&organisation).post("/api/v1/alerts", document.to_string()).await;
    assert_eq!(stored.status, 201, "{stored:?}");
    let client = proxy.client().bearer(&issuer.user_of(&organisation));
    let answer = client.get(ALERTS).await;
    assert_eq!(answer.status, 406, "{answer:?}");
    assert!(error(&answer).contains("being set up"), "{answer:?}");
}
