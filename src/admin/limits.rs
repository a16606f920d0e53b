//! `/admin/limits` and `/admin/organisations/{organisation}/limits`: what organisations may have on
//! this copy, and who was refused.

use std::collections::BTreeMap;

use http::Uri;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::organisations::must_exist;
use super::paging::Paging;
use super::{Admin, AdminError, Answer};
use crate::authz::{OperatorGrant, OrganisationGrant};
use crate::clock::rfc3339;
use crate::config::{LimitsBySurface, SurfaceLimits};
use crate::limits::{DeviceUse, LimitsReport, OrganisationUse, Refused, RowFault, RowsReport};
use crate::route::Surface;

/// The limits on this copy.
#[derive(Serialize, ToSchema)]
pub(super) struct LimitsView {
    /// Requests in flight, of all organisations.
    in_flight: usize,
    /// How many there may be at the moment.
    in_flight_limit: usize,
    /// The part of these that one organisation alone may hold.
    organisation_percent: usize,
    /// How long a request waits before it is refused.
    max_wait_seconds: f64,
    /// For how long unused rate is saved up.
    burst_seconds: f64,
    /// The limits of an organisation without limits of its own, by surface.
    each: BTreeMap<&'static str, SurfaceView>,
    /// Those of each device of such an organisation.
    each_device: BTreeMap<&'static str, SurfaceView>,
    /// How many organisations have limits of their own in the configuration.
    overrides: usize,
    /// Limits from the database; null if they are not read, or were not read yet.
    rows: Option<RowsView>,
    memory: MemoryView,
    /// Organisations that were refused or have requests in flight, the most refused first.
    organisations: Vec<OrganisationUseView>,
    /// How many of these there are. At most 1000 that were refused are remembered.
    total: usize,
    /// Devices that were refused, the most refused first.
    devices: Vec<DeviceUseView>,
    /// How many of these there are. At most 1000 are remembered.
    devices_total: usize,
}

/// Limits from the database.
#[derive(Serialize, ToSchema)]
pub(super) struct RowsView {
    /// When they were read (RFC 3339).
    read_at: String,
    /// Organisations with limits.
    organisations: usize,
    /// Rows that are no limit.
    invalid: usize,
    /// The first 100 of them.
    problems: Vec<RowProblem>,
}

/// A row that is no limit.
#[derive(Serialize, ToSchema)]
pub(super) struct RowProblem {
    organisation: String,
    name: String,
    problem: String,
}

/// The memory of this copy.
#[derive(Serialize, ToSchema)]
pub(super) struct MemoryView {
    /// Null if it is not limited.
    limit_bytes: Option<u64>,
    used_bytes: Option<u64>,
    /// What is shed because memory is short: `nothing`, `lists`, `reads` (and lists) or `writes` (and all else).
    shed: &'static str,
}

/// One device that a limit has refused on this copy.
#[derive(Serialize, ToSchema)]
pub(super) struct DeviceUseView {
    organisation: String,
    /// `device` for a device key, `user` for the subject of a token.
    kind: &'static str,
    id: String,
    refused: Vec<RefusedByLimit>,
    /// All of these together.
    refused_total: u64,
    /// When the last one was refused (RFC 3339).
    last_refused_at: Option<String>,
}

/// The limits of one surface; null is none.
#[derive(Serialize, ToSchema)]
pub(super) struct SurfaceView {
    in_flight: Option<usize>,
    requests_per_second: Option<u64>,
    bytes_per_second: Option<u64>,
}

/// One organisation's use of its limits on this copy, since it started.
#[derive(Serialize, ToSchema)]
pub(super) struct OrganisationUseView {
    organisation: String,
    /// Whether `limits.organisations` or the database names it.
    has_own_limits: bool,
    limits: BTreeMap<&'static str, SurfaceView>,
    /// Those of each of its devices.
    device_limits: BTreeMap<&'static str, SurfaceView>,
    /// Where each limit comes from, by its name in the configuration: `default`, `config` or `database`.
    sources: BTreeMap<&'static str, &'static str>,
    /// Its rows in the database that are no limit.
    problems: Vec<RowProblem>,
    /// Requests in flight, by surface; left out where there are none.
    in_flight: BTreeMap<&'static str, usize>,
    /// Requests that a limit has refused.
    refused: Vec<RefusedByLimit>,
    /// All of these together.
    refused_total: u64,
    /// When the last one was refused (RFC 3339).
    last_refused_at: Option<String>,
    /// Its devices that were refused, the most refused first; at most 100.
    devices: Vec<DeviceUseView>,
}

