//! Which rules would vanish from Mimir by a plan, and what each rule that Mimir has is to the plan.
//!
//! Mimir's rules have no identity of their own. A rule is recognised by what it says, else by the
//! hash of what was live of a row (`alert_rule_status`), else by the alert's name. What is left is a
//! rule that the database does not know.
//!
//! A move that is broken off leaves an old version of a rule behind. Nothing vanishes with it: it is
//! known by its hash, which the status keeps as long as Mimir has it, or it says the same as a rule of
//! the plan. The alert's name alone proves nothing once that row's rule is found: rules that are not
//! each other's versions have one name, and one whose row is lost must be missed.
//!
//! The deletion guard judges this set, and a confirmation is about this set: neither changes when
//! other rules are added, refused or moved.

use std::collections::{BTreeMap, HashMap, HashSet};

use uuid::Uuid;

use super::alert_rule::{AlertRule, content_hash, hash_in};
use super::desired::DesiredGroup;
use super::digest_text;
use super::guard::Removal;
use super::plan::{ParsedRows, Plan};
use super::statuses::KeptStatuses;
use crate::mimir::ruler::{AlertingRule, PromDuration, StoredGroup, StoredRule};
use crate::store::{Confirmed, HeldRule, Tombstones};

/// A rule in Mimir, as the plan knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The row that it is of, if that is known.
    pub(super) rule: Option<Uuid>,
    /// Whether the plan has that rule, perhaps in another version or another group.
    pub(super) stays: bool,
    /// Whether Mimir evaluates it as the row says.
    pub(super) is_exact: bool,
}

/// The rules of our namespace, by group.
pub(super) type Entries = BTreeMap<String, Vec<Entry>>;

/// Why a rule would vanish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// Its row is gone, and nothing says that it was deleted.
    Missing,
    /// No row is known of it.
    Unknown,
    /// Its row was deleted.
    Deleted,
    /// It is switched off.
    Disabled,
    /// It cannot be evaluated any more.
    Invalid,
    /// The tenant's limits leave no room for it.
    OverLimit,
}

impl Why {
    fn in_words(self) -> &'static str {
        match self {
            Self::Missing => "its row is gone, and nothing says that it was deleted",
            Self::Unknown => "the database does not know it",
            Self::Deleted => "its row was deleted",
            Self::Disabled => "it is switched off",
            Self::Invalid => "it is invalid now",
            Self::OverLimit => "the organisation's limits leave no room for it",
        }
    }

    /// Whether the database says so.
    fn is_explained(self) -> bool {
        !matches!(self, Self::Missing | Self::Unknown)
    }
}

/// A rule that would vanish.
#[derive(Clone, Debug)]
struct Gone {
    alert: String,
    group: String,
    why: Why,
}

/// The rules that would vanish, each once, by their keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Vanishing {
    rules: BTreeMap<String, Gone>,
    /// Rules that Mimir has in our namespace.
    observed: usize,
}

impl Vanishing {
    /// Whether nothing would.
    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What the rules are known by.
    pub(super) fn keys(&self) -> impl Iterator<Item = &String> {
        self.rules.keys()
    }

    /// Whether all of them are among these.
    pub(super) fn is_within(&self, keys: &HashSet<String>) -> bool {
        self.rules.keys().all(|key| keys.contains(key))
    }

    /// Whether any of them is among these.
    pub(super) fn meets(&self, keys: &HashSet<String>) -> bool {
        self.rules.keys().any(|key| keys.contains(key))
    }

    /// Without these.
    pub(super) fn beyond(&self, keys: &HashSet<String>) -> Self {
        let rules = self.rules.iter().filter(|(key, _)| !keys.contains(*key));
        Self {
            rules: rules.map(|(key, gone)| (key.clone(), gone.clone())).collect(),
            observed: self.observed,
        }
    }

    /// In numbers.
    pub(super) fn removal(&self) -> Removal {
        let explained = self.rules.values().filter(|gone| gone.why.is_explained()).count();
        Removal {
            observed: self.observed,
            remaining: self.observed.saturating_sub(self.rules.len()),
            explained,
            missing: self.rules.len() - explained,
        }
    }

