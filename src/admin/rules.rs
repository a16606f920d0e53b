//! `/admin/organisations/{organisation}/rules…`: one organisation's alert rules, what has become of
//! them, what a sync would change, and having it done.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use bytes::Bytes;
use http::{StatusCode, Uri};
use serde::Deserialize;
use tokio::time::{Instant, sleep};
use utoipa::ToSchema;
use uuid::Uuid;

use super::rule_views::{
    DiffView, HeldRuleView, RuleList, RuleView, SyncAnswer, SyncProgress, diff_view, progress_view,
    sync_view, without_the_inside,
};
use super::wire::{Answer, read_body, time_text};
use super::{AdminContext, AdminError};
use crate::authz::AdminGrant;
use crate::rules::{
    AdminExecutor, Overloaded, PreviewError, Reconciler, confirmation_text, promql_warning,
};
use crate::store::{AlertRuleRow, Confirmed, NewSyncRequest, RuleStatusRow};
use crate::tenancy::OrganisationId;

/// The deletion that is confirmed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Confirmation {
    /// The identifier that `guard.id` shows.
    guard: String,
}

/// What a guard's identifier has.
const GUARD_DIGITS: usize = 16;
/// How long a sync is waited for before the answer is that it goes on.
const PATIENCE: Duration = Duration::from_secs(2);
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LAST_LOOK: Duration = Duration::from_millis(250);

/// The organisation's alert rules, and what has become of each.
#[utoipa::path(get, path = crate::route::admin::RULES, tag = "rules",
    params(("organisation" = String, Path)),
    responses((status = 200, body = RuleList)))]
pub(super) async fn list(
    State(parts): State<Arc<AdminContext>>,
    Extension(grant): Extension<AdminGrant>,
) -> Result<Answer, AdminError> {
    let organisation = organisation(&grant)?.clone();
    let (whose, sync_of) = (organisation.clone(), organisation.clone());
    let read = parts
        .admin_executor()?
        .run(async move |engine: Arc<Reconciler>| rule_views(&engine, whose).await);
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

/// A typing mistake is no sync that went well. If the database cannot say, the sync itself will.
async fn must_exist(engine: &Reconciler, organisation: &OrganisationId) -> Result<(), AdminError> {
    match engine.store().alert_rules_of(vec![organisation.clone()]).await {
        Ok(found) if !found.existing.contains(organisation) => {
            Err(AdminError::Missing("organisation"))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Expressions that the parser of our own looks at in one answer: it is slow.
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
    let mut looked_at = 0;
    let view = |row: AlertRuleRow| {
        let status = statuses.get(&row.id);
        let expr = row.expr.as_deref().unwrap_or_default();
        looked_at += expr.len();
        let warning = if looked_at <= MOST_WARNED_BYTES { promql_warning(expr) } else { None };
        RuleView {
            id: row.id,
            warning: warning.filter(|_| !expr.is_empty()),
            name: row.name,
            rule_group: row.rule_group,
            evaluation_interval: row.evaluation_interval,
            expr: row.expr,
            state: status.map_or("pending", |status| status.state.name()).to_owned(),
            reason: status.map_or_else(String::new, |status| status.reason.clone()),
            live_hash: status.and_then(|status| status.live_hash.clone()),
            live_since: status.and_then(|status| status.synced_at).map(time_text),
        }
    };
    Ok(rows.into_iter().map(view).collect())
}

/// What a sync would change now.
#[utoipa::path(get, path = crate::route::admin::RULES_DIFF, tag = "rules",
    params(("organisation" = String, Path)),
    responses((status = 200, body = DiffView)))]
pub(super) async fn diff(
    State(parts): State<Arc<AdminContext>>,
    Extension(grant): Extension<AdminGrant>,
) -> Result<Answer, AdminError> {
    preview(parts.admin_executor()?, organisation(&grant)?).await
}

async fn preview(
    executor: &AdminExecutor,
    organisation: &OrganisationId,
) -> Result<Answer, AdminError> {
    let organisation = organisation.clone();
    let view = executor.run(async move |engine: Arc<Reconciler>| {
        let preview = engine.preview(&organisation).await?;
        Ok::<_, AdminError>(diff_view(&organisation, &preview))
    });
    Ok(Answer::of(&view.await??))
}

/// Has the organisation's rules synced now. With `?dry_run=true` it only says what would change.
#[utoipa::path(post, path = crate::route::admin::RULES_SYNC, tag = "rules",
    params(("organisation" = String, Path),
           ("dry_run" = Option<bool>, Query, description = "only say what would change")),
    responses((status = 200, description = "it is done; or what it would change", body = SyncAnswer),
              (status = 202, description = "it goes on; ask at `poll`", body = SyncProgress)))]
pub(super) async fn sync(
    State(parts): State<Arc<AdminContext>>,
    Extension(grant): Extension<AdminGrant>,
    uri: Uri,
) -> Result<Answer, AdminError> {
    let (engine, organisation) = (parts.rules()?, organisation(&grant)?);
    if is_dry_run(&uri)? {
        return preview(parts.admin_executor()?, organisation).await;
    }
    must_exist(engine, organisation).await?;
    let request =
        NewSyncRequest { organisation: Some(organisation.clone()), requested_by: by(&grant) };
    request_and_wait(engine, request, crate::route::admin::RULES_SYNC_PROGRESS).await
}

