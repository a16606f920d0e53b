//! Serves one request. The steps run from top to bottom.
//!
//! ```text
//! bytes -> Route -> Principal -> Grant -> Permit -> upstream response
//!          (what)   (who)        (may)    (now)     or AdminGrant -> our own
//! ```
//! Each step makes the value that the next one takes; the order is the security of the whole. Whatever goes
//! wrong becomes a [`Rejection`], and whatever happens ends in the request's [`Record`].

mod proxy_body;
mod silences;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version, header};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;

use crate::admin::{Admin, AdminRequest, Answer, Audit};
use crate::authn::{Authenticator, Caller};
use crate::authz::Authorizer;
use crate::config::LimitsConfig;
use crate::console::Console;
use crate::edge::{ClientBody, Cors, MAX_HEADERS, Page, REQUEST_ID, RequestId};
use crate::forward::{ForwardFailure, Forwarded, Forwarder};
use crate::limits::{Lag, Limits};
use crate::mimir::form::FormScanner;
use crate::mimir::otlp::OtlpScanner;
use crate::mimir::{TENANT_HEADER, filters, form, remote_read};
use crate::record::{ObservedBody, Outlets, Record, RequestOutcome};
use crate::rejection::{Audience, Rejection};
use crate::request_body::{BodyError, BodyLimits, BodyScanner, RequestBody};
use crate::route::{self, Access, AdminEndpoint, BodyPolicy, Route, RouteError, Surface};
use crate::tenancy::{OrganisationId, Scope};
use crate::tls::DeviceCertificate;
use crate::trace::Tracer;
use silences::SilenceChange;

pub use proxy_body::ProxyBody;

/// What an administrator may send: a few fields of JSON.
const ADMIN_BODY_BYTES: u64 = 64 << 10;
/// What a silence may be: a few matchers and a comment.
const SILENCE_BODY_BYTES: u64 = 64 << 10;
/// What a webhook may send: a rule before and after its change.
const WEBHOOK_BODY_BYTES: u64 = 1 << 20;

const CLOSE: HeaderValue = HeaderValue::from_static("close");
/// What a client gets: Mimir's body or ours, with the request's record in it.
pub type PublicBody = ObservedBody<ProxyBody>;

/// One worker's pipeline: the stages that a request goes through.
pub struct Pipeline {
    pub cors: Arc<Cors>,
    /// Who?
    pub authenticator: Arc<Authenticator>,
    /// May they?
    pub authorizer: Arc<Authorizer>,
    /// Now?
    pub limits: Arc<Limits>,
    /// How late this worker is.
    pub lag: Arc<Lag>,
    /// To Mimir, by this worker's own connections.
    pub forwarder: Arc<Forwarder>,
    pub admin: Arc<Admin>,
    pub audit: Arc<Audit>,
    /// None if it is switched off.
    pub console: Option<Arc<Console>>,
    pub body_config: Arc<LimitsConfig>,
    pub max_header_bytes: usize,
    pub outlets: Arc<Outlets>,
    pub tracer: Tracer,
}

/// What a request that is served is answered with.
enum Served {
    Upstream(Forwarded),
    /// Ours.
    Own(Response<Bytes>),
}

/// A known caller's request to `/admin`, without its body.
struct AdminCall<'a> {
    id: &'a RequestId,
    client: IpAddr,
    route: &'static Route,
    endpoint: AdminEndpoint,
    caller: Caller,
    method: Method,
    uri: Uri,
}

