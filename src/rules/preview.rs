//! What a sync would change, without changing anything: for administrators and the command line, on
//! any copy, whoever leads.

use std::fmt::Write as _;
use std::time::Duration;

use similar::TextDiff;

use super::diff::Write;
use super::engine::Engine;
use super::expressions::fault_of;
use super::guard::{Verdict, judge};
use super::plan::{Basis, ParsedRows, Plan, Quarantine, parse_rows};
use super::statuses::KeptStatuses;
use super::tenants::shown_by;
use super::vanishing::attribute;
use super::world::Asking;
use super::writer::ask;
use crate::mimir::ruler::{RuleGroup, RulerError, StoredGroup, StoredRule, write_group};
use crate::store::{GuardHeld, HeldRule, StoreError};
use crate::tenancy::{OrganisationId, TenantId};

/// Why nothing can be said.
#[derive(Clone, Debug)]
pub enum PreviewError {
    /// There is no such organisation.
    Missing,
    /// It can have no tenant.
    Tenant(String),
    /// The database gave no answer.
    Store(StoreError),
    /// Mimir gave no answer.
    Ruler(RulerError),
}

/// What a sync would do for one organisation.
#[derive(Debug)]
pub struct Preview {
    /// Its tenant.
    pub tenant: TenantId,
    /// The rows, read.
    pub parsed: ParsedRows,
    /// What there would be to do.
    pub plan: Plan,
    /// The deletion that the guard would hold back, if any.
    pub guard: Option<GuardHeld>,
    /// The rules that would vanish.
    pub vanishing: Vec<HeldRule>,
}

/// What would happen to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupAction {
    /// It would be made.
    Create,
    /// It would be written anew.
    Update,
    /// It would be deleted.
    Delete,
}

/// A group that would change.
#[derive(Clone, Debug)]
pub struct GroupChange {
    /// Its name.
    pub name: String,
    /// What would happen to it.
    pub action: GroupAction,
    /// From what to what, as a unified diff of its YAML.
    pub diff: String,
}

impl GroupAction {
    /// The name in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

impl Engine {
    /// Looks at an organisation as a sync would, and stops before it does anything.
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
        let listed = ask(|| self.client.list_raw(&tenant)).await?.parse(&self.config.namespace)?;
        let sync = self.store.rule_sync_of(organisation.clone()).await?;
        let kept: KeptStatuses = statuses.into_iter().map(|row| (row.rule, row.into())).collect();
        let mut quarantine = Quarantine::default();
        for status in kept.values() {
            if let Some(hash) = &status.refused_hash {
                quarantine.put(hash.clone(), &status.reason);
            }
        }
        let asking = Asking { engine: self, tenant: &tenant };
        let (shown, limits) = (shown_by(sync.as_ref()), self.settings().limits);
        let basis =
            Basis { parsed: &parsed, quarantine: &quarantine, told: None, shown, listed: &listed };
        let (mut plan, told) = basis.plan(&asking, limits).await?;
        if self.find_faults(&tenant, &plan, &mut quarantine).await {
            let basis =
                Basis { parsed: &parsed, quarantine: &quarantine, told, shown, listed: &listed };
            plan = basis.plan(&asking, limits).await?.0;
        }
        let vanishing = attribute(&plan, &parsed, &kept, &tombstones).vanishing;
        let guard = match judge(&vanishing.removal(), &self.config.guard) {
            Verdict::Hold(reason) => {
                Some(GuardHeld { id: vanishing.id(), reason: reason.to_string() })
            }
            // By itself it would pass, but it may be part of a larger one.
            Verdict::Pass if vanishing.is_empty() => None,
            Verdict::Pass => sync.and_then(|sync| sync.guard),
        };
        let vanishing = vanishing.rules();
        Ok(Preview { tenant, parsed, plan, guard, vanishing })
    }
}

impl Engine {
    /// What a sync would find out by Mimir's refusal; says whether there is anything. Without an answer
    /// to one expression that says nothing: a sync may succeed.
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

impl Preview {
    /// Whether Mimir has what it should have.
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
            change(&group.name, action, &before, &readable_yaml(&group))
        });
        let deletes =
            self.plan.diff.deletes.iter().map(|name| {
                change(name, GroupAction::Delete, &observed(name).unwrap_or_default(), "")
            });
        writes.chain(deletes).collect()
    }

    /// All of it as one unified diff; empty if there is nothing to do.
    pub fn diff(&self) -> String {
        self.changes().into_iter().map(|change| change.diff).collect()
    }
}

fn change(name: &str, action: GroupAction, before: &str, after: &str) -> GroupChange {
    const CONTEXT: usize = 3;
    let (from, to) = match action {
        GroupAction::Create => ("/dev/null".to_owned(), format!("database/{name}")),
        GroupAction::Update => (format!("mimir/{name}"), format!("database/{name}")),
        GroupAction::Delete => (format!("mimir/{name}"), "/dev/null".to_owned()),
    };
    let (from, to) = (from.escape_default().to_string(), to.escape_default().to_string());
    // Of what is too large to be compared in this time the diff is only less neat.
    const LONGEST: Duration = Duration::from_millis(200);
    let diff = TextDiff::configure().timeout(LONGEST).diff_lines(before, after);
    let diff = diff.unified_diff().context_radius(CONTEXT).header(&from, &to).to_string();
    GroupChange { name: name.to_owned(), action, diff }
}

/// As it would be written, which is exact and reads well enough.
fn readable_yaml(group: &RuleGroup) -> String {
    write_group(group)
}

/// What Mimir has, in the same form, so that only what differs differs.
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
        let _ = writeln!(yaml, "# and {others} rules that no row can say, such as recording rules");
    }
    if stored.says_more {
        yaml.push_str("# and settings of the group that no row can say\n");
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
            Self::Missing => f.write_str("there is no such organisation"),
            Self::Tenant(problem) => write!(f, "the organisation has no tenant: {problem}"),
            Self::Store(error) => error.fmt(f),
            Self::Ruler(error) => error.fmt(f),
        }
    }
}
