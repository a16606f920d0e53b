//! `/admin/organisations` and `/admin/organisations/{organisation}/members`: who is there.

use http::Uri;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::paging::Paging;
use super::{Admin, AdminError, Answer};
use crate::authz::{OperatorGrant, OrganisationGrant};
use crate::clock::rfc3339;
use crate::store::{
    CountsByState, MemberRow, OrganisationSummary, OrganisationsWanted, Store, StoreError,
};
use crate::tenancy::OrganisationId;

/// A page of the organisations.
#[derive(Serialize, ToSchema)]
pub(super) struct OrganisationPage {
    organisations: Vec<OrganisationEntry>,
    /// How many there are on this page and all that follow or precede it.
    total: u64,
    /// What `after` is to be for the next page; null on the last one.
    next: Option<String>,
}

/// An organisation in numbers. What this proxy does not read is null.
#[derive(Serialize, ToSchema)]
pub(super) struct OrganisationEntry {
    organisation: String,
    /// What its row calls it; empty if that is not known.
    name: String,
    tenant: Option<String>,
    /// Alert rules by state.
    rules: Option<CountsByState>,
    /// Notification channels by state.
    channels: Option<CountsByState>,
    /// Device keys by state: `active`, `expired`, `revoked`.
    devices: Option<CountsByState>,
    /// When a device was last seen (RFC 3339), to within a minute or so.
    last_device_use: Option<String>,
    members: Option<u64>,
    /// Whether a sync has a problem, a deletion waits, or a rule is failing or not live.
    has_problem: bool,
}

/// A page of an organisation's members.
#[derive(Serialize, ToSchema)]
pub(super) struct MemberPage<'a> {
    /// `tenancy.membership`: `claims`, `table` or `claims_and_table`.
    membership_policy: &'a str,
    /// Why members cannot be listed; null if they can.
    unknown_because: Option<&'a str>,
    members: Vec<MemberView>,
    /// What `after` is to be for the next page; null on the last one.
    next: Option<Uuid>,
}

/// A member, with what the role means here.
#[derive(Serialize, ToSchema)]
pub(super) struct MemberView {
    user: Uuid,
    role: String,
    #[schema(value_type = Vec<String>)]
    scopes: Vec<&'static str>,
    /// Whether the organisation is meant when the user names none.
    is_default: bool,
    /// Since when (RFC 3339).
    since: Option<String>,
}

const BY_CLAIMS: &str = "tokens alone say who is a member (tenancy.membership = \"claims\"), so the \
    proxy knows members only while they call";
const BY_QUERY: &str = "database.membership_query answers for a user and not for an organisation";

pub(super) async fn list(
    admin: &Admin,
    _: &OperatorGrant,
    uri: &Uri,
) -> Result<Answer, AdminError> {
    let Paging { limit, after, filter, problems } =
        Paging::read(uri, &["limit", "after", "filter", "problems"])?;
    // One more, to know whether there is a next page.
    let wanted =
        OrganisationsWanted { filter, after, with_problems_only: problems, limit: limit + 1 };
    let (mut found, total) = admin.store()?.organisation_page(wanted).await?;
    let has_more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().map(|one| one.organisation.to_string());
    Ok(Answer::of(&OrganisationPage {
        organisations: found.into_iter().map(|one| entry(admin, one)).collect(),
        total,
        next: last.filter(|_| has_more),
    }))
}

fn entry(admin: &Admin, summary: OrganisationSummary) -> OrganisationEntry {
    OrganisationEntry {
        tenant: admin.authorizer.tenant_name(&summary.organisation),
        organisation: summary.organisation.to_string(),
        name: summary.name,
        rules: summary.rules,
        channels: summary.channels,
        devices: summary.devices,
        last_device_use: summary.last_device_use.map(rfc3339),
        members: summary.members,
        has_problem: summary.has_problem,
    }
}

pub(super) async fn members(
    admin: &Admin,
    grant: &OrganisationGrant,
    uri: &Uri,
) -> Result<Answer, AdminError> {
    let paging = Paging::read(uri, &["limit", "after", "filter"])?;
    let policy = admin.authorizer.membership_policy();
    let mut page = MemberPage {
        membership_policy: policy.name(),
        unknown_because: None,
        members: Vec::new(),
        next: None,
    };
    if !policy.reads_table() {
        page.unknown_because = Some(BY_CLAIMS);
        return Ok(Answer::of(&page));
    }
    let after = match paging.after.as_str() {
        "" => None,
        after => Some(Uuid::try_parse(after).map_err(|_| {
            AdminError::Request("after must be a member's identifier, a UUID".to_owned())
        })?),
    };
    let (store, organisation, limit) =
        (admin.store_for(grant)?, grant.organisation(), paging.limit);
    let found = store.members_of(organisation, paging.filter, after, limit + 1).await;
    let mut found = match found {
        Err(StoreError::Elsewhere(_)) => {
            page.unknown_because = Some(BY_QUERY);
            return Ok(Answer::of(&page));
        }
        found => found?,
    };
    if found.is_empty() {
        must_exist(store, organisation).await?;
    }
    let has_more = found.len() > limit;
    found.truncate(limit);
    page.next = found.last().map(|member| member.user.0).filter(|_| has_more);
    page.members = found.into_iter().map(|member| view(admin, member)).collect();
    Ok(Answer::of(&page))
}

/// An error if there is no such organisation. For answers that would be empty and look like those of an
/// organisation without any.
pub(super) async fn must_exist(
    store: &Store,
    organisation: &OrganisationId,
) -> Result<(), AdminError> {
    let known = store.organisations_among(vec![organisation.clone()]).await?;
    if known.is_empty() { Err(AdminError::Missing("organisation")) } else { Ok(()) }
}

fn view(admin: &Admin, member: MemberRow) -> MemberView {
    MemberView {
        user: member.user.0,
        scopes: admin.authorizer.scopes_of_role(&member.role).names().collect(),
        role: member.role.to_string(),
        is_default: member.is_default,
        since: member.since.map(rfc3339),
    }
}
