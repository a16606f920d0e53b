//! A static site as Cloudflare Pages serves it: files of a folder, `_headers`, and `index.html` for a path
//! that is no file.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::http_server::{Answer, HttpServer, answer};

/// A running site.
pub struct Site {
    server: HttpServer,
    shared: Arc<Shared>,
}

struct Shared {
    folder: PathBuf,
    config: OnceCell<Value>,
}

impl Site {
    /// Serves a folder. What is built anew is served at the next request.
    pub async fn start(folder: &Path) -> Self {
        let shared = Arc::new(Shared { folder: folder.to_owned(), config: OnceCell::new() });
        let served = Arc::clone(&shared);
        let server = HttpServer::start(move |request| {
            let shared = Arc::clone(&served);
            async move { shared.answer(request.method(), request.uri().path()) }
        })
        .await;
        Self { server, shared }
    }

    /// Its origin. It is not that of any other part: that of a page is a name, theirs is an address.
    pub fn url(&self) -> String {
        format!("http://localhost:{}", self.server.port())
    }

    /// Serves this as `config.json`, and puts its addresses into `_headers` in place of those that the
    /// folder's own `config.json` has: a deployed page may connect to names that are known when it is
    /// built, a page here to ports that are not.
    pub fn configure(&self, config: Value) {
        self.shared.config.set(config).expect("configured once");
    }
}

impl Shared {
    fn answer(&self, method: &Method, path: &str) -> Answer {
        if method != Method::GET && method != Method::HEAD {
            return answer(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "GET or HEAD");
        }
        let mut found = match (path, self.config.get()) {
            ("/config.json", Some(config)) => {
                answer(StatusCode::OK, "application/json", config.to_string())
            }
            _ => self.file(path),
        };
        let rules = self.rules();
        for (name, value) in headers_for(&rules, path) {
            let header = (HeaderName::try_from(name), HeaderValue::try_from(value));
            if let (Ok(name), Ok(value)) = header {
                found.headers_mut().insert(name, value);
            }
        }
        found
    }

    /// `_headers` for where this is served.
    fn rules(&self) -> String {
        let rules = std::fs::read_to_string(self.folder.join("_headers")).unwrap_or_default();
        let built = std::fs::read_to_string(self.folder.join("config.json")).unwrap_or_default();
        let built: Value = serde_json::from_str(&built).unwrap_or_default();
        let Some(config) = self.config.get() else { return rules };
        let addresses = built.as_object().into_iter().flatten().filter_map(|(key, built)| {
            let (built, here) = (built.as_str()?, config.get(key)?.as_str()?);
            built.starts_with("http").then_some((built, here))
        });
        addresses.fold(rules, |rules, (built, here)| {
            // A socket is at the same place as what it belongs to.
            let socket = |address: &str| address.replacen("http", "ws", 1);
            rules.replace(built, here).replace(&socket(built), &socket(here))
        })
    }

    fn file(&self, path: &str) -> Answer {
        let relative = Path::new(path.trim_start_matches('/'));
        // `..` in a path, and the file with the headers, are no files of the site.
        let is_plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
        let is_hidden = relative == Path::new("_headers") || relative == Path::new("_redirects");
        let file = self.folder.join(relative);
        if is_plain && !is_hidden && file.is_file() {
            return read(&file);
        }
        // An asset that is missing must not be a page.
        if relative.extension().is_some() {
            return answer(StatusCode::NOT_FOUND, "text/plain", "not found");
        }
        read(&self.folder.join("index.html"))
    }
}

fn read(file: &Path) -> Answer {
    match std::fs::read(file) {
        Ok(body) => answer(StatusCode::OK, content_type(file), Bytes::from(body)),
        Err(_) => answer(StatusCode::NOT_FOUND, "text/plain", "not found"),
    }
}

fn content_type(file: &Path) -> &'static str {
    match file.extension().and_then(|extension| extension.to_str()).unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "webmanifest" => "application/manifest+json",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// The headers that `_headers` gives a path: a line without indentation is a pattern, the indented ones
