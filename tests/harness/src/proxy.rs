//! The proxy itself, as the process that operators run.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::client::Client;
use crate::process::{Process, free_port};
use crate::series::mistake_in;

/// How to start a proxy.
#[derive(Clone)]
pub struct ProxyOptions {
    issuer: String,
    upstreams: Vec<String>,
    extra: Vec<(String, String)>,
    binary: PathBuf,
    internal: Option<u16>,
    public: Option<u16>,
    socket: Option<Arc<TcpListener>>,
    variables: Vec<(String, String)>,
    patience: Duration,
}

impl ProxyOptions {
    /// For one issuer and one upstream.
    pub fn new(issuer: &str, upstream: &str) -> Self {
        Self {
            issuer: issuer.to_owned(),
            upstreams: vec![upstream.to_owned()],
            extra: Vec::new(),
            binary: Proxy::binary(),
            internal: None,
            public: None,
            socket: None,
            variables: Vec::new(),
            patience: Duration::from_secs(20),
        }
    }

    /// With another upstream.
    #[must_use]
    pub fn upstream(mut self, url: &str) -> Self {
        self.upstreams.push(url.to_owned());
        self
    }

    /// With `section.key = value` (TOML).
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.extra.push((key.to_owned(), value.to_owned()));
        self
    }

    /// As another program, such as one that sets something up and then becomes the proxy.
    #[must_use]
    pub fn binary(mut self, binary: &std::path::Path) -> Self {
        binary.clone_into(&mut self.binary);
        self
    }

    /// With so much time until it is ready.
    #[must_use]
    pub fn ready_within(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// With this private port, which others must know before it starts.
    #[must_use]
    pub fn internal_port(mut self, port: u16) -> Self {
        self.internal = Some(port);
        self
    }

    /// With this public port, as the one that was there before.
    #[must_use]
    pub fn public_port(mut self, port: u16) -> Self {
        self.public = Some(port);
        self
    }

    /// With this listening socket, which others hold, too, as its public one.
    #[must_use]
    pub fn socket(mut self, socket: &TcpListener) -> Self {
        self.socket = Some(Arc::new(socket.try_clone().expect("socket")));
        self
    }

    /// With this variable in its environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it.
    pub async fn start(self) -> Proxy {
        let directory = TempDir::with_prefix("proxy-").expect("directory");
        let of_socket = |socket: &TcpListener| socket.local_addr().expect("address").port();
        let port = self.socket.as_deref().map(of_socket).or(self.public).unwrap_or_else(free_port);
        let internal = self.internal.unwrap_or_else(free_port);
        let mut keys = vec![
            ("listen.address".to_owned(), format!("\"127.0.0.1:{port}\"")),
            ("listen.internal_address".to_owned(), format!("\"127.0.0.1:{internal}\"")),
            ("auth.issuer".to_owned(), format!("\"{}\"", self.issuer)),
            ("upstream.urls".to_owned(), format!("{:?}", self.upstreams)),
            ("shutdown.drain_delay".to_owned(), "\"0s\"".to_owned()),
            // What upstreams of tests count is what tests send; those about probes set it.
            ("upstream.ready_interval".to_owned(), "\"0s\"".to_owned()),
        ];
        for (key, value) in self.extra {
            keys.retain(|(known, _)| *known != key);
            keys.push((key, value));
        }
        let lines: Vec<String> =
            keys.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        let config = directory.path().join("proxy.toml");
        std::fs::write(&config, lines.concat()).expect("config");
        let process = Process::start("proxy", &self.binary, directory.path(), |command| {
            command.arg("--config").arg(&config).arg("serve").envs(self.variables);
            if let Some(socket) = self.socket {
                // As standard input, which needs no number of its own.
                command.stdin(OwnedFd::from(socket.try_clone().expect("socket")));
                command.envs([("LISTEN_FDS", "1"), ("LISTEN_FDS_FIRST_FD", "0")]);
            }
        });
        let mut proxy = Proxy { process, port, internal, config, _directory: directory };
        let ready = format!("{}/ready", proxy.internal_url());
        proxy.process.wait_ready(&ready, "ready", self.patience).await;
        proxy
    }
}

/// A running proxy.
pub struct Proxy {
    /// The process.
    pub process: Process,
    port: u16,
    internal: u16,
    /// Its configuration file.
    pub config: PathBuf,
    _directory: TempDir,
}

impl Proxy {
    /// The binary that belongs to the running test or program: `MTP_BINARY`, or the one beside it.
    pub fn binary() -> PathBuf {
        if let Some(binary) = std::env::var_os("MTP_BINARY") {
            return binary.into();
        }
        let mut directory = std::env::current_exe().expect("own path");
        directory.pop();
        if directory.ends_with("deps") {
            directory.pop();
        }
        let binary = directory.join("mimir-tenant-proxy");
        assert!(binary.exists(), "{} is not there; run cargo build", binary.display());
        binary
    }

    /// The public port.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The private port.
    pub fn internal_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.internal)
    }

    /// A client of the public port.
    pub fn client(&self) -> Client {
        Client::new(&self.url())
    }

    /// The value of a series, by its name with labels as `/metrics` shows them; 0 if it is absent.
    ///
    /// # Panics
    /// If there are no metrics, or if the proxy never has such a series: a mistake in its name would be a 0.
    pub async fn metric(&self, series: &str) -> f64 {
        let answer = Client::new(&self.internal_url()).get("/metrics").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let mut lines = answer.text.lines();
        if let Some(value) = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')) {
            return value.parse().expect("a number");
        }
        if let Some(mistake) = mistake_in(series) {
            panic!("{series}: {mistake}");
        }
        0.0
    }

    /// The access log's lines that speak of a path.
    pub fn access_log(&self, path: &str) -> Vec<serde_json::Value> {
        let log = self.process.log();
        let lines =
            log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines.filter(|line| line["message"] == "Request" && line["http.path"] == path).collect()
    }
}
