//! `[listen]`

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http::HeaderName;

use super::network::Network;
use super::reader::{Raw, Section};
use super::tls::TlsConfig;
use super::values::{KIB, MIB, bytes, duration, number, size, text};

/// Sockets, worker threads and the limits of a connection before a request.
#[derive(Clone, Debug)]
pub struct ListenConfig {
    /// The public port: Mimir's own paths.
    pub address: SocketAddr,
    /// The private port: `/live`, `/ready`, `/metrics`.
    pub internal_address: SocketAddr,
    /// Worker threads, one runtime each.
    pub workers: usize,
    /// Open downstream connections; further ones wait in the kernel's queue.
    pub max_connections: usize,
    /// The time until a client's first byte, and for a head from its first byte to its last.
    pub header_timeout: Duration,
    /// How long a connection may be open without a request.
    pub idle_timeout: Duration,
    /// How long a client may not read its response.
    pub write_timeout: Duration,
    /// The largest head of a request; above it the answer is 431.
    pub max_header_bytes: usize,
    /// The header in which a trusted proxy in front sends the client's address, such as
    /// `Fly-Client-IP`.
    pub client_ip_header: Option<HeaderName>,
    /// The networks of the proxies whose header counts; empty for all.
    pub client_ip_header_from: Vec<Network>,
    /// The networks of balancers that begin each connection with a header of the PROXY protocol.
    pub proxy_protocol_from: Vec<Network>,
    /// `[tls]`; none if the public port takes plain HTTP.
    pub tls: Option<TlsConfig>,
}

impl ListenConfig {
    /// Whether a peer's connection must begin with a header of the PROXY protocol.
    pub fn expects_proxy_header(&self, peer: IpAddr) -> bool {
        self.proxy_protocol_from.iter().any(|network| network.contains(peer))
    }
}

pub(super) fn read(section: &mut Section<'_>) -> ListenConfig {
    let any = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let second = Duration::from_secs(1);
    let hour = Duration::from_secs(3600);
    let public = section.get("address", any(8080), address);
    let internal_address = section.get("internal_address", any(9090), address);
    if collide(public, internal_address) {
        let problem = format!("is the port of listen.address ({public}); give it one of its own");
        section.fault("internal_address", problem);
    }
    let client_ip_header = section.get("client_ip_header", None, header_name);
    let client_ip_header_from =
        section.get_list("client_ip_header_from", Vec::new(), |network| Network::parse(&network));
    if client_ip_header.is_none() && !client_ip_header_from.is_empty() {
        let problem = "has no effect without listen.client_ip_header".to_owned();
        section.fault("client_ip_header_from", problem);
    }
    let proxy_protocol_from: Vec<Network> =
        section.get_list("proxy_protocol_from", Vec::new(), |network| Network::parse(&network));
    // Who speaks the PROXY protocol passes on what clients send, and so their headers.
    if client_ip_header.is_some()
        && client_ip_header_from.is_empty()
        && !proxy_protocol_from.is_empty()
    {
        let problem = "lets any client choose its address beside listen.proxy_protocol_from; \
                       name the networks of the proxies that send it in \
                       listen.client_ip_header_from, or remove one of the two";
        section.fault("client_ip_header", problem.to_owned());
    }
    ListenConfig {
        address: public,
        internal_address,
        workers: section.get("workers", cores, |raw| {
            number(raw, 0, 256).map(|n| if n == 0 { cores } else { n })
        }),
        max_connections: section.get("max_connections", 10_000, |raw| number(raw, 1, 1_000_000)),
        header_timeout: section
            .get("header_timeout", 10 * second, |raw| duration(raw, second / 10, hour)),
        idle_timeout: section
            .get("idle_timeout", 120 * second, |raw| duration(raw, second / 10, 24 * hour)),
        write_timeout: section
            .get("write_timeout", 60 * second, |raw| duration(raw, second / 10, hour)),
        max_header_bytes: section
            .get("max_header_bytes", bytes(32 * KIB), |raw| size(raw, 8 * KIB, MIB).map(bytes)),
        client_ip_header,
        client_ip_header_from,
        proxy_protocol_from,
        tls: None,
    }
}

/// Whether two sockets cannot both be bound. Port 0 means any free port.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let any = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && (any || one.ip() == other.ip())
}

fn address(raw: Raw) -> Result<SocketAddr, String> {
    let text = text(raw)?;
    text.parse().map_err(|_| {
        format!(
            "'{text}' is no address; write IP:PORT, such as \"[::]:8080\" or \"127.0.0.1:8080\""
        )
    })
}

fn header_name(raw: Raw) -> Result<Option<HeaderName>, String> {
    let text = text(raw)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| format!("'{text}' is no header name"))
}
