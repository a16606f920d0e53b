//! Matchers of labels, as Alertmanager writes them: `severity="critical"`, `team=~"a|b"`.
//!
//! Alertmanager has two parsers. The classic one (`pkg/labels/parse.go`) is Mimir's default; the one for
//! UTF-8 (`matcher/parse`) is an option of Mimir's, and takes other escapes. A text that one of them takes is
//! taken; one that they read differently is refused, because an upgrade would silently send alerts elsewhere.
//! What is written to Mimir is a form that both read alike.

use std::fmt;

use regex::{Regex, RegexBuilder};

use super::text::problem;

/// A condition on one label. An alert without the label has it empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Matcher {
    pub name: String,
    pub operator: Operator,
    pub value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operator {
    Equal,
    NotEqual,
    /// A regular expression, of the whole value.
    Matches,
    MatchesNot,
}

/// The longest name and the longest value.
const MOST_BYTES: usize = 2048;
/// What the parsers need to be given at most.
const MOST_TEXT_BYTES: usize = 8192;

/// Reads a text: one matcher, or several with commas between.
pub fn parse(text: &str) -> Result<Vec<Matcher>, String> {
    if text.len() > MOST_TEXT_BYTES {
        return Err(format!("is {} bytes long; at most {MOST_TEXT_BYTES}", text.len()));
    }
    let matchers = match (classic(text), utf8(text)) {
        (Some(classic), Some(utf8)) if classic == utf8 => classic,
        (Some(_), Some(_)) => {
            return Err(
                "is read differently by two versions of Alertmanager; write the value in double \
                        quotes, with \\\\ for a backslash"
                    .to_owned(),
            );
        }
        (Some(matchers), None) | (None, Some(matchers)) => matchers,
        (None, None) => {
            return Err(
                r#"is not a matcher; write for example severity="critical", or team=~"a|b""#
                    .to_owned(),
            );
        }
    };
    if matchers.is_empty() {
        return Err("holds no matcher; leave the list empty to match everything".to_owned());
    }
    for matcher in &matchers {
        matcher.check()?;
    }
    Ok(matchers)
}

/// A label's name in the classic alphabet.
pub fn is_classic_name(name: &str) -> bool {
    let classic = |(at, byte): (usize, u8)| {
        byte == b'_' || byte.is_ascii_alphabetic() || (at > 0 && byte.is_ascii_digit())
    };
    !name.is_empty() && name.bytes().enumerate().all(classic)
}

impl Operator {
    pub fn text(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Matches => "=~",
            Self::MatchesNot => "!~",
        }
    }

    /// The operator that a text begins with, and the rest.
    fn of(text: &str) -> Option<(Self, &str)> {
        // The longer ones first.
        let all = [Self::Matches, Self::MatchesNot, Self::NotEqual, Self::Equal];
        all.into_iter().find_map(|one| Some((one, text.strip_prefix(one.text())?)))
    }

    pub fn is_pattern(self) -> bool {
        matches!(self, Self::Matches | Self::MatchesNot)
    }
}

impl Matcher {
    fn check(&self) -> Result<(), String> {
        if self.name.is_empty() {
            return Err("has a matcher without a label's name".to_owned());
        }
        for text in [&self.name, &self.value] {
            if let Some(problem) = problem(text, MOST_BYTES) {
                return Err(problem);
            }
        }
        if self.operator.is_pattern()
            && self.pattern().is_none()
            && let Err(error) = Regex::new(&in_our_syntax(&self.value))
            && !is_gos_own(&self.value)
        {
            let error = error.to_string();
            let last = error.lines().last().unwrap_or_default();
            return Err(format!(
                "is not a regular expression: {}",
                last.trim_start_matches("error: ")
            ));
        }
        Ok(())
    }

    /// The regular expression as Alertmanager compiles it; none if it is not one, or one that only Go knows.
    pub fn pattern(&self) -> Option<Regex> {
        /// Enough for each that can be compiled in no time.
        const MOST_BYTES: usize = 1 << 20;
        let pattern = format!("^(?:{})$", in_our_syntax(&self.value));
        RegexBuilder::new(&pattern).size_limit(MOST_BYTES).build().ok()
    }
}

