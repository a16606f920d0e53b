//! A model: one organisation with its rows, tombstones and statuses, and its tenant in a Mimir that
//! refuses as the real one does.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Mutex;

use super::*;
use crate::labels::RuleState;
use crate::mimir::ExchangeError;
use crate::mimir::ruler::{
    AlertingRule, GroupRefusal, PromDuration, RuleGroup, RulerError, write_group,
};
use crate::rules::plan::digest_text;
use crate::rules::plan::vanishing::may_be_in;
use crate::rules::reconcile::world::ReadsMimir;
use crate::rules::reconcile::writer::WriteError;
use crate::rules::spec::alert_rule::{ROW_ANNOTATION, RuleDefaults, content_hash, row_of};
use crate::rules::status::statuses::{RuleStatus, RuleStatuses};
use crate::store::{Excess, RowVersions, StoreError};

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Good,
    /// `format_query` finds it too.
    BadExpr,
    /// Only a write shows it.
    BadTemplate,
    Disabled,
    /// The row itself is invalid.
    Nonsense,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) group: u8,
    pub(super) interval: u8,
    pub(super) version: u8,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Busy,
    /// No answer, although the write was done.
    BusyButDone,
    /// The lease is lost.
    Died,
    DiedButDone,
}

/// Mimir and the database.
#[derive(Default)]
struct Model {
    groups: BTreeMap<String, RuleGroup>,
    statuses: RuleStatuses,
    confirmed: HashSet<String>,
    limits: RulerLimits,
    tells_limits: bool,
    fault: Option<(usize, Fault)>,
    /// Mimir was upgraded: it refuses expressions of this version, which it took before.
    refuses_version: Option<u8>,
    /// Its minimum is this one: it refuses groups that are evaluated more often, and keeps those it has.
    least_interval: Option<PromDuration>,
    /// Alerts that must always be in some group.
    staying: BTreeSet<String>,
    interrupted: Vec<String>,
    writes: usize,
}

struct Mimir(Mutex<Model>);

pub(super) struct Org {
    pub(super) state: TenantState,
    rows: BTreeMap<u32, Row>,
    tombstones: Tombstones,
    mimir: Mimir,
    guard: GuardConfig,
    last: Reconciled,
    /// Rows and statuses, each at the place that is its versions.
    seen_rows: Vec<BTreeMap<u32, Row>>,
    seen_statuses: Vec<RuleStatuses>,
}

/// As long as they are the same, so are the versions.
fn versions_of<T: Clone + PartialEq>(now: &T, seen: &mut Vec<T>) -> RowVersions {
    let at = seen.iter().position(|seen| seen == now).unwrap_or_else(|| {
        seen.push(now.clone());
        seen.len() - 1
    });
    RowVersions::of(i64::try_from(at).unwrap())
}

fn id(number: u32) -> Uuid {
    Uuid::from_u128(number.into())
}

impl Row {
    fn to_row(self, number: u32) -> AlertRuleRow {
        let expr = match self.kind {
            Kind::BadExpr => format!("bad {}", self.version),
            _ => format!("up == {}", self.version),
        };
        let annotations = if self.kind == Kind::BadTemplate { "{\"a\": \"{{\"}" } else { "{}" };
        let hold = if self.kind == Kind::Nonsense { "soon" } else { "1m" };
        AlertRuleRow {
            id: id(number),
            organisation: OrganisationId::parse("acme").unwrap(),
            name: Some(format!("A{number}")),
            expr: Some(expr),
            for_duration: Some(hold.to_owned()),
            keep_firing_for: None,
            rule_group: Some(format!("g{}", self.group)),
            evaluation_interval: Some(["1m", "30s"][usize::from(self.interval)].to_owned()),
            labels: None,
            annotations: Some(annotations.to_owned()),
            enabled: Some((self.kind != Kind::Disabled).to_string()),
            created_at_micros: Some(number.into()),
            excess: Excess::None,
        }
    }
}

impl Model {
    fn names(&self) -> BTreeSet<String> {
        let rules = self.groups.values().flat_map(|group| &group.rules);
        rules.map(|rule| rule.alert.clone()).collect()
    }

