//! What is broken: three Mimirs with replication 3 on Consul and an S3-compatible server, each behind a network that
//! can fail; copies of the proxy on Postgres, also behind one; a hub that is a stock Prometheus.

use std::time::Duration;

use harness::showcase::{ALICE, command, two_organisations};
use harness::{
    Backing, ChaosProxy, Client, Haproxy, Issuer, Monolith, NodeExporter, ORG_A, Postgres,
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
    /// Before several copies.
    balancer: Option<Haproxy>,
    /// Writes by remote write 1.0.
    pub hub: Prometheus,
    /// With which another proxy like these starts.
    pub options: ProxyOptions,
    devices: Vec<String>,
    _exporter: NodeExporter,
    _postgres: Postgres,
    _directory: tempfile::TempDir,
    /// What runs as Mimir.
    program: String,
}

/// Where a Mimir's data is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    OfTheMachine,
    /// On a file system of 300 MB that can be filled. Needs root and a free loop device.
    Small,
}

/// Longer than anything that the proxy and Mimir wait for, so that what became of a request is known.
const PATIENCE: Duration = Duration::from_secs(200);

/// Senders other than the hub; each has a device key.
const DEVICES: usize = 20;

impl System {
    /// Starts everything and waits until it takes requests. Each Mimir's disk can be [small](Disk). Several copies are behind a stock haproxy.
    pub async fn start(copies: usize, disk: Disk) -> Self {
        say("starting Consul, MinIO, memcached, Postgres, an issuer, three Mimirs");
        let directory = tempfile::TempDir::with_prefix("chaos-").expect("directory");
        let (backing, postgres) = (Backing::start().await, Postgres::start().await);
        let issuer = Issuer::start().await;
        let program = match disk {
            Disk::Small => small_disk(directory.path()),
            Disk::OfTheMachine => harness::part("mimir").display().to_string(),
        };
        let environment = [("MIMIR_BINARY", program.as_str())];
        let start = |id| Monolith::start(id, &backing, &environment, &QUICK);
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
        let balancer = if copies > 1 { Some(Haproxy::start(&proxies).await) } else { None };
        let exporter = NodeExporter::start().await;
        let url = balancer.as_ref().map_or_else(|| proxies[0].url(), Haproxy::url);
        let hub =
            Prometheus::start_with_password(RemoteWrite::V1, &exporter, &url, "hub", &key("hub"))
                .await;
        Self {
            backing,
            mimirs,
            networks,
            to_database,
            proxies,
            issuer,
            balancer,
            hub,
            options,
            devices,
            _exporter: exporter,
            _postgres: postgres,
            _directory: directory,
            program,
        }
    }

    /// Where clients go, by HTTP/1.1 and by HTTP/2.
    fn entrances(&self) -> [String; 2] {
        match &self.balancer {
            Some(balancer) => [balancer.url(), balancer.url_of_http2()],
            None => [self.proxies[0].url(), self.proxies[0].url()],
        }
    }

    /// A client of a member.
    pub fn member(&self) -> Client {
        Client::new(&self.entrances()[0]).bearer(&self.member_token())
    }

    fn member_token(&self) -> String {
        let token = self.issuer.token().claim("sub", json!(ALICE));
        let in_a_day = harness::samples::now_ms() / 1000 + 86_400;
        token.claim("exp", json!(in_a_day)).sign()
    }

    /// A client of each device; every second one speaks HTTP/2.
    pub fn devices(&self) -> Vec<Client> {
        let [http1, http2] = self.entrances();
        let one = |(number, key): (usize, &String)| {
            let client = if number % 2 == 0 { Client::new(&http1) } else { Client::h2c(&http2) };
            client.bearer(key).patience(PATIENCE)
        };
        self.devices.iter().enumerate().map(one).collect()
    }

    /// Two members over HTTP/1.1 and two over HTTP/2.
    pub fn readers(&self) -> Vec<Client> {
        let ([http1, http2], token) = (self.entrances(), self.member_token());
        [Client::new(&http1), Client::h2c(&http2), Client::new(&http1), Client::h2c(&http2)]
            .map(|client| client.bearer(&token).patience(PATIENCE))
            .into()
    }

    /// Ends a copy as a supervisor does, and starts it again with the same ports.
    pub async fn restart(&mut self, copy: usize) {
        let port = |url: String| -> u16 {
            url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
        };
        let old = &mut self.proxies[copy];
        let (public, private) = (port(old.url()), port(old.internal_url()));
        old.process.signal("TERM");
        // The drain's delay and its timeout.
        let end = old.process.wait(Duration::from_secs(40)).expect("it ends");
        assert_eq!(end.code(), Some(0), "{}", old.process.log());
        let next = self.options.clone().public_port(public).internal_port(private);
        self.proxies[copy] = next.start().await;
        // The balancer sees it, as an operator does before the next one.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    /// What an instance's environment has beyond that of the others' parts.
    pub fn mimir_environment(&self) -> [(&'static str, String); 1] {
        [("MIMIR_BINARY", self.program.clone())]
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

    /// What the proxies have logged.
    pub fn log(&self) -> String {
        self.proxies.iter().map(|proxy| proxy.process.log()).collect()
    }
}

/// A program that becomes Mimir with its data on a file system of its own, which can be filled. It is mounted in a
/// namespace of the process and ends with it; its image stays with the disk, so that a restart finds it.
fn small_disk(directory: &std::path::Path) -> String {
    let program = directory.join("mimir-on-a-small-disk");
    let script = format!(
        "#!/bin/sh\nset -eu\nimage=$MIMIR_DATA_DIR/image\n\
         [ -e \"$image\" ] || {{ truncate -s 300M \"$image\"; mkfs.ext4 -q \"$image\"; }}\n\
         exec unshare --mount sh -ec \\\n  \
         'mount -o loop \"$0\" \"$MIMIR_DATA_DIR\"; cd \"$MIMIR_DATA_DIR\"; exec \"$@\"' \"$image\" \"{}\" \"$@\"\n",
        harness::part("mimir").display()
    );
    std::fs::write(&program, script).expect("program");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, executable).expect("program");
    program.display().to_string()
}
