//! One exchange with Mimir: instance, timeout, size limit, and the meaning of a failure. The clients of
//! the ruler and of the Alertmanager share it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use tokio::net::lookup_host;
use url::{Host, Url};

use super::{Retriable, set_tenant};
use crate::causes::causes;
use crate::http_client::{self, ReadError, read_limited, read_start};
use crate::tenancy::TenantId;
use crate::trace::{self, Span};

/// The longest message of Mimir that is kept. It repeats a rule's name for each of its faults.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Mimir's addresses and the timeouts.
#[derive(Clone, Debug)]
pub struct MimirConfig {
    /// Mimir's instances, any of which can answer. If one is unreachable, the next is tried.
    pub urls: Vec<Url>,
    /// The timeout of one exchange, from its first byte to its last.
    pub request_timeout: Duration,
    /// The timeout for connecting to an instance.
    pub connect_timeout: Duration,
    /// For addresses with https; without it, those that the system trusts are trusted.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

/// Why an exchange with Mimir has no usable result, by what can be done about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// No answer, or not all of it: the connection was refused or broke. Whether a write took
    /// effect is unknown; writing again is harmless.
    #[error("mimir is not reachable: {0}")]
    Unreachable(String),
    /// No answer within the configured time, with the same doubt.
    #[error("mimir did not answer within {0:?}")]
    Timeout(Duration),
    /// Mimir cannot now: a 429 or a 5xx, or a ruler's listing whose storage failed (400).
    #[error("mimir is overloaded or failing, it answered {status}: {message}")]
    Busy {
        status: u16,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
        message: String,
    },
    /// Mimir does not let us: a 401 or 403. A mistake of the operator's.
    #[error("mimir does not allow it, it answered {status}: {message}")]
    Forbidden { status: u16, message: String },
    /// An answer that this interface should not give: something else may listen there.
    #[error("mimir gave an unexpected answer {status}: {message}")]
    Unexpected { status: u16, message: String },
    /// A success whose content makes no sense or is too long. It says nothing about what Mimir has.
    #[error("mimir's answer cannot be read: {0}")]
    Unreadable(String),
    /// A path that would be tidied up on its way.
    #[error("{0:?} cannot be asked for")]
    Unaddressable(String),
}

impl Retriable for ExchangeError {
    fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Timeout(_) | Self::Busy { .. })
    }

    fn is_slow(&self) -> bool {
        matches!(self, Self::Timeout(_))
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl ExchangeError {
    /// The same with what the other side said replaced: a server may repeat what it was sent.
    #[must_use]
    pub fn with_words(self, replace: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Busy { status, retry_after, message } => {
                Self::Busy { status, retry_after, message: replace(message) }
            }
            Self::Forbidden { status, message } => {
                Self::Forbidden { status, message: replace(message) }
            }
            Self::Unexpected { status, message } => {
                Self::Unexpected { status, message: replace(message) }
            }
            other => other,
        }
    }
}

pub(super) struct Ask<'a> {
    pub(super) method: Method,
    /// The path, encoded.
    pub(super) path: String,
    /// The query string, encoded.
    pub(super) query: Option<String>,
    pub(super) tenant: Option<&'a TenantId>,
    pub(super) body: Option<(&'static str, String)>,
}

impl<'a> Ask<'a> {
    pub(super) fn new(method: Method, path: impl Into<String>, tenant: &'a TenantId) -> Self {
        Self { method, path: path.into(), query: None, tenant: Some(tenant), body: None }
    }

    pub(super) fn asking(mut self, query: String) -> Self {
        self.query = Some(query);
        self
    }

    pub(super) fn with(mut self, content_type: &'static str, body: String) -> Self {
        self.body = Some((content_type, body));
        self
    }
}

#[derive(Debug)]
pub(super) struct Transport {
    /// Each exchange keeps what it began with.
    reach: ArcSwap<Reach>,
    /// The last instance that was reachable.
    preferred: AtomicUsize,
}

/// Where Mimir is, and what asks it.
#[derive(Debug)]
struct Reach {
    client: reqwest::Client,
    urls: Vec<Url>,
    request_timeout: Duration,
}

/// A client of Mimir of which the addresses and the timeouts can be changed.
#[derive(Clone, Debug)]
pub struct MimirHandle(pub(super) Arc<Transport>);

