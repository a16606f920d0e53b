//! Readings under way: which requests wait for which key, and which readings a change overtook.
//!
//! Remembering and forgetting happen under the same lock as this bookkeeping. Without it a change
//! could come between "nothing has changed" and "remember it".

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::cache::Entry;

pub(super) struct Flights<K, V> {
    flights: Mutex<HashMap<K, Flight<V>>>,
    /// Abandoned ones were removed since the last reading began. Used under the lock.
    has_swept: AtomicBool,
}

struct Flight<V> {
    waiting: Vec<oneshot::Sender<Option<Entry<V>>>>,
    /// Whether it is read when nobody waits for it any more, too.
    is_kept: bool,
    /// Its key has been taken from the queue, and is read now or soon.
    is_taken: bool,
    /// A change came after the reading had begun.
    tainted: bool,
}

/// Somebody waits for a key.
pub(super) struct Joined<V> {
    pub(super) entry: oneshot::Receiver<Option<Entry<V>>>,
    /// Nobody has asked for it before: it has to be queued.
    pub(super) is_first: bool,
}

/// Keys that are asked for at the same time. An unknown caller can name keys faster than they are read, and give up
/// waiting. Far more than requests may wait (`limits.in_flight`) by default.
pub(super) const MOST: usize = 16_384;

impl<V> Flight<V> {
    fn new() -> Self {
        Self { waiting: Vec::new(), is_kept: false, is_taken: false, tainted: false }
    }

