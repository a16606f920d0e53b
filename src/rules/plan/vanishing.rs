//! Recognises each rule that Mimir has, and tells which ones a plan would delete.
//!
//! Mimir's rules have no IDs. A rule is recognised by its content, else by the hash of the version
//! that `alert_rule_status` says Mimir has, else by the annotation that names its row, else by the alert's name. A rule
//! that is left over is unknown to the database.
//!
//! An interrupted move leaves an old version of a rule behind. Deleting that is no loss: it is recognised
//! by its hash, which the status keeps as long as Mimir has the version, by its content, or by the row that it names.
//! The status goes with the row when that moves to another organisation, and is not there if its writer ended right
//! after Mimir was written; the annotation is what stays then. The alert's
//! name proves nothing once the rule of that row is found: different rules may have one name, and a rule
//! whose row is lost must be missed.
//!
//! The deletion guard judges this set of rules, and a confirmation is for this set. Neither changes when
//! other rules are added, refused or moved.

use std::collections::{BTreeMap, HashMap, HashSet};

use uuid::Uuid;

use crate::mimir::ruler::{AlertingRule, PromDuration, StoredGroup, StoredRule};
use crate::rules::plan::Plan;
use crate::rules::plan::desired::DesiredGroup;
use crate::rules::plan::digest_text;
use crate::rules::plan::guard::Removal;
use crate::rules::spec::alert_rule::{AlertRule, content_hash, hash_in, row_of};
use crate::rules::spec::rows::ParsedRows;
use crate::rules::status::statuses::RuleStatuses;
use crate::store::{Confirmed, HeldRule, Tombstones};

/// A rule in Mimir, as the plan knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its row, if that is known.
    pub(crate) rule: Option<Uuid>,
    /// Whether the plan has the rule, in whichever version or group.
    pub(crate) stays: bool,
    /// Whether Mimir evaluates it as the row says.
    pub(crate) is_exact: bool,
}

/// The rules of our namespace, by group.
pub(crate) type Entries = BTreeMap<String, Vec<Entry>>;

/// Why a rule would be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// Its row is gone, without a tombstone.
    Missing,
    Unknown,
    /// Its row is gone, with a tombstone.
    Deleted,
    Disabled,
    /// Its row is no valid rule any more.
    Invalid,
    OverLimit,
}

impl Why {
    fn text(self) -> &'static str {
        match self {
            Self::Missing => "its row is missing, and there is no record of a deletion",
            Self::Unknown => "it is unknown to the database",
            Self::Deleted => "its row was deleted",
            Self::Disabled => "it is disabled",
            Self::Invalid => "it is now invalid",
            Self::OverLimit => "it exceeds the organisation's limits",
        }
    }

    /// Whether the database explains it.
    fn is_explained(self) -> bool {
        !matches!(self, Self::Missing | Self::Unknown)
    }
}

#[derive(Clone, Debug)]
struct Gone {
    alert: String,
    group: String,
    why: Why,
}

/// The rules that would be deleted, each once, by key: the row's ID, or a digest of the content if no
/// row is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vanishing {
    rules: BTreeMap<String, Gone>,
    /// The number of rules that Mimir has in our namespace.
    observed: usize,
}

impl Vanishing {
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &String> {
        self.rules.keys()
    }

    pub(crate) fn is_within(&self, keys: &HashSet<String>) -> bool {
        self.rules.keys().all(|key| keys.contains(key))
    }

    pub(crate) fn meets(&self, keys: &HashSet<String>) -> bool {
        self.rules.keys().any(|key| keys.contains(key))
    }

    /// The rules that are not among these.
    pub(crate) fn beyond(&self, keys: &HashSet<String>) -> Self {
        let rules = self.rules.iter().filter(|(key, _)| !keys.contains(*key));
        Self {
            rules: rules.map(|(key, gone)| (key.clone(), gone.clone())).collect(),
            observed: self.observed,
        }
    }

    pub(crate) fn removal(&self) -> Removal {
        let explained = self.rules.values().filter(|gone| gone.why.is_explained()).count();
        Removal {
            observed: self.observed,
            remaining: self.observed.saturating_sub(self.rules.len()),
            explained,
            missing: self.rules.len() - explained,
        }
    }

