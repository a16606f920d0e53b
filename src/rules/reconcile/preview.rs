//! What a sync would change, without changing anything: for administrators and the command line, on
//! any copy.

use std::collections::HashSet;
use std::fmt::Write as _;

use uuid::Uuid;

use super::expressions::fault_of;
use super::planning::Basis;
use super::quarantine::Quarantine;
use super::reconciler::Reconciler;
use super::tenant_state::recorded_limits;
use super::world::TenantReader;
use crate::labels::RuleState;
use crate::mimir::retrying;
use crate::mimir::ruler::{RuleGroup, RulerError, StoredGroup, StoredRule, write_group};
use crate::rules::plan::Plan;
use crate::rules::plan::diff::Write;
use crate::rules::plan::guard::{Verdict, judge};
use crate::rules::plan::vanishing::attribute;
use crate::rules::spec::alert_rule::AlertRule;
use crate::rules::spec::rows::{ParsedRows, parse_rows};
use crate::rules::status::statuses::RuleStatuses;
use crate::store::{GuardHeld, HeldRule, StoreError};
use crate::tenancy::{OrganisationId, TenantId};
use crate::unified_diff::unified_diff;

#[derive(Clone, Debug)]
pub enum PreviewError {
    /// The organisation does not exist.
    Missing,
    /// The organisation's ID cannot be a tenant's.
    Tenant(String),
    Store(StoreError),
    Ruler(RulerError),
}

/// What a sync would do for one organisation.
#[derive(Debug)]
pub struct Preview {
    pub tenant: TenantId,
    pub parsed: ParsedRows,
    pub plan: Plan,
    /// The deletion that the guard would hold back, if any.
    pub guard: Option<GuardHeld>,
    /// The rules that would be deleted.
    pub vanishing: Vec<HeldRule>,
    /// The rules that Mimir has and does not evaluate, by their statuses.
    pub not_evaluated: Vec<NotEvaluated>,
}

/// A rule that Mimir has and does not evaluate.
#[derive(Clone, Debug)]
pub struct NotEvaluated {
    pub id: Uuid,
    pub name: String,
    pub state: RuleState,
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupAction {
    Create,
    Update,
    Delete,
}

#[derive(Clone, Debug)]
pub struct GroupChange {
    pub name: String,
    pub action: GroupAction,
    /// A unified diff of its YAML.
    pub diff: String,
}

impl GroupAction {
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

impl Reconciler {
    /// Does what a reconcile does, and stops before the first write. A refusal would show faults that
    /// are found here by asking about every expression that would be written.
    pub async fn preview(&self, organisation: &OrganisationId) -> Result<Preview, PreviewError> {
        let asked = vec![organisation.clone()];
        let mut snapshot = self.store.alert_rules_of(asked.clone()).await?;
        if !snapshot.existing.contains(organisation) {
            return Err(PreviewError::Missing);
        }
        let rows = snapshot.rows.remove(organisation).unwrap_or_default();
        let statuses = self.store.rule_statuses_of(asked).await?;
        let tombstones = snapshot.tombstones.remove(organisation).unwrap_or_default();
        let tenant = self.tenant_of(organisation);
        let tenant = tenant.map_err(|error| PreviewError::Tenant(error.to_string()))?;
        let parsed = parse_rows(&rows, &self.defaults());
        let listed =
            retrying(|| self.client.list_raw(&tenant)).await?.parse(&self.config.namespace)?;
        let sync = self.store.rule_sync_of(organisation.clone()).await?;
        let known: RuleStatuses = statuses.into_iter().map(|row| (row.rule, row.into())).collect();
        let mut quarantine = Quarantine::default();
        for status in known.values() {
            if let Some(hash) = &status.refused_hash {
                quarantine.put(hash.clone(), &status.reason);
            }
        }
        let reader = TenantReader { reconciler: self, tenant: &tenant };
        let (observed, limits) = (recorded_limits(sync.as_ref()), self.settings().limits);
        let basis = Basis {
            parsed: &parsed,
            quarantine: &quarantine,
            reported: None,
            observed,
            listed: &listed,
            written_again: &HashSet::new(),
        };
        let (mut plan, reported) = basis.plan(&reader, limits).await?;
        if self.find_faults(&tenant, &plan, &mut quarantine).await {
            let basis = Basis {
                parsed: &parsed,
                quarantine: &quarantine,
                reported,
                observed,
                listed: &listed,
                written_again: &HashSet::new(),
            };
            plan = basis.plan(&reader, limits).await?.0;
        }
        let vanishing = attribute(&plan, &parsed, &known, &tombstones).vanishing;
        let guard = match judge(&vanishing.removal(), &self.config.guard) {
            Verdict::Hold(reason) => {
                Some(GuardHeld { id: vanishing.id(), reason: reason.to_string() })
            }
            // It would pass by itself, but may be part of a larger deletion that is held.
            Verdict::Pass if vanishing.is_empty() => None,
            Verdict::Pass => sync.and_then(|sync| sync.guard),
        };
        let vanishing = vanishing.rules();
        let not_evaluated = not_evaluated(&parsed, &known);
        Ok(Preview { tenant, parsed, plan, guard, vanishing, not_evaluated })
    }

