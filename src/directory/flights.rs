//! Readings under way: which requests wait for which key, and which readings a change overtook.
//!
//! Remembering and forgetting happen under the same lock as this bookkeeping. Without it a change
//! could come between "nothing has changed" and "remember it".

use std::collections::HashMap;
use std::hash::Hash;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::cache::Entry;

pub(super) struct Flights<K, V>(Mutex<HashMap<K, Flight<V>>>);

struct Flight<V> {
    waiting: Vec<oneshot::Sender<Option<Entry<V>>>>,
    /// A change came after the reading had begun.
    tainted: bool,
}

impl<V> Flight<V> {
    fn new() -> Self {
        Self { waiting: Vec::new(), tainted: false }
    }
}

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Flights<K, V> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, Flight<V>>> {
        self.0.lock()
    }

    /// Waits for a key together with other requests. The first one has to queue it.
    pub(super) fn join(&self, key: K) -> (oneshot::Receiver<Option<Entry<V>>>, bool) {
        let (sender, receiver) = oneshot::channel();
        let mut flights = self.lock();
        let is_first = !flights.contains_key(&key);
        let flight = flights.entry(key).or_insert_with(Flight::new);
        flight.waiting.push(sender);
        (receiver, is_first)
    }

    /// The reading of some keys begins: changes that came earlier are in it. A key that was queued
    /// while a failure ended all flights has none, and gets one again: without it a change during the
    /// reading would not be seen.
    pub(super) fn depart(&self, keys: &[K]) {
        let mut flights = self.lock();
        for key in keys {
            flights.entry(key.clone()).or_insert_with(Flight::new).tainted = false;
        }
    }

    /// A key was read: it is remembered and all waiting requests get it, unless it has changed
    /// meanwhile.
    pub(super) fn land(&self, key: &K, entry: &Entry<V>, remember: impl FnOnce()) -> bool {
        let mut flights = self.lock();
        if flights.get(key).is_some_and(|flight| flight.tainted) {
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
        flights.entry(key).or_insert_with(Flight::new);
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

    // A failure empties the queue and then ends all flights; a key that is queued between the two is
    // read without anybody who waits for it.
    #[test]
    fn a_change_is_seen_by_a_reading_whose_flight_a_failure_has_ended() {
        let flights = Flights::<u32, &str>::default();
        let (_waiting, is_first) = flights.join(1);
        assert!(is_first);
        flights.cancel_all();
        flights.depart(&[1]);
        flights.taint(&1, || {});
        let entry = Entry { value: Some("member"), read_at: Duration::ZERO, epoch: 0 };
        let mut is_remembered = false;
        assert!(!flights.land(&1, &entry, || is_remembered = true));
        assert!(!is_remembered, "a value from before the change");
        flights.depart(&[1]);
        assert!(flights.land(&1, &entry, || is_remembered = true));
        assert!(is_remembered);
    }
}