/// A pattern of Go's in the syntax of the crate `regex`. In a class, such as `[a[]`, that crate has nested
/// classes and operations on sets (`&&`, `--`, `~~`), where Go has these characters themselves.
fn in_our_syntax(pattern: &str) -> String {
    let mut ours = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(at) = rest.find(['\\', '[']) {
        let (before, found) = rest.split_at(at);
        ours.push_str(before);
        rest = if found.starts_with('[') {
            class(found, &mut ours)
        } else {
            let (escape, after) = found.split_at(escape_length(found));
            ours.push_str(escape);
            after
        };
    }
    ours.push_str(rest);
    ours
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

/// Whether a pattern holds what only Go's syntax has: braces that are no counts, and quoting.
fn is_gos_own(pattern: &str) -> bool {
    pattern.contains('{') || pattern.contains("\\Q")
}

/// In a form that both parsers read alike.
impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escaped = |text: &str| text.replace('\\', r"\\").replace('"', r#"\""#);
        if is_classic_name(&self.name) {
            f.write_str(&self.name)?;
        } else {
            write!(f, "\"{}\"", escaped(&self.name))?;
        }
        write!(f, "{}\"{}\"", self.operator.text(), escaped(&self.value))
    }
}

/// `ParseMatchers` of `pkg/labels/parse.go`.
fn classic(text: &str) -> Option<Vec<Matcher>> {
    let text = text.strip_prefix('{').unwrap_or(text);
    let text = text.strip_suffix('}').unwrap_or(text);
    let (mut is_quoted, mut is_escaped) = (false, false);
    let (mut tokens, mut token) = (Vec::new(), String::new());
    for character in text.chars() {
        match character {
            ',' if !is_quoted => {
                tokens.push(std::mem::take(&mut token));
                continue;
            }
            // As in the original: a comma in quotes leaves the escape as it is.
            ',' => {}
            '"' if is_escaped => is_escaped = false,
            '"' => is_quoted = !is_quoted,
            '\\' => is_escaped = !is_escaped,
            _ => is_escaped = false,
        }
        token.push(character);
    }
    let last = token.trim();
    if !last.is_empty() {
        tokens.push(last.to_owned());
    }
    tokens.iter().map(|token| classic_matcher(token)).collect()
}

/// White space of Go's `\s`.
fn is_space(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\u{c}' | '\r' | ' ')
}

/// `ParseMatcher`.
fn classic_matcher(text: &str) -> Option<Matcher> {
    let text = text.trim_matches(is_space);
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))?;
    let (name, rest) = text.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let (operator, raw) = Operator::of(rest.trim_start_matches(is_space))?;
    let raw = raw.trim_start_matches(is_space);
    let (raw, mut expects_quote) = match raw.strip_prefix('"') {
        Some(raw) => (raw, true),
        None => (raw, false),
    };
    let (mut value, mut is_escaped) = (String::new(), false);
    for (at, character) in raw.char_indices() {
        let is_last = at + 1 == raw.len();
        match character {
            'n' if is_escaped => value.push('\n'),
            '"' | '\\' if is_escaped => value.push(character),
            other if is_escaped => value.extend(['\\', other]),
            '\\' if !is_last => {
                is_escaped = true;
                continue;
            }
            '"' if expects_quote && is_last => expects_quote = false,
            '"' => return None,
            other => value.push(other),
        }
        is_escaped = false;
    }
    (!expects_quote).then(|| Matcher { name: name.to_owned(), operator, value })
}

/// `Matchers` of `matcher/parse/parse.go`.
fn utf8(text: &str) -> Option<Vec<Matcher>> {
    let mut rest = text.trim_start();
    let has_brace = rest.starts_with('{');
    if has_brace {
        rest = &rest[1..];
    }
    let mut matchers = Vec::new();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() || rest.starts_with('}') {
            break;
        }
        let (name, after) = utf8_text(rest)?;
        let (operator, after) = Operator::of(after.trim_start())?;
        let (value, after) = utf8_text(after.trim_start())?;
        matchers.push(Matcher { name, operator, value });
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None if rest.is_empty() || rest.starts_with('}') => break,
            None => return None,
        }
    }
    let rest = match (has_brace, rest.strip_prefix('}')) {
        (true, Some(rest)) => rest,
        (false, None) => rest,
        _ => return None,
    };
    rest.trim().is_empty().then_some(matchers)
}

