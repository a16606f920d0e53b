//! Traces: what one request, or one reconcile, spent its time on, as OpenTelemetry's spans.
//!
//! A [`Span`] is free where traces are off: it holds nothing, and so do its children. Where they are
//! on, it is decided once, at the head, whether a trace is recorded. The spans of a recorded one are
//! collected in memory and handed over together when the last of them has ended, without waiting: what
//! does not fit the queue is dropped and counted. [`otlp`](crate::otlp) sends them.
//!
//! Nothing reads a span to decide anything. What a client sends as its trace is taken over as an
//! identity and never as an order (docs/decisions/0032-traces.md).

mod ambient;
mod context;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::per_second::PerSecond;
pub use ambient::{note, request, step, within};
pub use context::TraceContext;

/// W3C trace context, level 1.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Spans of one trace. A request that is sent to every instance has fewer.
const MOST_SPANS: usize = 64;
/// Traces that wait to be sent.
const MOST_QUEUED: usize = 2048;
/// Characters of a text.
const LONGEST_TEXT: usize = 256;

/// Which traces are recorded.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// The fraction of requests and reconciles, from 0 to 1.
    pub ratio: f64,
    /// Traces a second, at most.
    pub max_per_second: u32,
    /// Whether a caller's sampled flag decides in place of the ratio.
    pub follows_callers: bool,
}

/// Begins traces. Cheap to clone.
#[derive(Clone, Default)]
pub struct Tracer(Option<Arc<Shared>>);

struct Shared {
    sampling: Sampling,
    clock: Clock,
    queue: mpsc::Sender<FinishedTrace>,
    /// The traces that were begun.
    begun: PerSecond,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    recorded: AtomicU64,
    over_limit: AtomicU64,
    dropped: AtomicU64,
}

/// What became of traces so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceCounts {
    /// Traces that were begun.
    pub recorded: u64,
    /// Traces that were not recorded because of `max_per_second`.
    pub over_limit: u64,
    /// Spans that did not fit the queue, or their trace.
    pub dropped: u64,
}

/// The spans of one trace that this process recorded, the last one to end last.
#[derive(Debug)]
pub struct FinishedTrace {
    pub id: u128,
    pub spans: Vec<SpanData>,
}

