//! `[upstream]`

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::SHA256;
use http::{HeaderName, HeaderValue};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use url::{Position, Url};

use super::reader::{Raw, Section};
use super::shown::Shown;
use super::tls::{file_of, optional_path};
use super::values::{KIB, MIB, Secret, bytes, duration, number, parse_duration, size, text, url};
use crate::tls::{self, Certified, ClientSettings};

/// Mimir's addresses and the timeouts.
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// The addresses in the order of the file; empty only if Consul is used.
    pub upstreams: Vec<Upstream>,
    /// Consul's catalogue, if it is used.
    pub consul: Option<ConsulConfig>,
    /// How often names are resolved.
    pub resolve_interval: Duration,
    /// The timeout for connecting to one instance.
    pub connect_timeout: Duration,
    /// How long sent data may be unacknowledged, or the receive window closed (TCP).
    pub ack_timeout: Duration,
    /// The time from the last piece of a request to the head of its response.
    pub response_timeout: Duration,
    /// How long a response's body may pause between two pieces.
    pub idle_timeout: Duration,
    /// Idle connections that each worker keeps to each instance.
    pub max_idle_connections: usize,
    /// Headers of the client that pass, besides those of the protocols.
    pub pass_headers: Vec<HeaderName>,
    pub health: HealthConfig,
    /// None with http.
    pub tls: Option<UpstreamTls>,
    /// What is sent again.
    pub retry: RetryConfig,
}

/// How Mimir or Consul is connected to with https: whom to trust and what to show. Two are the same if their
/// files and names are.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    client: Arc<ClientConfig>,
    content: [u8; 32],
}

impl UpstreamTls {
    /// `content` is all that the settings were read from.
    fn new(settings: ClientSettings, content: &[u8]) -> Result<Self, String> {
        let mut digest = [0; 32];
        digest.copy_from_slice(aws_lc_rs::digest::digest(&SHA256, content).as_ref());
        Ok(Self { client: Arc::new(settings.build()?), content: digest })
    }

    pub fn client(&self) -> &Arc<ClientConfig> {
        &self.client
    }
}

impl PartialEq for UpstreamTls {
    fn eq(&self, other: &Self) -> bool {
        self.content == other.content
    }
}

impl Eq for UpstreamTls {}

/// One address of Mimir; its name may resolve to several instances.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// A name or an IP address.
    pub host: String,
    pub port: u16,
    /// The value of the `Host` header.
    pub authority: HeaderValue,
    pub is_https: bool,
}

impl Shown for Upstream {
    fn shown(&self) -> String {
        let scheme = if self.is_https { "https://" } else { "" };
        format!("{scheme}{}:{}", self.host, self.port)
    }
}

/// Consul's catalogue as the source of instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsulConfig {
    pub url: Url,
    pub service: String,
    /// A tag that its instances must have.
    pub tag: Option<String>,
    /// An ACL token with `service:read` and `node:read`.
    pub token: Secret,
    /// Whom to trust with https; without it, the system's authorities.
    pub tls: Option<UpstreamTls>,
}

/// When an instance is ejected, for how long, and its limit of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthConfig {
    /// Requests in flight at one instance, of all workers together.
    pub max_in_flight: u32,
    /// The interval of probes (`/ready`); zero disables them.
    pub ready_interval: Duration,
    /// The timeout for connecting, and again for the response.
    pub ready_timeout: Duration,
    /// Consecutive failures that eject an instance.
    pub eject_after: u32,
    /// The duration of the first ejection, which doubles with each further one.
    pub eject_min: Duration,
    pub eject_max: Duration,
    /// If fewer than this percentage of all instances are in use, ejections do not count.
    pub panic_percent: usize,
    /// How long a returning instance takes to reach its full share; zero for none.
    pub slow_start: Duration,
    /// That of the upstream, for probes.
    pub tls: Option<UpstreamTls>,
}

impl HealthConfig {
    pub fn probes(&self) -> bool {
        !self.ready_interval.is_zero()
    }
}

/// The replay buffers and the retry budget.
#[derive(Clone, Debug)]
pub struct RetryConfig {
    /// Resends per hundred requests.
    pub percent: usize,
    /// Resends that each worker can save up; one is added each second.
    pub reserve: usize,
    /// The largest body that is kept for a resend.
    pub buffer_bytes: usize,
    /// The size of all kept bodies of one worker.
    pub buffer_total_bytes: usize,
}

