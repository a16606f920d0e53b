//! `/admin/organisations/{organisation}/rules…`: one organisation's alert rules, what has become of
//! them, what a sync would change, and having it done.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use bytes::Bytes;
use http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use utoipa::ToSchema;
use uuid::Uuid;

use super::wire::{Answer, read_body, time_text};
use super::{AdminContext, AdminError};
use crate::authz::AdminGrant;
use crate::rules::{Busy, Desk, Engine, Preview, PreviewError, Verdict, promql_warning};
use crate::store::{AlertRuleRow, NewSyncRequest, RuleStatusRow, SyncRequest, SyncRow};
use crate::tenancy::OrganisationId;

/// An organisation's rules.
#[derive(Serialize, ToSchema)]
pub(super) struct RuleList {
    /// The organisation.
    organisation: String,
    /// Its tenant in Mimir.
    tenant: Option<String>,
    /// One for each row of `alert_rule`, oldest first.
    rules: Vec<RuleView>,
    /// How its sync stands.
    sync: SyncView,
}

/// A rule, and what has become of it.
#[derive(Serialize, ToSchema)]
pub(super) struct RuleView {
    id: Uuid,
    name: Option<String>,
    rule_group: Option<String>,
    evaluation_interval: Option<String>,
    expr: Option<String>,
    /// `pending`, `live`, `invalid`, `over_limit`, `disabled` or `error`.
    state: String,
    /// Why it is not live, in words for its author.
    reason: String,
    /// What is live, if anything is.
    live_hash: Option<String>,
    /// Since when (RFC 3339).
    live_since: Option<String>,
    /// What a parser of our own thinks of the expression. Mimir decides.
    warning: Option<String>,
}

/// How the sync of an organisation stands.
#[derive(Serialize, ToSchema)]
pub(super) struct SyncView {
    /// Rules that are live.
    live: usize,
    /// Enabled rules that are not.
    not_live: usize,
    /// The last time that something was written to Mimir (RFC 3339).
    synced_at: Option<String>,
    /// What is wrong, if anything is.
    problem: Option<String>,
    problem_since: Option<String>,
    /// A deletion that waits for an administrator's word.
    guard: Option<GuardView>,
    /// Since when the organisation itself is gone.
    absent_since: Option<String>,
}

/// A deletion that waits.
#[derive(Serialize, ToSchema)]
pub(super) struct GuardView {
    /// What is to be sent to confirm it.
    id: String,
    /// What would be deleted.
    reason: String,
    since: Option<String>,
}

/// What a sync would change.
#[derive(Serialize, ToSchema)]
pub(super) struct DiffView {
    organisation: String,
    tenant: String,
    /// Whether there is nothing to do.
    in_sync: bool,
    changes: Vec<ChangeView>,
    /// All changes as one unified diff of the groups' YAML.
    diff: String,
    /// Rules that cannot go live.
    not_live: Vec<NotLiveView>,
    /// Set if the guard would hold the deletion back.
    guard: Option<String>,
}

/// A group that would change.
#[derive(Serialize, ToSchema)]
pub(super) struct ChangeView {
    group: String,
    /// `create`, `update` or `delete`.
    action: String,
    diff: String,
}

/// A rule that cannot go live, and why.
#[derive(Serialize, ToSchema)]
pub(super) struct NotLiveView {
    id: Uuid,
    state: String,
    reason: String,
}

/// A sync that was asked for.
#[derive(Serialize, ToSchema)]
pub(super) struct SyncProgress {
    id: Uuid,
    /// `waiting`, `running` or `done`.
    state: String,
    /// Organisations that have been looked at,
    done: usize,
    /// of so many.
    total: usize,
    requested_at: Option<String>,
    started_at: Option<String>,
    finished_at: Option<String>,
    /// What came of it, once it is done.
    outcome: Value,
    /// Where to ask how far it is.
    poll: String,
}

/// What a sync answers, or its dry run.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what is answered")]
pub(super) enum SyncAnswer {
    Progress(SyncProgress),
    DryRun(DiffView),
}

/// The deletion that is confirmed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Confirmation {
    /// The identifier that `guard.id` shows.
    guard: String,
}

impl DiffView {
    /// About how many bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        2 * self.diff.len() + 200 * (self.changes.len() + self.not_live.len() + 1)
    }

    /// Whether there is nothing to tell.
    pub(super) fn is_nothing(&self) -> bool {
        self.in_sync && self.not_live.is_empty() && self.guard.is_none()
    }
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
    let read = parts.desk()?.run(async move |engine: Arc<Engine>| rule_views(&engine, whose).await);
    let rules = read.await??;
    let sync = parts.rules()?.store().rule_sync_of(sync_of).await?;
    let list = RuleList {
        organisation: organisation.to_string(),
        tenant: parts.authorizer.tenant_name(&organisation),
        rules,
        sync: without_the_inside(sync_view(sync.as_ref())),
    };
    Ok(Answer::of(&list))
}

/// Expressions that the parser of our own looks at in one answer: it is slow.
const MOST_WARNED_BYTES: usize = 32 << 10;