impl Pipeline {
    /// Serves one request. Dropping the returned future cancels it, also at Mimir.
    pub async fn serve(&self, client: IpAddr, request: Request<Incoming>) -> Response<PublicBody> {
        let id = RequestId::of(request.headers());
        let page = self.cors.page_of(request.headers());
        let (outlets, span) = (Arc::clone(&self.outlets), self.tracer.request(request.headers()));
        let mut record = Box::new(Record::begin(&request, id.clone(), client, outlets, span));
        let wants_no_body = request.method() == Method::HEAD;
        let expects = request.headers().contains_key(&header::EXPECT);
        let version = request.version();
        let mut response = match self.respond(&id, client, &page, request, &mut record).await {
            Ok(Served::Upstream(forwarded)) => {
                record.set_upstream(forwarded.address);
                record.set_status(forwarded.response.status().as_u16());
                let observed = |body| {
                    ObservedBody::new(ProxyBody::Upstream(body), record, RequestOutcome::Forwarded)
                };
                forwarded.response.map(observed)
            }
            Ok(Served::Own(mut answer)) => {
                // As below: nobody may have asked for the body.
                if expects {
                    close_connection(version, &mut answer);
                }
                answer.headers_mut().insert(REQUEST_ID, id.header_value());
                finish_own(answer.map(Full::from), record, RequestOutcome::Answered)
            }
            Err(rejection) => {
                if let Some(detail) = rejection.detail() {
                    record.set_detail(detail);
                }
                let route = record.route().or_else(|| rejection.route());
                let audience = Audience::of(route, record.path());
                let mut answer = rejection.response(audience, &id);
                // A client that waits to be asked for its body, or sends it unasked, must be told that it is
                // not read (RFC 9110, 10.1.1).
                if expects || rejection.closes_connection() {
                    close_connection(version, &mut answer);
                }
                // RFC 9110, 9.3.2: HTTP/2 clients take a body in answer to HEAD for a broken stream.
                let answer = answer.map(|body| if wants_no_body { Full::default() } else { body });
                finish_own(answer, record, RequestOutcome::Unserved(rejection.reason()))
            }
        };
        self.cors.decorate(&page, response.headers_mut());
        response
    }

    async fn respond(
        &self,
        id: &RequestId,
        client: IpAddr,
        page: &Page,
        request: Request<Incoming>,
        record: &mut Record,
    ) -> Result<Served, Rejection> {
        let (parts, client_body) = ClientBody::split(request);
        route::check_head(&parts)?;
        if Cors::is_preflight(&parts.method, &parts.headers) {
            let origin = shown(&parts.headers, &header::ORIGIN).unwrap_or_default();
            let is_allowed = matches!(page, Page::Allowed(_));
            let answer = is_allowed.then(|| Served::Own(self.cors.answer()));
            return answer.ok_or(Rejection::Origin(origin));
        }

        // What.
        let route = route::find(&parts)?;
        record.set_route(route);
        self.limits.shed(route, &self.lag)?;
        self.check_sizes(route, &parts, &client_body)?;

        // Files that are the same for everybody, and hold no data.
        if let Access::Anyone(file) = route.access {
            // Nothing waits for a caller who is not known: what it sends is skipped meanwhile.
            drop(client_body);
            let console = self.console.as_ref();
            let answer =
                console.and_then(|console| console.answer(file, &parts.method, &parts.headers));
            return answer.map(Served::Own).ok_or(RouteError::Path(None).into());
        }

        // Who.
        let step = record.span().child("authenticate");
        let caller = if let Access::Admin(AdminEndpoint::Webhook(_)) = route.access {
            self.authenticator.authenticate_webhook(&parts.headers)
        } else {
            let certificate = parts.extensions.get().map(|shown: &DeviceCertificate| &shown.hash);
            let authenticated =
                self.authenticator.authenticate(&parts.headers, certificate, client);
            self.limits.before_permit(authenticated).await?
        };
        let caller = caller.map_err(|refused| {
            record.set_refused(refused.known);
            Rejection::Credential(refused.refusal)
        })?;
        record.set_principal(&caller.principal);
        drop(step);

        // May they.
        let scope = match route.access {
            Access::Tenant(scope) => scope,
            Access::Anyone(_) => return Err(RouteError::Path(None).into()),
            Access::Admin(endpoint) => {
                let (method, uri) = (parts.method, parts.uri);
                let call = AdminCall { id, client, route, endpoint, caller, method, uri };
                // Rare, and so kept out of the size of every other request's future.
                return Box::pin(self.administer(call, client_body, record)).await.map(Served::Own);
            }
        };
        let step = record.span().child("authorise");
        let grant = self.authorizer.authorize(&caller.principal, route, scope, &parts.headers);
        let grant = self.limits.before_permit(grant).await?.map_err(|denial| {
            let asked = shown(&parts.headers, &TENANT_HEADER);
            record.set_asked(asked.clone());
            Rejection::Denied(denial, asked)
        })?;
        record.set_grant(&grant);
        drop(step);

        // Now.
        let expected = self.limits.expect(&grant, &client_body.size_hint())?;
        let body = self.body(route, client_body, record).await?;
        body.expect(expected);
        self.check_contents(route, &parts, &body)?;
        if !parts.headers.contains_key(&header::EXPECT) {
            // A slow client holds no slot while it sends. One that expects a 100 waits for a permit.
            let step = record.span().child("read the body");
            let room = |bytes| self.limits.upload_room(&grant, bytes);
            body.read_ahead(self.body_config.upload_buffer_bytes, room).await?;
            drop(step);
        }
        let step = record.span().child("wait for a permit");
        let permit = self.limits.admit(grant, body.received()).await?;
        drop(step);

        // Rare, and so kept out of the size of every other request's future.
        let body = match route.body {
            BodyPolicy::RemoteRead => Box::pin(self.checked_read(route, body)).await?,
            _ => body,
        };
        let request = Request::from_parts(parts, body);
        if scope == Scope::AlertsWrite {
            let change = SilenceChange { id, client, route, permit, record };
            return Box::pin(self.change_silence(change, request)).await.map(Served::Upstream);
        }
        let forwarded = self.forwarder.forward(permit, id, record.span(), request).await;
        forwarded.map(Served::Upstream).map_err(|failure| failed(failure, record))
    }

