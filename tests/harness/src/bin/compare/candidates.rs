//! The candidates, each configured as its users would for this job, with an access log.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use harness::{
    Client, Issuer, ORG_A, Process, Proxy, ProxyOptions, SigningKey, free_port, part, wait_until,
};
use serde_json::json;
use tempfile::TempDir;

/// What all candidates share.
pub struct Scene {
    pub directory: TempDir,
    pub issuer: Issuer,
    pub es256: String,
    pub hs256: String,
    upstream_port: u16,
    _upstream: Process,
}

/// A running candidate.
pub struct Candidate {
    pub name: String,
    pub port: u16,
    pub token: String,
    pub process: Running,
}

/// Ours brings its own wrapper.
pub enum Running {
    Other(Process),
    Ours(Proxy),
}

impl Running {
    pub fn id(&self) -> u32 {
        match self {
            Self::Other(process) => process.id(),
            Self::Ours(proxy) => proxy.process.id(),
        }
    }
}

const SECRET: &str = "a shared secret of at least thirty-two bytes";

impl Scene {
    pub async fn start() -> Self {
        let directory = TempDir::with_prefix("compare-").expect("directory");
        let issuer = Issuer::start().await;
        let user = issuer.token().organisation(&json!(ORG_A)).expires_in(24 * 3600);
        let hs256 = user.clone().signed_by(&SigningKey::secret(SECRET.as_bytes())).sign();
        let upstream_port = free_port();
        let files = directory.path().join("files");
        std::fs::create_dir(&files).expect("files");
        std::fs::write(files.join("query"), "x".repeat(1024)).expect("file");
        std::fs::write(files.join("stream"), vec![b'x'; 64 << 20]).expect("file");
        let upstream = nginx(
            &directory,
            "upstream",
            &upstream_configuration(upstream_port, &files.display().to_string()),
        );
        let scene = Self {
            es256: user.sign(),
            hs256,
            issuer,
            upstream_port,
            _upstream: upstream,
            directory,
        };
        wait_for(upstream_port, "").await;
        scene
    }

    fn upstream_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.upstream_port)
    }

    pub async fn proxy(&self, upstream: &str) -> Proxy {
        let secret = format!("{SECRET:?}");
        ProxyOptions::new(&self.issuer.url(), upstream)
            .set("auth.hs256_secret", &secret)
            .start()
            .await
    }

    pub async fn candidates(&self) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        let port = free_port();
        let process =
            nginx(&self.directory, "nginx", &nginx_configuration(port, self.upstream_port));
        candidates.push(self.candidate("nginx, no authentication", port, &self.es256, process));
        for algorithm in ["ES256", "HS256"] {
            let port = free_port();
            let (process, token) = self.haproxy(algorithm, port);
            candidates.push(self.candidate(
                &format!("haproxy, {algorithm}"),
                port,
                &token,
                process,
            ));
        }
        let port = free_port();
        candidates.push(self.candidate(
            "vmauth, static token",
            port,
            &self.es256,
            self.vmauth(port),
        ));
        for (name, token) in
            [("this proxy, ES256", &self.es256), ("this proxy, HS256", &self.hs256)]
        {
            let proxy = self.proxy(&self.upstream_url()).await;
            let port = proxy.url().rsplit(':').next().unwrap().parse().expect("port");
            candidates.push(Candidate {
                name: name.to_owned(),
                port,
                token: token.clone(),
                process: Running::Ours(proxy),
            });
        }
        for candidate in &candidates {
            wait_for(candidate.port, &candidate.token).await;
        }
        candidates
    }

    fn candidate(&self, name: &str, port: u16, token: &str, process: Process) -> Candidate {
        Candidate {
            name: name.to_owned(),
            port,
            token: token.to_owned(),
            process: Running::Other(process),
        }
    }

    fn haproxy(&self, algorithm: &str, port: u16) -> (Process, String) {
        let (key, token) = match algorithm {
            "ES256" => {
                let file = self.directory.path().join("es256.pem");
                std::fs::write(&file, public_pem(&self.issuer.key)).expect("key");
                (file.display().to_string(), self.es256.clone())
            }
            _ => (SECRET.to_owned(), self.hs256.clone()),
        };
        let config = self.directory.path().join(format!("haproxy-{algorithm}.cfg"));
        let upstream = self.upstream_port;
        let text = format!(
            "global\n  nbthread 2\n  log stdout format raw local0\n\
             defaults\n  mode http\n  log global\n  option httplog\n  timeout client 60s\n  timeout server 60s\n  timeout connect 5s\n\
             frontend in\n  bind 127.0.0.1:{port}\n\
             \x20 http-request set-var(txn.bearer) http_auth_bearer\n\
             \x20 http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')\n\
             \x20 http-request deny deny_status 401 unless {{ var(txn.alg) -m str {algorithm} }}\n\
             \x20 http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_verify(txn.alg,\"{key}\") -m int 1 }}\n\
             \x20 http-request set-header X-Scope-OrgID %[var(txn.bearer),jwt_payload_query('$.app_metadata.org_id')]\n\
             \x20 http-request del-header Authorization\n\
             \x20 default_backend out\n\
             backend out\n  http-reuse always\n  server mimir 127.0.0.1:{upstream}\n"
        );
        std::fs::write(&config, text).expect("config");
        let process = Process::start(
            &format!("haproxy-{algorithm}"),
            &part("haproxy"),
            self.directory.path(),
            |command| {
                command.arg("-db").arg("-f").arg(&config);
            },
        );
        (process, token)
    }

    fn vmauth(&self, port: u16) -> Process {
        let config = self.directory.path().join("vmauth.yml");
        let (token, upstream) = (&self.es256, self.upstream_url());
        let text = format!(
            "users:\n- bearer_token: {token}\n  url_prefix: {upstream}\n  headers: ['X-Scope-OrgID: {ORG_A}']\n"
        );
        std::fs::write(&config, text).expect("config");
        Process::start("vmauth", &part("vmauth"), self.directory.path(), |command| {
            command.arg(format!("-auth.config={}", config.display()));
            command.arg(format!("-httpListenAddr=127.0.0.1:{port}"));
        })
    }
}