/// How often one limit has refused.
#[derive(Serialize, ToSchema)]
pub(super) struct RefusedByLimit {
    surface: &'static str,
    /// `requests_per_second`, `bytes_per_second`, `in_flight` or `share`.
    limit: &'static str,
    count: u64,
}

pub(super) fn list(admin: &Admin, _: &OperatorGrant, uri: &Uri) -> Result<Answer, AdminError> {
    let paging = Paging::read(uri, &["limit"])?;
    let report: LimitsReport = admin.system.limits.report(paging.limit);
    let now = admin.now();
    Ok(Answer::of(&LimitsView {
        in_flight: report.in_flight,
        in_flight_limit: report.most,
        organisation_percent: report.organisation_percent,
        max_wait_seconds: report.max_wait.as_secs_f64(),
        burst_seconds: report.burst.as_secs_f64(),
        each: surfaces(&report.each.all),
        each_device: surfaces(&report.each.device),
        overrides: report.overrides,
        rows: report.rows.as_ref().map(|rows| rows_view(rows, now)),
        memory: MemoryView {
            limit_bytes: report.memory_limit,
            used_bytes: report.memory_used,
            shed: ["nothing", "lists", "reads", "writes"][usize::from(report.shedding.min(3))],
        },
        organisations: report.organisations.iter().map(|one| view(one, now)).collect(),
        total: report.total,
        devices: report.devices.iter().map(|one| device_view(one, now)).collect(),
        devices_total: report.devices_total,
    }))
}

fn rows_view(rows: &RowsReport, now: OffsetDateTime) -> RowsView {
    RowsView {
        read_at: rfc3339(now - rows.age),
        organisations: rows.organisations,
        invalid: rows.faulty,
        problems: rows.faults.iter().map(row_problem).collect(),
    }
}

fn row_problem(fault: &RowFault) -> RowProblem {
    let RowFault { organisation, name, problem } = fault.clone();
    RowProblem { organisation, name, problem }
}

pub(super) async fn show(admin: &Admin, grant: &OrganisationGrant) -> Result<Answer, AdminError> {
    let report = admin.system.limits.report_of(grant.organisation());
    let is_used = !report.in_flight.is_empty() || report.hits.total > 0;
    // Limits are also those of organisations in claims alone, without a database.
    if !is_used && !report.has_own_limits && admin.store.is_some() {
        must_exist(admin.store_for(grant)?, grant.organisation()).await?;
    }
    Ok(Answer::of(&view(&report, admin.now())))
}

fn view(one: &OrganisationUse, now: OffsetDateTime) -> OrganisationUseView {
    OrganisationUseView {
        organisation: one.organisation.to_string(),
        has_own_limits: one.has_own_limits,
        limits: surfaces(&one.limits.all),
        device_limits: surfaces(&one.limits.device),
        sources: one.sources.iter().map(|(name, source)| (*name, (*source).into())).collect(),
        problems: one.faults.iter().map(row_problem).collect(),
        in_flight: one.in_flight.iter().map(|(surface, count)| (surface.name(), *count)).collect(),
        refused: refused_by(&one.hits),
        refused_total: one.hits.total,
        last_refused_at: one.hits.last.map(|ago| rfc3339(now - ago)),
        devices: one.devices.iter().map(|one| device_view(one, now)).collect(),
    }
}

fn device_view(one: &DeviceUse, now: OffsetDateTime) -> DeviceUseView {
    DeviceUseView {
        organisation: one.organisation.to_string(),
        kind: one.device.kind(),
        id: one.device.id().to_string(),
        refused: refused_by(&one.refused),
        refused_total: one.refused.total,
        last_refused_at: one.refused.last.map(|ago| rfc3339(now - ago)),
    }
}

fn refused_by(refused: &Refused) -> Vec<RefusedByLimit> {
    let refused = refused.refused.iter();
    let by = |(surface, limit, count): &(Surface, &'static str, u64)| RefusedByLimit {
        surface: surface.name(),
        limit,
        count: *count,
    };
    refused.map(by).collect()
}

fn surfaces(limits: &LimitsBySurface) -> BTreeMap<&'static str, SurfaceView> {
    let LimitsBySurface { push, otlp, query, rules, alerts } = limits;
    let of = |limits: &SurfaceLimits| SurfaceView {
        in_flight: limits.in_flight.map(Into::into),
        requests_per_second: limits.requests_per_second.map(Into::into),
        bytes_per_second: limits.bytes_per_second.map(Into::into),
    };
    [("push", push), ("otlp", otlp), ("query", query), ("rules", rules), ("alerts", alerts)]
        .into_iter()
        .map(|(name, limits)| (name, of(limits)))
        .collect()
}
