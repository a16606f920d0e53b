//! Accounts: slots and rates on each surface, of one organisation and of each of its devices.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::devices::{Device, DeviceSlot, Devices};
use super::rate::Rate;
use super::shares::Holding;
use super::slots::Slots;
use super::{LimitError, Whose};
use crate::config::{LimitsBySurface, OrganisationLimits, SurfaceLimits};
use crate::request_body::{Expected, ReceivedBytes, UploadShare};
use crate::route::Surface;

pub(super) struct Accounts {
    /// Its part of the slots for all organisations.
    pub(super) holding: Arc<Holding>,
    /// Its part of the upload buffer.
    pub(super) uploads: Arc<UploadShare>,
    /// What may still come of its bodies.
    pub(super) expected: Arc<Expected>,
    /// The beginning of time for the rates.
    began: Instant,
    own: BySurface<Account>,
    pub(super) devices: Devices,
    /// Requests that wait for one of the organisation's slots, by surface.
    waiting: BySurface<AtomicUsize>,
    /// Requests that wait for their device's slot or rate. They block no other of the organisation's.
    waiting_devices: AtomicUsize,
}

/// Requests that may wait, for each slot.
const MAX_WAITING_PER_SLOT: usize = 4;

/// So many may wait for their rate where there is no limit on slots.
const MOST_WAITING_FOR_RATES: usize = 64;

/// The requests of all organisations that wait for a slot of their own organisation. What they have
/// sent of their bodies is in our memory, so their number is bounded.
pub(super) struct Queue {
    waiting: AtomicUsize,
    most: AtomicUsize,
}

impl Queue {
    pub(super) fn new(most: usize) -> Self {
        Self { waiting: AtomicUsize::new(0), most: AtomicUsize::new(most) }
    }

    pub(super) fn resize(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Its part for one group of an organisation's requests, of which `own` counts those that wait.
    pub(super) fn seen_by<'a>(&'a self, own: &'a AtomicUsize) -> QueueShare<'a> {
        QueueShare { queue: self, own }
    }
}

/// Room to wait, for one group of an organisation's requests: those of one surface, or of its devices.
#[derive(Clone, Copy)]
pub(super) struct QueueShare<'a> {
    queue: &'a Queue,
    own: &'a AtomicUsize,
}

impl<'a> QueueShare<'a> {
    /// Reserves room to wait. One group of an organisation's requests may have as many waiting as there is room left,
    /// so one group alone gets at most half, and a few that want as much as they can get leave some to everybody else.
    fn take(self) -> Option<[Waiting<'a>; 2]> {
        let most = self.queue.most.load(Ordering::Relaxed);
        let (all, waiting) = Waiting::among(&self.queue.waiting);
        let (own, own_waiting) = Waiting::among(self.own);
        (own < most.saturating_sub(all)).then_some([waiting, own_waiting])
    }
}

/// One thing for each surface that has limits.
pub(super) struct BySurface<T> {
    push: T,
    otlp: T,
    query: T,
    rules: T,
    alerts: T,
}

/// The surfaces that have limits.
pub(super) const LIMITED: [Surface; 5] =
    [Surface::Push, Surface::Otlp, Surface::Query, Surface::Rules, Surface::Alerts];

impl<T> BySurface<T> {
    pub(super) fn new(of: impl Fn(Surface) -> T) -> Self {
        let [push, otlp, query, rules, alerts] = LIMITED.map(of);
        Self { push, otlp, query, rules, alerts }
    }

    pub(super) fn of(&self, surface: Surface) -> &T {
        match surface {
            Surface::Push => &self.push,
            Surface::Otlp => &self.otlp,
            Surface::Query => &self.query,
            Surface::Alerts => &self.alerts,
            // Nothing of /admin is forwarded.
            Surface::Rules | Surface::Admin => &self.rules,
        }
    }
}

pub(super) fn limits_of(limits: &LimitsBySurface, surface: Surface) -> &SurfaceLimits {
    let LimitsBySurface { push, otlp, query, rules, alerts } = limits;
    match surface {
        Surface::Push => push,
        Surface::Otlp => otlp,
        Surface::Query => query,
        Surface::Alerts => alerts,
        Surface::Rules | Surface::Admin => rules,
    }
}

