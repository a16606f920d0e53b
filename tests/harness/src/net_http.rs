//! Go's `net/http`, on which Mimir runs, as a server that tells what it read.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use tempfile::TempDir;

use crate::client::Client;
use crate::parts::part;
use crate::process::{Process, free_port};

/// A request as `net/http` gives it to a handler.
#[derive(Clone, Debug)]
pub struct GoRequest {
    /// The method.
    pub method: String,
    /// The raw target.
    pub target: String,
    /// `Host`.
    pub host: String,
    /// Names and values of the headers, `Host` and the framing excepted, and of the trailers.
    pub headers: Vec<(String, String)>,
    /// Those of the trailers.
    pub trailers: Vec<(String, String)>,
    /// Whether the body came in chunks.
    pub is_chunked: bool,
    /// What could be read of the body.
    pub body: Vec<u8>,
    /// Why the body could not be read to its end; empty if it could.
    pub problem: String,
}

impl GoRequest {
    fn read(value: &Value) -> Self {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        Self {
            method: text("method"),
            target: text("target"),
            host: text("host"),
            headers: pairs(&value["headers"]),
            trailers: pairs(&value["trailers"]),
            is_chunked: value["codings"].as_array().is_some_and(|codings| !codings.is_empty()),
            body: BASE64_STANDARD.decode(text("body")).expect("base64"),
            problem: text("problem"),
        }
    }

    /// All values of a header, by any spelling of its name.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }
}

fn pairs(headers: &Value) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for (name, values) in headers.as_object().into_iter().flatten() {
        for value in values.as_array().into_iter().flatten() {
            pairs.push((name.clone(), value.as_str().unwrap_or_default().to_owned()));
        }
    }
    pairs
}

/// A running server.
pub struct NetHttp {
    _process: Process,
    port: u16,
    control: Client,
    _directory: TempDir,
}

impl NetHttp {
    /// Starts one.
    pub async fn start() -> Self {
        let directory = TempDir::with_prefix("net-http-").expect("directory");
        let (port, control) = (free_port(), free_port());
        let mut process =
            Process::start("net-http", &part("net-http"), directory.path(), |command| {
                command.args(["-listen", &format!("127.0.0.1:{port}")]);
                command.args(["-control", &format!("127.0.0.1:{control}")]);
            });
        let control = format!("http://127.0.0.1:{control}");
        process.wait_ready(&format!("{control}/ready"), "ready", Duration::from_secs(20)).await;
        let control = Client::new(&control);
        Self { _process: process, port, control, _directory: directory }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The requests since the last time.
    pub async fn take(&self) -> Vec<GoRequest> {
        let taken = self.control.get("/take").await.json();
        taken.as_array().expect("requests").iter().map(GoRequest::read).collect()
    }
}
