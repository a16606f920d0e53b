//! A proxy in front of instances that can be broken, under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use harness::{Client, Issuer, ORG_A, ORG_B, Proxy, ProxyOptions};
use tokio::task::JoinSet;

use crate::support::fake_mimir::FakeMimir;
use crate::support::single::{PUSH, QUERY};

/// The settings of a proxy that ejects early and for a short time.
pub(crate) struct InstancesFixture {
    pub(crate) issuer: Issuer,
    pub(crate) proxy: Proxy,
}

/// Such a proxy in front of some instances.
pub(crate) async fn before(fakes: &[&FakeMimir], settings: &[(&str, &str)]) -> InstancesFixture {
    let issuer = Issuer::start().await;
    let options = ProxyOptions::new(&issuer.url(), &fakes[0].url())
        .set("listen.workers", "2")
        .set("upstream.eject_min", "\"300ms\"")
        .set("upstream.eject_max", "\"600ms\"")
        .set("upstream.slow_start", "\"500ms\"");
    let options = fakes[1..].iter().fold(options, |options, fake| options.upstream(&fake.url()));
    let options = settings.iter().fold(options, |options, (key, value)| options.set(key, value));
    InstancesFixture { proxy: options.start().await, issuer }
}

impl InstancesFixture {
    pub(crate) fn client(&self) -> Client {
        self.client_of(ORG_A)
    }

    pub(crate) async fn ejections(&self, reason: &str) -> f64 {
        let name = "mimir_tenant_proxy_upstream_ejections_total";
        self.proxy.metric(&format!("{name}{{reason=\"{reason}\"}}")).await
    }

    pub(crate) async fn all_ejections(&self) -> f64 {
        let mut sum = 0.0;
        for reason in
            ["unreachable", "timeout", "broken", "broken_body", "server_error", "not_ready"]
        {
            sum += self.ejections(reason).await;
        }
        sum
    }

    pub(crate) fn client_of(&self, organisation: &str) -> Client {
        self.proxy.client().bearer(&self.issuer.user_of(organisation))
    }

    /// Sends reads and pushes of two organisations, some concurrently, and returns the statuses
    /// other than 200.
    pub(crate) async fn send(&self, count: usize, at_a_time: usize) -> Vec<u16> {
        let sent = Arc::new(AtomicUsize::new(0));
        let mut senders = JoinSet::new();
        for sender in 0..at_a_time {
            let client = self.client_of(if sender % 2 == 0 { ORG_A } else { ORG_B });
            let sent = Arc::clone(&sent);
            senders.spawn(async move {
                let mut bad = Vec::new();
                loop {
                    let number = sent.fetch_add(1, Ordering::SeqCst);
                    if number >= count {
                        return bad;
                    }
                    let answer = if number.is_multiple_of(2) {
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

/// The requests of each instance.
pub(crate) fn counts(fakes: &[&FakeMimir]) -> Vec<usize> {
    fakes.iter().map(|fake| fake.requests()).collect()
}
