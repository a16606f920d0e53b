//! One exchange with Mimir: instance, timeout, size limit, and the meaning of a failure. The clients of
//! the ruler and of the Alertmanager share it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use url::Url;

use super::instances::{Instance, Reach};
use super::{Retriable, set_tenant};
use crate::causes::causes;
use crate::http_client::{ReadError, read_limited, read_start};
use crate::tenancy::TenantId;
use crate::trace::{self, Span};

/// The longest message of Mimir that is kept. It repeats a rule's name for each of its faults.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// The most instances that one request tries to reach, each for the timeout of a connection at most.
const MOST_TRIES: usize = 3;

/// Mimir's addresses and the timeouts.
#[derive(Clone, Debug)]
pub struct MimirConfig {
    /// Mimir's instances, any of which can answer; a name may be that of several. If one is unreachable, the next is
    /// tried; after another failure the next request goes to the next.
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
    /// Whose turn it is: the instance that was reachable last, or the next one after a timeout, a connection that broke
    /// and a 5xx. A number that only grows, so that a failure of long ago is told from one of now.
    turn: AtomicUsize,
}

/// Whose turn it was when an answer began.
#[derive(Clone, Copy, Debug)]
struct Turn(usize);

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

impl Transport {
    pub(super) fn new(config: &MimirConfig) -> Result<Self, String> {
        let reach = ArcSwap::from_pointee(Reach::new(config)?);
        Ok(Self { reach, turn: AtomicUsize::new(0) })
    }

    /// Tries the instances in turn until one is reachable. A request that may have reached Mimir is
    /// not sent again; the next one goes to another instance.
    pub(super) async fn send(&self, ask: Ask<'_>) -> Result<reqwest::Response, ExchangeError> {
        let headers = headers_of(&ask);
        let body = ask.body.map(|(_, body)| Bytes::from(body));
        let instances = self.reach.load_full().instances().await;
        let first = self.turn.load(Relaxed);
        let mut failure = None;
        let tries = instances.len().min(MOST_TRIES);
        for turn in (0..tries).map(|step| first.wrapping_add(step)) {
            let instance = &instances[turn % instances.len()];
            let mut url = address(&instance.url, &ask.path)?;
            let (mut span, mut headers) = (span_of(&ask.method, &url), headers.clone());
            span.put_into(&mut headers);
            url.set_query(ask.query.as_deref());
            let mut request = instance.client.request(ask.method.clone(), url).headers(headers);
            if let Some(body) = &body {
                request = request.body(body.clone());
            }
            match request.send().await {
                Ok(mut response) => {
                    span.set("http.response.status_code", response.status().as_u16());
                    if response.status().is_server_error() {
                        span.fail("5xx");
                        self.move_on(first, turn.wrapping_add(1));
                    } else {
                        self.move_on(first, turn);
                    }
                    response.extensions_mut().insert(Turn(turn));
                    return Ok(response);
                }
                Err(error) => {
                    span.fail(if error.is_timeout() { "timeout" } else { "unreachable" });
                    if !error.is_connect() {
                        self.move_on(first, turn.wrapping_add(1));
                        return Err(self.failure(error));
                    }
                    failure = Some(self.failure(error));
                }
            }
        }
        self.move_on(first, first.wrapping_add(tries));
        Err(failure.unwrap_or_else(|| ExchangeError::Unreachable("no address is known".to_owned())))
    }

    /// Whose turn it is from now on, unless another exchange has changed that meanwhile: of many that fail together,
    /// one moves on.
    fn move_on(&self, from: usize, to: usize) {
        let _ = self.turn.compare_exchange(from, to, Relaxed, Relaxed);
    }

    /// Asks one instance alone: for what each of them knows of itself.
    pub(super) async fn send_to(
        &self,
        instance: &Instance,
        path: &str,
    ) -> Result<reqwest::Response, ExchangeError> {
        let request = instance.client.get(address(&instance.url, path)?);
        request.send().await.map_err(|error| self.failure(error))
    }

    /// Every instance.
    pub(super) async fn instances(&self) -> Arc<[Instance]> {
        self.reach.load_full().instances().await
    }

    /// An answer's body, up to a length.
    pub(super) async fn read(
        &self,
        mut response: reqwest::Response,
        most: usize,
    ) -> Result<Bytes, ExchangeError> {
        match read_limited(&mut response, most).await {
            Ok(body) => Ok(body.into()),
            Err(ReadError::Broken(error)) => Err(self.broken(&response, error)),
            Err(error @ ReadError::TooLong(_)) => {
                Err(ExchangeError::Unreadable(format!("it is {error}")))
            }
        }
    }

    pub(super) async fn piece(
        &self,
        response: &mut reqwest::Response,
    ) -> Result<Option<Bytes>, ExchangeError> {
        let piece = response.chunk().await;
        piece.map_err(|error| self.broken(response, error))
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
        Ok(words(&body.map_err(|error| self.broken(&response, error))?))
    }

    /// The rest of an answer does not come.
    fn broken(&self, response: &reqwest::Response, error: reqwest::Error) -> ExchangeError {
        if let Some(Turn(turn)) = response.extensions().get() {
            self.move_on(*turn, turn.wrapping_add(1));
        }
        self.failure(error)
    }

    fn failure(&self, error: reqwest::Error) -> ExchangeError {
        if error.is_timeout() && !error.is_connect() {
            return ExchangeError::Timeout(self.reach.load().request_timeout());
        }
        ExchangeError::Unreachable(causes(&error.without_url()))
    }
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
