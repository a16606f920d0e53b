//! `/admin/organisations/{organisation}/rules…`: one organisation's alert rules with their statuses, what
//! a sync would change, and the sync itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use serde::Deserialize;
use tokio::time::{Instant, sleep};
use utoipa::ToSchema;
use uuid::Uuid;

use super::body::read_body;
use super::rule_views::{
    HeldRuleView, RuleList, RuleView, diff_view, progress_view, sync_view, without_the_inside,
};
use super::{Admin, AdminError, Answer, recorded_name};
use crate::admin_executor::AdminExecutor;
use crate::authn::Identity;
use crate::authz::OrganisationGrant;
use crate::clock::rfc3339;
use crate::route::{AdminEndpoint, OrganisationEndpoint};
use crate::rules::{PreviewError, Reconciler, confirmation_text, promql_warning};
use crate::store::{AlertRuleRow, Confirmed, NewSyncRequest, RuleStatusRow};
use crate::tenancy::OrganisationId;

/// The deletion that is confirmed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Confirmation {
    /// The identifier that `guard.id` shows.
    pub(super) guard: String,
}

/// Where the progress of a sync is shown.
const SYNC_PROGRESS: &str = AdminEndpoint::Organisation(OrganisationEndpoint::SyncProgress).path();
/// The length of a hold's identifier.
const GUARD_DIGITS: usize = 16;
/// How long a request waits for its sync before it is answered that the sync is still running.
const SYNC_TIMEOUT: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_millis(250);

pub(super) async fn list(parts: &Admin, grant: &OrganisationGrant) -> Result<Answer, AdminError> {
    let organisation = grant.organisation().clone();
    let (whose, sync_of) = (organisation.clone(), organisation.clone());
    let read =
        parts.admin_executor()?.run_for(&organisation, async move |engine: Arc<Reconciler>| {
            rule_views(&engine, whose).await
        });
    let rules = read.await??;
    let store = parts.rules()?.store();
    let sync = store.rule_sync_of(sync_of.clone()).await?;
    let mut view = without_the_inside(sync_view(sync.as_ref()));
    if let Some(guard) = &mut view.guard {
        let held = store.guard_rows(guard.id.clone(), Some(sync_of)).await?;
        guard.rules = held.into_iter().flat_map(|row| row.rules).map(HeldRuleView::from).collect();
    }
    let list = RuleList {
        organisation: organisation.to_string(),
        tenant: parts.authorizer.tenant_name(&organisation),
        rules,
        sync: view,
    };
    Ok(Answer::of(&list))
}

