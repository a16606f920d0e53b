//! Campaign, lead, resign: at most one copy writes rules at any time.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::lease::{Lease, LeaseLost};
use crate::backoff::spread;
use crate::store::{BEAT, LEASE, Leadership, PgSession, Session, Store, StoreError};
use crate::telemetry::RuleMetrics;
use crate::tenancy::OrganisationId;

/// The pause between two attempts to become the leader. A leader that is frozen or cut off is replaced
/// after 4 seconds of silence (`store::Leadership`) and this.
pub(crate) const CAMPAIGN: Duration = Duration::from_millis(500);
/// How long a new leader waits before it does anything. Not every session ends with silence: a server that
/// restarts, an administrator and a broken line end one at once, and the lock is free while the last leader,
/// which has not heard of it, still has its lease. After this time that has ended, and what was sent
/// under it has arrived.
pub(crate) const SETTLE: Duration = LEASE.saturating_add(Duration::from_millis(500));
/// Attempts to tell the next leader about writes that were in flight.
const ATTEMPTS: u32 = 10;

/// Where the copies of the proxy meet.
pub(crate) trait Polls: Clone + Send + Sync + 'static {
    type Session: Session;

    /// Tries to get the lock; returns until when this copy may write.
    fn try_lead(
        &self,
    ) -> impl Future<Output = Result<Option<Won<Self::Session>>, StoreError>> + Send;

    /// Has the next leader look at an organisation.
    fn announce(
        &self,
        organisation: OrganisationId,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

type Won<S> = (Leadership<S>, Instant);

impl Polls for Store {
    type Session = PgSession;

    async fn try_lead(&self) -> Result<Option<Won<PgSession>>, StoreError> {
        Self::try_lead(self).await
    }

    async fn announce(&self, organisation: OrganisationId) -> Result<(), StoreError> {
        self.announce_alert_rules(Some(organisation)).await
    }
}

/// Tries to become the leader. Returns none if another copy leads, or Postgres cannot be asked.
pub(crate) async fn campaign<P: Polls>(
    store: &P,
    was_away: &mut bool,
) -> Option<(Leadership<P::Session>, Lease)> {
    match store.try_lead().await {
        Ok(won) => {
            *was_away = false;
            won.map(|(leadership, until)| (leadership, Lease::new(until)))
        }
        Err(error) => {
            // Once per outage, not twice a second.
            if !*was_away {
                tracing::warn!(%error, "Cannot compete for the leadership of alert rules");
            }
            *was_away = true;
            None
        }
    }
}

/// Waits before the next attempt. The jitter keeps copies from asking in step.
pub(crate) async fn pause(cancelled: &CancellationToken) {
    tokio::select! {
        () = cancelled.cancelled() => {}
        () = sleep(spread(CAMPAIGN)) => {}
    }
}

/// Does the leader's work and keeps the lease meanwhile. `work` ends soon after the lease does, and
/// returns the organisations whose reconcile was in flight then.
pub(crate) async fn lead<P: Polls>(
    store: &P,
    metrics: &RuleMetrics,
    mut leadership: Leadership<P::Session>,
    lease: Lease,
    cancelled: &CancellationToken,
    work: impl Future<Output = Vec<OrganisationId>>,
) {
    metrics.leader.set(1.0);
    metrics.leaderships.increment(1);
    let settled = lease.clone();
    let mut work = std::pin::pin!(async move {
        match settled.during(sleep(SETTLE)).await {
            Ok(()) => work.await,
            Err(LeaseLost) => Vec::new(),
        }
    });
    let in_flight = tokio::select! {
        in_flight = &mut work => in_flight,
        error = keep(&mut leadership, &lease) => {
            tracing::warn!(%error, "Leadership of alert rules lost");
            lease.give_up();
            work.await
        }
    };

    // The lease first: nothing may be written once another copy can get the lock.
    lease.give_up();
    metrics.leader.set(0.0);
    leadership.resign().await;

    if !cancelled.is_cancelled() && !in_flight.is_empty() {
        tokio::spawn(announce(store.clone(), in_flight));
    }
}

/// A write that was sent when the lease ended may reach Mimir after it. So the organisations concerned
/// are announced once more, and the next leader reconciles them again.
async fn announce<P: Polls>(store: P, organisations: Vec<OrganisationId>) {
    for organisation in organisations {
        for _ in 0..ATTEMPTS {
            if store.announce(organisation.clone()).await.is_ok() {
                break;
            }
            sleep(CAMPAIGN).await;
        }
    }
}

/// Renews the lease until that fails.
async fn keep<S: Session>(leadership: &mut Leadership<S>, lease: &Lease) -> StoreError {
    loop {
        sleep(BEAT).await;
        match leadership.beat().await {
            Ok(until) => lease.renew(until),
            Err(error) => return error,
        }
    }
}
