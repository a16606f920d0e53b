//! Reads a file with rules: rows as in the table, or groups as in Prometheus, in YAML or JSON. All faults
//! are reported in one run, each with its line.

mod keys;

use uuid::Uuid;

use crate::store::{AlertRuleRow, Excess};
use crate::tenancy::OrganisationId;
use crate::yaml::{Entry, Kind, Node, Repeated};
use keys::Keys;

#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) rows: Vec<FileRow>,
    /// Faults outside of rules.
    pub(super) faults: Vec<Fault>,
}

#[derive(Debug)]
pub(super) struct FileRow {
    pub(super) place: String,
    /// Its first line; none for a row of the database.
    pub(super) line: Option<u64>,
    pub(super) row: AlertRuleRow,
    /// The lines of its columns.
    pub(super) columns: Vec<(&'static str, u64)>,
    /// The names of its columns where the file has other ones.
    pub(super) names: &'static [(&'static str, &'static str)],
    /// Faults of its form. The rest of it is checked regardless.
    pub(super) faults: Vec<Fault>,
    /// It is no alert, so nothing more is checked.
    pub(super) is_other: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// 0 if it belongs to no line.
    pub(super) line: u64,
    pub(super) problem: String,
}

impl FileRow {
    /// The name of a column in the file.
    pub(super) fn name_of(&self, column: &'static str) -> &'static str {
        self.names.iter().find(|(name, _)| *name == column).map_or(column, |(_, key)| *key)
    }

    /// The line of a column, or of the rule if it does not have the column.
    pub(super) fn line_of(&self, column: &str) -> u64 {
        let own = self.columns.iter().find(|(name, _)| *name == column).map(|(_, line)| *line);
        own.or(self.line).unwrap_or(0)
    }
}

/// Reads a file's rules. An error says that it holds none of any kind.
///
/// Rows name their organisation, unless `only` does; groups cannot, and are checked as `only`'s or as
/// those of an organisation that there is not.
pub(super) fn read(text: &str, only: Option<&OrganisationId>) -> Result<Read, Fault> {
    let documents = Node::read_all(text).map_err(|unreadable| Fault {
        line: unreadable.line,
        problem: format!("is not valid YAML: {}", unreadable.reason),
    })?;
    let mut documents = documents.into_iter().filter(|document| !document.is_null());
    let Some(document) = documents.next() else {
        let problem = "is empty; expected a list of rules (name, expr, …) or groups: […]";
        return Err(Fault { line: 0, problem: problem.to_owned() });
    };
    let fallback = OrganisationId::parse(NO_ORGANISATION)
        .map_err(|error| Fault { line: 0, problem: error.to_string() })?;
    let mut reader = Reader { only, fallback, read: Read::default() };
    for Repeated { entry, first, .. } in document.repeated() {
        let problem = format!("{} is repeated, first on line {first}; write it once", entry.key);
        reader.fault(entry.line, problem);
    }
    reader.document(&document)?;
    for further in documents {
        reader.fault(
            further.line,
            "starts another YAML document, which is not read; write one document per file",
        );
    }
    Ok(reader.read)
}

/// Stands for the organisation of rules that name none.
const NO_ORGANISATION: &str = "rules-check";

struct Reader<'a> {
    only: Option<&'a OrganisationId>,
    fallback: OrganisationId,
    read: Read,
}

impl Reader<'_> {
    fn fault(&mut self, line: u64, problem: impl Into<String>) {
        self.read.faults.push(Fault { line, problem: problem.into() });
    }

    fn unknown_keys(node: &Node, keys: &Keys) -> impl Iterator<Item = Fault> {
        let fault = |entry: &Entry| {
            keys.fault(&entry.key).map(|problem| Fault { line: entry.line, problem })
        };
        node.entries().iter().filter_map(fault)
    }

    fn document(&mut self, document: &Node) -> Result<(), Fault> {
        match &document.kind {
            Kind::List(rules) => {
                if rules.is_empty() {
                    self.fault(document.line, "the list is empty: there is no rule in the file");
                }
                for rule in rules {
                    self.row(rule);
                }
            }
            Kind::Map(_)
                if document.entry("spec").is_some() && document.entry("kind").is_some() =>
            {
                self.fault(
                    document.line,
                    "is a Kubernetes resource (kind, spec), such as a PrometheusRule; extract its \
                     spec into a file: yq .spec FILE",
                );
                if let Some(spec) = document.entry("spec") {
                    self.groups(&spec.value);
                }
            }
            Kind::Map(_) if document.entry("groups").is_some() => self.groups(document),
            Kind::Map(_) | Kind::Scalar(_) => {
                let mut problem =
                    "must be a list of rules (name, expr, …) or have groups: […]".to_owned();
                for fault in Self::unknown_keys(document, &keys::FILE) {
                    problem.push_str("; ");
                    problem.push_str(&fault.problem);
                }
                return Err(Fault { line: document.line, problem });
            }
        }
        Ok(())
    }