    /// The ID of this deletion: equal for equal sets of rules.
    pub(crate) fn id(&self) -> String {
        let keys: Vec<&str> = self.rules.keys().map(String::as_str).collect();
        digest_text(&keys.join("\n"))
    }

    /// The first few by name, and the number of the others.
    pub(crate) fn names(&self) -> String {
        let names: Vec<&str> = self.rules.values().map(|gone| gone.alert.as_str()).collect();
        name_some(&names)
    }

    /// For administrators.
    pub(crate) fn rules(&self) -> Vec<HeldRule> {
        let held = |(key, gone): (&String, &Gone)| HeldRule {
            key: key.clone(),
            name: gone.alert.clone(),
            group: gone.group.clone(),
            why: gone.why.text().to_owned(),
        };
        self.rules.iter().map(held).collect()
    }

    /// All rules of an organisation that was deleted, which are not listed.
    pub(crate) fn everything() -> Self {
        let gone = Gone {
            alert: "(all rules of a deleted organisation)".to_owned(),
            group: String::new(),
            why: Why::Deleted,
        };
        Self { rules: BTreeMap::from([("*".to_owned(), gone)]), observed: 1 }
    }

    /// No rule of `observed` rules.
    pub(crate) fn none_of(observed: usize) -> Self {
        Self { rules: BTreeMap::new(), observed }
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Attribution {
    pub(crate) entries: Entries,
    pub(crate) vanishing: Vanishing,
}

pub(crate) fn attribute(
    plan: &Plan,
    parsed: &ParsedRows,
    known: &RuleStatuses,
    tombstones: &Tombstones,
) -> Attribution {
    Recognition::new(plan, parsed, known, tombstones).run()
}

struct Recognition<'a> {
    plan: &'a Plan,
    why: HashMap<Uuid, Why>,
    tombstones: &'a Tombstones,
    /// The groups that have to be written, by name.
    written: HashMap<&'a str, &'a DesiredGroup>,
    /// Every rule of the plan.
    desired: HashMap<Uuid, &'a AlertRule>,
    /// Rules that rows ask for and that the plan leaves out: over a limit, or refused by Mimir.
    left_out: HashMap<Uuid, &'a AlertRule>,
    /// The rows of which a version in Mimir has this hash, by their statuses.
    by_hash: HashMap<&'a str, Vec<Uuid>>,
    /// The rows whose rules Mimir had, by their statuses.
    were_in_mimir: HashSet<Uuid>,
    found: Vec<Vec<Option<Entry>>>,
    /// The rows of which a rule was recognised.
    seen: HashSet<Uuid>,
    vanishing: Vanishing,
}

impl<'a> Recognition<'a> {
    fn new(
        plan: &'a Plan,
        parsed: &'a ParsedRows,
        known: &'a RuleStatuses,
        tombstones: &'a Tombstones,
    ) -> Self {
        let writes = plan.diff.writes.iter().map(|(at, _)| &plan.groups[*at]);
        let members = plan.groups.iter().flat_map(|group| &group.members);
        let mut by_hash: HashMap<&str, Vec<Uuid>> = HashMap::new();
        for (rule, status) in known {
            for hash in status.rule_hash.iter().chain(&status.other_hashes) {
                by_hash.entry(hash).or_default().push(*rule);
            }
        }
        for rules in by_hash.values_mut() {
            rules.sort();
            rules.dedup();
        }
        let desired: HashMap<Uuid, &AlertRule> = members.map(|rule| (rule.id, rule)).collect();
        let left_out = parsed.enabled.iter().filter(|rule| !desired.contains_key(&rule.id));
        let left_out = left_out.map(|rule| (rule.id, rule)).collect();
        let mut why = HashMap::new();
        why.extend(parsed.refused.iter().map(|(rule, _)| (*rule, Why::Invalid)));
        why.extend(parsed.crowded_out.iter().map(|(rule, _)| (*rule, Why::OverLimit)));
        why.extend(parsed.disabled.iter().map(|rule| (*rule, Why::Disabled)));
        why.extend(plan.quarantined.iter().map(|(rule, _)| (rule.id, Why::Invalid)));
        why.extend(plan.over_limit.iter().map(|rule| (rule.id, Why::OverLimit)));
        Self {
            plan,
            why,
            tombstones,
            written: writes.map(|group| (group.name.as_str(), group)).collect(),
            desired,
            left_out,
            by_hash,
            were_in_mimir: known
                .iter()
                .filter(|(_, status)| status.rule_hash.is_some())
                .map(|(rule, _)| *rule)
                .collect(),
            found: plan.observed.iter().map(|group| vec![None; group.rules.len()]).collect(),
            seen: HashSet::new(),
            vanishing: Vanishing::none_of(plan.observed_rules()),
        }
    }

