//! Whose connection ends while all `listen.max_connections` are taken and another client waits: those of clients that
//! have been silent for the longest. Otherwise whoever opens that many and says nothing would lock everybody out for
//! as long as an idle connection may last, without a credential.
//!
//! A connection without a request is ended by the kernel's `shutdown` for reading, as if its client had ended it. One
//! whose client does not read its answer ends by a reset: a FIN would make a part of the answer look whole.
//! Whose bytes have arrived and are not read yet is not silent: it waits for us.

use std::collections::HashMap;
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::activity::Activity;
use super::phase::Quiet;
use crate::net::{self, TcpStream};

/// Who was silent for less is left alone: a client between two requests, or on a slow link.
const LEAST_SILENCE: Duration = Duration::from_secs(1);

/// The same for one in its TLS handshake, which waits for us as well: if many come at once, it would be the longest
/// silent one, and have to begin again.
const LEAST_HANDSHAKE: Duration = Duration::from_secs(5);

/// The same for one that does not read. The kernel says that there is room again only when half of what waited has
/// gone, so a slow reader seems to take nothing for seconds. Over HTTP/2 it may also give no stream credit.
const LEAST_NOT_READING: Duration = Duration::from_secs(10);

/// The most that are ended at once. Finding them takes a look at each connection.
const MOST_AT_ONCE: usize = 32;

/// The connections of all workers.
#[derive(Default)]
pub(super) struct Tracked(Mutex<Trackers>);

#[derive(Default)]
struct Trackers {
    last: u64,
    tracked: HashMap<u64, Arc<Tracker>>,
}

/// What has to be known of a connection to end it from another thread.
pub(super) struct Tracker {
    number: u64,
    state: Mutex<State>,
    is_evicted: AtomicBool,
}

struct State {
    stream: Weak<TcpStream>,
    doing: Doing,
}

enum Doing {
    /// It has had no request since, or none at all.
    Rests(Instant),
    /// It is in its TLS handshake since.
    Handshake(Instant),
    Serves(Arc<Activity>),
}

impl Tracked {
    pub(super) fn add(&self) -> Arc<Tracker> {
        let mut taken = self.0.lock();
        taken.last += 1;
        let state = State { stream: Weak::new(), doing: Doing::Rests(Instant::now()) };
        let tracker = Arc::new(Tracker {
            number: taken.last,
            state: Mutex::new(state),
            is_evicted: AtomicBool::new(false),
        });
        taken.tracked.insert(tracker.number, Arc::clone(&tracker));
        tracker
    }

    pub(super) fn remove(&self, tracker: &Tracker) {
        self.0.lock().tracked.remove(&tracker.number);
    }

    /// Ends some of the connections whose clients have been silent for the longest. Returns how many.
    pub(super) fn evict(&self, now: Instant) -> usize {
        let taken = self.0.lock();
        let tracked = taken.tracked.values();
        let mut silent: Vec<_> =
            tracked.filter_map(|tracker| Some((tracker.silent_since(now)?, tracker))).collect();
        let most = at_once(silent.len());
        if most < silent.len() {
            silent.select_nth_unstable_by_key(most, |(since, _)| *since);
            silent.truncate(most);
        }
        silent.iter().filter(|(_, tracker)| tracker.evict()).count()
    }
}

/// How many of the silent connections are ended: few of few.
fn at_once(silent: usize) -> usize {
    silent.div_ceil(8).min(MOST_AT_ONCE)
}

impl Tracker {
    /// The connection has come to a worker.
    pub(super) fn is_on(&self, stream: &Arc<TcpStream>) {
        self.state.lock().stream = Arc::downgrade(stream);
    }

    pub(super) fn serves(&self, activity: &Arc<Activity>) {
        self.state.lock().doing = Doing::Serves(Arc::clone(activity));
    }

    pub(super) fn begins_handshake(&self, since: Instant) {
        self.state.lock().doing = Doing::Handshake(since);
    }

    pub(super) fn rests(&self, since: Instant) {
        self.state.lock().doing = Doing::Rests(since);
    }

    pub(super) fn is_evicted(&self) -> bool {
        self.is_evicted.load(Ordering::Relaxed)
    }

    /// Since when the client has been silent, if that is for long enough.
    fn silent_since(&self, now: Instant) -> Option<Instant> {
        if self.is_evicted() {
            return None;
        }
        let state = self.state.lock();
        let (since, quiet) = state.quiet()?;
        let least = match (quiet, &state.doing) {
            (Quiet::NotReading, _) => LEAST_NOT_READING,
            (Quiet::NoRequest, Doing::Handshake(_)) => LEAST_HANDSHAKE,
            (Quiet::NoRequest, _) => LEAST_SILENCE,
        };
        (since + least <= now).then_some(since)
    }

