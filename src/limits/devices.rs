//! The devices of one organisation: an account for each, on each surface where devices have a limit.
//!
//! A device is what the credential says: the device key, or the subject of a token. A service is none.
//! Where devices have no limit, a request costs one look at a flag here. Accounts are bounded: those that
//! owe nothing are forgotten, and devices without an account of their own share one, which is as strict as
//! that of a single device.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use super::account::{Account, BySurface, LIMITED, QueueShare, limits_of};
use super::{LimitError, Whose};
use crate::authn::{Identity, Principal};
use crate::config::{LimitsBySurface, SurfaceLimits};
use crate::request_body::ReceivedBytes;
use crate::route::Surface;
use crate::tenancy::{DeviceId, UserId};

/// Who has limits of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    /// A device key.
    Key(DeviceId),
    /// The subject of a token: a device that has one, or a person.
    Subject(UserId),
}

/// Devices of one organisation with an account; as many as may have a key.
const MOST: usize = 10_000;
/// Of all organisations.
const MOST_OF_ALL: usize = 100_000;
/// Maps, each with a lock of its own.
const SHARDS: usize = 16;

pub(super) struct Devices {
    surfaces: BySurface<OfSurface>,
    burst: Mutex<Duration>,
    /// Accounts here, and of all organisations.
    count: AtomicUsize,
    of_all: Arc<AtomicUsize>,
}

struct OfSurface {
    /// Whether devices have any limit.
    is_limited: std::sync::atomic::AtomicBool,
    limits: RwLock<SurfaceLimits>,
    /// Made for the first device.
    accounts: OnceLock<Box<Shards>>,
    /// Of devices that found no room for their own.
    shared: OnceLock<Arc<Account>>,
}

struct Shards {
    maps: [Mutex<HashMap<Device, Arc<Account>>>; SHARDS],
    hasher: RandomState,
}

/// What a request holds of its device's account. Dropping it frees the slot and charges the bytes.
pub(super) struct DeviceSlot {
    account: Arc<Account>,
    began: Instant,
    received: Option<ReceivedBytes>,
}

impl Device {
    /// The device that a principal is; a service is none.
    pub(super) fn of(principal: &Principal) -> Option<Self> {
        match principal.identity() {
            Identity::Device(device) => Some(Self::Key(device.id())),
            Identity::User(user) => Some(Self::Subject(user.id())),
            Identity::Service(_) => None,
        }
    }

    /// As principals are named in logs and answers.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Key(_) => "device",
            Self::Subject(_) => "user",
        }
    }

    /// Its identifier there.
    pub fn id(self) -> uuid::Uuid {
        match self {
            Self::Key(DeviceId(id)) | Self::Subject(UserId(id)) => id,
        }
    }
}

