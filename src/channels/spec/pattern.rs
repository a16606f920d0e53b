//! Regular expressions of matchers, as Alertmanager compiles them (Go's `regexp/syntax`).
//!
//! They are compiled on the thread of the rules module, and kept there, so what one may take is bounded by its
//! weight. Where Go would answer otherwise than the crate does, there is no answer.

use regex_lite::{Regex, RegexBuilder};

use crate::mimir::expression;

/// What a pattern costs to compile and to ask: its characters, with counted repetitions written out.
pub fn weight(pattern: &str) -> u64 {
    expression::Pattern::of(pattern.as_bytes()).weight()
}

/// A compiled pattern, which matches what Go's regexp does.
#[derive(Clone, Debug)]
pub struct Pattern {
    kind: Kind,
    /// Whether it folds case, which Go does for all letters and the crate for those of ASCII.
    folds_case: bool,
    weight: u64,
}

#[derive(Clone, Debug)]
enum Kind {
    /// `a|b|c`
    Words(Vec<String>),
    Regex(Regex),
}

impl Pattern {
    /// What is wrong with a pattern, in words that go on a sentence. What only Go knows is left to Mimir.
    pub fn check(pattern: &str) -> Result<(), String> {
        match compile(&in_our_syntax(pattern), weight(pattern)) {
            Err(error) if !is_gos_own(pattern) => {
                Err(format!("is not a regular expression: {error}"))
            }
            _ => Ok(()),
        }
    }

    /// Of the whole value of a label; none if it is none, or one that only Go knows.
    pub fn new(pattern: &str) -> Option<Self> {
        let weight = weight(pattern);
        // Most are lists of words.
        if !pattern.contains(|c| "\\.+*?()[]{}^$".contains(c)) {
            let words = pattern.split('|').map(str::to_owned).collect();
            return Some(Self {
                kind: Kind::Words(words),
                folds_case: false,
                weight: weight / 8 + 1,
            });
        }
        let folds_case = folds_case(pattern);
        // The crate has a boundary of words where Go has braces, and counts where Go has text.
        let is_otherwise = pattern.contains("\\b{")
            || pattern.contains('{') && pattern.contains(char::is_whitespace)
            || folds_case && (pattern.contains("\\x") || !pattern.is_ascii());
        if is_otherwise {
            return None;
        }
        let regex = compile(&format!("^(?:{})$", in_our_syntax(pattern)), weight).ok()?;
        Some(Self { kind: Kind::Regex(regex), folds_case, weight })
    }

    /// Whether it matches a text. None if only Go knows, or if there is not `work` enough left for it: characters of
    /// the pattern times characters of the text.
    pub fn matches(&self, text: &str, work: &mut u64) -> Option<bool> {
        if self.folds_case && !text.is_ascii() {
            return None;
        }
        let each = match self.kind {
            Kind::Words(_) => 1,
            Kind::Regex(_) => text.len() as u64 + 1,
        };
        *work = work.checked_sub(self.weight.saturating_mul(each))?;
        Some(match &self.kind {
            Kind::Words(words) => words.iter().any(|word| word == text),
            Kind::Regex(regex) => regex.is_match(text),
        })
    }
}

/// The size is bounded by the weight: the crate compiles repetitions that Go refuses, or takes for text.
fn compile(pattern: &str, weight: u64) -> Result<Regex, regex_lite::Error> {
    const BYTES: usize = 128;
    const LEAST: usize = 4 << 10;
    let weight = usize::try_from(weight).unwrap_or(usize::MAX);
    let most = weight.saturating_mul(BYTES).saturating_add(LEAST);
    RegexBuilder::new(pattern).size_limit(most).build()
}

/// Whether a pattern switches case folding on: `(?i)`, `(?si:…)`.
fn folds_case(pattern: &str) -> bool {
    pattern.split("(?").skip(1).any(|flags| {
        let flags = flags.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
        flags.contains('i')
    })
}

/// A pattern of Go's in the syntax of the crate `regex-lite`, whose `\w`, `\d`, `\s` and `\b` are of ASCII as Go's.
/// In a class, such as `[a[]`, that crate refuses nested classes and operations on sets (`&&`, `--`, `~~`), where
/// Go has these characters themselves; and `\<` and `\>` are boundaries of words to it.
///
/// Groups capture nothing: only whether it matches is asked, and for that the crate takes memory for each state times
/// each group that captures. A thousand `()` in 2 KiB, counted, were 865 MB.
fn in_our_syntax(pattern: &str) -> String {
    let mut ours = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(at) = rest.find(['\\', '[', '(']) {
        let (before, found) = rest.split_at(at);
        ours.push_str(before);
        rest = if found.starts_with('[') {
            class(found, &mut ours)
        } else if let Some(after) = found.strip_prefix('(') {
            group(after, &mut ours)
        } else {
            let (escape, after) = found.split_at(escape_length(found));
            ours.push_str(if matches!(escape, "\\<" | "\\>") { &escape[1..] } else { escape });
            after
        };
    }
    ours.push_str(rest);
    ours
}

