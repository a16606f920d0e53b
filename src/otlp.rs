//! Sends finished traces to a collector: OTLP over HTTP, as protobuf.
//!
//! One task for the process. What it does not send in time waits in the bounded queue of
//! [`trace`](crate::trace), and what does not fit there is dropped: nothing here can hold up a request.
//! A collector that is away is said once, and counted. Why there is no SDK:
//! docs/decisions/0032-traces.md.

mod message;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::{HeaderValue, StatusCode, header};
use prost::Message as _;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::backoff::Backoff;
use crate::causes::causes;
use crate::config::{CollectorConfig, Secret};
use crate::http_client::{self, read_start};
use crate::labels::SpanDrop;
use crate::telemetry::TraceMetrics;
use crate::trace::FinishedTrace;
use message::{Request, Resource, Response, Span};

/// Spans in one message.
const MOST_SPANS: usize = 512;
/// How long a span waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// How long one message may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last message may take, while the process ends.
const LAST_TIMEOUT: Duration = Duration::from_secs(2);
/// How often one message is tried.
const MOST_ATTEMPTS: u32 = 4;
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// What is read of an answer.
const ANSWER_BYTES: usize = 4 << 10;

/// Sends traces.
pub struct Exporter {
    sender: Sender,
    resource: Resource,
    metrics: Arc<TraceMetrics>,
    /// Whether the last message did not get there.
    is_away: bool,
}

/// One message to the collector.
struct Sender {
    client: reqwest::Client,
    url: Url,
    authorization: Authorization,
}

/// What the collector is shown, which may change.
#[derive(Clone)]
pub struct Authorization(Arc<ArcSwapOption<HeaderValue>>);

impl Authorization {
    fn new(secret: &Secret) -> Self {
        let authorization = Self(Arc::default());
        authorization.set(secret);
        authorization
    }

    /// Shows this from the next message on; nothing if it is empty.
    pub fn set(&self, secret: &Secret) {
        let secret = secret.expose();
        let mut value = HeaderValue::from_bytes(secret).ok().filter(|_| !secret.is_empty());
        if let Some(value) = &mut value {
            value.set_sensitive(true);
        }
        self.0.store(value.map(Arc::new));
    }
}

/// Why a message did not get there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The collector is not there, or asks for a repeat.
    Away(String),
    /// It does not take the message, and will not.
    Refused(String),
}

/// Sends the collector a message without spans, for `check-config`.
pub async fn probe(config: &CollectorConfig) -> Result<(), SendError> {
    let sender = Sender::new(config).map_err(|error| SendError::Refused(causes(&error)))?;
    let message = Request::of(&Resource::of(&config.service_name), Vec::new());
    sender.send(message.encode_to_vec()).await.map(drop)
}

impl Exporter {
    pub fn new(
        config: &CollectorConfig,
        metrics: Arc<TraceMetrics>,
    ) -> Result<Self, reqwest::Error> {
        let (sender, resource) = (Sender::new(config)?, Resource::of(&config.service_name));
        Ok(Self { sender, resource, metrics, is_away: false })
    }

    /// To change what the collector is shown.
    pub fn authorization(&self) -> Authorization {
        self.sender.authorization.clone()
    }

    /// Sends what comes until it is cancelled, and then what is left.
    pub async fn run(mut self, mut traces: Receiver<FinishedTrace>, cancelled: CancellationToken) {
        while let Some(spans) = gather(&mut traces, &cancelled).await {
            self.deliver(spans, &cancelled).await;
        }
        traces.close();
        let mut spans = Vec::new();
        while let Some(trace) = traces.recv().await {
            spans.extend(Span::all_of(trace));
        }
        if spans.is_empty() {
            return;
        }
        let count = spans.len();
        let request = Request::of(&self.resource, spans).encode_to_vec();
        let sent = tokio::time::timeout(LAST_TIMEOUT, self.sender.send(request)).await;
        let late = Err(SendError::Away("the process ends".to_owned()));
        self.note(count, sent.unwrap_or(late));
    }