impl MimirHandle {
    /// Makes the change that is to be made. An error is a fault of the configuration.
    pub fn prepare(&self, config: &MimirConfig) -> Result<MimirChange, String> {
        Ok(MimirChange { transport: Arc::clone(&self.0), reach: Arc::new(Reach::new(config)?) })
    }
}

/// A change of addresses and timeouts, to be made.
#[derive(Debug)]
pub struct MimirChange {
    transport: Arc<Transport>,
    reach: Arc<Reach>,
}

impl MimirChange {
    /// Makes it, for all exchanges that begin from now on.
    pub fn make(self) {
        self.transport.reach.store(self.reach);
    }
}

impl Reach {
    fn new(config: &MimirConfig) -> Result<Self, String> {
        if config.urls.is_empty() {
            return Err("no address of Mimir is known; one is needed".to_owned());
        }
        let client = http_client::internal();
        let client = match &config.tls {
            None => client,
            Some(tls) => client.tls_backend_preconfigured((**tls).clone()),
        };
        let client = client
            .connect_timeout(config.connect_timeout)
            .timeout(config.request_timeout)
            .build()
            .map_err(|error| causes(&error))?;
        Ok(Self { client, urls: config.urls.clone(), request_timeout: config.request_timeout })
    }
}

impl Transport {
    pub(super) fn new(config: &MimirConfig) -> Result<Self, String> {
        let reach = ArcSwap::from_pointee(Reach::new(config)?);
        Ok(Self { reach, preferred: AtomicUsize::new(0) })
    }

    /// Tries the instances in turn until one is reachable. A request that may have reached Mimir is
    /// not sent again.
    pub(super) async fn send(&self, ask: Ask<'_>) -> Result<reqwest::Response, ExchangeError> {
        let headers = headers_of(&ask);
        let body = ask.body.map(|(_, body)| Bytes::from(body));
        let (reach, first) = (self.reach.load_full(), self.preferred.load(Relaxed));
        let mut failure = None;
        for at in (0..reach.urls.len()).map(|step| (first + step) % reach.urls.len()) {
            let mut url = address(&reach.urls[at], &ask.path)?;
            let (mut span, mut headers) = (span_of(&ask.method, &url), headers.clone());
            span.put_into(&mut headers);
            url.set_query(ask.query.as_deref());
            let mut request = reach.client.request(ask.method.clone(), url).headers(headers);
            if let Some(body) = &body {
                request = request.body(body.clone());
            }
            match request.send().await {
                Ok(response) => {
                    span.set("http.response.status_code", response.status().as_u16());
                    if response.status().is_server_error() {
                        span.fail("5xx");
                    }
                    self.preferred.store(at, Relaxed);
                    return Ok(response);
                }
                Err(error) => {
                    span.fail(if error.is_timeout() { "timeout" } else { "unreachable" });
                    if !error.is_connect() {
                        return Err(self.failure(error));
                    }
                    failure = Some(self.failure(error));
                }
            }
        }
        Err(failure.unwrap_or_else(|| ExchangeError::Unreachable("no address is known".to_owned())))
    }

    /// Asks one instance alone, at its own address: for what each of them knows of itself.
    pub(super) async fn send_to(
        &self,
        instance: &InstanceAddress,
        path: &str,
    ) -> Result<reqwest::Response, ExchangeError> {
        let reach = self.reach.load_full();
        let mut request = reach.client.request(Method::GET, address(&instance.url, path)?);
        if let Some(host) = &instance.host {
            request = request.header(header::HOST, host);
        }
        request.send().await.map_err(|error| self.failure(error))
    }

    /// Every address of every instance: a name may have several. One that cannot be resolved is
    /// asked by its name.
    pub(super) async fn instances(&self) -> Vec<InstanceAddress> {
        let mut all = Vec::new();
        for url in &self.reach.load_full().urls {
            let by_name = InstanceAddress { url: url.clone(), host: None };
            // A certificate is for the name.
            let (Some(Host::Domain(name)), "http") = (url.host(), url.scheme()) else {
                all.push(by_name);
                continue;
            };
            let port = url.port_or_known_default().unwrap_or(80);
            let found = lookup_host((name, port)).await.map(Iterator::collect::<Vec<_>>);
            match found {
                Ok(addresses) if addresses.len() > 1 => {
                    let host = HeaderValue::from_str(&format!("{name}:{port}")).ok();
                    for address in addresses {
                        let mut url = url.clone();
                        if url.set_ip_host(address.ip()).is_ok() {
                            all.push(InstanceAddress { url, host: host.clone() });
                        }
                    }
                }
                _ => all.push(by_name),
            }
        }
        all
    }