    /// Serves a request to `/admin`, and writes what became of it to the audit log.
    async fn administer(
        &self,
        call: AdminCall<'_>,
        client_body: ClientBody,
        record: &mut Record,
    ) -> Result<Response<Bytes>, Rejection> {
        let organisation = call.route.organisation_in(call.uri.path());
        if let Some(organisation) = &organisation {
            record.set_organisation(organisation);
        }
        let mut action = self.audit.begin(
            call.id,
            call.client,
            &call.caller.principal,
            &call.method,
            call.route,
            organisation.clone(),
        );
        action.set_target(call.route.id_in(call.uri.path()).map(|id| id.to_string()));
        let done = self.carry_out(call, organisation.as_ref(), client_body, record).await;
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
        call: AdminCall<'_>,
        organisation: Option<&OrganisationId>,
        client_body: ClientBody,
        record: &mut Record,
    ) -> Result<(Response<Bytes>, Option<String>), Rejection> {
        let AdminCall { route, endpoint, caller, uri, .. } = call;
        let grant = self.authorizer.authorize_admin(&caller.principal, endpoint, organisation);
        let grant = self.limits.before_permit(grant).await?;
        let grant = grant.map_err(|denial| Rejection::Denied(denial, None))?;
        let body = self.body(route, client_body, record).await?;
        let body = body.collect().await?;
        let request = AdminRequest { route, uri, body: body.to_bytes(), proof: caller.proof };
        let answer = self.admin.serve(grant, request).await;
        answer.and_then(Answer::into_response).map_err(Rejection::Admin)
    }

    async fn body(
        &self,
        route: &Route,
        client_body: ClientBody,
        record: &mut Record,
    ) -> Result<RequestBody, Rejection> {
        let body = RequestBody::new(client_body, self.body_limits(route))?;
        record.set_received(body.received());
        if route.body != BodyPolicy::Empty || body.is_end_stream() {
            return Ok(body);
        }
        // Rare, and so kept out of the size of every other request's future.
        Box::pin(body.read_to_end()).await.map_err(|error| match error {
            BodyError::TooLarge { .. } => Rejection::UnexpectedBody,
            other => Rejection::Body(other),
        })
    }