    /// Returns whether it ends by this.
    fn evict(&self) -> bool {
        let state = self.state.lock();
        // It may have begun a request since.
        let Some((_, quiet)) = state.quiet() else { return false };
        let unread = match &state.doing {
            Doing::Serves(activity) if quiet == Quiet::NotReading => Some(activity),
            _ => None,
        };
        let end = |stream: Arc<TcpStream>| {
            let waits_for_us = net::peek(&stream).is_ok_and(|bytes| bytes > 0);
            !waits_for_us && net::shut_down(&stream, Shutdown::Read).is_ok()
        };
        let is_ended = match unread {
            Some(activity) => activity.break_off_unread(),
            None => state.stream.upgrade().is_some_and(end),
        };
        self.is_evicted.fetch_or(is_ended, Ordering::Relaxed);
        // After that, so that the end is counted as an eviction.
        if let Some(activity) = unread {
            activity.wake();
        }
        is_ended
    }
}

impl State {
    fn quiet(&self) -> Option<(Instant, Quiet)> {
        match &self.doing {
            Doing::Rests(since) | Doing::Handshake(since) => Some((*since, Quiet::NoRequest)),
            Doing::Serves(activity) => activity.phase().quiet(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::framing::BodyLength;
    use crate::listener::phase::Phase;

    #[test]
    fn of_few_few_are_ended() {
        let ended = [0, 1, 8, 9, 255, 256, 10_000].map(at_once);
        assert_eq!(ended, [0, 1, 1, 2, 32, 32, 32]);
    }

    #[tokio::test]
    async fn the_longest_silent_ones_are_ended_and_no_others() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tracked, now) = (Tracked::default(), Instant::now());
        let mut all = Vec::new();
        for age in [3, 9, 0, 5] {
            let client = TcpStream::connect(address).await.unwrap();
            let stream = Arc::new(listener.accept().await.unwrap().0);
            let tracker = tracked.add();
            tracker.is_on(&stream);
            tracker.rests(now.checked_sub(Duration::from_secs(age)).unwrap());
            all.push((tracker, stream, client));
        }
        let ended = || all.iter().map(|(tracker, ..)| tracker.is_evicted()).collect::<Vec<_>>();
        assert_eq!(tracked.evict(now), 1);
        assert_eq!(ended(), [false, true, false, false]);
        assert_eq!((tracked.evict(now), tracked.evict(now), tracked.evict(now)), (1, 1, 0));
        assert_eq!(ended(), [true, true, false, true], "the last was silent for too short a time");
        tracked.remove(&all[0].0);
        assert_eq!(tracked.0.lock().tracked.len(), 3);
    }

    // A FIN behind what is queued would make a part of an answer look whole.
    #[tokio::test]
    async fn who_does_not_read_is_broken_off() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (tracked, now) = (Tracked::default(), Instant::now());
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let stream = Arc::new(listener.accept().await.unwrap().0);
        let tracker = tracked.add();
        tracker.is_on(&stream);
        let activity = Activity::new(Phase::http1(now, None));
        tracker.serves(&activity);
        activity.phase().begin(BodyLength::Known(0), false, || now);
        activity.phase().blocked(|| now);
        assert_eq!((tracked.evict(now), activity.is_broken()), (0, false), "it may be slow");
        let later = now + LEAST_NOT_READING;
        assert_eq!((tracked.evict(later), tracker.is_evicted()), (1, true));
        assert!(activity.is_broken());
    }

    // A client whose request waits for us has said something, and one in its handshake has more time.
    #[tokio::test]
    async fn who_waits_for_us_is_not_silent() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (tracked, now) = (Tracked::default(), Instant::now());
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let stream = Arc::new(listener.accept().await.unwrap().0);
        let tracker = tracked.add();
        tracker.is_on(&stream);
        let ago = |seconds| now.checked_sub(Duration::from_secs(seconds)).unwrap();
        tracker.begins_handshake(ago(4));
        assert_eq!(tracked.evict(now), 0);
        tracker.rests(ago(4));
        client.writable().await.unwrap();
        client.try_write(b"G").unwrap();
        stream.readable().await.unwrap();
        assert_eq!(tracked.evict(now), 0);
        stream.try_read(&mut [0; 8]).unwrap();
        tracker.begins_handshake(ago(6));
        assert_eq!((tracked.evict(now), tracker.is_evicted()), (1, true));
    }
}
