//! Where keys come from: the issuer's key set, fetched in the background and kept.
//!
//! One task ([`KeySource::run`]) does all fetching, so there is never more than one fetch at a
//! time and no request that goes away can interrupt one. Requests only read the newest set; one
//! with an unknown key may wake the task and wait for its next attempt. What limits this:
//!
//! - a cool-down between fetches, whoever causes them, which no flood and no empty set gets round;
//! - key IDs that the set was seen not to have are remembered (and forgotten when it changes), so
//!   that one forgotten device with an old token does not cause a fetch for ever;
//! - an unknown key is the token's fault (401) only if the last attempt succeeded. If it failed,
//!   the key may be a new one and the fault is ours (503): telemetry must not be lost over it.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::Algorithm;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::key_set::{KeySet, Lookup, VerificationKey};
use super::refusal::{Refusal, TokenFault};
use crate::config::KeySetConfig;
use crate::telemetry::{Metrics, causes};

/// The keys of one issuer, kept fresh.
pub struct KeySource {
    config: Option<KeySetConfig>,
    state: ArcSwap<State>,
    /// Counts attempts, so that a request can wait for the next to end.
    attempts: watch::Sender<u64>,
    wake: Notify,
    absent: moka::sync::Cache<String, ()>,
    metrics: Arc<Metrics>,
}

/// What is known at one time.
#[derive(Default)]
struct State {
    keys: Arc<KeySet>,
    /// When the keys were last fetched.
    fetched: Option<Instant>,
    last_attempt: Option<Attempt>,
}

/// One attempt to fetch the set.
#[derive(Clone, Copy)]
struct Attempt {
    began: Instant,
    ended: Instant,
    succeeded: bool,
}

/// A summary for `/ready` and metrics.
#[derive(Clone, Copy, Debug)]
pub struct KeySourceState {
    /// How long ago the keys were fetched; none if never.
    pub age: Option<Duration>,
    /// Usable keys.
    pub keys: usize,
}

/// How long a key ID that the set was seen not to have causes no fetch.
const ABSENT_FOR: Duration = Duration::from_secs(60);
const ABSENT_KEYS: u64 = 10_000;
/// The largest document that is read.
const MAX_DOCUMENT_BYTES: usize = 256 << 10;
/// How long to wait after a failed attempt, at first and at most.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

impl KeySource {
    /// A source that knows no key yet. Without a configuration it never will (HS256 only).
    pub fn new(config: Option<KeySetConfig>, metrics: Arc<Metrics>) -> Self {
        let absent =
            moka::sync::Cache::builder().max_capacity(ABSENT_KEYS).time_to_live(ABSENT_FOR);
        Self {
            config,
            state: ArcSwap::from_pointee(State::default()),
            attempts: watch::Sender::new(0),
            wake: Notify::new(),
            absent: absent.build(),
            metrics,
        }
    }

    /// Whether there is a key set at all, and not only the shared secret.
    pub fn is_configured(&self) -> bool {
        self.config.is_some()
    }

    /// The key that a token names, if the set binds it to the token's algorithm.
    pub(super) async fn find(
        &self,
        id: &str,
        algorithm: Algorithm,
    ) -> Result<Arc<VerificationKey>, Refusal> {
        let Some(config) = &self.config else {
            return Err(Refusal::Token(TokenFault::UnknownKey));
        };
        let asked = Instant::now();
        if let Lookup::Unknown = self.lookup(config, id, algorithm)? {
            self.ask_for_news(config, id).await;
        }
        match self.lookup(config, id, algorithm)? {
            Lookup::Found(key) => Ok(key),
            Lookup::OtherAlgorithm => Err(Refusal::Token(TokenFault::AlgorithmOfKey)),
            Lookup::Unknown => Err(self.absence(config, id, asked)),
        }
    }

    /// What an unknown key means, and whether to remember it: only a set that was fetched after
    /// the token came can say that its key is absent, else a flood of unknown keys would have the
    /// first token of a new key remembered as bad.
    fn absence(&self, config: &KeySetConfig, id: &str, asked: Instant) -> Refusal {
        match self.state.load().last_attempt {
            Some(last) if last.succeeded => {
                // An empty set is believed, but not remembered: it may be a passing mistake.
                if last.began >= asked && self.state().keys > 0 {
                    self.absent.insert(id.to_owned(), ());
                }
                Refusal::Token(TokenFault::UnknownKey)
            }
            _ => Self::unavailable(config),
        }
    }

    /// Looks into the newest set. One that is too old says nothing any more.
    fn lookup(
        &self,
        config: &KeySetConfig,
        id: &str,
        algorithm: Algorithm,
    ) -> Result<Lookup, Refusal> {
        let state = self.state.load();
        match state.keys.find(id, algorithm) {
            Lookup::Unknown => Ok(Lookup::Unknown),
            known if state.is_trusted(config) => Ok(known),
            _ => Err(Self::unavailable(config)),
        }
    }

