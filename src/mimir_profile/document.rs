//! A Mimir configuration as a YAML document.

use super::finding::{Finding, Severity};
use crate::yaml::{Entry, Kind, Node, Repeated};

/// A whole document: a map, or nothing.
#[derive(Debug)]
pub(super) struct Document {
    root: Option<Node>,
    /// Problems of the YAML itself, such as repeated keys.
    faults: Vec<Finding>,
}

impl Document {
    pub(super) fn read(text: &str) -> Result<Self, Finding> {
        // Only comments, or nothing: Mimir uses its defaults.
        let is_bare = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
        if text.lines().all(is_bare) {
            return Ok(Self { root: None, faults: Vec::new() });
        }
        let documents = Node::read_all(text);
        let documents = documents
            .map_err(|error| unreadable(error.line, format!("is no YAML: {}", error.reason)))?;
        let mut documents = documents.into_iter();
        let Some(root) = documents.next() else {
            return Ok(Self { root: None, faults: Vec::new() });
        };
        let repeated = |Repeated { entry, path, first }: Repeated<'_>| {
            let wrong = format!("is repeated, first on line {first}: Mimir does not start");
            let right = "write the key once, with all of its values".to_owned();
            Finding { key: path, right, ..unreadable(entry.line, wrong) }
        };
        let mut faults: Vec<_> = root.repeated().into_iter().map(repeated).collect();
        faults.extend(documents.map(|further| {
            let wrong = "begins another YAML document: Mimir reads one";
            let right = "write one document in the file".to_owned();
            Finding {
                check: "second-document",
                right,
                ..unreadable(further.line, wrong.to_owned())
            }
        }));
        match root.kind {
            Kind::Scalar(_) if !root.is_null() => Err(unreadable(1, "is a single word".to_owned())),
            Kind::List(_) => Err(unreadable(1, "is a list".to_owned())),
            Kind::Scalar(_) | Kind::Map(_) => Ok(Self { root: Some(root), faults }),
        }
    }

    /// Problems of the YAML itself, such as repeated keys.
    pub(super) fn faults(&self) -> &[Finding] {
        &self.faults
    }

    /// The value of a dotted key.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        key.split('.').try_fold(self.root.as_ref()?, |node, name| Some(&node.entry(name)?.value))
    }

    /// The line of a dotted key, or of the innermost block of it that is there.
    pub(super) fn line(&self, key: &str) -> u64 {
        let (mut node, mut line) = (self.root.as_ref(), 0);
        for name in key.split('.') {
            let Some(entry) = node.and_then(|node| node.entry(name)) else { break };
            (node, line) = (Some(&entry.value), entry.line);
        }
        line
    }

    /// The blocks at the top.
    pub(super) fn entries(&self) -> &[Entry] {
        self.root.as_ref().map_or(&[], Node::entries)
    }

    /// Whether any scalar satisfies `wanted`.
    pub(super) fn any_text(&self, wanted: &dyn Fn(&str) -> bool) -> bool {
        self.root.as_ref().is_some_and(|root| root.any_text(wanted))
    }
}

fn unreadable(line: u64, wrong: String) -> Finding {
    Finding {
        check: "unreadable",
        severity: Severity::Error,
        key: String::new(),
        line,
        wrong,
        right: "it should be a map of Mimir's blocks".to_owned(),
    }
}

impl Node {
    /// A scalar as a boolean, in the spellings that Mimir's YAML accepts.
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
