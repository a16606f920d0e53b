//! Campaign, lead, resign: at any time at most one copy writes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::engine::Engine;
use super::hints::Hints;
use super::lease::Lease;
use super::ledger::Ledger;
use super::term::{Notes, Term};
use crate::backoff::spread;
use crate::store::{Leadership, StoreError};

/// How often a copy that does not lead tries to. A leader that is frozen or cut off is replaced
/// within its silence (4 s, see `store::Leadership`) and this.
const CAMPAIGN: Duration = Duration::from_millis(500);
/// Attempts to tell whoever leads now of writes that may have been under way.
const ATTEMPTS: u32 = 10;

/// Leads whenever it can, until it is cancelled.
pub async fn lead_forever(
    engine: Arc<Engine>,
    hints: Arc<Hints>,
    holder: String,
    cancelled: CancellationToken,
) {
    let mut is_away = false;
    while !cancelled.is_cancelled() {
        match engine.store.try_lead().await {
            Ok(Some((leadership, until))) => {
                is_away = false;
                let lease = Lease::new(until);
                Box::pin(lead(&engine, &hints, &holder, leadership, lease, &cancelled)).await;
            }
            Ok(None) => is_away = false,
            Err(error) => {
                if !is_away {
                    tracing::warn!(%error, "Cannot stand for writing alert rules");
                }
                is_away = true;
            }
        }
        hints.forget();
        tokio::select! {
            () = cancelled.cancelled() => {}
            () = sleep(spread(CAMPAIGN)) => {}
        }
    }
}

async fn lead(
    engine: &Arc<Engine>,
    hints: &Arc<Hints>,
    holder: &str,
    mut leadership: Leadership,
    lease: Lease,
    cancelled: &CancellationToken,
) {
    engine.metrics.leader.set(1.0);
    engine.metrics.terms.increment(1);
    tracing::info!(leader.holder = holder, "Writing alert rules");
    let (ledger, writing_down) = Ledger::new(Arc::clone(engine), lease.clone(), Arc::clone(hints));
    let work = async {
        let term = match begin(engine, hints, holder, ledger, &lease).await {
            Ok(term) => term,
            Err(error) => {
                tracing::warn!(%error, "Alert rules' state not read");
                return Vec::new();
            }
        };
        tokio::select! {
            under_way = term.run(cancelled.clone()) => under_way,
            // It never ends before the lease does.
            () = async { writing_down.await; std::future::pending().await } => Vec::new(),
        }
    };
    let mut work = std::pin::pin!(work);
    let under_way = tokio::select! {
        under_way = &mut work => under_way,
        error = keep(&mut leadership, &lease) => {
            tracing::warn!(%error, "No longer writing alert rules");
            lease.give_up();
            work.await
        }
    };
    lease.give_up();
    engine.metrics.leader.set(0.0);
    leadership.resign().await;
    if !cancelled.is_cancelled() && !under_way.is_empty() {
        // What had been sent when the lease ended may reach Mimir after it.
        let engine = Arc::clone(engine);
        tokio::spawn(async move {
            for organisation in under_way {
                for _ in 0..ATTEMPTS {
                    let told = engine.store.announce_alert_rules(Some(organisation.clone())).await;
                    if told.is_ok() {
                        break;
                    }
                    sleep(CAMPAIGN).await;
                }
            }
        });
    }
}

async fn begin(
    engine: &Arc<Engine>,
    hints: &Arc<Hints>,
    holder: &str,
    ledger: Ledger,
    lease: &Lease,
) -> Result<Term, StoreError> {
    let mut leader = engine.store.rule_leader().await?;
    let syncs = engine.store.rule_syncs().await?;
    let held = match &leader.guard {
        Some(guard) => engine.store.guard_rows(guard.id.clone(), None).await?,
        None => Vec::new(),
    };
    holder.clone_into(&mut leader.holder);
    leader.since = Some(engine.clock.utc());
    ledger.leader(leader.clone());
    let (engine, hints) = (Arc::clone(engine), Arc::clone(hints));
    let (notes, lease) = (Notes { leader, syncs, held }, lease.clone());
    Ok(Term::new(engine, lease, hints, ledger, notes))
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
