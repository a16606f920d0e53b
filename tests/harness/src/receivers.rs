//! Where notifications arrive: a webhook receiver, and stand-ins of the services that Alertmanager
//! notifies. A stand-in checks each request as the service documents its API (method, path, headers,
//! secret, form of the JSON) and answers as it does, errors included, so that a request which the
//! service would refuse is refused here too.

/// What each service asks of a request, and how it answers.
mod services;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;

use crate::upstream::{Received, Upstream};

/// What a receiver poses as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Any server that takes Alertmanager's own JSON.
    Webhook,
    /// Slack's incoming webhooks.
    Slack,
    /// PagerDuty's Events API v2.
    PagerDuty,
    /// Telegram's Bot API.
    Telegram,
    /// Opsgenie's Alert API.
    Opsgenie,
    /// Discord's webhooks.
    Discord,
    /// Microsoft Teams: workflows, and the connectors before them.
    Teams,
}

/// What is wrong with a service, each told in its own form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It is down: 503.
    Down,
    /// It is asked too often: 429.
    TooMany,
    /// The secret was revoked.
    Revoked,
    /// It takes the request and never answers.
    Silent,
}

/// Whether a notification says that something began or that it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// At least one alert fires.
    Firing,
    /// All are resolved.
    Resolved,
}

/// A notification that the service took.
#[derive(Clone, Debug)]
pub struct Notice {
    /// When it arrived.
    pub at: Instant,
    /// What it says, as far as its service has a place for that.
    pub state: Option<State>,
    /// The path and query, without the secret.
    pub target: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; of one that closes an alert of Opsgenie's also, as `closes`, what had opened it.
    pub json: Value,
}

/// A running receiver.
pub struct Receiver {
    service: Service,
    secret: String,
    server: Upstream,
    kept: Arc<Kept>,
}

#[derive(Default)]
struct Kept {
    notices: Mutex<Vec<Notice>>,
    refusals: Mutex<Vec<String>>,
    trouble: Mutex<Option<Trouble>>,
}

/// A request of which the body was read.
struct Asked {
    method: String,
    path: String,
    query: String,
    headers: HeaderMap,
    body: Bytes,
}

/// An answer, and what was wrong if it is no success.
struct Reply {
    status: u16,
    content_type: &'static str,
    body: String,
    taken: Result<Option<State>, String>,
}

impl Receiver {
    /// Starts one with a secret of its own.
    pub async fn start(service: Service) -> Self {
        let secret = services::new_secret(service);
        let kept = Arc::<Kept>::default();
        let (word, place) = (secret.clone(), Arc::clone(&kept));
        let server = Upstream::start(move |received| {
            let (word, place) = (word.clone(), Arc::clone(&place));
            async move { answer(service, &word, &place, received).await }
        })
        .await;
        Self { service, secret, server, kept }
    }

    /// What an operator or a channel is given: for PagerDuty, Opsgenie and Telegram the address of
    /// the API, for the others the URL that is itself the secret.
    pub fn url(&self) -> String {
        format!("{}{}", self.server.url(), services::path(self.service, &self.secret))
    }

    /// For [`Service::Teams`] a URL of the connectors that Microsoft retired, which take other JSON.
    pub fn connector_url(&self) -> String {
        format!("{}/webhookb2/{}@test/IncomingWebhook/a/b", self.server.url(), self.secret)
    }

    /// The key, token or part of the URL that nobody else may know.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The notifications that were taken so far.
    pub fn notices(&self) -> Vec<Notice> {
        self.kept.notices.lock().unwrap().clone()
    }

    /// What was refused and why, one line a request.
    pub fn refusals(&self) -> Vec<String> {
        self.kept.refusals.lock().unwrap().clone()
    }

    /// From now on it answers as if this were wrong, or again as usual.
    pub fn set_trouble(&self, trouble: Option<Trouble>) {
        *self.kept.trouble.lock().unwrap() = trouble;
    }

    /// Waits for a notification, and panics with what arrived if it does not come.
    pub async fn notice(&self, patience: Duration, is_it: impl Fn(&Notice) -> bool) -> Notice {
        let deadline = Instant::now() + patience;
        loop {
            let notices = self.notices();
            if let Some(notice) = notices.iter().find(|notice| is_it(notice)) {
                return notice.clone();
            }
            let arrived: Vec<_> = notices.iter().rev().take(3).map(|notice| &notice.json).collect();
            // Alertmanager tries again and again.
            let refused: Vec<_> = self.refusals().into_iter().rev().take(3).collect();
            assert!(
                Instant::now() < deadline,
                "{:?} has no such notification within {patience:?}; the last ones: {arrived:#?}, \
                 refused: {refused:#?}",
                self.service
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Notice {
    /// Whether a text is anywhere in its body.
    pub fn holds(&self, text: &str) -> bool {
        self.json.to_string().contains(text)
    }

    /// Whether it says that something began.
    pub fn is_firing(&self) -> bool {
        self.state == Some(State::Firing)
    }

    /// Whether it says that something ended.
    pub fn is_resolved(&self) -> bool {
        self.state == Some(State::Resolved)
    }
}

type Answer = Response<http_body_util::combinators::BoxBody<Bytes, std::io::Error>>;

async fn answer(service: Service, secret: &str, kept: &Kept, received: Received) -> Answer {
    let at = Instant::now();
    let (path, query) = received.target.split_once('?').unwrap_or((&received.target, ""));
    let body = match received.body {
        Some(body) => body.collect().await.map(http_body_util::Collected::to_bytes),
        None => Ok(Bytes::new()),
    };
    let asked = Asked {
        method: received.method,
        path: path.to_owned(),
        query: query.to_owned(),
        headers: received.headers,
        body: body.unwrap_or_default(),
    };
    let trouble = *kept.trouble.lock().unwrap();
    if trouble == Some(Trouble::Silent) {
        kept.refusals.lock().unwrap().push("left without an answer".to_owned());
        std::future::pending::<()>().await;
    }
    let reply = services::judge(service, secret, trouble, &asked);
    match reply.taken {
        Ok(state) => {
            let mut notices = kept.notices.lock().unwrap();
            let mut json: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
            // Opsgenie is told which alert to close by its alias alone.
            let is_closed = |known: &&Notice| {
                let alias = known.json["alias"].as_str().unwrap_or_default();
                asked.path == format!("/v2/alerts/{alias}/close")
            };
            let closed = notices.iter().rev().find(is_closed).map(|notice| notice.json.clone());
            if let (Some(closed), Some(object)) = (closed, json.as_object_mut()) {
                object.insert("closes".to_owned(), closed);
            }
            let target = received.target.replace(secret, "<secret>");
            notices.push(Notice { at, state, target, headers: asked.headers, json });
        }
        Err(why) => {
            let body = String::from_utf8_lossy(&asked.body);
            let line = format!("{} {}: {why}: {body}", asked.method, asked.path);
            kept.refusals.lock().unwrap().push(line);
        }
    }
    let body = Full::new(Bytes::from(reply.body)).map_err(|never| match never {}).boxed();
    let answer =
        Response::builder().status(reply.status).header("content-type", reply.content_type);
    let answer = if reply.status == 429 { answer.header("retry-after", "1") } else { answer };
    answer.body(body).expect("an answer")
}

#[cfg(test)]
mod tests;
