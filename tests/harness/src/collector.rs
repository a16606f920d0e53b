//! A real OpenTelemetry Collector that takes OTLP over HTTP and passes all spans on to the test.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use tempfile::TempDir;

use crate::parts::part;
use crate::process::{Process, free_port, wait_until};
use crate::upstream::{Received, Upstream};

/// A running collector.
pub struct Collector {
    process: Process,
    port: u16,
    spans: Arc<Mutex<Vec<CollectedSpan>>>,
    _recorder: Upstream,
    _directory: TempDir,
}

/// A span as the collector has understood it.
#[derive(Clone, Debug)]
pub struct CollectedSpan {
    /// `service.name` of its resource.
    pub service: String,
    /// 32 hexadecimal digits.
    pub trace: String,
    /// 16 hexadecimal digits.
    pub id: String,
    /// Empty if it has none.
    pub parent: String,
    /// The name.
    pub name: String,
    /// 1 internal, 2 server, 3 client.
    pub kind: u64,
    /// Nanoseconds since the Unix epoch.
    pub start: u64,
    /// Likewise.
    pub end: u64,
    /// 2 is an error.
    pub status: u64,
    /// The attributes, as text.
    pub attributes: BTreeMap<String, String>,
}

impl Collector {
    /// Starts one and waits until it takes traces.
    pub async fn start() -> Self {
        let spans: Arc<Mutex<Vec<CollectedSpan>>> = Arc::default();
        let kept = Arc::clone(&spans);
        let recorder = Upstream::start(move |received| record(received, Arc::clone(&kept))).await;
        let (directory, port) = (TempDir::with_prefix("otelcol-").expect("directory"), free_port());
        let config = directory.path().join("otelcol.yaml");
        let text = format!(
            "receivers: {{otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:{port}'}}}}}}}}\n\
             exporters:\n  otlphttp:\n    traces_endpoint: {}/v1/traces\n    encoding: json\n    \
             compression: none\n    sending_queue: {{enabled: false}}\n\
             service:\n  telemetry: {{metrics: {{level: none}}}}\n  \
             pipelines: {{traces: {{receivers: [otlp], exporters: [otlphttp]}}}}\n",
            recorder.url()
        );
        std::fs::write(&config, text).expect("config");
        let process = Process::start("otelcol", &part("otelcol"), directory.path(), |command| {
            command.arg("--config").arg(&config);
        });
        let collector = Self { process, port, spans, _recorder: recorder, _directory: directory };
        let client = reqwest::Client::builder().no_proxy().build().expect("client");
        let url = format!("{}/v1/traces", collector.url());
        wait_until("the collector takes traces", Duration::from_secs(30), async || {
            let request = client.post(&url).header("content-type", "application/json").body("{}");
            request.send().await.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
        collector
    }

    /// Its address, without the path.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<CollectedSpan> {
        self.spans.lock().unwrap().clone()
    }

    /// Those of one trace.
    pub fn trace(&self, trace: &str) -> Vec<CollectedSpan> {
        self.spans().into_iter().filter(|span| span.trace == trace).collect()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

async fn record(
    received: Received,
    spans: Arc<Mutex<Vec<CollectedSpan>>>,
) -> Response<BoxBody<Bytes, std::io::Error>> {
    let body = received.body.expect("a body").collect().await.expect("a body").to_bytes();
    let message: Value = serde_json::from_slice(&body).expect("JSON");
    let all = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for resource in all(&message["resourceSpans"]) {
        let service = attributes(&resource["resource"]).remove("service.name").unwrap_or_default();
        for scope in all(&resource["scopeSpans"]) {
            let found = all(&scope["spans"]).into_iter().map(|span| span_of(&service, &span));
            spans.lock().unwrap().extend(found);
        }
    }
    let empty = Full::new(Bytes::from_static(b"{}")).map_err(|never| match never {}).boxed();
    let mut answer = Response::new(empty);
    answer.headers_mut().insert("content-type", "application/json".parse().expect("a value"));
    answer
}

fn span_of(service: &str, span: &Value) -> CollectedSpan {
    let text = |key: &str| span[key].as_str().unwrap_or_default().to_owned();
    let number =
        |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_default();
    CollectedSpan {
        service: service.to_owned(),
        trace: text("traceId"),
        id: text("spanId"),
        parent: text("parentSpanId"),
        name: text("name"),
        kind: number(&span["kind"]),
        start: number(&span["startTimeUnixNano"]),
        end: number(&span["endTimeUnixNano"]),
        status: number(&span["status"]["code"]),
        attributes: attributes(span),
    }
}

fn attributes(holder: &Value) -> BTreeMap<String, String> {
    let all = holder["attributes"].as_array().cloned().unwrap_or_default();
    all.iter()
        .map(|one| {
            let value = one["value"].as_object().and_then(|value| value.values().next());
            let value = value.cloned().unwrap_or_default();
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            (one["key"].as_str().unwrap_or_default().to_owned(), text)
        })
        .collect()
}