    /// From the certain to the uncertain: each step looks only at rules that no earlier one recognised.
    fn run(mut self) -> Attribution {
        self.unchanged();
        self.by_content();
        self.by_hash();
        self.left_out_by_content();
        self.by_row();
        self.by_name();
        let mut entries = Entries::new();
        for (group, found) in self.plan.observed.iter().zip(self.found) {
            let unknown = Entry { rule: None, stays: false, is_exact: false };
            let found = found.into_iter().map(|entry| entry.unwrap_or(unknown));
            entries.entry(group.name.clone()).or_default().extend(found);
        }
        Attribution { entries, vanishing: self.vanishing }
    }

    /// Groups that the diff leaves alone.
    fn unchanged(&mut self) {
        let names: HashMap<&str, usize> = self
            .plan
            .observed
            .iter()
            .enumerate()
            .map(|(at, group)| (group.name.as_str(), at))
            .collect();
        for group in &self.plan.groups {
            if self.written.contains_key(group.name.as_str()) {
                continue;
            }
            let Some(at) = names.get(group.name.as_str()) else { continue };
            for (found, member) in self.found[*at].iter_mut().zip(&group.members) {
                self.seen.insert(member.id);
                *found = Some(Entry { rule: Some(member.id), stays: true, is_exact: true });
            }
        }
    }

    /// Rules with the content of a rule of the plan, in whichever group.
    fn by_content(&mut self) {
        let mut wanted: HashMap<String, Vec<&AlertRule>> = HashMap::new();
        for rule in self.written.values().flat_map(|group| &group.members) {
            wanted.entry(rule.content_hash()).or_default().push(rule);
        }
        if wanted.is_empty() {
            return;
        }
        for rules in wanted.values_mut() {
            // Nothing distinguishes rules with the same content. Any order is right, if it is stable.
            rules.sort_by_key(|rule| std::cmp::Reverse((rule.created, rule.id)));
        }
        let (plan, mut doubles) = (self.plan, Vec::new());
        // Of rules with the same content each first finds the row that it names, and that which is where
        // the row has it before one that an interrupted move has left behind.
        let passes = [(true, true), (true, false), (false, true), (false, false)];
        for (by_row, in_place) in passes {
            for (at, group) in plan.observed.iter().enumerate() {
                for (index, stored) in alerting(group) {
                    if self.found[at][index].is_some() {
                        continue;
                    }
                    let named = row_of(&stored.annotations);
                    if by_row && named.is_none() {
                        continue;
                    }
                    let content = content_hash(group.interval.unwrap_or_default(), stored);
                    let Some(rules) = wanted.get_mut(&content) else { continue };
                    let fits = |rule: &&AlertRule| {
                        (!by_row || Some(rule.id) == named)
                            && (!in_place || may_be_in(rule, &group.name))
                    };
                    let rule = rules.iter().rposition(fits).map(|at| rules.remove(at));
                    match rule {
                        Some(rule) => {
                            self.seen.insert(rule.id);
                            let is_exact = !group.says_more
                                && may_be_in(rule, &group.name)
                                && rule.may_be_named_by(&stored.annotations);
                            self.found[at][index] =
                                Some(Entry { rule: Some(rule.id), stays: true, is_exact });
                        }
                        None if by_row || in_place => {}
                        None => doubles.push((at, index)),
                    }
                }
            }
        }
        // A double belongs to a row that is gone, or is only there twice. In the second case nothing is
        // lost with it.
        for (at, index) in doubles {
            let lost = self.gone_by_hash(at, index);
            if lost.is_none_or(|rule| self.seen.contains(&rule)) {
                self.found[at][index] = Some(Entry { rule: None, stays: true, is_exact: false });
            }
        }
    }