/// Refuses an unknown organisation: the sync of a mistyped one would seem to succeed. If the database
/// is unavailable, the sync itself will say so.
async fn must_exist(engine: &Reconciler, organisation: &OrganisationId) -> Result<(), AdminError> {
    match engine.store().existing_organisations(vec![organisation.clone()]).await {
        Ok(found) if !found.contains(organisation) => Err(AdminError::Missing("organisation")),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Our own parser is slow, so that it checks only this much of expressions in one answer.
const MOST_WARNED_BYTES: usize = 32 << 10;

async fn rule_views(
    engine: &Reconciler,
    organisation: OrganisationId,
) -> Result<Vec<RuleView>, AdminError> {
    let asked = vec![organisation.clone()];
    let mut snapshot = engine.store().alert_rules_of(asked.clone()).await?;
    if !snapshot.existing.contains(&organisation) {
        return Err(AdminError::Missing("organisation"));
    }
    let mut rows = snapshot.rows.remove(&organisation).unwrap_or_default();
    rows.sort_by_key(|row| (row.created_at_micros, row.id));
    let statuses = engine.store().rule_statuses_of(asked).await?;
    let statuses: HashMap<Uuid, RuleStatusRow> =
        statuses.into_iter().map(|status| (status.rule, status)).collect();
    let mut bytes = 0;
    let view = |row: AlertRuleRow| {
        let status = statuses.get(&row.id);
        let expr = row.expr.as_deref().unwrap_or_default();
        bytes += expr.len();
        let warning = if bytes <= MOST_WARNED_BYTES { promql_warning(expr) } else { None };
        RuleView {
            id: row.id,
            warning: warning.filter(|_| !expr.is_empty()),
            name: row.name,
            rule_group: row.rule_group,
            evaluation_interval: row.evaluation_interval,
            expr: row.expr,
            state: status.map_or("pending", |status| status.state.name()).to_owned(),
            reason: status.map_or_else(String::new, |status| status.reason.clone()),
            live_hash: status.and_then(|status| status.rule_hash.clone()),
            live_since: status.and_then(|status| status.synced_at).map(rfc3339),
            stored_since: status.and_then(|status| status.synced_at).map(rfc3339),
            evaluated_at: status.and_then(|status| status.evaluated_at).map(rfc3339),
            notifies: status.and_then(|status| status.notifies),
        }
    };
    Ok(rows.into_iter().map(view).collect())
}

pub(super) async fn diff(parts: &Admin, grant: &OrganisationGrant) -> Result<Answer, AdminError> {
    preview(parts.admin_executor()?, grant.organisation()).await
}

async fn preview(
    executor: &AdminExecutor<Reconciler>,
    organisation: &OrganisationId,
) -> Result<Answer, AdminError> {
    let of = organisation.clone();
    let view = executor.run_for(organisation, async move |engine: Arc<Reconciler>| {
        let preview = engine.preview(&of).await?;
        Ok::<_, AdminError>(diff_view(&of, &preview))
    });
    Ok(Answer::of(&view.await??))
}

pub(super) async fn sync(
    parts: &Admin,
    grant: &OrganisationGrant,
    uri: &Uri,
) -> Result<Answer, AdminError> {
    let (engine, organisation) = (parts.rules()?, grant.organisation());
    if is_dry_run(uri)? {
        return preview(parts.admin_executor()?, organisation).await;
    }
    must_exist(engine, organisation).await?;
    let request = NewSyncRequest {
        organisation: Some(organisation.clone()),
        requested_by: recorded_name(grant.principal()),
    };
    request_and_wait(engine, request, SYNC_PROGRESS).await
}

pub(super) async fn progress(
    parts: &Admin,
    grant: &OrganisationGrant,
    id: Uuid,
) -> Result<Answer, AdminError> {
    let organisation = grant.organisation();
    let missing = || AdminError::Missing("sync");
    let request = parts.rules()?.store().sync_request(id).await?;
    // An organisation must not see another's sync.
    let request = request.filter(|request| request.organisation.as_ref() == Some(organisation));
    Ok(Answer::of(&progress_view(&request.ok_or_else(missing)?, SYNC_PROGRESS)).about(id))
}

pub(super) async fn confirm(
    parts: &Admin,
    grant: &OrganisationGrant,
    body: &[u8],
) -> Result<Answer, AdminError> {
    let (engine, organisation) = (parts.rules()?, grant.organisation());
    // Only the operator sees the whole of a deletion in many organisations, and so lets parts of it pass.
    let is_operator = matches!(grant.principal().identity(), Identity::Service(_));
    if !is_operator && engine.store().rule_leader().await?.guard.is_some() {
        return Err(AdminError::Stale(FOR_THE_OPERATOR.to_owned()));
    }
    let request = NewSyncRequest {
        organisation: Some(organisation.clone()),
        requested_by: recorded_name(grant.principal()),
    };
    confirm_and_sync(engine, body, request, SYNC_PROGRESS).await
}

const FOR_THE_OPERATOR: &str = "a deletion in many organisations is held; until the operator has confirmed it, or it has ended, only \
     the operator can confirm a part of it";

pub(super) async fn confirm_and_sync(
    engine: &Reconciler,
    body: &[u8],
    request: NewSyncRequest,
    poll: &str,
) -> Result<Answer, AdminError> {
    let Confirmation { guard } = read_body(body)?;
    if guard.len() != GUARD_DIGITS || !guard.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(AdminError::Missing("deletion on hold"));
    }
    let by = request.requested_by.clone();
    let organisation = request.organisation.clone();
    match engine.store().confirm_guard(organisation, guard.clone(), by).await? {
        Confirmed::Noted => {}
        Confirmed::Unknown => return Err(AdminError::Missing("deletion on hold")),
        stale => return Err(AdminError::Stale(confirmation_text(&guard, &stale))),
    }
    Ok(request_and_wait(engine, request, poll).await?.about(format!("guard {guard}")))
}

pub(super) async fn request_and_wait(
    engine: &Reconciler,
    request: NewSyncRequest,
    poll: &str,
) -> Result<Answer, AdminError> {
    let id = engine.store().request_sync(request).await?;
    let deadline = Instant::now() + SYNC_TIMEOUT;
    let mut pause = FIRST_PAUSE;
    loop {
        let request = engine.store().sync_request(id).await?;
        let request = request.ok_or(AdminError::Missing("sync"))?;
        let is_done = request.finished_at.is_some();
        if is_done || Instant::now() >= deadline {
            let answer = Answer::of(&progress_view(&request, poll)).about(id);
            return Ok(if is_done { answer } else { answer.accepted() });
        }
        sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// Whether a request is a dry run. What cannot be read is refused: a mistyped dry run must not become
/// a sync.
pub(super) fn is_dry_run(uri: &Uri) -> Result<bool, AdminError> {
    let query = uri.query().unwrap_or_default();
    let mut is_dry = None;
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if is_dry.is_some() {
            return Err(AdminError::Request("dry_run is repeated; send it once".to_owned()));
        }
        is_dry = match (&*key, &*value) {
            ("dry_run", "true" | "1" | "") => Some(true),
            ("dry_run", "false" | "0") => Some(false),
            ("dry_run", _) => {
                return Err(AdminError::Request("dry_run must be true or false".to_owned()));
            }
            (other, _) => {
                let problem = format!("unknown parameter {other:?}; the only one is dry_run");
                return Err(AdminError::Request(problem));
            }
        };
    }
    Ok(is_dry.unwrap_or(false))
}

impl From<PreviewError> for AdminError {
    fn from(error: PreviewError) -> Self {
        match error {
            PreviewError::Missing => Self::Missing("organisation"),
            PreviewError::Tenant(_) => Self::Internal,
            PreviewError::Store(error) => Self::Store(error),
            PreviewError::Ruler(error) => Self::Ruler(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // What could be read either way is refused: a dry run must not become a sync.
    #[test]
    fn a_dry_run_is_said_once_and_clearly() {
        let read = |query: &str| is_dry_run(&format!("/admin/rules/sync{query}").parse().unwrap());
        assert_eq!(read(""), Ok(false));
        assert_eq!(read("?dry_run=true"), Ok(true));
        assert_eq!(read("?dry_run=0"), Ok(false));
        for wrong in ["?dry_run=true&dry_run=false", "?dry_run=maybe", "?dryrun=true"] {
            assert!(matches!(read(wrong), Err(AdminError::Request(_))), "{wrong}");
        }
    }
}