    /// Checks what the query string would cost Mimir: patterns outside expressions, or expressions. A form or an
    /// export by OTLP in the body is checked as it comes.
    fn check_contents(
        &self,
        route: &Route,
        parts: &Parts,
        body: &RequestBody,
    ) -> Result<(), Rejection> {
        if route.body == BodyPolicy::Otlp && !body.is_end_stream() {
            let scanner = OtlpScanner::for_body(&parts.headers, &self.body_config.otlp)?;
            if let Some(scanner) = scanner {
                body.check(BodyScanner::Otlp(Box::new(scanner)));
            }
            return Ok(());
        }
        if route.surface == Surface::Alerts {
            return Ok(filters::check(parts.uri.query().unwrap_or_default())?);
        }
        if !matches!(route.surface, Surface::Query | Surface::Rules) {
            return Ok(());
        }
        let limits = &self.body_config.expressions;
        form::check_query(parts.uri.query().unwrap_or_default(), limits)?;
        if route.body == BodyPolicy::Form && !body.is_end_stream() {
            if !form::is_readable(&parts.headers) {
                return Err(Rejection::ContentType);
            }
            body.check(BodyScanner::Form(Box::new(FormScanner::new(limits))));
        }
        Ok(())
    }

    /// The body of a remote read, of which Mimir gets nothing before all of it is checked.
    async fn checked_read(
        &self,
        route: &Route,
        body: RequestBody,
    ) -> Result<RequestBody, Rejection> {
        let body = body.collect().await?.to_bytes();
        remote_read::check(&body, &self.body_config.expressions)?;
        Ok(RequestBody::replaced(body, self.body_limits(route)))
    }

    fn check_sizes(
        &self,
        route: &Route,
        parts: &Parts,
        client_body: &ClientBody,
    ) -> Result<(), Rejection> {
        // A field of HTTP/2 can be a byte on the wire and takes some seventy here, so the bytes alone
        // bound no memory.
        if head_bytes(parts) > self.max_header_bytes || parts.headers.len() > MAX_HEADERS {
            return Err(Rejection::HeadTooLarge);
        }
        if route.body == BodyPolicy::Empty && client_body.size_hint().lower() > 0 {
            return Err(Rejection::UnexpectedBody);
        }
        Ok(())
    }

    fn body_limits(&self, route: &Route) -> BodyLimits {
        let bytes = match route.body {
            BodyPolicy::Empty => 0,
            BodyPolicy::Form => self.body_config.query_body_bytes,
            BodyPolicy::RemoteRead => {
                self.body_config.query_body_bytes.min(remote_read::MOST_BODY_BYTES)
            }
            BodyPolicy::Push | BodyPolicy::Influx => self.body_config.push_body_bytes,
            BodyPolicy::Otlp => self.body_config.otlp.bytes,
            BodyPolicy::Silence => SILENCE_BODY_BYTES,
            BodyPolicy::Admin => ADMIN_BODY_BYTES,
            BodyPolicy::Webhook => WEBHOOK_BODY_BYTES,
        };
        let LimitsConfig { body_idle_timeout: idle, body_timeout: total, .. } = *self.body_config;
        BodyLimits { bytes, idle, total }
    }
}

/// How much of a header's values the log has.
const SHOWN_HEADER_BYTES: usize = 200;

/// The header's values joined by commas, as a balancer would join them, cut to [`SHOWN_HEADER_BYTES`] for the
/// log.
fn shown(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    let value = values.join(&b", "[..]);
    let text = String::from_utf8_lossy(&value[..value.len().min(SHOWN_HEADER_BYTES)]).into_owned();
    (!values.is_empty()).then_some(text)
}

/// The record says which instance was asked.
fn failed(failure: ForwardFailure, record: &mut Record) -> Rejection {
    record.set_asked_instance(failure.address);
    failure.error.into()
}

/// Closes the connection after the answer. HTTP/2 has no such header; there the stream ends with its answer.
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
    outcome: RequestOutcome,
) -> Response<PublicBody> {
    record.set_status(answer.status().as_u16());
    answer.map(|body| ObservedBody::new(ProxyBody::Own(body), record, outcome))
}

fn head_bytes(parts: &Parts) -> usize {
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let headers = parts.headers.iter();
    target + headers.map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>()
}