    /// Puts rules with invalid expressions into quarantine, as a refusal would; returns whether there
    /// were any. If Mimir does not answer, the rest counts as valid: a sync may succeed.
    async fn find_faults(
        &self,
        tenant: &TenantId,
        plan: &Plan,
        quarantine: &mut Quarantine,
    ) -> bool {
        let mut found = false;
        for rule in plan.diff.writes.iter().flat_map(|(at, _)| &plan.groups[*at].members) {
            match fault_of(&self.client, tenant, &rule.rule.expr).await {
                Ok(None) => {}
                Ok(Some(fault)) => {
                    quarantine.put(rule.hash(), &fault);
                    found = true;
                }
                Err(_) => break,
            }
        }
        found
    }
}

/// Rules whose status says that Mimir has them, in this version, and does not evaluate them.
fn not_evaluated(parsed: &ParsedRows, known: &RuleStatuses) -> Vec<NotEvaluated> {
    let of = |rule: &AlertRule| {
        let status = known.get(&rule.id)?;
        let is_in_mimir = matches!(status.state, RuleState::Stored | RuleState::Failing)
            && status.rule_hash.as_ref() == Some(&rule.hash());
        is_in_mimir.then(|| NotEvaluated {
            id: rule.id,
            name: rule.rule.alert.clone(),
            state: status.state,
            reason: status.reason.clone(),
        })
    };
    let mut not_evaluated: Vec<NotEvaluated> = parsed.enabled.iter().filter_map(of).collect();
    not_evaluated.sort_by(|one, other| (&one.name, one.id).cmp(&(&other.name, other.id)));
    not_evaluated
}

impl Preview {
    /// Whether Mimir has what the rows ask for.
    pub fn is_in_sync(&self) -> bool {
        self.plan.diff.is_empty()
    }

    /// The groups that would change, in the order in which they are written and deleted.
    pub fn changes(&self) -> Vec<GroupChange> {
        let observed = |name: &str| {
            self.plan.observed.iter().find(|group| group.name == name).map(stored_yaml)
        };
        let writes = self.plan.diff.writes.iter().map(|(at, write)| {
            let group = self.plan.groups[*at].to_group();
            let action = match write {
                Write::Create => GroupAction::Create,
                Write::Update => GroupAction::Update,
            };
            let before = observed(&group.name).unwrap_or_default();
            change(&group.name, action, &before, &write_group(&group))
        });
        let deletes =
            self.plan.diff.deletes.iter().map(|name| {
                change(name, GroupAction::Delete, &observed(name).unwrap_or_default(), "")
            });
        writes.chain(deletes).collect()
    }

    /// All changes as one unified diff; empty if there are none.
    pub fn diff(&self) -> String {
        self.changes().into_iter().map(|change| change.diff).collect()
    }
}

fn change(name: &str, action: GroupAction, before: &str, after: &str) -> GroupChange {
    let (from, to) = match action {
        GroupAction::Create => ("/dev/null".to_owned(), format!("database/{name}")),
        GroupAction::Update => (format!("mimir/{name}"), format!("database/{name}")),
        GroupAction::Delete => (format!("mimir/{name}"), "/dev/null".to_owned()),
    };
    let (from, to) = (from.escape_default().to_string(), to.escape_default().to_string());
    let diff = unified_diff((&from, before), (&to, after));
    GroupChange { name: name.to_owned(), action, diff }
}

/// What Mimir has, written as we write it, so that the diff shows only real differences.
fn stored_yaml(stored: &StoredGroup) -> String {
    let mut rules = Vec::new();
    let mut others = 0;
    for rule in &stored.rules {
        match rule {
            StoredRule::Alerting(rule) => rules.push(rule.clone()),
            StoredRule::Other => others += 1,
        }
    }
    let interval = stored.interval.unwrap_or_default();
    let mut yaml = write_group(&RuleGroup { name: stored.name.clone(), interval, rules });
    if others > 0 {
        let _ = writeln!(
            yaml,
            "# and {others} rules that rows cannot express, such as recording rules"
        );
    }
    if stored.says_more {
        yaml.push_str("# and settings of the group that rows cannot express\n");
    }
    yaml
}

impl From<StoreError> for PreviewError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<RulerError> for PreviewError {
    fn from(error: RulerError) -> Self {
        Self::Ruler(error)
    }
}

impl std::fmt::Display for PreviewError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => f.write_str("organisation not found"),
            Self::Tenant(problem) => write!(f, "the organisation has no tenant: {problem}"),
            Self::Store(error) => error.fmt(f),
            Self::Ruler(error) => error.fmt(f),
        }
    }
}