/// after it are its headers. All patterns that match apply; `! name` takes away what an earlier one gave.
fn headers_for(rules: &str, path: &str) -> Vec<(String, String)> {
    let mut headers: Vec<(String, String)> = Vec::new();
    let mut applies = false;
    for line in rules.lines() {
        let text = line.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        if !line.starts_with([' ', '\t']) {
            applies = matches(text, path);
        } else if applies {
            if let Some(name) = text.strip_prefix('!') {
                headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name.trim()));
            } else if let Some((name, value)) = text.split_once(':') {
                let (name, value) = (name.trim(), value.trim());
                let known = headers.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name));
                match known {
                    Some((_, before)) => *before = format!("{before}, {value}"),
                    None => headers.push((name.to_owned(), value.to_owned())),
                }
            }
        }
    }
    headers
}

/// `*` stands for any rest, `:name` for one segment.
fn matches(pattern: &str, path: &str) -> bool {
    if let Some((before, after)) = pattern.split_once('*') {
        let fits = path.len() >= before.len() + after.len();
        return fits && path.starts_with(before) && path.ends_with(after);
    }
    let (wanted, given): (Vec<_>, Vec<_>) =
        (pattern.split('/').collect(), path.split('/').collect());
    wanted.len() == given.len()
        && wanted.iter().zip(&given).all(|(wanted, given)| {
            wanted == given || (wanted.starts_with(':') && !given.is_empty())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = "/*\n  X-Frame-Options: DENY\n  Cache-Control: no-cache\n# a comment\n\n\
                         /assets/*\n  ! Cache-Control\n  Cache-Control: public, max-age=31536000\n  X-Frame-Options: SAMEORIGIN\n";

    #[test]
    fn the_headers_of_all_patterns_that_match_apply() {
        let plain = headers_for(RULES, "/hubs");
        assert_eq!(plain.len(), 2);
        let asset = headers_for(RULES, "/assets/app.js");
        let value = |name: &str| asset.iter().find(|(known, _)| known == name).unwrap().1.clone();
        assert_eq!(value("Cache-Control"), "public, max-age=31536000");
        assert_eq!(value("X-Frame-Options"), "DENY, SAMEORIGIN");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_outside_the_folder_is_served_and_a_page_stands_for_its_paths() {
        let folder = tempfile::tempdir().unwrap();
        let dist = folder.path().join("dist");
        std::fs::create_dir(&dist).unwrap();
        std::fs::write(folder.path().join("secret.txt"), "secret").unwrap();
        std::fs::write(dist.join("index.html"), "<title>page</title>").unwrap();
        let built = r#"{"proxyUrl": "https://api.example.com"}"#;
        std::fs::write(dist.join("config.json"), built).unwrap();
        let rules = "/*\n  X-To: https://api.example.com wss://api.example.com\n";
        std::fs::write(dist.join("_headers"), rules).unwrap();
        let site = Site::start(&dist).await;
        site.configure(serde_json::json!({"proxyUrl": "http://127.0.0.1:1"}));
        let base = site.url().replace("localhost", "127.0.0.1");
        let page = crate::Client::new(&base).get("/hubs/barn").await;
        assert_eq!((page.status.as_u16(), page.text.as_str()), (200, "<title>page</title>"));
        assert_eq!(page.header("x-to"), "http://127.0.0.1:1 ws://127.0.0.1:1");
        assert!(crate::Client::new(&base).get("/config.json").await.text.contains("127.0.0.1:1"));
        assert_eq!(crate::Client::new(&base).get("/assets/missing.js").await.status, 404);
        for path in ["/../secret.txt", "/%2e%2e/secret.txt", "//etc/passwd", "/_headers"] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
            let said = crate::raw_exchange(&base, request.as_bytes()).await;
            assert!(
                !said.contains("secret\n") && !said.ends_with("secret") && !said.contains("root:"),
                "{path}: {said}"
            );
        }
    }
}
