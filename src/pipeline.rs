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

use http::{Method, Request, Response, header};
use http_body::Body as _;
use http_body_util::Full;
use hyper::body::Incoming;

use crate::authn::Authenticator;
use crate::authz::{Authorizer, Grant};
use crate::config::LimitsConfig;
use crate::edge::{
    AccessLog, ObservedBody, Outcome, Record, RequestId, UntilBodyEnds, take_the_rest,
};
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
        let admitted = self.admit(&request, record).await;
        // Who waits for a 100 Continue has not begun to send.
        let waits_for_continue = request.headers().contains_key(header::EXPECT);
        let (mut parts, incoming) = request.into_parts();
        let held = parts.extensions.remove::<UntilBodyEnds>();
        let body = admitted.and_then(|(route, grant)| {
            let limits = self.body_limits(route);
            match RequestBody::check_size(&incoming, limits) {
                Ok(()) => Ok((grant, limits)),
                Err(fault) => Err(Rejection::Body(fault)),
            }
        });
        let (grant, limits) = match body {
            Ok(granted) => granted,
            Err(rejection) => {
                if !waits_for_continue {
                    take_the_rest(incoming, held);
                }
                return Err(rejection);
            }
        };
        let body = RequestBody::new(incoming, limits, waits_for_continue, held);
        record.set_received(body.received());
        let request = Request::from_parts(parts, body);
        self.forwarder.forward(&grant, id, request).await.map_err(Rejection::Failed)
    }

    /// What, who and may: everything that is decided on a request's head.
    async fn admit(
        &self,
        request: &Request<Incoming>,
        record: &mut Record,
    ) -> Result<(&'static Route, Grant), Rejection> {
        let route = route::find(request).map_err(Rejection::Route)?;
        record.set_route(route);
        if head_bytes(request) > self.max_header_bytes {
            return Err(Rejection::HeadTooLarge);
        }
        if route.body == BodyPolicy::Empty && !request.body().is_end_stream() {
            return Err(Rejection::UnexpectedBody);
        }
        let headers = request.headers();
        let principal =
            self.authenticator.authenticate(headers).await.map_err(Rejection::Credential)?;
        let grant =
            self.authorizer.authorize(&principal, route, headers).map_err(Rejection::Denied)?;
        record.set_grant(&grant);
        Ok((route, grant))
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

fn head_bytes(request: &Request<Incoming>) -> usize {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let headers = request.headers().iter();
    target + headers.map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>()
}
