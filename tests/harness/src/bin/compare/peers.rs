//! Who is measured: the table of peers, and how each is started. Their configurations are in
//! `loadtest/peers`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use harness::load::{Load, Until, request};
use harness::{
    Client, Database, Issuer, ORG_A, Postgres, Process, Proxy, ProxyOptions, SigningKey, free_port,
    part, showcase, wait_until,
};
use serde_json::json;
use tempfile::TempDir;

use crate::cases::QUERY;

/// A program under test, or one way to configure it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// The upstream itself.
    Direct,
    Nginx,
    Bookkeeping,
    HaproxyEs256,
    HaproxyHs256,
    Vmauth,
    /// This proxy; what a caller may do is in the token.
    Proxy,
    /// The same, where others are asked over HTTP/2.
    Http1,
    /// This proxy with a database: what users may do is in a table.
    Members,
    /// This proxy with a database and callers with device keys.
    Devices,
    /// The build that `--against` names.
    Against,
}

impl Peer {
    pub fn title(self) -> &'static str {
        match self {
            Self::Direct => "the upstream, directly",
            Self::Nginx => "nginx, bare",
            Self::Bookkeeping => "nginx, same bookkeeping",
            Self::HaproxyEs256 => "haproxy, ES256",
            Self::HaproxyHs256 => "haproxy, HS256",
            Self::Vmauth => "vmauth, listed token",
            Self::Proxy => "this proxy",
            Self::Http1 => "this proxy, HTTP/1.1",
            Self::Members => "this proxy, members",
            Self::Devices => "this proxy, device keys",
            Self::Against => "the other build",
        }
    }
}

/// A running peer.
pub struct Running {
    pub address: SocketAddr,
    /// Values of `Authorization`, each of another caller.
    pub credentials: Vec<String>,
    process: Part,
}

enum Part {
    Upstream(u32),
    Other(Process),
    Ours(Box<Proxy>),
}

impl Running {
    /// Sends a request of each caller, so that all are known when something is measured.
    fn meet(&self) {
        let request = |credential: &String| request("GET", QUERY, credential, b"");
        let requests: Vec<Vec<u8>> = self.credentials.iter().map(request).collect();
        let until = Until::Requests(requests.len());
        let load =
            Load { address: self.address, requests: &requests, connections: 8, rate: None, until };
        tokio::task::block_in_place(|| load.run());
    }

    pub fn process(&self) -> u32 {
        match &self.process {
            Part::Upstream(id) => *id,
            Part::Other(process) => process.id(),
            Part::Ours(proxy) => proxy.process.id(),
        }
    }
}

const CALLERS: usize = 1_000;
const SECRET: &str = "a shared secret of at least thirty-two bytes";
const ADMIN_KEY: &str = "operator-key-of-at-least-thirty-two-characters";

/// What all peers share.
pub struct Scene {
    pub directory: TempDir,
    issuer: Issuer,
    es256: Vec<String>,
    /// `sub` of each.
    users: Vec<String>,
    upstream_port: u16,
    upstream: Process,
    postgres: Option<(Postgres, Database)>,
    against: Option<PathBuf>,
    cores: usize,
}

impl Scene {
    pub async fn start(against: Option<PathBuf>) -> Self {
        let directory = TempDir::with_prefix("compare-").expect("directory");
        let issuer = Issuer::start().await;
        let users: Vec<String> = (0..CALLERS).map(|_| uuid::Uuid::new_v4().to_string()).collect();
        let es256 = users.iter().map(|user| token(&issuer, user, None)).collect();
        let files = directory.path().join("files");
        std::fs::create_dir(&files).expect("files");
        std::fs::write(files.join("query"), "x".repeat(1024)).expect("file");
        std::fs::write(files.join("stream"), vec![b'x'; 64 << 20]).expect("file");
        std::fs::write(files.join("short-stream"), vec![b'x'; 8 << 20]).expect("file");
        let (port, cores) =
            (free_port(), std::thread::available_parallelism().map_or(1, usize::from));
        let words = [
            ("PORT", port.to_string()),
            ("CORES", cores.to_string()),
            ("FILES", files.display().to_string()),
        ];
        let upstream = nginx(
            &directory,
            "upstream",
            include_str!("../../../../../loadtest/peers/upstream.conf"),
            &words,
        );
        wait_for(port, "").await;
        Self {
            es256,
            users,
            issuer,
            upstream_port: port,
            upstream,
            postgres: None,
            against,
            cores,
            directory,
        }
    }

