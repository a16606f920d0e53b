//! One exchange with Mimir: which instance, how long, how much, and what a failure is.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use url::Url;

use super::{GroupRefusal, RulerError};
use crate::causes::causes;
use crate::http_client::{self, ReadError, read_limited, read_start};
use crate::mimir::set_tenant;
use crate::tenancy::TenantId;

/// The longest message of Mimir's that is kept. It repeats a rule's name for each of its faults.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Where Mimir is and how long it may take.
#[derive(Clone, Debug)]
pub struct RulerConfig {
    /// Mimir's instances, each of which knows everything. The next is asked when one is not there.
    pub urls: Vec<Url>,
    pub namespace: String,
    /// How long one exchange may take from its first byte to its last.
    pub request_timeout: Duration,
    /// How long an instance may take to let us in.
    pub connect_timeout: Duration,
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
    pub(super) fn new(config: &RulerConfig) -> Result<Self, String> {
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
    pub(super) async fn send(&self, ask: Ask<'_>) -> Result<reqwest::Response, RulerError> {
        let mut headers = HeaderMap::new();
        if let Some((content_type, _)) = ask.body {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        if let Some(tenant) = ask.tenant {
            set_tenant(&mut headers, &tenant.clone().into());
        }
        let body = ask.body.map(|(_, body)| Bytes::from(body));
        let first = self.preferred.load(Relaxed);
        let mut failure = None;
        for at in (0..self.urls.len()).map(|step| (first + step) % self.urls.len()) {
            let mut url = address(&self.urls[at], &ask.path)?;
            url.set_query(ask.query.as_deref());
            let mut request = self.client.request(ask.method.clone(), url).headers(headers.clone());
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
        Err(failure.unwrap_or_else(|| RulerError::Unreachable("no address is known".to_owned())))
    }

    /// An answer's body, at most so long.
    pub(super) async fn read(
        &self,
        mut response: reqwest::Response,
        most: usize,
    ) -> Result<Bytes, RulerError> {
        match read_limited(&mut response, most).await {
            Ok(body) => Ok(body.into()),
            Err(ReadError::Broken(error)) => Err(self.failure(error)),
            Err(error @ ReadError::TooLong(_)) => {
                Err(RulerError::Unreadable(format!("it is {error}")))
            }
        }
    }

    /// The next piece of an answer's body.
    pub(super) async fn piece(
        &self,
        response: &mut reqwest::Response,
    ) -> Result<Option<Bytes>, RulerError> {
        response.chunk().await.map_err(|error| self.failure(error))
    }

    /// What an answer that is no success means, unless the caller knows better.
    pub(super) async fn error(&self, response: reqwest::Response) -> RulerError {
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
    ) -> Result<String, RulerError> {
        let body = read_start(&mut response, MAX_MESSAGE_BYTES).await;
        Ok(words(&body.map_err(|error| self.failure(error))?))
    }

    fn failure(&self, error: reqwest::Error) -> RulerError {
        if error.is_timeout() && !error.is_connect() {
            return RulerError::Timeout(self.request_timeout);
        }
        RulerError::Unreachable(causes(&error.without_url()))
    }
}

/// A path at an instance, byte for byte. What would be tidied up is not asked for: `..` could turn
/// the deletion of a group into that of a namespace.
fn address(base: &Url, path: &str) -> Result<Url, RulerError> {
    let prefix = base.path().trim_end_matches('/');
    let whole = format!("{prefix}{path}");
    let mut url = base.clone();
    url.set_path(&whole);
    if url.path() == whole {
        Ok(url)
    } else {
        Err(RulerError::Refused(GroupRefusal::Other(format!("{path:?} cannot be asked for"))))
    }
}

/// What a status means, but for those that mean something else to one method.
pub(super) fn classify(
    status: StatusCode,
    retry_after: Option<Duration>,
    message: String,
) -> RulerError {
    let code = status.as_u16();
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            RulerError::Forbidden { status: code, message }
        }
        StatusCode::TOO_MANY_REQUESTS => RulerError::Busy { status: code, retry_after, message },
        _ if status.is_server_error() => RulerError::Busy { status: code, retry_after, message },
        _ => RulerError::Unexpected { status: code, message },
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