    fn groups(&mut self, of: &Node) {
        let unknown: Vec<Fault> = Self::unknown_keys(of, &keys::FILE).collect();
        self.read.faults.extend(unknown);
        let Some(groups) = of.entry("groups") else {
            return self.fault(of.line, "has no groups");
        };
        match &groups.value.kind {
            Kind::List(list) if list.is_empty() => {
                self.fault(groups.line, "groups is empty: there is no rule in the file");
            }
            Kind::List(list) => list.iter().for_each(|group| self.group(group)),
            _ if groups.value.is_null() => {
                self.fault(groups.line, "groups is empty: there is no rule in the file");
            }
            _ => self.fault(groups.line, "groups must be a list"),
        }
    }

    fn group(&mut self, group: &Node) {
        if !matches!(group.kind, Kind::Map(_)) {
            return self.fault(group.line, "a group must be a mapping with name and rules");
        }
        let mut faults: Vec<Fault> = Self::unknown_keys(group, &keys::GROUP).collect();
        let name = column(group, &keys::GROUP, "name", &mut faults);
        let interval = column(group, &keys::GROUP, "interval", &mut faults);
        let named = match &name {
            Some(name) => format!("group {name:?}"),
            None => "a group".to_owned(),
        };
        if name.as_deref().is_none_or(|name| name.trim().is_empty()) {
            faults.push(Fault { line: group.line, problem: "has no name".to_owned() });
        }
        for fault in faults {
            self.fault(fault.line, format!("{named}: {}", fault.problem));
        }
        let rules = match group.entry("rules").map(|rules| &rules.value) {
            None => return self.fault(group.line, format!("{named}: has no rules")),
            Some(rules) => match &rules.kind {
                Kind::List(list) if list.is_empty() => {
                    return self.fault(rules.line, format!("{named}: has no rules"));
                }
                Kind::List(list) => list,
                _ => return self.fault(rules.line, format!("{named}: rules must be a list")),
            },
        };
        let interval = interval
            .map(|text| (text, find(group, &keys::GROUP, "interval").map_or(0, |at| at.line)));
        for rule in rules {
            let place = format!("{named}, rule {}", self.read.rows.len() + 1);
            self.rule(rule, place, name.as_ref(), interval.as_ref());
        }
    }

    fn rule(
        &mut self,
        rule: &Node,
        place: String,
        group: Option<&String>,
        interval: Option<&(String, u64)>,
    ) {
        let mut faults = Vec::new();
        let is_other = Self::shape(rule, &keys::RULE, &mut faults);
        let mut column = |key| column(rule, &keys::RULE, key, &mut faults);
        let row = AlertRuleRow {
            name: column("alert"),
            expr: column("expr"),
            for_duration: column("for"),
            keep_firing_for: column("keep_firing_for"),
            rule_group: group.cloned(),
            evaluation_interval: interval.map(|(text, _)| text.clone()),
            labels: pairs(rule, &keys::RULE, "labels"),
            annotations: pairs(rule, &keys::RULE, "annotations"),
            ..self.empty_row()
        };
        let of_rule = keys::RULE.known.iter().map(|key| (keys::column_of(key), *key));
        let mut columns = columns(rule, &keys::RULE, of_rule);
        columns.extend(interval.map(|(_, line)| ("evaluation_interval", *line)));
        let line = Some(rule.line);
        let names = keys::OF_GROUPS;
        self.read.rows.push(FileRow { place, line, row, columns, names, faults, is_other });
    }

