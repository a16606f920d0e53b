//! [`Directory`]: what the database says of a key (a user, a device key, a session), remembered.
//!
//! The policy, which is the same for everything that is looked up:
//!
//! - *Bounded.* What exists and what does not are remembered apart, so that a flood of unknown
//!   callers cannot push members out.
//! - *One flight.* However many requests ask for a key, it is read once; and keys that are asked for
//!   while a query is under way go into the next one together. So the database sees one query at a
//!   time of each kind, whatever the load.
//! - *Apart.* A row that the database cannot read fails its query. The keys are then asked for in halves,
//!   until it fails alone: whose key it is is [`Unavailable`], and nobody else.
//! - *Invalidated.* A change forgets what was remembered, and a reading that was under way when the
//!   change came is read again, because it may have seen the time before.
//! - *Epochs.* What was read before changes may have been missed ([`Feed::epoch`]) is read again
//!   before it is used.
//! - *Only for somebody.* A key for which nobody waits any more when its turn comes is not read, unless a value of it
//!   is in use; and only so many are asked for at the same time. Anybody can name keys and leave.
//! - *Stale while away.* When the database cannot be read, what was known goes on being used, up to
//!   an age; what was not known is [`Unavailable`], which is ours to blame and never a refusal.

mod cache;
mod flights;

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::config::DatabaseConfig;
use crate::store::{Feed, StoreError};
use crate::telemetry::DirectoryMetrics;

use cache::{Entry, Remembered};
use flights::Flights;

/// A cache in front of one kind of look-up. One for the process and each kind.
pub struct Directory<K, V> {
    remembered: Remembered<K, V>,
    flights: Flights<K, V>,
    queue: mpsc::UnboundedSender<K>,
    policy: CachePolicy,
    feed: Arc<Feed>,
    began: Instant,
    /// Whether the last reading failed.
    failing: AtomicBool,
    /// The feed's epoch when it failed.
    failed_epoch: AtomicU64,
    /// How often everything was expired.
    expiries: AtomicU64,
    /// Until when nothing is tried, in milliseconds since the start.
    resting_until: AtomicU64,
    kind: &'static str,
    metrics: DirectoryMetrics,
}

/// How long what was read may be used.
#[derive(Clone, Copy, Debug)]
pub struct CachePolicy {
    /// How long an existing value is fresh.
    pub ttl: Duration,
    /// How long absence is fresh.
    pub absence_ttl: Duration,
    /// How long an existing value is used while the database is away.
    pub stale_max_age: Duration,
    pub entries: u64,
    /// How long a request waits for a reading.
    pub read_timeout: Duration,
}

#[derive(Clone, Debug)]
pub struct Found<V> {
    /// The thing, if it is there.
    pub value: Option<V>,
    pub origin: Origin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Read,
    /// Remembered for so long.
    Cached(Duration),
    /// Remembered for so long; the database is away.
    Stale(Duration),
}

impl Origin {
    /// How long ago it was read.
    pub fn age(self) -> Duration {
        match self {
            Self::Read => Duration::ZERO,
            Self::Cached(age) | Self::Stale(age) => age,
        }
    }
}

/// The database cannot be read, and nothing is known of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable;

/// The keys that have been asked for, for [`Directory::run`].
pub struct Queue<K>(mpsc::UnboundedReceiver<K>);

/// The longest that anything counts as fresh while the `LISTEN` connection is lost.
const UNWATCHED_TTL: Duration = Duration::from_millis(500);
/// After a failure, the pause before the next attempt.
const REST: Duration = Duration::from_millis(500);
/// The epoch of an entry that has to be read again.
const EXPIRED: u64 = u64::MAX;
/// How long a request waits for a reading where a stale value can be used.
const STALE_READ_TIMEOUT: Duration = Duration::from_secs(1);
/// Keys that are read in one query.
const MOST_AT_ONCE: usize = 1000;
/// For how long a key whose row cannot be read is not asked for again: whoever repeats it fast must
/// not have everybody else's keys asked for in halves.
const UNREADABLE_REST: Duration = Duration::from_secs(2);
/// How often it is logged that a table is empty.
const EMPTY_TOLD: Duration = Duration::from_secs(60);
/// After so many keys of one query of which none could be read, it is taken for the query's fault.
const MOST_UNREADABLE: usize = 16;