    /// Versions that the statuses know.
    fn by_hash(&mut self) {
        if self.by_hash.is_empty() {
            return;
        }
        let mut gone = Vec::new();
        for at in 0..self.plan.observed.len() {
            for index in 0..self.found[at].len() {
                if self.found[at][index].is_some() {
                    continue;
                }
                let candidates = self.of_hash(at, index);
                let known = |is_seen: bool| {
                    candidates.iter().copied().find(|rule| {
                        self.desired.contains_key(rule) && self.seen.contains(rule) == is_seen
                    })
                };
                // Of several rows with the same content, first one whose rule was not found yet.
                let lost = self.gone_by_hash(at, index);
                let is_new = lost.is_some_and(|rule| !self.seen.contains(&rule));
                let stays = known(false).or_else(|| known(true).filter(|_| !is_new));
                if let Some(rule) = stays {
                    self.seen.insert(rule);
                    self.found[at][index] =
                        Some(Entry { rule: Some(rule), stays: true, is_exact: false });
                } else if let Some(rule) = lost {
                    self.seen.insert(rule);
                    gone.push((at, index, rule));
                }
            }
        }
        for (at, index, rule) in gone {
            self.is_gone(rule, at, index);
        }
    }

    /// A rule whose row is known, and is not in the plan.
    fn is_gone(&mut self, rule: Uuid, at: usize, index: usize) {
        // A row that was deleted and inserted again with another ID is an update.
        let is_deleted = self.tombstones.contains_key(&rule);
        let successor = is_deleted.then(|| self.namesake(at, index)).flatten();
        if let Some(successor) = successor {
            self.seen.insert(successor);
            self.found[at][index] =
                Some(Entry { rule: Some(successor), stays: true, is_exact: false });
            return;
        }
        let by_default = if is_deleted { Why::Deleted } else { Why::Missing };
        let why = self.why.get(&rule).copied().unwrap_or(by_default);
        let is_exact =
            self.left_out.get(&rule).is_some_and(|left_out| self.says(at, index, left_out));
        self.found[at][index] = Some(Entry { rule: Some(rule), stays: false, is_exact });
        self.vanishes(rule.to_string(), at, index, why);
    }

    /// Rules that name a row of which no rule was recognised before. Further rules that name the same row are copies that
    /// another client made, and count as unknown.
    fn by_row(&mut self) {
        let plan = self.plan;
        // First the rows that stay: one that was inserted again may be the successor of a deleted one.
        for stays in [true, false] {
            for (at, group) in plan.observed.iter().enumerate() {
                for (index, stored) in alerting(group) {
                    let Some(row) = row_of(&stored.annotations) else { continue };
                    let is_known = self.found[at][index].is_some() || self.seen.contains(&row);
                    if is_known || self.desired.contains_key(&row) != stays {
                        continue;
                    }
                    self.seen.insert(row);
                    if stays {
                        self.found[at][index] =
                            Some(Entry { rule: Some(row), stays: true, is_exact: false });
                    } else {
                        self.is_gone(row, at, index);
                    }
                }
            }
        }
    }

