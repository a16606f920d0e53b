//! One instance of Mimir, shared by all workers: its number of requests and its health. A request
//! without failures takes no lock.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use http::HeaderValue;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::choice::Candidate;
use super::evidence::Requester;
use super::health::{Change, Health, HealthWord, Millis, Probed, Share, millis};
use crate::config::HealthConfig;
use crate::labels::InstanceFault;
use crate::telemetry::Metrics;

/// What watches all instances.
pub(super) struct Watch {
    config: ArcSwap<HealthConfig>,
    /// `max_in_flight` of it: every request reads it.
    max_in_flight: AtomicU32,
    pub(super) metrics: Arc<Metrics>,
    epoch: Instant,
    /// How many instances there have been.
    ids: AtomicU64,
    /// The number of instances, and of those whose last responses were failures.
    all: AtomicUsize,
    faulty: AtomicUsize,
}

impl Watch {
    pub(super) fn new(config: HealthConfig, metrics: Arc<Metrics>) -> Self {
        let (ids, all, faulty) = Default::default();
        let max_in_flight = AtomicU32::new(config.max_in_flight);
        let config = ArcSwap::from_pointee(config);
        Self { config, max_in_flight, metrics, epoch: Instant::now(), ids, all, faulty }
    }

    pub(super) fn config(&self) -> Arc<HealthConfig> {
        self.config.load_full()
    }

    pub(super) fn set(&self, config: HealthConfig) {
        self.max_in_flight.store(config.max_in_flight, Ordering::Relaxed);
        self.config.store(Arc::new(config));
    }