    async fn deliver(&mut self, spans: Vec<Span>, cancelled: &CancellationToken) {
        let count = spans.len();
        let request = Request::of(&self.resource, spans).encode_to_vec();
        let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
        for attempt in 1.. {
            let sent = self.sender.send(request.clone()).await;
            if !matches!(sent, Err(SendError::Away(_))) || attempt == MOST_ATTEMPTS {
                return self.note(count, sent);
            }
            if let Err(SendError::Away(problem)) = &sent {
                self.warn(problem);
            }
            tokio::select! {
                () = sleep(backoff.next_wait()) => {}
                () = cancelled.cancelled() => return self.note(count, sent),
            }
        }
    }

    /// Counts what became of a message.
    fn note(&mut self, spans: usize, sent: Result<Rejected, SendError>) {
        match sent {
            Ok(Rejected(rejected)) => {
                let rejected = rejected.min(spans);
                self.metrics.dropped(SpanDrop::Refused, rejected);
                self.metrics.exported(spans - rejected);
                if std::mem::take(&mut self.is_away) {
                    tracing::info!("Traces are sent again");
                }
            }
            Err(SendError::Away(problem)) => {
                self.metrics.dropped(SpanDrop::CollectorAway, spans);
                self.warn(&problem);
            }
            Err(SendError::Refused(problem)) => {
                self.metrics.dropped(SpanDrop::Refused, spans);
                self.warn(&problem);
            }
        }
    }

    /// Says what is wrong once, until it is well again.
    fn warn(&mut self, problem: &str) {
        if !std::mem::replace(&mut self.is_away, true) {
            tracing::warn!(
                problem,
                url = %self.sender.url,
                "Traces cannot be sent; what does not fit the queue is dropped"
            );
        }
    }
}

impl Sender {
    fn new(config: &CollectorConfig) -> Result<Self, reqwest::Error> {
        let client = http_client::external().timeout(TIMEOUT).build()?;
        let authorization = Authorization::new(&config.authorization);
        Ok(Self { client, url: config.url.clone(), authorization })
    }

    /// How many spans of a message the collector did not take.
    async fn send(&self, request: Vec<u8>) -> Result<Rejected, SendError> {
        let mut sending = self.client.post(self.url.clone());
        sending = sending.header(header::CONTENT_TYPE, "application/x-protobuf").body(request);
        if let Some(authorization) = self.authorization.0.load_full() {
            sending = sending.header(header::AUTHORIZATION, HeaderValue::clone(&authorization));
        }
        let away = |error: reqwest::Error| SendError::Away(causes(&error.without_url()));
        let mut answer = sending.send().await.map_err(away)?;
        let status = answer.status();
        let text = read_start(&mut answer, ANSWER_BYTES).await.map_err(away)?;
        if status.is_success() {
            let partial =
                Response::decode(&text[..]).ok().and_then(|answer| answer.partial_success);
            return Ok(Rejected(partial.map_or(0, |partial| partial.rejected())));
        }
        let problem = format!("answered {status}");
        // The statuses that OTLP/HTTP calls retryable.
        Err(match status {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => SendError::Away(problem),
            _ => SendError::Refused(problem),
        })
    }
}

struct Rejected(usize);

/// The next message; none when it is cancelled.
async fn gather(
    traces: &mut Receiver<FinishedTrace>,
    cancelled: &CancellationToken,
) -> Option<Vec<Span>> {
    let first = tokio::select! {
        biased;
        () = cancelled.cancelled() => return None,
        first = traces.recv() => first?,
    };
    let mut spans: Vec<Span> = Span::all_of(first).collect();
    let deadline = Instant::now() + GATHER;
    while spans.len() < MOST_SPANS {
        tokio::select! {
            biased;
            () = sleep_until(deadline) => break,
            () = cancelled.cancelled() => break,
            more = traces.recv() => match more {
                Some(more) => spans.extend(Span::all_of(more)),
                None => break,
            },
        }
    }
    Some(spans)
}
