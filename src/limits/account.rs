//! The account of one organisation: its slots and rates on each surface.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};

use super::LimitError;
use super::rate::Rate;
use super::shares::Holding;
use crate::config::{OrganisationLimits, SurfaceLimits};
use crate::request_body::{ReceivedBytes, UploadShare};
use crate::route::Surface;

pub(super) struct Accounts {
    /// Its part of the slots for all organisations.
    pub(super) holding: Arc<Holding>,
    /// Its part of the upload buffer.
    pub(super) uploads: Arc<UploadShare>,
    /// The beginning of time for the rates.
    began: Instant,
    push: Account,
    otlp: Account,
    query: Account,
    rules: Account,
    alerts: Account,
}

/// Requests that may wait, for each slot.
const WAITING: usize = 4;

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

    pub(super) fn set_most(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }
}

/// One organisation's account of one surface.
struct Account {
    slots: Arc<Semaphore>,
    /// How many slots there are.
    most: AtomicUsize,
    /// Slots that are in use and that a lower limit has taken away: they end with their requests.
    owed: AtomicUsize,
    waiting: AtomicUsize,
    requests: Rate,
    bytes: Rate,
}

/// A slot of an organisation. Dropping it frees the slot and charges the bytes of the request.
pub(super) struct Slot {
    accounts: Arc<Accounts>,
    surface: Surface,
    /// Bytes of its body so far.
    received: Option<ReceivedBytes>,
    /// `None` once it was dropped.
    in_flight: Option<OwnedSemaphorePermit>,
}

impl Accounts {
    pub(super) fn new(limits: &OrganisationLimits, burst: Duration, began: Instant) -> Self {
        let account = |limits: SurfaceLimits| Account {
            slots: Arc::new(Semaphore::new(limits.in_flight)),
            most: AtomicUsize::new(limits.in_flight),
            owed: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            requests: Rate::new(limits.requests_per_second, burst),
            bytes: Rate::new(limits.bytes_per_second, burst),
        };
        Self {
            holding: Arc::default(),
            uploads: Arc::default(),
            began,
            push: account(limits.push),
            otlp: account(limits.otlp),
            query: account(limits.query),
            rules: account(limits.rules),
            alerts: account(limits.alerts),
        }
    }

    /// Changes the limits. What is in flight, and what is owed, stays. Not to be called concurrently.
    pub(super) fn set(&self, limits: &OrganisationLimits, burst: Duration) {
        let now = self.began.elapsed();
        let OrganisationLimits { push, otlp, query, rules, alerts } = limits;
        self.push.set(push, burst, now);
        self.otlp.set(otlp, burst, now);
        self.query.set(query, burst, now);
        self.rules.set(rules, burst, now);
        self.alerts.set(alerts, burst, now);
    }

    fn of(&self, surface: Surface) -> &Account {
        match surface {
            Surface::Push => &self.push,
            Surface::Otlp => &self.otlp,
            Surface::Query => &self.query,
            Surface::Alerts => &self.alerts,
            // Nothing of /admin is forwarded.
            Surface::Rules | Surface::Admin => &self.rules,
        }
    }

    /// Waits for a slot for a request.
    pub(super) async fn slot(
        self: Arc<Self>,
        surface: Surface,
        deadline: Instant,
        queue: &Queue,
        received: Option<ReceivedBytes>,
    ) -> Result<Slot, LimitError> {
        let slot = self.of(surface).take_slot(deadline, queue).await;
        let slot = slot.ok_or(LimitError::InFlight { surface })?;
        let slot = Slot { accounts: self, surface, received, in_flight: Some(slot) };
        // With a slot in hand, so that no more requests than there are slots wait for the rates.
        let accounts = &slot.accounts;
        accounts.of(surface).wait_for_rates(accounts.began, deadline).await?;
        Ok(slot)
    }

