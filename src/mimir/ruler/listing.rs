//! Mimir's listing of the groups of a tenant.

use std::collections::{BTreeMap, HashSet};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;

use super::line_breaks::{Document, ends_with_old_break};
use super::node::{Node, Reader};
use super::{AlertingRule, PromDuration, RulerError, StoredGroup, StoredRule};
use crate::mimir::ExchangeError;

/// All groups of a tenant, in all namespaces, as Mimir wrote them.
#[derive(Clone, Debug)]
pub struct RawListing {
    body: Bytes,
    digest: [u8; 32],
}

/// The groups of a tenant: ours in full, others by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The groups of our namespace, in Mimir's order.
    pub ours: Vec<StoredGroup>,
    /// The number of groups in other namespaces. They count towards the tenant's limit.
    pub others: usize,
    /// The SHA-256 of the listing.
    pub digest: [u8; 32],
}

impl RawListing {
    /// A listing from these bytes: YAML, a mapping of namespaces to lists of groups.
    pub fn new(body: Bytes) -> Self {
        let mut sum = [0; 32];
        sum.copy_from_slice(digest(&SHA256, &body).as_ref());
        Self { body, digest: sum }
    }

    /// The listing of a tenant without groups, as Mimir writes it.
    pub(super) fn empty() -> Self {
        Self::new(Bytes::from_static(b"{}\n"))
    }

    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The SHA-256 of the bytes. While it stays the same, so do the groups.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Parses the groups. Unknown content of a group is marked; an error means that this is not a
    /// listing, or that it was cut off.
    pub fn parse(&self, namespace: &str) -> Result<Listed, RulerError> {
        self.read(namespace).map_err(|problem| ExchangeError::Unreadable(problem).into())
    }

    fn read(&self, namespace: &str) -> Result<Listed, String> {
        let text = std::str::from_utf8(&self.body).map_err(|_| "it is no UTF-8".to_owned())?;
        // Mimir's YAML always ends with a line break; a text that was cut off may be valid YAML.
        if !text.ends_with('\n') && !ends_with_old_break(text) {
            return Err("it is cut off".to_owned());
        }
        let mut listed = Listed { ours: Vec::new(), others: 0, digest: self.digest };
        let mut is_seen = false;
        let document = Document::new(text);
        let mut reader = Reader::open(&document)?;
        while let Some(name) = reader.key()? {
            if name != namespace {
                listed.others += reader.count_items()?;
                continue;
            }
            if std::mem::replace(&mut is_seen, true) {
                return Err(format!("the namespace {name:?} is there twice"));
            }
            listed.ours = groups(reader.value()?)?;
        }
        reader.close()?;
        Ok(listed)
    }
}

fn groups(node: Node) -> Result<Vec<StoredGroup>, String> {
    match node {
        Node::Null => Ok(Vec::new()),
        Node::List(groups) => groups.into_iter().map(group).collect(),
        _ => Err("a namespace is no list of groups".to_owned()),
    }
}

/// A group must have a name; without one it could not be changed or deleted.
fn group(node: Node) -> Result<StoredGroup, String> {
    let Node::Map(entries) = node else {
        return Err("a group is no mapping".to_owned());
    };
    let mut says_more = has_twice(&entries);
    let (mut name, mut interval, mut rules) = (None, None, Vec::new());
    for (key, value) in entries {
        match (key.as_str(), value) {
            ("name", Node::Text(text)) => name = Some(text),
            ("interval", Node::Text(text)) => match text.parse() {
                Ok(PromDuration::ZERO) => {}
                Ok(length) => interval = Some(length),
                Err(_) => says_more = true,
            },
            ("rules", Node::List(nodes)) => rules = nodes.into_iter().map(rule).collect(),
            ("interval" | "rules", Node::Null) => {}
            _ => says_more = true,
        }
    }
    let name = name.ok_or("a group has no name")?;
    Ok(StoredGroup { name, interval, rules, says_more })
}

fn rule(node: Node) -> StoredRule {
    alerting_rule(node).map_or(StoredRule::Other, StoredRule::Alerting)
}

/// A rule with only what we could have written.
fn alerting_rule(node: Node) -> Option<AlertingRule> {
    let Node::Map(entries) = node else { return None };
    if has_twice(&entries) {
        return None;
    }
    let (mut alert, mut expr) = (None, None);
    let (mut for_duration, mut keep_firing_for) = (PromDuration::ZERO, PromDuration::ZERO);
    let (mut labels, mut annotations) = (BTreeMap::new(), BTreeMap::new());
    for (key, value) in entries {
        match (key.as_str(), value) {
            ("alert", Node::Text(text)) => alert = Some(text),
            ("expr", Node::Text(text)) => expr = Some(trimmed(&text).to_owned()),
            ("for", Node::Text(text)) => for_duration = text.parse().ok()?,
            ("keep_firing_for", Node::Text(text)) => keep_firing_for = text.parse().ok()?,
            ("labels", value) => labels = texts(value)?,
            ("annotations", value) => annotations = texts(value)?,
            ("for" | "keep_firing_for", Node::Null) => {}
            _ => return None,
        }
    }
    let alert = alert.filter(|name| !name.is_empty())?;
    Some(AlertingRule { alert, expr: expr?, for_duration, keep_firing_for, labels, annotations })
}

/// Without the white space around it that `PromQL` ignores.
fn trimmed(expr: &str) -> &str {
    expr.trim_matches([' ', '\t', '\n', '\r'])
}

fn texts(node: Node) -> Option<BTreeMap<String, String>> {
    let entries = match node {
        Node::Null => return Some(BTreeMap::new()),
        Node::Map(entries) if !has_twice(&entries) => entries,
        _ => return None,
    };
    let text = |(key, value)| match value {
        Node::Text(text) => Some((key, text)),
        Node::Null => Some((key, String::new())),
        _ => None,
    };
    entries.into_iter().map(text).collect()
}

fn has_twice(entries: &[(String, Node)]) -> bool {
    let mut seen = HashSet::new();
    !entries.iter().all(|(key, _)| seen.insert(key))
}