async fn wait_for(port: u16, token: &str) {
    let client = Client::new(&format!("http://127.0.0.1:{port}")).bearer(token);
    wait_until(&format!("port {port} answers"), Duration::from_secs(20), async || {
        let answer = client.try_send(http::Method::GET, crate::load::QUERY, "").await;
        answer.is_ok_and(|answer| answer.status == 200)
    })
    .await;
}

fn nginx(directory: &TempDir, name: &str, configuration: &str) -> Process {
    let home = directory.path().join(name);
    std::fs::create_dir(&home).expect("directory");
    let config: PathBuf = home.join("nginx.conf");
    std::fs::write(&config, configuration.replace("HOME", &home.display().to_string()))
        .expect("config");
    Process::start(name, &part("nginx"), directory.path(), |command| {
        command.arg("-p").arg(&home).arg("-e").arg(home.join("error.log")).arg("-c").arg(&config);
    })
}

fn upstream_configuration(port: u16, files: &str) -> String {
    format!(
        "daemon off; worker_processes 2; user root; pid HOME/pid; error_log HOME/error.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; keepalive_requests 1000000; client_max_body_size 0; client_body_temp_path HOME/body;\n\
         open_file_cache max=10; sendfile on;\n\
         server {{ listen 127.0.0.1:{port} backlog=4096;\n\
         location = /prometheus/api/v1/query {{ root /; try_files {files}/query =404; }}\n\
         location = /api/v1/user_stats {{ root /; try_files {files}/stream =404; }}\n\
         location = /api/v1/push {{ return 200; }} }} }}\n"
    )
}

fn nginx_configuration(port: u16, upstream: u16) -> String {
    format!(
        "daemon off; worker_processes 2; user root; pid HOME/pid; error_log HOME/error.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log HOME/access.log combined buffer=16k flush=1s; keepalive_requests 1000000; client_max_body_size 0;\n\
         client_body_temp_path HOME/body; proxy_temp_path HOME/proxy;\n\
         upstream mimir {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 1000000; }}\n\
         server {{ listen 127.0.0.1:{port} backlog=4096;\n\
         location / {{ proxy_pass http://mimir; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
         proxy_set_header Authorization \"\"; proxy_set_header X-Scope-OrgID {ORG_A};\n\
         proxy_request_buffering off; proxy_max_temp_file_size 0;\n\
         client_body_buffer_size 128k; proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k; }} }} }}\n"
    )
}

/// A P-256 public key in PEM: a fixed SubjectPublicKeyInfo prefix (RFC 5480) and the point.
fn public_pem(key: &SigningKey) -> String {
    const PREFIX: [u8; 27] = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08,
        0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
    ];
    let coordinate = |name: &str| {
        URL_SAFE_NO_PAD.decode(key.public[name].as_str().expect("a coordinate")).expect("base64")
    };
    let der = [&PREFIX[..], &coordinate("x"), &coordinate("y")].concat();
    let text = STANDARD.encode(der);
    let (first, second) = text.split_at(64);
    format!("-----BEGIN PUBLIC KEY-----\n{first}\n{second}\n-----END PUBLIC KEY-----\n")
}
