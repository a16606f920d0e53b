//! The line of each key in the file.

use std::collections::HashMap;

use toml::de::{DeTable, DeValue};

/// The lines of keys, by dotted path, and of list items, by path and index.
#[derive(Debug, Default)]
pub(super) struct Lines {
    keys: HashMap<String, usize>,
    items: HashMap<(String, usize), usize>,
}

impl Lines {
    /// From a table that was parsed from this text.
    pub(super) fn of(text: &str, table: &DeTable<'_>) -> Self {
        let mut lines = Self::default();
        lines.add(&Starts::of(text), "", table);
        lines
    }

    fn add(&mut self, starts: &Starts, above: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let name = key.get_ref();
            let path = if above.is_empty() { name.to_string() } else { format!("{above}.{name}") };
            self.keys.insert(path.clone(), starts.line(key.span().start));
            match value.get_ref() {
                DeValue::Table(table) => self.add(starts, &path, table),
                DeValue::Array(items) => {
                    for (place, item) in items.iter().enumerate() {
                        let line = starts.line(item.span().start);
                        self.items.insert((path.clone(), place), line);
                    }
                }
                _ => {}
            }
        }
    }

    /// The line of a key, or of the innermost section that exists, if the key does not.
    pub(super) fn line(&self, path: &str) -> Option<usize> {
        let mut path = path;
        loop {
            if let Some(line) = self.keys.get(path) {
                return Some(*line);
            }
            path = path.rsplit_once('.')?.0;
        }
    }

    /// The line of a list item.
    pub(super) fn item(&self, path: &str, place: usize) -> Option<usize> {
        self.items.get(&(path.to_owned(), place)).copied().or_else(|| self.line(path))
    }
}

/// The offsets at which lines begin.
pub(super) struct Starts(Vec<usize>);

impl Starts {
    pub(super) fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at + 1).collect())
    }

    /// The number of the line, from 1, that contains a byte.
    pub(super) fn line(&self, at: usize) -> usize {
        self.0.partition_point(|start| *start <= at) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_keys_and_items_are_found() {
        let text = "a = 1\n[b]\nc = [\n  1,\n\n  2]\n[b.d]\n'x.y' = 3\n";
        let table = DeTable::parse(text).unwrap();
        let lines = Lines::of(text, table.get_ref());
        assert_eq!(lines.line("a"), Some(1));
        assert_eq!(lines.line("b.c"), Some(3));
        assert_eq!((lines.item("b.c", 0), lines.item("b.c", 1)), (Some(4), Some(6)));
        assert_eq!(lines.line("b.d.x.y"), Some(8));
        assert_eq!(lines.line("b.missing"), Some(2), "that of its section");
        assert_eq!(lines.line("missing"), None);
    }
}
