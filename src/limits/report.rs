//! What organisations hold of their limits, and who was refused. For operators; made when it is asked
//! for.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::account::Accounts;
use super::{Device, LimitSource, Limits, Refused, Resolved, RowFault};
use crate::config::{LimitKeys, OrganisationLimits};
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
    /// Organisations with limits of their own in the configuration.
    pub overrides: usize,
    /// Limits from the database; none if they are not read.
    pub rows: Option<RowsReport>,
    /// What the memory may be, in bytes; none if it is not limited.
    pub memory_limit: Option<u64>,
    /// What it is.
    pub memory_used: Option<u64>,
    /// What is shed because of it: 0 for nothing, 1 for lists, 2 for reads as well, 3 for writes as well.
    pub shedding: u8,
    /// Organisations that were refused or have requests in flight, the most refused first.
    pub organisations: Vec<OrganisationUse>,
    /// How many of these there are.
    pub total: usize,
    /// Devices that were refused, the most refused first.
    pub devices: Vec<DeviceUse>,
    /// How many of these there are.
    pub devices_total: usize,
}

/// What the database says of limits.
#[derive(Clone, Debug)]
pub struct RowsReport {
    /// How long ago it was read.
    pub age: Duration,
    /// Organisations with limits.
    pub organisations: usize,
    /// Rows that are no limit.
    pub faulty: usize,
    /// The first of them.
    pub faults: Vec<RowFault>,
}

/// One device that a limit has refused.
#[derive(Clone, Debug)]
pub struct DeviceUse {
    pub organisation: OrganisationId,
    pub device: Device,
    pub refused: Refused,
}

/// One organisation's use of its limits.
#[derive(Clone, Debug)]
pub struct OrganisationUse {
    pub organisation: OrganisationId,
    pub limits: OrganisationLimits,
    /// Where each limit comes from, by its name in the configuration.
    pub sources: Vec<(&'static str, LimitSource)>,
    /// Whether `limits.organisations` or the database names it.
    pub has_own_limits: bool,
    /// Its rows that are no limit.
    pub faults: Vec<RowFault>,
    /// Requests in flight, by surface.
    pub in_flight: Vec<(Surface, usize)>,
    pub hits: Refused,
    /// Its devices that were refused, the most refused first.
    pub devices: Vec<DeviceUse>,
}

/// Devices that are told of one organisation.
const MOST_DEVICES: usize = 100;

impl Limits {
    /// All organisations together, and the first `most` of those that were refused or are active.
    pub fn report(&self, most: usize) -> LimitsReport {
        let mut hits = self.hits.all();
        let active: HashMap<OrganisationId, Vec<(Surface, usize)>> = {
            let accounts = self.accounts.read();
            let uses = accounts.iter().map(|(one, accounts)| (one, accounts.in_flight()));
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
        let mut devices = self.refused_devices();
        let devices_total = devices.len();
        devices.truncate(most);
        for one in &mut organisations {
            let own = devices.iter().filter(|device| device.organisation == one.organisation);
            one.devices = own.take(MOST_DEVICES).cloned().collect();
        }
        let (config, rows) = (self.config.load(), self.rows.load());
        LimitsReport {
            in_flight: self.in_flight(),
            most: self.shares.capacity(),
            organisation_percent: config.organisation_percent,
            max_wait: config.max_wait,
            burst: config.burst,
            each: config.each.limits,
            overrides: config.overrides.len(),
            rows: rows.at.map(|read_at| RowsReport {
                age: read_at.elapsed(),
                organisations: rows.organisations(),
                faulty: rows.faulty,
                faults: rows.faults.clone(),
            }),
            memory_limit: self.admission.memory_limit(),
            memory_used: self.admission.memory_used(),
            shedding: self.admission.level(),
            organisations,
            total,
            devices,
            devices_total,
        }
    }

    /// Devices that were refused, the most refused first.
    fn refused_devices(&self) -> Vec<DeviceUse> {
        let all = self.hits.devices().into_iter();
        let mut devices: Vec<_> = all
            .map(|((organisation, device), refused)| DeviceUse { organisation, device, refused })
            .collect();
        devices.sort_by_key(|one| (Reverse(one.refused.total), one.device.id()));
        devices
    }

    /// One organisation.
    pub fn report_of(&self, organisation: &OrganisationId) -> OrganisationUse {
        let accounts = self.accounts.read().get(organisation).map(Arc::clone);
        let used = accounts.as_deref().map(Accounts::in_flight).unwrap_or_default();
        let mut report = self.use_of(organisation.clone(), used, self.hits.of(organisation));
        let devices = self.refused_devices().into_iter();
        let own = devices.filter(|device| device.organisation == *organisation);
        report.devices = own.take(MOST_DEVICES).collect();
        report
    }

    fn use_of(
        &self,
        organisation: OrganisationId,
        in_flight: Vec<(Surface, usize)>,
        hits: Refused,
    ) -> OrganisationUse {
        let resolved: Resolved = self.limits_of(&organisation);
        let is_named = self.config.load().overrides.contains_key(&organisation);
        let faults = self.rows.load().faults.clone().into_iter();
        OrganisationUse {
            limits: resolved.own.limits,
            sources: LimitKeys::names().map(|name| (name, resolved.source(name))).collect(),
            has_own_limits: is_named || resolved.from_rows != LimitKeys::default(),
            faults: faults.filter(|fault| fault.organisation == organisation.as_str()).collect(),
            organisation,
            in_flight,
            hits,
            devices: Vec::new(),
        }
    }
}
