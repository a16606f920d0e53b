//! A real Consul as Fly.io lends one: TLS, access control that denies by default, and tokens that reach
//! one prefix of keys and nothing else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use prost::Message;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::certificates::Certificates;
use crate::parts::part;
use crate::process::{Process, free_port, wait_until};

/// A running Consul.
pub struct Consul {
    process: Process,
    port: u16,
    ca: PathBuf,
    /// May do everything; on Fly nobody but Fly has one.
    management: String,
    http: reqwest::Client,
    _directory: TempDir,
}

/// An instance as it stands in a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingMember {
    /// Where it says that it can be reached.
    pub address: String,
    /// Whether it is active: not pending, joining or leaving.
    pub is_active: bool,
}

impl Consul {
    /// Starts one.
    pub async fn start() -> Self {
        let directory = TempDir::with_prefix("consul-").expect("directory");
        let files = Certificates::make(directory.path());
        let (port, management) = (free_port(), uuid::Uuid::new_v4().to_string());
        let config = directory.path().join("consul.json");
        std::fs::write(&config, configuration(port, &management, &files).to_string())
            .expect("config");
        let process = Process::start("consul", &part("consul"), directory.path(), |command| {
            // In memory, one server.
            command.args(["agent", "-dev", "-config-file"]).arg(&config);
        });
        let pem = std::fs::read(&files.ca).expect("authority");
        let authority = reqwest::Certificate::from_pem(&pem).expect("authority");
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([authority]);
        let http = http.timeout(Duration::from_secs(5)).build().expect("client");
        let mut consul =
            Self { process, port, ca: files.ca, management, http, _directory: directory };
        consul.wait_ready().await;
        consul
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// A connection string as `fly consul attach` sets it: `https://:TOKEN@HOST/PREFIX`. The token
    /// may read and write keys beneath the prefix, and make sessions.
    pub async fn attach(&self, prefix: &str) -> String {
        let rules = format!(
            "key_prefix \"{prefix}/\" {{ policy = \"write\" }}\nsession_prefix \"\" {{ policy = \"write\" }}"
        );
        let policy = json!({"Name": prefix.replace('/', "-"), "Rules": rules});
        let policy = self.manage("/v1/acl/policy", policy).await;
        let token = json!({"Policies": [{"ID": policy["ID"]}]});
        let token = self.manage("/v1/acl/token", token).await;
        let token = token["SecretID"].as_str().expect("a token");
        format!("https://:{token}@127.0.0.1:{}/{prefix}", self.port)
    }

    /// The status that a connection string's token gets when it writes a key.
    pub async fn write_as(&self, connection: &str, key: &str) -> u16 {
        let token = connection.split_once("://:").and_then(|(_, rest)| rest.split_once('@'));
        let token = token.expect("a connection string").0;
        let request = self.http.put(self.url(&format!("/v1/kv/{key}"))).body("x");
        request.header("x-consul-token", token).send().await.expect("an answer").status().as_u16()
    }

    /// All keys beneath a prefix.
    pub async fn keys(&self, prefix: &str) -> Vec<String> {
        let answer = self.get(&format!("/v1/kv/{prefix}?keys")).await;
        serde_json::from_slice(&answer).unwrap_or_default()
    }

    /// The members of the ring that is kept in a key, by their IDs; nobody if there is no such key.
    pub async fn ring(&self, key: &str) -> BTreeMap<String, RingMember> {
        let packed = self.get(&format!("/v1/kv/{key}?raw")).await;
        let Ok(plain) = snap::raw::Decoder::new().decompress_vec(&packed) else {
            return BTreeMap::new();
        };
        let ring = Ring::decode(plain.as_slice()).expect("a ring");
        let members = ring.instances.into_iter().map(|(id, instance)| {
            // In protobuf active is 0 and is left out.
            let is_active = instance.state == 0;
            (id, RingMember { address: instance.address, is_active })
        });
        members.collect()
    }

    /// The authority (PEM) that signed its certificate.
    pub fn ca_file(&self) -> &Path {
        &self.ca
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    fn url(&self, target: &str) -> String {
        format!("https://127.0.0.1:{}{target}", self.port)
    }

    async fn manage(&self, target: &str, body: Value) -> Value {
        let request = self.http.put(self.url(target)).body(body.to_string());
        let answer = request.header("x-consul-token", &self.management).send().await;
        let text = answer.expect("an answer").text().await.expect("an answer");
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{target}: {text}"))
    }

    async fn get(&self, target: &str) -> Vec<u8> {
        let request = self.http.get(self.url(target)).header("x-consul-token", &self.management);
        let answer = request.send().await.expect("an answer");
        if answer.status().as_u16() == 404 {
            return Vec::new();
        }
        assert!(answer.status().is_success(), "{target}: {}", answer.status());
        answer.bytes().await.expect("an answer").to_vec()
    }

    async fn wait_ready(&mut self) {
        let url = self.url("/v1/acl/token/self");
        let (http, management, process) = (&self.http, &self.management, &mut self.process);
        // The management token is known once there is a leader.
        wait_until("Consul knows its first token", Duration::from_secs(60), async || {
            assert!(process.is_running(), "Consul does not start\n{}", process.log());
            let answer = http.get(&url).header("x-consul-token", management).send().await;
            answer.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
    }
}

fn configuration(port: u16, management: &str, files: &Certificates) -> Value {
    json!({
        "bind_addr": "127.0.0.1",
        "client_addr": "127.0.0.1",
        "ports": {
            "http": -1, "https": port, "grpc": -1, "dns": -1,
            "serf_lan": free_port(), "serf_wan": -1, "server": free_port(),
        },
        "ca_file": files.ca, "cert_file": files.certificate, "key_file": files.key,
        "connect": {"enabled": false},
        "disable_update_check": true,
        "log_level": "warn",
        "acl": {
            "enabled": true, "default_policy": "deny",
            "tokens": {"initial_management": management, "agent": management},
        },
    })
}

/// `ring.Desc` of dskit, as far as we look.
#[derive(Clone, PartialEq, Message)]
struct Ring {
    #[prost(map = "string, message", tag = "1")]
    instances: std::collections::HashMap<String, Instance>,
}

#[derive(Clone, PartialEq, Message)]
struct Instance {
    #[prost(string, tag = "1")]
    address: String,
    #[prost(int32, tag = "3")]
    state: i32,
}
