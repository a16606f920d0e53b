//! Makes a [`Permit`] from a [`Grant`], if the organisation, and the device that asks, are within their
//! limits. Forwarding takes a permit, which is held until the response has ended.
//!
//! Each organisation has an account on each surface: requests in flight, requests per second, bytes
//! per second; and each of its devices has one where devices have limits. A request waits for a short
//! time before it is refused; of its body, only what the upload buffer has room for is read before it
//! has a permit. The limits are those of one copy: copies of the proxy do not coordinate.
//!
//! Limits come from the configuration and from [rows], and change while they are used. Before any of
//! them, [admission] sheds requests while memory is short, and a worker those that it is too [late](lag) for.

mod account;
mod admission;
mod devices;
mod hits;
mod lag;
mod memory;
mod rate;
mod report;
mod rows;
mod shares;
mod slots;

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use http_body::SizeHint;
use parking_lot::{Mutex, RwLock};
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

use crate::authz::Grant;
use crate::config::{LimitKeys, MemoryLimit, OrganisationsConfig, OwnLimits};
use crate::reason::{HasReason, Reason};
use crate::request_body::{ExpectedBody, ReceivedBytes, UploadBuffer, UploadRoom};
use crate::route::{Route, Surface};
use crate::telemetry::Metrics;
use crate::tenancy::OrganisationId;
pub use devices::Device;
pub use hits::Refused;
pub use lag::Lag;
pub use report::{DeviceUse, LimitsReport, OrganisationUse, RowsReport};
pub use rows::RowFault;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use rows::fuzzing;

use account::{Accounts, Queue, Slot, Waiting};
use admission::Admission;
use hits::Hits;
use rows::Rows;
use shares::{Holders, NoShare, Share, Shares};

/// The limits of one copy of the proxy, shared by its workers.
pub struct Limits {
    config: ArcSwap<OrganisationsConfig>,
    admission: Admission,
    /// What the database says.
    rows: Rows,
    /// Slots for all organisations together.
    shares: Arc<Shares>,
    /// For bodies of requests that have no permit yet.
    uploads: Arc<UploadBuffer>,
    /// Requests that wait for a slot of their own organisation.
    queue: Queue,
    /// Requests that wait before they ask for a permit.
    unproven: AtomicUsize,
    accounts: RwLock<HashMap<OrganisationId, Arc<Accounts>>>,
    /// Held while changed limits are taken over: what was read first must not be written last.
    applying: Mutex<()>,
    /// Devices with an account, of all organisations.
    devices: Arc<AtomicUsize>,
    /// Who was refused.
    hits: Hits,
    began: Instant,
    metrics: Arc<Metrics>,
}

/// Proof that the request may be forwarded.
pub struct Permit {
    grant: Grant,
    slots: HeldSlots,
}

/// What a permit holds until the response has ended. Dropping it frees the slots.
pub struct HeldSlots(#[expect(dead_code, reason = "it is there to be dropped")] Box<Held>);

struct Held {
    _slot: Slot,
    /// Of the other organisations of a federated read.
    _others: Vec<Slot>,
    _share: Share,
}

/// Which limit is exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitError {
    /// Requests per second.
    Requests {
        whose: Whose,
        /// When the next request fits.
        retry_after: Duration,
    },
    /// Bytes per second.
    Bytes {
        whose: Whose,
        /// When the next request fits.
        retry_after: Duration,
    },
    /// Requests in flight.
    InFlight { whose: Whose },
    /// The organisation's share of all requests in flight.
    Share,
    /// Requests in flight, or waiting, of all organisations.
    All,
    /// The memory of the process.
    Memory,
    /// The processor of the worker.
    Processor,
}

/// Whose limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    Organisation,
    Device,
}

/// Where a limit comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum LimitSource {
    Default,
    Config,
    Database,
}

/// The limits of one organisation, and where they come from.
#[derive(Clone, Copy, Debug)]
struct Resolved {
    own: OwnLimits,
    from_rows: LimitKeys,
}

/// So much may be expected of the bodies of an organisation even without an upload buffer: who streams takes memory,
/// too. It is 64 bodies of 128 KiB, which is the most that is expected of one.
const LEAST_EXPECTED: usize = 8 << 20;

