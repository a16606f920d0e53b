//! A real S3-compatible server with as much of Cloudflare R2's rules as can be set: TLS, the region
//! `auto` and no other, buckets that are there before, and no encryption headers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::certificates::Certificates;
use crate::parts::part;
use crate::process::{Process, free_port, wait_until};

/// A running MinIO.
pub struct Minio {
    process: Process,
    port: u16,
    ca: PathBuf,
    secret: String,
    directory: TempDir,
}

/// Who may come in.
const ACCESS_KEY: &str = "r2-access-key";

impl Minio {
    /// Starts one with these buckets.
    pub async fn start(buckets: &[&str]) -> Self {
        let directory = TempDir::with_prefix("minio-").expect("directory");
        let files = Certificates::make(directory.path());
        let certificates = directory.path().join("certificates");
        std::fs::create_dir(&certificates).expect("directory");
        for (from, to) in [(&files.certificate, "public.crt"), (&files.key, "private.key")] {
            std::fs::copy(from, certificates.join(to)).expect("certificate");
        }
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
                .arg("--certs-dir")
                .arg(&certificates)
                .arg(directory.path().join("data"))
                .env("HOME", directory.path())
                .env("MINIO_ROOT_USER", ACCESS_KEY)
                .env("MINIO_ROOT_PASSWORD", &secret)
                .env("MINIO_SITE_REGION", "auto")
                .env("MINIO_BROWSER", "off")
                .env("MINIO_UPDATE", "off");
        });
        let mut minio = Self { process, port, ca: files.ca, secret, directory };
        minio.wait_ready().await;
        minio
    }

    /// Its host and port, as `R2_ENDPOINT` wants them.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The access key's ID.
    pub fn access_key_id(&self) -> &'static str {
        ACCESS_KEY
    }

    /// The access key's secret.
    pub fn secret_access_key(&self) -> &str {
        &self.secret
    }

    /// The authority (PEM) that signed its certificate.
    pub fn ca_file(&self) -> &Path {
        &self.ca
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

    /// The complete blocks of a tenant.
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

    async fn wait_ready(&mut self) {
        let pem = std::fs::read(&self.ca).expect("authority");
        let authority = reqwest::Certificate::from_pem(&pem).expect("authority");
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([authority]);
        let http = http.timeout(Duration::from_secs(5)).build().expect("client");
        let url = format!("https://{}/minio/health/ready", self.endpoint());
        let process = &mut self.process;
        wait_until("MinIO is ready", Duration::from_secs(60), async || {
            assert!(process.is_running(), "MinIO does not start\n{}", process.log());
            http.get(&url).send().await.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
    }
}