/// Writes the beginning of a group, whose parenthesis is before the text, and returns what is after it.
fn group<'a>(text: &'a str, ours: &mut String) -> &'a str {
    let Some(named) = text.strip_prefix("?P<").or_else(|| text.strip_prefix("?<")) else {
        ours.push_str(if text.starts_with('?') { "(" } else { "(?:" });
        return text;
    };
    let is_letter = |c: char| c == '_' || c.is_ascii_alphanumeric();
    match named.split_once('>') {
        Some((name, after)) if !name.is_empty() && name.chars().all(is_letter) => {
            ours.push_str("(?:");
            after
        }
        // No name to Go, whatever it is to the crate: one that it refuses, too.
        _ => {
            ours.push_str("(?P<>");
            named
        }
    }
}

/// Writes the class that a text begins with, and returns what is after it. A class that does not end is left
/// to the compiler.
fn class<'a>(text: &'a str, ours: &mut String) -> &'a str {
    let mut rest = text.strip_prefix("[^").or_else(|| text.strip_prefix('[')).unwrap_or(text);
    ours.push_str(&text[..text.len() - rest.len()]);
    let mut is_first = true;
    while !rest.is_empty() {
        // A bracket that comes first is itself.
        if !is_first && let Some(after) = rest.strip_prefix(']') {
            ours.push(']');
            return after;
        }
        is_first = false;
        if let Some(name) = rest.strip_prefix("[:")
            && let Some(end) = name.find(":]")
        {
            let (named, after) = rest.split_at("[:".len() + end + ":]".len());
            ours.push_str(named);
            rest = after;
            continue;
        }
        let is_set = ["\\d", "\\D", "\\s", "\\S", "\\w", "\\W", "\\p", "\\P"]
            .iter()
            .any(|set| rest.starts_with(set));
        rest = class_item(rest, ours);
        // A range.
        if !is_set
            && let Some(end) = rest.strip_prefix('-')
            && !end.is_empty()
            && !end.starts_with(']')
        {
            ours.push('-');
            rest = class_item(end, ours);
        }
    }
    rest
}

/// Writes one character or escape of a class.
fn class_item<'a>(text: &'a str, ours: &mut String) -> &'a str {
    let length = match text.chars().next() {
        None => return text,
        Some('\\') if text.starts_with("\\<") || text.starts_with("\\>") => {
            ours.push_str(&text[1..2]);
            return &text[2..];
        }
        Some('\\') => escape_length(text),
        Some(character) => {
            if "[]&~^-".contains(character) {
                ours.push('\\');
            }
            character.len_utf8()
        }
    };
    let (item, after) = text.split_at(length);
    ours.push_str(item);
    after
}

/// How long the escape is that a text begins with: `\\d`, `\\pN`, `\\p{Greek}`, `\\x41`, `\\x{41}`.
fn escape_length(text: &str) -> usize {
    let Some(letter) = text.chars().nth(1) else { return text.len() };
    let simple = 1 + letter.len_utf8();
    let after = &text[simple..];
    match letter {
        'p' | 'P' | 'x' if after.starts_with('{') => {
            after.find('}').map_or(text.len(), |end| simple + end + 1)
        }
        'p' | 'P' => simple + after.chars().next().map_or(0, char::len_utf8),
        'x' if after.is_char_boundary(2) && after.len() >= 2 => simple + 2,
        _ => simple,
    }
}