    /// Rules with the content of a row that the plan leaves out, for where the statuses were lost.
    fn left_out_by_content(&mut self) {
        if self.left_out.is_empty() {
            return;
        }
        let mut contents: HashMap<String, Vec<Uuid>> = HashMap::new();
        for (id, rule) in &self.left_out {
            contents.entry(rule.content_hash()).or_default().push(*id);
        }
        for rules in contents.values_mut() {
            rules.sort();
        }
        let plan = self.plan;
        for (at, group) in plan.observed.iter().enumerate() {
            for (index, rule) in alerting(group) {
                if self.found[at][index].is_some() {
                    continue;
                }
                let content = content_hash(group.interval.unwrap_or_default(), rule);
                let Some(rules) = contents.get(&content) else { continue };
                let unseen = rules.iter().find(|rule| !self.seen.contains(*rule));
                let Some(rule) = unseen.or(rules.first()).copied() else { continue };
                let Some(why) = self.why.get(&rule).copied() else { continue };
                self.seen.insert(rule);
                let is_exact = self.says(at, index, self.left_out[&rule]);
                self.found[at][index] = Some(Entry { rule: Some(rule), stays: false, is_exact });
                self.vanishes(rule.to_string(), at, index, why);
            }
        }
    }

    /// Whether Mimir evaluates a rule exactly as its row says.
    fn says(&self, at: usize, index: usize, rule: &AlertRule) -> bool {
        let group = &self.plan.observed[at];
        group.interval == Some(rule.interval)
            && !group.says_more
            && may_be_in(rule, &group.name)
            && matches!(&group.rules[index], StoredRule::Alerting(stored) if rule.is_said_by(stored))
    }

    /// The rest: a version of a rule of the same name, or a rule that is unknown to the database.
    fn by_name(&mut self) {
        let mut texts: Option<HashMap<String, Uuid>> = None;
        for at in 0..self.plan.observed.len() {
            let is_foreign = self.found[at].iter().all(Option::is_none);
            for index in 0..self.found[at].len() {
                if self.found[at][index].is_some() {
                    continue;
                }
                let in_place_of =
                    self.namesake(at, index).or_else(|| is_foreign.then(|| self.replaced(at))?);
                if let Some(rule) = in_place_of {
                    self.seen.insert(rule);
                    self.found[at][index] =
                        Some(Entry { rule: Some(rule), stays: true, is_exact: false });
                    continue;
                }
                let group = &self.plan.observed[at];
                let key = match &group.rules[index] {
                    StoredRule::Alerting(rule) => {
                        content_hash(group.interval.unwrap_or_default(), rule)
                    }
                    StoredRule::Other => format!("{} {index}", group.name),
                };
                if let StoredRule::Alerting(rule) = &group.rules[index] {
                    let texts = texts.get_or_insert_with(|| self.texts());
                    if let Some(rule) = texts.get(&text_of(rule)) {
                        // A double, perhaps with another interval after an interrupted move. Nothing is
                        // lost with it.
                        let double = Entry { rule: Some(*rule), stays: true, is_exact: false };
                        self.found[at][index] = Some(double);
                        continue;
                    }
                }
                self.vanishes(format!("~{}", digest_text(&key)), at, index, Why::Unknown);
            }
        }
    }

    /// The rules of the plan by content, whatever their intervals.
    fn texts(&self) -> HashMap<String, Uuid> {
        let mut rules: Vec<&AlertRule> = self.desired.values().copied().collect();
        // Of several with the same content, always the same one.
        rules.sort_by_key(|rule| rule.id);
        rules.into_iter().map(|rule| (text_of(&rule.rule), rule.id)).collect()
    }

    /// For a group in which no rule is known: somebody replaced it. A rule in it stands for one of ours
    /// that belongs into the group, was in Mimir, and has left it.
    fn replaced(&self, at: usize) -> Option<Uuid> {
        let members = &self.written.get(self.plan.observed[at].name.as_str())?.members;
        let lost = members.iter().filter(|member| {
            self.were_in_mimir.contains(&member.id) && !self.seen.contains(&member.id)
        });
        lost.min_by_key(|member| (member.created, member.id)).map(|member| member.id)
    }

    /// A rule of the plan with the same name that was not recognised yet.
    fn namesake(&self, at: usize, index: usize) -> Option<Uuid> {
        let StoredRule::Alerting(rule) = &self.plan.observed[at].rules[index] else { return None };
        let members = self.written.values().flat_map(|group| &group.members);
        let unseen = members.filter(|member| !self.seen.contains(&member.id));
        let named = unseen.filter(|member| member.rule.alert == rule.alert);
        named.min_by_key(|member| (member.created, member.id)).map(|member| member.id)
    }