pub(super) fn read(section: &mut Section<'_>) -> UpstreamConfig {
    let second = Duration::from_secs(1);
    let tenth = second / 10;
    let hour = 3600 * second;
    let wanted = "one or more addresses of Mimir, such as [\"http://mimir.internal:8080\"]";
    let consul = read_consul(section);
    let upstreams = if consul.is_some() {
        section.get_list("urls", Vec::new(), upstream)
    } else {
        section.require_list("urls", wanted, upstream)
    };
    let tls = read_tls(section, &upstreams, consul.is_some());
    UpstreamConfig {
        upstreams,
        consul,
        tls: tls.clone(),
        resolve_interval: section
            .get("resolve_interval", 5 * second, |raw| duration(raw, tenth, hour)),
        connect_timeout: section
            .get("connect_timeout", 2 * second, |raw| duration(raw, tenth, hour)),
        ack_timeout: section.get("ack_timeout", 30 * second, |raw| duration(raw, tenth, hour)),
        // Mimir itself ends a query after 2 minutes (querier.timeout).
        response_timeout: section
            .get("response_timeout", 150 * second, |raw| duration(raw, tenth, hour)),
        idle_timeout: section.get("idle_timeout", 60 * second, |raw| duration(raw, tenth, hour)),
        max_idle_connections: section.get("max_idle_connections", 64, |raw| number(raw, 0, 10_000)),
        pass_headers: section.get_list("pass_headers", Vec::new(), pass_header),
        health: HealthConfig { tls, ..read_health(section) },
        retry: read_retry(section),
    }
}

/// Reads the keys of Consul; `None` if none is set.
fn read_consul(section: &mut Section<'_>) -> Option<ConsulConfig> {
    let wanted = |problem: String| {
        format!("{problem}; the token belongs into upstream.consul_token, a prefix of keys nowhere")
    };
    let mut is_asked = false;
    let address = section.get("consul_url", None, |raw| {
        let text = text(raw)?;
        let is_empty = text.is_empty();
        is_asked = !is_empty;
        let parse =
            || url(Raw::Text(text), "http://consul.internal:8500").map(Some).map_err(wanted);
        if is_empty { Ok(None) } else { parse() }
    });
    let service = section.get("consul_service", String::new(), text);
    let tag = section.get("consul_tag", String::new(), text);
    let token = section.secret("consul_token");
    let ca_file = optional_path(section, "consul_ca_file");
    let Some(url) = address else {
        let is_set = |key: &'static str, set: bool| set.then_some(key);
        let first = is_set("consul_service", !service.is_empty())
            .or(is_set("consul_tag", !tag.is_empty()))
            .or(is_set("consul_token", !token.is_empty()))
            .or(is_set("consul_ca_file", ca_file.is_some()));
        if let Some(key) = first.filter(|_| !is_asked) {
            section.fault(key, "has no effect without upstream.consul_url".to_owned());
        }
        return None;
    };
    if service.is_empty() {
        let problem = "is missing: the name of Mimir's service in Consul's catalogue";
        section.fault("consul_service", problem.to_owned());
    }
    if HeaderValue::from_bytes(token.expose()).is_err() {
        section.fault("consul_token", "must be a token without line breaks".to_owned());
    }
    let tls = ca_file.and_then(|file| {
        if url.scheme() != "https" {
            let problem = "has no effect with http://; begin upstream.consul_url with https://";
            section.fault("consul_ca_file", problem.to_owned());
            return None;
        }
        file_of(section, "consul_ca_file", &file, |pem| {
            let authorities = tls::authorities(pem)?;
            UpstreamTls::new(ClientSettings { authorities, own: None, server_name: None }, pem)
        })
    });
    Some(ConsulConfig { url, service, tag: Some(tag).filter(|tag| !tag.is_empty()), token, tls })
}