    fn has_twice_unnamed(&self, number: u32) -> bool {
        let name = format!("A{number}");
        let rules = self.groups.values().flat_map(|group| &group.rules);
        rules.filter(|rule| rule.alert == name && row_of(&rule.annotations).is_none()).count() > 1
    }

    fn shown(&self) -> Vec<String> {
        let rule = |rule: &AlertingRule| format!("{} {}", rule.alert, rule.expr);
        let group = |group: &RuleGroup| {
            let rules: Vec<String> = group.rules.iter().map(rule).collect();
            format!("{} {}: {}", group.name, group.interval, rules.join(", "))
        };
        self.groups.values().map(group).collect()
    }

    fn refusal(&self, group: &RuleGroup) -> Option<GroupRefusal> {
        let is_refused_now = |rule: &AlertingRule| {
            self.refuses_version.is_some_and(|version| rule.expr == format!("up == {version}"))
        };
        let is_bad = |rule: &AlertingRule| {
            rule.expr.starts_with("bad")
                || is_refused_now(rule)
                || rule.annotations.values().any(|text| text == "{{")
        };
        if let Some(limit) = self.least_interval.filter(|limit| group.interval < *limit) {
            return Some(GroupRefusal::IntervalTooShort { limit, actual: group.interval });
        }
        if let Some(index) = group.rules.iter().position(is_bad) {
            let alert = group.rules[index].alert.clone();
            return Some(GroupRefusal::Rule {
                index,
                alert,
                reason: "bad".to_owned(),
                position: None,
            });
        }
        let actual = group.rules.len();
        if let Some(limit) = self.limits.rules_per_group.filter(|limit| actual > *limit) {
            return Some(GroupRefusal::TooManyRules { limit, actual });
        }
        let actual = self.groups.len() + 1;
        let limit = self.limits.groups.filter(|limit| actual > *limit)?;
        Some(GroupRefusal::TooManyGroups { limit, actual })
    }

    /// Whether the next write is done, and its answer.
    fn fault(&mut self) -> (bool, Result<(), WriteError>) {
        let Some((left, fault)) = self.fault else { return (true, Ok(())) };
        if left > 0 {
            self.fault = Some((left - 1, fault));
            return (true, Ok(()));
        }
        self.fault = None;
        let busy = || {
            let message = "busy".to_owned();
            let busy = ExchangeError::Busy { status: 500, retry_after: None, message };
            Err(RulerError::from(busy).into())
        };
        match fault {
            Fault::Busy => (false, busy()),
            Fault::BusyButDone => (true, busy()),
            Fault::Died => (false, Err(WriteError::LeaseLost)),
            Fault::DiedButDone => (true, Err(WriteError::LeaseLost)),
        }
    }

    fn note_missing(&mut self, what: &str) {
        let names = self.names();
        let missing: Vec<String> = self.staying.difference(&names).cloned().collect();
        if !missing.is_empty() {
            self.interrupted.push(format!("{missing:?} after {what}"));
        }
    }
}

impl ReadsMimir for Mimir {
    async fn limits(&self) -> Result<RulerLimits, RulerError> {
        let model = self.0.lock().unwrap();
        Ok(if model.tells_limits { model.limits } else { default_limits() })
    }

    async fn format(&self, expr: &str) -> Result<Option<String>, RulerError> {
        Ok((!expr.starts_with("bad")).then(|| expr.to_owned()))
    }
}

/// The limits of the configuration.
fn default_limits() -> RulerLimits {
    RulerLimits { rules_per_group: Some(20), groups: Some(70) }
}

impl World for Mimir {
    async fn statuses(&self) -> Result<RuleStatuses, StoreError> {
        Ok(self.0.lock().unwrap().statuses.clone())
    }

    async fn confirmed(&self) -> Result<HashSet<String>, StoreError> {
        Ok(self.0.lock().unwrap().confirmed.clone())
    }

