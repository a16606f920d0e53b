//! A real Mimir as it runs on Fly.io: started by `config/fly/mimir-entrypoint` with the very profile of
//! `config/mimir`, on a real Consul, an S3-compatible server and memcached. Only addresses differ, by the
//! environment; arguments of the caller's only shorten times.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use tempfile::TempDir;

use crate::client::Client;
use crate::consul::Consul;
use crate::memcached::Memcached;
use crate::parts::part;
use crate::process::{Process, free_port};
use crate::r2::R2;

/// The buckets that the profiles want by default: blocks, rules, Alertmanager.
const BUCKETS: [&str; 3] = ["mimir-blocks", "mimir-ruler", "mimir-alertmanager"];

/// Each ring's key in Consul, below the prefix. Those of the ingesters and the rulers end with `ring`.
pub const RINGS: [&str; 8] = [
    "alertmanagers/alertmanager",
    "collectors/ring",
    "compactors/compactor",
    "distributors/distributor",
    "queriers/querier",
    "query-schedulers/query-scheduler",
    "rulers/ring",
    "store-gateways/store-gateway",
];

/// Arguments with which what takes minutes in operation takes seconds; nothing else differs from the profile.
pub const QUICK: [&str; 12] = [
    "-ingester.ring.min-ready-duration=0s",
    "-compactor.cleanup-interval=5s",
    "-blocks-storage.bucket-store.sync-interval=5s",
    "-blocks-storage.bucket-store.metadata-cache.tenants-list-ttl=4s",
    "-blocks-storage.bucket-store.metadata-cache.tenant-blocks-list-ttl=4s",
    "-blocks-storage.bucket-store.metadata-cache.bucket-index-content-ttl=4s",
    "-blocks-storage.bucket-store.metadata-cache.metafile-doesnt-exist-ttl=4s",
    "-ruler.poll-interval=5s",
    "-ruler.evaluation-delay-duration=0s",
    "-alertmanager.configs.poll-interval=1s",
    // Everything is on loopback here. A test of tests/it/deployment shows the firewall.
    "-alertmanager.receivers-firewall-block-private-addresses=false",
    "-query-frontend.max-cache-freshness=10s",
];

/// What instances stand on.
pub struct Backing {
    /// The rings.
    pub consul: Consul,
    /// The buckets.
    pub r2: R2,
    /// The caches.
    pub memcached: Memcached,
    /// What `fly consul attach` gave.
    pub connection: String,
    /// Beneath which Consul's keys are.
    pub prefix: String,
    /// Both servers' authorities.
    authorities: PathBuf,
    _directory: TempDir,
}

impl Backing {
    /// Starts all three.
    pub async fn start() -> Self {
        let options = memcached_options();
        let options: Vec<&str> = options.split_whitespace().collect();
        let consul = Consul::start().await;
        let r2 = R2::start(&BUCKETS).await;
        let memcached = Memcached::start(&options).await;
        let prefix = "my-mimir-0123456789abcdef".to_owned();
        let connection = consul.attach(&prefix).await;
        let directory = TempDir::with_prefix("backing-").expect("directory");
        let authorities = directory.path().join("authorities.pem");
        let pem = [consul.ca_file(), r2.ca_file()]
            .map(|file| std::fs::read_to_string(file).expect("authority"));
        std::fs::write(&authorities, pem.concat()).expect("authorities");
        Self { consul, r2, memcached, connection, prefix, authorities, _directory: directory }
    }

    /// The environment of an instance that only the platform differs in.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("FLY_CONSUL_URL", self.connection.clone()),
            ("R2_ENDPOINT", self.r2.endpoint()),
            ("R2_ACCESS_KEY_ID", self.r2.minio().access_key_id().to_owned()),
            ("R2_SECRET_ACCESS_KEY", self.r2.minio().secret_access_key().to_owned()),
            ("MEMCACHED_ADDRESSES", self.memcached.address()),
            ("SSL_CERT_FILE", self.authorities.display().to_string()),
            ("MIMIR_CONFIG_DIR", repository().join("config/mimir").display().to_string()),
            ("MIMIR_BINARY", part("mimir").display().to_string()),
        ]
    }
}

/// The repository's top.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository")
}

/// Memcached's own options as `config/fly/memcached.toml` has them.
fn memcached_options() -> String {
    let file = repository().join("config/fly/memcached.toml");
    let text = std::fs::read_to_string(file).expect("memcached.toml");
    let command = text.lines().find_map(|line| line.strip_prefix("app = \"memcached "));
    command.and_then(|rest| rest.strip_suffix('"')).expect("memcached's command").to_owned()
}