    /// Tokens that nobody has seen yet.
    pub fn new_tokens(&self, count: usize) -> Vec<String> {
        let (issuer, share) = (&self.issuer, count.div_ceil(self.cores));
        let sign = || -> Vec<String> {
            let users = (0..share).map(|_| uuid::Uuid::new_v4().to_string());
            users.map(|user| token(issuer, &user, None)).collect()
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.cores).map(|_| scope.spawn(sign)).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("tokens")).collect()
        })
    }

    /// Starts all of them. `Against` is left out if there is no other build.
    pub async fn run(&mut self, peers: &[Peer]) -> BTreeMap<Peer, Running> {
        let mut running = BTreeMap::new();
        for peer in peers {
            if *peer == Peer::Against && self.against.is_none() {
                continue;
            }
            let started = self.start_one(*peer).await;
            wait_for(started.address.port(), &started.credentials[0]).await;
            started.meet();
            running.insert(*peer, started);
        }
        running
    }

    async fn start_one(&mut self, peer: Peer) -> Running {
        let port = free_port();
        let bearers = bearers(&self.es256);
        let other = |port: u16, credentials: Vec<String>, process: Process| Running {
            address: local(port),
            credentials,
            process: Part::Other(process),
        };
        match peer {
            Peer::Direct => Running {
                address: local(self.upstream_port),
                credentials: bearers,
                process: Part::Upstream(self.upstream.id()),
            },
            Peer::Nginx => {
                let text = include_str!("../../../../../loadtest/peers/nginx.conf");
                other(port, bearers, nginx(&self.directory, "nginx", text, &self.words(port)))
            }
            Peer::Bookkeeping => {
                let text = include_str!("../../../../../loadtest/peers/nginx-bookkeeping.conf");
                let process = nginx(&self.directory, "bookkeeping", text, &self.words(port));
                other(port, bearers, process)
            }
            Peer::HaproxyEs256 => other(port, bearers, self.haproxy("ES256", port)),
            Peer::HaproxyHs256 => {
                let secret = SigningKey::secret(SECRET.as_bytes());
                let signed = self.users.iter().map(|user| token(&self.issuer, user, Some(&secret)));
                let credentials = signed.map(|token| format!("Bearer {token}")).collect();
                other(port, credentials, self.haproxy("HS256", port))
            }
            Peer::Vmauth => other(port, bearers, self.vmauth(port)),
            Peer::Proxy | Peer::Http1 => ours(self.options().start().await, bearers),
            Peer::Against => {
                let binary = self.against.clone().expect("--against");
                ours(self.options().binary(&binary).start().await, bearers)
            }
            Peer::Members | Peer::Devices => {
                let url = self.database().await;
                let options = self.options().set("database.url", &format!("{url:?}"));
                let options = options.set("auth.admin_key", &format!("{ADMIN_KEY:?}"));
                let proxy = options.start().await;
                let credentials = if peer == Peer::Members {
                    let tokens = self.users.iter().map(|user| member_token(&self.issuer, user));
                    tokens.map(|token| format!("Bearer {token}")).collect()
                } else {
                    device_keys(&proxy).await
                };
                ours(proxy, credentials)
            }
        }
    }

    fn words(&self, port: u16) -> Vec<(&'static str, String)> {
        vec![
            ("PORT", port.to_string()),
            ("UPSTREAM", self.upstream_port.to_string()),
            ("CORES", self.cores.to_string()),
            ("TENANT", ORG_A.to_owned()),
            ("SECRET", SECRET.to_owned()),
        ]
    }

    fn options(&self) -> ProxyOptions {
        let upstream = format!("http://127.0.0.1:{}", self.upstream_port);
        let text = fill(include_str!("../../../../../loadtest/peers/proxy.toml"), &self.words(0));
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let settings = lines.filter_map(|line| line.split_once(" = "));
        settings.fold(ProxyOptions::new(&self.issuer.url(), &upstream), |options, (key, value)| {
            options.set(key, value)
        })
    }

    /// A database with all users as members, made when it is first needed.
    async fn database(&mut self) -> String {
        if self.postgres.is_none() {
            let postgres = Postgres::start().await;
            let database = postgres.database("compare").await;
            showcase::two_organisations(&database).await;
            let values: Vec<String> =
                self.users.iter().map(|user| format!("('{user}', '{ORG_A}', 'editor')")).collect();
            let insert = "insert into membership (user_id, organisation_id, role) values";
            database.execute(&format!("{insert} {}", values.join(", "))).await;
            self.postgres = Some((postgres, database));
        }
        self.postgres.as_ref().map(|(_, database)| database.url()).unwrap_or_default()
    }

    fn haproxy(&self, algorithm: &str, port: u16) -> Process {
        let key = if algorithm == "ES256" {
            let file = self.directory.path().join("es256.pem");
            std::fs::write(&file, public_pem(&self.issuer.key)).expect("key");
            file.display().to_string()
        } else {
            SECRET.to_owned()
        };
        let mut words = self.words(port);
        words.extend([("ALGORITHM", algorithm.to_owned()), ("KEY", key)]);
        let text = fill(include_str!("../../../../../loadtest/peers/haproxy.cfg"), &words);
        let name = format!("haproxy-{algorithm}");
        let config = self.directory.path().join(format!("{name}.cfg"));
        std::fs::write(&config, text).expect("config");
        Process::start(&name, &part("haproxy"), self.directory.path(), |command| {
            command.arg("-db").arg("-f").arg(&config);
        })
    }

    fn vmauth(&self, port: u16) -> Process {
        let text = include_str!("../../../../../loadtest/peers/vmauth.yml");
        let user = text
            .lines()
            .filter_map(|line| line.strip_prefix("#   "))
            .map(|line| format!("{line}\n"))
            .collect::<String>();
        let users = self.es256.iter().map(|token| user.replace("TOKEN", token));
        let text = text.replace("\n@USERS@", &format!("\n{}", users.collect::<String>()));
        let config = self.directory.path().join("vmauth.yml");
        std::fs::write(&config, fill(&text, &self.words(port))).expect("config");
        Process::start("vmauth", &part("vmauth"), self.directory.path(), |command| {
            command.arg(format!("-auth.config={}", config.display()));
            command.arg(format!("-httpListenAddr=127.0.0.1:{port}"));
            command.arg("-maxIdleConnsPerBackend=128");
        })
    }
}

