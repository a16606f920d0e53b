//! A client for tests: HTTP/1.1 or h2c, with or without a token, and raw bytes for what no
//! decent client would send.

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as text.
    pub text: String,
    /// The body.
    pub body: bytes::Bytes,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A header as text, empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap_or("(binary)"))
    }
}

/// A client of one server.
#[derive(Clone)]
pub struct Client {
    base: String,
    http: reqwest::Client,
    headers: HeaderMap,
    patience: Duration,
}

impl Client {
    /// A client over HTTP/1.1.
    pub fn new(base: &str) -> Self {
        Self::with(base, reqwest::Client::builder().http1_only())
    }

    /// A client over HTTP/2 without TLS (prior knowledge).
    pub fn h2c(base: &str) -> Self {
        Self::with(base, reqwest::Client::builder().http2_prior_knowledge())
    }

    fn with(base: &str, builder: reqwest::ClientBuilder) -> Self {
        let builder = builder.no_proxy().redirect(reqwest::redirect::Policy::none());
        let http = builder.build().expect("client");
        let patience = Duration::from_secs(60);
        Self { base: base.to_owned(), http, headers: HeaderMap::new(), patience }
    }

    /// The same client with another header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, value.parse().expect("header value"));
        self
    }

    /// The same client, which waits so long for an answer.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The same client with a bearer token.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// GET.
    pub async fn get(&self, target: &str) -> Answer {
        self.send(Method::GET, target, Vec::new()).await
    }

    /// POST.
    pub async fn post(&self, target: &str, body: impl Into<reqwest::Body>) -> Answer {
        self.send(Method::POST, target, body).await
    }

    /// POST of a form.
    pub async fn post_form(&self, target: &str, form: &str) -> Answer {
        let form_type = "application/x-www-form-urlencoded";
        self.clone().header("content-type", form_type).post(target, form.to_owned()).await
    }

    /// Any request, with the target as it is.
    pub async fn send(
        &self,
        method: Method,
        target: &str,
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        self.try_send(method, target, body).await.expect("an answer")
    }

    /// Any request; an error if the answer does not come to its end.
    pub async fn try_send(
        &self,
        method: Method,
        target: &str,
        body: impl Into<reqwest::Body>,
    ) -> Result<Answer, reqwest::Error> {
        let request = self.http.request(method, format!("{}{target}", self.base));
        let request = request.timeout(self.patience);
        let answer = request.headers(self.headers.clone()).body(body).send().await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = answer.bytes().await?;
        let text = String::from_utf8_lossy(&body).into_owned();
        Ok(Answer { status, headers, text, body })
    }

    /// An answer whose body is still to be read.
    pub async fn open(
        &self,
        method: Method,
        target: &str,
        body: impl Into<reqwest::Body>,
    ) -> reqwest::Response {
        let request = self.http.request(method, format!("{}{target}", self.base));
        let request = request.timeout(self.patience);
        request.headers(self.headers.clone()).body(body).send().await.expect("an answer")
    }
}

/// Sends raw bytes to `http://HOST:PORT` and returns all that comes back until the server closes
/// or says nothing for two seconds.
pub async fn raw_exchange(base: &str, bytes: &[u8]) -> String {
    exchange(base, bytes, Duration::from_secs(2)).await.0
}

/// The same, of a server that has to close: what comes back until it does.
///
/// # Panics
/// If the connection is open after ten seconds without a byte.
pub async fn raw_exchange_to_end(base: &str, bytes: &[u8]) -> String {
    let (answer, is_closed) = exchange(base, bytes, Duration::from_secs(10)).await;
    assert!(is_closed, "the connection stays open after {answer:?}");
    answer
}

/// What comes back, and whether the server has closed.
async fn exchange(base: &str, bytes: &[u8], patience: Duration) -> (String, bool) {
    let address = base.strip_prefix("http://").expect("an address");
    let mut socket = TcpStream::connect(address).await.expect("connect");
    socket.write_all(bytes).await.expect("write");
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    let is_closed = loop {
        match tokio::time::timeout(patience, socket.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => break true,
            Ok(Ok(length)) => answer.extend_from_slice(&buffer[..length]),
            Err(_) => break false,
        }
    };
    (String::from_utf8_lossy(&answer).into_owned(), is_closed)
}
