//! Makes a [`Permit`] from a [`Grant`], if the organisation is within its limits. Forwarding takes
//! a permit, which is held until the response has ended.
//!
//! Each organisation has an account on each surface: requests in flight, requests per second, bytes
//! per second. A request waits for a short time before it is refused; of its body, only what the
//! upload buffer has room for is read before it has a permit. The limits are those of one copy: copies of the proxy do not coordinate.

mod account;
mod hits;
mod rate;
mod report;
mod shares;

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::RwLock;
use tokio::time::Instant;

use crate::authz::Grant;
use crate::config::OrganisationsConfig;
use crate::reason::{HasReason, Reason};
use crate::request_body::{ReceivedBytes, UploadBuffer, UploadRoom};
use crate::route::Surface;
use crate::telemetry::Metrics;
use crate::tenancy::OrganisationId;
pub use hits::OrganisationHits;
pub use report::{LimitsReport, OrganisationUse};

use account::{Accounts, Queue, Slot, Waiting};
use hits::Hits;
use shares::{Holders, NoShare, Share, Shares};

/// The limits of one copy of the proxy, shared by its workers.
pub struct Limits {
    config: ArcSwap<OrganisationsConfig>,
    /// `max_wait` of it, in nanoseconds: every request reads it.
    max_wait: AtomicU64,
    /// Slots for all organisations together.
    shares: Arc<Shares>,
    /// For bodies of requests that have no permit yet.
    uploads: Arc<UploadBuffer>,
    /// Requests that wait for a slot of their own organisation.
    queue: Queue,
    /// Requests that wait before they ask for a permit.
    unproven: AtomicUsize,
    accounts: RwLock<HashMap<OrganisationId, Arc<Accounts>>>,
    /// Who was refused.
    hits: Hits,
    began: Instant,
    metrics: Arc<Metrics>,
}

/// Proof that the request may be forwarded.
pub struct Permit {
    grant: Grant,
    hold: Hold,
}

/// What a permit holds until the response has ended. Dropping it frees the slots.
pub struct Hold(#[expect(dead_code, reason = "it is there to be dropped")] Box<Held>);

struct Held {
    _slot: Slot,
    /// Of the other organisations of a federated read.
    _others: Vec<Slot>,
    _share: Share,
}

/// Which limit is exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitError {
    /// Requests per second of the organisation.
    Requests {
        /// When the next request fits.
        retry_after: Duration,
    },
    /// Bytes per second of the organisation.
    Bytes {
        /// When the next request fits.
        retry_after: Duration,
    },
    /// Requests in flight of the organisation.
    InFlight { surface: Surface },
    /// The organisation's share of all requests in flight.
    Share,
    /// Requests in flight, or waiting, of all organisations.
    All,
}

/// With fewer accounts than this, idle ones are not removed.
const FEW: usize = 1024;

/// A shorter wait is not recorded: it is the time of the work itself.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

impl Limits {
    /// The configured limits, and how many requests the instances accept at the moment.
    pub fn new(
        config: OrganisationsConfig,
        upstream_slots: impl Fn() -> usize + Send + Sync + 'static,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (most, percent) = (config.in_flight, config.organisation_percent);
        Self {
            shares: Arc::new(Shares::new(most, percent, Box::new(upstream_slots))),
            uploads: Arc::new(UploadBuffer::new(config.upload_total_bytes)),
            queue: Queue::new(most),
            unproven: AtomicUsize::new(0),
            max_wait: AtomicU64::new(nanos(config.max_wait)),
            config: ArcSwap::from_pointee(config),
            accounts: RwLock::default(),
            hits: Hits::default(),
            began: Instant::now(),
            metrics,
        }
    }

    /// Changes the limits. Requests keep their permits, and organisations what they have used.
    pub fn configure(&self, config: OrganisationsConfig) {
        self.shares.set(config.in_flight, config.organisation_percent);
        self.uploads.resize(config.upload_total_bytes);
        self.queue.set_most(config.in_flight);
        self.max_wait.store(nanos(config.max_wait), Relaxed);
        let config = Arc::new(config);
        // With the accounts locked, so that a new one is made by the one or by the other.
        let accounts = self.accounts.write();
        self.config.store(Arc::clone(&config));
        for (organisation, accounts) in accounts.iter() {
            accounts.set(config.limits_of(organisation), config.burst);
        }
    }

    /// Requests that have a permit.
    pub fn in_flight(&self) -> usize {
        self.shares.taken()
    }

    /// Bytes of the upload buffer that are in use.
    pub fn upload_buffer(&self) -> usize {
        self.uploads.used()
    }

