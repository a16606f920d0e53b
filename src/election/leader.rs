//! Campaign, lead, resign: at most one copy writes rules at any time.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::lease::Lease;
use crate::backoff::spread;
use crate::store::{Leadership, Store, StoreError};
use crate::telemetry::RuleMetrics;
use crate::tenancy::OrganisationId;

/// The pause between two attempts to become the leader. A leader that is frozen or cut off is replaced
/// after 4 seconds of silence (`store::Leadership`) and this.
pub(crate) const CAMPAIGN: Duration = Duration::from_millis(500);
/// Attempts to tell the next leader about writes that were in flight.
const ATTEMPTS: u32 = 10;

/// Tries to become the leader. Returns none if another copy leads, or Postgres cannot be asked.
pub(crate) async fn campaign(store: &Store, was_away: &mut bool) -> Option<(Leadership, Lease)> {
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
pub(crate) async fn lead(
    store: &Store,
    metrics: &RuleMetrics,
    mut leadership: Leadership,
    lease: Lease,
    cancelled: &CancellationToken,
    work: impl Future<Output = Vec<OrganisationId>>,
) {
    metrics.leader.set(1.0);
    metrics.leaderships.increment(1);
    let mut work = std::pin::pin!(work);
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
async fn announce(store: Store, organisations: Vec<OrganisationId>) {
    for organisation in organisations {
        for _ in 0..ATTEMPTS {
            if store.announce_alert_rules(Some(organisation.clone())).await.is_ok() {
                break;
            }
            sleep(CAMPAIGN).await;
        }
    }
}

/// Renews the lease until that fails.
async fn keep(leadership: &mut Leadership, lease: &Lease) -> StoreError {
    loop {
        sleep(Leadership::BEAT).await;
        match leadership.beat().await {
            Ok(until) => lease.renew(until),
            Err(error) => return error,
        }
    }
}
