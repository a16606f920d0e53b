//! Where keys come from: the issuer's key set, fetched in the background and kept.
//!
//! One task ([`KeySource::run`]) does all fetching, so there is never more than one fetch at a
//! time and no request that goes away can interrupt one. Requests only read the newest set; one
//! with an unknown key may wake the task and wait for its next attempt. What limits this:
//!
//! - a cool-down after a fetch that an unknown key has caused, or that has failed, which no flood
//!   and no empty set gets round;
//! - unknown key IDs are remembered with the time at which they were first seen: one that a later
//!   fetch did not bring is absent, so that one forgotten device with an old token does not cause a
//!   fetch at each request;
//! - an unknown key is the token's fault (401) only if a fetch that began after it was first seen
//!   has not brought it. Until then the fault is ours (503): the set is fetched at the end of the
//!   cool-down, whatever else is asked for meanwhile, so that this takes one cool-down and one fetch
//!   at most. If the fetch fails it stays a 503: senders drop data on a 401;
//! - a cache on the way to the issuer may answer with an old copy of the set. Its `Age` (RFC 9111)
//!   says how old, and the fetch counts as one that began so much earlier. A copy that is older than an earlier one,
//!   by however long, is not adopted. What a newer copy has proved, a later fetch that gets an older one, or none,
//!   does not take back;
//! - only so many requests wait for a fetch at the same time: anybody can name an unknown key;
//! - an empty set after one with keys is believed when it has been empty for a refresh interval. Its
//!   keys are retired at once, and until then the fault is ours, too;
//! - all times are by [`boot_instant`]: after a suspension of the machine the set is as old as it is, and is fetched again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderMap, header};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::jws::Named;
use super::key_set::{KeySet, Lookup, VerificationKey};
use super::refusal::{Refusal, TokenFault};
use crate::backoff::Backoff;
use crate::causes::causes;
use crate::clock::{boot_instant, elapsed_since, rest};
use crate::config::KeySetConfig;
use crate::http_client::{self, ReadError, read_limited};
use crate::telemetry::Metrics;

/// The keys of one issuer, kept fresh.
pub struct KeySource {
    config: Option<KeySetConfig>,
    state: ArcSwap<State>,
    /// Counts attempts, so that a request can wait for the next to end.
    attempts: watch::Sender<u64>,
    wake: Notify,
    /// When a fetch has to begin at the earliest to say something of all unknown keys that are asked for.
    wanted: Mutex<Option<Instant>>,
    /// When the next attempt begins, if nothing asks for an earlier one.
    next: Mutex<Option<Instant>>,
    /// When keys that are in no set were first seen.
    unknown: moka::sync::Cache<String, Instant>,
    /// Places of requests that wait for a fetch.
    waiting: Semaphore,
    metrics: Arc<Metrics>,
}

/// A snapshot of what is known.
#[derive(Default)]
struct State {
    keys: Arc<KeySet>,
    /// When the keys were last fetched.
    fetched: Option<Instant>,
    /// Since when the set has been empty, after one with keys.
    emptied: Option<Instant>,
    last_attempt: Option<Attempt>,
    /// From when the newest copy of the set was that any fetch has brought. The keys are those of this copy.
    newest: Option<Instant>,
    /// A key that was first seen before this, and is in no set, is absent. That is `newest`, but no copy counts as
    /// older than [`OLDEST_COPY`] here.
    proved: Option<Instant>,
    /// That, of copies that were adopted: only such a one confirms that a set is empty.
    confirmed: Option<Instant>,
    /// Until when unknown keys cause no fetch.
    cooling_until: Option<Instant>,
    /// Why the last attempt failed, if it did.
    problem: Option<String>,
}

/// One attempt to fetch the set.
#[derive(Clone, Copy)]
struct Attempt {
    began: Instant,
    succeeded: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Schedule,
    Demand,
}

/// A summary for `/ready` and metrics.
#[derive(Clone, Copy, Debug)]
pub struct KeySourceState {
    /// How long ago the keys were fetched; none if never.
    pub age: Option<Duration>,
    pub keys: usize,
}