    async fn list(&self) -> Result<RawListing, RulerError> {
        let model = self.0.lock().unwrap();
        if model.groups.is_empty() {
            return Ok(RawListing::new("{}\n".into()));
        }
        let mut yaml = "alert_rule:\n".to_owned();
        for group in model.groups.values() {
            for (at, line) in write_group(group).lines().enumerate() {
                yaml.push_str(if at == 0 { "  - " } else { "    " });
                yaml.push_str(line);
                yaml.push('\n');
            }
        }
        Ok(RawListing::new(yaml.into()))
    }

    async fn set(&self, group: &RuleGroup) -> Result<(), WriteError> {
        let mut model = self.0.lock().unwrap();
        let (is_done, result) = model.fault();
        if is_done {
            if let Some(refusal) = model.refusal(group) {
                result?;
                return Err(RulerError::Refused(refusal).into());
            }
            model.groups.insert(group.name.clone(), group.clone());
            model.writes += 1;
            model.note_missing(&format!("set {}", group.name));
        }
        result
    }

    async fn delete(&self, group: &str) -> Result<(), WriteError> {
        let mut model = self.0.lock().unwrap();
        let (is_done, result) = model.fault();
        if is_done {
            model.groups.remove(group);
            model.note_missing(&format!("delete {group}"));
        }
        result
    }

    async fn fault_of(&self, expr: &str) -> Result<Option<String>, RulerError> {
        Ok(expr.starts_with("bad").then(|| "bad".to_owned()))
    }
}

impl Org {
    pub(super) fn new(guard: GuardConfig, limits: RulerLimits) -> Self {
        let model = Model { limits, tells_limits: true, ..Model::default() };
        Self {
            state: TenantState::default(),
            rows: BTreeMap::new(),
            tombstones: Tombstones::new(),
            mimir: Mimir(Mutex::new(model)),
            guard,
            last: Reconciled::default(),
            seen_rows: Vec::new(),
            seen_statuses: Vec::new(),
        }
    }