    /// Has the set fetched anew and waits for it, unless that was done a moment ago.
    async fn ask_for_news(&self, config: &KeySetConfig, id: &str) {
        let mut attempts = self.attempts.subscribe();
        let last = self.state.load().last_attempt;
        let cooling = last.is_some_and(|last| last.ended.elapsed() < config.cool_down);
        let known_absent = last.is_some_and(|last| last.succeeded) && self.absent.contains_key(id);
        if cooling || known_absent {
            return;
        }
        self.wake.notify_one();
        let patience = config.fetch_timeout + Duration::from_secs(1);
        // Whether news came is seen in the state; a time-out leaves it as it was.
        let _ = timeout(patience, attempts.changed()).await;
    }

    fn unavailable(config: &KeySetConfig) -> Refusal {
        Refusal::KeysUnavailable { retry_after: config.cool_down }
    }

    /// Whether keys of the set may still be used: false during an outage that outlasts
    /// `jwks_max_age`.
    pub(super) fn is_trusted(&self) -> bool {
        self.config.as_ref().is_none_or(|config| self.state.load().is_trusted(config))
    }

    /// What is known now.
    pub fn state(&self) -> KeySourceState {
        let state = self.state.load();
        KeySourceState { age: state.fetched.map(|at| at.elapsed()), keys: state.keys.len() }
    }

    /// Fetches at once, then at every interval and whenever a request asks for an unknown key,
    /// until it is cancelled.
    pub async fn run(&self, client: reqwest::Client, cancelled: CancellationToken) {
        let Some(config) = &self.config else { return };
        let mut retry = FIRST_RETRY.min(config.refresh_interval);
        loop {
            let succeeded = self.attempt(config, &client).await;
            let pause = if succeeded {
                retry = FIRST_RETRY.min(config.refresh_interval);
                config.refresh_interval
            } else {
                let pause = retry;
                retry = (retry * 2).min(LAST_RETRY.min(config.refresh_interval));
                pause
            };
            tokio::select! {
                () = cancelled.cancelled() => return,
                () = sleep(pause) => {}
                () = self.woken(config) => {}
            }
        }
    }

    /// Ends when a request has asked for news and the cool-down is over.
    async fn woken(&self, config: &KeySetConfig) {
        loop {
            self.wake.notified().await;
            // A wake-up may be left over from before the last attempt.
            let last = self.state.load().last_attempt;
            if last.is_none_or(|last| last.ended.elapsed() >= config.cool_down) {
                return;
            }
        }
    }

    async fn attempt(&self, config: &KeySetConfig, client: &reqwest::Client) -> bool {
        let began = Instant::now();
        let outcome = fetch(config, client).await;
        let succeeded = outcome.is_ok();
        let older = self.state.load_full();
        let ended = Instant::now();
        let (keys, fetched) = match outcome {
            Ok(keys) => (self.adopt(keys, &older.keys), Some(ended)),
            Err(error) => {
                tracing::warn!(error, url = %config.url, "Key set not fetched");
                (Arc::clone(&older.keys), older.fetched)
            }
        };
        let last_attempt = Some(Attempt { began, ended, succeeded });
        self.state.store(Arc::new(State { keys, fetched, last_attempt }));
        self.metrics.key_set_fetch(succeeded).increment(1);
        self.attempts.send_modify(|attempts| *attempts += 1);
        succeeded
    }

    fn adopt(&self, mut keys: KeySet, older: &Arc<KeySet>) -> Arc<KeySet> {
        if !keys.succeed(older) {
            return Arc::clone(older);
        }
        self.absent.invalidate_all();
        tracing::info!(key_set.keys = keys.len(), key_set.left_out = ?keys.left_out(), "Key set changed");
        Arc::new(keys)
    }
}

impl State {
    fn is_trusted(&self, config: &KeySetConfig) -> bool {
        self.fetched.is_some_and(|at| at.elapsed() <= config.max_age)
    }
}

/// The client for the key set. It follows no redirect: the address is configured, not discovered.
pub fn key_set_client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("mimir-tenant-proxy/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Fetches the key set once, within the configured time.
pub async fn fetch(config: &KeySetConfig, client: &reqwest::Client) -> Result<KeySet, String> {
    let late = |_| format!("no answer within {:?}", config.fetch_timeout);
    let document =
        timeout(config.fetch_timeout, download(config, client)).await.map_err(late)??;
    KeySet::parse(&document)
}

async fn download(config: &KeySetConfig, client: &reqwest::Client) -> Result<Vec<u8>, String> {
    let mut response =
        client.get(config.url.clone()).send().await.map_err(|error| causes(&error))?;
    if response.status() != http::StatusCode::OK {
        return Err(format!("answered {}", response.status()));
    }
    let mut document = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| causes(&error))? {
        if document.len() + piece.len() > MAX_DOCUMENT_BYTES {
            return Err(format!("longer than {MAX_DOCUMENT_BYTES} bytes"));
        }
        document.extend_from_slice(&piece);
    }
    Ok(document)
}