/// All that is known of the key set, for operators. Times are how long ago.
#[derive(Clone, Debug)]
pub struct KeySetReport {
    /// None without a key set: only the shared secret is used.
    pub url: Option<String>,
    pub age: Option<Duration>,
    /// Whether it is too old to be used.
    pub is_trusted: bool,
    /// For how long it is used if it cannot be fetched.
    pub max_age: Duration,
    pub refresh_interval: Duration,
    pub last_attempt: Option<Duration>,
    /// Why the last attempt failed, if it did.
    pub problem: Option<String>,
    /// When it is fetched next, at the latest; none before the first attempt has ended.
    pub next_attempt: Option<Duration>,
    /// Name and algorithm of each key.
    pub keys: Vec<(String, String)>,
    /// Keys of the document that are not used, and why.
    pub left_out: Vec<String>,
}

/// How long a copy of the set has been in caches, at most, while all is well: Supabase's edge keeps one for up to ten
/// minutes, a cache behind it as long. A larger value puts off a 401 no further.
const OLDEST_COPY: Duration = Duration::from_secs(20 * 60);
/// The largest `Age`: what a larger one counts as (RFC 9111, 1.2.2).
const LARGEST_AGE: Duration = Duration::from_secs(1 << 31);
/// How long an unknown key ID is remembered after it was last asked for. Were it less than [`OLDEST_COPY`], a key would
/// be seen for the first time again before any copy can be younger, and never be absent.
const UNKNOWN_FOR: Duration = Duration::from_secs(60 * 60);
/// How long after a fetch an absent key causes no further one.
const ABSENT_FOR: Duration = Duration::from_secs(60);
/// Above this a flood pushes its oldest key IDs out; those may cause a fetch again.
const UNKNOWN_KEYS: u64 = 10_000;
/// Requests that wait for a fetch at the same time. Each may hold what its client has sent of a body (24 KiB of an
/// HTTP/2 stream), and takes one of the places of all who wait before their permit.
const MOST_WAITING: usize = 256;
/// Added to the cool-down in `Retry-After`, for the fetch itself.
const FETCH_SPREAD: Duration = Duration::from_secs(1);
/// The largest document that is read.
const MAX_DOCUMENT_BYTES: usize = 256 << 10;
/// How long to wait after a failed attempt, at first and at most.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

impl KeySource {
    /// A source that knows no key yet. Without a configuration it never will (HS256 only).
    pub fn new(config: Option<KeySetConfig>, metrics: Arc<Metrics>) -> Self {
        let unknown =
            moka::sync::Cache::builder().max_capacity(UNKNOWN_KEYS).time_to_idle(UNKNOWN_FOR);
        Self {
            config,
            state: ArcSwap::from_pointee(State::default()),
            attempts: watch::Sender::new(0),
            wake: Notify::new(),
            wanted: Mutex::new(None),
            next: Mutex::new(None),
            unknown: unknown.build(),
            waiting: Semaphore::new(MOST_WAITING),
            metrics,
        }
    }

    /// A source that goes on from another one: what that has fetched is kept if it is from the same place.
    pub fn after(other: &Self, config: Option<KeySetConfig>) -> Self {
        let place =
            |config: &Option<KeySetConfig>| config.as_ref().map(|config| config.url.clone());
        let is_same = place(&other.config) == place(&config);
        let mut next = Self::new(config, Arc::clone(&other.metrics));
        if is_same {
            next.state.store(other.state.load_full());
            // What is absent stays absent.
            next.unknown = other.unknown.clone();
        }
        next
    }

    /// Fetches the set if there is none yet, so that this source can take the place of another.
    pub async fn make_ready(&self, client: &reqwest::Client) -> Result<(), String> {
        let Some(config) = self.config.as_ref().filter(|_| self.state.load().fetched.is_none())
        else {
            return Ok(());
        };
        if self.attempt(config, client, Cause::Schedule).await {
            return Ok(());
        }
        Err(self.state.load().problem.clone().unwrap_or_default())
    }

