//! A stock haproxy before several copies of the proxy, as docs/operations/in-front.md describes a balancer.

use std::time::Duration;

use tempfile::TempDir;

use crate::parts::part;
use crate::process::{Process, free_port};
use crate::proxy::Proxy;

/// A running haproxy.
pub struct Haproxy {
    _process: Process,
    port: u16,
    port_of_http2: u16,
    _directory: TempDir,
}

impl Haproxy {
    /// Starts one that asks each copy's private port for `/ready` five times a second, and repeats only what no copy
    /// has seen.
    pub async fn start(copies: &[Proxy]) -> Self {
        let directory = TempDir::with_prefix("haproxy-").expect("directory");
        let (port, port_of_http2, port_of_state) = (free_port(), free_port(), free_port());
        let servers: Vec<String> = copies
            .iter()
            .enumerate()
            .map(|(number, copy)| {
                let [public, private] = [copy.url(), copy.internal_url()]
                    .map(|url| url.trim_start_matches("http://").to_owned());
                let private = private.rsplit(':').next().unwrap_or_default().to_owned();
                format!(
                    "  server copy{number} {public} check port {private} inter 200ms fall 1 rise 1\n"
                )
            })
            .collect();
        let config = directory.path().join("haproxy.cfg");
        std::fs::write(
            &config,
            format!(
                "global\n  nbthread 1\n\
                 defaults\n  mode http\n  timeout client 90s\n  timeout server 200s\n  timeout connect 5s\n\
                 \x20 timeout http-keep-alive 90s\n  timeout check 1s\n  retries 3\n  option redispatch\n\
                 frontend in\n  bind 127.0.0.1:{port}\n  bind 127.0.0.1:{port_of_http2} proto h2\n\
                 \x20 default_backend copies\n\
                 frontend state\n  bind 127.0.0.1:{port_of_state}\n\
                 \x20 http-request return status 200 content-type text/plain string up if {{ nbsrv(copies) eq {count} }}\n\
                 \x20 http-request return status 503\n\
                 backend copies\n  balance leastconn\n  http-reuse safe\n  option httpchk GET /ready\n{servers}",
                count = copies.len(),
                servers = servers.concat(),
            ),
        )
        .expect("config");
        let mut process =
            Process::start("haproxy", &part("haproxy"), directory.path(), |command| {
                command.arg("-db").arg("-f").arg(&config);
            });
        let state = format!("http://127.0.0.1:{port_of_state}/");
        process.wait_ready(&state, "up", Duration::from_secs(20)).await;
        Self { _process: process, port, port_of_http2, _directory: directory }
    }

    /// Its address for HTTP/1.1.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its address for HTTP/2 without TLS.
    pub fn url_of_http2(&self) -> String {
        format!("http://127.0.0.1:{}", self.port_of_http2)
    }
}
