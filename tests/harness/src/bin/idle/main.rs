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

use std::num::{NonZeroU64, NonZeroUsize};

use clap::Parser;
use harness::{Issuer, Proxy, ProxyOptions, Upstream};
use http::Response;
use http_body_util::{BodyExt as _, Full};

use client::Request;

/// Measures what idle connections cost, and whether busy ones find a worker that is free.
#[derive(Parser)]
struct Options {
    /// Idle connections
    #[arg(long, default_value = "10000")]
    connections: NonZeroUsize,
    /// Measurements of busy connections
    #[arg(long, default_value = "5")]
    rounds: NonZeroUsize,
    /// How long each of them lasts
    #[arg(long, default_value = "2")]
    seconds: NonZeroU64,
}

#[tokio::main]
async fn main() {
    let options = Options::parse();
    let issuer = Issuer::start().await;
    let upstream = Upstream::start(|_| async {
        let body = bytes::Bytes::from(vec![b'x'; 1024]);
        Response::new(Full::new(body).map_err(|never| match never {}).boxed())
    })
    .await;
    let request = Request::new(&issuer.user_of(harness::ORG_A));
    let (rounds, seconds) = (options.rounds.get(), options.seconds.get());
    memory::measure(&issuer, &upstream, &request, options.connections.get()).await;
    spread::measure(&issuer, &upstream, &request, rounds, seconds).await;
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