/// With fewer accounts than this, idle ones are not removed.
const ACCOUNTS_KEPT_WHEN_IDLE: usize = 1024;

/// How often devices that owe nothing are forgotten.
const TIDY_INTERVAL: Duration = Duration::from_secs(5);

/// A shorter wait is not recorded: it is the time of the work itself.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

impl Limits {
    /// The configured limits, and how many requests the instances accept at the moment.
    pub fn new(
        config: OrganisationsConfig,
        memory: MemoryLimit,
        upstream_slots: impl Fn() -> usize + Send + Sync + 'static,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (most, percent) = (config.in_flight, config.organisation_percent);
        Self {
            shares: Arc::new(Shares::new(most, percent, Box::new(upstream_slots))),
            uploads: Arc::new(UploadBuffer::new(config.upload_total_bytes)),
            queue: Queue::new(most),
            unproven: AtomicUsize::new(0),
            config: ArcSwap::from_pointee(config),
            admission: Admission::new(memory, Arc::clone(&metrics)),
            rows: Rows::default(),
            accounts: RwLock::default(),
            applying: Mutex::default(),
            devices: Arc::default(),
            hits: Hits::default(),
            began: Instant::now(),
            metrics,
        }
    }

    /// Applies another configuration, to existing accounts as well.
    pub fn reconfigure(&self, config: OrganisationsConfig) {
        self.uploads.resize(config.upload_total_bytes);
        self.shares.resize(config.in_flight, config.organisation_percent);
        self.queue.resize(config.in_flight);
        self.config.store(Arc::new(config));
        self.apply(|_| true);
    }

    /// Sheds what memory, or the worker's processor, is too short for. To be called before anything is read
    /// of a request.
    pub fn shed(&self, route: &Route, lag: &Lag) -> Result<(), LimitError> {
        if lag.sheds(route.priority) {
            return Err(LimitError::Processor);
        }
        let is_shed = self.admission.sheds(route.priority, || self.shares.taken());
        if is_shed { Err(LimitError::Memory) } else { Ok(()) }
    }

    /// What the body of a request may take. Only of a known caller: a body that nobody reads takes nothing,
    /// and whoever only announces many must not have others' requests shed.
    pub fn expect(
        &self,
        grant: &Grant,
        body: &SizeHint,
    ) -> Result<Option<ExpectedBody>, LimitError> {
        let priority = grant.route().priority;
        let own = || match grant.organisations() {
            [first, ..] => {
                let expected = Arc::clone(&self.accounts_of(first).expected);
                (expected, (self.config.load().upload_total_bytes / 2).max(LEAST_EXPECTED))
            }
            [] => (Arc::default(), 0),
        };
        let (is_shed, expected) = self.admission.enter(priority, body, own, || self.shares.taken());
        if is_shed { Err(LimitError::Memory) } else { Ok(expected) }
    }

    fn check_memory(&self, route: &Route) -> Result<(), LimitError> {
        let is_admitted = self.admission.keeps(route.priority, || self.shares.taken());
        if is_admitted { Ok(()) } else { Err(LimitError::Memory) }
    }

    /// Watches the memory and forgets idle devices, until it is cancelled.
    pub async fn run(&self, cancelled: CancellationToken) {
        let tidy = async {
            let mut tick = interval(TIDY_INTERVAL);
            while cancelled.run_until_cancelled(tick.tick()).await.is_some() {
                self.accounts_that(|_| true).iter().for_each(|(_, accounts)| accounts.tidy());
            }
        };
        tokio::join!(tidy, self.admission.run(cancelled.clone()));
    }

    /// Organisations and devices that a limit of their own has refused recently.
    pub fn limited(&self) -> (usize, usize) {
        self.hits.recent()
    }

