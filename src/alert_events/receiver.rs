//! `POST /alertmanager/api/v2/alerts` on the private port: where Mimir's ruler takes us for one of its
//! Alertmanagers.
//!
//! The ruler sends a message once. If it fails it is counted and logged there, and dropped; the alerts
//! come again with the next repetition. So an answer other than 200 is only for what an operator has to
//! know. Alerts of a tenant that is no organisation's are 200: to repeat them changes nothing.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::buffer::Buffer;
use super::heard::{Heard, Sender};
use super::message::{self, Message};
use super::seldom::Seldom;
use super::writer::{KnownOrganisations, whole};
use crate::clock::Clock;
use crate::config::Secret;
use crate::labels::{AlertDrop, AlertPost};
use crate::mimir::TENANT_HEADER;
use crate::telemetry::AlertEventMetrics;
use crate::tenancy::{TenantId, TenantTemplate};

/// Bytes of a message: 256 alerts, which is what the ruler sends at most, of 32 KiB each.
const MOST_BODY_BYTES: usize = 8 << 20;
/// Messages that are read at once, of all tenants and of one. A ruler sends a tenant's one after the
/// other, and a tenant has one ruler, or a few if its rules are sharded.
const MOST_POSTS: usize = 32;
const MOST_POSTS_OF_TENANT: usize = 8;

/// Takes in what Mimir's ruler sends.
pub struct Receiver {
    pub(crate) buffer: Arc<Buffer>,
    pub(crate) organisations: Arc<KnownOrganisations>,
    pub(crate) secret: ArcSwap<SecretDigest>,
    pub(crate) template: TenantTemplate,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<AlertEventMetrics>,
    /// Where messages are read: the main thread accepts connections and must not be held up.
    pub(crate) runtime: Handle,
    pub(crate) posts: Posts,
    pub(crate) logged: Seldom<(AlertPost, String)>,
    pub(crate) heard: Arc<Heard>,
}

/// Of the secret, so that what is compared has one length.
pub(crate) struct SecretDigest([u8; 32]);

/// What becomes of a message.
struct Outcome {
    post: AlertPost,
    /// How many of its alerts are in the buffer. Of one that is malformed, or for which there is no room, some may be.
    taken: usize,
    /// A text for who sent it.
    problem: String,
}

/// Messages that are being read, by tenant.
#[derive(Clone, Default)]
pub(crate) struct Posts(Arc<Mutex<HashMap<TenantName, usize>>>);

type TenantName = String;

/// One of them. It ends when it is dropped.
struct Post {
    posts: Posts,
    tenant: TenantName,
}

impl Posts {
    fn begin(&self, tenant: &TenantId) -> Option<Post> {
        let mut posts = self.0.lock();
        if posts.values().sum::<usize>() >= MOST_POSTS {
            return None;
        }
        let count = posts.entry(tenant.as_str().to_owned()).or_default();
        if *count >= MOST_POSTS_OF_TENANT {
            return None;
        }
        *count += 1;
        Some(Post { posts: self.clone(), tenant: tenant.as_str().to_owned() })
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        let mut posts = self.posts.0.lock();
        if let Some(count) = posts.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                posts.remove(&self.tenant);
            }
        }
    }
}

impl SecretDigest {
    pub(crate) fn new(secret: &Secret) -> Self {
        Self(Self::of(secret.expose()))
    }

    fn of(bytes: &[u8]) -> [u8; 32] {
        digest(&SHA256, bytes).as_ref().try_into().unwrap_or_default()
    }

    /// Whether a request shows it, as the password of basic authentication, in constant time. The user's
    /// name does not matter.
    fn is_shown(&self, headers: &HeaderMap) -> bool {
        let shown = password(headers).unwrap_or_default();
        verify_slices_are_equal(&self.0, &Self::of(&shown)).is_ok()
    }
}

fn password(headers: &HeaderMap) -> Option<Vec<u8>> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?.as_bytes(), values.next()) else { return None };
    let (scheme, encoded) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let pair = BASE64_STANDARD.decode(encoded.trim_ascii()).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(pair[colon + 1..].to_vec())
}

/// The endpoint. To be served on the private port only.
pub fn router(receiver: Arc<Receiver>) -> Router {
    Router::new().route("/alertmanager/api/v2/alerts", post(receive)).with_state(receiver)
}

