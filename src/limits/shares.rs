//! Slots for all organisations together. No organisation takes more than its share.
//!
//! The rule is dynamic thresholds for shared buffers (Choudhury and Hahne, 1998): an organisation
//! may take another slot while it holds less than a certain multiple of the *free* slots. Alone it
//! gets the configured part of all; the share shrinks with every other organisation that fills its
//! own, and some slots always stay free for a newcomer. The rule needs no list of active
//! organisations, and no slot is taken back.
//!
//! A request over the share waits until its deadline, in order of arrival within an organisation
//! and round-robin between organisations. While any request waits, all go through the queue, so
//! that a newcomer cannot take the slot that another request has waited for.
//!
//! When slots run out, writes come before reads and reads before lists: the last slots are kept for
//! those that come first, and what waits is served in that order. A sender's buffer is bounded, and a
//! person can reload a page.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use parking_lot::{Mutex, MutexGuard};
use strum::EnumCount as _;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::route::Priority;

/// What one organisation holds.
#[derive(Debug, Default)]
pub(super) struct Holding(AtomicUsize);

/// The organisations of one request: one, or several of a federated read.
#[derive(Clone)]
pub(super) struct Holders {
    pub(super) first: Arc<Holding>,
    pub(super) others: Vec<Arc<Holding>>,
}

/// How many requests the upstream instances accept together at the moment.
pub(super) type Capacity = Box<dyn Fn() -> usize + Send + Sync>;

pub(super) struct Shares {
    most: AtomicUsize,
    upstream: Capacity,
    percent: AtomicUsize,
    taken: AtomicUsize,
    /// The length of each queue, to be read without its lock.
    waiting: [AtomicUsize; Priority::COUNT],
    queues: Mutex<[Queue; Priority::COUNT]>,
}

/// A slot. Dropping it frees it.
pub(super) struct Share {
    holders: Holders,
    /// `None` once it was freed.
    shares: Option<Arc<Shares>>,
}

/// Why no slot was available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoShare {
    /// The organisation holds its share.
    Own,
    /// All slots are taken.
    All,
}

#[derive(Default)]
struct Queue {
    /// Waiting requests by organisation.
    lines: HashMap<usize, VecDeque<Waiter>>,
    /// The organisations in turn.
    turns: VecDeque<usize>,
    next_id: u64,
}

struct Waiter {
    id: u64,
    holders: Holders,
    hand_over: oneshot::Sender<Share>,
}

/// Organisations that are tried in turn when a slot is freed. The others are tried when the next
/// one is freed.
const ASKED: usize = 16;

/// As many requests of all organisations may wait as there are slots, but at least this many.
const FEWEST_WAITING: usize = 64;

/// Whether an organisation that holds `held` slots may take another one.
fn admits(capacity: usize, taken: usize, held: usize, percent: usize) -> bool {
    let free = capacity.saturating_sub(taken) as u128;
    // held < free * p / (1 - p): an organisation alone gets the fraction p of all.
    free > 0 && (held as u128) * (100 - percent as u128) < free * percent as u128
}

/// Of so many slots, those that a request may not take because they are kept for what comes before it.
fn kept(capacity: usize, priority: Priority) -> usize {
    match priority {
        Priority::Write => 0,
        Priority::Read => capacity / 10,
        Priority::List => capacity / 5,
    }
}

impl Shares {
    /// At most this many slots, of which one organisation alone gets a percentage.
    pub(super) fn new(most: usize, percent: usize, upstream: Capacity) -> Self {
        Self {
            most: AtomicUsize::new(most),
            upstream,
            percent: AtomicUsize::new(percent.min(100)),
            taken: AtomicUsize::new(0),
            waiting: Default::default(),
            queues: Mutex::default(),
        }
    }

    /// Changes the numbers. Who has a slot keeps it.
    pub(super) fn resize(self: &Arc<Self>, most: usize, percent: usize) {
        self.most.store(most, SeqCst);
        self.percent.store(percent.min(100), SeqCst);
        self.serve(&mut self.queues());
    }

    pub(super) fn percent(&self) -> usize {
        self.percent.load(SeqCst)
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(SeqCst)
    }

    /// Waits for a slot for this organisation.
    pub(super) async fn enter(
        self: &Arc<Self>,
        holders: Holders,
        priority: Priority,
        deadline: Instant,
    ) -> Result<Share, NoShare> {
        // Those that wait and come later do not matter.
        let is_next = || self.waiting[..=priority as usize].iter().all(|one| one.load(SeqCst) == 0);
        if is_next()
            && let Some(share) = self.try_enter(&holders, priority)
        {
            return Ok(share);
        }
        let mut slot = self.stand_in_line(holders, priority)?;
        let handed = timeout_at(deadline, &mut slot.handed).await;
        handed.ok().and_then(Result::ok).ok_or_else(|| self.reason(priority))
    }

    /// Why an organisation gets no slot now.
    fn reason(&self, priority: Priority) -> NoShare {
        if self.taken() < self.capacity_for(priority) { NoShare::Own } else { NoShare::All }
    }

    pub(super) fn capacity(&self) -> usize {
        self.most.load(SeqCst).min((self.upstream)())
    }

    /// Without the slots that are kept for those that come first.
    fn capacity_for(&self, priority: Priority) -> usize {
        let all = self.capacity();
        all - kept(all, priority)
    }