    /// An answer's body, up to a length.
    pub(super) async fn read(
        &self,
        mut response: reqwest::Response,
        most: usize,
    ) -> Result<Bytes, ExchangeError> {
        match read_limited(&mut response, most).await {
            Ok(body) => Ok(body.into()),
            Err(ReadError::Broken(error)) => Err(self.failure(error)),
            Err(error @ ReadError::TooLong(_)) => {
                Err(ExchangeError::Unreadable(format!("it is {error}")))
            }
        }
    }

    pub(super) async fn piece(
        &self,
        response: &mut reqwest::Response,
    ) -> Result<Option<Bytes>, ExchangeError> {
        response.chunk().await.map_err(|error| self.failure(error))
    }

    /// The meaning of an unsuccessful answer, unless the caller knows better.
    pub(super) async fn error(&self, response: reqwest::Response) -> ExchangeError {
        let (status, retry_after) = (response.status(), retry_after(response.headers()));
        match self.message(response).await {
            Ok(message) => classify(status, retry_after, message),
            Err(error) => error,
        }
    }

    /// The message of an unsuccessful answer. The rest of a long one is not read.
    pub(super) async fn message(
        &self,
        mut response: reqwest::Response,
    ) -> Result<String, ExchangeError> {
        let body = read_start(&mut response, MAX_MESSAGE_BYTES).await;
        Ok(words(&body.map_err(|error| self.failure(error))?))
    }

    fn failure(&self, error: reqwest::Error) -> ExchangeError {
        if error.is_timeout() && !error.is_connect() {
            return ExchangeError::Timeout(self.reach.load().request_timeout);
        }
        ExchangeError::Unreachable(causes(&error.without_url()))
    }
}

/// The address of one instance.
#[derive(Clone, Debug)]
pub(super) struct InstanceAddress {
    url: Url,
    /// The name that it is known by, if the address is one of several.
    host: Option<HeaderValue>,
}

/// The span of one exchange. Names of groups are a tenant's own, so they are no part of its name.
fn span_of(method: &Method, url: &Url) -> Span {
    let mut span = trace::request("mimir");
    if span.is_recording() {
        let place = if url.path().contains("/config/v1/rules") { "ruler" } else { "mimir" };
        span.rename(|| format!("{method} {place}"));
        span.set("http.request.method", method.as_str().to_owned());
        span.set("server.address", url.host_str().unwrap_or_default().to_owned());
        span.set("server.port", url.port_or_known_default().unwrap_or_default());
        span.set("url.path", url.path().to_owned());
    }
    span
}

fn headers_of(ask: &Ask<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some((content_type, _)) = ask.body {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    if let Some(tenant) = ask.tenant {
        set_tenant(&mut headers, &tenant.clone().into());
    }
    headers
}

/// The URL of a path at an instance, byte for byte. A path that normalisation would change is an
/// error: `..` could turn the deletion of a group into that of a namespace.
fn address(base: &Url, path: &str) -> Result<Url, ExchangeError> {
    let prefix = base.path().trim_end_matches('/');
    let whole = format!("{prefix}{path}");
    let mut url = base.clone();
    url.set_path(&whole);
    if url.path() == whole { Ok(url) } else { Err(ExchangeError::Unaddressable(path.to_owned())) }
}

/// The meaning of a status, except for those that mean something else to one method.
pub(super) fn classify(
    status: StatusCode,
    retry_after: Option<Duration>,
    message: String,
) -> ExchangeError {
    let code = status.as_u16();
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            ExchangeError::Forbidden { status: code, message }
        }
        StatusCode::TOO_MANY_REQUESTS => ExchangeError::Busy { status: code, retry_after, message },
        _ if status.is_server_error() => ExchangeError::Busy { status: code, retry_after, message },
        _ => ExchangeError::Unexpected { status: code, message },
    }
}

/// `Retry-After` in seconds. Mimir does not send dates.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// The message of an error: the text itself, or the one in Prometheus' JSON.
fn words(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Wrapped {
        error: String,
    }
    match serde_json::from_slice::<Wrapped>(body) {
        Ok(wrapped) => wrapped.error,
        Err(_) => String::from_utf8_lossy(body.strip_suffix(b"\n").unwrap_or(body)).into_owned(),
    }
}