    /// The name of this deletion: the same rules have the same name, and no others.
    pub(super) fn id(&self) -> String {
        let keys: Vec<&str> = self.rules.keys().map(String::as_str).collect();
        digest_text(&keys.join("\n"))
    }

    /// The first few of them by name, and how many there are.
    pub(super) fn in_words(&self) -> String {
        let names: Vec<&str> = self.rules.values().map(|gone| gone.alert.as_str()).collect();
        name_some(&names)
    }

    /// For administrators.
    pub(super) fn rules(&self) -> Vec<HeldRule> {
        let held = |(key, gone): (&String, &Gone)| HeldRule {
            key: key.clone(),
            name: gone.alert.clone(),
            group: gone.group.clone(),
            why: gone.why.in_words().to_owned(),
        };
        self.rules.iter().map(held).collect()
    }

    /// Everything that an organisation has that is gone.
    pub(super) fn everything() -> Self {
        let gone = Gone {
            alert: "(all rules of an organisation that is gone)".to_owned(),
            group: String::new(),
            why: Why::Deleted,
        };
        Self { rules: BTreeMap::from([("*".to_owned(), gone)]), observed: 1 }
    }

    /// Nothing vanishes of so many.
    pub(super) fn none_of(observed: usize) -> Self {
        Self { rules: BTreeMap::new(), observed }
    }
}

/// What there is, and what of it would vanish.
#[derive(Clone, Debug, Default)]
pub(super) struct Attribution {
    pub(super) entries: Entries,
    pub(super) vanishing: Vanishing,
}

/// Recognises the rules of our namespace.
pub(super) fn attribute(
    plan: &Plan,
    parsed: &ParsedRows,
    kept: &KeptStatuses,
    tombstones: &Tombstones,
) -> Attribution {
    Recognition::new(plan, parsed, kept, tombstones).run()
}

struct Recognition<'a> {
    plan: &'a Plan,
    why: HashMap<Uuid, Why>,
    tombstones: &'a Tombstones,
    /// Groups that have to be written, by their names.
    written: HashMap<&'a str, &'a DesiredGroup>,
    /// Every rule that the plan has.
    desired: HashMap<Uuid, &'a AlertRule>,
    /// Rules that rows ask for and that the plan has no room for, or that Mimir refuses.
    left_out: HashMap<Uuid, &'a AlertRule>,
    /// What was live by the hash of it.
    by_hash: HashMap<&'a str, Vec<Uuid>>,
    /// What was live.
    live: HashSet<Uuid>,
    found: Vec<Vec<Option<Entry>>>,
    /// Rows of which a rule has been recognised.
    seen: HashSet<Uuid>,
    vanishing: Vanishing,
}

