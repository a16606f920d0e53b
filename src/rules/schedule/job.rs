//! A task that reconciles one tenant: reads its rows unless the full resync has read them, and
//! reconciles. And one that purges an organisation that is gone.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use super::full_resync::ResyncId;
use super::queue::Started;
use super::reader::ReadRules;
use crate::rules::reconcile::reconciler::Reconciler;
use crate::rules::reconcile::report::Reconciled;
use crate::rules::reconcile::tenant_state::TenantState;
use crate::rules::reconcile::writer::{WriteError, Writer};
use crate::rules::reconcile::{
    ListAnswer, Mode, Rows, WriteAccess, reconcile, reconcile_unchanged,
};
use crate::rules::status::outcome::Outcome;
use crate::store::{Store, StoreError};
use crate::tenancy::OrganisationId;
use crate::trace;

pub(crate) struct Job {
    pub(crate) reconciler: Arc<Reconciler>,
    pub(crate) access: WriteAccess,
    pub(crate) organisation: OrganisationId,
    /// What the full resync has read; none if the job reads.
    pub(crate) read: Option<ReadRules>,
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
    /// The organisation does not exist, and what time it was then by Postgres' clock.
    pub(crate) absent_at: Option<OffsetDateTime>,
    pub(crate) resync: Option<ResyncId>,
}

impl Job {
    pub(crate) async fn run(self) -> JobEnd {
        let mut span = self.reconciler.tracer.own("reconcile rules");
        span.set("organisation.id", self.organisation.as_str().to_owned());
        trace::within(span, self.run_traced()).await
    }

    async fn run_traced(self) -> JobEnd {
        let Self { reconciler, access, organisation, read, mode, started, resync, is_requested } =
            self;
        let Started { mut state, triggered_at, requests } = started;
        if is_requested || !requests.is_empty() {
            state.expire();
        }

        let began = Instant::now();
        let (found, listed) = find(&reconciler, &organisation, read, &mut state).await;
        let mut absent_at = None;
        let reconciled = match found {
            // Its rules stay until it is purged.
            Ok(Found::Absent(at)) => {
                absent_at = Some(at);
                Reconciled::default()
            }
            Ok(Found::Unchanged(reconciled)) => *reconciled,
            Ok(Found::Rows(rows)) => {
                let state = &mut state;
                // Most reconciles end before this, and it is large.
                Box::pin(reconcile(&reconciler, &access, &organisation, &rows, listed, state, mode))
                    .await
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
        JobEnd { organisation, reconciled, state, triggered_at, requests, took, absent_at, resync }
    }
}

enum Found {
    Rows(Rows),
    /// Neither its rows nor Mimir's listing have changed since they were in sync.
    Unchanged(Box<Reconciled>),
    /// There is no such organisation.
    Absent(OffsetDateTime),
}

/// Gives the rows, unless they have not changed and that is enough. And Mimir's listing, if it was asked
/// for.
async fn find(
    reconciler: &Reconciler,
    organisation: &OrganisationId,
    read: Option<ReadRules>,
    state: &mut TenantState,
) -> (Result<Found, StoreError>, Option<ListAnswer>) {
    let listed = match read {
        Some(ReadRules::Rows(rows)) => return (Ok(Found::Rows(rows)), None),
        Some(ReadRules::Unchanged { listing, .. }) => {
            match reconcile_unchanged(reconciler, organisation, listing, state).await {
                Ok(reconciled) => return (Ok(Found::Unchanged(Box::new(reconciled))), None),
                Err(listed) => listed,
            }
        }
        None => None,
    };
    let _reading = trace::step("read rows");
    (read_rows(&reconciler.store, organisation).await, listed)
}

async fn read_rows(store: &Store, organisation: &OrganisationId) -> Result<Found, StoreError> {
    let mut snapshot = store.alert_rules_of(vec![organisation.clone()]).await?;
    if !snapshot.existing.contains(organisation) {
        return Ok(Found::Absent(store.now().await?));
    }
    let rules = snapshot.rows.remove(organisation).unwrap_or_default();
    let tombstones = snapshot.tombstones.remove(organisation).unwrap_or_default();
    Ok(Found::Rows(Rows { rules, tombstones, versions: None, listing: None }))
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
