//! What organisations hold of their limits, and who was refused. For operators; made when it is asked
//! for.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::account::Accounts;
use super::{Limits, OrganisationHits};
use crate::config::OrganisationLimits;
use crate::route::Surface;
use crate::tenancy::OrganisationId;

/// The limits of all organisations together.
#[derive(Clone, Debug)]
pub struct LimitsReport {
    /// Requests in flight.
    pub in_flight: usize,
    /// How many there may be at the moment.
    pub most: usize,
    /// The part of these that one organisation alone may hold.
    pub organisation_percent: usize,
    pub max_wait: Duration,
    pub burst: Duration,
    /// The limits of an organisation without limits of its own.
    pub each: OrganisationLimits,
    /// Organisations with limits of their own.
    pub overrides: usize,
    /// Organisations that were refused or have requests in flight, the most refused first.
    pub organisations: Vec<OrganisationUse>,
    /// How many of these there are.
    pub total: usize,
}

/// One organisation's use of its limits.
#[derive(Clone, Debug)]
pub struct OrganisationUse {
    pub organisation: OrganisationId,
    pub limits: OrganisationLimits,
    /// Whether `limits.organisations` names it.
    pub has_own_limits: bool,
    /// Requests in flight, by surface.
    pub in_flight: Vec<(Surface, usize)>,
    pub hits: OrganisationHits,
}

impl Limits {
    /// All organisations together, and the first `most` of those that were refused or are active.
    pub fn report(&self, most: usize) -> LimitsReport {
        let mut hits = self.hits.all();
        let active: HashMap<OrganisationId, Vec<(Surface, usize)>> = {
            let accounts = self.accounts.read();
            let uses = accounts.iter().map(|(one, accounts)| (one, used(accounts)));
            let active = uses.filter(|(_, used)| !used.is_empty());
            active.map(|(organisation, used)| (organisation.clone(), used)).collect()
        };
        let mut organisations: Vec<OrganisationUse> = active
            .into_iter()
            .map(|(organisation, in_flight)| {
                let hits = hits.remove(&organisation).unwrap_or_default();
                self.use_of(organisation, in_flight, hits)
            })
            .collect();
        let idle = hits.into_iter().map(|(one, hits)| self.use_of(one, Vec::new(), hits));
        organisations.extend(idle.collect::<Vec<_>>());
        organisations.sort_by_cached_key(|one| {
            let in_flight: usize = one.in_flight.iter().map(|(_, count)| count).sum();
            (Reverse(one.hits.total), Reverse(in_flight), one.organisation.clone())
        });
        let total = organisations.len();
        organisations.truncate(most);
        let config = self.config.load();
        LimitsReport {
            in_flight: self.in_flight(),
            most: self.shares.capacity(),
            organisation_percent: config.organisation_percent,
            max_wait: config.max_wait,
            burst: config.burst,
            each: config.each,
            overrides: config.overrides.len(),
            organisations,
            total,
        }
    }

    /// One organisation.
    pub fn report_of(&self, organisation: &OrganisationId) -> OrganisationUse {
        let accounts = self.accounts.read().get(organisation).map(Arc::clone);
        let used = accounts.map(|accounts| used(&accounts)).unwrap_or_default();
        self.use_of(organisation.clone(), used, self.hits.of(organisation))
    }

    fn use_of(
        &self,
        organisation: OrganisationId,
        in_flight: Vec<(Surface, usize)>,
        hits: OrganisationHits,
    ) -> OrganisationUse {
        let config = self.config.load();
        OrganisationUse {
            limits: *config.limits_of(&organisation),
            has_own_limits: config.overrides.contains_key(&organisation),
            organisation,
            in_flight,
            hits,
        }
    }
}

fn used(accounts: &Accounts) -> Vec<(Surface, usize)> {
    accounts.in_flight().into_iter().filter(|(_, count)| *count > 0).collect()
}
