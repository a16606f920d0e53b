//! Stock senders: a real node exporter, scraped by a real Prometheus that remote-writes.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::parts::part;
use crate::process::{Process, free_port};

/// A running node exporter.
pub struct NodeExporter {
    _process: Process,
    port: u16,
    _directory: TempDir,
}

impl NodeExporter {
    /// Starts one.
    pub async fn start() -> Self {
        let directory = TempDir::with_prefix("node-exporter-").expect("directory");
        let port = free_port();
        let program = part("prometheus-node-exporter");
        let mut process = Process::start("node-exporter", &program, directory.path(), |command| {
            command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        });
        let url = format!("http://127.0.0.1:{port}/metrics");
        process.wait_ready(&url, "node_", Duration::from_secs(20)).await;
        Self { _process: process, port, _directory: directory }
    }
}

/// Which remote write protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteWrite {
    /// 1.0, by Debian's Prometheus 2.
    V1,
    /// 2.0, by Prometheus 3.
    V2,
}

/// A running Prometheus that scrapes a node exporter and remote-writes.
pub struct Prometheus {
    process: Process,
    port: u16,
    directory: TempDir,
}

impl Prometheus {
    /// Starts one that writes to a base address with a bearer token.
    pub async fn start(
        version: RemoteWrite,
        exporter: &NodeExporter,
        target: &str,
        token: &str,
    ) -> Self {
        Self::start_as(version, exporter, target, token, |secret| {
            format!("authorization: {{credentials_file: {secret}}}")
        })
        .await
    }

    /// Starts one that writes with basic auth.
    pub async fn start_with_password(
        version: RemoteWrite,
        exporter: &NodeExporter,
        target: &str,
        user: &str,
        password: &str,
    ) -> Self {
        Self::start_as(version, exporter, target, password, |secret| {
            format!("basic_auth: {{username: {user}, password_file: {secret}}}")
        })
        .await
    }

    /// Starts one that writes with TLS, trusts an authority, and shows a certificate, by which alone it is
    /// known.
    pub async fn start_with_certificate(
        version: RemoteWrite,
        exporter: &NodeExporter,
        target: &str,
        ca_file: &Path,
        (certificate, key): (&Path, &Path),
    ) -> Self {
        let tls = format!(
            "tls_config: {{ca_file: {}, cert_file: {}, key_file: {}}}",
            ca_file.display(),
            certificate.display(),
            key.display()
        );
        Self::start_as(version, exporter, target, "", |_| tls.clone()).await
    }

    /// Gives it another password. Prometheus reads the file anew for each request.
    pub fn set_password(&self, password: &str) {
        let directory = self.directory.path();
        std::fs::write(directory.join("token.new"), password).expect("token");
        // In one step, so that no request sees half of it.
        std::fs::rename(directory.join("token.new"), directory.join("token")).expect("token");
    }

    async fn start_as(
        version: RemoteWrite,
        exporter: &NodeExporter,
        target: &str,
        secret: &str,
        credential: impl Fn(&str) -> String,
    ) -> Self {
        let directory = TempDir::with_prefix("prometheus-").expect("directory");
        let port = free_port();
        let (program, message) = match version {
            RemoteWrite::V1 => ("prometheus", ""),
            RemoteWrite::V2 => {
                ("prometheus3", "    protobuf_message: io.prometheus.write.v2.Request\n")
            }
        };
        let config = directory.path().join("prometheus.yml");
        let scraped = exporter.port;
        std::fs::write(directory.path().join("token"), secret).expect("token");
        let credential = credential(&format!("{}/token", directory.path().display()));
        std::fs::write(
            &config,
            format!(
                "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
                 scrape_configs:\n  - job_name: node\n    static_configs: [{{targets: ['127.0.0.1:{scraped}']}}]\n\
                 remote_write:\n  - url: {target}/api/v1/push\n{message}\
                 \x20   {credential}\n\
                 \x20   queue_config: {{batch_send_deadline: 200ms}}\n"
            ),
        )
        .expect("config");
        let process = Process::start("prometheus", &part(program), directory.path(), |command| {
            command
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.tsdb.path={}/data", directory.path().display()))
                .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        });
        let mut prometheus = Self { process, port, directory };
        let url = format!("{}/-/ready", prometheus.url());
        prometheus.process.wait_ready(&url, "eady", Duration::from_secs(30)).await;
        prometheus
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }
}
