//! Checks that a token's session still exists: signing out of Supabase deletes the session, but the
//! access token stays valid until it expires.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::principal::User;
use super::refusal::{Refusal, TokenFault};
use crate::config::DatabaseConfig;
use crate::directory::{CachePolicy, Directory, Queue};
use crate::labels::LookupKind;
use crate::store::{Feed, Store};
use crate::telemetry::Metrics;

/// The sessions, as far as they are known.
pub struct Sessions(Directory<Uuid, ()>);

impl Sessions {
    pub fn new(config: &DatabaseConfig, feed: Arc<Feed>, metrics: &Metrics) -> (Self, Queue<Uuid>) {
        // Supabase's own tables tell of no change, unless the operator adds a trigger.
        let rules = CachePolicy { ttl: config.session_ttl, ..CachePolicy::of(config) };
        let (directory, queue) =
            Directory::new("session", rules, feed, metrics.directory(LookupKind::Session));
        (Self(directory), queue)
    }

    pub(super) async fn check(&self, user: &User) -> Result<(), Refusal> {
        let wanted = TokenFault::ClaimType { claim: "session_id", wanted: "a UUID" };
        let session = user.session_id().and_then(|id| Uuid::try_parse(id).ok());
        let session = session.ok_or(Refusal::Token(wanted))?;
        match self.0.find(&session).await {
            Ok(found) if found.value.is_some() => Ok(()),
            Ok(_) => Err(Refusal::SessionEnded),
            Err(_) => Err(Refusal::DatabaseUnavailable),
        }
    }

    /// Reads what is asked for, until it is cancelled.
    pub async fn run(&self, queue: Queue<Uuid>, store: Store, cancelled: CancellationToken) {
        let read = |sessions| {
            let store = store.clone();
            async move {
                let going_on = store.sessions(sessions).await?;
                Ok(going_on.into_iter().map(|session| (session, ())).collect())
            }
        };
        self.0.run(queue, read, cancelled).await;
    }

    pub fn invalidate(&self, session: &Uuid) {
        self.0.invalidate(session);
    }

    pub fn invalidate_all(&self) {
        self.0.invalidate_all();
    }
}
