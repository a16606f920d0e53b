//! Checks that a token's session still exists: signing out of Supabase deletes the session, but the
//! access token stays valid until it expires.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::principal::User;
use super::refusal::{Refusal, TokenFault};
use crate::config::{DatabaseConfig, OauthClients};
use crate::directory::{CachePolicy, Directory, Queue};
use crate::labels::LookupKind;
use crate::store::{Feed, Store, UserSession};
use crate::telemetry::Metrics;

/// The sessions, as far as they are known.
pub struct Sessions(Directory<Uuid, UserSession>);

impl Sessions {
    pub fn new(config: &DatabaseConfig, feed: Arc<Feed>, metrics: &Metrics) -> (Self, Queue<Uuid>) {
        // Supabase's own tables tell of no change, unless the operator adds a trigger.
        let rules = CachePolicy { ttl: config.session_ttl, ..CachePolicy::of(config) };
        let (directory, queue) =
            Directory::new("session", rules, feed, metrics.directory(LookupKind::Session));
        (Self(directory), queue)
    }

    /// Sees that a token's session goes on, and that it was opened for nobody whose tokens are not accepted: the
    /// token's own claims may not tell.
    pub(super) async fn check(&self, user: &User, clients: &OauthClients) -> Result<(), Refusal> {
        let wanted = TokenFault::ClaimType { claim: "session_id", wanted: "a UUID" };
        let session = user.session_id().and_then(|id| Uuid::try_parse(id).ok());
        let session = session.ok_or(Refusal::Token(wanted))?;
        let found = self.0.find(&session).await.map_err(|_| Refusal::DatabaseUnavailable)?;
        let session = found.value.ok_or(Refusal::SessionEnded)?;
        refused_client(&session, clients).map_or(Ok(()), |fault| Err(Refusal::Token(fault)))
    }

    /// Reads what is asked for, until it is cancelled.
    pub async fn run(&self, queue: Queue<Uuid>, store: Store, cancelled: CancellationToken) {
        let read = |sessions| {
            let store = store.clone();
            async move { store.sessions(sessions).await }
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

/// Why a session's tokens are not accepted, if it is an OAuth client's.
pub fn refused_client(session: &UserSession, clients: &OauthClients) -> Option<TokenFault> {
    let client = session.oauth_client.as_deref().filter(|client| !clients.allow(client))?;
    Some(TokenFault::OauthClient { found: client.to_owned(), by: "the session's oauth_client_id" })
}