async fn rule_views(
    engine: &Engine,
    organisation: OrganisationId,
) -> Result<Vec<RuleView>, AdminError> {
    let asked = vec![organisation.clone()];
    let mut snapshot = engine.store().alert_rules_of(asked.clone()).await?;
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
    preview(parts.desk()?, organisation(&grant)?).await
}

async fn preview(desk: &Desk, organisation: &OrganisationId) -> Result<Answer, AdminError> {
    let organisation = organisation.clone();
    let view = desk.run(async move |engine: Arc<Engine>| {
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
        return preview(parts.desk()?, organisation).await;
    }
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
              (status = 404, description = "no such deletion waits")))]
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
    engine: &Engine,
    body: &Bytes,
    request: NewSyncRequest,
    poll: &str,
) -> Result<Answer, AdminError> {
    let Confirmation { guard } = read_body(body)?;
    if guard.len() != GUARD_DIGITS || !guard.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(AdminError::Missing("deletion that waits"));
    }
    let by = request.requested_by.clone();
    let is_waiting =
        engine.store().confirm_guard(request.organisation.clone(), guard.clone(), by).await?;
    if !is_waiting {
        return Err(AdminError::Missing("deletion that waits"));
    }
    Ok(request_and_wait(engine, request, poll).await?.about(format!("guard {guard}")))
}

pub(super) async fn request_and_wait(
    engine: &Engine,
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

pub(super) fn progress_view(request: &SyncRequest, poll: &str) -> SyncProgress {
    let state = match (request.started_at, request.finished_at) {
        (_, Some(_)) => "done",
        (Some(_), None) => "running",
        (None, None) => "waiting",
    };
    let organisation = request.organisation.as_ref().map_or("", OrganisationId::as_str);
    let poll = poll.replace("{organisation}", organisation);
    SyncProgress {
        id: request.id,
        state: state.to_owned(),
        done: request.done,
        total: request.total,
        requested_at: request.requested_at.map(time_text),
        started_at: request.started_at.map(time_text),
        finished_at: request.finished_at.map(time_text),
        outcome: serde_json::from_str(&request.outcome).unwrap_or_else(|_| json!({})),
        poll: poll.replace("{id}", &request.id.to_string()),
    }
}

pub(super) fn sync_view(sync: Option<&SyncRow>) -> SyncView {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    SyncView {
        live: sync.map_or(0, |sync| sync.live),
        not_live: sync.map_or(0, |sync| sync.not_live),
        synced_at: sync.and_then(|sync| sync.synced_at).map(time_text),
        problem: sync.and_then(|sync| some(&sync.problem)),
        problem_since: sync.and_then(|sync| sync.problem_since).map(time_text),
        guard: sync.and_then(|sync| {
            let guard = sync.guard.as_ref()?;
            let since = sync.guard_since.map(time_text);
            Some(GuardView { id: guard.id.clone(), reason: guard.reason.clone(), since })
        }),
        absent_since: sync.and_then(|sync| sync.absent_since).map(time_text),
    }
}

/// What exactly is wrong inside is for whoever runs the system.
fn without_the_inside(view: SyncView) -> SyncView {
    let words = "Mimir or the database gave no answer that helps; it is tried again";
    SyncView { problem: view.problem.map(|_| words.to_owned()), ..view }
}

pub(super) fn guard_view(id: &str, reason: &str, since: Option<String>) -> GuardView {
    GuardView { id: id.to_owned(), reason: reason.to_owned(), since }
}

pub(super) fn diff_view(organisation: &OrganisationId, preview: &Preview) -> DiffView {
    let changes = preview.changes();
    let plan = &preview.plan;
    let invalid = |(rule, reason): (Uuid, &String)| NotLiveView {
        id: rule,
        state: "invalid".to_owned(),
        reason: reason.clone(),
    };
    let refused = preview.parsed.refused.iter().map(|(rule, reason)| invalid((*rule, reason)));
    let quarantined = plan.quarantined.iter().map(|(rule, reason)| invalid((rule.id, reason)));
    let over = plan.over_limit.iter().map(|rule| NotLiveView {
        id: rule.id,
        state: "over_limit".to_owned(),
        reason: "the tenant's limit on rule groups leaves no room for it".to_owned(),
    });
    DiffView {
        organisation: organisation.to_string(),
        tenant: preview.tenant.as_str().to_owned(),
        in_sync: preview.is_in_sync(),
        diff: changes.iter().map(|change| change.diff.as_str()).collect(),
        changes: changes
            .into_iter()
            .map(|change| ChangeView {
                group: change.name,
                action: change.action.name().to_owned(),
                diff: change.diff,
            })
            .collect(),
        not_live: refused.chain(quarantined).chain(over).collect(),
        guard: match &preview.verdict {
            Verdict::Pass => None,
            Verdict::Hold(reason) => Some(reason.to_string()),
        },
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

impl From<Busy> for AdminError {
    fn from(_: Busy) -> Self {
        Self::Ruler("too many look at rules at once, or it takes too long".to_owned())
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