/// Reads the keys of https; `None` with http.
fn read_tls(
    section: &mut Section<'_>,
    upstreams: &[Upstream],
    has_consul: bool,
) -> Option<UpstreamTls> {
    let ca_file = optional_path(section, "ca_file");
    let certificate_file = optional_path(section, "client_certificate_file");
    let key_file = optional_path(section, "client_key_file");
    let server_name = section.get("server_name", None, |raw| {
        let name = text(raw)?;
        let wrong = |_| format!("'{name}' is not a host name");
        if name.is_empty() {
            return Ok(None);
        }
        ServerName::try_from(name.clone()).map(|_| Some(name.clone())).map_err(wrong)
    });
    let is_https = upstreams.iter().any(|one| one.is_https);
    if is_https && !upstreams.iter().all(|one| one.is_https) {
        let problem = "must all begin with https://, or all with http://".to_owned();
        section.fault("urls", problem);
        return None;
    }
    // Consul says nothing of a scheme.
    let is_wanted = is_https || (upstreams.is_empty() && has_consul && ca_file.is_some());
    if !is_wanted {
        let keys = ["ca_file", "client_certificate_file", "client_key_file", "server_name"];
        let said = keys.into_iter().find(|key| section.says(key));
        if let Some(key) = said.filter(|_| !section.is_faulty("urls")) {
            let problem = "has no effect with http://; begin upstream.urls with https://";
            section.fault(key, problem.to_owned());
        }
        return None;
    }
    let Some(ca_file) = ca_file else {
        let problem = "is missing: a PEM file of the authorities that sign Mimir's certificates, such as \
                       /etc/ssl/certs/ca-certificates.crt for the public ones";
        section.fault("ca_file", problem.to_owned());
        return None;
    };
    if has_consul && server_name.is_none() {
        let problem =
            "is missing: Consul knows addresses only, and Mimir's certificate is for a name";
        section.fault("server_name", problem.to_owned());
    }
    let mut content = Vec::new();
    let mut hashed = |bytes: &[u8]| {
        content.extend_from_slice(&bytes.len().to_be_bytes());
        content.extend_from_slice(bytes);
    };
    hashed(server_name.as_deref().unwrap_or_default().as_bytes());
    let authorities = file_of(section, "ca_file", &ca_file, |pem| {
        hashed(pem);
        tls::authorities(pem)
    });
    let own = match (certificate_file, key_file) {
        (None, None) => Some(None),
        (Some(certificate), key) => {
            let chain = file_of(section, "client_certificate_file", &certificate, |pem| {
                hashed(pem);
                tls::chain(pem)
            });
            let (name, file) = key
                .map_or(("client_certificate_file", certificate), |key| ("client_key_file", key));
            let key = file_of(section, name, &file, |pem| {
                hashed(pem);
                tls::key(pem)
            });
            let certified = chain.zip(key).map(|(chain, key)| Certified::new(chain, key));
            certified.and_then(|certified| match certified {
                Ok(certified) => Some(Some(certified)),
                Err(problem) => {
                    section.fault("client_certificate_file", problem);
                    None
                }
            })
        }
        (None, Some(_)) => {
            let problem = "has no effect without upstream.client_certificate_file".to_owned();
            section.fault("client_key_file", problem);
            None
        }
    };
    let settings = ClientSettings { authorities: authorities?, own: own?, server_name };
    let tls = UpstreamTls::new(settings, &content);
    tls.map_err(|problem| section.fault("ca_file", problem)).ok()
}

fn read_health(section: &mut Section<'_>) -> HealthConfig {
    let second = Duration::from_secs(1);
    let (tenth, hour) = (second / 10, 3600 * second);
    let config = HealthConfig {
        // Mimir's own limit (distributor.instance-limits.max-inflight-push-requests).
        max_in_flight: section.get("max_in_flight", 2000, |raw| whole(raw, 1, 1_000_000)),
        ready_interval: section.get("ready_interval", 5 * second, |raw| off_or(raw, tenth, hour)),
        ready_timeout: section.get("ready_timeout", 2 * second, |raw| duration(raw, tenth, hour)),
        eject_after: section.get("eject_after", 3, |raw| whole(raw, 1, 1000)),
        eject_min: section.get("eject_min", 2 * second, |raw| duration(raw, tenth, hour)),
        eject_max: section.get("eject_max", 60 * second, |raw| duration(raw, tenth, hour)),
        panic_percent: section.get("panic_percent", 50, |raw| number(raw, 0, 100)),
        slow_start: section.get("slow_start", 10 * second, |raw| off_or(raw, tenth, hour)),
        tls: None,
    };
    if config.eject_max < config.eject_min {
        section.fault("eject_max", "must not be shorter than upstream.eject_min".to_owned());
    }
    config
}

fn read_retry(section: &mut Section<'_>) -> RetryConfig {
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
    if address.path() != "/" {
        return Err(format!("'{text}' must have no path: Mimir's own paths are used unchanged"));
    }
    let host = address.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = address.port_or_known_default().unwrap_or(80);
    let authority = &address[Position::BeforeHost..Position::AfterPort];
    let authority =
        HeaderValue::from_str(authority).map_err(|error| format!("'{text}': {error}"))?;
    Ok(Upstream { host, port, authority, is_https: address.scheme() == "https" })
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

fn whole(raw: Raw, min: usize, max: usize) -> Result<u32, String> {
    number(raw, min, max).map(|number| u32::try_from(number).unwrap_or(u32::MAX))
}

/// A duration, or `0s` for none.
fn off_or(raw: Raw, min: Duration, max: Duration) -> Result<Duration, String> {
    let text = text(raw)?;
    if parse_duration(&text).is_some_and(|duration| duration.is_zero()) {
        return Ok(Duration::ZERO);
    }
    duration(Raw::Text(text), min, max).map_err(|problem| format!("{problem}, or \"0s\""))
}
