//! `loadtest/idle`: what connections cost that do nothing, and whether busy ones find a worker that is
//! free.
//!
//! Memory: nginx and this proxy, each a fresh process, get the same number of connections with one
//! request each; the growth of its private memory is divided by their number. Then the same for
//! connections that send nothing, and for HTTP/2.
//!
//! Spread: as many requests as a few connections can make, once with connections that were accepted
//! by different workers and once with ones that were accepted by the same one.

#![expect(clippy::disallowed_methods, reason = "a measurement reads the time")]

mod client;
mod memory;
mod spread;

use harness::{Issuer, Proxy, ProxyOptions, Upstream};
use http::Response;
use http_body_util::{BodyExt as _, Full};

use client::Request;

struct Options {
    connections: usize,
    rounds: usize,
    seconds: u64,
}

#[tokio::main]
async fn main() {
    let options = options();
    let issuer = Issuer::start().await;
    let upstream = Upstream::start(|_| async {
        let body = bytes::Bytes::from(vec![b'x'; 1024]);
        Response::new(Full::new(body).map_err(|never| match never {}).boxed())
    })
    .await;
    let request = Request::new(&issuer.user_of(harness::ORG_A));
    memory::measure(&issuer, &upstream, &request, options.connections).await;
    spread::measure(&issuer, &upstream, &request, options.rounds, options.seconds).await;
}

async fn proxy(issuer: &Issuer, upstream: &Upstream) -> Proxy {
    ProxyOptions::new(&issuer.url(), &upstream.url())
        .set("listen.workers", "2")
        .set("listen.max_connections", "100000")
        .set("listen.idle_timeout", "\"1h\"")
        .set("listen.header_timeout", "\"1h\"")
        .start()
        .await
}

fn options() -> Options {
    let mut options = Options { connections: 10_000, rounds: 5, seconds: 2 };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().and_then(|value| value.parse::<usize>().ok());
        let value = value.unwrap_or_else(|| panic!("{argument} needs a number"));
        match argument.as_str() {
            "--connections" => options.connections = value,
            "--rounds" => options.rounds = value,
            "--seconds" => options.seconds = value as u64,
            other => {
                panic!("unknown option {other}; there are --connections, --rounds, --seconds")
            }
        }
    }
    options
}
