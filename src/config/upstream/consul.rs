//! The keys of `[upstream]` that name Consul's catalogue.

use url::Url;

use super::super::reader::{Raw, Section};
use super::super::values::{Secret, text, url};

#[derive(Clone, Debug)]
pub struct ConsulConfig {
    pub url: Url,
    pub service: String,
    /// A tag that its instances must have.
    pub tag: Option<String>,
    /// The token of an access control list; it needs `service:read` and `node:read`.
    pub token: Secret,
}

/// Reads them; none if none is set.
pub(super) fn read(section: &mut Section<'_>) -> Option<ConsulConfig> {
    let wanted = |problem: String| {
        format!("{problem}; the token belongs into upstream.consul_token, a prefix of keys nowhere")
    };
    let mut is_asked = false;
    let address = section.get("consul_url", None, |raw| {
        let text = text(raw)?;
        let is_empty = text.is_empty();
        is_asked = !is_empty;
        let parse =
            || url(Raw::Text(text), "http://consul.internal:8500").map(Some).map_err(wanted);
        if is_empty { Ok(None) } else { parse() }
    });
    let service = section.get("consul_service", String::new(), text);
    let tag = section.get("consul_tag", String::new(), text);
    let token = section.secret("consul_token");
    let Some(url) = address else {
        let is_set = |key: &'static str, set: bool| set.then_some(key);
        let first = is_set("consul_service", !service.is_empty())
            .or(is_set("consul_tag", !tag.is_empty()))
            .or(is_set("consul_token", !token.is_empty()));
        if let Some(key) = first.filter(|_| !is_asked) {
            section.fault(key, "has no effect without upstream.consul_url".to_owned());
        }
        return None;
    };
    if service.is_empty() {
        let problem = "is missing: the name of Mimir's service in Consul's catalogue";
        section.fault("consul_service", problem.to_owned());
    }
    if http::HeaderValue::from_bytes(token.expose()).is_err() {
        section.fault("consul_token", "must be a token without line breaks".to_owned());
    }
    Some(ConsulConfig { url, service, tag: Some(tag).filter(|tag| !tag.is_empty()), token })
}
