//! Texts of rows: what they may hold, and the columns that are switches and durations.

use super::fault::Collector;
use crate::prom_duration::PromDuration;
use crate::rules::spec::refusal::quoted;

/// Why a text cannot be written to Mimir; it is not repeated. Alertmanager takes most of its texts for Go
/// templates, which begin with two braces: a template could read what is not the author's, and one that
/// fails fails every notification.
pub(super) fn problem(text: &str, most_bytes: usize) -> Option<String> {
    if text.len() > most_bytes {
        Some(format!("is {} bytes long; at most {most_bytes}", text.len()))
    } else if text.contains("{{") {
        Some("holds {{, which begins a template; templates are not supported".to_owned())
    } else {
        text.chars().find(|c| is_unprintable(*c)).map(|character| {
            let code = u32::from(character);
            format!("holds the character U+{code:04X}, which is not printable; remove it")
        })
    }
}

/// Control characters, line breaks among them, and characters that YAML does not permit.
pub(super) fn is_unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{feff}' | '\u{fffe}' | '\u{ffff}' | '\u{2028}' | '\u{2029}')
}

/// Editors leave white space and byte order marks around texts.
pub(super) fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}')
}

/// A column that is a boolean, of any spelling that Postgres or JSON has.
pub(super) fn switch(
    column: &'static str,
    text: Option<&str>,
    default: bool,
    faults: &mut Collector,
) -> bool {
    match trimmed(text.unwrap_or_default()).to_ascii_lowercase().as_str() {
        "" | "null" => default,
        "true" | "t" | "1" | "yes" | "on" => true,
        "false" | "f" | "0" | "no" | "off" => false,
        _ => {
            faults.add(column, "should be true or false");
            default
        }
    }
}

/// A column that is a duration within bounds; none if it is empty.
pub(super) fn duration(
    column: &'static str,
    text: Option<&str>,
    bounds: (PromDuration, PromDuration),
    faults: &mut Collector,
) -> Option<PromDuration> {
    let text = trimmed(text.unwrap_or_default());
    if text.is_empty() {
        return None;
    }
    let read: Result<PromDuration, _> = text.parse();
    match read {
        Ok(duration) if (bounds.0..=bounds.1).contains(&duration) => Some(duration),
        Ok(duration) => {
            faults
                .add(column, format!("is {duration}; should be from {} to {}", bounds.0, bounds.1));
            None
        }
        Err(error) => {
            faults.add(column, format!("{} {error}", quoted(text)));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_line_breaks_and_long_texts_are_refused() {
        for (text, words) in [
            ("{{ .CommonLabels }}", "template"),
            ("a {{- b", "template"),
            ("a\nb", "U+000A"),
            ("a\u{2028}b", "U+2028"),
            ("\u{7f}", "U+007F"),
            ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "33 bytes long; at most 32"),
        ] {
            let problem = problem(text, 32).unwrap();
            assert!(problem.contains(words), "{text}: {problem}");
        }
        for right in ["", "{ {", "}}", "ä 🦀", "a: b # c"] {
            assert_eq!(problem(right, 32), None, "{right}");
        }
    }
}
