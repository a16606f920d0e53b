//! The page at `/admin/console`: files that are part of the program, the same for everybody. They hold
//! no data: all that the page shows it asks of `/admin`, with the credential of whoever looks at it.
//!
//! A page that holds an operator's token must run nothing but its own files, so their headers forbid
//! everything else. There is no framework and no inline script.

mod senders;

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};

use crate::config::ConsoleConfig;
use crate::route::ConsoleFile;

/// The files of the console, ready to be sent.
pub struct Console {
    files: Vec<File>,
    policy: HeaderValue,
}

struct File {
    name: ConsoleFile,
    content_type: HeaderValue,
    plain: Form,
    /// Of about a third of the size.
    zipped: Form,
}

/// The bytes of a file in one coding.
struct Form {
    body: Bytes,
    etag: HeaderValue,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const JSON: &str = "application/json";

/// What other pages and windows may do with this one: nothing.
const ISOLATION: [(HeaderName, HeaderValue); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

impl Console {
    /// None if it is switched off. The files are put together once.
    pub fn new(config: &ConsoleConfig) -> Option<Self> {
        if !config.enabled {
            return None;
        }
        let sign_in = config.sign_in.as_ref();
        let settings = serde_json::json!({
            "supabase_url": sign_in.map(|sign_in| &sign_in.url),
            "supabase_key": sign_in.map(|sign_in| &sign_in.key),
        });
        let file = |file: &ConsoleFile| {
            let (content_type, body) = match file {
                ConsoleFile::Page => (HTML, include_str!("console/console.html").into()),
                ConsoleFile::Style => (CSS, include_str!("console/console.css").into()),
                ConsoleFile::Main => (SCRIPT, include_str!("console/main.js").into()),
                ConsoleFile::Session => (SCRIPT, include_str!("console/session.js").into()),
                ConsoleFile::Place => (SCRIPT, include_str!("console/place.js").into()),
                ConsoleFile::Dom => (SCRIPT, include_str!("console/dom.js").into()),
                ConsoleFile::Table => (SCRIPT, include_str!("console/table.js").into()),
                ConsoleFile::Overview => (SCRIPT, include_str!("console/overview.js").into()),
                ConsoleFile::Organisations => {
                    (SCRIPT, include_str!("console/organisations.js").into())
                }
                ConsoleFile::Rules => (SCRIPT, include_str!("console/rules.js").into()),
                ConsoleFile::Devices => (SCRIPT, include_str!("console/devices.js").into()),
                ConsoleFile::Channels => (SCRIPT, include_str!("console/channels.js").into()),
                ConsoleFile::System => (SCRIPT, include_str!("console/system.js").into()),
                ConsoleFile::Settings => (JSON, settings.to_string().into()),
                ConsoleFile::Senders => (JSON, senders::document().to_string().into()),
            };
            File::new(*file, content_type, body)
        };
        // A host of the configuration cannot hold a space or a semicolon.
        let supabase =
            sign_in.map_or(String::new(), |sign_in| format!(" {}", origin(&sign_in.url)));
        let policy = format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'{supabase}; \
             img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
        );
        let without_sign_in = HeaderValue::from_static("default-src 'none'");
        Some(Self {
            files: ConsoleFile::ALL.iter().map(file).collect(),
            policy: HeaderValue::try_from(policy).unwrap_or(without_sign_in),
        })
    }

    /// Answers a request for a file; none if there is no such file.
    pub fn answer(
        &self,
        file: ConsoleFile,
        method: &Method,
        headers: &HeaderMap,
    ) -> Option<Response<Bytes>> {
        let file = self.files.iter().find(|known| known.name == file)?;
        let is_zipped = takes_gzip(headers);
        let form = if is_zipped { &file.zipped } else { &file.plain };
        let is_known = listed(headers, &header::IF_NONE_MATCH)
            .any(|one| one.trim_start_matches("W/") == form.etag);
        let is_sent = !is_known && *method != Method::HEAD;
        let body = if is_sent { form.body.clone() } else { Bytes::new() };
        let mut response = Response::new(body);
        let answer = response.headers_mut();
        answer.insert(header::ETAG, form.etag.clone());
        answer.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        if is_known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Some(response);
        }
        answer.insert(header::CONTENT_TYPE, file.content_type.clone());
        answer.insert(header::CONTENT_LENGTH, HeaderValue::from(form.body.len()));
        if is_zipped {
            answer.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        // Asked for each time, so that page and scripts are of one version after an upgrade.
        answer.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        answer.insert(header::CONTENT_SECURITY_POLICY, self.policy.clone());
        answer.extend(ISOLATION);
        Some(response)
    }

    /// The size of all files, as they are and compressed.
    #[cfg(test)]
    fn bytes(&self) -> (usize, usize) {
        let sum = |of: fn(&File) -> &Form| self.files.iter().map(|file| of(file).body.len()).sum();
        (sum(|file| &file.plain), sum(|file| &file.zipped))
    }
}

impl File {
    fn new(file: ConsoleFile, content_type: &'static str, body: Bytes) -> Self {
        let zipped = Bytes::from(zip(&body));
        Self {
            name: file,
            content_type: HeaderValue::from_static(content_type),
            plain: Form::new(body),
            zipped: Form::new(zipped),
        }
    }
}

impl Form {
    fn new(body: Bytes) -> Self {
        let etag = format!("\"{:08x}-{:x}\"", crc32fast::hash(&body), body.len());
        let etag = HeaderValue::try_from(etag).unwrap_or(HeaderValue::from_static("\"\""));
        Self { body, etag }
    }
}

/// Compresses a file. Nothing in it is secret, and nothing is of the caller.
fn zip(body: &[u8]) -> Vec<u8> {
    let mut zip = GzEncoder::new(Vec::new(), Compression::best());
    // Writing into memory does not fail.
    let written = zip.write_all(body).and_then(|()| zip.finish());
    written.unwrap_or_default()
}

/// The items of a header that holds a list.
fn listed<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// Whether the client says that it takes gzip, and does not say so with a weight of 0.
fn takes_gzip(headers: &HeaderMap) -> bool {
    listed(headers, &header::ACCEPT_ENCODING).any(|one| {
        let mut parts = one.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let is_refused = |part: &str| {
            part.strip_prefix("q=").and_then(|weight| weight.parse::<f64>().ok()) == Some(0.0)
        };
        is_gzip && !parts.any(is_refused)
    })
}

/// Scheme, host and port of an address.
fn origin(address: &str) -> String {
    url::Url::parse(address).map_or(String::new(), |url| url.origin().ascii_serialization())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Environment};