/// How far a sync of the organisation's rules is.
#[utoipa::path(get, path = crate::route::admin::RULES_SYNC_PROGRESS, tag = "rules",
    params(("organisation" = String, Path), ("id" = Uuid, Path)),
    responses((status = 200, body = SyncProgress)))]
pub(super) async fn progress(
    State(parts): State<Arc<AdminContext>>,
    Extension(grant): Extension<AdminGrant>,
    uri: Uri,
) -> Result<Answer, AdminError> {
    let organisation = organisation(&grant)?;
    let missing = || AdminError::Missing("sync");
    let id = grant.route().id_in(uri.path()).ok_or_else(missing)?;
    let request = parts.rules()?.store().sync_request(id).await?;
    // Another organisation's is not this one's to see.
    let request = request.filter(|request| request.organisation.as_ref() == Some(organisation));
    Ok(Answer::of(&progress_view(&request.ok_or_else(missing)?, grant.route().path)).about(id))
}

/// Lets a deletion pass that waits for an administrator's word.
#[utoipa::path(post, path = crate::route::admin::RULES_CONFIRM, tag = "rules",
    params(("organisation" = String, Path)), request_body = Confirmation,
    responses((status = 200, description = "it is done", body = SyncProgress),
              (status = 202, description = "it goes on; ask at `poll`", body = SyncProgress),
              (status = 404, description = "there is no such deletion"),
              (status = 409, description = "it does not wait any more, or more would vanish by now: the text names the rules and the deletion that waits instead")))]
pub(super) async fn confirm(
    State(parts): State<Arc<AdminContext>>,
    Extension(grant): Extension<AdminGrant>,
    body: Bytes,
) -> Result<Answer, AdminError> {
    let (engine, organisation) = (parts.rules()?, organisation(&grant)?);
    let request =
        NewSyncRequest { organisation: Some(organisation.clone()), requested_by: by(&grant) };
    confirm_and_sync(engine, &body, request, crate::route::admin::RULES_SYNC_PROGRESS).await
}

pub(super) async fn confirm_and_sync(
    engine: &Reconciler,
    body: &Bytes,
    request: NewSyncRequest,
    poll: &str,
) -> Result<Answer, AdminError> {
    let Confirmation { guard } = read_body(body)?;
    if guard.len() != GUARD_DIGITS || !guard.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(AdminError::Missing("deletion that waits"));
    }
    let by = request.requested_by.clone();
    let organisation = request.organisation.clone();
    match engine.store().confirm_guard(organisation, guard.clone(), by).await? {
        Confirmed::Noted => {}
        Confirmed::Unknown => return Err(AdminError::Missing("deletion that waits")),
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
    let deadline = Instant::now() + PATIENCE;
    let mut pause = FIRST_LOOK;
    loop {
        let request = engine.store().sync_request(id).await?;
        let request = request.ok_or(AdminError::Missing("sync"))?;
        let is_done = request.finished_at.is_some();
        if is_done || Instant::now() >= deadline {
            let status = if is_done { StatusCode::OK } else { StatusCode::ACCEPTED };
            return Ok(Answer::of(&progress_view(&request, poll)).with_status(status).about(id));
        }
        sleep(pause).await;
        pause = (pause * 2).min(LAST_LOOK);
    }
}

/// Whether a request is only to say what it would do. A word that is neither is no permission.
pub(super) fn is_dry_run(uri: &Uri) -> Result<bool, AdminError> {
    let query = uri.query().unwrap_or_default();
    let mut is_dry = false;
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        is_dry = match (&*key, &*value) {
            ("dry_run", "true" | "1" | "") => true,
            ("dry_run", "false" | "0") => false,
            ("dry_run", _) => {
                return Err(AdminError::Request("dry_run must be true or false".to_owned()));
            }
            (other, _) => {
                let problem = format!("unknown parameter {other:?}; there is dry_run");
                return Err(AdminError::Request(problem));
            }
        };
    }
    Ok(is_dry)
}

pub(super) fn by(grant: &AdminGrant) -> String {
    format!("{} {}", grant.principal().kind(), grant.principal().id())
}

fn organisation(grant: &AdminGrant) -> Result<&OrganisationId, AdminError> {
    grant.organisation().ok_or(AdminError::Broken)
}

impl From<Overloaded> for AdminError {
    fn from(_: Overloaded) -> Self {
        Self::Overloaded
    }
}

impl From<PreviewError> for AdminError {
    fn from(error: PreviewError) -> Self {
        match error {
            PreviewError::Missing => Self::Missing("organisation"),
            PreviewError::Tenant(_) => Self::Broken,
            PreviewError::Store(error) => Self::Store(error),
            PreviewError::Ruler(error) => Self::Ruler(error.to_string()),
        }
    }
}
