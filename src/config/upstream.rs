//! `[upstream]`

mod consul;
mod health;

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::reader::{Raw, Section};
use super::values::{KIB, MIB, duration, number, size, url};

pub use consul::ConsulConfig;
pub use health::HealthConfig;

/// Where Mimir is and how long it may take.
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// The addresses, in the order in which they were written; empty only if Consul is asked.
    pub upstreams: Vec<Upstream>,
    /// Consul's catalogue, if it is asked.
    pub consul: Option<ConsulConfig>,
    /// How often names are resolved.
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
    pub health: HealthConfig,
    /// What is sent a second time.
    pub retry: RetryConfig,
}

/// One address of Mimir; its name may resolve to many instances.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// A name or an IP address.
    pub host: String,
    pub port: u16,
    /// What the `Host` header says.
    pub authority: HeaderValue,
}

/// How much is kept of requests and how many are repeated.
#[derive(Clone, Debug)]
pub struct RetryConfig {
    /// Repeats for each hundred requests.
    pub percent: usize,
    /// Repeats that each worker can save up; one comes back each second.
    pub reserve: usize,
    /// The largest body that is kept so that it can be sent again.
    pub buffer_bytes: usize,
    /// What all bodies of one worker that are kept may take together.
    pub buffer_total_bytes: usize,
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
        retry: read_retry(section),
    }
}

fn read_retry(section: &mut Section<'_>) -> RetryConfig {
    let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    let config = RetryConfig {
        percent: section.get("retry_percent", 20, |raw| number(raw, 0, 100)),
        reserve: section.get("retry_reserve", 10, |raw| number(raw, 0, 10_000)),
        buffer_bytes: section
            .get("replay_buffer_bytes", bytes(128 * KIB), |raw| size(raw, 0, 16 * MIB).map(bytes)),
        buffer_total_bytes: section
            .get("replay_total_bytes", bytes(16 * MIB), |raw| size(raw, 0, 1024 * MIB).map(bytes)),
    };
    if config.buffer_total_bytes < config.buffer_bytes {
        let problem = "must not be smaller than upstream.replay_buffer_bytes";
        section.fault("replay_total_bytes", problem.to_owned());
    }
    config
}

fn upstream(text: String) -> Result<Upstream, String> {
    let address = url(Raw::Text(text.clone()), "http://mimir.internal:8080")?;
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
