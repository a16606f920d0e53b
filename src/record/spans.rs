//! What a finished request says in its trace, by OpenTelemetry's conventions for HTTP where there are any,
//! else by the names of the log's fields. No query string and no header.

use http::Method;

use super::facts::Facts;
use super::fields;
use crate::trace::Span;

/// Tells a request's span what the facts are. It is recording.
pub(super) fn describe(span: &mut Span, facts: &Facts) {
    let method = known_method(&facts.method);
    let route = facts.route;
    span.rename(|| match route {
        Some(route) => format!("{method} {}", route.path),
        None => method.to_owned(),
    });
    span.set("http.request.method", method);
    span.set("url.scheme", "http");
    span.set("url.path", facts.uri.path().to_owned());
    if let Some(route) = route {
        span.set("http.route", route.path);
        span.set(fields::ROUTE_SURFACE.name, route.surface.name());
    }
    span.set("network.protocol.version", super::access_log::version(facts.version));
    span.set("client.address", facts.client.to_string());
    span.set(fields::REQUEST_ID.name, facts.id.as_str().to_owned());
    if let Some((kind, id)) = facts.caller() {
        span.set(fields::PRINCIPAL_KIND.name, kind);
        span.set(fields::PRINCIPAL_ID.name, id.to_string());
    }
    if let Some(organisation) = facts.organisations() {
        span.set(fields::ORGANISATION_ID.name, organisation);
    }
    if let Some(grant) = &facts.grant {
        span.set(fields::TENANT_ID.name, grant.tenants().as_str().to_owned());
    }
    span.set(fields::OUTCOME.name, facts.outcome.name());
    if facts.status > 0 {
        span.set("http.response.status_code", facts.status);
    }
    let reason = facts.outcome.reason();
    if let Some(reason) = reason {
        span.set(fields::REASON.name, reason.name());
    }
    // A client's mistake is no error of a server.
    if facts.status >= 500 || facts.outcome.is_failure() {
        span.fail(reason.map_or("upstream_5xx", |reason| reason.name()));
    }
}

/// The method, if it is one; a client may call one whatever it likes.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::PUT => "PUT",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        Method::TRACE => "TRACE",
        Method::CONNECT => "CONNECT",
        _ => "_OTHER",
    }
}