    fn try_enter(self: &Arc<Self>, holders: &Holders, priority: Priority) -> Option<Share> {
        // Counted before it is checked, so that two concurrent requests do not both take the last
        // slot.
        let held = holders.all().map(|holding| holding.0.fetch_add(1, SeqCst)).max().unwrap_or(0);
        let (capacity, percent) = (self.capacity(), self.percent());
        let most = capacity - kept(capacity, priority);
        let enter =
            |taken| (taken < most && admits(capacity, taken, held, percent)).then_some(taken + 1);
        if self.taken.fetch_update(SeqCst, SeqCst, enter).is_err() {
            holders.all().for_each(Holding::leave);
            return None;
        }
        Some(Share { holders: holders.clone(), shares: Some(Arc::clone(self)) })
    }

    /// Waits if there is room to wait. An organisation may have another request waiting while fewer of it wait than
    /// there is room for: those that hold their share already and want more would otherwise take all of it, and a
    /// newcomer would not be asked whether there is a slot. Those that come later do not matter, here either.
    fn stand_in_line(
        self: &Arc<Self>,
        holders: Holders,
        priority: Priority,
    ) -> Result<InLine, NoShare> {
        let mut queues = self.queues();
        let waiting: usize = self.waiting.iter().map(|one| one.load(SeqCst)).sum();
        let left = self.most.load(SeqCst).max(FEWEST_WAITING).saturating_sub(waiting);
        let line = holders.line();
        let before = &queues[..=priority as usize];
        let own: usize = before.iter().map(|queue| queue.waiting_in(line)).sum();
        if own >= left {
            return Err(if left == 0 { NoShare::All } else { self.reason(priority) });
        }
        let queue = &mut queues[priority as usize];
        let (hand_over, handed) = oneshot::channel();
        let id = queue.next_id;
        queue.next_id = queue.next_id.wrapping_add(1);
        queue.push(line, Waiter { id, holders, hand_over });
        self.waiting[priority as usize].fetch_add(1, SeqCst);
        self.serve(&mut queues);
        drop(queues);
        Ok(InLine { shares: Arc::clone(self), priority, line, id, handed })
    }

    /// Gives free slots to waiting requests: those that come first, round-robin between organisations.
    fn serve(self: &Arc<Self>, queues: &mut [Queue; Priority::COUNT]) {
        for (queue, priority) in queues.iter_mut().zip(Priority::ALL) {
            self.serve_one(queue, *priority);
        }
    }

    fn serve_one(self: &Arc<Self>, queue: &mut Queue, priority: Priority) {
        let mut refused = 0;
        while refused < ASKED.min(queue.turns.len()) && self.taken() < self.capacity_for(priority) {
            let Some(line) = queue.turns.pop_front() else { return };
            queue.turns.push_back(line);
            let first = queue.lines.get(&line).and_then(VecDeque::front);
            match first.and_then(|waiter| self.try_enter(&waiter.holders, priority)) {
                None => refused += 1,
                Some(share) => {
                    refused = 0;
                    let Some(waiter) = queue.pop(line, 0) else { return };
                    self.waiting[priority as usize].fetch_sub(1, SeqCst);
                    // It has just given up, but is still in the queue, which we hold locked.
                    if let Err(share) = waiter.hand_over.send(share) {
                        share.give_back_silently();
                    }
                }
            }
        }
    }

    fn leave(self: &Arc<Self>, holders: &Holders) {
        holders.all().for_each(Holding::leave);
        self.taken.fetch_sub(1, SeqCst);
        if self.waiting.iter().any(|one| one.load(SeqCst) > 0) {
            self.serve(&mut self.queues());
        }
    }

    fn queues(&self) -> MutexGuard<'_, [Queue; Priority::COUNT]> {
        self.queues.lock()
    }
}

impl Queue {
    fn waiting_in(&self, line: usize) -> usize {
        self.lines.get(&line).map_or(0, VecDeque::len)
    }

    fn push(&mut self, line: usize, waiter: Waiter) {
        let waiters = self.lines.entry(line).or_default();
        if waiters.is_empty() {
            self.turns.push_back(line);
        }
        waiters.push_back(waiter);
    }

    /// Removes a request from its organisation's queue, and the queue if it was the last.
    fn pop(&mut self, line: usize, at: usize) -> Option<Waiter> {
        let waiters = self.lines.get_mut(&line)?;
        let waiter = waiters.remove(at)?;
        if waiters.is_empty() {
            self.lines.remove(&line);
            self.turns.retain(|turn| *turn != line);
        }
        Some(waiter)
    }
}

impl Holding {
    fn leave(&self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Holders {
    fn all(&self) -> impl Iterator<Item = &Holding> {
        std::iter::once(&*self.first).chain(self.others.iter().map(|other| &**other))
    }

    /// The key of its organisation's queue, unique while the request exists.
    fn line(&self) -> usize {
        Arc::as_ptr(&self.first).addr()
    }
}

impl Share {
    /// Without serving the queue, for a caller that has locked it.
    fn give_back_silently(mut self) {
        if let Some(shares) = self.shares.take() {
            self.holders.all().for_each(Holding::leave);
            shares.taken.fetch_sub(1, SeqCst);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(shares) = self.shares.take() {
            shares.leave(&self.holders);
        }
    }
}

/// A request that waits. Dropping it removes it from the queue, and passes a slot that it was just
/// given on to the next.
struct InLine {
    shares: Arc<Shares>,
    priority: Priority,
    line: usize,
    id: u64,
    handed: oneshot::Receiver<Share>,
}

impl Drop for InLine {
    fn drop(&mut self) {
        let mut queues = self.shares.queues();
        let queue = &mut queues[self.priority as usize];
        let waiters = queue.lines.get(&self.line);
        let at = waiters.and_then(|waiters| waiters.iter().position(|one| one.id == self.id));
        if at.is_some_and(|at| queue.pop(self.line, at).is_some()) {
            self.shares.waiting[self.priority as usize].fetch_sub(1, SeqCst);
        }
    }
}

#[cfg(test)]
mod tests;
