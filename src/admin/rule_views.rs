//! The answers of `/admin` about rules.

use serde::{Serialize, Serializer};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::clock::rfc3339;
use crate::labels::RuleState;
use crate::rules::{Preview, SyncOutcome};
use crate::store::{HeldRule, SyncRequest, SyncRow};
use crate::tenancy::OrganisationId;

/// An organisation's rules.
#[derive(Serialize, ToSchema)]
pub(super) struct RuleList {
    /// The organisation.
    pub(super) organisation: String,
    /// Its tenant in Mimir.
    pub(super) tenant: Option<String>,
    /// One for each row of `alert_rule`, oldest first.
    pub(super) rules: Vec<RuleView>,
    /// How its sync stands.
    pub(super) sync: SyncView,
}

/// A rule, and what has become of it.
#[derive(Serialize, ToSchema)]
pub(super) struct RuleView {
    pub(super) id: Uuid,
    pub(super) name: Option<String>,
    pub(super) rule_group: Option<String>,
    pub(super) evaluation_interval: Option<String>,
    pub(super) expr: Option<String>,
    /// `pending`, `stored`, `live`, `failing`, `invalid`, `over_limit`, `disabled` or `error`.
    pub(super) state: String,
    /// Why it is not live, in words for its author.
    pub(super) reason: String,
    /// The version that Mimir has, if it has any.
    pub(super) live_hash: Option<String>,
    /// Since when Mimir has it (RFC 3339). The former name of `stored_since`.
    pub(super) live_since: Option<String>,
    /// Since when Mimir has it (RFC 3339).
    pub(super) stored_since: Option<String>,
    /// The last evaluation of this version that is known of (RFC 3339). It may be some minutes behind.
    pub(super) evaluated_at: Option<String>,
    /// Whether its alerts reach a notification channel; `null` if that is not known.
    pub(super) notifies: Option<bool>,
    /// What a parser of our own thinks of the expression. Mimir decides.
    pub(super) warning: Option<String>,
}

/// How the sync of an organisation stands.
#[derive(Serialize, ToSchema)]
pub(super) struct SyncView {
    /// Rules that Mimir has and has not been seen to evaluate.
    pub(super) stored: usize,
    /// Rules that Mimir has and evaluates.
    pub(super) live: usize,
    /// Rules that Mimir has and does not evaluate, or without success.
    pub(super) failing: usize,
    /// Enabled rules that Mimir does not have.
    pub(super) not_live: usize,
    /// The last time that something was written to Mimir (RFC 3339).
    pub(super) synced_at: Option<String>,
    /// What is wrong, if anything is.
    pub(super) problem: Option<String>,
    pub(super) problem_since: Option<String>,
    /// A deletion that waits for a confirmation.
    pub(super) guard: Option<GuardView>,
    /// Since when the organisation itself is gone.
    pub(super) absent_since: Option<String>,
}

/// A deletion that waits.
#[derive(Serialize, ToSchema)]
pub(super) struct GuardView {
    /// What is to be sent to confirm it.
    pub(super) id: String,
    /// What would be deleted.
    pub(super) reason: String,
    pub(super) since: Option<String>,
    /// The rules that would vanish, where one organisation's rules are listed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) rules: Vec<HeldRuleView>,
}

/// A rule that would vanish.
#[derive(Serialize, ToSchema)]
pub(super) struct HeldRuleView {
    /// Its row's identifier, if its row is known.
    pub(super) id: Option<Uuid>,
    pub(super) name: String,
    /// The group that it is in.
    pub(super) group: String,
    /// Why it would vanish.
    pub(super) why: String,
}

impl From<HeldRule> for HeldRuleView {
    fn from(rule: HeldRule) -> Self {
        let HeldRule { key, name, group, why } = rule;
        Self { id: Uuid::try_parse(&key).ok(), name, group, why }
    }
}

/// What a sync would change.
#[derive(Serialize, ToSchema)]
pub(super) struct DiffView {
    pub(super) organisation: String,
    pub(super) tenant: String,
    /// Whether there is nothing to do.
    pub(super) in_sync: bool,
    pub(super) changes: Vec<ChangeView>,
    /// All changes as one unified diff of the groups' YAML.
    pub(super) diff: String,
    /// Rules that cannot go live.
    pub(super) not_live: Vec<NotLiveView>,
    /// Rules that Mimir has and does not evaluate: `stored` or `failing`.
    pub(super) not_evaluated: Vec<NotLiveView>,
    /// Why the guard would hold the deletion back, if it would.
    pub(super) guard: Option<String>,
    /// What is to be confirmed then.
    pub(super) guard_id: Option<String>,
    /// The rules that would vanish.
    pub(super) vanishing: Vec<HeldRuleView>,
}

