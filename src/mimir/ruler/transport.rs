//! One exchange with Mimir: instance, timeout, size limit, and the meaning of a failure.

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

/// The longest message of Mimir that is kept. It repeats a rule's name for each of its faults.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Mimir's addresses and the timeouts.
#[derive(Clone, Debug)]
pub struct RulerConfig {
    /// Mimir's instances, any of which can answer. If one is unreachable, the next is tried.
    pub urls: Vec<Url>,
    pub namespace: String,
    /// The timeout of one exchange, from its first byte to its last.
    pub request_timeout: Duration,
    /// The timeout for connecting to an instance.
    pub connect_timeout: Duration,
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

#[derive(Debug)]
pub(super) struct Transport {
    client: reqwest::Client,
    urls: Vec<Url>,
    /// The last instance that was reachable.
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

    /// Tries the instances in turn until one is reachable. A request that may have reached Mimir is
    /// not sent again.
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
        Err(failure.unwrap_or_else(|| RulerError::Unreachable("no address is known".to_owned())))
    }

    /// An answer's body, up to a length.
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

    pub(super) async fn piece(
        &self,
        response: &mut reqwest::Response,
    ) -> Result<Option<Bytes>, RulerError> {
        response.chunk().await.map_err(|error| self.failure(error))
    }

    /// The meaning of an unsuccessful answer, unless the caller knows better.
    pub(super) async fn error(&self, response: reqwest::Response) -> RulerError {
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

/// The URL of a path at an instance, byte for byte. A path that normalisation would change is an
/// error: `..` could turn the deletion of a group into that of a namespace.
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

/// The meaning of a status, except for those that mean something else to one method.
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
