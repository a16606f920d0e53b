//! A proxy in front of the test's own failing upstreams, and its metrics.

use harness::{Client, Issuer, ORG_A, Proxy, ProxyOptions};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// A proxy with one worker in front of some upstreams.
pub(crate) struct FailoverFixture {
    pub(crate) issuer: Issuer,
    pub(crate) proxy: Proxy,
}

pub(crate) async fn before(upstreams: &[String], settings: &[(&str, &str)]) -> FailoverFixture {
    let issuer = Issuer::start().await;
    let options = ProxyOptions::new(&issuer.url(), &upstreams[0]).set("listen.workers", "1");
    let options = upstreams[1..].iter().fold(options, |options, url| options.upstream(url));
    let options = settings.iter().fold(options, |options, (key, value)| options.set(key, value));
    FailoverFixture { proxy: options.start().await, issuer }
}

impl FailoverFixture {
    pub(crate) fn client(&self) -> Client {
        self.proxy.client().bearer(&self.issuer.user_of(ORG_A))
    }

    pub(crate) async fn retries(&self, reason: &str) -> f64 {
        let name = "mimir_tenant_proxy_upstream_retries_total";
        self.proxy.metric(&format!("{name}{{reason=\"{reason}\"}}")).await
    }

    pub(crate) async fn ejected(&self) -> bool {
        self.proxy.metric("mimir_tenant_proxy_upstream_instances_ejected").await > 0.0
    }
}

/// Reads one request with a `Content-Length`, or none, to its end, and returns its body.
pub(crate) async fn read_request(socket: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
            while bytes.len() < end + 4 + length {
                if socket.read_buf(&mut bytes).await.ok()? == 0 {
                    return None;
                }
            }
            return Some(bytes.split_off(end + 4));
        }
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}
