//! Which sign-ins go on: Supabase's `auth.sessions`.

use std::collections::HashMap;

use sqlx::{AssertSqlSafe, Row as _};
use uuid::Uuid;

use super::{Store, StoreError};

impl Store {
    /// Those of some sessions that go on.
    pub async fn sessions(&self, sessions: Vec<Uuid>) -> Result<HashMap<Uuid, ()>, StoreError> {
        let store = self.clone();
        self.run(async move {
            let query = AssertSqlSafe(store.queries().await?.session.clone());
            let query = sqlx::query(query).bind(sessions).persistent(false);
            let rows = query.fetch_all(&store.0.pool).await?;
            rows.iter().map(|row| Ok((row.try_get("id")?, ()))).collect()
        })
        .await
    }
}
