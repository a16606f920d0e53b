//! A YAML document whose keys know their lines.
//!
//! Scalars are kept as text, because what one means depends on the key: `10` may be a number or the
//! name of a bucket.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Spanned, from_multiple_with_options, options};

use super::finding::{Finding, Severity};

/// A whole document: a map, or nothing.
#[derive(Debug)]
pub(super) struct Document {
    root: Node,
    /// What Mimir would not take of the text, or not read, whatever it says.
    faults: Vec<Finding>,
}

/// A value.
#[derive(Debug)]
pub(super) enum Node {
    Nothing,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key of a map with its line and value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: u64,
    pub(super) value: Node,
}

impl Document {
    pub(super) fn read(text: &str) -> Result<Self, Finding> {
        // Only comments, or nothing at all: Mimir then takes its defaults.
        let is_bare = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
        if text.lines().all(is_bare) {
            return Ok(Self { root: Node::Nothing, faults: Vec::new() });
        }
        // A key that stands twice is told by us, with the others.
        let options = options! { duplicate_keys: DuplicateKeyPolicy::PassThrough };
        let documents = from_multiple_with_options::<Spanned<Node>>(text, options);
        let documents = documents.map_err(|error| {
            let place = error.location();
            let wrong = error.without_snippet().to_string();
            let first = wrong.lines().next().unwrap_or_default();
            unreadable(place.map_or(0, |place| place.line()), format!("is no YAML: {first}"))
        })?;
        let mut documents = documents.into_iter();
        let root = documents.next().map_or(Node::Nothing, |document| document.value);
        let mut faults = Vec::new();
        root.repeated("", &mut faults);
        faults.extend(documents.map(|further| {
            let wrong = "begins another YAML document: Mimir reads one";
            let right = "write one document in the file".to_owned();
            let line = further.referenced.line();
            Finding { check: "second-document", right, ..unreadable(line, wrong.to_owned()) }
        }));
        match root {
            Node::Map(_) | Node::Nothing => Ok(Self { root, faults }),
            Node::Scalar(_) => Err(unreadable(1, "is a single word".to_owned())),
            Node::List(_) => Err(unreadable(1, "is a list".to_owned())),
        }
    }

    /// What Mimir would not take of the text, or not read.
    pub(super) fn faults(&self) -> &[Finding] {
        &self.faults
    }

    /// The value of a dotted key.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        key.split('.').try_fold(&self.root, |node, name| Some(&node.entry(name)?.value))
    }

    /// The line of a dotted key, or of the innermost block of it that is there.
    pub(super) fn line(&self, key: &str) -> u64 {
        let (mut node, mut line) = (&self.root, 0);
        for name in key.split('.') {
            let Some(entry) = node.entry(name) else { break };
            (node, line) = (&entry.value, entry.line);
        }
        line
    }

    /// The blocks at the top.
    pub(super) fn entries(&self) -> &[Entry] {
        self.root.entries()
    }

    /// Whether any scalar is so.
    pub(super) fn any_text(&self, wanted: &dyn Fn(&str) -> bool) -> bool {
        self.root.any_text(wanted)
    }
}

fn unreadable(line: u64, wrong: String) -> Finding {
    Finding {
        check: "unreadable",
        severity: Severity::Error,
        key: String::new(),
        line,
        wrong,
        right: "a map of Mimir's blocks is wanted".to_owned(),
    }
}

impl Node {
    /// Notes every key that stands a second time in its map.
    fn repeated(&self, path: &str, faults: &mut Vec<Finding>) {
        if let Self::List(nodes) = self {
            for node in nodes {
                node.repeated(path, faults);
            }
        }
        for (at, entry) in self.entries().iter().enumerate() {
            let key =
                if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
            entry.value.repeated(&key, faults);
            let before = self.entries()[..at].iter().find(|before| before.key == entry.key);
            let Some(before) = before else { continue };
            let wrong = format!(
                "stands a second time, first on line {}: Mimir does not start",
                before.line
            );
            let right = "write the key once, with all that belongs to it".to_owned();
            faults.push(Finding { key, right, ..unreadable(entry.line, wrong) });
        }
    }

    pub(super) fn entries(&self) -> &[Entry] {
        match self {
            Self::Map(entries) => entries,
            _ => &[],
        }
    }

    pub(super) fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == name)
    }

    /// A scalar's text.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Scalar(text) => Some(text),
            _ => None,
        }
    }

    /// A scalar as a switch, by the words that Mimir's YAML takes.
    pub(super) fn switch(&self) -> Option<bool> {
        match self.text()?.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            _ => None,
        }
    }

    /// A scalar as a whole number.
    pub(super) fn number(&self) -> Option<i64> {
        self.text()?.parse().ok()
    }

    fn any_text(&self, wanted: &dyn Fn(&str) -> bool) -> bool {
        match self {
            Self::Nothing => false,
            Self::Scalar(text) => wanted(text),
            Self::List(nodes) => nodes.iter().any(|node| node.any_text(wanted)),
            Self::Map(entries) => entries.iter().any(|entry| entry.value.any_text(wanted)),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scalar, a list or a map")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Nothing)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Nothing)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::Scalar(value))
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Node, E> {
        Ok(Node::Scalar(String::from_utf8_lossy(value).into_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = items.next_element()? {
            nodes.push(node);
        }
        Ok(Node::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let line = key.referenced.line();
            entries.push(Entry { key: key.value, line, value: map.next_value()? });
        }
        Ok(Node::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_know_their_lines_and_missing_ones_the_line_of_their_block() {
        let document =
            Document::read("# c\na:\n  b: &x {c: yes}\n  d: *x\nl: [1, 2.5, null]\n").unwrap();
        assert_eq!(document.line("a.b.c"), 3);
        assert_eq!(document.line("a.q.r"), 2);
        assert_eq!(document.line("q"), 0);
        assert_eq!(document.get("a.b.c").and_then(Node::switch), Some(true));
        assert_eq!(document.get("a.d.c").and_then(Node::text), Some("true"));
        assert!(document.any_text(&|text| text == "2.5"));
    }

    #[test]
    fn what_is_no_yaml_is_told_with_its_line() {
        let broken = Document::read("a: 1\nb: [1\nc: 2\n").unwrap_err();
        assert_eq!(broken.check, "unreadable");
        assert!(broken.line > 1, "{broken}");
        // Mimir refuses a key that stands twice.
        let document = Document::read("a: 1\nb: {c: 1, d: 2,\n c: 3}\na: 3\n").unwrap();
        let told: Vec<_> =
            document.faults().iter().map(|fault| (fault.line, fault.key.as_str())).collect();
        assert_eq!(told, [(3, "b.c"), (4, "a")]);
        let text = document.faults()[1].to_string();
        assert!(text.contains("first on line 1") && !text.contains("Policy"), "{text}");
        // Of a merge (<<) what is written beside it counts, and nothing stands twice.
        let merged = "a: &a {b: 1, c: 2}\nd:\n  <<: *a\n  b: 3\n";
        assert_eq!(Document::read(merged).unwrap().faults().len(), 0);
        let two = Document::read("---\na: 1\n---\nb: 2\n").unwrap();
        let text = two.faults()[0].to_string();
        assert!(two.faults()[0].line == 4 && text.contains("another YAML document"), "{text}");
        assert_eq!(Document::read("- a\n").unwrap_err().wrong, "is a list");
        assert!(Document::read("# nothing\n\n").is_ok());
    }
}