    /// Whether there is a key set at all, and not only the shared secret.
    pub fn is_configured(&self) -> bool {
        self.config.is_some()
    }

    /// The key that a token names, if the set binds it to the token's algorithm.
    pub(super) async fn find(
        &self,
        id: &str,
        algorithm: Named,
    ) -> Result<Arc<VerificationKey>, Refusal> {
        let Some(config) = &self.config else {
            return Err(Refusal::Token(TokenFault::UnknownKey));
        };
        if let Lookup::Unknown = self.lookup(config, id, algorithm)? {
            let seen = self.unknown.get_with_by_ref(id, boot_instant);
            self.request_fetch(config, seen).await;
            return match self.lookup(config, id, algorithm)? {
                Lookup::Found(key) => Ok(key),
                Lookup::OtherAlgorithm => Err(Refusal::Token(TokenFault::AlgorithmOfKey)),
                Lookup::Unusable => Err(Self::unusable(config)),
                Lookup::Unknown => Err(self.absence(config, id, seen)),
            };
        }
        match self.lookup(config, id, algorithm)? {
            Lookup::Found(key) => Ok(key),
            Lookup::OtherAlgorithm => Err(Refusal::Token(TokenFault::AlgorithmOfKey)),
            Lookup::Unusable => Err(Self::unusable(config)),
            // It has left the set between two looks.
            Lookup::Unknown => Err(Self::pending(config, &self.state.load())),
        }
    }

    /// Why a key is not in the set: only a set from after the key was first seen proves that there is no
    /// such key.
    fn absence(&self, config: &KeySetConfig, id: &str, seen: Instant) -> Refusal {
        let state = self.state.load();
        match state.last_attempt {
            Some(_) if state.proves_absent(seen) && state.is_trusted(config) => {
                // An empty set counts, but is not remembered: it may be a passing mistake.
                if state.keys.is_empty() {
                    self.unknown.invalidate(id);
                }
                if state.is_suddenly_empty(config) && !state.keys.leaves_out(id) {
                    return Self::unavailable(config);
                }
                Refusal::Token(TokenFault::UnknownKey)
            }
            // The issuer has said of it that it is for something else.
            Some(last) if last.succeeded && state.keys.leaves_out(id) => {
                Refusal::Token(TokenFault::UnknownKey)
            }
            Some(last) if last.succeeded => Self::pending(config, &state),
            _ => Self::unavailable(config),
        }
    }

    fn pending(config: &KeySetConfig, state: &State) -> Refusal {
        let left = state
            .cooling_until
            .map_or(config.cool_down, |until| until.saturating_duration_since(boot_instant()));
        Refusal::KeyPending { retry_after: left + FETCH_SPREAD }
    }

    /// Looks into the newest set. One that is too old does not count.
    fn lookup(&self, config: &KeySetConfig, id: &str, algorithm: Named) -> Result<Lookup, Refusal> {
        let state = self.state.load();
        match state.keys.find(id, algorithm) {
            Lookup::Unknown => Ok(Lookup::Unknown),
            known if state.is_trusted(config) => Ok(known),
            _ => Err(Self::unavailable(config)),
        }
    }

    /// Has the set fetched for a key that was first seen at `seen`, and waits for the fetch. During a
    /// cool-down it does not wait: a flood of unknown keys would hold a connection each. Nor does it if
    /// too many wait already, for the same reason.
    async fn request_fetch(&self, config: &KeySetConfig, seen: Instant) {
        let (mut attempts, now) = (self.attempts.subscribe(), boot_instant());
        let deadline = Instant::now() + config.fetch_timeout + Duration::from_secs(1);
        let mut place = None;
        loop {
            let state = self.state.load();
            let wanted = match state.last_attempt {
                Some(last) if state.proves_absent(seen) && last.began + ABSENT_FOR > now => return,
                // What was fetched for it was an old copy, or is a while ago.
                Some(last) if last.has_brought(seen) => now,
                _ => seen,
            };
            if state.has_fetched(wanted) {
                return;
            }
            self.want(wanted);
            if state.is_cooling() {
                return;
            }
            place = place.or_else(|| self.waiting.try_acquire().ok());
            if place.is_none() || timeout_at(deadline, attempts.changed()).await.is_err() {
                return;
            }
        }
    }