/// A span that has ended.
#[derive(Clone, Debug)]
pub struct SpanData {
    pub id: u64,
    pub parent: Option<u64>,
    /// Whether the parent is another process's.
    pub is_remote: bool,
    pub name: Cow<'static, str>,
    pub kind: SpanKind,
    /// Since the Unix epoch, as the end.
    pub start: Duration,
    pub end: Duration,
    pub attributes: Vec<(&'static str, Value)>,
    /// What failed, if something did.
    pub error: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    Internal,
    Server,
    Client,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(Cow<'static, str>),
    Number(i64),
    Switch(bool),
}

/// A piece of work that takes time. It ends when it is dropped.
#[derive(Default)]
pub struct Span(Option<Box<State>>);

enum State {
    /// Traces are on, and this one is not recorded: Mimir is told so.
    Unrecorded(TraceContext),
    Recording(Recording),
}

struct Recording {
    trace: Arc<Trace>,
    data: SpanData,
}

/// What the spans of one trace share.
struct Trace {
    id: u128,
    shared: Arc<Shared>,
    spans: Mutex<Vec<SpanData>>,
}

/// A span's own header for a request that is passed on.
pub struct TraceHeader {
    pub name: HeaderName,
    pub value: HeaderValue,
    replaces_state: bool,
}

impl TraceHeader {
    /// Whether a header of the client's does not pass because of it.
    pub fn replaces(&self, name: &HeaderName) -> bool {
        *name == TRACEPARENT || (self.replaces_state && *name == TRACESTATE)
    }
}

impl Tracer {
    /// Records nothing.
    pub fn off() -> Self {
        Self(None)
    }

    /// A tracer, and what it records.
    pub fn new(sampling: Sampling, clock: Clock) -> (Self, mpsc::Receiver<FinishedTrace>) {
        let (queue, finished) = mpsc::channel(MOST_QUEUED);
        let (begun, counts) = Default::default();
        (Self(Some(Arc::new(Shared { sampling, clock, queue, begun, counts }))), finished)
    }

    /// What became of traces so far; none where they are off.
    pub fn counts(&self) -> Option<TraceCounts> {
        let Counts { recorded, over_limit, dropped } = &self.0.as_ref()?.counts;
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Some(TraceCounts {
            recorded: load(recorded),
            over_limit: load(over_limit),
            dropped: load(dropped),
        })
    }

    /// Begins the span of a request from outside. The caller's trace goes on in it.
    pub fn request(&self, headers: &HeaderMap) -> Span {
        let Some(shared) = &self.0 else { return Span(None) };
        shared.begin(Cow::Borrowed("request"), SpanKind::Server, TraceContext::of(headers))
    }

    /// Begins a trace of the proxy's own work.
    pub fn own(&self, name: &'static str) -> Span {
        let Some(shared) = &self.0 else { return Span(None) };
        shared.begin(Cow::Borrowed(name), SpanKind::Internal, None)
    }
}

impl Shared {
    fn begin(
        self: &Arc<Self>,
        name: Cow<'static, str>,
        kind: SpanKind,
        parent: Option<TraceContext>,
    ) -> Span {
        let trace = parent.map_or_else(random_trace, |parent| parent.trace);
        let id = random_span();
        let wanted = match parent {
            Some(parent) if self.sampling.follows_callers => parent.is_sampled,
            _ => fastrand::f64() < self.sampling.ratio,
        };
        if !wanted || !self.is_within_limit() {
            let context = TraceContext { trace, span: id, is_sampled: false };
            return Span(Some(Box::new(State::Unrecorded(context))));
        }
        self.counts.recorded.fetch_add(1, Ordering::Relaxed);
        let trace =
            Arc::new(Trace { id: trace, shared: Arc::clone(self), spans: Mutex::default() });
        let data = SpanData::begin(id, parent.map(|parent| parent.span), name, kind, &self.clock);
        let data = SpanData { is_remote: parent.is_some(), ..data };
        Span(Some(Box::new(State::Recording(Recording { trace, data }))))
    }

    /// Takes one of the traces of this second, if any is left.
    fn is_within_limit(&self) -> bool {
        let taken = self.begun.take(self.clock.now().as_secs(), self.sampling.max_per_second);
        if !taken {
            self.counts.over_limit.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    fn drop_spans(&self, spans: usize) {
        self.counts.dropped.fetch_add(spans as u64, Ordering::Relaxed);
    }
}

impl Span {
    /// A span that records nothing.
    pub fn none() -> Self {
        Self(None)
    }

    pub fn is_recording(&self) -> bool {
        self.recording().is_some()
    }

    fn recording(&self) -> Option<&Recording> {
        match self.0.as_deref()? {
            State::Recording(recording) => Some(recording),
            State::Unrecorded(_) => None,
        }
    }

    fn data(&mut self) -> Option<&mut SpanData> {
        match self.0.as_deref_mut()? {
            State::Recording(recording) => Some(&mut recording.data),
            State::Unrecorded(_) => None,
        }
    }

    /// Begins a step of this work.
    #[inline]
    pub fn child(&self, name: &'static str) -> Self {
        if self.0.is_none() { Self(None) } else { self.part(name, SpanKind::Internal) }
    }

    /// Begins a request of ours that is part of this work.
    #[inline]
    pub fn client(&self, name: &'static str) -> Self {
        if self.0.is_none() { Self(None) } else { self.part(name, SpanKind::Client) }
    }

    fn part(&self, name: &'static str, kind: SpanKind) -> Self {
        match self.0.as_deref() {
            None => Self(None),
            // What is not recorded has one identity, whoever is asked.
            Some(State::Unrecorded(context)) => Self(Some(Box::new(State::Unrecorded(*context)))),
            Some(State::Recording(Recording { trace, data })) => {
                let clock = &trace.shared.clock;
                let part = SpanData::begin(random_span(), Some(data.id), name.into(), kind, clock);
                let trace = Arc::clone(trace);
                Self(Some(Box::new(State::Recording(Recording { trace, data: part }))))
            }
        }
    }

    /// Names the work anew, when more is known of it.
    pub fn rename(&mut self, name: impl FnOnce() -> String) {
        if let Some(data) = self.data() {
            data.name = Cow::Owned(cut(name()));
        }
    }

    /// Sets an attribute. Long texts are cut.
    #[inline]
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(data) = self.data() {
            let value = match value.into() {
                Value::Text(Cow::Owned(text)) => Value::Text(Cow::Owned(cut(text))),
                other => other,
            };
            data.attributes.push((key, value));
        }
    }

    /// The work failed.
    pub fn fail(&mut self, error: &'static str) {
        if let Some(data) = self.data() {
            data.error = Some(error);
            data.attributes.push(("error.type", Value::from(error)));
        }
    }

    /// The trace, if it is recorded.
    pub fn trace(&self) -> Option<u128> {
        self.recording().map(|recording| recording.trace.id)
    }

    /// The context for a server that is asked as part of this work; none where traces are off.
    pub fn context(&self) -> Option<TraceContext> {
        Some(match self.0.as_deref()? {
            State::Unrecorded(context) => *context,
            State::Recording(Recording { trace, data }) => {
                TraceContext { trace: trace.id, span: data.id, is_sampled: true }
            }
        })
    }

    /// The header that tells Mimir of this span, for a request with these headers. None where traces are
    /// off: they stay as they are.
    #[inline]
    pub fn header_for(&self, client: &HeaderMap) -> Option<TraceHeader> {
        let context = self.context()?;
        // A vendor's state goes with the context that it came with, and with no other.
        let came = client.get(TRACEPARENT).map(HeaderValue::as_bytes);
        let is_same =
            came.and_then(TraceContext::parse).is_some_and(|came| came.trace == context.trace);
        Some(TraceHeader {
            name: TRACEPARENT,
            value: context.header_value(),
            replaces_state: !is_same,
        })
    }

    /// Puts the context into a request's headers. Where traces are off they stay as they are.
    #[inline]
    pub fn put_into(&self, headers: &mut HeaderMap) {
        let Some(header) = self.header_for(headers) else { return };
        if header.replaces_state {
            headers.remove(TRACESTATE);
        }
        headers.insert(header.name, header.value);
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(state) = self.0.take() else { return };
        let State::Recording(Recording { trace, mut data }) = *state else { return };
        data.end = trace.shared.clock.now().max(data.start);
        let mut spans = trace.spans.lock();
        // The root ends last, and is worth more than any other.
        if spans.len() < MOST_SPANS || data.is_root() {
            spans.push(data);
        } else {
            trace.shared.drop_spans(1);
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let spans = std::mem::take(self.spans.get_mut());
        let finished = FinishedTrace { id: self.id, spans };
        if let Err(error) = self.shared.queue.try_send(finished) {
            self.shared.drop_spans(error.into_inner().spans.len());
        }
    }
}

impl SpanData {
    fn begin(
        id: u64,
        parent: Option<u64>,
        name: Cow<'static, str>,
        kind: SpanKind,
        clock: &Clock,
    ) -> Self {
        let now = clock.now();
        let (attributes, error) = (Vec::new(), None);
        Self { id, parent, is_remote: false, name, kind, start: now, end: now, attributes, error }
    }

    fn is_root(&self) -> bool {
        self.parent.is_none() || self.is_remote
    }
}

/// Zero is no identifier.
fn random_trace() -> u128 {
    fastrand::u128(1..)
}

fn random_span() -> u64 {
    fastrand::u64(1..)
}

fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(LONGEST_TEXT) {
        text.truncate(end);
    }
    text
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<bool> for Value {
    fn from(on: bool) -> Self {
        Self::Switch(on)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Sampling = Sampling { ratio: 1.0, max_per_second: 1000, follows_callers: false };

    fn headers(traceparent: &str) -> HeaderMap {
        [(TRACEPARENT, HeaderValue::from_str(traceparent).unwrap())].into_iter().collect()
    }

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    #[test]
    fn a_span_costs_a_pointer_where_traces_are_off() {
        assert_eq!(size_of::<Span>(), size_of::<usize>());
        let span = Tracer::off().request(&headers(PARENT));
        assert!(span.0.is_none() && span.child("step").0.is_none());
        let mut sent = headers(PARENT);
        span.put_into(&mut sent);
        assert_eq!(sent, headers(PARENT));
    }

    #[test]
    fn a_trace_is_handed_over_when_its_last_span_has_ended() {
        let (tracer, mut finished) = Tracer::new(ALL, Clock::system());
        let root = tracer.request(&headers(PARENT));
        let mut step = root.child("step");
        step.set("number", 7_i64);
        let inner = step.client("ask");
        drop((inner, step));
        assert!(finished.try_recv().is_err());
        drop(root);
        let trace = finished.try_recv().unwrap();
        assert_eq!(trace.id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        let [ask, step, root] = &trace.spans[..] else { panic!("{trace:?}") };
        assert_eq!((ask.parent, step.parent), (Some(step.id), Some(root.id)));
        assert_eq!((root.parent, root.is_remote), (Some(0xb7ad_6b71_6920_3331), true));
        assert_eq!(step.attributes, [("number", Value::Number(7))]);
        assert_eq!(tracer.counts().unwrap().recorded, 1);
    }

    // A client could have every request of its own recorded, here and at Mimir.
    #[test]
    fn a_callers_flag_decides_only_where_it_is_followed() {
        let none = Sampling { ratio: 0.0, ..ALL };
        for (sampling, flags, wanted) in [
            (none, PARENT, false),
            (ALL, UNSAMPLED, true),
            (Sampling { follows_callers: true, ..none }, PARENT, true),
            (Sampling { follows_callers: true, ..ALL }, UNSAMPLED, false),
        ] {
            let (tracer, _finished) = Tracer::new(sampling, Clock::system());
            let span = tracer.request(&headers(flags));
            assert_eq!(span.is_recording(), wanted, "{sampling:?} {flags}");
            let mut sent = headers(flags);
            span.client("ask").put_into(&mut sent);
            let sent = TraceContext::of(&sent).unwrap();
            assert_eq!(sent.is_sampled, wanted);
            assert_eq!(sent.trace, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
            assert_ne!(sent.span, 0xb7ad_6b71_6920_3331);
        }
    }

    #[test]
    fn no_more_traces_are_begun_in_a_second_than_may_be() {
        let sampling = Sampling { max_per_second: 3, follows_callers: true, ..ALL };
        let (clock, hand) = Clock::manual(1_700_000_000);
        let (tracer, _finished) = Tracer::new(sampling, clock);
        let begin = || (0..5).filter(|_| tracer.request(&headers(PARENT)).is_recording()).count();
        assert_eq!(begin(), 3);
        hand.fetch_add(1, Ordering::Relaxed);
        assert_eq!(begin(), 3);
        let counts = tracer.counts().unwrap();
        assert_eq!((counts.recorded, counts.over_limit), (6, 4));
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let (tracer, finished) = Tracer::new(ALL, Clock::system());
        let root = tracer.own("work");
        for _ in 0..MOST_SPANS + 5 {
            drop(root.child("step"));
        }
        drop(root);
        assert_eq!(tracer.counts().unwrap().dropped, 5);
        drop(finished);
        drop(tracer.own("work"));
        assert_eq!(tracer.counts().unwrap().dropped, 6);
    }

    // A vendor's state says something about its own trace only.
    #[test]
    fn a_state_without_its_trace_does_not_pass() {
        let (tracer, _finished) = Tracer::new(ALL, Clock::system());
        let with_state = |traceparent| {
            let mut headers = headers(traceparent);
            headers.insert(TRACESTATE, HeaderValue::from_static("vendor=1"));
            tracer.request(&headers).put_into(&mut headers);
            headers
        };
        assert_eq!(with_state(PARENT)[TRACESTATE], "vendor=1");
        assert!(!with_state("nonsense").contains_key(TRACESTATE));
    }
}