    /// The rows whose version has this rule's hash. The hash contains the `rule_group`, of which the
    /// group's name may be made.
    fn of_hash(&self, at: usize, index: usize) -> Vec<Uuid> {
        let group = &self.plan.observed[at];
        let StoredRule::Alerting(rule) = &group.rules[index] else { return Vec::new() };
        let interval = group.interval.unwrap_or_default();
        let hashes = plain_names(&group.name).into_iter().map(|name| hash_in(name, interval, rule));
        let found = hashes.filter_map(|hash| self.by_hash.get(hash.as_str()));
        found.flatten().copied().collect()
    }

    /// A row that is not in the plan and whose version has this hash; preferably one that was not
    /// recognised yet.
    fn gone_by_hash(&self, at: usize, index: usize) -> Option<Uuid> {
        let all = self.of_hash(at, index);
        let mut gone = all.into_iter().filter(|rule| !self.desired.contains_key(rule));
        let first = gone.next()?;
        if !self.seen.contains(&first) {
            return Some(first);
        }
        Some(gone.find(|rule| !self.seen.contains(rule)).unwrap_or(first))
    }

    fn vanishes(&mut self, key: String, at: usize, index: usize, why: Why) {
        let group = &self.plan.observed[at];
        let alert = match &group.rules[index] {
            StoredRule::Alerting(rule) => rule.alert.clone(),
            StoredRule::Other => "(no alert)".to_owned(),
        };
        let gone = Gone { alert, group: group.name.clone(), why };
        self.vanishing.rules.entry(key).or_insert(gone);
    }
}

/// The answer to a confirmation: for a stale one, what has changed since and what is held now.
pub fn confirmation_text(id: &str, confirmed: &Confirmed) -> String {
    match confirmed {
        Confirmed::Noted => format!("the deletion {id} is confirmed"),
        Confirmed::Unknown => format!("deletion {id} not found"),
        Confirmed::Ended => format!("the deletion {id} is no longer held"),
        Confirmed::Grown { current, more } => {
            let names: Vec<&str> = more.iter().map(|rule| rule.name.as_str()).collect();
            let (rules, them) = if names.len() == 1 { ("rule", "it") } else { ("rules", "them") };
            format!(
                "the deletion {id} has grown: {} more {rules} would be deleted ({}); confirm {} to delete {them} too",
                names.len(),
                name_some(&names),
                current.id
            )
        }
    }
}

/// `A, B, C and 4 more`
pub fn name_some(names: &[&str]) -> String {
    const MOST_NAMED: usize = 3;
    let shown: Vec<String> =
        names.iter().take(MOST_NAMED).map(|name| shortened_to(name, 80)).collect();
    match names.len().saturating_sub(MOST_NAMED) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn shortened_to(name: &str, most: usize) -> String {
    match name.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

fn alerting(group: &StoredGroup) -> impl Iterator<Item = (usize, &AlertingRule)> {
    group.rules.iter().enumerate().filter_map(|(index, rule)| match rule {
        StoredRule::Alerting(rule) => Some((index, rule)),
        StoredRule::Other => None,
    })
}

/// The content without the interval.
fn text_of(rule: &AlertingRule) -> String {
    content_hash(PromDuration::default(), rule)
}

/// Whether a rule may be in a group of this name, by its `rule_group`.
pub(crate) fn may_be_in(rule: &AlertRule, group: &str) -> bool {
    plain_names(group).contains(&rule.group.as_str())
}

/// The `rule_group`s of which a group of this name may be made: `cpu` for `cpu@30s#2~`, and the name
/// itself, because an author may use any name (see `desired`).
fn plain_names(group: &str) -> Vec<&str> {
    let mut names = vec![group];
    let mut rest = group;
    // A generated name has at most an interval and a chunk.
    for _ in 0..2 {
        let trimmed = rest.trim_end_matches('~');
        let Some(cut) = trimmed.rfind(['#', '@']) else { break };
        rest = &trimmed[..cut];
        names.push(rest);
    }
    names
}

#[cfg(test)]
pub(crate) mod tests;
