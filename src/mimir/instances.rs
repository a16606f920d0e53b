//! Where Mimir is: its addresses, and every instance behind them. For the clients of [`transport`](super::transport);
//! what is forwarded has instances of its own, with their health.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::net::lookup_host;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use url::{Host, Url};

use super::transport::MimirConfig;
use crate::causes::causes;
use crate::http_client;

/// How long the addresses of a name count.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(5);

/// One instance, with connections of its own.
#[derive(Clone)]
pub(super) struct Instance {
    pub(super) client: reqwest::Client,
    pub(super) url: Url,
    /// Which of the addresses of its name it has; none if that has one, or cannot be resolved.
    address: Option<SocketAddr>,
}

/// Tells one from another.
impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.url, self.address)
    }
}

/// The addresses of Mimir, and the timeouts.
#[derive(Debug)]
pub(super) struct Reach {
    config: MimirConfig,
    /// For names with one address, and for addresses.
    client: reqwest::Client,
    found: ArcSwapOption<Found>,
    /// Held by who resolves.
    resolving: Mutex<()>,
}

#[derive(Debug)]
struct Found {
    at: Instant,
    instances: Arc<[Instance]>,
}

impl Reach {
    pub(super) fn new(config: &MimirConfig) -> Result<Self, String> {
        if config.urls.is_empty() {
            return Err("no address of Mimir is known; one is needed".to_owned());
        }
        let client = client(config, None).map_err(|error| causes(&error))?;
        let (found, resolving) = Default::default();
        Ok(Self { config: config.clone(), client, found, resolving })
    }

    pub(super) fn request_timeout(&self) -> Duration {
        self.config.request_timeout
    }

    /// Every instance, at least one: a name may have several addresses. One that cannot be resolved keeps those
    /// that it had, and is asked by its name if it had none.
    pub(super) async fn instances(&self) -> Arc<[Instance]> {
        let known = || self.found.load_full();
        let is_fresh = |found: &Arc<Found>| found.at.elapsed() < RESOLVE_INTERVAL;
        if let Some(found) = known().filter(is_fresh) {
            return Arc::clone(&found.instances);
        }
        // While one resolves, all others use what is known.
        let _resolving = match (self.resolving.try_lock(), known()) {
            (Ok(lock), _) => lock,
            (Err(_), Some(found)) => return Arc::clone(&found.instances),
            (Err(_), None) => self.resolving.lock().await,
        };
        let before = known();
        if let Some(found) = before.clone().filter(is_fresh) {
            return Arc::clone(&found.instances);
        }
        let before = before.map_or_else(Arc::default, |found| Arc::clone(&found.instances));
        let mut instances = Vec::new();
        for url in &self.config.urls {
            instances.extend(match self.resolve(url).await {
                Some(addresses) => self.at(url, &addresses, &before),
                None => before.iter().filter(|one| one.url == *url).cloned().collect(),
            });
            if instances.iter().all(|one: &Instance| one.url != *url) {
                instances.extend(self.at(url, &[], &before));
            }
        }
        let instances: Arc<[Instance]> = instances.into();
        let found = Found { at: Instant::now(), instances: Arc::clone(&instances) };
        self.found.store(Some(Arc::new(found)));
        instances
    }

    /// The addresses of a name, in an order that does not change; none that it needs for what is an address itself.
    async fn resolve(&self, url: &Url) -> Option<Vec<SocketAddr>> {
        let Some(Host::Domain(name)) = url.host() else { return Some(Vec::new()) };
        let port = url.port_or_known_default().unwrap_or(80);
        let lookup = timeout(self.config.connect_timeout, lookup_host((name, port)));
        let mut addresses: Vec<_> = lookup.await.ok()?.ok()?.collect();
        addresses.sort_unstable();
        addresses.dedup();
        Some(addresses)
    }

    /// The instances of an address of the configuration. Those that were there before keep their connections.
    fn at(&self, url: &Url, addresses: &[SocketAddr], before: &[Instance]) -> Vec<Instance> {
        let (Some(name), [_, _, ..]) = (url.host_str(), addresses) else {
            return vec![Instance { client: self.client.clone(), url: url.clone(), address: None }];
        };
        let instance = |address: &SocketAddr| {
            let same = |one: &&Instance| one.url == *url && one.address == Some(*address);
            if let Some(known) = before.iter().find(same) {
                return Some(known.clone());
            }
            // By its name: that is what its certificate is for.
            let client = client(&self.config, Some((name, *address))).ok()?;
            Some(Instance { client, url: url.clone(), address: Some(*address) })
        };
        addresses.iter().filter_map(instance).collect()
    }
}

/// A client, which may know a name by one address only.
fn client(
    config: &MimirConfig,
    known: Option<(&str, SocketAddr)>,
) -> reqwest::Result<reqwest::Client> {
    let mut client = http_client::internal();
    if let Some(tls) = &config.tls {
        client = client.tls_backend_preconfigured((**tls).clone());
    }
    if let Some((name, address)) = known {
        client = client.resolve(name, address);
    }
    client.connect_timeout(config.connect_timeout).timeout(config.request_timeout).build()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers every request with a text, at this address.
    async fn answering(address: SocketAddr, text: &'static str) -> SocketAddr {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut head = [0; 4096];
                let length = socket.read(&mut head).await.unwrap();
                assert!(String::from_utf8_lossy(&head[..length]).contains("host: mimir.test:"));
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{text}");
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        address
    }

    fn reach(urls: &[&str]) -> Reach {
        let second = Duration::from_secs(1);
        Reach::new(&MimirConfig {
            urls: urls.iter().map(|url| url.parse().unwrap()).collect(),
            request_timeout: second,
            connect_timeout: second,
            tls: None,
        })
        .unwrap()
    }

    // Otherwise the system's resolver chooses, mostly the same each time.
    #[tokio::test]
    async fn each_address_of_a_name_is_an_instance_that_is_asked_by_the_name() {
        let one = answering(([127, 0, 0, 1], 0).into(), "one").await;
        let two = answering(([127, 0, 0, 2], one.port()).into(), "two").await;
        let url = format!("http://mimir.test:{}", one.port());
        let reach = reach(&[&url]);
        let url = url.parse().unwrap();
        let instances = reach.at(&url, &[one, two], &[]);
        assert_eq!(instances.len(), 2);
        assert_ne!(format!("{:?}", instances[0]), format!("{:?}", instances[1]));
        for (instance, text) in instances.iter().zip(["one", "two"]) {
            let answer = instance.client.get(instance.url.clone()).send().await.unwrap();
            assert_eq!(answer.text().await.unwrap(), text);
        }
        let later = reach.at(&url, &[two, ([127, 0, 0, 3], one.port()).into()], &instances);
        assert_eq!(later[0].address, Some(two));
        assert_eq!(reach.at(&url, &[one], &instances)[0].address, None);
    }

    #[tokio::test]
    async fn what_cannot_be_resolved_is_asked_by_its_name() {
        let reach = reach(&["http://mimir.invalid:8080", "http://127.0.0.1:8080"]);
        let instances = reach.instances().await;
        let names = instances.iter().map(|one| one.url.as_str()).collect::<Vec<_>>();
        assert_eq!(names, ["http://mimir.invalid:8080/", "http://127.0.0.1:8080/"]);
        assert!(Arc::ptr_eq(&instances, &reach.instances().await), "for some time");
    }
}