    /// Devices that are counted at the moment.
    pub fn devices(&self) -> usize {
        self.devices.load(std::sync::atomic::Ordering::Relaxed)
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
        let route = grant.route();
        // What was let in may have grown by more than was expected, and from here on this request takes more.
        self.check_memory(route)?;
        let Route { surface, priority, .. } = *route;
        let asked = Instant::now();
        let deadline = asked + self.config.load().max_wait;
        let device = Device::of(grant.principal());
        let slot = async |organisation: &OrganisationId| {
            let accounts = self.accounts_of(organisation);
            let slot = accounts.slot(surface, device, deadline, &self.queue).await;
            slot.inspect_err(|error| self.note(organisation, device, surface, error))
        };
        let (first, others) = match grant.organisations() {
            [one] => (slot(one).await?, Vec::new()),
            several => {
                // Always in the same order, so that no two requests wait for each other's slots.
                let mut several: Vec<&OrganisationId> = several.iter().collect();
                several.sort();
                let mut slots = Vec::with_capacity(several.len());
                for organisation in several {
                    slots.push(slot(organisation).await?);
                }
                (slots.pop().ok_or(LimitError::All)?, slots)
            }
        };
        let holders =
            Holders { first: first.holding(), others: others.iter().map(Slot::holding).collect() };
        let share = self.shares.enter(holders, priority, deadline).await;
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
                self.note(organisation, device, surface, error);
            }
        })?;
        self.check_memory(route)?;
        let others = others.into_iter().map(|other| other.charging(received.clone())).collect();
        let held = Held { _slot: first.charging(received), _others: others, _share: share };
        Ok(Permit { grant, slots: HeldSlots(Box::new(held)) })
    }

    fn note(
        &self,
        organisation: &OrganisationId,
        device: Option<Device>,
        surface: Surface,
        error: &LimitError,
    ) {
        self.hits.note(organisation, device, surface, error, self.began.elapsed().as_secs());
    }

    /// What the configuration says, and over it what the rows say.
    fn limits_of(&self, organisation: &OrganisationId) -> Resolved {
        let config = self.config.load();
        let mut own = *config.overrides.get(organisation).unwrap_or(&config.each);
        let mut from_rows = OwnLimits::default();
        for value in self.rows.load().of_organisation(organisation) {
            own.set(value);
            from_rows.set(value);
        }
        Resolved { own, from_rows: from_rows.keys }
    }

    /// Applies the current limits to existing accounts.
    fn apply(&self, concerns: impl Fn(&OrganisationId) -> bool) {
        let _alone = self.applying.lock();
        let burst = self.config.load().burst;
        for (organisation, accounts) in self.accounts_that(concerns) {
            accounts.adopt(&self.limits_of(&organisation).own.limits, burst);
        }
    }

    /// Some accounts, without holding the lock that requests take. One that is made meanwhile reads the
    /// limits that hold then.
    fn accounts_that(
        &self,
        concern: impl Fn(&OrganisationId) -> bool,
    ) -> Vec<(OrganisationId, Arc<Accounts>)> {
        let accounts = self.accounts.read();
        let concerned = accounts.iter().filter(|(organisation, _)| concern(organisation));
        concerned.map(|(organisation, one)| (organisation.clone(), Arc::clone(one))).collect()
    }

    fn accounts_of(&self, organisation: &OrganisationId) -> Arc<Accounts> {
        let accounts = self.accounts.read();
        if let Some(accounts) = accounts.get(organisation) {
            return Arc::clone(accounts);
        }
        drop(accounts);
        let mut accounts = self.accounts.write();
        if accounts.len() >= ACCOUNTS_KEPT_WHEN_IDLE && accounts.len() == accounts.capacity() {
            // Before the map grows: a slot holds its account, so an account without other holders
            // has no slot taken.
            accounts.retain(|_, one| Arc::strong_count(one) > 1 || !one.is_idle());
        }
        let new = || {
            let limits = self.limits_of(organisation).own.limits;
            let burst = self.config.load().burst;
            Arc::new(Accounts::new(&limits, burst, self.began, &self.devices))
        };
        Arc::clone(accounts.entry(organisation.clone()).or_insert_with(new))
    }
}

impl Resolved {
    fn source(&self, name: &str) -> LimitSource {
        match (self.from_rows.has(name), self.own.keys.has(name)) {
            (true, _) => LimitSource::Database,
            (false, true) => LimitSource::Config,
            (false, false) => LimitSource::Default,
        }
    }
}

impl Permit {
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    pub fn into_held_slots(self) -> HeldSlots {
        self.slots
    }
}

