//! What the process needs of its machine runs out: descriptors, and room for its log.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use harness::{Client, Issuer, ORG_A, Proxy, ProxyOptions, wait_until};
use http::Method;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::fake_mimir::FakeMimir;
use crate::support::single::{PUSH, QUERY};

/// A program that does something and becomes the proxy.
fn program(directory: &TempDir, becomes: &str) -> PathBuf {
    let program = directory.path().join("proxy");
    let script = becomes.replace("PROXY", &format!("'{}' \"$@\"", Proxy::binary().display()));
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    program
}

// Clients that are connected are served, or are told to come back; the others wait in the kernel. That a connection to
// Mimir could not be opened is no instance's fault. When there are descriptors again, everything is as before.
#[tokio::test(flavor = "multi_thread")]
async fn without_descriptors_clients_are_served_or_told_to_come_back() {
    let directory = TempDir::with_prefix("descriptors-").unwrap();
    let (issuer, fakes) =
        (Issuer::start().await, [FakeMimir::start().await, FakeMimir::start().await]);
    let proxy = ProxyOptions::new(&issuer.url(), &fakes[0].url())
        .upstream(&fakes[1].url())
        .set("upstream.eject_after", "2")
        .binary(&program(&directory, "ulimit -n 100; exec PROXY"))
        .start()
        .await;
    let token = issuer.user_of(ORG_A);
    let client = Client::h2c(&proxy.url()).bearer(&token);
    assert_eq!(client.get(QUERY).await.status, 200);
    let mut idle = Vec::new();
    for _ in 0..150 {
        idle.push(TcpStream::connect(proxy.url().trim_start_matches("http://")).await.unwrap());
    }
    let counted = "mimir_tenant_proxy_connections_accepted_total";
    wait_until("none is left", Duration::from_secs(10), async || {
        proxy.process.log().contains("Connection not accepted")
    })
    .await;
    let mut asking = JoinSet::new();
    for number in 0..200 {
        let client = client.clone();
        asking.spawn(async move {
            let answer = if number % 2 == 0 {
                client.try_send(Method::GET, QUERY, "").await
            } else {
                client.try_send(Method::POST, PUSH, "x").await
            };
            let answer = answer.unwrap();
            let is_told = answer.status == 503 && !answer.header("retry-after").is_empty();
            assert!(answer.status == 200 || is_told, "{answer:?}");
            answer.status == 200
        });
    }
    let served = asking.join_all().await.into_iter().filter(|served| *served).count();
    println!("{served} of 200 served without descriptors");
    assert!(served > 0);
    drop(idle);
    let fresh = proxy.client().bearer(&token);
    assert_eq!(fresh.get(QUERY).await.status, 200);
    assert!(proxy.metric(counted).await > 150.0, "those that waited were accepted");
    let ejections = "mimir_tenant_proxy_upstream_ejections_total{reason=\"unreachable\"}";
    assert_eq!(proxy.metric(ejections).await, 0.0);
}

// /dev/full answers every write with "no space left on device".
#[tokio::test(flavor = "multi_thread")]
async fn a_log_on_a_full_disk_costs_its_lines_and_no_request() {
    let directory = TempDir::with_prefix("full-").unwrap();
    let (issuer, fake) = (Issuer::start().await, FakeMimir::start().await);
    let proxy = ProxyOptions::new(&issuer.url(), &fake.url())
        .binary(&program(&directory, "exec PROXY >/dev/full 2>&1"))
        .start()
        .await;
    let client = proxy.client().bearer(&issuer.user_of(ORG_A));
    for _ in 0..100 {
        assert_eq!(client.get(QUERY).await.status, 200);
        assert_eq!(client.post(PUSH, "x").await.status, 200);
    }
    wait_until("the lines are counted", Duration::from_secs(10), async || {
        // Lines are written in batches, and a batch that is dropped counts once.
        proxy.metric("mimir_tenant_proxy_log_lines_dropped_total").await > 0.0
    })
    .await;
}
