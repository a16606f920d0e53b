//! Matchers of labels, as Alertmanager writes them: `severity="critical"`, `team=~"a|b"`.
//!
//! Alertmanager has two parsers. The classic one (`pkg/labels/parse.go`) is Mimir's default; the one for
//! UTF-8 (`matcher/parse`) is an option of Mimir's, and takes other escapes. A text that one of them takes is
//! taken; one that they read differently is refused, because an upgrade would silently send alerts elsewhere.
//! What is written to Mimir is a form that both read alike.

use std::fmt;

use super::pattern::{Pattern, weight};
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

/// What the patterns of an organisation's routes may weigh together: their characters, with counted repetitions
/// written out. Mimir's Alertmanager, which all organisations share, compiles every one of them, and takes up to
/// 325 bytes for a character.
pub const MOST_PATTERN_WEIGHT: u64 = 256 << 10;
/// Matchers of one route.
pub const MOST_MATCHERS: usize = 32;

/// Reads a text: one matcher, or several with commas between. `room` is what patterns may still weigh ([`weight`]), and becomes
/// less by those of this text.
pub fn parse(text: &str, room: &mut u64) -> Result<Vec<Matcher>, String> {
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
    if matchers.len() > MOST_MATCHERS {
        return Err(format!("holds {} matchers; at most {MOST_MATCHERS}", matchers.len()));
    }
    let weights = matchers.iter().map(Matcher::weight);
    // What is refused below has been compiled, too.
    *room = room.checked_sub(weights.fold(0, u64::saturating_add)).ok_or_else(|| {
        format!(
            "has a regular expression that is too large with those of the organisation's other routes: together \
             they may have {MOST_PATTERN_WEIGHT} characters, with counted repetitions such as {{1000}} written out"
        )
    })?;
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
        if self.operator.is_pattern() { Pattern::check(&self.value) } else { Ok(()) }
    }

    /// What its pattern weighs; nothing if it has none.
    pub fn weight(&self) -> u64 {
        if self.operator.is_pattern() { weight(&self.value) } else { 0 }
    }

    /// Its pattern; none if it has none, or one that only Go knows.
    pub fn pattern(&self) -> Option<Pattern> {
        self.operator.is_pattern().then(|| Pattern::new(&self.value)).flatten()
    }
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

    fn room() -> u64 {
        MOST_PATTERN_WEIGHT
    }

    fn shown(text: &str) -> Result<String, String> {
        let matchers = parse(text, &mut room())?;
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

    // The leader once compiled `\w{300}` thousands of times, on the thread that keeps its lease.
    #[test]
    fn patterns_are_compiled_within_a_bound() {
        let mut left = room();
        let heavy = r#"a=~"\\w{300}""#;
        let read = (0..1_000).filter(|_| parse(heavy, &mut left).is_ok()).count();
        assert!((700..=900).contains(&read), "{read}");
        let refused = parse(heavy, &mut left).unwrap_err();
        assert!(refused.contains("too large with those of the organisation's other"), "{refused}");
        assert!(parse(r#"a=~"b|c",d="e""#, &mut left).is_ok(), "what still fits is taken");
        // What has a fault has been compiled, too, up to the fault.
        let mut left = room();
        assert!(parse(r#"a=~"\\w{300}",b=~"(""#, &mut left).is_err());
        assert!(left < room() - 300, "{left}");
        let many = vec!["a=b"; MOST_MATCHERS + 1].join(",");
        assert!(parse(&many, &mut left).unwrap_err().contains("holds 33 matchers; at most 32"));
        for unnamed in ["(?P<>a)", "(?<a.>b)", "(?<=a>b)", "(?P<\u{e9}>a)"] {
            let text = format!("a=~\"{unnamed}\"");
            assert!(parse(&text, &mut room()).is_err(), "{unnamed}");
        }
        // Go takes a thousand groups inside one another; what is too deep for us is Mimir's to judge.
        let deep = format!("a=~\"{}b{}\"", "(".repeat(100), ")".repeat(100));
        assert!(parse(&deep, &mut room()).is_ok());
    }

    #[test]
    fn patterns_that_only_go_knows_are_left_to_mimir() {
        for text in [
            r#"a=~"x{""#,
            r#"a=~"{,5}""#,
            r#"a=~"\\Qa(b\\E""#,
            r#"a=~"\\p{Greek}\\PN""#,
            r#"a=~"\\101""#,
        ] {
            assert!(parse(text, &mut room()).is_ok(), "{text}");
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
            if let Ok(matchers) = parse(&text, &mut room()) {
                let written: Vec<String> = matchers.iter().map(ToString::to_string).collect();
                prop_assert_eq!(parse(&written.join(","), &mut room()), Ok(matchers));
            }
        }

        #[test]
        fn no_text_panics(text in "(\"|\\\\|=|,|[xuU0-7]|\\PC){0,24}") {
            let _ = parse(&text, &mut room());
        }
    }
}
