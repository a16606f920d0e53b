//! What is remembered: things that are there, and apart from them keys that nothing has.

use std::hash::Hash;
use std::time::Duration;

use moka::sync::Cache;

/// What one reading said of one key.
#[derive(Clone, Debug)]
pub(super) struct Entry<V> {
    /// The thing; none if it is not there.
    pub(super) value: Option<V>,
    /// When it was read, counted from the beginning of the directory.
    pub(super) read_at: Duration,
    /// The feed's epoch when the reading began.
    pub(super) epoch: u64,
}

pub(super) struct Remembered<K, V> {
    there: Cache<K, Entry<V>>,
    absent: Cache<K, Entry<V>>,
}

/// Absent keys: enough that a forgotten fleet is not looked up for ever, and so few that a flood
/// costs nothing.
const MOST_ABSENT: u64 = 10_000;
/// Memory is freed by then at the latest; how long absence counts is decided at each use.
const ABSENT_KEPT: Duration = Duration::from_secs(600);

impl<K, V> Remembered<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new(entries: u64, kept: Duration) -> Self {
        // A century is as good as for ever, and no clock overflows by it.
        let kept = kept.min(Duration::from_secs(3_153_600_000));
        Self {
            there: Cache::builder().max_capacity(entries).time_to_live(kept).build(),
            absent: Cache::builder().max_capacity(MOST_ABSENT).time_to_live(ABSENT_KEPT).build(),
        }
    }

    pub(super) fn get(&self, key: &K) -> Option<Entry<V>> {
        self.there.get(key).or_else(|| self.absent.get(key))
    }

    pub(super) fn put(&self, key: K, entry: Entry<V>) {
        if entry.value.is_some() {
            self.absent.invalidate(&key);
            self.there.insert(key, entry);
        } else {
            self.there.invalidate(&key);
            self.absent.insert(key, entry);
        }
    }

    pub(super) fn remove(&self, key: &K) {
        self.there.invalidate(key);
        self.absent.invalidate(key);
    }

    pub(super) fn clear(&self) {
        self.there.invalidate_all();
        self.absent.invalidate_all();
    }

    pub(super) fn len(&self) -> u64 {
        self.there.entry_count()
    }
}