impl<'a> Recognition<'a> {
    fn new(
        plan: &'a Plan,
        parsed: &'a ParsedRows,
        kept: &'a KeptStatuses,
        tombstones: &'a Tombstones,
    ) -> Self {
        let writes = plan.diff.writes.iter().map(|(at, _)| &plan.groups[*at]);
        let members = plan.groups.iter().flat_map(|group| &group.members);
        let mut by_hash: HashMap<&str, Vec<Uuid>> = HashMap::new();
        for (rule, status) in kept {
            for hash in status.live_hash.iter().chain(&status.other_hashes) {
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
            live: kept
                .iter()
                .filter(|(_, status)| status.live_hash.is_some())
                .map(|(rule, _)| *rule)
                .collect(),
            found: plan.observed.iter().map(|group| vec![None; group.rules.len()]).collect(),
            seen: HashSet::new(),
            vanishing: Vanishing::none_of(plan.observed_rules()),
        }
    }

    fn run(mut self) -> Attribution {
        self.unchanged();
        self.by_content();
        self.by_hash_of_what_was_live();
        self.left_out_by_content();
        self.by_name();
        let mut entries = Entries::new();
        for (group, found) in self.plan.observed.iter().zip(self.found) {
            let unknown = Entry { rule: None, stays: false, is_exact: false };
            let found = found.into_iter().map(|entry| entry.unwrap_or(unknown));
            entries.entry(group.name.clone()).or_default().extend(found);
        }
        Attribution { entries, vanishing: self.vanishing }
    }

    /// Groups that are as they should be, by meaning and not by text.
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

    /// Rules that say what a rule of the plan says, wherever they are.
    fn by_content(&mut self) {
        let mut wanted: HashMap<String, Vec<&AlertRule>> = HashMap::new();
        for rule in self.written.values().flat_map(|group| &group.members) {
            wanted.entry(rule.content_hash()).or_default().push(rule);
        }
        if wanted.is_empty() {
            return;
        }
        for rules in wanted.values_mut() {
            // Two rules that say the same are told apart by nothing: any order will do, always the same.
            rules.sort_by_key(|rule| std::cmp::Reverse((rule.created, rule.id)));
        }
        let (plan, mut doubles) = (self.plan, Vec::new());
        for (at, group) in plan.observed.iter().enumerate() {
            for (index, rule) in alerting(group) {
                if self.found[at][index].is_some() {
                    continue;
                }
                let content = content_hash(group.interval.unwrap_or_default(), rule);
                let Some(rules) = wanted.get_mut(&content) else { continue };
                match rules.pop() {
                    Some(rule) => {
                        self.seen.insert(rule.id);
                        let is_exact = !group.says_more && may_be_in(rule, &group.name);
                        self.found[at][index] =
                            Some(Entry { rule: Some(rule.id), stays: true, is_exact });
                    }
                    None => doubles.push((at, index)),
                }
            }
        }
        // A second one is of a row that is gone, or just there twice: then nothing is lost with it.
        for (at, index) in doubles {
            let lost = self.gone_by_hash(at, index);
            if lost.is_none_or(|rule| self.seen.contains(&rule)) {
                self.found[at][index] = Some(Entry { rule: None, stays: true, is_exact: false });
            }
        }
    }

    /// Versions of rules that were live by their statuses.
    fn by_hash_of_what_was_live(&mut self) {
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
                // Of several that say the same, first one that has not been found anywhere.
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
            // Deleted and written anew under another identifier: an update.
            let is_deleted = self.tombstones.contains_key(&rule);
            let successor = is_deleted.then(|| self.namesake(at, index)).flatten();
            if let Some(successor) = successor {
                self.seen.insert(successor);
                self.found[at][index] =
                    Some(Entry { rule: Some(successor), stays: true, is_exact: false });
                continue;
            }
            let by_default = if is_deleted { Why::Deleted } else { Why::Missing };
            let why = self.why.get(&rule).copied().unwrap_or(by_default);
            let is_exact =
                self.left_out.get(&rule).is_some_and(|left_out| self.says(at, index, left_out));
            self.found[at][index] = Some(Entry { rule: Some(rule), stays: false, is_exact });
            self.vanishes(rule.to_string(), at, index, why);
        }
    }

    /// Rules that say what a row says that the plan leaves out. Their rows are known, whatever the
    /// statuses say.
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

    /// Whether a rule in Mimir is what its row says.
    fn says(&self, at: usize, index: usize, rule: &AlertRule) -> bool {
        let group = &self.plan.observed[at];
        group.interval == Some(rule.interval)
            && !group.says_more
            && may_be_in(rule, &group.name)
            && matches!(&group.rules[index], StoredRule::Alerting(stored) if *stored == rule.rule)
    }