    /// Requests in flight on each surface.
    pub(super) fn in_flight(&self) -> [(Surface, usize); 5] {
        [
            (Surface::Push, self.push.in_flight()),
            (Surface::Otlp, self.otlp.in_flight()),
            (Surface::Query, self.query.in_flight()),
            (Surface::Rules, self.rules.in_flight()),
            (Surface::Alerts, self.alerts.in_flight()),
        ]
    }

    /// Whether nothing is charged: a new account would be the same.
    pub(super) fn is_idle(&self) -> bool {
        let now = self.began.elapsed();
        let Self { holding: _, uploads, began: _, push, otlp, query, rules, alerts } = self;
        let accounts = [push, otlp, query, rules, alerts].into_iter();
        let mut rates = accounts.flat_map(|account| [&account.requests, &account.bytes]);
        uploads.is_empty() && rates.all(|rate| rate.is_idle(now))
    }
}

impl Account {
    fn set(&self, limits: &SurfaceLimits, burst: Duration, now: Duration) {
        self.requests.set(now, limits.requests_per_second, burst);
        self.bytes.set(now, limits.bytes_per_second, burst);
        let before = self.most.swap(limits.in_flight, Ordering::Relaxed);
        if let Some(fewer) = before.checked_sub(limits.in_flight) {
            let free = self.slots.forget_permits(fewer);
            self.owed.fetch_add(fewer - free, Ordering::Relaxed);
        } else {
            let more = limits.in_flight - before;
            let paid = (0..more).take_while(|_| self.pay()).count();
            self.slots.add_permits(more - paid);
        }
    }

    /// Pays back one slot, if one is owed.
    fn pay(&self) -> bool {
        let less = |owed: usize| owed.checked_sub(1);
        self.owed.load(Ordering::Relaxed) > 0
            && self.owed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    fn in_flight(&self) -> usize {
        let all = self.most.load(Ordering::Relaxed) + self.owed.load(Ordering::Relaxed);
        all.saturating_sub(self.slots.available_permits())
    }

    async fn wait_for_rates(&self, began: Instant, deadline: Instant) -> Result<(), LimitError> {
        if self.bytes.per_second().is_none() && self.requests.per_second().is_none() {
            return Ok(());
        }
        let now = Instant::now();
        let (at, most) = (now - began, deadline.saturating_duration_since(now));
        let owed = self.bytes.take(at, 0, most);
        let wait = owed.map_err(|retry_after| LimitError::Bytes { retry_after })?;
        let turn = self.requests.take(at, 1, most);
        let wait = wait.max(turn.map_err(|retry_after| LimitError::Requests { retry_after })?);
        if !wait.is_zero() {
            sleep(wait).await;
        }
        Ok(())
    }

    /// First come, first served.
    async fn take_slot(&self, deadline: Instant, queue: &Queue) -> Option<OwnedSemaphorePermit> {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Some(slot);
        }
        let most = self.most.load(Ordering::Relaxed).saturating_mul(WAITING);
        let _waiting = Waiting::begin(&self.waiting, most)?;
        let _of_all = Waiting::begin(&queue.waiting, queue.most.load(Ordering::Relaxed))?;
        let slot = timeout_at(deadline, Arc::clone(&self.slots).acquire_owned()).await;
        slot.ok()?.ok()
    }
}

impl Slot {
    /// What the organisation holds of the slots for all.
    pub(super) fn holding(&self) -> Arc<Holding> {
        Arc::clone(&self.accounts.holding)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let account = self.accounts.of(self.surface);
        if account.bytes.per_second().is_some() {
            let received = self.received.as_ref().map_or(0, ReceivedBytes::get);
            account.bytes.charge(self.accounts.began.elapsed(), received);
        }
        if account.pay()
            && let Some(slot) = self.in_flight.take()
        {
            slot.forget();
        }
    }
}