    fn want(&self, from: Instant) {
        let mut wanted = self.wanted.lock();
        *wanted = (*wanted).max(Some(from));
        drop(wanted);
        self.wake.notify_one();
    }

    /// Whether an unknown key is still to be looked for.
    fn is_wanted(&self) -> bool {
        let wanted = *self.wanted.lock();
        wanted.is_some_and(|wanted| !self.state.load().has_fetched(wanted))
    }

    /// The token may be good: with a 401 a sender would drop what it has.
    fn unusable(config: &KeySetConfig) -> Refusal {
        Refusal::KeyUnusable { retry_after: config.cool_down }
    }

    fn unavailable(config: &KeySetConfig) -> Refusal {
        Refusal::KeysUnavailable { retry_after: config.cool_down }
    }

    /// Whether keys of the set may still be used: false during an outage that outlasts
    /// `jwks_max_age`.
    pub(super) fn is_trusted(&self) -> bool {
        self.config.as_ref().is_none_or(|config| self.state.load().is_trusted(config))
    }

    pub fn state(&self) -> KeySourceState {
        let state = self.state.load();
        KeySourceState { age: state.fetched.map(elapsed_since), keys: state.keys.len() }
    }

    /// What operators may know. It holds no secret: the keys of the set are public.
    pub fn report(&self) -> KeySetReport {
        let state = self.state.load();
        let config = self.config.as_ref();
        let next = *self.next.lock();
        KeySetReport {
            url: config.map(|config| config.url.to_string()),
            age: state.fetched.map(elapsed_since),
            is_trusted: config.is_none_or(|config| state.is_trusted(config)),
            max_age: config.map(|config| config.max_age).unwrap_or_default(),
            refresh_interval: config.map(|config| config.refresh_interval).unwrap_or_default(),
            last_attempt: state.last_attempt.map(|attempt| elapsed_since(attempt.began)),
            problem: state.problem.clone(),
            next_attempt: next.map(|at| at.saturating_duration_since(boot_instant())),
            keys: state
                .keys
                .names()
                .map(|(id, algorithm)| (id.to_owned(), format!("{algorithm:?}")))
                .collect(),
            left_out: state.keys.left_out().to_vec(),
        }
    }

    /// Fetches at start, unless that has been done, at every interval, and when a request has an unknown key, until it is
    /// cancelled.
    pub async fn run(&self, client: reqwest::Client, cancelled: CancellationToken) {
        let Some(config) = &self.config else { return };
        let longest = LAST_RETRY.min(config.refresh_interval);
        let mut backoff = Backoff::new(FIRST_RETRY.min(longest), longest);
        let mut cause = Cause::Schedule;
        let age = self.state.load().fetched.map(elapsed_since);
        let mut pause = age.map(|age| config.refresh_interval.saturating_sub(age));
        loop {
            if let Some(pause) = pause {
                *self.next.lock() = Some(boot_instant() + pause);
                tokio::select! {
                    () = cancelled.cancelled() => return,
                    () = rest(pause) => cause = Cause::Schedule,
                    () = self.woken() => cause = Cause::Demand,
                }
            }
            let succeeded = self.attempt(config, &client, cause).await;
            pause = Some(if succeeded {
                backoff.reset();
                config.refresh_interval
            } else {
                backoff.next_wait()
            });
        }
    }

    /// Ends when a request wants a fetch and the cool-down is over.
    async fn woken(&self) {
        loop {
            if self.is_wanted() {
                let until = self.state.load().cooling_until;
                let left = until.map(|at| at.saturating_duration_since(boot_instant()));
                match left.filter(|left| !left.is_zero()) {
                    Some(left) => rest(left).await,
                    None => return,
                }
            } else {
                self.wake.notified().await;
            }
        }
    }

