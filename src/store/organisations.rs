//! Which organisations there are.

use std::collections::HashSet;

use sqlx::AssertSqlSafe;

use super::alert_rules::organisation_of;
use super::{Store, StoreError};
use crate::tenancy::OrganisationId;

impl Store {
    /// Those of some organisations that exist.
    pub async fn organisations_among(
        &self,
        wanted: Vec<OrganisationId>,
    ) -> Result<HashSet<OrganisationId>, StoreError> {
        let store = self.clone();
        self.run(async move {
            let known = &store.queries().await?.organisation;
            // A table of texts may hold a UUID in any spelling, which are one organisation here.
            let query = format!(
                "select organisation_id from ({known}) as known \
                 where lower(organisation_id) = any($1)"
            );
            let names: Vec<String> = wanted.iter().map(|one| one.as_str().to_lowercase()).collect();
            let query = sqlx::query(AssertSqlSafe(query)).bind(names);
            let rows = store.rows(&store.0.pool, query).await?;
            Ok(rows.iter().filter_map(organisation_of).collect())
        })
        .await
    }
}