pub(super) struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    /// `None` if too many are waiting already.
    pub(super) fn begin(count: &'a AtomicUsize, most: usize) -> Option<Self> {
        let waiting = Self(count);
        (count.fetch_add(1, Ordering::Relaxed) < most).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn accounts(limits: SurfaceLimits) -> Arc<Accounts> {
        let each = OrganisationLimits { push: limits, ..OrganisationLimits::default() };
        Arc::new(Accounts::new(&each, Duration::from_secs(1), Instant::now()))
    }

    fn limits(in_flight: usize, requests: u64, bytes: u64) -> SurfaceLimits {
        let (requests_per_second, bytes_per_second) =
            (NonZeroU64::new(requests), NonZeroU64::new(bytes));
        SurfaceLimits { in_flight, requests_per_second, bytes_per_second }
    }

    async fn slot(
        accounts: &Arc<Accounts>,
        wait: Duration,
        bytes: u64,
    ) -> Result<Slot, LimitError> {
        let received = Some(ReceivedBytes::of(bytes));
        let (deadline, queue) = (Instant::now() + wait, Queue::new(1000));
        Arc::clone(accounts).slot(Surface::Push, deadline, &queue, received).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_that_is_given_back_is_the_next_one_s() {
        let (accounts, began) = (accounts(limits(1, 0, 0)), Instant::now());
        let first = slot(&accounts, MS, 0).await.unwrap();
        let busy = LimitError::InFlight { surface: Surface::Push };
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
        assert_eq!(accounts.push.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_are_charged_when_they_have_come() {
        let (accounts, began) = (accounts(limits(9, 0, 1000)), Instant::now());
        drop(slot(&accounts, MS, 5000).await.unwrap());
        let refused = slot(&accounts, MS, 0).await.err();
        assert_eq!(refused, Some(LimitError::Bytes { retry_after: Duration::from_secs(4) }));
        assert!(!accounts.is_idle());
        let waited = slot(&accounts, Duration::from_secs(5), 0).await;
        assert!(waited.is_ok());
        assert_eq!(began.elapsed(), Duration::from_secs(4));
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
        let query = Arc::clone(&accounts).slot(Surface::Query, deadline, &queue, None).await;
        assert!(query.is_ok());
    }

    // A slot that a request holds when its limit is lowered is gone once the request has ended, and not
    // before: nothing in flight is broken.
    #[tokio::test(start_paused = true)]
    async fn a_limit_that_changes_counts_what_is_in_flight() {
        let accounts = accounts(limits(3, 0, 0));
        let set = |most| {
            let push = limits(most, 0, 0);
            accounts
                .set(&OrganisationLimits { push, ..Default::default() }, Duration::from_secs(1));
        };
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(slot(&accounts, MS, 0).await.unwrap());
        }
        set(1);
        assert_eq!(accounts.push.in_flight(), 3);
        held.truncate(1);
        assert!(slot(&accounts, MS, 0).await.is_err(), "one in flight is all that may be");
        set(4);
        for _ in 0..3 {
            held.push(slot(&accounts, MS, 0).await.unwrap());
        }
        assert!(slot(&accounts, MS, 0).await.is_err());
        set(2);
        set(3);
        held.pop();
        assert!(slot(&accounts, MS, 0).await.is_err(), "three are in flight");
        held.pop();
        assert!(slot(&accounts, MS, 0).await.is_ok());
        held.clear();
        assert_eq!((accounts.push.in_flight(), accounts.push.slots.available_permits()), (0, 3));
    }

    // Many organisations with a few waiting requests each must not fill the memory together.
    #[tokio::test(start_paused = true)]
    async fn only_so_many_of_all_organisations_wait() {
        let queue = Queue::new(3);
        let all: Vec<_> = (0..5).map(|_| accounts(limits(1, 0, 0))).collect();
        let (began, deadline) = (Instant::now(), Instant::now() + 10 * MS);
        let slot = |accounts: &Arc<Accounts>| {
            Arc::clone(accounts).slot(Surface::Push, deadline, &queue, None)
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
}
