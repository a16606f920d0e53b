//! Real parts for tests, the demo and load tests, one line each: a proxy, a Mimir, a PostgreSQL, a
//! Prometheus that sends, a browser, an issuer of tokens. A fake is here only for faults that a real
//! part cannot show.
//!
//! Everything takes a free port, keeps its files in a directory of its own, and ends when it is
//! dropped or when the process ends, however it ends.

#![expect(
    clippy::disallowed_methods,
    reason = "a harness waits in real time and reads its own environment"
)]

mod certificates;
mod chaos;
mod chromium;
mod client;
mod collector;
mod consul;
mod cpu;
mod database;
mod haproxy;
mod http_server;
mod inbox;
mod issuer;
pub mod load;
mod memcached;
mod mimir;
mod minio;
mod monolith;
mod net_http;
mod parts;
mod pgbouncer;
mod postgres;
mod process;
mod prometheus;
mod proxy;
mod r2;
pub mod readings;
mod receivers;
mod redis;
pub mod report;
pub mod samples;
mod scratch;
mod series;
pub mod showcase;
mod site;
mod smtp;
mod supabase;
mod upstream;
mod user;

pub use certificates::{Authority, KeyPairPem, Purpose, hello, session};
pub use chaos::{ChaosProxy, Weather};
pub use chromium::Chromium;
pub use client::{Answer, Client, raw_exchange, raw_exchange_to_end};
pub use collector::{CollectedSpan, Collector};
pub use consul::{Consul, RingMember};
pub use cpu::{Cpu, Memory};
pub use database::{Database, Refusal};
pub use haproxy::Haproxy;
pub use inbox::Inbox;
pub use issuer::{Algorithm, Issuer, SigningKey, TokenBuilder};
pub use memcached::Memcached;
pub use mimir::Mimir;
pub use minio::Minio;
pub use monolith::{Backing, Monolith, QUICK, RINGS};
pub use net_http::{GoRequest, NetHttp};
pub use parts::part;
pub use pgbouncer::PgBouncer;
pub use postgres::Postgres;
pub use process::{Process, free_port, wait_until};
pub use prometheus::{NodeExporter, Prometheus, RemoteWrite};
pub use proxy::{Proxy, ProxyOptions};
pub use r2::R2;
pub use receivers::{Notice, Receiver, Service, State, Trouble};
pub use redis::Redis;
pub use site::Site;
pub use smtp::{Mail, Smtp};
pub use supabase::Supabase;
pub use upstream::{RawUpstream, Received, Upstream};

/// The organisation that most tests speak of.
pub const ORG_A: &str = "0a0a0a0a-0a0a-4a0a-8a0a-0a0a0a0a0a0a";
/// Another organisation, which must never see the first one's data.
pub const ORG_B: &str = "0b0b0b0b-0b0b-4b0b-8b0b-0b0b0b0b0b0b";

/// A fresh organisation, so that tests that share a Mimir do not see each other.
pub fn fresh_organisation() -> String {
    uuid::Uuid::new_v4().to_string()
}