    fn row(&mut self, rule: &Node) {
        let place = format!("rule {}", self.read.rows.len() + 1);
        let mut faults = Vec::new();
        let is_other = Self::shape(rule, &keys::ROW, &mut faults);
        let mut column = |key| column(rule, &keys::ROW, key, &mut faults);
        let mut row = AlertRuleRow {
            name: column("name"),
            expr: column("expr"),
            for_duration: column("for_duration"),
            keep_firing_for: column("keep_firing_for"),
            rule_group: column("rule_group"),
            evaluation_interval: column("evaluation_interval"),
            enabled: column("enabled"),
            labels: pairs(rule, &keys::ROW, "labels"),
            annotations: pairs(rule, &keys::ROW, "annotations"),
            ..self.empty_row()
        };
        let (id, organisation) = (column("id"), column("organisation_id"));
        if let Some(problem) = self.set_organisation(&mut row, organisation, is_other) {
            let line = find(rule, &keys::ROW, "organisation_id").map_or(rule.line, |at| at.line);
            faults.push(Fault { line, problem });
        }
        if let Some(id) = id {
            match Uuid::try_parse(&id) {
                Ok(id) => row.id = id,
                Err(_) => faults.push(Fault {
                    line: rule.entry("id").map_or(rule.line, |entry| entry.line),
                    problem: format!("id: {id:?} is not a UUID; leave it out for a new rule"),
                }),
            }
        }
        let columns = columns(rule, &keys::ROW, keys::ROW.known.iter().map(|name| (*name, *name)));
        let line = Some(rule.line);
        let names = &[];
        self.read.rows.push(FileRow { place, line, row, columns, names, faults, is_other });
    }

    /// Sets whose rule a row is; what is wrong with that.
    fn set_organisation(
        &self,
        row: &mut AlertRuleRow,
        named: Option<String>,
        is_other: bool,
    ) -> Option<String> {
        match named.as_deref().map(str::trim).filter(|named| !named.is_empty()) {
            Some(named) => match OrganisationId::parse(named) {
                Ok(organisation) => {
                    row.organisation = self.only.cloned().unwrap_or(organisation);
                    None
                }
                Err(error) => Some(format!("organisation_id: {error}")),
            },
            None if self.only.is_some() || is_other => None,
            None => Some(
                "has no organisation_id, which every row needs; write it, or name the organisation \
                 of all rows with --organisation"
                    .to_owned(),
            ),
        }
    }

    /// Reports unknown keys; returns whether it is no alert at all.
    fn shape(rule: &Node, keys: &Keys, faults: &mut Vec<Fault>) -> bool {
        if !matches!(rule.kind, Kind::Map(_)) {
            let problem = "must be a mapping with a name and expr".to_owned();
            faults.push(Fault { line: rule.line, problem });
            return true;
        }
        faults.extend(Self::unknown_keys(rule, keys));
        rule.entry("record").is_some()
    }

    fn empty_row(&self) -> AlertRuleRow {
        let at = self.read.rows.len();
        AlertRuleRow {
            id: Uuid::from_u128(at as u128 + 1),
            organisation: self.only.unwrap_or(&self.fallback).clone(),
            name: None,
            expr: None,
            for_duration: None,
            keep_firing_for: None,
            rule_group: None,
            evaluation_interval: None,
            labels: None,
            annotations: None,
            enabled: None,
            created_at_micros: i64::try_from(at).ok(),
            excess: Excess::None,
        }
    }
}

/// A key's entry, or that of a key by which it is meant: a mistyped key is one fault, and no missing
/// value besides.
fn find<'n>(of: &'n Node, keys: &Keys, key: &str) -> Option<&'n Entry> {
    let meant = |entry: &&Entry| keys.meant(&entry.key) == Some(key);
    of.entry(key).or_else(|| of.entries().iter().find(meant))
}

/// A string; a number or a boolean is one as it is written.
fn column(of: &Node, keys: &Keys, key: &str, faults: &mut Vec<Fault>) -> Option<String> {
    let entry = find(of, keys, key)?;
    match &entry.value.kind {
        Kind::Scalar(_) => entry.value.text().map(str::to_owned),
        Kind::List(_) | Kind::Map(_) => {
            let problem = format!("{}: must be a string, not a list or a mapping", entry.key);
            faults.push(Fault { line: entry.line, problem });
            None
        }
    }
}

fn pairs(of: &Node, keys: &Keys, key: &str) -> Option<String> {
    let value = &find(of, keys, key)?.value;
    (!value.is_null()).then(|| value.to_json().to_string())
}

/// The line of each column, by its key in the file.
fn columns(
    of: &Node,
    keys: &Keys,
    names: impl Iterator<Item = (&'static str, &'static str)>,
) -> Vec<(&'static str, u64)> {
    names.filter_map(|(column, key)| Some((column, find(of, keys, key)?.line))).collect()
}

#[cfg(test)]
mod tests;
