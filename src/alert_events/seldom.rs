//! What is logged once and not again for a while: an alert is repeated every minute, and so is what is
//! wrong with it.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a line is not repeated.
const PAUSE: Duration = Duration::from_secs(3600);
/// Things that are remembered. Beyond them nothing is logged: the counters tell.
const MOST: usize = 1000;

/// What was logged lately.
pub(crate) struct Seldom<K>(Mutex<HashMap<K, Instant>>);

impl<K> Default for Seldom<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq> Seldom<K> {
    /// Whether it is time to log this one.
    pub(crate) fn is_due(&self, what: K) -> bool {
        let now = Instant::now();
        let mut logged = self.0.lock();
        if logged.get(&what).is_some_and(|at| now < *at + PAUSE) {
            return false;
        }
        if logged.len() >= MOST {
            logged.retain(|_, at| now < *at + PAUSE);
        }
        if logged.len() >= MOST {
            return false;
        }
        logged.insert(what, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_same_is_logged_once_an_hour_and_not_too_much_in_all() {
        let seldom = Seldom::default();
        assert!(seldom.is_due(1) && !seldom.is_due(1) && seldom.is_due(2));
        assert_eq!((10..5000).filter(|other| seldom.is_due(*other)).count(), MOST - 2);
        tokio::time::sleep(PAUSE).await;
        assert!(seldom.is_due(1) && seldom.is_due(5000));
    }
}
