//! Which sign-ins go on: Supabase's `auth.sessions`.

use std::collections::HashSet;

use sqlx::{AssertSqlSafe, Row as _};
use uuid::Uuid;

use super::{Store, StoreError};

impl Store {
    /// Those of some sessions that go on.
    pub async fn sessions(&self, sessions: Vec<Uuid>) -> Result<HashSet<Uuid>, StoreError> {
        let store = self.clone();
        self.run(async move {
            let query = AssertSqlSafe(store.queries().await?.session.clone());
            let rows = store.rows(&store.0.pool, sqlx::query(query).bind(sessions)).await?;
            // A row without an identifier is nobody's session.
            let ids = rows.iter().filter_map(|row| row.try_get::<Option<Uuid>, _>("id").ok()?);
            Ok(ids.collect())
        })
        .await
    }
}