    /// What is left: a version of a rule of the same name, or a rule that the database does not know.
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
                        // It is there twice, perhaps evaluated at another interval since a move was
                        // broken off: nothing is lost with one of them.
                        let double = Entry { rule: Some(*rule), stays: true, is_exact: false };
                        self.found[at][index] = Some(double);
                        continue;
                    }
                }
                self.vanishes(format!("~{}", digest_text(&key)), at, index, Why::Unknown);
            }
        }
    }

    /// What the rules of the plan say, at whichever interval.
    fn texts(&self) -> HashMap<String, Uuid> {
        let mut rules: Vec<&AlertRule> = self.desired.values().copied().collect();
        // Of several that say the same, always the same one.
        rules.sort_by_key(|rule| rule.id);
        rules.into_iter().map(|rule| (text_of(&rule.rule), rule.id)).collect()
    }

    /// A rule that was live, is in Mimir no more, and belongs into this group. Where nothing in the group
    /// is known somebody has written over it: what is there now is in place of ours, as many as ours.
    fn replaced(&self, at: usize) -> Option<Uuid> {
        let members = &self.written.get(self.plan.observed[at].name.as_str())?.members;
        let lost = members
            .iter()
            .filter(|member| self.live.contains(&member.id) && !self.seen.contains(&member.id));
        lost.min_by_key(|member| (member.created, member.id)).map(|member| member.id)
    }

    /// A rule of the plan that has this one's name and has not been recognised in any other.
    fn namesake(&self, at: usize, index: usize) -> Option<Uuid> {
        let StoredRule::Alerting(rule) = &self.plan.observed[at].rules[index] else { return None };
        let members = self.written.values().flat_map(|group| &group.members);
        let unseen = members.filter(|member| !self.seen.contains(&member.id));
        let named = unseen.filter(|member| member.rule.alert == rule.alert);
        named.min_by_key(|member| (member.created, member.id)).map(|member| member.id)
    }

    /// The rules whose hash this one's is, in whichever group of their author's it stands.
    fn of_hash(&self, at: usize, index: usize) -> Vec<Uuid> {
        let group = &self.plan.observed[at];
        let StoredRule::Alerting(rule) = &group.rules[index] else { return Vec::new() };
        let interval = group.interval.unwrap_or_default();
        let hashes = plain_names(&group.name).into_iter().map(|name| hash_in(name, interval, rule));
        let found = hashes.filter_map(|hash| self.by_hash.get(hash.as_str()));
        found.flatten().copied().collect()
    }

    /// A rule that is not in the plan and whose hash this one's is; one that is not yet recognised, if
    /// there is any.
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

/// Why a confirmation is not taken: what has changed since, and what waits now.
pub fn stale_in_words(id: &str, confirmed: &Confirmed) -> String {
    match confirmed {
        Confirmed::Noted => format!("the deletion {id} is confirmed"),
        Confirmed::Unknown => format!("there is no deletion {id}"),
        Confirmed::Ended => format!("the deletion {id} does not wait any more"),
        Confirmed::Grown { current, more } => {
            let names: Vec<&str> = more.iter().map(|rule| rule.name.as_str()).collect();
            let (rules, them) = if names.len() == 1 { ("rule", "it") } else { ("rules", "them") };
            format!(
                "the deletion {id} has grown: {} more {rules} would vanish ({}); confirm {} to delete {them} too",
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

/// What a rule says, wherever it stands and however often it is evaluated.
fn text_of(rule: &AlertingRule) -> String {
    content_hash(PromDuration::default(), rule)
}

/// Whether a rule of that `rule_group` may stand in a group of this name.
pub(super) fn may_be_in(rule: &AlertRule, group: &str) -> bool {
    plain_names(group).contains(&rule.group.as_str())
}

/// What authors may have called a group of this name: `cpu` for `cpu@30s#2~`, and itself, for they may
/// use any name (see `desired::names`).
fn plain_names(group: &str) -> Vec<&str> {
    let mut names = vec![group];
    let mut rest = group;
    // A chunk of an interval is the longest that is ever made.
    for _ in 0..2 {
        let trimmed = rest.trim_end_matches('~');
        let Some(cut) = trimmed.rfind(['#', '@']) else { break };
        rest = &trimmed[..cut];
        names.push(rest);
    }
    names
}

#[cfg(test)]
pub(in crate::rules) mod tests;
