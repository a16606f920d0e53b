//! THE function: one request from its head to its response, top to bottom.
//!
//! ```text
//! bytes -> Route -> Principal -> Grant -> Permit -> upstream response
//!          (what)   (who)        (may)    (now)     or AdminGrant -> our own
//! ```
//! Each step mints what the next one needs; the order is the security of the whole. Whatever goes
//! wrong becomes a [`Rejection`], and whatever happens ends in the request's [`Record`].

mod answer_body;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version, header};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;

use crate::admin::{Action, Admin};
use crate::authn::{Authenticator, Caller};
use crate::authz::Authorizer;
use crate::config::LimitsConfig;
use crate::edge::{
    AccessLog, Cors, ObservedBody, Outcome, Page, REQUEST_ID, Record, RequestId, Upload,
};
use crate::forward::{BodyFault, BodyLimits, Forwarded, Forwarder, RequestBody};
use crate::limits::Limits;
use crate::mimir::{TENANT_HEADER, form};
use crate::rejection::{Audience, Rejection};
use crate::route::{self, Access, BodyPolicy, Route, Surface};
use crate::telemetry::Metrics;

pub use answer_body::AnswerBody;

/// What an administrator may send: a few fields of JSON.
const ADMIN_BODY_BYTES: u64 = 64 << 10;
/// What a webhook may send: a rule before and after its change.
const WEBHOOK_BODY_BYTES: u64 = 1 << 20;

const CLOSE: HeaderValue = HeaderValue::from_static("close");
/// So much of a form is read before Mimir is asked. Most are shorter; a longer one is measured as it
/// passes.
const READ_AHEAD: usize = 32 << 10;

/// What a client gets: Mimir's body or ours, with the request's record in it.
pub type PublicBody = ObservedBody<AnswerBody>;

/// One worker's pipeline.
pub struct Pipeline {
    /// From which page?
    pub cors: Arc<Cors>,
    /// Who?
    pub authenticator: Arc<Authenticator>,
    /// May they?
    pub authorizer: Arc<Authorizer>,
    /// Now?
    pub limits: Arc<Limits>,
    /// To Mimir, by this worker's own connections.
    pub forwarder: Forwarder,
    /// To our own answers.
    pub admin: Arc<Admin>,
    /// How much a body may be.
    pub body_config: LimitsConfig,
    /// The largest head.
    pub max_header_bytes: usize,
    /// Where requests are logged, if they are.
    pub access_log: Option<AccessLog>,
    /// Where requests are counted.
    pub metrics: Arc<Metrics>,
}

/// What a journey that arrives comes back with.
#[expect(
    clippy::large_enum_variant,
    reason = "it lives for a moment, and a box would cost every request"
)]
enum Arrived {
    /// Mimir's answer.
    Upstream(Forwarded),
    /// Ours.
    Own(Response<Bytes>),
}

/// What a known caller asks of `/admin`.
struct Order<'a> {
    id: &'a RequestId,
    client: IpAddr,
    route: &'static Route,
    caller: Caller,
    method: Method,
    uri: Uri,
}

impl Pipeline {
    /// Serves one request. Dropping the returned future cancels it, also at Mimir.
    pub async fn serve(&self, client: IpAddr, request: Request<Incoming>) -> Response<PublicBody> {
        let id = RequestId::of(request.headers());
        let page = self.cors.page_of(request.headers());
        let (log, metrics) = (self.access_log.clone(), Arc::clone(&self.metrics));
        let mut record = Box::new(Record::begin(&request, id.clone(), client, log, metrics));
        let audience = Audience::of_path(request.uri().path());
        let wants_no_body = request.method() == Method::HEAD;
        let version = request.version();
        let mut response = match self.journey(&id, client, &page, request, &mut record).await {
            Ok(Arrived::Upstream(forwarded)) => {
                record.set_upstream(forwarded.address);
                record.set_status(forwarded.response.status().as_u16());
                let observed = |body| {
                    ObservedBody::new(AnswerBody::Upstream(body), record, Outcome::Forwarded)
                };
                forwarded.response.map(observed)
            }
            Ok(Arrived::Own(mut answer)) => {
                answer.headers_mut().insert(REQUEST_ID, id.header_value());
                finish_own(answer.map(Full::from), record, Outcome::Answered)
            }
            Err(rejection) => {
                if let Some(detail) = rejection.detail() {
                    record.set_detail(detail);
                }
                let mut answer = rejection.response(audience, &id);
                if rejection.closes_connection() {
                    close_connection(version, &mut answer);
                }
                // RFC 9110, 9.3.2: HTTP/2 clients take a body in answer to HEAD for a broken stream.
                let answer = answer.map(|body| if wants_no_body { Full::default() } else { body });
                finish_own(answer, record, rejection.outcome())
            }
        };
        self.cors.decorate(&page, response.headers_mut());
        response
    }

