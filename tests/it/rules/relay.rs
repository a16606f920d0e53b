//! A relay to Mimir that can inject faults and records writes. A real Mimir does not have such
//! faults on demand; all other requests are forwarded to one.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use harness::{Received, Upstream};
use http::Response;
use http_body_util::BodyExt as _;

use crate::support::responses::{Body, full};

/// What happens to requests.
#[derive(Clone, Debug, Default)]
pub(crate) enum Fault {
    #[default]
    None,
    /// Every request gets this response, with a `Retry-After` if there is one.
    Status(u16, Option<u32>),
    /// Every write gets this response, reads pass.
    Writes(u16),
    /// The first writes pass, and then every one gets this response.
    WritesAfter(usize, u16),
    /// Only writes of this tenant get this response.
    Tenant(String, u16),
    /// Every write gets this response, which repeats what was written.
    Echo(u16),
    /// A configuration of the Alertmanager with one of these texts is refused as Mimir does it, in words
    /// that repeat what stands around the text.
    Refuses(&'static [&'static str]),
    /// Everything takes this much longer.
    Slow(Duration),
    /// A listing is truncated.
    HalfListing,
    /// Expressions cannot be formatted.
    NoFormats,
    /// A listing is empty, as if there were no rules.
    EmptyListing,
}

/// A write that was forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) method: String,
    pub(crate) tenant: String,
    pub(crate) target: String,
}

pub(crate) struct Relay {
    upstream: Upstream,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    fault: Fault,
    written: Vec<Written>,
    passed_since: usize,
}

impl Relay {
    pub(crate) async fn start(mimir: &str) -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let (shared, mimir) = (Arc::clone(&state), mimir.to_owned());
        let upstream = Upstream::start(move |request| {
            pass(Arc::clone(&shared), http.clone(), mimir.clone(), request)
        })
        .await;
        Self { upstream, state }
    }

    pub(crate) fn url(&self) -> String {
        self.upstream.url()
    }

    pub(crate) fn set(&self, fault: Fault) {
        let mut state = self.state.lock().unwrap();
        state.fault = fault;
        state.passed_since = 0;
    }

    /// The number of requests for this so far.
    pub(crate) fn asked_for(&self, target: &str) -> usize {
        self.upstream
            .heads()
            .iter()
            .filter(|head| head.method == "GET" && head.target == target)
            .count()
    }

    pub(crate) fn written(&self) -> Vec<Written> {
        self.state.lock().unwrap().written.clone()
    }
}

async fn pass(
    state: Arc<Mutex<State>>,
    http: reqwest::Client,
    mimir: String,
    request: Received,
) -> Response<Body> {
    let body = request.body.unwrap().collect().await.unwrap().to_bytes();
    let tenant = request.headers.get("x-scope-orgid").map_or("", |value| value.to_str().unwrap());
    // The Alertmanager's configuration is written by its own path.
    let is_configuration = request.target == "/api/v1/alerts";
    let is_write = (request.target.starts_with("/prometheus/config/") || is_configuration)
        && request.method != "GET";
    let is_listing = request.target == "/prometheus/config/v1/rules" || is_configuration;
    let fault = state.lock().unwrap().fault.clone();
    let passed = state.lock().unwrap().passed_since;
    let refused = match &fault {
        Fault::Status(status, after) => Some((*status, *after)),
        Fault::Writes(status) if is_write => Some((*status, None)),
        Fault::WritesAfter(count, status) if is_write && passed >= *count => Some((*status, None)),
        Fault::Tenant(of, status) if is_write && of == tenant => Some((*status, None)),
        Fault::NoFormats if request.target.ends_with("/format_query") => Some((500, None)),
        Fault::Slow(pause) => {
            tokio::time::sleep(*pause).await;
            None
        }
        _ => None,
    };
    if let Some((status, after)) = refused {
        let mut answer = Response::builder().status(status);
        if let Some(after) = after {
            answer = answer.header("retry-after", after);
        }
        return answer.body(full("the relay says no")).unwrap();
    }
    if let Fault::Refuses(texts) = &fault
        && is_write
        && is_configuration
    {
        let whole = String::from_utf8_lossy(&body).into_owned();
        if let Some(at) = texts.iter().find_map(|text| whole.find(text)) {
            let words = &whole[at.saturating_sub(60)..(at + 60).min(whole.len())];
            let words =
                format!("error validating Alertmanager config: parse {words:?}: invalid URL");
            return Response::builder().status(400).body(full(words)).unwrap();
        }
    }
    if let Fault::Echo(status) = &fault
        && is_write
    {
        return Response::builder().status(*status).body(full(body)).unwrap();
    }
    if is_write {
        let mut state = state.lock().unwrap();
        state.passed_since += 1;
        let (method, target) = (request.method.clone(), request.target.clone());
        state.written.push(Written { method, tenant: tenant.to_owned(), target });
    }
    let url = format!("{mimir}{}", request.target);
    let method = request.method.parse::<reqwest::Method>().unwrap();
    let mut onward = http.request(method, url).body(body);
    for name in ["x-scope-orgid", "content-type", "accept"] {
        if let Some(value) = request.headers.get(name) {
            onward = onward.header(name, value.as_bytes());
        }
    }
    let answer = onward.send().await.unwrap();
    let mut response = Response::builder().status(answer.status().as_u16());
    if let Some(kind) = answer.headers().get("content-type") {
        response = response.header("content-type", kind.as_bytes());
    }
    let mut bytes: Bytes = answer.bytes().await.unwrap();
    match fault {
        Fault::HalfListing if is_listing => bytes.truncate(bytes.len() / 2),
        Fault::EmptyListing if is_listing => bytes = Bytes::from_static(b"{}\n"),
        _ => {}
    }
    response.body(full(bytes)).unwrap()
}
