//! What a sync would change, without changing anything: for administrators and the command line, on
//! any copy. [`AdminExecutor`] keeps that work away from the other threads.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use similar::TextDiff;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::expressions::fault_of;
use super::planning::Basis;
use super::quarantine::Quarantine;
use super::reconciler::Reconciler;
use super::tenant_state::recorded_limits;
use super::world::TenantReader;
use super::writer::ask;
use crate::labels::RuleState;
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
        let listed = ask(|| self.client.list_raw(&tenant)).await?.parse(&self.config.namespace)?;
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
            && status.live_hash.as_ref() == Some(&rule.hash());
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
    const CONTEXT: usize = 3;
    let (from, to) = match action {
        GroupAction::Create => ("/dev/null".to_owned(), format!("database/{name}")),
        GroupAction::Update => (format!("mimir/{name}"), format!("database/{name}")),
        GroupAction::Delete => (format!("mimir/{name}"), "/dev/null".to_owned()),
    };
    let (from, to) = (from.escape_default().to_string(), to.escape_default().to_string());
    // The diff of a group that takes longer is correct, only less tidy.
    const LONGEST: Duration = Duration::from_millis(200);
    let diff = TextDiff::configure().timeout(LONGEST).diff_lines(before, after);
    let diff = diff.unified_diff().context_radius(CONTEXT).header(&from, &to).to_string();
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

impl std::fmt::Display for Overloaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("too many rule previews are running; try again later")
    }
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

/// Runs administrators' work on a thread of its own: a preview of very many rules takes CPU time that
/// neither telemetry nor the scheduler may wait for.
pub struct AdminExecutor<E = Reconciler> {
    engine: Arc<E>,
    runtime: Handle,
    slots: Semaphore,
    /// One slot for each organisation with work, so that none takes all of them.
    of_organisations: Mutex<HashMap<OrganisationId, Arc<Semaphore>>>,
}

/// All slots are taken, or the work takes too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overloaded;

/// Concurrent work.
const SLOTS: usize = 4;
/// How long to wait for a slot, and for the work.
const QUEUE: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(75);

impl<E> AdminExecutor<E> {
    /// `engine` must have been made on this runtime: its database connections belong to it.
    pub fn new(engine: Arc<E>, runtime: Handle) -> Self {
        Self::with_slots(engine, runtime, SLOTS)
    }

    /// With so much concurrent work.
    pub fn with_slots(engine: Arc<E>, runtime: Handle, slots: usize) -> Self {
        Self { engine, runtime, slots: Semaphore::new(slots), of_organisations: Mutex::default() }
    }

    /// For what the database alone answers.
    pub fn reconciler(&self) -> &E {
        &self.engine
    }

    /// Runs work for one organisation; the organisation's other work waits for its end, for a while.
    pub async fn run_for<T: Send + 'static, F>(
        &self,
        organisation: &OrganisationId,
        work: impl FnOnce(Arc<E>) -> F,
    ) -> Result<T, Overloaded>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let slot = {
            let mut slots = self.of_organisations.lock();
            // Whoever waits or works holds a clone.
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
            let slot = slots.entry(organisation.clone());
            Arc::clone(slot.or_insert_with(|| Arc::new(Semaphore::new(1))))
        };
        let Ok(Ok(_slot)) = timeout(QUEUE, slot.acquire()).await else { return Err(Overloaded) };
        self.run(work).await
    }

    /// Runs `work` on the executor's thread. Dropping the future cancels it.
    pub async fn run<T: Send + 'static, F>(
        &self,
        work: impl FnOnce(Arc<E>) -> F,
    ) -> Result<T, Overloaded>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let slot = timeout(QUEUE, self.slots.acquire()).await;
        let Ok(Ok(_slot)) = slot else { return Err(Overloaded) };
        let work = AbortOnDropHandle::new(self.runtime.spawn(work(Arc::clone(&self.engine))));
        match timeout(LONGEST, work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(_)) | Err(_) => Err(Overloaded),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;
    use tokio::time::sleep;

    use super::*;

    // A member who sends a test to a slow channel again and again keeps nobody else waiting.
    #[tokio::test(start_paused = true)]
    async fn an_organisation_has_one_slot() {
        let executor = Arc::new(AdminExecutor::new(Arc::new(()), Handle::current()));
        let [acme, beta] = ["acme", "beta"].map(|name| OrganisationId::parse(name).unwrap());
        let mut of_acme = JoinSet::new();
        for _ in 0..2 * SLOTS {
            let (executor, acme) = (Arc::clone(&executor), acme.clone());
            of_acme.spawn(async move {
                executor.run_for(&acme, async |_| sleep(Duration::from_secs(20)).await).await
            });
        }
        sleep(Duration::from_secs(1)).await;
        let began = tokio::time::Instant::now();
        assert_eq!(executor.run_for(&beta, async |_| 7).await, Ok(7));
        assert_eq!(began.elapsed(), Duration::ZERO);
        let done = of_acme.join_all().await;
        assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 1, "{done:?}");
        assert_eq!(executor.run_for(&acme, async |_| 7).await, Ok(7));
        assert_eq!(executor.of_organisations.lock().len(), 1);
    }
}