/// A text in double quotes with Go's escapes, or one without reserved characters.
fn utf8_text(text: &str) -> Option<(String, &str)> {
    let Some(inner) = text.strip_prefix('"') else {
        let is_reserved = |c: char| c.is_whitespace() || "{}!=~,\\\"'`".contains(c);
        let end = text.find(is_reserved).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut is_escaped = false;
    let end = inner.char_indices().find_map(|(at, character)| match character {
        _ if is_escaped => {
            is_escaped = false;
            None
        }
        '\\' => {
            is_escaped = true;
            None
        }
        '"' => Some(at),
        _ => None,
    })?;
    Some((go_unquoted(&inner[..end])?, &inner[end + 1..]))
}

/// `strconv.Unquote` of what stands in double quotes.
fn go_unquoted(inner: &str) -> Option<String> {
    if inner.contains('\n') {
        return None;
    }
    let mut bytes: Vec<u8> = Vec::new();
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = &rest[at + 1..];
        let letter = escape.chars().next()?;
        let digits = |length: usize, radix| {
            let digits = escape.get(usize::from(radix == 16)..)?.get(..length)?;
            let is_digits = digits.chars().all(|c| c.is_digit(radix));
            is_digits.then(|| u32::from_str_radix(digits, radix).ok()).flatten()
        };
        let simple = match letter {
            'a' => Some(7),
            'b' => Some(8),
            'f' => Some(12),
            'n' => Some(b'\n'),
            'r' => Some(b'\r'),
            't' => Some(b'\t'),
            'v' => Some(11),
            '\\' | '"' => u8::try_from(letter).ok(),
            _ => None,
        };
        let length = match (simple, letter) {
            (Some(byte), _) => {
                bytes.push(byte);
                1
            }
            (None, 'x') => {
                bytes.push(u8::try_from(digits(2, 16)?).ok()?);
                3
            }
            (None, '0'..='7') => {
                bytes.push(u8::try_from(digits(3, 8)?).ok()?);
                3
            }
            (None, 'u' | 'U') => {
                let length = if letter == 'u' { 4 } else { 8 };
                let character = char::from_u32(digits(length, 16)?)?;
                bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                length + 1
            }
            _ => return None,
        };
        rest = &escape[length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> Result<String, String> {
        let matchers = parse(text)?;
        Ok(matchers.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
    }

    #[test]
    fn matchers_are_those_of_alertmanager() {
        for (text, written) in [
            (r#"severity="critical""#, r#"severity="critical""#),
            ("severity=critical", r#"severity="critical""#),
            (r#" severity = "critical" "#, r#"severity="critical""#),
            (r#"{severity="critical"}"#, r#"severity="critical""#),
            (r#"a!="b",c=~"d|e", f!~"g","#, r#"a!="b",c=~"d|e",f!~"g""#),
            (r#"a="b,c""#, r#"a="b,c""#),
            (r#"a="b\"c""#, r#"a="b\"c""#),
            (r#"a="b\\c""#, r#"a="b\\c""#),
            (r#"a=~"5..""#, r#"a=~"5..""#),
            (r#"a="""#, r#"a="""#),
            // Only the classic parser takes these.
            ("a=", r#"a="""#),
            ("a=b c", r#"a="b c""#),
            (r#"a=~"\d+""#, r#"a=~"\\d+""#),
            // Only the other one.
            (r#""a"="b""#, r#"a="b""#),
            (r#""a b"="c""#, r#""a b"="c""#),
            (r"a.b=c", r#""a.b"="c""#),
            ("ä=ö", r#""ä"="ö""#),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(written), "{text}");
        }
        for (text, words) in [
            ("", "holds no matcher"),
            ("{}", "holds no matcher"),
            ("severity", "not a matcher"),
            (r#"a="b" c="d""#, "not a matcher"),
            (r#"a="b"#, "not a matcher"),
            (r#"a="b"c"#, "not a matcher"),
            (r"=b", "not a matcher"),
            (r#"1a="b" x"#, "not a matcher"),
            (r#"a=~"(""#, "not a regular expression"),
            (r#"a=~"[""#, "not a regular expression"),
            (r#"a=~"*""#, "not a regular expression"),
            (r#"a="{{ .x }}""#, "template"),
            ("a=\"b\nc\"", "U+000A"),
            (r#"a="b\nc""#, "U+000A"),
            // A tabulator to one, a backslash and a letter to the other.
            (r#"a="b\tc""#, "differently"),
            (r#"a=~"\101""#, "differently"),
        ] {
            let problem = shown(text).unwrap_err();
            assert!(problem.contains(words), "{text}: {problem}");
        }
    }

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
            (r"[\p{Greek}[]", Some("["), Some("p")),
            (r"[\pN-]", Some("-"), Some("N")),
            (r"[\]a]", Some("]"), Some("\\")),
            (r"\[a", Some("[a"), Some("a")),
            (r"\\[a]", Some("\\a"), Some("a")),
            ("[[:alpha:][]", Some("["), Some("1")),
            ("[[:]", Some(":"), Some("a")),
            ("[a", None, None),
            ("[", None, None),
            ("[]", None, None),
        ] {
            let matcher = Matcher {
                name: "a".to_owned(),
                operator: Operator::Matches,
                value: pattern.to_owned(),
            };
            assert_eq!(matcher.check().is_ok(), matching.is_some(), "{pattern}");
            let Some(compiled) = matcher.pattern() else {
                assert_eq!(matching, None, "{pattern}");
                continue;
            };
            assert!(matching.is_some_and(|text| compiled.is_match(text)), "{pattern}");
            assert!(other.is_some_and(|text| !compiled.is_match(text)), "{pattern}");
        }
        assert_eq!(shown(r#"a=~"[a[]""#).as_deref(), Ok(r#"a=~"[a[]""#));
    }

    #[test]
    fn patterns_that_only_go_knows_are_left_to_mimir() {
        for text in [r#"a=~"x{""#, r#"a=~"{,5}""#, r#"a=~"\\Qa(b\\E""#] {
            assert!(parse(text).is_ok(), "{text}");
        }
    }

    proptest! {
        // Both parsers read what is written, and the same in it.
        #[test]
        fn what_is_written_is_read_alike_by_both(
            name in "[a-zA-Z_][a-zA-Z0-9_]{0,5}",
            operator in prop::sample::select(
                vec![Operator::Equal, Operator::NotEqual, Operator::Matches, Operator::MatchesNot]
            ),
            value in "[\\PC]{0,12}",
        ) {
            let matcher = Matcher { name, operator, value };
            let text = matcher.to_string();
            prop_assert_eq!(classic(&text), Some(vec![matcher.clone()]));
            prop_assert_eq!(utf8(&text), Some(vec![matcher]));
        }

        #[test]
        fn a_name_in_quotes_is_read_back(name in "\\PC{1,8}", value in "\\PC{0,8}") {
            let matcher = Matcher { name, operator: Operator::Equal, value };
            prop_assert_eq!(utf8(&matcher.to_string()), Some(vec![matcher]));
        }

        #[test]
        fn what_is_read_is_written_to_the_same(text in "[ab=!~\",\\\\{}n .*]{0,16}") {
            if let Ok(matchers) = parse(&text) {
                let written: Vec<String> = matchers.iter().map(ToString::to_string).collect();
                prop_assert_eq!(parse(&written.join(",")), Ok(matchers));
            }
        }

        // What has no class with such a character is compiled as it is written.
        #[test]
        fn a_pattern_without_classes_stays_as_it_is(pattern in "[a-z.*+?()|^$\\\\{},&~-]{0,16}") {
            prop_assert_eq!(in_our_syntax(&pattern), pattern);
        }

        #[test]
        fn no_pattern_panics(pattern in "(\\[|\\]|\\\\|\\^|-|&|~|:|[pPxd{}]|\\PC){0,24}") {
            let _ = in_our_syntax(&pattern);
        }

        #[test]
        fn no_text_panics(text in "(\"|\\\\|=|,|[xuU0-7]|\\PC){0,24}") {
            let _ = parse(&text);
        }
    }
}
