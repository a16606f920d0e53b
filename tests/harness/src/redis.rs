//! A real Redis as Upstash lends one: TLS, a user with a password, the same largest request, and
//! eviction when it is full.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::certificates::Certificates;
use crate::parts::part;
use crate::process::{Process, free_port, wait_until};

/// A running Redis.
pub struct Redis {
    process: Process,
    port: u16,
    password: String,
    ca: PathBuf,
    _directory: TempDir,
}

impl Redis {
    /// Starts one.
    pub async fn start() -> Self {
        let directory = TempDir::with_prefix("redis-").expect("directory");
        let files = Certificates::make(directory.path());
        let (port, password) = (free_port(), uuid::Uuid::new_v4().simple().to_string());
        let process = Process::start("redis", &part("redis-server"), directory.path(), |command| {
            command
                .args(["--bind", "127.0.0.1", "--port", "0", "--tls-port", &port.to_string()])
                .arg("--tls-cert-file")
                .arg(&files.certificate)
                .arg("--tls-key-file")
                .arg(&files.key)
                .arg("--tls-ca-cert-file")
                .arg(&files.ca)
                .args(["--tls-auth-clients", "no", "--save", "", "--appendonly", "no"])
                .args(["--user", "default", "on", &format!(">{password}"), "~*", "&*", "+@all"])
                // A larger value ends the connection; Upstash refuses the request.
                .args(["--proto-max-bulk-len", "10000000"])
                .args(["--maxmemory", "64mb", "--maxmemory-policy", "allkeys-random"])
                .current_dir(directory.path());
        });
        let mut redis = Self { process, port, password, ca: files.ca, _directory: directory };
        let process = &mut redis.process;
        wait_until("Redis takes connections", Duration::from_secs(20), async || {
            assert!(process.is_running(), "Redis does not start\n{}", process.log());
            TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
        redis
    }

    /// Its host and port, as `REDIS_ENDPOINT` wants them.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The password of the user `default`.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The authority (PEM) that signed its certificate.
    pub fn ca_file(&self) -> &Path {
        &self.ca
    }
}