impl OfSurface {
    fn new(limits: SurfaceLimits) -> Self {
        Self {
            is_limited: (limits != SurfaceLimits::default()).into(),
            limits: RwLock::new(limits),
            accounts: OnceLock::new(),
            shared: OnceLock::new(),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Mutex<HashMap<Device, Arc<Account>>>> {
        self.accounts.get().into_iter().flat_map(|shards| &shards.maps)
    }
}

impl Shards {
    fn of(&self, device: &Device) -> &Mutex<HashMap<Device, Arc<Account>>> {
        let hash = self.hasher.hash_one(device);
        &self.maps[usize::try_from(hash % SHARDS as u64).unwrap_or(0)]
    }
}

impl Devices {
    pub(super) fn new(limits: &LimitsBySurface, burst: Duration, of_all: Arc<AtomicUsize>) -> Self {
        Self {
            surfaces: BySurface::new(|surface| OfSurface::new(*limits_of(limits, surface))),
            burst: Mutex::new(burst),
            count: AtomicUsize::new(0),
            of_all,
        }
    }

    /// The account of a device; none where devices have no limit.
    pub(super) fn account(&self, surface: Surface, device: Device) -> Option<Arc<Account>> {
        let of = self.surfaces.of(surface);
        if !of.is_limited.load(Relaxed) {
            return None;
        }
        let shards = of.accounts.get_or_init(|| {
            let maps = std::array::from_fn(|_| Mutex::default());
            Box::new(Shards { maps, hasher: RandomState::new() })
        });
        let mut map = shards.of(&device).lock();
        if let Some(account) = map.get(&device) {
            return Some(Arc::clone(account));
        }
        // Read with the map locked: `adopt` writes the limits and then goes through the maps.
        let new = || Arc::new(Account::new(&of.limits.read(), *self.burst.lock()));
        if self.count.load(Relaxed) >= MOST || self.of_all.load(Relaxed) >= MOST_OF_ALL {
            return Some(Arc::clone(of.shared.get_or_init(new)));
        }
        self.count.fetch_add(1, Relaxed);
        self.of_all.fetch_add(1, Relaxed);
        Some(Arc::clone(map.entry(device).or_insert_with(new)))
    }

    pub(super) fn adopt(&self, limits: &LimitsBySurface, burst: Duration, now: Duration) {
        *self.burst.lock() = burst;
        for surface in LIMITED {
            let (of, limits) = (self.surfaces.of(surface), *limits_of(limits, surface));
            *of.limits.write() = limits;
            of.is_limited.store(limits != SurfaceLimits::default(), Relaxed);
            for account in of.all().flat_map(|map| map.lock().values().cloned().collect::<Vec<_>>())
            {
                account.adopt(&limits, burst, now);
            }
            if let Some(shared) = of.shared.get() {
                shared.adopt(&limits, burst, now);
            }
        }
    }

    /// Whether no device owes anything.
    pub(super) fn is_idle(&self, now: Duration) -> bool {
        LIMITED.into_iter().all(|surface| {
            let of = self.surfaces.of(surface);
            let is_idle = |map: &Mutex<HashMap<Device, Arc<Account>>>| {
                map.lock().values().all(|account| account.owes_nothing(now))
            };
            of.all().all(is_idle) && of.shared.get().is_none_or(|shared| shared.owes_nothing(now))
        })
    }

    /// Forgets devices that owe nothing and have nothing in flight: a new account would be the same.
    pub(super) fn tidy(&self, now: Duration) {
        for map in LIMITED.into_iter().flat_map(|surface| self.surfaces.of(surface).all()) {
            let mut map = map.lock();
            let before = map.len();
            // A request in flight holds its account.
            map.retain(|_, account| Arc::strong_count(account) > 1 || !account.owes_nothing(now));
            let gone = before - map.len();
            if map.capacity() > 4 * map.len().max(16) {
                map.shrink_to_fit();
            }
            drop(map);
            self.count.fetch_sub(gone, Relaxed);
            self.of_all.fetch_sub(gone, Relaxed);
        }
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        self.of_all.fetch_sub(*self.count.get_mut(), Relaxed);
    }
}

impl DeviceSlot {
    /// Waits for a slot and for the device's turn.
    pub(super) async fn take(
        account: Arc<Account>,
        began: Instant,
        deadline: Instant,
        share: QueueShare<'_>,
    ) -> Result<Self, LimitError> {
        if !account.take_slot(deadline, share).await {
            return Err(LimitError::InFlight { whose: Whose::Device });
        }
        let slot = Self { account, began, received: None };
        if slot.account.has_rates() {
            slot.account.wait_for_device_rates(began, deadline, share).await?;
        }
        Ok(slot)
    }

    /// With the bytes to be charged in the end.
    pub(super) fn charging(mut self, received: Option<ReceivedBytes>) -> Self {
        self.received = received;
        self
    }
}

impl Drop for DeviceSlot {
    fn drop(&mut self) {
        self.account.give_back();
        self.account.charge(self.began, self.received.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use uuid::Uuid;

    use super::*;
    use crate::limits::account::Queue;

    fn limits(push: SurfaceLimits) -> LimitsBySurface {
        let none = SurfaceLimits::default();
        LimitsBySurface { push, otlp: none, query: none, rules: none, alerts: none }
    }

    fn rate(per_second: u64) -> LimitsBySurface {
        let requests_per_second = NonZeroU64::new(per_second);
        limits(SurfaceLimits { requests_per_second, ..SurfaceLimits::default() })
    }

    fn key() -> Device {
        Device::Key(DeviceId(Uuid::new_v4()))
    }

    fn devices(limits: &LimitsBySurface) -> (Devices, Arc<AtomicUsize>) {
        let of_all = Arc::new(AtomicUsize::new(0));
        (Devices::new(limits, Duration::from_secs(1), Arc::clone(&of_all)), of_all)
    }

    #[test]
    fn without_a_limit_there_are_no_accounts() {
        let (devices, of_all) = devices(&rate(1));
        assert!(devices.account(Surface::Query, key()).is_none());
        assert!(devices.account(Surface::Push, key()).is_some());
        assert_eq!(of_all.load(Relaxed), 1);
        devices.adopt(&rate(0), Duration::from_secs(1), Duration::ZERO);
        assert!(devices.account(Surface::Push, key()).is_none());
        drop(devices);
        assert_eq!(of_all.load(Relaxed), 0);
    }

    // A key and a token's subject with the same UUID are two devices.
    #[test]
    fn each_device_has_its_own_account() {
        let (devices, _) = devices(&rate(1));
        let id = Uuid::new_v4();
        let [one, other] = [Device::Key(DeviceId(id)), Device::Subject(UserId(id))]
            .map(|device| devices.account(Surface::Push, device).unwrap());
        assert!(!Arc::ptr_eq(&one, &other));
        let again = devices.account(Surface::Push, Device::Key(DeviceId(id))).unwrap();
        assert!(Arc::ptr_eq(&one, &again));
    }

    // Ever new devices must not take memory, and must not escape their limit by it.
    #[tokio::test(start_paused = true)]
    async fn devices_beyond_the_bound_share_an_account_until_there_is_room() {
        let (devices, of_all) = devices(&rate(1));
        let (began, queue, own) = (Instant::now(), Queue::new(100), AtomicUsize::new(0));
        let take = async |account: Option<Arc<Account>>| {
            DeviceSlot::take(account.unwrap(), began, Instant::now(), queue.seen_by(&own)).await
        };
        for _ in 0..MOST {
            drop(take(devices.account(Surface::Push, key())).await.ok().unwrap());
        }
        assert_eq!(of_all.load(Relaxed), MOST);
        let passed = async |count: usize| {
            let mut passed = 0;
            for _ in 0..count {
                passed += usize::from(take(devices.account(Surface::Push, key())).await.is_ok());
            }
            passed
        };
        assert_eq!((passed(100).await, of_all.load(Relaxed)), (1, MOST));
        // Whoever owes something is not forgotten.
        devices.tidy(began.elapsed());
        assert_eq!(of_all.load(Relaxed), MOST);
        tokio::time::advance(Duration::from_secs(2)).await;
        devices.tidy(began.elapsed());
        assert_eq!((of_all.load(Relaxed), devices.is_idle(began.elapsed())), (0, true));
        assert_eq!(passed(100).await, 100);
    }

    // What a device has in flight counts on when the accounts are tidied.
    #[tokio::test(start_paused = true)]
    async fn a_device_with_a_request_in_flight_is_not_forgotten() {
        let in_flight = std::num::NonZeroUsize::new(1);
        let (devices, _) = devices(&limits(SurfaceLimits { in_flight, ..Default::default() }));
        let (began, queue, own) = (Instant::now(), Queue::new(100), AtomicUsize::new(0));
        let device = key();
        let take = async || {
            let account = devices.account(Surface::Push, device).unwrap();
            DeviceSlot::take(account, began, Instant::now(), queue.seen_by(&own)).await
        };
        let slot = take().await;
        assert!(slot.is_ok());
        devices.tidy(began.elapsed());
        let busy = LimitError::InFlight { whose: Whose::Device };
        assert_eq!(take().await.err(), Some(busy));
        drop(slot);
        assert!(take().await.is_ok());
    }
}
