//! One Mimir is killed with its disk and replaced by another, while hubs write and people read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use harness::readings::query;
use harness::{Client, Monolith, QUICK};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::blocks::{now, settled};
use crate::system::System;
use crate::{chapter, fact, say};

/// What readers met.
#[derive(Default)]
struct Readers {
    stop: AtomicBool,
    answered: AtomicU64,
    failed: AtomicU64,
}

pub async fn none_when_one_is_killed(system: &mut System) {
    chapter("One Mimir is killed and replaced under load");
    let readers = Arc::new(Readers::default());
    let mut tasks = JoinSet::new();
    for (number, organisation) in system.organisations.iter().enumerate() {
        let (client, readers) = (system.member(organisation, number), Arc::clone(&readers));
        tasks.spawn(read(client, readers));
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    say("killing m2; its disk is gone with it");
    let killed = system.mimirs.remove(1);
    let port = killed.port();
    drop(killed);
    tokio::time::sleep(Duration::from_secs(8)).await;
    // What an operator does, first: a killed ingester is not forgotten by itself, and until its replacement is ready
    // two of three replicas would be away.
    let form = "forget=m2";
    let answer = Client::new(&system.mimirs[0].url()).post_form("/ingester/ring", form).await;
    assert!(answer.status.is_success() || answer.status.is_redirection(), "{}", answer.text);
    say("starting m4 in its place");
    let began = Instant::now();
    // On Fly its address comes by DNS; here it takes the one that the proxies know.
    let mut replacement = Monolith::start_at("m4", port, &system.backing, &[], &QUICK);
    replacement.wait_ready().await;
    let took = began.elapsed();
    system.mimirs.insert(1, replacement);
    let members =
        system.backing.consul.ring(&format!("{}/collectors/ring", system.backing.prefix)).await;
    assert_eq!(members.keys().collect::<Vec<_>>(), ["m1", "m3", "m4"]);
    fact(format!("m4 was ready {took:.1?} after its start; the ingesters' ring is m1, m3, m4"));
    tokio::time::sleep(Duration::from_secs(8)).await;
    readers.stop.store(true, Ordering::Relaxed);
    tasks.join_all().await;
    let (answered, failed) =
        (readers.answered.load(Ordering::Relaxed), readers.failed.load(Ordering::Relaxed));
    fact(format!("readers: {answered} answers, {failed} failures"));
    assert!(answered > 0);
    let at = now() - 1.0;
    for organisation in 0..system.organisations.len() {
        let count = settled(system, organisation, at, Duration::from_secs(60)).await;
        fact(format!(
            "{}: {count} samples scraped since the start of all, {count} read back: none lost, none twice",
            system.organisations[organisation].name
        ));
    }
}

async fn read(client: Client, readers: Arc<Readers>) {
    while !readers.stop.load(Ordering::Relaxed) {
        let answer =
            client.try_send(http::Method::GET, &query("count(up)", None), Vec::new()).await;
        let good = answer.is_ok_and(|answer| answer.status.is_success());
        if good { &readers.answered } else { &readers.failed }.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