    async fn attempt(&self, config: &KeySetConfig, client: &reqwest::Client, cause: Cause) -> bool {
        let began = boot_instant();
        let outcome = fetch_aged(config, client).await;
        let succeeded = outcome.is_ok();
        let older = self.state.load_full();
        let ended = boot_instant();
        let mut state = State {
            keys: Arc::clone(&older.keys),
            fetched: older.fetched,
            newest: older.newest,
            confirmed: older.confirmed,
            proved: older.proved,
            last_attempt: Some(Attempt { began, succeeded }),
            ..State::default()
        };
        match outcome {
            Ok(new) => {
                // The true age: a copy of yesterday does not become a newer one than today's by waiting.
                let from = began.checked_sub(new.age);
                let is_older = older.newest.is_some() && from < older.newest;
                let newest = older.newest.unwrap_or(began);
                // `Age` is in whole seconds, so one copy may seem to be a second older than itself.
                if from.is_none_or(|from| from + OLDEST_COPY < newest) {
                    tracing::warn!(
                        key_set.age_seconds = new.age.as_secs(),
                        key_set.is_adopted = !is_older,
                        url = %config.url,
                        "A cache has answered with an old key set"
                    );
                }
                let counted = began.checked_sub(new.age.min(OLDEST_COPY));
                // A cache's older copy brings no removed key back, and takes no new one away.
                if !is_older {
                    state.keys = adopt(new.keys, &older.keys);
                    state.confirmed = older.confirmed.max(counted);
                }
                state.newest = older.newest.max(from);
                state.proved = older.proved.max(counted);
                state.fetched = Some(ended);
            }
            Err(error) => {
                tracing::warn!(%error, url = %config.url, "Failed to fetch the key set");
                state.problem = Some(error.to_string());
            }
        }
        state.emptied = match (state.keys.is_empty(), older.keys.is_empty()) {
            (true, false) => Some(began),
            (true, true) => older.emptied,
            (false, _) => None,
        };
        // A scheduled fetch starts no cool-down: the first unknown key after it causes a fetch.
        let cools = cause == Cause::Demand || !succeeded;
        state.cooling_until =
            if cools { Some(ended + config.cool_down) } else { older.cooling_until };
        // If one of these is removed later, this set does not prove its absence.
        for id in state.keys.ids() {
            self.unknown.invalidate(id);
        }
        self.state.store(Arc::new(state));
        self.metrics.key_set_fetch(succeeded).increment(1);
        self.attempts.send_modify(|attempts| *attempts += 1);
        succeeded
    }
}

/// Adopts a fetched set, and logs what changed.
fn adopt(mut keys: KeySet, older: &Arc<KeySet>) -> Arc<KeySet> {
    let changed = keys.succeed(older);
    if keys.is_empty() {
        // On Supabase a project that signs with its legacy secret has an empty set.
        tracing::warn!(
            key_set.keys = 0,
            key_set.left_out = keys.left_out().join("; "),
            "Key set has no usable key; only HS256 tokens are accepted"
        );
    } else if keys.len() < older.len() {
        tracing::warn!(
            key_set.keys = keys.len(),
            key_set.keys_before = older.len(),
            key_set.left_out = keys.left_out().join("; "),
            "Key set has fewer usable keys than before"
        );
    } else if changed {
        tracing::info!(
            key_set.keys = keys.len(),
            key_set.left_out = keys.left_out().join("; "),
            "Key set changed"
        );
    }
    // Keys that stay are the same ones, whichever set holds them.
    Arc::new(keys)
}

impl Attempt {
    /// Whether it has brought a set, and began after a time.
    fn has_brought(self, from: Instant) -> bool {
        self.succeeded && self.began >= from
    }
}

impl State {
    /// Whether the last fetch began after a time, and has ended well.
    fn has_fetched(&self, from: Instant) -> bool {
        self.last_attempt.is_some_and(|last| last.has_brought(from))
    }

    /// Whether a key that is in no set, and was first seen at a time, may be called absent.
    fn proves_absent(&self, seen: Instant) -> bool {
        self.proved.is_some_and(|proved| proved >= seen)
    }

