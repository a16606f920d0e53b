//! Which organisations there are.

use std::collections::HashSet;

use super::alert_rules::organisations_in;
use super::queries::{Lookup, Queries};
use super::{Store, StoreError};
use crate::tenancy::OrganisationId;

/// The names of organisations as tables may have them. A column of texts may hold a UUID in capitals, which
/// is the same organisation here; with both spellings an index of the column is used.
pub(super) fn spellings(organisations: &[OrganisationId]) -> Vec<String> {
    let of_each = |organisation: &OrganisationId| {
        let name = organisation.to_string();
        let capitals = name.to_uppercase();
        let is_same = OrganisationId::parse(&capitals).ok().as_ref() == Some(organisation);
        let capitals = (is_same && capitals != name).then_some(capitals);
        std::iter::once(name).chain(capitals)
    };
    organisations.iter().flat_map(of_each).collect()
}

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

    /// The same; an error if there is no organisation at all, which says nothing of any: the table is still to be
    /// filled, or was emptied by mistake.
    pub async fn organisations_in_use(
        &self,
        wanted: Vec<OrganisationId>,
    ) -> Result<HashSet<OrganisationId>, StoreError> {
        let found = self.organisations_among(wanted).await?;
        if found.is_empty() {
            let all =
                |queries: &Queries| format!("({}) as known", queries.of(Lookup::Organisation));
            self.unless_empty("organisation", all).await?;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Two names that differ by case are two organisations, unless they are UUIDs.
    #[test]
    fn a_uuid_has_two_spellings_and_any_other_name_one() {
        let uuid = "0a1b2c3d-0000-4000-8000-00000000000f";
        let names = [uuid, "acme", "0a1b2c3d00004000800000000000000f"];
        let organisations: Vec<_> =
            names.iter().map(|name| OrganisationId::parse(name).unwrap()).collect();
        let capitals = uuid.to_uppercase();
        assert_eq!(spellings(&organisations), [uuid, &capitals, names[1], names[2]]);
    }
}