    async fn journey(
        &self,
        id: &RequestId,
        client: IpAddr,
        page: &Page,
        request: Request<Incoming>,
        record: &mut Record,
    ) -> Result<Arrived, Rejection> {
        let (parts, upload) = Upload::split(request);
        route::check_head(&parts).map_err(Rejection::Route)?;
        if Cors::is_preflight(&parts.method, &parts.headers) {
            let origin = shown(&parts.headers, &header::ORIGIN).unwrap_or_default();
            let is_allowed = matches!(page, Page::Allowed(_));
            let answer = is_allowed.then(|| Arrived::Own(self.cors.answer()));
            return answer.ok_or(Rejection::Origin(origin));
        }
        let route = route::find(&parts).map_err(Rejection::Route)?;
        record.set_route(route);
        self.check_form(route, &parts, &upload)?;
        let caller = if route.access == Access::Webhook {
            self.authenticator.authenticate_webhook(&parts.headers)
        } else {
            let authenticated = self.authenticator.authenticate(&parts.headers, client);
            self.limits.before_permit(authenticated).await.map_err(Rejection::Limited)?
        };
        let caller = caller.map_err(|refused| {
            record.set_refused(refused.known);
            Rejection::Credential(refused.refusal)
        })?;
        record.set_principal(&caller.principal);
        let Access::Tenant(scope) = route.access else {
            let order = Order { id, client, route, caller, method: parts.method, uri: parts.uri };
            // Rare, and so kept out of the size of every other request's journey.
            return Box::pin(self.administer(order, upload, record)).await.map(Arrived::Own);
        };
        let grant = self.authorizer.authorize(&caller.principal, route, scope, &parts.headers);
        let grant = self.limits.before_permit(grant).await.map_err(Rejection::Limited)?;
        let grant = grant.map_err(|denial| {
            let asked = shown(&parts.headers, &TENANT_HEADER);
            record.set_asked(asked.clone());
            Rejection::Denied(denial, asked)
        })?;
        record.set_grant(&grant);
        let body = self.body(route, upload, record).await?;
        let is_form = self.measure(route, &parts, &body)?;
        let permit = self.limits.admit(grant, body.received()).await;
        let permit = permit.map_err(Rejection::Limited)?;
        if is_form {
            // Kept out of the size of every other request's future.
            Box::pin(body.read_ahead(READ_AHEAD)).await.map_err(Rejection::Body)?;
        }
        let request = Request::from_parts(parts, body);
        let forwarded = self.forwarder.forward(permit, id, request).await;
        forwarded.map(Arrived::Upstream).map_err(Rejection::Failed)
    }

    /// Does what an administrator asks, or refuses it, and notes that in the audit.
    async fn administer(
        &self,
        order: Order<'_>,
        upload: Upload,
        record: &mut Record,
    ) -> Result<Response<Bytes>, Rejection> {
        let organisation = order.route.organisation_in(order.uri.path());
        if let Some(organisation) = &organisation {
            record.set_organisation(organisation);
        }
        let mut action = Action::begin(
            order.id,
            order.client,
            &order.caller.principal,
            &order.method,
            order.route,
            organisation,
        );
        let done = self.carry_out(&order, upload, record).await;
        match done {
            Ok((answer, target)) => {
                action.done(target);
                Ok(answer)
            }
            Err(rejection) => {
                action.refused(rejection.reason());
                Err(rejection)
            }
        }
    }