    pub(super) fn max_in_flight(&self) -> u32 {
        self.max_in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn now(&self) -> Millis {
        millis(self.epoch.elapsed())
    }

    /// Whether half of the others fail in the same way, or there are none to compare with.
    fn is_shared(&self, this_is_faulty: bool) -> bool {
        let others = self.all.load(Ordering::Relaxed).saturating_sub(1);
        let faulty = self.faulty.load(Ordering::Relaxed);
        faulty.saturating_sub(usize::from(this_is_faulty)) * 2 >= others
    }

    fn count(&self, before: HealthWord, after: HealthWord) {
        match (before.is_faulty(), after.is_faulty()) {
            (false, true) => drop(self.faulty.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.faulty.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
    }
}

/// Tells an instance from all others that there are and were, also from one that had the same address and another
/// name: a balancer may have several Mimirs behind one address, and tells them apart by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct InstanceId(u64);

pub(super) struct Instance {
    pub(super) id: InstanceId,
    pub(super) address: SocketAddr,
    /// The value of its `Host` header: the name, not the address.
    pub(super) authority: HeaderValue,
    in_flight: AtomicU32,
    requests: AtomicU64,
    word: AtomicU64,
    on_trial: AtomicBool,
    /// It was removed: connections to it are not kept.
    is_gone: AtomicBool,
    health: Mutex<Health>,
    trouble: Mutex<Trouble>,
    watch: Arc<Watch>,
}

/// What went wrong so far, for operators. Requests without failures do not touch it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trouble {
    pub(super) failures: u64,
    pub(super) last_failure: Option<(InstanceFault, Instant)>,
    pub(super) ejections: u64,
    /// When it was last ejected, or returned.
    pub(super) changed: Option<Instant>,
}

/// A slot at an instance, held while a request uses it.
pub(super) struct InstanceSlot {
    pub(super) instance: Arc<Instance>,
    requester: Requester,
    is_trial: bool,
}

impl Instance {
    /// An instance that was there at the start, or one that was added.
    pub(super) fn new(
        address: SocketAddr,
        authority: HeaderValue,
        is_newcomer: bool,
        watch: &Arc<Watch>,
    ) -> Self {
        let health = if is_newcomer {
            Health::of_newcomer(watch.now(), &watch.config())
        } else {
            Health::default()
        };
        let word = health.word(&watch.config());
        watch.all.fetch_add(1, Ordering::Relaxed);
        watch.count(HealthWord(0), word);
        Self {
            id: InstanceId(watch.ids.fetch_add(1, Ordering::Relaxed)),
            address,
            authority,
            in_flight: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            word: AtomicU64::new(word.0),
            on_trial: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
            health: Mutex::new(health),
            trouble: Mutex::default(),
            watch: Arc::clone(watch),
        }
    }

    /// Notes that it was removed.
    pub(super) fn leave(&self) {
        self.is_gone.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }

    fn word(&self) -> HealthWord {
        HealthWord(self.word.load(Ordering::Relaxed))
    }

    /// The input for a choice.
    pub(super) fn candidate(&self) -> Candidate {
        let word = self.word();
        let share = if word.is_plain() { Share::Whole } else { self.share_now() };
        Candidate {
            in_flight: self.in_flight.load(Ordering::Relaxed),
            share,
            on_trial: self.on_trial.load(Ordering::Relaxed),
        }
    }

    /// Applies what depends on time and on the configuration only.
    pub(super) fn settle(&self) {
        let (now, config) = (self.watch.now(), self.watch.config());
        self.update(|health| health.settle(now, &config));
    }

    fn share_now(&self) -> Share {
        let now = self.watch.now();
        match self.word().share(now, &self.watch.config()) {
            Share::Due => {
                self.settle();
                match self.word().share(now, &self.watch.config()) {
                    Share::Due => Share::Whole,
                    share => share,
                }
            }
            share => share,
        }
    }

    /// Takes a slot; `None` if this is a trial and another one is in flight.
    pub(super) fn enter(
        self: &Arc<Self>,
        requester: Requester,
        is_trial: bool,
    ) -> Option<InstanceSlot> {
        if is_trial && self.on_trial.swap(true, Ordering::Relaxed) {
            return None;
        }
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        Some(InstanceSlot { instance: Arc::clone(self), requester, is_trial })
    }

    fn update(&self, change: impl FnOnce(&mut Health) -> Option<Change>) {
        let mut health = self.health.lock();
        let before = self.word();
        let change = change(&mut health);
        let after = health.word(&self.watch.config());
        self.word.store(after.0, Ordering::Relaxed);
        self.watch.count(before, after);
        drop(health);
        let metrics = &self.watch.metrics;
        if let Some(change) = change {
            let mut trouble = self.trouble.lock();
            trouble.changed = Some(Instant::now());
            trouble.ejections += u64::from(matches!(change, Change::Ejected(..)));
        }
        match change {
            None => {}
            Some(Change::Ejected(why, wait)) => {
                metrics.upstream_ejected(why);
                tracing::warn!(
                    upstream.address = %self.address,
                    reason = <&str>::from(why),
                    wait_ms = millis(wait),
                    "Upstream instance ejected"
                );
            }
            Some(Change::Returned) => {
                metrics.upstream_returns.increment(1);
                tracing::info!(upstream.address = %self.address, "Upstream instance returned");
            }
        }
    }

    fn failed(&self, fault: InstanceFault, requester: Requester) {
        let mut trouble = self.trouble.lock();
        trouble.failures += 1;
        trouble.last_failure = Some((fault, Instant::now()));
        drop(trouble);
        let (now, jitter) = (self.watch.now(), fastrand::f64());
        let shared = self.watch.is_shared(self.word().is_faulty());
        self.update(|health| {
            health.failed(fault, requester, shared, now, &self.watch.config(), jitter)
        });
    }

    /// A response began.
    pub(super) fn answered(&self) {
        let word = self.word();
        if word.is_troubled() || word.is_unreachable() {
            let now = self.watch.now();
            self.update(|health| health.answered(now));
        }
    }

    /// The exchange succeeded.
    pub(super) fn completed(&self) {
        if self.word().is_troubled() {
            self.update(|health| {
                health.completed();
                None
            });
        }
    }

    pub(super) fn probed(&self, found: Probed) {
        let (now, jitter) = (self.watch.now(), fastrand::f64());
        self.update(|health| health.probed(found, now, &self.watch.config(), jitter));
    }

    pub(super) fn is_ejected(&self) -> bool {
        !self.candidate().share.is_used()
    }

    /// Why it is ejected, if it is.
    pub(super) fn why_ejected(&self) -> Option<InstanceFault> {
        if !self.is_ejected() {
            return None;
        }
        self.health.lock().ejected()
    }

    pub(super) fn trouble(&self) -> Trouble {
        *self.trouble.lock()
    }

    /// Its share of the requests, from 0 to 1, and whether it cannot be connected to.
    pub(super) fn share(&self) -> (f64, bool) {
        match self.candidate().share {
            Share::Whole | Share::Due => (1.0, false),
            Share::Part(part) => (part, false),
            Share::Ejected | Share::New { reachable: true } => (0.0, false),
            Share::Unreachable | Share::New { reachable: false } => (0.0, true),
        }
    }

    /// Requests in flight, and requests so far.
    pub(super) fn counts(&self) -> (u32, u64) {
        (self.in_flight.load(Ordering::Relaxed), self.requests.load(Ordering::Relaxed))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.watch.all.fetch_sub(1, Ordering::Relaxed);
        self.watch.count(self.word(), HealthWord(0));
    }
}

impl InstanceSlot {
    /// The request failed, as far as known by the instance's fault.
    pub(super) fn failed(&self, fault: InstanceFault) {
        self.instance.failed(fault, self.requester);
    }

    /// Ends the trial, if it is one: others may try.
    pub(super) fn end_trial(&mut self) {
        if std::mem::take(&mut self.is_trial) {
            self.instance.on_trial.store(false, Ordering::Relaxed);
        }
    }
}

impl Drop for InstanceSlot {
    fn drop(&mut self) {
        self.end_trial();
        self.instance.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
