//! Now: a [`Grant`] -> a [`Permit`], if the organisation has not more going on already than it may
//! have at once. Forwarding takes a permit and holds it until the answer has ended.
//!
//! Each organisation has its own account on each surface: how many requests are in flight, how many
//! come in a second, how many bytes. A request waits a little for its turn, without its body being
//! read, before it is refused. Copies of the proxy do not know of one another: limits are those of
//! one copy.

mod account;
mod rate;
mod shares;

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::task::Poll;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::time::Instant;

use crate::authz::Grant;
use crate::config::OrganisationsConfig;
use crate::route::Surface;
use crate::telemetry::Metrics;
use crate::tenancy::OrganisationId;
use account::{Accounts, Place, Queue, Waiting};
use shares::{Holders, NoShare, Share, Shares};

/// The limits of one copy of the proxy, shared by its workers.
pub struct Limits {
    config: OrganisationsConfig,
    /// Places for all organisations together.
    shares: Arc<Shares>,
    /// Those who wait for a place of their own organisation's.
    queue: Queue,
    /// Requests that wait before they ask for a permit.
    unproven: AtomicUsize,
    accounts: RwLock<HashMap<OrganisationId, Arc<Accounts>>>,
    began: Instant,
    metrics: Arc<Metrics>,
}

/// Permission to go on now.
pub struct Permit {
    grant: Grant,
    hold: Hold,
}

/// What a permit holds, as long as the request goes on. Dropped, it makes room for another one.
pub struct Hold(#[expect(dead_code, reason = "it is there to be dropped")] Box<Held>);

struct Held {
    _place: Place,
    /// Of the other organisations of a federated read.
    _others: Vec<Place>,
    _share: Share,
}

/// What there is too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// Requests of the organisation a second.
    Requests {
        /// When there is room again.
        retry_after: Duration,
    },
    /// Bytes of the organisation a second.
    Bytes {
        /// When there is room again.
        retry_after: Duration,
    },
    /// Requests of the organisation that are in flight.
    InFlight {
        /// Of this surface.
        surface: Surface,
    },
    /// Requests of the organisation that are in flight, of its share of what all may have.
    Share,
    /// Requests in flight of all organisations.
    All,
}

/// Accounts of this many organisations are kept before those that say nothing are looked for.
const FEW: usize = 1024;

/// Less is no wait but the work itself.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

impl Limits {
    /// Limits as they are configured, and how many requests upstream takes at the moment.
    pub fn new(
        config: OrganisationsConfig,
        upstream_places: impl Fn() -> usize + Send + Sync + 'static,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (most, percent) = (config.in_flight, config.organisation_percent);
        Self {
            shares: Arc::new(Shares::new(most, percent, Box::new(upstream_places))),
            queue: Queue::new(most),
            unproven: AtomicUsize::new(0),
            config,
            accounts: RwLock::default(),
            began: Instant::now(),
            metrics,
        }
    }

    /// Requests that have a permit.
    pub fn in_flight(&self) -> usize {
        self.shares.taken()
    }

    /// Does a step that comes before a permit, such as finding out who asks. Most do not wait; those
    /// that do are bounded in number, because what their clients send meanwhile is in our memory.
    pub async fn before_permit<T>(&self, step: impl Future<Output = T>) -> Result<T, Excess> {
        let mut step = pin!(step);
        let at_once = poll_fn(|cx| Poll::Ready(step.as_mut().poll(cx))).await;
        if let Poll::Ready(done) = at_once {
            return Ok(done);
        }
        let waiting = Waiting::begin(&self.unproven, self.config.in_flight);
        let _waiting = waiting.ok_or(Excess::All)?;
        Ok(step.await)
    }

    /// Lets a request in, perhaps after a while. What its body brings is counted in `received`.
    pub async fn admit(
        &self,
        grant: Grant,
        received: Option<Arc<AtomicU64>>,
    ) -> Result<Permit, Excess> {
        let (surface, asked) = (grant.route().surface, Instant::now());
        let deadline = asked + self.config.max_wait;
        let place = async |organisation: &OrganisationId, received| {
            let accounts = self.accounts_of(organisation);
            accounts.place(surface, deadline, &self.queue, received).await
        };
        let (first, others) = match grant.organisations() {
            [one] => (place(one, received).await?, Vec::new()),
            several => {
                // In one order, so that two who wait for one another's places cannot be.
                let mut several: Vec<&OrganisationId> = several.iter().collect();
                several.sort();
                let mut places = Vec::with_capacity(several.len());
                for organisation in several {
                    places.push(place(organisation, None).await?);
                }
                (places.pop().ok_or(Excess::All)?, places)
            }
        };
        let holders =
            Holders { first: first.holding(), others: others.iter().map(Place::holding).collect() };
        let share = self.shares.enter(holders, deadline).await;
        let waited = asked.elapsed();
        if waited >= SHORTEST_WAIT {
            self.metrics.permit_waits.record(waited.as_secs_f64());
        }
        let share = share.map_err(|none| match none {
            NoShare::Own => Excess::Share,
            NoShare::All => Excess::All,
        })?;
        let held = Held { _place: first, _others: others, _share: share };
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
            // Before it grows: a place holds its account, so one that nobody holds has no place taken.
            accounts.retain(|_, one| Arc::strong_count(one) > 1 || !one.is_rested());
        }
        let new = || {
            let limits = self.config.overrides.get(organisation).unwrap_or(&self.config.each);
            Arc::new(Accounts::new(limits, self.config.burst, self.began))
        };
        Arc::clone(accounts.entry(organisation.clone()).or_insert_with(new))
    }
}

impl Permit {
    /// What was granted.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// What is to be kept until the answer has ended.
    pub fn into_hold(self) -> Hold {
        self.hold
    }
}

impl Excess {
    /// Every label that [`Excess::reason`] can give.
    pub const REASONS: [&'static str; 5] =
        ["request_rate", "byte_rate", "requests_in_flight", "organisation_share", "overloaded"];

    /// A label for metrics and logs.
    pub fn reason(self) -> &'static str {
        let [requests, bytes, in_flight, share, all] = Self::REASONS;
        match self {
            Self::Requests { .. } => requests,
            Self::Bytes { .. } => bytes,
            Self::InFlight { .. } => in_flight,
            Self::Share => share,
            Self::All => all,
        }
    }
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Requests { .. } => "the organisation sends more requests a second than it may",
            Self::Bytes { .. } => "the organisation sends more bytes a second than it may",
            Self::InFlight { .. } => "the organisation has as many requests in flight as it may",
            Self::Share => "the organisation has its share of all requests in flight; try again",
            Self::All => "all places for requests are taken; try again",
        })
    }
}