/// The account of one surface, of an organisation or of one of its devices.
pub(super) struct Account {
    slots: Slots,
    waiting: AtomicUsize,
    requests: Rate,
    bytes: Rate,
}

/// A slot of an organisation, and one of the device. Dropping it frees them and charges the bytes of the
/// request.
pub(super) struct Slot {
    accounts: Arc<Accounts>,
    surface: Surface,
    /// Bytes of its body so far, from the moment at which it has its permit: what is refused is not charged.
    received: Option<ReceivedBytes>,
    device: Option<DeviceSlot>,
}

impl Accounts {
    pub(super) fn new(
        limits: &OrganisationLimits,
        burst: Duration,
        began: Instant,
        all_devices: &Arc<AtomicUsize>,
    ) -> Self {
        Self {
            holding: Arc::default(),
            uploads: Arc::default(),
            expected: Arc::default(),
            began,
            own: BySurface::new(|surface| Account::new(limits_of(&limits.all, surface), burst)),
            devices: Devices::new(&limits.device, burst, Arc::clone(all_devices)),
            waiting: BySurface::new(|_| AtomicUsize::new(0)),
            waiting_devices: AtomicUsize::new(0),
        }
    }

    /// Applies new limits. Requests in flight keep their slots, and debts stay.
    pub(super) fn adopt(&self, limits: &OrganisationLimits, burst: Duration) {
        let now = self.began.elapsed();
        for surface in LIMITED {
            self.own.of(surface).adopt(limits_of(&limits.all, surface), burst, now);
        }
        self.devices.adopt(&limits.device, burst, now);
    }

    /// Waits for a slot for a request: first one of its device's, so that a device over its own limit
    /// takes nothing of its organisation's.
    pub(super) async fn slot(
        self: Arc<Self>,
        surface: Surface,
        device: Option<Device>,
        deadline: Instant,
        queue: &Queue,
    ) -> Result<Slot, LimitError> {
        let device = match device.and_then(|device| self.devices.account(surface, device)) {
            None => None,
            Some(account) => {
                let share = queue.seen_by(&self.waiting_devices);
                let slot = DeviceSlot::take(account, self.began, deadline, share);
                Some(slot.await?)
            }
        };
        let share = queue.seen_by(self.waiting.of(surface));
        if !self.own.of(surface).take_slot(deadline, share).await {
            return Err(LimitError::InFlight { whose: Whose::Organisation });
        }
        let slot = Slot { accounts: self, surface, received: None, device };
        // With a slot in hand, so that no more requests than there are slots wait for the rates.
        let accounts = &slot.accounts;
        let account = accounts.own.of(surface);
        account.wait_for_rates(Whose::Organisation, accounts.began, deadline).await?;
        Ok(slot)
    }

    /// Requests in flight on each surface, where there are any.
    pub(super) fn in_flight(&self) -> Vec<(Surface, usize)> {
        let used = LIMITED.map(|surface| (surface, self.own.of(surface).slots.taken()));
        used.into_iter().filter(|(_, used)| *used > 0).collect()
    }

    #[cfg(test)]
    pub(super) fn slots_on(&self, surface: Surface) -> usize {
        self.own.of(surface).slots.size()
    }

    /// Whether nothing is charged: a new account would be the same.
    pub(super) fn is_idle(&self) -> bool {
        let now = self.began.elapsed();
        let owes_nothing = |surface| self.own.of(surface).owes_nothing(now);
        self.uploads.is_empty()
            && self.expected.bytes() == 0
            && LIMITED.into_iter().all(owes_nothing)
            && self.devices.is_idle(now)
    }

    /// Forgets devices that owe nothing.
    pub(super) fn tidy(&self) {
        self.devices.tidy(self.began.elapsed());
    }
}

impl Account {
    pub(super) fn new(limits: &SurfaceLimits, burst: Duration) -> Self {
        Self {
            slots: Slots::new(limits.in_flight),
            waiting: AtomicUsize::new(0),
            requests: Rate::new(limits.requests_per_second, burst),
            bytes: Rate::new(limits.bytes_per_second, burst),
        }
    }

