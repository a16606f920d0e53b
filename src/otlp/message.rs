//! The messages of OTLP 1 that traces need (opentelemetry-proto, `trace/v1` and `collector/trace/v1`).
//! Their field numbers are stable since 1.0.

use prost::Message;

use crate::trace::{FinishedTrace, SpanData, SpanKind, Value};
use crate::version;

/// `ExportTraceServiceRequest`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Request {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<ScopeSpans>,
    #[prost(string, tag = "3")]
    schema_url: String,
}

/// Who the spans are of.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[expect(clippy::struct_field_names, reason = "the protocol's names")]
#[derive(Clone, PartialEq, Message)]
pub(super) struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start: u64,
    #[prost(fixed64, tag = "8")]
    end: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "Any", tags = "1, 2, 3")]
    value: Option<Any>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Any {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Switch(bool),
    #[prost(int64, tag = "3")]
    Number(i64),
}

/// `ExportTraceServiceResponse`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Response {
    #[prost(message, optional, tag = "1")]
    pub(super) partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
}

/// The semantic conventions that the names of attributes are from.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.37.0";
const ERROR: i32 = 2;
/// The trace is sampled.
const SAMPLED: u32 = 0x1;
/// It is known whether the parent is remote, and it is.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

impl Request {
    pub(super) fn of(resource: &Resource, spans: Vec<Span>) -> Self {
        let name = env!("CARGO_PKG_NAME").to_owned();
        let scope = Some(Scope { name, version: version::NUMBER.to_owned() });
        let scopes = vec![ScopeSpans { scope, spans }];
        let (resource, schema_url) = (Some(resource.clone()), SCHEMA.to_owned());
        Self { resources: vec![ResourceSpans { resource, scopes, schema_url }] }
    }
}

impl Resource {
    /// This process, under an identifier of its own.
    pub(super) fn of(service: &str) -> Self {
        let instance = uuid::Uuid::new_v4().to_string();
        let attributes = [
            ("service.name", service.to_owned()),
            ("service.version", version::NUMBER.to_owned()),
            ("service.instance.id", instance),
        ];
        let attributes = attributes.map(|(key, text)| KeyValue::of(key, Value::from(text)));
        Self { attributes: attributes.into() }
    }
}

impl Span {
    pub(super) fn all_of(trace: FinishedTrace) -> impl Iterator<Item = Self> {
        let FinishedTrace { id, spans } = trace;
        spans.into_iter().map(move |span| Self::of(id, span))
    }

    fn of(trace: u128, span: SpanData) -> Self {
        let SpanData { id, parent, is_remote, name, kind, start, end, attributes, error } = span;
        let nanoseconds =
            |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self {
            trace_id: trace.to_be_bytes().into(),
            span_id: id.to_be_bytes().into(),
            parent_span_id: parent.map_or(Vec::new(), |parent| parent.to_be_bytes().into()),
            name: name.into_owned(),
            kind: match kind {
                SpanKind::Internal => 1,
                SpanKind::Server => 2,
                SpanKind::Client => 3,
            },
            start: nanoseconds(start),
            end: nanoseconds(end),
            attributes: attributes
                .into_iter()
                .map(|(key, value)| KeyValue::of(key, value))
                .collect(),
            status: error.map(|error| Status { message: error.to_owned(), code: ERROR }),
            flags: SAMPLED | HAS_IS_REMOTE | if is_remote { IS_REMOTE } else { 0 },
        }
    }
}

impl KeyValue {
    fn of(key: &str, value: Value) -> Self {
        let value = match value {
            Value::Text(text) => Any::Text(text.into_owned()),
            Value::Number(number) => Any::Number(number),
            Value::Switch(on) => Any::Switch(on),
        };
        Self { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
    }
}

impl PartialSuccess {
    pub(super) fn rejected(&self) -> usize {
        usize::try_from(self.rejected_spans).unwrap_or(0)
    }
}
