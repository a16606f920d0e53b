//! State shared by a connection's socket, requests and watch.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::exchange::Stream;
use super::phase::{Phase, Quiet};

/// One connection. Only one thread uses it, so the locks do not block; while all connections are taken, another thread
/// looks at the phase, too.
pub(super) struct Activity {
    phase: Mutex<Phase>,
    /// Streams that have ended, but whose last bytes the client has not taken.
    left_behind: Mutex<Vec<Arc<Stream>>>,
    /// An answer was cut off, or is to be: the client must not take it for a complete one.
    broken: AtomicBool,
    /// The connection's task.
    task: OnceLock<Waker>,
}

impl Activity {
    pub(super) fn new(phase: Phase) -> Arc<Self> {
        Arc::new(Self {
            phase: Mutex::new(phase),
            left_behind: Mutex::default(),
            broken: AtomicBool::new(false),
            task: OnceLock::new(),
        })
    }

    pub(super) fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock()
    }

    /// Changes the phase, and wakes the connection's task if that has to look at it. The task itself may make the
    /// change, after the reading of its turn.
    pub(super) fn change(&self, change: impl FnOnce(&mut Phase)) {
        let mut phase = self.phase();
        change(&mut phase);
        if phase.is_to_be_polled() {
            drop(phase);
            self.wake();
        }
    }

    /// Ready if what the client sends next is wanted.
    pub(super) fn poll_wanted(&self, cx: &Context<'_>) -> Poll<()> {
        let mut phase = self.phase();
        let wants_bytes = phase.wants_bytes();
        phase.note_put_off(!wants_bytes);
        if wants_bytes {
            return Poll::Ready(());
        }
        drop(phase);
        // The watch is polled after hyper, which may be too late.
        self.watched_by(cx.waker());
        Poll::Pending
    }

    /// Sets the task in which the connection and its watch are polled.
    pub(super) fn watched_by(&self, task: &Waker) {
        self.task.get_or_init(|| task.clone());
    }

    /// Wakes the watch, after a change by another task.
    pub(super) fn wake(&self) {
        if let Some(task) = self.task.get() {
            task.wake_by_ref();
        }
    }

    pub(super) fn left_behind(&self, stream: Arc<Stream>) {
        self.streams().push(stream);
    }

    /// Since when the oldest stalled one of these streams has not moved.
    pub(super) fn left_behind_since(&self) -> Option<Instant> {
        let mut streams = self.streams();
        streams.retain(|stream| stream.stalled_since().is_some());
        streams.iter().filter_map(|stream| stream.stalled_since()).min()
    }

    fn streams(&self) -> MutexGuard<'_, Vec<Arc<Stream>>> {
        self.left_behind.lock()
    }

    pub(super) fn break_off(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// Breaks off a connection whose client does not read, from another thread, which wakes the task afterwards.
    /// Returns false if the client has read since.
    pub(super) fn break_off_unread(&self) -> bool {
        // As long as the phase is locked, the task can neither write more nor put the connection to rest.
        let phase = self.phase();
        let is_unread = matches!(phase.quiet(), Some((_, Quiet::NotReading)));
        if is_unread {
            self.break_off();
        }
        is_unread
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
}
