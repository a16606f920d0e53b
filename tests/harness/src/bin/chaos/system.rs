//! What is broken: three Mimirs with replication 3 on Consul and an S3-compatible server, each behind a network that
//! can fail; copies of the proxy on Postgres, also behind one; a hub that is a stock Prometheus.

use std::time::Duration;

use harness::showcase::{ALICE, command, two_organisations};
use harness::{
    Backing, ChaosProxy, Client, Database, Issuer, Monolith, NodeExporter, ORG_A, Postgres,
    Prometheus, Proxy, ProxyOptions, QUICK, RemoteWrite,
};
use serde_json::json;

use crate::say;

/// The running system.
pub struct System {
    pub backing: Backing,
    pub mimirs: Vec<Monolith>,
    /// Between the proxies and each Mimir.
    pub networks: Vec<ChaosProxy>,
    /// Between the proxies and Postgres.
    pub to_database: ChaosProxy,
    pub proxies: Vec<Proxy>,
    pub issuer: Issuer,
    pub database: Database,
    /// Writes by remote write 1.0 to the first proxy.
    pub hub: Prometheus,
    /// With which another proxy like these starts.
    pub options: ProxyOptions,
    devices: Vec<String>,
    _exporter: NodeExporter,
    _postgres: Postgres,
}

/// Senders other than the hub; each has a device key.
const DEVICES: usize = 20;

impl System {
    /// Starts everything and waits until it takes requests.
    pub async fn start(copies: usize) -> Self {
        say("starting Consul, MinIO, memcached, Postgres, an issuer, three Mimirs");
        let (backing, postgres) = (Backing::start().await, Postgres::start().await);
        let issuer = Issuer::start().await;
        let start = |id| Monolith::start(id, &backing, &[], &QUICK);
        let mut mimirs: Vec<Monolith> = ["m1", "m2", "m3"].map(start).into();
        let database = postgres.database("chaos").await;
        two_organisations(&database).await;
        let mut networks = Vec::new();
        for mimir in &mut mimirs {
            mimir.wait_ready().await;
            networks.push(ChaosProxy::start(([127, 0, 0, 1], mimir.port()).into()).await);
        }
        let to_database = ChaosProxy::start(postgres.address()).await;
        say("starting the proxies and a stock Prometheus");
        let url = database.url_through(to_database.address());
        let mut options = ProxyOptions::new(&issuer.url(), &networks[0].url())
            .set("database.url", &format!("{url:?}"))
            // As in operation.
            .set("upstream.ready_interval", "\"5s\"")
            .set("shutdown.drain_delay", "\"2s\"")
            // Each failure is looked up.
            .set("log.unserved_per_second", "1000");
        for network in &networks[1..] {
            options = options.upstream(&network.url());
        }
        let mut proxies = Vec::new();
        for _ in 0..copies {
            proxies.push(options.clone().start().await);
        }
        let key = |name: &str| {
            let create = ["device-key", "create", "--organisation", ORG_A, "--name", name];
            command(&database, &create).trim().to_owned()
        };
        let devices = (0..DEVICES).map(|number| key(&format!("device {number}"))).collect();
        let exporter = NodeExporter::start().await;
        let hub = key("hub");
        let hub = Prometheus::start_with_password(
            RemoteWrite::V1,
            &exporter,
            &proxies[0].url(),
            "hub",
            &hub,
        )
        .await;
        Self {
            backing,
            mimirs,
            networks,
            to_database,
            proxies,
            issuer,
            database,
            hub,
            options,
            devices,
            _exporter: exporter,
            _postgres: postgres,
        }
    }

    /// A client of a member.
    pub fn member(&self, url: &str) -> Client {
        Client::new(url).bearer(&self.member_token())
    }

    pub fn member_token(&self) -> String {
        let token = self.issuer.token().claim("sub", json!(ALICE));
        let in_a_day = harness::samples::now_ms() / 1000 + 86_400;
        token.claim("exp", json!(in_a_day)).sign()
    }

    /// A client of each device, in turn to each address; every second one speaks HTTP/2.
    pub fn devices(&self, urls: &[String]) -> Vec<Client> {
        let one = |(number, key): (usize, &String)| {
            let url = &urls[number % urls.len()];
            let client =
                if (number / urls.len()) % 2 == 0 { Client::new(url) } else { Client::h2c(url) };
            client.bearer(key)
        };
        self.devices.iter().enumerate().map(one).collect()
    }

    /// Two members over HTTP/1.1 and two over HTTP/2, in turn to each address.
    pub fn readers(&self, urls: &[String]) -> Vec<Client> {
        let token = self.member_token();
        (0..4)
            .map(|number| {
                let url = &urls[number % urls.len()];
                let client = if number < 2 { Client::new(url) } else { Client::h2c(url) };
                client.bearer(&token)
            })
            .collect()
    }

    pub fn urls(&self) -> Vec<String> {
        self.proxies.iter().map(Proxy::url).collect()
    }

    /// Waits until every Mimir has every other one in its rings, and all answer.
    pub async fn wait_whole(&mut self) {
        for mimir in &mut self.mimirs {
            mimir.wait_ready().await;
        }
        let key = format!("{}/collectors/ring", self.backing.prefix);
        harness::wait_until("three ingesters are active", Duration::from_secs(60), async || {
            let ring = self.backing.consul.ring(&key).await;
            ring.len() == 3 && ring.values().all(|member| member.is_active)
        })
        .await;
    }

    /// What a proxy logged about a request.
    pub fn line_about(&self, id: &str) -> Option<String> {
        let about = |proxy: &Proxy| {
            let log = proxy.process.log();
            log.lines().find(|line| line.contains(id)).map(str::to_owned)
        };
        self.proxies.iter().find_map(about)
    }
}
