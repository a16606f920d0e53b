//! Which organisations exist, through the [`Directory`]. Callers with access to every organisation are
//! checked against it: a mistyped name would otherwise create a tenant in Mimir.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::config::DatabaseConfig;
use crate::directory::{CachePolicy, Directory, Queue};
use crate::labels::LookupKind;
use crate::store::{Feed, Store};
use crate::telemetry::Metrics;
use crate::tenancy::OrganisationId;

/// The table cannot be read, and nothing is remembered of it.
#[derive(Debug)]
pub(super) struct Unavailable;

/// The organisations that were looked up.
pub struct Organisations(Directory<OrganisationId, ()>);

impl Organisations {
    /// An empty directory, and the queue of what it has to look up.
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

    /// Whether there is no such organisation. An error if neither the table nor what is remembered of
    /// it can say: a mistyped name would make a new tenant, and a sender repeats what gets a 503.
    pub(super) async fn is_missing(
        &self,
        organisation: &OrganisationId,
    ) -> Result<bool, Unavailable> {
        let found = self.0.find(organisation).await.map_err(|_| Unavailable)?;
        Ok(found.value.is_none())
    }

    /// Serves the queue until it is cancelled.
    pub async fn run(
        &self,
        queue: Queue<OrganisationId>,
        store: Store,
        cancelled: CancellationToken,
    ) {
        let read = |organisations| {
            let store = store.clone();
            async move {
                let existing = store.organisations_in_use(organisations).await?;
                Ok(existing.into_iter().map(|organisation| (organisation, ())).collect())
            }
        };
        self.0.run(queue, read, cancelled).await;
    }

    /// Has one organisation read again: it may have been created or deleted, or only its rules have
    /// changed. While the database is away, what was known of it counts: this guards the operator
    /// against a typing mistake, and an outage must not cost the operator data.
    pub fn expire(&self, organisation: &OrganisationId) {
        self.0.expire(organisation);
    }

    /// Has all organisations read again.
    pub fn expire_all(&self) {
        self.0.expire_all();
    }
}
