//! Which organisations there are.

use std::collections::HashSet;

use super::alert_rules::organisations_in;
use super::queries::{Lookup, Queries};
use super::{Store, StoreError};
use crate::tenancy::OrganisationId;

impl Store {
    /// Those of some organisations that exist.
    pub async fn organisations_among(
        &self,
        wanted: Vec<OrganisationId>,
    ) -> Result<HashSet<OrganisationId>, StoreError> {
        // A table of texts may hold a UUID in any spelling, which are one organisation here.
        let sql = |queries: &Queries| {
            format!(
                "select organisation_id from ({}) as known where lower(organisation_id) = any($1)",
                queries.of(Lookup::Organisation)
            )
        };
        let names: Vec<String> = wanted.iter().map(|one| one.as_str().to_lowercase()).collect();
        self.look_up(sql, |query| query.bind(names), |rows| Ok(organisations_in(&rows))).await
    }
}
