//! `[cors]`

use std::time::Duration;

use http::HeaderName;
use url::Url;

use super::reader::Section;
use super::shown::Shown;
use super::values::duration;

/// Which web pages may read the responses.
#[derive(Clone, Debug, Default)]
pub struct CorsConfig {
    /// Their origins; an empty list disables CORS.
    pub allowed_origins: Vec<OriginPattern>,
    /// Headers that a page may send, besides the standard ones.
    pub allowed_headers: Vec<HeaderName>,
    /// How long a browser may cache the response to a preflight.
    pub max_age: Duration,
}

/// One origin, or all origins that differ in the first label of their host only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginPattern {
    /// `https://app.example.com`
    Exact(String),
    /// `https://*.project.pages.dev`, as the texts before and after the label.
    OneLabel {
        /// The scheme, `https://`.
        before: String,
        /// The rest of the host, with its dot, and the port.
        after: String,
    },
}

impl Shown for OriginPattern {
    fn shown(&self) -> String {
        match self {
            Self::Exact(origin) => origin.clone(),
            Self::OneLabel { before, after } => format!("{before}*{after}"),
        }
    }
}

pub(super) fn read(section: &mut Section<'_>) -> CorsConfig {
    // Chromium caches it for no longer than this (net::kPreflightCacheMaxAge…: two hours).
    let two_hours = Duration::from_secs(7200);
    CorsConfig {
        allowed_origins: section
            .get_list("allowed_origins", Vec::new(), |origin| read_origin(&origin)),
        allowed_headers: section.get_list("allowed_headers", Vec::new(), read_header),
        max_age: section
            .get("max_age", two_hours, |raw| duration(raw, Duration::ZERO, 12 * two_hours)),
    }
}

/// Domains below which anybody can have a site: hosts of web pages, as in the private part of the Public
/// Suffix List, and a few registries. Not all there are, but those that a dashboard is likely to be at.
const HOSTS_OF_ANYBODY: &[&str] = &[
    "amplifyapp.com",
    "appspot.com",
    "azurestaticapps.net",
    "azurewebsites.net",
    "cloudfront.net",
    "co.uk",
    "com.au",
    "deno.dev",
    "firebaseapp.com",
    "fly.dev",
    "github.io",
    "gitlab.io",
    "herokuapp.com",
    "lovable.app",
    "netlify.app",
    "ngrok-free.app",
    "onrender.com",
    "pages.dev",
    "railway.app",
    "replit.app",
    "run.app",
    "supabase.co",
    "surge.sh",
    "trycloudflare.com",
    "vercel.app",
    "web.app",
    "workers.dev",
];

fn read_origin(text: &str) -> Result<OriginPattern, String> {
    let wanted = |why: &str| {
        format!(
            "'{text}' {why}; write an origin such as https://app.example.com, or \
             https://*.project.pages.dev for one label in front"
        )
    };
    if text == "*" || text == "null" {
        return Err(wanted("would let every page in"));
    }
    let (scheme, host) = text.split_once("://").ok_or_else(|| wanted("has no scheme"))?;
    let (sample, rest) = match host.strip_prefix("*.") {
        Some(rest) => (format!("{scheme}://label.{rest}"), Some(rest)),
        None => (text.to_owned(), None),
    };
    let url = Url::parse(&sample).map_err(|_| wanted("is no origin"))?;
    if sample.contains('*') || url.origin().ascii_serialization() != sample {
        return Err(wanted("is not in the form in which browsers send it"));
    }
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wanted("is neither http nor https"));
    }
    let Some(rest) = rest else { return Ok(OriginPattern::Exact(sample)) };
    // One label before a public suffix (`https://*.dev`) would match anybody's site.
    if !rest.contains('.') {
        return Err(wanted("would let in a whole top-level domain"));
    }
    if HOSTS_OF_ANYBODY.contains(&rest) {
        return Err(wanted("would let in the sites of everybody there"));
    }
    Ok(OriginPattern::OneLabel { before: format!("{scheme}://"), after: format!(".{rest}") })
}

fn read_header(name: String) -> Result<HeaderName, String> {
    if name == "*" {
        return Err("'*' does not cover Authorization; name the headers".to_owned());
    }
    name.parse().map_err(|_| format!("'{name}' is no header name"))
}

impl OriginPattern {
    /// Whether an `Origin` header's value matches. Compared byte by byte: browsers send origins in
    /// one form only.
    pub fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Exact(allowed) => allowed == origin,
            Self::OneLabel { before, after } => origin
                .strip_prefix(before.as_str())
                .and_then(|rest| rest.strip_suffix(after.as_str()))
                .is_some_and(is_label),
        }
    }
}

/// One label of a host name (RFC 1123), so that a wildcard never matches a dot.
fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> OriginPattern {
        read_origin(text).unwrap()
    }

    #[test]
    fn an_exact_origin_matches_itself_only() {
        let app = pattern("https://app.example.com");
        assert!(app.matches("https://app.example.com"));
        for other in [
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://app.example.com.evil.com",
            "https://evil-app.example.com",
            "https://APP.example.com",
            "https://app.example.com/",
            "null",
            "",
        ] {
            assert!(!app.matches(other), "{other}");
        }
    }

    #[test]
    fn a_wildcard_is_one_label() {
        let pages = pattern("https://*.project.pages.dev");
        for deployed in ["https://abc123.project.pages.dev", "https://my-branch.project.pages.dev"]
        {
            assert!(pages.matches(deployed), "{deployed}");
        }
        for other in [
            "https://project.pages.dev",
            "https://a.b.project.pages.dev",
            "https://.project.pages.dev",
            "https://evil.pages.dev",
            "https://evil-project.pages.dev",
            "https://evil.com/.project.pages.dev",
            "https://evil.com#.project.pages.dev",
            "https://a@b.project.pages.dev",
            "http://abc.project.pages.dev",
            "https://abc.project.pages.dev.evil.com",
            "https://abc.project.pages.dev:444",
        ] {
            assert!(!pages.matches(other), "{other}");
        }
    }

    #[test]
    fn patterns_that_would_let_too_many_in_are_refused() {
        for text in [
            "*",
            "null",
            "https://*",
            "https://*.dev",
            "https://*.pages.dev",
            "https://*.vercel.app",
            "https://*.co.uk",
            "https://*.*.pages.dev",
            "https://a*.pages.dev",
            "https://app.example.com/",
            "https://App.example.com",
            "https://app.example.com:443",
            "ftp://app.example.com",
            "app.example.com",
            "https://user@app.example.com",
        ] {
            assert!(read_origin(text).is_err(), "{text}");
        }
        assert!(read_origin("http://localhost:5173").is_ok());
    }

    proptest! {
        #[test]
        fn a_wildcard_never_reaches_across_a_dot(origin in "https://[a-z.:/@#?-]{0,12}\\.project\\.pages\\.dev") {
            let label = origin.strip_prefix("https://").unwrap().strip_suffix(".project.pages.dev").unwrap();
            if pattern("https://*.project.pages.dev").matches(&origin) {
                prop_assert!(!label.is_empty() && label.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'));
            }
        }
    }
}
