//! THE function: one request from its head to its response, top to bottom.
//!
//! ```text
//! bytes -> Route -> Principal -> Grant -> upstream response
//!          (what)   (who)        (may)
//! ```
//! Each step mints what the next one needs; the order is the security of the whole. Whatever goes
//! wrong becomes a [`Rejection`], and whatever happens ends in the request's [`Record`].

mod answer_body;

use std::net::IpAddr;
use std::sync::Arc;

use http::request::Parts;
use http::{Method, Request, Response};
use http_body::Body as _;
use http_body_util::Full;
use hyper::body::Incoming;

use crate::authn::Authenticator;
use crate::authz::Authorizer;
use crate::config::LimitsConfig;
use crate::edge::{AccessLog, ObservedBody, Outcome, Record, RequestId, Upload};
use crate::forward::{BodyLimits, Forwarded, Forwarder, RequestBody};
use crate::rejection::{Audience, Rejection};
use crate::route::{self, BodyPolicy, Route};
use crate::telemetry::Metrics;

pub use answer_body::AnswerBody;

/// What a client gets: Mimir's body or ours, with the request's record in it.
pub type PublicBody = ObservedBody<AnswerBody>;

/// One worker's pipeline.
pub struct Pipeline {
    /// Who?
    pub authenticator: Arc<Authenticator>,
    /// May they?
    pub authorizer: Arc<Authorizer>,
    /// To Mimir, by this worker's own connections.
    pub forwarder: Forwarder,
    /// How much a body may be.
    pub limits: LimitsConfig,
    /// The largest head.
    pub max_header_bytes: usize,
    /// Where requests are logged, if they are.
    pub access_log: Option<AccessLog>,
    /// Where requests are counted.
    pub metrics: Arc<Metrics>,
}

impl Pipeline {
    /// Serves one request. Dropping the returned future cancels it, also at Mimir.
    pub async fn serve(&self, client: IpAddr, request: Request<Incoming>) -> Response<PublicBody> {
        let id = RequestId::of(request.headers());
        let audience = Audience::of_path(request.uri().path());
        let wants_no_body = request.method() == Method::HEAD;
        let (log, metrics) = (self.access_log.clone(), Arc::clone(&self.metrics));
        let mut record = Box::new(Record::begin(&request, id.clone(), client, log, metrics));
        match self.journey(&id, request, &mut record).await {
            Ok(forwarded) => {
                record.set_upstream(forwarded.address);
                record.set_status(forwarded.response.status().as_u16());
                let observed = |body| {
                    ObservedBody::new(AnswerBody::Upstream(body), record, Outcome::Forwarded)
                };
                forwarded.response.map(observed)
            }
            Err(rejection) => {
                record.set_status(rejection.status().as_u16());
                if let Some(detail) = rejection.detail() {
                    record.set_detail(detail);
                }
                let outcome = rejection.outcome();
                let observed = |body| ObservedBody::new(AnswerBody::Own(body), record, outcome);
                let answer = rejection.response(audience, &id);
                // RFC 9110, 9.3.2: HTTP/2 clients take a body in answer to HEAD for a broken stream.
                answer.map(|body| if wants_no_body { Full::default() } else { body }).map(observed)
            }
        }
    }

    async fn journey(
        &self,
        id: &RequestId,
        request: Request<Incoming>,
        record: &mut Record,
    ) -> Result<Forwarded, Rejection> {
        let (parts, upload) = Upload::split(request);
        let route = route::find(&parts).map_err(Rejection::Route)?;
        record.set_route(route);
        self.check_form(route, &parts, &upload)?;
        let headers = &parts.headers;
        let who = self.authenticator.authenticate(headers).await.map_err(Rejection::Credential)?;
        let grant = self.authorizer.authorize(&who, route, headers).map_err(Rejection::Denied)?;
        record.set_grant(&grant);
        let body = RequestBody::new(upload, self.body_limits(route)).map_err(Rejection::Body)?;
        record.set_received(body.received());
        let request = Request::from_parts(parts, body);
        self.forwarder.forward(&grant, id, request).await.map_err(Rejection::Failed)
    }

    fn check_form(&self, route: &Route, parts: &Parts, upload: &Upload) -> Result<(), Rejection> {
        if head_bytes(parts) > self.max_header_bytes {
            return Err(Rejection::HeadTooLarge);
        }
        if route.body == BodyPolicy::Empty && !upload.is_end_stream() {
            return Err(Rejection::UnexpectedBody);
        }
        Ok(())
    }

    fn body_limits(&self, route: &Route) -> BodyLimits {
        let bytes = match route.body {
            BodyPolicy::Empty => 0,
            BodyPolicy::Query => self.limits.query_body_bytes,
            BodyPolicy::Push => self.limits.push_body_bytes,
            BodyPolicy::Otlp => self.limits.otlp_body_bytes,
        };
        BodyLimits { bytes, idle: self.limits.body_idle_timeout, total: self.limits.body_timeout }
    }
}

fn head_bytes(parts: &Parts) -> usize {
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let headers = parts.headers.iter();
    target + headers.map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>()
}