impl HasReason for LimitError {
    fn reason(&self) -> Reason {
        match self {
            Self::Requests { whose: Whose::Organisation, .. } => Reason::RequestRate,
            Self::Requests { whose: Whose::Device, .. } => Reason::DeviceRequestRate,
            Self::Bytes { whose: Whose::Organisation, .. } => Reason::ByteRate,
            Self::Bytes { whose: Whose::Device, .. } => Reason::DeviceByteRate,
            Self::InFlight { whose: Whose::Organisation } => Reason::RequestsInFlight,
            Self::InFlight { whose: Whose::Device } => Reason::DeviceRequestsInFlight,
            Self::Share => Reason::OrganisationShare,
            Self::All => Reason::Overloaded,
            Self::Memory => Reason::MemoryShort,
            Self::Processor => Reason::ProcessorShort,
        }
    }
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = match self {
            Self::Requests { whose, .. } | Self::Bytes { whose, .. } | Self::InFlight { whose } => {
                match whose {
                    Whose::Organisation => "the organisation",
                    Whose::Device => "the device",
                }
            }
            Self::Share => "the organisation",
            Self::All | Self::Memory | Self::Processor => "the proxy",
        };
        let problem = match self {
            Self::Requests { .. } => "exceeds its requests per second",
            Self::Bytes { .. } => "exceeds its bytes per second",
            Self::InFlight { .. } => "has too many requests in flight",
            Self::Share => "has its share of all requests in flight; try again",
            Self::All => "is overloaded; try again",
            Self::Memory => "is short of memory; try again",
            Self::Processor => "is short of processor time; try again",
        };
        write!(f, "{who} {problem}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Environment};
    use crate::store::LimitRow;

    fn config(limits: &str) -> OrganisationsConfig {
        let text = format!(
            "auth.issuer = \"https://x.example/auth/v1\"\nupstream.urls = [\"http://127.0.0.1:1\"]\n\
             [limits]\n{limits}"
        );
        Config::read(&text, &Environment::default()).unwrap().limits.organisations
    }

    fn row(organisation: &str, name: &str, value: &str) -> LimitRow {
        let [organisation, name, value] = [organisation, name, value].map(str::to_owned);
        LimitRow { organisation, name, value }
    }

    // What changes holds for accounts that exist, whichever of the two has changed.
    #[tokio::test]
    async fn rows_go_before_the_configuration_and_that_before_the_default() {
        let metrics = Arc::new(Metrics::register());
        let first = config("push_in_flight = 5\n[limits.organisations.acme]\nquery_in_flight = 6");
        let limits = Limits::new(first, MemoryLimit::Off, || 100, metrics);
        let [acme, other] = ["acme", "other"].map(|name| OrganisationId::parse(name).unwrap());
        let accounts = [&acme, &other].map(|one| limits.accounts_of(one));
        let sizes = |at: usize| {
            let sizes = [Surface::Push, Surface::Query].map(|one| accounts[at].slots_on(one));
            (sizes[0], sizes[1])
        };
        assert_eq!((sizes(0), sizes(1)), ((5, 6), (5, 128)));
        limits
            .adopt_rows(&[row("acme", "push_in_flight", "7"), row("acme", "query_in_flight", "x")]);
        assert_eq!((sizes(0), sizes(1)), ((7, 6), (5, 128)));
        limits.reconfigure(config("push_in_flight = 8\nin_flight = 50\norganisation_percent = 20"));
        assert_eq!((sizes(0), sizes(1)), ((7, 128), (8, 128)));
        assert_eq!((limits.shares.capacity(), limits.shares.percent()), (50, 20));
        let report = limits.report_of(&acme);
        let source = |name| report.sources.iter().find(|(known, _)| *known == name).unwrap().1;
        assert_eq!(source("push_in_flight"), LimitSource::Database);
        assert_eq!(source("query_in_flight"), LimitSource::Default);
        assert_eq!((report.faults.len(), report.has_own_limits), (1, true));
        assert!(!limits.report_of(&other).has_own_limits);
        limits.adopt_rows(&[]);
        assert_eq!(sizes(0), (8, 128));
    }
}
