//! One exchange with Mimir: which instance, how long, how much, and what a failure is. The ruler's
//! client and the Alertmanager's share it.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use tokio::net::lookup_host;
use url::{Host, Url};

use super::{Retriable, set_tenant};
use crate::causes::causes;
use crate::http_client::{self, ReadError, read_limited, read_start};
use crate::tenancy::TenantId;

/// The longest message of Mimir's that is kept. It repeats a rule's name for each of its faults.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Where Mimir is and how long it may take.
#[derive(Clone, Debug)]
pub struct MimirConfig {
    /// Mimir's instances, each of which knows everything. The next is asked when one is not there.
    pub urls: Vec<Url>,
    /// How long one exchange may take from its first byte to its last.
    pub request_timeout: Duration,
    /// How long an instance may take to let us in.
    pub connect_timeout: Duration,
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
    /// Mimir cannot now: a 429 or a 5xx.
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
    pub(super) tenant: Option<&'a TenantId>,
    pub(super) body: Option<(&'static str, String)>,
}

impl<'a> Ask<'a> {
    pub(super) fn new(method: Method, path: impl Into<String>, tenant: &'a TenantId) -> Self {
        Self { method, path: path.into(), tenant: Some(tenant), body: None }
    }

    pub(super) fn with(mut self, content_type: &'static str, body: String) -> Self {
        self.body = Some((content_type, body));
        self
    }
}

/// The instances and connections to them.
#[derive(Debug)]
pub(super) struct Transport {
    client: reqwest::Client,
    urls: Vec<Url>,
    /// The instance that was there when last asked.
    preferred: AtomicUsize,
    request_timeout: Duration,
}

impl Transport {
    pub(super) fn new(config: &MimirConfig) -> Result<Self, String> {
        if config.urls.is_empty() {
            return Err("no address of Mimir is known; one is needed".to_owned());
        }
        let client = http_client::internal()
            .connect_timeout(config.connect_timeout)
            .timeout(config.request_timeout)
            .build()
            .map_err(|error| causes(&error))?;
        let (urls, request_timeout) = (config.urls.clone(), config.request_timeout);
        Ok(Self { client, urls, preferred: AtomicUsize::new(0), request_timeout })
    }

    /// Asks one instance after the other until one is there. A request that may have reached Mimir
    /// is not sent again.
    pub(super) async fn send(&self, ask: Ask<'_>) -> Result<reqwest::Response, ExchangeError> {
        let headers = headers_of(&ask);
        let body = ask.body.map(|(_, body)| Bytes::from(body));
        let first = self.preferred.load(Relaxed);
        let mut failure = None;
        for at in (0..self.urls.len()).map(|step| (first + step) % self.urls.len()) {
            let mut request = self
                .client
                .request(ask.method.clone(), address(&self.urls[at], &ask.path)?)
                .headers(headers.clone());
            if let Some(body) = &body {
                request = request.body(body.clone());
            }
            match request.send().await {
                Ok(response) => {
                    self.preferred.store(at, Relaxed);
                    return Ok(response);
                }
                Err(error) if error.is_connect() => failure = Some(self.failure(error)),
                Err(error) => return Err(self.failure(error)),
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
        let mut request = self.client.request(Method::GET, address(&instance.url, path)?);
        if let Some(host) = &instance.host {
            request = request.header(header::HOST, host);
        }
        request.send().await.map_err(|error| self.failure(error))
    }

    /// Every address of every instance: a name may have several. One that cannot be resolved is
    /// asked by its name.
    pub(super) async fn instances(&self) -> Vec<InstanceAddress> {
        let mut all = Vec::new();
        for url in &self.urls {
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

    /// An answer's body, at most so long.
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

    /// The next piece of an answer's body.
    pub(super) async fn piece(
        &self,
        response: &mut reqwest::Response,
    ) -> Result<Option<Bytes>, ExchangeError> {
        response.chunk().await.map_err(|error| self.failure(error))
    }

    /// What an answer that is no success means, unless the caller knows better.
    pub(super) async fn error(&self, response: reqwest::Response) -> ExchangeError {
        let (status, retry_after) = (response.status(), retry_after(response.headers()));
        match self.message(response).await {
            Ok(message) => classify(status, retry_after, message),
            Err(error) => error,
        }
    }

    /// What Mimir says in an answer that is no success. The rest of a long one is not read.
    pub(super) async fn message(
        &self,
        mut response: reqwest::Response,
    ) -> Result<String, ExchangeError> {
        let body = read_start(&mut response, MAX_MESSAGE_BYTES).await;
        Ok(words(&body.map_err(|error| self.failure(error))?))
    }

    fn failure(&self, error: reqwest::Error) -> ExchangeError {
        if error.is_timeout() && !error.is_connect() {
            return ExchangeError::Timeout(self.request_timeout);
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

/// A path at an instance, byte for byte. What would be tidied up is not asked for: `..` could turn
/// the deletion of a group into that of a namespace.
fn address(base: &Url, path: &str) -> Result<Url, ExchangeError> {
    let prefix = base.path().trim_end_matches('/');
    let whole = format!("{prefix}{path}");
    let mut url = base.clone();
    url.set_path(&whole);
    if url.path() == whole { Ok(url) } else { Err(ExchangeError::Unaddressable(path.to_owned())) }
}

/// What a status means, but for those that mean something else to one method.
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

/// `Retry-After` in seconds. Mimir writes no dates.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// The words of an error: the text itself, or what Prometheus' JSON wraps.
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
