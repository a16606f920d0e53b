//! When device keys were last used, written in batches.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

use crate::store::Store;
use crate::telemetry::Metrics;
use crate::tenancy::DeviceId;

#[derive(Default)]
pub(super) struct LastUses(Mutex<HashMap<DeviceId, i64>>);

/// Rows in one statement.
const MOST_AT_ONCE: usize = 5000;

impl LastUses {
    fn lock(&self) -> MutexGuard<'_, HashMap<DeviceId, i64>> {
        self.0.lock()
    }

    /// A key was used (seconds since the epoch).
    pub(super) fn note(&self, device: DeviceId, at: i64) {
        let mut uses = self.lock();
        let noted = uses.entry(device).or_insert(at);
        *noted = at.max(*noted);
    }

    /// Writes what was noted, again and again, and once more at the end.
    pub(super) async fn run(
        &self,
        store: &Store,
        every: Duration,
        metrics: &Metrics,
        cancelled: CancellationToken,
    ) {
        loop {
            let is_over = tokio::time::timeout(every, cancelled.cancelled()).await.is_ok();
            self.write(store, metrics).await;
            if is_over {
                return;
            }
        }
    }

    async fn write(&self, store: &Store, metrics: &Metrics) {
        let all: Vec<(DeviceId, i64)> = std::mem::take(&mut *self.lock()).into_iter().collect();
        for some in all.chunks(MOST_AT_ONCE) {
            if let Err(error) = store.note_uses(some.to_vec()).await {
                tracing::warn!(%error, device_keys = some.len(), "Failed to write last use of device keys");
                metrics.last_used_failures.increment(1);
                for (device, at) in some {
                    self.note(*device, *at);
                }
            }
        }
    }
}