    pub(super) fn adopt(&self, limits: &SurfaceLimits, burst: Duration, now: Duration) {
        self.slots.resize(limits.in_flight);
        self.requests.change(now, limits.requests_per_second, burst);
        self.bytes.change(now, limits.bytes_per_second, burst);
    }

    pub(super) fn owes_nothing(&self, now: Duration) -> bool {
        self.requests.is_idle(now) && self.bytes.is_idle(now)
    }

    pub(super) fn give_back(&self) {
        self.slots.give_back();
    }

    pub(super) fn charge(&self, began: Instant, received: Option<&ReceivedBytes>) {
        if self.bytes.is_limited() {
            self.bytes.charge(began.elapsed(), received.map_or(0, ReceivedBytes::get));
        }
    }

    pub(super) async fn wait_for_rates(
        &self,
        whose: Whose,
        began: Instant,
        deadline: Instant,
    ) -> Result<(), LimitError> {
        if !self.bytes.is_limited() && !self.requests.is_limited() {
            return Ok(());
        }
        let now = Instant::now();
        let (at, most) = (now - began, deadline.saturating_duration_since(now));
        let owed = self.bytes.take(at, 0, most);
        let owed = owed.map_err(|retry_after| LimitError::Bytes { whose, retry_after })?;
        let turn = self.requests.take(at, 1, most);
        let turn = turn.map_err(|retry_after| LimitError::Requests { whose, retry_after })?;
        let wait = owed.max(turn);
        if !wait.is_zero() {
            sleep(wait).await;
        }
        Ok(())
    }

    /// First come, first served.
    pub(super) async fn take_slot(&self, deadline: Instant, share: QueueShare<'_>) -> bool {
        if self.slots.try_take() {
            return true;
        }
        let most = self.slots.size().saturating_mul(MAX_WAITING_PER_SLOT);
        let Some(_waiting) = Waiting::begin(&self.waiting, most) else { return false };
        let Some(_room) = share.take() else { return false };
        self.slots.take(deadline).await
    }

    /// Of a device: its requests that wait for a rate hold no slot of the organisation, so their number
    /// has to be bounded here.
    pub(super) async fn wait_for_device_rates(
        &self,
        began: Instant,
        deadline: Instant,
        share: QueueShare<'_>,
    ) -> Result<(), LimitError> {
        let most = self.slots.size().min(MOST_WAITING_FOR_RATES);
        let waiting = Waiting::begin(&self.waiting, most);
        let room = share.take();
        let may_wait = waiting.is_some() && room.is_some();
        let deadline = if may_wait { deadline } else { Instant::now() };
        self.wait_for_rates(Whose::Device, began, deadline).await
    }

    pub(super) fn has_rates(&self) -> bool {
        self.requests.is_limited() || self.bytes.is_limited()
    }
}

impl Slot {
    /// With the bytes that are charged in the end. To be called when nothing refuses the request any more: its
    /// sender comes back when it was told to, and would find that each refusal has put the time off.
    pub(super) fn charging(mut self, received: Option<ReceivedBytes>) -> Self {
        self.device = self.device.take().map(|slot| slot.charging(received.clone()));
        self.received = received;
        self
    }

    /// What the organisation holds of the slots for all.
    pub(super) fn holding(&self) -> Arc<Holding> {
        Arc::clone(&self.accounts.holding)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let account = self.accounts.own.of(self.surface);
        account.give_back();
        account.charge(self.accounts.began, self.received.as_ref());
    }
}