/// Whether a pattern holds what only Go's syntax has: braces that are no counts, quoting, classes of Unicode, octal
/// numbers, and groups inside more others than the crate takes.
fn is_gos_own(pattern: &str) -> bool {
    const MOST_GROUPS: usize = 10;
    let escapes = ["\\Q", "\\p", "\\P", "\\0", "\\1", "\\2", "\\3", "\\4", "\\5", "\\6", "\\7"];
    pattern.contains('{')
        || escapes.iter().any(|escape| pattern.contains(escape))
        || pattern.matches('(').count() > MOST_GROUPS
        || folds_case(pattern) && pattern.contains("\\x")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // Each with what Go's regexp matches and does not.
    #[test]
    fn characters_of_a_class_mean_what_they_mean_to_go() {
        for (pattern, matching, other) in [
            ("a[", None, None),
            ("[a[]", Some("["), Some("b")),
            ("[[]x", Some("[x"), Some("x")),
            ("[^[]", Some("a"), Some("[")),
            ("[[a]b", Some("[b"), Some("b")),
            ("[]a]", Some("]"), Some("b")),
            ("[^]a]", Some("b"), Some("]")),
            ("[a&&b]", Some("&"), Some("c")),
            ("[a~~b]", Some("~"), Some("c")),
            ("[+--]", Some(","), Some("a")),
            ("[--a]", Some("A"), Some("b")),
            ("[a-]", Some("-"), Some("b")),
            ("[a-c-e]", Some("-"), Some("d")),
            ("[a^]", Some("^"), Some("b")),
            (r"[\d-x]", Some("-"), Some("w")),
            (r"[\x41-\x{43}]", Some("B"), Some("D")),
            (r"[\]a]", Some("]"), Some("\\")),
            (r"\[a", Some("[a"), Some("a")),
            (r"\\[a]", Some("\\a"), Some("a")),
            ("[[:alpha:][]", Some("["), Some("1")),
            ("[[:]", Some(":"), Some("a")),
            ("[a", None, None),
            ("[", None, None),
            ("[]", None, None),
        ] {
            assert_eq!(Pattern::check(pattern).is_ok(), matching.is_some(), "{pattern}");
            let Some(compiled) = Pattern::new(pattern) else {
                assert_eq!(matching, None, "{pattern}");
                continue;
            };
            let matches = |text: &str| compiled.matches(text, &mut u64::MAX.clone());
            assert_eq!(matching.map(matches), Some(Some(true)), "{pattern}");
            assert_eq!(other.map(matches), Some(Some(false)), "{pattern}");
        }
    }

    // Go: `\w`, `\d`, `\s` and `\b` are of ASCII, case folding is of Unicode, `\<` is the character.
    #[test]
    fn a_pattern_matches_what_it_matches_in_go() {
        for (value, text, matches) in [
            (r"\w+", "Berlin", Some(true)),
            (r"\w+", "München", Some(false)),
            (r"\W+", "üß", Some(true)),
            (r"\d", "٣", Some(false)),
            (r"a\sb", "a\u{a0}b", Some(false)),
            (r"ü\b.*", "üa", Some(true)),
            (r"M.nchen", "München", Some(true)),
            ("[^a]", "ü", Some(true)),
            (r"\<a\>", "<a>", Some(true)),
            ("(?i)berlin", "BERLIN", Some(true)),
            ("(?s-m:(?mi:k))", "\u{212a}", None),
            ("(?-i)k", "\u{212a}", Some(false)),
            (r"[\<a]", "<", Some(true)),
            ("Köln|Bonn", "Köln", Some(true)),
            ("Köln|Bonn", "Köl", Some(false)),
            ("a||b", "", Some(true)),
            ("(a)(?P<b>b)(?<b>c)(?i:D)", "abcd", Some(true)),
            (r"\((a)[(]", "(a(", Some(true)),
        ] {
            assert_eq!(
                Pattern::new(value).unwrap().matches(text, &mut 1_000),
                matches,
                "{value} {text}"
            );
        }
        for value in [
            r"\b{start}a",
            r"\p{Greek}+",
            r"[\p{Greek}[]",
            r"[\pN-]",
            r"\Qa\E",
            "{,5}",
            "a{ 3}",
            "(?i)münchen",
            r"(?i)[\x41-\x5a]",
            r"\w{80000}",
            "(a{1000}){1001}",
        ] {
            assert!(Pattern::new(value).is_none(), "{value}");
        }
    }

    #[test]
    fn a_pattern_is_asked_within_bounds() {
        let mut work = 1_000;
        let heavy = Pattern::new(r"\w{300}").unwrap();
        assert_eq!(heavy.matches("aa", &mut work), Some(false));
        assert_eq!(heavy.matches("aa", &mut work), None);
        assert_eq!(Pattern::new("b|c").unwrap().matches("c", &mut work), Some(true));
        // Memory to match was states times groups.
        let groups = format!("(?:{}){{9}}", "()".repeat(1000));
        let groups = Pattern::new(&groups).unwrap();
        let Kind::Regex(regex) = &groups.kind else { panic!("{groups:?}") };
        assert_eq!(regex.captures_len(), 1, "but for the whole");
        assert_eq!(groups.matches("", &mut 20_000), Some(true));
    }

    proptest! {
        // What has no class with such a character and no group is compiled as it is written.
        #[test]
        fn a_pattern_without_classes_and_groups_stays_as_it_is(pattern in "[a-z.*+?)|^$\\\\{},&~-]{0,16}") {
            prop_assert_eq!(in_our_syntax(&pattern), pattern);
        }

        #[test]
        fn no_pattern_panics(pattern in "(\\[|\\]|\\\\|\\^|-|&|~|:|[pPxd{}]|\\PC){0,24}") {
            let _ = in_our_syntax(&pattern);
        }
    }
}