    fn is_abandoned(&self) -> bool {
        !self.is_kept && self.waiting.iter().all(oneshot::Sender::is_closed)
    }
}

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self { flights: Mutex::default(), has_swept: AtomicBool::new(false) }
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Flights<K, V> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, Flight<V>>> {
        self.flights.lock()
    }

    /// Waits for a key together with other requests; `is_known` if a value of it is used meanwhile, which is then
    /// replaced however long that takes. None if too many others are asked for.
    pub(super) fn join(&self, key: K, is_known: bool) -> Option<Joined<V>> {
        let mut flights = self.lock();
        let is_first = !flights.contains_key(&key);
        if is_first && flights.len() >= MOST {
            self.sweep(&mut flights);
            if flights.len() >= MOST {
                return None;
            }
        }
        let (sender, entry) = oneshot::channel();
        let flight = flights.entry(key).or_insert_with(Flight::new);
        flight.is_kept |= is_known;
        if flight.waiting.len() == flight.waiting.capacity() {
            // Before it grows.
            flight.waiting.retain(|waiting| !waiting.is_closed());
        }
        flight.waiting.push(sender);
        Some(Joined { entry, is_first })
    }

    /// Makes room: during a slow reading nothing is taken from the queue. Once in each, since it looks at all. What is
    /// read keeps its flight, which a change must find.
    fn sweep(&self, flights: &mut HashMap<K, Flight<V>>) {
        if !self.has_swept.swap(true, Ordering::Relaxed) {
            flights.retain(|_, flight| flight.is_taken || !flight.is_abandoned());
        }
    }

    /// A key is taken from the queue. False if it is not to be read, because nobody waits for it any more, or it was
    /// in the queue twice. The flight of an abandoned one ends: a request that asks for it later queues it again.
    pub(super) fn take(&self, key: &K) -> bool {
        let mut flights = self.lock();
        match flights.get_mut(key) {
            Some(flight) if flight.is_abandoned() && !flight.is_taken => {
                flights.remove(key);
                false
            }
            // Two readings of one key could land one after the other, and a change between the two would be lost.
            Some(flight) => !std::mem::replace(&mut flight.is_taken, true),
            // Swept, or a failure has ended it.
            None => false,
        }
    }

    /// The reading of some keys begins: changes that came earlier are in it. One without a flight gets one: without it
    /// a change during the reading would not be seen.
    pub(super) fn depart(&self, keys: &[K]) {
        let mut flights = self.lock();
        self.has_swept.store(false, Ordering::Relaxed);
        for key in keys {
            flights.entry(key.clone()).or_insert_with(Flight::new).tainted = false;
        }
    }

    /// A key was read: it is remembered and all waiting requests get it, unless it, or everything (`is_old`), may
    /// have changed meanwhile: then it has to be queued again. `is_old` is asked under the lock: a request that joins
    /// after a change of everything is never answered by an earlier reading.
    pub(super) fn land(
        &self,
        key: &K,
        entry: &Entry<V>,
        is_old: impl FnOnce() -> bool,
        remember: impl FnOnce(),
    ) -> bool {
        let mut flights = self.lock();
        if let Some(flight) = flights.get_mut(key)
            && (flight.tainted || is_old())
        {
            flight.is_taken = false;
            return false;
        }
        remember();
        for waiting in flights.remove(key).into_iter().flat_map(|flight| flight.waiting) {
            // The request may be gone.
            let _ = waiting.send(Some(entry.clone()));
        }
        true
    }

    /// Some keys could not be read.
    pub(super) fn cancel(&self, keys: &[K]) {
        let mut flights = self.lock();
        let cancelled = keys.iter().filter_map(|key| flights.remove(key));
        for waiting in cancelled.flat_map(|flight| flight.waiting) {
            let _ = waiting.send(None);
        }
    }

    /// Nothing could be read.
    pub(super) fn cancel_all(&self) {
        let flights = std::mem::take(&mut *self.lock());
        for waiting in flights.into_values().flat_map(|flight| flight.waiting) {
            let _ = waiting.send(None);
        }
    }

    /// Has a key read without waiting for it. Says whether that has to be seen to.
    pub(super) fn ensure(&self, key: K) -> bool {
        let mut flights = self.lock();
        let is_first = !flights.contains_key(&key);
        flights.entry(key).or_insert_with(Flight::new).is_kept = true;
        is_first
    }

    pub(super) fn taint(&self, key: &K, forget: impl FnOnce()) {
        let mut flights = self.lock();
        if let Some(flight) = flights.get_mut(key) {
            flight.tainted = true;
        }
        forget();
    }

    pub(super) fn taint_all(&self, forget: impl FnOnce()) {
        let mut flights = self.lock();
        for flight in flights.values_mut() {
            flight.tainted = true;
        }
        forget();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_change_is_seen_by_a_reading_whose_flight_a_failure_has_ended() {
        let flights = Flights::<u32, &str>::default();
        let joined = flights.join(1, false).unwrap();
        assert!(joined.is_first);
        flights.cancel_all();
        flights.depart(&[1]);
        flights.taint(&1, || {});
        let entry = Entry { value: Some("member"), read_at: Duration::ZERO, epoch: 0 };
        let mut is_remembered = false;
        assert!(!flights.land(&1, &entry, || false, || is_remembered = true));
        assert!(!is_remembered, "a value from before the change");
        flights.depart(&[1]);
        assert!(!flights.land(&1, &entry, || true, || is_remembered = true));
        assert!(!is_remembered, "a value from before a change of everything");
        flights.depart(&[1]);
        assert!(flights.land(&1, &entry, || false, || is_remembered = true));
        assert!(is_remembered);
    }

    #[test]
    fn keys_that_nobody_waits_for_are_left_out() {
        let flights = Flights::<u32, &str>::default();
        let _waiting = flights.join(1, false);
        drop((flights.join(2, false), flights.join(2, false), flights.join(3, true)));
        assert!(flights.ensure(4));
        // A failure has emptied the queue, the fifth was queued, and the failure has ended all flights.
        let mut keys = vec![1, 2, 3, 4, 5];
        keys.retain(|key| flights.take(key));
        assert_eq!(keys, [1, 3, 4]);
        assert!(flights.join(2, false).unwrap().is_first, "it is queued again");
    }

    // One that was given up and swept, and is asked for again before its turn, is in the queue twice.
    #[test]
    fn a_key_is_read_once_at_a_time() {
        let flights = Flights::<u32, &str>::default();
        let _waiting = flights.join(1, false);
        assert!(flights.take(&1) && !flights.take(&1));
        flights.taint(&1, || {});
        let entry = Entry { value: Some("member"), read_at: Duration::ZERO, epoch: 0 };
        assert!(!flights.land(&1, &entry, || false, || {}));
        assert!(flights.take(&1), "it is queued again after a change");
        flights.depart(&[1]);
        assert!(flights.land(&1, &entry, || false, || {}));
        assert!(!flights.take(&1));
    }

    // A slow reading takes nothing from the queue.
    #[test]
    fn made_up_keys_that_are_given_up_refuse_nobody() {
        let flights = Flights::<usize, &str>::default();
        let _waiting = (flights.join(0, false), flights.join(1, false));
        // The second is given up during its reading.
        let given_up = flights.join(2, false);
        assert!(flights.take(&0) && flights.take(&2) && flights.ensure(3));
        drop(given_up);
        let flood = || (4..).map_while(|key| flights.join(key, false)).count();
        flights.depart(&[0, 2]);
        let first = flood();
        assert!(first > MOST, "{first}");
        assert!(flights.join(usize::MAX, false).is_none(), "once in a reading");
        assert!([0, 1, 2, 3].iter().all(|key| flights.lock().contains_key(key)));
        flights.depart(&[0, 2]);
        assert!(flights.join(usize::MAX, false).is_some());
    }

    #[test]
    fn only_so_much_is_waited_for() {
        let flights = Flights::<usize, &str>::default();
        let mut waiting: Vec<_> = (0..MOST).map(|key| flights.join(key, false)).collect();
        assert!(waiting.iter().all(Option::is_some));
        assert!(flights.join(MOST, false).is_none());
        assert!(!flights.join(0, false).unwrap().is_first, "it is read anyway");
        waiting.truncate(MOST - 1);
        assert!(flights.join(MOST, false).is_none());
        assert!(!flights.take(&(MOST - 1)));
        assert!(flights.join(MOST, false).is_some());
        // Who asks for one key again and again, and gives up.
        for _ in 0..1000 {
            drop(flights.join(0, false));
        }
        assert!(flights.lock()[&0].waiting.len() < 10);
    }
}