    fn console(section: &str) -> Option<Console> {
        let text = format!(
            "{section}\n[auth]\nissuer = \"https://ref.supabase.co/auth/v1\"\n\
             [upstream]\nurls = [\"http://m\"]"
        );
        Console::new(&Config::read(&text, &Environment::default()).unwrap().console)
    }

    fn get(console: &Console, file: ConsoleFile) -> Response<Bytes> {
        console.answer(file, &Method::GET, &HeaderMap::new()).unwrap()
    }

    #[test]
    fn the_console_is_small() {
        let (plain, zipped) = console("").unwrap().bytes();
        assert!(zipped < 60 << 10 && plain < 120 << 10, "{plain} bytes, {zipped} compressed");
    }

    // With an inline script or style the policy would have to allow what an attacker injects.
    #[test]
    fn nothing_is_inline() {
        let console = console("").unwrap();
        let page = get(&console, ConsoleFile::Page).into_body();
        let page = std::str::from_utf8(&page).unwrap();
        assert_eq!(
            page.matches("<script").count(),
            page.matches("<script type=\"module\" src=").count()
        );
        let handler = regex_lite::Regex::new("\\son[a-z]+\\s*=").unwrap();
        assert!(!handler.is_match(page), "a handler in the page");
        for inline in ["<style", " style=", "javascript:"] {
            assert!(!page.contains(inline), "{inline}");
        }
        for file in ConsoleFile::ALL.iter().filter(|file| file.path().strip_suffix(".js").is_some())
        {
            let script = get(&console, *file).into_body();
            let script = std::str::from_utf8(&script).unwrap();
            for dangerous in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                ".style.",
            ] {
                assert!(!script.contains(dangerous), "{dangerous} in {}", file.path());
            }
        }
    }

    #[test]
    fn the_policy_names_the_project_only_where_people_sign_in() {
        let policy = |section: &str| {
            let answer = get(&console(section).unwrap(), ConsoleFile::Page);
            answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned()
        };
        let alone = policy("");
        assert!(alone.contains("connect-src 'self'; ") && alone.contains("script-src 'self'; "));
        assert!(!alone.contains("unsafe") && alone.contains("frame-ancestors 'none'"));
        let key = "[console]\nsupabase_key = \"sb_publishable_abc\"\n";
        assert!(policy(key).contains("connect-src 'self' https://ref.supabase.co; "));
        let other = format!("{key}supabase_url = \"https://auth.example.com:8443\"");
        assert!(policy(&other).contains("connect-src 'self' https://auth.example.com:8443; "));
    }

    #[test]
    fn a_file_that_is_known_is_not_sent_again() {
        let console = console("").unwrap();
        let first = get(&console, ConsoleFile::Main);
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone());
        let again = console.answer(ConsoleFile::Main, &Method::GET, &headers).unwrap();
        assert_eq!((again.status(), again.body().len()), (StatusCode::NOT_MODIFIED, 0));
        let head = console.answer(ConsoleFile::Main, &Method::HEAD, &HeaderMap::new()).unwrap();
        assert!(head.body().is_empty());
        assert_eq!(head.headers()[header::CONTENT_LENGTH], first.body().len().to_string());
    }

    #[test]
    fn only_who_takes_gzip_gets_it() {
        let console = console("").unwrap();
        let ask = |coding: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(coding));
            console.answer(ConsoleFile::Main, &Method::GET, &headers).unwrap()
        };
        for (coding, is_zipped) in [
            ("gzip, deflate, br", true),
            ("br;q=1.0, GZIP;q=0.2", true),
            ("gzip;q=0", false),
            ("identity", false),
            ("xgzip", false),
        ] {
            let answer = ask(coding);
            let is_said = answer.headers().contains_key(header::CONTENT_ENCODING);
            assert_eq!(is_said, is_zipped, "{coding}");
            assert_eq!(answer.body().starts_with(&[0x1f, 0x8b]), is_zipped, "{coding}");
            assert_eq!(answer.headers()[header::VARY], "accept-encoding");
        }
    }

    #[test]
    fn it_can_be_switched_off() {
        assert!(console("[console]\nenabled = false").is_none());
    }
}