fn ours(proxy: Proxy, credentials: Vec<String>) -> Running {
    let port = proxy.url().rsplit(':').next().and_then(|port| port.parse().ok()).expect("port");
    Running { address: local(port), credentials, process: Part::Ours(Box::new(proxy)) }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn token(issuer: &Issuer, user: &str, key: Option<&SigningKey>) -> String {
    let token = issuer.token().claim("sub", json!(user)).organisation(&json!(ORG_A));
    let token = token.expires_in(24 * 3600);
    key.map_or(token.clone(), |key| token.clone().signed_by(key)).sign()
}

/// A token that says nothing of organisations.
fn member_token(issuer: &Issuer, user: &str) -> String {
    issuer.token().claim("sub", json!(user)).expires_in(24 * 3600).sign()
}

fn bearers(tokens: &[String]) -> Vec<String> {
    tokens.iter().map(|token| format!("Bearer {token}")).collect()
}

/// Creates as many device keys as there are users.
async fn device_keys(proxy: &Proxy) -> Vec<String> {
    let admin = proxy.client().bearer(ADMIN_KEY);
    let path = format!("/admin/organisations/{ORG_A}/device-keys");
    let mut keys = Vec::new();
    for number in 0..CALLERS {
        let scopes = ["metrics:read", "metrics:write"];
        let wanted = json!({"name": format!("hub {number}"), "scopes": scopes});
        let made = admin.post(&path, wanted.to_string()).await;
        assert_eq!(made.status, 201, "{made:?}");
        keys.push(format!("Bearer {}", made.json()["key"].as_str().expect("a key")));
    }
    keys
}

async fn wait_for(port: u16, authorization: &str) {
    let client = Client::new(&format!("http://127.0.0.1:{port}"));
    let client = client.header("authorization", authorization);
    wait_until(&format!("port {port} answers"), Duration::from_secs(20), async || {
        let answer = client.try_send(http::Method::GET, QUERY, "").await;
        answer.is_ok_and(|answer| answer.status == 200)
    })
    .await;
}

fn fill(text: &str, words: &[(&str, String)]) -> String {
    words
        .iter()
        .fold(text.to_owned(), |text, (word, value)| text.replace(&format!("@{word}@"), value))
}

fn nginx(directory: &TempDir, name: &str, text: &str, words: &[(&'static str, String)]) -> Process {
    let home = directory.path().join(name);
    std::fs::create_dir(&home).expect("directory");
    let config: &Path = &home.join("nginx.conf");
    let text = fill(text, words).replace("@HOME@", &home.display().to_string());
    std::fs::write(config, text).expect("config");
    // Its workers end with it if it is asked to end, and not if it is killed.
    let ended_by = ["--pdeathsig", "TERM"];
    Process::start_with(name, &ended_by, &part("nginx"), directory.path(), |command| {
        command.arg("-p").arg(&home).arg("-e").arg(home.join("error.log")).arg("-c").arg(config);
    })
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
