//! Memberships: user -> organisations and roles, through the [`Directory`].

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::config::DatabaseConfig;
use crate::directory::{CachePolicy, Directory, Found, Queue, Unavailable};
use crate::labels::LookupKind;
use crate::store::{Feed, Store};
use crate::telemetry::Metrics;
use crate::tenancy::{Membership, UserId};

/// The memberships of the users that were looked up.
pub struct Memberships(Directory<UserId, Arc<[Membership]>>);

impl Memberships {
    /// An empty directory, and the queue of what it has to look up.
    pub fn new(
        config: &DatabaseConfig,
        feed: Arc<Feed>,
        metrics: &Metrics,
    ) -> (Self, Queue<UserId>) {
        let (directory, queue) = Directory::new(
            "membership",
            CachePolicy::of(config),
            feed,
            metrics.directory(LookupKind::Membership),
        );
        (Self(directory), queue)
    }

    pub(super) async fn of(&self, user: UserId) -> Result<Found<Arc<[Membership]>>, Unavailable> {
        self.0.find(&user).await
    }

    /// Serves the queue until it is cancelled.
    pub async fn run(&self, queue: Queue<UserId>, store: Store, cancelled: CancellationToken) {
        let read = |users| {
            let store = store.clone();
            async move {
                let memberships = store.memberships_of(users).await?;
                Ok(memberships.into_iter().map(|(user, own)| (user, own.into())).collect())
            }
        };
        self.0.run(queue, read, cancelled).await;
    }

    /// Drops one user's memberships: they have changed.
    pub fn invalidate(&self, user: &UserId) {
        self.0.invalidate(user);
    }

    /// Drops all memberships.
    pub fn invalidate_all(&self) {
        self.0.invalidate_all();
    }
}
