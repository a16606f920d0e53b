//! A real Mimir, all in one process, on the file system.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::client::Client;
use crate::parts::part;
use crate::process::{Process, free_port, wait_until};

/// A running Mimir.
pub struct Mimir {
    process: Process,
    port: u16,
    directory: TempDir,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    /// Limits of single tenants, by tenant.
    overrides: Mutex<BTreeMap<String, String>>,
    /// A client that it accepts, if it serves https.
    secured: Option<reqwest::Client>,
}

impl Mimir {
    /// The Mimir that all tests of one process share; each test takes tenants of its own. It is
    /// killed by the kernel when the process ends.
    pub async fn shared() -> &'static Self {
        static SHARED: Mutex<Option<&Mimir>> = Mutex::const_new(None);
        let mut shared = SHARED.lock().await;
        if let Some(mimir) = *shared {
            let Some(words) = mimir.process.last_words() else { return mimir };
            // Those that were using it fail; not all others, too. Not by a macro, whose output tests keep.
            let text =
                format!("The Mimir that tests share has ended; another one starts.\n{words}\n");
            let _ = std::io::stderr().write_all(text.as_bytes());
        }
        let mimir = Box::leak(Box::new(Self::start().await));
        *shared = Some(mimir);
        mimir
    }

    /// Starts a Mimir with all its components and waits until it takes writes. Its ruler sends alerts
    /// to its own Alertmanager.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same, and it sends its traces to a collector.
    pub async fn start_traced(collector: &str) -> Self {
        let environment = vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.to_owned()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf".to_owned()),
            ("OTEL_SERVICE_NAME", "mimir".to_owned()),
            // By default spans are sent after 5 s.
            ("OTEL_BSP_SCHEDULE_DELAY", "200".to_owned()),
        ];
        Self::start_in(environment, &[]).await
    }

    /// The same, with more arguments. `-target=all` leaves the Alertmanager out.
    pub async fn start_with(arguments: &[&str]) -> Self {
        Self::start_in(Vec::new(), arguments).await
    }

    /// The same with https, by the certificate and key in NAME.pem and NAME.key of a directory, and for
    /// clients only that an authority in ca.pem there has signed.
    pub async fn start_secured(directory: &Path, name: &str, client: reqwest::Client) -> Self {
        let path = |file: &str| directory.join(file).display().to_string();
        let arguments = [
            format!("-server.http-tls-cert-path={}", path(&format!("{name}.pem"))),
            format!("-server.http-tls-key-path={}", path(&format!("{name}.key"))),
            format!("-server.http-tls-ca-path={}", path("ca.pem")),
            "-server.http-tls-client-auth=RequireAndVerifyClientCert".to_owned(),
        ];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Self::start_as(Vec::new(), &arguments, Some(client)).await
    }

    async fn start_in(environment: Vec<(&'static str, String)>, arguments: &[&str]) -> Self {
        Self::start_as(environment, arguments, None).await
    }

    async fn start_as(
        environment: Vec<(&'static str, String)>,
        arguments: &[&str],
        secured: Option<reqwest::Client>,
    ) -> Self {
        let directory = TempDir::with_prefix("mimir-").expect("directory");
        let (port, grpc, gossip) = (free_port(), free_port(), free_port());
        let config = directory.path().join("mimir.yaml");
        std::fs::write(&config, configuration(directory.path().to_path_buf(), port, gossip))
            .expect("config");
        // Without runtime configuration Mimir does not serve /api/v1/user_limits.
        let runtime = directory.path().join("runtime.yaml");
        std::fs::write(&runtime, "overrides: {}\n").expect("runtime config");
        let mut all: Vec<String> =
            ADVERTISERS.map(|name| format!("-{name}.instance-addr=127.0.0.1")).into();
        all.push(format!("-config.file={}", config.display()));
        all.push(format!("-runtime-config.file={}", runtime.display()));
        all.push("-runtime-config.reload-period=200ms".to_owned());
        all.push(format!("-server.http-listen-port={port}"));
        all.push(format!("-server.grpc-listen-port={grpc}"));
        all.extend(arguments.iter().map(ToString::to_string));
        let process = Self::process(&all, &environment, directory.path());
        let (arguments, overrides) = (all, Mutex::default());
        let mut mimir =
            Self { process, port, directory, arguments, environment, overrides, secured };
        mimir.wait_ready().await;
        mimir
    }

    fn process(
        arguments: &[String],
        environment: &[(&'static str, String)],
        directory: &Path,
    ) -> Process {
        Process::start("mimir", &part("mimir"), directory, |command| {
            command.args(arguments).current_dir(directory);
            command.envs(environment.iter().map(|(name, value)| (name, value)));
        })
    }

    async fn wait_ready(&mut self) {
        let (url, patience) = (format!("{}/ready", self.url()), Duration::from_secs(120));
        match self.secured.clone() {
            None => self.process.wait_ready(&url, "ready", patience).await,
            Some(client) => self.process.wait_ready_by(&client, &url, "ready", patience).await,
        }
    }

    /// Stops it as an operator does. Its storage stays.
    pub fn stop(&mut self) {
        self.process.signal("TERM");
        assert!(self.process.wait(Duration::from_secs(60)).is_some(), "it does not stop");
    }

    /// Starts it again after [`stop`](Self::stop), on the same port and storage.
    pub async fn start_again(&mut self) {
        self.process = Self::process(&self.arguments, &self.environment, self.directory.path());
        self.wait_ready().await;
    }

    /// Replaces a text of the stored rule groups by another one of the same length, while it is stopped: as an
    /// earlier version left them that took what this one refuses. Returns how often.
    pub fn replace_in_stored_rules(&self, before: &str, after: &str) -> usize {
        assert_eq!(before.len(), after.len(), "lengths are part of what is stored");
        let mut folders = vec![self.directory.path().join("rules")];
        let mut replaced = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("stored rules").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let mut stored = std::fs::read(&path).expect("stored rules");
                let places: Vec<usize> = stored
                    .windows(before.len())
                    .enumerate()
                    .filter(|(_, window)| *window == before.as_bytes())
                    .map(|(at, _)| at)
                    .collect();
                for at in &places {
                    stored[*at..at + after.len()].copy_from_slice(after.as_bytes());
                }
                if !places.is_empty() {
                    std::fs::write(&path, stored).expect("stored rules");
                }
                replaced += places.len();
            }
        }
        replaced
    }

    /// Its process.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Its address.
    pub fn url(&self) -> String {
        match self.secured {
            None => format!("http://127.0.0.1:{}", self.port),
            Some(_) => format!("https://localhost:{}", self.port),
        }
    }

    /// Gives one tenant limits of its own, as a YAML flow mapping, and waits until they hold. Other
    /// tenants keep theirs, so tests that share a Mimir do not disturb each other.
    pub async fn override_limits(&self, tenant: &str, limits: &str) {
        let mut overrides = self.overrides.lock().await;
        overrides.insert(tenant.to_owned(), limits.to_owned());
        // A number that is in no other version, to know this one by.
        let mark = fastrand::u32(1..i32::MAX as u32);
        let mut yaml = String::from("overrides:\n");
        for (tenant, limits) in &*overrides {
            let _ = writeln!(yaml, "  \"{tenant}\": {limits}");
        }
        let _ = writeln!(yaml, "  mark: {{max_global_metadata_per_user: {mark}}}");
        let path = self.directory.path().join("runtime.yaml");
        std::fs::write(path.with_extension("new"), yaml).expect("runtime config");
        std::fs::rename(path.with_extension("new"), path).expect("runtime config");
        let url = format!("{}/runtime_config?mode=diff", self.url());
        wait_until("the limits hold", Duration::from_secs(20), async || {
            let answer = reqwest::get(&url).await.expect("runtime config");
            answer.text().await.expect("runtime config").contains(&mark.to_string())
        })
        .await;
    }

    /// A client that is a tenant, past any proxy.
    pub fn as_tenant(&self, tenant: &str) -> Client {
        Client::new(&self.url()).header("x-scope-orgid", tenant)
    }

    /// Where its ruler sends alerts: its own Alertmanager, for `ruler_alertmanager_client_config`.
    pub fn alertmanager_url(&self) -> String {
        format!("{}/alertmanager", self.url())
    }

    /// Gives a tenant this Alertmanager configuration (YAML), in place of what it has, and waits
    /// until it is loaded.
    pub async fn configure_alertmanager(&self, tenant: &str, configuration: &str) {
        let client = self.as_tenant(tenant);
        let document = serde_json::json!({ "alertmanager_config": configuration });
        let before =
            (self.alertmanager_hash(tenant).await, client.get("/api/v1/alerts").await.text);
        let stored = client.post("/api/v1/alerts", document.to_string()).await;
        assert_eq!(stored.status, 201, "{stored:?}");
        let is_same = client.get("/api/v1/alerts").await.text == before.1;
        wait_until("the Alertmanager has loaded it", Duration::from_secs(20), async || {
            let now = self.alertmanager_hash(tenant).await;
            now.is_some() && (is_same || now != before.0)
        })
        .await;
    }

    /// The hash of what a tenant's Alertmanager has loaded; none if it has not been started.
    async fn alertmanager_hash(&self, tenant: &str) -> Option<String> {
        let series = format!("cortex_alertmanager_config_hash{{user=\"{tenant}\"}} ");
        let text = Client::new(&self.url()).get("/metrics").await.text;
        text.lines().find_map(|line| line.strip_prefix(&series)).map(str::to_owned)
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// Whoever tells the others an address would tell that of a network card, where nobody listens.
const ADVERTISERS: [&str; 10] = [
    "alertmanager.sharding-ring",
    "compactor.ring",
    "distributor.ring",
    "ingester.ring",
    "overrides-exporter.ring",
    "querier.ring",
    "query-frontend",
    "query-scheduler.ring",
    "ruler.ring",
    "store-gateway.sharding-ring",
];

fn configuration(directory: PathBuf, port: u16, gossip: u16) -> String {
    let directory = directory.display();
    format!(
        r#"
target: all,alertmanager
multitenancy_enabled: true
server:
  http_listen_address: 127.0.0.1
  grpc_listen_address: 127.0.0.1
  log_level: warn
  http_server_read_timeout: 10m
  http_server_write_timeout: 10m
common:
  storage:
    backend: filesystem
    filesystem: {{dir: "{directory}/common"}}
blocks_storage:
  filesystem: {{dir: "{directory}/blocks"}}
  tsdb: {{dir: "{directory}/tsdb"}}
  bucket_store: {{sync_dir: "{directory}/sync"}}
ruler_storage:
  filesystem: {{dir: "{directory}/rules"}}
alertmanager_storage:
  filesystem: {{dir: "{directory}/alerts"}}
ruler:
  rule_path: "{directory}/rules-temp"
  # By default a new rule's first result takes more than a minute.
  inbound_sync_queue_poll_interval: 1s
  outbound_sync_queue_poll_interval: 1s
alertmanager:
  data_dir: "{directory}/alertmanager"
  # By default a new configuration is loaded after up to 15 seconds.
  poll_interval: 1s
  sharding_ring: {{replication_factor: 1}}
compactor: {{data_dir: "{directory}/compactor"}}
activity_tracker: {{filepath: ""}}
usage_stats: {{enabled: false}}
memberlist: {{bind_addr: [127.0.0.1], bind_port: {gossip}, advertise_addr: 127.0.0.1}}
ingester:
  ring: {{replication_factor: 1, min_ready_duration: 0s}}
distributor: {{influx_endpoint_enabled: true}}
store_gateway: {{sharding_ring: {{replication_factor: 1}}}}
limits:
  ruler_alertmanager_client_config:
    alertmanager_url: "http://127.0.0.1:{port}/alertmanager"
  ruler_evaluation_delay_duration: 0s
  cardinality_analysis_enabled: true
  max_global_exemplars_per_user: 1000
  native_histograms_ingestion_enabled: true
  compactor_blocks_retention_period: 0s
"#
    )
}