async fn receive(State(receiver): State<Arc<Receiver>>, request: Request) -> Response {
    let (sender, outcome) = Arc::clone(&receiver).take(request).await;
    let Outcome { post, taken, problem } = outcome;
    receiver.metrics.posted(post);
    receiver.heard.note(sender, post, taken);
    let status = match post {
        AlertPost::Accepted | AlertPost::UnknownOrganisation => StatusCode::OK,
        AlertPost::Unauthorised => StatusCode::UNAUTHORIZED,
        AlertPost::Malformed => StatusCode::BAD_REQUEST,
        AlertPost::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        AlertPost::NoRoom | AlertPost::Busy => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, problem).into_response()
}

impl Outcome {
    /// That of a message of which nothing is taken.
    fn nothing(post: AlertPost, problem: impl Into<String>) -> Self {
        Self { post, taken: 0, problem: problem.into() }
    }
}

impl Receiver {
    /// Messages have to show this secret from now on.
    pub fn set_secret(&self, secret: &Secret) {
        self.secret.store(Arc::new(SecretDigest::new(secret)));
    }

    async fn take(self: Arc<Self>, request: Request) -> (Sender, Outcome) {
        let (head, body) = request.into_parts();
        let unknown = |post, problem| {
            self.log(post, "");
            (Sender::Unknown, Outcome::nothing(post, problem))
        };
        if !self.secret.load().is_shown(&head.headers) {
            return unknown(AlertPost::Unauthorised, "the password is wrong or missing");
        }
        let Some(tenant) = tenant_of(&head.headers) else {
            return unknown(AlertPost::Malformed, "must name one tenant in X-Scope-OrgID");
        };
        let sender = Sender::Ruler(self.template.organisation_of(&tenant));
        (sender, self.take_body(tenant, body).await)
    }

    /// Takes what was posted for a tenant.
    async fn take_body(self: Arc<Self>, tenant: TenantId, body: Body) -> Outcome {
        let Some(_post) = self.posts.begin(&tenant) else {
            self.log(AlertPost::Busy, tenant.as_str());
            return Outcome::nothing(AlertPost::Busy, "too many messages at once");
        };
        let body = match read(body).await {
            Ok(body) => body,
            Err((post, problem)) => {
                self.log(post, tenant.as_str());
                return Outcome::nothing(post, problem);
            }
        };
        let receiver = Arc::clone(&self);
        let done = self.runtime.spawn(async move { receiver.take_alerts(&tenant, &body) });
        let ended = |_| Outcome::nothing(AlertPost::Busy, "the process is shutting down");
        done.await.unwrap_or_else(ended)
    }

    /// Reads the alerts of a tenant, and puts them into the buffer.
    fn take_alerts(&self, tenant: &TenantId, body: &Bytes) -> Outcome {
        let now = i64::try_from(self.clock.now().as_millis()).unwrap_or(i64::MAX);
        let message = match message::read(body, now) {
            Ok(message) => message,
            Err(problem) => {
                self.log_problem(AlertPost::Malformed, tenant.as_str(), &problem);
                return Outcome::nothing(AlertPost::Malformed, problem);
            }
        };
        let Message { reports, malformed, problem } = message;
        let resolved = reports.iter().filter(|report| report.is_resolved).count();
        let count = reports.len();
        self.metrics.received(count - resolved, resolved);
        self.metrics.dropped(AlertDrop::Malformed, malformed as u64);
        let Some(organisation) = self.template.organisation_of(tenant) else {
            self.log(AlertPost::UnknownOrganisation, tenant.as_str());
            self.metrics.dropped(AlertDrop::UnknownOrganisation, count as u64);
            return Outcome::nothing(AlertPost::UnknownOrganisation, "");
        };
        if self.organisations.is_known(&organisation) == Some(false) {
            // The writer has looked it up, and logged it.
            self.metrics.dropped(AlertDrop::UnknownOrganisation, count as u64);
            return Outcome::nothing(AlertPost::UnknownOrganisation, "");
        }
        let refused = self.buffer.add(&organisation, reports);
        let taken = count - refused;
        self.metrics.pending.set(whole(self.buffer.pending()));
        if refused > 0 {
            self.log(AlertPost::NoRoom, tenant.as_str());
            self.metrics.dropped(AlertDrop::NoRoom, refused as u64);
            let problem = format!("no room for {refused} of {count} alerts");
            return Outcome { post: AlertPost::NoRoom, taken, problem };
        }
        if let Some(problem) = problem {
            self.log_problem(AlertPost::Malformed, tenant.as_str(), &problem);
            let problem = format!("{malformed} alerts: {problem}");
            return Outcome { post: AlertPost::Malformed, taken, problem };
        }
        Outcome { post: AlertPost::Accepted, taken, problem: String::new() }
    }

