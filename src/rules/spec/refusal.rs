//! Why a row is not a valid rule, for its author. Only members of the row's organisation see these texts,
//! so they may quote the row, briefly.

use std::fmt;

/// All faults of one row; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusals(pub Vec<Refusal>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub column: &'static str,
    /// Where in the column's text, if it has one place.
    pub position: Option<Position>,
    /// What is wrong, and what would be right. It continues a sentence that begins with the column.
    pub fault: String,
}

/// A place in a text, counted from 1; columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// What Mimir says about an expression, with the place, counted from 1.
pub fn in_words(reason: &str, position: Option<(usize, usize)>) -> String {
    match position {
        Some((line, column)) => format!("expr, line {line}, column {column}: {reason}"),
        None => reason.to_owned(),
    }
}

/// The longest quote, in characters.
const QUOTED: usize = 60;

/// The longest fault, in characters: it may name what a row calls a variable. A quote with every character escaped
/// is not cut.
const LONGEST: usize = 800;

/// The most faults of a row that its status tells: one of nothing but wrong labels must not fill it.
const MOST_TOLD: usize = 10;

/// The characters that they may have together. A status has room for 2,000, and says how many others there are.
const ROOM: usize = 1_900;

/// Collects the faults of a row while it is read.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<Refusal>);

impl Faults {
    pub(crate) fn add(&mut self, column: &'static str, fault: impl Into<String>) {
        self.push(column, None, fault.into());
    }

    pub(crate) fn add_at(&mut self, column: &'static str, at: Position, fault: impl Into<String>) {
        self.push(column, Some(at), fault.into());
    }

    fn push(&mut self, column: &'static str, position: Option<Position>, mut fault: String) {
        if let Some((end, _)) = fault.char_indices().nth(LONGEST) {
            fault.truncate(end);
            fault.push('…');
        }
        self.0.push(Refusal { column, position, fault });
    }

    /// Returns what was read if there are no faults.
    pub(crate) fn none_or<T>(self, read: T) -> Result<T, Refusals> {
        if self.0.is_empty() { Ok(read) } else { Err(Refusals(self.0)) }
    }
}

impl Position {
    /// The position of the byte at `offset`.
    pub(crate) fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// A quote of a row's text: shortened, and with unprintable characters escaped.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars().take(QUOTED) {
        match character {
            '\'' => quoted.push(character),
            _ => quoted.extend(character.escape_debug()),
        }
    }
    if text.chars().nth(QUOTED).is_some() {
        quoted.push('…');
    }
    quoted.push('"');
    quoted
}

/// The first faults, and how many more there are.
impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut characters = 0;
        for (at, refusal) in self.0.iter().enumerate() {
            let between = if at == 0 { "" } else { "; " };
            let text = format!("{between}{refusal}");
            characters += text.chars().count();
            if at >= MOST_TOLD || characters > ROOM {
                return write!(f, "; and {} more", self.0.len() - at);
            }
            f.write_str(&text)?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusals {}

impl Refusal {
    /// As `expr: 2:7: holds …`, with another name of the column.
    pub fn named(&self, column: &str) -> String {
        match self.position {
            Some(Position { line, column: at }) => format!("{column}: {line}:{at}: {}", self.fault),
            None => format!("{column}: {}", self.fault),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.named(self.column))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refusals_read_as_column_position_fault() {
        let mut faults = Faults::default();
        faults.add("name", "is empty; name the alert");
        faults.add_at("expr", Position { line: 2, column: 7 }, "holds a tabulator");
        assert_eq!(
            faults.none_or(()).unwrap_err().to_string(),
            "name: is empty; name the alert; expr: 2:7: holds a tabulator"
        );
        assert_eq!(Faults::default().none_or(1), Ok(1));
    }

    #[test]
    fn many_faults_are_counted_and_not_all_told() {
        let told = |count: usize, length: usize| {
            let mut faults = Faults::default();
            for _ in 0..count {
                faults.add("labels", "é".repeat(length));
            }
            let refusals = faults.none_or(()).unwrap_err();
            assert_eq!(refusals.0.len(), count, "`rules check` names all of them");
            refusals.to_string()
        };
        assert_eq!(told(10, 1).matches("labels: é").count(), 10);
        assert!(!told(10, 1).contains("more"));
        let many = told(64, 1);
        assert_eq!(many.matches("labels: é").count(), 10);
        assert!(many.ends_with("labels: é; and 54 more"), "{many}");
        // Long ones leave room for the number of the others.
        let long = told(64, 700);
        assert_eq!(long.matches("labels: é").count(), 2);
        assert!(long.ends_with("é; and 62 more") && long.chars().count() < 2_000, "{long}");
        let cut = told(2, 3_000);
        assert_eq!(cut.matches("é…").count(), 2);
        assert!(cut.chars().count() < 2_000, "{cut}");
    }

    #[test]
    fn columns_are_counted_in_characters() {
        assert_eq!(Position::of("é\nüx", 0), Position { line: 1, column: 1 });
        assert_eq!(Position::of("é\nüx", 5), Position { line: 2, column: 2 });
    }

    #[test]
    fn quotes_are_short_and_printable() {
        assert_eq!(quoted("a\n\"b\" o'clock"), r#""a\n\"b\" o'clock""#);
        assert_eq!(quoted(&"é".repeat(61)), format!("\"{}…\"", "é".repeat(60)));
        assert_eq!(quoted(&"é".repeat(60)), format!("\"{}\"", "é".repeat(60)));
    }

    proptest! {
        #[test]
        fn any_place_in_any_text_has_a_position(text in "(?s).{0,40}", offset in 0_usize..200) {
            let position = Position::of(&text, offset);
            prop_assert!(position.line >= 1 && position.column >= 1);
        }
    }
}