    /// Whether the set has been empty for less than a refresh interval, by its newest copy, after one with
    /// keys. An older copy, which is not adopted, does not confirm that it is empty.
    fn is_suddenly_empty(&self, config: &KeySetConfig) -> bool {
        let is_confirmed =
            |time: Instant| self.confirmed.is_some_and(|confirmed| confirmed >= time);
        self.emptied.is_some_and(|since| !is_confirmed(since + config.refresh_interval))
    }

    fn is_cooling(&self) -> bool {
        self.cooling_until.is_some_and(|until| until > boot_instant())
    }

    fn is_trusted(&self, config: &KeySetConfig) -> bool {
        self.fetched.is_some_and(|at| elapsed_since(at) <= config.max_age)
    }
}

pub fn key_set_client() -> Result<reqwest::Client, reqwest::Error> {
    http_client::external().build()
}

/// Why a key set could not be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchError {
    /// The issuer does not answer at the moment.
    Away(String),
    /// It answers, and not with a key set: the address is wrong, or what is there.
    Unfit(String),
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Away(problem) | Self::Unfit(problem)) = self;
        f.write_str(problem)
    }
}

/// What a fetch has brought.
struct Fetched {
    keys: KeySet,
    /// How long it has been in caches on the way, as far as these say.
    age: Duration,
}

/// Fetches the key set once, within the configured time.
pub async fn fetch(config: &KeySetConfig, client: &reqwest::Client) -> Result<KeySet, FetchError> {
    Ok(fetch_aged(config, client).await?.keys)
}

async fn fetch_aged(
    config: &KeySetConfig,
    client: &reqwest::Client,
) -> Result<Fetched, FetchError> {
    let late = |_| FetchError::Away(format!("no answer within {:?}", config.fetch_timeout));
    let (document, age) =
        timeout(config.fetch_timeout, download(config, client)).await.map_err(late)??;
    Ok(Fetched { keys: KeySet::parse(&document).map_err(FetchError::Unfit)?, age })
}

/// A document, and its age.
async fn download(
    config: &KeySetConfig,
    client: &reqwest::Client,
) -> Result<(Vec<u8>, Duration), FetchError> {
    let away = |error: reqwest::Error| FetchError::Away(causes(&error));
    let mut response = client.get(config.url.clone()).send().await.map_err(away)?;
    let status = response.status();
    if status != http::StatusCode::OK {
        let problem = format!("answered {status}");
        return Err(if may_pass(status) {
            FetchError::Away(problem)
        } else {
            FetchError::Unfit(problem)
        });
    }
    let age = age_of(response.headers());
    let document = read_limited(&mut response, MAX_DOCUMENT_BYTES).await;
    let document = document.map_err(|error| match error {
        ReadError::Broken(error) => away(error),
        too_long @ ReadError::TooLong(_) => FetchError::Unfit(too_long.to_string()),
    })?;
    Ok((document, age))
}

/// The value of `Age`, at most [`LARGEST_AGE`]. The header has one value; of several, as a careless cache sends them,
/// the first counts, and none if it is no number (RFC 9111, 5.1).
fn age_of(headers: &HeaderMap) -> Duration {
    let values = headers.get(header::AGE).and_then(|value| value.to_str().ok());
    let first = values.and_then(|values| values.split(',').next()).unwrap_or_default().trim();
    if first.is_empty() || !first.bytes().all(|byte| byte.is_ascii_digit()) {
        return Duration::ZERO;
    }
    // One that does not fit is very old (RFC 9111, 1.2.2).
    first.parse().map_or(LARGEST_AGE, |seconds| Duration::from_secs(seconds).min(LARGEST_AGE))
}

/// Whether a status says that the same request may be answered with a key set later.
fn may_pass(status: http::StatusCode) -> bool {
    use http::StatusCode as S;
    status.is_server_error() || matches!(status, S::REQUEST_TIMEOUT | S::TOO_MANY_REQUESTS)
}

#[cfg(test)]
mod tests;
