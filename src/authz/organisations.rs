//! Which organisations there are, by way of the [`Directory`]: for callers who reach every one of
//! them, and could otherwise make a new tenant by a mistyped name.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::config::DatabaseConfig;
use crate::directory::{Directory, Queue, Rules};
use crate::store::{Feed, Store};
use crate::telemetry::Metrics;
use crate::tenancy::OrganisationId;

/// The table cannot be read, and nothing is remembered of it.
#[derive(Debug)]
pub(super) struct Unavailable;

/// The organisations, as far as they are known.
pub struct Organisations(Directory<OrganisationId, ()>);

impl Organisations {
    /// Knows of none yet.
    pub fn new(
        config: &DatabaseConfig,
        feed: Arc<Feed>,
        metrics: &Metrics,
    ) -> (Self, Queue<OrganisationId>) {
        let metrics = metrics.directory("organisation");
        let (directory, queue) = Directory::new("organisation", Rules::of(config), feed, metrics);
        (Self(directory), queue)
    }

    /// Whether there is no such organisation. An error if neither the table nor what is remembered of
    /// it can say: a mistyped name would make a new tenant, and a sender repeats what gets a 503.
    pub(super) async fn lack(&self, organisation: &OrganisationId) -> Result<bool, Unavailable> {
        let found = self.0.find(organisation).await.map_err(|_| Unavailable)?;
        Ok(found.value.is_none())
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