/// An instance, running or stopped.
pub struct Monolith {
    id: String,
    process: Process,
    port: u16,
    grpc: u16,
    environment: Vec<(&'static str, String)>,
    arguments: Vec<String>,
    disk: TempDir,
}

impl Monolith {
    /// Starts an instance with an empty disk; it is not waited for. What `environment` says takes
    /// precedence over what [`Backing::environment`] says.
    pub fn start(
        id: &str,
        backing: &Backing,
        environment: &[(&'static str, &str)],
        arguments: &[&str],
    ) -> Self {
        Self::start_at(id, free_port(), backing, environment, arguments)
    }

    /// The same, with a port for HTTP that somebody else had before.
    pub fn start_at(
        id: &str,
        port: u16,
        backing: &Backing,
        environment: &[(&'static str, &str)],
        arguments: &[&str],
    ) -> Self {
        let grpc = free_port();
        let mut all = backing.environment();
        all.extend([
            ("MIMIR_INSTANCE_ID", id.to_owned()),
            ("MIMIR_INSTANCE_ADDR", "127.0.0.1".to_owned()),
            ("MIMIR_LISTEN_ADDRESS", "127.0.0.1".to_owned()),
            ("MIMIR_HTTP_PORT", port.to_string()),
            ("MIMIR_GRPC_PORT", grpc.to_string()),
            ("MIMIR_LOG_LEVEL", "warn".to_owned()),
            ("MIMIR_SHUTDOWN_DELAY", "1s".to_owned()),
        ]);
        for (name, value) in environment {
            all.retain(|(known, _)| known != name);
            all.push((name, (*value).to_owned()));
        }
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let disk = TempDir::with_prefix(format!("{id}-")).expect("directory");
        let process = run(id, disk.path(), &all, &arguments);
        Self { id: id.to_owned(), process, port, grpc, environment: all, arguments, disk }
    }

    /// Waits until it takes requests.
    pub async fn wait_ready(&mut self) {
        let url = format!("{}/ready", self.url());
        self.process.wait_ready(&url, "ready", Duration::from_secs(180)).await;
    }

    /// Its name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its address for HTTP.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its port for HTTP.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its port for other instances.
    pub fn grpc_port(&self) -> u16 {
        self.grpc
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Where its data is.
    pub fn disk(&self) -> &Path {
        self.disk.path()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Tells it to stop, as Fly does.
    pub fn terminate(&self) {
        self.process.signal("TERM");
    }

    /// Waits for its end.
    pub fn wait_stopped(&mut self, patience: Duration) -> Option<ExitStatus> {
        self.process.wait(patience)
    }

    /// Ends it at once, as a lack of memory or power does.
    pub fn kill(&mut self) {
        self.process.signal("KILL");
        assert!(self.process.wait(Duration::from_secs(10)).is_some(), "{} lives on", self.id);
    }

    /// Starts it again with the same name, ports and disk.
    pub fn start_again(&mut self) {
        assert!(!self.process.is_running(), "{} is still running", self.id);
        self.process = run(&self.id, self.disk.path(), &self.environment, &self.arguments);
    }

    /// Starts it again with the same name and ports and an empty disk.
    pub fn start_with_empty_disk(&mut self) {
        assert!(!self.process.is_running(), "{} is still running", self.id);
        self.disk = TempDir::with_prefix(format!("{}-", self.id)).expect("directory");
        self.process = run(&self.id, self.disk.path(), &self.environment, &self.arguments);
    }

    /// A client that is the tenant.
    pub fn as_tenant(&self, tenant: &str) -> Client {
        Client::new(&self.url()).header("x-scope-orgid", tenant)
    }

    /// The sum of a metric's series whose line holds all of these.
    pub async fn metric(&self, name: &str, holding: &[&str]) -> f64 {
        let text = Client::new(&self.url()).get("/metrics").await.text;
        let lines = text.lines().filter(|line| {
            let rest = line.strip_prefix(name).unwrap_or_default();
            rest.starts_with(['{', ' ']) && holding.iter().all(|part| rest.contains(part))
        });
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }
}

fn run(
    id: &str,
    disk: &Path,
    environment: &[(&'static str, String)],
    arguments: &Vec<String>,
) -> Process {
    let entrypoint = repository().join("config/fly/mimir-entrypoint");
    Process::start(id, &entrypoint, disk, |command| {
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        command.env("MIMIR_DATA_DIR", disk).args(arguments).current_dir(disk);
    })
}
