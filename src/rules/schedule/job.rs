//! A task that reconciles one tenant: reads its rows unless the full resync has read them, and
//! reconciles. And one that purges an organisation that is gone.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::full_resync::ResyncId;
use super::queue::Started;
use crate::rules::reconcile::reconciler::Reconciler;
use crate::rules::reconcile::report::Reconciled;
use crate::rules::reconcile::tenant_state::TenantState;
use crate::rules::reconcile::writer::{WriteError, Writer};
use crate::rules::reconcile::{Mode, Rows, WriteAccess, reconcile};
use crate::rules::status::outcome::Outcome;
use crate::tenancy::OrganisationId;
use crate::trace;

pub(crate) struct Job {
    pub(crate) reconciler: Arc<Reconciler>,
    pub(crate) access: WriteAccess,
    pub(crate) organisation: OrganisationId,
    pub(crate) rows: Option<Rows>,
    pub(crate) mode: Mode,
    pub(crate) started: Started,
    /// The full resync that it is part of.
    pub(crate) resync: Option<ResyncId>,
    /// Somebody waits for the full resync.
    pub(crate) is_requested: bool,
}

pub(crate) struct JobEnd {
    pub(crate) organisation: OrganisationId,
    pub(crate) reconciled: Reconciled,
    pub(crate) state: Box<TenantState>,
    pub(crate) triggered_at: Option<Instant>,
    pub(crate) requests: Vec<Uuid>,
    pub(crate) took: Duration,
    /// The organisation does not exist.
    pub(crate) is_absent: bool,
    pub(crate) resync: Option<ResyncId>,
}

impl Job {
    pub(crate) async fn run(self) -> JobEnd {
        let mut span = self.reconciler.tracer.own("reconcile rules");
        span.set("organisation.id", self.organisation.as_str().to_owned());
        trace::within(span, self.run_traced()).await
    }

    async fn run_traced(self) -> JobEnd {
        let Self { reconciler, access, organisation, rows, mode, started, resync, is_requested } =
            self;
        let Started { mut state, triggered_at, requests } = started;
        if is_requested || !requests.is_empty() {
            state.expire();
        }

        let began = Instant::now();
        let reading = trace::step("read rows");
        let (rows, is_absent) = match rows {
            Some(rows) => (Ok(rows), false),
            None => match reconciler.store.alert_rules_of(vec![organisation.clone()]).await {
                Ok(mut snapshot) => {
                    let is_absent = !snapshot.existing.contains(&organisation);
                    let rules = snapshot.rows.remove(&organisation).unwrap_or_default();
                    let tombstones = snapshot.tombstones.remove(&organisation).unwrap_or_default();
                    (Ok(Rows { rules, tombstones, listing: None }), is_absent)
                }
                Err(error) => (Err(error), false),
            },
        };
        drop(reading);
        let reconciled = match rows {
            // Its rules stay until it is purged.
            Ok(_) if is_absent => Reconciled::default(),
            Ok(rows) => {
                reconcile(&reconciler, &access, &organisation, &rows, &mut state, mode).await
            }
            Err(error) => {
                Reconciled { outcome: Outcome::Failed(error.into()), ..Reconciled::default() }
            }
        };
        let took = began.elapsed();
        trace::note(|span| {
            let outcome: &'static str = reconciled.outcome.kind().into();
            span.set("outcome", outcome);
            if matches!(reconciled.outcome, Outcome::Failed(_)) {
                span.fail("failed");
            }
        });
        JobEnd { organisation, reconciled, state, triggered_at, requests, took, is_absent, resync }
    }
}

/// Deletes our namespace of an organisation that is gone.
pub(crate) async fn purge(
    reconciler: &Reconciler,
    access: &WriteAccess,
    organisation: &OrganisationId,
) -> Result<(), String> {
    // What has no tenant has nothing in Mimir.
    let Ok(tenant) = reconciler.tenant_of(organisation) else { return Ok(()) };

    // It may have come back since the full resync listed all organisations.
    let snapshot = reconciler.store.alert_rules_of(vec![organisation.clone()]).await;
    if snapshot.map_err(|error| error.to_string())?.existing.contains(organisation) {
        return Err("the organisation exists again".to_owned());
    }
    let WriteAccess { lease, metrics } = access;
    let writer = Writer { client: &reconciler.client, lease, metrics };
    writer.delete_namespace(&tenant).await.map_err(|error| match error {
        WriteError::LeaseLost => "the leadership was lost".to_owned(),
        WriteError::Ruler(error) => error.to_string(),
    })
}