    fn log(&self, post: AlertPost, tenant: &str) {
        self.log_problem(post, tenant, "");
    }

    /// Once an hour for each kind and tenant: the ruler repeats itself.
    fn log_problem(&self, post: AlertPost, tenant: &str, problem: &str) {
        if !self.logged.is_due((post, tenant.to_owned())) {
            return;
        }
        let reason: &'static str = post.into();
        if post == AlertPost::UnknownOrganisation {
            tracing::info!(
                tenant.id = tenant,
                "Alerts of a tenant without an organisation dropped"
            );
        } else {
            tracing::warn!(reason, tenant.id = tenant, problem, "Alerts from the ruler refused");
        }
    }
}

fn tenant_of(headers: &HeaderMap) -> Option<TenantId> {
    let mut values = headers.get_all(TENANT_HEADER).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    TenantId::parse(value.to_str().ok()?).ok()
}

async fn read(body: Body) -> Result<Bytes, (AlertPost, String)> {
    to_bytes(body, MOST_BODY_BYTES).await.map_err(|error| {
        let is_too_long = std::error::Error::source(&error)
            .is_some_and(<dyn std::error::Error>::is::<http_body_util::LengthLimitError>);
        if is_too_long {
            (AlertPost::TooLarge, format!("more than {MOST_BODY_BYTES} bytes"))
        } else {
            (AlertPost::Malformed, "the body ended early".to_owned())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenancy::OrganisationId;

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn only_the_secret_opens_whoever_shows_it() {
        let secret = SecretDigest::new(&Secret::new("a-secret-of-the-ruler"));
        for user in ["", "mimir", "a%40b"] {
            let encoded = BASE64_STANDARD.encode(format!("{user}:a-secret-of-the-ruler"));
            assert!(secret.is_shown(&headers(&format!("Basic {encoded}"))), "{user}");
            assert!(secret.is_shown(&headers(&format!("basic {encoded}"))), "{user}");
            let mut twice = headers(&format!("Basic {encoded}"));
            twice.append(header::AUTHORIZATION, format!("Basic {encoded}").parse().unwrap());
            assert!(!secret.is_shown(&twice));
            assert!(!secret.is_shown(&headers(&format!("Bearer {encoded}"))));
        }
        assert!(!secret.is_shown(&HeaderMap::new()));
        for pair in ["", ":", "a-secret-of-the-ruler", "u:a-secret", "u:a-secret-of-the-ruler "] {
            let encoded = BASE64_STANDARD.encode(pair);
            assert!(!secret.is_shown(&headers(&format!("Basic {encoded}"))), "{pair}");
        }
        for wrong in ["Basic", "Basic ", "Basic %", "a-secret-of-the-ruler"] {
            assert!(!secret.is_shown(&headers(wrong)), "{wrong}");
        }
    }

    #[test]
    fn a_tenant_has_some_messages_at_once_and_all_have_no_more_than_there_is_memory_for() {
        let posts = Posts::default();
        let tenant = |name: &str| TenantId::parse(name).unwrap();
        let of_a: Vec<_> = (0..20).filter_map(|_| posts.begin(&tenant("a"))).collect();
        assert_eq!(of_a.len(), MOST_POSTS_OF_TENANT);
        let others: Vec<_> =
            (0..50).filter_map(|name| posts.begin(&tenant(&format!("b{name}")))).collect();
        assert_eq!(others.len(), MOST_POSTS - MOST_POSTS_OF_TENANT);
        drop((of_a, others));
        assert!(posts.0.lock().is_empty() && posts.begin(&tenant("a")).is_some());
    }

    #[test]
    fn one_tenant_is_named_and_not_several() {
        let of = |values: &[&'static str]| {
            let pairs = values.iter().map(|value| (TENANT_HEADER, value.parse().unwrap()));
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(name, value);
            }
            tenant_of(&headers).map(|tenant| tenant.as_str().to_owned())
        };
        assert_eq!(of(&["a"]), Some("a".to_owned()));
        for wrong in [&["a", "b"][..], &["a|b"], &[".."], &[""], &[]] {
            assert_eq!(of(wrong), None, "{wrong:?}");
        }
    }

    const SECRET: &str = "a-secret-of-the-ruler";
    const TENANT: &str = "acme";
    /// A UUID in capitals is a tenant of nobody's.
    const NOBODYS: &str = "0A1B2C3D-0000-4000-8000-00000000000F";

    /// One that has room for so many alerts of an organisation.
    fn receiver(most_alerts: usize) -> Arc<Receiver> {
        Arc::new(Receiver {
            buffer: Arc::new(Buffer::new(most_alerts, 1 << 20)),
            organisations: Arc::default(),
            secret: ArcSwap::from_pointee(SecretDigest::new(&Secret::new(SECRET))),
            template: TenantTemplate::parse("{organisation_id}").unwrap(),
            clock: Clock::manual(1_764_000_000).0,
            metrics: Arc::new(AlertEventMetrics::register()),
            runtime: Handle::current(),
            posts: Posts::default(),
            logged: Seldom::default(),
            heard: Arc::default(),
        })
    }

    fn alert(name: &str) -> String {
        format!(r#"{{"startsAt":"2025-11-24T16:00:00Z","labels":{{"alertname":"{name}"}}}}"#)
    }

    /// Posts a body to a receiver that has heard nothing before. Gives the status, and to whom it is deaf.
    async fn post_to(
        receiver: &Arc<Receiver>,
        tenant: &str,
        body: String,
    ) -> (u16, Option<&'static str>) {
        let credentials = BASE64_STANDARD.encode(format!("mimir:{SECRET}"));
        let request = Request::builder()
            .header(header::AUTHORIZATION, format!("Basic {credentials}"))
            .header(TENANT_HEADER, tenant)
            .body(Body::from(body));
        let answer = receive(State(Arc::clone(receiver)), request.unwrap()).await;
        let (to_all, some) = receiver.heard.deaf();
        let deaf_to = match (to_all, some.contains(&OrganisationId::parse(TENANT).unwrap())) {
            (false, false) => None,
            (false, true) => Some(TENANT),
            (true, false) => Some("all"),
            (true, true) => Some("both"),
        };
        (answer.status().as_u16(), deaf_to)
    }

    #[tokio::test]
    async fn a_post_counts_as_heard_if_any_of_its_alerts_is_taken() {
        let (a, b) = (alert("a"), alert("b"));
        for (tenant, body, expected, is) in [
            (TENANT, format!("[{a}]"), (200, None), "good"),
            (TENANT, "[]".to_owned(), (200, None), "empty"),
            (TENANT, format!("[1,{a}]"), (400, None), "malformed in part"),
            (TENANT, "[1]".to_owned(), (400, Some(TENANT)), "malformed"),
            (TENANT, "{}".to_owned(), (400, Some(TENANT)), "no list"),
            ("a|b", format!("[{a}]"), (400, Some("all")), "of two tenants"),
            (NOBODYS, "{}".to_owned(), (400, None), "of no organisation"),
            (TENANT, format!("[{a},{b}]"), (503, None), "without room for all"),
            (TENANT, " ".repeat(MOST_BODY_BYTES + 1), (413, Some(TENANT)), "too large"),
        ] {
            assert_eq!(post_to(&receiver(1), tenant, body).await, expected, "{is}");
        }
        let full = post_to(&receiver(0), TENANT, format!("[{a}]")).await;
        assert_eq!(full, (503, Some(TENANT)), "no room");
        let busy = receiver(1);
        let tenant = TenantId::parse(TENANT).unwrap();
        let others: Vec<_> =
            (0..MOST_POSTS_OF_TENANT).filter_map(|_| busy.posts.begin(&tenant)).collect();
        let refused = post_to(&busy, TENANT, format!("[{a}]")).await;
        assert_eq!(refused, (503, Some(TENANT)), "busy");
        drop(others);
    }
}