impl CachePolicy {
    /// The configured policy.
    pub fn of(config: &DatabaseConfig) -> Self {
        Self {
            ttl: config.cache_ttl,
            absence_ttl: config.absence_ttl,
            stale_max_age: config.stale_max_age,
            entries: config.cache_entries,
            read_timeout: config.connect_timeout + config.query_timeout + Duration::from_secs(1),
        }
    }
}

impl<K, V> Directory<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// An empty directory, and its queue for [`Directory::run`].
    pub fn new(
        kind: &'static str,
        policy: CachePolicy,
        feed: Arc<Feed>,
        metrics: DirectoryMetrics,
    ) -> (Self, Queue<K>) {
        let (queue, asked) = mpsc::unbounded_channel();
        let directory = Self {
            remembered: Remembered::new(policy.entries, policy.ttl.max(policy.stale_max_age)),
            flights: Flights::default(),
            queue,
            policy,
            feed,
            began: clock::boot_instant(),
            failing: AtomicBool::new(false),
            failed_epoch: AtomicU64::new(0),
            expiries: AtomicU64::new(0),
            resting_until: AtomicU64::new(0),
            kind,
            metrics,
        };
        (directory, Queue(asked))
    }

    /// Looks a key up, in the cache or by a reading.
    pub async fn find(&self, key: &K) -> Result<Found<V>, Unavailable> {
        let known = self.remembered.get(key);
        let age = known.as_ref().map(|entry| self.age(entry));
        if let (Some(entry), Some(age)) = (&known, age)
            && self.is_fresh(entry, age)
        {
            self.metrics.hits.increment(1);
            return Ok(Found { value: entry.value.clone(), origin: Origin::Cached(age) });
        }
        // Only what exists is used beyond its time: an unknown user may have become a member.
        let stale = known
            .zip(age)
            .filter(|(entry, age)| entry.value.is_some() && *age <= self.policy.stale_max_age);
        if self.is_away() {
            // No request waits for a database that is away, but now and then it is tried.
            self.try_again(key);
            if let Some((entry, age)) = &stale {
                return Ok(self.stale(entry, *age));
            }
            self.metrics.unavailable.increment(1);
            return Err(Unavailable);
        }
        // A known key waits less: the database may be away without our knowing it yet.
        let read_timeout = match stale {
            Some(_) => self.policy.read_timeout.min(STALE_READ_TIMEOUT),
            None => self.policy.read_timeout,
        };
        if let Some(waiting) = self.ask(key, stale.is_some())
            && let Ok(Ok(Some(entry))) = timeout(read_timeout, waiting).await
        {
            self.metrics.reads.increment(1);
            return Ok(Found { value: entry.value, origin: Origin::Read });
        }
        // It may have changed while we waited; then nothing is known any more.
        if let Some((entry, age)) = stale.filter(|_| self.knows(key)) {
            return Ok(self.stale(&entry, age));
        }
        self.metrics.unavailable.increment(1);
        Err(Unavailable)
    }

    /// The same by a reading that begins now, whatever is remembered.
    pub async fn find_again(&self, key: &K) -> Result<Found<V>, Unavailable> {
        self.flights.taint(key, || self.remembered.remove(key));
        self.find(key).await
    }

    /// Has a key read in the background, unless that was tried a moment ago.
    fn try_again(&self, key: &K) {
        if self.is_resting() {
            return;
        }
        self.rest();
        if self.flights.ensure(key.clone()) {
            self.send(key.clone());
        }
    }

    /// Whether the last reading failed, and nothing has come back since; or whether it is known by
    /// other means that nothing can be read.
    fn is_away(&self) -> bool {
        let has_failed = self.failing.load(Ordering::Relaxed)
            && self.failed_epoch.load(Ordering::Relaxed) == self.feed.epoch();
        has_failed || self.feed.is_away()
    }

    /// Pauses attempts for a moment.
    fn rest(&self) {
        let until = u64::try_from((self.now() + REST).as_millis()).unwrap_or(u64::MAX);
        self.resting_until.store(until, Ordering::Relaxed);
    }

    fn knows(&self, key: &K) -> bool {
        self.remembered.get(key).is_some()
    }

    /// None if too many others are asked for.
    fn ask(&self, key: &K, is_known: bool) -> Option<oneshot::Receiver<Option<Entry<V>>>> {
        let joined = self.flights.join(key.clone(), is_known)?;
        if joined.is_first {
            self.send(key.clone());
        }
        Some(joined.entry)
    }

    fn send(&self, key: K) {
        // The queue ends only with the process.
        let _ = self.queue.send(key);
    }

    fn stale(&self, entry: &Entry<V>, age: Duration) -> Found<V> {
        self.metrics.stale.increment(1);
        Found { value: entry.value.clone(), origin: Origin::Stale(age) }
    }

    /// The time since the beginning; while the machine is suspended it goes on.
    fn now(&self) -> Duration {
        clock::elapsed_since(self.began)
    }

    fn age(&self, entry: &Entry<V>) -> Duration {
        self.now().saturating_sub(entry.read_at)
    }

    fn is_fresh(&self, entry: &Entry<V>, age: Duration) -> bool {
        let ttl = if entry.value.is_some() { self.policy.ttl } else { self.policy.absence_ttl };
        let ttl = if self.feed.is_connected() { ttl } else { ttl.min(UNWATCHED_TTL) };
        entry.epoch == self.epoch() && age < ttl
    }

    /// Entries of another epoch are read again. Both parts only grow, so their sum stays the same only
    /// if both do.
    fn epoch(&self) -> u64 {
        self.feed.epoch() + self.expiries.load(Ordering::Relaxed)
    }

    fn is_resting(&self) -> bool {
        let until = Duration::from_millis(self.resting_until.load(Ordering::Relaxed));
        // When the `LISTEN` connection is back, so is the database.
        self.is_away() && self.now() < until
    }

    /// Has a key read again. Unlike after [`Directory::invalidate`], its value still counts as stale
    /// while the database is away.
    pub fn expire(&self, key: &K) {
        self.metrics.invalidations.increment(1);
        self.flights.taint(key, || match self.remembered.get(key) {
            Some(entry) if entry.value.is_some() => {
                self.remembered.put(key.clone(), Entry { epoch: EXPIRED, ..entry });
            }
            _ => self.remembered.remove(key),
        });
    }

    /// Has everything read again, likewise.
    pub fn expire_all(&self) {
        self.metrics.invalidations.increment(1);
        self.expiries.fetch_add(1, Ordering::Relaxed);
    }

    /// Forgets a key that has changed.
    pub fn invalidate(&self, key: &K) {
        self.metrics.invalidations.increment(1);
        self.flights.taint(key, || self.remembered.remove(key));
    }

    pub fn invalidate_all(&self) {
        self.metrics.invalidations.increment(1);
        self.flights.taint_all(|| self.remembered.clear());
    }

    /// Reads what is asked for, until it is cancelled. `read` gets some keys and says what it found;
    /// what it leaves out is not there.
    pub async fn run<F>(
        &self,
        mut asked: Queue<K>,
        read: impl Fn(Vec<K>) -> F,
        cancelled: CancellationToken,
    ) where
        F: Future<Output = Result<HashMap<K, V>, StoreError>>,
    {
        // When it was seen that the row of a key cannot be read.
        let mut unreadable: HashMap<K, Instant> = HashMap::new();
        let mut empty_told: Option<Instant> = None;
        loop {
            let mut keys = Vec::new();
            tokio::select! {
                () = cancelled.cancelled() => return,
                key = asked.0.recv() => match key {
                    Some(key) => self.take(key, &mut asked.0, &mut keys),
                    None => return,
                },
            }
            unreadable.retain(|_, seen| seen.elapsed() < UNREADABLE_REST);
            let (resting, keys): (Vec<K>, Vec<K>) =
                keys.into_iter().partition(|key| unreadable.contains_key(key));
            self.flights.cancel(&resting);
            let (mut parts, mut refused, mut has_landed) = (vec![keys], 0, false);
            while let Some(mut keys) = parts.pop() {
                if keys.is_empty() {
                    continue;
                }
                let (epoch, feed_epoch) = (self.epoch(), self.feed.epoch());
                let read_at = self.now();
                self.flights.depart(&keys);
                let began = Instant::now();
                let outcome = read(keys.clone()).await;
                self.metrics.duration.record(began.elapsed().as_secs_f64());
                match outcome {
                    Ok(found) => {
                        self.land(keys, &found, read_at, epoch);
                        has_landed = true;
                    }
                    Err(StoreError::Refused(_)) if keys.len() > 1 => {
                        let others = keys.split_off(keys.len() / 2);
                        parts.extend([others, keys]);
                    }
                    // What is known of it stays, as while the database is away.
                    Err(StoreError::Refused(problem))
                        if has_landed || refused < MOST_UNREADABLE =>
                    {
                        tracing::warn!(kind = self.kind, problem, "Invalid row skipped");
                        refused += 1;
                        self.flights.cancel(&keys);
                        unreadable.extend(keys.into_iter().map(|key| (key, Instant::now())));
                    }
                    // What was known of these keys is dropped and does not count as stale: what was removed with the
                    // last row must not be used any more.
                    Err(StoreError::Empty(table)) => {
                        self.note_answer();
                        if empty_told.is_none_or(|at| at.elapsed() >= EMPTY_TOLD) {
                            tracing::warn!(
                                kind = self.kind,
                                table,
                                "Look-ups unanswered: the table is empty"
                            );
                            empty_told = Some(Instant::now());
                        }
                        for key in &keys {
                            self.flights.taint(key, || self.remembered.remove(key));
                        }
                        self.flights.cancel(&keys);
                    }
                    Err(error) => {
                        self.fail(&mut asked.0, &error, feed_epoch);
                        parts.clear();
                    }
                }
            }
        }
    }

    /// Fills the keys of one query from the queue, of which this is the first. Those that were given up do not count,
    /// or a flood of them would make the queue longer with each query.
    fn take(&self, first: K, asked: &mut mpsc::UnboundedReceiver<K>, keys: &mut Vec<K>) {
        let mut next = Some(first);
        while let Some(key) = next {
            if self.flights.take(&key) {
                keys.push(key);
            }
            next = if keys.len() < MOST_AT_ONCE { asked.try_recv().ok() } else { None };
        }
    }

    /// The database has answered.
    fn note_answer(&self) {
        self.feed.note_away(false);
        if self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!(kind = self.kind, "Database look-ups recovered");
        }
    }

    /// What was read is as old as the beginning of its reading.
    fn land(&self, keys: Vec<K>, found: &HashMap<K, V>, read_at: Duration, epoch: u64) {
        self.note_answer();
        for key in keys {
            let entry = Entry { value: found.get(&key).cloned(), read_at, epoch };
            let remember = || self.remembered.put(key.clone(), entry.clone());
            let landed = self.flights.land(&key, &entry, || epoch != self.epoch(), remember);
            if !landed {
                // It changed while it was read.
                self.send(key);
            }
        }
        let remembered = u32::try_from(self.remembered.len()).unwrap_or(u32::MAX);
        self.metrics.entries.set(f64::from(remembered));
    }

    /// Ends all waiting requests, also for keys that are still queued: they would wait for the next
    /// failure.
    fn fail(&self, asked: &mut mpsc::UnboundedReceiver<K>, error: &StoreError, epoch: u64) {
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(kind = self.kind, %error, "Database look-ups fail; using what is cached");
        }
        self.metrics.failures.increment(1);
        if let StoreError::Unreachable(_) = error {
            self.feed.note_away(true);
        }
        self.rest();
        self.failed_epoch.store(epoch, Ordering::Relaxed);
        while asked.try_recv().is_ok() {}
        self.flights.cancel_all();
    }
}

#[cfg(test)]
mod tests;
