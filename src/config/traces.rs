//! `[traces]`

use url::Url;

use super::reader::Section;
use super::values::{Secret, fraction, number, switch, text, url};

/// Which requests are traced, and where the traces go.
#[derive(Clone, Debug)]
pub struct TracesConfig {
    /// Where traces are sent; none if they are off.
    pub collector: Option<CollectorConfig>,
    /// The fraction of requests, and of reconciles, that are traced.
    pub sample_ratio: f64,
    /// Traces a second of one copy, at most.
    pub max_per_second: u32,
    /// Whether a caller's sampled flag decides in place of the ratio.
    pub follow_callers: bool,
}

/// A server that takes OTLP over HTTP.
#[derive(Clone, Debug)]
pub struct CollectorConfig {
    /// The whole address, with its path.
    pub url: Url,
    /// The value of the `Authorization` header; empty for none.
    pub authorization: Secret,
    /// The name of the service in its traces.
    pub service_name: String,
}

const EXAMPLE: &str = "http://collector.internal:4318";
/// What OTLP/HTTP adds to the address of a collector.
const PATH: &str = "v1/traces";

pub(super) fn read(section: &mut Section<'_>) -> TracesConfig {
    let endpoint = section.get("endpoint", None, |raw| Ok(Some(with_path(url(raw, EXAMPLE)?))));
    let authorization = section.secret("authorization");
    if !authorization.is_empty() && http::HeaderValue::from_bytes(authorization.expose()).is_err() {
        section.fault("authorization", "must be the value of a header, in one line".to_owned());
    }
    let service_name = section.get("service_name", "mimir-tenant-proxy".to_owned(), |raw| {
        let name = text(raw)?;
        let is_good = (1..=100).contains(&name.len()) && !name.contains(char::is_control);
        if is_good { Ok(name) } else { Err("must have from 1 to 100 characters".to_owned()) }
    });
    TracesConfig {
        collector: endpoint.map(|url| CollectorConfig { url, authorization, service_name }),
        sample_ratio: section.get("sample_ratio", 0.01, fraction),
        max_per_second: section.get("max_per_second", 100, |raw| {
            Ok(u32::try_from(number(raw, 1, 100_000)?).unwrap_or(u32::MAX))
        }),
        follow_callers: section.get("follow_callers", false, switch),
    }
}

/// An address with `/v1/traces` is complete; to any other it is added.
fn with_path(mut url: Url) -> Url {
    let path = url.path().trim_end_matches('/').to_owned();
    if !path.ends_with(&format!("/{PATH}")) {
        url.set_path(&format!("{path}/{PATH}"));
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_the_path_of_the_protocol() {
        for (given, whole) in [
            ("http://c:4318", "http://c:4318/v1/traces"),
            ("http://c:4318/", "http://c:4318/v1/traces"),
            ("http://c:4318/v1/traces", "http://c:4318/v1/traces"),
            ("https://otlp.example/otlp", "https://otlp.example/otlp/v1/traces"),
        ] {
            assert_eq!(with_path(given.parse().unwrap()).as_str(), whole);
        }
    }
}