pub(super) struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    /// `None` if too many are waiting already.
    pub(super) fn begin(count: &'a AtomicUsize, most: usize) -> Option<Self> {
        let (others, waiting) = Self::among(count);
        (others < most).then_some(waiting)
    }

    /// How many are waiting already, and one more.
    fn among(count: &'a AtomicUsize) -> (usize, Self) {
        (count.fetch_add(1, Ordering::Relaxed), Self(count))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU64, NonZeroUsize};

    use uuid::Uuid;

    use super::*;
    use crate::tenancy::DeviceId;

    const MS: Duration = Duration::from_millis(1);

    fn accounts(limits: SurfaceLimits) -> Arc<Accounts> {
        let mut each = OrganisationLimits::default();
        each.all.push = limits;
        accounts_of(&each)
    }

    fn accounts_of(limits: &OrganisationLimits) -> Arc<Accounts> {
        let (burst, devices) = (Duration::from_secs(1), Arc::default());
        Arc::new(Accounts::new(limits, burst, Instant::now(), &devices))
    }

    fn limits(in_flight: usize, requests: u64, bytes: u64) -> SurfaceLimits {
        let (requests_per_second, bytes_per_second) =
            (NonZeroU64::new(requests), NonZeroU64::new(bytes));
        let in_flight = NonZeroUsize::new(in_flight);
        SurfaceLimits { in_flight, requests_per_second, bytes_per_second }
    }

    async fn slot(
        accounts: &Arc<Accounts>,
        wait: Duration,
        bytes: u64,
    ) -> Result<Slot, LimitError> {
        slot_of(accounts, None, wait, bytes).await
    }

    async fn slot_of(
        accounts: &Arc<Accounts>,
        device: Option<Device>,
        wait: Duration,
        bytes: u64,
    ) -> Result<Slot, LimitError> {
        let received = Some(ReceivedBytes::of(bytes));
        let (deadline, queue) = (Instant::now() + wait, Queue::new(1000));
        let slot = Arc::clone(accounts).slot(Surface::Push, device, deadline, &queue).await;
        slot.map(|slot| slot.charging(received))
    }

    fn device() -> Device {
        Device::Key(DeviceId(Uuid::new_v4()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_that_is_given_back_is_the_next_one_s() {
        let (accounts, began) = (accounts(limits(1, 0, 0)), Instant::now());
        let first = slot(&accounts, MS, 0).await.unwrap();
        let busy = LimitError::InFlight { whose: Whose::Organisation };
        assert_eq!(slot(&accounts, MS, 0).await.err(), Some(busy));
        assert_eq!(began.elapsed(), MS, "it waited for as long as it may");
        let second = slot(&accounts, 100 * MS, 0);
        let giving_back = async {
            sleep(50 * MS).await;
            drop(first);
        };
        let (second, ()) = tokio::join!(second, giving_back);
        assert!(second.is_ok());
        assert_eq!(began.elapsed(), 51 * MS);
    }

    #[tokio::test(start_paused = true)]
    async fn not_more_wait_than_may_and_whoever_gives_up_waits_no_more() {
        let (accounts, began) = (accounts(limits(1, 0, 0)), Instant::now());
        let _first = slot(&accounts, MS, 0).await.unwrap();
        let waiting = (0..5).map(|_| async {
            let refused = slot(&accounts, 10 * MS, 0).await.is_err();
            (refused, began.elapsed())
        });
        let waited = futures_util::future::join_all(waiting).await;
        assert!(waited.iter().all(|(refused, _)| *refused));
        assert_eq!(waited.iter().filter(|(_, after)| after.is_zero()).count(), 1, "{waited:?}");
        assert_eq!(accounts.own.push.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_are_charged_when_they_have_come() {
        let (accounts, began) = (accounts(limits(9, 0, 1000)), Instant::now());
        drop(slot(&accounts, MS, 5000).await.unwrap());
        let refused = slot(&accounts, MS, 0).await.err();
        let (whose, retry_after) = (Whose::Organisation, Duration::from_secs(4));
        assert_eq!(refused, Some(LimitError::Bytes { whose, retry_after }));
        assert!(!accounts.is_idle());
        let waited = slot(&accounts, Duration::from_secs(5), 0).await;
        assert!(waited.is_ok());
        assert_eq!(began.elapsed(), Duration::from_secs(4));
    }

    // Each refusal was charged the bytes that had come, after its Retry-After was computed: a fleet that came back when
    // it was told was refused for ever.
    #[tokio::test(start_paused = true)]
    async fn what_is_refused_is_not_charged() {
        let mut each = OrganisationLimits::default();
        each.all.push = limits(9, 0, 1000);
        each.device.push = limits(9, 0, 10_000);
        let (accounts, hub) = (accounts_of(&each), Some(device()));
        drop(slot_of(&accounts, hub, MS, 5000).await.unwrap());
        for _ in 0..100 {
            assert!(slot_of(&accounts, hub, MS, 20_000).await.is_err());
        }
        tokio::time::advance(Duration::from_secs(4)).await;
        assert!(slot_of(&accounts, hub, MS, 0).await.is_ok());
        // One that had its slot and is refused by what follows.
        let (deadline, queue) = (Instant::now() + MS, Queue::new(1000));
        let slot = Arc::clone(&accounts).slot(Surface::Push, hub, deadline, &queue).await;
        drop(slot);
        assert!(slot_of(&accounts, hub, MS, 0).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_too_many_waits_for_its_turn() {
        let (accounts, began) = (accounts(limits(9, 2, 0)), Instant::now());
        for turn in [0, 0, 500, 1000] {
            drop(slot(&accounts, Duration::from_secs(1), 0).await.unwrap());
            assert_eq!(began.elapsed(), turn * MS);
        }
        assert!(slot(&accounts, MS, 0).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn surfaces_do_not_wait_for_one_another() {
        let accounts = accounts(limits(1, 0, 0));
        let _push = slot(&accounts, MS, 0).await.unwrap();
        let (deadline, queue) = (Instant::now() + MS, Queue::new(1000));
        let query = Arc::clone(&accounts).slot(Surface::Query, None, deadline, &queue).await;
        assert!(query.is_ok());
    }

    // Many organisations with a few waiting requests each must not fill the memory together.
    #[tokio::test(start_paused = true)]
    async fn only_so_many_of_all_organisations_wait() {
        let queue = Queue::new(3);
        let all: Vec<_> = (0..5).map(|_| accounts(limits(1, 0, 0))).collect();
        let (began, deadline) = (Instant::now(), Instant::now() + 10 * MS);
        let slot = |accounts: &Arc<Accounts>| {
            Arc::clone(accounts).slot(Surface::Push, None, deadline, &queue)
        };
        let _taken = futures_util::future::join_all(all.iter().map(slot)).await;
        let waiting = all.iter().map(|accounts| async {
            assert!(slot(accounts).await.is_err());
            began.elapsed()
        });
        let waited = futures_util::future::join_all(waiting).await;
        assert_eq!(waited.iter().filter(|waited| waited.is_zero()).count(), 2, "{waited:?}");
        assert_eq!(queue.waiting.load(Ordering::Relaxed), 0);
    }

    // Seen: one organisation has as many waiting as may wait on its surfaces together, which were more than may wait of
    // all, so the others were refused where they had to wait for a moment.
    #[tokio::test(start_paused = true)]
    async fn an_organisation_that_has_all_wait_leaves_room_to_others() {
        let (greedy, others) = (accounts(limits(50, 0, 0)), accounts(limits(1, 0, 0)));
        let (queue, deadline) = (Queue::new(100), Instant::now() + 10 * MS);
        let slot = |accounts: &Arc<Accounts>| {
            Arc::clone(accounts).slot(Surface::Push, None, deadline, &queue)
        };
        let mut taken = Vec::new();
        for _ in 0..50 {
            taken.push(slot(&greedy).await.unwrap());
        }
        let one = slot(&others).await.unwrap();
        let flood = futures_util::future::join_all((0..200).map(|_| slot(&greedy)));
        let waited = async {
            let before = Instant::now();
            let (next, ()) = tokio::join!(slot(&others), async {
                sleep(MS).await;
                assert_eq!(greedy.waiting.of(Surface::Push).load(Ordering::Relaxed), 50);
                drop(one);
            });
            assert!(next.is_ok());
            before.elapsed()
        };
        let (refused, waited) = tokio::join!(flood, waited);
        assert!(refused.iter().all(Result::is_err));
        assert_eq!(waited, MS);
        let [greedy, others] = [&greedy, &others].map(|one| one.waiting.of(Surface::Push));
        let left = [&queue.waiting, greedy, others];
        assert!(left.iter().all(|one| one.load(Ordering::Relaxed) == 0));
    }

    // A broken hub in a loop: what it is refused costs its organisation nothing, and its neighbours pass.
    #[tokio::test(start_paused = true)]
    async fn a_device_over_its_limit_takes_nothing_of_its_organisation_s() {
        let mut each = OrganisationLimits::default();
        each.all.push = limits(9, 20, 0);
        each.device.push = limits(1, 2, 1000);
        let accounts = accounts_of(&each);
        let (broken, other) = (Some(device()), Some(device()));
        let none = Duration::ZERO;
        let mut refused = 0;
        for _ in 0..100 {
            let slot = slot_of(&accounts, broken, none, 0).await;
            if let Err(error) = slot {
                let (whose, retry_after) = (Whose::Device, Duration::from_millis(500));
                assert_eq!(error, LimitError::Requests { whose, retry_after });
                refused += 1;
            }
        }
        assert_eq!(refused, 98);
        // Of the organisation's burst of 20 the broken one has used 2.
        let others: Vec<_> = (0..9).map(|_| Some(device())).collect();
        for one in others.iter().chain(&others) {
            assert!(slot_of(&accounts, *one, none, 0).await.is_ok());
        }
        let whose = Whose::Organisation;
        let over = slot_of(&accounts, other, none, 0).await.err();
        let retry_after = Duration::from_millis(50);
        assert_eq!(over, Some(LimitError::Requests { whose, retry_after }));
        // One in flight, and bytes that are charged when they have come.
        tokio::time::advance(Duration::from_secs(10)).await;
        let held = slot_of(&accounts, broken, none, 3000).await;
        let busy = LimitError::InFlight { whose: Whose::Device };
        assert_eq!(slot_of(&accounts, broken, none, 0).await.err(), Some(busy));
        drop(held);
        let (whose, retry_after) = (Whose::Device, Duration::from_secs(2));
        let over = slot_of(&accounts, broken, none, 0).await.err();
        assert_eq!(over, Some(LimitError::Bytes { whose, retry_after }));
        assert!(slot_of(&accounts, other, none, 0).await.is_ok());
        assert!(!accounts.is_idle());
    }

    // Those of one device that wait for their turn hold no slot of the organisation, and are few.
    #[tokio::test(start_paused = true)]
    async fn only_so_many_of_a_device_wait_for_its_rate() {
        let mut each = OrganisationLimits::default();
        each.all.push = limits(1, 0, 0);
        each.device.push = limits(0, 100, 0);
        let accounts = accounts_of(&each);
        let (broken, began, second) = (Some(device()), Instant::now(), Duration::from_secs(1));
        for _ in 0..100 {
            drop(slot_of(&accounts, broken, second, 0).await.unwrap());
        }
        let waiting = (0..200).map(|_| async {
            let slot = slot_of(&accounts, broken, second, 0).await;
            (slot.is_ok(), began.elapsed())
        });
        let others = async {
            sleep(MS).await;
            for _ in 0..20 {
                assert!(slot_of(&accounts, Some(device()), Duration::ZERO, 0).await.is_ok());
            }
        };
        let (waited, ()) = tokio::join!(futures_util::future::join_all(waiting), others);
        let at_once = waited.iter().filter(|(_, after)| after.is_zero()).count();
        assert_eq!(at_once, 200 - MOST_WAITING_FOR_RATES);
        assert_eq!(waited.iter().filter(|(passed, _)| *passed).count(), MOST_WAITING_FOR_RATES);
    }

    // What changes holds for accounts that exist: also for a device whose debt would last for hours.
    #[tokio::test(start_paused = true)]
    async fn new_limits_hold_at_once() {
        let mut each = OrganisationLimits::default();
        each.device.push = limits(0, 0, 1);
        let (accounts, broken) = (accounts_of(&each), Some(device()));
        drop(slot_of(&accounts, broken, MS, 10_000).await.unwrap());
        let refused = slot_of(&accounts, broken, MS, 0).await.err();
        let (whose, retry_after) = (Whose::Device, Duration::from_secs(9999));
        assert_eq!(refused, Some(LimitError::Bytes { whose, retry_after }));
        each.device.push = limits(0, 0, 10_000);
        accounts.adopt(&each, Duration::from_secs(1));
        assert!(slot_of(&accounts, broken, MS, 0).await.is_ok());
        each.all.push = limits(1, 0, 0);
        each.device.push = limits(0, 0, 0);
        accounts.adopt(&each, Duration::from_secs(1));
        let held = slot_of(&accounts, broken, MS, 0).await;
        assert!(held.is_ok() && slot(&accounts, MS, 0).await.is_err());
        each.all.push = limits(2, 0, 0);
        accounts.adopt(&each, Duration::from_secs(1));
        assert!(slot(&accounts, MS, 0).await.is_ok());
    }
}