    /// Room in the upload buffer for a body, if there is some for its organisation.
    pub fn upload_room(&self, grant: &Grant, bytes: usize) -> Option<UploadRoom> {
        let accounts = self.accounts_of(grant.organisations().first()?);
        let room = self.uploads.take(&accounts.uploads, bytes);
        if room.is_none() {
            self.metrics.uploads_without_buffer.increment(1);
        }
        room
    }

    /// Runs a step that comes before a permit, such as authentication. Most do not wait. The number
    /// of those that wait is bounded, because what their clients send meanwhile takes our memory.
    pub async fn before_permit<T>(&self, step: impl Future<Output = T>) -> Result<T, LimitError> {
        let mut step = pin!(step);
        let at_once = poll_fn(|cx| Poll::Ready(step.as_mut().poll(cx))).await;
        if let Poll::Ready(done) = at_once {
            return Ok(done);
        }
        let waiting = Waiting::begin(&self.unproven, self.config.load().in_flight);
        let _waiting = waiting.ok_or(LimitError::All)?;
        Ok(step.await)
    }

    /// Admits a request, perhaps after a wait. The bytes of its body are counted in `received`.
    pub async fn admit(
        &self,
        grant: Grant,
        received: Option<ReceivedBytes>,
    ) -> Result<Permit, LimitError> {
        let (surface, asked) = (grant.route().surface, Instant::now());
        let deadline = asked + Duration::from_nanos(self.max_wait.load(Relaxed));
        let slot = async |organisation: &OrganisationId, received| {
            let accounts = self.accounts_of(organisation);
            let slot = accounts.slot(surface, deadline, &self.queue, received).await;
            slot.inspect_err(|error| self.hits.note(organisation, surface, error))
        };
        let (first, others) = match grant.organisations() {
            [one] => (slot(one, received).await?, Vec::new()),
            several => {
                // Always in the same order, so that no two requests wait for each other's slots.
                let mut several: Vec<&OrganisationId> = several.iter().collect();
                several.sort();
                let mut slots = Vec::with_capacity(several.len());
                for organisation in several {
                    slots.push(slot(organisation, None).await?);
                }
                (slots.pop().ok_or(LimitError::All)?, slots)
            }
        };
        let holders =
            Holders { first: first.holding(), others: others.iter().map(Slot::holding).collect() };
        let share = self.shares.enter(holders, deadline).await;
        let waited = asked.elapsed();
        if waited >= SHORTEST_WAIT {
            self.metrics.permit_waits.record(waited.as_secs_f64());
        }
        let share = share.map_err(|none| match none {
            NoShare::Own => LimitError::Share,
            NoShare::All => LimitError::All,
        });
        let share = share.inspect_err(|error| {
            for organisation in grant.organisations() {
                self.hits.note(organisation, surface, error);
            }
        })?;
        let held = Held { _slot: first, _others: others, _share: share };
        Ok(Permit { grant, hold: Hold(Box::new(held)) })
    }

    fn accounts_of(&self, organisation: &OrganisationId) -> Arc<Accounts> {
        let accounts = self.accounts.read();
        if let Some(accounts) = accounts.get(organisation) {
            return Arc::clone(accounts);
        }
        drop(accounts);
        let mut accounts = self.accounts.write();
        if accounts.len() >= FEW && accounts.len() == accounts.capacity() {
            // Before the map grows: a slot holds its account, so an account without other holders
            // has no slot taken.
            accounts.retain(|_, one| Arc::strong_count(one) > 1 || !one.is_idle());
        }
        let new = || {
            let config = self.config.load();
            Arc::new(Accounts::new(config.limits_of(organisation), config.burst, self.began))
        };
        Arc::clone(accounts.entry(organisation.clone()).or_insert_with(new))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Permit {
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    pub fn into_hold(self) -> Hold {
        self.hold
    }
}

impl HasReason for LimitError {
    fn reason(&self) -> Reason {
        match self {
            Self::Requests { .. } => Reason::RequestRate,
            Self::Bytes { .. } => Reason::ByteRate,
            Self::InFlight { .. } => Reason::RequestsInFlight,
            Self::Share => Reason::OrganisationShare,
            Self::All => Reason::Overloaded,
        }
    }
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Requests { .. } => "the organisation exceeds its requests per second",
            Self::Bytes { .. } => "the organisation exceeds its bytes per second",
            Self::InFlight { .. } => "the organisation has too many requests in flight",
            Self::Share => "the organisation has its share of all requests in flight; try again",
            Self::All => "the proxy is overloaded; try again",
        })
    }
}