/// A group that would change.
#[derive(Serialize, ToSchema)]
pub(super) struct ChangeView {
    pub(super) group: String,
    /// `create`, `update` or `delete`.
    pub(super) action: String,
    pub(super) diff: String,
}

/// A rule that is not live, and why.
#[derive(Serialize, ToSchema)]
pub(super) struct NotLiveView {
    pub(super) id: Uuid,
    pub(super) state: String,
    pub(super) reason: String,
}

/// A sync that was asked for.
#[derive(Serialize, ToSchema)]
pub(super) struct SyncProgress {
    pub(super) id: Uuid,
    /// `waiting`, `running` or `done`.
    pub(super) state: String,
    /// Organisations that are done,
    pub(super) done: usize,
    /// of so many.
    pub(super) total: usize,
    pub(super) requested_at: Option<String>,
    pub(super) started_at: Option<String>,
    pub(super) finished_at: Option<String>,
    /// What came of it; empty before it is done.
    #[serde(serialize_with = "outcome_or_empty")]
    #[schema(value_type = SyncOutcome)]
    pub(super) outcome: Option<SyncOutcome>,
    /// Where to ask how far it is.
    pub(super) poll: String,
}

/// What a sync answers, or its dry run.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what is answered")]
pub(super) enum SyncAnswer {
    Progress(SyncProgress),
    DryRun(DiffView),
}

impl DiffView {
    /// About how many bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        2 * self.diff.len()
            + 200
                * (self.changes.len()
                    + self.not_live.len()
                    + self.not_evaluated.len()
                    + self.vanishing.len()
                    + 1)
    }

    /// Whether there is nothing to tell. A rule that was just written is nothing to tell.
    pub(super) fn is_nothing(&self) -> bool {
        let is_evaluated =
            self.not_evaluated.iter().all(|rule| rule.state != RuleState::Failing.name());
        self.in_sync && self.not_live.is_empty() && self.guard.is_none() && is_evaluated
    }
}

/// No outcome is `{}`, as it always was, and not `null`.
#[expect(clippy::ref_option, reason = "the signature that serde calls")]
pub(super) fn outcome_or_empty<S: Serializer>(
    outcome: &Option<SyncOutcome>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match outcome {
        Some(outcome) => outcome.serialize(serializer),
        None => serializer.collect_map(std::iter::empty::<((), ())>()),
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
        requested_at: request.requested_at.map(rfc3339),
        started_at: request.started_at.map(rfc3339),
        finished_at: request.finished_at.map(rfc3339),
        outcome: SyncOutcome::from_json(&request.outcome),
        poll: poll.replace("{id}", &request.id.to_string()),
    }
}

pub(super) fn sync_view(sync: Option<&SyncRow>) -> SyncView {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    SyncView {
        stored: sync.map_or(0, |sync| sync.stored),
        live: sync.map_or(0, |sync| sync.live),
        failing: sync.map_or(0, |sync| sync.failing),
        not_live: sync.map_or(0, |sync| sync.not_in_mimir),
        synced_at: sync.and_then(|sync| sync.synced_at).map(rfc3339),
        problem: sync.and_then(|sync| some(&sync.problem)),
        problem_since: sync.and_then(|sync| sync.problem_since).map(rfc3339),
        guard: sync.and_then(|sync| {
            let guard = sync.guard.as_ref()?;
            let since = sync.guard_since.map(rfc3339);
            Some(guard_view(&guard.id, &guard.reason, since))
        }),
        absent_since: sync.and_then(|sync| sync.absent_since).map(rfc3339),
    }
}

/// Hides the cause of a problem from the organisation's administrators: it is for the operator.
pub(super) fn without_the_inside(view: SyncView) -> SyncView {
    let words = "Mimir or the database is unavailable; the sync is retried";
    SyncView { problem: view.problem.map(|_| words.to_owned()), ..view }
}

pub(super) fn guard_view(id: &str, reason: &str, since: Option<String>) -> GuardView {
    GuardView { id: id.to_owned(), reason: reason.to_owned(), since, rules: Vec::new() }
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
    let not_evaluated = preview.not_evaluated.iter().map(|rule| NotLiveView {
        id: rule.id,
        state: rule.state.name().to_owned(),
        reason: rule.reason.clone(),
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
        not_evaluated: not_evaluated.collect(),
        guard: preview.guard.as_ref().map(|guard| guard.reason.clone()),
        guard_id: preview.guard.as_ref().map(|guard| guard.id.clone()),
        vanishing: preview.vanishing.iter().cloned().map(HeldRuleView::from).collect(),
    }
}
