//! A real S3-compatible server, on loopback without TLS. [`crate::R2`] puts R2's rules before it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tempfile::TempDir;

use crate::parts::part;
use crate::process::{Process, free_port};

/// A running MinIO.
pub struct Minio {
    process: Process,
    port: u16,
    secret: String,
    directory: TempDir,
}

/// Who may come in.
const ACCESS_KEY: &str = "r2-access-key";

impl Minio {
    /// Starts one of the region `auto`, and of no other, with these buckets.
    pub async fn start(buckets: &[&str]) -> Self {
        let directory = TempDir::with_prefix("minio-").expect("directory");
        // A directory is a bucket.
        for bucket in buckets {
            std::fs::create_dir_all(directory.path().join("data").join(bucket)).expect("bucket");
        }
        let (port, console) = (free_port(), free_port());
        let secret = uuid::Uuid::new_v4().simple().to_string();
        let process = Process::start("minio", &part("minio"), directory.path(), |command| {
            command
                .arg("server")
                .arg(format!("--address=127.0.0.1:{port}"))
                .arg(format!("--console-address=127.0.0.1:{console}"))
                .arg(directory.path().join("data"))
                .env("HOME", directory.path())
                .env("MINIO_ROOT_USER", ACCESS_KEY)
                .env("MINIO_ROOT_PASSWORD", &secret)
                .env("MINIO_SITE_REGION", "auto")
                .env("MINIO_BROWSER", "off")
                .env("MINIO_UPDATE", "off");
        });
        let mut minio = Self { process, port, secret, directory };
        let url = format!("http://{}/minio/health/ready", minio.address());
        minio.process.wait_ready(&url, "", Duration::from_secs(60)).await;
        minio
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// The access key's ID.
    pub fn access_key_id(&self) -> &'static str {
        ACCESS_KEY
    }

    /// The access key's secret.
    pub fn secret_access_key(&self) -> &str {
        &self.secret
    }

    /// The names directly beneath `<bucket>/<path>`.
    pub fn list(&self, bucket: &str, path: &str) -> Vec<String> {
        let directory = self.directory.path().join("data").join(bucket).join(path);
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// The complete blocks of a tenant in a bucket.
    pub fn blocks(&self, bucket: &str, tenant: &str) -> Vec<String> {
        let names = self.list(bucket, tenant).into_iter();
        // A block's ID is a ULID; what is written last is meta.json.
        let blocks = names.filter(|name| name.len() == 26);
        blocks
            .filter(|block| !self.list(bucket, &format!("{tenant}/{block}/meta.json")).is_empty())
            .collect()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }
}
