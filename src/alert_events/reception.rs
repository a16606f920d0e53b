//! What this copy says of itself in the database: that it writes what it receives, and what it may have missed.
//!
//! A report that one copy takes in, and cannot write, is unknown to the leader, and its alert would seem to be over. So
//! nothing ends by silence unless every copy that there is, or was until some minutes ago, says that it is not so.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::buffer::Buffer;
use super::heard::Heard;
use crate::store::{CopyState, Store, StoreError, UsesWritten};

/// How often a copy says so.
const INTERVAL: Duration = Duration::from_secs(10);
/// A longer silence is one in which reports may have been lost. A change of the leader takes seconds.
pub(super) const BREAK: Duration = Duration::from_secs(60);
/// What waits for longer may not be written before its alert seems to be over.
const WAITING: Duration = Duration::from_secs(30);
/// So many organisations that miss something are named. If there are more, all do.
const MOST_NAMED: usize = 1000;
/// How long the end of the process waits for the last uses of device keys.
const LAST_USES: Duration = Duration::from_millis(500);

pub(crate) struct Reception {
    /// Of this process.
    pub(super) id: Uuid,
    pub(super) store: Store,
    pub(super) buffer: Arc<Buffer>,
    pub(super) heard: Arc<Heard>,
    pub(super) uses: watch::Receiver<UsesWritten>,
}

impl Reception {
    /// Says so again and again.
    pub(super) async fn run(&self, cancelled: CancellationToken) {
        let mut was_failing = false;
        loop {
            match self.note().await {
                Ok(()) => was_failing = false,
                Err(error) => {
                    if !was_failing {
                        tracing::warn!(%error, "Reception of alerts not noted: no alert events expire");
                    }
                    was_failing = true;
                }
            }
            if timeout(INTERVAL, cancelled.cancelled()).await.is_ok() {
                return;
            }
        }
    }

    /// Says that all uses of device keys are written, if they are. Reports may still come to this address, so that
    /// nothing more is said of them.
    pub(super) async fn end(&self) {
        let mut uses = self.uses.clone();
        let _ = timeout(LAST_USES, uses.wait_for(|written| *written == UsesWritten::All)).await;
        if let Err(error) = self.note().await {
            tracing::warn!(%error, "The end of this copy is not noted");
        }
    }

    /// Says once how it is.
    pub(super) async fn note(&self) -> Result<(), StoreError> {
        let (is_deaf_to_all, mut misses) = self.heard.deaf();
        misses.extend(self.buffer.waiting(WAITING));
        let misses_all = is_deaf_to_all || misses.len() > MOST_NAMED;
        if misses_all {
            misses.clear();
        }
        let uses = *self.uses.borrow();
        self.store.note_copy(self.id, BREAK, CopyState { misses_all, misses, uses }).await
    }
}