    async fn carry_out(
        &self,
        order: &Order<'_>,
        upload: Upload,
        record: &mut Record,
    ) -> Result<(Response<Bytes>, Option<String>), Rejection> {
        let (principal, route) = (&order.caller.principal, order.route);
        let grant = self.authorizer.authorize_admin(principal, route, order.uri.path());
        let grant = grant.await.map_err(|denial| Rejection::Denied(denial, None))?;
        let body = self.body(route, upload, record).await?;
        let body = body.collect().await.map_err(Rejection::Body)?;
        // No header of the client's goes further than here.
        let mut request = Request::new(body.to_bytes());
        *request.method_mut() = order.method.clone();
        *request.uri_mut() = order.uri.clone();
        self.admin.serve(grant, order.caller.proof, request).await.map_err(Rejection::Admin)
    }

    async fn body(
        &self,
        route: &Route,
        upload: Upload,
        record: &mut Record,
    ) -> Result<RequestBody, Rejection> {
        let body = RequestBody::new(upload, self.body_limits(route)).map_err(Rejection::Body)?;
        record.set_received(body.received());
        if route.body != BodyPolicy::Empty || body.is_end_stream() {
            return Ok(body);
        }
        // Rare, and so kept out of the size of every other request's future.
        Box::pin(body.read_to_end()).await.map_err(|fault| match fault {
            BodyFault::TooLarge { .. } => Rejection::UnexpectedBody,
            other => Rejection::Body(other),
        })
    }

    /// Measures the expressions of the query string, and has those of a form in the body measured as
    /// it comes. Whether there is such a body.
    fn measure(&self, route: &Route, parts: &Parts, body: &RequestBody) -> Result<bool, Rejection> {
        if !matches!(route.surface, Surface::Query | Surface::Rules) {
            return Ok(false);
        }
        let limits = &self.body_config.expressions;
        form::check_query(parts.uri.query().unwrap_or_default(), limits)
            .map_err(Rejection::Expression)?;
        let is_form = route.body == BodyPolicy::Form && !body.is_end_stream();
        if is_form {
            if !form::is_readable(&parts.headers) {
                return Err(Rejection::ContentType);
            }
            body.measure_form(limits);
        }
        Ok(is_form)
    }

    fn check_form(&self, route: &Route, parts: &Parts, upload: &Upload) -> Result<(), Rejection> {
        if head_bytes(parts) > self.max_header_bytes {
            return Err(Rejection::HeadTooLarge);
        }
        if route.body == BodyPolicy::Empty && upload.size_hint().lower() > 0 {
            return Err(Rejection::UnexpectedBody);
        }
        Ok(())
    }

    fn body_limits(&self, route: &Route) -> BodyLimits {
        let bytes = match route.body {
            BodyPolicy::Empty => 0,
            BodyPolicy::Form | BodyPolicy::RemoteRead => self.body_config.query_body_bytes,
            BodyPolicy::Push => self.body_config.push_body_bytes,
            BodyPolicy::Otlp => self.body_config.otlp_body_bytes,
            BodyPolicy::Admin => ADMIN_BODY_BYTES,
            BodyPolicy::Webhook => WEBHOOK_BODY_BYTES,
        };
        let LimitsConfig { body_idle_timeout: idle, body_timeout: total, .. } = self.body_config;
        BodyLimits { bytes, idle, total }
    }
}

/// A header's text for the log, cut off where it becomes unreasonable; several, as one that a
/// balancer would make of them.
fn shown(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    let value = values.join(&b", "[..]);
    let text = String::from_utf8_lossy(&value[..value.len().min(200)]).into_owned();
    (!values.is_empty()).then_some(text)
}

/// Has the connection closed after an answer. HTTP/2 has no such header; there the stream ends with
/// its answer.
fn close_connection<B>(client: Version, answer: &mut Response<B>) {
    match client {
        Version::HTTP_10 => *answer.version_mut() = Version::HTTP_10, // closes unless told otherwise
        Version::HTTP_11 => drop(answer.headers_mut().insert(header::CONNECTION, CLOSE)),
        _ => {}
    }
}

fn finish_own(
    answer: Response<Full<Bytes>>,
    mut record: Box<Record>,
    outcome: Outcome,
) -> Response<PublicBody> {
    record.set_status(answer.status().as_u16());
    answer.map(|body| ObservedBody::new(AnswerBody::Own(body), record, outcome))
}

fn head_bytes(parts: &Parts) -> usize {
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let headers = parts.headers.iter();
    target + headers.map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>()
}
