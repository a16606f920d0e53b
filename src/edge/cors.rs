//! Cross-origin requests (<https://fetch.spec.whatwg.org/#http-cors-protocol>): which web pages may
//! read our answers.
//!
//! A preflight is answered before anything else happens, for it carries no credential. Every other
//! answer, refusals too, gets the headers without which the page could not read it. An origin is
//! never repeated to a page that is not allowed.

use crate::config::CorsConfig;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

/// Which pages may read our answers.
pub struct Cors {
    config: CorsConfig,
    allowed_headers: HeaderValue,
    max_age: HeaderValue,
}

/// The page that a request comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    /// None: the client is no browser, or asks its own origin.
    None,
    /// One that may read our answers.
    Allowed(HeaderValue),
    /// One that may not.
    NotAllowed,
}

/// `Authorization` has to be named: `*` does not cover it.
/// `Cache-Control: no-store` is how a page asks Mimir not to answer from its caches.
const ALLOWED_HEADERS: &str =
    "authorization, cache-control, content-type, x-scope-orgid, x-request-id";
const ALLOWED_METHODS: HeaderValue = HeaderValue::from_static("GET, POST, DELETE");
const EXPOSED_HEADERS: HeaderValue =
    HeaderValue::from_static("x-request-id, retry-after, www-authenticate");
const VARY: HeaderValue = HeaderValue::from_static("origin");
/// Preflights differ by what they ask for, too.
const VARY_PREFLIGHT: HeaderValue =
    HeaderValue::from_static("access-control-request-method, access-control-request-headers");

impl Cors {
    pub fn new(config: CorsConfig) -> Self {
        let mut names = ALLOWED_HEADERS.to_owned();
        for name in &config.allowed_headers {
            names.push_str(", ");
            names.push_str(name.as_str());
        }
        let allowed_headers = HeaderValue::try_from(names);
        let max_age = HeaderValue::from(config.max_age.as_secs());
        let by_default = HeaderValue::from_static(ALLOWED_HEADERS);
        Self { config, allowed_headers: allowed_headers.unwrap_or(by_default), max_age }
    }

    fn is_on(&self) -> bool {
        !self.config.allowed_origins.is_empty()
    }

    /// The page that a request comes from.
    pub fn page_of(&self, headers: &HeaderMap) -> Page {
        if !self.is_on() {
            return Page::None;
        }
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let Some(origin) = origins.next() else { return Page::None };
        let is_allowed = |text| self.config.allowed_origins.iter().any(|one| one.matches(text));
        match origin.to_str() {
            Ok(text) if origins.next().is_none() && is_allowed(text) => {
                Page::Allowed(origin.clone())
            }
            _ => Page::NotAllowed,
        }
    }

    /// Whether a request is a preflight. Where no page is allowed it is one too, and is refused as
    /// that of any other page.
    pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
        *method == Method::OPTIONS
            && headers.contains_key(header::ORIGIN)
            && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// The answer to a preflight of an allowed page, to be decorated like every other.
    pub fn answer(&self) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(header::VARY, VARY_PREFLIGHT);
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS);
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, self.allowed_headers.clone());
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        response
    }

    /// Makes an answer readable for its page, and tells caches that it is for that page only.
    pub fn decorate(&self, page: &Page, headers: &mut HeaderMap) {
        if !self.is_on() {
            return;
        }
        headers.append(header::VARY, VARY);
        if let Page::Allowed(origin) = page {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OriginPattern;
    use std::time::Duration;

    const APP: &str = "https://app.example.com";

    fn cors() -> Cors {
        Cors::new(CorsConfig {
            allowed_origins: vec![OriginPattern::Exact(APP.to_owned())],
            allowed_headers: vec![http::HeaderName::from_static("x-dashboard")],
            max_age: Duration::from_secs(7200),
        })
    }

    fn headers(origins: &[&'static str]) -> HeaderMap {
        let value = |origin: &&'static str| (header::ORIGIN, HeaderValue::from_static(origin));
        origins.iter().map(value).collect()
    }

    #[test]
    fn only_one_allowed_origin_is_a_page() {
        let page = |origins: &[&'static str]| cors().page_of(&headers(origins));
        assert_eq!(page(&[]), Page::None);
        assert_eq!(page(&[APP]), Page::Allowed(HeaderValue::from_static(APP)));
        assert_eq!(page(&["https://evil.example"]), Page::NotAllowed);
        assert_eq!(page(&[APP, "https://evil.example"]), Page::NotAllowed);
        assert_eq!(page(&["null"]), Page::NotAllowed);
    }

    #[test]
    fn authorization_is_allowed_by_name_for_two_hours() {
        let mut answer = cors().answer();
        cors().decorate(&Page::Allowed(HeaderValue::from_static(APP)), answer.headers_mut());
        let headers = answer.headers();
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], APP);
        assert_eq!(headers[header::ACCESS_CONTROL_MAX_AGE], "7200");
        let allowed = headers[header::ACCESS_CONTROL_ALLOW_HEADERS].to_str().unwrap();
        for name in ["authorization", "x-scope-orgid", "x-dashboard"] {
            assert!(allowed.split(", ").any(|allowed| allowed == name), "{allowed}");
        }
    }

    #[test]
    fn every_answer_varies_by_origin_once_pages_are_allowed() {
        for (page, allowed) in [
            (Page::None, None),
            (Page::NotAllowed, None),
            (Page::Allowed(HeaderValue::from_static(APP)), Some(APP)),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
            cors().decorate(&page, &mut headers);
            let vary: Vec<_> = headers.get_all(header::VARY).iter().collect();
            assert_eq!(vary, ["accept-encoding", "origin"]);
            let origin = headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
            assert_eq!(origin.map(|value| value.to_str().unwrap()), allowed);
        }
        // Without [cors] no page may read anything.
        let off = Cors::new(CorsConfig::default());
        assert_eq!(off.page_of(&headers(&[APP])), Page::None);
        let mut untouched = HeaderMap::new();
        Cors::new(CorsConfig::default()).decorate(&Page::None, &mut untouched);
        assert!(untouched.is_empty());
    }
}
