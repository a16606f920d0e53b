//! `[upstream]`

mod consul;
mod health;
mod retry;

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::reader::{Raw, Section};
use super::values::{duration, number, url};

pub use consul::ConsulConfig;
pub use health::HealthConfig;
pub use retry::RetryConfig;

/// Where Mimir is and how long it may take.
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// The addresses, in the order in which they were written; empty only if Consul is asked.
    pub upstreams: Vec<Upstream>,
    /// Consul's catalogue, if it is asked.
    pub consul: Option<ConsulConfig>,
    /// How often names are resolved anew.
    pub resolve_interval: Duration,
    /// How long connecting to one instance may take.
    pub connect_timeout: Duration,
    /// How long what was sent may be unacknowledged, or the other side take nothing (TCP).
    pub ack_timeout: Duration,
    /// How long an instance may take from the last piece of the request to the head of its response.
    pub response_timeout: Duration,
    /// How long a response's body may pause between two pieces.
    pub idle_timeout: Duration,
    /// Idle connections kept for each instance by each worker.
    pub max_idle_connections: usize,
    /// Headers of the client that pass beyond those of the protocols themselves.
    pub pass_headers: Vec<HeaderName>,
    /// When an instance is used.
    pub health: HealthConfig,
    /// What is sent a second time.
    pub retry: RetryConfig,
}

/// One address of Mimir; its name may resolve to many instances.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// A name or an IP address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What the `Host` header says.
    pub authority: HeaderValue,
}

pub(super) fn read(section: &mut Section<'_>) -> UpstreamConfig {
    let second = Duration::from_secs(1);
    let tenth = second / 10;
    let hour = 3600 * second;
    let wanted = "one or more addresses of Mimir, such as [\"http://mimir.internal:8080\"]";
    let consul = consul::read(section);
    let upstreams = if consul.is_some() {
        section.get_list("urls", Vec::new(), upstream)
    } else {
        section.require_list("urls", wanted, upstream)
    };
    UpstreamConfig {
        upstreams,
        consul,
        resolve_interval: section
            .get("resolve_interval", 5 * second, |raw| duration(raw, tenth, hour)),
        connect_timeout: section
            .get("connect_timeout", 2 * second, |raw| duration(raw, tenth, hour)),
        ack_timeout: section.get("ack_timeout", 30 * second, |raw| duration(raw, tenth, hour)),
        // Mimir gives up on a query itself after 2 minutes (querier.timeout).
        response_timeout: section
            .get("response_timeout", 150 * second, |raw| duration(raw, tenth, hour)),
        idle_timeout: section.get("idle_timeout", 60 * second, |raw| duration(raw, tenth, hour)),
        max_idle_connections: section.get("max_idle_connections", 64, |raw| number(raw, 0, 10_000)),
        pass_headers: section.get_list("pass_headers", Vec::new(), pass_header),
        health: health::read(section),
        retry: retry::read(section),
    }
}

fn upstream(text: String) -> Result<Upstream, String> {
    let address = url(Raw::Environment(text.clone()), "http://mimir.internal:8080")?;
    if address.scheme() != "http" {
        return Err(format!(
            "'{text}' must begin with http://: Mimir serves plain HTTP on a private network"
        ));
    }
    if address.path() != "/" {
        return Err(format!("'{text}' must have no path: Mimir's own paths are used unchanged"));
    }
    let host = address.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = address.port_or_known_default().unwrap_or(80);
    let authority = &address[url::Position::BeforeHost..url::Position::AfterPort];
    let authority =
        HeaderValue::from_str(authority).map_err(|error| format!("'{text}': {error}"))?;
    Ok(Upstream { host, port, authority })
}

fn pass_header(name: String) -> Result<HeaderName, String> {
    let header: HeaderName = name.parse().map_err(|_| format!("'{name}' is no header name"))?;
    if crate::mimir::is_never_forwarded(&header) {
        return Err(format!(
            "'{name}' never passes: it would let a client steer Mimir or see credentials"
        ));
    }
    Ok(header)
}
