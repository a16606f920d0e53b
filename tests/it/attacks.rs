//! Attacks of this class of software, on the raw socket. docs/security.md has the list of all of them, with
//! the test of each and its outcome; those that are not here stand beside what they attack.

mod answers;
mod bodies;
mod connections;
mod differential;
mod exports;
mod guessing;
mod headers;
mod http2;
mod protocol;
mod tokens;

use std::time::Duration;

use harness::{Issuer, ORG_A, Proxy, ProxyOptions, Upstream, wait_until};
use serde_json::Value;

use crate::support::responses::ok;

const QUERY: &str = "/prometheus/api/v1/query?query=up";

/// What is attacked: a proxy in front of an upstream that tells what reached it, and a user of `ORG_A`.
struct Target {
    issuer: Issuer,
    upstream: Upstream,
    proxy: Proxy,
}

/// Every refusal has its line: the log of floods is not what is tried here.
const EVERY_LINE: (&str, &str) = ("log.unserved_per_second", "0");

async fn target(settings: &[(&str, &str)]) -> Target {
    target_before(Upstream::start(ok).await, settings).await
}

async fn target_before(upstream: Upstream, settings: &[(&str, &str)]) -> Target {
    let issuer = Issuer::start().await;
    let options = ProxyOptions::new(&issuer.url(), &upstream.url()).set(EVERY_LINE.0, EVERY_LINE.1);
    let options = settings.iter().fold(options, |options, (key, value)| options.set(key, value));
    let proxy = options.start().await;
    Target { issuer, upstream, proxy }
}

impl Target {
    fn address(&self) -> String {
        self.proxy.url().replace("http://", "")
    }

    /// A header that lets in.
    fn authorization(&self) -> String {
        format!("Authorization: Bearer {}\r\n", self.issuer.user_of(ORG_A))
    }

    /// The reasons in the log of requests by their identifiers, once all have a line.
    async fn reasons(&self, ids: &[String]) -> Vec<String> {
        let reason = |line: &Value| line["reason"].as_str().unwrap_or_default().to_owned();
        let mut reasons = Vec::new();
        wait_until("every request has a line", Duration::from_secs(20), async || {
            let log = self.proxy.process.log();
            let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let lines: Vec<Value> = lines.filter(|line| line["message"] == "Request").collect();
            let of = |id: &String| lines.iter().find(|line| line["request.id"] == **id).map(reason);
            reasons = ids.iter().filter_map(of).collect();
            reasons.len() == ids.len()
        })
        .await;
        reasons
    }

    /// What others see while an attack goes on, and afterwards: an answer, soon.
    async fn others_are_served(&self) {
        let client = self.proxy.client().bearer(&self.issuer.user_of(ORG_A));
        for _ in 0..3 {
            let began = std::time::Instant::now();
            assert_eq!(client.get(QUERY).await.status, 200);
            assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        }
    }
}
