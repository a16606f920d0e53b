//! When device keys were last used, written in batches.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::store::{Store, UsesWritten};
use crate::telemetry::Metrics;
use crate::tenancy::DeviceId;

pub(super) struct LastUses {
    noted: Mutex<HashMap<DeviceId, i64>>,
    written: watch::Sender<UsesWritten>,
}

/// Rows in one statement.
const MOST_AT_ONCE: usize = 5000;

impl Default for LastUses {
    fn default() -> Self {
        let written = watch::Sender::new(UsesWritten::Until(Instant::now()));
        Self { noted: Mutex::default(), written }
    }
}

impl LastUses {
    fn lock(&self) -> MutexGuard<'_, HashMap<DeviceId, i64>> {
        self.noted.lock()
    }

    /// A key was used (seconds since the epoch).
    pub(super) fn note(&self, device: DeviceId, at: i64) {
        let mut uses = self.lock();
        let noted = uses.entry(device).or_insert(at);
        *noted = at.max(*noted);
    }

    /// Tells which uses are written.
    pub(super) fn written(&self) -> watch::Receiver<UsesWritten> {
        self.written.subscribe()
    }

    /// Writes what was noted, again and again, and once more at the end.
    pub(super) async fn run(
        &self,
        store: &Store,
        every: Duration,
        metrics: &Metrics,
        cancelled: CancellationToken,
    ) {
        let mut most = MOST_AT_ONCE;
        loop {
            let is_over = tokio::time::timeout(every, cancelled.cancelled()).await.is_ok();
            let began = Instant::now();
            if self.write(store, metrics, &mut most).await {
                let written = if is_over { UsesWritten::All } else { UsesWritten::Until(began) };
                self.written.send_replace(written);
            }
            if is_over {
                return;
            }
        }
    }

    /// Writes what was noted, so many rows at once, and gives whether it wrote all. After rows that were too many for
    /// the time that a statement has it tries fewer.
    async fn write(&self, store: &Store, metrics: &Metrics, most: &mut usize) -> bool {
        let all: Vec<(DeviceId, i64)> = std::mem::take(&mut *self.lock()).into_iter().collect();
        let (mut rest, mut is_complete) = (&all[..], true);
        while !rest.is_empty() {
            let (some, others) = rest.split_at(rest.len().min(*most));
            rest = others;
            match store.note_uses(some.to_vec()).await {
                Ok(()) => *most = MOST_AT_ONCE.min(*most * 2),
                Err(error) => {
                    tracing::warn!(%error, device_keys = some.len(), "Failed to write last use of device keys");
                    metrics.last_used_failures.increment(1);
                    for (device, at) in some {
                        self.note(*device, *at);
                    }
                    *most = (some.len() / 2).max(1);
                    is_complete = false;
                }
            }
        }
        is_complete
    }
}