    fn model(&self) -> std::sync::MutexGuard<'_, Model> {
        self.mimir.0.lock().unwrap()
    }

    pub(super) fn tells_limits(&mut self, tells: bool) {
        self.model().tells_limits = tells;
    }

    pub(super) fn write(&mut self, number: u32, row: Row) {
        self.rows.insert(number, row);
        self.tombstones.remove(&id(number));
    }

    pub(super) fn delete(&mut self, number: u32) {
        if self.rows.remove(&number).is_some() {
            self.tombstones.insert(id(number), "now".to_owned());
        }
    }

    pub(super) fn lose(&mut self, number: u32) {
        self.rows.remove(&number);
    }

    pub(super) fn drop_group(&mut self, at: usize) {
        let mut model = self.model();
        let name = model.groups.keys().nth(at).cloned();
        name.map(|name| model.groups.remove(&name));
    }

    /// As an earlier version of the proxy wrote the groups: no rule names its row.
    pub(super) fn unname(&mut self) {
        for rule in self.model().groups.values_mut().flat_map(|group| &mut group.rules) {
            rule.annotations.remove(ROW_ANNOTATION);
        }
    }

    pub(super) fn refuse_version(&mut self, version: Option<u8>) {
        self.model().refuses_version = version;
    }

    /// The groups that Mimir has, with their rules.
    pub(super) fn shown(&self) -> Vec<String> {
        self.model().shown()
    }

    pub(super) fn least_interval(&mut self, millis: Option<u64>) {
        self.model().least_interval = millis.map(PromDuration::from_millis);
    }

    /// No ruler has loaded a rule.
    pub(super) fn write_again(&mut self, number: u32) {
        self.state.write_again(vec![id(number)]);
    }

    /// The rows that the rules of a group name, in order.
    pub(super) fn named(&self) -> Vec<Option<Uuid>> {
        let model = self.model();
        let rules = model.groups.values().flat_map(|group| &group.rules);
        rules.map(|rule| row_of(&rule.annotations)).collect()
    }

    pub(super) fn reason_of(&self, number: u32) -> String {
        self.model()
            .statuses
            .get(&id(number))
            .map(|status| status.reason.clone())
            .unwrap_or_default()
    }

    pub(super) fn writes(&self) -> usize {
        self.model().writes
    }

    pub(super) fn lose_status(&mut self, number: u32) {
        self.model().statuses.remove(&id(number));
    }

    pub(super) fn forge_status(&mut self, number: u32) {
        let rule_hash = Some("forged".to_owned());
        let known = RuleStatus::new(RuleState::Live, "", rule_hash);
        self.model().statuses.insert(id(number), known);
    }

    pub(super) fn fail(&mut self, at: usize, fault: Fault) {
        self.model().fault = Some((at, fault));
    }

    pub(super) fn quiet(&mut self) {
        self.model().fault = None;
    }

    /// Another copy takes over.
    pub(super) fn restart(&mut self) {
        self.state = TenantState::default();
    }

    /// Confirms the held deletion, if there is one.
    pub(super) fn confirm(&mut self) {
        if self.held().is_some() {
            let keys: Vec<String> = self.last.vanishing.keys().cloned().collect();
            self.model().confirmed.extend(keys);
        }
    }

    pub(super) fn end_confirmations(&mut self) {
        self.model().confirmed.clear();
    }

    /// A reconcile as in a full resync: what has changed is read again.
    pub(super) fn full_resync(&mut self) -> &'static str {
        let table = self.model().statuses.clone();
        let rules = versions_of(&self.rows, &mut self.seen_rows);
        let statuses = versions_of(&table, &mut self.seen_statuses);
        if self.state.known_versions().statuses == Some(statuses) {
            assert_eq!(self.state.statuses, Some(table), "they need not be read");
        } else {
            self.state.learn_statuses(table, statuses);
        }
        let is_known = self.state.known_versions().rules == Some(rules);
        self.sync_with(Some(rules), is_known && self.tombstones.is_empty())
    }

    /// One reconcile, with its statuses and tombstones written.
    pub(super) fn sync(&mut self) -> &'static str {
        self.sync_with(None, false)
    }

    fn sync_with(&mut self, versions: Option<RowVersions>, is_unchanged: bool) -> &'static str {
        let staying =
            |(number, row): (&u32, &Row)| (row.kind == Kind::Good).then(|| format!("A{number}"));
        let staying: BTreeSet<String> = self.rows.iter().filter_map(staying).collect();
        {
            let mut model = self.model();
            let there = model.names();
            model.staying = staying.intersection(&there).cloned().collect();
        }
        let rows = Rows {
            rules: self.rows.iter().map(|(number, row)| row.to_row(*number)).collect(),
            tombstones: self.tombstones.clone(),
            versions,
            listing: None,
        };
        let settings = Settings {
            namespace: "alert_rule",
            guard: &self.guard,
            defaults: RuleDefaults::default(),
            limits: default_limits(),
        };
        let organisation = OrganisationId::parse("acme").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (mimir, state) = (&self.mimir, &mut self.state);
        let work = async {
            let listed = if is_unchanged {
                match reconcile_unchanged_in(|| mimir.list(), None, state).await {
                    Ok(reconciled) => return reconciled,
                    Err(listed) => listed,
                }
            } else {
                None
            };
            let mode = Mode::guarded();
            reconcile_in(mimir, &settings, &organisation, &rows, listed, state, mode).await
        };
        let mut reconciled = runtime.block_on(work);
        let is_done = matches!(reconciled.outcome, Outcome::Applied | Outcome::Unchanged);
        {
            let mut model = self.mimir.0.lock().unwrap();
            for row in std::mem::take(&mut reconciled.changes.written) {
                model.statuses.insert(row.rule, row.into());
            }
            for (_, rule) in std::mem::take(&mut reconciled.changes.gone) {
                model.statuses.remove(&rule);
            }
            if is_done {
                model.confirmed.clear();
            }
        }
        for rule in reconciled.deleted.keys() {
            self.tombstones.remove(rule);
        }
        if matches!(reconciled.outcome, Outcome::LeaseLost) {
            self.restart();
        }
        let label: &str = reconciled.outcome.kind().into();
        self.last = reconciled;
        label
    }

    /// The ID of the held deletion.
    pub(super) fn held(&self) -> Option<String> {
        match &self.last.outcome {
            Outcome::Held(held) => Some(held.id.clone()),
            _ => None,
        }
    }

    pub(super) fn reason(&self) -> String {
        match &self.last.outcome {
            Outcome::Held(held) => held.reason.clone(),
            _ => String::new(),
        }
    }

    /// The names of the rules that would be deleted.
    pub(super) fn held_names(&self) -> BTreeSet<String> {
        self.last.vanishing.rules().into_iter().map(|rule| rule.name).collect()
    }

    /// Those of them whose row is known.
    pub(super) fn held_names_of_rows(&self) -> BTreeSet<String> {
        let held = self.last.vanishing.rules().into_iter();
        held.filter(|rule| !rule.key.starts_with('~')).map(|rule| rule.name).collect()
    }

    /// The keys of the others.
    pub(super) fn held_versions(&self) -> BTreeSet<String> {
        self.last.vanishing.keys().filter(|key| key.starts_with('~')).cloned().collect()
    }

    /// The key of each rule in Mimir as if it was unknown to the database.
    pub(super) fn versions(&self) -> BTreeSet<String> {
        let key = |group: &RuleGroup, rule: &AlertingRule| {
            format!("~{}", digest_text(&content_hash(group.interval, rule)))
        };
        let model = self.model();
        let groups = model.groups.values();
        groups.flat_map(|group| group.rules.iter().map(move |rule| key(group, rule))).collect()
    }

    /// The rules that Mimir refuses.
    pub(super) fn refused_names(&self) -> BTreeSet<String> {
        let is_bad = |row: &Row| matches!(row.kind, Kind::BadExpr | Kind::BadTemplate);
        let bad = self.rows.iter().filter(|(_, row)| is_bad(row));
        bad.map(|(number, _)| format!("A{number}")).collect()
    }

    /// Alerts whose rows are switched off.
    pub(super) fn disabled_names(&self) -> BTreeSet<String> {
        let disabled = self.rows.iter().filter(|(_, row)| row.kind == Kind::Disabled);
        disabled.map(|(number, _)| format!("A{number}")).collect()
    }

    /// The alerts that Mimir has.
    pub(super) fn names(&self) -> BTreeSet<String> {
        self.model().names()
    }

    pub(super) fn interrupted(&self) -> Vec<String> {
        self.model().interrupted.clone()
    }

    pub(super) fn status(&self, number: u32) -> Option<RuleState> {
        self.model().statuses.get(&id(number)).map(|status| status.state)
    }

    /// A status says that Mimir has the rule as its row says if and only if it does.
    pub(super) fn check_statuses(&self) {
        let model = self.model();
        for (number, row) in &self.rows {
            let parsed = parse_rows(&[row.to_row(*number)], &RuleDefaults::default());
            let is_there = parsed.enabled.first().is_some_and(|rule| {
                model.groups.values().any(|group| {
                    group.interval == rule.interval
                        && group.rules.iter().any(|stored| rule.is_said_by(stored))
                        && may_be_in(rule, &group.name)
                })
            });
            let status = model.statuses.get(&id(*number));
            let is_said = status.is_some_and(|status| status.state.is_in_mimir());
            // Twice in Mimir and naming no row in either place, as an interrupted move of an earlier
            // version leaves it: one of the two is its old version, and which one is not known.
            if is_there && model.has_twice_unnamed(*number) {
                continue;
            }
            assert_eq!(is_said, is_there, "rule {number} {row:?}: {status:?} {:?}", model.shown());
        }
        for (rule, status) in &model.statuses {
            let number = u32::try_from(rule.as_u128()).unwrap();
            let is_gone = !self.rows.contains_key(&number);
            let name = format!("A{number}");
            let is_there = model.names().contains(&name);
            assert!(!is_gone || is_there, "rule {number} has left Mimir: {status:?}");
        }
    }
}
