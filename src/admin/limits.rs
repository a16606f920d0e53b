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
use crate::config::{OrganisationLimits, SurfaceLimits};
use crate::limits::OrganisationUse;

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
    /// How many organisations have limits of their own.
    overrides: usize,
    /// Organisations that were refused or have requests in flight, the most refused first.
    organisations: Vec<OrganisationUseView>,
    /// How many of these there are. At most 1000 that were refused are remembered.
    total: usize,
}

/// The limits of one surface; null is none.
#[derive(Serialize, ToSchema)]
pub(super) struct SurfaceView {
    in_flight: usize,
    requests_per_second: Option<u64>,
    bytes_per_second: Option<u64>,
}

/// One organisation's use of its limits on this copy, since it started.
#[derive(Serialize, ToSchema)]
pub(super) struct OrganisationUseView {
    organisation: String,
    /// Whether `limits.organisations` names it.
    has_own_limits: bool,
    limits: BTreeMap<&'static str, SurfaceView>,
    /// Requests in flight, by surface; left out where there are none.
    in_flight: BTreeMap<&'static str, usize>,
    /// Requests that a limit has refused.
    refused: Vec<RefusedByLimit>,
    /// All of these together.
    refused_total: u64,
    /// When the last one was refused (RFC 3339).
    last_refused_at: Option<String>,
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
    let report = admin.system.limits.report(paging.limit);
    let now = admin.now();
    Ok(Answer::of(&LimitsView {
        in_flight: report.in_flight,
        in_flight_limit: report.most,
        organisation_percent: report.organisation_percent,
        max_wait_seconds: report.max_wait.as_secs_f64(),
        burst_seconds: report.burst.as_secs_f64(),
        each: surfaces(&report.each),
        overrides: report.overrides,
        organisations: report.organisations.iter().map(|one| view(one, now)).collect(),
        total: report.total,
    }))
}

pub(super) async fn show(admin: &Admin, grant: &OrganisationGrant) -> Result<Answer, AdminError> {
    let report = admin.system.limits.report_of(grant.organisation());
    let is_used = !report.in_flight.is_empty() || report.hits.total > 0;
    // Limits are also those of organisations in claims alone, without a database.
    if !is_used && !report.has_own_limits && admin.store.is_some() {
        must_exist(admin, grant.organisation()).await?;
    }
    Ok(Answer::of(&view(&report, admin.now())))
}

fn view(one: &OrganisationUse, now: OffsetDateTime) -> OrganisationUseView {
    let refused = one.hits.refused.iter().map(|(surface, limit, count)| RefusedByLimit {
        surface: surface.name(),
        limit,
        count: *count,
    });
    OrganisationUseView {
        organisation: one.organisation.to_string(),
        has_own_limits: one.has_own_limits,
        limits: surfaces(&one.limits),
        in_flight: one.in_flight.iter().map(|(surface, count)| (surface.name(), *count)).collect(),
        refused: refused.collect(),
        refused_total: one.hits.total,
        last_refused_at: one.hits.last.map(|ago| rfc3339(now - ago)),
    }
}

fn surfaces(limits: &OrganisationLimits) -> BTreeMap<&'static str, SurfaceView> {
    let OrganisationLimits { push, otlp, query, rules, alerts } = limits;
    let of = |limits: &SurfaceLimits| SurfaceView {
        in_flight: limits.in_flight,
        requests_per_second: limits.requests_per_second.map(Into::into),
        bytes_per_second: limits.bytes_per_second.map(Into::into),
    };
    [("push", push), ("otlp", otlp), ("query", query), ("rules", rules), ("alerts", alerts)]
        .into_iter()
        .map(|(name, limits)| (name, of(limits)))
        .collect()
}
