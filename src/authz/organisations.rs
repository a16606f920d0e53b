//! Which organisations there are, by way of the [`Directory`]: for callers who reach every one of
//! them, and could otherwise make a new tenant by a mistyped name.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::config::DatabaseConfig;
use crate::directory::{CachePolicy, Directory, Queue};
use crate::labels::LookupKind;
use crate::store::{Feed, Store};
use crate::telemetry::Metrics;
use crate::tenancy::OrganisationId;

/// The organisations, as far as they are known.
pub struct Organisations(Directory<OrganisationId, ()>);

impl Organisations {
    /// Knows of none yet.
    pub fn new(
        config: &DatabaseConfig,
        feed: Arc<Feed>,
        metrics: &Metrics,
    ) -> (Self, Queue<OrganisationId>) {
        let metrics = metrics.directory(LookupKind::Organisation);
        let (directory, queue) =
            Directory::new("organisation", CachePolicy::of(config), feed, metrics);
        (Self(directory), queue)
    }

    /// Whether the table says that there is no such organisation. While it cannot be read nobody
    /// says so: this guards against a slip of the operator's own, who may do everything everywhere,
    /// and the operator's data must not be lost over an outage.
    pub(super) async fn lack(&self, organisation: &OrganisationId) -> bool {
        self.0.find(organisation).await.is_ok_and(|found| found.value.is_none())
    }

    /// Reads what is asked for, until it is cancelled.
    pub async fn run(
        &self,
        queue: Queue<OrganisationId>,
        store: Store,
        cancelled: CancellationToken,
    ) {
        let read = |organisations| {
            let store = store.clone();
            async move {
                let there = store.organisations_among(organisations).await?;
                Ok(there.into_iter().map(|organisation| (organisation, ())).collect())
            }
        };
        self.0.run(queue, read, cancelled).await;
    }

    /// An organisation may have come or gone.
    pub fn invalidate(&self, organisation: &OrganisationId) {
        self.0.invalidate(organisation);
    }

    /// Any may have.
    pub fn invalidate_all(&self) {
        self.0.invalidate_all();
    }
}
